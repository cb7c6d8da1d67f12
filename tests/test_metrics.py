"""Figures of merit, recomputed by hand."""

import numpy as np
import pytest

from fedecouple_lite.metrics import centre_distances, client_spread, feature_scores, over_clients


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def scores_by_hand(points, labels, neighbours):
    """A point is never its own neighbour; silhouette (b - a) / max(a, b), mean over points."""
    far = distances(points)
    hits, silhouettes = [], []
    for i, label in enumerate(labels):
        others = [j for j in np.argsort(far[i]) if j != i]
        votes = np.bincount(labels[others[:neighbours]])
        hits.append(votes.argmax() == label)
        own = [far[i, j] for j in range(len(labels)) if j != i and labels[j] == label]
        a = np.mean(own)
        b = min(far[i, labels == other].mean() for other in set(labels) - {label})
        silhouettes.append((b - a) / max(a, b))
    return np.mean(silhouettes), np.mean(hits)


@pytest.mark.parametrize("neighbours", [1, 3, 10])
@pytest.mark.parametrize("apart", [0.0, 1.0, 3.0])
def test_feature_scores_by_brute_force(apart, neighbours):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], (15, 20, 25))
    points = rng.normal(size=(60, 4)) + apart * np.eye(4)[labels]
    silhouette, knn = scores_by_hand(points, labels, neighbours)
    scores = feature_scores(points, labels, neighbours)
    assert scores["silhouette"] == pytest.approx(silhouette) and scores["knn"] == pytest.approx(knn)


def test_ten_neighbours_are_asked_where_no_number_is_given():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 50)
    points = rng.normal(size=(50, 2)) + labels[:, None]
    assert feature_scores(points, labels) == feature_scores(points, labels, 10) != feature_scores(points, labels, 3)


def test_a_point_alone_among_others_is_wrong_even_though_it_is_nearest_to_itself():
    points = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    labels = np.array([0, 1, 0, 1, 1, 0])
    assert feature_scores(points, labels, neighbours=2)["knn"] == pytest.approx(scores_by_hand(points, labels, 2)[1])


@pytest.mark.parametrize(("samples", "classes"), [(10, 2), (3, 2), (40, 1)])
def test_too_few_samples_or_one_class_are_refused(samples, classes):
    labels = np.arange(samples) % classes
    points = np.random.default_rng(0).normal(size=(samples, 3))
    with pytest.raises(ValueError, match=rf"labels: {samples} samples; more than neighbours=10, of 2 classes"):
        feature_scores(points, labels)
    assert set(feature_scores(points[:, :1], np.arange(samples) % 2, 1)) == {"silhouette", "knn"}


def test_the_tenth_percentile_is_interpolated_between_clients():
    accuracies = [0.9, 0.2, 0.6, 1.0, 0.4]  # sorted 0.2 0.4 ...: a tenth of four gaps is 0.4 of the first one
    figures = over_clients(accuracies)
    assert figures["percentile10"] == pytest.approx(0.2 + 0.4 * 0.2)
    assert figures["personal"] == pytest.approx(0.62)
    assert over_clients([*accuracies, float("nan")]) == figures


def spread_by_hand(centres, labels):
    by_class = {}
    for centre, label in zip(centres, labels, strict=True):
        by_class.setdefault(label, []).append(centre)
    middles = {label: sum(several) / len(several) for label, several in by_class.items()}
    within = []
    for label, several in by_class.items():
        if len(several) > 1:
            within += [np.sqrt(((centre - middles[label]) ** 2).sum()) for centre in several]
    between = [np.sqrt(((middles[c] - middles[o]) ** 2).sum()) for c in middles for o in middles if c < o]
    return np.mean(within) / np.mean(between)


def test_client_spread_by_hand_and_at_its_ends():
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 1, 1, 3, 5, 5])  # class 3 is with one client: nothing to agree on
    centres = rng.normal(size=(8, 4)) + 3 * labels[:, None]
    assert client_spread(centres, labels) == pytest.approx(spread_by_hand(centres, labels))
    assert client_spread(7 * centres + 2, labels) == pytest.approx(client_spread(centres, labels))  # no unit, no place
    agreed = np.stack([centres[labels == c].mean(0) for c in labels])
    assert client_spread(agreed, labels) == 0
    assert np.isnan(client_spread(centres, np.zeros(8))) and np.isnan(client_spread(centres, np.arange(8)))


def test_centre_distances_by_hand():
    rng = np.random.default_rng(1)
    labels = rng.choice([2, 4, 9], 30)
    features = rng.normal(size=(30, 3)) + labels[:, None]
    own, other = centre_distances(features, labels)
    for i in range(30):
        distances = {c: np.linalg.norm(features[i] - features[labels == c].mean(0)) for c in (2, 4, 9)}
        assert own[i] == pytest.approx(distances.pop(labels[i])) and other[i] == pytest.approx(min(distances.values()))
    with pytest.raises(ValueError, match="labels: 1 class; two at least are needed"):
        centre_distances(features, np.ones(30))
