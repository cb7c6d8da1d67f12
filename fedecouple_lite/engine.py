"""The engine: rounds of clients make a federated run.

``for state in rounds(method, net, federation, rounds=20): ...`` is the whole interface. Break to stop; pass the state
back to go on: all randomness comes from (seed, round, client), so a resumed run equals the uninterrupted one.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .augment import AUGMENTATIONS
from .client import CHUNK, ClientResult, LocalData, OneClient, Stopped, client_round, first_not_finite, run_phases
from .data import Dataset
from .defence import Defence, Received, check_defences, protect, receive
from .errors import SEED, is_number, is_seed, is_whole_number, nearest, require
from .faults import (
    ARRIVED,
    REFUSED,
    Fault,
    Form,
    Outcome,
    after_training,
    arrived,
    before_training,
    check_faults,
    check_outcomes,
    error_in,
    form_of_upload,
    kept,
    report,
    unlike,
)
from .hyper import hypers
from .methods import FedAvg
from .metrics import over_clients
from .models import DecoupledNet
from .partition import Federation
from .precision import check_precision
from .stacked import CannotStack, predict_stack, stack_phases, stack_rounds
from .tensors import CLASSIFIER, EXTRACTOR, Tensors, nbytes

# What a stream of random numbers is for; 0 is the split's, 5 that of faults, 6 that of newcomers, 7 that of defences, 8
# that of who attacks and which images are poisoned, 9 that of inversions.
COHORT, TRAIN, PREDICT, AUGMENT = 1, 2, 3, 4
BACKENDS = ("auto", "loop", "threads", "vmap")
# Clients trained at once by "vmap", by device; fixed, so that results do not depend on the number of cores.
MAX_STACK = {"cpu": 10, "cuda": 128}
NO_LABEL = -1  # of padding behind a client's test images: no prediction is equal to it


@dataclass(frozen=True)
class Origin:
    """What a State belongs to: the method's class, digests of the net's structure and of the federation, and the dtype
    that images come in."""

    method: str
    net: str
    federation: str
    dtype: str

    @classmethod
    def of(cls, method: FedAvg, net: DecoupledNet, federation: Federation) -> Origin:
        return cls(cls.name_of(method), net.structure, federation.digest, str(federation.data.mean.dtype))

    @staticmethod
    def name_of(method: FedAvg) -> str:
        """The method's class, with the module that it is in."""
        kind = type(method)
        return f"{kind.__module__}.{kind.__qualname__}"


@dataclass(frozen=True, eq=False)
class State:
    """A federated run after `round` rounds: all its tensors, and a record for each evaluated round.

    A record is a dictionary: round; of this round's training loss (mean over clients), steps (gradient steps of all
    clients), upload_bytes and download_bytes (of one client, on average) and seconds; and the accuracies that
    `evaluate` explains. Between evaluations the last record is an earlier round's, or there is none yet. Where `rounds`
    is given faults or min_uploads, a record has "faults", too: which clients were away, lost and late in its round, and
    why others were refused (`faults.report`).

    joined: the clients that have taken part in a round. origin: what the state belongs to; None where that is not
    known, as with a state made by hand, and then it is not checked. backend: the one that trained the last round; None
    before the first.
    """

    round: int
    server: Tensors
    clients: tuple[Tensors, ...]
    records: tuple[dict[str, Any], ...] = ()
    joined: frozenset[int] = frozenset()
    origin: Origin | None = None
    backend: str | None = None


def start(method: FedAvg, net: DecoupledNet, federation: Federation, seed: int = 0) -> State:
    """The state before the first round: the same weights for the server and all clients."""
    data = federation.data
    weights = net.init(seed, data.mean.dtype, data.y.device)  # images come in the mean's dtype
    client = method.init(weights)
    origin = Origin.of(method, net, federation)
    return State(0, method.init_server(weights), (client,) * len(federation), origin=origin)


