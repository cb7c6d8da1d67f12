"""Tables of runs and of seeds, as computed by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from fedecouple_lite.studies import tables
from fedecouple_lite.studies.benchmark import BASELINES
from fedecouple_lite.studies.tables import (
    LEGEND,
    as_table,
    as_text,
    chosen,
    costs_so_far,
    first_to_reach,
    leaderboard,
    margins,
    mean_ranks,
    paired_lead,
    stored_file,
    summary,
    table,
)


def run_of(label, seed, *personal, **hypers):
    fixed = {"global": None, "steps": 4, "predict_steps": 3, "upload_bytes": 1000, "download_bytes": 2000}
    records = []
    for i, p in enumerate(personal):
        accuracies = {"personal": p, "percentile10": p / 2, "personal_received": p / 4, "accuracies": [p]}
        records.append({"round": i, "newcomers": 0} | accuracies | fixed)
    return {"label": label, "seed": seed, "records": records, "method": {"name": label.lower()} | hypers}


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
    assert shown.loc["A", "personal %, trained"] == "40.0 +- 14.1" and shown.loc["A", "global %"] == "-"
    assert shown.loc["A", "personal %, received"] == "10.0 +- 3.5"
    assert shown.loc["B", ["steps", "steps to predict", "KB up", "KB down"]].tolist() == ["4", "3", "1", "2"]


def test_one_seed_has_no_spread_and_no_p():
    shown = as_table(table(RUNS[:1] + RUNS[2:3]))
    assert shown["personal %, trained"].tolist() == ["30.0", "20.0"] and shown["p"].tolist() == ["-", "-"]


def test_the_headings_say_what_each_figure_is():
    shown = as_table(table(RUNS))
    accuracies = ["personal %, trained", "personal %, received", "10th percentile of clients %, trained", "global %"]
    assert list(shown.columns) == ["method", *accuracies, "p", "steps", "steps to predict", "KB up", "KB down"]
    assert shown["10th percentile of clients %, trained"].tolist() == ["20.0 +- 7.1", "12.5 +- 3.5"]
    assert as_text(RUNS) == f"{shown.to_string(index=False)}\n{LEGEND}"


def test_the_legend_says_that_the_rival_was_chosen_afterwards_where_there_is_a_p():
    assert "chosen afterwards" in LEGEND
    assert "p:" not in as_text(RUNS[:2]) and "p:" not in as_text([RUNS[0], RUNS[2]])  # one method; one seed


def test_the_hyper_parameters_that_runs_had_are_in_the_text_and_in_the_rows(tmp_path):
    runs = [
        run_of("A", 0, 0.5, lr=0.1, epochs=5, mu=1.0),
        run_of("A", 1, 0.5, lr=0.2, epochs=5, mu=1.0),
        run_of("B", 0, 0.5, lr=0.1, epochs=5, word="so"),
        run_of("B", 1, 0.5, lr=0.1, epochs=5, word="so"),
    ]
    text = as_text(runs)
    assert text.endswith("all methods: epochs 5\nA: lr 0.1 / 0.2, mu 1.0\nB: lr 0.1, word so")
    rows = table(runs)
    rows.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    assert [json.loads(values) for values in read["hyperparameters"]] == [
        {"lr": 0.1, "epochs": 5, "mu": 1.0},
        {"lr": 0.2, "epochs": 5, "mu": 1.0},
        {"lr": 0.1, "epochs": 5, "word": "so"},
        {"lr": 0.1, "epochs": 5, "word": "so"},
    ]
    assert read["predict_steps"].tolist() == [3] * 4 and read["steps"].tolist() == [4] * 4


def test_one_value_that_is_none_is_not_the_same_as_one_that_is_missing():
    rows = table([run_of("A", 0, 0.5, lr=None), run_of("B", 0, 0.5)])
    assert chosen(rows) == ["A: lr None"]


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


def test_other_forms_of_fedecouple_are_no_rivals_and_have_no_rank():
    """A copy of the best row as a form of FedeCouple changes nothing, and may take FedeCouple's place."""
    best = made_up().query("method == 'fedecouple'").assign(method="fedecouple_joint")
    better = best.assign(personal=best["personal"] + 0.01)
    rows = pd.concat([made_up(), better])
    pd.testing.assert_frame_equal(margins(rows), margins(made_up()))
    (lead,) = margins(rows, ours="fedecouple_joint").to_dict("records")
    assert lead["rival"] == "fedavg_ft" and lead["points"] == pytest.approx(2) and lead["rank"] == 1
    with pytest.raises(ValueError, match=r"ours='fedecouple_phases' .* are needed"):
        margins(rows, ours="fedecouple_phases")


