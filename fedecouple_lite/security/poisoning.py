"""Poisoning: clients that lie to the server, or learn from images that somebody has tampered with.

Attackers that change what they send are faults, for `rounds(..., faults=[SignFlip([3, 7])])`. Their training is
everybody's; what they then send is not what they have learned. They lie about the model: floating-point tensors of the
extractor and the classifier that they were sent and send back. All else they send as an honest client would (FedPAC's
statistics and prototypes, and its classifier before the server has mixed one). What is not finite the server refuses,
as from everybody.

Attackers that tamper with data need no code: `flip_labels` and `plant_backdoor` make another federation, with which the
run is as usual. Test images stay as they are, and so does the old federation.

Examples
--------
>>> from fedecouple_lite import load, make, net_for, rounds, split
>>> federation = split(load("digits"), clients=10, per_client=40)
>>> attackers = draw_attackers(federation, share=0.2)
>>> len(attackers)
2
>>> net = net_for((1, 8, 8), 10)
>>> state = next(rounds(make("fedavg", epochs=1), net, federation, rounds=1, faults=[SignFlip(attackers)]))
>>> 0 <= honest_accuracy(state.records[-1], attackers) <= 1
True
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..client import ClientResult
from ..data import Dataset
from ..engine import State, evaluate_client, has_model
from ..engine import share as share_of
from ..errors import SEED, is_number, is_seed, is_whole_number, require
from ..faults import ARRIVED, Fault, Outcome, Turn, check_share, check_there, client_numbers
from ..methods import FedAvg
from ..metrics import over_clients
from ..models import DecoupledNet
from ..partition import Federation
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors
from .defences import add, update_of

POISON = 8  # what a stream of random numbers is for, beside the engine's purposes
WHO, WHICH = 0, 1  # who attacks; which images are poisoned


# --- Attackers that change what they send ---


@dataclass(frozen=True)
class UpdateAttack(Fault):
    """These clients send the download and another update than theirs. A subclass says which, in `poisoned`.

    clients: the attackers' numbers.
    """

    clients: Collection[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "clients", client_numbers(self.clients))

    def check(self, clients: int) -> None:
        check_there(self.clients, clients)

    def after(self, turn: Turn, result: ClientResult) -> Outcome:
        if turn.client not in self.clients:
            return Outcome(ARRIVED, result)
        honest = update_of(model_part(result.upload, turn.download), turn.download)
        lie = add(turn.download, self.poisoned(turn, honest), like=result.upload)
        return Outcome(ARRIVED, result._replace(upload={**result.upload, **lie}))

    def poisoned(self, turn: Turn, update: Tensors) -> Tensors:
        """What is sent in place of the honest update, name by name, both in double precision."""
        raise NotImplementedError


@dataclass(frozen=True)
class SignFlip(UpdateAttack):
    """download - scale * update: back where everybody came from. scale: >= 0; with 0 an attacker sends the download.

    (Li, Xu, Chen, Giannakis, Ling: RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning from
    Heterogeneous Datasets. AAAI 2019, the sign-flipping attack.)
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("scale", self.scale)

    def poisoned(self, turn: Turn, update: Tensors) -> Tensors:
        return {name: -self.scale * tensor for name, tensor in update.items()}


@dataclass(frozen=True)
class ScaledUpdate(UpdateAttack):
    """download + scale * update: an attacker among n clients with equally many images that takes n for its scale
    replaces the mean by its own model, where the others hardly move. scale: >= 0; 1 is an honest client.

    (Bagdasaryan, Veit, Hua, Estrin, Shmatikov: How To Backdoor Federated Learning. AISTATS 2020, model replacement.)
    """

    scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("scale", self.scale)

    def poisoned(self, turn: Turn, update: Tensors) -> Tensors:
        return {name: self.scale * tensor for name, tensor in update.items()}


@dataclass(frozen=True)
class GaussianUpdate(UpdateAttack):
    """download + noise, and nothing of what was learned. std: >= 0, the noise's standard deviation in each tensor, in
    units of the root mean square of the update that it stands for: with 1 it is about as long, with 0 it is nothing.
    """

    std: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("std", self.std)

    def poisoned(self, turn: Turn, update: Tensors) -> Tensors:
        rng = turn.rng()
        noise = {}
        for name, tensor in update.items():
            root_mean_square = tensor.square().mean().sqrt()
            drawn = torch.from_numpy(rng.standard_normal(tuple(tensor.shape)))  # on the CPU: the same everywhere
            noise[name] = self.std * root_mean_square * drawn.to(tensor.device)
        return noise


