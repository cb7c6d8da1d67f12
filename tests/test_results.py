"""The published tables: what the pages say is what the files hold, and a file's number can be computed again."""

import json
import shlex
from inspect import getsource, signature, unwrap
from pathlib import Path

import pandas as pd
import pytest

from fedecouple_lite import make
from fedecouple_lite.__main__ import demo as command_demo
from fedecouple_lite.studies.experiment import Setting, compare
from fedecouple_lite.studies.tables import table


def test_the_table_on_digits_is_the_files(monkeypatch):
    root = Path(__file__).resolve().parents[1]
    rows = root / "data" / "results" / "digits.csv"
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import digits

    page = (root / "docs" / "results.md").read_text()
    table = digits.page_table(pd.read_csv(rows))
    assert table in page and digits.into_page(table, page) == page
    assert "| FedeCouple |" in table and len(pd.read_csv(rows)) == 2 * 3 * 5 * 13


def test_the_benchmarks_tables_are_the_files(monkeypatch):
    root = Path(__file__).resolve().parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import five_datasets

    page = (root / "docs" / "results.md").read_text()
    assert "| fedecouple |" in five_datasets.into_page(page) == page


def test_the_other_tables_are_the_files(monkeypatch):
    root = Path(__file__).resolve().parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import pages

    of_readme = [pages.demo, pages.leads_of_the_default]
    of_page = [made for made in pages.TABLES.values() if made not in of_readme]
    tables = {"docs/results.md": of_page, "README.md": of_readme}
    for name, made in tables.items():
        text = (root / name).read_text()
        assert pages.filled(text) == text, f"{name}: run benchmarks/pages.py"
        for make_table in made:
            assert make_table() in text, name


def test_a_run_that_diverged_is_said_and_in_no_mean(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import pages

    rows = pd.DataFrame({"personal": [0.5, 0.7, float("nan")], "diverged": [0, 0, 4]})
    assert pages.personal_unless_diverged(rows) == "1 of 3 diverged"
    assert pages.personal_unless_diverged(rows[:2]) == "60.0 +- 14.1"


def test_the_table_of_make_demo_is_of_its_own_setting_and_methods(monkeypatch):
    root = Path(__file__).resolve().parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import demo

    rows = pd.read_csv(root / "data" / "results" / "demo" / "demo.csv")
    assert rows.groupby("method", sort=False).size().to_dict() == dict.fromkeys(demo.METHODS, 3)
    assert demo.SETTING.rounds == signature(unwrap(command_demo)).parameters["rounds"].default
    for label, name in demo.METHODS.items():
        assert f'"{label}": make("{name}")' in getsource(unwrap(command_demo))


def test_one_published_number_is_reproduced(tmp_path):
    """FedAvg + fine-tuning, alpha 0.5, seed 0: run again from the row's own hyper-parameters, through Python."""
    rows = pd.read_csv(Path(__file__).resolve().parents[1] / "data" / "results" / "benchmark" / "laptop.csv")
    row = rows.query("method == 'fedavg_ft' and partition == 'Dirichlet 0.5' and seed == 0").iloc[0]
    method = make("fedavg_ft", **json.loads(row["hyperparameters"]))
    (result,) = compare(Setting(alpha=0.5, rounds=8), {"FedAvg + fine-tuning": method}, [0], tmp_path)
    # float32 on another machine, or another build of torch, may turn a few of the 900 test images
    assert table([result])["personal"][0] == pytest.approx(row["personal"], abs=0.02)


TABLES = ("digits.csv", "ablations.csv", "benchmark/laptop.csv", "benchmark/small.csv", "demo/demo.csv")

OF_SECURITY = ("poisoning", "backdoor", "membership", "noise", "inversion", "class_mix")


@pytest.mark.parametrize("name", [*TABLES, "convergence.csv", *(f"security/{part}.csv" for part in OF_SECURITY)])
def test_every_table_was_measured_by_todays_rules_and_says_how(name):
    """Versions before 0.3 split, fine-tuned and budgeted otherwise."""
    root = Path(__file__).resolve().parents[1]
    about = json.loads((root / "data" / "results" / name).with_suffix(".json").read_text())
    major, minor, *_ = about["versions"]["fedecouple_lite"].split(".")
    assert (int(major), int(minor)) >= (0, 3)
    assert about["command"].split()[0] == "python" and about["versions"]["torch"]
    assert "measured with version 0" not in (root / "docs" / "results.md").read_text()


@pytest.mark.parametrize("name", TABLES)
def test_stored_rows_have_both_moments_of_evaluation_all_costs_and_their_hyper_parameters(name):
    rows = pd.read_csv(Path(__file__).resolve().parents[1] / "data" / "results" / name)
    assert {"personal", "personal_received", "newcomers", "steps", "predict_steps", "hyperparameters"} <= set(rows)
    assert rows[["personal", "personal_received"]].apply(lambda column: column.between(0, 1)).all(axis=None)
    fine_tunes = rows["hyperparameters"].str.contains("fine_tune_epochs")
    assert (rows["predict_steps"][fine_tunes] > 0).all() and (rows["predict_steps"][~fine_tunes] == 0).all()
    assert (rows["personal"][fine_tunes] == rows["personal_received"][fine_tunes]).all()
    # Everybody takes part in these: nobody is new.
    assert (rows["newcomers"] == 0).all()


def test_stored_rows_at_equal_steps_are_within_the_budget():
    """Eleven steps a batch: no method takes more steps than FedAvg, whose eleven epochs fill the budget."""
    rows = pd.read_csv(Path(__file__).resolve().parents[1] / "data" / "results" / "digits.csv")
    rows = rows[rows["equal"] == "steps"]
    of_fedavg = rows[rows["method"] == "FedAvg"].set_index(["alpha", "seed"])["steps"]
    for method, part in rows.groupby("method"):
        steps = part.set_index(["alpha", "seed"])["steps"]
        assert (steps <= of_fedavg.loc[steps.index]).all(), method


def test_a_stored_ablation_is_made_again_by_its_command(tmp_path):
    from test_cli import call

    rows = pd.read_csv(Path(__file__).resolve().parents[1] / "data" / "results" / "ablations.csv")
    row = rows.query("combination == 'GLF + GFA' and dataset == 'digits' and seed == 1").iloc[0]
    assert call(*shlex.split(row["command"])[3:], "--out", tmp_path / "a.json").exit_code == 0
    (made,) = table([json.loads((tmp_path / "a.json").read_text())]).to_dict("records")
    assert made["personal"] == pytest.approx(row["personal"], abs=0.01)  # another processor rounds differently
    assert made["steps"] == row["steps"] and json.loads(made["hyperparameters"]) == json.loads(row["hyperparameters"])
