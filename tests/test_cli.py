import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import arrays, heed_ctrl_c
from typer.testing import CliRunner

from fedecouple_lite.__main__ import app
from fedecouple_lite.checkpoint import checkpoint_path, checkpoints_of, load_state
from fedecouple_lite.methods import make
from fedecouple_lite.studies import experiment
from fedecouple_lite.studies.experiment import Setting

RUN = ["run", "--method", "fedecouple", "--rounds", "1", "--epochs", "1", "--clients", "4"]
COMPARE = ["compare", "--methods", "fedavg,local", "--seeds", "1", "--rounds", "1", "--epochs", "1", "--clients", "4"]
DEMO = ["demo", "--seeds", "1", "--rounds", "1", "--embedding", "pca"]
BENCHMARK = ["benchmark", "--preset", "laptop", "--rounds", "1", "--seeds", "1", "--methods", "local"]


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
    (["--mu", "--keep-test"], "'--mu' is not understood"),
    (["--rouns", "2"], "rouns='2' means nothing to method='fedecouple'; did you mean --rounds?"),
    (["--rouns=2"], "did you mean --rounds?"),
    (["--Batch_Size", "2"], "did you mean --batch-size?"),
    (
        ["--keep-tset"],
        "'--keep-tset' is not understood; a hyper-parameter is given as --name value; did you mean --keep-test?",
    ),
    (["--keep-tset", "--lr", "0.1"], "did you mean --keep-test?"),
    (["--keep-test"], "keep_test=True must be False for data='digits', which has no test part"),
    (["--augment", "flip"], "augment='flip' must be one of crop_flip"),
    (["--augment", "crop_flip"], "augment='crop_flip' must be None for images of shape (1, 8, 8): not in colour"),
    (["--classifier-lr", "-1"], "classifier_lr=-1.0 of FedeCouple must be a number >= 0, or none"),
    (["--classifier-lr", "no"], "classifier_lr='no' of method='fedecouple' must be a number >= 0, or none"),
    (["--device", "meta"], "device='meta' is not available"),
    (["stray", "word"], "'stray' is not understood"),
    (["--device", "cuda:77"], "device='cuda:77' is not available"),
    (["--device", "abacus"], "device='abacus' is not available"),
    (["--backend", "warp"], "backend='warp' is unknown"),
    (["--net", "cnn99"], "net='cnn99' is unknown"),
    (["--net", "cnn28"], "cannot take images of shape (1, 8, 8)"),
    (["--seed", "-1"], "seed=-1 must be"),
    (["--evaluate-on", "tset"], "evaluate_on='tset' must be test or validation"),
    (["--checkpoint-every", "0"], "checkpoint_every=0 must be a whole number >= 1"),
    (["--checkpoint-evry", "2"], "did you mean --checkpoint-every?"),
    (["--resum", "1"], "did you mean --resume?"),
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


# --- Files that cannot be written ---


@pytest.fixture
def nothing_trains(monkeypatch):
    """A run that trains fails."""

    def fail(*args, **options):
        raise AssertionError("trained, before it was clear that the result can be written")

    monkeypatch.setattr(experiment, "rounds", fail)


def is_refused(result, *words):
    """One message with these words, and exit code 2."""
    said = result.exit_code == 2 and all(word in result.stderr for word in words)
    return said and result.stderr.count("Error:") == 1 and "Traceback" not in result.output


