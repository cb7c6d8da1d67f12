"""Figures of merit. Accuracies are in [0, 1], higher is better; what is averaged over is in each name."""

from __future__ import annotations

from collections.abc import Sequence

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
