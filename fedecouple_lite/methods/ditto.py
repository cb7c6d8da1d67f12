"""Ditto: FedAvg for everyone, and beside it a personal model that is kept near.

Li, Hu, Beirami, Smith: Ditto: Fair and Robust Federated Learning Through Personalization. ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..hyper import hyper
from ..losses import cross_entropy
from ..models import DecoupledNet
from ..phases import Phases, Train
from ..tensors import Tensors, rename, squared_distance
from .fedavg import FedAvg

PERSONAL = "personal."


@dataclass(frozen=True)
class Ditto(FedAvg):
    """Train w as FedAvg; then v_i on its loss + lam/2 ||v_i - w^t||^2 towards the *received* w^t; predict with v_i.

    v_i starts at the weights that the client receives first. The authors' code averages w with equal weights; here
    weights are by size, as for every method.
    """

    lam: float = hyper(1.0, "pull of the personal model to the received one; 0 leaves it alone", tries=(0.1, 0.3, 1.0))

    def init(self, start: Tensors) -> Tensors:
        return start | rename(start, "", PERSONAL)

    def phases(self) -> Phases:
        return (*super().phases(), Train((PERSONAL,), (self.personal_loss,), self.epochs))

    def personal_loss(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of the personal model and its pull, (B,)."""
        pull = squared_distance(rename(download, "", PERSONAL), client)
        return cross_entropy(net.logits(client, x, PERSONAL), y) + self.lam / 2 * pull

    def predict(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor) -> Tensor:
        return net.logits(client, x, PERSONAL)
