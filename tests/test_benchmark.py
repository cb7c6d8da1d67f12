"""The benchmark: cheapest first, resumable, tables as computed by hand, rows that their own command makes again."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import call

from fedecouple_lite.methods import METHODS, make
from fedecouple_lite.studies.benchmark import (
    BASELINES,
    DATASETS_BY_COST,
    PRESETS,
    Preset,
    cells,
    command_line_of,
    length,
    measure,
    run_halving_lr,
)
from fedecouple_lite.studies.experiment import Setting
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


def test_a_run_that_diverges_is_repeated_with_half_its_step_size(tmp_path):
    setting = Setting(rounds=1, clients=4, per_client=30)
    calm, same = run_halving_lr(setting, "calm", make("fedavg", epochs=1), 0, tmp_path)
    assert same == make("fedavg", epochs=1) and calm["method"]["lr"] == same.lr
    wild = make("fedavg", lr=1e30, epochs=3)
    result, tamed = run_halving_lr(setting, "wild", wild, 0, tmp_path)
    assert result["finished"] and result["method"]["lr"] == tamed.lr < 1e30 and np.log2(wild.lr / tamed.lr) % 1 == 0
    with pytest.raises(FloatingPointError):
        run_halving_lr(setting, "hopeless", make("fedavg", lr=1e-5, momentum=1.0, weight_decay=1e30), 0, tmp_path)


@pytest.mark.parametrize("partition", ["Dirichlet 0.1", "Dirichlet 0.5", "s = 20 %"])
def test_stored_commands_of_every_partition_are_understood(partition):
    rows = pd.read_csv(RESULTS / "benchmark" / "laptop.csv").query("partition == @partition")
    (setting,) = (setting for _, name, setting in cells(PRESETS["laptop"]) if name == partition)
    for row in rows.to_dict("records"):
        method = make(row["method"], **json.loads(row["hyperparameters"]))
        assert command_line_of(setting, row["method"], method, row["seed"]) == row["command"]


def test_a_published_cell_is_made_again(tmp_path):
    rows = pd.read_csv(RESULTS / "benchmark" / "laptop.csv")
    assert set(rows["method"]) == set(METHODS) and set(rows["seed"]) == {0, 1, 2}
    row = rows.query("dataset == 'digits' and partition == 'Dirichlet 0.5' and method == 'fedrep' and seed == 1").iloc[
        0
    ]
    assert call(*shlex.split(row["command"])[3:], "--out", tmp_path / "a.json").exit_code == 0
    (made,) = table([json.loads((tmp_path / "a.json").read_text())]).to_dict("records")
    assert made["personal"] == pytest.approx(row["personal"], abs=0.01)  # another processor rounds differently
    assert made["steps"] == row["steps"] and made["upload_bytes"] == row["upload_bytes"]


def test_the_command_line_prints_the_table_and_refuses_unknown_names(tmp_path):
    flags = ("--preset", "laptop", "--rounds", 1, "--seeds", 1, "--methods", "fedper,fedecouple", "--out", tmp_path)
    result = call("benchmark", *flags)
    assert result.exit_code == 0 and "FedeCouple minus the best other" in result.output, result.output
    assert len(pd.read_csv(tmp_path / "laptop" / "table.csv")) == 6
    for bad in (
        ("--methods", "fedper,fedprr"),
        ("--datasets", "digits,digitz"),
        ("--preset", "huge"),
        ("--methods", ""),
    ):
        result = call("benchmark", *bad, "--out", tmp_path / "bad")
        assert result.exit_code == 2 and bad[1].split(",")[-1] in result.output and not (tmp_path / "bad").exists()
    twice = call("benchmark", *flags[:6], "--methods", "fedper,fedper", "--out", tmp_path / "twice")
    assert twice.exit_code == 0 and "FedeCouple minus" not in twice.output  # nothing to compare it with
