"""Five image sets, three skews, eleven methods: each (set, skew, method, seed) a file, resumable, cheapest first."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data import DATASETS, nearest
from ..methods import METHODS, FedAvg, make
from ..phases import hypers
from .experiment import Setting, compare, table, tune

SKEWS: dict[str, dict[str, Any]] = {
    "Dirichlet 0.1": {"partition": "dirichlet", "alpha": 0.1},
    "Dirichlet 0.5": {"partition": "dirichlet", "alpha": 0.5},
    "s = 20 %": {"partition": "skew", "share": 0.2},
}
NINE = ("fedavg", "fedprox", "ditto", "fedper", "lg_fedavg", "fedrep", "fedbabu", "fedrod", "fedpac")
FIVE = ("mnist", "fashion_mnist", "emnist", "cifar10", "cifar100")  # cheapest first


@dataclass(frozen=True)
class Preset:
    """A benchmark: what is run, and what all of it shares. `common` goes to every method that knows the name."""

    datasets: tuple[str, ...]
    skews: tuple[str, ...] = tuple(SKEWS)
    seeds: int = 3
    trials: int = 3
    tuning_rounds: int = 10
    setting: Setting = field(default_factory=Setting)
    common: dict[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = tuple(METHODS)


# "paper": the literature's usual setting (FedPAC and its follow-ups). "small": what two cores do in an hour.
PRESETS = {
    "laptop": Preset(("digits",), trials=1, setting=Setting(rounds=8)),
    "small": Preset(
        ("mnist", "fashion_mnist"), ("Dirichlet 0.1",), setting=Setting(rounds=40, per_client=90, test_share=1 / 3),
        common={"epochs": 2, "batch_size": 20},
    ),
    "paper": Preset(
        FIVE, setting=Setting(rounds=200, per_client=900, test_share=1 / 3), tuning_rounds=50,
        common={"epochs": 5, "batch_size": 50},
    ),
}  # fmt: skip


def cells(preset: Preset) -> Iterator[tuple[str, str, Setting]]:
    """(data set, skew, setting) of every table cell's runs, cheapest first."""
    for dataset in preset.datasets:
        for skew in preset.skews:
            yield dataset, skew, replace(preset.setting, dataset=dataset, **SKEWS[skew])


def length(preset: Preset) -> int:
    """Rounds in all: what a progress bar counts to."""
    tuning = preset.trials * _tuning_rounds(preset) if preset.trials > 1 else 0
    each = preset.seeds * preset.setting.rounds + tuning
    return len(preset.datasets) * len(preset.skews) * len(preset.methods) * each


def length_of(preset: Preset, label: str) -> int:
    """Rounds of one run."""
    return _tuning_rounds(preset) if label.startswith("tuning") else preset.setting.rounds


def _tuning_rounds(preset: Preset) -> int:
    return min(preset.setting.rounds, preset.tuning_rounds)


def command(setting: Setting, name: str, method: FedAvg, seed: int) -> str:
    """The command line that makes this row again."""
    words = [f"python -m fedecouple_lite run --method {name} --seed {seed}"]
    for f in fields(Setting):
        if (value := getattr(setting, f.name)) != f.default:
            words.append(f"--{f.name.replace('_', '-')} {shlex.quote(str(value))}")
    words += [f"--{h.replace('_', '-')} {getattr(method, h)}" for h in hypers(method)]
    return " ".join(words)


