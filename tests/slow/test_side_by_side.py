"""A preset's rows, measured in several processes and published as they were measured."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from fedecouple_lite.studies.benchmark import Preset, measure
from fedecouple_lite.studies.experiment import Setting


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))


TINY = Preset(
    ("digits",), ("Dirichlet 0.5", "s = 20 %"), seeds=1, trials=2, tuning_rounds=1,
    setting=Setting(rounds=2, clients=2, per_client=20), common={"epochs": 1}, methods=("fedper", "fedecouple_joint"),
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A preset of seconds, with its runs in tmp_path; the folder of its runs."""
    import five_datasets
    import side_by_side

    for module in (five_datasets, side_by_side):
        monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
        monkeypatch.setitem(module.PRESETS, "tiny", TINY)
    return tmp_path / "runs" / "benchmark" / "tiny" / "runs"


def rows_to_publish(name, folder):
    import five_datasets

    return five_datasets.rows_as_measured(five_datasets.complete_cells(name, folder))


def test_rows_measured_side_by_side_and_stopped_twice_are_those_measured_in_turn(tiny, tmp_path, capsys):
    import five_datasets
    import side_by_side

    jobs = side_by_side.jobs_of("tiny", None, "cpu")
    assert [job.row for job in jobs] == [*TINY.methods] * 2
    assert side_by_side.run_side_by_side(jobs, processes=2, seconds=0) == []
    with pytest.raises(ValueError, match="has no cell of tiny of which all runs have been made"):
        rows_to_publish("tiny", tiny)
    side_by_side.run_side_by_side(jobs[:2], processes=1, seconds=300)
    (one_cell,) = rows_to_publish("tiny", tiny)["partition"].unique()
    assert one_cell == "Dirichlet 0.5" and "s = 20 %: left out, 0 of 2 runs" in capsys.readouterr().out
    assert sorted(side_by_side.run_side_by_side(jobs, processes=2, seconds=300)) == [0, 1, 2, 3]
    assert "tiny, digits-s=20%, fedecouple_joint" in capsys.readouterr().out

    measured = rows_to_publish("tiny", tiny)
    pd.testing.assert_frame_equal(measured, measure(TINY, tmp_path / "in turn"))
    about = five_datasets.about("tiny", tiny)
    assert about["versions"]["torch"] == torch.__version__ and about["hardware"].endswith("no GPU")
    side_by_side.write_tar(tmp_path / "runs.tar.gz", ["tiny"])
    with tarfile.open(tmp_path / "runs.tar.gz") as tar:
        names = tar.getnames()
    assert len(names) == 4 + 4 * TINY.trials
    assert all(name.startswith("runs/benchmark/tiny/runs/digits-") for name in names)


def test_a_row_that_fails_is_named_and_the_others_are_measured(tiny, tmp_path, capsys):
    import side_by_side

    jobs = side_by_side.jobs_of("tiny", ["digits"], "cpu")[:2]
    jobs[0] = replace(jobs[0], setting=replace(jobs[0].setting, dataset="blank.npz"))
    assert side_by_side.run_side_by_side(jobs, processes=1, seconds=300) == [1]
    assert "fedper, 0.0 s ValueError: dataset='blank.npz' cannot be used" in capsys.readouterr().out


def test_two_runs_for_one_line_and_runs_of_another_setting_are_not_published(tiny, tmp_path):
    measure(TINY, tiny)
    path = next((tiny / "digits-s=20%").glob("fedper-*.json"))
    measure(replace(TINY, setting=replace(TINY.setting, rounds=1), trials=1), tiny)  # no run of this preset
    assert len(rows_to_publish("tiny", tiny)) == 4
    run = json.loads(path.read_text())
    path.with_name("fedper-0-0123456789abcdef.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match=r"has two runs of digits, s = 20 %, fedper-0"):
        rows_to_publish("tiny", tiny)
