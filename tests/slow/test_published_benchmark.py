"""What is published of the benchmark on real images is made again by what made it."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from fedecouple_lite import make
from fedecouple_lite.studies.benchmark import PRESETS, cells
from fedecouple_lite.studies.experiment import compare, score_of_trial
from fedecouple_lite.studies.tables import table

TABLES = Path(__file__).resolve().parents[2] / "data" / "results" / "benchmark"


def setting_of(dataset, partition):
    """What all runs of this cell of `medium` share."""
    (setting,) = (of_cell for *cell, of_cell in cells(PRESETS["medium"]) if cell == [dataset, partition])
    return setting


def test_a_trial_of_medium_is_made_again(real_images, tmp_path, monkeypatch):
    """Twelve rounds on CIFAR-100, of which a whole run takes too long for a test; judged on validation images."""
    monkeypatch.setenv("FEDECOUPLE_DATA", str(real_images))
    trials = pd.read_csv(TABLES / "medium-tuning.csv")
    of_row = trials.query("dataset == 'cifar100' and partition == 'mixture' and row == 'fedper'")
    published = of_row[of_row["finished"]].iloc[0]
    method = make("fedper", **json.loads(published["hyperparameters"]))
    rounds = PRESETS["medium"].rounds_of_a_trial("cifar100")
    short = replace(setting_of("cifar100", "s = 20 %"), rounds=rounds, evaluate_on="validation")
    (again,) = compare(short, {"FedPer": method}, [0], tmp_path)
    # Another processor rounds differently: that may turn a few of the 740 validation images.
    assert score_of_trial(again["records"]) == pytest.approx(published["last_third"], abs=0.02)
    last = [record["personal"] for record in again["records"][-5:]]
    assert sum(last) / 5 == pytest.approx(published["last_five"], abs=0.02)


def test_a_run_of_medium_is_made_again(real_images, tmp_path, monkeypatch):
    """All twenty rounds of FedeCouple's cheapest row on Fashion-MNIST, with that row's own hyper-parameters."""
    monkeypatch.setenv("FEDECOUPLE_DATA", str(real_images))
    rows = pd.read_csv(TABLES / "medium.csv")
    of_cell = rows.query("dataset == 'fashion_mnist' and partition == 'Dirichlet 0.1'")
    published = of_cell.query("method == 'fedecouple_joint' and seed == 0").iloc[0]
    setting = setting_of("fashion_mnist", "Dirichlet 0.1")
    method = make("fedecouple", **json.loads(published["hyperparameters"]))
    again = table(compare(setting, {"fedecouple_joint": method}, [0], tmp_path)).iloc[0]
    # Another processor rounds differently: that may turn a few of the 1,500 test images.
    for accuracy in ("personal", "personal_received", "percentile10"):
        assert again[accuracy] == pytest.approx(published[accuracy], abs=0.02)
    for cost in ("steps", "predict_steps", "upload_bytes", "download_bytes"):
        assert again[cost] == published[cost]
