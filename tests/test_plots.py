import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from fedecouple_lite import make, rounds
from fedecouple_lite.course import plots
from fedecouple_lite.metrics import feature_scores, over_clients
from fedecouple_lite.studies.features import embed, feature_space


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def result(label, seed, values):
    records = [
        {"round": i + 1, "personal": v, "personal_received": v / 2, "global": None, "accuracies": [v, v / 2, None]}
        for i, v in enumerate(values)
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
    assert (
        ax.lines[0].get_ydata() == pytest.approx([30.0, 60.0]) and ax.get_ylabel() == "personal accuracy, trained (%)"
    )
    (ax,) = plots.curves(RESULTS, "personal_received").axes
    assert (
        ax.lines[0].get_ydata() == pytest.approx([15.0, 30.0]) and ax.get_ylabel() == "personal accuracy, received (%)"
    )
    (ax,) = plots.curves(RESULTS).axes
    assert {t.get_text() for t in ax.texts} == {"A", "B"}
    assert not plots.curves(RESULTS, "global").axes[0].lines  # nobody has one


def test_client_bars_are_sorted_by_the_first_method():
    (ax,) = plots.client_bars(RESULTS, seed=1).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "0", "2"]
    assert ax.patches[1].get_height() == pytest.approx(80.0)
    with pytest.raises(ValueError, match=r"seed=7 must be one of the results', \[0, 1\]"):
        plots.client_bars(RESULTS, seed=7)


def test_multiples_need_a_run():
    assert [ax.get_title() for ax in plots.multiples(RESULTS).axes[:2]] == ["A\n60.0 %", "B\n10.0 %"]
    with pytest.raises(ValueError, match="at least one run"):
        plots.multiples([])


def test_feature_map_draws_anchors_and_scores(net, federation):
    space = feature_space(net, net.init(0), federation)
    assert len(space["features"]) == sum(map(len, federation.test))
    assert len(space["anchors"]) == (federation.label_counts() > 0).sum()
    fig = plots.feature_map({"before": space, "after": space}, "pca")
    assert len(fig.axes) == 2 and "silhouette" in fig.axes[0].get_title()
    stars = [c for c in fig.axes[0].collections if len(c.get_offsets()) and c.get_linewidths()[0] > 0]
    assert sum(len(c.get_offsets()) for c in stars) == len(space["anchors"])


def test_feature_frames_share_one_embedding_and_one_window(net, federation):
    spaces = {r: feature_space(net, net.init(r), federation) for r in (0, 3)}
    frames = plots.feature_frames(spaces, "pca")
    assert list(frames) == [0, 3] and frames[0].axes[0].get_xlim() == frames[3].axes[0].get_xlim()
    together = embed(np.concatenate([s[k] for s in spaces.values() for k in ("features", "anchors")]), "pca")
    drawn = np.concatenate([c.get_offsets() for f in frames.values() for c in f.axes[0].collections])
    assert np.allclose(np.sort(drawn[:, 0]), np.sort(together[:, 0]), atol=1e-5)
    assert np.array_equal(np.bincount(spaces[0]["clients"]), [len(t) for t in federation.test])


def test_the_progress_figure_shows_what_the_records_say(net, federation):
    *_, state = rounds(make("fedrep", epochs=1), net, federation, rounds=2)
    left, middle, right = plots.progress(state, [0.1, 0.2]).axes
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    for metric, words in (
        ("personal", "personal accuracy, trained"),
        ("personal_received", "personal accuracy, received"),
        ("percentile10", "10th percentile of clients, trained"),
    ):
        line = left.lines[labels.index(words)]
        assert line.get_ydata() == pytest.approx([100 * r[metric] for r in state.records])
    assert len(middle.patches) == 4 and list(right.lines[0].get_ydata()) == [0.1, 0.2]


def test_label_map_shows_the_data(federation):
    counts = plots.label_map(federation).axes[0].images[0].get_array()
    assert np.array_equal(counts, federation.label_counts().T)


def test_travel_table_has_a_column_for_every_part_and_blanks():
    where = {"A": {"extractor": "travels", "classifier": "travels", "anchors": "stays"}, "B": {"extractor": "stays"}}
    (ax,) = plots.travel_table(where).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["extractor", "classifier", "anchors"]
    assert [t.get_text() for t in ax.texts] == ["travels", "travels", "stays", "stays", "", ""]


def test_dots_are_sorted_with_a_t_interval():
    rows = pd.DataFrame({"method": ["A", "A", "B", "B"], "seed": [0, 1, 0, 1], "personal": [0.1, 0.2, 0.5, 0.7]})
    (ax,) = plots.dots(rows).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["A", "B"]
    low, high = ax.containers[1][2][0].get_segments()[0][:, 0]
    assert (high - low) / 2 == pytest.approx(12.706 * 10, rel=1e-3)  # t(0.975, 1) * std / sqrt(2), in %
    assert ax.get_xlabel().startswith("personal accuracy, trained (%)")
    (ax,) = plots.dots(rows.rename(columns={"personal": "percentile10"}), "percentile10").axes
    assert ax.get_xlabel().startswith("10th percentile of clients, trained (%)")
    (ax,) = plots.dots(rows.assign(**{"global": [0.3, 0.5, np.nan, np.nan]}), "global").axes  # B has no global model
    assert [t.get_text() for t in ax.get_yticklabels()] == ["A"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"y": 3}, "y=3 must be a class from 0 to 2"),
        ({"y": -1}, "y=-1 must be"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"lam": -1.0}, "lam=-1.0 must be at least 0"),
    ],
)
def test_distillation_bars_refuse_what_would_be_drawn_as_nothing(values, message):
    logits = torch.tensor([0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=message):
        plots.distillation_bars(logits, logits, **{"y": 0, **values})


def test_feature_scores_are_best_for_separate_classes_and_refuse_too_little():
    y = np.repeat([0, 1], 20)
    noise = np.random.default_rng(0).normal(size=(40, 3))
    apart, mixed = feature_scores(noise + 50 * y[:, None], y), feature_scores(noise, y)
    assert apart["knn"] == 1.0 and apart["silhouette"] > 0.9 > mixed["silhouette"]
    with pytest.raises(ValueError, match="labels"):
        feature_scores(noise, y * 0)


def test_over_clients_by_hand_and_without_clients_that_cannot_be_tested():
    figures = over_clients([0.5, float("nan"), 1.0])
    assert figures["personal"] == 0.75 and figures["percentile10"] == pytest.approx(0.55)
    assert np.isnan(over_clients([float("nan")])["personal"])
