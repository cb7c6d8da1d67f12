"""A state on disk is the state, or is refused; a run's newest checkpoint that is whole is the one that counts."""

import json
import math
import random
import re
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from helpers import last, same
from safetensors.torch import load_file, save, save_file

from fedecouple_lite import METHODS, checkpoint, engine, from_arrays, make, net_for, rounds, split
from fedecouple_lite.checkpoint import (
    Checkpoints,
    CheckpointWarning,
    NotWhole,
    OfAnotherRun,
    checkpoint_path,
    checkpoints_of,
    holds_state,
    load_state,
    remove_checkpoints,
    save_state,
)
from fedecouple_lite.engine import State, start
from fedecouple_lite.files import part_of, remove_abandoned, write_whole
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.phases import Derive
from fedecouple_lite.stacked import CannotStack

RUN = {"method": "FedRep", "setting": {"alpha": 0.5, "clients": 4}, "seed": 0}


def same_state(a, b):
    """Two states, equal to the bit, and in the order of their names; NaN is NaN."""
    parts = zip((a.server, *a.clients), (b.server, *b.clients), strict=True)
    tensors = all(same(here, there) and list(here) == list(there) for here, there in parts)
    rest = [(s.round, s.joined, s.origin, json.dumps(s.records)) for s in (a, b)]
    return tensors and rest[0] == rest[1]


@pytest.fixture(scope="module")
def trained(net, few):
    """A state of four clients after two rounds, one of them not joined yet, so that it has all that a file may hold."""
    federation = split(few, clients=4, partition="dirichlet", seed=1, alpha=0.5)
    state = last(rounds(make("fedecouple", epochs=1), net, federation, rounds=2, seed=4, participation=0.5))
    assert 0 < len(state.joined) < 4
    return state


# --- What comes back ---


@pytest.mark.parametrize("name", METHODS)
def test_a_state_comes_back_as_it_was_and_goes_on(net, federation, tmp_path, name):
    method = make(name, epochs=1)
    options = {"seed": 4, "participation": 0.5}
    state = last(rounds(method, net, federation, rounds=1, **options))
    assert 0 < len(state.joined) < len(federation)  # newcomers share their tensors
    save_state(state, tmp_path / "state", RUN)
    back = load_state(tmp_path / "state", RUN)
    assert same_state(state, back)
    whole = last(rounds(method, net, federation, rounds=3, **options))
    resumed = last(rounds(method, net, federation, rounds=3, state=back, **options))
    assert same(resumed.server, whole.server)
    for here, there in zip(resumed.clients, whole.clients, strict=True):
        assert same(here, there)


def test_a_state_before_the_first_round_can_be_kept(net, federation, tmp_path):
    before = start(make("fedecouple"), net, federation, seed=2)
    save_state(before, tmp_path / "state", RUN)
    back = load_state(tmp_path / "state", RUN)
    assert back.round == 0 and back.joined == frozenset() and same(back.clients[3], before.clients[3])
    assert back.records == () and back.origin == before.origin


def test_records_come_back_with_their_nan_and_a_state_made_by_hand_needs_no_origin(tmp_path):
    record = {"round": 3, "loss": float("nan"), "personal": 0.1 + 0.2, "accuracies": [1 / 3, float("nan")], "steps": 7}
    save_state(State(3, {"w": torch.ones(2)}, ({}, {}), records=(record,)), tmp_path / "state", RUN)
    back = load_state(tmp_path / "state", RUN)
    (there,) = back.records
    assert math.isnan(there["loss"]) and math.isnan(there["accuracies"][1])
    assert (there["personal"], there["accuracies"][0], there["steps"]) == (0.1 + 0.2, 1 / 3, 7)
    assert list(there) == list(record) and back.origin is None and back.clients == ({}, {})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_every_dtype_and_shape_comes_back(tmp_path, dtype):
    values = torch.tensor([[0, 1, 3], [1, 0, 1]]).to(dtype)
    server = {"b/c.d": values, "a": values[0, 0], "empty": values[:0], "turned": values.T, "view": values[1]}
    save_state(State(0, server, ()), tmp_path / "state", RUN)
    back = load_state(tmp_path / "state", RUN).server
    assert same(back, server) and list(back) == list(server)
    assert all(back[name].dtype == dtype and back[name].shape == server[name].shape for name in server)


