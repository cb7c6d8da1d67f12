"""FedRoD: one extractor, a generic classifier that is fair to rare classes, and a personal head on top of it.

Chen, Chao: On Bridging Generic and Personalized Federated Learning for Image Classification. ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..losses import balanced_softmax, cross_entropy
from ..models import DecoupledNet
from ..phases import Derive, Phases, Train
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors, pick, rename
from .fedavg import FedAvg

HEAD = "head."


@dataclass(frozen=True)
class FedRoD(FedAvg):
    """theta and phi learn from the balanced softmax and travel; the head h_i learns to correct g, and stays."""

    def init(self, start: Tensors) -> Tensors:
        return start | rename(pick(start, CLASSIFIER), "", HEAD)

    def phases(self) -> Phases:
        return (Derive(self.counts, on_features=False), Train((EXTRACTOR, CLASSIFIER, HEAD), (self.loss,), self.epochs))

    def counts(self, net: DecoupledNet, x: Tensor, y: Tensor, valid: Tensor) -> Tensors:
        """n_ic: the client's images of each class, (C,). They stay."""
        return {"class_counts": valid.new_zeros(net.classes).index_add(0, y, valid)}

    def loss(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """Balanced softmax of the generic logits, and cross-entropy of g + h_i on stopped features, (B,)."""
        z = net.features(client, x)
        generic = net.classify(client, z)
        correction = net.classify(client, z.detach(), HEAD)
        personal = generic.detach() + correction
        return balanced_softmax(generic, y, client["class_counts"]) + cross_entropy(personal, y)

    def predict(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor) -> Tensor:
        z = net.features(client, x)
        return net.classify(client, z) + net.classify(client, z, HEAD)