def test_leaderboard_ranks_by_mean():
    column = leaderboard(made_up())["d, s"]
    assert column["fedecouple"] == "92.0 +- 2.0 (1)" and column["fedper"].endswith("(3)")
    other_moment = made_up().assign(personal_received=1 - made_up()["personal"])
    received = leaderboard(other_moment, "personal_received")["d, s"]
    assert received["fedecouple"] == "8.0 +- 2.0 (3)" and received["fedper"].endswith("(1)")


def test_the_interval_holds_the_true_lead_nineteen_times_of_twenty():
    """Five seeds that are easy or hard for both; two methods 0.3 apart. And p is below 0.05 as often where they are
    level."""
    rng = np.random.default_rng(0)
    held, called_different = 0, 0
    for _ in range(1500):
        of_seed = 5 * rng.normal(size=5)
        theirs, ours = of_seed + rng.normal(size=5), of_seed + rng.normal(size=5)
        lead = paired_lead(ours + 0.3, theirs)
        held += lead.low <= 0.3 <= lead.high
        called_different += paired_lead(ours, theirs).p < 0.05
    assert held / 1500 == pytest.approx(0.95, abs=0.02)
    assert called_different / 1500 == pytest.approx(0.05, abs=0.02)


def test_p_is_against_the_best_of_the_others_and_the_spread_is_of_each_figure():
    rows = pd.DataFrame(
        {
            "method": ["A"] * 3 + ["B"] * 3 + ["C"] * 3,
            "seed": [0, 1, 2] * 3,
            "personal": [0.5, 0.6, 0.7, 0.8, 0.8, 0.9, 0.1, 0.1, 0.4],
            "global": [0.1, 0.2, 0.3] * 3,
        }
    )
    figures = summary(rows)
    by_seed = rows.pivot(index="seed", columns="method", values="personal")
    for method, rival in (("A", "B"), ("B", "A"), ("C", "B")):
        assert figures.loc[method, ("p", "")] == pytest.approx(paired_lead(by_seed[method], by_seed[rival]).p)
    assert figures.loc["C", ("personal", "mean")] == pytest.approx(0.2)
    assert figures.loc["C", ("personal", "std")] == pytest.approx(0.03**0.5)  # divided by n - 1
    assert figures.loc["C", ("global", "std")] == pytest.approx(0.1)


def test_every_figure_of_a_run_is_the_mean_of_its_last_five_evaluated_rounds():
    records = []
    for t in range(8):
        records.append({"round": 2 * t, "accuracies": [], "loss": t, "personal": t / 10, "seconds": 8.0 - t})
    (row,) = table([{"label": "A", "seed": 4, "records": records}]).to_dict("records")
    assert row == {"method": "A", "seed": 4, "loss": 5, "personal": 0.5, "seconds": 3}


def test_leaderboards_rank_within_each_cell_and_ties_share_a_rank():
    values = {("d", "s"): (0.5, 0.7, 0.7), ("d", "t"): (0.9, 0.2, 0.4)}
    rows = [
        {"dataset": dataset, "partition": partition, "method": method, "seed": 0, "personal": value}
        for (dataset, partition), of_cell in values.items()
        for method, value in zip("ABC", of_cell, strict=True)
    ]
    board = leaderboard(pd.DataFrame(rows))
    assert board["d, s"].to_dict() == {"A": "50.0 (3)", "B": "70.0 (1)", "C": "70.0 (1)"}
    assert board["d, t"].to_dict() == {"A": "90.0 (1)", "B": "20.0 (3)", "C": "40.0 (2)"}


