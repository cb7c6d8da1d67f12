"""Ablations: every combination once, cached, effects as computed by hand."""

import shutil
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import copied, last, same
from safetensors.torch import load_file, save_file

from fedecouple_lite import load, make
from fedecouple_lite.engine import rounds
from fedecouple_lite.methods import FedeCouple
from fedecouple_lite.studies import ablation, experiment
from fedecouple_lite.studies.ablation import PARTS, ablate, effects, run_ablation, run_all, tidy, variants
from fedecouple_lite.studies.experiment import Setting

SMALL = {"rounds": 2, "clients": 4, "per_client": 30, "epochs": 1}


def test_eight_combinations_from_none_to_all():
    all_eight = variants(make("fedecouple"))
    assert list(all_eight) == [
        "FedRep (all off)", "GPC", "GFA", "GLF", "GFA + GPC", "GLF + GPC", "GLF + GFA", "GLF + GFA + GPC"
    ]  # fmt: skip
    assert all_eight["GLF + GFA + GPC"] == make("fedecouple")
    assert all_eight["GFA"] == make("fedecouple", global_loss=0.0, lam=0.0)
    assert all_eight["FedRep (all off)"] == make("fedecouple", mu=0.0, lam=0.0, global_loss=0.0)
    only = variants(make("fedecouple", mu=0.3), ["GPC"])
    assert list(only) == ["GLF + GFA", "GLF + GFA + GPC"] and only["GLF + GFA"].mu == 0.3
    with pytest.raises(ValueError, match="parts='anchors' is unknown"):
        variants(make("fedecouple"), ["anchors"])


def test_all_off_is_fedrep_and_each_run_happens_once(tmp_path):
    seen = []
    rows = ablate(seeds=[3], folder=tmp_path, on_round=lambda *of: seen.append(of), **SMALL)
    assert len(rows) == 8 and rows[list(PARTS)].drop_duplicates().shape[0] == 8 and len(seen) == 16
    seen.clear()
    again = ablate(seeds=[3], folder=tmp_path, on_round=lambda *of: seen.append(of), **SMALL)
    pd.testing.assert_frame_equal(rows, again)
    assert len(seen) == 8 and all(state is None for *_, state in seen)  # read back, none trained
    setting = Setting(rounds=2, clients=4, per_client=30)
    run = last(rounds(make("fedrep", epochs=1), setting.build_net(), setting.federation(3), rounds=2, seed=3))
    off = variants(make("fedecouple", epochs=1))["FedRep (all off)"]
    kept = ablation.state_of(setting, off, 3, tmp_path)
    assert same(run.server, {name: kept.server[name] for name in run.server})
    for there, here in zip(kept.clients, run.clients, strict=True):
        assert same(here, {name: there[name] for name in here})
    assert kept.round == 2 and kept.joined == run.joined == {0, 1, 2, 3}
    assert float(rows["personal"][0]) == pytest.approx(sum(record["personal"] for record in run.records) / 2, abs=1e-12)


def test_the_runs_are_the_rows_and_can_be_drawn(tmp_path):
    from fedecouple_lite.course import plots

    runs = run_ablation(parts=["GFA"], seeds=[0, 1], folder=tmp_path, **SMALL)
    rows = ablate(parts=["GFA"], seeds=[0, 1], folder=tmp_path, **SMALL)
    assert [run["label"] for run in runs] == ["GLF + GPC", "GLF + GFA + GPC"] * 2
    pd.testing.assert_frame_equal(tidy(runs), rows)
    assert len(plots.multiples(runs).axes) == 2


def test_a_run_that_is_not_there_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match="run this combination first"):
        ablation.state_of(Setting(), make("fedecouple"), 0, tmp_path)


def test_options_of_neither_setting_nor_method_are_errors(tmp_path):
    with pytest.raises(ValueError, match="lamda=2 is unknown; did you mean 'lam'"):
        ablate(folder=tmp_path, lamda=2)
    assert not list(tmp_path.iterdir())


def factorial(value, seeds=2):
    """Rows with personal accuracy value(seed, glf, gfa, gpc)."""
    switches = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]
    return pd.DataFrame(
        [
            dict(zip(PARTS, on, strict=True)) | {"seed": seed, "personal": value(seed, *on)}
            for on in switches for seed in range(seeds)
        ]
    )  # fmt: skip


