"""Tables of runs and of seeds, as computed by hand."""

import numpy as np
import pandas as pd
import pytest

from fedecouple_lite.studies.benchmark import BASELINES
from fedecouple_lite.studies.tables import as_table, as_text, leaderboard, margins, paired_lead, summary, table


def run_of(label, seed, *personal):
    fixed = {"global": None, "steps": 4, "upload_bytes": 1000, "download_bytes": 2000, "accuracies": []}
    records = [{"round": i, "personal": p, "percentile10": p / 2} | fixed for i, p in enumerate(personal)]
    return {"label": label, "seed": seed, "records": records}


RUNS = [run_of("A", 0, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5), run_of("A", 1, 0.5), run_of("B", 0, 0.2), run_of("B", 1, 0.3)]


def test_a_run_is_the_mean_of_its_last_five_rounds_never_its_best():
    assert table(RUNS).query("method == 'A'")["personal"].tolist() == pytest.approx([0.3, 0.5])


def test_summary_has_mean_sample_std_and_the_paired_test_by_hand():
    figures = summary(table(RUNS))
    assert figures.loc["A", ("personal", "mean")] == pytest.approx(0.4)
    assert figures.loc["A", ("personal", "std")] == pytest.approx(0.1 * 2**0.5)
    # differences 0.1 and 0.2: t = 0.15 / (0.0707 / sqrt 2) = 3, one degree of freedom: p = 2 (1/2 - arctan(3) / pi)
    assert figures.loc["A", ("p", "")] == pytest.approx(1 - 2 * np.arctan(3) / np.pi)
    shown = as_table(table(RUNS)).set_index("method")
    assert shown.loc["A", "personal %"] == "40.0 +- 14.1" and shown.loc["A", "global %"] == "-"
    assert shown.loc["B", ["steps", "KB up", "KB down"]].tolist() == ["4", "1", "2"]


def test_one_seed_has_no_spread_and_no_p():
    shown = as_table(table(RUNS[:1] + RUNS[2:3]))
    assert shown["personal %"].tolist() == ["30.0", "20.0"] and shown["p"].tolist() == ["-", "-"]


def test_the_headings_say_what_each_figure_is():
    shown = as_table(table(RUNS))
    accuracies = ["personal %", "10th percentile of clients %", "global %"]
    assert list(shown.columns) == ["method", *accuracies, "p", "steps", "KB up", "KB down"]
    assert shown["10th percentile of clients %"].tolist() == ["20.0 +- 7.1", "12.5 +- 3.5"]
    assert as_text(RUNS) == shown.to_string(index=False)


def test_a_paired_lead_by_hand():
    lead = paired_lead(np.array([0.9, 0.92, 0.94]), np.array([0.88, 0.91, 0.94]))  # leads 2, 1 and 0 hundredths
    half = 4.302653 * 0.01 / np.sqrt(3)  # t(0.975, 2) std / sqrt(n)
    assert lead.mean == pytest.approx(0.01)
    assert (lead.low, lead.high) == (pytest.approx(0.01 - half), pytest.approx(0.01 + half))
    # t = sqrt 3 with two degrees of freedom: p = 1 - t / sqrt(t^2 + 2)
    assert lead.p == pytest.approx(1 - np.sqrt(3 / 5))


def test_a_paired_lead_takes_out_what_both_have_in_common():
    ours, theirs, of_seed = np.array([2.0, 3.0, 1.0]), np.array([1.0, 1.0, 1.0]), np.array([-50.0, 0.0, 30.0])
    assert paired_lead(ours + of_seed, theirs + of_seed) == pytest.approx(paired_lead(ours, theirs))
    other_way = paired_lead(theirs, ours)
    assert other_way.mean == -paired_lead(ours, theirs).mean and other_way.high == -paired_lead(ours, theirs).low


def test_a_paired_lead_of_one_seed_has_no_interval():
    lead = paired_lead(np.array([0.9]), np.array([0.8]))
    assert lead.mean == pytest.approx(0.1) and all(np.isnan(number) for number in lead[1:])


def made_up():
    values = {"fedecouple": (0.9, 0.92, 0.94), "fedavg_ft": (0.88, 0.91, 0.94), "fedper": (0.7, 0.8, 0.9)}
    rows = [
        {"dataset": "d", "partition": "s", "method": m, "seed": i, "personal": v}
        for m, all_seeds in values.items()
        for i, v in enumerate(all_seeds)
    ]
    return pd.DataFrame(rows)


def test_margins_by_hand():
    (lead,) = margins(made_up()).to_dict("records")
    assert lead["rival"] == "fedavg_ft" and lead["points"] == pytest.approx(1) and lead["rank"] == 1
    half = 4.302653 * 1 / np.sqrt(3)  # leads 2, 1, 0: std 1; t(0.975, 2)
    assert (lead["low"], lead["high"]) == (pytest.approx(1 - half), pytest.approx(1 + half))
    assert margins(made_up(), BASELINES)["rival"].item() == "fedper"


def test_margins_need_fedecouple_and_a_rival():
    for rows, rivals in ((made_up().query("method != 'fedecouple'"), None), (made_up(), ["nope"])):
        with pytest.raises(ValueError, match="are needed"):
            margins(rows, rivals)


def test_leaderboard_ranks_by_mean():
    column = leaderboard(made_up())["d, s"]
    assert column["fedecouple"] == "92.0 +- 2.0 (1)" and column["fedper"].endswith("(3)")
