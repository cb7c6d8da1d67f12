"""The table of `make demo`, stored: data/results/demo/demo.csv and demo.json, and README's table from them.

Reads the runs that `make demo` has left in runs/demo, and runs what is not there (less than a minute):

    python benchmarks/demo.py
"""

import os
import platform
from dataclasses import asdict
from typing import Any

from pages import filled
from published import README, RESULTS, RUNS, versions, write_about

from fedecouple_lite import make
from fedecouple_lite.studies.experiment import Setting, compare
from fedecouple_lite.studies.tables import table

SETTING = Setting(rounds=6)
METHODS = {"FedAvg": "fedavg", "FedAvg + fine-tuning": "fedavg_ft", "FedRep": "fedrep", "FedeCouple": "fedecouple"}
SEEDS = range(3)
OURS = RESULTS / "demo"


def about() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "command": "python -m fedecouple_lite demo",
        "setting": asdict(SETTING),
        "seeds": list(SEEDS),
        "figures": "mean of the last five rounds",
        "versions": versions(),
        "hardware": f"{os.cpu_count()} cores ({platform.machine()}), no GPU",
    }


def main() -> None:
    """Run, or read back, and write files and table."""
    methods = {label: make(name) for label, name in METHODS.items()}
    rows = table(compare(SETTING, methods, SEEDS, RUNS / "demo" / "runs")).drop(columns="seconds")
    rows["hyperparameters"] = rows.pop("hyperparameters")  # last
    rows.round(6).to_csv(OURS / "demo.csv", index=False)
    write_about(OURS / "demo.json", about())
    README.write_text(filled(README.read_text()))


if __name__ == "__main__":
    main()
