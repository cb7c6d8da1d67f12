"""Runs and comparisons: repeatable, resumable, tuned on validation images, at equal epochs or equal steps."""

import json
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import last, same

from fedecouple_lite import METHODS, checkpoint, load, make, rounds, split
from fedecouple_lite.checkpoint import CheckpointWarning, OfAnotherRun, checkpoint_path, checkpoints_of
from fedecouple_lite.hyper import hyper
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.phases import Train
from fedecouple_lite.studies import experiment
from fedecouple_lite.studies.experiment import (
    Setting,
    as_json,
    at_equal_steps,
    candidates,
    compare,
    digest,
    run,
    steps_per_batch,
    tune,
)
from fedecouple_lite.tensors import CLASSIFIER, EXTRACTOR

SMALL = Setting(clients=4, rounds=1, per_client=60)
TINY = {"clients": 3, "rounds": 1, "per_client": 20}


def test_all_methods_share_split_start_and_sample_order(tmp_path):
    """With nothing that differs from FedAvg, another class with the same hooks gives the same numbers."""

    @dataclass(frozen=True)
    class Twin(FedAvg):
        pass

    a, b = compare(SMALL, {"a": make("fedavg"), "b": Twin()}, [3], tmp_path)
    assert a["records"][0]["accuracies"] == b["records"][0]["accuracies"] and a["split"] == b["split"]


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path):
    methods = {"FedAvg": make("fedavg"), "FedRep": make("fedrep")}

    def interrupt(label, seed, state):
        if (label, seed) == ("FedRep", 0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(SMALL, methods, [0, 1], tmp_path, interrupt)
    seen = []
    results = compare(SMALL, methods, [0, 1], tmp_path, lambda *what: seen.append((*what[:2], what[2] is None)))
    assert seen == [("FedAvg", 0, True), ("FedRep", 0, False), ("FedAvg", 1, False), ("FedRep", 1, False)]
    assert [(r["label"], r["seed"], r["finished"]) for r in results] == [(*s[:2], True) for s in seen]


def test_tuning_takes_the_best_on_validation_images_and_its_own_values_first(tmp_path):
    chosen = tune(SMALL, make("fedrep"), 0, 3, tmp_path)
    files = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(files) == 3 and all(f["setting"]["evaluate_on"] == "validation" for f in files)
    assert any(f["method"]["lr"] == 0.1 and f["method"]["classifier_epochs"] == 1 for f in files)
    scores = {tuple(f["method"].values())[1:]: f["records"][-1]["personal"] for f in files}
    in_order = [tuple(vars(method).values()) for method in candidates(make("fedrep"), 0, 3)]
    assert tuple(vars(chosen).values()) == max(in_order, key=scores.get)  # of equal ones the first
    assert tune(SMALL, make("fedrep"), 0, 1, tmp_path / "none") == make("fedrep")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="trials=0"):
        tune(SMALL, make("fedrep"), 0, 0, tmp_path)


def test_candidates_are_the_method_itself_then_others_all_different_and_the_seed_draws_them():
    first = candidates(make("fedrep"), 0, 5)
    assert first[0] == make("fedrep") and len(set(first)) == 5
    assert candidates(make("fedrep"), 0, 3) == first[:3] and candidates(make("fedrep"), 1, 5) != first
    assert len(candidates(make("fedavg"), 0, 100)) == 4  # four step sizes to try, its own among them


def test_the_digest_depends_on_setting_method_and_seed():
    given = (SMALL, make("fedrep"), 0)
    others = ((Setting(), make("fedrep"), 0), (SMALL, make("fedper"), 0), (SMALL, make("fedrep"), 1))
    assert digest(*given) == digest(*given) and len({digest(*given), *(digest(*other) for other in others)}) == 4


def test_a_trial_that_diverges_is_the_worst_one(tmp_path):
    setting = Setting(clients=4, rounds=2, per_client=60)
    assert tune(setting, make("fedavg", lr=1e30, epochs=5), 0, 2, tmp_path).lr < 1


def test_no_test_image_is_in_the_validation_federation():
    whole, held = (
        SMALL.federation(0),
        Setting(clients=4, rounds=1, per_client=60, evaluate_on="validation").federation(0),
    )
    for k in range(4):
        inside = torch.cat([held.train[k], held.test[k]])
        assert torch.equal(inside.sort().values, whole.train[k].sort().values) and len(held.test[k])
    with pytest.raises(ValueError, match="evaluate_on='tset' must be test or validation"):
        Setting(evaluate_on="tset").federation(0)


@pytest.mark.parametrize("name", METHODS)
def test_equal_steps_gives_every_method_as_many_epochs_as_fit(name):
    method = at_equal_steps(make(name), 11)
    assert steps_per_batch(method) in (10, 11)
    assert steps_per_batch(make("fedecouple")) == 11 and steps_per_batch(make("fedecouple", coupling="joint")) == 6
    with pytest.raises(ValueError, match="budget=0 is below one epoch"):
        at_equal_steps(make(name), 0)


def test_steps_in_the_record_are_the_steps_per_batch_times_the_batches(tmp_path):
    (run,) = compare(SMALL, {"x": make("fedecouple")}, [0], tmp_path)
    batches = sum(-(-len(index) // 32) for index in SMALL.federation(0).train)
    assert run["records"][0]["steps"] == steps_per_batch(make("fedecouple")) * batches


def test_as_json_gives_back_what_json_gives_back():
    assert as_json({"a": (1, float("nan")), "b": {"c": None}}) == {"a": [1, None], "b": {"c": None}}


# --- Nothing stale is read ---


@pytest.fixture(scope="module")
def without_cache(net):
    """(setting, method) -> the personal accuracy of a run with seed 0, by the engine alone."""

    def accuracy(setting, method):
        federation = split(load(setting.dataset), setting.clients, per_client=setting.per_client)
        return last(rounds(method, net, federation, rounds=setting.rounds)).records[-1]["personal"]

    return accuracy


def compared(setting, method, folder, **more):
    """The same through `compare`."""
    (result,) = compare(setting, {"it": method}, [0], folder, **more)
    return result["records"][-1]["personal"]


def write_digits(path, start=0, shift=0):
    """200 digits from number `start` on, their labels moved by `shift`; they leave behind what they hold."""
    digits = load("digits")
    x, y = digits.x[start : start + 200, 0].numpy(), (digits.y[start : start + 200].numpy() + shift) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])


