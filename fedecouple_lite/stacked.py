"""A stack of clients trained at once: one more leading dimension on every tensor, and `torch.func.vmap` over losses.

The same method, phases and batches as one client after the other, to rounding. Clients must come sorted by their
number of images, largest first (`engine.stacks_of` does it): at every step those that still have a batch are the first
ones, and only they are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.nn.utils.rnn import pad_sequence

from .augment import crop_flip
from .client import (
    CHUNK,
    ClientResult,
    LocalData,
    Trained,
    check_losses,
    hook_name,
    momentum_step,
    run_phases,
    trainable,
)
from .methods import FedAvg
from .models import DecoupledNet
from .phases import Derive, Loss, Phases, Train
from .tensors import EXTRACTOR, Tensors, pick

# How far two numbers may be apart that are equal but for rounding, by the precision of the net that computed them.
TOLERANCE = {"float32": 1e-3, "bf16": 5e-2}


class CannotStack(ValueError):
    """This method, or net, does not compute the same in a stack as client by client."""


def stack_rounds(
    method: FedAvg,
    net: DecoupledNet,
    clients: Sequence[Tensors],
    downloads: Sequence[Tensors],
    data: Sequence[LocalData],
) -> list[ClientResult]:
    """client.client_round for K clients at once, given in order of size, largest first; one result for each.

    Raises CannotStack where the method's hooks or the net cannot be vectorised, or would see that batches are padded.
    """
    received = [method.receive(client, download) for client, download in zip(clients, downloads, strict=True)]
    results = []
    for trained in stack_phases(method, net, method.phases(), received, downloads, data):
        upload = method.upload(trained.tensors)
        results.append(ClientResult(trained.tensors, upload, trained.loss, int(trained.steps)))
    return results


def stack_phases(
    method: FedAvg,
    net: DecoupledNet,
    phases: Phases,
    clients: Sequence[Tensors],
    downloads: Sequence[Tensors],
    data: Sequence[LocalData],
) -> list[Trained]:
    """client.run_phases for K clients at once, given in order of size, largest first: what it left with each.

    Raises CannotStack as `stack_rounds` does.
    """
    trainer = StackOfClients(method, net, downloads, data)
    with cannot_stack_what_vmap_refuses():
        stack = run_phases(phases, stack_of(clients), trainer)
    of_clients = []
    for place, before in enumerate(clients):
        # Clones: a view would keep the whole stack alive for as long as one of its clients.
        after = {name: tensor[place].clone() for name, tensor in stack.tensors.items()}
        of_clients.append(Trained({**before, **after}, stack.loss[place], stack.steps[place]))
    return of_clients


def predict_stack(
    method: FedAvg,
    net: DecoupledNet,
    clients: Sequence[Tensors],
    downloads: Sequence[Tensors],
    images: Tensor,
) -> Tensor:
    """method.predict for K clients at once: logits (K, n, C) of images (K, n, *in_shape), each client's own, padded
    where it has fewer than n.

    Raises CannotStack where the hook cannot be vectorised, or where its prediction of an image depends on others.
    """
    check_predict(method, net, clients[0], downloads[0], images[0, :1])
    received = Downloads.of(downloads)

    def predict(client: Tensors, download: Tensors, x: Tensor) -> Tensor:
        return method.predict(net, client, download, x)

    with cannot_stack_what_vmap_refuses():
        return vmap(predict, in_dims=(0, received.dims(), 0))(stack_of(clients), received.tensors, images)


def check_predict(method: FedAvg, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor) -> None:
    """Raise CannotStack unless one image, x (1, *in_shape), has the same logits with and without others behind it."""
    with_others, _ = followed_by_others(x, torch.zeros(1, dtype=torch.int64, device=x.device))
    alone = method.predict(net, client, download, x)
    together = method.predict(net, client, download, with_others)
    if not close(together[:1], alone, net.precision):
        hook = hook_name(method, method.predict)
        raise CannotStack(
            f"backend='vmap' pads images, but {hook} of one image depends on the rest of its batch; use 'threads'"
        )


@contextmanager
def cannot_stack_what_vmap_refuses() -> Iterator[None]:
    """In between PyTorch's RuntimeError becomes a CannotStack: it is raised for many reasons; the message says which,
    and client by client it may go well."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CannotStack(f"backend='vmap' cannot vectorise this net or method ({reason}); use 'threads'") from error


