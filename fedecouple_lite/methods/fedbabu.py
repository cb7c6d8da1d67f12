"""FedBABU: never train the classifier together; fine-tune in the end.

Oh, Kim, Yun: FedBABU: Toward Enhanced Representation for Federated Image Classification. ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..hyper import hyper
from ..phases import Phases, Train
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors
from .fedavg import FedAvg, own_model


@dataclass(frozen=True)
class FedBABU(FedAvg):
    """phi stays at everyone's initial value; theta is trained and travels; the received model, theta^t and phi, is
    fine-tuned as a whole to predict.

    The authors' code averages theta with equal weights; here weights are by size, as for every method.
    """

    fine_tune_epochs: int = hyper(5, "epochs on a copy of the received model before predicting", tries=(1, 5, 10))
    fine_tune_lr: float = hyper(
        0.01, "step size of the fine-tuning: features are large by then", tries=(0.003, 0.01, 0.03)
    )

    shared = (EXTRACTOR,)
    predict = own_model

    def init_server(self, start: Tensors) -> Tensors:
        return start  # the server knows the initial classifier too, so it has a global model

    def phases(self) -> Phases:
        return (Train((EXTRACTOR,), (self.loss,), self.epochs),)

    def personalise(self) -> Phases:
        return (Train((EXTRACTOR, CLASSIFIER), (self.loss,), self.fine_tune_epochs, lr=self.fine_tune_lr),)
