"""Named tensors: the one kind of state here. A client, a server and a message are each a flat ``dict[str, Tensor]``.

The part before the first dot says what a tensor belongs to (``extractor.0.weight``, ``anchors.means``), so "what
travels" is a choice of prefixes. Nothing here changes an argument.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
EXTRACTOR = "extractor."
CLASSIFIER = "classifier."


def pick(tensors: Tensors, *prefixes: str) -> Tensors:
    """The tensors whose names start with one of `prefixes`. ValueError where a prefix matches none: a typing error
    must not quietly empty a message.

    Examples
    --------
    >>> client = {"extractor.w": torch.zeros(2), "anchors.means": torch.zeros(3)}
    >>> list(pick(client, "extractor."))
    ['extractor.w']
    """
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in tensors):
            known = sorted({name.split(".")[0] + "." for name in tensors})
            raise ValueError(f"prefix={prefix!r} matches no tensor; these begin with {known}")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}


def weighted_mean(many: Sequence[Tensors], weights: Sequence[float]) -> Tensors:
    """sum_k weights[k] many[k] / sum_k weights[k], name by name; K >= 1 dictionaries with equal names and shapes.

    Examples
    --------
    >>> uploads = [{"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([4.0, 0.0])}]
    >>> weighted_mean(uploads, [1, 3])["w"].tolist()
    [3.0, 1.0]
    """
    total = float(sum(weights))
    if len(many) != len(weights) or not total > 0 or min(weights) < 0:
        raise ValueError(f"weights={list(weights)} must be {len(many)} numbers >= 0, not all zero")
    if any(tensors.keys() != many[0].keys() for tensors in many):
        raise ValueError("many: the dictionaries must hold the same names")

    shares = [weight / total for weight in weights]
    mean = {}
    for name in many[0]:
        mean[name] = shares[0] * many[0][name]
        for share, tensors in zip(shares[1:], many[1:], strict=True):
            mean[name] = mean[name] + share * tensors[name]
    return mean


def rename(tensors: Tensors, old: str, new: str) -> Tensors:
    """The same tensors, `old` at the beginning of every name replaced by `new`."""
    return {new + name.removeprefix(old): tensor for name, tensor in tensors.items()}


def under(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with `prefix`, by what follows it; none is no error."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def squared_distance(a: Tensors, b: Tensors) -> Tensor:
    """||a - b||^2 over the names of `a`, a scalar; `b` may hold more."""
    distances = [(tensor - b[name]).square().sum() for name, tensor in a.items()]
    return torch.stack(distances).sum()


def flat(tensors: Tensors) -> Tensor:
    """All tensors, in order, as one vector (P,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def nbytes(tensors: Tensors) -> int:
    """Bytes that these tensors take on the wire, uncompressed."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
