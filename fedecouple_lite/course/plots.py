"""Figures. Each function draws one matplotlib Figure from plain results and returns it; nothing is shown or saved.

Colours are Okabe and Ito's, distinct for colour-blind readers; markers say the same again. Backgrounds are white, so
that a figure stays readable on a dark page.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..engine import LocalData, State, client_round, forward, images_of
from ..losses import centre_loss, class_means, cross_entropy, distillation, true_class_probability
from ..methods import make
from ..metrics import feature_scores
from ..models import DecoupledNet, net_for
from ..partition import Federation, unevenness
from ..studies import convergence
from ..studies.convergence import Problem
from ..tensors import EXTRACTOR, Tensors, flat, pick

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000", "#8C564B", "#7F7F7F")
MARKERS = "osD^vP*Xph"
Space = dict[str, np.ndarray]  # features (n, d), labels and clients (n,); anchors (A, d), anchor_labels (A,)


def style(i: int) -> dict[str, Any]:
    """Colour and marker number i."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


def figure(
    columns: int = 1, width: float = 7.2, height: float = 4.0, layout: Any = "constrained", rows: int = 1, **shared: Any
) -> tuple[Any, list]:
    """A white figure and its rows * columns axes, row by row; shared: sharex and sharey."""
    # Only the main thread may use pyplot: a cell running meanwhile would show a thread's half-drawn figure as its own.
    new = plt.figure if threading.current_thread() is threading.main_thread() else Figure
    fig: Any = new(figsize=(width, height), facecolor="white", layout=layout)
    axes = fig.subplots(rows, columns, squeeze=False, **shared)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return fig, list(axes.flat)


