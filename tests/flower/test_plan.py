"""Flower's run configuration is the command line's words, and is refused in the same words."""

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from fedecouple_lite import METHODS, make
from fedecouple_lite.faults import Broken, DropBefore
from fedecouple_lite.flower.plan import all_hypers, as_key, config_of, defaults, plan_of
from fedecouple_lite.hyper import hypers
from fedecouple_lite.security.defences import CoordinateMedian, TrimmedMean
from fedecouple_lite.studies.experiment import Setting

PYPROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
FLOWER = PYPROJECT["tool"]["flwr"]["app"]


def test_pyproject_names_all_with_their_defaults():
    assert FLOWER["config"] == defaults()


def test_every_flag_and_hyper_parameter_is_there():
    for field in fields(Setting):
        assert as_key(field.name) in defaults()
    for method in METHODS.values():
        for name in hypers(method):
            assert as_key(name) in defaults()
    assert len(defaults()) == len({*defaults()})
    assert not {as_key(name) for name in all_hypers()} & {as_key(field.name) for field in fields(Setting)}


def test_nothing_given_is_the_command_lines_defaults():
    for config in ({}, FLOWER["config"]):
        plan = plan_of(config)
        assert plan.setting == Setting()
        assert plan.methods == {"fedecouple": make("fedecouple")}
        assert (plan.seed, plan.faults, plan.defences, plan.min_uploads, plan.resume) == (0, (), (), None, False)


def test_what_is_given_is_taken():
    config = {"dataset": "digits", "alpha": 1, "per-client": 40, "keep-test": False, "participation": 0.5}
    config |= {"method": "fedrep,fedecouple", "lr": 0.05, "mu": "0.5", "classifier-lr": "none", "seed": 7}
    config |= {"faults": 'DropBefore(0.1), Broken([1, 2], how="nan")', "defences": "TrimmedMean(share=0.2)"}
    config |= {"min-uploads": 1, "checkpoint-every": 5, "resume": True, "out": "somewhere", "deadline": 3}
    plan = plan_of(config)
    assert plan.setting == Setting(alpha=1.0, per_client=40, participation=0.5)
    right = make("fedecouple", lr=0.05, mu=0.5, classifier_lr=None)
    assert plan.methods == {"fedrep": make("fedrep", lr=0.05, classifier_lr=None), "fedecouple": right}
    assert plan.faults == (DropBefore(0.1), Broken([1, 2], how="nan"))
    assert plan.defences == (TrimmedMean(share=0.2),)
    assert (plan.min_uploads, plan.checkpoint_every, plan.resume) == (1, 5, True)
    assert (plan.out, plan.deadline, plan.seed) == (Path("somewhere"), 3.0, 7)


def test_a_setting_goes_there_and_back():
    setting = Setting(alpha=0.7, clients=3, net="small_cnn", rounds=2)
    assert plan_of(config_of(setting, {"seed": 2, "method": "ditto"})).setting == setting


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"round": 3}, "round=3 is unknown; did you mean 'rounds'"),
        ({"rounds": "x"}, "rounds='x' must be a whole number"),
        ({"rounds": 1.5}, "rounds=1.5 must be a whole number"),
        ({"rounds": True}, "rounds=True must be a whole number"),
        ({"alpha": "x"}, "alpha='x' must be a number"),
        ({"dataset": 3}, "dataset=3 must be a word"),
        ({"keep-test": 1}, "keep_test=1 must be true or false"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0"),
        ({"deadline": 0}, "deadline=0 must be a number of seconds above 0"),
        ({"wait-for-nodes": -1.0}, "wait_for_nodes=-1.0 must be a number of seconds above 0"),
        ({"checkpoint-every": 0}, "checkpoint_every=0 must be a whole number >= 1"),
        ({"min-uploads": "all"}, "min_uploads='all' must be a whole number"),
        ({"resume": "yes"}, "resume='yes' must be true or false"),
        ({"backend": "vmap"}, "backend='vmap' must be one of auto, loop, threads"),
        ({"method": "fedrap"}, "method='fedrap' is unknown; did you mean 'fedrep'"),
        ({"method": "fedavg,fedrap"}, "method='fedrap' is unknown"),
        ({"method": "fedrep", "mu": 1}, "mu=1 means nothing to method='fedrep'"),
        ({"method": "fedrep,fedavg", "mu": 1}, "mu=1 means nothing to any of method='fedrep,fedavg'"),
        ({"lr": -1}, "lr=-1 of FedeCouple must be a number >= 0"),
        ({"epochs": "many"}, "epochs='many' of method='fedecouple' must be a whole number >= 0"),
        ({"faults": "DropBefore(2)"}, "share=2 must be a number from 0 to 1"),
        ({"faults": "DropBefor(0.1)"}, "faults='DropBefor' is unknown; did you mean 'DropBefore'"),
        ({"faults": "DropBefore(0.1"}, "faults='DropBefore(0.1' must be a list such as"),
        ({"faults": "0.1"}, "faults='0.1' must be a list such as"),
        ({"faults": "DropBefore()"}, "faults: DropBefore does not take these arguments"),
        ({"faults": "CoordinateMedian()"}, "faults='CoordinateMedian' is unknown"),
        ({"defences": "DropBefore(0.1)"}, "defences='DropBefore' is unknown"),
        ({"defences": "TrimmedMean(share=open('x'))"}, "defences: the arguments of TrimmedMean must be numbers"),
        ({"defences": "CoordinateMedian().check"}, "must be a list such as"),
    ],
)
def test_what_cannot_be_is_refused_by_name(config, message):
    with pytest.raises(ValueError) as refused:
        plan_of(config)
    assert message in str(refused.value)


def test_the_words_are_the_command_lines():
    """Of a value that the command line lets through, the library says the same here."""
    for hyper, value in (("lr", "-1"), ("epochs", "1.5"), ("coupling", "none")):
        with pytest.raises(ValueError) as on_flower:
            plan_of({hyper: value})
        with pytest.raises(ValueError) as in_library:
            make("fedecouple", **{hyper: value})
        assert str(on_flower.value) == str(in_library.value)


def test_what_is_written_is_never_run(tmp_path):
    made = tmp_path / "made"
    for text in (f"DropBefore(open({str(made)!r}, 'w'))", f"[open({str(made)!r}, 'w')]", "__import__('os').getcwd()"):
        with pytest.raises(ValueError):
            plan_of({"faults": text})
    assert not made.exists()
    assert plan_of({"defences": "CoordinateMedian()"}).defences == (CoordinateMedian(),)
