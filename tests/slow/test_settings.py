"""Any setting ends well, with finite figures, or is refused by an error that names one of its own arguments.

No other exception, and no warning. Most of what is drawn is allowed, its limits included; of every third setting one or
two values are beyond them, or of another kind. More of them, here 2000 for each partition:

    EXAMPLES=2000 python -m pytest tests/slow/test_settings.py
"""

import json
import os
import re
import warnings
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import nn

from fedecouple_lite import METHODS, DecoupledNet, from_arrays, make, rounds, split, unevenness
from fedecouple_lite.hyper import hypers
from fedecouple_lite.partition import OPTIONS, PARTITIONS
from fedecouple_lite.phases import Train
from fedecouple_lite.studies.experiment import Setting, compare
from fedecouple_lite.studies.tables import as_text, table

# Those whose server holds an extractor and a classifier, so that there is a global accuracy.
WHOLE_SERVER = {"fedavg", "fedavg_ft", "fedprox", "ditto", "fedbabu", "fedrod", "fedecouple"}


EXAMPLES = int(os.environ.get("EXAMPLES", 50))  # for each partition


# --- Made-up images ---


def made_up(name, labels, own_test=0, shape=(8, 8), dtype=np.uint8):
    """Images that tell nothing, under these labels; the last `own_test` are the set's own test part."""
    labels = np.asarray(labels)
    pixels = np.random.default_rng(len(labels)).integers(0, 255, (len(labels), *shape)).astype(dtype)
    first = len(labels) - own_test
    return from_arrays(name, pixels[:first], labels[:first], pixels[first:], labels[first:], range(labels.max() + 1))


DATA = {
    "four classes": made_up("four classes", np.arange(60) % 4),
    "own test part": made_up("own test part", np.arange(60) % 4, own_test=20),
    "gaps": made_up("gaps", np.array([2, 5, 9])[np.arange(45) % 3], own_test=9),
    "one class alone": made_up("one class alone", np.full(20, 3)),
    "rare classes": made_up("rare classes", [0] * 30 + [1] * 8 + [2, 2, 3]),
    "classes only for testing": made_up("classes only for testing", [0, 1] * 10 + [2, 3] * 5, own_test=10),
    "in colour": made_up("in colour", np.arange(40) % 2, own_test=10, shape=(8, 8, 3)),
    "not square": made_up("not square", np.arange(40) % 4, shape=(4, 6)),
    "numbers with a point": made_up("numbers with a point", np.arange(30) % 3, dtype=np.float32),
    "five images": made_up("five images", [0, 1, 2, 0, 1]),
    "dozen classes": made_up("dozen classes", np.arange(48) % 12),
}


@cache
def net_of(name):
    """One for each kind of image: a tiny one, which takes any shape."""
    data = DATA[name]
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(data.in_shape)), 6), nn.Tanh())
    return DecoupledNet(extractor, nn.Linear(6, len(data.classes)), data.in_shape)


# --- Settings ---

NOT_NUMBERS = [None, True, "0.5", "many", [1], np.array([1.0, 2.0])]
BEYOND = [0, -1, 2, -0.5, 1.5, float("nan"), float("inf"), -float("inf"), 1e-320, 1e308, *NOT_NUMBERS]
HUGE = [10**30, 10**400]
SEEDS = st.sampled_from([0, 1, 2, 7, 2**31, 2**63 - 1, np.int64(3)])
ALLOWED = {
    "clients": st.integers(1, 12),
    "seed": SEEDS,
    "test_share": st.floats(0, 0.99) | st.sampled_from([0, 1 / 3, 0.5, 0.999999]),
    "per_client": st.none() | st.integers(2, 40),
    "keep_test": st.booleans(),
    "rounds": st.integers(1, 2),
    "participation": st.floats(0, 1, exclude_min=True) | st.sampled_from([1e-300, 0.5, 1, np.float32(0.3)]),
    "eval_every": st.integers(1, 3),
    "backend": st.sampled_from(["auto", "auto", "loop", "threads", "vmap"]),
    "augment": st.sampled_from([None, None, "crop_flip"]),
    "alpha": st.floats(-8, 8).map(lambda power: min(max(10**power, 1e-8), 1e8)) | st.sampled_from([1e-8, 1e8, 1]),
    "classes_per_client": st.integers(1, 5),
    "share": st.floats(0, 1) | st.sampled_from([0, 1]),
    "sigma": st.floats(1e-6, 100) | st.sampled_from([1e-300, 100]),
}
OF_SPLIT = ("clients", "seed", "test_share", "per_client", "keep_test")
OF_ROUNDS = ("rounds", "participation", "eval_every", "backend", "augment")
# What a run repeats; never a huge number of times here.
PASSES = ("epochs", "classifier_epochs", "fine_tune_epochs")


