"""Small real data for every test: some digits, four clients, a tiny net."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedecouple_lite import from_arrays, load, net_for, split
from fedecouple_lite.engine import LocalData

torch.set_num_threads(2)


def _shared() -> Path | None:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    given = os.environ.get("FEDECOUPLE_DATA")
    return Path(given) if given else beside if beside.exists() else None


@pytest.fixture(autouse=True)
def close_figures():
    """pyplot keeps every figure until it is closed, and warns at twenty."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def real_images():
    """The folder of real image sets, where there is one."""
    folder = _shared()
    if folder is None or not (folder / "cifar10.npz").exists():
        pytest.skip("no real image sets here (FEDECOUPLE_DATA)")
    return folder


@pytest.fixture(scope="session")
def digits():
    return load("digits")


@pytest.fixture(scope="session")
def few(digits):
    """160 digits."""
    x, y = digits.x[:160, 0].numpy(), digits.y[:160].numpy()
    return from_arrays("few", x, y, x[:0], y[:0], range(10))


@pytest.fixture(scope="session")
def net():
    return net_for((1, 8, 8), 10)


@pytest.fixture
def federation(few):
    return split(few, clients=4, scheme="dirichlet", seed=1, alpha=0.5)


@pytest.fixture
def local(few):
    """One client's 12 images of classes 0 to 9 and its batches of 5, in order."""
    x, y = few.images(torch.arange(12)), few.y[:12]
    return LocalData(x, y, lambda epochs: [i for _ in range(epochs) for i in torch.arange(12).split(5)])


def same(a, b) -> bool:
    """Two dictionaries of tensors, equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def copied(tensors):
    return {name: t.clone() for name, t in tensors.items()}


def last(states):
    return list(states)[-1]


def arrays(n=30, classes=3, size=8, seed=0):
    """Made-up images for what is about shapes and errors, not learning."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 255, (n, size, size), dtype=np.uint8)
    return x, rng.permutation(np.arange(n) % classes)
