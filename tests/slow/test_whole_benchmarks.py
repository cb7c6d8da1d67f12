"""Benchmarks run from one end to the other: what is published is made again, and what diverges is tamed."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_benchmark import TINY
from test_cli import call

from fedecouple_lite.methods import METHODS, make
from fedecouple_lite.studies.benchmark import measure, run_halving_lr
from fedecouple_lite.studies.experiment import Setting
from fedecouple_lite.studies.tables import table

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"


def test_a_run_that_diverges_is_repeated_with_half_its_step_size(tmp_path):
    setting = Setting(rounds=1, clients=4, per_client=30)
    calm, same = run_halving_lr(setting, "calm", make("fedavg", epochs=1), 0, tmp_path)
    assert same == make("fedavg", epochs=1) and calm["method"]["lr"] == same.lr
    wild = make("fedavg", lr=1e30, epochs=3)
    result, tamed = run_halving_lr(setting, "wild", wild, 0, tmp_path)
    assert result["finished"] and result["method"]["lr"] == tamed.lr < 1e30 and np.log2(wild.lr / tamed.lr) % 1 == 0
    # FedAvg trains well with this lr; only the step of its fine-tuning is far too large.
    tuning = make("fedavg_ft", epochs=1, lr=0.05, fine_tune_epochs=3, fine_tune_lr=1e16)
    result, tamed = run_halving_lr(setting, "tuning", tuning, 0, tmp_path)
    halvings = np.log2(tuning.fine_tune_lr / tamed.fine_tune_lr)
    assert halvings >= 1 and halvings % 1 == 0 and tuning.lr / tamed.lr == 2**halvings
    with pytest.raises(FloatingPointError):
        run_halving_lr(setting, "hopeless", make("fedavg", lr=1e-5, momentum=1.0, weight_decay=1e30), 0, tmp_path)


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


def test_the_command_of_a_run_that_diverged_at_first_is_that_of_the_run_that_did_not(tmp_path):
    """FedAvg with lr 2^20 diverges until it has been halved often enough: row, command and run say the same lr."""
    preset = replace(TINY, trials=1, seeds=1, common={"lr": 2.0**20, "epochs": 3}, methods=("fedavg",))
    (row,) = measure(preset, tmp_path).to_dict("records")
    lr = json.loads(row["hyperparameters"])["lr"]
    assert lr < 2.0**20 and f"--lr {lr} " in row["command"]
    assert call(*shlex.split(row["command"])[3:], "--out", tmp_path / "again.json").exit_code == 0
    (made,) = table([json.loads((tmp_path / "again.json").read_text())]).to_dict("records")
    assert made["personal"] == row["personal"]
