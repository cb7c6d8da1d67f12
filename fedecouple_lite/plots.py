"""Figures. Each function draws one matplotlib Figure from plain results and returns it; nothing is shown or saved.

Colours are Okabe and Ito's, distinct for colour-blind readers; markers say the same again. Backgrounds are white, so
that a figure stays readable on a dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .engine import forward, images_of
from .losses import class_means
from .metrics import feature_scores
from .models import DecoupledNet
from .partition import Federation
from .tensors import Tensors

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000", "#8C564B", "#7F7F7F")
MARKERS = "osD^vP*Xph"
Space = dict[str, np.ndarray]  # features (n, d), labels (n,), anchors (A, d), anchor_labels (A,)


def style(i: int) -> dict[str, Any]:
    """Colour and marker number i."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


def figure(columns: int = 1, width: float = 7.2, height: float = 4.0) -> tuple[Any, list[Any]]:
    """A white figure and its `columns` axes."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        1, columns, figsize=(width, height), facecolor="white", layout="constrained", squeeze=False
    )
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
    return fig, list(axes[0])


def curves(results: Sequence[Mapping[str, Any]], metric: str = "personal") -> Any:
    """`metric` per round, one line per method: mean over seeds, the band its standard deviation."""
    fig, (ax,) = figure()
    ends, above = [], np.inf
    for i, label in enumerate(dict.fromkeys(r["label"] for r in results)):
        runs = [r["records"] for r in results if r["label"] == label and r["records"][0][metric] is not None]
        if not runs:
            continue  # a method whose server holds no whole model has no global accuracy
        x = [record["round"] for record in runs[0]]
        values = 100 * np.array([[record[metric] for record in records] for records in runs])
        mean, std = values.mean(0), values.std(0, ddof=int(len(values) > 1))
        ax.plot(x, mean, **style(i), markevery=max(1, len(x) // 8), markersize=5)
        ax.fill_between(x, mean - std, mean + std, color=style(i)["color"], alpha=0.15, linewidth=0)
        ends.append((mean[-1], x[-1], label, style(i)["color"]))
    for y, last, label, colour in sorted(ends, reverse=True):  # names at the lines' ends, kept apart
        above = min(y, above - np.diff(ax.get_ylim())[0] / 18)
        ax.annotate(label, (last, above), (8, 0), textcoords="offset points", color=colour, va="center")
    ax.set(xlabel="round", ylabel=f"{metric} accuracy (%)")
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


def feature_space(net: DecoupledNet, extractor: Tensors, federation: Federation, limit: int = 1000) -> Space:
    """Features of up to `limit` test images, and every client's anchors: its class means under the same extractor."""
    pooled = torch.cat(federation.test)
    x, y = images_of(federation, pooled[:: -(-len(pooled) // limit)])
    anchors, labels = [], []
    for index in federation.train:
        own, own_y = images_of(federation, index)
        means, counts = class_means(forward(net.features, extractor, own), own_y, net.classes)
        anchors.append(means[counts > 0])
        labels.append(torch.nonzero(counts)[:, 0])
    space = {"features": forward(net.features, extractor, x), "labels": y, "anchors": torch.cat(anchors)}
    return {name: t.cpu().numpy() for name, t in (space | {"anchor_labels": torch.cat(labels)}).items()}


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


def feature_map(spaces: Mapping[str, Space], how: str = "umap") -> Any:
    """Feature spaces side by side in ONE embedding of them all, anchors as stars, with scores that need no picture."""
    parts = [space[key] for space in spaces.values() for key in ("features", "anchors")]
    pieces = np.split(embed(np.concatenate(parts), how), np.cumsum([len(part) for part in parts])[:-1])
    fig, axes = figure(len(spaces), width=5.2 * len(spaces), height=5.4)
    for i, (ax, (title, space)) in enumerate(zip(axes, spaces.items(), strict=True)):
        y, star_y = space["labels"], space["anchor_labels"]
        for c in np.unique(y):
            points, stars = pieces[2 * i][y == c], pieces[2 * i + 1][star_y == c]
            ax.scatter(*points.T, s=9, alpha=0.45, linewidths=0, **style(c))
            ax.scatter(*stars.T, s=80, edgecolors="black", linewidths=0.6, **style(c) | {"marker": "*"})
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
            ax.text(*np.median(points, axis=0), str(c), weight="bold", ha="center", va="center", bbox=box)
        scores = feature_scores(space["features"], y)
        ax.set_title(
            f"{title}\nsilhouette {scores['silhouette']:.2f}, kNN accuracy {100 * scores['knn']:.0f} %", fontsize=10
        )
        ax.set(xticks=[], yticks=[])
    fig.supxlabel(f"{how.upper()} of features; stars: clients' anchors; numbers: classes", fontsize=9)
    return fig
