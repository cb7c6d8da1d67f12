"""Take FedeCouple apart: every combination of its three parts, cached, with each part's effect and its spread."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from ..data import nearest
from ..engine import State
from ..methods import FedAvg, FedeCouple, make
from ..phases import hypers
from ..tensors import Tensors
from .experiment import Run, Setting, compare, digest, table

# What switches a part off: GLF the global half of the extractor's loss, GFA the anchors, GPC the distillation.
PARTS: dict[str, dict[str, Any]] = {"GLF": {"global_loss": 0.0}, "GFA": {"mu": 0.0}, "GPC": {"lam": 0.0}}
FOLDER = Path("runs/ablation")
Watch = Callable[[str, int, State | None], None]


def label(on: Sequence[str]) -> str:
    """The name of a combination: "GLF + GPC"; all off is FedRep."""
    return " + ".join(on) or "FedRep (all off)"


def variants(method: FedAvg, parts: Sequence[str] = tuple(PARTS)) -> dict[str, FedAvg]:
    """`method` with every combination of `parts` on (as `method` has them) or off, 2^len(parts), from none to all."""
    is_off = {part for part, off in PARTS.items() if any(getattr(method, name) == v for name, v in off.items())}
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"parts={part!r} is unknown; {nearest(part, PARTS)}")
        if part in is_off:
            raise ValueError(f"parts={part!r} is off in this method already: {PARTS[part]}")
    found = {}
    for switches in sorted(product((False, True), repeat=len(parts)), key=sum):
        off = {k: v for part, on in zip(parts, switches, strict=True) if not on for k, v in PARTS[part].items()}
        kept = [p for p in PARTS if p not in is_off and (p not in parts or switches[list(parts).index(p)])]
        found[label(kept)] = replace(method, **off)
    return found


def ablate(
    dataset: str = "digits", partition: str = "dirichlet", parts: Sequence[str] = tuple(PARTS),
    seeds: Sequence[int] = range(3), folder: Path = FOLDER,
    on_round: Watch = lambda label, seed, state: None, **options: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """Run all combinations of `parts` with each seed: a tidy DataFrame, one row per (variant, seed), and a figure.

    options: fields of `Setting` (rounds, alpha, clients, ...) or hyper-parameters of FedeCouple (lr, mu, ...). Columns:
    method (the variant's name), seed, one of True/False for each part, then the figures of `experiment.table`. Each run
    is a file in `folder`: a second call computes only what is missing. ValueError for an option that neither knows.
    """
    from ..course import plots

    parts, seeds = [parts] if isinstance(parts, str) else list(dict.fromkeys(parts)), list(seeds)
    if not parts or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"parts={parts} and seeds={seeds} must hold at least one each, no seed twice")
    known = {f.name for f in fields(Setting)}
    for name in options:
        if name not in known | set(hypers(FedeCouple)):
            raise ValueError(f"{name}={options[name]!r} is unknown; {nearest(name, [*known, *hypers(FedeCouple)])}")
    setting = Setting(dataset=dataset, partition=partition, **{k: v for k, v in options.items() if k in known})
    method = make("fedecouple", **{k: v for k, v in options.items() if k not in known})
    results = run_all(setting, variants(method, parts), seeds, Path(folder), on_round)
    return tidy(results), plots.multiples(results)


def run_all(
    setting: Setting, methods: Mapping[str, FedAvg], seeds: Sequence[int], folder: Path, on_round: Watch
) -> list[Run]:
    """`experiment.compare` that also keeps each finished run's server, for `server`; a run without it happens again."""
    for method, seed in product(methods.values(), seeds):
        stem = digest(setting, method, seed)
        for old in folder.glob(f"*-{seed}-{stem}.json") if not (folder / f"{stem}.safetensors").exists() else ():
            old.unlink()

    def watch(label: str, seed: int, state: State | None) -> None:
        if state is not None and state.round == setting.rounds:
            path = folder / f"{digest(setting, methods[label], seed)}.safetensors"
            save_file(state.server, part := path.with_suffix(f".{os.getpid()}.part"))
            os.replace(part, path)  # whole or not at all
        on_round(label, seed, state)

    return compare(setting, methods, list(seeds), folder, watch)


def server(setting: Setting, method: FedAvg, seed: int, folder: Path = FOLDER) -> Tensors:
    """The server's tensors at the end of a run of `run_all`. ValueError where it has not been run."""
    path = folder / f"{digest(setting, method, seed)}.safetensors"
    if not path.exists():
        raise ValueError(f"{path} is not there: run this combination first")
    return load_file(path, device=setting.device)


def tidy(results: Sequence[Run]) -> Any:
    """`experiment.table` of ablation runs, with a column True/False for each part, read off the method's values."""
    rows = table(results)
    for i, (part, off) in enumerate(PARTS.items()):
        on = [any(r["method"][name] != value for name, value in off.items()) for r in results]
        rows.insert(2 + i, part, on)
    return rows


def effects(rows: Any, figure: str = "personal") -> Any:
    """What each part does to `figure`, in points: mean and std over seeds, as a DataFrame, for three questions.

    "on average": with minus without it, mean over all combinations of the others; "alone": added to nothing;
    "in the whole": taken from everything. Paired by seed. rows: a full factorial, as from `ablate`; ValueError if not.
    """
    import pandas as pd

    parts = [part for part in PARTS if rows[part].nunique() == 2]
    if not parts or rows.duplicated([*PARTS, "seed"]).any():
        raise ValueError("rows must hold every combination of some parts once for every seed")
    values = 100 * rows.pivot(index="seed", columns=parts, values=figure).sort_index(axis=1)  # all off first
    if values.shape[1] != 2 ** len(parts) or values.isna().any(axis=None):
        raise ValueError(f"rows must hold every combination of {', '.join(parts) or 'the parts'} for every seed")
    found = []
    for part in parts:
        with_it, without = (values.loc[:, values.columns.get_level_values(part) == on] for on in (True, False))
        lift = with_it.to_numpy() - without.to_numpy()  # (seeds, combinations of the others), none first, all last
        for question, column in (("on average", lift.mean(1)), ("alone", lift[:, 0]), ("in the whole", lift[:, -1])):
            std = column.std(ddof=1) if len(column) > 1 else np.nan
            found.append(
                {"part": part, "question": question, "points": column.mean(), "std": std, "seeds": len(column)}
            )
    return pd.DataFrame(found)
