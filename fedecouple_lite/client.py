"""One client's round: receive, the phases in order, upload. No tensor of an argument changes.

A `method` is FedAvg or one of its subclasses, `Tensors` a dictionary name -> tensor.

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

from .augment import crop_flip
from .methods import FedAvg
from .models import DecoupledNet
from .phases import Derive, Loss, Phases, Train
from .tensors import EXTRACTOR, Tensors, pick

CHUNK = 1000  # images in a forward pass without gradients: bounds the memory


@dataclass(frozen=True)
class LocalData:
    """What one client trains on.

    x: images (n, *in_shape). y: labels (n,). batches(epochs): one index (B,) a step, on the CPU; a generator behind it
    moves on, so that each phase sees other batches. check(): called before each step, may raise to give up.
    draw_views(B): the random views of the next batch's images (see `augment`); None trains on the images as they are.
    """

    x: Tensor
    y: Tensor
    batches: Callable[[int], Iterable[Tensor]]
    check: Callable[[], None] = lambda: None
    draw_views: Callable[[int], Tensor] | None = None


class ClientResult(NamedTuple):
    """What a round left with one client: its tensors, its upload, the last training phase's loss (a scalar, the mean
    over its gradient steps), and the number of gradient steps taken."""

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
    """What training left. Of one phase: the tensors that moved; of all phases (`run_phases`): all of the client's.

    loss: the mean over gradient steps, of the last training phase. steps: their number, of all phases. For a stack of K
    clients everything has a leading dimension K; for one client loss and steps are scalars ().
    """

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
        every_image = torch.ones_like(self.data.y, dtype=inputs.dtype)  # padding there is only in a stack
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

    inputs: all images (n, ...) or their features (n, d). Raises ValueError where a loss is not one value per image, or
    does not depend on what is trained.
    """
    trained = {}
    for name, tensor in trainable(net, client, phase.prefixes).items():
        trained[name] = tensor.clone().requires_grad_()
    client = {**client, **trained}  # the losses see the weights move: they are updated in place
    weights = list(trained.values())
    velocities = [torch.zeros_like(weight) for weight in weights]
    lr = phase.step_size(default=method.lr)

    total_loss = inputs.new_zeros(())
    steps = 0
    for index in data.batches(phase.epochs) if trained else ():
        data.check()
        at = index.to(inputs.device, non_blocking=True)
        x = inputs[at]  # (B, ...)
        y = data.y[at]  # (B,)
        if data.draw_views is not None and not phase.on_features:
            x = crop_flip(x, data.draw_views(len(index)).to(x.device))
        for loss_of in phase.losses:
            losses = loss_of(net, client, download, x, y)  # (B,)
            check_losses(method, loss_of, losses, len(y))
            loss = losses.mean()
            # A tensor that this loss does not use has a gradient of zero, as it has in a stack.
            gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
            momentum_step(weights, velocities, gradients, lr, method.momentum, method.weight_decay)
            total_loss = total_loss + loss.detach()
            steps += 1

    moved = {name: weight.detach() for name, weight in trained.items()}
    return Trained(moved, total_loss / max(1, steps), torch.tensor(steps))


def trainable(net: DecoupledNet, client: Tensors, prefixes: tuple[str, ...]) -> Tensors:
    """The tensors under `prefixes`, without those that the net's maker has frozen."""
    return {name: tensor for name, tensor in pick(client, *prefixes).items() if not net.is_frozen(name)}


def hook_name(method: FedAvg, hook: Callable[..., object]) -> str:
    """What messages call a method's hook: "FedRep.classifier_loss"."""
    return f"{type(method).__name__}.{getattr(hook, '__name__', 'loss')}"


def check_losses(method: FedAvg, loss_of: Loss, losses: Tensor, images: int) -> None:
    """Raise ValueError, naming method and hook, unless `losses` is one loss for each image and can be descended."""
    hook = hook_name(method, loss_of)
    if tuple(losses.shape) != (images,):
        raise ValueError(
            f"{hook} gave losses of shape {tuple(losses.shape)} for a batch of {images} images; wanted is one loss for "
            f"each image, ({images},)"
        )
    if not losses.requires_grad:
        raise ValueError(f"{hook} does not depend on any tensor that its phase trains; there is nothing to descend")


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


def first_not_finite(tensors: Tensors) -> str | None:
    """The name of the first tensor that holds NaN or an infinite number, if there is one."""
    if all_lengths_finite(tensors):
        return None
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            return name
    return None


@torch.no_grad()
def all_lengths_finite(tensors: Tensors) -> bool:
    """Whether the Euclidean lengths of all tensors are finite, and then all their numbers are.

    One answer for all: a GPU has to be waited for before Python can look at any.
    """
    may_be_infinite = [tensor for tensor in tensors.values() if tensor.is_floating_point() or tensor.is_complex()]
    if not may_be_infinite:
        return True
    lengths = torch._foreach_norm(may_be_infinite)
    return bool(torch.isfinite(torch.stack(lengths)).all())


@torch.no_grad()
def forward(function: Callable[[Tensors, Tensor], Tensor], tensors: Tensors, x: Tensor) -> Tensor:
    """function(tensors, x) chunk by chunk, without gradients."""
    return torch.cat([function(tensors, chunk) for chunk in x.split(CHUNK)])
