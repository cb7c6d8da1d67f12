"""Random views of colour images: the same in every backend, drawn by key, never where features are measured."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import last, same

from fedecouple_lite import from_arrays, make, net_for, rounds, split
from fedecouple_lite.augment import PAD, crop_flip, draw_crop_flip
from fedecouple_lite.methods import FedAvg

QUICK = {"lr": 0.05, "epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def colour():
    """40 made-up colour images of 32 x 32, divided over three clients, in float64."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    data = from_arrays("colour", x, np.arange(40) % 4, x[:0], np.arange(0))
    return split(data, 3, "quantity").to(dtype=torch.float64)


def test_crops_and_flips_by_slicing():
    """Every image by torch's own padding, slicing and flipping."""
    images = torch.randn(50, 3, 7, 9)
    views = draw_crop_flip(np.random.default_rng(1), 50)
    got = crop_flip(images, views)
    for image, (row, column, mirrored), result in zip(images, views.tolist(), got, strict=True):
        padded = F.pad(image, (PAD, PAD, PAD, PAD))
        expected = padded[:, row : row + 7, column : column + 9]
        assert torch.equal(result, expected.flip(2) if mirrored else expected)


def test_views_are_spread_over_all_shifts_and_both_sides():
    views = draw_crop_flip(np.random.default_rng(0), 20_000)
    for column, values in ((0, 2 * PAD + 1), (1, 2 * PAD + 1), (2, 2)):
        shares = views[:, column].bincount(minlength=values) / len(views)
        assert len(shares) == values and ((shares - 1 / values).abs() < 0.02).all()


@pytest.mark.parametrize("name", ["fedavg", "fedrep", "fedecouple", "ditto"])
def test_backends_see_the_same_views(colour, name):
    net = net_for((3, 32, 32), 4)
    runs = [
        last(rounds(make(name, **QUICK), net, colour, rounds=2, augment="crop_flip", backend=backend))
        for backend in ("loop", "threads", "vmap")
    ]
    for a, b in ((runs[0], runs[1]), (runs[0], runs[2])):
        for x, y in zip((a.server, *a.clients), (b.server, *b.clients), strict=True):
            assert all((x[n] - y[n]).abs().max() < 1e-10 for n in x)


def test_augmented_training_is_another_one_and_repeats(colour):
    net = net_for((3, 32, 32), 4)
    common = {"rounds": 1, "seed": 5}
    plain = last(rounds(make("fedavg", **QUICK), net, colour, **common))
    once, again = (last(rounds(make("fedavg", **QUICK), net, colour, augment="crop_flip", **common)) for _ in range(2))
    assert same(once.server, again.server) and not same(once.server, plain.server)


def test_features_are_measured_on_images_as_they_are(colour):
    """The anchors of the first round are those of the plain images under the starting weights."""
    net = net_for((3, 32, 32), 4)
    augmented, plain = (
        last(rounds(make("fedecouple", **QUICK), net, colour, rounds=1, augment=augment))
        for augment in ("crop_flip", None)
    )
    for a, b in zip(augmented.clients, plain.clients, strict=True):
        assert torch.equal(a["anchors.means"], b["anchors.means"])
        assert torch.equal(a["classifier.weight"], b["classifier.weight"])  # it trains on those features
        assert not torch.equal(a["extractor.0.weight"], b["extractor.0.weight"])


def test_grey_images_and_unknown_names_are_refused(net, federation, colour):
    with pytest.raises(ValueError, match=r"augment='crop_flip' must be None for images of shape \(1, 8, 8\)"):
        next(rounds(make("fedavg"), net, federation, rounds=1, augment="crop_flip"))
    with pytest.raises(ValueError, match="augment='flip' must be one of crop_flip, or None"):
        next(rounds(make("fedavg"), net_for((3, 32, 32), 4), colour, rounds=1, augment="flip"))


def test_the_round_that_vmap_leaves_to_threads_sees_views_as_well():
    """A loss that asks for a number cannot be stacked: auto finds that out in the first round, and threads train it."""

    @dataclass(frozen=True)
    class Asks(FedAvg):
        def loss(self, net, client, download, x, y):
            losses = F.cross_entropy(net.logits(client, x), y, reduction="none")
            return losses / losses.max().item()

    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (60, 8, 8, 3), dtype=np.uint8)  # small: auto tries stacks first
    federation = split(from_arrays("small", x, np.arange(60) % 4, x[:0], np.arange(0)), 3, "quantity")
    net = net_for((3, 8, 8), 4)
    options = {"rounds": 1, "augment": "crop_flip"}
    auto, threads = (last(rounds(Asks(**QUICK), net, federation, backend=b, **options)) for b in ("auto", "threads"))
    plain = last(rounds(Asks(**QUICK), net, federation, rounds=1))
    assert same(auto.server, threads.server) and not same(auto.server, plain.server)
