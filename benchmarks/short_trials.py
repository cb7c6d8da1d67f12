"""What a trial should be judged by. The trials of `medium` are twelve rounds long and evaluated every other one; the
runs that they stand for are longer. `tune` judges a trial by its last third. Where the mean over its last five
evaluated rounds, nearly its whole course, would have chosen something else, that is run here, too:

    FEDECOUPLE_DATA=folder python benchmarks/short_trials.py

Writes data/results/benchmark/short_trials.csv and .json, of which `python benchmarks/pages.py` makes a table of
docs/results.md, beside the runs of medium.csv. Interrupted, it goes on where it stopped.
"""

import json

import pandas as pd
from five_datasets import TABLES, where_made
from published import RUNS, in_cell, write_about
from tqdm import tqdm

from fedecouple_lite import make
from fedecouple_lite.studies.benchmark import PRESETS, cells, folder_of_cell, line_of, method_of, run_halving_lr

OUR_RUNS = RUNS / "short_trials"


def other_choices(of_cell: pd.DataFrame) -> dict[str, str]:
    """By row the hyper-parameters, as JSON, that the mean over five evaluated rounds would have chosen, where they are
    others than those chosen. of_cell: the cell's finished trials."""
    others = {}
    for row, trials in of_cell.groupby("row", sort=False):
        chosen = trials.loc[trials["last_third"].idxmax()]
        other = trials.loc[trials["last_five"].idxmax()]
        if other["last_third"] < chosen["last_third"]:  # equal ones are no other choice
            others[str(row)] = other["hyperparameters"]
    return others


def measured() -> pd.DataFrame:
    """A line per cell, row and seed: the runs of the other choice."""
    preset = PRESETS["medium"]
    stored = pd.read_csv(TABLES / "medium.csv")
    trials = pd.read_csv(TABLES / "medium-tuning.csv")
    trials = trials[trials["finished"]]
    parts = []
    for dataset, partition, setting in cells(preset):
        of_cell = trials[(trials["dataset"] == dataset) & (trials["partition"] == setting.partition)]
        is_published = ((stored["dataset"] == dataset) & (stored["partition"] == partition)).any()
        if not is_published:
            continue
        folder = OUR_RUNS / folder_of_cell(dataset, partition)
        for row, values in tqdm(other_choices(of_cell).items(), desc=f"{dataset}, {partition}", unit="row"):
            name, _ = method_of(row)
            method = make(name, **json.loads(values))
            for seed in range(preset.seeds):
                run, as_run = run_halving_lr(setting, row, method, seed, folder)
                line = line_of(run, setting, name, as_run)
                parts.append(in_cell(line, dataset, partition))
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    measured().to_csv(TABLES / "short_trials.csv", index=False)
    write_about(TABLES / "short_trials.json", {"command": "python benchmarks/short_trials.py"} | where_made(OUR_RUNS))
