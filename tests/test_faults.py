"""Clients that drop out, come late or send nonsense: the others' round is as if they had not been there, the record
says who they were, and nothing that is not finite, or of another form, reaches the server."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from helpers import copied, last, same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedecouple_lite import METHODS, DecoupledNet, engine, from_arrays, load, make, rounds, split
from fedecouple_lite.client import ClientResult, LocalData, Stopped
from fedecouple_lite.engine import TRAIN, Forms, inspect, start, train_around_failures
from fedecouple_lite.faults import (
    ARRIVED,
    HOW,
    Broken,
    Deadline,
    DropAfter,
    DropBefore,
    Fault,
    InjectedFault,
    Outcome,
    TooFewUploads,
    Turn,
    form_of_upload,
)
from fedecouple_lite.methods import FedAvg, FedPer
from fedecouple_lite.stacked import CannotStack
from fedecouple_lite.tensors import pick

QUICK = {"lr": 0.05, "epochs": 1, "batch_size": 8}
CASES = {name: {} for name in METHODS} | {
    "fedecouple, joint": {"coupling": "joint"},
    "fedecouple, similarity": {"aggregation": "similarity"},
}
CLIENTS = 5
NET = DecoupledNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh()), nn.Linear(6, 10), (1, 8, 8))


def few_digits():
    """60 digits over five clients, of 12 each."""
    digits = load("digits")
    x, y = digits.x[:60, 0].numpy(), digits.y[:60].numpy()
    return split(from_arrays("few", x, y, x[:0], y[:0], range(10)), CLIENTS, "iid", test_share=0.3)


FEDERATION = few_digits()


def method_of(case):
    name = case.split(",")[0]
    tuning = {"fine_tune_epochs": 1} if name in ("fedavg_ft", "fedbabu") else {}
    return make(name, **QUICK, **CASES[case], **tuning)


def run(case, until=1, federation=FEDERATION, backend="loop", **options):
    """The state after so many rounds."""
    method = method_of(case) if isinstance(case, str) else case
    return last(rounds(method, NET, federation, rounds=until, backend=backend, **options))


def without(*clients):
    """The federation in which these have no images to train on, and so take no part."""
    nothing = torch.zeros(0, dtype=torch.int64)
    train = tuple(nothing if k in clients else index for k, index in enumerate(FEDERATION.train))
    return replace(FEDERATION, train=train)


@cache
def plain(case, until=1, absent=(), backend="loop", participation=1.0):
    """A run without faults, in which some have no images; made once."""
    return run(case, until, without(*absent), backend, participation=participation)


def equal(a, b):
    return same(a.server, b.server) and all(same(x, y) for x, y in zip(a.clients, b.clients, strict=True))


def is_finite(state):
    return all(torch.isfinite(t).all() for tensors in (state.server, *state.clients) for t in tensors.values())


def figures(state):
    """All records, but for the time and what only a run with faults says; as text, in which NaN equals NaN."""
    return str([{k: v for k, v in record.items() if k not in ("seconds", "faults")} for record in state.records])


@dataclass(frozen=True)
class Lost(Fault):
    """These clients' uploads are lost."""

    clients: tuple[int, ...]

    def after(self, turn, result):
        return Outcome("lost" if turn.client in self.clients else ARRIVED, result)


@dataclass(frozen=True)
class Away(Fault):
    """These clients are away."""

    clients: tuple[int, ...]

    def before(self, turn):
        return Outcome("away") if turn.client in self.clients else None


NOBODY = [DropBefore(0), DropAfter(0.0), Deadline(10**6), Broken([])]


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("case", CASES)
def test_faults_that_strike_nobody_change_nothing_to_the_bit(case, backend):
    options = {"until": 2 if backend == "loop" else 1, "participation": 0.8, "backend": backend}
    before = plain(case, **options)
    with_faults = run(case, faults=NOBODY, min_uploads=4, **options)
    assert equal(before, with_faults) and figures(before) == figures(with_faults)
    assert before.joined == with_faults.joined
    assert with_faults.records[-1]["faults"] == {"away": [], "lost": [], "late": [], "refused": [], "why": []}


