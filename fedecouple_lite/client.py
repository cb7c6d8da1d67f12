"""One client's round: receive, the phases in order, upload. Pure: no argument changes.

`run_phases` is the only loop over phases in the library. What it does not know, how to run, derive and train, it asks
of a `Trainer`: `OneClient` here, a stack of clients in `stacked`, and one that only notes gradients in
`studies.convergence`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .methods import FedAvg
from .models import DecoupledNet
from .phases import Derive, Phases, Train
from .tensors import EXTRACTOR, Tensors, pick

CHUNK = 1000  # images in a forward pass without gradients: bounds the memory


@dataclass(frozen=True)
class LocalData:
    """What one client trains on: images x (n, *in_shape), labels y (n,), and batches(epochs), one index (B,) a step, on
    the CPU; check() is called before each step and may raise to give up."""

    x: Tensor
    y: Tensor
    batches: Callable[[int], Iterable[Tensor]]
    check: Callable[[], None] = lambda: None


class ClientResult(NamedTuple):
    """What a round left with one client: its tensors, its upload, the last training phase's mean loss (a scalar), and
    the number of gradient steps taken."""

    client: Tensors
    upload: Tensors
    loss: Tensor
    steps: int


class Stopped(Exception):
    """Raised inside a client's training when the run is being given up."""


def client_round(
    method: FedAvg,
    net: DecoupledNet,
    client: Tensors,
    download: Tensors,
    data: LocalData,
) -> ClientResult:
    """One client's round: it receives, goes through the method's phases, and uploads.

    client: the tensors it kept; download: what the server sent. Neither changes.
    """
    received = method.receive(client, download)
    trainer = OneClient(method, net, download, data)
    trained = run_phases(method.phases(), received, trainer)
    upload = method.upload(trained.tensors)
    return ClientResult(trained.tensors, upload, trained.loss, int(trained.steps))


class Trained(NamedTuple):
    """What training left: tensors by name, the mean loss, and the number of gradient steps; for a stack of K clients
    each has a leading dimension K, for one client loss () and steps () are scalars."""

    tensors: Tensors
    loss: Tensor
    steps: Tensor


class Trainer(Protocol):
    """What `run_phases` needs to have done, for one client or for a stack of K.

    images: (n, *in_shape), or (K, n, *in_shape). shape: (), or (K,).
    """

    images: Tensor
    shape: tuple[int, ...]

    def features(self, client: Tensors) -> Tensor:
        """The extractor's features of all images, without gradients."""

    def derive(self, phase: Derive, client: Tensors, inputs: Tensor) -> Tensors:
        """The tensors that `phase` adds. inputs: all images, or their features."""

    def train(self, phase: Train, client: Tensors, inputs: Tensor) -> Trained:
        """The tensors that `phase` moved, with its loss and steps. inputs: all images, or their features."""


def run_phases(phases: Phases, client: Tensors, trainer: Trainer) -> Trained:
    """Go through `phases` in order: the client's tensors at the end, the last training phase's mean loss, all steps.

    A frozen extractor runs once: its features serve every phase that asks for them until an extractor's tensor moves.
    """
    features: Tensor | None = None
    loss = trainer.images.new_zeros(trainer.shape)
    steps = torch.zeros(trainer.shape, dtype=torch.int64)
    for phase in phases:
        inputs = trainer.images
        if phase.on_features:
            if features is None:
                features = trainer.features(client)
            inputs = features

        if isinstance(phase, Derive):
            client = {**client, **trainer.derive(phase, client, inputs)}
            continue

        trained = trainer.train(phase, client, inputs)
        client = {**client, **trained.tensors}
        loss = trained.loss
        steps = steps + trained.steps
        if any(name.startswith(EXTRACTOR) for name in trained.tensors):
            features = None
    return Trained(client, loss, steps)


class OneClient:
    """The Trainer of one client."""

    shape: tuple[int, ...] = ()

    def __init__(self, method: FedAvg, net: DecoupledNet, download: Tensors, data: LocalData):
        self.method = method
        self.net = net
        self.download = download
        self.data = data
        self.images = data.x

    def features(self, client: Tensors) -> Tensor:
        return forward(self.net.features, client, self.images)

    def derive(self, phase: Derive, client: Tensors, inputs: Tensor) -> Tensors:
        every_image = torch.ones_like(self.data.y, dtype=inputs.dtype)  # nothing is padding
        return phase.compute(self.net, inputs, self.data.y, every_image)

    def train(self, phase: Train, client: Tensors, inputs: Tensor) -> Trained:
        return sgd(self.method, phase, self.net, client, self.download, inputs, self.data)


def sgd(
    method: FedAvg,
    phase: Train,
    net: DecoupledNet,
    client: Tensors,
    download: Tensors,
    inputs: Tensor,
    data: LocalData,
) -> Trained:
    """SGD with momentum and weight decay on what `phase` trains, one step for each batch and each of its losses.

    inputs: all images (n, ...) or their features (n, d).
    """
    trained = {}
    for name, tensor in pick(client, *phase.prefixes).items():
        trained[name] = tensor.clone().requires_grad_()
    client = {**client, **trained}  # the losses see the weights move: they are updated in place
    weights = list(trained.values())
    velocities = [torch.zeros_like(weight) for weight in weights]
    lr = phase.step_size(default=method.lr)

    total_loss = inputs.new_zeros(())
    steps = 0
    for index in data.batches(phase.epochs):
        data.check()
        at = index.to(inputs.device, non_blocking=True)
        x = inputs[at]  # (B, ...)
        y = data.y[at]  # (B,)
        for loss_of in phase.losses:
            loss = loss_of(net, client, download, x, y).mean()
            gradients = torch.autograd.grad(loss, weights)
            momentum_step(weights, velocities, gradients, lr, method.momentum, method.weight_decay)
            total_loss = total_loss + loss.detach()
            steps += 1

    moved = {name: weight.detach() for name, weight in trained.items()}
    return Trained(moved, total_loss / max(1, steps), torch.tensor(steps))


@torch.no_grad()
def momentum_step(
    weights: list[Tensor],
    velocities: list[Tensor],
    gradients: list[Tensor] | tuple[Tensor, ...],
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """v <- momentum v + g + weight_decay w, then w <- w - lr v: in place, all tensors at once.

    Our own and not torch.optim.SGD: the two agree (a test holds them together), but that one's first step took three
    seconds, because it loads the compiler, and each step of a small net 10 to 20 % longer.
    """
    torch._foreach_mul_(velocities, momentum)
    torch._foreach_add_(velocities, gradients)
    torch._foreach_add_(velocities, weights, alpha=weight_decay)
    torch._foreach_add_(weights, velocities, alpha=-lr)


@torch.no_grad()
def forward(function: Callable[[Tensors, Tensor], Tensor], tensors: Tensors, x: Tensor) -> Tensor:
    """function(tensors, x) chunk by chunk, without gradients."""
    return torch.cat([function(tensors, chunk) for chunk in x.split(CHUNK)])
