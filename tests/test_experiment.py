import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fedecouple_lite import METHODS, make
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.studies.experiment import (
    Setting,
    as_table,
    at_equal_steps,
    compare,
    passes,
    plain,
    summary,
    table,
    tune,
)

SMALL = Setting(clients=4, rounds=1, per_client=60)


def run_of(label, seed, *personal):
    fixed = {"global": None, "steps": 4, "upload_bytes": 1000, "download_bytes": 2000, "accuracies": []}
    records = [{"round": i, "personal": p, "worst10": p / 2} | fixed for i, p in enumerate(personal)]
    return {"label": label, "seed": seed, "records": records}


RUNS = [run_of("A", 0, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5), run_of("A", 1, 0.5), run_of("B", 0, 0.2), run_of("B", 1, 0.3)]


def test_a_run_is_the_mean_of_its_last_five_rounds_never_its_best():
    assert table(RUNS).query("method == 'A'")["personal"].tolist() == pytest.approx([0.3, 0.5])


def test_summary_has_mean_sample_std_and_the_paired_test_by_hand():
    figures = summary(table(RUNS))
    assert figures.loc["A", ("personal", "mean")] == pytest.approx(0.4)
    assert figures.loc["A", ("personal", "std")] == pytest.approx(0.1 * 2**0.5)
    # differences 0.1 and 0.2: t = 0.15 / (0.0707 / sqrt 2) = 3, one degree of freedom: p = 2 (1/2 - arctan(3) / pi)
    assert figures.loc["A", ("p", "")] == pytest.approx(1 - 2 * np.arctan(3) / np.pi)
    shown = as_table(table(RUNS)).set_index("method")
    assert shown.loc["A", "personal %"] == "40.0 +- 14.1" and shown.loc["A", "global %"] == "-"
    assert shown.loc["B", ["steps", "KB up", "KB down"]].tolist() == ["4", "1", "2"]


def test_one_seed_has_no_spread_and_no_p():
    shown = as_table(table(RUNS[:1] + RUNS[2:3]))
    assert shown["personal %"].tolist() == ["30.0", "20.0"] and shown["p"].tolist() == ["-", "-"]


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
    assert len(files) == 3 and all(f["setting"]["on"] == "validation" for f in files)
    assert any(f["method"]["lr"] == 0.1 and f["method"]["classifier_epochs"] == 1 for f in files)
    best = max(files, key=lambda f: f["records"][-1]["personal"])
    assert (chosen.lr, chosen.classifier_epochs) == (best["method"]["lr"], best["method"]["classifier_epochs"])
    assert tune(SMALL, make("fedrep"), 0, 1, tmp_path / "none") == make("fedrep")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="trials=0"):
        tune(SMALL, make("fedrep"), 0, 0, tmp_path)


def test_a_trial_that_diverges_is_the_worst_one(tmp_path):
    setting = Setting(clients=4, rounds=2, per_client=60)
    assert tune(setting, make("fedavg", lr=1e30, epochs=5), 0, 2, tmp_path).lr < 1


def test_no_test_image_is_in_the_validation_federation():
    whole, held = SMALL.federation(0), Setting(clients=4, rounds=1, per_client=60, on="validation").federation(0)
    for k in range(4):
        inside = torch.cat([held.train[k], held.test[k]])
        assert torch.equal(inside.sort().values, whole.train[k].sort().values) and len(held.test[k])
    with pytest.raises(ValueError, match="on='tset' must be test or validation"):
        Setting(on="tset").federation(0)


@pytest.mark.parametrize("name", METHODS)
def test_equal_steps_gives_every_method_as_many_epochs_as_fit(name):
    method = at_equal_steps(make(name), 11)
    assert passes(method) in (10, 11)
    assert passes(make("fedecouple")) == 11 and passes(make("fedecouple", coupling="joint")) == 6
    with pytest.raises(ValueError, match="budget=0 is below one epoch"):
        at_equal_steps(make(name), 0)


def test_steps_in_the_record_are_the_passes_times_the_batches(tmp_path):
    (run,) = compare(SMALL, {"x": make("fedecouple")}, [0], tmp_path)
    batches = sum(-(-len(index) // 32) for index in SMALL.federation(0).train)
    assert run["records"][0]["steps"] == passes(make("fedecouple")) * batches


def test_plain_gives_back_what_json_gives_back():
    assert plain({"a": (1, float("nan")), "b": {"c": None}}) == {"a": [1, None], "b": {"c": None}}
