"""A user's own method: what its hooks give is checked, and every backend computes the same or says that it cannot."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from helpers import difference, last

from fedecouple_lite import rounds, split
from fedecouple_lite.methods import FedAvg, FedRep
from fedecouple_lite.phases import Derive, Train
from fedecouple_lite.stacked import CannotStack

BACKENDS = ("auto", "loop", "threads", "vmap")
QUICK = {"lr": 0.1, "epochs": 1, "batch_size": 8}


@dataclass(frozen=True)
class Scalar(FedAvg):
    def loss(self, net, client, download, x, y):
        return F.cross_entropy(net.logits(client, x), y)


@dataclass(frozen=True)
class Column(FedAvg):
    def loss(self, net, client, download, x, y):
        return F.cross_entropy(net.logits(client, x), y, reduction="none")[:, None]


@dataclass(frozen=True)
class PerClass(FedAvg):
    def loss(self, net, client, download, x, y):
        return -net.logits(client, x).log_softmax(1)


@dataclass(frozen=True)
class ScalarOnFeatures(FedRep):
    def classifier_loss(self, net, client, download, z, y):
        return F.cross_entropy(net.classify(client, z), y)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "hook", "shape"),
    [
        (Scalar, "loss", r"\(\)"),
        (Column, "loss", r"\(8, 1\)"),
        (PerClass, "loss", r"\(8, 10\)"),
        (ScalarOnFeatures, "classifier_loss", r"\(\)"),
    ],
)
def test_a_loss_of_another_shape_is_refused_by_name(net, federation, backend, kind, hook, shape):
    message = rf"{kind.__name__}\.{hook} gave losses of shape {shape} for a batch of 8 images.*\(8,\)"
    with pytest.raises(ValueError, match=message):
        last(rounds(kind(**QUICK), net, federation, rounds=1, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_that_does_not_depend_on_what_is_trained_is_refused(net, federation, backend):
    @dataclass(frozen=True)
    class Deaf(FedAvg):
        def loss(self, net, client, download, x, y):
            return x.flatten(1).sum(1)

    with pytest.raises(ValueError, match=r"Deaf\.loss does not depend on any tensor"):
        last(rounds(Deaf(**QUICK), net, federation, rounds=1, backend=backend))


def test_a_tensor_that_one_loss_does_not_use_moves_alike_in_every_backend(net, federation):
    """The second of two losses sees only the classifier: the extractor's gradient is zero there, not an error."""

    @dataclass(frozen=True)
    class Half(FedAvg):
        def phases(self):
            return (Train(("extractor.", "classifier."), (self.loss, self.of_classifier), self.epochs),)

        def of_classifier(self, net, client, download, x, y):
            z = net.features(client, x).detach()
            return F.cross_entropy(net.classify(client, z), y, reduction="none")

    doubles = federation.to(dtype=torch.float64)
    runs = [last(rounds(Half(**QUICK), net, doubles, rounds=2, backend=b)) for b in ("loop", "vmap")]
    assert difference(*runs) < 1e-10


@dataclass(frozen=True)
class Centred(FedAvg):
    """Features minus the mean of their batch."""

    def loss(self, net, client, download, x, y):
        z = net.features(client, x)
        return F.cross_entropy(net.classify(client, z - z.mean(0)), y, reduction="none")


@dataclass(frozen=True)
class Weighted(FedAvg):
    """Rare classes of a batch weigh more."""

    def loss(self, net, client, download, x, y):
        weights = 1 / (F.one_hot(y, net.classes).sum(0)[y] + 1.0)
        return weights * F.cross_entropy(net.logits(client, x), y, reduction="none")


@dataclass(frozen=True)
class Hardest(FedAvg):
    """The loss of an image, over the largest of its batch."""

    def loss(self, net, client, download, x, y):
        losses = F.cross_entropy(net.logits(client, x), y, reduction="none")
        return losses / losses.max().detach()


@dataclass(frozen=True)
class Neighbour(FedAvg):
    """Every image drawn to the one before it in the batch."""

    def loss(self, net, client, download, x, y):
        z = net.features(client, x)
        ce = F.cross_entropy(net.classify(client, z), y, reduction="none")
        return ce + (z - z.roll(1, 0)).square().mean(1)


@pytest.mark.parametrize("kind", [Centred, Weighted, Hardest, Neighbour])
def test_a_loss_that_couples_a_batch_is_refused_by_vmap_and_auto_takes_threads(net, federation, kind):
    method = kind(**QUICK)
    with pytest.raises(CannotStack, match=rf"pads batches, but {kind.__name__}\.loss of one image .*use 'threads'"):
        last(rounds(method, net, federation, rounds=1, backend="vmap"))
    runs = [last(rounds(method, net, federation, rounds=2, backend=b)) for b in ("auto", "threads", "loop")]
    assert difference(runs[0], runs[1]) == difference(runs[1], runs[2]) == 0
    assert runs[0].records[-1]["steps"] == runs[1].records[-1]["steps"]


def test_a_derived_tensor_that_counts_padding_is_refused_by_vmap(net, few):
    @dataclass(frozen=True)
    class Blind(FedAvg):
        def phases(self):
            return (Derive(self.mean_feature), *super().phases())

        def mean_feature(self, net, z, y, valid):
            return {"mean.z": z.mean(0)}

    federation = split(few, 4, "quantity")
    with pytest.raises(CannotStack, match=r"Blind\.mean_feature does not leave out"):
        last(rounds(Blind(**QUICK), net, federation, rounds=1, backend="vmap"))
    runs = [last(rounds(Blind(**QUICK), net, federation, rounds=1, backend=b)) for b in ("auto", "loop")]
    assert difference(*runs) == 0


def test_a_phases_own_step_size_of_zero_is_one():
    assert [Train(("classifier.",), (), 1, lr=lr).step_size(0.1) for lr in (None, 0.0, 0.3)] == [0.1, 0.0, 0.3]
