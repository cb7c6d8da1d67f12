"""The engine: one pure function trains one client; rounds of them make a federated run.

``for state in rounds(method, net, federation, rounds=20): ...`` is the whole interface. Break to stop; pass the state
back to go on: all randomness comes from (seed, round, client), so a resumed run equals the uninterrupted one.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data import Dataset, nearest
from .methods.fedavg import FedAvg
from .metrics import over_clients
from .models import DecoupledNet
from .partition import Federation
from .phases import Measure, Phase, Phases
from .stacked import stack_rounds
from .tensors import CLASSIFIER, EXTRACTOR, Tensors, nbytes, pick

COHORT, TRAIN, PREDICT = 1, 2, 3  # what a stream of random numbers is for; 0 is the split's
CHUNK = 1000  # images in a forward pass without gradients: bounds the memory
BACKENDS = ("auto", "loop", "threads", "vmap")
STACK = {"cpu": 10, "cuda": 128}  # clients trained at once by "vmap"; fixed, so that results do not depend on cores


@dataclass(frozen=True, eq=False)
class State:
    """A federated run after `round` rounds: all its tensors, and a record of metrics for each evaluated round."""

    round: int
    server: Tensors
    clients: tuple[Tensors, ...]
    records: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class LocalData:
    """What one client trains on: images x (n, *in_shape), labels y (n,), and batches(epochs), one index (B,) a step, on
    the CPU; check() is called before each step and may raise to give up."""

    x: Tensor
    y: Tensor
    batches: Callable[[int], Iterable[Tensor]]
    check: Callable[[], None] = lambda: None


class Stopped(Exception):
    """Raised inside a client's training when the run is being given up."""


def client_round(method: FedAvg, net: DecoupledNet, client: Tensors, download: Tensors, data: LocalData) -> tuple:
    """One client's round: receive, the phases in order, upload. Pure: no argument changes.

    Returns (the client's tensors, its upload, the last phase's mean loss (a scalar), its number of gradient steps).
    """
    received = method.receive(client, download)
    client, loss, steps = run_phases(method, method.phases(), net, received, download, data)
    return client, method.upload(client), loss, steps


def run_phases(
    method: FedAvg, phases: Phases, net: DecoupledNet, client: Tensors, download: Tensors, data: LocalData
) -> tuple[Tensors, Tensor, int]:
    """`phases` on one client: its tensors, the last training phase's mean loss, and the number of gradient steps."""
    features, loss, steps = None, data.x.new_zeros(()), 0
    for phase in phases:
        if phase.on_features and features is None:
            features = forward(net.features, client, data.x)  # one pass serves all until the extractor moves
        inputs = data.x if features is None or not phase.on_features else features
        if isinstance(phase, Measure):
            client = {**client, **phase.compute(net, inputs, data.y, torch.ones_like(data.y, dtype=data.x.dtype))}
            continue
        trained, loss, taken = sgd(method, phase, net, client, download, inputs, data)
        client, steps = {**client, **trained}, steps + taken
        features = None if any(name.startswith(EXTRACTOR) for name in trained) else features
    return client, loss, steps


def sgd(
    method: FedAvg, phase: Phase, net: DecoupledNet, client: Tensors, download: Tensors, inputs: Tensor, data: LocalData
) -> tuple[Tensors, Tensor, int]:
    """SGD with momentum and weight decay on what `phase` trains: those tensors, the mean loss, the number of steps."""
    trained = {name: t.clone().requires_grad_() for name, t in pick(client, *phase.train).items()}
    client = {**client, **trained}  # the losses see the weights move: they are updated in place
    weights, total, steps = list(trained.values()), inputs.new_zeros(()), 0
    momentum, lr = [torch.zeros_like(w) for w in weights], method.lr if phase.lr is None else phase.lr
    for index in data.batches(phase.epochs):
        data.check()
        at = index.to(inputs.device, non_blocking=True)
        batch, labels = inputs[at], data.y[at]
        for loss_of in phase.losses:
            loss = loss_of(net, client, download, batch, labels).mean()
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                torch._foreach_mul_(momentum, method.momentum)
                torch._foreach_add_(momentum, gradients)
                torch._foreach_add_(momentum, weights, alpha=method.weight_decay)
                torch._foreach_add_(weights, momentum, alpha=-lr)
            total, steps = total + loss.detach(), steps + 1
    return {name: w.detach() for name, w in trained.items()}, total / max(1, steps), steps


