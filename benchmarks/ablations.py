"""Each of FedeCouple's three parts on and off, all eight combinations, on digits and on Fashion-MNIST, five seeds.

Joint coupling, so that every combination takes the same number of gradient steps; then, on the digits, one form changed
at a time. Writes data/results/ablations.csv (a row per data set, combination and seed) and ablations.json (settings,
versions, command). Interrupted, it goes on where it stopped. About half an hour on 2 cores:

    python benchmarks/ablations.py
"""

import platform
from dataclasses import asdict
from typing import Any

import pandas as pd
from published import RESULTS, RUNS, versions, write_about
from tqdm import tqdm

from fedecouple_lite import make
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.studies.ablation import tidy, variants
from fedecouple_lite.studies.benchmark import command_line_of
from fedecouple_lite.studies.experiment import Setting, compare

SEEDS = range(5)

SETTINGS = {
    "digits": Setting(rounds=12),
    "fashion_mnist": Setting(dataset="fashion_mnist", alpha=0.1, rounds=20, per_client=90, test_share=1 / 3),
}
# What differs from the method's defaults in all of a data set's combinations.
COMMON: dict[str, dict[str, Any]] = {
    "digits": {},
    "fashion_mnist": {"epochs": 2, "batch_size": 20, "lr": 0.05},  # with 0.1 one combination diverges on one seed
}
FORMS: list[dict[str, Any]] = [
    {"coupling": "alternate"},
    {"coupling": "phases"},
    {"aggregation": "similarity"},
    {"weighting": "constant"},
    {"temperature": 3.0},
    {"mu": 0.1},
    {"mu": 0.3},
    {"lam": 1.0},
    {"lam": 10.0},
]


def methods_of(dataset: str) -> dict[str, FedAvg]:
    """What is run on a data set, by name: the eight combinations; on the digits each form as well."""
    joint = {"coupling": "joint", **COMMON[dataset]}
    methods = variants(make("fedecouple", **joint))
    if dataset == "digits":
        for form in FORMS:
            name = ", ".join(f"{key} {value}" for key, value in form.items())
            methods[name] = make("fedecouple", **{**joint, **form})
    return methods


def measure(dataset: str, name: str, method: FedAvg) -> pd.DataFrame:
    """One combination with every seed, a row each."""
    setting = SETTINGS[dataset]
    results = compare(setting, {name: method}, SEEDS, RUNS / "ablations" / dataset)
    rows = tidy(results).drop(columns="seconds").rename(columns={"method": "combination"})
    rows["dataset"] = dataset
    rows["command"] = [command_line_of(setting, "fedecouple", method, seed) for seed in SEEDS]
    return rows


def about() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "command": "python benchmarks/ablations.py",
        "settings": {dataset: {**asdict(setting), **COMMON[dataset]} for dataset, setting in SETTINGS.items()},
        "versions": versions(),
        "hardware": f"{platform.machine()}, CPU",
    }


def main() -> None:
    """Run, or read back, everything, and write both files."""
    to_do = [(dataset, name, method) for dataset in SETTINGS for name, method in methods_of(dataset).items()]
    parts = [measure(*combination) for combination in tqdm(to_do, unit="combination")]
    pd.concat(parts).to_csv(RESULTS / "ablations.csv", index=False, float_format="%.6g")
    write_about(RESULTS / "ablations.json", about())


if __name__ == "__main__":
    main()
