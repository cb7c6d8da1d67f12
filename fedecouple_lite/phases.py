"""What a method is made of: hyper-parameters that know their range, and the phases of one client's round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from math import inf, isfinite
from typing import Any

from torch import Tensor

from .models import DecoupledNet
from .tensors import Tensors

Loss = Callable[[DecoupledNet, Tensors, Tensors, Tensor, Tensor], Tensor]  # net, client, download, inputs, y -> (B,)


@dataclass(frozen=True)
class Phase:
    """`epochs` passes of mini-batch SGD over the client's own images.

    train: prefixes of the tensors that move; nothing else does, not even by momentum or weight decay. losses: one
    gradient step for each and every batch, in this order, sharing one momentum. on_features: the extractor stands
    still, so the losses get features (B, d), computed once, in place of images. lr: None is the method's.
    """

    train: tuple[str, ...]
    losses: tuple[Loss, ...]
    epochs: int
    on_features: bool = False
    lr: float | None = None


@dataclass(frozen=True)
class Measure:
    """Adds tensors to the client's: compute(net, features (n, d), y (n,), valid (n,)), valid being 1 for an image and 0
    for padding; with on_features off, images take the features' place."""

    compute: Callable[[DecoupledNet, Tensor, Tensor, Tensor], Tensors]
    on_features: bool = True


Phases = tuple[Phase | Measure, ...]


def hyper(
    default: Any, meaning: str, low: float = 0, high: float = inf, choices: tuple[str, ...] = (), tries: tuple = ()
) -> Any:
    """A hyper-parameter: a dataclass field that knows its meaning, its range ([low, high], or one of `choices`) and the
    values that tuning draws from (`tries`)."""
    about = {"meaning": meaning, "low": low, "high": high, "choices": choices, "tries": tries}
    return field(default=default, metadata=about)


def hypers(method: Any) -> dict[str, Field]:
    """The hyper-parameters of a method, or of its class, by name."""
    return {f.name: f for f in fields(method) if "meaning" in f.metadata}


def allowed(f: Field) -> str:
    """The range in words, such as "a whole number >= 1"."""
    if f.metadata["choices"]:
        return "one of " + ", ".join(f.metadata["choices"])
    most = "" if f.metadata["high"] == inf else f" and <= {f.metadata['high']}"
    return f"a {'whole ' if isinstance(f.default, int) else ''}number >= {f.metadata['low']}{most}"


def check_hypers(method: Any) -> None:
    """Raise ValueError naming the first hyper-parameter outside its range, its value and the range."""
    for name, f in hypers(method).items():
        value, kinds = getattr(method, name), int if isinstance(f.default, int) else (int, float)
        good = value in f.metadata["choices"]
        if not f.metadata["choices"] and isinstance(value, kinds) and not isinstance(value, bool):
            good = isfinite(value) and f.metadata["low"] <= value <= f.metadata["high"]
        if not good:
            raise ValueError(f"{name}={value!r} of {type(method).__name__} must be {allowed(f)}")