def curves(results: Sequence[Mapping[str, Any]], metric: str = "personal") -> Any:
    """`metric` per round, one line per method: mean over seeds, the band its standard deviation."""
    fig, (ax,) = figure()
    ends, above = [], np.inf
    for i, label in enumerate(dict.fromkeys(r["label"] for r in results)):
        runs = [r for r in results if r["label"] == label and r["records"][0][metric] is not None]
        if not runs:
            continue  # a method whose server holds no whole model has no global accuracy
        x, values = _by_round(runs, metric)
        mean, std = values.mean(0), values.std(0, ddof=int(len(values) > 1))
        ax.plot(x, mean, **style(i), markevery=max(1, len(x) // 8), markersize=5)
        ax.fill_between(x, mean - std, mean + std, color=style(i)["color"], alpha=0.15, linewidth=0)
        ends.append((mean[-1], x[-1], label, style(i)["color"]))
    for y, last, label, colour in sorted(ends, reverse=True):  # names at the lines' ends, kept apart
        above = min(y, above - np.diff(ax.get_ylim())[0] / 18)
        ax.annotate(label, (last, above), (8, 0), textcoords="offset points", color=colour, va="center")
    ax.set(xlabel="round", ylabel=f"{metric} accuracy (%)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return fig


def multiples(results: Sequence[Mapping[str, Any]], metric: str = "personal", columns: int = 4) -> Any:
    """Small multiples on one scale: each label's curve (mean over seeds, band: standard deviation) before all others'
    in grey, its last value in the title."""
    labels = list(dict.fromkeys(r["label"] for r in results))
    wide, high = min(columns, len(labels)), -(-len(labels) // columns)
    fig, axes = figure(wide, 2.6 * wide, 2.3 * high, rows=high, sharex=True, sharey=True)
    found = {label: _by_round([r for r in results if r["label"] == label], metric) for label in labels}
    for ax in axes[len(labels) :]:
        ax.set_visible(False)
    for ax, (label, (x, values)) in zip(axes, found.items(), strict=False):
        for others, theirs in found.values():
            ax.plot(others, theirs.mean(0), color="0.82", lw=1)
        mean, std = values.mean(0), values.std(0, ddof=int(len(values) > 1))
        ax.plot(x, mean, color=COLOURS[0], lw=2)
        ax.fill_between(x, mean - std, mean + std, color=COLOURS[0], alpha=0.2, linewidth=0)
        ax.set_title(f"{label}\n{mean[-1]:.1f} %", fontsize=9)
        ax.xaxis.get_major_locator().set_params(integer=True)
    fig.supxlabel("round", fontsize=9)
    fig.supylabel(f"{metric} accuracy (%)", fontsize=9)
    return fig


def _by_round(results: Sequence[Mapping[str, Any]], metric: str) -> tuple[list[int], np.ndarray]:
    """Rounds, and `metric` in percent, (seeds, rounds)."""
    values = [[record[metric] for record in r["records"]] for r in results]
    return [record["round"] for record in results[0]["records"]], 100 * np.array(values, dtype=float)


def dots(rows: Any, metric: str = "personal") -> Any:
    """`metric` of each method, best on top: a dot per seed, the mean, and its 95% t-interval over seeds.

    rows: a DataFrame with columns method, seed and `metric` (experiment.table).
    """
    from scipy.stats import t

    groups = sorted(rows.groupby("method"), key=lambda pair: pair[1][metric].mean())
    fig, (ax,) = figure(height=0.32 * len(groups) + 1.0)
    for i, (_, group) in enumerate(groups):
        values = 100 * group[metric].to_numpy()
        n, mean = len(values), values.mean()
        half = t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else 0.0
        ax.plot(values, np.full(n, i), "o", color="#7F7F7F", alpha=0.5, markersize=4)
        ax.errorbar(mean, i, xerr=half, fmt="D", color=COLOURS[0], capsize=3)
    ax.set_yticks(range(len(groups)), [label for label, _ in groups])
    ax.set(xlabel=f"{metric} accuracy (%): seeds, their mean and its 95% interval")
    return fig


def drift(state: State) -> float:
    """How far clients' extractors stray from the server's, relative to its norm; mean over clients, 0 where all agree.

    Where the extractor does not travel, the clients' own mean takes the server's place.
    """
    clients = torch.stack([flat(pick(client, EXTRACTOR)) for client in state.clients])  # (N, P)
    shared = any(name.startswith(EXTRACTOR) for name in state.server)
    centre = flat(pick(state.server, EXTRACTOR)) if shared else clients.mean(0)
    return float((clients - centre).norm(dim=1).mean() / centre.norm())


def progress(state: State, drifts: Sequence[float]) -> Any:
    """A run so far: accuracies per round, each client's accuracy now, and the drift per round."""
    fig, (left, middle, right) = figure(3, width=11.0, height=3.4, layout=None)
    fig.subplots_adjust(left=0.06, right=0.99, bottom=0.17, top=0.9, wspace=0.25)
    x = [record["round"] for record in state.records]
    for i, (key, label) in enumerate((("personal", "personal"), ("global", "global"), ("worst10", "worst 10 %"))):
        left.plot(x, [100 * record[key] for record in state.records], label=label, **style(i), markersize=4)
    left.legend(frameon=False, fontsize=8, loc="lower right")  # where curves that rise leave room
    left.set(xlabel="round", ylabel="accuracy (%)", ylim=(0, 102))
    own = np.sort(100 * np.array(state.records[-1]["accuracies"], dtype=float))
    middle.bar(range(len(own)), own, color=COLOURS[0])
    middle.set(xlabel="clients, sorted", ylabel="personal accuracy (%)", ylim=(0, 102))
    right.plot(range(1, len(drifts) + 1), drifts, **style(3), markersize=4)
    right.set(xlabel="round", ylabel="drift of the extractors", ylim=(0, 1.1 * max(drifts) or None))
    for ax in (left, right):
        ax.set_xlim(0.5, max(4, len(drifts)) + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True)
    return fig


def client_bars(results: Sequence[Mapping[str, Any]], seed: int = 0) -> Any:
    """Each client's personal accuracy after the last round of one seed, sorted by the first method's."""
    runs = [r for r in results if r["seed"] == seed]
    own = 100 * np.array([r["records"][-1]["accuracies"] for r in runs], dtype=float)  # (methods, clients)
    order, width = np.argsort(own[0]), 0.8 / len(runs)
    fig, (ax,) = figure(width=max(7.2, 0.35 * len(order)))
    for i, r in enumerate(runs):
        place = np.arange(len(order)) + (i - (len(runs) - 1) / 2) * width
        ax.bar(place, own[i, order], width, label=r["label"], color=style(i)["color"])
    ax.set(xlabel=f"client, sorted by {runs[0]['label']}", ylabel="personal accuracy (%)", ylim=(0, 105))
    ax.set_xticks(np.arange(len(order)), [str(k) for k in order], fontsize=8)
    fig.legend(loc="outside upper center", ncols=len(runs), frameon=False)
    return fig


def label_map(federation: Federation) -> Any:
    """Training images by client and class, darker for more, under the figures of how uneven they are."""
    counts = federation.label_counts()
    fig, (ax,) = figure(width=8.0, height=3.2, layout=None)
    fig.subplots_adjust(left=0.07, right=0.99, bottom=0.16, top=0.88)
    ax.imshow(counts.T, aspect="auto", cmap="Blues", interpolation="nearest", vmin=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    skew = unevenness(counts)
    ax.set(xlabel="client", ylabel="class")
    ax.set_title(f"label skew {skew['label_skew']:.2f}, size skew {skew['size_skew']:.2f}", fontsize=10)
    if counts.shape[1] <= 20:
        ax.set_yticks(range(counts.shape[1]), federation.data.classes, fontsize=8)
    return fig


def travel_map(names: Sequence[str]) -> Any:
    """Which tensors of a client travel to the server and which stay, by method: found by running a round of each."""
    net = net_for((1, 8, 8), 10)
    start, images = net.init(0), torch.zeros(2, 1, 8, 8)
    local = LocalData(images, torch.tensor([0, 1]), lambda epochs: [torch.arange(2)] * epochs)
    found = {}
    for name in names:
        method = make(name)
        download = method.send(method.init_server(start), 0)
        client, upload, *_ = client_round(method, net, method.init(start), download, local)
        found[name] = {key.split(".")[0] for key in upload}, {key.split(".")[0] for key in client}
    parts = list(
        dict.fromkeys(["extractor", "classifier", *sorted(set().union(*(client for _, client in found.values())))])
    )
    fig, (ax,) = figure(width=8.0, height=0.35 * len(names) + 1.2)
    for i, (sent, held) in enumerate(found.values()):
        for j, part in enumerate(parts):
            text = "travels" if part in sent else "stays" if part in held else ""
            colour = {"travels": COLOURS[1], "stays": COLOURS[5], "": "white"}[text]
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, edgecolor="white"))
            ax.text(j, i, text, ha="center", va="center", fontsize=8)
    ax.set(xlim=(-0.5, len(parts) - 0.5), ylim=(len(names) - 0.5, -0.5))
    ax.set_xticks(range(len(parts)), parts, rotation=20)
    ax.set_yticks(range(len(names)), names)
    return fig


def anchor_pull(
    net: DecoupledNet, weights: Tensors, federation: Federation, client: int = 0, mu: float = 1.0, steps: int = 20
) -> Any:
    """One client's features before and after `steps` steps of its extractor on ce + mu Omega, in ONE plane (PCA)."""
    x, y = images_of(federation, federation.train[client])
    method = make("fedecouple", mu=mu, global_loss=0, classifier_epochs=0, epochs=steps, batch_size=len(y))
    local = LocalData(x, y, lambda epochs: [torch.arange(len(y))] * epochs)
    after, *_ = client_round(method, net, weights, weights, local)
    anchors, classes = after["anchors.means"], after["anchors.counts"] > 0
    parts = [forward(net.features, weights, x), forward(net.features, after, x), anchors[classes]]
    pieces = np.split(embed(torch.cat(parts).numpy(), "pca"), np.cumsum([len(part) for part in parts])[:-1])
    fig, axes = figure(2, width=9.0, height=4.0)
    for ax, points, title in zip(axes, pieces, ("received", f"after {steps} steps, mu = {mu:g}"), strict=False):
        for c in y.unique().tolist():
            ax.scatter(*points[y == c].T, s=18, alpha=0.6, linewidths=0, **style(c))
        for c, at in zip(torch.nonzero(classes)[:, 0].tolist(), pieces[2], strict=True):
            ax.scatter(*at, s=140, edgecolors="black", **style(c) | {"marker": "*"})
            ax.annotate(federation.data.classes[c], at, (5, 5), textcoords="offset points", weight="bold")
        ax.set(title=title, xticks=[], yticks=[])
    omega = (centre_loss(z, y, anchors).mean() for z in parts[:2])
    lows, highs = np.concatenate(pieces).min(0), np.concatenate(pieces).max(0)
    margin = 0.06 * (highs - lows) + 1e-6  # the same window on both sides
    for ax in axes:
        ax.set(xlim=(lows[0] - margin[0], highs[0] + margin[0]), ylim=(lows[1] - margin[1], highs[1] + margin[1]))
    fig.supxlabel(
        "PCA of one client's features, its anchors as stars; Omega {:.3f} -> {:.3f}".format(*omega), fontsize=9
    )
    return fig


def distillation_bars(student: Any, teacher: Any, y: int, temperature: float = 1.0, lam: float = 3.0) -> Any:
    """One image's softened probabilities under teacher and student, logits (C,) each, with the weight and the loss."""
    s, t, label = (torch.as_tensor(v)[None] for v in (student, teacher, y))
    weight = true_class_probability(t, label).item()
    loss, kl = cross_entropy(s, label).item(), distillation(s, t, temperature).item()
    fig, (ax,) = figure(height=3.2)
    for i, (name, logits) in enumerate((("teacher (global classifier)", t), ("student (personal classifier)", s))):
        p = (logits / temperature).softmax(1)[0].numpy()
        ax.bar(np.arange(len(p)) + 0.4 * i - 0.2, p, 0.4, label=name, color=COLOURS[i])
    ax.set(
        xlabel=f"class (true: {y})", ylabel=f"probability at T = {temperature:g}", xticks=range(s.shape[1]), ylim=(0, 1)
    )
    ax.set_title(f"ce {loss:.2f} + lam {lam:g} x weight {weight:.2f} x T² KL {kl:.2f} = {loss + lam * weight * kl:.2f}")
    ax.legend(frameon=False)
    return fig


def rates(curves: Mapping[str, np.ndarray], bounds: Mapping[str, np.ndarray] | None = None) -> Any:
    """Log-log curves over rounds 1, 2, ..., (T,) each, with the `bounds` dashed; what is not positive is left out."""
    fig, (ax,) = figure()
    for i, (label, values) in enumerate({**curves, **(bounds or {})}.items()):
        t, line = np.arange(1, len(values) + 1), "--" if bounds and label in bounds else "-"
        with np.errstate(invalid="ignore"):
            shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        ax.plot(t, shown, line, color=COLOURS[i % len(COLOURS)], label=label, **({"lw": 2.5} if line == "-" else {}))
    ax.set(xscale="log", yscale="log", xlabel="rounds T", ylabel="squared gradient norm")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return fig


def descent(problem: Problem, step: float = 1.0, local_steps: int = 5, rounds: int = 300) -> tuple[Any, str]:
    """The measured average squared gradient norm of a known problem under the theorem's bound and its terms, and what
    they come to in words. step: gamma as a share of 1 / (4 L), the largest that the theorem allows; above 1, no bound.
    """
    lr = step / (4 * problem.smoothness * local_steps)
    run = convergence.descend(problem, lr, local_steps, rounds)
    mean, words = (
        convergence.running_mean(run.measured),
        "The step is larger than the theorem allows: there is no bound.",
    )
    terms: dict[str, np.ndarray] = {}
    if step <= 1:
        found = convergence.bound(
            run.gap, problem.smoothness, problem.sigma, problem.kappa, len(problem.a), lr, local_steps,
            np.arange(1, rounds + 1), convergence.running_mean(run.bias), convergence.running_mean(run.change),
        )  # fmt: skip
        terms = {"bound": sum(found.values())} | {f"of it: {k}": v + np.zeros(rounds) for k, v in found.items()}
        words = f"The bound is {terms['bound'][-1] / mean[-1]:.1f} times what was measured."
        if found["context"][-1] < 0:
            words += " Its context term is negative there, so a log scale cannot show it: the renewals lowered Phi."
    fig = rates({"measured, average of T rounds": mean}, terms)
    return fig, f"After {rounds} rounds the average squared gradient norm is {mean[-1]:.3g}. {words}"


def feature_space(net: DecoupledNet, extractor: Tensors, federation: Federation, limit: int = 1000) -> Space:
    """Features of up to `limit` test images with their labels and clients, and every client's anchors (its class means
    under the same extractor) with their labels."""
    owner = torch.cat([torch.full((len(index),), k) for k, index in enumerate(federation.test)])
    pooled = torch.cat(federation.test)
    some = slice(None, None, -(-len(pooled) // limit))
    x, y = images_of(federation, pooled[some])
    anchors, labels = [], []
    for index in federation.train:
        own, own_y = images_of(federation, index)
        means, counts = class_means(forward(net.features, extractor, own), own_y, net.classes)
        anchors.append(means[counts > 0])
        labels.append(torch.nonzero(counts)[:, 0])
    space = {"features": forward(net.features, extractor, x), "labels": y, "clients": owner[some]}
    space |= {"anchors": torch.cat(anchors), "anchor_labels": torch.cat(labels)}
    return {name: t.cpu().numpy() for name, t in space.items()}


def embed(points: np.ndarray, how: str = "umap", seed: int = 0) -> np.ndarray:
    """Points (n, d) in the plane, (n, 2). "pca" is instant; "umap" takes some ten seconds at first, to compile.

    Raises ValueError for another name, or "umap" where umap-learn is not installed.
    """
    if how not in ("umap", "pca"):
        raise ValueError(f"how={how!r} must be 'umap' or 'pca'")
    try:
        if how == "pca":
            from sklearn.decomposition import PCA as Embedding
        else:
            from umap import UMAP as Embedding
    except ImportError:
        raise ValueError("how='umap' needs umap-learn: pip install umap-learn; or use how='pca'") from None
    options = {"n_jobs": 1} if how == "umap" else {}  # what a fixed random_state implies; saying so avoids a warning
    return Embedding(n_components=2, random_state=seed, **options).fit_transform(points)


def feature_map(spaces: Mapping[Any, Space], how: str = "umap") -> Any:
    """Feature spaces side by side in ONE embedding of them all, anchors as stars, with scores that need no picture."""
    fig, axes = figure(len(spaces), width=5.2 * len(spaces), height=5.4)
    for ax, title, place in zip(axes, spaces, _places(spaces, how), strict=True):
        _draw_space(ax, str(title), spaces[title], *place)
    fig.supxlabel(f"{how.upper()} of features; colour: class, marker: client, stars: clients' anchors", fontsize=9)
    return fig


def feature_frames(spaces: Mapping[Any, Space], how: str = "umap") -> dict[Any, Any]:
    """The same, one figure for each space, all in one embedding and one window: the frames of a film over rounds."""
    places, frames = _places(spaces, how), {}
    everything = np.concatenate([part for place in places for part in place])
    lows, highs = everything.min(0) - 0.5, everything.max(0) + 0.5
    for (title, space), place in zip(spaces.items(), places, strict=True):
        frames[title], (ax,) = figure(width=6.0, height=5.6)
        _draw_space(ax, f"round {title}", space, *place)
        ax.set(xlim=(lows[0], highs[0]), ylim=(lows[1], highs[1]))
    return frames


def _places(spaces: Mapping[Any, Space], how: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each space's features and anchors in the plane, embedded together."""
    parts = [space[key] for space in spaces.values() for key in ("features", "anchors")]
    pieces = np.split(embed(np.concatenate(parts), how), np.cumsum([len(part) for part in parts])[:-1])
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def _draw_space(ax: Any, title: str, space: Space, points: np.ndarray, stars: np.ndarray) -> None:
    y, marker = space["labels"], space["clients"] % len(MARKERS)
    for c in np.unique(y):
        colour = style(c)["color"]
        for m in np.unique(marker[y == c]):
            chosen = points[(y == c) & (marker == m)]
            ax.scatter(*chosen.T, s=9, alpha=0.45, linewidths=0, color=colour, marker=MARKERS[m])
        chosen = stars[space["anchor_labels"] == c]
        ax.scatter(*chosen.T, s=80, edgecolors="black", linewidths=0.6, color=colour, marker="*")
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
        ax.text(*np.median(points[y == c], axis=0), str(c), weight="bold", ha="center", va="center", bbox=box)
    scores = feature_scores(space["features"], y)
    knn = 100 * scores["knn"]
    ax.set_title(f"{title}\nsilhouette {scores['silhouette']:.2f}, kNN accuracy {knn:.0f} %", fontsize=10)
    ax.set(xticks=[], yticks=[])