def allowed_hyper(field):
    """Its own choices, its tries, its limits, and some in between."""
    about = field.metadata
    if about["choices"]:
        return st.sampled_from(about["choices"])
    if field.name in PASSES:
        return st.integers(0, 2)
    if field.name == "batch_size":
        return st.sampled_from([1, 2, 7, 64, 10**6])
    low, high = about["low"], about["high"]
    values = [field.default, low, *about["tries"]]
    values += [high, 0.9] if high < 1e9 else [1e-3, 3.0, 1e3]
    return st.sampled_from(values)


def smallest_kind(value):
    """A number as NumPy's smallest kind that holds it; all else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return np.min_scalar_type(value).type(value) if isinstance(value, int) else np.float32(value)


@st.composite
def some_setting(draw, partition, names_of_data=tuple(DATA)):
    """(data, arguments of split, arguments of rounds, a method's name, its hyper-parameters)."""
    name_of_data = draw(st.sampled_from(names_of_data))
    data = DATA[name_of_data]
    method = draw(st.sampled_from(list(METHODS)))
    of_method = hypers(METHODS[method])
    rarely = draw(st.integers(0, 9)) == 0  # what does not go with these images
    own = {"clients": st.integers(1, min(12, len(data.y) // 3))}
    if not data.own_test and not rarely:
        own["keep_test"] = st.just(False)
    if data.in_shape[0] != 3 and not rarely:
        own["augment"] = st.none()
    options = list(OPTIONS.get(partition, ()))
    names = [*OF_SPLIT, *OF_ROUNDS, *options, *of_method]
    odd = draw(st.sets(st.sampled_from(names), max_size=2)) if draw(st.integers(0, 2)) == 0 else set()
    as_numpy = draw(st.sets(st.sampled_from(names))) if draw(st.integers(0, 3)) == 3 else set()

    def value(name):
        if name in odd:
            huge = [] if name in ("rounds", *PASSES) else HUGE
            return draw(st.sampled_from([*BEYOND, *huge]))
        choices = allowed_hyper(of_method[name]) if name in of_method else own.get(name, ALLOWED[name])
        chosen = draw(choices)
        return smallest_kind(chosen) if name in as_numpy else chosen

    of_split = {name: value(name) for name in OF_SPLIT}
    if not odd and not rarely:  # enough of them for all classes
        present = len(data.y.unique())
        own["classes_per_client"] = st.integers(-(-present // int(of_split["clients"])), present)
    of_split |= {name: value(name) for name in options if draw(st.booleans()) or name in odd}
    if rarely and draw(st.booleans()):
        of_split["partition"] = draw(st.sampled_from(["dirichlt", "", None, 3]))
    if rarely and draw(st.booleans()):
        of_split[draw(st.sampled_from(["alpha", "share", "sigma", "classes_per_client", "beta"]))] = 0.5
    of_rounds = {name: value(name) for name in OF_ROUNDS}
    hyper_parameters = {name: value(name) for name in of_method if draw(st.booleans()) or name in odd}
    hyper_parameters |= {name: 1 for name in PASSES if name in of_method and name not in hyper_parameters}
    return name_of_data, {"partition": partition} | of_split, of_rounds, method, hyper_parameters


def names_an_argument(error, names):
    """Whether the message has one of these names, as a word of its own."""
    return any(re.search(rf"\b{name}\b", str(error)) for name in names)


def is_finite(tensors):
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


@pytest.mark.parametrize("partition", PARTITIONS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_any_setting_ends_well_or_is_refused_by_the_name_of_an_argument(partition, data):
    name, of_split, of_rounds, method, hyper_parameters = data.draw(some_setting(partition))
    arguments = {"data", "net", "method", *of_split, *of_rounds, *hyper_parameters, *hypers(METHODS[method])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            federation = split(DATA[name], **of_split)
            check_federation(federation, of_split)
            made = make(method, **hyper_parameters)
            states = list(rounds(made, net_of(name), federation, seed=of_split["seed"], **of_rounds))
        except (ValueError, FloatingPointError) as error:
            assert names_an_argument(error, arguments), str(error)
            event(f"{type(error).__name__}")
            return
    event("ended well")
    check_run(states, federation, method, of_rounds)


def check_federation(federation, of_split):
    """Each image is with one client at most; nobody is tested on what it has never seen; figures are finite."""
    held = torch.cat([*federation.train, *federation.test])
    assert len(held) == len(held.unique()) and len(federation) == of_split["clients"]
    for train, test in zip(federation.train, federation.test, strict=True):
        assert len(train)
        if of_split["per_client"] is not None:
            assert len(train) + len(test) <= of_split["per_client"]
    figures = unevenness(federation.label_counts("train"), federation.label_counts("test"))
    assert figures["unseen_test"] == 0 and np.isfinite(list(figures.values())).all()
    assert 0 <= figures["label_skew"] <= 1 and 0 <= figures["size_skew"] <= 1


def check_run(states, federation, method, of_rounds):
    """All tensors and figures are finite, but for those accuracies that there cannot be."""
    *_, state = states
    assert [each.round for each in states] == list(range(1, of_rounds["rounds"] + 1))
    assert is_finite(state.server) and all(is_finite(client) for client in state.clients)
    tested = [len(index) > 0 for index in federation.test]
    without = {"accuracies", *([] if any(tested) else ["personal", "percentile10", "personal_received", "global"])}
    if method not in WHOLE_SERVER:
        without.add("global")
    assert state.records[-1]["round"] == of_rounds["rounds"]
    for record in state.records:
        for key, figure in record.items():
            if key not in without:
                assert np.isfinite(figure) and figure >= 0, key
            elif key != "accuracies":
                assert np.isnan(figure), key
        assert [not np.isnan(accuracy) for accuracy in record["accuracies"]] == tested
        assert all(0 <= accuracy <= 1 for accuracy, has in zip(record["accuracies"], tested, strict=True) if has)
        assert record["newcomers"] <= len(federation) - 1


# --- The same through `compare`, with files ---


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Sets of square images as files, and a folder for runs."""
    folder = tmp_path_factory.mktemp("settings")
    for name, data in DATA.items():
        if data.in_shape[1:] == (8, 8):
            x, y = data.x.numpy(), data.y.numpy()
            first = len(y) - data.own_test
            parts = {"x_train": x[:first], "y_train": y[:first], "x_test": x[first:], "y_test": y[first:]}
            np.savez(folder / f"{name}.npz", classes=np.array(data.classes), **parts)
    return folder


ODD = {
    "trials": [0, 1.5, None, "2", True],
    "budget": [0, -1, 2.5, float("nan"), float("inf"), True, "3"],
    "fixed": [["epochs", "rounds"], [None], "momentun"],
    "seeds": [[], [0, 0], [-1], [0.0], [None], [2**70]],
    "evaluate_on": ["train", None, 3],
}


@st.composite
def some_comparison(draw, partition, names_of_data):
    """(the fields of a setting, a method's name, its hyper-parameters, the other arguments of compare)."""
    name, of_split, of_rounds, method, hyper_parameters = draw(some_setting(partition, names_of_data))
    seed = of_split.pop("seed")
    budget = draw(st.sampled_from([None, None, 3, 11, np.int32(5)]))
    given_names = [name for name in hyper_parameters if budget is None or name != "epochs"]
    of_compare = {
        "seeds": draw(st.sampled_from([[seed], [seed], [seed, 4], (1, 0), range(2)])),
        "trials": draw(st.sampled_from([1, 1, 2, np.int64(3)])),
        "budget": budget,
        "fixed": draw(st.sampled_from([[], given_names, given_names[:1], "lr"])),
        "evaluate_on": draw(st.sampled_from(["test", "test", "validation"])),
    }
    odd = draw(st.sampled_from([None] * 15 + [*ODD]))
    if odd is not None:
        of_compare[odd] = draw(st.sampled_from(ODD[odd]))
    of_setting = {"dataset": name, "evaluate_on": of_compare.pop("evaluate_on")} | of_split | of_rounds
    return of_setting, method, hyper_parameters, of_compare


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_comparison_ends_well_twice_or_is_refused_before_anything_is_trained(files, monkeypatch, data):
    names = [path.stem for path in files.glob("*.npz")]
    partition = data.draw(st.sampled_from(list(PARTITIONS)))
    of_setting, method, hyper_parameters, of_compare = data.draw(some_comparison(partition, names))
    if "beta" in of_setting:
        return
    of_setting["dataset"] = files / f"{of_setting['dataset']}.npz"
    arguments = {*Setting.__dataclass_fields__, *of_compare, "seed", *hypers(METHODS[method])}
    trained = []
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("error")
        try:
            methods = {method: make(method, **hyper_parameters)}
            setting = Setting(**of_setting)
            results = compare(setting, methods, folder=folder, on_round=lambda *of: trained.append(of), **of_compare)
        except ValueError as error:
            assert names_an_argument(error, arguments), str(error)
            assert not trained and not list(Path(folder).iterdir())
            event("refused")
            return
        except FloatingPointError as error:
            assert names_an_argument(error, arguments), str(error)
            event("diverged")
            return
        event("ended well")
        runs = [json.loads(path.read_text()) for path in Path(folder).rglob("*.json")]
        fixed = [of_compare["fixed"]] if isinstance(of_compare["fixed"], str) else of_compare["fixed"]
        for run in runs:
            as_run = METHODS[method](**{name: value for name, value in run["method"].items() if name != "name"})
            if of_compare["budget"] is not None:
                assert (
                    sum(p.epochs * len(p.losses) for p in as_run.phases() if isinstance(p, Train))
                    <= of_compare["budget"]
                )
            assert all(asdict(as_run)[name] == asdict(methods[method])[name] for name in fixed if hasattr(as_run, name))
        assert as_text(results) and len(table(results)) == len(of_compare["seeds"])
        with monkeypatch.context() as change:
            change.setattr("fedecouple_lite.studies.experiment.rounds", None)  # nothing trains now
            again = compare(setting, methods, folder=folder, **of_compare)
        assert again == results
