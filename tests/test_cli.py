import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import arrays
from typer.testing import CliRunner

from fedecouple_lite.__main__ import app

RUN = ["run", "--method", "fedecouple", "--rounds", "1", "--epochs", "1", "--clients", "4"]


def call(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def test_run_writes_settings_versions_and_every_round(tmp_path):
    out = tmp_path / "deep" / "run.json"
    result = call(*RUN, "--rounds", 2, "--mu", "0.5", "--lam=2", "--coupling", "joint", "--batch-size", 8, "--out", out)
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    assert written["finished"] and [r["round"] for r in written["records"]] == [1, 2]
    assert (written["method"]["mu"], written["method"]["lam"], written["method"]["coupling"]) == (0.5, 2.0, "joint")
    assert written["setting"]["alpha"] == 0.3 and written["versions"]["torch"] and written["seed"] == 0
    assert len(written["records"][0]["accuracies"]) == 4
    assert "personal %" in result.output and str(out) in result.output


def test_the_same_command_writes_the_same_metrics(tmp_path):
    written = []
    for name in ("a", "b"):
        call(*RUN, "--out", tmp_path / name)
        (record,) = json.loads((tmp_path / name).read_text())["records"]
        written.append({k: v for k, v in record.items() if k != "seconds"})
    assert written[0] == written[1]


X, Y = arrays()
BAD = [
    (["--method", "fedcouple"], "method='fedcouple' is unknown; did you mean 'fedecouple'"),
    (["--dataset", "digit"], "dataset='digit' is unknown; did you mean 'digits'"),
    (["--alpha", "0"], "alpha=0.0 must be"),
    (["--alpha", "nan"], "alpha=nan must be"),
    (["--clients", "0"], "clients=0 must be"),
    (["--clients", "100000"], "clients=100000 must be"),
    (["--rounds", "0"], "rounds=0"),
    (["--epochs", "-1"], "epochs=-1 of FedeCouple must be a whole number >= 0"),
    (["--participation", "0"], "participation=0.0 must be"),
    (["--participation", "1.5"], "participation=1.5 must be"),
    (["--lr", "-1"], "lr=-1.0 of FedeCouple must be"),
    (["--lr", "nan"], "lr=nan of FedeCouple must be"),
    (["--warmth", "3"], "warmth='3' means nothing to method='fedecouple'"),
    (["--method", "fedrep", "--mu", "1"], "mu='1' means nothing to method='fedrep'"),
    (["--partition", "iid", "--alpha", "1"], "alpha=1.0 must be known to partition='iid'"),
    (["--partition", "dirichlt"], "partition='dirichlt' is unknown"),
    (["--mu"], "'--mu' is not understood"),
    (["stray", "word"], "'stray' is not understood"),
    (["--device", "cuda:77"], "device='cuda:77' is not available"),
    (["--device", "abacus"], "device='abacus' is not available"),
    (["--backend", "warp"], "backend='warp' is unknown"),
    (["--net", "cnn99"], "net='cnn99' is unknown"),
    (["--net", "cnn28"], "cannot take images of shape (1, 8, 8)"),
    (["--seed", "-1"], "seed=-1 must be"),
    (["--evaluate-on", "tset"], "evaluate_on='tset' must be test or validation"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(w) for w, _ in BAD])
def test_bad_input_is_one_clear_message_and_exit_code_2_with_nothing_written(tmp_path, words, message):
    result = call(*RUN, *words, "--out", tmp_path / "x.json")
    assert result.exit_code == 2, result.output
    assert message in result.stderr and "Traceback" not in result.output
    assert result.stderr.count("Error:") == 1
    assert list(tmp_path.iterdir()) == []


def test_bad_images_are_one_clear_message(tmp_path):
    np.savez(
        tmp_path / "big.npz",
        x_train=np.zeros((8, 64, 64), np.uint8),
        y_train=np.arange(8),
        x_test=np.zeros((0, 64, 64), np.uint8),
        y_test=np.arange(0),
    )
    result = call(*RUN, "--dataset", tmp_path / "big.npz", "--partition", "iid", "--out", tmp_path / "x.json")
    assert result.exit_code == 2 and "image size 64x64 fits no built-in net" in result.stderr
    np.savez(
        tmp_path / "nan.npz", x_train=np.full((30, 8, 8), np.nan), y_train=Y, x_test=X[:0].astype(float), y_test=Y[:0]
    )
    result = call(*RUN, "--dataset", tmp_path / "nan.npz", "--out", tmp_path / "x.json")
    assert result.exit_code == 2 and "without NaN" in result.stderr
    assert not (tmp_path / "x.json").exists()


def test_an_output_that_cannot_be_written_is_a_clean_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = call(*RUN, "--out", tmp_path / "file" / "x.json")
    assert result.exit_code == 2 and "Error:" in result.stderr and "Traceback" not in result.output


def test_divergence_is_exit_code_1_and_names_method_client_round(tmp_path):
    result = call(
        *RUN, "--method", "fedavg", "--lr", "1e30", "--epochs", 3, "--batch-size", 8, "--out", tmp_path / "x.json"
    )
    assert result.exit_code == 1 and "FedAvg, client" in result.stderr


def test_compare_prints_a_table_and_runs_nothing_twice(tmp_path):
    words = [
        "compare",
        "--methods",
        "fedavg,fedrep",
        "--seeds",
        2,
        "--rounds",
        1,
        "--epochs",
        1,
        "--clients",
        4,
        "--out",
        tmp_path,
    ]
    first = call(*words)
    assert first.exit_code == 0, first.output
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "table.csv", "curves.png", "dots.png"}
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert len(files) == 4
    assert call(*words).stdout == first.stdout
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    call(*words, "--alpha", 0.5)
    assert len(list((tmp_path / "runs").iterdir())) == 8  # another setting is another file


