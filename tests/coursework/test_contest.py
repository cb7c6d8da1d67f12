"""The contest of assignment 3: what it measures, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedecouple_lite import make, net_for, rounds
from fedecouple_lite.coursework import contest as contest_module
from fedecouple_lite.coursework.contest import LONGEST, ROUNDS, Refused, contest, federation_of, without_test_images

FEDREP = """
from dataclasses import dataclass

from fedecouple_lite.methods.fedrep import FedRep
from fedecouple_lite.phases import Train


@dataclass(frozen=True)
class Mine(FedRep):
    momentum: float = 0.9  # the contest's is 0.5 for everybody


METHOD = Mine()
"""
TUNED = (
    FEDREP
    + """

@dataclass(frozen=True)
class Tuned(FedRep):
    epochs: int = 3

    def personalise(self):
        return (Train(("classifier.",), (self.classifier_loss,), 4, on_features=True),)


METHOD = Tuned()
"""
)


def test_fedrep_against_itself_is_a_draw():
    [first, second] = contest(FEDREP, "digits", seeds=(3, 4))
    assert first.margin == second.margin == 0
    assert (first.steps, second.steps) == (first.budget, second.budget)
    assert first.fedrep != second.fedrep


def test_the_figures_are_those_of_the_engine():
    """A method that trains less and tunes to predict: accuracy and steps as a plain run counts them."""
    [result] = contest(TUNED, "digits", seeds=(3,))
    names = {}
    exec(TUNED, names)
    federation = federation_of("digits", 3)
    net = net_for(federation.data.in_shape, 10)
    *_, state = rounds(names["METHOD"], net, federation, rounds=ROUNDS, seed=3, backend="loop")
    last = state.records[-1]
    assert result.method == pytest.approx(100 * last["personal"], abs=1e-4)
    assert result.steps == sum(record["steps"] for record in state.records) + last["predict_steps"]
    assert result.budget > result.steps


def test_no_test_image_is_in_what_trains():
    federation = federation_of("digits", 0)
    given = without_test_images(federation)
    pixels = {image.numpy().tobytes() for image in given.data.x}
    for index in federation.test:
        for image, label in zip(federation.data.x[index], federation.data.y[index], strict=True):
            if image.numpy().tobytes() in pixels:  # the same drawing twice in the data set
                of_training = given.data.y[[bool((other == image).all()) for other in given.data.x]]
                assert label in of_training
    assert len(given.data.x) == sum(len(index) for index in federation.train)
    for ours, theirs in zip(given.train, federation.train, strict=True):
        assert torch.equal(given.data.x[ours], federation.data.x[theirs])
        assert torch.equal(given.data.y[ours], federation.data.y[theirs])


REFUSED = {
    "no method": ("METHOD = 3", "must set METHOD to an instance of a subclass of FedAvg"),
    "not Python": ("def (", "it crashes: SyntaxError"),
    "ends its process": ("import os\nos._exit(0)", "its process died"),
    "starts a program": ("import os\nos.system('true')", "it calls os.system"),
    "calls somebody": ("import socket\nsocket.create_connection(('127.0.0.1', 9))", "it calls socket.connect"),
    "reads data and says nothing": (
        FEDREP + "\nfrom pathlib import Path\ntry:\n    Path('x.npz').read_bytes()\nexcept OSError:\n    pass\n",
        "it opens x.npz",
    ),
    "a step size of its own": (
        FEDREP + "\nMETHOD = Mine(classifier_lr=0.3)\n",
        "a phase has the step size 0.3; the contest's is 0.1",
    ),
    "another shape": (
        FEDREP
        + """

class Larger(Mine):
    def upload(self, client):
        return {name: tensor[None] for name, tensor in super().upload(client).items()}


METHOD = Larger()
""",
        "it transmits extractor.",
    ),
    "no numbers": (
        FEDREP
        + """

class Sure(Mine):
    def predict(self, net, client, download, x):
        return net.logits(client, x) / 0


METHOD = Sure()
""",
        "predict gives logits that are not finite",
    ),
    "not one for each class": (
        FEDREP
        + """

class Short(Mine):
    def predict(self, net, client, download, x):
        return net.logits(client, x)[:, :3]


METHOD = Short()
""",
        r"predict must give one logit for each image and class, \(n, 10\)",
    ),
    "too long": ("#" * (LONGEST + 1), "a method needs no more than 20000"),
}


@pytest.mark.parametrize("label", REFUSED)
def test_what_breaks_a_rule_is_refused_by_name(label):
    source, words = REFUSED[label]
    with pytest.raises(Refused, match=words):
        contest(source, "digits", seeds=(0,))


def test_a_method_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(contest_module, "SECONDS", 6.0)
    with pytest.raises(Refused, match="it has not finished within 6 seconds"):
        contest("while True:\n    pass\n", "digits", seeds=(0,))


def test_arguments_that_cannot_be():
    with pytest.raises(ValueError, match="seeds"):
        contest(FEDREP, "digits", seeds=())
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        contest(FEDREP, "digit")


def test_the_baseline_is_the_librarys_fedrep():
    accuracy, steps = contest_module.of_fedrep("digits", 5)
    federation = federation_of("digits", 5)
    net = net_for(federation.data.in_shape, 10)
    *_, state = rounds(make("fedrep"), net, federation, rounds=ROUNDS, seed=5, backend="loop")
    assert accuracy == 100 * state.records[-1]["personal"]
    batches = [-(-len(index) // 32) for index in federation.train]
    assert steps == ROUNDS * 6 * int(np.sum(batches))
