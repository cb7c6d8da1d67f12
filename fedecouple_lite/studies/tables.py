"""Tables of runs, over seeds: figures with their spread, and leads paired by seed with their interval; and where the
measured ones are stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import friedmanchisquare, studentized_range, ttest_rel

from ..errors import nearest, require
from .experiment import SUMMARY_ROUNDS, Run

# Accuracies of the tables for people, with their headings: a client's model after its last local training, and what it
# would receive now, before training (`engine.evaluate` says it exactly) ...
ACCURACIES = {
    "personal": "personal %, trained",
    "personal_received": "personal %, received",
    "percentile10": "10th percentile of clients %, trained",
    "global": "global %",
}
# ... and costs, each with its heading and what it is divided by.
COSTS = {
    "steps": ("steps", 1),
    "predict_steps": ("steps to predict", 1),
    "upload_bytes": ("KB up", 1000),
    "download_bytes": ("KB down", 1000),
}
LEGEND = (
    "p: paired t-test over seeds of `personal %, trained` against the best other method. Which one that is was chosen "
    "afterwards, from these same runs, so p is no more than a hint."
)


class PairedLead(NamedTuple):
    """How much more one method has than another, paired by seed: the mean difference, the ends of its 95 % t-interval,
    and the p-value of the paired t-test of no difference."""

    mean: float
    low: float
    high: float
    p: float


def paired_lead(ours: pd.Series | np.ndarray, theirs: pd.Series | np.ndarray) -> PairedLead:
    """The lead of `ours` over `theirs`, (S,) values each, one a seed and in the same order, in the values' own unit.

    Pairing takes out what both have in common: a seed's split is easy, or hard, for both. One seed has no spread:
    interval and p are NaN.

    Examples
    --------
    >>> lead = paired_lead(np.array([90.0, 92.0, 94.0]), np.array([88.0, 91.0, 94.0]))  # leads 2, 1, 0
    >>> print(f"{lead.mean:.1f} points, 95 % [{lead.low:.1f}, {lead.high:.1f}], p = {lead.p:.2f}")
    1.0 points, 95 % [-1.5, 3.5], p = 0.23
    """
    mean = float((ours - theirs).mean())
    if len(ours) < 2:
        return PairedLead(mean, low=np.nan, high=np.nan, p=np.nan)
    test = ttest_rel(ours, theirs)
    interval = test.confidence_interval(0.95)
    return PairedLead(mean, float(interval.low), float(interval.high), float(test.pvalue))


def table(results: Sequence[Run]) -> pd.DataFrame:
    """One row per (method, seed): each figure's mean over the last five evaluated rounds, and the hyper-parameters that
    the run had, as JSON.

    Examples
    --------
    >>> records = [{"round": t, "accuracies": [], "personal": accuracy} for t, accuracy in ((1, 0.5), (2, 0.75))]
    >>> table([{"label": "FedRep", "seed": 0, "records": records}])
       method  seed  personal
    0  FedRep     0     0.625
    """
    rows = []
    for run in results:
        records = pd.DataFrame(run["records"])
        figures = records.drop(columns=["accuracies", "round"]).astype(float)
        last_rounds = figures.tail(SUMMARY_ROUNDS)
        row = {"method": run["label"], "seed": run["seed"], **last_rounds.mean()}
        if "method" in run:
            row["hyperparameters"] = json.dumps({k: v for k, v in run["method"].items() if k != "name"})
        rows.append(row)
    return pd.DataFrame(rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """From `table`'s rows one per method: (mean, std) over seeds of every figure, std the sample's (n - 1), NaN for one
    seed; and under "p" the paired t-test of its personal accuracy over seeds against the best other method's.

    Examples
    --------
    >>> rows = {"method": ["A", "A", "B", "B"], "seed": [0, 1, 0, 1], "personal": [0.3, 0.5, 0.2, 0.3]}
    >>> figures = summary(pd.DataFrame(rows))
    >>> figures.loc["A", "personal"].round(3).to_dict()
    {'mean': 0.4, 'std': 0.141}
    >>> print(f"{figures.loc['A', ('p', '')]:.3f}")
    0.205
    """
    numbers = rows.drop(columns=["seed", "hyperparameters"], errors="ignore")
    figures = numbers.groupby("method", sort=False).agg(["mean", "std"])
    personal = rows.pivot(index="seed", columns="method", values="personal")
    for method in figures.index:
        others = personal.drop(columns=[method])
        p = np.nan
        if len(others.columns):
            best_other = others.mean().idxmax()
            p = paired_lead(personal[method], others[best_other]).p
        figures.loc[method, ("p", "")] = p
    return figures


def as_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The summary for people, strings in a DataFrame: accuracies in %, mean +- std over seeds; p (see `summary`);
    gradient steps of all clients and kilobytes of each, per round. "-": there is no such figure."""
    figures = summary(rows)
    shown = pd.DataFrame(index=figures.index)
    there = set(figures.columns.get_level_values(0))
    for key, heading in ACCURACIES.items():
        if key not in there:
            continue
        percent = 100 * figures[key]
        shown[heading] = [_mean_and_std(mean, std) for mean, std in zip(percent["mean"], percent["std"], strict=True)]
    shown["p"] = [_number(p, digits=3) for p in figures["p"]]
    for key, (heading, unit) in COSTS.items():
        if key not in there:
            continue
        shown[heading] = [_number(mean / unit, digits=0) for mean in figures[key, "mean"]]
    return shown.reset_index()


