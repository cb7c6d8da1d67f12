"""FedProx: FedAvg with a leash.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks. MLSys 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..hyper import hyper
from ..models import DecoupledNet
from ..tensors import Tensors, squared_distance
from .fedavg import FedAvg


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedAvg's loss + mu/2 ||w - w^t||^2, w^t being the received weights."""

    mu: float = hyper(0.01, "pull towards the received weights; 0 is FedAvg", tries=(0.001, 0.01, 0.1))

    def loss(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor, y: Tensor) -> Tensor:
        return super().loss(net, client, download, x, y) + self.mu / 2 * squared_distance(download, client)
