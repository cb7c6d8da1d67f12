"""LG-FedAvg: the other way round: an extractor of one's own, a shared classifier.

Liang, Liu, Ziyin, Allen, Auerbach, Brent, Salakhutdinov, Morency: Think Locally, Act Globally: Federated Learning with
Local and Global Representations. 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..tensors import CLASSIFIER
from .fedavg import FedAvg, own_model


@dataclass(frozen=True)
class LGFedAvg(FedAvg):
    """Trains as FedAvg does; only phi travels.

    The authors' code averages phi with equal weights; here weights are by size, as for every method.
    """

    shared = (CLASSIFIER,)
    predict = own_model
