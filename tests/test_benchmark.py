"""The benchmark: cheapest first, resumable, tables as computed by hand, rows that their own command makes again."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import call

from fedecouple_lite.methods import METHODS, make
from fedecouple_lite.studies.benchmark import (
    FIVE,
    NINE,
    PRESETS,
    Preset,
    cells,
    command,
    leaderboard,
    length,
    margins,
    measure,
)
from fedecouple_lite.studies.experiment import Setting, table

TINY = Preset(
    ("digits",), ("Dirichlet 0.1",), seeds=2, trials=2, tuning_rounds=1, setting=Setting(rounds=2, clients=4),
    common={"epochs": 1}, methods=("fedper", "fedecouple"),
)  # fmt: skip
RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"


def test_the_paper_preset_is_five_sets_times_three_skews_in_the_literatures_setting():
    found = list(cells(PRESETS["paper"]))
    assert len(found) == 15 and [dataset for dataset, *_ in found[::3]] == list(FIVE)
    _, skew, setting = found[2]
    assert (setting.clients, setting.per_client, setting.rounds, setting.partition) == (20, 900, 200, "skew")
    assert skew == "s = 20 %" and setting.share == 0.2 and round(900 * setting.test_share) == 300
    assert set(NINE) < set(METHODS) and len(NINE) == 9 and "fedecouple" not in NINE


def test_rows_are_complete_resumed_and_made_again_by_their_command(tmp_path):
    seen = []
    rows = measure(TINY, tmp_path, lambda label, seed, state: seen.append((label, state)))
    assert rows.groupby(["method", "seed"]).size().eq(1).all() and len(rows) == 4
    assert len(seen) == length(TINY) == 2 * (2 * 1 + 2 * 2)
    seen.clear()
    again = measure(TINY, tmp_path, lambda label, seed, state: seen.append((label, state)))
    pd.testing.assert_frame_equal(rows, again)
    assert all(state is None for _, state in seen)
    row = rows.iloc[-1]
    words = shlex.split(row["command"])[3:]
    result = call(*words, "--out", tmp_path / "again.json")
    assert result.exit_code == 0, result.output
    (made,) = table([json.loads((tmp_path / "again.json").read_text())]).to_dict("records")
    assert made["personal"] == row["personal"] and made["steps"] == row["steps"]


def test_an_interrupted_benchmark_goes_on(tmp_path):
    def interrupt(label, seed, state):
        if label == "fedecouple":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(TINY, tmp_path, interrupt)
    read_back = []
    measure(TINY, tmp_path, lambda label, seed, state: read_back.append(label) if state is None else None)
    assert read_back.count("fedper") == 2 and "tuning fedecouple" in read_back and "fedecouple" not in read_back


def test_a_set_that_cannot_be_had_is_left_out_and_named(tmp_path, monkeypatch):
    told = []
    (tmp_path / "blank.npz").write_bytes(b"")
    both = replace(TINY, datasets=(str(tmp_path / "blank.npz"), "digits"), methods=("fedper", "fedecouple"))
    rows = measure(both, tmp_path / "runs", on_cell=lambda *of: told.append(of))
    assert set(rows["dataset"]) == {"digits"} and "cannot be used" in told[0][2] and told[1][2] == ""
    with pytest.raises(ValueError, match="cannot be used"):
        measure(replace(both, datasets=both.datasets[:1]), tmp_path / "none")


def made_up():
    values = {"fedecouple": (0.9, 0.92, 0.94), "fedavg_ft": (0.88, 0.91, 0.94), "fedper": (0.7, 0.8, 0.9)}
    rows = [
        {"dataset": "d", "skew": "s", "method": m, "seed": i, "personal": v}
        for m, all_seeds in values.items()
        for i, v in enumerate(all_seeds)
    ]
    return pd.DataFrame(rows)


def test_margins_by_hand():
    (found,) = margins(made_up()).to_dict("records")
    assert found["rival"] == "fedavg_ft" and found["points"] == pytest.approx(1) and found["rank"] == 1
    half = 4.302653 * 1 / np.sqrt(3)  # leads 2, 1, 0: std 1; t(0.975, 2)
    assert (found["low"], found["high"]) == (pytest.approx(1 - half), pytest.approx(1 + half))
    assert margins(made_up(), NINE)["rival"].item() == "fedper"


def test_margins_need_fedecouple_and_a_rival():
    for rows, rivals in ((made_up().query("method != 'fedecouple'"), None), (made_up(), ["nope"])):
        with pytest.raises(ValueError, match="are needed"):
            margins(rows, rivals)


def test_leaderboard_ranks_by_mean():
    column = leaderboard(made_up())["d, s"]
    assert column["fedecouple"] == "92.0 +- 2.0 (1)" and column["fedper"].endswith("(3)")


def test_a_command_says_only_what_is_not_default():
    words = command(Setting(alpha=0.1, per_client=90), "fedper", make("fedper", lr=0.02), 3)
    assert words.startswith(
        "python -m fedecouple_lite run --method fedper --seed 3 --alpha 0.1 --per-client 90 --lr 0.02"
    )


def test_a_published_cell_is_made_again(tmp_path):
    rows = pd.read_csv(RESULTS / "benchmark" / "laptop.csv")
    assert set(rows["method"]) == set(METHODS) and set(rows["seed"]) == {0, 1, 2}
    row = rows.query("dataset == 'digits' and skew == 'Dirichlet 0.5' and method == 'fedrep' and seed == 1").iloc[0]
    assert call(*shlex.split(row["command"])[3:], "--out", tmp_path / "a.json").exit_code == 0
    (made,) = table([json.loads((tmp_path / "a.json").read_text())]).to_dict("records")
    assert made["personal"] == pytest.approx(row["personal"], abs=0.01)  # another processor rounds differently
    assert made["steps"] == row["steps"] and made["upload_bytes"] == row["upload_bytes"]


def test_the_command_line_prints_the_table_and_refuses_unknown_names(tmp_path):
    flags = ("--preset", "laptop", "--rounds", 1, "--seeds", 1, "--methods", "fedper,fedecouple", "--out", tmp_path)
    result = call("benchmark", *flags)
    assert result.exit_code == 0 and "FedeCouple minus the best other" in result.output, result.output
    assert len(pd.read_csv(tmp_path / "laptop" / "table.csv")) == 6
    for bad in (
        ("--methods", "fedper,fedprr"),
        ("--datasets", "digits,digitz"),
        ("--preset", "huge"),
        ("--methods", ""),
    ):
        result = call("benchmark", *bad, "--out", tmp_path / "bad")
        assert result.exit_code == 2 and bad[1].split(",")[-1] in result.output and not (tmp_path / "bad").exists()
    twice = call("benchmark", *flags[:6], "--methods", "fedper,fedper", "--out", tmp_path / "twice")
    assert twice.exit_code == 0 and "FedeCouple minus" not in twice.output  # nothing to compare it with
