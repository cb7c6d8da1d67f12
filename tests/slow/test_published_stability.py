"""Published figures of stability and scale: rows are made again by what made them."""

import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "data" / "results" / "stability"


@pytest.fixture
def stability(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield pytest.importorskip("stability")
    sys.modules.pop("stability", None)


@pytest.mark.parametrize(
    ("part", "said", "label"),
    [
        ("participation", {"participation": 0.5}, "FedRep"),
        ("dropout", {"dropout": "after training", "share": 0.3}, "FedAvg"),
        ("change", {"change": "half-way"}, "FedeCouple"),
    ],
)
def test_a_published_row_is_made_again(stability, part, said, label):
    (job,) = [job for what, name, _, seed, job in stability.PARTS[part]() if (what, name, seed) == (said, label, 1)]
    rows = pd.read_csv(TABLES / f"{part}.csv")
    for name, value in {**said, "method": label, "seed": 1}.items():
        rows = rows[rows[name] == value]
    made = pd.DataFrame(job())
    assert len(made) == len(rows) > 0
    # another processor rounds differently
    assert made["personal"].to_numpy() == pytest.approx(rows["personal"].to_numpy(), abs=0.03)
    assert made["personal"].mean() == pytest.approx(rows["personal"].mean(), abs=0.01)


def test_published_bytes_are_made_again(stability):
    rows = pd.read_csv(TABLES / "costs.csv").dropna(subset=["upload_bytes"])
    figures = ["upload_bytes", "download_bytes", "kept_bytes"]
    stored = rows[rows["net"] == "small_cnn"].set_index("method")[figures]
    for said, label, _, _, job in stability.costs():
        if said == {"net": "small_cnn"}:
            (made,) = job()
            assert made == stored.loc[label].astype(int).to_dict(), label