def as_text(results: Sequence[Run]) -> str:
    """`as_table` of these runs, its legend, and the hyper-parameters that each method had, as text."""
    rows = table(results)
    lines = [as_table(rows).to_string(index=False)]
    if rows["method"].nunique() > 1 and rows["seed"].nunique() > 1:
        lines.append(LEGEND)
    return "\n".join([*lines, *chosen(rows)])


def chosen(rows: pd.DataFrame) -> list[str]:
    """A line for what all runs had in common, and one for each method's own hyper-parameters; where seeds differ, one
    value for each of them.

    Examples
    --------
    >>> values = ['{"lr": 0.1, "epochs": 5}', '{"lr": 0.2, "epochs": 5}', '{"lr": 0.1, "epochs": 5, "mu": 1.0}']
    >>> rows = pd.DataFrame({"method": ["A", "A", "B"], "seed": [0, 1, 0], "hyperparameters": values})
    >>> print("\\n".join(chosen(rows)))
    all methods: epochs 5
    A: lr 0.1 / 0.2
    B: lr 0.1, mu 1.0
    """
    if "hyperparameters" not in rows:
        return []
    values = rows["hyperparameters"].map(json.loads)
    shared = {}
    for name, value in values.iloc[0].items():
        if all(name in of_run and of_run[name] == value for of_run in values):
            shared[name] = value
    lines = []
    if shared:
        lines.append("all methods: " + ", ".join(f"{name} {value}" for name, value in shared.items()))
    for method, of_method in values.groupby(rows["method"], sort=False):
        words = []
        for name in of_method.iloc[0]:
            if name in shared:
                continue
            of_seeds = [str(of_run[name]) for of_run in of_method]
            same_for_all = len(set(of_seeds)) == 1
            words.append(f"{name} {of_seeds[0] if same_for_all else ' / '.join(of_seeds)}")
        if words:
            lines.append(f"{method}: " + ", ".join(words))
    return lines


def leaderboard(rows: pd.DataFrame, figure: str = "personal") -> pd.DataFrame:
    """Strings for people: an accuracy in %, mean +- std over seeds (rank); a row a method, a column a cell.

    figure: which accuracy, "personal" or "personal_received".

    Examples
    --------
    >>> rows = pd.DataFrame({"method": ["A", "A", "B", "B"], "seed": [0, 1, 0, 1], "personal": [0.5, 0.6, 0.7, 0.8]})
    >>> print(leaderboard(rows.assign(dataset="digits", partition="iid")))
          digits, iid
    A  55.0 +- 7.1 (2)
    B  75.0 +- 7.1 (1)
    """
    columns = {}
    for (dataset, partition), cell in rows.groupby(["dataset", "partition"], sort=False):
        figures = 100 * cell.groupby("method", sort=False)[figure].agg(["mean", "std"])
        figures["rank"] = figures["mean"].rank(ascending=False, method="min").astype(int)
        column = {}
        for method, row in figures.iterrows():
            column[method] = f"{_mean_and_std(row['mean'], row['std'])} ({row['rank']:.0f})"
        columns[f"{dataset}, {partition}"] = column
    return pd.DataFrame(columns)


def is_fedecouple(row: str) -> bool:
    """Whether a benchmark's row is FedeCouple, in whatever coupling.

    Examples
    --------
    >>> is_fedecouple("fedecouple_joint"), is_fedecouple("fedrep")
    (True, False)
    """
    return row.startswith("fedecouple")