def test_margins_take_each_cells_own_rival_and_rank():
    cells = {
        "s": {"fedecouple": 0.6, "fedrep": 0.7, "fedper": 0.5},
        "t": {"fedecouple": 0.6, "fedrep": 0.2, "fedper": 0.5},
    }
    rows = [
        {
            "dataset": "d",
            "partition": partition,
            "method": method,
            "seed": seed,
            "personal": value * (1 + seed**2 / 100),
        }
        for partition, of_cell in cells.items()
        for method, value in of_cell.items()
        for seed in (0, 1, 2)
    ]
    leads = margins(pd.DataFrame(rows)).set_index("partition")
    assert leads["rival"].to_dict() == {"s": "fedrep", "t": "fedper"}
    assert leads["points"].to_dict() == pytest.approx({"s": -10 * (1 + 5 / 300), "t": 10 * (1 + 5 / 300)})
    assert leads["rank"].to_dict() == {"s": 2, "t": 1}


def test_the_rank_is_among_all_and_the_rival_among_those_asked_for():
    leads = margins(made_up().replace({"fedecouple": "fedavg_ft", "fedavg_ft": "fedecouple"}), BASELINES)
    assert leads["rival"].item() == "fedper" and leads["rank"].item() == 2 and leads["points"].item() > 0


def of_cells(accuracies):
    """Rows from accuracies (cells, methods): methods are A, B, ..."""
    rows = []
    for cell, of_methods in enumerate(accuracies):
        for method, accuracy in zip("ABCDEFGHIJ", of_methods, strict=False):
            for seed, shift in enumerate((-0.01, 0.01)):  # the mean over seeds is what counts
                row = {"dataset": f"set {cell}", "partition": "iid", "method": method, "seed": seed}
                rows.append({**row, "personal": accuracy + shift})
    return pd.DataFrame(rows)


def test_mean_ranks_and_both_tests_by_hand():
    """Friedman's statistic and Nemenyi's critical difference as in Demsar (2006), whose table has q = 2.569 for four
    methods: for 14 sets 1.25."""
    rng = np.random.default_rng(0)
    accuracies = rng.permuted(np.tile([0.5, 0.6, 0.7, 0.8], (14, 1)), axis=1)
    ranks = mean_ranks(of_cells(accuracies))
    places = 1 + (accuracies[:, :, None] < accuracies[:, None, :]).sum(2)  # (14, 4), no two alike
    by_hand = dict(zip("ABCD", places.mean(0), strict=True))
    assert ranks.mean.to_dict() == pytest.approx(by_hand) and ranks.mean.is_monotonic_increasing
    statistic = 12 * 14 / (4 * 5) * ((places.mean(0) ** 2).sum() - 4 * 5**2 / 4)
    assert ranks.p == pytest.approx(chi2.sf(statistic, df=3))
    assert ranks.critical == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=0.001)


def test_equal_accuracies_share_their_rank():
    ranks = mean_ranks(of_cells([[0.9, 0.7, 0.7], [0.9, 0.7, 0.7]]))
    assert ranks.mean.to_dict() == {"A": 1.0, "B": 2.5, "C": 2.5}


def test_ranks_need_two_cells_three_methods_and_every_method_in_every_cell():
    whole = of_cells([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]])
    with pytest.raises(ValueError, match="rows='1 cells of 3 methods' must be at least 2 cells of 3 methods"):
        mean_ranks(whole[whole["dataset"] == "set 0"])
    with pytest.raises(ValueError, match="2 cells of 2 methods"):
        mean_ranks(whole[whole["method"] != "C"])
    with pytest.raises(ValueError, match="rows lack method='B' in set 1, iid"):
        mean_ranks(whole[(whole["method"] != "B") | (whole["dataset"] != "set 1")])


def evaluated(label, seed, accuracies, steps, predict_steps=0, megabytes=1.0):
    """A run that was evaluated in rounds 2, 5, 6, ...: each round has these costs."""
    records = []
    for place, accuracy in enumerate(accuracies):
        costs = {"steps": steps, "predict_steps": predict_steps, "upload_bytes": megabytes * 1e6, "download_bytes": 0}
        rounds = 2 if place == 0 else 4 + place
        records.append({"round": rounds, "personal": accuracy, "personal_received": accuracy / 2} | costs)
    return {"label": label, "seed": seed, "records": records}