@pytest.mark.parametrize("case", CASES)
def test_who_is_away_stays_as_it_was_and_the_others_go_on_as_if_it_were_not_there(case):
    state = run(case, faults=[Away((1, 3))], min_uploads=3)
    assert state.records[-1]["faults"] == {"away": [1, 3], "lost": [], "late": [], "refused": [], "why": []}
    assert equal(state, plain(case, absent=(1, 3))) and state.joined == {0, 2, 4}


@pytest.mark.parametrize("case", CASES)
def test_whose_upload_is_lost_keeps_what_it_learned_and_has_taken_part(case):
    state, whole = run(case, faults=[Lost((1, 3))]), plain(case)
    assert state.records[-1]["faults"] == {"away": [], "lost": [1, 3], "late": [], "refused": [], "why": []}
    assert same(state.server, plain(case, absent=(1, 3)).server)
    assert all(same(a, b) for a, b in zip(state.clients, whole.clients, strict=True))
    assert state.joined == whole.joined == set(range(CLIENTS))


@pytest.mark.parametrize("case", CASES)
def test_who_comes_after_the_deadline_is_late_and_keeps_what_it_learned(case):
    whole = plain(case)
    steps = whole.records[-1]["steps"] / CLIENTS  # all have equally many images
    deadline = Deadline(steps, spread=0.5)
    state = run(case, faults=[deadline])
    late = [k for k in range(CLIENTS) if deadline.speed(Turn(0, 0, 1, k)) < 1]
    assert state.records[-1]["faults"]["late"] == late and 0 < len(late) < CLIENTS
    assert same(state.server, plain(case, absent=tuple(late)).server)
    assert all(same(a, b) for a, b in zip(state.clients, whole.clients, strict=True))


@cache
def second_round_of_the_others(case):
    """After a first round of all, one without client 2."""
    before = replace(plain(case), origin=None)  # it is of another federation
    return run(case, until=2, state=before, federation=without(2))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", CASES)
def test_who_is_broken_is_refused_and_stays_as_before_the_round(case, how):
    """In its first round, and in a later one."""
    unbreakable = case == "local" and how in ("shape", "missing", "dtype")  # its upload holds no tensor to break
    before = plain(case)
    first = run(case, faults=[Broken([2], how)], min_uploads=4 if not unbreakable else 5)
    later = run(case, until=2, state=before, faults=[Broken([2], how)], min_uploads=4)
    if unbreakable:
        assert equal(first, before) and first.records[-1]["faults"]["refused"] == []
        return
    assert equal(first, plain(case, absent=(2,))) and first.joined == {0, 1, 3, 4}
    assert same(later.clients[2], before.clients[2]) and later.joined == before.joined
    assert not same(later.clients[1], before.clients[1])
    assert same(later.server, second_round_of_the_others(case).server)
    for state in (first, later):
        assert is_finite(state)
        report = state.records[-1]["faults"]
        assert list(report["refused"]) == [2] and report["away"] == report["lost"] == report["late"] == []


