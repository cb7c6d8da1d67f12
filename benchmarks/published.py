"""Where the published figures lie, and what is written beside them."""

import json
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

import fedecouple_lite
from fedecouple_lite.files import write_whole
from fedecouple_lite.methods import FedAvg

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"  # the table of `make demo`, and FedeCouple's leads
PAGE = ROOT / "docs" / "results.md"  # all other tables
RESULTS = ROOT / "data" / "results"
RUNS = ROOT / "runs"  # finished runs, read back by a second call


def versions() -> dict[str, str]:
    """What the figures depend on, besides settings and hardware."""
    return {
        "fedecouple_lite": fedecouple_lite.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


Row = dict[str, Any]
# What to say of a setting, the method's label, the method, the seed, and what makes the rows of it.
Job = tuple[Row, str, FedAvg, int, Callable[[], list[Row]]]


def rows_of(part: str, jobs: Iterable[Job], folder: Path) -> pd.DataFrame:
    """All rows of a part's jobs; one that was finished before is read back from `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for said, label, method, seed, job in tqdm(list(jobs), desc=part, unit="run"):
        about = {"part": part, **said, "method": label, "hyper-parameters": asdict(method), "seed": seed}
        name = blake2b(json.dumps(about | versions(), sort_keys=True).encode(), digest_size=8).hexdigest()
        path = folder / f"{part}-{name}.json"
        if not path.exists():
            text = json.dumps(job(), indent=1)
            write_whole(path, lambda beside, text=text: beside.write_text(text))
        for row in json.loads(path.read_text()):
            rows.append(said | {"method": label, "seed": seed} | row)
    return pd.DataFrame(rows)


def in_cell(rows: pd.DataFrame, dataset: str, partition: str) -> pd.DataFrame:
    """`rows`, with the cell that they are of in the first two columns."""
    columns = [column for column in rows if column not in ("dataset", "partition")]
    return rows.assign(dataset=dataset, partition=partition)[["dataset", "partition", *columns]]


def write_about(path: Path, about: dict[str, Any]) -> None:
    """Write settings, versions and command beside the figures, as JSON."""
    path.write_text(json.dumps(about, indent=1) + "\n")
