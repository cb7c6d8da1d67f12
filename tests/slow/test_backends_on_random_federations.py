"""Loop, threads and vmap on 50 random tiny federations for every method: clients of 1 to 40 images, some of one class
only, batches of 1 to 64, in float64 to 1e-10."""

import numpy as np
import pytest
import torch
from helpers import difference, last
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedecouple_lite import METHODS, DecoupledNet, Federation, from_arrays, make, rounds


@pytest.mark.parametrize("name", sorted(METHODS))
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    batch_size=st.integers(1, 64),
    seed=st.integers(0, 10**6),
    one_class=st.booleans(),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_backends_agree(name, sizes, batch_size, seed, one_class):
    federation = tiny_federation(sizes, seed, one_class)
    net = small_net()
    method = make(name, lr=0.05, epochs=1, batch_size=batch_size)
    loop, threads, vmap = (
        last(rounds(method, net, federation, rounds=2, seed=seed, backend=backend, eval_every=2))
        for backend in ("loop", "threads", "vmap")
    )
    assert difference(loop, threads) == 0
    assert difference(loop, vmap) < 1e-10
    for key in ("steps", "predict_steps", "newcomers", "accuracies"):
        assert str(loop.records[-1][key]) == str(vmap.records[-1][key])  # as text: NaN equals NaN


def small_net():
    """Convolution, pooling and two linear layers, as the nets here have them, and few of each."""
    extractor = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 8), nn.ReLU()
    )
    return DecoupledNet(extractor, nn.Linear(8, 4), (1, 8, 8))


def tiny_federation(sizes, seed, one_class):
    """Clients of these sizes on made-up images in float64; with one_class the first has images of one class only."""
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    x = rng.integers(0, 17, (2 * total, 8, 8), dtype=np.uint8)
    y = rng.integers(0, 4, 2 * total)
    if one_class:
        y[: sizes[0]] = 2
    data = from_arrays("tiny", x, y, x[:0], y[:0], range(4))
    ends = np.cumsum(sizes)
    train = tuple(torch.arange(end - size, end) for size, end in zip(sizes, ends, strict=True))
    return Federation(data, train, tuple(index + total for index in train)).to(dtype=torch.float64)