def test_not_a_number_and_infinity_come_back_to_the_bit(tmp_path):
    values = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    save_state(State(0, {"w": values}, ()), tmp_path / "state", RUN)
    back = load_state(tmp_path / "state", RUN).server["w"]
    assert torch.equal(back.view(torch.int32), values.view(torch.int32))


def test_a_tensor_that_clients_share_is_stored_once_and_shared_again(net, federation, tmp_path):
    """A thousand newcomers cost as much as one; and a tensor that all got alike stays one, which stacks look at."""
    state = start(make("fedbabu"), net, federation)
    save_state(state, tmp_path / "many", RUN)
    save_state(replace(state, clients=state.clients[:1]), tmp_path / "one", RUN)
    tensors = [len(load_file(tmp_path / name)) for name in ("many", "one")]
    assert tensors[0] == tensors[1]
    back = load_state(tmp_path / "many", RUN)
    assert all(back.clients[0][name] is back.clients[3][name] for name in state.clients[0])


def test_what_is_loaded_lies_where_pytorch_puts_its_own_tensors(trained, tmp_path):
    """Some matrix products round by where their inputs lie."""
    save_state(trained, tmp_path / "state", RUN)
    back = load_state(tmp_path / "state", RUN)
    assert all(tensor.data_ptr() % 64 == 0 for tensors in (back.server, *back.clients) for tensor in tensors.values())
    written = (tmp_path / "state").read_bytes()
    for tensor in back.server.values():
        tensor.zero_()
    assert (tmp_path / "state").read_bytes() == written


def test_saving_changes_nothing_and_other_programs_can_read_the_tensors(trained, tmp_path):
    save_state(trained, tmp_path / "state", RUN)
    tensors = load_file(tmp_path / "state")
    assert same({name.removeprefix("server/"): t for name, t in tensors.items() if "server/" in name}, trained.server)
    save_state(trained, tmp_path / "again", RUN)
    assert same_state(load_state(tmp_path / "again", RUN), trained)


def backends_of_stacks(monkeypatch):
    """What becomes of every stack from now on."""
    tried = []
    really = engine.stack_rounds

    def noted(*arguments):
        try:
            results = really(*arguments)
        except CannotStack:
            tried.append("cannot")
            raise
        tried.append("stacked")
        return results

    monkeypatch.setattr(engine, "stack_rounds", noted)
    return tried


@dataclass(frozen=True)
class PerBatch(FedAvg):
    """The loss of one image depends on the rest of its batch: it cannot be stacked."""

    def loss(self, net, client, download, x, y):
        losses = super().loss(net, client, download, x, y)
        return losses + self.weight(client) * losses.sum()

    def weight(self, client):
        return 0.1


@dataclass(frozen=True)
class PerBatchAtFirst(PerBatch):
    """It cannot in the first round, and later it could."""

    def init(self, start):
        return {**start, "early.flag": torch.ones(())}

    def weight(self, client):
        return 0.1 * client["early.flag"]

    def phases(self):
        return (*super().phases(), Derive(self.later))

    def later(self, net, z, y, valid):
        return {"early.flag": 0 * z.sum()}


@pytest.mark.parametrize("kind", [PerBatch, PerBatchAtFirst])
def test_a_backend_that_was_given_up_is_not_taken_up_again(net, federation, tmp_path, monkeypatch, kind):
    tried = backends_of_stacks(monkeypatch)
    whole = last(rounds(kind(epochs=1), net, federation, rounds=3))
    assert tried == ["cannot"]
    save_state(last(rounds(kind(epochs=1), net, federation, rounds=1)), tmp_path / "state", RUN)
    back = load_state(tmp_path / "state", RUN)
    tried.clear()
    resumed = last(rounds(kind(epochs=1), net, federation, rounds=3, state=back))
    assert "stacked" not in tried
    assert same(resumed.server, whole.server) and resumed.records[-1]["loss"] == whole.records[-1]["loss"]


# --- What is refused ---