REASONS = {
    "raises": (InjectedFault, "client 2 fails in round 2"),
    "nan": (FloatingPointError, r"\w+, client 2, round 2: \S+ is no longer finite; try an lr below 0.05"),
    "shape": (ValueError, r"\w+, client 2, round 2: its upload holds \S+ of shape \(1, .*\), not \("),
    "missing": (ValueError, r"\w+, client 2, round 2: its upload lacks \S+"),
    "extra": (ValueError, r"\w+, client 2, round 2: its upload holds extra.0, which the method's uploads do not"),
    "dtype": (ValueError, r"\w+, client 2, round 2: its upload holds \S+ in torch.float64, not torch.float32"),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", CASES)
def test_without_a_number_of_uploads_the_first_broken_client_stops_the_run(case, how):
    if case == "local" and how in ("shape", "missing", "dtype"):
        return
    kind, message = REASONS[how]
    with pytest.raises(kind, match=message):
        run(case, until=2, state=plain(case), faults=[Broken([2, 4], how)])


@pytest.mark.parametrize("case", CASES)
def test_a_run_with_faults_resumed_equals_the_uninterrupted_one(case):
    faults = [DropBefore(0.2), DropAfter(0.2), Deadline(3), Broken([4], "nan")]
    options = {"faults": faults, "min_uploads": 0, "participation": 0.8}
    whole = run(case, until=3, **options)
    resumed = run(case, until=3, state=run(case, until=1, **options), **options)
    assert equal(whole, resumed) and figures(whole) == figures(resumed) and is_finite(whole)
    assert [r["faults"] for r in whole.records] == [r["faults"] for r in resumed.records]


@pytest.mark.parametrize("case", CASES)
def test_too_few_uploads_stop_the_run_and_say_who_failed_and_why(case):
    faults = [Away((0,)), Lost((1,)), Broken([2], "extra")]
    before = plain(case)
    name = type(method_of(case)).__name__
    message = (
        rf"{name}, round 2: 2 sound uploads of a cohort of 5, and min_uploads=3; away: 0; lost: 1; client 2 refused "
        rf"\(ValueError: {name}, client 2, round 2: its upload holds extra.0"
    )
    with pytest.raises(TooFewUploads, match=message):
        run(case, until=3, state=before, faults=faults, min_uploads=3)
    assert run(case, until=2, state=before, faults=faults, min_uploads=2).round == 2


def test_the_states_before_are_there_when_a_run_stops():
    @dataclass(frozen=True)
    class InRoundThree(Fault):
        def before(self, turn):
            return Outcome("away") if turn.round == 3 else None

    seen = []
    with pytest.raises(TooFewUploads, match="round 3: 0 sound uploads of a cohort of 5"):
        for state in rounds(method_of("fedavg"), NET, FEDERATION, rounds=4, faults=[InRoundThree()], min_uploads=1):
            seen.append(state)
    assert [state.round for state in seen] == [1, 2] and equal(seen[-1], plain("fedavg", until=2, backend="auto"))


def test_a_round_to_which_nobody_comes_may_pass():
    state = run("fedrep", until=2, faults=[DropBefore(1.0)], min_uploads=0)
    assert same(state.server, pick(NET.init(0), "extractor.")) and state.joined == frozenset()
    record = state.records[-1]
    assert record["faults"]["away"] == [0, 1, 2, 3, 4] and record["steps"] == 0 and np.isnan(record["loss"])


def test_a_record_counts_those_who_trained_and_were_not_refused():
    whole = plain("fedrep").records[-1]
    state = run("fedrep", faults=[Away((0,)), Lost((1,)), Broken([2])], min_uploads=1)
    record = state.records[-1]
    assert record["steps"] == whole["steps"] * 3 / CLIENTS and np.isfinite(record["loss"])
    assert record["upload_bytes"] == whole["upload_bytes"] and record["newcomers"] == 2


def test_only_a_run_with_faults_speaks_of_them():
    assert "faults" not in run("fedavg").records[-1]
    assert "faults" in run("fedavg", faults=[DropBefore(0)]).records[-1]
    assert "faults" in run("fedavg", min_uploads=0).records[-1]


# --- What is drawn ---


def away_in(fault, rounds_=200, seed=0, place=0):
    return [(t, k) for t in range(1, rounds_ + 1) for k in range(5) if fault.before(Turn(seed, place, t, k))]


def test_faults_are_drawn_by_seed_place_round_and_client_in_the_share_asked_for():
    fault = DropBefore(0.3)
    away = away_in(fault)
    assert away == away_in(fault)
    others = [away_in(fault, seed=1), away_in(fault, place=1)]
    assert len({str(drawn) for drawn in (away, *others)}) == 3
    for drawn in (away, *others):
        assert len(drawn) / 1000 == pytest.approx(0.3, abs=0.05)
        by_client = Counter(k for _, k in drawn)
        assert all(by_client[k] / 200 == pytest.approx(0.3, abs=0.11) for k in range(5))
    result = ClientResult({}, {}, torch.tensor(0.0), 3)
    lost = [
        (t, k) for t in range(1, 201) for k in range(5) if DropAfter(0.3).after(Turn(0, 1, t, k), result).fate == "lost"
    ]
    assert lost == away_in(fault, place=1)  # the same law, drawn alike


def test_speeds_are_log_normal_stay_with_a_client_and_are_all_one_without_spread():
    deadline = Deadline(10, spread=0.7)
    speeds = np.array([deadline.speed(Turn(0, 0, 1, k)) for k in range(2000)])
    assert np.median(speeds) == pytest.approx(1, abs=0.06) and np.log(speeds).std() == pytest.approx(0.7, rel=0.05)
    assert all(deadline.speed(Turn(0, 0, t, 7)) == speeds[7] for t in (1, 2, 50))
    assert {Deadline(10, spread=0).speed(Turn(0, 0, 1, k)) for k in range(9)} == {1.0}
    result = ClientResult({}, {}, torch.tensor(0.0), 10)
    for steps, fate in ((10, ARRIVED), (9.9, "late")):
        assert Deadline(steps, spread=0).after(Turn(0, 0, 1, 0), result).fate == fate


def test_the_first_fault_that_strikes_decides():
    faults = [Lost((1,)), Deadline(1e-9)]
    report = run("fedavg", faults=faults, min_uploads=0).records[-1]["faults"]
    assert report["lost"] == [1] and report["late"] == [0, 2, 3, 4]


@pytest.mark.parametrize("how", HOW)
def test_a_fault_changes_no_tensor_of_what_it_is_given(how):
    client, upload = NET.init(0), NET.init(1)
    before = copied(client), copied(upload)
    outcome = Broken([3], how).after(Turn(0, 0, 1, 3), ClientResult(client, upload, torch.tensor(0.5), 7))
    assert same(client, before[0]) and same(upload, before[1])
    assert outcome.fate == ARRIVED and outcome.result.steps == 7


# --- What reaches the server ---


@dataclass(frozen=True)
class Poison(Fault):
    """One number of one tensor of client 2 is not finite: of its upload, or of what stays with it."""

    name: str
    part: str
    value: float = float("inf")

    def after(self, turn, result):
        if turn.client != 2:
            return Outcome(ARRIVED, result)
        tensors = copied(getattr(result, self.part))
        tensors[self.name].view(-1)[-1] = self.value
        return Outcome(ARRIVED, result._replace(**{self.part: tensors}))


def places_in(method, client):
    """Every tensor of a client's upload and of the client, by (part, name)."""
    return [("upload", name) for name in method.upload(client)] + [("client", name) for name in client]


@pytest.mark.parametrize("case", CASES)
def test_no_single_number_that_is_not_finite_is_overlooked(case):
    """Whichever tensor it is in: of the upload, FedPAC's prototypes and statistics with it, or a private one."""
    method, state = method_of(case), start(method_of(case), NET, FEDERATION)
    client = plain(case).clients[2]
    sound = ClientResult(client, method.upload(client), torch.tensor(1.0), 3)
    forms = Forms(method, NET, FEDERATION)
    assert inspect(method, state, {2: Outcome(ARRIVED, sound)}, forms)[2].fate == ARRIVED
    for number, (part, name) in enumerate(places_in(method, client)):
        value = (float("nan"), float("inf"), -float("inf"))[number % 3]
        outcome = Poison(name, part, value).after(Turn(0, 0, 1, 2), sound)
        refused = inspect(method, state, {2: outcome}, forms)[2]
        assert refused.result is None and name in str(refused.error), (part, name)
    without_loss = sound._replace(loss=torch.tensor(float("nan")))
    assert "the loss is nan" in str(inspect(method, state, {2: Outcome(ARRIVED, without_loss)}, forms)[2].error)


@pytest.mark.parametrize("case", CASES)
def test_a_poisoned_number_of_what_only_this_method_sends_or_keeps_gets_nowhere(case):
    """The last tensor of the upload, and the last that stays: FedPAC's prototypes, FedeCouple's anchors, and such."""
    places = places_in(method_of(case), plain(case).clients[2])
    last_of_part = dict(places)
    for part, name in last_of_part.items():
        state = run(case, faults=[Poison(name, part)], min_uploads=1)
        assert list(state.records[-1]["faults"]["refused"]) == [2]
        assert equal(state, plain(case, absent=(2,)))


def test_a_client_that_is_late_with_a_poisoned_model_does_not_keep_it():
    for how_kept_back in (Lost((2,)), Deadline(1e-9)):
        state = run("fedper", faults=[Poison("classifier.weight", "client"), how_kept_back], min_uploads=0)
        assert 2 in state.records[-1]["faults"]["refused"] and is_finite(state)
        assert same(state.clients[2], NET.init(0))


def test_what_is_wrong_with_an_upload_that_is_lost_anyway_is_not_looked_at():
    """The client has what it learned, which is sound; the server has nothing of it."""
    for broken in (Poison("extractor.1.weight", "upload"), Broken([2], "extra")):
        state = run("fedper", faults=[broken, Lost((2,))], min_uploads=1)
        assert state.records[-1]["faults"] == {"away": [], "lost": [2], "late": [], "refused": [], "why": []}
        assert same(state.clients[2], plain("fedper").clients[2])
        assert same(state.server, plain("fedper", absent=(2,)).server)


some_fault = st.one_of(
    st.builds(DropBefore, st.floats(0, 1)),
    st.builds(DropAfter, st.floats(0, 1)),
    st.builds(Deadline, st.floats(0.5, 20), st.floats(0, 2)),
    st.builds(Broken, st.lists(st.integers(0, CLIENTS - 1)), st.sampled_from(HOW)),
)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(CASES)),
    st.lists(some_fault, max_size=4),
    st.integers(0, 4),
    st.integers(0, 10**6),
    st.sampled_from([0.8, 1.0]),
)
def test_whatever_goes_wrong_everything_stays_finite_and_everybody_is_accounted_for(case, faults, least, seed, part):
    states = rounds(
        method_of(case),
        NET,
        FEDERATION,
        rounds=2,
        seed=seed,
        backend="loop",
        participation=part,
        faults=faults,
        min_uploads=least,
    )
    try:
        for state in states:
            assert is_finite(state)
            report = state.records[-1]["faults"]
            unwell = [*report["away"], *report["lost"], *report["late"], *report["refused"]]
            assert len(unwell) == len(set(unwell)) <= round(CLIENTS * part) - least
    except TooFewUploads as error:
        assert f"min_uploads={least}" in str(error)


