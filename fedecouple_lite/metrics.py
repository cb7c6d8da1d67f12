"""Figures of merit. Accuracies are in [0, 1], higher is better; what is averaged over is in each name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np


def over_clients(accuracies: Sequence[float]) -> dict[str, float]:
    """personal: plain mean over clients; percentile10: their 10th percentile, what the worst-served tenth does not
    exceed. A client without test images has NaN and counts in neither.

    Examples
    --------
    >>> over_clients([0.5, 1.0, float("nan")])
    {'personal': 0.75, 'percentile10': 0.55}
    """
    tested = [accuracy for accuracy in accuracies if not np.isnan(accuracy)]
    known = np.array(tested or [np.nan])
    return {"personal": float(known.mean()), "percentile10": float(np.percentile(known, 10))}


def feature_scores(features: np.ndarray, labels: np.ndarray, neighbours: int = 10) -> dict[str, float]:
    """How well classes separate in a feature space (n, d), without any picture, means over samples.

    silhouette: in [-1, 1], higher is tighter and further apart. knn: in [0, 1], accuracy of the `neighbours` nearest
    others. ValueError with too few samples or one class.
    """
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    if len(labels) <= neighbours or len(np.unique(labels)) < 2:
        raise ValueError(f"labels: {len(labels)} samples; more than neighbours={neighbours}, of 2 classes, are needed")
    search = NearestNeighbors(n_neighbors=neighbours).fit(features)
    near = search.kneighbors(return_distance=False)  # (n, neighbours): the samples' own indices left out
    votes = np.stack([np.bincount(row, minlength=labels.max() + 1) for row in labels[near]])  # (n, C)
    hits = votes.argmax(1) == labels
    return {"silhouette": float(silhouette_score(features, labels)), "knn": float(hits.mean())}


def client_spread(centres: np.ndarray, labels: np.ndarray) -> float:
    """How far apart clients put one class, relative to how far apart classes are: 0 where all agree, 1 where a class is
    as far from itself as from another one. NaN where no class is with two clients, or there is one class only.

    centres: (A, d), one for each client and class that it holds, and labels: (A,), their classes. Above: the mean
    distance of a class's centres to their mean, over classes that two clients hold; below: the mean distance between
    the means of two classes.

    Examples
    --------
    >>> client_spread(np.array([[0.0], [2.0], [10.0], [12.0]]), np.array([0, 0, 1, 1]))  # 1 from their means, 10 apart
    0.1
    """
    classes = np.unique(labels)
    means = np.stack([centres[labels == c].mean(0) for c in classes])
    from_mean = []
    for c, mean in zip(classes, means, strict=True):
        of_class = centres[labels == c]
        if len(of_class) >= 2:  # with one client alone there is nothing to agree on
            from_mean.extend(np.linalg.norm(of_class - mean, axis=1))
    between = [np.linalg.norm(one - other) for one, other in combinations(means, 2)]
    return float(np.mean(from_mean) / np.mean(between)) if from_mean and between else float("nan")


def centre_distances(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each sample's distance to the mean of its own class, (n,), and to the nearest mean of another class, (n,).

    features: (n, d), labels: (n,). ValueError with one class.

    Examples
    --------
    >>> own, other = centre_distances(np.array([[0.0], [2.0], [10.0]]), np.array([0, 0, 1]))  # means 1 and 10
    >>> own.tolist(), other.tolist()
    ([1.0, 1.0, 0.0], [10.0, 8.0, 9.0])
    """
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f"labels: {len(classes)} class; two at least are needed")
    means = np.stack([features[labels == c].mean(0) for c in classes])  # (C, d)
    distances = np.linalg.norm(features[:, None] - means[None], axis=2)  # (n, C)
    is_own = labels[:, None] == classes[None]
    own = distances[is_own]
    other = np.where(is_own, np.inf, distances).min(1)
    return own, other
