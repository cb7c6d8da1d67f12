import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from fedecouple_lite import make, rounds, split
from fedecouple_lite.course import plots
from fedecouple_lite.engine import start
from fedecouple_lite.metrics import centre_distances
from fedecouple_lite.partition import unevenness
from fedecouple_lite.studies.features import embed, feature_space, space_scores
from fedecouple_lite.studies.tables import costs_so_far, margins, mean_ranks, table

IMAGE = 16  # the size of an image's dot in a feature map; stars have another


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
    assert [ax.get_title() for ax in plots.multiples(RESULTS).axes[:2]] == ["A\n45.0 %", "B\n10.0 %"]
    with pytest.raises(ValueError, match="at least one run"):
        plots.multiples([])


@pytest.fixture
def spaces(net, federation):
    """The clients' own feature spaces at the start and after each of two rounds, by round."""
    method = make("fedecouple", epochs=1)
    states = [start(method, net, federation), *rounds(method, net, federation, rounds=2)]
    return {state.round: feature_space(net, state, federation) for state in states}


def test_feature_maps_are_parts_of_one_embedding(spaces):
    together = embed(np.concatenate([s[k] for s in spaces.values() for k in ("features", "anchors")]), "pca")
    frames = plots.feature_frames(spaces, "pca")
    assert list(frames) == [0, 1, 2]
    of_frames = [frame.axes[0] for frame in frames.values()]
    for axes in (plots.feature_map(spaces, "pca").axes, of_frames):
        drawn = np.concatenate([cloud.get_offsets() for ax in axes for cloud in ax.collections])
        assert np.allclose(np.sort(drawn[:, 0]), np.sort(together[:, 0]), atol=1e-5)
        for ax, space in zip(axes, spaces.values(), strict=True):  # a square window around all images
            assert np.ptp(ax.get_xlim()) == pytest.approx(np.ptp(ax.get_ylim()))
            images = np.concatenate([c.get_offsets() for c in ax.collections if c.get_sizes()[0] == IMAGE])
            assert len(images) == len(space["features"])
            for values, (low, high) in zip(images.T, (ax.get_xlim(), ax.get_ylim()), strict=True):
                assert low < values.min() and values.max() < high


def test_frames_say_what_they_are_frames_of(spaces):
    for name, given in (("round", {}), ("mu", {"name": "mu"})):
        frames = plots.feature_frames(spaces, "pca", **given)
        for number, space in spaces.items():
            assert frames[number].get_suptitle() == plots.scored(f"{name} {number}", space)
            titles = [ax.get_title() for ax in frames[number].axes]
            assert titles == ["colour: class, marker: client, stars: clients' anchors", "colour: client, marker: class"]


@pytest.mark.parametrize("by", [(), "class", ("class", "label")])
def test_feature_maps_are_coloured_by_class_or_client_alone(spaces, by):
    for draw in (plots.feature_map, plots.feature_frames):
        with pytest.raises(ValueError, match=r'by=.* must be a sequence of "class", "client" or both'):
            draw(spaces, "pca", by=by)


def test_centre_histograms_hold_every_image_and_name_their_share(spaces):
    fig = plots.centre_histograms(spaces)
    for ax, (title, space) in zip(fig.axes, spaces.items(), strict=True):
        own, other = centre_distances(space["features"], space["labels"])
        assert ax.get_title() == f"{title}\n{100 * (own < other).mean():.0f} % are nearest to their own class"
        for colour, distances in ((plots.COLOURS[0], own), (plots.COLOURS[1], other)):
            bars = [bar for bar in ax.patches if to_hex(bar.get_facecolor()).upper() == colour]
            assert sum(bar.get_height() for bar in bars) == len(distances)
            middles = [(bar.get_x() + bar.get_width() / 2) * bar.get_height() for bar in bars]
            assert sum(middles) / len(distances) == pytest.approx((distances / other.mean()).mean(), abs=0.05)
    assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()] == ["own class", "nearest other"]


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


