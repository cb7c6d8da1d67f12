"""What holds where nobody says anything: every default, range and value to try, as README and papers state it."""

from dataclasses import fields
from inspect import signature
from math import inf
from pathlib import Path

import pytest
import torch

from fedecouple_lite import METHODS, client, data, engine, hyper, losses, make, metrics, models, partition, phases
from fedecouple_lite.augment import PAD
from fedecouple_lite.client import CHUNK
from fedecouple_lite.course import demonstrations, plots, widgets
from fedecouple_lite.engine import BACKENDS, MAX_STACK
from fedecouple_lite.files import ROOM
from fedecouple_lite.hyper import allowed, check_hypers, hypers
from fedecouple_lite.partition import OPTIONS
from fedecouple_lite.security import inversion, membership, messages, poisoning, privacy
from fedecouple_lite.studies import ablation, convergence, experiment, features, tables
from fedecouple_lite.studies.ablation import PARTS
from fedecouple_lite.studies.benchmark import BASELINES, PARTITION_SETTINGS, PRESETS, SMALLEST_LR
from fedecouple_lite.studies.experiment import SUMMARY_ROUNDS, Setting

# name: (default, lowest, highest, values to try, words to choose from)
OF_ALL = {
    "lr": (0.1, 0, inf, (0.02, 0.05, 0.1, 0.2), ()),
    "epochs": (5, 0, inf, (), ()),
    "batch_size": (32, 1, inf, (), ()),
    "momentum": (0.5, 0, 1, (), ()),
    "weight_decay": (0.0005, 0, inf, (), ()),
}
CLASSIFIER = {
    "classifier_epochs": (1, 0, inf, (1, 5), ()),
    "classifier_lr": (None, 0, inf, (None, 0.05, 0.2), ()),
}
OWN = {
    "fedavg_ft": {
        "fine_tune_epochs": (5, 0, inf, (1, 5, 10), ()),
        "fine_tune_lr": (None, 0, inf, (None, 0.01, 0.03), ()),
    },
    "fedprox": {"mu": (0.01, 0, inf, (0.001, 0.01, 0.1), ())},
    "ditto": {"lam": (1.0, 0, inf, (0.1, 0.3, 1.0), ())},
    "fedrep": CLASSIFIER | {"classifier_epochs": (1, 0, inf, (1, 5, 10), ())},
    "fedbabu": {
        "fine_tune_epochs": (5, 0, inf, (1, 5, 10), ()),
        "fine_tune_lr": (0.01, 0, inf, (0.003, 0.01, 0.03), ()),
    },
    "fedpac": CLASSIFIER | {"lam": (1.0, 0, inf, (0.1, 1.0, 3.0), ())},
    "fedecouple": CLASSIFIER
    | {
        "mu": (1.0, 0, inf, (0.1, 0.3, 1.0), ()),
        "lam": (3.0, 0, inf, (1.0, 3.0), ()),
        "weighting": ("dynamic", 0, inf, (), ("dynamic", "constant")),
        "temperature": (1.0, 0.01, inf, (), ()),
        "global_loss": (1.0, 0, inf, (), ()),
        "coupling": ("alternate", 0, inf, (), ("alternate", "joint", "phases")),
        "aggregation": ("size", 0, inf, (), ("size", "similarity")),
    },
}


@pytest.mark.parametrize("name", METHODS)
def test_hyper_parameters(name):
    found = {}
    for known, field in hypers(METHODS[name]).items():
        about = field.metadata
        found[known] = (field.default, about["low"], about["high"], about["tries"], about["choices"])
    assert found == OF_ALL | OWN.get(name, {})


@pytest.mark.parametrize("name", METHODS)
def test_both_ends_of_a_range_are_allowed_and_nothing_beyond_them(name):
    for known, (default, low, high, _, choices) in (OF_ALL | OWN.get(name, {})).items():
        field = hypers(METHODS[name])[known]
        if choices:
            assert allowed(field) == f"one of {', '.join(choices)}"
            assert all(getattr(make(name, **{known: word}), known) == word for word in choices)
            continue
        step = 1 if isinstance(default, int) else 1e-6
        assert getattr(make(name, **{known: low}), known) == low
        with pytest.raises(ValueError, match=f"{known}=.* must be"):
            make(name, **{known: low - step})
        kind = "a whole number" if isinstance(default, int) else "a number"
        upper = "" if high == inf else f" and <= {high}"
        assert allowed(field) == f"{kind} >= {low}{upper}" + (", or none" if default is None else "")
        if high < inf:
            make(name, **{known: high})
            with pytest.raises(ValueError, match=f"{known}=.* must be"):
                make(name, **{known: high + step})


def test_numbers_too_large_for_a_tensor_are_refused():
    assert make("fedprox", mu=3.4e38).mu == 3.4e38
    for value in (3.5e38, 10**39, inf):
        with pytest.raises(ValueError, match=r"mu=.* of FedProx must be a number >= 0"):
            make("fedprox", mu=value)
    check_hypers(make("fedprox"))