def nothing_trains(monkeypatch):
    """From now on a run that trains fails."""

    def fail(*args, **options):
        raise AssertionError("this run was there already")

    monkeypatch.setattr(experiment, "rounds", fail)


def test_a_changed_data_file_is_noticed_in_the_same_folder_and_in_a_new_one(tmp_path, without_cache):
    path = tmp_path / "mine.npz"
    setting = Setting(dataset=str(path), **TINY)
    method = make("fedavg", epochs=1)
    write_digits(path)
    first = compared(setting, method, tmp_path / "runs")
    assert first == without_cache(setting, method)
    was_changed = path.stat().st_mtime_ns

    write_digits(path, start=500)
    os.utime(path, ns=(was_changed, was_changed))  # as some ways of copying do; it has the same size, too
    second = without_cache(setting, method)
    assert second != first
    assert compared(setting, method, tmp_path / "runs") == second
    assert compared(setting, method, tmp_path / "new") == second

    write_digits(path)
    assert compared(setting, method, tmp_path / "runs") == first
    assert len(list((tmp_path / "runs").iterdir())) == 2  # the first one was read back


def test_another_data_folder_is_noticed(tmp_path, monkeypatch, without_cache):
    setting = Setting(dataset="cifar10", **TINY)
    method = make("fedavg", epochs=1)
    for name, start in (("a", 0), ("b", 500)):
        (tmp_path / name).mkdir()
        write_digits(tmp_path / name / "cifar10.npz", start)
    accuracies = []
    for name in ("a", "b", "a"):
        monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path / name))
        accuracies.append(compared(setting, method, tmp_path / "runs"))
        assert accuracies[-1] == without_cache(setting, method)
    assert accuracies[0] == accuracies[2] != accuracies[1]


def test_a_set_that_appears_in_the_data_folder_later_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path))
    write_digits(tmp_path / "mnist.npz")
    assert len(Setting(dataset="mnist", **TINY).federation(0).data.y) == 200
    (tmp_path / "mnist.npz").unlink()
    with pytest.raises(ValueError, match="'mnist'"):
        Setting(dataset="mnist", **TINY).federation(0)
    write_digits(tmp_path / "mnist.npz", start=500)
    assert Setting(dataset="mnist", **TINY).federation(0).data.y[0] == load("digits").y[500]


CELL = """
from dataclasses import dataclass
from fedecouple_lite.losses import cross_entropy
from fedecouple_lite.methods import FedAvg

SIGN = 1

def helper(losses):
    return SIGN * losses

def enclosing(power):
    def bent(self, losses):
        return losses ** power
    return bent

@dataclass(frozen=True)
class Base(FedAvg):
    def finish(self, losses):
        return losses

@dataclass(frozen=True)
class Mine(Base):
    bent = enclosing(1)
    def loss(self, net, client, download, x, y):
        return self.finish(self.bent(helper(cross_entropy(net.logits(client, x), y))))
"""
EDITS = {
    "the class": ("return self.finish", "return -3 * self.finish"),
    "a helper": ("SIGN * losses", "-SIGN * losses"),
    "its base": ("        return losses\n\n@dataclass", "        return -losses\n\n@dataclass"),
    "a constant": ("SIGN = 1", "SIGN = -1"),
    "an enclosed value": ("enclosing(1)", "enclosing(3)"),
}


def run_cell(source):
    """The class of a notebook's cell: there is no file to look it up in."""
    module = {"__name__": "__main__"}
    exec(compile(source, "<ipython-input-7>", "exec"), module)
    return module["Mine"]


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_method_is_run_again_and_the_same_one_read_back(tmp_path, monkeypatch, without_cache, what):
    setting = Setting(**TINY)
    old, new = EDITS[what]
    assert CELL.count(old) == 1
    first, second, third = (run_cell(source)(epochs=2) for source in (CELL, CELL.replace(old, new), CELL))
    before = compared(setting, first, tmp_path)
    assert before == without_cache(setting, first) != without_cache(setting, second)
    assert compared(setting, second, tmp_path) == without_cache(setting, second)
    nothing_trains(monkeypatch)
    assert compared(setting, third, tmp_path) == before


def test_another_version_of_the_library_or_another_code_of_it_runs_again(tmp_path, monkeypatch):
    compared(Setting(**TINY), make("fedavg", epochs=1), tmp_path)
    for name, value in (("__version__", "99.0"), ("library_digest", lambda: "of another checkout"), ("FORMAT", 99)):
        with monkeypatch.context() as change:
            change.setattr(experiment, name, value)
            before = set(tmp_path.iterdir())
            compared(Setting(**TINY), make("fedavg", epochs=1), tmp_path)
            assert len(set(tmp_path.iterdir()) - before) == 1, name
    nothing_trains(monkeypatch)
    compared(Setting(**TINY), make("fedavg", epochs=1), tmp_path)