@pytest.mark.usefixtures("nothing_trains")
def test_an_output_that_cannot_be_written_is_an_error_before_any_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for out, reason in (
        (tmp_path / "file" / "x.json", "cannot be written"),
        (tmp_path / "folder", "is a folder; it must be the path of a file"),
        (tmp_path / ("x" * 250), "cannot be written"),
        (Path("/proc/x.json"), "cannot be written"),  # nobody may, root neither
        (Path("/proc/deep/x.json"), "cannot be written"),
        (Path("/dev/full"), "is a device"),
        (Path("/dev/null"), "is a device"),
    ):
        assert is_refused(call(*RUN, "--out", out), f"out={str(out)!r} {reason}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "in the way" and list((tmp_path / "folder").iterdir()) == []
    assert Path("/dev/full").is_char_device() and Path("/dev/null").is_char_device()


@pytest.fixture
def full_disk():
    """No file may grow beyond 100 kB."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("nothing_trains", "full_disk")
def test_a_full_disk_is_an_error_before_any_training(tmp_path):
    for words in (RUN, COMPARE, DEMO, BENCHMARK):
        out = tmp_path / words[0]
        assert is_refused(call(*words, "--out", out), f"out='{out}", "cannot be written: [Errno 27] File too large")
        assert [path for path in out.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize(
    ("words", "files"),
    [
        (COMPARE, ("table.csv", "curves.png", "dots.png")),
        (DEMO, ("accuracy.png", "clients.png", "features.png")),
        (BENCHMARK, ("laptop/table.csv",)),
    ],
)
def test_the_other_commands_check_all_their_files_too(tmp_path, words, files):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "deep", Path("/proc/deep")):
        assert is_refused(call(*words, "--out", out), f"out='{out}", "cannot be written")
    for file in files:
        out = tmp_path / Path(file).name
        (out / file).mkdir(parents=True)
        assert is_refused(call(*words, "--out", out), f"out={str(out / file)!r} is a folder")
        assert [path for path in out.rglob("*") if path.is_file()] == []
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_missing_parent_is_made_and_no_part_of_a_file_is_left(tmp_path):
    out = tmp_path / "not" / "there" / "run.json"
    assert call(*RUN, "--out", out).exit_code == 0
    assert list(out.parent.iterdir()) == [out]
    assert call(*COMPARE, "--out", tmp_path / "c" / "d").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "c" / "d").iterdir())
    assert names == ["curves.png", "dots.png", "runs", "table.csv"]
    assert (tmp_path / "c" / "d" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_disk_that_fills_up_while_a_table_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "table.csv").write_text("the old one")

    def full(self, path, **options):
        path.write_text("half a table")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_csv", full)
    result = call(*COMPARE, "--out", tmp_path)
    assert is_refused(result, "No space left on device")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "the old one"


def test_the_default_name_carries_the_hyper_parameters_and_the_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = ([], ["--mu", 0.5], ["--alpha", 1], ["--participation", 0.5], ["--seed", 1], [])
    for words in commands:
        assert call(*RUN, *words).exit_code == 0
    files = [json.loads(path.read_text()) for path in (tmp_path / "runs").iterdir()]
    assert len(files) == len(commands) - 1  # the last is the first
    assert {file["method"]["mu"] for file in files} == {0.5, 1.0}
    assert all(path.name.startswith("fedecouple-digits-dirichlet-") for path in (tmp_path / "runs").iterdir())


def test_the_data_folder_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("FEDECOUPLE_DATA", "~/images")
    (tmp_path / "images").mkdir()
    np.savez(tmp_path / "images" / "mnist.npz", x_train=X, y_train=Y, x_test=X[:0], y_test=Y[:0])
    result = call("fetch", "mnist")
    assert result.exit_code == 0 and f"mnist: 30 images, in {tmp_path / 'images'}" in result.output
    assert call(*RUN, "--dataset", "~/images/mnist.npz", "--out", tmp_path / "x.json").exit_code == 0


# --- Budgets, given values, and what the tables say of them ---


def test_a_given_value_is_fixed_and_the_table_says_what_was_chosen(tmp_path):
    words = ["compare", "--methods", "fedavg,fedrep", "--seeds", 2, "--rounds", 1, "--clients", 3, "--per-client", 20]
    result = call(*words, "--lr", 0.001, "--epochs", 1, "--trials", 3, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    runs = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    assert {run["method"]["lr"] for run in runs} == {0.001} and {run["method"]["epochs"] for run in runs} == {1}
    rows = pd.read_csv(tmp_path / "table.csv")
    chosen = [json.loads(values) for values in rows["hyperparameters"]]
    final = {(run["label"], run["seed"]): run["method"] for run in runs if run["label"] in ("fedavg", "fedrep")}
    for row, values in zip(rows.to_dict("records"), chosen, strict=True):
        assert {"name": final[row["method"], row["seed"]]["name"], **values} == final[row["method"], row["seed"]]
    assert "all methods: lr 0.001, epochs 1, batch_size 32" in result.output
    of_fedrep = [str(values["classifier_epochs"]) for values in chosen if "classifier_epochs" in values]
    assert f"fedrep: classifier_epochs {' / '.join(dict.fromkeys(of_fedrep))}" in result.output
    assert "steps to predict" in result.output and "chosen afterwards" in result.output


def test_equal_steps_hold_after_tuning_and_not_together_with_epochs(tmp_path):
    words = ["compare", "--methods", "fedrep,fedpac,fedecouple", "--seeds", 1, "--rounds", 1, "--clients", 2]
    words += ["--per-client", 16, "--batch-size", 8, "--equal-steps", 11, "--trials", 3, "--out", tmp_path]
    assert call(*words).exit_code == 0
    runs = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    assert len(runs) == 12
    for run in runs:  # 8 training images a client, or fewer for a trial: one batch for each of two clients
        assert run["records"][0]["steps"] <= 11 * 2
    result = call(*words, "--epochs", 3)
    assert is_refused(result, "equal_steps=11 sets the epochs, and so does epochs=3")


# --- Data that cannot be used ---


def test_no_test_images_is_an_error_before_any_training_where_they_are_compared(tmp_path, request):
    result = call(*RUN, "--test-share", 0, "--out", tmp_path / "run.json")
    assert result.exit_code == 0, result.output  # one run alone may do without
    (record,) = json.loads((tmp_path / "run.json").read_text())["records"]
    assert record["personal"] is None and record["loss"] > 0
    request.getfixturevalue("nothing_trains")
    result = call(*COMPARE, "--test-share", 0, "--out", tmp_path / "compare")
    assert is_refused(result, "test_share=0.0 and per_client=None with clients=4 leave nobody a test image")


@pytest.mark.usefixtures("nothing_trains")
def test_damaged_and_unusable_data_is_one_message_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path))
    words = np.array([["cat", "dog"][label % 2] for label in Y])
    np.savez(tmp_path / "words.npz", x_train=X, y_train=words, x_test=X[:0], y_test=words[:0])
    result = call(*COMPARE, "--dataset", tmp_path / "words.npz", "--out", tmp_path / "out")
    assert is_refused(result, "y_train (<U3) must be whole numbers >= 0; give each class a number")
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"")
    for words in (RUN, COMPARE):
        result = call(*words, "--dataset", "fashion_mnist", "--out", tmp_path / "out")
        assert is_refused(result, f"the file '{raw}/train-images-idx3-ubyte' is damaged (0 bytes): delete it and fetch")
    assert is_refused(call("fetch", "fashion_mnist"), "delete it and fetch again")
    assert not (tmp_path / "out").exists()


def test_an_empty_test_part_is_accepted(tmp_path):
    np.savez(tmp_path / "mine.npz", x_train=X, y_train=Y, x_test=np.array([]), y_test=np.array([]))
    words = [*RUN, "--dataset", tmp_path / "mine.npz", "--partition", "iid", "--out", tmp_path / "x.json"]
    assert call(*words).exit_code == 0
    assert is_refused(call(*words, "--keep-test"), "keep_test=True must be False for data='mine'")


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
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_end_a_run_and_keep_the_rounds_finished(tmp_path, sent, code):
    """That a run gives up in the middle of a round is tested where it does: at a client's next step. Where it has
    checkpoints, one of them is of the last whole round."""
    out = tmp_path / "run.json"
    words = ["--rounds", "100000", "--per-client", "80", "--out", str(out)]
    has_checkpoints = sent == signal.SIGTERM
    if has_checkpoints:
        words += ["--checkpoint-every", "90000"]  # never, but for the signal
    command = [sys.executable, "-m", "fedecouple_lite", *RUN, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c) as process:
        try:
            seen = ""
            while not re.search(r"[1-9]\d*/100000", seen):
                more = process.stderr.read(1)
                assert more, f"the run ended before its first round: {seen}"
                seen += more
            process.send_signal(sent)
            rest = process.communicate(timeout=120)[1]
        finally:
            process.kill()  # where it has not ended
    assert process.returncode == code and "what is finished is kept" in rest and "Traceback" not in rest
    written = json.loads(out.read_text())
    assert written["finished"] is False and written["records"][0]["round"] == 1
    assert list(checkpoints_of(out)) == ([written["records"][-1]["round"]] if has_checkpoints else [])
    assert len(list(tmp_path.iterdir())) == 1 + has_checkpoints


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_command_that_is_over_leaves_sigterm_as_it_was(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    call(*RUN, "--out", tmp_path / "x.json")
    assert signal.getsignal(signal.SIGTERM) == before

    def interrupted(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(experiment, "rounds", interrupted)
    assert call(*RUN, "--out", tmp_path / "y.json").exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before and not (tmp_path / "y.json").exists()


# --- Long runs ---

LONG = [*RUN, "--rounds", 6, "--per-client", 40]


def records_of(path):
    """A run's records without what the clock says."""
    records = json.loads(path.read_text())["records"]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


@pytest.fixture
def stopped(monkeypatch):
    """stopped(n, how): a run calls how() when n rounds are done. It is for one call of the command line."""
    really = experiment.rounds

    def stop(n, how):
        def rounds(*args, **options):
            monkeypatch.setattr(experiment, "rounds", really)
            for state in really(*args, **options):
                yield state
                if state.round == n:
                    how()

        monkeypatch.setattr(experiment, "rounds", rounds)

    return stop


def interrupt():
    raise KeyboardInterrupt


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_interrupted_run_is_resumed_and_ends_the_same(tmp_path, stopped):
    out = tmp_path / "run.json"
    assert call(*LONG, "--out", tmp_path / "whole.json").exit_code == 0
    stopped(4, interrupt)
    result = call(*LONG, "--checkpoint-every", 3, "--out", out)
    assert result.exit_code == 130
    assert "what is finished is kept, and the same command with --resume goes on from there." in result.stderr
    assert names_in(tmp_path) == ["run.ckpt-00003.safetensors", "run.ckpt-00004.safetensors", "run.json", "whole.json"]
    resumed = call(*LONG, "--checkpoint-every", 3, "--resume", "--out", out)
    assert resumed.exit_code == 0 and "personal %" in resumed.stdout and resumed.stderr.count("Note") == 0
    assert records_of(out) == records_of(tmp_path / "whole.json")
    assert names_in(tmp_path) == ["run.json", "whole.json"]


def test_a_run_without_checkpoints_does_not_promise_to_go_on(tmp_path, stopped):
    stopped(2, interrupt)
    result = call(*LONG, "--out", tmp_path / "run.json")
    assert result.exit_code == 130 and "--resume" not in result.stderr and "goes on" not in result.stderr
    assert f"what is finished is kept, and is in {tmp_path / 'run.json'}." in result.stderr
    stopped(2, interrupt)
    result = call("compare", *LONG[3:], "--methods", "local", "--seeds", 1, "--out", tmp_path / "c")
    assert result.exit_code == 130 and "and the same command goes on from there." in result.stderr


def test_to_resume_what_is_not_there_begins_anew_and_says_so_and_what_has_finished_is_read(tmp_path, request):
    out = tmp_path / "run.json"
    result = call(*LONG, "--resume", "--out", out)
    assert result.exit_code == 0 and f"There is no checkpoint beside {out}: the run begins anew." in result.stderr
    written = out.read_text()
    request.getfixturevalue("nothing_trains")
    again = call(*LONG, "--resume", "--out", out)
    assert again.exit_code == 0 and "This run has finished already." in again.stderr
    assert again.stdout == result.stdout and out.read_text() == written


def test_a_checkpoint_that_is_not_resumed_is_mentioned(tmp_path, stopped):
    out = tmp_path / "run.json"
    stopped(4, interrupt)
    assert call(*LONG, "--checkpoint-every", 4, "--out", out).exit_code == 130
    left = tmp_path / "run.ckpt-00004.safetensors"
    assert "interrupted" not in call(*LONG, "--out", tmp_path / "other.json").stderr  # it lies beside another run
    result = call(*LONG, "--checkpoint-every", 100, "--out", out)
    assert result.exit_code == 0
    assert f"{left} is left of a run that was interrupted; --resume would go on. This run begins anew." in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--alpha", 0.7], "another setting (alpha None, not 0.7)"),
        (["--rounds", 9], "another setting (rounds 6, not 9)"),
        (["--mu", 0.5], "another hyper-parameter (mu 1.0, not 0.5)"),
        (["--method", "fedrep"], "another method (FedeCouple, not FedRep)"),
        (["--seed", 4], "another seed (0, not 4)"),
    ],
)
def test_a_checkpoint_of_another_run_is_one_message_and_exit_code_2(tmp_path, stopped, request, words, message):
    out = tmp_path / "run.json"
    stopped(2, interrupt)
    assert call(*LONG, "--checkpoint-every", 1, "--out", out).exit_code == 130
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    request.getfixturevalue("nothing_trains")
    assert is_refused(call(*LONG, *words, "--resume", "--out", out), "is of another run: ", message, "Delete it, or")
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_damaged_checkpoint_is_one_line_and_the_one_before_is_taken(tmp_path, stopped):
    out = tmp_path / "run.json"
    assert call(*LONG, "--out", tmp_path / "whole.json").exit_code == 0
    stopped(4, interrupt)
    call(*LONG, "--checkpoint-every", 1, "--out", out)
    newest = checkpoint_path(out, 4)
    newest.write_bytes(newest.read_bytes()[:-1000])
    result = call(*LONG, "--resume", "--out", out)
    assert result.exit_code == 0 and result.stderr.count("Note:") == 1 and "Warning" not in result.stderr
    assert f"Note: {newest} is damaged: it was cut short or altered" in result.stderr
    assert records_of(out) == records_of(tmp_path / "whole.json")