def test_the_darkness_of_a_label_map_is_that_of_any_other(few):
    """An even division is pale throughout: a fifth of the darkest, which depends on how many images there are alone."""
    for partition in ("iid", "dirichlet"):
        federation = split(few, 4, partition)
        image = plots.label_map(federation).axes[0].images[0]
        assert image.get_clim() == (0, 5 * federation.label_counts().sum() / (4 * 10))
    even = plots.label_map(split(few, 4, "iid")).axes[0].images[0]
    assert even.get_array().max() < 0.6 * even.get_clim()[1]


def test_label_map_shows_the_data(federation):
    counts = plots.label_map(federation).axes[0].images[0].get_array()
    assert np.array_equal(counts, federation.label_counts().T)


def test_travel_table_has_a_column_for_every_part_and_blanks():
    where = {"A": {"extractor": "travels", "classifier": "travels", "anchors": "stays"}, "B": {"extractor": "stays"}}
    (ax,) = plots.travel_table(where).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["extractor", "classifier", "anchors"]
    assert [t.get_text() for t in ax.texts] == ["travels", "travels", "stays", "stays", "", ""]


def cell_rows(dataset, accuracies):
    """Rows of a cell: method -> its accuracies, seed by seed."""
    rows = []
    for method, of_seeds in accuracies.items():
        for seed, accuracy in enumerate(of_seeds):
            rows.append({"method": method, "seed": seed, "personal": accuracy, "dataset": dataset, "partition": "iid"})
    return rows