def test_a_server_that_is_not_finite_though_all_uploads_are_stops_the_run():
    @dataclass(frozen=True)
    class Divides(FedAvg):
        def aggregate(self, server, uploads, sizes):
            new = super().aggregate(server, uploads, sizes)
            return new | {"classifier.bias": new["classifier.bias"] / 0}

    message = r"Divides, round 1: after aggregating, the server's classifier\.bias is no longer finite"
    for options in ({}, {"min_uploads": 1}):
        with pytest.raises(FloatingPointError, match=message):
            run(Divides(**QUICK), **options)


# --- What a method's uploads look like ---


def test_the_form_of_an_upload_is_that_of_a_round_without_training():
    index = FEDERATION.train[0]
    data = LocalData(FEDERATION.data.images(index), FEDERATION.data.y[index], lambda epochs: [])
    for case in CASES:
        method = method_of(case)
        state = start(method, NET, FEDERATION)
        form = form_of_upload(method, NET, state.clients[0], method.send(state.server, 0), data)
        upload = method.upload(plain(case).clients[0])
        assert {name: (look.shape, look.dtype) for name, look in form.items()} == {
            name: (tuple(tensor.shape), tensor.dtype) for name, tensor in upload.items()
        }


def test_an_upload_that_is_no_tensors_by_name_is_refused():
    @dataclass(frozen=True)
    class Numbers(FedAvg):
        def upload(self, client):
            return {name: 1.0 for name in client}

    @dataclass(frozen=True)
    class Unpacked(FedAvg):
        def upload(self, client):
            return list(client.values())

    for kind, what in ((Numbers, "dict"), (Unpacked, "list")):
        with pytest.raises(ValueError, match=rf"{kind.__name__}\.upload gave {what}; wanted are tensors by name"):
            run(kind(**QUICK))