def test_the_bar_of_a_comparison_begins_where_the_run_goes_on(tmp_path, stopped, monkeypatch):
    """Of two methods with six rounds each, the first interrupted after four."""
    counted = []

    class Bar:
        def __init__(self, total):
            self.total = total

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def set_description(self, *args, **options):
            pass

        def update(self, rounds=1):
            counted.append(rounds)

    monkeypatch.setattr("fedecouple_lite.__main__.progress_bar", Bar)
    words = ["compare", *LONG[3:], "--methods", "local,fedavg", "--seeds", 1, "--out", tmp_path]
    stopped(4, interrupt)
    assert call(*words).exit_code == 130
    assert counted == [1, 1, 1, 1]
    counted.clear()
    assert call(*words).exit_code == 0
    assert counted == [4, 1, 1, 1, 1, 1, 1, 1, 1]
    counted.clear()
    assert call(*words).exit_code == 0
    assert counted == [6, 6]


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own, or without one; and a function that lets no more be written there."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    resource = None if mounted else pytest.importorskip("resource", reason="neither mounts nor limits here")

    def fill():
        if mounted:
            with (folder / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(4096))
        else:  # a file beyond the limit is refused as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    before = None if mounted else resource.getrlimit(resource.RLIMIT_FSIZE)
    yield folder, fill, "No space left on device" if mounted else "File too large"
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def make_room(folder):
    """Undo what filled the disk."""
    (folder / "ballast").unlink(missing_ok=True)
    resource = pytest.importorskip("resource")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_disk_that_fills_up_is_one_message_and_leaves_the_earlier_checkpoints(tmp_path, stopped, small_disk):
    folder, fill, reason = small_disk
    out = folder / "run.json"
    assert call(*LONG, "--out", tmp_path / "whole.json").exit_code == 0
    stopped(4, fill)
    assert is_refused(call(*LONG, "--checkpoint-every", 1, "--out", out), reason, str(out.parent))
    make_room(folder)
    assert names_in(folder) == ["run.ckpt-00003.safetensors", "run.ckpt-00004.safetensors"]
    setting = Setting(clients=4, rounds=6, per_client=40)
    depends_on = experiment.dependencies(setting, make("fedecouple", epochs=1), 0)
    for round, path in checkpoints_of(out).items():
        assert load_state(path, depends_on).round == round
    assert call(*LONG, "--resume", "--out", out).exit_code == 0
    assert records_of(out) == records_of(tmp_path / "whole.json") and names_in(folder) == ["run.json"]


