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
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .client import CHUNK, ClientResult, LocalData, OneClient, Stopped, client_round, run_phases
from .data import Dataset
from .errors import nearest
from .methods import FedAvg
from .metrics import over_clients
from .models import DecoupledNet
from .partition import Federation
from .stacked import stack_rounds
from .tensors import CLASSIFIER, EXTRACTOR, Tensors, nbytes

COHORT, TRAIN, PREDICT = 1, 2, 3  # what a stream of random numbers is for; 0 is the split's
BACKENDS = ("auto", "loop", "threads", "vmap")
# Clients trained at once by "vmap", by device; fixed, so that results do not depend on the number of cores.
MAX_STACK = {"cpu": 10, "cuda": 128}


@dataclass(frozen=True, eq=False)
class State:
    """A federated run after `round` rounds: all its tensors, and a record of metrics for each evaluated round."""

    round: int
    server: Tensors
    clients: tuple[Tensors, ...]
    records: tuple[dict[str, Any], ...] = ()


def start(method: FedAvg, net: DecoupledNet, federation: Federation, seed: int = 0) -> State:
    """The state before the first round: the same weights for the server and all clients."""
    weights = net.init(seed, federation.data.mean.dtype, federation.data.y.device)
    client = method.init(weights)
    return State(0, method.init_server(weights), (client,) * len(federation))


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
    state: State | None = None,
) -> Iterator[State]:
    """Train until `rounds` rounds are done in all, yielding the State after each; `state` is where to go on.

    participation: in (0, 1], the share of clients drawn for each round's cohort, at least one. eval_every: rounds
    between evaluations; the last round always has one. Raises ValueError for an argument outside its range,
    FloatingPointError where a client's loss is not finite.

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
    check_arguments(net, federation, rounds, participation, eval_every)
    backend, workers = backend_for(backend, federation.data)
    if state is None:
        state = start(method, net, federation, seed)
    pool = Pool(net, workers)
    try:
        while state.round < rounds:
            began = perf_counter()
            t = state.round + 1
            cohort = draw_cohort(len(federation), participation, seed, t)
            results = train_cohort(method, federation, state, cohort, seed, backend, pool)
            check_finite(method, results, t)
            server = aggregate(method, federation, state.server, results)
            clients = tuple(results[k].client if k in results else state.clients[k] for k in range(len(federation)))
            state = State(t, server, clients, state.records)
            if t % eval_every == 0 or t == rounds:
                costs = cost_of_round(method, server, results) | {"seconds": perf_counter() - began}
                record = {"round": t} | costs | evaluate(method, federation, state, seed, pool)
                state = replace(state, records=(*state.records, record))
            yield state
    finally:
        pool.close()


def check_arguments(
    net: DecoupledNet,
    federation: Federation,
    rounds: int,
    participation: float,
    eval_every: int,
) -> None:
    """Raise ValueError, naming the argument, where `rounds` cannot run with it."""
    data = federation.data
    if rounds < 1 or eval_every < 1:
        raise ValueError(f"rounds={rounds} (in all) and eval_every={eval_every} must be at least 1")
    if not 0 < participation <= 1:
        raise ValueError(f"participation={participation} must be above 0 and at most 1")
    if net.in_shape != data.in_shape or net.classes < len(data.classes):
        wanted = f"{data.in_shape} and {len(data.classes)} classes"
        raise ValueError(f"net takes images {net.in_shape} and {net.classes} classes; data={data.name!r} has {wanted}")


def draw_cohort(clients: int, participation: float, seed: int, t: int) -> list[int]:
    """The clients that take part in round t, in order: a share of them, at least one, drawn anew in every round."""
    size = max(1, round(participation * clients))
    order = np.random.default_rng([seed, COHORT, t]).permutation(clients)
    return sorted(order[:size].tolist())


def train_cohort(
    method: FedAvg,
    federation: Federation,
    state: State,
    cohort: Sequence[int],
    seed: int,
    backend: str,
    pool: Pool,
) -> dict[int, ClientResult]:
    """One round of every client of the cohort: its result by client number, in order."""
    most = MAX_STACK.get(federation.data.y.device.type, 1) if backend == "vmap" else 1
    stacks = stacks_of(federation, cohort, most)
    task = partial(train_stack, method, federation, state, seed, pool.stop)
    results = {}
    for part in pool.map(task, stacks):
        results.update(part)
    return dict(sorted(results.items()))


def train_stack(
    method: FedAvg,
    federation: Federation,
    state: State,
    seed: int,
    stop: threading.Event,
    net: DecoupledNet,
    stack: Sequence[int],
) -> dict[int, ClientResult]:
    """The round of the clients numbered in `stack`: of one client by itself, of several at once."""
    key = [seed, TRAIN, state.round + 1]
    data = [local_data(federation, method, k, key, stop) for k in stack]
    clients = [state.clients[k] for k in stack]
    downloads = [method.send(state.server, k) for k in stack]
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


def check_finite(method: FedAvg, results: Mapping[int, ClientResult], t: int) -> None:
    """Raise FloatingPointError naming the first client whose loss is NaN or infinite."""
    for k, result in results.items():
        loss = float(result.loss)
        if not np.isfinite(loss):
            where = f"{type(method).__name__}, client {k}, round {t}"
            raise FloatingPointError(f"{where}: the loss is {loss}; try an lr below {method.lr}")


def aggregate(
    method: FedAvg,
    federation: Federation,
    server: Tensors,
    results: Mapping[int, ClientResult],
) -> Tensors:
    """The server's next tensors, by the method's own rule."""
    uploads = {k: result.upload for k, result in results.items()}
    sizes = {k: len(federation.train[k]) for k in results}
    return method.aggregate(server, uploads, sizes)


def cost_of_round(
    method: FedAvg,
    server: Tensors,
    results: Mapping[int, ClientResult],
) -> dict[str, Any]:
    """What a record says of a round's training: the mean loss over clients, the gradient steps of all of them, and the
    bytes that one of them, on average, sends and receives."""
    losses = [float(result.loss) for result in results.values()]
    uploads = [nbytes(result.upload) for result in results.values()]
    downloads = [nbytes(method.send(server, k)) for k in results]
    return {
        "loss": float(np.mean(losses)),
        "steps": sum(result.steps for result in results.values()),
        "upload_bytes": int(np.mean(uploads)),
        "download_bytes": int(np.mean(downloads)),
    }


def evaluate(
    method: FedAvg,
    federation: Federation,
    state: State,
    seed: int,
    pool: Pool,
) -> dict[str, Any]:
    """Personal accuracy: every client's own model on its own test images (one that has not yet taken part has its
    starting weights). Global accuracy: the server's model on all test images; NaN where it holds no whole model."""
    task = partial(evaluate_client, method, federation, state, seed, pool.stop)
    hits = pool.map(task, range(len(federation)))
    sizes = [len(index) for index in federation.test]
    accuracies = []
    for (right, _), size in zip(hits, sizes, strict=True):
        accuracies.append(right / size if size else float("nan"))
    of_server = float("nan")
    if sum(sizes) > 0 and has_model(state.server):
        of_server = sum(right for _, right in hits) / sum(sizes)
    return {**over_clients(accuracies), "global": of_server, "accuracies": accuracies}


