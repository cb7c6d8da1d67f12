"""Every field of a setting, every hyper-parameter and every flag: it arrives where it acts, and digests notice it.

What each then does to the numbers is held to by `test_reference`, `test_partition` and `test_augment`.
"""

import shlex
from dataclasses import fields, replace

import numpy as np
import pytest
from helpers import arrays
from test_cli import call

from fedecouple_lite import METHODS, Federation, __main__, load, make, precision, split
from fedecouple_lite.hyper import hypers
from fedecouple_lite.studies import benchmark, experiment
from fedecouple_lite.studies.benchmark import PRESETS, cells, command_line_of
from fedecouple_lite.studies.experiment import Setting, digest, run

# For each field of Setting a value other than its default, and what else it needs to mean something.
OTHER = {
    "dataset": ("mine.npz", {}),
    "partition": ("quantity", {}),
    "alpha": (0.7, {}),
    "classes_per_client": (3, {"partition": "pathological"}),
    "share": (0.4, {"partition": "mixture"}),
    "sigma": (0.6, {"partition": "quantity"}),
    "min_images": (4, {"dataset": "notes.npz", "partition": "natural"}),
    "clients": (7, {}),
    "test_share": (0.25, {}),
    "per_client": (40, {}),
    "keep_test": (True, {"dataset": "mine.npz"}),
    "participation": (0.5, {}),
    "evaluate_on": ("validation", {}),
    "rounds": (3, {}),
    "eval_every": (2, {}),
    "augment": ("crop_flip", {"dataset": "colour.npz"}),
    "net": ("small_cnn", {}),
    "precision": ("bf16", {}),
    "device": ("cpu:0", {}),
    "backend": ("loop", {}),
}
# The same for hyper-parameters; one value serves all methods.
OTHER_HYPERS = {
    "lr": 0.03,
    "epochs": 2,
    "batch_size": 7,
    "momentum": 0.2,
    "weight_decay": 0.01,
    "classifier_epochs": 3,
    "classifier_lr": 0.07,
    "fine_tune_epochs": 2,
    "fine_tune_lr": 0.004,
    "mu": 0.6,
    "lam": 0.8,
    "weighting": "constant",
    "temperature": 2.0,
    "global_loss": 0.5,
    "coupling": "joint",
    "aggregation": "similarity",
}