def rounds(
    method: FedAvg,
    net: DecoupledNet,
    federation: Federation,
    *,
    rounds: int,
    seed: int = 0,
    participation: float = 1.0,
    backend: str = "auto",
    eval_every: int = 1,
    augment: str | None = None,
    state: State | None = None,
    faults: Sequence[Fault] = (),
    min_uploads: int | None = None,
    defences: Sequence[Defence] = (),
) -> Iterator[State]:
    """Train until `rounds` rounds are done in all, yielding the State after each; `state` is where to go on.

    Nothing is yielded where `state` has so many rounds already. To go on as if there had been no break, give the same
    arguments again. Like every generator it begins, and raises its errors, at the first `next`.

    participation: in (0, 1], the share of clients drawn for each round's cohort, at least one. eval_every: rounds
    between evaluations; the last round always has one. augment: "crop_flip" trains on colour images shifted by up to
    four pixels and flipped at random. backend: "auto" is "vmap" or "threads", and falls back to threads where "vmap"
    cannot compute the same. A client without training images keeps what it has and uploads nothing.

    faults: what goes wrong with clients, such as [DropBefore(0.1)] (see `faults`). min_uploads: None stops at the first
    client whose training raises an error or leaves something unsound; a number, at most the cohort's size, goes on with
    the others for as long as so many of their uploads arrive, and the records say who failed and why. defences: what
    protects the run from clients, or clients from the server, such as [CoordinateMedian()], one after the other (see
    `defence`).

    Raises ValueError for an argument outside its range, a `state` of another method, net or federation, or an upload
    that is not of the method's form; FloatingPointError where the loss or weights of a client, or the server's next
    tensors, are not finite; faults.TooFewUploads where fewer than min_uploads have arrived.

    Examples
    --------
    >>> from fedecouple_lite import load, make, net_for, split
    >>> data = load("digits")
    >>> federation = split(data, clients=4, per_client=40)
    >>> net = net_for(data.in_shape, len(data.classes))
    >>> for state in rounds(make("fedecouple", epochs=1), net, federation, rounds=2):
    ...     print(state.round, sorted(state.records[-1])[:3])
    1 ['accuracies', 'download_bytes', 'global']
    2 ['accuracies', 'download_bytes', 'global']
    >>> later = next(rounds(make("fedecouple", epochs=1), net, federation, rounds=3, state=state))
    >>> later.round
    3
    """
    check_arguments(net, federation, rounds, seed, participation, eval_every, augment)
    check_faults(faults, min_uploads, len(federation), cohort_size(federation, participation))
    check_defences(defences, method, cohort_size(federation, participation))
    check_origin(state, method, net, federation)
    rounds, seed = int(rounds), int(seed)  # where NumPy's were given
    backends: Sequence[str] = backends_for(backend, federation.data)
    if state is None:
        state = start(method, net, federation, seed)
    if state.backend in backends:  # one before it could not compute an earlier round: it is not tried again
        backends = backends[backends.index(state.backend) :]
    pool = Pool(net, threads_for(backends, federation.data))
    forms = Forms(method, net, federation)
    tolerant = min_uploads is not None
    try:
        while state.round < rounds:
            began = perf_counter()
            t = state.round + 1
            cohort = draw_cohort(federation, participation, seed, t)
            absent = before_training(faults, seed, t, cohort)
            present = [k for k in cohort if k not in absent]
            trained, backends = train_cohort(
                method, federation, state, present, seed, backends, augment, pool, tolerant
            )
            downloads = downloads_of(method, state, trained)
            sent = send_through(defences, seed, t, trained, downloads)
            outcomes = absent | after_training(faults, seed, t, sent, downloads)
            outcomes = inspect(method, state, outcomes, forms)
            check_outcomes(method, outcomes, min_uploads, t)
            server = aggregate(method, net, federation, state.server, arrived(outcomes), defences)
            check_server(method, server, t)
            state = replace(next_state(state, server, kept(outcomes)), backend=backends[0])
            if t % eval_every == 0 or t == rounds:
                costs = cost_of_round(method, server, kept(outcomes))
                costs["seconds"] = perf_counter() - began  # of training
                record = {"round": t} | costs | evaluate(method, federation, state, seed, pool)
                if faults or tolerant:
                    record["faults"] = report(outcomes)
                state = replace(state, records=(*state.records, record))
            yield state
    finally:
        pool.close()


