"""Whether bfloat16 in the extractor is safe, and what it saves: every method in both precisions on three image sets,
five seeds; and the seconds of rounds. Half an hour on 2 cores whose processor is fast at bfloat16:

    FEDECOUPLE_DATA=folder python benchmarks/precision.py

Writes data/results/speed/precision_accuracy.csv and .json, of which `python benchmarks/pages.py` makes a table of
docs/results.md, and precision_time.csv. Interrupted, it goes on where it stopped.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import Any

import pandas as pd
from published import RESULTS, RUNS, versions, write_about
from speed import images, machine, report, seconds_of_round
from tqdm import tqdm

from fedecouple_lite import make, net_for, rounds, split
from fedecouple_lite.engine import State
from fedecouple_lite.methods import METHODS, FedAvg
from fedecouple_lite.precision import PRECISIONS
from fedecouple_lite.studies.experiment import Setting, compare
from fedecouple_lite.studies.tables import table

TABLES = RESULTS / "speed"
OUR_RUNS = RUNS / "precision"
SETTING = Setting(clients=10, per_client=120, rounds=8)
STEP_SIZES = {"digits": 0.1, "fashion_mnist": 0.05, "cifar10": 0.05}  # of each data set: one with which it trains
SEEDS = range(5)
COMMON = {"epochs": 2, "batch_size": 20}

NETS = {"cnn28": (28, 1), "cnn32": (32, 3)}  # and the size and channels of their images
BATCHES = (20, 50, 100)
TIMED = {"FedAvg": make("fedavg"), "FedeCouple, joint": make("fedecouple", coupling="joint")}


def methods_for(dataset: str) -> dict[str, FedAvg]:
    """All methods, by name."""
    return {name: make(name, lr=STEP_SIZES[dataset], **COMMON) for name in METHODS}


def accuracy() -> pd.DataFrame:
    """A row per data set, precision, method and seed: splits, weights and batches of both precisions are the same."""
    parts = []
    number = len(STEP_SIZES) * len(PRECISIONS) * len(METHODS) * len(SEEDS)
    with tqdm(total=number * SETTING.rounds, unit="round") as bar:

        def on_round(label: str, seed: int, state: State | None) -> None:
            bar.update()

        for dataset, precision in product(STEP_SIZES, PRECISIONS):
            setting = replace(SETTING, dataset=dataset, precision=precision)
            rows = table(compare(setting, methods_for(dataset), SEEDS, OUR_RUNS, on_round))
            rows.insert(0, "dataset", dataset)
            rows.insert(1, "precision", precision)
            parts.append(rows)
    return pd.concat(parts).drop(columns="seconds")


def seconds_in_both(method: FedAvg, net: str, batch_size: int, backend: str, repeats: int) -> dict[str, float]:
    """The median seconds of a round in each precision, taken in turn, so that both meet the same machine."""
    size, channels = NETS[net]
    federation = split(images(size, channels, 20 * 160), 20, "iid", test_share=1 / 16)
    of_size = replace(method, lr=0.02, epochs=1, batch_size=batch_size)
    runs = {}
    for precision in PRECISIONS:
        own = net_for((channels, size, size), 10).in_precision(precision)
        runs[precision] = rounds(of_size, own, federation, rounds=repeats + 1, backend=backend)
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(repeats + 1):
        for precision, run in runs.items():
            seconds[precision].append(seconds_of_round(run))
    return {precision: statistics.median(of_one[1:]) for precision, of_one in seconds.items()}  # the first warms up


def time(repeats: int) -> list[dict[str, Any]]:
    """A row per net, method, backend and batch size."""
    rows = []
    for net, (title, method), backend, batch_size in product(NETS, TIMED.items(), ("threads", "vmap"), BATCHES):
        seconds = seconds_in_both(method, net, batch_size, backend, repeats)
        row = {"net": net, "method": title, "backend": backend, "batch size": batch_size}
        row |= {f"{precision} s": round(seconds[precision], 3) for precision in PRECISIONS}
        rows.append(row | {"bf16 / float32": round(seconds["bf16"] / seconds["float32"], 2), "repeats": repeats})
    return rows


def about() -> dict[str, Any]:
    """What the accuracies depend on."""
    return {
        "command": "python benchmarks/precision.py",
        "setting": asdict(SETTING) | {"dataset": list(STEP_SIZES), "precision": list(PRECISIONS)},
        "step sizes": STEP_SIZES,
        **COMMON,
        "seeds": list(SEEDS),
        "figures": "mean of the last five rounds",
        "versions": versions(),
        "hardware": machine(),
    }


def main(words: Sequence[str]) -> None:
    """Measure accuracies, then times, or one of them; write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("accuracy", "time"), help="the one to measure; both")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that a time is the median of")
    given = parser.parse_args(words)
    if given.only != "time":
        accuracy().round(6).to_csv(TABLES / "precision_accuracy.csv", index=False)
        write_about(TABLES / "precision_accuracy.json", about())
    if given.only != "accuracy":
        report("precision_time", time(given.repeats), "python benchmarks/precision.py --only time")


if __name__ == "__main__":
    main(sys.argv[1:])