def evaluate_client(
    method: FedAvg,
    federation: Federation,
    state: State,
    seed: int,
    stop: threading.Event,
    net: DecoupledNet,
    k: int,
) -> tuple[int, int]:
    """How many of client k's test images its own model, and the server's, get right."""
    client = state.clients[k]
    download = method.send(state.server, k)
    phases = method.personalise()
    if phases:
        data = local_data(federation, method, k, [seed, PREDICT, state.round], stop)
        client = run_phases(phases, client, OneClient(method, net, download, data)).tensors

    device = federation.data.y.device
    right_of_client = torch.zeros((), dtype=torch.int64, device=device)
    right_of_server = torch.zeros((), dtype=torch.int64, device=device)
    with torch.no_grad():
        for index in federation.test[k].split(CHUNK):
            x, y = images_of(federation, index)
            right_of_client += (method.predict(net, client, download, x).argmax(1) == y).sum()
            if has_model(state.server):
                right_of_server += (net.logits(state.server, x).argmax(1) == y).sum()
    return int(right_of_client), int(right_of_server)


def has_model(tensors: Tensors) -> bool:
    """Whether both an extractor and a classifier are there."""
    return all(any(name.startswith(part) for name in tensors) for part in (EXTRACTOR, CLASSIFIER))


def images_of(federation: Federation, index: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised images and labels at `index`; larger images channels last, measured 1.4 times faster on 2 cores."""
    x = federation.data.images(index)
    if x.shape[-1] >= 28:
        # `to`, not `contiguous`: that leaves the strides of a single grey channel as they are.
        x = x.to(memory_format=torch.channels_last)
    return x, federation.data.y[index]


def local_data(
    federation: Federation,
    method: FedAvg,
    k: int,
    key: Sequence[int],
    stop: threading.Event,
) -> LocalData:
    """Client k's training images, and batches drawn from the generator keyed by (*key, k)."""
    x, y = images_of(federation, federation.train[k])
    rng = np.random.default_rng([*key, k])

    def batches(epochs: int) -> Iterator[Tensor]:
        for _ in range(epochs):
            order = torch.from_numpy(rng.permutation(len(y)))
            yield from order.split(method.batch_size)

    def check() -> None:
        if stop.is_set():
            raise Stopped

    return LocalData(x, y, batches, check)


def backend_for(backend: str, data: Dataset) -> tuple[str, int]:
    """The backend that "auto" means for these images and this device, and its number of threads.

    Measured (data/results/speed): on a CPU small images train fastest in stacks, larger ones client by client on a
    thread per core; a GPU is kept busy by one thread with a large stack.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; {nearest(backend, BACKENDS)}")
    on_cpu = data.y.device.type == "cpu"
    large = data.in_shape[-1] >= 28
    if backend == "auto":
        backend = "threads" if on_cpu and large else "vmap"
    one_thread = backend == "loop" or not on_cpu
    return backend, 1 if one_thread else os.cpu_count() or 1


class Pool:
    """Tasks, one per client or stack, on `workers` threads. Each has one intra-op thread, so that results do not depend
    on the number of cores, and a net of its own: `functional_call` puts weights into the module while it runs."""

    def __init__(self, net: DecoupledNet, workers: int):
        self.net = net
        self.local = threading.local()
        self.stop = threading.Event()
        self.executor = ThreadPoolExecutor(workers, "client", self._prepare)

    def _prepare(self) -> None:
        torch.set_num_threads(1)
        self.local.net = copy.deepcopy(self.net)

    def _call(self, task: Callable[[DecoupledNet, Any], Any], item: Any) -> Any:
        return task(self.local.net, item)

    def map(self, task: Callable[[DecoupledNet, Any], Any], items: Iterable[Any]) -> list[Any]:
        """[task(net, item)]; the first error, or Ctrl-C, stops all tasks at their next step."""
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
