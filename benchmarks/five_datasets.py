"""Runs a preset of the benchmark and publishes it: data/results/benchmark/PRESET.csv and .json, and the tables
of docs/results.md.

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
from typing import Any

import pandas as pd
from pages import markdown, put
from published import PAGE, RESULTS, RUNS, versions, write_about
from tqdm import tqdm

from fedecouple_lite.engine import State
from fedecouple_lite.studies.benchmark import BASELINES, PRESETS, measure
from fedecouple_lite.studies.experiment import SUMMARY_ROUNDS
from fedecouple_lite.studies.tables import leaderboard, margins

TABLES = RESULTS / "benchmark"
RIVALS = {"the best of the nine": BASELINES, "the best of all others": None}


def publish(name: str) -> None:
    """Run `name` (or read it back) and write its files."""
    folder = RUNS / "benchmark" / name
    TABLES.mkdir(parents=True, exist_ok=True)
    rows = measure_with_bar(name, folder / "runs")
    rows.to_csv(TABLES / f"{name}.csv", index=False)
    trials = tuning_rows(name, folder)
    if trials:
        pd.DataFrame(trials).to_csv(TABLES / f"{name}-tuning.csv", index=False)
    write_about(TABLES / f"{name}.json", about(name))


def measure_with_bar(name: str, folder: Path) -> pd.DataFrame:
    """`measure` of the preset `name`, with a bar that counts rounds."""
    with tqdm(unit="round", delay=0.3) as bar:

        def on_round(label: str, seed: int, state: State | None) -> None:
            bar.update()

        def on_cell(dataset: str, partition: str, problem: str) -> None:
            bar.write(f"{dataset}, {partition} {problem}")

        return measure(PRESETS[name], folder, on_round, on_cell)


def about(name: str) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "command": f"python -m fedecouple_lite benchmark --preset {name}",
        "preset": asdict(PRESETS[name]),
        "versions": versions(),
        "hardware": f"{os.cpu_count()} cores ({platform.machine()}), no GPU",
    }


def tuning_rows(name: str, folder: Path) -> list[dict[str, Any]]:
    """All trials of the preset: what was tried, and the validation accuracy that judged it, as in `tune`."""
    rows = []
    for path in sorted(folder.rglob("tuning/*.json")):
        run = json.loads(path.read_text())
        if run["setting"]["rounds"] == PRESETS[name].tuning_rounds:  # not one of a shorter call
            rows.append(tuning_row(run))
    return rows


def tuning_row(run: dict[str, Any]) -> dict[str, Any]:
    """One trial: what was tried, and the validation accuracy (mean of the last five rounds) that judged it."""
    values = dict(run["method"])
    method = values.pop("name")
    last_rounds = [record["personal"] for record in run["records"][-SUMMARY_ROUNDS:]]
    return {
        "dataset": run["setting"]["dataset"],
        "alpha": run["setting"].get("alpha"),
        "method": method,
        "finished": run["finished"],
        "validation": sum(last_rounds) / len(last_rounds),
        "hyperparameters": json.dumps(values),
    }


def leads(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Strings for people: FedeCouple's lead in every cell of the preset `name`, and its rank."""
    of_all = margins(rows)
    shown = pd.DataFrame()
    shown["cell"] = [f"`{name}`: {row.dataset}, {row.partition}" for row in of_all.itertuples()]
    for title, rivals in RIVALS.items():
        leads_over = []
        for row in margins(rows, rivals).itertuples():
            leads_over.append(f"{row.points:+.1f} [{row.low:+.1f}, {row.high:+.1f}] ({row.rival})")
        shown[f"lead over {title}"] = leads_over
    shown["rank of 12"] = of_all["rank"]
    return shown


def into_page(page: str) -> str:
    """`page` with personal accuracies and FedeCouple's leads between the markers."""
    accuracies = []
    all_leads = []
    for name in PRESETS:
        path = TABLES / f"{name}.csv"
        if path.exists():
            rows = pd.read_csv(path)
            accuracies.append(leaderboard(rows).rename_axis(f"`{name}`").reset_index())
            all_leads.append(leads(name, rows))
    tables = [*accuracies, pd.concat(all_leads)]
    return put("benchmark", "\n\n".join(markdown(table) for table in tables), page)


def main(presets: list[str]) -> None:
    """Publish the presets named; the page's tables are made from the files there are."""
    for name in presets:
        publish(name)
    PAGE.write_text(into_page(PAGE.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
