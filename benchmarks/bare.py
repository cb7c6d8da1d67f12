"""The yardstick: one federated round as anybody would write it in plain PyTorch, one client after the other.

The same nets, batches and steps as the engine; images are resident floats, so nothing is lost to loading. A frozen
extractor is run at every step, as a plain loop does.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedecouple_lite import DecoupledNet
from fedecouple_lite.client import LocalData
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.tensors import Tensors

Loss = Callable[[Tensor], Tensor]  # of the images at an index (B,): a scalar


def client_round(
    name: str, method: FedAvg, net: DecoupledNet, weights: Tensors, data: LocalData
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One client's FedAvg, FedRep or FedeCouple round from `weights`; returns its new state dictionaries."""
    extractor = loaded(net.extractor, weights, "extractor.").to(data.x.device)
    classifier = loaded(net.classifier, weights, "classifier.").to(data.x.device)

    def cross_entropy(index: Tensor) -> Tensor:
        return F.cross_entropy(classifier(extractor(data.x[index])), data.y[index])

    if name == "fedavg":
        both = [*extractor.parameters(), *classifier.parameters()]
        train(both, [cross_entropy], data.batches(method.epochs), method)
        return extractor.state_dict(), classifier.state_dict()

    of_classifier: Loss = cross_entropy
    of_extractor: Sequence[Loss] = [cross_entropy]
    if name == "fedecouple":
        of_classifier, of_extractor = fedecouple_losses(method, net.classes, extractor, classifier, data)
    extractor.requires_grad_(False)
    train(classifier.parameters(), [of_classifier], data.batches(method.classifier_epochs), method)
    extractor.requires_grad_(True)
    classifier.requires_grad_(False)
    train(extractor.parameters(), of_extractor, data.batches(method.epochs), method)
    return extractor.state_dict(), classifier.state_dict()


def loaded(module: nn.Module, tensors: Tensors, prefix: str) -> nn.Module:
    """A copy of the module with the named tensors in it."""
    own = copy.deepcopy(module)
    own.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
    return own


def train(parameters: Iterable[Tensor], losses: Sequence[Loss], batches: Iterable[Tensor], method: FedAvg) -> None:
    """SGD on `parameters`; one step for each batch and loss."""
    optimizer = torch.optim.SGD(parameters, method.lr, method.momentum, weight_decay=method.weight_decay)
    for index in batches:
        for loss in losses:
            optimizer.zero_grad()
            loss(index).backward()
            optimizer.step()


def fedecouple_losses(
    method: FedAvg, classes: int, extractor: nn.Module, classifier: nn.Module, data: LocalData
) -> tuple[Loss, Sequence[Loss]]:
    """FedeCouple's loss of the classifier and its losses of the extractor, with teacher and anchors as received."""
    teacher = copy.deepcopy(classifier).requires_grad_(False)
    anchors = class_means(extractor, classes, data)

    def personal(index: Tensor) -> Tensor:
        y = data.y[index]
        with torch.no_grad():
            z = extractor(data.x[index])
            of_teacher = teacher(z).softmax(1)
            trust = of_teacher.gather(1, y[:, None])[:, 0]
        logits = classifier(z)
        distillation = F.kl_div(logits.log_softmax(1), of_teacher, reduction="none").sum(1)
        return F.cross_entropy(logits, y) + method.lam * (trust * distillation).mean()

    def pull(z: Tensor, y: Tensor) -> Tensor:
        return method.mu * (z - anchors[y]).square().mean()

    def towards(one_classifier: nn.Module) -> Loss:
        def loss(index: Tensor) -> Tensor:
            z = extractor(data.x[index])
            y = data.y[index]
            return F.cross_entropy(one_classifier(z), y) + pull(z, y)

        return loss

    def joint(index: Tensor) -> Tensor:
        z = extractor(data.x[index])
        y = data.y[index]
        return F.cross_entropy(teacher(z), y) + F.cross_entropy(classifier(z), y) + pull(z, y)

    if method.coupling == "joint":
        return personal, [joint]
    return personal, [towards(teacher), towards(classifier)]


@torch.no_grad()
def class_means(extractor: nn.Module, classes: int, data: LocalData) -> Tensor:
    """Mean feature of each class, (C, d); zeros for a class without images."""
    z = extractor(data.x)
    means = z.new_zeros(classes, z.shape[1])
    for c in data.y.unique().tolist():
        means[c] = z[data.y == c].mean(0)
    return means
