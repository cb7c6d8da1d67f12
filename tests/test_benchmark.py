"""The benchmark: cheapest first, resumable, tables as computed by hand, rows that their own command makes again."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import arrays
from test_cli import call

from fedecouple_lite import load
from fedecouple_lite.methods import METHODS, make
from fedecouple_lite.studies import benchmark, experiment
from fedecouple_lite.studies.benchmark import (
    BASELINES,
    DATASETS_BY_COST,
    PRESETS,
    Preset,
    cells,
    check_preset,
    command_line_of,
    fixed_of,
    length,
    length_of,
    measure,
)
from fedecouple_lite.studies.experiment import Setting, steps_per_batch
from fedecouple_lite.studies.tables import table

TINY = Preset(
    ("digits",), ("Dirichlet 0.1",), seeds=2, trials=2, tuning_rounds=1, setting=Setting(rounds=2, clients=4),
    common={"epochs": 1}, methods=("fedper", "fedecouple"),
)  # fmt: skip
RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"


def test_the_paper_preset_is_five_sets_times_three_partitions_in_the_literatures_setting():
    all_cells = list(cells(PRESETS["paper"]))
    assert len(all_cells) == 15 and [dataset for dataset, *_ in all_cells[::3]] == list(DATASETS_BY_COST)
    _, partition, setting = all_cells[2]
    assert (setting.clients, setting.per_client, setting.rounds, setting.partition) == (20, 900, 200, "mixture")
    assert partition == "s = 20 %" and setting.share == 0.2 and round(900 * setting.test_share) == 300
    assert set(BASELINES) < set(METHODS) and len(BASELINES) == 9 and "fedecouple" not in BASELINES


def test_rows_are_complete_resumed_and_made_again_by_their_command(tmp_path):
    seen = []
    rows = measure(TINY, tmp_path, lambda label, seed, state: seen.append((label, state)))
    assert rows.groupby(["method", "seed"]).size().eq(1).all() and len(rows) == 4
    assert list(rows.columns[:4]) == ["dataset", "partition", "method", "seed"]
    assert len(seen) == length(TINY) == 2 * (2 * 1 + 2 * 2)
    seen.clear()
    again = measure(TINY, tmp_path, lambda label, seed, state: seen.append((label, state)))
    pd.testing.assert_frame_equal(rows, again)
    assert all(state is None for _, state in seen)
    row = rows.iloc[-1]
    words = shlex.split(row["command"])[3:]
    result = call(*words, "--out", tmp_path / "again.json")
    assert result.exit_code == 0, result.output
    (made,) = table([json.loads((tmp_path / "again.json").read_text())]).to_dict("records")
    assert made["personal"] == row["personal"] and made["steps"] == row["steps"]


def test_an_interrupted_benchmark_goes_on(tmp_path):
    def interrupt(label, seed, state):
        if label == "fedecouple":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(TINY, tmp_path, interrupt)
    read_back = []
    measure(TINY, tmp_path, lambda label, seed, state: read_back.append(label) if state is None else None)
    assert read_back.count("fedper") == 2 and "tuning fedecouple" in read_back and "fedecouple" not in read_back


def test_a_benchmark_goes_on_inside_the_run_that_was_interrupted(tmp_path):
    """And its rows are those of one that was not."""

    def interrupt(label, seed, state):
        if (label, seed) == ("fedecouple", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(TINY, tmp_path / "stopped", interrupt)
    rounds_seen = []

    def watch(label, seed, state):
        if state is not None:
            rounds_seen.append((label, seed, state.round))

    rows = measure(TINY, tmp_path / "stopped", watch)
    assert rounds_seen == [("fedecouple", 1, 1), ("fedecouple", 1, 2)]
    pd.testing.assert_frame_equal(rows, measure(TINY, tmp_path / "whole"))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_set_that_cannot_be_had_is_left_out_and_named(tmp_path, monkeypatch):
    told = []
    (tmp_path / "blank.npz").write_bytes(b"")
    both = replace(TINY, datasets=(str(tmp_path / "blank.npz"), "digits"), methods=("fedper", "fedecouple"))
    rows = measure(both, tmp_path / "runs", on_cell=lambda *of: told.append(of))
    assert set(rows["dataset"]) == {"digits"} and "cannot be used" in told[0][2] and told[1][2] == ""
    with pytest.raises(ValueError, match="cannot be used"):
        measure(replace(both, datasets=both.datasets[:1]), tmp_path / "none")


def test_a_command_says_only_what_is_not_default():
    words = command_line_of(Setting(alpha=0.1, per_client=90), "fedper", make("fedper", lr=0.02), 3)
    assert words.startswith(
        "python -m fedecouple_lite run --method fedper --seed 3 --alpha 0.1 --per-client 90 --lr 0.02"
    )


def test_a_command_says_what_is_evaluated_on_where_it_is_not_the_test_images():
    words = command_line_of(Setting(evaluate_on="validation", partition="mixture"), "fedper", make("fedper"), 0)
    assert " --partition mixture --evaluate-on validation --lr" in words


def nothing_trains(monkeypatch):
    def fail(*args, **options):
        raise AssertionError("trained")

    monkeypatch.setattr(experiment, "rounds", fail)


def test_an_unchanged_benchmark_computes_nothing_and_a_changed_one_all_of_it(tmp_path, monkeypatch):
    digits = load("digits")
    path = tmp_path / "mine.npz"

    def write(start):
        x, y = digits.x[start : start + 300, 0].numpy(), digits.y[start : start + 300].numpy()
        np.savez(path, x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])

    preset = replace(TINY, datasets=(str(path),), partitions=("Dirichlet 0.5",), methods=("fedavg",))
    write(0)
    first = measure(preset, tmp_path / "runs")
    write(700)
    second = measure(preset, tmp_path / "runs")
    pd.testing.assert_frame_equal(second, measure(preset, tmp_path / "new"))
    assert (first["personal"] != second["personal"]).all()
    write(0)
    nothing_trains(monkeypatch)
    pd.testing.assert_frame_equal(first, measure(preset, tmp_path / "runs"))
    monkeypatch.setattr(experiment, "__version__", "99.0")
    with pytest.raises(AssertionError, match="trained"):
        measure(preset, tmp_path / "runs")


def test_what_a_preset_gives_is_in_every_trial_and_run_and_the_rows_say_what_was_chosen(tmp_path):
    preset = replace(TINY, common={"lr": 0.001, "epochs": 1, "fine_tune_epochs": 2}, methods=("fedrep", "fedavg_ft"))
    rows = measure(replace(preset, trials=3, seeds=1, setting=Setting(rounds=1, clients=2, per_client=16)), tmp_path)
    runs = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    trials = [json.loads(path.read_text()) for path in tmp_path.rglob("tuning/*.json")]
    assert len(trials) == 2 * 3 and len(runs) == 2 + len(trials)
    assert {run["method"]["lr"] for run in runs} == {0.001} and {run["method"]["epochs"] for run in runs} == {1}
    for row in rows.to_dict("records"):
        values = json.loads(row["hyperparameters"])
        assert values["lr"] == 0.001 and all(f"--{name.replace('_', '-')} " in row["command"] for name in values)
    of_ft = rows.set_index("method").loc["fedavg_ft"]
    assert of_ft["steps"] == 2 and of_ft["predict_steps"] == 4  # two clients, one batch each: one epoch, then two
    assert rows.set_index("method").loc["fedrep", "predict_steps"] == 0


REFUSED = {
    "methods='fedprr' is unknown; did you mean 'fedper'": {"methods": ("fedper", "fedprr")},
    "datasets='digitz' is unknown; did you mean 'digits'": {"datasets": ("digits", "digitz")},
    "partitions='Dirichlet 0.3' is unknown": {"partitions": ("Dirichlet 0.3",)},
    "seeds=0 must be a whole number >= 1": {"seeds": 0},
    "trials=0 must be": {"trials": 0},
    "tuning_rounds=0 must be": {"tuning_rounds": 0},
    "other_rounds='digitz' is unknown; did you mean 'digits'": {"other_rounds": {"digitz": 20}},
    r"other_rounds\['digits'\]=0 must be": {"other_rounds": {"digits": 0}},
    "common='epoch' means nothing to any of .*; did you mean 'epochs'": {"common": {"epoch": 2}},
    "epochs=-1 of FedPer must be": {"common": {"epochs": -1}},
    "test_share=0 and .* leave nobody a test image": {"setting": replace(TINY.setting, test_share=0)},
    "participation=2 must be": {"setting": replace(TINY.setting, participation=2)},
    "per_client=4 .* leave nobody a validation image": {
        "setting": replace(TINY.setting, per_client=4, clients=2),
        "partitions": ("s = 20 %",),
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_preset_that_cannot_be_run_is_refused_before_any_training(tmp_path, monkeypatch, message):
    nothing_trains(monkeypatch)
    with pytest.raises(ValueError, match=message):
        measure(replace(TINY, **REFUSED[message]), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_cell_whose_later_seeds_cannot_be_split_is_left_out_before_anything_is_trained(tmp_path, monkeypatch):
    """With 15 clients Dirichlet 0.01 divides the digits with seed 0, and not with seed 1."""
    monkeypatch.setitem(benchmark.PARTITION_SETTINGS, "Dirichlet 0.01", {"partition": "dirichlet", "alpha": 0.01})
    told = []
    preset = replace(TINY, partitions=("Dirichlet 0.01",), setting=Setting(rounds=1, clients=15), trials=1)
    nothing_trains(monkeypatch)
    with pytest.raises(ValueError, match=r"alpha=0\.01 left one of clients=15"):
        measure(preset, tmp_path, on_cell=lambda *of: told.append(of))
    assert len(told) == 1 and "alpha=0.01" in told[0][2]


def test_a_command_writes_a_switch_as_a_flag_and_what_is_left_out_as_none(tmp_path):
    x, y = arrays(60)
    np.savez(tmp_path / "mine.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    setting = Setting(dataset=str(tmp_path / "mine.npz"), keep_test=True, clients=2, rounds=1, partition="iid")
    method = make("fedrep", epochs=1, classifier_lr=None)
    words = command_line_of(setting, "fedrep", method, 1)
    assert " --keep-test --rounds 1 " in words and "True" not in words and words.endswith("--classifier-lr none")
    (expected,) = experiment.compare(setting, {"fedrep": method}, [1], tmp_path / "runs")
    assert call(*shlex.split(words)[3:], "--out", tmp_path / "x.json").exit_code == 0
    assert json.loads((tmp_path / "x.json").read_text())["digest"] == expected["digest"]


@pytest.mark.parametrize("partition", ["Dirichlet 0.1", "Dirichlet 0.5", "s = 20 %"])
def test_stored_commands_of_every_partition_are_understood(partition):
    rows = pd.read_csv(RESULTS / "benchmark" / "laptop.csv").query("partition == @partition")
    (setting,) = (setting for _, name, setting in cells(PRESETS["laptop"]) if name == partition)
    for row in rows.to_dict("records"):
        method = make(row["method"], **json.loads(row["hyperparameters"]))
        assert command_line_of(setting, row["method"], method, row["seed"]) == row["command"]


def test_a_cell_is_tuned_on_seed_0_whatever_seeds_run(tmp_path, monkeypatch):
    asked = []

    def watch(setting, method, seed, trials, folder, on_round, fixed, budget):
        asked.append((seed, trials, setting.rounds, list(fixed), budget))
        return method

    monkeypatch.setattr(benchmark, "tune", watch)
    measure(TINY, tmp_path)
    assert asked == [(0, TINY.trials, TINY.tuning_rounds, list(TINY.common), None)] * len(TINY.methods)


def test_a_data_set_may_have_a_number_of_rounds_of_its_own(tmp_path):
    preset = replace(TINY, methods=("local",), seeds=1, tuning_rounds=3, other_rounds={"digits": 1, "mnist": 5})
    (cell,) = cells(preset)
    assert cell[2].rounds == 1
    assert [preset.rounds_of_a_trial(dataset) for dataset in ("digits", "mnist", "emnist")] == [1, 3, 2]
    assert [length_of(preset, "mnist", label) for label in ("local", "tuning local")] == [5, 3]
    seen = []
    measure(preset, tmp_path, lambda label, seed, state: seen.append(length_of(preset, "digits", label)))
    assert sum(seen) == len(seen) == length(preset) == 2 * 1 + 1


def test_a_variant_is_a_row_of_its_own_whose_command_makes_it(tmp_path):
    preset = replace(TINY, methods=("fedecouple", "fedecouple_joint"), seeds=1)
    rows = measure(preset, tmp_path).set_index("method")
    couplings = rows["hyperparameters"].map(lambda text: json.loads(text)["coupling"])
    assert couplings.to_dict() == {"fedecouple": "alternate", "fedecouple_joint": "joint"}
    assert rows["steps"]["fedecouple_joint"] < rows["steps"]["fedecouple"]
    words = rows["command"]["fedecouple_joint"]
    assert " --method fedecouple " in words and " --coupling joint" in words
    trials = [json.loads(path.read_text())["method"]["coupling"] for path in tmp_path.rglob("tuning/*.json")]
    assert sorted(trials) == ["alternate"] * TINY.trials + ["joint"] * TINY.trials
    assert fixed_of(preset, "fedecouple_joint") == {"epochs": 1, "coupling": "joint"}


def test_a_budget_sets_the_epochs_of_every_row(tmp_path):
    """Three steps a batch: three epochs of FedAvg, and one of the alternate coupling beside its classifier's."""
    preset = replace(TINY, common={}, methods=("fedavg", "fedecouple", "fedecouple_joint"), seeds=1, budget=3)
    rows = measure(preset, tmp_path).set_index("method")
    epochs = rows["hyperparameters"].map(lambda text: json.loads(text)["epochs"])
    assert epochs.to_dict() == {"fedavg": 3, "fedecouple": 1, "fedecouple_joint": 2}
    assert rows["steps"].nunique() == 1
    for path in tmp_path.rglob("*.json"):
        run = json.loads(path.read_text())
        name = run["method"].pop("name").lower()
        assert steps_per_batch(make(name, **run["method"])) == 3
    with pytest.raises(ValueError, match="budget=1 is below one epoch of FedeCouple"):
        check_preset(replace(preset, budget=1))
    with pytest.raises(ValueError, match="budget=3 must be None, or epochs=1 not fixed"):
        check_preset(replace(preset, common={"epochs": 1}))


def test_the_medium_preset_has_every_coupling_and_its_steps_are_those_of_the_alternate_one():
    medium, steps = PRESETS["medium"], PRESETS["medium_steps"]
    assert medium.methods == (*METHODS, "fedecouple_phases", "fedecouple_joint")
    assert len(list(cells(medium))) == 10
    for (*cell, setting), (*same_cell, at_steps) in zip(cells(medium), cells(steps), strict=True):
        assert cell == same_cell and at_steps == replace(setting, rounds=20)
    assert (medium.trials, medium.seeds) == (steps.trials, steps.seeds)
    passes_of_a_trial = medium.tuning_rounds * medium.common["epochs"]  # over a client's images
    assert steps.tuning_rounds * steps.budget >= passes_of_a_trial
    assert set(steps.methods) < set(medium.methods)
    assert steps_per_batch(make("fedecouple", **fixed_of(medium, "fedecouple"))) == steps.budget
