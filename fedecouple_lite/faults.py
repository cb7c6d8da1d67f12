"""Faults: clients that drop out, come too late or send nonsense, and what a round does about it.

A fault is a frozen dataclass with two pure hooks: `before` a client trains (it may be away) and `after` (what it sends
may get lost, be late or broken). All that is random is drawn with (seed, the fault's place in the list, round, client),
apart from what batches and cohorts are drawn with: a fault that strikes nobody changes nothing, and a resumed run meets
the same faults as the uninterrupted one.

A round goes by what became of each client of its cohort, its fate:

- away: it has not trained. It stays as it was.
- lost, late: it has trained and keeps what it learned; the server has nothing of it.
- refused: its code raised an error, or its tensors or its upload are unsound: not finite, or not of the form that the
  method's uploads have. It stays as it was before the round, and the server has nothing of it.
- arrived: all is well.

`rounds(..., min_uploads=n)` says what to do. None, the default, stops at the first client that would be refused, with
its error. A number goes on with those that arrived, says in the record who did not and why, and stops with
TooFewUploads where fewer than n have arrived. Whether or not faults are injected, every upload is inspected before the
server takes it. Clients' code runs for the evaluation, too: an error there is not a round's, and stops the run.

Examples
--------
>>> from fedecouple_lite import load, make, net_for, rounds, split
>>> federation = split(load("digits"), clients=6, per_client=40)
>>> net = net_for((1, 8, 8), 10)
>>> faults = [DropBefore(0.2), Broken(clients=[5], how="nan")]
>>> state = next(rounds(make("fedrep", epochs=1), net, federation, rounds=1, faults=faults, min_uploads=2))
>>> report = state.records[-1]["faults"]
>>> report["refused"], report["why"]
([5], ['FloatingPointError: FedRep, client 5, round 1: extractor.0.weight is no longer finite; try an lr below 0.1'])
>>> sorted(state.joined | set(report["away"]) | set(report["refused"]))
[0, 1, 2, 3, 4, 5]
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .client import ClientResult, LocalData, OneClient, first_not_finite, run_phases
from .errors import is_number, is_whole_number, nearest, require
from .methods import FedAvg
from .models import DecoupledNet
from .phases import Train
from .tensors import Tensors

FAULT = 5  # what a stream of random numbers is for, beside the engine's purposes
ARRIVED, AWAY, LOST, LATE, REFUSED = "arrived", "away", "lost", "late", "refused"
WHY = "why"  # why those that were refused were, in a record
HOW = ("raises", "nan", "shape", "missing", "extra", "dtype")
NOTHING: Tensors = {}  # what a client was sent before its round


class InjectedFault(RuntimeError):
    """What a client raises that `Broken` makes raise."""


class TooFewUploads(RuntimeError):
    """Fewer clients' uploads have arrived in a round than it needs."""


class Turn(NamedTuple):
    """A client's turn in a round.

    place: the fault's number in the list of faults, or the defence's in that of defences. download: what the client was
    sent; empty before it trains. purpose: what its random numbers are for, so that a fault and a defence at one place
    draw apart.
    """

    seed: int
    place: int
    round: int
    client: int
    download: Tensors = NOTHING
    purpose: int = FAULT

    def rng(self) -> np.random.Generator:
        """The generator of this fault, in this round, for this client."""
        return np.random.default_rng([self.seed, self.purpose, self.place, self.round, self.client])

    def rng_of_client(self) -> np.random.Generator:
        """The generator of this fault for this client, the same in every round."""
        return np.random.default_rng([self.seed, self.purpose, self.place, 0, self.client])  # rounds begin at 1


class Outcome(NamedTuple):
    """What became of a client in a round.

    fate: one of ARRIVED, AWAY, LOST, LATE, REFUSED. result: what its training left; None where it has not trained, or
    did not get to the end. error: why it was refused, and always there where it was.
    """

    fate: str
    result: ClientResult | None = None
    error: Exception | None = None


class Fault:
    """Something that may go wrong with a client in a round. A subclass overrides one of the hooks, or both; they are
    pure: the same turn and result give the same outcome."""

    def before(self, turn: Turn) -> Outcome | None:
        """What became of a client that does not train; None for one that does."""
        return None

    def after(self, turn: Turn, result: ClientResult) -> Outcome:
        """What became of a client that has trained, and of what it sends. No tensor of `result` changes."""
        return Outcome(ARRIVED, result)

    def check(self, clients: int) -> None:
        """Raise ValueError where the fault cannot strike in a federation of so many clients."""


