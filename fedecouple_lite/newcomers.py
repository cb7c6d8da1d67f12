"""Newcomers: clients that were in no cohort, and come when the run is over.

A newcomer takes what the server sends, trains only what stays with it, for one epoch, and predicts. Nothing travels
back: neither the server's tensors nor those of the clients that took part change. What stays is every tensor that the
download does not bring, by the method's own `receive`; what a method's phases would train of the others stands still.
A method that fine-tunes to predict (`personalise`) does it here as it does everywhere, for as many epochs as its
hyper-parameters say. So, method by method:

- local: everything is trained, from the initial weights; the newcomer gains nothing from the others.
- fedavg, fedprox: nothing; the server's model predicts.
- fedavg_ft: the received classifier, in `personalise`, on a copy.
- ditto: the personal model, which begins at the server's and is pulled to it.
- fedper, fedrep: the classifier, from its initial weights, under the received extractor.
- lg_fedavg: the extractor, from its initial weights, under the received classifier.
- fedbabu: the received extractor and the initial classifier, in `personalise`, on a copy.
- fedrod: the personal head, which begins at the received classifier; it corrects the generic logits.
- fedpac: the classifier, from its initial weights: the server has mixed none for a client that it does not know.
- fedecouple: the personal classifier, which begins at the received one and distils from it, in every form of coupling.
  The anchors are the newcomer's own class means under the received extractor, and stay with it; as the extractor stands
  still, nothing is pulled to them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from .client import CHUNK, LocalData, OneClient, Trained, first_not_finite, run_phases, trainable
from .engine import Origin, State, hits, images_of, local_data, share
from .errors import SEED, is_seed, is_whole_number, require
from .hyper import hypers
from .methods import FedAvg
from .models import DecoupledNet
from .partition import Federation
from .phases import Train
from .tensors import Tensors

ADAPT = 6  # what a stream of random numbers is for, beside the engine's purposes


@dataclass(frozen=True, eq=False)
class Newcomer:
    """A client that has just come.

    client: the tensors that it keeps, its anchors and statistics among them. download: what the server sent. steps: the
    gradient steps that it took, those of `personalise` included. predict: images (B, *in_shape) to its logits (B, C).
    """

    client: Tensors
    download: Tensors
    steps: int
    predict: Callable[[Tensor], Tensor]


def adapt(
    method: FedAvg,
    net: DecoupledNet,
    state: State,
    data: LocalData,
    *,
    number: int = 0,
    seed: int = 0,
    epochs: int = 1,
) -> Newcomer:
    """A newcomer that receives from the server of `state`, trains what stays with it for `epochs` epochs, and predicts.

    data: its images, and the batches of each epoch (`newcomer_data` makes them). number: which newcomer it is, from 0
    on; numbers of clients that took part are never given to one, so that it gets no tensor that was made for another.
    seed: the run's, for the initial weights of what the server does not send. epochs: >= 0, in place of the phases'
    own; 0 trains nothing. A newcomer without images trains nothing either.

    Raises ValueError for an argument outside its range or a state of another method or net; FloatingPointError where a
    tensor is no longer finite.

    Examples
    --------
    >>> from fedecouple_lite import Federation, load, make, net_for, rounds, split
    >>> whole = split(load("digits"), clients=5, per_client=40)
    >>> here = Federation(whole.data, whole.train[:4], whole.test[:4])
    >>> net = net_for((1, 8, 8), 10)
    >>> method = make("fedper", epochs=1)
    >>> *_, state = rounds(method, net, here, rounds=2)
    >>> newcomer = adapt(method, net, state, newcomer_data(method, whole, 4))
    >>> newcomer.client["extractor.0.weight"] is state.server["extractor.0.weight"]  # taken as it is
    True
    >>> newcomer.predict(whole.data.images(whole.test[4])).shape
    torch.Size([20, 10])
    """
    check_arguments(method, net, state, seed, epochs)
    require(is_whole_number(number) and number >= 0, "number", number, "a whole number >= 0")
    if state.origin is not None and state.origin.dtype != str(data.x.dtype):
        raise ValueError(f"data holds images in {data.x.dtype}; those of the state's clients were {state.origin.dtype}")
    unknown_client = len(state.clients) + int(number)
    download = method.send(state.server, unknown_client)
    initial = method.init(net.init(int(seed), data.x.dtype, data.x.device))
    client = method.join(initial, download)
    received = method.receive(client, download)
    if len(data.y) == 0:  # nothing to train on, and no class means or counts to take
        return Newcomer(received, download, 0, partial(method.predict, net, received, download))

    trainer = OnlyWhatStays(method, net, download, data, brought_by(method, client, download), int(epochs))
    adapted = run_phases(method.phases(), received, trainer)
    tuned = run_phases(method.personalise(), adapted.tensors, OneClient(method, net, download, data))
    name = first_not_finite(tuned.tensors)
    if name is not None:
        where = f"{type(method).__name__}, newcomer {number}, after round {state.round}"
        step_sizes = " or ".join(hyper for hyper in hypers(method) if hyper.endswith("lr"))
        raise FloatingPointError(f"{where}: adapting, {name} is no longer finite; try a smaller {step_sizes}")
    steps = int(adapted.steps) + int(tuned.steps)
    return Newcomer(adapted.tensors, download, steps, partial(method.predict, net, tuned.tensors, download))


def brought_by(method: FedAvg, client: Tensors, download: Tensors) -> frozenset[str]:
    """The names of the tensors that a client no longer has of its own once it has received `download`."""
    own = {name: tensor.clone() for name, tensor in client.items()}  # copies, which cannot be the download's
    received = method.receive(own, download)
    return frozenset(name for name, tensor in received.items() if tensor is not own.get(name))


class OnlyWhatStays(OneClient):
    """The Trainer of a newcomer: of each phase, only the tensors that the download did not bring."""

    def __init__(
        self,
        method: FedAvg,
        net: DecoupledNet,
        download: Tensors,
        data: LocalData,
        brought: frozenset[str],
        epochs: int,
    ):
        super().__init__(method, net, download, data)
        self.brought = brought
        self.epochs = epochs

    def train(self, phase: Train, client: Tensors, inputs: Tensor) -> Trained:
        moving = [name for name in trainable(self.net, client, phase.prefixes) if name not in self.brought]
        if not moving:
            return Trained({}, inputs.new_zeros(()), torch.tensor(0))
        return super().train(replace(phase, prefixes=tuple(moving), epochs=self.epochs), client, inputs)


def newcomer_data(method: FedAvg, newcomers: Federation, number: int, seed: int = 0, t: int = 0) -> LocalData:
    """What newcomer `number` of a federation adapts on: its training images, in batches drawn with (seed, t, number).

    t: the rounds that the server has trained, so that each time of coming has batches of its own.
    """
    return local_data(newcomers, method, number, [seed, ADAPT, t], threading.Event())


def newcomer_accuracy(
    method: FedAvg,
    net: DecoupledNet,
    state: State,
    newcomers: Federation,
    seed: int = 0,
    epochs: int = 1,
) -> list[float]:
    """The accuracy of every client of `newcomers`, each coming after the rounds of `state`: N numbers in [0, 1], NaN
    for one without test images.

    A newcomer adapts on its training images (`adapt`) and predicts its test images. newcomers: people who are in none
    of the run's clients, such as `partition.split_unseen` gives. Everything is drawn with (seed, the state's round, the
    newcomer's number): who else comes does not matter.
    """
    check_arguments(method, net, state, seed, epochs)
    data = newcomers.data
    if net.in_shape != data.in_shape or net.classes < len(data.classes):
        wanted = f"{data.in_shape} and {len(data.classes)} classes"
        raise ValueError(
            f"net takes images {net.in_shape} and {net.classes} classes; newcomers of {data.name!r} have {wanted}"
        )
    accuracies = []
    for number, index in enumerate(newcomers.test):
        local = newcomer_data(method, newcomers, number, int(seed), state.round)
        newcomer = adapt(method, net, state, local, number=number, seed=seed, epochs=epochs)
        accuracies.append(share(count_right(newcomer, newcomers, index), len(index)))
    return accuracies


@torch.no_grad()
def count_right(newcomer: Newcomer, newcomers: Federation, index: Tensor) -> int:
    """How many of the images at `index` it predicts rightly."""
    right = 0
    for chunk in index.split(CHUNK):
        x, y = images_of(newcomers, chunk)
        right += int(hits(newcomer.predict(x), y))
    return right


def check_arguments(method: FedAvg, net: DecoupledNet, state: State, seed: int, epochs: int) -> None:
    """Raise ValueError, naming the argument, where nobody can come to this state."""
    require(is_seed(seed), "seed", seed, SEED)
    require(is_whole_number(epochs) and epochs >= 0, "epochs", epochs, "a whole number >= 0")
    if state.origin is None:
        return
    here = {"method": Origin.name_of(method), "net": net.structure}
    for name, now in here.items():
        before = getattr(state.origin, name)
        if before != now:
            raise ValueError(f"state belongs to another {name} ({before}, not {now})")
