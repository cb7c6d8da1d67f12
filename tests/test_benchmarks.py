"""The yardsticks measure the same work as the engine; timings themselves are never asserted."""

import importlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import same

from fedecouple_lite import client_round, make
from fedecouple_lite.studies.benchmark import Preset, measure
from fedecouple_lite.studies.experiment import Setting


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))


@pytest.mark.parametrize(
    ("name", "own"), [("fedavg", {}), ("fedrep", {}), ("fedecouple", {}), ("fedecouple", {"coupling": "joint"})]
)
def test_the_bare_loop_computes_what_the_engine_computes(net, local, name, own):
    import bare

    method, start = make(name, lr=0.05, epochs=2, batch_size=5, **own), net.init(0)
    extractor, classifier = bare.client_round(name, method, net, start, local)
    got = client_round(method, net, start, start, local).client
    there = {f"extractor.{n}": t for n, t in extractor.items()} | {f"classifier.{n}": t for n, t in classifier.items()}
    assert all(torch.allclose(got[n], there[n], atol=1e-5) for n in start)
    assert not same({n: got[n] for n in start}, start)


def test_the_gpu_script_runs_on_a_cpu():
    import gpu

    rows = list(gpu.main("cpu", [3], 12, 1))
    assert [row["net"] for row in rows] == ["cnn28", "cnn32"] and all(row["vmap s"] > 0 for row in rows)


def test_what_is_constant_over_the_number_of_clients_is_constant():
    import scale

    settings = list(scale.settings_of_clients(1000, "cpu"))
    assert [said["clients"] for said, _ in settings] == [10, 30, 100, 1000, 10, 30, 100]
    for said, setting in settings:
        assert (setting.clients, setting.per_client) == (said["clients"], said["images_per_client"])
        in_all = setting.clients * setting.per_client
        assert in_all > 9_900 if said["constant"] == "images in all" else setting.per_client == 50
    assert "FedPAC" in scale.methods_for(100) and "FedPAC" not in scale.methods_for(101)
    assert [setting.net for _, setting in scale.settings_of_nets("cpu")] == ["cnn32", "resnet18"]


def test_a_job_is_run_once_and_read_back(tmp_path):
    import published

    calls = []
    said, method = {"participation": 0.5}, make("fedper")

    def jobs():
        yield said, "FedPer", method, 3, lambda: calls.append(1) or [{"personal": 0.25}]

    rows = [published.rows_of("participation", jobs(), tmp_path / "runs") for _ in range(2)]
    assert calls == [1] and rows[0].equals(rows[1])
    assert rows[0].to_dict("records") == [{"participation": 0.5, "method": "FedPer", "seed": 3, "personal": 0.25}]


@pytest.mark.parametrize("name", ["stability", "security"])
def test_no_two_jobs_are_alike(name):
    benchmark = importlib.import_module(name)
    for part, jobs in benchmark.PARTS.items():
        about = [(*said.items(), label, seed) for said, label, _, seed, _ in jobs()]
        assert len(set(about)) == len(about) > 0, part


TINY = Preset(
    ("digits",), ("Dirichlet 0.5", "s = 20 %"), seeds=1, trials=2, tuning_rounds=1,
    setting=Setting(rounds=2, clients=2, per_client=20), common={"epochs": 1}, methods=("fedper", "fedecouple_joint"),
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A preset of seconds, with its runs in tmp_path; the folder of its runs."""
    import five_datasets
    import side_by_side

    for module in (five_datasets, side_by_side):
        monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
        monkeypatch.setitem(module.PRESETS, "tiny", TINY)
    return tmp_path / "runs" / "benchmark" / "tiny" / "runs"


def test_rows_measured_side_by_side_and_stopped_twice_are_those_measured_in_turn(tiny, tmp_path, capsys):
    import five_datasets
    import side_by_side

    jobs = side_by_side.jobs_of("tiny", None, "cpu")
    assert [job.row for job in jobs] == [*TINY.methods] * 2
    assert side_by_side.run_side_by_side(jobs, processes=2, seconds=0) == []
    with pytest.raises(ValueError, match="has no cell of tiny of which all runs have been made"):
        five_datasets.rows_as_measured("tiny", tiny)
    side_by_side.run_side_by_side(jobs[:2], processes=1, seconds=300)
    (one_cell,) = five_datasets.rows_as_measured("tiny", tiny)["partition"].unique()
    assert one_cell == "Dirichlet 0.5" and "s = 20 %: left out, 0 of 2 runs" in capsys.readouterr().out
    assert sorted(side_by_side.run_side_by_side(jobs, processes=2, seconds=300)) == [0, 1, 2, 3]
    assert "tiny, digits-s=20%, fedecouple_joint" in capsys.readouterr().out

    measured = five_datasets.rows_as_measured("tiny", tiny)
    pd.testing.assert_frame_equal(measured, measure(TINY, tmp_path / "in turn"))
    about = five_datasets.about("tiny", tiny)
    assert about["versions"]["torch"] == torch.__version__ and about["hardware"].endswith("no GPU")
    side_by_side.write_tar(tmp_path / "runs.tar.gz", ["tiny"])
    with tarfile.open(tmp_path / "runs.tar.gz") as tar:
        names = tar.getnames()
    assert len(names) == 4 + 4 * TINY.trials
    assert all(name.startswith("runs/benchmark/tiny/runs/digits-") for name in names)


def test_a_row_that_fails_is_named_and_the_others_are_measured(tiny, tmp_path, capsys):
    import side_by_side

    jobs = side_by_side.jobs_of("tiny", ["digits"], "cpu")[:2]
    jobs[0] = replace(jobs[0], setting=replace(jobs[0].setting, dataset="blank.npz"))
    assert side_by_side.run_side_by_side(jobs, processes=1, seconds=300) == [1]
    assert "fedper, 0.0 s ValueError: dataset='blank.npz' cannot be used" in capsys.readouterr().out


def test_two_runs_for_one_line_and_runs_of_another_setting_are_not_published(tiny, tmp_path):
    import five_datasets

    measure(TINY, tiny)
    measure(replace(TINY, setting=replace(TINY.setting, rounds=1), trials=1), tiny)  # no run of this preset
    assert len(five_datasets.rows_as_measured("tiny", tiny)) == 4
    path = next((tiny / "digits-s=20%").glob("fedper-*.json"))
    run = json.loads(path.read_text())
    path.with_name("fedper-0-0123456789abcdef.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match=r"has two runs of digits, s = 20 %, fedper-0"):
        five_datasets.rows_as_measured("tiny", tiny)


def test_the_page_has_both_moments_and_both_kinds_of_steps_of_the_medium_presets():
    import five_datasets

    rows = {"method": ["fedavg_ft", "fedecouple"], "seed": 0, "personal": 0.5, "personal_received": [0.5, 0.25]}
    rows |= {"steps": 320.0, "predict_steps": [800.0, 0.0], "dataset": "mnist", "partition": "iid"}
    shown = five_datasets.received_and_steps("medium", pd.DataFrame(rows)).set_index("`medium`, received")
    assert shown.loc["fedavg_ft"].tolist() == ["320", "800", "50.0 (1)"]
    assert shown.loc["fedecouple"].tolist() == ["320", "0", "25.0 (2)"]
