"""Where a coupling of FedeCouple is behind in `medium`: is it the method, or the values that four short trials chose?
Other values are run here in full, with the benchmark's seeds. No table of the benchmark has them: they were not chosen
on validation images.

    FEDECOUPLE_DATA=folder python benchmarks/other_values.py

Writes data/results/benchmark/other_values.csv and .json, of which `python benchmarks/pages.py` makes a table of
docs/results.md. Interrupted, it goes on where it stopped; half an hour on 2 cores.
"""

from typing import Any

import pandas as pd
from five_datasets import TABLES, where_made
from published import RUNS, in_cell, write_about
from tqdm import tqdm

from fedecouple_lite import make
from fedecouple_lite.studies.benchmark import PRESETS, cells, fixed_of, folder_of_cell, line_of, run_halving_lr

OUR_RUNS = RUNS / "other_values"

# Cell, what is asked, and the hyper-parameters that are not FedeCouple's defaults.
CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("cifar100", "Dirichlet 0.1", "alternate, steps of 0.05", {"lr": 0.05}),
    ("cifar100", "s = 20 %", "joint, with what alternate got", {"coupling": "joint"}),
    ("cifar10", "Dirichlet 0.1", "alternate, steps of 0.05", {"lr": 0.05}),
    ("cifar10", "s = 20 %", "joint, with what alternate got", {"coupling": "joint"}),
]


def measured() -> pd.DataFrame:
    """A line per case and seed."""
    preset = PRESETS["medium"]
    settings = {(dataset, partition): setting for dataset, partition, setting in cells(preset)}
    common = fixed_of(preset, "fedecouple")
    parts = []
    for dataset, partition, case, values in tqdm(CASES, unit="case"):
        setting = settings[dataset, partition]
        folder = OUR_RUNS / folder_of_cell(dataset, partition)
        method = make("fedecouple", **common, **values)
        for seed in range(preset.seeds):
            run, as_run = run_halving_lr(setting, case, method, seed, folder)
            line = line_of(run, setting, "fedecouple", as_run)
            parts.append(in_cell(line.rename(columns={"method": "case"}), dataset, partition))
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    measured().to_csv(TABLES / "other_values.csv", index=False)
    write_about(TABLES / "other_values.json", {"command": "python benchmarks/other_values.py"} | where_made(OUR_RUNS))