@torch.no_grad()
def forward(function: Callable[[Tensors, Tensor], Tensor], tensors: Tensors, x: Tensor) -> Tensor:
    """function(tensors, x) chunk by chunk, without gradients."""
    return torch.cat([function(tensors, part) for part in x.split(CHUNK)])


def images_of(federation: Federation, index: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised images and labels at `index`; larger images channels last, measured 1.4 times faster on 2 cores."""
    x = federation.data.images(index)
    # `to`, not `contiguous`: that leaves the strides of a single grey channel as they are.
    return x.to(memory_format=torch.channels_last) if x.shape[-1] >= 28 else x, federation.data.y[index]


class Pool:
    """Tasks, one per client or stack, on `workers` threads. Each has one intra-op thread, so that results do not depend
    on the number of cores, and a net of its own: `functional_call` puts weights into the module while it runs."""

    def __init__(self, net: DecoupledNet, workers: int):
        self.net, self.local, self.stop = net, threading.local(), threading.Event()
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
        self.stop.set()
        self.executor.shutdown(wait=True, cancel_futures=True)


def backend_for(backend: str, data: Dataset) -> tuple[str, int]:
    """The backend that "auto" means for these images and this device, and its number of threads.

    Measured (data/results/speed): on a CPU small images train fastest in stacks, larger ones client by client on a
    thread per core; a GPU is kept busy by one thread with a large stack.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; {nearest(backend, BACKENDS)}")
    on_cpu = data.y.device.type == "cpu"
    if backend == "auto":
        backend = "threads" if on_cpu and data.in_shape[-1] >= 28 else "vmap"
    return backend, 1 if backend == "loop" or not on_cpu else os.cpu_count() or 1


def start(method: FedAvg, net: DecoupledNet, federation: Federation, seed: int = 0) -> State:
    """The state before the first round: the same weights for the server and all clients."""
    weights = net.init(seed, federation.data.mean.dtype, federation.data.y.device)
    return State(0, method.init_server(weights), (method.init(weights),) * len(federation))


def rounds(
    method: FedAvg, net: DecoupledNet, federation: Federation, *, rounds: int, seed: int = 0,
    participation: float = 1.0, backend: str = "auto", eval_every: int = 1, state: State | None = None,
) -> Iterator[State]:  # fmt: skip
    """Train until `rounds` rounds are done, yielding the State after each; `state` is where to go on.

    participation: in (0, 1], the share of clients drawn for each round's cohort, at least one. eval_every: rounds
    between evaluations; the last round always has one. Raises ValueError for an argument outside its range,
    FloatingPointError where a client's loss is not finite.
    """
    data, n = federation.data, len(federation)
    if rounds < 1 or eval_every < 1:
        raise ValueError(f"rounds={rounds} and eval_every={eval_every} must be at least 1")
    if not 0 < participation <= 1:
        raise ValueError(f"participation={participation} must be above 0 and at most 1")
    if net.in_shape != data.in_shape or net.classes < len(data.classes):
        wanted = f"{data.in_shape} and {len(data.classes)} classes"
        raise ValueError(f"net takes images {net.in_shape} and {net.classes} classes; data={data.name!r} has {wanted}")
    if state is None:
        state = start(method, net, federation, seed)
    backend, workers = backend_for(backend, data)
    pool = Pool(net, workers)
    try:
        while state.round < rounds:
            began, t = perf_counter(), state.round + 1
            order = np.random.default_rng([seed, COHORT, t]).permutation(n)
            cohort = sorted(order[: max(1, round(participation * n))].tolist())
            stacks = _stacks(federation, cohort, STACK.get(data.y.device.type, 1) if backend == "vmap" else 1)
            results = pool.map(partial(_train, method, federation, state, seed, pool.stop), stacks)
            done = dict(sorted(pair for result in results for pair in result.items()))
            losses = {k: float(loss) for k, (_, _, loss, _) in done.items()}
            for k, loss in losses.items():
                if not np.isfinite(loss):
                    where = f"{type(method).__name__}, client {k}, round {t}"
                    raise FloatingPointError(f"{where}: the loss is {loss}; try an lr below {method.lr}")
            uploads = {k: result[1] for k, result in done.items()}
            server = method.aggregate(state.server, uploads, {k: len(federation.train[k]) for k in cohort})
            clients = tuple(done[k][0] if k in done else state.clients[k] for k in range(n))
            state = State(t, server, clients, state.records)
            if t % eval_every == 0 or t == rounds:
                record = {"round": t, "loss": float(np.mean(list(losses.values())))}
                record["steps"] = sum(steps for *_, steps in done.values())
                record["upload_bytes"] = int(np.mean([nbytes(upload) for upload in uploads.values()]))
                record["download_bytes"] = int(np.mean([nbytes(method.send(server, k)) for k in cohort]))
                record["seconds"] = perf_counter() - began
                state = replace(
                    state, records=(*state.records, record | evaluate(method, federation, state, seed, pool))
                )
            yield state
    finally:
        pool.close()


def evaluate(method: FedAvg, federation: Federation, state: State, seed: int, pool: Pool) -> dict[str, Any]:
    """Personal accuracy: every client's own model on its own test images (one that has not yet taken part has its
    starting weights). Global accuracy: the server's model on all test images; NaN where it holds no whole model."""
    found = pool.map(partial(_evaluate, method, federation, state, seed, pool.stop), range(len(federation)))
    sizes = [len(index) for index in federation.test]
    own = [int(found[k][0]) / n if n else float("nan") for k, n in enumerate(sizes)]
    whole = sum(sizes) > 0 and _has_model(state.server)
    of_server = sum(int(right) for _, right in found) / sum(sizes) if whole else float("nan")
    return {**over_clients(own), "global": of_server, "accuracies": own}


def _has_model(tensors: Tensors) -> bool:
    return all(any(name.startswith(part) for name in tensors) for part in (EXTRACTOR, CLASSIFIER))


def _local(federation: Federation, method: FedAvg, k: int, key: list[int], stop: threading.Event) -> LocalData:
    x, y = images_of(federation, federation.train[k])
    rng = np.random.default_rng([*key, k])

    def batches(epochs: int) -> Iterator[Tensor]:
        for _ in range(epochs):
            yield from torch.from_numpy(rng.permutation(len(y))).split(method.batch_size)

    def check() -> None:
        if stop.is_set():
            raise Stopped

    return LocalData(x, y, batches, check)


def _stacks(federation: Federation, cohort: list[int], size: int) -> list[list[int]]:
    """The cohort in stacks of at most `size` clients, largest first, dealt out so that all take equally long."""
    order = sorted(cohort, key=lambda k: -len(federation.train[k]))
    number = -(-len(order) // size)
    return [order[i::number] for i in range(number)]


def _train(method, federation, state, seed, stop, net, ks):
    data = [_local(federation, method, k, [seed, TRAIN, state.round + 1], stop) for k in ks]
    clients, downloads = [state.clients[k] for k in ks], [method.send(state.server, k) for k in ks]
    if len(ks) == 1:
        return {ks[0]: client_round(method, net, clients[0], downloads[0], data[0])}
    return dict(zip(ks, stack_rounds(method, net, clients, downloads, data), strict=True))


def _evaluate(method, federation, state, seed, stop, net, k):
    client, download = state.clients[k], method.send(state.server, k)
    if phases := method.personalise():
        data = _local(federation, method, k, [seed, PREDICT, state.round], stop)
        client = run_phases(method, phases, net, client, download, data)[0]
    right = torch.zeros(2, dtype=torch.int64, device=federation.data.y.device)  # the client's model, the server's
    for index in federation.test[k].split(CHUNK):
        x, y = images_of(federation, index)
        with torch.no_grad():
            right[0] += (method.predict(net, client, download, x).argmax(1) == y).sum()
            right[1] += (net.logits(state.server, x).argmax(1) == y).sum() if _has_model(state.server) else 0
    return right
