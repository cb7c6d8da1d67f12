"""Squared gradient norms of each method's own objective on digits, round by round: what notebook 06 reads.

float64, small_cnn, 20 clients of at most 60 images (half of them for training), no momentum, no weight decay; all of a
client's images in each step (so no noise, and the same number of steps for everyone), but for the cases named "batch
16". Writes data/results/convergence.csv (a row per case, seed and round; columns as in `gradient_norms` of
fedecouple_lite.studies.convergence) and convergence.json (settings, versions, command). Interrupted, it goes on at the
run where it stopped. About half an hour on 2 cores:

    python benchmarks/convergence.py
"""

import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from published import RESULTS, RUNS, versions, write_about
from tqdm import tqdm

from fedecouple_lite import make
from fedecouple_lite.engine import rounds, start
from fedecouple_lite.files import write_whole
from fedecouple_lite.studies.convergence import gradient_norms
from fedecouple_lite.studies.experiment import Setting

ROUNDS = 300
SETTING = Setting(rounds=ROUNDS, per_client=60)
COMMON = {"lr": 0.05, "epochs": 5, "batch_size": 10_000, "momentum": 0.0, "weight_decay": 0.0}


def constant(t: int) -> float:
    """Share of the step size that round t = 0, 1, ... takes: all of it."""
    return 1.0


def decreasing(t: int) -> float:
    """... or 1 / sqrt(1 + t / 10) of it."""
    return (1 + t / 10) ** -0.5


SCHEDULES: dict[str, Callable[[int], float]] = {"constant": constant, "decreasing": decreasing}


class Case(NamedTuple):
    """A method and what differs from COMMON, how its clients and its steps are, and how often it is run."""

    options: dict[str, Any]
    alpha: float = 0.3
    schedule: str = "constant"
    seeds: int = 1


def fedecouple(**options: Any) -> dict[str, Any]:
    """FedeCouple as it is measured here, but for `options`."""
    return {"method": "fedecouple", "classifier_epochs": 5, "coupling": "joint", "lam": 1.0, **options}


def fedrep(**options: Any) -> dict[str, Any]:
    """FedRep as it is measured here, but for `options`."""
    return {"method": "fedrep", "classifier_epochs": 5, **options}


CASES = {
    "FedAvg": Case({"method": "fedavg"}, seeds=3),
    "FedRep": Case(fedrep(), seeds=3),
    "FedeCouple": Case(fedecouple(), seeds=3),
    "FedeCouple, anchors only": Case(fedecouple(lam=0.0, global_loss=0.0), seeds=3),
    "FedeCouple, decreasing step": Case(fedecouple(), schedule="decreasing"),
    "FedRep, batch 16": Case(fedrep(batch_size=16)),
    "FedRep, batch 16, decreasing step": Case(fedrep(batch_size=16), schedule="decreasing"),
    "FedeCouple, E = 1": Case(fedecouple(epochs=1, classifier_epochs=1)),
    "FedeCouple, E = 15": Case(fedecouple(epochs=15, classifier_epochs=15)),
    "FedeCouple, alpha = 0.1": Case(fedecouple(), alpha=0.1),
    "FedeCouple, alpha = 10": Case(fedecouple(), alpha=10.0),
}


def measure(name: str, seed: int, total: int = ROUNDS) -> pd.DataFrame:
    """One run: a row per round t = 0, ..., total - 1, measured before that round's training."""
    case = CASES[name]
    options = {**COMMON, **case.options}
    method = make(options.pop("method"), **options)
    setting = replace(SETTING, alpha=case.alpha)
    federation = setting.federation(seed).to(dtype=torch.float64)
    net = setting.build_net()
    state = start(method, net, federation, seed)
    rows = []
    for t in range(total):
        norms = gradient_norms(method, net, federation, state)
        rows.append({"case": name, "seed": seed, "round": t, **norms})
        now = replace(method, lr=method.lr * SCHEDULES[case.schedule](t))
        one_more = rounds(
            now,
            net,
            federation,
            rounds=t + 1,
            seed=seed,
            eval_every=total + 1,
            backend="loop",
            state=state,
        )
        (state,) = one_more
    return pd.DataFrame(rows)


def measure_or_read(name: str, seed: int) -> pd.DataFrame:
    """A run from its file, which is made where it is missing."""
    path = RUNS / "convergence" / f"{name}-{seed}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        rows = measure(name, seed)
        write_whole(path, partial(rows.to_csv, index=False, float_format="%.4g"))
    return pd.read_csv(path)


def about() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "command": "python benchmarks/convergence.py",
        "rounds": ROUNDS,
        "setting": asdict(SETTING) | {"dtype": "float64"},
        "common": COMMON,
        "cases": {name: case._asdict() for name, case in CASES.items()},
        "schedules": {"constant": "lr", "decreasing": "lr / sqrt(1 + t / 10)"},
        "versions": versions(),
        "hardware": f"{platform.machine()}, CPU",
    }


def main() -> None:
    """Run, or read back, everything, first seeds first, and write both files."""
    torch.set_num_threads(1)  # small steps: a second thread costs more than it gives
    order = sorted((seed, name) for name, case in CASES.items() for seed in range(case.seeds))
    parts = [measure_or_read(name, seed) for seed, name in tqdm(order, unit="run")]
    rows = pd.concat(parts)
    rows["case"] = pd.Categorical(rows["case"], list(CASES))
    rows.sort_values(["case", "seed", "round"]).to_csv(RESULTS / "convergence.csv", index=False)
    write_about(RESULTS / "convergence.json", about())


if __name__ == "__main__":
    main()