def test_compare_tunes_equalises_steps_and_gives_a_hyper_parameter_to_those_that_know_it(tmp_path):
    words = [
        "compare",
        "--methods",
        "fedrep,fedecouple",
        "--seeds",
        1,
        "--rounds",
        1,
        "--clients",
        4,
        "--out",
        tmp_path,
    ]
    result = call(*words, "--trials", 2, "--equal-steps", 3, "--mu", 0.5, "--per-client", 60)
    assert result.exit_code == 0, result.output
    runs = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")]
    assert {r["label"]: r["method"]["epochs"] for r in runs} == {"fedrep": 2, "fedecouple": 1}
    assert len(list((tmp_path / "runs" / "tuning").iterdir())) == 4
    for bad, message in (
        (["--wd", "1"], "wd='1' means nothing to any of"),
        (["--methods", "fedrap"], "did you mean 'fedrep'"),
    ):
        result = call(*words, *bad)
        assert result.exit_code == 2 and message in result.stderr


def test_demo_draws_three_figures_and_says_what_is_next(tmp_path):
    result = call("demo", "--seeds", 1, "--rounds", 1, "--embedding", "pca", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert {p.name for p in tmp_path.glob("*.png")} == {"accuracy.png", "clients.png", "features.png"}
    for word in ("FedAvg + fine-tuning", "FedRep", "FedeCouple", "10th percentile of clients", "make lab"):
        assert word in result.output
    again = call("demo", "--seeds", 1, "--rounds", 1, "--embedding", "pca", "--out", tmp_path)
    assert again.exit_code == 0 and "make lab" in again.output


def test_help_lists_the_hyper_parameters_of_each_method():
    text = call("run", "--help").output
    assert "--temperature" in text and "fedecouple" in text and "--classes-per-client" in text


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_within_a_second_and_keeps_the_rounds_finished(tmp_path):
    out = tmp_path / "run.json"
    words = [sys.executable, "-m", "fedecouple_lite", *RUN, "--rounds", "100000", "--epochs", "50", "--out", str(out)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while "1/100000" not in (seen := process.stderr.read(64)):
        assert seen, "the run ended before its first round"
    time.sleep(0.5)
    began = time.perf_counter()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=20)[1]
    took = time.perf_counter() - began
    assert process.returncode == 130 and "rounds finished are kept" in rest and "Traceback" not in rest
    written = json.loads(out.read_text())
    assert written["finished"] is False and written["records"][0]["round"] == 1
    assert took < 5  # a second on an idle machine; the limit only catches waiting for the round to end


def test_importing_the_package_loads_no_heavy_extra():
    heavy = ("umap", "IPython", "pandas", "sklearn", "jupyter", "matplotlib")
    code = f"import fedecouple_lite, sys; print([m for m in sys.modules if m.split('.')[0] in {heavy}])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_real_cifar10(real_images, tmp_path):
    words = ["--dataset", real_images / "cifar10.npz", "--partition", "mixture", "--share", 0.2, "--per-client", 60]
    result = call(*RUN, *words, "--out", tmp_path / "x.json")
    assert result.exit_code == 0, result.output