def test_costs_so_far_count_every_round_and_the_steps_of_one_prediction():
    runs = [evaluated("A", 0, [0.2, 0.4, 0.6], 10, predict_steps=7), evaluated("A", 1, [0.4, 0.8, 0.6], 10, 7)]
    curves = costs_so_far([*runs, evaluated("B", 0, [0.5], 3, megabytes=0.25)])
    of_a = curves[curves["method"] == "A"]
    assert of_a["round"].tolist() == [2, 5, 6] and of_a["steps"].tolist() == [2 * 10 + 7, 5 * 10 + 7, 6 * 10 + 7]
    assert of_a["personal"].tolist() == pytest.approx([0.3, 0.6, 0.6])
    assert of_a["personal_received"].tolist() == pytest.approx([0.15, 0.3, 0.3])
    assert curves["megabytes"].tolist() == pytest.approx([2, 5, 6, 0.5])


def test_who_reaches_a_share_of_the_best_and_what_it_took():
    slow = evaluated("slow", 0, [0.1, 0.2, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9], 10)
    quick = evaluated("quick", 0, [0.85, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 50)  # its best round is not its end
    reached = first_to_reach(costs_so_far([slow, quick]), share=0.8)
    assert reached.attrs["target"] == pytest.approx(0.8 * 0.9)
    assert reached.loc["slow"].tolist() == [7, 70, 7] and reached.loc["quick"].tolist() == [2, 100, 2]
    assert np.isnan(first_to_reach(costs_so_far([slow, quick]), share=1).loc["quick", "steps"])
    with pytest.raises(ValueError, match="share=0 must be > 0 and <= 1"):
        first_to_reach(costs_so_far([slow]), share=0)


def test_costs_and_curves_that_mean_nothing_are_refused():
    run = evaluated("A", 0, [0.2, 0.4], 10)
    with pytest.raises(ValueError, match=r"results=\[\] must be one run at least"):
        costs_so_far([])
    with pytest.raises(ValueError, match=r"results\['A'\]=\[\] must be a run that has records"):
        costs_so_far([{**run, "records": []}])
    with pytest.raises(ValueError, match=r"results\['A'\]=\[2\] must be evaluated in rounds \[2, 5\]"):
        costs_so_far([run, evaluated("A", 1, [0.2], 10)])
    curves = costs_so_far([run])
    with pytest.raises(ValueError, match="curves='0 rows' must be rows of one cell"):
        first_to_reach(curves[:0])
    with pytest.raises(ValueError, match="a method's round more than once"):
        first_to_reach(pd.concat([curves, curves]))


def test_hyper_parameters_stand_in_the_order_of_the_table():
    values = {"FedRep": 0.1, "Ditto": 0.2, "Local": 0.3}
    rows = pd.DataFrame({"method": list(values), "seed": 0})
    rows["hyperparameters"] = [json.dumps({"lr": lr, "epochs": 5}) for lr in values.values()]
    assert chosen(rows) == ["all methods: epochs 5", "FedRep: lr 0.1", "Ditto: lr 0.2", "Local: lr 0.3"]


def test_a_measured_table_is_found_in_a_checkout_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = Path(__file__).resolve().parents[1] / "data" / "results"
    assert stored_file("digits.csv") == results / "digits.csv"
    assert stored_file("benchmark/small.json") == results / "benchmark" / "small.json"


def test_an_installed_package_has_its_own_tables_and_asks_for_no_other(tmp_path, monkeypatch):
    inside, beside = tmp_path / "package" / "results", tmp_path / "data" / "results"
    for folder in (inside, beside):
        (folder / "speed").mkdir(parents=True)
        (folder / "speed" / "gpu.csv").write_text("seconds\n1\n")
        (folder / f"only_{folder.parent.name}.csv").write_text("seconds\n2\n")
    monkeypatch.setattr(tables.resources, "files", lambda package: tmp_path / "package")
    assert stored_file("speed/gpu.csv") == inside / "speed" / "gpu.csv"
    with pytest.raises(ValueError, match=r"choose from only_package\.csv, speed/gpu\.csv$"):
        stored_file("only_data.csv")


@pytest.mark.parametrize("name", ["digit.csv", "digits", "../results/digits.csv", "demo/features.png", "benchmark", ""])
def test_a_table_that_was_not_stored_is_refused_by_name(name):
    with pytest.raises(ValueError, match=r"is no stored table; .*choose from ablations\.csv, .*digits\.csv, ") as error:
        stored_file(name)
    assert str(error.value).startswith(f"name={name!r} ")


def test_a_table_that_was_mistyped_is_guessed():
    with pytest.raises(ValueError, match=r"name='digit\.csv' is no stored table; did you mean 'digits\.csv'\?"):
        stored_file("digit.csv")