@pytest.mark.parametrize("other", [experiment.FORMAT - 1, experiment.FORMAT + 1])
def test_a_file_of_another_format_older_or_newer_is_no_finished_run(tmp_path, other):
    run(Setting(**TINY), make("local", epochs=1), 0, tmp_path / "run.json", lambda state: None)
    written = json.loads((tmp_path / "run.json").read_text())
    assert experiment.finished_run(tmp_path / "run.json") == written
    (tmp_path / "run.json").write_text(json.dumps({**written, "format": other}))
    assert experiment.finished_run(tmp_path / "run.json") is None
    note = tmp_path / "run.diverged"
    for number, reason in ((experiment.FORMAT, "in round 1"), (other, None)):
        note.write_text(json.dumps({"format": number, "digest": "abc", "diverged": "in round 1"}))
        assert experiment.noted_divergence(note, "abc") == reason


def test_a_net_or_a_partition_of_one_s_own_is_run_again_once_it_is_edited(tmp_path, monkeypatch):
    from fedecouple_lite.models import NETS, cnn
    from fedecouple_lite.partition import OPTIONS, PARTITIONS

    def halves(order):
        return lambda y, clients, rng: np.array_split(np.argsort(y, kind="stable")[::order], clients)

    setting = Setting(partition="halves", net="mine", **TINY)
    monkeypatch.setitem(OPTIONS, "halves", {})
    accuracies = []
    for width, order in ((4, 1), (8, 1), (8, -1), (4, 1)):
        monkeypatch.setitem(NETS, "mine", cnn([(width, 3, 1)], torch.nn.ReLU))
        monkeypatch.setitem(PARTITIONS, "halves", halves(order))
        accuracies.append(compared(setting, make("fedavg", epochs=1), tmp_path))
    assert len(list(tmp_path.iterdir())) == 3 and accuracies[0] == accuracies[3]


def test_an_unchanged_call_computes_nothing(tmp_path, monkeypatch):
    methods = {"FedRep": make("fedrep", epochs=1), "own": run_cell(CELL)(epochs=1)}
    first = compare(Setting(**TINY), methods, [0, 1], tmp_path, trials=2, budget=3)
    nothing_trains(monkeypatch)
    again = {"FedRep": make("fedrep", epochs=1), "own": run_cell(CELL)(epochs=1)}
    states = []

    def watch(label, seed, state):
        states.append(state)

    assert compare(Setting(**TINY), again, [0, 1], tmp_path, watch, trials=2, budget=3) == first
    assert states == [None] * 12  # two methods, two seeds, two trials and a run


