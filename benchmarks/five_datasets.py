"""Runs a preset of the benchmark and publishes it: data/results/benchmark/PRESET.csv and .json, and the tables
of docs/results.md.

Goes on where `python -m fedecouple_lite benchmark --preset PRESET` stopped, since both keep their runs in the same
folder. "laptop" takes minutes, "small" about an hour on 2 cores:

    python benchmarks/five_datasets.py laptop
    FEDECOUPLE_DATA=folder python benchmarks/five_datasets.py small

With --as-measured nothing is run: what is published are the finished runs in that folder, of the cells that have all of
theirs, wherever they were made (benchmarks/side_by_side.py makes many at once); and PRESET-curves.csv, what they had
reached and had cost at every evaluation:

    python benchmarks/five_datasets.py medium --as-measured
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pages import markdown, put, with_interval
from published import PAGE, RESULTS, RUNS, in_cell, write_about
from tqdm import tqdm

from fedecouple_lite import make
from fedecouple_lite.engine import State
from fedecouple_lite.errors import nearest
from fedecouple_lite.methods import METHODS
from fedecouple_lite.partition import OPTIONS
from fedecouple_lite.studies.benchmark import (
    BASELINES,
    PRESETS,
    VARIANTS,
    cells,
    folder_of_cell,
    line_of,
    measure,
    method_of,
)
from fedecouple_lite.studies.experiment import SUMMARY_ROUNDS, Run, Setting, finished_run, score_of_trial
from fedecouple_lite.studies.tables import costs_so_far, is_fedecouple, leaderboard, margins

TABLES = RESULTS / "benchmark"
BOTH_MOMENTS = ("medium", "medium_steps")  # presets of which the page has a table of the second moment of evaluation
RIVALS = {"the best of the nine": BASELINES, "the best of all others": None}


def publish(name: str, as_measured: bool) -> None:
    """Run `name` (or read it back) and write its files. as_measured: publish the runs there are, and run nothing."""
    folder = RUNS / "benchmark" / name
    TABLES.mkdir(parents=True, exist_ok=True)
    of_curves = TABLES / f"{name}-curves.csv"
    if as_measured:
        complete = complete_cells(name, folder / "runs")
        rows = rows_as_measured(complete)
        curves_as_measured(complete).to_csv(of_curves, index=False)
    else:
        rows = measure_with_bar(name, folder / "runs")
        of_curves.unlink(missing_ok=True)  # they are of the runs that were published before
    rows.to_csv(TABLES / f"{name}.csv", index=False)
    trials = tuning_rows(name, folder)
    if trials:
        pd.DataFrame(trials).to_csv(TABLES / f"{name}-tuning.csv", index=False)
    write_about(TABLES / f"{name}.json", about(name, folder / "runs"))


Place = tuple[int, int]  # of a run in its cell: the number of its row, and its seed
Cell = tuple[str, str, Setting, dict[Place, Run]]  # data set, partition, setting, runs


def rows_as_measured(complete: Sequence[Cell]) -> pd.DataFrame:
    """The table of these cells, whose runs were made by whatever version on whatever machine."""
    parts = []
    for dataset, partition, setting, runs in complete:
        cell = pd.concat([line_as_measured(runs[place], setting) for place in sorted(runs)])
        parts.append(in_cell(cell, dataset, partition))
    return pd.concat(parts, ignore_index=True)


def curves_as_measured(complete: Sequence[Cell]) -> pd.DataFrame:
    """What the same runs had reached, and had cost, at every evaluation: `costs_so_far`, cell by cell."""
    parts = []
    for dataset, partition, _, runs in complete:
        cell = costs_so_far([runs[place] for place in sorted(runs)])
        parts.append(in_cell(cell, dataset, partition))
    return pd.concat(parts, ignore_index=True).round(6)


def complete_cells(name: str, folder: Path) -> list[Cell]:
    """The cells of the preset `name` of which all runs in `folder` have been made. The others are named, with how many
    of theirs there are.

    ValueError where two runs would be the same line of the table, or no cell is complete.
    """
    preset = PRESETS[name]
    complete = []
    for dataset, partition, setting in cells(preset):
        runs: dict[Place, Run] = {}
        for path in sorted((folder / folder_of_cell(dataset, partition)).glob("*.json")):
            run = finished_run(path)
            if run is None or not is_of(run, setting) or run["label"] not in preset.methods:
                continue
            place = (preset.methods.index(run["label"]), run["seed"])
            if place in runs:
                raise ValueError(f"folder={str(folder)!r} has two runs of {dataset}, {partition}, {path.name[:-22]}")
            runs[place] = run
        wanted = len(preset.methods) * preset.seeds
        if len(runs) == wanted:
            complete.append((dataset, partition, setting, runs))
        else:
            print(f"{name}: {dataset}, {partition}: left out, {len(runs)} of {wanted} runs have been made")
    if not complete:
        raise ValueError(f"folder={str(folder)!r} has no cell of {name} of which all runs have been made")
    return complete


def is_of(run: Run, setting: Setting) -> bool:
    """Whether a run is one of this setting, on whatever device."""
    expected = {**OPTIONS[setting.partition], **asdict(setting)}
    of_run = {**asdict(Setting()), **run["setting"]}  # a field that is newer than the run had its default
    for key, value in expected.items():
        if value is not None and key not in ("device", "backend") and of_run.get(key) != value:
            return False
    return True


def line_as_measured(run: Run, setting: Setting) -> pd.DataFrame:
    """The table's line of a run, as `measure` makes it."""
    name, _ = method_of(run["label"])
    values = {key: value for key, value in run["method"].items() if key != "name"}
    as_run = replace(setting, device=run["setting"]["device"], backend=run["setting"]["backend"])
    return line_of(run, as_run, name, make(name, **values))