def test_leads_are_points_above_each_cells_best_rival():
    rows = cell_rows("x", {"fedavg": (0.5, 0.5), "fedrep": (0.8, 0.9), "ditto": (0.7, 0.8), "fedecouple": (0.9, 0.94)})
    both = {"fedavg": (0.9, 0.9), "fedrep": (0.8, 0.8), "fedecouple": (0.8, 0.9), "fedecouple_joint": (0.9, 0.92)}
    rows = pd.DataFrame(rows + cell_rows("y", both))
    fig = plots.leads(rows, ("fedecouple", "fedecouple_joint"))
    (ax,) = fig.axes
    grey = [line for line in ax.lines if line.get_color() == "#7F7F7F"]
    points = [sorted(line.get_xdata()) for line in grey if line.get_marker() == "o"]
    assert points[0] == pytest.approx([-10, 0]) and points[1] == pytest.approx([-10, 0])
    (arrow,) = [line for line in grey if line.get_marker() == "<"]  # FedAvg, 35 points behind
    assert list(np.ravel(arrow.get_xdata())) == [-12] and ax.texts[0].get_text() == "1"
    ours = [float(line.get_xdata()[0]) for line in ax.lines if line.get_label() == "fedecouple"]
    assert ours == pytest.approx([7, -5])
    (joint,) = [line for line in ax.lines if line.get_label() == "fedecouple_joint"]  # it is in the second cell alone
    assert joint.get_xdata()[0] == pytest.approx(1)
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_color() == plots.COLOURS[0]]
    lead = margins(rows[rows["dataset"] == "x"]).iloc[0]
    assert bars[0].get_xdata()[1] == pytest.approx(lead["high"]) and bars[0].get_xdata()[0] == -12  # low is -31
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["fedecouple", "fedecouple_joint"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x, iid", "y, iid"]


def test_rank_dots_have_the_band_of_those_that_are_not_told_from_the_best():
    rows = cell_rows("x", {"fedrep": (0.9,), "ditto": (0.8,), "fedecouple": (0.7,)})
    ranks = mean_ranks(pd.DataFrame(rows + cell_rows("y", {"fedrep": (0.9,), "ditto": (0.6,), "fedecouple": (0.7,)})))
    (ax,) = plots.rank_dots(ranks).axes
    assert [float(line.get_xdata()[0]) for line in ax.lines] == [1, 2.5, 2.5]
    (band,) = ax.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((1, ranks.critical))
    coloured = [line for line in ax.lines if line.get_color() == plots.COLOURS[0]]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert len(coloured) == 1 and names[-int(coloured[0].get_ydata()[0])] == "fedecouple"


def test_curves_against_costs_have_a_marker_where_a_method_first_reaches_the_target():
    costs = {"steps": 10, "predict_steps": 5, "upload_bytes": 2e6, "download_bytes": 0}
    runs = [result("A", 0, [0.2, 0.75, 0.8]), result("B", 0, [0.1, 0.1, 0.1])]
    for run in runs:
        for record in run["records"]:
            record.update(costs)
    fig = plots.against_costs(costs_so_far(runs), share=1.0)
    left, right = fig.axes
    target, line, reached, of_b, nowhere = left.lines
    assert target.get_ydata()[0] == pytest.approx(100 * (0.2 + 0.75 + 0.8) / 3)  # the best method's last rounds
    assert list(line.get_xdata()) == [15, 25, 35] and line.get_ydata() == pytest.approx([20, 75, 80])
    assert (list(reached.get_xdata()), list(reached.get_ydata())) == ([25], [75])
    assert list(of_b.get_ydata()) == pytest.approx([10] * 3) and len(nowhere.get_xdata()) == 0
    assert list(right.lines[1].get_xdata()) == [2, 4, 6]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["A", "B"]


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


# --- Every line, bar, star and printed number is paired with its data and its name ---


def of_colour(things, colour):
    """Those drawn in this colour."""
    return [thing for thing in things if to_hex(colour_of(thing)) == colour.lower()]


def colour_of(thing):
    if hasattr(thing, "get_facecolor"):
        colour = thing.get_facecolor()
        return colour[0] if np.ndim(colour) == 2 else colour
    return thing.get_color()


THREE = [
    result("A", 0, [0.2, 0.4, 0.1]),
    result("B", 0, [0.5, 0.6, 0.9]),
    result("C", 0, [0.7, 0.1, 0.5]),
    result("A", 1, [0.4, 0.8, 0.3]),
    result("B", 1, [0.5, 0.8, 0.7]),
    result("C", 1, [0.9, 0.1, 0.5]),
]
MEANS = {"A": [30, 60, 20], "B": [50, 70, 80], "C": [80, 10, 50]}
SPREADS = {"A": [14.142136, 28.284271, 14.142136], "B": [0, 14.142136, 14.142136], "C": [14.142136, 0, 0]}


def test_every_curve_has_its_own_name_colour_and_band():
    (ax,) = plots.curves(THREE).axes
    names = {text.get_text(): to_hex(text.get_color()) for text in ax.texts}
    assert list(ax.lines[0].get_xdata()) == [1, 2, 3]
    for label, mean in MEANS.items():
        (line,) = of_colour(ax.lines, names[label])
        assert line.get_ydata() == pytest.approx(mean)
        (band,) = of_colour(ax.collections, names[label])
        corners = band.get_paths()[0].vertices
        for t, (middle, spread) in enumerate(zip(mean, SPREADS[label], strict=True), start=1):
            heights = corners[np.isclose(corners[:, 0], t), 1]
            assert heights.max() == pytest.approx(middle + spread) and heights.min() == pytest.approx(middle - spread)
    ends = [text.get_text() for text in sorted(ax.texts, key=lambda text: -text.xy[1])]
    assert ends == ["B", "C", "A"]  # from the top down, as the lines end


def test_names_of_lines_that_end_together_do_not_overlap():
    together = [result(name, 0, [0.1, 0.5 + i / 1000]) for i, name in enumerate("ABC")]
    (ax,) = plots.curves(together).axes
    heights = sorted(text.xy[1] for text in ax.texts)
    bottom, top = ax.get_ylim()
    assert min(np.diff(heights)) > (top - bottom) / 25


def test_every_small_multiple_shows_its_own_curve_before_the_others():
    fig = plots.multiples(THREE, columns=2)
    assert [ax.get_visible() for ax in fig.axes] == [True, True, True, False]
    for ax, (label, mean) in zip(fig.axes, MEANS.items(), strict=False):
        assert ax.get_title() == f"{label}\n{np.mean(mean):.1f} %"
        (own,) = of_colour(ax.lines, plots.COLOURS[0])
        assert own.get_ydata() == pytest.approx(mean)
        grey = [list(line.get_ydata()) for line in ax.lines if line is not own]
        assert np.allclose(grey, list(MEANS.values()))
    assert fig.get_supylabel() == "personal accuracy, trained (%)" and fig.get_supxlabel() == "round"


def test_a_small_multiple_is_titled_by_what_a_table_says_of_it():
    """The mean of the last five rounds, not the last one, so that panels and table rank alike."""
    early, late = [0.1, 0.2, 0.5, 0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.3, 0.3, 0.3, 0.6]
    of_two = [result("early", 0, early), result("late", 0, late)]
    titles = [ax.get_title() for ax in plots.multiples(of_two).axes]
    rows = table(of_two).set_index("method")["personal"]
    assert titles == [f"{label}\n{100 * rows[label]:.1f} %" for label in ("early", "late")]
    assert titles == ["early\n50.0 %", "late\n36.0 %"]


def test_every_method_of_a_dot_plot_has_its_own_seeds_mean_and_interval():
    values = {"A": (0.1, 0.2, 0.6), "B": (0.5, 0.7, 0.6), "C": (0.4, 0.4, 0.4)}
    rows = [{"method": m, "seed": i, "personal": v} for m, of_m in values.items() for i, v in enumerate(of_m)]
    (ax,) = plots.dots(pd.DataFrame(rows)).axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["A", "C", "B"]  # the best on top
    for i, method in enumerate(("A", "C", "B")):
        percent = 100 * np.array(values[method])
        dots = [line for line in ax.lines if line.get_marker() == "o" and line.get_ydata()[0] == i]
        assert sorted(dots[0].get_xdata()) == pytest.approx(sorted(percent)) and len(dots) == 1
        diamonds = [line for line in ax.lines if line.get_marker() == "D" and line.get_ydata()[0] == i]
        assert diamonds[0].get_xdata() == pytest.approx([percent.mean()])
        low, high = ax.containers[i][2][0].get_segments()[0][:, 0]
        half = 4.302653 * percent.std(ddof=1) / 3**0.5  # t(0.975, 2)
        assert (low, high) == (pytest.approx(percent.mean() - half), pytest.approx(percent.mean() + half))


def test_every_clients_bars_are_its_own_in_every_methods_colour():
    runs = [
        {"label": label, "seed": 3, "records": [{"accuracies": [0, 0, 0]}, {"accuracies": accuracies}]}
        for label, accuracies in (("A", [0.9, 0.3, 0.5]), ("B", [0.2, 0.4, 0.7]))
    ]
    fig = plots.client_bars(runs, seed=3)
    (ax,) = fig.axes
    order = [int(text.get_text()) for text in ax.get_xticklabels()]
    assert order == [1, 2, 0]  # as the first method's rise
    legend = fig.legends[0]
    handles = {text.get_text(): handle for text, handle in zip(legend.texts, legend.legend_handles, strict=True)}
    for run in runs:
        bars = of_colour(ax.patches, to_hex(handles[run["label"]].get_facecolor()))
        for bar in bars:
            client = order[round(bar.get_x() + bar.get_width() / 2)]
            assert bar.get_height() == pytest.approx(100 * run["records"][-1]["accuracies"][client])
        assert len(bars) == 3
    assert ax.get_xlabel() == "client, sorted by A" and ax.get_ylabel() == "personal accuracy, trained (%)"


def test_the_bars_of_progress_are_the_clients_accuracies_in_order(net, federation):
    *_, state = rounds(make("fedavg", epochs=1), net, federation, rounds=2)
    left, middle, right = plots.progress(state, [0.3, 0.2]).axes
    heights = [bar.get_height() for bar in middle.patches]
    assert heights == pytest.approx(sorted(100 * a for a in state.records[-1]["accuracies"]))
    assert list(right.lines[0].get_xdata()) == [1, 2] and right.get_ylabel() == "drift of the extractors"
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert left.lines[labels.index("global accuracy")].get_ydata() == pytest.approx(
        [100 * record["global"] for record in state.records]
    )


def test_the_label_map_names_its_axes_and_says_how_uneven_it_is(federation):
    (ax,) = plots.label_map(federation).axes
    skew = unevenness(federation.label_counts())
    assert ax.get_title() == f"label skew {skew['label_skew']:.2f}, size skew {skew['size_skew']:.2f}"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("client", "class")
    assert [text.get_text() for text in ax.get_yticklabels()] == [str(c) for c in range(10)]


def test_every_word_of_the_travel_table_stands_in_its_methods_row_and_its_parts_column():
    where = {"A": {"extractor": "travels", "anchors": "stays"}, "B": {"extractor": "stays", "classifier": "travels"}}
    (ax,) = plots.travel_table(where).axes
    columns = [text.get_text() for text in ax.get_xticklabels()]
    rows = [text.get_text() for text in ax.get_yticklabels()]
    assert rows == ["A", "B"]
    colours = {"travels": plots.COLOURS[1], "stays": plots.COLOURS[5], "": "#ffffff"}
    for text in ax.texts:
        column, row = text.get_position()
        word = where[rows[row]].get(columns[column], "")
        assert text.get_text() == word
        (cell,) = [box for box in ax.patches if box.get_xy() == (column - 0.5, row - 0.5)]
        assert to_hex(cell.get_facecolor()) == colours[word].lower()


def test_the_bars_and_the_sum_of_distillation_by_hand():
    student = torch.tensor([1.0, -0.5, 2.0, 0.3])
    teacher = torch.tensor([0.2, 1.5, -1.0, 0.9])
    (ax,) = plots.distillation_bars(student, teacher, 1, temperature=2.0, lam=1.5).axes
    softened = {}
    for name, logits in (("teacher (global classifier)", teacher), ("student (personal classifier)", student)):
        powers = np.exp(logits.numpy() / 2)
        softened[name] = powers / powers.sum()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    for i, name in enumerate(labels):
        bars = ax.patches[4 * i : 4 * i + 4]
        assert [bar.get_height() for bar in bars] == pytest.approx(list(softened[name]), abs=1e-6)
        assert {to_hex(bar.get_facecolor()) for bar in bars} == {plots.COLOURS[i].lower()}
    assert set(labels) == set(softened)
    p, q = softened["teacher (global classifier)"], softened["student (personal classifier)"]
    ce = np.log(np.exp(student.numpy()).sum()) - student[1].item()
    weight = np.exp(1.5) / np.exp(teacher.numpy()).sum()
    kl = 4 * (p * np.log(p / q)).sum()
    words = f"ce {ce:.2f} + lam 1.5 x weight {weight:.2f} x T² KL {kl:.2f} = {ce + 1.5 * weight * kl:.2f}"
    assert ax.get_title() == words
    assert ax.get_xlabel() == "class (true: 1)" and ax.get_ylabel() == "probability at T = 2"


def test_every_rate_has_its_own_name_and_bounds_are_dashed():
    curves = {"one": np.array([4.0, 2.0, -1.0]), "two": np.array([3.0, np.nan, 1.0])}
    bounds = {"bound": np.array([9.0, 8.0, 7.0])}
    (ax,) = plots.rates(curves, bounds).axes
    lines = {line.get_label(): line for line in ax.lines}
    for name, values in (curves | bounds).items():
        drawn = lines[name].get_ydata()
        shown = np.isfinite(values) & (values > 0)
        assert drawn[shown] == pytest.approx(values[shown]) and np.isnan(drawn[~shown]).all()
        assert list(lines[name].get_xdata()) == [1, 2, 3]
        assert lines[name].get_linestyle() == ("--" if name in bounds else "-")
    assert len({line.get_color() for line in ax.lines}) == 3
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_the_context_stands_alone_on_a_linear_axis_with_a_line_at_zero():
    curves = {"measured": np.array([4.0, 2.0, 1.0])}
    bounds = {"bound": np.array([9.0, 8.0, 7.0]), "context": np.array([-3.0, -0.5, 2.0])}
    left, right = plots.rates_and_context(curves, bounds, "context").axes
    of_left = {line.get_label(): line for line in left.lines}
    assert list(of_left) == [*curves, *bounds]
    for name, values in (curves | bounds).items():
        shown = values > 0
        drawn = of_left[name].get_ydata()
        assert drawn[shown] == pytest.approx(values[shown]) and np.isnan(drawn[~shown]).all()
    zero, alone = right.lines
    assert list(zero.get_ydata()) == [0, 0]
    assert list(alone.get_ydata()) == [-3.0, -0.5, 2.0] and list(alone.get_xdata()) == [1, 2, 3]
    assert alone.get_color() == of_left["context"].get_color()
    assert (right.get_xscale(), right.get_yscale()) == ("log", "linear")
    assert "linear scale" in right.get_title()


def test_without_a_context_its_half_of_the_picture_is_empty():
    left, right = plots.rates_and_context({"measured": np.array([4.0, 2.0])}, {}, "context").axes
    assert len(left.lines) == 1 and not right.lines and not right.axison


def test_features_and_stars_are_drawn_where_they_are_in_their_classes_colours():
    """Features of two coordinates, which PCA only turns and shifts: distances stay."""
    rng = np.random.default_rng(0)
    labels = np.array([0, 2, 2, 0, 2, 0])
    panels = {"before": rng.normal(size=(6, 2)), "after": rng.normal(size=(6, 2))}
    anchors, anchor_labels = rng.normal(size=(2, 2)), np.array([0, 2])
    fig = plots.around_anchors(panels, labels, anchors, anchor_labels, ["zero", "one", "two"], "words")
    assert [ax.get_title() for ax in fig.axes] == list(panels) and fig.get_supxlabel() == "words"
    for ax, points in zip(fig.axes, panels.values(), strict=True):
        drawn = {}
        for c in (0, 2):
            (cloud, star) = of_colour(ax.collections, plots.COLOURS[c])
            assert len(star.get_offsets()) == 1 and len(cloud.get_offsets()) == 3
            drawn[c] = (np.array(cloud.get_offsets()), np.array(star.get_offsets())[0])
        for i, c in enumerate(anchor_labels):
            cloud, star = drawn[c]
            by_hand = np.linalg.norm(points[labels == c] - anchors[i], axis=1)
            assert np.linalg.norm(cloud - star, axis=1) == pytest.approx(by_hand)
        named = {text.get_text(): np.array(text.xy) for text in ax.texts}
        assert named.keys() == {"zero", "two"}
        assert named["two"] == pytest.approx(drawn[2][1]) and named["zero"] == pytest.approx(drawn[0][1])


def test_a_feature_map_pairs_titles_scores_colours_and_markers_with_its_spaces(spaces):
    fig = plots.feature_map(spaces, "pca", by=("class", "client"))
    by_class, by_client = fig.axes[:3], fig.axes[3:]
    for ax, other, (title, space) in zip(by_class, by_client, spaces.items(), strict=True):
        scores = space_scores(space)
        figures = f"kNN {100 * scores['knn']:.0f} %, client spread {scores['spread']:.2f}"
        assert ax.get_title() == other.get_title() == f"{title}\nsilhouette {scores['silhouette']:.2f}, {figures}"
        for c in np.unique(space["labels"]):
            clouds = of_colour(ax.collections, plots.COLOURS[c])
            images = [cloud for cloud in clouds if cloud.get_sizes()[0] == IMAGE]
            stars = [cloud for cloud in clouds if cloud.get_sizes()[0] != IMAGE]
            assert sum(len(cloud.get_offsets()) for cloud in images) == (space["labels"] == c).sum()
            assert sum(len(cloud.get_offsets()) for cloud in stars) == (space["anchor_labels"] == c).sum()
            assert len(images) == len(np.unique(space["clients"][space["labels"] == c]))  # a marker for each client
        assert {text.get_text() for text in ax.texts} == {str(c) for c in np.unique(space["labels"])}
        for k in np.unique(space["clients"]):
            clouds = of_colour(other.collections, plots.COLOURS[k])
            assert sum(len(cloud.get_offsets()) for cloud in clouds) == (space["clients"] == k).sum()
            assert len(clouds) == len(np.unique(space["labels"][space["clients"] == k]))  # a marker for each class
    assert by_class[0].get_ylabel() == "colour: class, marker: client, stars: clients' anchors"
    assert by_client[0].get_ylabel() == "colour: client, marker: class"
    assert fig.get_supxlabel() == "PCA of features, one embedding for all panels"