def test_a_method_of_ones_own_may_send_something_else_in_later_rounds_and_from_some_clients():
    """Its upload is what its own hooks say, client by client; only a fault makes it another."""

    @dataclass(frozen=True)
    class Varied(FedAvg):
        def receive(self, client, download):
            rounds_done = client.get("rounds.done", torch.zeros(()))
            return {**client, **download, "rounds.done": rounds_done + 1}

        def send(self, server, client_id):
            return pick(server, *self.shared) | ({"odd.mark": torch.ones(1)} if client_id % 2 else {})

        def upload(self, client):
            sent = pick(client, *self.shared)
            if client["rounds.done"] > 1:
                sent["later.0"] = torch.ones(2)
            return sent | ({"odd.mark": client["odd.mark"]} if "odd.mark" in client else {})

        def aggregate(self, server, uploads, sizes):
            of_model = {k: pick(upload, *self.shared) for k, upload in uploads.items()}
            return super().aggregate(server, of_model, sizes)

    assert run(Varied(**QUICK), until=3).round == 3
    state = run(Varied(**QUICK), until=3, faults=[Broken([1, 2], "extra")], min_uploads=1)
    assert list(state.records[-1]["faults"]["refused"]) == [1, 2]


# --- Real errors ---


@dataclass(frozen=True)
class Refuses(FedPer):
    """What the server sends to client 2 cannot be had."""

    def send(self, server, client_id):
        if client_id == 2:
            raise KeyError("no such client")
        return super().send(server, client_id)