@dataclass(frozen=True)
class DropBefore(Fault):
    """A client is away: each in each round with this probability. share: in [0, 1]; 0 is nobody."""

    share: float

    def __post_init__(self) -> None:
        check_share(self.share)

    def before(self, turn: Turn) -> Outcome | None:
        return Outcome(AWAY) if turn.rng().random() < self.share else None


@dataclass(frozen=True)
class DropAfter(Fault):
    """A client trains, and its upload is lost: each in each round with this probability. share: in [0, 1]."""

    share: float

    def __post_init__(self) -> None:
        check_share(self.share)

    def after(self, turn: Turn, result: ClientResult) -> Outcome:
        return Outcome(LOST if turn.rng().random() < self.share else ARRIVED, result)


@dataclass(frozen=True)
class Deadline(Fault):
    """A client that is too slow is late, and the server goes on without its upload.

    Time is counted in gradient steps, so that it can be repeated on every machine. steps: > 0, how many a client of
    speed 1 makes in time. spread: >= 0, of the speeds' logarithms: each client's speed is drawn once, log-normal with
    median 1; with 0 all are equally fast. Who would need more steps than speed x steps is late.
    """

    steps: float
    spread: float = 0.5

    def __post_init__(self) -> None:
        require(is_number(self.steps) and self.steps > 0, "steps", self.steps, "a number above 0")
        require(is_number(self.spread) and 0 <= self.spread <= 10, "spread", self.spread, "a number from 0 to 10")

    def speed(self, turn: Turn) -> float:
        """The client's speed, the same in every round."""
        return exp(self.spread * turn.rng_of_client().standard_normal())

    def after(self, turn: Turn, result: ClientResult) -> Outcome:
        in_time = result.steps <= self.speed(turn) * self.steps
        return Outcome(ARRIVED if in_time else LATE, result)


@dataclass(frozen=True)
class Broken(Fault):
    """These clients fail in every round in which they take part.

    how: "raises" an error in place of training; "nan" in the first number of every tensor, of the upload and of those
    that stay; "shape", the first tensor of the upload has one more dimension, which a mean would not notice; "missing",
    the upload lacks its first tensor; "extra", it holds one more; "dtype", its first tensor has another kind of number.
    An upload without tensors, as Local's is, has none to misshape or to miss.
    """

    clients: Collection[int]
    how: str = "raises"

    def __post_init__(self) -> None:
        if not isinstance(self.how, str) or self.how not in HOW:
            raise ValueError(f"how={self.how!r} is unknown; {nearest(self.how, HOW)}")
        object.__setattr__(self, "clients", client_numbers(self.clients))

    def check(self, clients: int) -> None:
        check_there(self.clients, clients)

    def before(self, turn: Turn) -> Outcome | None:
        if self.how != "raises" or turn.client not in self.clients:
            return None
        return Outcome(REFUSED, error=InjectedFault(f"client {turn.client} fails in round {turn.round}"))

    def after(self, turn: Turn, result: ClientResult) -> Outcome:
        if turn.client not in self.clients:
            return Outcome(ARRIVED, result)
        if self.how == "nan":
            poisoned = result._replace(client=with_nan(result.client), upload=with_nan(result.upload))
            return Outcome(ARRIVED, poisoned)
        return Outcome(ARRIVED, result._replace(upload=misshapen(result.upload, self.how)))


def check_share(share: float) -> None:
    """Raise ValueError unless it is a probability."""
    require(is_number(share) and 0 <= share <= 1, "share", share, "a number from 0 to 1")


def client_numbers(clients: Any) -> tuple[int, ...]:
    """Clients' numbers, each once and in order; ValueError where it is no list of such."""
    good = isinstance(clients, Collection) and all(is_whole_number(k) and k >= 0 for k in clients)
    require(good, "clients", clients, "a list of clients' numbers, from 0 on")
    return tuple(sorted({int(k) for k in clients}))


def check_there(numbers: Collection[int], clients: int) -> None:
    """Raise ValueError unless they are numbers of a federation of so many clients."""
    there = all(k < clients for k in numbers)
    require(there, "clients", numbers, f"numbers from 0 to {clients - 1}, the federation's clients")