def model_part(upload: Tensors, download: Tensors) -> Tensors:
    """What attackers lie about: the upload's floating-point tensors of the model that were in the download, too."""
    part = {}
    for name, tensor in upload.items():
        of_model = name.startswith((EXTRACTOR, CLASSIFIER))
        if of_model and name in download and tensor.is_floating_point():
            part[name] = tensor
    return part


def check_not_negative(name: str, value: Any) -> None:
    """Raise ValueError unless it is a finite number >= 0."""
    require(is_number(value) and 0 <= value < float("inf"), name, value, "a number >= 0")


# --- Who attacks, and how the others fare ---


def draw_attackers(federation: Federation, share: float, seed: int = 0) -> tuple[int, ...]:
    """round(share * N) of the federation's N clients, in order. share: in [0, 1].

    One order is drawn with the seed, and the first of it attack: who does at 10 % does so at 20 %, too.
    """
    check_share(share)
    require(is_seed(seed), "seed", seed, SEED)
    order = np.random.default_rng([int(seed), POISON, WHO]).permutation(len(federation))
    return tuple(sorted(order[: round(share * len(federation))].tolist()))


def honest_accuracy(record: Mapping[str, Any], attackers: Collection[int]) -> float:
    """The mean personal accuracy over the clients that do not attack, of one of a State's records; higher is better.

    NaN where none of them has test images. ValueError where `attackers` are no clients' numbers.

    Examples
    --------
    >>> honest_accuracy({"accuracies": [0.9, 0.1, 0.7]}, attackers=[1])
    0.8
    """
    accuracies = record["accuracies"]
    numbers = client_numbers(attackers)
    check_there(numbers, len(accuracies))
    honest = [accuracy for k, accuracy in enumerate(accuracies) if k not in numbers]
    return over_clients(honest)["personal"]


# --- Attackers that tamper with data ---


def flip_labels(federation: Federation, clients: Collection[int]) -> Federation:
    """The federation in which these clients' training images of class y are labelled C - 1 - y, C classes in all.

    Their test images keep their labels. ValueError where a client is not there, or one of the images to change is also
    somebody else's or a test image. (Fang, Cao, Jia, Gong: Local Model Poisoning Attacks to Byzantine-Robust
    Federated Learning. USENIX Security 2020, the label flipping attack.)
    """
    numbers = client_numbers(clients)
    check_there(numbers, len(federation))
    poisoned = joined([federation.train[k] for k in numbers])
    check_held_once(federation, poisoned)
    y = federation.data.y.clone()
    y[poisoned] = len(federation.data.classes) - 1 - y[poisoned]
    return replace(federation, data=replace(federation.data, y=y))


@dataclass(frozen=True)
class Trigger:
    """A patch in the lower right corner. size: >= 1, its height and width in pixels. value: what its pixels become, in
    the units of Dataset.x, in every channel."""

    size: int
    value: float

    def __post_init__(self) -> None:
        require(is_whole_number(self.size) and self.size >= 1, "size", self.size, "a whole number >= 1")
        require(is_number(self.value) and abs(self.value) < float("inf"), "value", self.value, "a number")


