"""A contest: a method of one's own against FedRep, on splits that it has not seen, with as many gradient steps.

The method is a file; it trains in a process of its own (`contestant`), which holds the clients' training images and no
others, and no way to the data's files. When it has trained it gets the test images, without labels, and returns logits;
what they are worth is found here. Steps are counted over there, where a method that sets out to can hide some, or train
where it should only predict: read a method whose margin is too good.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..course.lessons import lesson
from ..data import load
from ..engine import rounds as run_rounds
from ..errors import require
from ..methods import make
from ..models import net_for
from ..partition import Federation, split
from . import wire
from .contestant import main
from .fresh import fresh_processes

CLIENTS = 10
PER_CLIENT = 90  # images, test ones included
ALPHA = 0.3  # of the division
ROUNDS = 3
LONGEST = 20_000  # characters of a method's file
SECONDS = 120.0  # for one split
DIED = "its process died: out of memory, or ended by its own code"
UNREADABLE = "its process gives an answer that cannot be read"


class Refused(AssertionError):
    """Why a method gets no points, in words."""


class Result(NamedTuple):
    """On one split: mean accuracy over clients, of the method and of FedRep, in percent; gradient steps, the budget."""

    method: float
    fedrep: float
    steps: int
    budget: int

    @property
    def margin(self) -> float:
        """Percentage points above FedRep."""
        return self.method - self.fedrep


def contest(source: str, dataset: str = "digits", seeds: Sequence[int] = (0,)) -> list[Result]:
    """Run the method in `source` on one split for each seed.

    source: the text of a Python file in which METHOD is an instance of a subclass of FedAvg. dataset: one that has a
    lesson. Refused where the method breaks a rule: it crashes or takes too long, it takes more gradient steps than
    FedRep does, steps to predict included, it uploads something else than the extractor's tensors, a phase has a step
    size of its own, or it opens data, a line or a program. Step size, momentum, weight decay and batch size are those
    of FedRep for everybody. ValueError for arguments that cannot be.
    """
    require(len(seeds) > 0, "seeds", seeds, "a seed or more")
    if len(source) > LONGEST:
        raise Refused(f"the file has {len(source)} characters; a method needs no more than {LONGEST}")
    federations = [federation_of(dataset, seed) for seed in seeds]
    entries = logits_of(source, federations, dataset, seeds)
    results = []
    for seed, federation, (logits, steps) in zip(seeds, federations, entries, strict=True):
        fedrep, budget = of_fedrep(dataset, seed)
        if steps > budget:
            raise Refused(f"it takes {steps} gradient steps, those to predict included; FedRep's budget is {budget}")
        results.append(Result(accuracy(federation, logits), fedrep, steps, budget))
    return results


def federation_of(dataset: str, seed: int) -> Federation:
    """The split of a contest."""
    return split(load(dataset), CLIENTS, seed=seed, alpha=ALPHA, per_client=PER_CLIENT)


@cache
def of_fedrep(dataset: str, seed: int) -> tuple[float, int]:
    """FedRep's mean accuracy over clients on that split, in percent, and its gradient steps in all."""
    federation = federation_of(dataset, seed)
    data = federation.data
    method = make("fedrep", lr=lesson(dataset).lr)
    net = net_for(data.in_shape, len(data.classes))
    *_, state = run_rounds(method, net, federation, rounds=ROUNDS, seed=seed, backend="loop")
    steps = sum(record["steps"] for record in state.records)
    return 100 * state.records[-1]["personal"], steps


def accuracy(federation: Federation, logits: Sequence[Tensor]) -> float:
    """The mean over clients with test images of how many are right, in percent. logits: (n_i, C) of each client."""
    shares = []
    for index, of_client in zip(federation.test, logits, strict=True):
        if len(index):
            right = of_client.argmax(1) == federation.data.y[index]
            shares.append(float(right.double().mean()))
    return 100 * float(np.mean(shares))


# --- The other process ---


class Entry(NamedTuple):
    """What a method gives on one split: logits (n_i, C) of every client's test images, and the steps it took."""

    logits: list[Tensor]
    steps: int


def logits_of(source: str, federations: Sequence[Federation], dataset: str, seeds: Sequence[int]) -> list[Entry]:
    """Train the method in `source` on every split in a process of its own, then let it predict. Refused if it breaks a
    rule."""
    task = {
        "source": source,
        "federations": [without_test_images(federation) for federation in federations],
        "seeds": list(seeds),
        "lr": lesson(dataset).lr,
        "rounds": ROUNDS,
    }
    images = [test_images(federation) for federation in federations]
    context = fresh_processes(main.__module__)
    ours, theirs = context.Pipe()
    process = context.Process(target=main, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    seconds = SECONDS * len(seeds)
    try:
        ours.send_bytes(pickle.dumps(task))  # plainly, not as shared memory
        answered(ours, seconds)  # it has trained
        ours.send_bytes(pickle.dumps(images))
        entries = answered(ours, seconds)
    except BrokenPipeError:
        raise Refused(DIED) from None
    finally:
        process.kill()
        process.join()
        ours.close()
    return checked(entries, federations)


def without_test_images(federation: Federation) -> Federation:
    """The same clients with their training images alone. Their first training image stands for the test ones."""
    data = federation.data
    train = []
    first = 0
    for index in federation.train:
        train.append(torch.arange(first, first + len(index)))
        first += len(index)
    held = torch.cat(federation.train)
    of_training = replace(data, x=data.x[held], y=data.y[held], own_test=0)
    return Federation(of_training, tuple(train), tuple(index[:1] for index in train))


def test_images(federation: Federation) -> list[Tensor]:
    """Every client's test images (n_i, C, H, W), as the data set has them."""
    return [federation.data.x[index] for index in federation.test]


def answered(line: Connection, seconds: float) -> Any:
    """What the other process says; Refused, in words, where it complains or says nothing."""
    try:
        answer = wire.unpack(wire.received(line, seconds))
    except TimeoutError:
        raise Refused(f"it has not finished within {seconds:.0f} seconds") from None
    except (EOFError, OSError, ValueError):
        raise Refused(DIED) from None
    is_answer = isinstance(answer, tuple) and len(answer) == 2
    if not is_answer or answer[0] not in ("done", "refused"):
        raise Refused(UNREADABLE)
    if answer[0] == "refused":
        raise Refused(str(answer[1]))
    return answer[1]


def checked(entries: Any, federations: Sequence[Federation]) -> list[Entry]:
    """Entries as they must be: finite logits (n_i, C) of every client, and a number of steps. Refused otherwise."""
    if not isinstance(entries, list) or len(entries) != len(federations):
        raise Refused(UNREADABLE)
    for entry, federation in zip(entries, federations, strict=True):
        is_pair = isinstance(entry, tuple) and len(entry) == 2
        if not is_pair or type(entry[1]) is not int or entry[1] < 0:
            raise Refused(UNREADABLE)
        check_logits(entry[0], federation)
    return [Entry(*entry) for entry in entries]


def check_logits(logits: Any, federation: Federation) -> None:
    """Refused unless logits are there for every client's test images, (n_i, C), finite."""
    classes = len(federation.data.classes)
    shapes = [(len(index), classes) for index in federation.test]
    is_list = isinstance(logits, list) and all(isinstance(of_client, Tensor) for of_client in logits)
    if not is_list or [tuple(of_client.shape) for of_client in logits] != shapes:
        raise Refused(f"predict must give one logit for each image and class, (n, {classes})")
    if not all(bool(of_client.float().isfinite().all()) for of_client in logits):
        raise Refused("predict gives logits that are not finite")