def test_settings():
    assert {field.name: field.default for field in fields(Setting)} == {
        "dataset": "digits",
        "partition": "dirichlet",
        "alpha": None,
        "classes_per_client": None,
        "share": None,
        "sigma": None,
        "min_images": None,
        "clients": 20,
        "test_share": 0.5,
        "per_client": None,
        "keep_test": False,
        "participation": 1.0,
        "evaluate_on": "test",
        "rounds": 15,
        "eval_every": 1,
        "augment": None,
        "net": None,
        "precision": "float32",
        "device": "cpu",
        "backend": "auto",
    }
    assert SUMMARY_ROUNDS == 5


# What functions take where a caller says nothing; methods, settings and presets have tables of their own.
OF_FUNCTIONS = {
    client.LocalData: {"draw_views": None},
    data.from_arrays: {
        "classes": None,
        "w_train": None,
        "w_test": None,
        "x_unseen": None,
        "y_unseen": None,
        "w_unseen": None,
    },
    data.Dataset.to: {"device": "cpu", "dtype": torch.float32},
    engine.start: {"seed": 0},
    engine.rounds: {
        "seed": 0,
        "participation": 1.0,
        "backend": "auto",
        "eval_every": 1,
        "augment": None,
        "state": None,
        "faults": (),
        "min_uploads": None,
        "defences": (),
    },
    hyper.hyper: {"low": 0, "high": inf, "choices": (), "tries": ()},
    losses.distillation: {"temperature": 1.0},
    metrics.feature_scores: {"neighbours": 10},
    models.net_for: {"name": None},
    models.DecoupledNet.init: {"dtype": torch.float32, "device": "cpu"},
    partition.split: {
        "clients": 20,
        "partition": "dirichlet",
        "seed": 0,
        "test_share": 0.5,
        "per_client": None,
        "keep_test": False,
    },
    partition.split_unseen: {"seed": 0, "test_share": 0.5, "min_images": 2},
    partition.Federation.label_counts: {"part": "train"},
    partition.Federation.validation: {"share": 0.4},
    phases.Train: {"on_features": False, "lr": None},
    phases.Derive: {"on_features": True},
    ablation.ablate: {
        "dataset": "digits",
        "partition": "dirichlet",
        "parts": ("GLF", "GFA", "GPC"),
        "seeds": range(3),
        "folder": Path("runs/ablation"),
    },
    ablation.variants: {"parts": ("GLF", "GFA", "GPC")},
    ablation.effects: {"figure": "personal"},
    convergence.noise: {"draws": 8, "seed": 0},
    convergence.smoothness: {"steps": 12},
    convergence.bound: {"bias": 0.0, "change": 0.0},
    convergence.fit_rate: {"first": 1},
    convergence.descend: {"replicas": 8, "seed": 0},
    convergence.random_problem: {"skew": None},
    convergence.Problem: {
        "h": 1.0,
        "r": 1.0,
        "c": 2.0,
        "sigma": 0.5,
        "tau": 0.5,
        "mu": 1.0,
        "lam": 0.0,
        "global_loss": 0.0,
    },
    experiment.compare: {"trials": 1, "fixed": (), "budget": None},
    features.feature_space: {"whose": "own", "limit": 1000},
    features.embed: {"how": "umap", "seed": 0},
    tables.margins: {"rivals": None, "ours": "fedecouple"},
    tables.leaderboard: {"figure": "personal"},
    demonstrations.pull_to_anchors: {"client": 0, "mu": 1.0, "steps": 20, "lr": 0.1},
    demonstrations.anchor_pull: {"client": 0, "mu": 1.0, "steps": 20, "lr": 0.1},
    demonstrations.measure_descent: {"step": 1.0, "local_steps": 5, "rounds": 300},
    demonstrations.descent: {"step": 1.0, "local_steps": 5, "rounds": 300},
    demonstrations.runs_with_faults: {
        "participation": 1.0,
        "dropout": 0.0,
        "clients": 10,
        "per_client": 80,
        "length": 12,
        "seeds": 3,
    },
    demonstrations.steadiness: {"participation": 1.0, "dropout": 0.0},
    demonstrations.runs_under_attack: {
        "attack": "sign flip",
        "share": 0.2,
        "defence": "none",
        "clients": 10,
        "per_client": 120,
        "length": 8,
        "seeds": 2,
    },
    demonstrations.attacked: {"attack": "sign flip", "share": 0.2, "defence": "none"},
    inversion.observe: {"known": None},
    inversion.first_round: {"seed": 0},
    inversion.class_mix_from: {"guesses": 64, "seed": 0},
    inversion.invert: {
        "loss": "layers",
        "tv": 0.001,
        "input_match": 0.3,
        "iterations": 300,
        "step": 0.4,
        "restarts": 2,
        "seed": 0,
    },
    inversion.invert_prototypes: {"tv": 0.03, "iterations": 300, "step": 0.4, "restarts": 4, "seed": 0},
    membership.attack: {"references": (), "spread": "common"},
    membership.likelihood_ratio: {"spread": "common"},
    membership.tpr_at: {"fpr": 0.01},
    messages.look: {"client": 0, "rounds": 2, "seed": 0},
    messages.leaks: {"private": None},
    poisoning.SignFlip: {"scale": 1.0},
    poisoning.draw_attackers: {"seed": 0},
    poisoning.plant_backdoor: {"share": 0.5, "trigger": None, "seed": 0},
    poisoning.backdoor_success: {"trigger": None, "seed": 0},
    privacy.privacy_spent_to_others: {"colluding": 0, "secret_cohorts": True},
    plots.seeds_apart: {"metric": "personal"},
    plots.curves: {"metric": "personal"},
    plots.multiples: {"metric": "personal", "columns": 4},
    plots.dots: {"metric": "personal"},
    plots.client_bars: {"seed": 0},
    plots.distillation_bars: {"temperature": 1.0, "lam": 3.0},
    plots.feature_map: {"how": "umap", "by": ("class",)},
    plots.feature_frames: {"how": "umap", "by": ("class", "client"), "name": "round"},
    widgets.anchor_pull: {"lr": 0.1},
    widgets.descent: {"seed": 0},
    widgets.TrainingPanel: {"clients": 20},
    widgets.AblationPanel: {"setting": None, "seeds": 2, "folder": Path("runs/ablation"), "maps": "pca"},
}