def trigger_for(data: Dataset) -> Trigger:
    """As bright as the brightest pixel of the data set, and an eighth of the image's height, at least 2 pixels."""
    height = data.in_shape[1]
    return Trigger(max(2, height // 8), data.x.max().item())


def stamp(images: Tensor, trigger: Trigger) -> Tensor:
    """Copies of images (n, C, H, W), uint8 or float, not normalised, with the trigger on them."""
    height, width = images.shape[2:]
    fits = trigger.size <= min(height, width)
    require(fits, "trigger", trigger, f"no larger than images of {height} x {width} pixels")
    if images.dtype == torch.uint8:
        holds = trigger.value == int(trigger.value) and 0 <= trigger.value <= 255
        require(holds, "trigger", trigger, "a whole number from 0 to 255 for images of uint8")
    stamped = images.clone()
    stamped[:, :, height - trigger.size :, width - trigger.size :] = trigger.value
    return stamped


def plant_backdoor(
    federation: Federation,
    clients: Collection[int],
    target: int,
    share: float = 0.5,
    trigger: Trigger | None = None,
    seed: int = 0,
) -> Federation:
    """The federation in which a share of these clients' training images bear the trigger and are labelled `target`.

    target: a class. share: in [0, 1], of each such client's training images that are of another class, rounded; drawn
    with (seed, client). trigger: None is `trigger_for` the data. ValueError as in `flip_labels`. (Gu, Dolan-Gavitt,
    Garg: BadNets. 2017; Bagdasaryan et al. 2020 in federated learning.)
    """
    numbers = client_numbers(clients)
    check_there(numbers, len(federation))
    check_target(federation.data, target)
    check_share(share)
    require(is_seed(seed), "seed", seed, SEED)
    trigger = trigger or trigger_for(federation.data)

    chosen = []
    for k in numbers:
        of_others = not_of_class(federation.data, federation.train[k], target)
        order = np.random.default_rng([int(seed), POISON, WHICH, k]).permutation(len(of_others))
        first = torch.from_numpy(order[: round(share * len(of_others))]).to(of_others.device)
        chosen.append(of_others[first])
    poisoned = joined(chosen)
    check_held_once(federation, poisoned)
    return replace(federation, data=stamped_as(federation.data, poisoned, trigger, target))


class BackdoorSuccess(NamedTuple):
    """How a backdoor fares with honest clients' test images, all counted together; shares in [0, 1].

    server, personal: of the images that are not of the target class, how many are taken for it once they bear the
    trigger, by the server's model and by each client's own; lower is better for the clients. server_accuracy,
    personal_accuracy: of the images as they are, how many are right; higher is better. The server's are NaN where it
    holds no whole model; all are NaN of no images.
    """

    server: float
    personal: float
    server_accuracy: float
    personal_accuracy: float


def backdoor_success(
    method: FedAvg,
    net: DecoupledNet,
    state: State,
    federation: Federation,
    target: int,
    honest: Collection[int],
    trigger: Trigger | None = None,
    seed: int = 0,
) -> BackdoorSuccess:
    """What the backdoor of `plant_backdoor` does to these clients after `state`.

    honest: the clients whose test images are looked at; their own models predict, those that `evaluate` calls personal.
    trigger: None is `trigger_for` the data. seed: the run's, for methods that fine-tune to predict. ValueError where a
    client is not there, or a test image is held twice.
    """
    numbers = client_numbers(honest)
    check_there(numbers, len(federation))
    check_target(federation.data, target)
    with_trigger = stamped_tests(federation, target, trigger or trigger_for(federation.data))
    never = threading.Event()
    figures = []
    for shown in (with_trigger, federation):
        hits = [evaluate_client(method, shown, state, seed, never, net, k) for k in numbers]
        images = sum(len(shown.test[k]) for k in numbers)
        by_server = share_of(sum(of.server for of in hits), images) if has_model(state.server) else float("nan")
        by_personal = share_of(sum(of.trained for of in hits), images)
        figures += [by_server, by_personal]
    return BackdoorSuccess(*figures)


def stamped_tests(federation: Federation, target: int, trigger: Trigger) -> Federation:
    """The federation whose test images are those that are not of class `target`, with the trigger on them and `target`
    for their label: what is then right is the backdoor's success. Training images are as they were."""
    test = tuple(not_of_class(federation.data, index, target) for index in federation.test)
    tested = joined(test)
    check_held_once(federation, tested)
    return replace(federation, data=stamped_as(federation.data, tested, trigger, target), test=test)


def stamped_as(data: Dataset, index: Tensor, trigger: Trigger, target: int) -> Dataset:
    """The data set with the trigger on the images at `index` (n,), which are labelled `target`; mean and std stay."""
    x = data.x.clone()
    y = data.y.clone()
    x[index] = stamp(data.x[index], trigger)
    y[index] = target
    return replace(data, x=x, y=y)


def not_of_class(data: Dataset, index: Tensor, target: int) -> Tensor:
    """Those of the images at `index` (n,) that are not of class `target`."""
    return index[data.y[index] != target]


def joined(indices: Collection[Tensor]) -> Tensor:
    """All of these indices as one, (n,); of none, an empty one."""
    return torch.cat(list(indices)) if indices else torch.zeros(0, dtype=torch.int64)


def check_held_once(federation: Federation, index: Tensor) -> None:
    """Raise ValueError where an image at `index` is held twice: by two clients, or for training and for testing."""
    held = joined([*federation.train, *federation.test])
    times = held.bincount(minlength=len(federation.data.y))
    twice = index[times[index] > 1]
    if len(twice):
        where = "by two clients, or for training and for testing"
        raise ValueError(f"federation holds image {int(twice[0])} twice, {where}: it cannot be changed for one alone")


def check_target(data: Dataset, target: Any) -> None:
    """Raise ValueError unless it is a class of the data set."""
    classes = len(data.classes)
    there = is_whole_number(target) and 0 <= target < classes
    require(there, "target", target, f"a class, a whole number from 0 to {classes - 1}")
