"""Each of FedeCouple's three parts on and off, all eight combinations, on digits and on Fashion-MNIST, five seeds.

Joint coupling, so that every combination takes the same number of gradient steps; then, on the digits, one form changed
at a time. Writes data/results/ablations.csv (a row per data set, combination and seed) and ablations.json (settings,
versions, command). Interrupted, it goes on where it stopped. About half an hour on 2 cores:

    python benchmarks/ablations.py
"""

import json
import platform
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from fedecouple_lite import make
from fedecouple_lite.studies.ablation import tidy, variants
from fedecouple_lite.studies.benchmark import command
from fedecouple_lite.studies.experiment import Setting, compare

ROOT = Path(__file__).resolve().parents[1]
RESULTS, RUNS, SEEDS = ROOT / "data" / "results", ROOT / "runs" / "ablations", range(5)
SETTINGS = {
    "digits": (Setting(rounds=12), {}),
    "fashion_mnist": (
        Setting(dataset="fashion_mnist", alpha=0.1, rounds=20, per_client=90, test_share=1 / 3),
        {"epochs": 2, "batch_size": 20, "lr": 0.05},  # with 0.1 one combination diverges on one seed
    ),
}
FORMS = (
    {"coupling": "alternate"}, {"aggregation": "similarity"}, {"weighting": "constant"}, {"temperature": 3.0},
    {"mu": 0.1}, {"mu": 0.3}, {"lam": 1.0}, {"lam": 10.0},
)  # fmt: skip


def main() -> None:
    todo = []
    for dataset, (setting, common) in SETTINGS.items():
        joint = {"coupling": "joint", **common}
        todo += [(dataset, setting, name, m) for name, m in variants(make("fedecouple", **joint)).items()]
        for form in FORMS if dataset == "digits" else ():
            name = ", ".join(f"{key} {value}" for key, value in form.items())
            todo.append((dataset, setting, name, make("fedecouple", **joint | form)))
    parts = []
    for dataset, setting, name, method in tqdm(todo, unit="combination"):
        results = compare(setting, {name: method}, SEEDS, RUNS / dataset)
        commands = [command(setting, "fedecouple", method, seed) for seed in SEEDS]
        parts.append(tidy(results).assign(dataset=dataset, command=commands).drop(columns="seconds"))
    rows = pd.concat(parts).rename(columns={"method": "combination"})
    rows.to_csv(RESULTS / "ablations.csv", index=False, float_format="%.6g")
    about = {
        "command": "python benchmarks/ablations.py",
        "settings": {name: asdict(setting) | common for name, (setting, common) in SETTINGS.items()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": f"{platform.machine()}, CPU",
    }
    (RESULTS / "ablations.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