def margins(rows: pd.DataFrame, rivals: Sequence[str] | None = None, ours: str = "fedecouple") -> pd.DataFrame:
    """Per (dataset, partition): FedeCouple's mean lead in personal accuracy over the best of `rivals` (None: all
    others), in points, paired by seed, with its 95 % t-interval (NaN for one seed), that rival, and FedeCouple's rank
    among all.

    ours: the row that stands for FedeCouple. Its other rows, such as fedecouple_joint, are no rivals and have no rank.
    ValueError where the rows lack `ours`, or all of its rivals.

    Examples
    --------
    >>> mine = pd.DataFrame({"method": "fedecouple", "seed": [0, 1], "personal": [0.90, 0.94]})
    >>> theirs = pd.DataFrame({"method": "fedrep", "seed": [0, 1], "personal": [0.89, 0.91]})
    >>> rows = pd.concat([mine, theirs]).assign(dataset="digits", partition="iid")
    >>> print(margins(rows).round(1).to_string(index=False))
    dataset partition  rival  points   low  high  rank
     digits       iid fedrep     2.0 -10.7  14.7     1
    """
    methods = set(rows["method"])
    others = {method for method in methods if not is_fedecouple(method)}
    if ours not in methods or not methods & set(rivals or others):
        raise ValueError(f"rows hold {sorted(methods)}; ours={ours!r} and one of rivals={rivals} are needed")
    leads = []
    for (dataset, partition), cell in rows.groupby(["dataset", "partition"], sort=False):
        percent = 100 * cell.pivot(index="seed", columns="method", values="personal")
        of_ours = percent[ours]
        theirs = percent[[method for method in percent if method in others]]
        candidates = [method for method in theirs if rivals is None or method in rivals]
        rival = theirs[candidates].mean().idxmax()
        lead = paired_lead(of_ours, theirs[rival])
        number_better = int((theirs.mean() > of_ours.mean()).sum())
        row = {"dataset": dataset, "partition": partition, "rival": rival}
        row |= {"points": lead.mean, "low": lead.low, "high": lead.high, "rank": number_better + 1}
        leads.append(row)
    return pd.DataFrame(leads)


class Ranks(NamedTuple):
    """How methods rank over several cells: each one's mean rank (1 is best), the best first; the p-value of Friedman's
    test that all rank alike; and Nemenyi's critical difference: two mean ranks that are closer do not differ at 5 %."""

    mean: pd.Series
    p: float
    critical: float


def mean_ranks(rows: pd.DataFrame, figure: str = "personal") -> Ranks:
    """Ranks of the methods' means in every (dataset, partition), equal ones sharing theirs (Demsar 2006).

    Cells are taken for independent of each other; those of the same images are not quite. ValueError unless there are
    two cells and three methods, and every method is in every cell.

    Examples
    --------
    >>> rows = pd.DataFrame({"method": ["A", "B", "C"] * 2, "personal": [0.9, 0.8, 0.7, 0.9, 0.6, 0.7]})
    >>> ranks = mean_ranks(rows.assign(dataset=["x"] * 3 + ["y"] * 3, partition="iid"))
    >>> ranks.mean.to_dict()
    {'A': 1.0, 'B': 2.5, 'C': 2.5}
    >>> print(f"p = {ranks.p:.2f}, critical difference {ranks.critical:.2f}")
    p = 0.22, critical difference 2.34
    """
    means = rows.groupby(["dataset", "partition", "method"], sort=False)[figure].mean().unstack("method")
    cells, methods = means.shape
    require(cells >= 2 and methods >= 3, "rows", f"{cells} cells of {methods} methods", "at least 2 cells of 3 methods")
    for method, column in means.items():
        if column.isna().any():
            lacking = ", ".join(f"{dataset}, {partition}" for dataset, partition in column.index[column.isna()])
            raise ValueError(f"rows lack method={method!r} in {lacking}; every method must be in every cell")
    ranks = means.rank(axis="columns", ascending=False)
    test = friedmanchisquare(*(means[method] for method in means))
    quantile = studentized_range.ppf(0.95, methods, np.inf) / np.sqrt(2)
    critical = quantile * np.sqrt(methods * (methods + 1) / (6 * cells))
    return Ranks(ranks.mean().sort_values(kind="stable"), float(test.pvalue), float(critical))