def test_a_file_of_another_run_says_what_differs(trained, tmp_path):
    path = tmp_path / "state"
    save_state(trained, path, RUN)
    for other, words in (
        ({"method": "FedAvg"}, "another method (FedRep, not FedAvg)"),
        ({"seed": 1}, "another seed (0, not 1)"),
        ({"setting": {"alpha": 0.1, "clients": 5}}, "another setting (alpha 0.5, not 0.1; clients 4, not 5)"),
        ({"setting": {"share": 0.2}}, "another setting"),
        ({"net": "abc"}, "another net (None, not abc)"),
        ({"seed": 1, "method": "FedAvg"}, "another method (FedRep, not FedAvg), another seed (0, not 1)"),
    ):
        with pytest.raises(OfAnotherRun, match=re.escape(f"{path} is of another run: {words}") + "$"):
            load_state(path, RUN | other)
        assert not holds_state(path, RUN | other)
    assert holds_state(path, RUN) and holds_state(path, {**RUN, "setting": {"clients": 4, "alpha": 0.5}})


def test_a_state_of_another_method_is_refused_by_the_engine_too(net, federation, trained, tmp_path):
    save_state(trained, tmp_path / "state", RUN)
    back = load_state(tmp_path / "state", RUN)
    with pytest.raises(ValueError, match="state belongs to another method"):
        next(rounds(make("fedavg"), net, federation, rounds=3, state=back))


def test_a_file_that_is_not_there_holds_no_state(tmp_path):
    assert not holds_state(tmp_path / "state", RUN)
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "state", RUN)
    with pytest.raises(OSError):
        load_state(tmp_path, RUN)


def of_format(number):
    """A damage: the file as a library that writes another format would write it, its checksum right."""

    def damage(path, monkeypatch):
        state = load_state(path, RUN)
        with monkeypatch.context() as change:
            change.setattr(checkpoint, "FORMAT", number)
            save_state(state, path, RUN)

    return damage


def with_right_checksum(change):
    """A damage: the file's tensors changed by somebody who computes the checksum anew."""

    def damage(path, monkeypatch):
        state = load_state(path, RUN)
        really = checkpoint.save

        def changed(tensors, metadata):
            return really(change(tensors), metadata)

        with monkeypatch.context() as changed_code:
            changed_code.setattr(checkpoint, "save", changed)
            save_state(state, path, RUN)

    return damage


def written(content):
    return lambda path, monkeypatch: path.write_bytes(content)


def without_metadata(path, monkeypatch):
    save_file({name: tensor.clone() for name, tensor in load_file(path).items()}, path)


