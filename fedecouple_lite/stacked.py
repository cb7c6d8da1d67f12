"""A stack of clients trained at once: one more leading dimension on every tensor, and `torch.func.vmap` over losses.

The same method, phases and batches as one client after the other (engine.run_phases), to rounding. Clients come sorted
by size, so at every step those that still have a batch are the first ones: nobody pays for a step that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from .phases import Measure, Phase
from .tensors import EXTRACTOR, Tensors, pick

if TYPE_CHECKING:
    from .engine import LocalData
    from .methods.fedavg import FedAvg
    from .models import DecoupledNet

CHUNK = 1000  # images in a forward pass without gradients, over all clients of the stack


def stack_rounds(
    method: FedAvg,
    net: DecoupledNet,
    clients: Sequence[Tensors],
    downloads: Sequence[Tensors],
    data: Sequence[LocalData],
) -> list[tuple[Tensors, Tensors, Tensor, int]]:
    """engine.client_round for K clients at once, given in order of size, largest first; one result for each.

    Raises ValueError where the method's losses or the net cannot be vectorised.
    """
    received = [method.receive(c, d) for c, d in zip(clients, downloads, strict=True)]
    # Newcomers lack what the others measured in an earlier round and will measure anew: only common names are stacked.
    stack = {name: torch.stack([r[name] for r in received]) for name in _common(received)}
    # What everyone gets alike, such as theta, is not copied K times; in_dims says what has a client dimension.
    told = _common(downloads)
    same = {name for name in told if all(d[name] is downloads[0][name] for d in downloads)}
    download = {n: downloads[0][n] if n in same else torch.stack([d[n] for d in downloads]) for n in told}
    x, y, valid = (torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True) for parts in zip(
        *((own.x, own.y, torch.ones_like(own.y, dtype=own.x.dtype)) for own in data), strict=True))  # fmt: skip
    features, loss, steps = None, x.new_zeros(len(data)), np.zeros(len(data), dtype=int)
    try:
        for phase in method.phases():
            if phase.on_features and features is None:
                features = _features(net, stack, x)
            inputs = x if features is None or not phase.on_features else features
            if isinstance(phase, Measure):
                stack |= vmap(lambda z, y, v, compute=phase.compute: compute(net, z, y, v))(inputs, y, valid)
                continue
            trained, loss, taken = _sgd(method, phase, net, stack, download, same, inputs, y, data)
            stack, steps = {**stack, **trained}, steps + taken
            features = None if any(name.startswith(EXTRACTOR) for name in trained) else features
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"backend='vmap' cannot vectorise this net or method ({reason}); use 'threads'") from error
    # Clones: a view would keep the whole stack alive for as long as one of its clients.
    owned = [own | {name: t[i].clone() for name, t in stack.items()} for i, own in enumerate(received)]
    return [(own, method.upload(own), loss[i], int(steps[i])) for i, own in enumerate(owned)]


def _common(many: Sequence[Tensors]) -> list[str]:
    """The names that all hold."""
    return [name for name in many[0] if all(name in tensors for tensors in many)]


@torch.no_grad()
def _features(net: DecoupledNet, stack: Tensors, x: Tensor) -> Tensor:
    """(K, n, d) features of images (K, n, *in_shape)."""
    extractors = pick(stack, EXTRACTOR)
    size = max(1, CHUNK // len(x))
    return torch.cat([vmap(net.features)(extractors, part) for part in x.split(size, dim=1)], dim=1)


def _schedule(data: Sequence[LocalData], epochs: int, device: torch.device) -> tuple[Tensor, Tensor, np.ndarray]:
    """All batches of a phase: indices (K, S, B), weights (K, S, B) that add up to 1 over a batch's images and are 0 for
    padding, and each client's number of steps (K,)."""
    batches = [list(own.batches(epochs)) for own in data]
    steps = np.array([len(own) for own in batches])
    size = max((len(b) for own in batches for b in own), default=1)
    index = np.zeros((len(data), steps.max(initial=0), size), dtype=np.int64)
    weight = np.zeros(index.shape)
    for k, own in enumerate(batches):
        for s, batch in enumerate(own):
            index[k, s, : len(batch)], weight[k, s, : len(batch)] = batch, 1 / len(batch)
    return torch.from_numpy(index).to(device), torch.from_numpy(weight).to(device), steps


def _sgd(
    method: FedAvg, phase: Phase, net: DecoupledNet, stack: Tensors, download: Tensors, same: set[str],
    inputs: Tensor, y: Tensor, data: Sequence[LocalData],
) -> tuple[Tensors, Tensor, np.ndarray]:  # fmt: skip
    """engine.sgd on (K, ...) tensors: what it trained, each client's mean loss (K,) and number of steps (K,)."""
    index, weight, steps = _schedule(data, phase.epochs, y.device)
    weight = weight.to(inputs.dtype)
    trained = {name: t.clone() for name, t in pick(stack, *phase.train).items()}
    frozen = {name: t for name, t in stack.items() if name not in trained}
    momentum = {name: torch.zeros_like(t) for name, t in trained.items()}
    total = inputs.new_zeros(len(data))
    dims = {name: None if name in same else 0 for name in download}
    steppers = [_gradient(net, loss_of, dims) for loss_of in phase.losses]
    rows = torch.arange(len(data), device=y.device)[:, None]
    active, lr = 0, method.lr if phase.lr is None else phase.lr
    for s in range(index.shape[1]):
        data[0].check()
        if active != (now := int((steps > s).sum())):  # the stack has shrunk: views of the clients still training
            active = now
            some, rest, moving = ({n: t[:active] for n, t in group.items()} for group in (trained, frozen, momentum))
            told = {n: t if n in same else t[:active] for n, t in download.items()}
            weights, velocity = list(some.values()), list(moving.values())
        at = index[:active, s]
        batch, labels = inputs[rows[:active], at], y[rows[:active], at]  # (active, B, ...)
        for gradient in steppers:
            gradients, losses = gradient(some, rest, told, batch, labels, weight[:active, s])
            with torch.no_grad():
                torch._foreach_mul_(velocity, method.momentum)
                torch._foreach_add_(velocity, [gradients[n] for n in some])
                torch._foreach_add_(velocity, weights, alpha=method.weight_decay)
                torch._foreach_add_(weights, velocity, alpha=-lr)
                total[:active] += losses
    taken = steps * len(steppers)
    return trained, total / torch.from_numpy(np.maximum(taken, 1)).to(total), taken


def _gradient(net: DecoupledNet, loss_of: Callable[..., Tensor], dims: dict[str, int | None]) -> Callable[..., Any]:
    """The gradient and value of one loss for all clients of a stack."""

    def mean_loss(trained, frozen, download, x, y, weight):
        return (loss_of(net, frozen | trained, download, x, y) * weight).sum()

    return vmap(grad_and_value(mean_loss), in_dims=(0, 0, dims, 0, 0, 0))
