"""FedRep: a shared extractor, and a classifier of one's own that is trained first.

Collins, Hassani, Mokhtari, Shakkottai: Exploiting Shared Representations for Personalized Federated Learning.
ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..hyper import hyper
from ..phases import Phases, Train
from ..tensors import CLASSIFIER, EXTRACTOR
from .fedavg import FedAvg, own_model


@dataclass(frozen=True)
class FedRep(FedAvg):
    """phi_i for `classifier_epochs` with theta frozen, then theta for `epochs` with phi_i frozen; theta travels."""

    classifier_epochs: int = hyper(1, "local epochs of the classifier before the extractor's, H", tries=(1, 5))

    shared = (EXTRACTOR,)
    predict = own_model

    def phases(self) -> Phases:
        return (
            Train((CLASSIFIER,), (self.classifier_loss,), self.classifier_epochs, on_features=True),
            Train((EXTRACTOR,), (self.loss,), self.epochs),
        )
