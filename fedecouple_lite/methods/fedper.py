"""FedPer: a shared extractor, a classifier of one's own, both trained together.

Arivazhagan, Aggarwal, Singh, Choudhary: Federated Learning with Personalization Layers. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..tensors import EXTRACTOR
from .fedavg import FedAvg, own_model


@dataclass(frozen=True)
class FedPer(FedAvg):
    """Trains as FedAvg does; only theta travels."""

    shared = (EXTRACTOR,)
    predict = own_model