def check_arguments(
    net: DecoupledNet,
    federation: Federation,
    rounds: int,
    seed: int,
    participation: float,
    eval_every: int,
    augment: str | None,
) -> None:
    """Raise ValueError, naming the argument, where the function `rounds` cannot run with it."""
    data = federation.data
    require(is_whole_number(rounds) and rounds >= 1, "rounds", rounds, "a whole number >= 1 (in all)")
    require(is_whole_number(eval_every) and eval_every >= 1, "eval_every", eval_every, "a whole number >= 1")
    require(is_seed(seed), "seed", seed, SEED)
    good_share = is_number(participation) and 0 < participation <= 1
    require(good_share, "participation", participation, "above 0 and at most 1")
    if net.in_shape != data.in_shape or net.classes < len(data.classes):
        wanted = f"{data.in_shape} and {len(data.classes)} classes"
        raise ValueError(f"net takes images {net.in_shape} and {net.classes} classes; data={data.name!r} has {wanted}")
    check_precision(net.precision, data.mean)  # images come in the mean's dtype
    if augment is not None:
        known = isinstance(augment, str) and augment in AUGMENTATIONS
        require(known, "augment", augment, f"one of {', '.join(AUGMENTATIONS)}, or None")
        require(data.in_shape[0] == 3, "augment", augment, f"None for images of shape {data.in_shape}: not in colour")


def check_origin(state: State | None, method: FedAvg, net: DecoupledNet, federation: Federation) -> None:
    """Raise ValueError where `state` belongs to another method, net or federation. Hyper-parameters may change."""
    if state is None:
        return
    if len(state.clients) != len(federation):
        raise ValueError(f"state has {len(state.clients)} clients; federation has {len(federation)}")
    if state.origin is None:
        return
    here = Origin.of(method, net, federation)
    for name in ("method", "net", "federation", "dtype"):
        before = getattr(state.origin, name)
        now = getattr(here, name)
        if before != now:
            raise ValueError(f"state belongs to another {name} ({before}, not {now}): start anew, with state=None")


def draw_cohort(federation: Federation, participation: float, seed: int, t: int) -> list[int]:
    """The clients that take part in round t, in order: a share of them, at least one, drawn anew in every round. Of
    these, the ones without training images do not take part."""
    size = cohort_size(federation, participation)
    order = np.random.default_rng([seed, COHORT, t]).permutation(len(federation))
    return sorted(k for k in order[:size].tolist() if len(federation.train[k]))


def cohort_size(federation: Federation, participation: float) -> int:
    """How many clients are drawn for a round: this share of them, at least one."""
    return max(1, round(participation * len(federation)))


def train_cohort(
    method: FedAvg,
    federation: Federation,
    state: State,
    cohort: Sequence[int],
    seed: int,
    backends: Sequence[str],
    augment: str | None,
    pool: Pool,
    tolerant: bool,
) -> tuple[dict[int, Outcome], Sequence[str]]:
    """One round of every client of the cohort: what became of it, by client number; and the backends to go on with.

    backends: those to try, the best first; one that cannot compute this method and net leaves it to the next. tolerant:
    a client whose code raises an error is refused, and the others go on; where off, the error is raised.
    """
    backend, *others = backends
    most = MAX_STACK.get(federation.data.y.device.type, 1) if backend == "vmap" else 1
    stacks = stacks_of(federation, cohort, most)
    train = partial(train_stack, method, federation, state, seed, augment, pool.stop)
    task = partial(train_around_failures if tolerant else train_all, train)
    try:
        parts = pool.map(task, stacks)
    except CannotStack:
        if not others:
            raise
        pool.reopen()
        return train_cohort(method, federation, state, cohort, seed, others, augment, pool, tolerant)
    outcomes = {}
    for part in parts:
        outcomes.update(part)
    return outcomes, backends


# A stack's round: (net, client numbers) -> a result for each.
TrainStack = Callable[[DecoupledNet, Sequence[int]], dict[int, ClientResult]]


