"""Local: everyone trains alone. The floor that every federated method has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from .fedavg import FedAvg, own_model


@dataclass(frozen=True)
class Local(FedAvg):
    """Nothing travels in either direction."""

    shared = ()
    predict = own_model