def break_batches(monkeypatch, error):
    """Client 2's images cannot be drawn in training: an error in the middle of it."""
    whole = engine.local_data

    def local_data(federation, method, k, key, *others):
        data = whole(federation, method, k, key, *others)

        def batches(epochs):
            if k == 2 and key[1:2] == [TRAIN]:
                raise error
            return data.batches(epochs)

        return replace(data, batches=batches)

    monkeypatch.setattr(engine, "local_data", local_data)


@pytest.mark.parametrize("backend", ["loop", "threads", "vmap", "auto"])
@pytest.mark.parametrize(
    "error", [OSError("a broken disk"), RuntimeError("a broken image"), ValueError("a broken label")]
)
def test_a_client_that_raises_takes_nobody_with_it(monkeypatch, backend, error):
    """In a stack, too, where PyTorch's own errors would hide whose it was."""
    expected = plain("fedper", until=2, absent=(2,), backend=backend)
    break_batches(monkeypatch, error)
    state = run("fedper", until=2, backend=backend, min_uploads=4)
    assert equal(state, expected)
    assert [record["faults"]["refused"] for record in state.records] == [[2]] * 2
    assert [record["faults"]["why"] for record in state.records] == [[f"{type(error).__name__}: {error}"]] * 2
    with pytest.raises((type(error), CannotStack), match=str(error)):
        run("fedper", backend=backend)


@pytest.mark.parametrize("case", CASES)
def test_a_client_that_raises_in_a_stack_takes_nobody_with_it_with_any_method(monkeypatch, case):
    expected = plain(case, absent=(2,), backend="vmap")
    break_batches(monkeypatch, RuntimeError("a broken image"))
    state = run(case, backend="vmap", min_uploads=4)
    assert equal(state, expected) and list(state.records[-1]["faults"]["refused"]) == [2]


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_an_error_in_a_hook_is_the_clients(monkeypatch, backend):
    monkeypatch.setattr(engine, "evaluate", lambda *of: {})  # which asks for every client's download
    state = run(Refuses(**QUICK), backend=backend, min_uploads=4)
    assert state.records[-1]["faults"]["refused"] == [2]
    assert state.records[-1]["faults"]["why"] == ["KeyError: 'no such client'"]
    assert state.joined == {0, 1, 3, 4} and is_finite(state)
    with pytest.raises(KeyError, match="no such client"):
        run(Refuses(**QUICK), backend=backend)


def test_where_everybody_raises_it_says_so_for_each():
    @dataclass(frozen=True)
    class Wrong(FedAvg):
        def loss(self, net, client, download, x, y):
            return super().loss(net, client, download, x, y).mean()

    for backend in ("loop", "vmap"):
        with pytest.raises(
            TooFewUploads, match=r"0 sound uploads .*client 0 refused \(ValueError: Wrong\.loss gave.*client 4"
        ):
            run(Wrong(**QUICK), backend=backend, min_uploads=1)