def train_all(train: TrainStack, net: DecoupledNet, stack: Sequence[int]) -> dict[int, Outcome]:
    """What became of the clients of a stack, where all of them get to the end."""
    return {k: Outcome(ARRIVED, result) for k, result in train(net, stack).items()}


def train_around_failures(train: TrainStack, net: DecoupledNet, stack: Sequence[int]) -> dict[int, Outcome]:
    """What became of the clients of a stack, some of whom may raise an error: those are refused, and the others are
    trained as if they had not been there."""
    try:
        return train_all(train, net, stack)
    except Stopped:  # the whole run is being given up
        raise
    except CannotStack as error:
        if error.__cause__ is None:  # there is a cause where an error was raised, maybe in one client's code
            raise
        in_stack: Exception = error
    except Exception as error:
        if len(stack) == 1:
            return {stack[0]: Outcome(REFUSED, error=error)}
        in_stack = error

    # A stack does not say whose error it was: each client by itself does.
    refused: dict[int, Outcome] = {}
    for k in stack:
        (outcome,) = train_around_failures(train, net, [k]).values()
        if outcome.fate == REFUSED:
            refused[k] = outcome
    if not refused:
        raise in_stack
    others = [k for k in stack if k not in refused]
    if not others:
        return refused
    return refused | train_around_failures(train, net, others)


def train_stack(
    method: FedAvg,
    federation: Federation,
    state: State,
    seed: int,
    augment: str | None,
    stop: threading.Event,
    net: DecoupledNet,
    stack: Sequence[int],
) -> dict[int, ClientResult]:
    """The round of the clients numbered in `stack`: of one client by itself, of several at once."""
    key = [seed, TRAIN, state.round + 1]
    data = [local_data(federation, method, k, key, stop, augment) for k in stack]
    downloads = [method.send(state.server, k) for k in stack]
    clients = [client_of(method, state, k, download) for k, download in zip(stack, downloads, strict=True)]
    if len(stack) == 1:
        results = [client_round(method, net, clients[0], downloads[0], data[0])]
    else:
        results = stack_rounds(method, net, clients, downloads, data)
    return dict(zip(stack, results, strict=True))


