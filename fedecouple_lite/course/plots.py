"""Figures. Each function draws one matplotlib Figure from plain results and returns it; nothing is shown, saved or
trained here (what trains in order to show is in `demonstrations`).

Colours are Okabe and Ito's, distinct for colour-blind readers; markers say the same again. Backgrounds are white, so
that a figure stays readable on a dark page.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..engine import State
from ..errors import require
from ..losses import cross_entropy, distillation, true_class_probability
from ..methods import FedeCouple
from ..metrics import centre_distances
from ..partition import Federation, unevenness
from ..studies.experiment import SUMMARY_ROUNDS
from ..studies.features import Space, UmapProcess, embed, name_of, space_scores

if TYPE_CHECKING:
    import pandas as pd

    from ..studies.tables import Ranks

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000", "#8C564B", "#7F7F7F")
MARKERS = "osD^vP*Xph"
# The records' accuracies, and what a figure calls them: "trained" is a client's model after its last local training,
# "received" what it would receive now, before training.
ACCURACIES = {
    "personal": "personal accuracy, trained",
    "personal_received": "personal accuracy, received",
    "percentile10": "10th percentile of clients, trained",
    "global": "global accuracy",
}


# --- Every figure's paper and ink ---


def style(i: int) -> dict[str, Any]:
    """Colour and marker number i, as keywords for matplotlib; after the last they begin again.

    Examples
    --------
    >>> style(1)
    {'color': '#E69F00', 'marker': 's'}
    >>> style(11) == style(1)
    True
    """
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


def figure(
    columns: int = 1, width: float = 7.2, height: float = 4.0, layout: Any = "constrained", rows: int = 1, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A white figure and its rows * columns axes, row by row; shared: sharex and sharey.

    Examples
    --------
    >>> fig, (left, right) = figure(columns=2, height=3)
    >>> lines = left.plot([1, 2, 3], [0.2, 0.5, 0.6], **style(0))
    """
    # Only the main thread may use pyplot: a cell running meanwhile would show a thread's half-drawn figure as its own.
    if threading.current_thread() is threading.main_thread():
        fig = plt.figure(figsize=(width, height), facecolor="white", layout=layout)
    else:
        fig = Figure(figsize=(width, height), facecolor="white", layout=layout)
    grid = fig.subplots(rows, columns, squeeze=False, **shared)
    axes = list(grid.flat)
    for ax in axes:
        ax.spines["top"].set_visible(False)
        ax.spines["right"].set_visible(False)
    return fig, axes


def _whole_numbers(ax: Axes) -> None:
    """No ticks between two rounds, or two clients."""
    ax.locator_params(axis="x", integer=True)


# --- Comparisons: runs of several methods and seeds ---


class Curve(NamedTuple):
    """A figure of merit over rounds, in percent."""

    rounds: list[int]
    mean: np.ndarray  # over seeds, (T,)
    std: np.ndarray  # over seeds, (T,), the sample's; 0 for one seed


def curve(runs: Sequence[Mapping[str, Any]], metric: str) -> Curve:
    """The runs of one method, one for each seed, as a curve.

    Examples
    --------
    >>> runs = [{"records": [{"round": 1, "personal": 0.2}]}, {"records": [{"round": 1, "personal": 0.4}]}]
    >>> curve(runs, "personal").mean
    array([30.])
    """
    rounds = [record["round"] for record in runs[0]["records"]]
    values = [[record[metric] for record in run["records"]] for run in runs]
    percent = 100 * np.array(values, dtype=float)  # (seeds, T)
    ddof = 1 if len(runs) > 1 else 0
    return Curve(rounds, percent.mean(0), percent.std(0, ddof=ddof))


