"""Take FedeCouple apart: every combination of its three parts, cached, with each part's effect and its spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..checkpoint import holds_state, load_state, save_state
from ..engine import State
from ..errors import nearest
from ..hyper import hypers
from ..methods import FedAvg, FedeCouple, make
from .experiment import Run, Setting, Watch, check_comparison, compare, dependencies, digest_of, watch_nothing
from .tables import table

# What switches a part off: GLF the global half of the extractor's loss, GFA the anchors, GPC the distillation.
PARTS: dict[str, dict[str, Any]] = {"GLF": {"global_loss": 0.0}, "GFA": {"mu": 0.0}, "GPC": {"lam": 0.0}}
FOLDER = Path("runs/ablation")


def parts_on(on: Sequence[str]) -> str:
    """The name of a combination, by the parts that are on in it.

    Examples
    --------
    >>> parts_on(["GLF", "GPC"])
    'GLF + GPC'
    >>> parts_on([])
    'FedRep (all off)'
    """
    return " + ".join(on) or "FedRep (all off)"


def is_on(part: str, values: Mapping[str, Any]) -> bool:
    """Whether a method with these hyper-parameters has `part`."""
    return all(values[name] != off for name, off in PARTS[part].items())


def variants(method: FedAvg, parts: Sequence[str] = tuple(PARTS)) -> dict[str, FedAvg]:
    """`method` with every combination of `parts` on (as `method` has them) or off, 2^len(parts), from none to all.

    Raises ValueError for a part that there is not, or that is off in `method` already.

    Examples
    --------
    >>> for name, variant in variants(make("fedecouple", mu=1.0, lam=3.0), ["GFA", "GPC"]).items():
    ...     print(f"{name}: mu {variant.mu}, lam {variant.lam}")
    GLF: mu 0.0, lam 0.0
    GLF + GPC: mu 0.0, lam 3.0
    GLF + GFA: mu 1.0, lam 0.0
    GLF + GFA + GPC: mu 1.0, lam 3.0
    """
    on_at_first = [part for part in PARTS if is_on(part, asdict(method))]
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"parts={part!r} is unknown; {nearest(part, PARTS)}")
        if part not in on_at_first:
            raise ValueError(f"parts={part!r} is off in this method already: {PARTS[part]}")
    combinations = {}
    for switches in sorted(product((False, True), repeat=len(parts)), key=sum):  # none on first, all on last
        switched_off = [part for part, on in zip(parts, switches, strict=True) if not on]
        values = {}
        for part in switched_off:
            values.update(PARTS[part])
        still_on = [part for part in on_at_first if part not in switched_off]
        combinations[parts_on(still_on)] = replace(method, **values)
    return combinations


def ablate(
    dataset: str = "digits",
    partition: str = "dirichlet",
    parts: Sequence[str] = tuple(PARTS),
    seeds: Sequence[int] = range(3),
    folder: Path = FOLDER,
    on_round: Watch = watch_nothing,
    **options: Any,
) -> pd.DataFrame:
    """Run all combinations of `parts` with each seed: a tidy DataFrame, one row per (variant, seed).

    options: fields of `Setting` (rounds, alpha, clients, ...) or hyper-parameters of FedeCouple (lr, mu, ...). Columns:
    method (the variant's name), seed, one of True/False for each part, then the figures of `tables.table`, the last of
    them the hyper-parameters of that run. Nothing is tuned, and epochs are equal, not steps: with coupling "alternate"
    GLF adds a step to every batch, with "joint" it does not; the column steps counts them. Each run is a file in
    `folder`: a second call computes only what is missing. ValueError for an option that neither knows. `run_ablation`
    has the same arguments and gives the runs themselves, round by round.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> tiny = {"rounds": 2, "clients": 4, "per_client": 30, "epochs": 1}
    >>> rows = ablate(parts=["GFA"], seeds=[0], folder=Path(mkdtemp()), **tiny)
    >>> rows[["method", "seed", "GLF", "GFA", "GPC"]]
                method  seed   GLF    GFA   GPC
    0        GLF + GPC     0  True  False  True
    1  GLF + GFA + GPC     0  True   True  True
    """
    return tidy(run_ablation(dataset, partition, parts, seeds, folder, on_round, **options))


def run_ablation(
    dataset: str = "digits",
    partition: str = "dirichlet",
    parts: Sequence[str] = tuple(PARTS),
    seeds: Sequence[int] = range(3),
    folder: Path = FOLDER,
    on_round: Watch = watch_nothing,
    **options: Any,
) -> list[Run]:
    """The runs of `ablate`: those that are in `folder` are read, the others run. Their rows: `tidy`."""
    parts = [parts] if isinstance(parts, str) else list(dict.fromkeys(parts))
    seeds = list(seeds)
    if not parts or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"parts={parts} and seeds={seeds} must hold at least one each, no seed twice")
    of_setting, of_method = sort_options(options)
    setting = Setting(dataset=dataset, partition=partition, **of_setting)
    method = make("fedecouple", **of_method)
    return run_all(setting, variants(method, parts), seeds, Path(folder), on_round)


def sort_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that are fields of `Setting`, and those that are hyper-parameters of FedeCouple. ValueError for one
    that is neither.

    Examples
    --------
    >>> sort_options({"rounds": 5, "mu": 0.3})
    ({'rounds': 5}, {'mu': 0.3})
    """
    names_of_setting = [setting_field.name for setting_field in fields(Setting)]
    names_of_method = list(hypers(FedeCouple))
    of_setting = {}
    of_method = {}
    for name, value in options.items():
        if name in names_of_setting:
            of_setting[name] = value
        elif name in names_of_method:
            of_method[name] = value
        else:
            hint = nearest(name, [*names_of_setting, *names_of_method])
            raise ValueError(f"{name}={value!r} is unknown; {hint}")
    return of_setting, of_method


def run_all(
    setting: Setting, methods: Mapping[str, FedAvg], seeds: Sequence[int], folder: Path, on_round: Watch
) -> list[Run]:
    """`experiment.compare` that also keeps each finished run's last state, for `state_of`; a run without it happens
    again."""
    check_comparison(setting, methods, seeds)
    depend_on = {}  # taken now: a method may count its calls, and be another one after its run
    for (label, method), seed in product(methods.items(), seeds):
        depends_on = dependencies(setting, method, seed)
        depend_on[label, seed] = depends_on
        stands_for = digest_of(depends_on)
        if not holds_state(state_path(folder, stands_for), depends_on):
            for result in folder.glob(f"*-{seed}-{stands_for}.json"):
                result.unlink()

    def keep_state(label: str, seed: int, state: State | None) -> None:
        if state is not None and state.round == setting.rounds:
            depends_on = depend_on[label, seed]
            save_state(state, state_path(folder, digest_of(depends_on)), depends_on)
        on_round(label, seed, state)

    return compare(setting, methods, seeds, folder, keep_state)


def state_path(folder: Path, stands_for: str) -> Path:
    """Where the last state of the run with this digest is kept."""
    return folder / f"{stands_for}.safetensors"


def state_of(setting: Setting, method: FedAvg, seed: int, folder: Path = FOLDER) -> State:
    """The state at the end of a run of `run_all`. ValueError where it has not been run."""
    depends_on = dependencies(setting, method, seed)
    path = state_path(Path(folder), digest_of(depends_on))
    try:
        return load_state(path, depends_on, setting.device)
    except (OSError, ValueError):
        raise ValueError(f"{path} is not there, or not whole: run this combination first") from None


def tidy(results: Sequence[Run]) -> pd.DataFrame:
    """`tables.table` of ablation runs, with a column True/False for each part, read off the method's values."""
    rows = table(results)
    for position, part in enumerate(PARTS, start=2):  # after method and seed
        rows.insert(position, part, [is_on(part, result["method"]) for result in results])
    return rows


def effects(rows: pd.DataFrame, figure: str = "personal") -> pd.DataFrame:
    """What each part does to `figure`, in points: mean and std over seeds, as a DataFrame, for three questions.

    "on average": with minus without it, mean over all combinations of the others; "alone": added to nothing;
    "in the whole": taken from everything. Paired by seed. rows: a full factorial, as from `ablate`; ValueError if not.

    Examples
    --------
    >>> rows = pd.DataFrame({"GLF": [False, True] * 2, "seed": [0, 0, 1, 1], "personal": [0.5, 0.6, 0.5, 0.8]})
    >>> rows = rows.assign(GFA=True, GPC=True)  # on throughout: only GLF is asked about
    >>> effects(rows).round(1).iloc[0].to_dict()
    {'part': 'GLF', 'question': 'on average', 'points': 20.0, 'std': 14.1, 'seeds': 2}
    """
    parts = [part for part in PARTS if rows[part].nunique() == 2]
    values = factorial(rows, parts, figure)
    answers = []
    for part in parts:
        for question, lift in lifts(values, part).items():
            std = lift.std(ddof=1) if len(lift) > 1 else np.nan
            answer = {"part": part, "question": question, "points": lift.mean(), "std": std, "seeds": len(lift)}
            answers.append(answer)
    return pd.DataFrame(answers)


def factorial(rows: pd.DataFrame, parts: Sequence[str], figure: str) -> pd.DataFrame:
    """`figure` in points, a row for each seed and a column for each combination of `parts`, all off first, all on last.

    ValueError where a combination is there twice, or not for every seed.
    """
    if not parts or rows.duplicated([*PARTS, "seed"]).any():
        raise ValueError("rows must hold every combination of some parts once for every seed")
    wide = rows.pivot(index="seed", columns=list(parts), values=figure)
    values = 100 * wide.sort_index(axis=1)  # False before True
    if values.shape[1] != 2 ** len(parts) or values.isna().any(axis=None):
        raise ValueError(f"rows must hold every combination of {', '.join(parts)} for every seed")
    return values


def lifts(values: pd.DataFrame, part: str) -> dict[str, np.ndarray]:
    """What `part` adds, one number for each seed, (S,), by question. values: as from `factorial`."""
    has_part = np.asarray(values.columns.get_level_values(part), dtype=bool)  # for each combination
    with_part = values.loc[:, has_part].to_numpy()
    without = values.loc[:, ~has_part].to_numpy()
    lift = with_part - without  # (S, combinations of the other parts): none of them first, all of them last
    return {"on average": lift.mean(axis=1), "alone": lift[:, 0], "in the whole": lift[:, -1]}