def measure_with_bar(name: str, folder: Path) -> pd.DataFrame:
    """`measure` of the preset `name`, with a bar that counts rounds."""
    with tqdm(unit="round", delay=0.3) as bar:

        def on_round(label: str, seed: int, state: State | None) -> None:
            bar.update()

        def on_cell(dataset: str, partition: str, problem: str) -> None:
            bar.write(f"{dataset}, {partition} {problem}")

        return measure(PRESETS[name], folder, on_round, on_cell)


def about(name: str, folder: Path) -> dict[str, Any]:
    """What the figures depend on; versions and hardware as the runs in `folder` have them."""
    return {
        "command": f"python -m fedecouple_lite benchmark --preset {name}",
        "preset": asdict(PRESETS[name]),
        "trials judged by": "their last five evaluated rounds, at most their last third",
        **where_made(folder),
    }


def where_made(folder: Path) -> dict[str, Any]:
    """Versions, and hardware in words, of the runs in `folder`: where they differ, each of them, as "A; B"."""
    versions: dict[str, dict[str, None]] = {}
    hardware: dict[str, None] = {}
    for path in sorted(folder.rglob("*.json")):
        run = json.loads(path.read_text())
        for key, value in run["versions"].items():
            versions.setdefault(key, {})[value] = None
        machine = run["hardware"]
        hardware[f"{machine['cores']} cores ({machine['processor']}), {machine['gpu'] or 'no GPU'}"] = None
    return {
        "versions": {key: "; ".join(values) for key, values in versions.items()},
        "hardware": "; ".join(hardware),
    }


def tuning_rows(name: str, folder: Path) -> list[dict[str, Any]]:
    """All trials of the preset: what was tried, and the validation accuracy that judged it, as in `tune`."""
    rows = []
    for path in sorted(folder.rglob("tuning/*.json")):
        run = json.loads(path.read_text())
        rounds = PRESETS[name].rounds_of_a_trial(run["setting"]["dataset"])
        of_this_preset = run["setting"]["rounds"] == rounds  # not of a shorter call
        if of_this_preset and run["records"]:
            rows.append(tuning_row(run))
    return rows