def test_a_comparison_on_a_disk_that_fills_up_goes_on_without_checkpoints(small_disk, monkeypatch):
    """Nobody has asked for them; the run's own file finds room later."""
    folder, fill, reason = small_disk
    monkeypatch.setattr("fedecouple_lite.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("fedecouple_lite.checkpoint.SHARE", 1e9)
    words = ["compare", *LONG[3:], "--methods", "local", "--seeds", 1, "--out", folder]
    really = experiment.rounds

    def rounds(*args, **options):
        for state in really(*args, **options):
            if state.round == 3:
                fill()
            if state.round == 6:
                make_room(folder)
            yield state

    monkeypatch.setattr(experiment, "rounds", rounds)
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("Note:") == 1 and "could not be written" in result.stderr and reason in result.stderr
    assert [path.suffix for path in (folder / "runs").iterdir()] == [".json"]


def test_a_folder_that_becomes_read_only_is_one_message_and_leaves_the_earlier_checkpoints(
    tmp_path, stopped, small_disk
):
    """Root may write wherever permissions say otherwise, but not on a file system that is mounted read-only."""
    folder, _, reason = small_disk
    out = folder / "run.json"
    mounted = "No space" in reason

    def allow(writing):
        if mounted:
            how = "rw" if writing else "ro"
            subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)
        else:
            folder.chmod(0o755 if writing else 0o555)

    if not mounted and os.geteuid() == 0:
        pytest.skip("root may write in any folder, and may not mount one here")
    why = "Read-only file system" if mounted else "Permission denied"
    stopped(4, lambda: allow(writing=False))
    result = call(*LONG, "--checkpoint-every", 1, "--out", out)
    assert is_refused(result, why)
    assert names_in(folder) == ["run.ckpt-00003.safetensors", "run.ckpt-00004.safetensors"]
    for words in ([], ["--checkpoint-every", 1], ["--resume"]):
        assert is_refused(call(*LONG, *words, "--out", out), f"out={str(out)!r} cannot be written", why)
    assert names_in(folder) == ["run.ckpt-00003.safetensors", "run.ckpt-00004.safetensors"]
    allow(writing=True)
    assert call(*LONG, "--resume", "--out", out).exit_code == 0
    assert names_in(folder) == ["run.json"] and len(records_of(out)) == 6


