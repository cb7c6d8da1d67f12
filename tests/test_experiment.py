"""Runs and comparisons: repeatable, resumable, tuned on validation images, at equal epochs or equal steps."""

import json
from dataclasses import dataclass

import pytest
import torch

from fedecouple_lite import METHODS, make
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.studies.experiment import (
    Setting,
    as_json,
    at_equal_steps,
    candidates,
    compare,
    digest,
    steps_per_batch,
    tune,
)

SMALL = Setting(clients=4, rounds=1, per_client=60)


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
    best = max(files, key=lambda f: f["records"][-1]["personal"])
    assert (chosen.lr, chosen.classifier_epochs) == (best["method"]["lr"], best["method"]["classifier_epochs"])
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