def with_nan(tensors: Tensors) -> Tensors:
    """Copies, the first number of each NaN; whole numbers, which cannot be, as they are."""
    poisoned = {}
    for name, tensor in tensors.items():
        copy = tensor.clone(memory_format=torch.contiguous_format)
        if copy.is_floating_point():
            copy.view(-1)[:1] = torch.nan
        poisoned[name] = copy
    return poisoned


def misshapen(upload: Tensors, how: str) -> Tensors:
    """The upload, its first tensor broken: by "shape", "missing", "extra" or "dtype" (see `Broken`)."""
    if how == "extra":
        return {**upload, "extra.0": torch.zeros(1)}
    if not upload:
        return upload
    first = next(iter(upload))
    tensor = upload[first]
    if how == "missing":
        return {name: other for name, other in upload.items() if name != first}
    if how == "shape":
        return {**upload, first: tensor[None]}
    other_dtype = torch.float32 if tensor.dtype == torch.float64 else torch.float64
    return {**upload, first: tensor.to(other_dtype)}


# --- A round with faults: its steps, in order ---


def before_training(faults: Sequence[Fault], seed: int, t: int, cohort: Sequence[int]) -> dict[int, Outcome]:
    """Those of the cohort who do not train in round t, and what became of them: the first fault that strikes."""
    absent = {}
    for k in cohort:
        for place, fault in enumerate(faults):
            outcome = fault.before(Turn(seed, place, t, k))
            if outcome is not None:
                absent[k] = outcome
                break
    return absent


def after_training(
    faults: Sequence[Fault],
    seed: int,
    t: int,
    outcomes: Mapping[int, Outcome],
    downloads: Mapping[int, Tensors],
) -> dict[int, Outcome]:
    """What became of those who have trained in round t: one fault after the other, until one keeps the upload back.

    downloads: what each client whose upload would arrive was sent.
    """
    struck = {}
    for k, outcome in outcomes.items():
        for place, fault in enumerate(faults):
            if outcome.fate != ARRIVED or outcome.result is None:
                break
            turn = Turn(seed, place, t, k, downloads[k])
            outcome = fault.after(turn, outcome.result)
        struck[k] = outcome
    return struck


class Look(NamedTuple):
    """What a tensor looks like from outside."""

    shape: tuple[int, ...]
    dtype: torch.dtype


Form = dict[str, Look]  # what an upload looks like, by name


def form_of_upload(method: FedAvg, net: DecoupledNet, client: Tensors, download: Tensors, data: LocalData) -> Form:
    """What the client's upload must look like: as it does after a round without a single step of training. ValueError
    where the method's `upload` gives something else than tensors by name."""
    without_steps = []
    for phase in method.phases():
        without_steps.append(replace(phase, epochs=0) if isinstance(phase, Train) else phase)
    received = method.receive(client, download)
    untrained = run_phases(tuple(without_steps), received, OneClient(method, net, download, data))
    upload = method.upload(untrained.tensors)
    are_tensors = isinstance(upload, Mapping) and all(isinstance(tensor, Tensor) for tensor in upload.values())
    if not are_tensors:
        raise ValueError(f"{type(method).__name__}.upload gave {type(upload).__name__}; wanted are tensors by name")
    return {name: Look(tuple(tensor.shape), tensor.dtype) for name, tensor in upload.items()}


def unlike(upload: Any, form: Form) -> str | None:
    """In what the upload is not of this form, in words; None where it is."""
    if not isinstance(upload, Mapping):
        return f"is {type(upload).__name__}, not tensors by name"
    for name in form:
        if name not in upload:
            return f"lacks {name}"
    for name, tensor in upload.items():
        if name not in form:
            return f"holds {name}, which the method's uploads do not"
        if not isinstance(tensor, Tensor):
            return f"holds {type(tensor).__name__} for {name}, not a tensor"
        look = Look(tuple(tensor.shape), tensor.dtype)
        if look.shape != form[name].shape:
            return f"holds {name} of shape {look.shape}, not {form[name].shape}"
        if look.dtype != form[name].dtype:
            return f"holds {name} in {look.dtype}, not {form[name].dtype}"
    return None