def costs_so_far(results: Sequence[Run]) -> pd.DataFrame:
    """One row per (method, evaluated round), means over seeds: the accuracies, and what it took to get there. steps:
    gradient steps of all clients in all rounds so far, and those that this one prediction took; megabytes: sent by one
    client and to it so far.

    The costs of a round stand for those of the rounds since the evaluation before, which have no record. ValueError for
    no runs, a run without records, or seeds of one method that were not evaluated in the same rounds.

    Examples
    --------
    >>> costs = {"steps": 10, "predict_steps": 1, "upload_bytes": 2e6, "download_bytes": 1e6}
    >>> records = [{"round": t, "personal": t / 8, "personal_received": 0.5, **costs} for t in (2, 4)]
    >>> print(costs_so_far([{"label": "FedRep", "seed": 0, "records": records}]).to_string(index=False))
    method  round  steps  megabytes  personal  personal_received
    FedRep      2   21.0        6.0      0.25                0.5
    FedRep      4   41.0       12.0      0.50                0.5
    """
    require(len(results) > 0, "results", list(results), "one run at least")
    evaluated: dict[str, list[int]] = {}
    for run in results:
        rounds_of_run = [record["round"] for record in run["records"]]
        require(len(rounds_of_run) > 0, f"results[{run['label']!r}]", rounds_of_run, "a run that has records")
        same = evaluated.setdefault(run["label"], rounds_of_run)
        require(rounds_of_run == same, f"results[{run['label']!r}]", rounds_of_run, f"evaluated in rounds {same}")
    rows = []
    for run in results:
        steps = megabytes = before = 0
        for record in run["records"]:
            rounds = record["round"] - before
            before = record["round"]
            steps += rounds * record["steps"]
            megabytes += rounds * (record["upload_bytes"] + record["download_bytes"]) / 1e6
            row = {"method": run["label"], "round": record["round"], "steps": steps + record["predict_steps"]}
            row |= {"megabytes": megabytes, "personal": record["personal"]}
            row["personal_received"] = record["personal_received"]
            rows.append(row)
    return pd.DataFrame(rows).groupby(["method", "round"], sort=False).mean().reset_index()


def first_to_reach(curves: pd.DataFrame, share: float = 0.9, figure: str = "personal") -> pd.DataFrame:
    """From `costs_so_far`'s rows of one cell: per method the first evaluated round in which its mean accuracy is
    `share` of the best method's at the end, and what it took by then, NaN for a method that never gets there; the
    target is in the attribute attrs["target"].

    The best method's accuracy at the end is its mean over the last five evaluated rounds, the highest of all methods'.
    ValueError for no rows, or for those of more than one cell.

    Examples
    --------
    >>> curves = pd.DataFrame({"method": ["A", "A", "B", "B"], "round": [1, 2] * 2, "personal": [0.5, 0.7, 0.3, 0.4]})
    >>> curves["steps"], curves["megabytes"] = [10, 20, 10, 20], [0.1, 0.2, 0.1, 0.2]
    >>> reached = first_to_reach(curves, share=0.8)
    >>> print(f"{reached.attrs['target']:.2f}")
    0.48
    >>> print(reached)
            round  steps  megabytes
    method
    A         1.0   10.0        0.1
    B         NaN    NaN        NaN
    """
    require(0 < share <= 1, "share", share, "> 0 and <= 1")
    require(len(curves) > 0, "curves", f"{len(curves)} rows", "rows of one cell")
    twice = curves.duplicated(["method", "round"]).any()
    require(not twice, "curves", "rows with a method's round more than once", "rows of one cell")
    best = -np.inf
    for _, of_method in curves.groupby("method"):
        best = max(best, of_method[figure].tail(SUMMARY_ROUNDS).mean())
    target = share * best
    costs = ["round", "steps", "megabytes"]
    reached = {}
    for method, of_method in curves.groupby("method", sort=False):
        there = of_method[of_method[figure] >= target]
        if there.empty:
            reached[method] = pd.Series(np.nan, index=costs)
        else:
            reached[method] = there[costs].iloc[0]
    shown = pd.DataFrame(reached).T.astype(float).rename_axis("method")
    shown.attrs["target"] = target
    return shown


def stored_file(name: str) -> Path:
    """The file of a table that was measured once for everybody, or of what is known about it: settings, versions and
    the command that makes it again.

    Such tables lie in data/results of a checkout; an installed package has them inside. ValueError for a name that is
    not there, with those that are.

    Examples
    --------
    >>> rows = pd.read_csv(stored_file("digits.csv"))
    >>> about = json.loads(stored_file("digits.json").read_text())
    >>> print(len(rows), about["command"])
    390 python benchmarks/digits.py
    """
    package = Path(str(resources.files("fedecouple_lite")))
    in_package = package / "results"
    in_checkout = package.parent / "data" / "results"
    folder = in_package if in_package.is_dir() else in_checkout
    known = []
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".csv", ".json"):
            known.append(path.relative_to(folder).as_posix())
    if name not in known:
        raise ValueError(f"name={name!r} is no stored table; {nearest(name, known)}")
    return folder / name


def _mean_and_std(mean: float, std: float) -> str:
    """ "40.0 +- 14.1"; the mean alone where there is no spread, as with one seed."""
    if np.isnan(std):
        return _number(mean, digits=1)
    return f"{mean:.1f} +- {std:.1f}"


def _number(value: float, digits: int) -> str:
    """`value` with so many decimals; "-" for NaN."""
    if np.isnan(value):
        return "-"
    return f"{value:.{digits}f}"
