"""Published figures of security and privacy: a row of each part is made again by what made it."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from fedecouple_lite import make

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "data" / "results" / "security"


@pytest.fixture
def security(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield pytest.importorskip("security")
    sys.modules.pop("security", None)
    sys.modules.pop("stability", None)


def stored(part, said):
    """The rows of which all of this is said."""
    rows = pd.read_csv(TABLES / f"{part}.csv")
    for name, value in said.items():
        rows = rows[rows[name].astype(str) == str(value)]
    return rows


@pytest.mark.parametrize(
    ("part", "said", "label"),
    [
        ("poisoning", {"attack": "label flip", "share": 0.2, "aggregation": "median"}, "FedRep"),
        ("backdoor", {"attack": "scaled by 3", "share": 0.1, "defence": "clipping"}, "FedAvg"),
        ("membership", {"images": 20, "epochs": 20}, "FedAvg"),
        ("noise", {"clip": "0.3", "multiplier": 0.3}, "FedAvg"),
        ("class_mix", {"epochs": 1}, "FedAvg"),
    ],
)
def test_a_published_row_is_made_again(security, part, said, label):
    (job,) = [job for what, name, _, seed, job in security.PARTS[part]() if (what, name, seed) == (said, label, 1)]
    rows = stored(part, {**said, "method": label, "seed": 1})
    made = pd.DataFrame(job())
    assert len(made) == len(rows) > 0
    for column in made:
        if not pd.api.types.is_numeric_dtype(made[column]):
            assert made[column].tolist() == rows[column].tolist()
        elif column.startswith("epsilon"):
            assert made[column].to_numpy() == pytest.approx(rows[column].to_numpy(), rel=1e-4)
        else:  # another processor rounds differently
            assert made[column].to_numpy() == pytest.approx(rows[column].to_numpy(), abs=0.03), column


def test_a_published_inversion_is_made_again(security):
    said = {"images": 1, "epochs": 1, "method": "FedAvg", "seed": 1, "draw": 0}
    (row,) = stored("inversion", said).to_dict("records")
    made = security.invert_draw(make("fedavg", epochs=1), seed=1, images=1, draw=0)
    assert made["labels"] == row["labels"] == 1
    # A search: another processor's rounding may lead it somewhere near by.
    assert made["psnr"] == pytest.approx(row["psnr"], abs=3)
    assert made["ssim"] == pytest.approx(row["ssim"], abs=0.1)


def test_each_part_has_all_its_rows(security):
    for part, jobs in security.PARTS.items():
        rows = pd.read_csv(TABLES / f"{part}.csv", dtype=str)
        wanted = [{**said, "method": label, "seed": seed} for said, label, _, seed, _ in jobs()]
        names = list(wanted[0])
        there = rows[names].drop_duplicates().to_dict("records")
        assert there == pd.DataFrame(wanted).astype(str).to_dict("records"), part
