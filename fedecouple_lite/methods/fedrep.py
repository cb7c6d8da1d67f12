"""FedRep: a shared extractor, and a classifier of one's own that is trained first.

Collins, Hassani, Mokhtari, Shakkottai: Exploiting Shared Representations for Personalized Federated Learning.
ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..models import DecoupledNet
from ..phases import Phase, Phases, hyper
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors
from .fedavg import FedAvg


@dataclass(frozen=True)
class FedRep(FedAvg):
    """phi_i for `classifier_epochs` with theta frozen, then theta for `epochs` with phi_i frozen; theta travels."""

    classifier_epochs: int = hyper(1, "local epochs of the classifier before the extractor's, H")

    shared = (EXTRACTOR,)

    def phases(self) -> Phases:
        return (
            Phase((CLASSIFIER,), (self.classifier_loss,), self.classifier_epochs, on_features=True),
            Phase((EXTRACTOR,), (self.loss,), self.epochs),
        )

    def predict(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor) -> Tensor:
        return net.logits(client, x)