def test_effects_by_hand():
    """GLF gives 5 points, and 3 more on seed 1; GFA 2 only together with GPC; GPC costs 1."""
    rows = factorial(lambda s, f, a, p: 0.5 + 0.05 * f + 0.03 * f * s + 0.02 * a * p - 0.01 * p)
    answers = effects(rows)
    shuffled = rows.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(answers, effects(shuffled))
    points = answers.set_index(["part", "question"])["points"]
    assert points["GLF", "on average"] == pytest.approx(6.5) and points["GLF", "alone"] == pytest.approx(6.5)
    spread = answers.set_index(["part", "question"])["std"]
    assert spread["GLF", "on average"] == pytest.approx(3 / 2**0.5)
    assert points["GFA", "alone"] == pytest.approx(0) and points["GFA", "in the whole"] == pytest.approx(2)
    assert points["GFA", "on average"] == pytest.approx(1) and points["GPC", "on average"] == pytest.approx(0)


def test_effects_of_one_part(tmp_path):
    rows = ablate(parts=["GFA"], seeds=[0, 1], folder=tmp_path, **SMALL)
    answers = effects(rows)
    wide = 100 * rows.pivot(index="seed", columns="GFA", values="personal")
    assert answers["points"].tolist() == pytest.approx([(wide[True] - wide[False]).mean()] * 3)


def test_effects_need_every_combination():
    whole = factorial(lambda *on: 0.5)
    with pytest.raises(ValueError, match="every combination"):
        effects(whole.iloc[1:])
    with pytest.raises(ValueError, match="once for every seed"):
        effects(pd.concat([whole, whole.iloc[:1]]))
    with pytest.raises(ValueError, match="some parts"):
        effects(whole.query("GLF and GFA and GPC"))


def test_constant_weighting_is_ordinary_distillation(net, local):
    """With weight 1 the loss is cross-entropy plus lam KL; with trust it is less wherever the teacher doubts."""
    start, other = net.init(0), net.init(1)
    z = net.features(start, local.x)
    dynamic, constant = (
        make("fedecouple", weighting=kind).personal_loss(net, start, other, z, local.y)
        for kind in ("dynamic", "constant")
    )
    assert (dynamic <= constant).all() and not torch.allclose(dynamic, constant)


def test_damaged_or_missing_files_are_made_again(tmp_path):
    rows = ablate(parts=["GFA"], seeds=[0], folder=tmp_path, **SMALL)
    one, two = sorted(tmp_path.glob("*.json"))
    one.write_text("{")
    weights = sorted(tmp_path.glob("*.safetensors"))
    weights[0].unlink()
    pd.testing.assert_frame_equal(
        rows.drop(columns="seconds"), ablate(parts="GFA", seeds=[0], folder=tmp_path, **SMALL).drop(columns="seconds")
    )
    assert sorted(tmp_path.glob("*.safetensors")) == weights and two.exists() and not list(tmp_path.glob("*.part"))


def trained(monkeypatch):
    """Names of what is trained from now on."""
    names = []
    really = experiment.rounds

    def noted(method, *args, **options):
        names.append(type(method).__name__)
        return really(method, *args, **options)

    monkeypatch.setattr(experiment, "rounds", noted)
    return names


def test_an_unchanged_ablation_computes_nothing_numpys_numbers_or_not(tmp_path, monkeypatch):
    rows = ablate(parts=["GFA"], seeds=[0, 1], folder=tmp_path, **SMALL)
    names = trained(monkeypatch)
    pd.testing.assert_frame_equal(rows, ablate(parts=["GFA"], seeds=[0, 1], folder=tmp_path, **SMALL))
    with_numpy = {name: np.int64(value) for name, value in SMALL.items()} | {"mu": np.float64(1), "alpha": None}
    again = ablate(parts=["GFA"], seeds=np.arange(2), folder=str(tmp_path), **with_numpy)
    pd.testing.assert_frame_equal(rows, again)
    assert names == []


def test_an_ablation_of_a_changed_data_file_or_library_is_run_again(tmp_path, monkeypatch):
    digits = load("digits")
    path = tmp_path / "mine.npz"

    def write(start):
        x, y = digits.x[start : start + 200, 0].numpy(), digits.y[start : start + 200].numpy()
        np.savez(path, x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])

    def accuracies(folder="runs"):
        options = {"parts": ["GFA"], "seeds": [0], "folder": tmp_path / folder} | SMALL
        return ablate(str(path), **options)["personal"].tolist()

    write(0)
    first = accuracies()
    write(700)
    assert accuracies() == accuracies("new") != first
    names = trained(monkeypatch)
    monkeypatch.setattr(experiment, "__version__", "99.0")
    accuracies()
    assert len(names) == 2