def tuning_row(run: dict[str, Any]) -> dict[str, Any]:
    """One trial: what was tried, and its validation accuracy: last_third judges it (`score_of_trial`), last_five, the
    mean over five evaluated rounds, would be another judge (benchmarks/short_trials.py)."""
    values = dict(run["method"])
    method = values.pop("name")
    last_rounds = [record["personal"] for record in run["records"][-SUMMARY_ROUNDS:]]
    return {
        "dataset": run["setting"]["dataset"],
        "partition": run["setting"]["partition"],
        "alpha": run["setting"].get("alpha"),
        "method": method,
        "row": row_of(method, values),
        "finished": run["finished"],
        "last_third": score_of_trial(run["records"]),
        "last_five": sum(last_rounds) / len(last_rounds),
        "hyperparameters": json.dumps(values),
    }


def row_of(method: str, values: dict[str, Any]) -> str:
    """The table's row that a run is of, by its method's class and its hyper-parameters: a variant's, where it has those
    that make it one."""
    for row, (name, of_row) in VARIANTS.items():
        if METHODS[name].__name__ == method and of_row.items() <= values.items():
            return row
    return next(name for name, kind in METHODS.items() if kind.__name__ == method)


def leads(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Strings for people: FedeCouple's lead in every cell of the preset `name`, and its rank, in each of its forms."""
    parts = []
    for ours in (row for row in PRESETS[name].methods if is_fedecouple(row)):
        of_all = margins(rows, ours=ours)
        shown = pd.DataFrame()
        shown["cell"] = [f"`{name}`: {row.dataset}, {row.partition}" for row in of_all.itertuples()]
        shown["FedeCouple"] = ours
        for title, rivals in RIVALS.items():
            leads_over = []
            for row in margins(rows, rivals, ours).itertuples():
                leads_over.append(f"{with_interval(row.points, row.low, row.high)} ({row.rival})")
            shown[f"lead over {title}"] = leads_over
        number = sum(not is_fedecouple(row) for row in PRESETS[name].methods) + 1
        shown["rank"] = [f"{rank} of {number}" for rank in of_all["rank"]]
        parts.append(shown)
    return pd.concat(parts).sort_index(kind="stable")  # cell by cell


def received_and_steps(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Strings for people: what the preset's methods cost in gradient steps a round, of all clients; and personal
    accuracies by what clients receive, before training."""
    received = leaderboard(rows, "personal_received")
    of_method = rows.groupby("method", sort=False)[["steps", "predict_steps"]].mean()
    received.insert(0, "steps", of_method["steps"].map("{:,.0f}".format))
    received.insert(1, "steps to predict", of_method["predict_steps"].map("{:,.0f}".format))
    return received.rename_axis(f"`{name}`, received").reset_index()


def into_page(page: str) -> str:
    """`page` with personal accuracies and FedeCouple's leads between the markers."""
    tables = []
    all_leads = []
    for name in PRESETS:
        path = TABLES / f"{name}.csv"
        if path.exists():
            rows = pd.read_csv(path)
            tables.append(leaderboard(rows).rename_axis(f"`{name}`").reset_index())
            if name in BOTH_MOMENTS:
                tables.append(received_and_steps(name, rows))
            all_leads.append(leads(name, rows))
    tables.append(pd.concat(all_leads))
    return put("benchmark", "\n\n".join(markdown(table) for table in tables), page)


def main(words: Sequence[str]) -> None:
    """Publish the presets named; the page's tables are made from the files there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", help=", ".join(PRESETS))
    parser.add_argument("--as-measured", action="store_true", help="publish the finished runs there are; run nothing")
    given = parser.parse_args(words)
    for name in given.presets:
        if name not in PRESETS:
            parser.error(f"presets={name!r} is unknown; {nearest(name, PRESETS)}")
    for name in given.presets:
        publish(name, given.as_measured)
    PAGE.write_text(into_page(PAGE.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
