"""A stack of clients trained at once: one more leading dimension on every tensor, and `torch.func.vmap` over losses.

The same method, phases and batches as one client after the other, to rounding. Clients come sorted by size, so at every
step those that still have a batch are the first ones: nobody pays for a step that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.nn.utils.rnn import pad_sequence

from .client import CHUNK, ClientResult, LocalData, Trained, momentum_step, run_phases
from .methods import FedAvg
from .models import DecoupledNet
from .phases import Derive, Loss, Train
from .tensors import EXTRACTOR, Tensors, pick


def stack_rounds(
    method: FedAvg,
    net: DecoupledNet,
    clients: Sequence[Tensors],
    downloads: Sequence[Tensors],
    data: Sequence[LocalData],
) -> list[ClientResult]:
    """client.client_round for K clients at once, given in order of size, largest first; one result for each.

    Raises ValueError where the method's losses or the net cannot be vectorised.
    """
    received = [method.receive(client, download) for client, download in zip(clients, downloads, strict=True)]
    # Newcomers lack what the others measured in an earlier round and will measure anew: only common names are stacked.
    stack = {name: torch.stack([client[name] for client in received]) for name in common_names(received)}
    trainer = StackOfClients(method, net, downloads, data)
    try:
        trained = run_phases(method.phases(), stack, trainer)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"backend='vmap' cannot vectorise this net or method ({reason}); use 'threads'") from error

    results = []
    for k, before in enumerate(received):
        # Clones: a view would keep the whole stack alive for as long as one of its clients.
        moved = {name: tensor[k].clone() for name, tensor in trained.tensors.items()}
        client = {**before, **moved}
        results.append(ClientResult(client, method.upload(client), trained.loss[k], int(trained.steps[k])))
    return results


def common_names(many: Sequence[Tensors]) -> list[str]:
    """The names that all hold."""
    return [name for name in many[0] if all(name in tensors for tensors in many)]


def first_clients(tensors: Tensors, n: int) -> Tensors:
    """Views of the first n clients of a stack."""
    return {name: tensor[:n] for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Downloads:
    """What K clients received. What all got alike, such as theta, is not copied K times: it has no client dimension.

    tensors: by name, (K, ...) or, for the names in `alike`, (...).
    """

    tensors: Tensors
    alike: frozenset[str]

    @classmethod
    def of(cls, downloads: Sequence[Tensors]) -> Downloads:
        tensors = {}
        alike = set()
        for name in common_names(downloads):
            first = downloads[0][name]
            if all(download[name] is first for download in downloads):
                tensors[name] = first
                alike.add(name)
            else:
                tensors[name] = torch.stack([download[name] for download in downloads])
        return cls(tensors, frozenset(alike))

    def dims(self) -> dict[str, int | None]:
        """Which dimension of each tensor counts the clients, as vmap wants to know it."""
        return {name: None if name in self.alike else 0 for name in self.tensors}

    def first_clients(self, n: int) -> Tensors:
        """Views for the first n clients."""
        return {name: tensor if name in self.alike else tensor[:n] for name, tensor in self.tensors.items()}


@dataclass(frozen=True)
class Batches:
    """All batches of a phase, for K clients of at most S steps and B images a batch.

    index: (K, S, B), which images. weight: (K, S, B), 1 over the batch's number of images for each of them, 0 for
    padding. steps: (K,), each client's number of batches, on the CPU.
    """

    index: Tensor
    weight: Tensor
    steps: Tensor

    @classmethod
    def of(cls, data: Sequence[LocalData], epochs: int, like: Tensor) -> Batches:
        """On `like`'s device, the weights in its dtype."""
        by_client = [list(local.batches(epochs)) for local in data]
        steps = np.array([len(batches) for batches in by_client])
        longest = max((len(batch) for batches in by_client for batch in batches), default=1)
        index = np.zeros((len(data), steps.max(initial=0), longest), dtype=np.int64)
        weight = np.zeros(index.shape)
        for k, batches in enumerate(by_client):
            for s, batch in enumerate(batches):
                index[k, s, : len(batch)] = batch
                weight[k, s, : len(batch)] = 1 / len(batch)
        device = like.device
        return cls(torch.from_numpy(index).to(device), torch.from_numpy(weight).to(like), torch.from_numpy(steps))


