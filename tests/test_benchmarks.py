"""The yardsticks measure the same work as the engine; timings themselves are never asserted."""

import importlib
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import same
from torch import nn

from fedecouple_lite import DecoupledNet, client_round, make, rounds


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


def test_the_page_has_both_moments_and_both_kinds_of_steps_of_the_medium_presets():
    import five_datasets

    rows = {"method": ["fedavg_ft", "fedecouple"], "seed": 0, "personal": 0.5, "personal_received": [0.5, 0.25]}
    rows |= {"steps": 320.0, "predict_steps": [800.0, 0.0], "dataset": "mnist", "partition": "iid"}
    shown = five_datasets.received_and_steps("medium", pd.DataFrame(rows)).set_index("`medium`, received")
    assert shown.loc["fedavg_ft"].tolist() == ["320", "800", "50.0 (1)"]
    assert shown.loc["fedecouple"].tolist() == ["320", "0", "25.0 (2)"]


def test_the_same_fine_tuning_changes_what_predicts_and_nothing_that_trains(net, federation):
    """FedAvg with it is FedAvg + fine-tuning; the models of every method after training are those without it."""
    import fine_tuning

    def trained(method):
        *_, state = rounds(method, net, federation, rounds=2)
        return state

    common = {"epochs": 1, "batch_size": 8}
    usual = make("fedavg_ft", fine_tune_epochs=fine_tuning.EPOCHS, fine_tune_lr=fine_tuning.STEP_SIZE, **common)
    of_fedavg = trained(fine_tuning.with_fine_tuning(make("fedavg", **common))).records[-1]
    expected = trained(usual).records[-1]
    assert of_fedavg["accuracies"] == expected["accuracies"]
    assert of_fedavg["predict_steps"] == expected["predict_steps"] > 0
    for name in ("ditto", "fedrod", "fedbabu", "fedecouple"):
        method = make(name, **common)
        plain, tuned = trained(method), trained(fine_tuning.with_fine_tuning(method))
        for one, other in zip(plain.clients, tuned.clients, strict=True):
            assert same(one, other), name
        assert plain.records[-1]["loss"] == tuned.records[-1]["loss"]
        assert tuned.records[-1]["predict_steps"] == expected["predict_steps"], name


def test_rows_on_digits_that_are_measured_alone_keep_the_others_and_say_with_what(tmp_path, monkeypatch, capsys):
    import digits
    import published

    page = tmp_path / "page.md"
    page.write_text("<!-- digits -->\n<!-- /digits -->\n")
    for name in ("digits.csv", "digits.json"):
        (tmp_path / name).write_bytes((digits.RESULTS / name).read_bytes())
    before = pd.read_csv(tmp_path / "digits.csv")
    monkeypatch.setattr(digits, "RESULTS", tmp_path)
    monkeypatch.setattr(digits, "PAGE", page)
    monkeypatch.setattr(digits, "where_made", lambda: {"versions": {"torch": "9"}, "hardware": {"cores": 3}})
    measured = before[before["method"] == "FedRep"].sample(frac=1, random_state=0).assign(personal=0.5)
    asked = []
    monkeypatch.setattr(digits, "measure", lambda names: asked.append(names) or measured)
    digits.main(["--rows", "fedrep"])
    assert asked == [["fedrep"]]
    after = pd.read_csv(tmp_path / "digits.csv")
    is_fedrep = before["method"] == "FedRep"
    expected = before.assign(personal=before["personal"].where(~is_fedrep, 0.5))
    pd.testing.assert_frame_equal(after, expected)
    about = json.loads((tmp_path / "digits.json").read_text())
    alone = about["measured alone, in the same setting"]["FedRep"]
    assert alone["command"].endswith("digits.py --rows fedrep") and alone["versions"] == {"torch": "9"}
    assert about["versions"] == json.loads((published.ROOT / "data/results/digits.json").read_text())["versions"]
    assert "| FedRep | 50.0 +- 0.0 |" in page.read_text()
    with pytest.raises(SystemExit) as refused:
        digits.main(["--rows", "fedrap"])
    assert refused.value.code == 2 and "did you mean" in capsys.readouterr().err


def test_operations_of_a_step_are_those_counted_by_hand():
    import speed

    net = DecoupledNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), nn.Linear(4, 10), (1, 8, 8))
    forward = 2 * 7 * (64 * 4 + 4 * 10)  # seven images; a multiplication and an addition are two
    to_weights = forward
    to_features = 2 * 7 * 4 * 10  # nobody asks for the gradient of the images
    assert speed.operations_of_a_step(net, batch_size=7) == forward + to_weights + to_features


def test_a_table_of_speed_that_there_is_not_is_refused():
    import speed

    with pytest.raises(ValueError, match="only='peek' must be of start, step, clients, peak, bare"):
        speed.main(["clients", "peek"], repeats=1)


def test_another_judge_of_trials_is_another_choice_only_where_it_prefers_one_that_ours_does_not():
    import short_trials

    rows = {"row": ["fedrep"] * 2 + ["ditto"] * 2 + ["local"] * 2, "hyperparameters": list("abcdef")}
    rows |= {"last_third": [0.5, 0.6, 0.7, 0.7, 0.4, 0.3], "last_five": [0.6, 0.5, 0.6, 0.7, 0.4, 0.3]}
    assert short_trials.other_choices(pd.DataFrame(rows)) == {"fedrep": "a"}


def test_a_trial_is_of_the_row_whose_hyper_parameters_it_has():
    import five_datasets

    assert five_datasets.row_of("FedRep", {"lr": 0.1}) == "fedrep"
    couplings = [five_datasets.row_of("FedeCouple", {"coupling": c}) for c in ("alternate", "phases", "joint")]
    assert couplings == ["fedecouple", "fedecouple_phases", "fedecouple_joint"]


def test_who_is_first_is_said_with_its_cost_or_that_nobody_gets_there():
    import pages

    took = pd.DataFrame({"steps": [2000.0, 1500.4], "megabytes": [0.17, 3.0]}, index=["fedrep", "ditto"])
    assert pages.in_words(took, "steps", "steps") == "ditto: 1,500 steps"
    assert pages.in_words(took, "megabytes", "MB") == "fedrep: 0.2 MB"
    assert pages.in_words(took[:0], "steps", "steps") == "not reached"