@dataclass(frozen=True)
class Mine(FedeCouple):
    """A variant of one's own."""

    def omega(self, client, z, y):
        return 2 * super().omega(client, z, y)


def test_the_server_of_an_edited_method_is_its_own(tmp_path, monkeypatch):
    setting = Setting(rounds=1, clients=3, per_client=20)
    method = Mine(epochs=1)
    run_all(setting, {"mine": method}, [0], tmp_path, lambda *of: None)
    before = ablation.state_of(setting, method, 0, tmp_path).server
    monkeypatch.setattr(Mine, "omega", lambda self, client, z, y: 5 * FedeCouple.omega(self, client, z, y))
    with pytest.raises(ValueError, match="run this combination first"):
        ablation.state_of(setting, method, 0, tmp_path)
    run_all(setting, {"mine": method}, [0], tmp_path, lambda *of: None)
    after = ablation.state_of(setting, method, 0, tmp_path).server
    net = setting.build_net()
    state = last(rounds(method, net, setting.federation(0), rounds=1))
    assert same(state.server, after) and not same(before, after)


def test_a_method_that_changes_while_it_runs_keeps_its_server(tmp_path):
    """It is what it was when the run began."""
    calls = []

    @dataclass(frozen=True)
    class Counting(FedeCouple):
        def omega(self, client, z, y):
            calls.append(1)
            return super().omega(client, z, y)

    setting = Setting(rounds=1, clients=3, per_client=20, backend="loop")
    run_all(setting, {"counting": Counting(epochs=1)}, [0], tmp_path, lambda *of: None)
    (result,) = tmp_path.glob("*.json")
    (weights,) = tmp_path.glob("*.safetensors")
    assert calls and result.stem.endswith(f"-{weights.stem}")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def without_a_name(path):
    save_file(copied(load_file(path)), path)


def of_another_run(path):
    (other,) = (each for each in path.parent.glob("*.safetensors") if each != path)
    shutil.copy(other, path)


def whole(state):
    """A state's tensors by the names that they have in its file."""
    tensors = {f"server/{name}": tensor for name, tensor in state.server.items()}
    for k, client in enumerate(state.clients):
        tensors |= {f"clients/{k}/{name}": tensor for name, tensor in client.items()}
    return tensors


SPOILT = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "no name": without_a_name,
    "another's": of_another_run,
}


@pytest.mark.parametrize("how", SPOILT)
def test_weights_that_are_not_this_run_s_own_and_whole_are_made_again(tmp_path, how):
    setting = Setting(rounds=1, clients=3, per_client=20)
    methods = variants(make("fedecouple", epochs=1), ["GFA"])
    run_all(setting, methods, [0], tmp_path, lambda *of: None)
    method = methods["GLF + GPC"]
    path = tmp_path / f"{experiment.digest(setting, method, 0)}.safetensors"
    right = copied(load_file(path))  # the file's own memory is about to go
    SPOILT[how](path)
    with pytest.raises(ValueError, match="is not there, or not whole: run this combination first"):
        ablation.state_of(setting, method, 0, tmp_path)
    seen = []
    run_all(setting, methods, [0], tmp_path, lambda label, seed, state: seen.append((label, state is None)))
    assert seen == [("GLF + GPC", False), ("GLF + GFA + GPC", True)]
    assert same(whole(ablation.state_of(setting, method, 0, tmp_path)), right)


def test_an_ablation_without_test_images_is_refused_before_any_training(tmp_path, monkeypatch):
    names = trained(monkeypatch)
    with pytest.raises(ValueError, match=r"test_share=0 and per_client=30 with clients=4 leave nobody a test image"):
        ablate(folder=tmp_path, test_share=0, **SMALL)
    with pytest.raises(ValueError, match=r"seeds=\[0, -1\] must be whole numbers from 0"):
        ablate(folder=tmp_path, seeds=[0, -1], **SMALL)
    with pytest.raises(ValueError, match="rouns=2 is unknown; did you mean 'rounds'"):
        ablate(folder=tmp_path, rouns=2)
    assert names == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"parts": []}, {"seeds": []}, {"seeds": [0, 0]}])
def test_nothing_to_ablate_is_an_error(wrong, tmp_path):
    with pytest.raises(ValueError, match="must hold at least one each"):
        ablate(folder=tmp_path, **wrong)


def test_a_part_that_is_off_already_cannot_be_switched():
    with pytest.raises(ValueError, match="parts='GFA' is off"):
        variants(make("fedecouple", mu=0.0))
    assert list(variants(make("fedecouple", mu=0.0), ["GLF"])) == ["GPC", "GLF + GPC"]