@pytest.fixture(autouse=True)
def fast_at_bf16(monkeypatch):
    """This processor is, whatever it is: nothing is trained here."""
    monkeypatch.setattr(precision, "share_of_float32s_time", lambda device_type: 0.5)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A working folder with two made-up sets."""
    monkeypatch.chdir(tmp_path)
    x, y = arrays(60)
    np.savez("mine.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    whose = np.repeat(np.arange(15), [3, 5] * 7 + [4])  # those of three images are no clients at min_images=4
    np.savez("notes.npz", x_train=x, y_train=y, x_test=x[:0], y_test=y[:0], w_train=whose)
    colour = np.repeat(x[..., None], 3, axis=3)
    np.savez("colour.npz", x_train=colour, y_train=y, x_test=colour[:0], y_test=y[:0])


def settings_with(name):
    """Two settings that differ in this field alone."""
    value, needs = OTHER[name]
    common = {"clients": 4, **needs}
    return Setting(**common), Setting(**common | {name: value})


def test_the_lists_are_complete():
    assert OTHER.keys() == {field.name for field in fields(Setting)}
    assert OTHER_HYPERS.keys() == {name for method in METHODS.values() for name in hypers(method)}
    for name, (value, _) in OTHER.items():
        assert value != getattr(Setting(), name)
    for name in METHODS:
        for hyper_parameter in hypers(METHODS[name]):
            assert getattr(make(name), hyper_parameter) != OTHER_HYPERS[hyper_parameter]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", OTHER)
def test_the_digest_of_a_run_notices_every_field_of_its_setting(name):
    before, after = settings_with(name)
    assert digest(before, make("fedrep"), 0) != digest(after, make("fedrep"), 0)
    assert digest(after, make("fedrep"), 0) == digest(replace(after), make("fedrep"), 0)


@pytest.mark.parametrize("name", METHODS)
def test_the_digest_of_a_run_notices_every_hyper_parameter_the_method_and_the_seed(name):
    method = make(name)
    others = [replace(method, **{known: OTHER_HYPERS[known]}) for known in hypers(method)]
    digests = [digest(Setting(), one, 0) for one in (method, *others)]
    digests += [digest(Setting(), method, seed) for seed in (1, 2)]
    digests += [digest(Setting(), make(other), 0) for other in METHODS if other != name]
    assert len(set(digests)) == len(digests)


class Called(Exception):
    """Ends a run where it would begin."""


@pytest.fixture
def engine_call(monkeypatch):
    """What `run` hands to the engine: (method, net, federation), and keywords."""
    seen = {}

    def note(*arguments, **keywords):
        seen.update(keywords, method=arguments[0], net=arguments[1], federation=arguments[2])
        raise Called

    monkeypatch.setattr(experiment, "rounds", note)
    return seen


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", OTHER)
def test_every_field_of_a_setting_reaches_the_split_or_the_engine(name, engine_call, monkeypatch, tmp_path):
    _, setting = settings_with(name)
    devices = []
    to = Federation.to
    monkeypatch.setattr(Federation, "to", lambda self, device: devices.append(device) or to(self, device))
    method = make("fedrep")
    with pytest.raises(Called):
        run(setting, method, 5, tmp_path / "x.json", lambda state: None)
    assert engine_call["method"] is method and engine_call["seed"] == 5
    for passed_on in ("rounds", "participation", "backend", "eval_every", "augment"):
        assert engine_call[passed_on] == getattr(setting, passed_on)
    assert engine_call["net"].precision == setting.precision
    by_hand = split(
        load(setting.dataset),
        setting.clients,
        setting.partition,
        5,
        test_share=setting.test_share,
        per_client=setting.per_client,
        keep_test=setting.keep_test,
        **{
            option: getattr(setting, option)
            for option in ("alpha", "classes_per_client", "share", "sigma", "min_images")
            if getattr(setting, option) is not None
        },
    )
    if setting.evaluate_on == "validation":
        by_hand = by_hand.validation()
    assert engine_call["federation"].digest == by_hand.digest
    assert devices == [setting.device]  # a CPU's tensors do not say that it was "cpu:0"


@pytest.mark.parametrize("net", ["small_cnn", "cnn28"])
def test_the_net_is_the_one_that_was_named(net, engine_call, tmp_path):
    x, y = arrays(60, size=28)
    np.savez(tmp_path / "large.npz", x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])
    with pytest.raises(Called):
        run(Setting(dataset=str(tmp_path / "large.npz"), clients=2, net=net), make("local"), 0, tmp_path / "x", print)
    kernel = {"small_cnn": 3, "cnn28": 5}[net]
    assert engine_call["net"].extractor[0].kernel_size == (kernel, kernel)


@pytest.fixture
def run_call(monkeypatch):
    """What `run` of the command line hands on."""
    seen = {}

    def note(setting, method, seed, out, on_round, label, checkpoint_every, resume):
        seen.update(setting=setting, method=method, seed=seed, out=out, label=label)
        seen.update(checkpoint_every=checkpoint_every, resume=resume)
        raise Called

    monkeypatch.setattr(experiment, "run", note)
    return seen


def flags(setting, name, method, seed):
    """The words after "run" of the command line that makes this run."""
    return shlex.split(command_line_of(setting, name, method, seed))[4:]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", OTHER)
def test_every_field_of_a_setting_is_a_flag(name, run_call):
    _, setting = settings_with(name)
    value = getattr(setting, name)
    flag = "--" + name.replace("_", "-")
    words = [flag] if value is True else [flag, value]
    others = []
    for field in fields(Setting):
        given = getattr(setting, field.name)
        if field.name != name and given != field.default:
            others += ["--" + field.name.replace("_", "-"), given]
    call("run", "--method", "fedper", *others, *words, "--seed", 3, "--out", "there.json")
    assert run_call["setting"] == setting
    assert (run_call["method"], run_call["seed"], run_call["label"]) == (make("fedper"), 3, "fedper")
    assert str(run_call["out"]) == "there.json"
    run_call.clear()
    call("run", *flags(setting, "fedper", make("fedper"), 3))
    assert run_call["setting"] == setting


@pytest.mark.parametrize("name", METHODS)
def test_every_hyper_parameter_is_a_flag(name, run_call, tmp_path):
    method = replace(make(name), **{known: OTHER_HYPERS[known] for known in hypers(METHODS[name])})
    words = []
    for known in hypers(method):
        words += ["--" + known.replace("_", "-"), OTHER_HYPERS[known]]
    call("run", "--method", name, *words, "--out", tmp_path / "x.json")
    assert run_call["method"] == method and run_call["setting"] == Setting()


def test_the_options_of_long_runs_reach_the_run(run_call, tmp_path):
    call("run", "--out", tmp_path / "x.json")
    assert (run_call["checkpoint_every"], run_call["resume"]) == (None, False)
    call("run", "--checkpoint-every", 7, "--resume", "--out", tmp_path / "x.json")
    assert (run_call["checkpoint_every"], run_call["resume"]) == (7, True)


def test_the_options_of_compare_reach_the_comparison(monkeypatch, tmp_path):
    seen = {}

    def note(setting, methods, seeds, folder, on_round, trials, fixed, budget):
        seen.update(setting=setting, methods=methods, seeds=list(seeds), folder=folder)
        seen.update(trials=trials, fixed=fixed, budget=budget)
        raise Called

    monkeypatch.setattr(experiment, "compare", note)
    words = ["--methods", "fedrep,local", "--seeds", 2, "--trials", 4, "--equal-steps", 6, "--lr", 0.03]
    call("compare", *words, "--clients", 5, "--out", tmp_path)
    assert seen == {
        "setting": Setting(clients=5),
        "methods": {"fedrep": make("fedrep", lr=0.03), "local": make("local", lr=0.03)},
        "seeds": [0, 1],
        "folder": tmp_path / "runs",
        "trials": 4,
        "fixed": ("lr",),
        "budget": 6,
    }
    seen.clear()
    call("compare", "--out", tmp_path)
    assert seen["methods"] == {name: make(name) for name in METHODS} and seen["seeds"] == [0, 1, 2]
    assert (seen["trials"], seen["fixed"], seen["budget"], seen["setting"]) == (1, (), None, Setting())


def test_the_options_of_the_benchmark_reach_it(monkeypatch, tmp_path):
    seen = []

    def note(preset, folder, on_round, on_cell):
        seen.append((preset, folder))
        raise Called

    monkeypatch.setattr(__main__, "measure", note)
    for name in PRESETS:
        call("benchmark", "--preset", name, "--out", tmp_path)
        assert seen.pop() == (PRESETS[name], tmp_path / name / "runs")
    words = ["--datasets", "mnist,digits,mnist", "--methods", "fedper,local", "--seeds", 2, "--rounds", 4]
    call("benchmark", "--preset", "small", *words, "--device", "cpu:0", "--out", tmp_path)
    (given, _) = seen.pop()
    small = PRESETS["small"]
    changed = replace(small.setting, rounds=4, device="cpu:0")
    assert given == replace(small, datasets=("mnist", "digits"), methods=("fedper", "local"), seeds=2, setting=changed)
    call("benchmark", "--preset", "medium", "--rounds", 4, "--out", tmp_path)
    (given, _) = seen.pop()
    assert {setting.rounds for _, _, setting in cells(given)} == {4}  # of the grey sets, too


def test_the_benchmarks_bar_counts_the_rounds_of_the_data_set_that_is_run(monkeypatch, tmp_path):
    counted = []

    def two_cells(preset, folder, on_round, on_cell):
        for dataset in ("mnist", "cifar10"):
            on_cell(dataset, "s = 20 %", "")
            on_round("local", 0, None)
        raise Called

    def note(preset, dataset, label):
        counted.append((dataset, benchmark.length_of(preset, dataset, label)))
        return counted[-1][1]

    monkeypatch.setattr(__main__, "measure", two_cells)
    monkeypatch.setattr(__main__, "length_of", note)
    call("benchmark", "--preset", "medium", "--out", tmp_path)
    assert counted == [("mnist", 20), ("cifar10", 40)]


def test_the_options_of_the_demo_reach_it(monkeypatch, tmp_path):
    seen = {}

    def note(setting, methods, seeds, folder):
        seen.update(setting=setting, methods=methods, seeds=seeds, folder=folder)
        raise Called

    monkeypatch.setattr(__main__, "compare_and_print", note)
    call("demo", "--seeds", 5, "--rounds", 9, "--embedding", "pca", "--out", tmp_path)
    assert (seen["setting"], seen["seeds"], seen["folder"]) == (Setting(rounds=9), 5, tmp_path / "runs")
    names = {"FedAvg": "fedavg", "FedAvg + fine-tuning": "fedavg_ft", "FedRep": "fedrep", "FedeCouple": "fedecouple"}
    assert seen["methods"] == {label: make(name) for label, name in names.items()}


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("local", lambda e: e),
        ("fedavg", lambda e: e),
        ("fedavg_ft", lambda e: e),
        ("fedprox", lambda e: e),
        ("ditto", lambda e: 2 * e),
        ("fedper", lambda e: e),
        ("lg_fedavg", lambda e: e),
        ("fedrep", lambda e: 3 + e),
        ("fedbabu", lambda e: e),
        ("fedrod", lambda e: e),
        ("fedpac", lambda e: 3 + e),
        ("fedecouple", lambda e: 3 + 2 * e),
    ],
)
def test_equal_steps_are_the_most_epochs_within_the_budget(name, steps):
    """By counting up, with three epochs of the classifier where there is one."""
    method = make(name, **({"classifier_epochs": 3} if "classifier_epochs" in hypers(METHODS[name]) else {}))
    for budget in range(1, 25):
        fitting = [epochs for epochs in range(1, 30) if steps(epochs) <= budget]
        if fitting:
            assert experiment.at_equal_steps(method, budget) == replace(method, epochs=fitting[-1])
        else:
            with pytest.raises(ValueError, match=f"budget={budget} is below one epoch"):
                experiment.at_equal_steps(method, budget)


@pytest.mark.parametrize(("rounds", "judged"), [(6, 2), (8, 2), (15, 5), (40, 5)])
def test_tuning_judges_by_the_last_five_rounds_or_the_last_third_on_validation_images(
    rounds, judged, monkeypatch, tmp_path
):
    """Each candidate gets a made-up run: the first has the best round, another the best end, a third diverges."""
    tried = []
    before = rounds - judged
    courses = [
        [0.99] * before + [0.5] * judged,  # the best round, and the best mean over all rounds
        [0.0] * before + [0.52] * judged,  # the best mean of those that count
        None,  # diverges
        [0.9] * before + [0.1] * (judged - 1) + [0.9],  # the best last round
    ]

    def made_up(setting, method, seed, folder, on_round, label):
        assert setting.evaluate_on == "validation" and seed == 2 and label == "FedRep"
        course = courses[len(tried)]
        tried.append(method)
        if course is None:
            raise FloatingPointError
        records = [{"personal": value, "personal_received": 1 - value} for value in course]
        return {"records": records}

    monkeypatch.setattr(experiment, "run_or_read", made_up)
    chosen = experiment.tune(Setting(clients=4), make("fedrep"), 2, 4, tmp_path)
    assert len(set(tried)) == 4 and tried[0] == make("fedrep") and chosen == tried[1]