def stack_of(clients: Sequence[Tensors]) -> Tensors:
    """K clients' tensors as one, (K, ...) each. Newcomers lack what the others measured in an earlier round and will
    measure anew: only common names are stacked."""
    return {name: torch.stack([client[name] for client in clients]) for name in common_names(clients)}


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
            # The same object, not equal values: a method sends everyone the server's own tensor, and comparing values
            # would cost more than it saves.
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
    padding. steps: (K,), each client's number of batches, on the CPU. views: (K, S, B, 3), how each image is cropped
    and flipped; None where images are taken as they are.
    """

    index: Tensor
    weight: Tensor
    steps: Tensor
    views: Tensor | None

    @classmethod
    def of(cls, data: Sequence[LocalData], epochs: int, like: Tensor, draw_views: bool) -> Batches:
        """On `like`'s device, the weights in its dtype. draw_views: whether images are to be augmented."""
        by_client = [list(local.batches(epochs)) for local in data]
        steps = np.array([len(batches) for batches in by_client])
        longest = max((len(batch) for batches in by_client for batch in batches), default=1)
        shape = (len(data), steps.max(initial=0), longest)
        index = torch.zeros(shape, dtype=torch.int64)
        weight = torch.zeros(shape, dtype=torch.float64)
        views = torch.zeros((*shape, 3), dtype=torch.int64) if draw_views else None
        for k, (local, batches) in enumerate(zip(data, by_client, strict=True)):
            for s, batch in enumerate(batches):
                index[k, s, : len(batch)] = batch
                weight[k, s, : len(batch)] = 1 / len(batch)
                if views is not None and local.draw_views is not None:
                    views[k, s, : len(batch)] = local.draw_views(len(batch))
        return cls(
            index.to(like.device),
            weight.to(like),
            torch.from_numpy(steps),
            None if views is None else views.to(like.device),
        )


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

        self.check_derived(phase, inputs)
        return vmap(compute)(inputs, self.labels, self.valid)

    def train(self, phase: Train, client: Tensors, inputs: Tensor) -> Trained:
        """client.sgd for all: loss and steps are (K,)."""
        trained = {name: tensor.clone() for name, tensor in trainable(self.net, client, phase.prefixes).items()}
        if not trained:
            return Trained({}, inputs.new_zeros(self.shape), torch.zeros(self.shape, dtype=torch.int64))
        augment = self.data[0].draw_views is not None and not phase.on_features
        batches = Batches.of(self.data, phase.epochs, like=inputs, draw_views=augment)
        for loss_of in phase.losses:
            self.check_losses(loss_of, client, trained, inputs, batches)
        frozen = {name: tensor for name, tensor in client.items() if name not in trained}
        velocities = {name: torch.zeros_like(tensor) for name, tensor in trained.items()}
        gradients_of_losses = [self.gradients_of(loss_of) for loss_of in phase.losses]
        lr = phase.step_size(default=self.method.lr)

        clients = torch.arange(len(self.data), device=inputs.device)[:, None]  # (K, 1)
        total_loss = inputs.new_zeros(self.shape)
        active = 0
        for step in range(batches.index.shape[1]):
            self.data[0].check()  # all clients of a run have the same
            still_training = int((batches.steps > step).sum())
            if still_training != active:  # the stack has shrunk
                # Views of the clients that still have a batch: a step on them in place is a step on the whole.
                active = still_training
                active_trained = first_clients(trained, active)
                active_frozen = first_clients(frozen, active)
                active_download = self.downloads.first_clients(active)
                weights = list(active_trained.values())
                active_velocities = list(first_clients(velocities, active).values())
            at = batches.index[:active, step]  # (active, B)
            weight = batches.weight[:active, step]  # (active, B)
            # Row k takes client k's images; padding takes its image 0, at weight 0.
            x = inputs[clients[:active], at]  # (active, B, ...)
            y = self.labels[clients[:active], at]  # (active, B)
            if batches.views is not None:
                x = views_of_stack(x, batches.views[:active, step])
            for gradients_of in gradients_of_losses:
                gradients, losses = gradients_of(active_trained, active_frozen, active_download, x, y, weight)
                in_order = [gradients[name] for name in active_trained]
                momentum_step(weights, active_velocities, in_order, lr, self.method.momentum, self.method.weight_decay)
                total_loss[:active] += losses.detach()

        steps = batches.steps * len(phase.losses)
        mean_loss = total_loss / steps.clamp(min=1).to(total_loss)
        return Trained(trained, mean_loss, steps)

    def check_losses(self, loss_of: Loss, client: Tensors, trained: Tensors, inputs: Tensor, batches: Batches) -> None:
        """One batch of the largest client, with and without more images behind it: the losses of its own images must be
        the same. Raises CannotStack where they are not, and ValueError as client.check_losses does.

        The images behind it are unlike any real one, so that a loss which only looks at the largest value of a batch
        notices them, too.
        """
        if not int(batches.steps[0]):
            return
        images = int((batches.weight[0, 0] > 0).sum())
        index = batches.index[0, 0, :images]
        x = inputs[0, index]
        y = self.labels[0, index]
        download = {name: t if name in self.downloads.alike else t[0] for name, t in self.downloads.tensors.items()}
        first = {name: tensor[0] for name, tensor in client.items()}
        for name in trained:
            first[name] = first[name].detach().requires_grad_()

        alone = loss_of(self.net, first, download, x, y)
        check_losses(self.method, loss_of, alone, images)
        together = loss_of(self.net, first, download, *followed_by_others(x, y))
        if not close(together[:images], alone, self.net.precision):
            hook = hook_name(self.method, loss_of)
            raise CannotStack(
                f"backend='vmap' pads batches, but {hook} of one image depends on the rest of its batch; use 'threads'"
            )

    def check_derived(self, phase: Derive, inputs: Tensor) -> None:
        """Raise CannotStack unless the largest client's images derive the same with and without padding behind them."""
        images = len(self.data[0].y)
        x = inputs[0, :images]
        y = self.data[0].y
        valid = torch.ones_like(y, dtype=x.dtype)
        more_x, more_y = followed_by_others(x, y)
        padded = torch.cat([valid, valid.new_zeros(len(more_y) - images)])
        alone = phase.compute(self.net, x, y, valid)
        together = phase.compute(self.net, more_x, more_y, padded)
        if not all(close(together[name], alone[name], self.net.precision) for name in alone):
            hook = hook_name(self.method, phase.compute)
            raise CannotStack(
                f"backend='vmap' pads images, and {hook} does not leave out those not valid; use 'threads'"
            )

    def gradients_of(self, loss_of: Loss) -> Callable[..., Any]:
        """The function that gives one loss's gradients, (K, ...) by name, and values, (K,), of all clients at once."""

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


def followed_by_others(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A batch with three more inputs behind it, unlike its own, all with the label of its first."""
    first = x[:1]
    large = 3 * first + 1
    inputs = torch.cat([x, large, -large, torch.zeros_like(first)])
    labels = torch.cat([y, y[:1].expand(3)])
    return inputs, labels


def close(a: Tensor, b: Tensor, precision: str) -> bool:
    """Equal but for rounding, of which larger batches may do another amount. precision: of the net that computed it."""
    if a.shape != b.shape:
        return False
    tolerance = 1e-8 if a.dtype == torch.float64 else TOLERANCE[precision]
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def views_of_stack(x: Tensor, views: Tensor) -> Tensor:
    """Images (K, B, C, H, W) as `views` (K, B, 3) say."""
    clients, images = views.shape[:2]
    cropped = crop_flip(x.flatten(0, 1), views.flatten(0, 1))
    return cropped.unflatten(0, (clients, images))