def curves(results: Sequence[Mapping[str, Any]], metric: str = "personal") -> Figure:
    """`metric` per round, one line per method: mean over seeds, the band its standard deviation."""
    fig, (ax,) = figure()
    ends = []
    for i, (label, runs) in enumerate(_by_label(results).items()):
        known = [run for run in runs if run["records"][0][metric] is not None]
        if not known:
            continue  # a method whose server holds no whole model has no global accuracy
        rounds, mean, std = curve(known, metric)
        colour = COLOURS[i % len(COLOURS)]
        ax.plot(rounds, mean, **style(i), markevery=max(1, len(rounds) // 8), markersize=5)
        ax.fill_between(rounds, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
        ends.append((mean[-1], rounds[-1], label, colour))
    _name_lines(ax, ends)
    ax.set(xlabel="round", ylabel=f"{_in_words(metric)} (%)")
    _whole_numbers(ax)
    return fig


def seeds_apart(runs: Sequence[Mapping[str, Any]], metric: str = "personal") -> Figure:
    """`metric` per round of one method: a thin line for each seed, and their mean with its standard deviation.
    ValueError for no runs."""
    require(len(runs) > 0, "runs", list(runs), "at least one run")
    fig, (ax,) = figure(height=3.2)
    for run in runs:
        alone = curve([run], metric)
        ax.plot(alone.rounds, alone.mean, color="0.65", lw=1)
    together = curve(runs, metric)
    ax.plot(together.rounds, together.mean, color=COLOURS[0], lw=2.5)
    low, high = together.mean - together.std, together.mean + together.std
    ax.fill_between(together.rounds, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    ax.set(
        xlabel="round", ylabel=f"{_in_words(metric)} (%)", ylim=(0, 100), title="grey: a seed each; blue: their mean"
    )
    _whole_numbers(ax)
    return fig


def _name_lines(ax: Axes, ends: list[tuple[float, int, str, str]]) -> None:
    """Each line's name at its end (y, x, name, colour), from the top down, kept apart."""
    bottom, top = ax.get_ylim()
    line_height = (top - bottom) / 18
    at = np.inf
    for y, x, name, colour in sorted(ends, reverse=True):
        at = min(y, at - line_height)
        ax.annotate(name, (x, at), (8, 0), textcoords="offset points", color=colour, va="center")


def multiples(results: Sequence[Mapping[str, Any]], metric: str = "personal", columns: int = 4) -> Figure:
    """Small multiples on one scale: each label's curve (mean over seeds, band: standard deviation) before all others'
    in grey. In the title what a table says of it: the mean of its last five rounds. ValueError for no results."""
    require(len(results) > 0, "results", list(results), "at least one run")
    all_curves = {label: curve(runs, metric) for label, runs in _by_label(results).items()}
    number = len(all_curves)
    wide = min(columns, number)
    high = -(-number // columns)
    fig, axes = figure(wide, 2.6 * wide, 2.3 * high, rows=high, sharex=True, sharey=True)
    for ax, (label, (rounds, mean, std)) in zip(axes, all_curves.items(), strict=False):
        for other in all_curves.values():
            ax.plot(other.rounds, other.mean, color="0.82", lw=1)
        ax.plot(rounds, mean, color=COLOURS[0], lw=2)
        ax.fill_between(rounds, mean - std, mean + std, color=COLOURS[0], alpha=0.2, linewidth=0)
        summed_up = mean[-SUMMARY_ROUNDS:].mean()
        ax.set_title(f"{label}\n{summed_up:.1f} %", fontsize=9)
        _whole_numbers(ax)
    for empty in axes[number:]:
        empty.set_visible(False)
    fig.supxlabel("round", fontsize=9)
    fig.supylabel(f"{_in_words(metric)} (%)", fontsize=9)
    return fig


def _by_label(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Each method's runs, in the order in which the methods first appear."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in results:
        groups.setdefault(run["label"], []).append(run)
    return groups


def _in_words(metric: str) -> str:
    return ACCURACIES.get(metric, metric)


def dots(rows: pd.DataFrame, metric: str = "personal") -> Figure:
    """`metric` of each method, best on top: a dot per seed, the mean, and its 95% t-interval over seeds.

    rows: a DataFrame with columns method, seed and `metric` (tables.table); rows without that figure are left out.
    """
    from scipy.stats import t

    rows = rows.dropna(subset=[metric])
    by_method = {str(method): 100 * group[metric].to_numpy() for method, group in rows.groupby("method")}
    methods = sorted(by_method, key=lambda method: by_method[method].mean())
    fig, (ax,) = figure(height=0.32 * len(methods) + 1.0)
    for i, method in enumerate(methods):
        values = by_method[method]
        n = len(values)
        half_width = 0.0  # of the interval; one seed has none
        if n > 1:
            half_width = t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
        ax.plot(values, np.full(n, i), "o", color="#7F7F7F", alpha=0.5, markersize=4)
        ax.errorbar(values.mean(), i, xerr=half_width, fmt="D", color=COLOURS[0], capsize=3)
    ax.set_yticks(range(len(methods)), methods)
    ax.set(xlabel=f"{_in_words(metric)} (%): seeds, their mean and its 95% interval")
    return fig


def leads(rows: pd.DataFrame, ours: Sequence[str] = ("fedecouple",), furthest: float = 12.0) -> Figure:
    """A whole benchmark: a line for every cell, on it how many points each method is from the best rival.

    A rival is a grey dot, the best one at 0; `ours` are coloured, each with the 95 % interval of its lead over the best
    rival, paired by seed (`tables.margins`), where the cell has that row. rows: as `benchmark.measure` gives them. What
    is further behind than `furthest` points is an arrow at the edge.
    """
    from ..studies.tables import is_fedecouple, margins

    cells = list(rows.groupby(["dataset", "partition"], sort=False))
    fig, (ax,) = figure(height=0.55 * len(cells) + 1.2)
    ax.axvline(0, color="0.6", lw=1)
    handles = {}  # by name: what the legend shows, once for all cells
    titles = []
    for line, ((dataset, partition), cell) in enumerate(cells):
        titles.append(f"{dataset}, {partition}")
        means = 100 * cell.groupby("method")["personal"].mean()
        rivals = means[[method for method in means.index if not is_fedecouple(method)]]
        _draw_rivals(ax, -line, (rivals - rivals.max()).to_numpy(), furthest)
        in_cell = [name for name in ours if name in means.index]
        for i, name in enumerate(in_cell):
            height = -line + 0.15 * (len(in_cell) - 1 - 2 * i)  # one above the other, around the line
            lead = margins(cell, ours=name).iloc[0]
            ends = np.array([lead["low"], lead["points"], lead["high"]])
            low, points, high = ends.clip(min=-furthest)
            own = style(list(ours).index(name))
            ax.plot([low, high], [height, height], color=own["color"], lw=2)
            (handles[name],) = ax.plot(points, height, **own, ls="", markersize=6, label=name)
    ax.set_yticks([-line for line in range(len(cells))], titles)
    ax.set_xlim(left=-furthest - 1)
    ax.set_xlabel("points above the best rival; bars: paired 95 % intervals")
    fig.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(ours), frameon=False)
    return fig


def _draw_rivals(ax: Axes, height: float, behind: np.ndarray, furthest: float) -> None:
    """Grey dots at this height, behind (R,) points; for all that are beyond `furthest` one arrow, and their number."""
    grey = "#7F7F7F"
    near = behind[behind >= -furthest]
    ax.plot(near, np.full(len(near), height), "o", color=grey, alpha=0.6, markersize=4.5)
    beyond = len(behind) - len(near)
    if beyond:
        edge = (-furthest, height)
        ax.plot(*edge, "<", color=grey, markersize=6)
        above = (0, 6)  # printer's points
        ax.annotate(str(beyond), edge, above, textcoords="offset points", ha="center", fontsize=7)


def rank_dots(ranks: Ranks) -> Figure:
    """Mean ranks over a benchmark's cells (`tables.mean_ranks`), the best on top. Those in the grey band do not differ
    from the best at 5 % (Nemenyi)."""
    from ..studies.tables import is_fedecouple

    methods = list(ranks.mean.index)
    best = float(ranks.mean.iloc[0])
    fig, (ax,) = figure(height=0.3 * len(methods) + 1.0)
    ax.axvspan(best, best + ranks.critical, color="0.92")
    for line, method in enumerate(methods):
        colour = COLOURS[0] if is_fedecouple(method) else "#7F7F7F"
        ax.plot(ranks.mean[method], -line, "o", color=colour, markersize=7)
    ax.set_yticks([-line for line in range(len(methods))], methods)
    band = f"within {ranks.critical:.1f} of the best, Nemenyi's critical difference"
    ax.set_xlabel(f"mean rank (1 is best); band: {band}")
    return fig


def against_costs(curves: pd.DataFrame, metric: str = "personal", share: float = 0.9) -> Figure:
    """Accuracy against what it took, gradient steps on the left and megabytes on the right, a line per method; the
    dashed line is `share` of the best method's accuracy at the end (`tables.first_to_reach`), and a method's marker
    where it gets there first.

    curves: `tables.costs_so_far` of one cell's runs.
    """
    from ..studies.tables import first_to_reach

    reached = first_to_reach(curves, share, metric)
    fig, axes = figure(columns=2, width=9.6, height=4.2, sharey=True)
    for ax, cost in zip(axes, ("steps", "megabytes"), strict=True):
        target = 100 * reached.attrs["target"]
        ax.axhline(target, color="0.6", lw=1, ls="--")
        for i, (method, first_round) in enumerate(reached["round"].items()):
            own = style(i)
            of_method = curves[curves["method"] == method]
            ax.plot(of_method[cost], 100 * of_method[metric], color=own["color"], lw=1.3)
            there = of_method[of_method["round"] == first_round]  # one point, or none
            ax.plot(there[cost], 100 * there[metric], **own, markersize=7, label=str(method))
    axes[0].set_xlabel("gradient steps of all clients so far")
    axes[1].set_xlabel("megabytes to and from one client so far")
    axes[0].set_ylabel(f"{_in_words(metric)} (%)")
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside upper center", ncols=4, frameon=False)
    return fig


def client_bars(results: Sequence[Mapping[str, Any]], seed: int = 0) -> Figure:
    """Each client's personal accuracy after the last round of one seed, sorted by the first method's. ValueError for a
    seed that was not run."""
    runs = [run for run in results if run["seed"] == seed]
    require(len(runs) > 0, "seed", seed, f"one of the results', {sorted({run['seed'] for run in results})}")
    last = [run["records"][-1]["accuracies"] for run in runs]
    accuracies = 100 * np.array(last, dtype=float)  # (methods, clients)
    order = np.argsort(accuracies[0])
    clients = np.arange(len(order))
    width = 0.8 / len(runs)
    leftmost = -(len(runs) - 1) / 2  # so that a client's bars stand around its tick
    fig, (ax,) = figure(width=max(7.2, 0.35 * len(order)))
    for i, run in enumerate(runs):
        places = clients + (leftmost + i) * width
        ax.bar(places, accuracies[i, order], width, label=run["label"], color=COLOURS[i % len(COLOURS)])
    ax.set(xlabel=f"client, sorted by {runs[0]['label']}", ylabel=f"{_in_words('personal')} (%)", ylim=(0, 105))
    ax.set_xticks(clients, [str(client) for client in order], fontsize=8)
    fig.legend(loc="outside upper center", ncols=len(runs), frameon=False)
    return fig


# --- One run, one federation ---


def progress(state: State, drifts: Sequence[float]) -> Figure:
    """A run so far: accuracies per round, each client's accuracy now, and the drift per round."""
    fig, (left, middle, right) = figure(3, width=11.0, height=3.4, layout=None)
    fig.subplots_adjust(left=0.06, right=0.99, bottom=0.17, top=0.9, wspace=0.25)

    rounds = [record["round"] for record in state.records]
    for i, (metric, label) in enumerate(ACCURACIES.items()):
        percent = [100 * record[metric] for record in state.records]
        left.plot(rounds, percent, label=label, **style(i), markersize=4)
    left.legend(frameon=False, fontsize=8, loc="lower right")  # where curves that rise leave room
    left.set(xlabel="round", ylabel="accuracy (%)", ylim=(0, 102))

    accuracies = np.array(state.records[-1]["accuracies"], dtype=float)
    middle.bar(range(len(accuracies)), np.sort(100 * accuracies), color=COLOURS[0])
    middle.set(xlabel="clients, sorted", ylabel=f"{_in_words('personal')} (%)", ylim=(0, 102))

    right.plot(range(1, len(drifts) + 1), drifts, **style(3), markersize=4)
    right.set(xlabel="round", ylabel="drift of the extractors", ylim=(0, 1.1 * max(drifts) or None))

    for ax in (left, right):
        ax.set_xlim(0.5, max(4, len(drifts)) + 0.5)
        _whole_numbers(ax)
    return fig


def label_map(federation: Federation) -> Figure:
    """Training images by client and class, darker for more, under the figures of how uneven they are.

    Darkest is five times what an even division would give, or more: so even data look even, and pictures of several
    divisions can be compared.
    """
    counts = federation.label_counts()  # (N, C)
    classes = counts.shape[1]
    darkest = 5 * counts.sum() / counts.size
    skew = unevenness(counts)
    fig, (ax,) = figure(width=8.0, height=3.2, layout=None)
    fig.subplots_adjust(left=0.07, right=0.99, bottom=0.16, top=0.88)
    ax.imshow(counts.T, aspect="auto", cmap="Blues", interpolation="nearest", vmin=0, vmax=darkest)
    ax.set(xlabel="client", ylabel="class")
    ax.set_title(f"label skew {skew['label_skew']:.2f}, size skew {skew['size_skew']:.2f}", fontsize=10)
    _whole_numbers(ax)
    if classes <= 20:  # more names than that would not be readable
        ax.set_yticks(range(classes), federation.data.classes, fontsize=8)
    return fig


def travel_table(where: Mapping[str, Mapping[str, str]]) -> Figure:
    """For each method (row) and part of a client's tensors (column): whether it "travels" or "stays", blank where the
    method has no such part. where[method][part]: one of the two words."""
    colours = {"travels": COLOURS[1], "stays": COLOURS[5], "": "white"}
    known = {part for parts in where.values() for part in parts}
    columns = ["extractor", "classifier", *sorted(known - {"extractor", "classifier"})]
    fig, (ax,) = figure(width=8.0, height=0.35 * len(where) + 1.2)
    for row, parts in enumerate(where.values()):
        for column, part in enumerate(columns):
            word = parts.get(part, "")
            corner = (column - 0.5, row - 0.5)
            ax.add_patch(Rectangle(corner, 1, 1, facecolor=colours[word], edgecolor="white"))
            ax.text(column, row, word, ha="center", va="center", fontsize=8)
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(where) - 0.5, -0.5))
    ax.set_xticks(range(len(columns)), columns, rotation=20)
    ax.set_yticks(range(len(where)), list(where))
    return fig


# --- What the losses do ---


def distillation_bars(
    student: Any, teacher: Any, y: int, temperature: float = FedeCouple.temperature, lam: float = FedeCouple.lam
) -> Figure:
    """One image's softened probabilities under teacher and student, logits (C,) each, with the weight and the loss.

    Raises ValueError for a class y that there is not, a temperature that is not above 0, or a negative lam.
    """
    classes = len(student)
    require(0 <= y < classes, "y", y, f"a class from 0 to {classes - 1}")
    require(temperature > 0, "temperature", temperature, "above 0")
    require(lam >= 0, "lam", lam, "at least 0")
    student = torch.as_tensor(student)[None]  # (1, C): a batch of one
    teacher = torch.as_tensor(teacher)[None]
    label = torch.as_tensor(y)[None]
    weight = true_class_probability(teacher, label).item()
    ce = cross_entropy(student, label).item()
    kl = distillation(student, teacher, temperature).item()
    loss = ce + lam * weight * kl

    fig, (ax,) = figure(height=3.2)
    places = np.arange(classes)
    logits = {"teacher (global classifier)": teacher, "student (personal classifier)": student}
    for i, (name, values) in enumerate(logits.items()):
        softened = (values / temperature).softmax(1)[0]
        ax.bar(places + 0.4 * i - 0.2, softened.numpy(), 0.4, label=name, color=COLOURS[i])
    ax.set(xlabel=f"class (true: {y})", ylabel=f"probability at T = {temperature:g}", xticks=places, ylim=(0, 1))
    ax.set_title(f"ce {ce:.2f} + lam {lam:g} x weight {weight:.2f} x T² KL {kl:.2f} = {loss:.2f}")
    ax.legend(frameon=False)
    return fig


def rates(curves: Mapping[str, np.ndarray], bounds: Mapping[str, np.ndarray] | None = None) -> Figure:
    """Log-log curves over rounds 1, 2, ..., (T,) each, with the `bounds` dashed; what is not positive is left out."""
    fig, (ax,) = figure()
    _draw_rates(ax, curves, bounds or {})
    return fig


def rates_and_context(curves: Mapping[str, np.ndarray], bounds: Mapping[str, np.ndarray], context: str) -> Figure:
    """Left: `rates`. Right: the bound named `context` once more, alone and on a linear scale with a line at zero, for
    it may be negative. Where `bounds` has none of that name, the right half stays empty."""
    fig, (left, right) = figure(2, width=11.0, width_ratios=(2, 1))
    _draw_rates(left, curves, bounds)
    if context not in bounds:
        right.set_axis_off()
        return fig
    (line,) = [line for line in left.lines if line.get_label() == context]
    right.axhline(0, color="black", lw=1)
    right.plot(line.get_xdata(), bounds[context], "--", color=line.get_color(), lw=2)
    right.set(xscale="log", xlabel="rounds T", title="context term alone, linear scale")
    return fig


def _draw_rates(ax: Axes, curves: Mapping[str, np.ndarray], bounds: Mapping[str, np.ndarray]) -> None:
    """What `rates` shows, on one axis."""
    for i, (label, values) in enumerate([*curves.items(), *bounds.items()]):
        rounds = np.arange(1, len(values) + 1)
        colour = COLOURS[i % len(COLOURS)]
        if i < len(curves):
            ax.plot(rounds, _positive(values), "-", color=colour, label=label, lw=2.5)
        else:
            ax.plot(rounds, _positive(values), "--", color=colour, label=label)
    ax.set(xscale="log", yscale="log", xlabel="rounds T", ylabel="squared gradient norm")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _positive(values: np.ndarray) -> np.ndarray:
    """`values`, NaN where a logarithmic axis cannot show them."""
    with np.errstate(invalid="ignore"):
        shown = np.isfinite(values) & (values > 0)
    return np.where(shown, values, np.nan)


# --- Feature spaces ---


def around_anchors(
    panels: Mapping[str, np.ndarray],
    labels: np.ndarray,
    anchors: np.ndarray,
    anchor_labels: np.ndarray,
    classes: Sequence[str],
    text: str,
) -> Figure:
    """The same images' features (n, d) at several times, a panel each by its title, around the same anchors (stars).

    All lie in ONE plane (PCA) and one window. labels: (n,); anchors: (A, d), anchor_labels: (A,); classes: their names;
    text: written below.
    """
    places = _split_embedding([*panels.values(), anchors], "pca")
    everything = np.concatenate(places)
    margin = 0.06 * (everything.max(0) - everything.min(0)) + 1e-6
    lows = everything.min(0) - margin
    highs = everything.max(0) + margin
    stars = places[-1]
    fig, axes = figure(len(panels), width=3.6 * len(panels), height=3.8)
    for ax, title, points in zip(axes, panels, places[:-1], strict=True):
        for c in np.unique(labels):
            chosen = points[labels == c]
            ax.scatter(chosen[:, 0], chosen[:, 1], s=18, alpha=0.6, linewidths=0, **style(c))
        for c, (x, y) in zip(anchor_labels, stars, strict=True):
            ax.scatter(x, y, s=140, color=style(c)["color"], marker="*", edgecolors="black")
            ax.annotate(classes[c], (x, y), (5, 5), textcoords="offset points", weight="bold")
        ax.set_xlim(lows[0], highs[0])
        ax.set_ylim(lows[1], highs[1])
        ax.set(title=title, xticks=[], yticks=[])
    fig.supxlabel(text, fontsize=9)
    return fig


def feature_map(
    spaces: Mapping[Any, Space],
    how: str | UmapProcess = "umap",
    by: Sequence[str] = ("class",),
) -> Figure:
    """Feature spaces side by side in ONE embedding of them all, with scores that need no picture.

    Each panel has a square window around its own images; an anchor beyond it is not seen. by: a row of panels for each
    of these, coloured by "class" (marker: client, stars: clients' anchors) or by "client" (marker: class), which is
    written at its left. ValueError for another word.
    """
    check_colouring(by)
    places = _places(spaces, how)
    titles = [scored(str(title), space) for title, space in spaces.items()]
    columns = len(spaces)
    rows = len(by)
    fig, axes = figure(columns, width=4.6 * columns, height=4.7 * rows, rows=rows)
    for row, colouring in enumerate(by):
        panels = axes[row * columns : (row + 1) * columns]
        panels[0].set_ylabel(LEGENDS[colouring], fontsize=9)
        for ax, title, space, place in zip(panels, titles, spaces.values(), places, strict=True):
            _draw_space(ax, title, space, place, colouring)
    fig.supxlabel(f"{name_of(how)} of features, one embedding for all panels", fontsize=9)
    return fig


def feature_frames(
    spaces: Mapping[Any, Space],
    how: str | UmapProcess = "umap",
    by: Sequence[str] = ("class", "client"),
    name: str = "round",
) -> dict[Any, Figure]:
    """The same, one figure for each space, its colourings side by side: the frames of a film over rounds, or over
    whatever `name` says. All are in one embedding, each in a window of its own."""
    check_colouring(by)
    places = _places(spaces, how)
    frames = {}
    for (number, space), place in zip(spaces.items(), places, strict=True):
        fig, axes = figure(len(by), 5.0 * len(by), 5.0)
        for ax, colouring in zip(axes, by, strict=True):
            _draw_space(ax, LEGENDS[colouring], space, place, colouring)
        fig.suptitle(scored(f"{name} {number}", space), fontsize=11)
        frames[number] = fig
    return frames


# What colour and marker of a feature map mean.
LEGENDS = {
    "class": "colour: class, marker: client, stars: clients' anchors",
    "client": "colour: client, marker: class",
}


def check_colouring(by: Sequence[str]) -> None:
    """Raise ValueError where feature maps are to be coloured by what they cannot be."""
    known = not isinstance(by, str) and len(by) > 0 and all(colouring in LEGENDS for colouring in by)
    require(known, "by", by, 'a sequence of "class", "client" or both')


def scored(title: str, space: Space) -> str:
    """The title, and below it how tight the classes are and how well clients agree on their places."""
    scores = space_scores(space)
    silhouette = f"silhouette {scores['silhouette']:.2f}"
    neighbours = f"kNN {100 * scores['knn']:.0f} %"
    spread = f"client spread {scores['spread']:.2f}"
    return f"{title}\n{silhouette}, {neighbours}, {spread}"


def centre_histograms(spaces: Mapping[Any, Space]) -> Figure:
    """For each space, how far test images are from the centre of their own class, and from the nearest other one.

    Both are relative to the mean distance to the nearest other centre in that space, so that spaces of different size
    can be compared. On one scale, which ends at 2.5.
    """
    fig, axes = figure(len(spaces), 4.2 * len(spaces), 3.2, sharex=True, sharey=True)
    for ax, (title, space) in zip(axes, spaces.items(), strict=True):
        own, other = centre_distances(space["features"], space["labels"])
        unit = other.mean()
        bins = np.linspace(0, 2.5, 51).tolist()
        for distances, name, colour in ((own, "own class", COLOURS[0]), (other, "nearest other", COLOURS[1])):
            shown = np.clip(distances / unit, 0, 2.5)
            ax.hist(shown, bins, color=colour, alpha=0.6, label=name)
        nearer = (own < other).mean()
        ax.set_title(f"{title}\n{100 * nearer:.0f} % are nearest to their own class", fontsize=10)
    axes[0].set_ylabel("test images")
    axes[0].legend(frameon=False)
    fig.supxlabel("distance to a class centre, relative to the mean distance to the nearest other one", fontsize=9)
    return fig


class Place(NamedTuple):
    """A feature space in the plane."""

    points: np.ndarray  # the features, (n, 2)
    stars: np.ndarray  # the anchors, (A, 2)


def _places(spaces: Mapping[Any, Space], how: str | UmapProcess) -> list[Place]:
    """Each space in the plane, all embedded together."""
    parts = []
    for space in spaces.values():
        parts += [space["features"], space["anchors"]]
    pieces = _split_embedding(parts, how)
    return [Place(points, stars) for points, stars in zip(pieces[::2], pieces[1::2], strict=True)]


def _split_embedding(parts: Sequence[np.ndarray], how: str | UmapProcess) -> list[np.ndarray]:
    """Parts (n_i, d), embedded together, taken apart again: (n_i, 2) each."""
    together = embed(np.concatenate(parts), how)
    ends = np.cumsum([len(part) for part in parts])
    return np.split(together, ends[:-1])


def _draw_space(ax: Axes, title: str, space: Space, place: Place, colouring: str) -> None:
    """Features in a square window, in a colour for each class or each client."""
    numbers = {"class": space["labels"], "client": space["clients"]}
    colours = numbers[colouring]
    markers = numbers["client" if colouring == "class" else "class"]
    for number in np.unique(colours):
        for marker in np.unique(markers[colours == number]):
            chosen = place.points[(colours == number) & (markers == marker)]
            look = {"color": style(number)["color"], "marker": style(marker)["marker"], "alpha": 0.6, "linewidths": 0}
            ax.scatter(chosen[:, 0], chosen[:, 1], s=16, **look)
    if colouring == "class":
        _draw_anchors(ax, space, place)
    x, y = (place.points.min(0) + place.points.max(0)) / 2
    half_width = 0.54 * np.ptp(place.points, axis=0).max()
    ax.set_xlim(x - half_width, x + half_width)
    ax.set_ylim(y - half_width, y + half_width)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)


def _draw_anchors(ax: Axes, space: Space, place: Place) -> None:
    """Clients' anchors as stars, and the number of each class at the middle of its images."""
    for c in np.unique(space["labels"]):
        stars = place.stars[space["anchor_labels"] == c]
        look: dict[str, Any] = {"color": style(c)["color"], "marker": "*", "edgecolors": "white", "linewidths": 0.5}
        ax.scatter(stars[:, 0], stars[:, 1], s=40, **look)
        middle = np.median(place.points[space["labels"] == c], axis=0)
        ax.annotate(str(c), middle, (7, 7), textcoords="offset points", weight="bold", fontsize=9)