def measure(
    preset: Preset, folder: Path, on_round: Callable[[str, int, Any], None] = lambda label, seed, state: None,
    on_cell: Callable[[str, str, str], None] = lambda dataset, skew, problem: None,
) -> Any:  # fmt: skip
    """Run, or read back, everything: a DataFrame with one row per (dataset, skew, method, seed), and its command.

    A method's hyper-parameters are tuned once per cell, on validation images of seed 0, over `trials` values and
    `tuning_rounds` rounds, the same budget for all; a final run that diverges is repeated with half its step size. A
    data set that cannot be had is left out: on_cell(dataset, skew, problem) tells, problem "" where all is well.
    """
    import pandas as pd

    for name in preset.methods:
        if name not in METHODS:
            raise ValueError(f"methods={name!r} is unknown; {nearest(name, METHODS)}")
    for name in preset.datasets:
        if name not in DATASETS and not name.endswith(".npz"):
            raise ValueError(f"datasets={name!r} is unknown; {nearest(name, DATASETS)} or a path ending in .npz")
    parts: list[Any] = []
    problem = ""
    for dataset, skew, setting in cells(preset):
        place = folder / f"{Path(dataset).stem}-{skew.replace(' ', '')}"
        try:
            setting.federation(0), setting.build_net()
        except ValueError as error:
            problem = str(error)
            on_cell(dataset, skew, problem)
            continue
        on_cell(dataset, skew, "")
        shorter = replace(setting, rounds=_tuning_rounds(preset))
        for name in preset.methods:
            method = make(name, **{k: v for k, v in preset.common.items() if k in hypers(METHODS[name])})
            watch = partial(on_round, f"tuning {name}", 0)
            method = tune(shorter, method, 0, preset.trials, place / "tuning", watch)
            for seed in range(preset.seeds):
                parts.append(_row(setting, name, method, seed, place, on_round).assign(dataset=dataset, skew=skew))
    if not parts:
        raise ValueError(problem)
    rows = pd.concat(parts, ignore_index=True)
    return rows[["dataset", "skew", *(c for c in rows if c not in ("dataset", "skew", "seconds"))]]


def _row(setting: Setting, name: str, method: FedAvg, seed: int, folder: Path, on_round: Callable) -> Any:
    while True:
        try:
            row = table(compare(setting, {name: method}, [seed], folder, on_round))
            return row.assign(command=command(setting, name, method, seed), hyperparameters=json.dumps(asdict(method)))
        except FloatingPointError:
            method = replace(method, lr=method.lr / 2)
            if method.lr < 1e-5:
                raise


def margins(rows: Any, rivals: Sequence[str] | None = None) -> Any:
    """Per (dataset, skew): FedeCouple's mean lead in personal accuracy over the best of `rivals` (None: all others), in
    points, paired by seed, with its 95 % t-interval (NaN for one seed), that rival, and FedeCouple's rank among all."""
    import pandas as pd
    from scipy.stats import ttest_rel

    there = set(rows["method"])
    if "fedecouple" not in there or not there & set(rivals or there - {"fedecouple"}):
        raise ValueError(f"rows hold {sorted(there)}; fedecouple and one of rivals={rivals} are needed")
    found = []
    for (dataset, skew), part in rows.groupby(["dataset", "skew"], sort=False):
        wide = 100 * part.pivot(index="seed", columns="method", values="personal")
        ours, others = wide["fedecouple"], wide.drop(columns="fedecouple")
        rival = others[[m for m in others if rivals is None or m in rivals]].mean().idxmax()
        row = {"dataset": dataset, "skew": skew, "rival": rival, "points": (ours - wide[rival]).mean()}
        low, high = ttest_rel(ours, wide[rival]).confidence_interval() if len(wide) > 1 else (np.nan, np.nan)
        row |= {"low": low, "high": high}
        found.append(row | {"rank": int((others.mean() > ours.mean()).sum()) + 1})
    return pd.DataFrame(found)


def leaderboard(rows: Any) -> Any:
    """Strings for people: personal accuracy in %, mean +- std over seeds (rank); a row a method, a column a cell."""
    import pandas as pd

    columns = {}
    for (dataset, skew), part in rows.groupby(["dataset", "skew"], sort=False):
        figures = 100 * part.groupby("method", sort=False)["personal"].agg(["mean", "std"])
        ranks = figures["mean"].rank(ascending=False, method="min").astype(int)
        columns[f"{dataset}, {skew}"] = {
            m: f"{figures.loc[m, 'mean']:.1f} +- {figures.loc[m, 'std']:.1f} ({ranks[m]})".replace(" +- nan", "")
            for m in figures.index
        }
    return pd.DataFrame(columns)
