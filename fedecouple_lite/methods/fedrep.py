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
    """phi_i for `classifier_epochs` with theta frozen, then theta for `epochs` with phi_i frozen; theta travels.

    The authors' code averages theta with equal weights and trains ten epochs of the classifier to one of the extractor;
    here weights are by size, as for every method, and both numbers of epochs are hyper-parameters.
    """

    classifier_epochs: int = hyper(1, "local epochs of the classifier before the extractor's, H", tries=(1, 5, 10))
    classifier_lr: float | None = hyper(None, "step size of the classifier; none: as lr", tries=(None, 0.05, 0.2))

    shared = (EXTRACTOR,)
    predict = own_model

    def phases(self) -> Phases:
        return (
            Train(
                (CLASSIFIER,), (self.classifier_loss,), self.classifier_epochs, on_features=True, lr=self.classifier_lr
            ),
            Train((EXTRACTOR,), (self.loss,), self.epochs),
        )
