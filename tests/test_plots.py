import matplotlib.pyplot as plt
import numpy as np
import pytest

from fedecouple_lite import plots
from fedecouple_lite.metrics import feature_scores, over_clients


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def result(label, seed, values):
    records = [
        {"round": i + 1, "personal": v, "global": None, "accuracies": [v, v / 2, None]} for i, v in enumerate(values)
    ]
    return {"label": label, "seed": seed, "records": records}


RESULTS = [
    result("A", 0, [0.2, 0.4]),
    result("A", 1, [0.4, 0.8]),
    result("B", 0, [0.1, 0.1]),
    result("B", 1, [0.1, 0.1]),
]


def test_curves_show_the_mean_over_seeds_and_name_every_line():
    (ax,) = plots.curves(RESULTS).axes
    assert ax.lines[0].get_ydata() == pytest.approx([30.0, 60.0])
    assert {t.get_text() for t in ax.texts} == {"A", "B"}
    assert not plots.curves(RESULTS, "global").axes[0].lines  # nobody has one


def test_client_bars_are_sorted_by_the_first_method():
    (ax,) = plots.client_bars(RESULTS, seed=1).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "0", "2"]
    assert ax.patches[1].get_height() == pytest.approx(80.0)


def test_feature_map_draws_anchors_and_scores(net, federation):
    space = plots.feature_space(net, net.init(0), federation)
    assert len(space["features"]) == sum(map(len, federation.test))
    assert len(space["anchors"]) == (federation.label_counts() > 0).sum()
    fig = plots.feature_map({"before": space, "after": space}, "pca")
    assert len(fig.axes) == 2 and "silhouette" in fig.axes[0].get_title()
    stars = [c for c in fig.axes[0].collections if len(c.get_offsets()) and c.get_linewidths()[0] > 0]
    assert sum(len(c.get_offsets()) for c in stars) == len(space["anchors"])


def test_embed_refuses_another_name_and_pca_is_orthogonal():
    with pytest.raises(ValueError, match="how='tsne' must be 'umap' or 'pca'"):
        plots.embed(np.zeros((5, 3)), "tsne")
    points = plots.embed(np.random.default_rng(0).normal(size=(50, 5)), "pca")
    assert points.shape == (50, 2) and abs(points[:, 0] @ points[:, 1]) < 1e-8


def test_feature_scores_are_best_for_separate_classes_and_refuse_too_little():
    y = np.repeat([0, 1], 20)
    noise = np.random.default_rng(0).normal(size=(40, 3))
    apart, mixed = feature_scores(noise + 50 * y[:, None], y), feature_scores(noise, y)
    assert apart["knn"] == 1.0 and apart["silhouette"] > 0.9 > mixed["silhouette"]
    with pytest.raises(ValueError, match="labels"):
        feature_scores(noise, y * 0)


def test_over_clients_by_hand_and_without_clients_that_cannot_be_tested():
    found = over_clients([0.5, float("nan"), 1.0])
    assert found["personal"] == 0.75 and found["worst10"] == pytest.approx(0.55)
    assert np.isnan(over_clients([float("nan")])["personal"])
