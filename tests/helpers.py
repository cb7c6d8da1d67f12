"""What several tests need: comparisons of named tensors, the last of many states, made-up images."""

import signal
from collections.abc import Iterable

import numpy as np
import torch

from fedecouple_lite.engine import State
from fedecouple_lite.tensors import Tensors


def same(a: Tensors, b: Tensors) -> bool:
    """Two dictionaries of tensors, equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def copied(tensors: Tensors) -> Tensors:
    """Copies that share no memory."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def last(states: Iterable[State]) -> State:
    """The last one; the others are let go."""
    *_, state = states
    return state


def arrays(n: int = 30, classes: int = 3, size: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Made-up images for what is about shapes and errors, not learning."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 255, (n, size, size), dtype=np.uint8)
    return x, rng.permutation(np.arange(n) % classes)


def difference(a: State, b: State) -> float:
    """The largest difference of any tensor of any client or the server."""
    largest = 0.0
    for x, y in zip((a.server, *a.clients), (b.server, *b.clients), strict=True):
        assert x.keys() == y.keys()
        for name in x:
            largest = max(largest, (x[name] - y[name]).abs().max().item())
    return largest


def heed_ctrl_c() -> None:
    """For a process that a test starts, as it begins: a shell that starts tests in the background has them ignore
    Ctrl-C, and what they start would ignore it, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