def error_in(method: FedAvg, t: int, k: int, outcome: Outcome, difference: str | None) -> Exception | None:
    """What is unsound in what client k's training left, as the error to raise; None where all is well.

    difference: in what its upload is not of the form it should have (`unlike`). What has not arrived is not looked at,
    but for what stays with the client.
    """
    if outcome.result is None:
        return outcome.error
    result = outcome.result
    where = f"{type(method).__name__}, client {k}, round {t}"
    advice = f"try an lr below {method.lr}"
    loss = float(result.loss)
    if not np.isfinite(loss):
        return FloatingPointError(f"{where}: the loss is {loss}; {advice}")
    name = first_not_finite(result.client)
    if outcome.fate == ARRIVED:
        if difference is not None:
            return ValueError(f"{where}: its upload {difference}")
        # What is sent is mostly what stays, the same tensors: not looked at twice.
        only_sent = {n: tensor for n, tensor in result.upload.items() if tensor is not result.client.get(n)}
        name = name or first_not_finite(only_sent)
    if name is not None:
        return FloatingPointError(f"{where}: {name} is no longer finite; {advice}")
    return None


def check_outcomes(method: FedAvg, outcomes: Mapping[int, Outcome], min_uploads: int | None, t: int) -> None:
    """Raise what stops the run, if anything does: the first error, where none is allowed (min_uploads None); or
    TooFewUploads."""
    if min_uploads is None:
        for outcome in outcomes.values():
            if outcome.error is not None:
                raise outcome.error
        return
    uploads = len(arrived(outcomes))
    if uploads < min_uploads:
        where = f"{type(method).__name__}, round {t}"
        needed = f"{uploads} sound uploads of a cohort of {len(outcomes)}, and min_uploads={min_uploads}"
        raise TooFewUploads(f"{where}: {needed}{in_words(report(outcomes))}")


def arrived(outcomes: Mapping[int, Outcome]) -> dict[int, ClientResult]:
    """The results whose uploads the server takes, by client."""
    return with_fate(outcomes, (ARRIVED,))


def kept(outcomes: Mapping[int, Outcome]) -> dict[int, ClientResult]:
    """The results that stay with their clients, by client: those whose uploads arrived, were lost or late."""
    return with_fate(outcomes, (ARRIVED, LOST, LATE))


def with_fate(outcomes: Mapping[int, Outcome], fates: Iterable[str]) -> dict[int, ClientResult]:
    """The results of clients with one of these fates."""
    fates = tuple(fates)
    results = {}
    for k, outcome in outcomes.items():
        if outcome.fate in fates and outcome.result is not None:
            results[k] = outcome.result
    return results


def report(outcomes: Mapping[int, Outcome]) -> dict[str, Any]:
    """What a record says of a round's faults: who was away, lost, late and refused, and "why", a reason for each of the
    refused. Lists, which are the same when they have been written as JSON and read back."""
    told: dict[str, Any] = {}
    for fate in (AWAY, LOST, LATE, REFUSED):
        told[fate] = [k for k, outcome in outcomes.items() if outcome.fate == fate]
    told[WHY] = []
    for k in told[REFUSED]:
        error = outcomes[k].error
        told[WHY].append(f"{type(error).__name__}: {error}")
    return told


def in_words(told: Mapping[str, Any]) -> str:
    """The same for a message: "; away: 3, 4; client 2 refused (ValueError: ...)"."""
    words = ""
    for fate in (AWAY, LOST, LATE):
        if told[fate]:
            words += f"; {fate}: {', '.join(str(k) for k in told[fate])}"
    for k, reason in zip(told[REFUSED], told[WHY], strict=True):
        words += f"; client {k} refused ({reason})"
    return words


def check_faults(faults: Any, min_uploads: int | None, clients: int, cohort: int) -> None:
    """Raise ValueError, naming the argument, for faults or a number of uploads that cannot be.

    clients: of the federation; cohort: how many are drawn for a round.
    """
    good = isinstance(faults, Sequence) and all(isinstance(fault, Fault) for fault in faults)
    require(good, "faults", faults, "a list of faults, such as [DropBefore(0.1)]")
    for fault in faults:
        fault.check(clients)
    if min_uploads is not None:
        good = is_whole_number(min_uploads) and 0 <= min_uploads <= cohort
        require(good, "min_uploads", min_uploads, f"None, or a whole number from 0 to the cohort's size, {cohort}")