class StackOfClients:
    """The Trainer of K clients at once: images, features and tensors have a leading dimension K."""

    def __init__(
        self,
        method: FedAvg,
        net: DecoupledNet,
        downloads: Sequence[Tensors],
        data: Sequence[LocalData],
    ) -> None:
        self.method = method
        self.net = net
        self.downloads = Downloads.of(downloads)
        self.data = data
        self.shape: tuple[int, ...] = (len(data),)
        self.images = pad_sequence([local.x for local in data], batch_first=True)  # (K, n, *in_shape), zeros at the end
        self.labels = pad_sequence([local.y for local in data], batch_first=True)  # (K, n)
        real = [torch.ones_like(local.y, dtype=local.x.dtype) for local in data]
        self.valid = pad_sequence(real, batch_first=True)  # (K, n): 1 for an image, 0 for padding

    @torch.no_grad()
    def features(self, client: Tensors) -> Tensor:
        """(K, n, d)."""
        extractors = pick(client, EXTRACTOR)
        chunk = max(1, CHUNK // len(self.data))
        parts = [vmap(self.net.features)(extractors, images) for images in self.images.split(chunk, dim=1)]
        return torch.cat(parts, dim=1)

    def derive(self, phase: Derive, client: Tensors, inputs: Tensor) -> Tensors:
        def compute(inputs: Tensor, labels: Tensor, valid: Tensor) -> Tensors:
            return phase.compute(self.net, inputs, labels, valid)

        return vmap(compute)(inputs, self.labels, self.valid)

    def train(self, phase: Train, client: Tensors, inputs: Tensor) -> Trained:
        """client.sgd for all: loss and steps are (K,)."""
        batches = Batches.of(self.data, phase.epochs, like=inputs)
        trained = {name: tensor.clone() for name, tensor in pick(client, *phase.prefixes).items()}
        frozen = {name: tensor for name, tensor in client.items() if name not in trained}
        velocities = {name: torch.zeros_like(tensor) for name, tensor in trained.items()}
        gradients_of = [self.gradients_of(loss_of) for loss_of in phase.losses]
        lr = phase.step_size(default=self.method.lr)

        clients = torch.arange(len(self.data), device=inputs.device)[:, None]  # (K, 1)
        total_loss = inputs.new_zeros(self.shape)
        active = 0
        for step in range(batches.index.shape[1]):
            self.data[0].check()
            still_training = int((batches.steps > step).sum())
            if still_training != active:  # the stack has shrunk: views of the clients that still have a batch
                active = still_training
                moving = first_clients(trained, active)
                standing = first_clients(frozen, active)
                received = self.downloads.first_clients(active)
                weights = list(moving.values())
                momenta = list(first_clients(velocities, active).values())
            at = batches.index[:active, step]  # (active, B)
            x = inputs[clients[:active], at]  # (active, B, ...)
            y = self.labels[clients[:active], at]  # (active, B)
            for gradients_and_losses in gradients_of:
                gradients, losses = gradients_and_losses(
                    moving, standing, received, x, y, batches.weight[:active, step]
                )
                in_order = [gradients[name] for name in moving]
                momentum_step(weights, momenta, in_order, lr, self.method.momentum, self.method.weight_decay)
                total_loss[:active] += losses.detach()

        steps = batches.steps * len(phase.losses)
        mean_loss = total_loss / steps.clamp(min=1).to(total_loss)
        return Trained(trained, mean_loss, steps)

    def gradients_of(self, loss_of: Loss) -> Callable[..., Any]:
        """The gradient and value of one loss, for all clients of the stack."""

        def mean_loss(
            trained: Tensors,
            frozen: Tensors,
            download: Tensors,
            x: Tensor,
            y: Tensor,
            weight: Tensor,
        ) -> Tensor:
            losses = loss_of(self.net, {**frozen, **trained}, download, x, y)  # (B,)
            return (losses * weight).sum()

        return vmap(grad_and_value(mean_loss), in_dims=(0, 0, self.downloads.dims(), 0, 0, 0))