def stacks_of(federation: Federation, cohort: Sequence[int], most: int) -> list[list[int]]:
    """The cohort in stacks of at most `most` clients, largest first, dealt out so that all take equally long."""
    largest_first = sorted(cohort, key=lambda k: -len(federation.train[k]))
    number = -(-len(largest_first) // most)  # rounded up
    return [largest_first[i::number] for i in range(number)]


def client_of(method: FedAvg, state: State, k: int, download: Tensors) -> Tensors:
    """Client k's tensors: those that it kept, or those that it would start with now if it has never taken part."""
    client = state.clients[k]
    return client if k in state.joined else method.join(client, download)


def downloads_of(method: FedAvg, state: State, outcomes: Mapping[int, Outcome]) -> dict[int, Tensors]:
    """What each client that has got to the end of its round was sent."""
    return {k: method.send(state.server, k) for k in arrived(outcomes)}


def send_through(
    defences: Sequence[Defence],
    seed: int,
    t: int,
    outcomes: Mapping[int, Outcome],
    downloads: Mapping[int, Tensors],
) -> dict[int, Outcome]:
    """The outcomes of round t's training, each upload as the defences let it leave its client."""
    sent = dict(outcomes)
    for k, result in arrived(outcomes).items():
        upload = protect(defences, seed, t, k, downloads[k], result.upload)
        sent[k] = Outcome(ARRIVED, result._replace(upload=upload))
    return sent


def next_state(state: State, server: Tensors, results: Mapping[int, ClientResult]) -> State:
    """The state after a round: the cohort's new tensors, everybody else's as they were."""
    clients = list(state.clients)
    for k, result in results.items():
        clients[k] = result.client
    return replace(
        state, round=state.round + 1, server=server, clients=tuple(clients), joined=state.joined | results.keys()
    )


class Forms:
    """What the uploads of a run must look like, by the method's own word: a client's round without a step of training.

    The method is asked once, and again for an upload that looks otherwise: one of a user's own may have other uploads
    for other clients or in later rounds.
    """

    def __init__(self, method: FedAvg, net: DecoupledNet, federation: Federation):
        self.method = method
        self.net = net
        self.federation = federation
        self.known: Form | None = None

    def difference(self, state: State, k: int, upload: Tensors) -> str | None:
        """In what client k's upload in the round after `state` is not of its form, in words; None where it is."""
        if self.known is None or unlike(upload, self.known) is not None:
            self.known = self.of_client(state, k)
        return unlike(upload, self.known)

    def of_client(self, state: State, k: int) -> Form:
        """The form of client k's upload in the round after `state`."""
        data = local_data(self.federation, self.method, k, [0], threading.Event())  # of which no batch is drawn
        download = self.method.send(state.server, k)
        return form_of_upload(self.method, self.net, client_of(self.method, state, k, download), download, data)


def inspect(method: FedAvg, state: State, outcomes: Mapping[int, Outcome], forms: Forms) -> dict[int, Outcome]:
    """The outcomes of the round after `state`, in order of clients: who left something unsound is refused."""
    inspected = {}
    for k, outcome in sorted(outcomes.items()):
        difference = None
        if outcome.fate == ARRIVED and outcome.result is not None:
            difference = forms.difference(state, k, outcome.result.upload)
        error = error_in(method, state.round + 1, k, outcome, difference)
        inspected[k] = outcome if error is None else Outcome(REFUSED, error=error)
    return inspected


def check_server(method: FedAvg, server: Tensors, t: int) -> None:
    """Raise FloatingPointError where the server's next tensors are not finite, though all uploads were."""
    name = first_not_finite(server)
    if name is not None:
        where = f"{type(method).__name__}, round {t}"
        raise FloatingPointError(f"{where}: after aggregating, the server's {name} is no longer finite")


def aggregate(
    method: FedAvg,
    net: DecoupledNet,
    federation: Federation,
    server: Tensors,
    results: Mapping[int, ClientResult],
    defences: Sequence[Defence] = (),
) -> Tensors:
    """The server's next tensors, by the method's own rule from what the defences leave; as they were where nobody took
    part."""
    if not results:
        return server
    uploads = {k: result.upload for k, result in results.items()}
    sizes = {k: len(federation.train[k]) for k in results}
    received = receive(defences, server, Received(uploads, sizes))
    new = method.aggregate(server, received.uploads, received.weights)
    # A mean of equal values may differ from them in the last bit; frozen weights do not move.
    unmoved = {name: server[name] for name in new if net.is_frozen(name) and name in server}
    return {**new, **unmoved}


def cost_of_round(method: FedAvg, server: Tensors, results: Mapping[int, ClientResult]) -> dict[str, Any]:
    """What a record says of a round's training: the mean loss over clients (NaN where nobody took part), the gradient
    steps of all of them, and the bytes that one of them, on average, sends and then gets from the new server."""
    losses = [float(result.loss) for result in results.values()]
    uploads = [nbytes(result.upload) for result in results.values()]
    downloads = [nbytes(method.send(server, k)) for k in results]
    return {
        "loss": float(np.mean(losses)) if losses else float("nan"),
        "steps": sum(result.steps for result in results.values()),
        "upload_bytes": int(np.mean(uploads)) if uploads else 0,
        "download_bytes": int(np.mean(downloads)) if downloads else 0,
    }


def evaluate(method: FedAvg, federation: Federation, state: State, seed: int, pool: Pool) -> dict[str, Any]:
    """Accuracies after a round, by each client's own test images and, for the server's model, by all test images.

    personal: the model that a client has after its last local training. personal_received: what it would receive now,
    the server's current part beside the part of its own that it kept, before training. A method that fine-tunes only to
    predict does so from what is received, and has one figure for both. newcomers: how many clients have never taken
    part; such a client predicts with what the server would send it now. predict_steps: the gradient steps of all
    clients that were taken only to predict. global: NaN where the server holds no whole model.
    """
    of_clients = evaluate_clients(method, federation, state, seed, pool)
    sizes = [len(index) for index in federation.test]
    return accuracies_from(state, of_clients, sizes)


def accuracies_from(state: State, of_clients: Sequence[Hits], sizes: Sequence[int]) -> dict[str, Any]:
    """What `evaluate` says, from each client's hits and its number of test images, in order of clients."""
    accuracies = [share(of.trained, size) for of, size in zip(of_clients, sizes, strict=True)]
    received = [share(of.received, size) for of, size in zip(of_clients, sizes, strict=True)]
    of_server = float("nan")
    if has_model(state.server):
        of_server = share(sum(of.server for of in of_clients), sum(sizes))
    return {
        **over_clients(accuracies),
        "personal_received": over_clients(received)["personal"],
        "global": of_server,
        "newcomers": len(of_clients) - len(state.joined),
        "predict_steps": sum(of.steps for of in of_clients),
        "accuracies": accuracies,
    }


def share(right: int, images: int) -> float:
    """Of so many images, how many are right; NaN of none."""
    return right / images if images else float("nan")


def evaluate_clients(method: FedAvg, federation: Federation, state: State, seed: int, pool: Pool) -> list[Hits]:
    """Every client's test images under its three models: in stacks where the round was trained in stacks and the
    method's prediction can be stacked, too; else client by client."""
    everybody = range(len(federation))
    if state.backend == "vmap":
        stacks = stacks_of(federation, everybody, MAX_STACK.get(federation.data.y.device.type, 1))
        of_stack = partial(evaluate_stack, method, federation, state, seed, pool.stop)
        try:
            by_client: dict[int, Hits] = {}
            for part in pool.map(of_stack, stacks):
                by_client.update(part)
            return [by_client[k] for k in everybody]
        except CannotStack:
            pool.reopen()
    of_client = partial(evaluate_client, method, federation, state, seed, pool.stop)
    return pool.map(of_client, everybody)


class Hits(NamedTuple):
    """How many of a client's test images are right: by its model after local training, by what it would receive now,
    by the server's model; and the gradient steps taken only to predict."""

    trained: int
    received: int
    server: int
    steps: int


def evaluate_client(
    method: FedAvg,
    federation: Federation,
    state: State,
    seed: int,
    stop: threading.Event,
    net: DecoupledNet,
    k: int,
) -> Hits:
    """Client k's test images under the three models."""
    download = method.send(state.server, k)
    kept = client_of(method, state, k, download)
    of_server = state.server if has_model(state.server) else None
    at_hand = AtHand(kept, k in state.joined, download, of_server)
    return hits_of_client(method, federation, at_hand, seed, state.round, stop, net, k)


class AtHand(NamedTuple):
    """What a client is tested with.

    kept: its tensors; has_joined: whether it has ever taken part. download: what it would be sent now. of_server: the
    server's whole model; None where it holds none.
    """

    kept: Tensors
    has_joined: bool
    download: Tensors
    of_server: Tensors | None


def hits_of_client(
    method: FedAvg,
    federation: Federation,
    at_hand: AtHand,
    seed: int,
    t: int,
    stop: threading.Event,
    net: DecoupledNet,
    k: int,
) -> Hits:
    """Client k's test images under the three models after round t."""
    kept, has_joined, download, of_server = at_hand
    received = method.receive(kept, download)
    trained = kept if has_joined else received
    steps = 0
    phases = method.personalise()
    if phases:
        data = local_data(federation, method, k, [seed, PREDICT, t], stop)
        tuned = run_phases(phases, received, OneClient(method, net, download, data))
        steps = int(tuned.steps)
        trained = received = tuned.tensors
        check_tuned(method, t, k, tuned.tensors)

    right = torch.zeros(3, dtype=torch.int64, device=federation.data.y.device)  # trained, received, the server's
    with torch.no_grad():
        for index in federation.test[k].split(CHUNK):
            x, y = images_of(federation, index)
            of_trained = hits(method.predict(net, trained, download, x), y)
            of_received = of_trained
            if received is not trained:
                of_received = hits(method.predict(net, received, download, x), y)
            by_server_model = torch.zeros_like(of_trained)
            if of_server is not None:
                by_server_model = hits(net.logits(of_server, x), y)
            right += torch.stack([of_trained, of_received, by_server_model])
    by_trained, by_received, by_server = right.tolist()
    return Hits(by_trained, by_received, by_server, steps)


def evaluate_stack(
    method: FedAvg,
    federation: Federation,
    state: State,
    seed: int,
    stop: threading.Event,
    net: DecoupledNet,
    stack: Sequence[int],
) -> dict[int, Hits]:
    """evaluate_client for the clients numbered in `stack`, at once, by client number.

    Raises CannotStack where the method cannot predict for several clients at once.
    """
    downloads = [method.send(state.server, k) for k in stack]
    kept = [client_of(method, state, k, download) for k, download in zip(stack, downloads, strict=True)]
    received = [method.receive(client, download) for client, download in zip(kept, downloads, strict=True)]
    trained = []
    for k, before_round, client in zip(stack, received, kept, strict=True):
        trained.append(client if k in state.joined else before_round)
    steps = [0] * len(stack)
    phases = method.personalise()
    if phases:
        data = [local_data(federation, method, k, [seed, PREDICT, state.round], stop) for k in stack]
        tuned = stack_phases(method, net, phases, received, downloads, data)
        steps = [int(of_client.steps) for of_client in tuned]
        trained = received = [of_client.tensors for of_client in tuned]
        for k, tensors in zip(stack, trained, strict=True):
            check_tuned(method, state.round, k, tensors)

    tests = [images_of(federation, federation.test[k]) for k in stack]
    images = pad_sequence([x for x, _ in tests], batch_first=True)  # (K, n, *in_shape), zeros at the end
    labels = pad_sequence([y for _, y in tests], batch_first=True, padding_value=NO_LABEL)  # (K, n)
    right = torch.zeros(3, len(stack), dtype=torch.int64, device=labels.device)  # trained, received, the server's
    chunk = max(1, CHUNK // len(stack))
    with torch.no_grad():
        for first in range(0, labels.shape[1], chunk):
            x = images[:, first : first + chunk]
            y = labels[:, first : first + chunk]
            of_trained = hits_of_stack(predict_stack(method, net, trained, downloads, x), y)
            of_received = of_trained
            if received is not trained:
                of_received = hits_of_stack(predict_stack(method, net, received, downloads, x), y)
            of_server = torch.zeros_like(of_trained)
            if has_model(state.server):
                logits = net.logits(state.server, x.flatten(0, 1))
                of_server = hits_of_stack(logits.unflatten(0, y.shape), y)
            right += torch.stack([of_trained, of_received, of_server])
    by_trained, by_received, by_server = right.tolist()  # (K,) each
    by_client = {}
    for place, k in enumerate(stack):
        by_client[k] = Hits(by_trained[place], by_received[place], by_server[place], steps[place])
    return by_client


def check_tuned(method: FedAvg, t: int, k: int, tensors: Tensors) -> None:
    """Raise FloatingPointError where client k's tensors, fine-tuned to predict after round t, are not finite."""
    name = first_not_finite(tensors)
    if name is not None:
        where = f"{type(method).__name__}, client {k}, after round {t}"
        step_sizes = " or ".join(hyper for hyper in hypers(method) if hyper.endswith("lr"))
        problem = f"fine-tuning to predict, {name} is no longer finite"
        raise FloatingPointError(f"{where}: {problem}; try a smaller {step_sizes}")


def hits_of_stack(logits: Tensor, y: Tensor) -> Tensor:
    """How many of each client's labels y (K, n) have the largest of the logits (K, n, C), (K,)."""
    return (logits.argmax(2) == y).sum(1)


def hits(logits: Tensor, y: Tensor) -> Tensor:
    """How many of the labels y (B,) have the largest of the logits (B, C), a scalar."""
    return (logits.argmax(1) == y).sum()


def has_model(tensors: Tensors) -> bool:
    """Whether both an extractor and a classifier are there."""
    return all(any(name.startswith(part) for name in tensors) for part in (EXTRACTOR, CLASSIFIER))


def images_of(federation: Federation, index: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised images and labels at `index`; larger images channels last, measured 1.4 times faster on 2 cores."""
    x = federation.data.images(index)
    if x.shape[-1] >= 28:
        # `to`, not `contiguous`, which leaves the strides of a single grey channel as they are.
        x = x.to(memory_format=torch.channels_last)
    return x, federation.data.y[index]


def local_data(
    federation: Federation,
    method: FedAvg,
    k: int,
    key: Sequence[int],
    stop: threading.Event,
    augment: str | None = None,
) -> LocalData:
    """Client k's training images, and batches drawn from the generator keyed by (*key, k)."""
    x, y = images_of(federation, federation.train[k])
    rng = np.random.default_rng([*key, k])
    most = min(method.batch_size, max(1, len(y)))

    def batches(epochs: int) -> Iterator[Tensor]:
        if len(y) == 0:
            return  # an empty order would be one batch of nothing, and a step of weight decay alone
        for _ in range(epochs):
            order = torch.from_numpy(rng.permutation(len(y)))
            yield from order.split(most)

    def check() -> None:
        if stop.is_set():
            raise Stopped

    draw_views = None
    if augment is not None:
        of_views = np.random.default_rng([*key, k, AUGMENT])
        draw_views = partial(AUGMENTATIONS[augment], of_views)
    return LocalData(x, y, batches, check, draw_views)


def backends_for(backend: str, data: Dataset) -> tuple[str, ...]:
    """The backends to try for these images and this device, the best first; one, unless `backend` is "auto".

    Measured (data/results/speed): on a CPU small images train fastest in stacks, larger ones client by client on a
    thread per core; a GPU is kept busy by one thread with a large stack.
    """
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; {nearest(backend, BACKENDS)}")
    if backend != "auto":
        return (backend,)
    on_cpu = data.y.device.type == "cpu"
    large = data.in_shape[-1] >= 28
    return ("threads",) if on_cpu and large else ("vmap", "threads")


def threads_for(backends: Sequence[str], data: Dataset) -> int:
    """A thread per core; one where clients go in turn, or where a GPU does the work."""
    one_thread = backends[0] == "loop" or data.y.device.type != "cpu"
    return 1 if one_thread else os.cpu_count() or 1


@contextmanager
def repeatable_on_gpu() -> Iterator[None]:
    """In between cuDNN computes the same every time, which else may add in any order, and multiplies float32 as such,
    which else it may round to TF32's ten bits; on a CPU this changes nothing."""
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.allow_tf32)
    cudnn.deterministic = True
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.allow_tf32 = before


class Pool:
    """Tasks, one per client or stack, on `workers` threads.

    PyTorch uses a single core inside each of these threads, so that results do not depend on the number of cores. Each
    has a net of its own: while a net computes, `functional_call` has one client's weights in its modules.
    """

    def __init__(self, net: DecoupledNet, workers: int):
        self.net = net
        self.workers = workers
        self.reopen()

    def reopen(self) -> None:
        """Begin, or begin again after an error has closed the pool."""
        self.local = threading.local()
        self.stop = threading.Event()
        self.executor = ThreadPoolExecutor(self.workers, "client", self._prepare)

    def _prepare(self) -> None:
        torch.set_num_threads(1)
        self.local.net = copy.deepcopy(self.net)

    def _call(self, task: Callable[[DecoupledNet, Any], Any], item: Any) -> Any:
        return task(self.local.net, item)

    def map(self, task: Callable[[DecoupledNet, Any], Any], items: Iterable[Any]) -> list[Any]:
        """[task(net, item)]; the first error, or Ctrl-C, stops all tasks at their next step."""
        with repeatable_on_gpu():
            futures = [self.executor.submit(self._call, task, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Stop what runs at its next step, and wait for it."""
        self.stop.set()
        self.executor.shutdown(wait=True, cancel_futures=True)