def test_a_command_may_run_in_a_thread(tmp_path):
    """Only the main one may say what happens on SIGTERM."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call(*RUN, "--out", tmp_path / "x.json")))
    thread.start()
    thread.join()
    assert results[0].exit_code == 0, results[0].output


def test_importing_the_package_loads_no_heavy_extra():
    heavy = ("umap", "IPython", "pandas", "sklearn", "jupyter", "matplotlib")
    code = f"import fedecouple_lite, sys; print([m for m in sys.modules if m.split('.')[0] in {heavy}])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_real_fashion_mnist_tested_on_its_own_test_part(real_images, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDECOUPLE_DATA", str(real_images))
    words = ["--dataset", "fashion_mnist", "--per-client", 30, "--test-share", 0.5]
    result = call(*RUN, *words, "--keep-test", "--out", tmp_path / "x.json")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["setting"]["keep_test"] is True and written["records"][0]["personal"] > 0.1
    setting = Setting(dataset="fashion_mnist", clients=4, per_client=30, keep_test=True)
    federation = setting.federation(0)
    assert all((index < 60_000).all() and len(index) == 15 for index in federation.train)
    assert all((index >= 60_000).all() and 0 < len(index) <= 15 for index in federation.test)
    assert call(*RUN, *words, "--no-keep-test", "--out", tmp_path / "y.json").exit_code == 0


@pytest.mark.parametrize("words", [["coursework"], ["grade", "somewhere"], ["feedback", "a1_partitions_and_drift"]])
def test_coursework_without_nbgrader_says_what_to_install(words, monkeypatch):
    monkeypatch.setattr("fedecouple_lite.__main__.find_spec", lambda name: None)
    result = call(*words)
    assert result.exit_code == 2
    assert 'nbgrader is not installed: pip install "fedecouple-lite[coursework]"' in result.output


def test_coursework_names_what_is_not_there(tmp_path):
    pytest.importorskip("nbgrader")
    result = call("grade", tmp_path, "--course", tmp_path)
    assert result.exit_code == 2
    assert "holds no nbgrader_config.py" in result.output
    result = call("grade", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "must be a folder of submissions" in result.output
    result = call("coursework", "--assignment", "a1")
    assert result.exit_code == 2
    assert "assignment='a1' is none of this course" in result.output