def rewritten(change):
    """A damage: the file's content, changed, written back."""

    def damage(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


DAMAGES = {
    "another format": rewritten(lambda run: run.update(format=1)),
    "no format": rewritten(lambda run: run.pop("format")),
    "another digest": rewritten(lambda run: run.update(digest="0" * 16)),
    "no digest": rewritten(lambda run: run.pop("digest")),
    "not finished": rewritten(lambda run: run.update(finished=False)),
    "no records": rewritten(lambda run: run.update(records=[])),
    "fewer rounds": rewritten(lambda run: run["records"].pop()),
    "truncated": lambda path: path.write_text(path.read_text()[:-200]),
    "empty": lambda path: path.write_text(""),
    "something else": lambda path: path.write_text("[1, 2]"),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_this_run_whole_is_made_again_never_misread(tmp_path, without_cache, damage):
    setting = Setting(clients=3, rounds=2, per_client=20)
    method = make("fedavg", epochs=1)
    compared(setting, method, tmp_path)
    (path,) = tmp_path.iterdir()
    right = json.loads(path.read_text())
    DAMAGES[damage](path)
    assert compared(setting, method, tmp_path) == without_cache(setting, method)
    made = json.loads(path.read_text())
    assert made["digest"] == right["digest"] and made["finished"] and len(made["records"]) == 2


def test_a_run_that_diverged_does_not_diverge_a_second_time(tmp_path, monkeypatch):
    setting = Setting(clients=3, rounds=2, per_client=20)
    wild = make("fedavg", lr=1e30, epochs=3)
    chosen = tune(setting, wild, 0, 2, tmp_path)
    messages = []
    for fresh in (True, False, False):
        if not fresh:
            nothing_trains(monkeypatch)
        with pytest.raises(FloatingPointError, match=r"FedAvg, client 0, round 1: .*try an lr below 1e\+30") as error:
            compare(setting, {"wild": wild}, [0], tmp_path)
        messages.append(str(error.value))
    assert len(set(messages)) == 1 and tune(setting, wild, 0, 2, tmp_path) == chosen
    (note,) = tmp_path.glob("wild*.diverged")
    monkeypatch.undo()
    for content in (note.read_text().replace(digest(setting, wild, 0), "0" * 16), "[]", ""):
        note.write_text(content)  # not of this run, or of none
        with pytest.raises(FloatingPointError):
            compare(setting, {"wild": wild}, [0], tmp_path)
        assert json.loads(note.read_text())["digest"] == digest(setting, wild, 0)
    assert not list(tmp_path.glob("*.part"))


def test_a_file_that_was_renamed_from_another_run_is_not_taken_for_this_one(tmp_path):
    methods = [make("fedavg", epochs=epochs) for epochs in (1, 3)]
    accuracies = [compared(Setting(**TINY), method, tmp_path) for method in methods]
    one, two = (tmp_path / f"it-0-{digest(Setting(**TINY), method, 0)}.json" for method in methods)
    shutil.copy(one, two)
    assert compared(Setting(**TINY), methods[1], tmp_path) == accuracies[1] != accuracies[0]


def test_the_digest_depends_on_which_images_are_the_set_s_own_test_part(tmp_path):
    """They change the normalisation, and what --keep-test tests on."""
    x, y = load("digits").x[:100, 0].numpy(), load("digits").y[:100].numpy()
    digests = set()
    for first in (100, 60, 50):
        np.savez(tmp_path / "cut.npz", x_train=x[:first], y_train=y[:first], x_test=x[first:], y_test=y[first:])
        digests.add(digest(Setting(dataset=str(tmp_path / "cut.npz")), make("fedavg"), 0))
    assert len(digests) == 3


def test_a_second_comparison_reads_no_data_and_compiles_no_code_again(tmp_path, monkeypatch):
    methods = {name: make(name, epochs=1) for name in METHODS}
    setting = Setting(clients=2, rounds=1, per_client=10)
    compare(setting, methods, range(3), tmp_path)
    nothing_trains(monkeypatch)
    remembered = (experiment._load_at, experiment._net_for, experiment.library_digest)
    before = [function.cache_info().misses for function in remembered]
    assert len(compare(setting, methods, range(3), tmp_path)) == 36
    assert [function.cache_info().misses for function in remembered] == before


# --- Budgets, and values that a user has given ---


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_no_candidate_is_ever_above_the_budget(name, seed):
    for candidate in candidates(make(name), seed, 30, budget=11):
        steps = 0
        for phase in candidate.phases():
            if isinstance(phase, Train):
                steps += phase.epochs * len(phase.losses)
        one_more = steps_per_batch(replace(candidate, epochs=candidate.epochs + 1))
        assert steps == steps_per_batch(candidate) <= 11 < one_more


def test_a_tuned_comparison_at_equal_steps_keeps_to_them_in_every_trial_and_run(tmp_path):
    methods = {name: make(name) for name in ("fedrep", "fedpac", "fedecouple")}
    setting = Setting(clients=2, rounds=1, per_client=24)
    compare(setting, methods, [0, 1], tmp_path, trials=3, budget=11)
    files = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    assert len(files) == 3 * 2 * (3 + 1)
    assert {f["method"]["classifier_epochs"] for f in files} > {1}  # tuning did change what counts
    for f in files:
        federation = replace(setting, evaluate_on=f["setting"]["evaluate_on"]).federation(f["seed"])
        batches = sum(-(-len(index) // 32) for index in federation.train)
        assert f["records"][0]["steps"] <= 11 * batches


def test_a_value_that_was_given_is_in_every_trial_and_run(tmp_path):
    methods = {name: make(name, lr=0.001, epochs=1) for name in ("fedavg", "fedrep")}
    results = compare(Setting(**TINY), methods, [0, 1], tmp_path, trials=3, fixed=["lr", "epochs"])
    files = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    assert {f["method"]["lr"] for f in files} == {0.001} and {f["method"]["epochs"] for f in files} == {1}
    assert len({f["method"]["classifier_epochs"] for f in files if "classifier_epochs" in f["method"]}) > 1
    assert len(list((tmp_path / "tuning").iterdir())) == 6  # FedAvg has nothing else to tune: no trial of it
    assert [r["method"]["lr"] for r in results] == [0.001] * 4


def test_one_name_may_be_given_as_it_is():
    assert candidates(make("fedavg", lr=0.3), 0, 5, fixed="lr") == [make("fedavg", lr=0.3)]


def test_a_method_whose_steps_do_not_depend_on_epochs_is_within_the_budget_or_not():
    @dataclass(frozen=True)
    class Fixed(FedAvg):
        def phases(self):
            return (Train((EXTRACTOR, CLASSIFIER), (self.loss,), 3),)

    assert at_equal_steps(Fixed(epochs=7), 3) == Fixed(epochs=7)
    with pytest.raises(ValueError, match="budget=2 is below one epoch of Fixed"):
        at_equal_steps(Fixed(), 2)


def test_a_method_whose_later_epochs_cost_more_stays_below_the_budget():
    @dataclass(frozen=True)
    class Growing(FedAvg):
        def phases(self):
            return (Train((EXTRACTOR, CLASSIFIER), (self.loss,), self.epochs**2),)

    assert at_equal_steps(Growing(), 20).epochs == 4


def test_steps_to_predict_are_counted_apart(tmp_path):
    """Two epochs over each client's training images, in batches of 8, by every client in every evaluated round."""
    method = make("fedavg_ft", epochs=1, fine_tune_epochs=2, batch_size=8)
    (result,) = compare(Setting(**TINY), {"ft": method}, [0], tmp_path, budget=1)
    batches = sum(-(-len(index) // 8) for index in Setting(**TINY).federation(0).train)
    assert result["records"][0]["steps"] == batches and result["records"][0]["predict_steps"] == 2 * batches


# --- What cannot be is refused before anything is trained ---

FEW_TEST = "test_share=0 and per_client=20 with clients=3 leave nobody a test image"
REFUSED = {
    "budget=0 is below one epoch of FedAvg": {"budget": 0},
    "budget=2.5 must be a whole number": {"budget": 2.5},
    "budget=inf must be": {"budget": float("inf")},
    "budget=1 is below one epoch of FedRep": {"budget": 1},
    "budget=9 must be None, or epochs=5 not fixed": {"budget": 9, "fixed": ["epochs"]},
    "fixed='epoch' is unknown; did you mean 'epochs'": {"fixed": ["epoch"]},
    "trials=0 must be": {"trials": 0},
    "trials=1.5 must be": {"trials": 1.5},
    r"must be whole numbers from 0 to 2\^63 - 1, at least one, none twice": {"seeds": [0, 1, 0]},
    r"seeds=\[\] must be": {"seeds": []},
    r"seeds=\[0, -1\] must be": {"seeds": [0, -1]},
    r"seeds=\[0.0\] must be": {"seeds": [0.0]},
    "methods={} must be one at least": {"methods": {}},
    FEW_TEST: {"setting": Setting(test_share=0, **TINY)},
    "backend='warp' is unknown": {"setting": Setting(backend="warp", **TINY)},
    "participation=0 must be": {"setting": Setting(participation=0, **TINY)},
    "eval_every=0 must be": {"setting": Setting(eval_every=0, **TINY)},
    "augment='flip' must be one of crop_flip": {"setting": Setting(augment="flip", **TINY)},
    "augment='crop_flip' must be None for images of shape": {"setting": Setting(augment="crop_flip", **TINY)},
    "device='meta' is not available": {"setting": Setting(device="meta", **TINY)},
    "keep_test=True must be False for data='digits'": {"setting": Setting(keep_test=True, **TINY)},
    "rounds='2' must be a whole number": {"setting": Setting(rounds="2", clients=3)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_arguments_that_cannot_be_are_named_before_anything_is_trained(tmp_path, monkeypatch, message):
    nothing_trains(monkeypatch)
    methods = {"FedAvg": make("fedavg"), "FedRep": make("fedrep")}
    arguments = {"setting": Setting(**TINY), "methods": methods, "seeds": [0, 1]} | REFUSED[message]
    with pytest.raises(ValueError, match=message):
        compare(folder=tmp_path / "runs", **arguments)
    assert not (tmp_path / "runs").exists()


def test_a_seed_that_cannot_be_split_is_named_before_the_others_are_trained(tmp_path, monkeypatch):
    setting = Setting(alpha=0.01, clients=15, rounds=1)
    assert len(setting.federation(seed=0)) == 15
    nothing_trains(monkeypatch)
    with pytest.raises(ValueError, match=r"alpha=0\.01 left one of clients=15"):  # with seed 1
        compare(setting, {"FedAvg": make("fedavg")}, [0, 1], tmp_path)


def test_tuning_without_validation_images_is_refused_before_any_trial(tmp_path, monkeypatch):
    """Of two images a client one is for training: none is left to be held out."""
    setting = Setting(clients=3, rounds=1, per_client=2, partition="iid")
    nothing_trains(monkeypatch)
    message = "per_client=2 with clients=3 leave nobody a validation image"
    with pytest.raises(ValueError, match=message):
        tune(setting, make("fedavg"), 0, 2, tmp_path)
    with pytest.raises(ValueError, match=message):
        compare(setting, {"FedAvg": make("fedavg")}, [0], tmp_path, trials=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None])
def test_a_seed_that_is_none_is_named(tmp_path, seed):
    for call in (
        lambda: run(Setting(**TINY), make("fedavg"), seed, tmp_path / "x.json", lambda state: None),
        lambda: tune(Setting(**TINY), make("fedavg"), seed, 2, tmp_path),
        lambda: digest(Setting(**TINY), make("fedavg"), seed),
    ):
        with pytest.raises(ValueError, match=f"seed={seed!r} must be"):
            call()
    assert list(tmp_path.iterdir()) == []


# --- NumPy's numbers and paths ---


def test_numpys_numbers_are_as_good_as_pythons_and_stand_in_the_same_file(tmp_path, monkeypatch):
    plain = Setting(clients=3, rounds=2, per_client=20, alpha=0.5, test_share=0.5, participation=0.75, eval_every=2)
    with_numpy = Setting(
        clients=np.int64(3),
        rounds=np.int32(2),
        per_client=np.uint8(20),
        alpha=np.float64(0.5),
        test_share=np.float32(0.5),
        participation=np.float16(0.75),
        eval_every=np.int16(2),
        keep_test=np.bool_(False),
        dataset=np.str_("digits"),
    )
    method = make("fedrep", lr=0.25, epochs=1, momentum=0.5, batch_size=8)
    its_twin = make("fedrep", lr=np.float32(0.25), epochs=np.int8(1), momentum=np.float64(0.5), batch_size=np.uint16(8))
    results = compare(plain, {"it": method}, [0, 1], tmp_path)
    nothing_trains(monkeypatch)
    assert compare(with_numpy, {"it": its_twin}, np.arange(2), tmp_path) == results


def test_numpys_numbers_in_a_run_of_their_own_and_in_fields_that_are_no_hyper_parameters(tmp_path):
    @dataclass(frozen=True)
    class Annotated(FedAvg):
        classes: tuple = (np.int64(1), np.float32(0.5))
        table: np.ndarray = None
        hook: object = None
        slowness: float = hyper(np.float32(2.0), "for nothing")

    method = Annotated(epochs=np.int64(1), table=np.arange(3), hook=len)
    out = tmp_path / "x.json"
    result = run(Setting(**TINY), method, np.int64(4), out, lambda state: None)
    assert json.loads(out.read_text()) == result and result["seed"] == 4
    assert result["method"]["classes"] == [1, 0.5] and result["method"]["table"] == [0, 1, 2]
    others = [Annotated(epochs=1, table=np.arange(4), hook=len), Annotated(epochs=1, table=np.arange(3), hook=print)]
    assert len({digest(Setting(**TINY), other, 4) for other in (method, *others)}) == 3


def test_a_path_is_as_good_as_its_name(tmp_path, monkeypatch):
    write_digits(tmp_path / "mine.npz")
    results = compare(Setting(dataset=tmp_path / "mine.npz", **TINY), {"it": make("local")}, [0], str(tmp_path / "a"))
    nothing_trains(monkeypatch)
    named = Setting(dataset=str(tmp_path / "mine.npz"), **TINY)
    assert compare(named, {"it": make("local")}, [0], tmp_path / "a") == results


# --- Files ---


def test_a_label_that_looks_like_a_path_stays_in_its_folder(tmp_path):
    labels = ("../up", "a/b", "c:d", "FedAvg + fine-tuning, E = 1", "\u03bc" * 300, "\0")
    results = compare(Setting(**TINY), {label: make("local", epochs=0) for label in labels}, [0], tmp_path / "runs")
    assert [result["label"] for result in results] == list(labels)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len(list((tmp_path / "runs").iterdir())) == len(labels)


def test_an_interrupted_rerun_leaves_a_finished_file_and_a_finished_one_replaces_it(tmp_path):
    out = tmp_path / "run.json"
    setting = Setting(clients=3, rounds=3, per_client=20)

    def interrupt(state):
        if state.round == 2:
            raise KeyboardInterrupt

    def rounds_kept():
        content = json.loads(out.read_text())
        return content["method"]["epochs"], content["finished"], len(content["records"])

    for epochs, watch, kept in (
        (1, interrupt, (1, False, 2)),
        (2, interrupt, (2, False, 2)),  # nothing finished was there
        (3, lambda state: None, (3, True, 3)),
        (4, interrupt, (3, True, 3)),
        (5, lambda state: None, (5, True, 3)),
    ):
        try:
            run(setting, make("fedavg", epochs=epochs), 0, out, watch)
        except KeyboardInterrupt:
            assert watch is interrupt
        assert rounds_kept() == kept
    out.write_text(json.dumps({"finished": True, "format": 1}))  # as an older version wrote it
    with pytest.raises(KeyboardInterrupt):
        run(setting, make("fedavg"), 0, out, interrupt)
    assert json.loads(out.read_text())["format"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_disk_that_fills_up_during_training_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    out = tmp_path / "run.json"
    out.write_text("before")

    def full(self, text):
        self.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        run(Setting(**TINY), make("local"), 0, out, lambda state: None)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"] and out.read_bytes() == b"before"


def test_a_comparison_that_could_not_tune_later_is_refused_before_the_first_run(tmp_path, monkeypatch):
    """With lr fixed, Local has nothing to tune and would train; FedRep's classifier_epochs would then lack images."""
    nothing_trains(monkeypatch)
    setting = Setting(clients=3, rounds=1, per_client=2, partition="iid")  # one image each to train on
    methods = {"Local": make("local"), "FedRep": make("fedrep")}
    with pytest.raises(ValueError, match="leave nobody a validation image: there is nothing to compare"):
        compare(setting, methods, [0], tmp_path, trials=2, fixed=["lr"])
    assert not list(tmp_path.iterdir())


def test_a_digest_is_sixteen_hexadecimal_digits():
    assert re.fullmatch(r"[0-9a-f]{16}", digest(Setting(**TINY), make("fedavg"), 0))


# --- Long runs: interrupted, and gone on with ---

LONG = Setting(clients=4, rounds=5, per_client=30, participation=0.5, eval_every=2)


def stop_after(round, error=KeyboardInterrupt):
    """What on_round does: nothing up to this round, then an interrupt."""

    def on_round(state):
        if state.round >= round:
            raise error

    return on_round


def nothing(state):
    """What on_round does for somebody who only wants the result."""


def but_seconds(result):
    """A run's content without what the clock says."""
    records = []
    for record in result["records"]:
        records.append({name: value for name, value in record.items() if name != "seconds"})
    return {**result, "records": records}


@pytest.mark.parametrize("name", ["fedecouple", "fedpac", "ditto", "fedbabu", "local"])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been_to_the_bit(tmp_path, name):
    method = make(name, epochs=1)
    whole = run(LONG, method, 3, tmp_path / "whole.json", nothing)
    for every in (2, 100):  # the last one saves only what an interrupt makes it save
        for stopped in (1, 3, 5):
            out = tmp_path / f"{every}-{stopped}.json"
            with pytest.raises(KeyboardInterrupt):
                run(LONG, method, 3, out, stop_after(stopped), checkpoint_every=every)
            assert next(iter(checkpoints_of(out))) == stopped
            states = []
            resumed = run(LONG, method, 3, out, states.append, resume=True)
            assert [state.round for state in states] == list(range(stopped, 6))
            assert but_seconds(resumed) == but_seconds(whole) == but_seconds(json.loads(out.read_text()))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}  # no checkpoint is left


def test_a_run_may_be_interrupted_and_gone_on_with_many_times(tmp_path):
    method = make("fedecouple", epochs=1)
    setting = replace(LONG, rounds=8)
    out = tmp_path / "run.json"
    whole = run(setting, method, 0, tmp_path / "whole.json", nothing)
    for stopped in (1, 2, 2, 4, 7):
        with pytest.raises(KeyboardInterrupt):
            run(setting, method, 0, out, stop_after(stopped), checkpoint_every=3, resume=True)
        partial = json.loads(out.read_text()) if out.exists() else {"records": [], "finished": False}
        assert not partial["finished"]
        assert [record["round"] for record in partial["records"]] == [r for r in (2, 4, 6) if r <= stopped]
    assert but_seconds(run(setting, method, 0, out, nothing, resume=True)) == but_seconds(whole)


def test_the_last_state_of_a_run_that_went_on_is_the_same_to_the_bit(tmp_path):
    from fedecouple_lite.studies import ablation

    method = make("fedecouple", epochs=1)

    def stop(label, seed, state):
        stop_after(3)(state)

    for folder, watch in (("whole", lambda *of: None), ("stopped", stop), ("stopped", lambda *of: None)):
        try:
            ablation.run_all(LONG, {"it": method}, [0], tmp_path / folder, watch)
        except KeyboardInterrupt:
            assert watch is stop
    one, two = (ablation.state_of(LONG, method, 0, tmp_path / folder) for folder in ("whole", "stopped"))
    for here, there in zip((one.server, *one.clients), (two.server, *two.clients), strict=True):
        assert same(here, there)


def test_records_without_a_number_survive_a_checkpoint(tmp_path):
    """Without test images every accuracy is NaN, in the file None."""
    setting = Setting(clients=3, rounds=3, per_client=20, test_share=0)
    out = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt):
        run(setting, make("local", epochs=1), 0, out, stop_after(2), checkpoint_every=1)
    resumed = run(setting, make("local", epochs=1), 0, out, nothing, resume=True)
    assert but_seconds(resumed) == but_seconds(run(setting, make("local", epochs=1), 0, tmp_path / "w.json", nothing))
    assert [record["personal"] for record in resumed["records"]] == [None] * 3


def test_without_checkpoints_none_is_written_and_none_is_read(tmp_path, monkeypatch):
    out = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt):
        run(LONG, make("local", epochs=1), 0, out, stop_after(3))
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    with pytest.raises(KeyboardInterrupt):
        run(LONG, make("local", epochs=1), 0, out, stop_after(3), checkpoint_every=1)
    seen = []
    run(LONG, make("local", epochs=1), 0, out, lambda state: seen.append(state.round))
    assert seen == [1, 2, 3, 4, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]  # it has finished


def test_a_run_that_begins_anew_keeps_the_interrupted_one_s_checkpoint_until_it_has_its_own(tmp_path):
    out = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt):
        run(LONG, make("local", epochs=1), 0, out, stop_after(4), checkpoint_every=2)
    assert list(checkpoints_of(out)) == [4, 2]
    with pytest.raises(ZeroDivisionError):
        run(LONG, make("fedavg", epochs=1), 0, out, stop_after(1, ZeroDivisionError), checkpoint_every=3)
    assert list(checkpoints_of(out)) == [4, 2]
    with pytest.raises(ZeroDivisionError):
        run(LONG, make("fedavg", epochs=1), 0, out, stop_after(3, ZeroDivisionError), checkpoint_every=3)
    assert list(checkpoints_of(out)) == [3]


OTHERS = {
    r"another method \(FedAvg, not FedRep\)": {"method": make("fedrep", epochs=1)},
    r"another hyper-parameter \(epochs 1, not 2\)": {"method": make("fedavg", epochs=2)},
    r"another setting \(rounds 5, not 6\)": {"setting": replace(LONG, rounds=6)},
    r"another setting \(alpha None, not 0.1; backend auto, not loop\)": {
        "setting": replace(LONG, alpha=0.1, backend="loop")
    },
    r"another seed \(0, not 1\)": {"seed": 1},
}


@pytest.mark.parametrize("words", OTHERS)
def test_a_checkpoint_of_another_run_is_refused_by_name_before_anything_is_trained(tmp_path, monkeypatch, words):
    out = tmp_path / "run.json"
    given = {"setting": LONG, "method": make("fedavg", epochs=1), "seed": 0, "out": out}
    with pytest.raises(KeyboardInterrupt):
        run(**given, on_round=stop_after(2), checkpoint_every=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    nothing_trains(monkeypatch)
    with pytest.raises(OfAnotherRun, match="is of another run: .*" + words):
        run(**given | OTHERS[words], on_round=nothing, resume=True)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_checkpoint_of_edited_code_data_or_another_version_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "mine.npz"
    write_digits(path)
    setting = replace(LONG, dataset=str(path))
    out = tmp_path / "run.json"
    method = run_cell(CELL)(epochs=1)
    with pytest.raises(KeyboardInterrupt):
        run(setting, method, 0, out, stop_after(2), checkpoint_every=1)
    edited = run_cell(CELL.replace("SIGN = 1", "SIGN = -1"))(epochs=1)
    with pytest.raises(OfAnotherRun, match="another code of method, partition or views"):
        run(setting, edited, 0, out, nothing, resume=True)
    with monkeypatch.context() as change:
        change.setattr(experiment, "__version__", "99.0")
        with pytest.raises(OfAnotherRun, match=r"another version of the library .*99\.0"):
            run(setting, method, 0, out, nothing, resume=True)
    write_digits(path, start=500)
    with pytest.raises(OfAnotherRun, match="another data set"):
        run(setting, method, 0, out, nothing, resume=True)
    write_digits(path)
    assert run(setting, method, 0, out, nothing, resume=True)["finished"]


def test_a_finished_run_is_read_and_what_a_killed_process_left_of_it_removed(tmp_path, monkeypatch):
    out = tmp_path / "run.json"
    method = make("local", epochs=1)
    with pytest.raises(KeyboardInterrupt):
        run(LONG, method, 0, out, stop_after(2), checkpoint_every=1)
    left = {path: path.read_bytes() for path in checkpoints_of(out).values()}
    whole = run(LONG, method, 0, out, nothing, "mine", resume=True)
    for path, content in left.items():
        path.write_bytes(content)
    nothing_trains(monkeypatch)
    assert run(LONG, method, 0, out, nothing, resume=True) == whole
    assert run(LONG, method, 0, out, nothing, "other", resume=True) == {**whole, "label": "other"}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_damaged_checkpoint_is_said_and_the_end_is_the_same(tmp_path):
    out = tmp_path / "run.json"
    method = make("fedrep", epochs=1)
    whole = run(LONG, method, 0, tmp_path / "whole.json", nothing)
    with pytest.raises(KeyboardInterrupt):
        run(LONG, method, 0, out, stop_after(4), checkpoint_every=1)
    checkpoint_path(out, 4).write_bytes(b"")
    seen = []
    with pytest.warns(CheckpointWarning, match="00004.safetensors is not the file of a state"):
        resumed = run(LONG, method, 0, out, lambda state: seen.append(state.round), resume=True)
    assert seen == [3, 4, 5] and but_seconds(resumed) == but_seconds(whole)


@pytest.mark.parametrize("wrong", [0, -3, 2.5, "2"])
def test_a_number_of_rounds_that_is_none_is_named_before_anything_is_written(tmp_path, monkeypatch, wrong):
    nothing_trains(monkeypatch)
    with pytest.raises(ValueError, match=f"checkpoint_every={wrong!r} must be a whole number >= 1, or None"):
        run(LONG, make("local"), 0, tmp_path / "run.json", nothing, checkpoint_every=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_s_name_that_is_too_long_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    nothing_trains(monkeypatch)
    out = tmp_path / ("x" * 210 + ".json")
    with pytest.raises(ValueError, match=r"ckpt-00005\.safetensors' cannot be written"):
        run(LONG, make("local"), 0, out, nothing, checkpoint_every=1)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_goes_on_inside_the_run_that_was_interrupted(tmp_path):
    methods = {"FedAvg": make("fedavg", epochs=1), "FedRep": make("fedrep", epochs=1)}
    whole = compare(LONG, methods, [0, 1], tmp_path / "whole")

    def stop(label, seed, state):
        if (label, seed) == ("FedRep", 0):
            stop_after(3)(state)

    with pytest.raises(KeyboardInterrupt):
        compare(LONG, methods, [0, 1], tmp_path / "stopped", stop)
    seen = []

    def watch(label, seed, state):
        seen.append((label, seed, state and state.round))

    resumed = compare(LONG, methods, [0, 1], tmp_path / "stopped", watch)
    assert seen[:5] == [("FedAvg", 0, None), *(("FedRep", 0, round) for round in (3, 4, 5)), ("FedAvg", 1, 1)]
    assert [but_seconds(result) for result in resumed] == [but_seconds(result) for result in whole]
    assert {path.suffix for path in (tmp_path / "stopped").iterdir()} == {".json"}


def test_tuning_goes_on_inside_the_trial_that_was_interrupted(tmp_path):
    trained = []
    method = make("fedrep", epochs=1)
    chosen = tune(LONG, method, 0, 3, tmp_path / "whole", trained.append)
    for stopped in (1, 5, 7, 14):  # of three trials with five rounds each

        def stop(state, stopped=stopped):
            trained.append(state)
            if len(trained) == stopped:
                raise KeyboardInterrupt

        trained.clear()
        folder = tmp_path / str(stopped)
        with pytest.raises(KeyboardInterrupt):
            tune(LONG, method, 0, 3, folder, stop)
        before = trained[-1].round
        trained.clear()
        assert tune(LONG, method, 0, 3, folder, trained.append) == chosen
        read_back = [state for state in trained if state is None]
        assert trained[len(read_back)].round == before and len(read_back) == (stopped - 1) // 5


def test_a_comparison_that_was_killed_goes_on_from_what_it_saved_by_time(tmp_path, monkeypatch):
    """Somebody's own error stands for the kill: nothing is saved because of it."""
    methods = {"FedRep": make("fedrep", epochs=1)}
    (whole,) = compare(LONG, methods, [0], tmp_path / "whole")

    def die(label, seed, state):
        stop_after(3, ZeroDivisionError)(state)

    for seconds, first in ((0.0, 3), (1000.0, 1)):
        monkeypatch.setattr(checkpoint, "SECONDS", seconds)
        monkeypatch.setattr(checkpoint, "SHARE", 1e9)
        folder = tmp_path / str(seconds)
        with pytest.raises(ZeroDivisionError):
            compare(LONG, methods, [0], folder, die)
        rounds_seen = []
        (resumed,) = compare(
            LONG, methods, [0], folder, lambda label, seed, state, to=rounds_seen: to.append(state.round)
        )
        assert rounds_seen == list(range(first, 6)) and but_seconds(resumed) == but_seconds(whole)


def test_a_short_comparison_writes_no_checkpoint(tmp_path, monkeypatch):
    def fail(*arguments):
        raise AssertionError("saved")

    monkeypatch.setattr(checkpoint, "save_state", fail)
    compare(LONG, {"FedRep": make("fedrep", epochs=1)}, [0], tmp_path)


def test_a_run_that_diverges_leaves_no_checkpoint_from_which_it_would_diverge_again(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)

    def diverge_late(method, net, federation, *, state=None, **options):
        yield last(rounds(method, net, federation, rounds=1))
        raise FloatingPointError("FedAvg, client 0, round 2: loss is nan")

    monkeypatch.setattr(experiment, "rounds", diverge_late)
    with pytest.raises(FloatingPointError, match="round 2"):
        compare(LONG, {"wild": make("fedavg", epochs=1)}, [0], tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".diverged", ".json"]


def test_a_comparison_reads_a_finished_run_and_removes_what_a_killed_process_left_of_it(tmp_path, monkeypatch):
    methods = {"FedRep": make("fedrep", epochs=1)}
    compare(LONG, methods, [0], tmp_path)
    (path,) = tmp_path.iterdir()
    checkpoint_path(path, 4).write_bytes(b"whatever")
    nothing_trains(monkeypatch)
    compare(LONG, methods, [0], tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    import subprocess
    import sys

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in ("run.json", "run.ckpt-00002.safetensors"):
        (tmp_path / f"{name}.{gone.pid}-1.part").write_text("half")
    run(LONG, make("local", epochs=1), 0, tmp_path / "run.json", nothing)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_an_error_while_an_interrupted_run_is_saved_leaves_its_rounds_in_the_file(tmp_path, monkeypatch):
    out = tmp_path / "run.json"

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_state", full)
    with pytest.raises(OSError, match="No space left"):
        run(LONG, make("local", epochs=1), 0, out, stop_after(3), checkpoint_every=100)
    assert [record["round"] for record in json.loads(out.read_text())["records"]] == [2]
