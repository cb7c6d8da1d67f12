"""A published run of the benchmark on real images is made again by its own command."""

import json
import shlex
from pathlib import Path

import pandas as pd
import pytest
from test_cli import call

from fedecouple_lite.studies.tables import table

TABLES = Path(__file__).resolve().parents[2] / "data" / "results" / "benchmark"


def test_a_run_of_medium_is_made_again(real_images, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDECOUPLE_DATA", str(real_images))
    rows = pd.read_csv(TABLES / "medium.csv")
    row = rows.query("dataset == 'fashion_mnist' and partition == 'Dirichlet 0.1' and method == 'fedper'").iloc[1]
    assert row["seed"] == 1 and "--device" not in row["command"]
    result = call(*shlex.split(row["command"])[3:], "--out", tmp_path / "again.json")
    assert result.exit_code == 0, result.output
    (again,) = table([json.loads((tmp_path / "again.json").read_text())]).to_dict("records")
    # Another processor rounds differently: that may turn a few of the 1,500 test images.
    for figure in ("personal", "personal_received", "percentile10"):
        assert again[figure] == pytest.approx(row[figure], abs=0.02), figure
    assert (again["steps"], again["upload_bytes"]) == (row["steps"], row["upload_bytes"])
    curves = pd.read_csv(TABLES / "medium-curves.csv")
    last = curves.query("dataset == 'fashion_mnist' and partition == 'Dirichlet 0.1' and method == 'fedper'").iloc[-1]
    assert last["round"] == 20 and last["steps"] == pytest.approx(20 * row["steps"], rel=0.05)  # of all seeds
