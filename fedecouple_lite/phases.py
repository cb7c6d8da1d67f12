"""What a client does in a round, in order: it trains some of its tensors, or derives new ones from its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .models import DecoupledNet
from .tensors import Tensors

# (net, the client's tensors, the download, images (B, ...) or features (B, d), labels (B,)) -> one loss per image (B,)
Loss = Callable[[DecoupledNet, Tensors, Tensors, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Train:
    """`epochs` passes of mini-batch SGD over the client's own images.

    prefixes: of the tensors that move; nothing else does, not even by momentum or weight decay. losses: one gradient
    step for each and every batch, in this order, sharing one momentum. on_features: the extractor stands still, so the
    losses get features (B, d), computed once, in place of images. lr: None is the method's.
    """

    prefixes: tuple[str, ...]
    losses: tuple[Loss, ...]
    epochs: int
    on_features: bool = False
    lr: float | None = None

    def step_size(self, default: float) -> float:
        """This phase's own step size, or the method's."""
        return default if self.lr is None else self.lr


@dataclass(frozen=True)
class Derive:
    """Adds tensors to the client's, without a gradient: anchors, statistics, counts.

    compute(net, features (n, d), labels (n,), valid (n,)) -> tensors by name, valid being 1 for an image and 0 for
    padding. With on_features off, images take the features' place.
    """

    compute: Callable[[DecoupledNet, Tensor, Tensor, Tensor], Tensors]
    on_features: bool = True


Phase = Train | Derive
Phases = tuple[Phase, ...]
