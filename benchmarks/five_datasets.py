"""Runs a preset of the benchmark and publishes it: data/results/benchmark/PRESET.csv and .json, and README's tables.

Goes on where `python -m fedecouple_lite benchmark --preset PRESET` stopped, since both keep their runs in the same
folder. "laptop" takes minutes, "small" about an hour on 2 cores:

    python benchmarks/five_datasets.py laptop
    FEDECOUPLE_DATA=folder python benchmarks/five_datasets.py small
"""

import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from readme import markdown, put
from tqdm import tqdm

from fedecouple_lite.studies.benchmark import NINE, PRESETS, leaderboard, margins, measure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results" / "benchmark"


def publish(name: str) -> None:
    """Run `name` (or read it back) and write its two files."""
    with tqdm(unit="round", delay=0.3) as bar:
        rows = measure(
            PRESETS[name],
            ROOT / "runs" / "benchmark" / name / "runs",
            lambda label, seed, state: bar.update() and None,
            lambda dataset, skew, problem: bar.write(f"{dataset}, {skew} {problem}"),
        )
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows.to_csv(RESULTS / f"{name}.csv", index=False)
    paths = sorted((ROOT / "runs" / "benchmark" / name).rglob("tuning/*.json"))
    tried = [
        tuning_row(p) for p in paths if json.loads(p.read_text())["setting"]["rounds"] == PRESETS[name].tuning_rounds
    ]
    if tried:
        pd.DataFrame(tried).to_csv(RESULTS / f"{name}-tuning.csv", index=False)
    about = {
        "command": f"python -m fedecouple_lite benchmark --preset {name}",
        "preset": asdict(PRESETS[name]),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": f"{os.cpu_count()} cores ({platform.machine()}), no GPU",
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")


def tuning_row(path: Path) -> dict:
    """One trial: what was tried, and the validation accuracy (mean of the last five rounds) that judged it."""
    run = json.loads(path.read_text())
    accuracy = sum(record["personal"] for record in run["records"][-5:]) / len(run["records"][-5:])
    values = {k: v for k, v in run["method"].items() if k != "name"}
    cell = {"dataset": run["setting"]["dataset"], "alpha": run["setting"].get("alpha"), "method": run["method"]["name"]}
    return cell | {"finished": run["finished"], "validation": accuracy, "hyperparameters": json.dumps(values)}


def into_readme(readme: str) -> str:
    """`readme` with personal accuracies and FedeCouple's leads between the markers."""
    parts, leads = [], []
    for name in PRESETS:
        if (path := RESULTS / f"{name}.csv").exists():
            rows = pd.read_csv(path)
            parts.append(leaderboard(rows).rename_axis(f"`{name}`").reset_index())
            lead = pd.DataFrame({"cell": [f"`{name}`: {r.dataset}, {r.skew}" for r in margins(rows).itertuples()]})
            for title, rivals in (("the best of the nine", NINE), ("the best of all others", None)):
                found = margins(rows, rivals).itertuples()
                lead[f"lead over {title}"] = [
                    f"{r.points:+.1f} [{r.low:+.1f}, {r.high:+.1f}] ({r.rival})" for r in found
                ]
            leads.append(lead.assign(**{"rank of 12": margins(rows)["rank"]}))
    text = "\n\n".join(markdown(part) for part in (*parts, pd.concat(leads)))
    return put("benchmark", text, readme)


if __name__ == "__main__":
    for preset in sys.argv[1:]:
        publish(preset)
    path = ROOT / "README.md"
    path.write_text(into_readme(path.read_text()))
