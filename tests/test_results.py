"""The published tables: what the README says is what the files hold, and a file's number can be computed again."""

import json
from pathlib import Path

import pandas as pd
import pytest

from fedecouple_lite import make
from fedecouple_lite.studies.experiment import Setting, compare
from fedecouple_lite.studies.tables import table


def test_the_published_table_is_the_readmes(monkeypatch):
    root = Path(__file__).resolve().parents[1]
    rows = root / "data" / "results" / "digits.csv"
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import digits

    readme = (root / "README.md").read_text()
    assert digits.into_readme(digits.readme_table(pd.read_csv(rows)), readme) == readme
    assert "| FedeCouple |" in readme and len(pd.read_csv(rows)) == 2 * 3 * 5 * 12


def test_the_benchmarks_tables_are_the_readmes(monkeypatch):
    root = Path(__file__).resolve().parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import five_datasets

    readme = (root / "README.md").read_text()
    assert "| fedecouple |" in five_datasets.into_readme(readme) == readme


def test_the_tables_of_ablations_convergence_and_speed_are_the_readmes(monkeypatch):
    root = Path(__file__).resolve().parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import readme

    text = (root / "README.md").read_text()
    assert readme.filled(text) == text
    for part in (readme.ablations, readme.convergence, readme.speed):
        assert part() in text


def test_one_published_number_is_reproduced(tmp_path):
    """FedAvg, alpha 1.0, seed 0, equal epochs: run again from the row's own hyper-parameters."""
    rows = pd.read_csv(Path(__file__).resolve().parents[1] / "data" / "results" / "digits.csv")
    row = rows.query("method == 'FedAvg' and alpha == 1.0 and seed == 0 and equal == 'epochs'").iloc[0]
    method = make("fedavg", **json.loads(row["hyperparameters"]))
    (result,) = compare(Setting(alpha=1.0, rounds=12), {"FedAvg": method}, [0], tmp_path)
    # float32 on another machine, or another build of torch, may turn a few of the 900 test images
    assert table([result])["personal"][0] == pytest.approx(row["personal"], abs=0.02)
