"""Whole runs of every method against `reference`, which is written from the papers and shares no code with the library.

Everything that could hide a mistake is out of the way: no hyper-parameter at its default, weights so large that every
term of a loss matters, clients of unequal sizes (one of a single image, one of a single class), a cohort that is not
everybody, batches that do not divide a client's images, several rounds, and all figures of the records.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import last
from reference import FEATURES, REFERENCES, scaled, simulate
from torch import nn

from fedecouple_lite import METHODS, DecoupledNet, Federation, from_arrays, load, make, rounds
from fedecouple_lite.engine import start

CLASSES = 4
SIZES = (7, 1, 13, 5, 22)  # training images
TESTS = (6, 3, 11, 2, 9)
COMMON = {"lr": 0.07, "epochs": 2, "batch_size": 4, "momentum": 0.8, "weight_decay": 0.03}
TWO_PHASES = {"classifier_epochs": 3, "classifier_lr": 0.15}
FEDECOUPLE = {
    **TWO_PHASES,
    "mu": 0.7,
    "lam": 1.6,
    "weighting": "dynamic",
    "temperature": 2.5,
    "global_loss": 0.6,
    "coupling": "alternate",
    "aggregation": "size",
}
CASES = {
    "local": {},
    "fedavg": {},
    "fedavg_ft": {"fine_tune_epochs": 3, "fine_tune_lr": 0.2},
    "fedprox": {"mu": 0.4},
    "ditto": {"lam": 0.6},
    "fedper": {},
    "lg_fedavg": {},
    "fedrep": TWO_PHASES,
    "fedbabu": {"fine_tune_epochs": 3, "fine_tune_lr": 0.05},
    "fedrod": {},
    "fedpac": {**TWO_PHASES, "lam": 0.8},
    "fedecouple": FEDECOUPLE,
    "fedecouple, joint": {**FEDECOUPLE, "coupling": "joint"},
    "fedecouple, phases": {**FEDECOUPLE, "coupling": "phases"},
    "fedecouple, constant": {**FEDECOUPLE, "weighting": "constant"},
    "fedecouple, similarity": {**FEDECOUPLE, "aggregation": "similarity"},
    "fedecouple, no global loss": {**FEDECOUPLE, "global_loss": 0.0},
}
SEED = 11
ROUNDS = 4
PARTICIPATION = 0.6


def unequal_clients():
    """Digits of four classes in float64: as a Federation, and each client's images normalised by hand."""
    digits = load("digits")
    of_four = torch.nonzero(digits.y < CLASSES)[:, 0]
    x = digits.x[of_four, 0].numpy()
    y = digits.y[of_four].numpy()
    zeros = np.flatnonzero(y == 0)
    others = np.random.default_rng(0).permutation(np.flatnonzero(y > 0))
    mixed = np.random.default_rng(1).permutation(np.setdiff1d(np.arange(len(y)), zeros[:8]))
    train, test, taken = [], [], 0
    for k, (for_training, for_testing) in enumerate(zip(SIZES, TESTS, strict=True)):
        pool = {0: others, 3: zeros}.get(k, mixed)  # client 0 lacks a class, client 3 has a single one
        some = pool[taken : taken + for_training + for_testing] if k != 3 else zeros[: for_training + for_testing]
        taken += len(some)
        train.append(torch.from_numpy(some[:for_training]))
        test.append(torch.from_numpy(some[for_training:]))
    data = from_arrays("four", x, y, x[:0], y[:0], range(CLASSES))
    federation = Federation(data, tuple(train), tuple(test)).to(dtype=torch.float64)

    images = torch.from_numpy((x.astype(np.float64) - np.float32(x.mean())) / np.float32(x.std()))[:, None]
    labels = torch.from_numpy(y)
    clients = [(images[a], labels[a], images[b], labels[b]) for a, b in zip(train, test, strict=True)]
    return federation, clients


def tiny_net():
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(64, FEATURES), nn.Tanh())
    return DecoupledNet(extractor, nn.Linear(FEATURES, CLASSES), (1, 8, 8))


def run_of_the_library(case, federation, weights, backend, method):
    net = tiny_net()
    state = start(method, net, federation, SEED)
    large = replace(state, server=method.init_server(weights), clients=(method.init(weights),) * len(federation))
    common = {"rounds": ROUNDS, "seed": SEED, "participation": PARTICIPATION, "backend": backend}
    return last(rounds(method, net, federation, state=large, **common))


@pytest.fixture(scope="module")
def runs():
    """Clients and weights, and the reference's run of each case, made once."""
    federation, clients = unequal_clients()
    weights = scaled(tiny_net().init(SEED, torch.float64), 3.0)
    return federation, clients, weights, {}


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("case", CASES)
def test_a_run_is_the_papers(runs, case, backend):
    federation, clients, weights, made = runs
    name = case.split(",")[0]
    values = {**COMMON, **CASES[case]}
    if case not in made:
        reference = REFERENCES[name](CLASSES, **values)
        made[case] = simulate(reference, clients, weights, SEED, ROUNDS, PARTICIPATION)
    server, kept, records = made[case]
    method = make(name, **values)
    state = run_of_the_library(case, federation, weights, backend, method)

    tolerance = 1e-6 if name == "fedpac" else 1e-10  # two solvers of the mixture's quadratic problem
    assert_equal(state.server, server, tolerance)
    for k, (client, expected) in enumerate(zip(state.clients, kept, strict=True)):
        assert_equal(client, expected if k in state.joined else method.init(weights), tolerance)
    assert len(state.records) == len(records) == ROUNDS
    for record, expected in zip(state.records, records, strict=True):
        assert record.keys() - {"seconds"} == expected.keys()
        for figure, value in expected.items():
            if isinstance(value, float) and math.isnan(value):
                assert math.isnan(record[figure]), figure
            else:
                assert record[figure] == pytest.approx(value, abs=tolerance), (figure, record["round"])


def assert_equal(tensors, expected, tolerance):
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.shape == expected[name].shape, name
        assert float((tensor - expected[name]).abs().max()) <= tolerance, name


def test_the_cases_leave_no_hyper_parameter_at_its_default_and_every_method_is_there():
    assert {case.split(",")[0] for case in CASES} == set(METHODS) == set(REFERENCES)
    left_alone = {"weighting", "coupling", "aggregation"}  # words: each of them has a case
    for name in METHODS:
        default = make(name)
        for hyper_parameter, value in {**COMMON, **CASES[name]}.items():
            if hyper_parameter not in left_alone:
                assert value != getattr(default, hyper_parameter), (name, hyper_parameter)
        assert {*COMMON, *CASES[name]} == set(vars(default))


def test_the_run_is_one_in_which_every_part_counts(runs):
    """Otherwise agreement would mean little: some clients join late, and each part of FedeCouple changes the result."""
    _, clients, weights, _ = runs

    def simulated(**part):
        reference = REFERENCES["fedecouple"](CLASSES, **COMMON, **FEDECOUPLE | part)
        return simulate(reference, clients, weights, SEED, 2, PARTICIPATION)

    whole, _, records = simulated()
    assert records[0]["newcomers"] == 2
    for part in ({"mu": 0.0}, {"lam": 0.0}, {"global_loss": 0.0}, {"temperature": 1.0}, {"weighting": "constant"}):
        other, *_ = simulated(**part)
        assert max(float((whole[name] - other[name]).abs().max()) for name in whole) > 1e-3, part
