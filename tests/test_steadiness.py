"""The three spreads, and the runs that notebook 08 takes them of."""

import numpy as np
import pytest

from fedecouple_lite.course import demonstrations, plots
from fedecouple_lite.studies.steadiness import steadiness


def records(personal, percentile10=0.0):
    return [{"personal": value, "percentile10": percentile10} for value in personal]


def test_the_spreads_are_those_of_the_last_five_rounds():
    first = records([0.0, 0.0, 0.7, 0.9, 0.7, 0.9, 0.8], 0.4)
    second = records([0.0, 0.0, 0.6, 0.6, 0.6, 0.6, 0.6], 0.2)
    mean, over_seeds, over_rounds, percentile10 = steadiness([first, second])
    assert mean == pytest.approx(0.7)
    assert over_seeds == pytest.approx(0.2 / np.sqrt(2))
    assert over_rounds == pytest.approx((0.1 + 0.0) / 2)
    assert percentile10 == pytest.approx(0.3)


def test_one_seed_has_no_spread_over_seeds():
    mean, over_seeds, over_rounds, _ = steadiness([records([0.5, 0.7])])
    assert np.isnan(over_seeds) and mean == pytest.approx(0.6) and over_rounds == pytest.approx(0.2 / np.sqrt(2))


@pytest.mark.parametrize(("runs", "words"), [([], "at least"), ([records([0.5])], "two evaluated rounds")])
def test_what_has_no_spread_is_refused(runs, words):
    with pytest.raises(ValueError, match=f"runs=.*{words}"):
        steadiness(runs)


FEW = {"clients": 4, "per_client": 30, "length": 3, "seeds": 2}


def test_the_runs_have_the_participation_and_the_dropout_that_were_asked_for(digits):
    runs = demonstrations.runs_with_faults(digits, "fedper", participation=0.5, dropout=1.0, **FEW)
    assert [run["seed"] for run in runs] == [0, 1] and {run["label"] for run in runs} == {"fedper"}
    for run in runs:
        assert [record["round"] for record in run["records"]] == [1, 2, 3]
        for record in run["records"]:
            assert len(record["faults"]["away"]) == 2 and record["steps"] == 0  # half of four, and all of these away
    (with_all, _) = demonstrations.runs_with_faults(digits, "fedper", **FEW)
    assert all(record["faults"]["away"] == [] and record["steps"] > 0 for record in with_all["records"])


@pytest.mark.parametrize(
    "bad", [{"participation": 0.0}, {"dropout": 1.5}, {"seeds": 0}, {"length": 0}, {"clients": 0}, {"per_client": 1}]
)
def test_runs_that_cannot_be_are_refused(digits, bad):
    name = {"length": "rounds", "dropout": "share"}.get(*bad)
    with pytest.raises(ValueError, match=name or next(iter(bad))):
        demonstrations.runs_with_faults(digits, "fedper", **{**FEW, **bad})


def test_the_figure_has_a_line_a_seed_and_their_mean_and_the_words_say_the_spreads(digits):
    figure, words = demonstrations.steadiness(digits, "fedavg", 0.5, **FEW)
    (ax,) = figure.axes
    *of_seeds, mean = (line.get_ydata() for line in ax.lines)
    assert len(of_seeds) == 2 and np.allclose(mean, np.mean(of_seeds, axis=0))
    runs = demonstrations.runs_with_faults(digits, "fedavg", 0.5, **FEW)
    expected = steadiness([run["records"] for run in runs])
    assert f"{100 * expected.mean:.1f} % at the end" in words and f"over seeds {100 * expected.over_seeds:.1f}" in words
    with pytest.raises(ValueError, match="at least one run"):
        plots.seeds_apart([])