def without(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def as_other(dtype):
    return lambda tensors: {key: tensor.to(dtype) for key, tensor in tensors.items()}


FORGED = {"format": "1", "checksum": "0" * 64, "about": "{}"}
NO_STATE = "is not the file of a state"
SOMETHING_ELSE = {
    "empty": (written(b""), NO_STATE),
    "one byte": (written(b"\0"), NO_STATE),
    "text": (written(b"Not a state, but long enough for a header's length."), NO_STATE),
    "json": (written(b'{"finished": true}'), NO_STATE),
    "pickle": (written(b"\x80\x04cos\nsystem\n(S'true'\ntR."), NO_STATE),
    "a header of 2^63 bytes": (written((2**63).to_bytes(8, "little") + b'{"a":1}'), NO_STATE),
    "a header of 2^64 - 1 bytes": (written(b"\xff" * 200), NO_STATE),
    "safetensors": (without_metadata, NO_STATE),
    "safetensors of somebody else": (written(save({"w": torch.ones(3)}, {"checksum": "mine"})), NO_STATE),
    "an invented checksum": (written(save({"w": torch.ones(3)}, FORGED)), "is damaged: it was cut short or altered"),
    "an older format": (of_format(0), "has format 0; this version of the library reads 1"),
    "a newer format": (of_format(2), "has format 2; this version of the library reads 1"),
    "a tensor gone": (with_right_checksum(without("clients/0/classifier.bias")), "names, shapes or dtypes differ"),
    "another dtype": (with_right_checksum(as_other(torch.float64)), "names, shapes or dtypes differ"),
    "another shape": (
        with_right_checksum(lambda tensors: {name: tensor[None] for name, tensor in tensors.items()}),
        "names, shapes or dtypes differ",
    ),
    "a name more": (with_right_checksum(lambda tensors: tensors | {"x": torch.ones(1)}), "shapes or dtypes differ"),
}


@pytest.mark.parametrize("what", SOMETHING_ELSE)
def test_a_file_of_something_else_is_refused(trained, tmp_path, monkeypatch, what):
    damage, message = SOMETHING_ELSE[what]
    path = tmp_path / "state"
    save_state(trained, path, RUN)
    damage(path, monkeypatch)
    with pytest.raises(NotWhole, match=message) as error:
        load_state(path, RUN)
    assert str(path) in str(error.value)


def test_a_length_that_promises_gigabytes_costs_none(trained, tmp_path):
    """In a process that may have no more memory than it has."""
    pytest.importorskip("resource")
    save_state(trained, tmp_path / "state", RUN)
    content = (tmp_path / "state").read_bytes()
    for number, length in enumerate((2**33, 2**40, 99_999_999)):
        (tmp_path / str(number)).write_bytes(length.to_bytes(8, "little") + content[8:])
    code = f"""
import resource
from pathlib import Path
from fedecouple_lite.checkpoint import NotWhole, load_state
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
for number in "012":
    try:
        load_state(Path({str(tmp_path)!r}, number), {{}})
    except NotWhole:
        print("refused")
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("how much memory a process has is read from /proc")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["refused"] * 3, done.stderr


def test_a_thousand_truncations_and_flipped_bits_are_refused_or_change_nothing(trained, tmp_path):
    """Half of the flips fall into the header and what is written there, which is a small part of the file."""
    path = tmp_path / "state"
    save_state(trained, path, RUN)
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    assert 8 < header_end < len(content)
    draw = random.Random(0)
    damaged = [content[: draw.randrange(len(content))] for _ in range(200)]
    damaged += [content[:end] for end in range(20)] + [content[:-end] for end in range(1, 20)]
    bits = [draw.randrange(8 * len(content)) for _ in range(350)]
    bits += [draw.randrange(8 * header_end) for _ in range(350)] + list(range(64))
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(changed))
    assert len(damaged) > 1000
    refused = 0
    for spoilt in damaged:
        path.write_bytes(spoilt)
        try:
            state = load_state(path, RUN)
        except NotWhole:
            refused += 1
        else:
            assert same_state(state, trained)
    assert refused == len(damaged)  # the checksum is over every byte
    path.write_bytes(content)
    assert same_state(load_state(path, RUN), trained)


def test_several_flips_insertions_and_parts_of_another_state_are_refused(trained, tmp_path):
    path = tmp_path / "state"
    save_state(replace(trained, round=1), path, RUN)
    other = path.read_bytes()
    save_state(trained, path, RUN)
    content = path.read_bytes()
    draw = random.Random(1)
    for _ in range(100):
        place, length = draw.randrange(len(content)), draw.randrange(1, 200)
        noise = draw.randbytes(length)
        spoilt = [
            content[:place] + noise + content[place + length :],
            content[:place] + noise + content[place:],
            content[:place] + content[place + length :],
            content[:place] + bytes(min(length, len(content) - place)) + content[place + length :],
            content[:place] + other[place:],
        ]
        for changed in spoilt:
            if changed in (content, other):
                continue
            path.write_bytes(changed)
            with pytest.raises(NotWhole):
                load_state(path, RUN)


def test_a_state_whose_records_do_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGEST_HEADER", 2000)
    state = State(5, {}, (), records=({"accuracies": [0.5] * 1000},))
    with pytest.raises(
        ValueError, match=r"state after round 5 has .* bytes of names and records; .* evaluate less often"
    ):
        save_state(state, tmp_path / "state", RUN)
    assert list(tmp_path.iterdir()) == []


def test_the_largest_header_is_what_safetensors_reads():
    """Of one byte more it says so; of as many, that they are not there."""
    messages = []
    for length in (checkpoint.LARGEST_HEADER, checkpoint.LARGEST_HEADER + 1):
        with pytest.raises(Exception, match="header") as error:
            checkpoint.load(length.to_bytes(8, "little") + b"{}")
        messages.append(str(error.value))
    assert "too large" in messages[1] and "too large" not in messages[0]


# --- Written whole ---


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_part(trained, tmp_path, monkeypatch):
    path = tmp_path / "state"
    save_state(trained, path, RUN)

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedecouple_lite.files.send_to_disk", full)
    with pytest.raises(OSError, match="No space left on device"):
        save_state(replace(trained, round=9), path, RUN)
    assert [file.name for file in tmp_path.iterdir()] == ["state"]
    assert load_state(path, RUN).round == 2


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_afterwards(tmp_path, monkeypatch):
    done = []
    path = tmp_path / "file"

    def note(what, really):
        def noted(*arguments):
            done.append((what, path.exists()))
            return really(*arguments)

        return noted

    import fedecouple_lite.files as files

    for name in ("send_to_disk", "send_folder_to_disk"):
        monkeypatch.setattr(files, name, note(name, getattr(files, name)))
    write_whole(path, lambda part: part.write_text("content"))
    assert done == [("send_to_disk", False), ("send_folder_to_disk", True)] and path.read_text() == "content"


def test_a_folder_that_cannot_be_opened_is_no_reason_to_fail(tmp_path, monkeypatch):
    """As on Windows."""

    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fedecouple_lite.files.send_folder_to_disk", refuse)
    write_whole(tmp_path / "file", lambda part: part.write_text("content"))
    assert (tmp_path / "file").read_text() == "content"


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stale = [f"run.json.{gone.pid}-1.part", f"run.ckpt-00001.safetensors.{gone.pid}-77.part", f"run.{gone.pid}-2.part"]
    kept = [
        part_of(tmp_path / "run.json").name,  # this process is still there
        f"runner.json.{gone.pid}-1.part",
        f"other.json.{gone.pid}-1.part",
        f"run.json.{gone.pid}.part",
        f"run.json.{10**30}-1.part",
        "run.json",
        "run.ckpt-00001.safetensors",
    ]
    for name in stale + kept:
        (tmp_path / name).write_text("")
    remove_abandoned(tmp_path / "run.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(kept)


# --- A run's checkpoints ---


def after(state, round):
    return replace(state, round=round)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_checkpoint_is_saved_every_so_many_rounds_and_the_last_ones_kept(trained, tmp_path):
    checkpoints = Checkpoints(tmp_path / "run.json", RUN, every=3)
    for round in range(1, 12):
        checkpoints.offer(after(trained, round))
    assert names(tmp_path) == ["run.ckpt-00006.safetensors", "run.ckpt-00009.safetensors"]
    assert list(checkpoints_of(tmp_path / "run.json")) == [9, 6]
    assert Checkpoints(tmp_path / "run.json", RUN).latest().round == 9
    remove_checkpoints(tmp_path / "run.json")
    assert names(tmp_path) == [] and Checkpoints(tmp_path / "run.json", RUN).latest() is None


def test_as_many_are_kept_as_are_asked_for(trained, tmp_path):
    checkpoints = Checkpoints(tmp_path / "run.json", RUN, every=1, keep=3)
    for round in range(1, 8):
        checkpoints.offer(after(trained, round))
    assert list(checkpoints_of(tmp_path / "run.json")) == [7, 6, 5]
    with pytest.raises(ValueError, match="keep=0 must be a whole number >= 1"):
        Checkpoints(tmp_path / "run.json", RUN, keep=0)
    for every in (0, -1, 1.5, "2", True):
        with pytest.raises(ValueError, match=f"checkpoint_every={every!r} must be a whole number >= 1, or None"):
            Checkpoints(tmp_path / "run.json", RUN, every=every)


def test_an_interrupt_right_after_a_checkpoint_saves_no_second_one_and_removes_none(trained, tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "run.json", RUN, every=1)
    for round in (1, 2):
        checkpoints.offer(after(trained, round))
    before = names(tmp_path)
    monkeypatch.setattr(checkpoint, "save_state", None)  # it cannot be called
    checkpoints.save(after(trained, 2))
    assert names(tmp_path) == before and list(checkpoints_of(tmp_path / "run.json")) == [2, 1]


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_is_taken(trained, tmp_path):
    checkpoints = Checkpoints(tmp_path / "run.json", RUN, every=1)
    for round in (1, 2, 3):
        checkpoints.offer(after(trained, round))
    newest = checkpoint_path(tmp_path / "run.json", 3)
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = Checkpoints(tmp_path / "run.json", RUN, every=1)
    with pytest.warns(CheckpointWarning, match="00003.safetensors is damaged: it was cut short .* It is passed over"):
        assert same_state(resumed.latest(), after(trained, 2))
    resumed.offer(after(trained, 3))
    assert list(checkpoints_of(tmp_path / "run.json")) == [3, 2]
    resumed.offer(after(trained, 4))
    assert list(checkpoints_of(tmp_path / "run.json")) == [4, 3] and holds_state(newest, RUN)


def test_a_damaged_one_is_not_counted_among_the_last_whole_ones(trained, tmp_path):
    for round in (1, 2):
        Checkpoints(tmp_path / "run.json", RUN, every=1, keep=9).save(after(trained, round))
        save_state(after(trained, 1), checkpoint_path(tmp_path / "run.json", 1), RUN)
    checkpoint_path(tmp_path / "run.json", 2).write_bytes(b"")
    resumed = Checkpoints(tmp_path / "run.json", RUN, every=1)
    with pytest.warns(CheckpointWarning):
        assert resumed.latest().round == 1
    resumed.save(after(trained, 5))
    assert list(checkpoints_of(tmp_path / "run.json")) == [5, 1]


def test_where_all_are_damaged_there_is_nothing_to_go_on_from(tmp_path):
    for round in (1, 2):
        checkpoint_path(tmp_path / "run.json", round).write_bytes(b"")
    with pytest.warns(CheckpointWarning) as warned:
        assert Checkpoints(tmp_path / "run.json", RUN).latest() is None
    assert len(warned) == 2


def test_a_checkpoint_of_another_run_is_refused_with_what_to_do(trained, tmp_path):
    Checkpoints(tmp_path / "run.json", RUN, every=1).offer(trained)
    with pytest.raises(OfAnotherRun, match=r"of another run: another seed .* Delete it, or begin anew"):
        Checkpoints(tmp_path / "run.json", RUN | {"seed": 1}).latest()
    assert list(checkpoints_of(tmp_path / "run.json")) == [2]


def test_a_run_that_begins_anew_leaves_another_s_checkpoints_until_it_has_its_own(trained, tmp_path):
    old = Checkpoints(tmp_path / "run.json", RUN, every=1)
    for round in (4, 8):
        old.offer(after(trained, round))
    new = Checkpoints(tmp_path / "run.json", RUN | {"seed": 1}, every=6)
    for round in range(1, 6):
        new.offer(after(trained, round))
    assert list(checkpoints_of(tmp_path / "run.json")) == [8, 4]
    new.offer(after(trained, 6))
    assert list(checkpoints_of(tmp_path / "run.json")) == [6]


def test_checkpoints_of_other_runs_beside_it_are_left_alone(trained, tmp_path):
    mine = tmp_path / "run[1].json"
    others = ["run1.ckpt-00001.safetensors", "run[1].ckpt-1.safetensors", "run[1].ckpt-00001.safetensors.txt"]
    for name in others:
        (tmp_path / name).write_text("")
    checkpoints = Checkpoints(mine, RUN, every=1)
    checkpoints.offer(trained)
    assert list(checkpoints_of(mine)) == [2]
    remove_checkpoints(mine)
    assert names(tmp_path) == sorted(others)


def test_rounds_are_in_order_also_where_their_numbers_are_longer(trained, tmp_path):
    checkpoints = Checkpoints(tmp_path / "run.json", RUN, every=1)
    for round in (99_999, 100_000):
        checkpoints.offer(after(trained, round))
    assert Checkpoints(tmp_path / "run.json", RUN).latest().round == 100_000


def test_by_time_a_checkpoint_is_due_after_half_a_minute_and_takes_a_twentieth_of_the_time(
    trained, tmp_path, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr(checkpoint, "perf_counter", lambda: now[0])
    costs = [1.0]
    really = checkpoint.save_state

    def slow(*arguments):
        now[0] += costs[0]
        really(*arguments)

    monkeypatch.setattr(checkpoint, "save_state", slow)
    checkpoints = Checkpoints(tmp_path / "run.json", RUN)
    saved = []
    for round in range(1, 200):
        now[0] += 1
        if round == 70:
            costs[0] = 4.0
        checkpoints.offer(after(trained, round))
        newest = next(iter(checkpoints_of(tmp_path / "run.json")), None)
        if newest == round:
            saved.append(round)
    assert saved == [30, 60, 90, 170]  # after four seconds of saving 80 of training


def test_a_checkpoint_by_time_that_cannot_be_written_is_said_once_and_one_asked_for_is_an_error(
    trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    nowhere = tmp_path / "not there" / "run.json"
    checkpoints = Checkpoints(nowhere, RUN)
    with pytest.warns(CheckpointWarning, match="could not be written: .* The run goes on without it") as warned:
        for round in (1, 2, 3):
            checkpoints.offer(after(trained, round))
            time.sleep(0.01)
    assert len(warned) == 1
    with pytest.raises(FileNotFoundError):
        Checkpoints(nowhere, RUN, every=1).offer(trained)


def test_a_checkpoint_that_another_process_removes_is_no_error(trained, tmp_path, monkeypatch):
    """Two comparisons in one folder: the first to finish removes the checkpoints of both."""
    for round in (1, 2):
        save_state(after(trained, round), checkpoint_path(tmp_path / "run.json", round), RUN)
    really = checkpoint.load_state

    def removed(path, *others):
        remove_checkpoints(tmp_path / "run.json")
        return really(path, *others)

    monkeypatch.setattr(checkpoint, "load_state", removed)
    assert Checkpoints(tmp_path / "run.json", RUN).latest() is None
    remove_checkpoints(tmp_path / "run.json")


def test_two_threads_may_save_the_same_checkpoint_at_once(trained, tmp_path):
    both = [Checkpoints(tmp_path / "run.json", RUN, every=1) for _ in range(2)]
    failed = []

    def save_many(checkpoints):
        try:
            for round in range(1, 30):
                checkpoints.save(after(trained, round))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=save_many, args=(checkpoints,)) for checkpoints in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert all("safetensors.part" not in name and not name.endswith(".part") for name in names(tmp_path))


def test_a_cnn_s_state_on_larger_images_goes_on_to_the_bit(tmp_path):
    """Larger images lie channels last in memory; weights do not."""
    images = torch.randint(0, 256, (60, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    labels = (torch.arange(60) % 10).numpy()
    data = from_arrays("large", images, labels, images[:0], labels[:0], range(10))
    federation = split(data, clients=3, partition="iid", seed=0)
    net = net_for(data.in_shape, 10)
    method = make("fedrep", epochs=1)
    for backend in ("vmap", "threads"):
        options = {"backend": backend}
        save_state(last(rounds(method, net, federation, rounds=1, **options)), tmp_path / backend, RUN)
        back = load_state(tmp_path / backend, RUN)
        resumed = last(rounds(method, net, federation, rounds=2, state=back, **options))
        whole = last(rounds(method, net, federation, rounds=2, **options))
        assert same(resumed.server, whole.server) and resumed.records[-1]["loss"] == whole.records[-1]["loss"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_state_of_a_gpu_comes_back_to_it_and_to_the_processor(net, few, tmp_path):
    federation = split(few, clients=4, partition="dirichlet", seed=1, alpha=0.5).to("cuda")
    state = last(rounds(make("fedecouple", epochs=1), net, federation, rounds=1))
    save_state(state, tmp_path / "state", RUN)
    assert same_state(load_state(tmp_path / "state", RUN, "cuda"), state)
    back = load_state(tmp_path / "state", RUN)
    assert all(tensor.device.type == "cpu" for tensor in back.server.values())


def test_the_origin_is_kept_word_by_word(trained, tmp_path):
    save_state(trained, tmp_path / "state", RUN)
    back = load_state(tmp_path / "state", RUN)
    assert asdict(back.origin) == asdict(trained.origin) and back.origin.method.endswith("FedeCouple")