def test_a_method_that_cannot_be_stacked_is_nobodys_fault():
    @dataclass(frozen=True)
    class Branches(FedAvg):
        def loss(self, net, client, download, x, y):
            losses = super().loss(net, client, download, x, y)
            return losses if losses.sum() > 0 else losses * 2  # a choice that a stack cannot make

    with pytest.raises(CannotStack):
        run(Branches(**QUICK), backend="vmap", min_uploads=1)
    state = run(Branches(**QUICK), backend="auto", min_uploads=5)
    assert equal(state, run(Branches(**QUICK), backend="threads"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stopped])
@pytest.mark.parametrize("stack", [[2], [1, 2, 3]])
def test_neither_ctrl_c_nor_a_run_that_is_given_up_is_a_clients_failure(error, stack):
    def train(net, stack):
        if 2 in stack:
            raise error
        return {}

    with pytest.raises(error):
        train_around_failures(train, NET, stack)


def test_two_that_raise_in_one_stack_are_both_found_and_the_rest_is_trained_together():
    stacks = []

    def train(net, stack):
        stacks.append(list(stack))
        if {1, 4} & set(stack):
            raise ValueError(f"one of {stack}")
        return {k: ClientResult({}, {}, torch.tensor(0.0), len(stack)) for k in stack}

    outcomes = train_around_failures(train, NET, [0, 1, 2, 3, 4])
    assert {k: outcome.fate for k, outcome in sorted(outcomes.items())} == {
        0: ARRIVED,
        1: "refused",
        2: ARRIVED,
        3: ARRIVED,
        4: "refused",
    }
    assert stacks[-1] == [0, 2, 3] and outcomes[0].result.steps == 3
    assert str(outcomes[4].error) == "one of [4]"


# --- Arguments ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faults": DropBefore(0.1)}, r"faults=DropBefore\(share=0.1\) must be a list of faults"),
        ({"faults": [0.1]}, r"faults=\[0.1\] must be a list of faults, such as \[DropBefore\(0.1\)\]"),
        ({"faults": [Broken([1, 7])]}, r"clients=\(1, 7\) must be numbers from 0 to 4, the federation's clients"),
        ({"min_uploads": -1}, "min_uploads=-1 must be None, or a whole number from 0 to the cohort's size, 5"),
        ({"min_uploads": 6}, "min_uploads=6 must be"),
        ({"min_uploads": 2.0}, "min_uploads=2.0 must be"),
        ({"min_uploads": True}, "min_uploads=True must be"),
        ({"min_uploads": 3, "participation": 0.4}, "min_uploads=3 must be .* the cohort's size, 2"),
    ],
)
def test_faults_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        run("fedavg", **options)


@pytest.mark.parametrize(
    ("make_fault", "message"),
    [
        (lambda: DropBefore(1.5), "share=1.5 must be a number from 0 to 1"),
        (lambda: DropAfter(-0.1), "share=-0.1 must be"),
        (lambda: DropAfter("0.1"), "share='0.1' must be"),
        (lambda: DropBefore(float("nan")), "share=nan must be"),
        (lambda: Deadline(0), "steps=0 must be a number above 0"),
        (lambda: Deadline(float("nan")), "steps=nan must be"),
        (lambda: Deadline(5, spread=-1), "spread=-1 must be a number from 0 to 10"),
        (lambda: Broken(2), "clients=2 must be a list of clients' numbers"),
        (lambda: Broken([0.5]), r"clients=\[0.5\] must be"),
        (lambda: Broken([-1]), r"clients=\[-1\] must be"),
        (lambda: Broken("12"), "clients='12' must be"),
        (lambda: Broken([1], "nans"), "how='nans' is unknown; did you mean 'nan'"),
        (lambda: Broken([1], None), "how=None is unknown"),
    ],
)
def test_a_fault_outside_its_range_is_refused(make_fault, message):
    with pytest.raises(ValueError, match=message):
        make_fault()


def test_broken_clients_may_be_given_in_any_kind_of_list():
    assert (
        Broken({3, 1}).clients == Broken(np.array([1, 3]).tolist()).clients == Broken(range(1, 4, 2)).clients == (1, 3)
    )
    assert Broken([np.int64(1), 1]).clients == (1,)