@pytest.mark.parametrize("function", OF_FUNCTIONS, ids=lambda function: function.__qualname__)
def test_functions(function):
    found = {}
    for name, parameter in signature(function).parameters.items():
        if parameter.default is not parameter.empty and not callable(parameter.default):
            found[name] = parameter.default
    assert found == OF_FUNCTIONS[function]


def test_partitions_options():
    assert OPTIONS == {
        "dirichlet": {"alpha": 0.3},
        "pathological": {"classes_per_client": 2},
        "mixture": {"share": 0.2},
        "quantity": {"sigma": 1.0},
        "iid": {},
        "feature": {},
        "natural": {"min_images": 2},
    }


def test_presets():
    skews = ("Dirichlet 0.1", "Dirichlet 0.5", "s = 20 %")
    found = {}
    for name, preset in PRESETS.items():
        of_setting = {f.name: getattr(preset.setting, f.name) for f in fields(Setting)}
        changed = {key: value for key, value in of_setting.items() if value != getattr(Setting(), key)}
        about = (preset.datasets, preset.partitions, preset.seeds, preset.trials, preset.tuning_rounds)
        found[name] = (*about, changed, preset.common)
        of_medium = (*METHODS, "fedecouple_phases", "fedecouple_joint")
        strongest = ("fedavg_ft", "fedbabu", "fedecouple", *of_medium[-2:])
        rows = {"medium": of_medium, "medium_steps": strongest}
        assert preset.methods == rows.get(name, tuple(METHODS))
        assert preset.budget == (5 if name == "medium_steps" else None)
        of_grey_sets = {"mnist": 20, "fashion_mnist": 20, "emnist": 20}
        other_rounds = {"medium": of_grey_sets, "medium_steps": of_grey_sets | {"cifar10": 20, "cifar100": 20}}
        assert preset.other_rounds == other_rounds.get(name, {})
    sets = ("mnist", "fashion_mnist", "emnist", "cifar10", "cifar100")
    split = {"test_share": 1 / 3, "keep_test": True}
    small = {"rounds": 40, "per_client": 90} | split
    medium = {"rounds": 40, "per_client": 225, "eval_every": 2} | split
    two = (skews[0], skews[2])
    paper = {"rounds": 200, "per_client": 900} | split
    assert found == {
        "laptop": (("digits",), skews, 3, 1, 10, {"rounds": 8}, {}),
        "small": (sets[:2], skews[:1], 3, 3, 10, small, {"epochs": 2, "batch_size": 20}),
        "medium": (sets, two, 3, 4, 12, medium, {"epochs": 2, "batch_size": 20}),
        "medium_steps": (sets, two, 3, 4, 8, medium, {"batch_size": 20}),
        "paper": (sets, skews, 3, 3, 50, paper, {"epochs": 5, "batch_size": 50}),
    }


def test_what_switches_a_part_of_fedecouple_off():
    assert PARTS == {"GLF": {"global_loss": 0.0}, "GFA": {"mu": 0.0}, "GPC": {"lam": 0.0}}


def test_constants_of_the_engine_and_the_studies():
    assert MAX_STACK == {"cpu": 10, "cuda": 128} and BACKENDS == ("auto", "loop", "threads", "vmap")
    assert CHUNK == 1000 and ROOM == 2**20 and SMALLEST_LR == 1e-5 and PAD == 4
    assert PARTITION_SETTINGS == {
        "Dirichlet 0.1": {"partition": "dirichlet", "alpha": 0.1},
        "Dirichlet 0.5": {"partition": "dirichlet", "alpha": 0.5},
        "s = 20 %": {"partition": "mixture", "share": 0.2},
    }
    nine = ("fedavg", "fedprox", "ditto", "fedper", "lg_fedavg", "fedrep", "fedbabu", "fedrod", "fedpac")
    assert nine == BASELINES
