"""The methods, one file each: frozen dataclasses whose fields are their hyper-parameters and whose hooks are pure."""

from __future__ import annotations

from typing import Any

from ..data import nearest
from ..phases import allowed, hypers
from .ditto import Ditto
from .fedavg import FedAvg, FedAvgFT
from .fedbabu import FedBABU
from .fedecouple import FedeCouple
from .fedpac import FedPAC
from .fedper import FedPer
from .fedprox import FedProx
from .fedrep import FedRep
from .fedrod import FedRoD
from .lg_fedavg import LGFedAvg
from .local import Local

METHODS: dict[str, type[FedAvg]] = {
    "local": Local,
    "fedavg": FedAvg,
    "fedavg_ft": FedAvgFT,
    "fedprox": FedProx,
    "ditto": Ditto,
    "fedper": FedPer,
    "lg_fedavg": LGFedAvg,
    "fedrep": FedRep,
    "fedbabu": FedBABU,
    "fedrod": FedRoD,
    "fedpac": FedPAC,
    "fedecouple": FedeCouple,
}


def make(name: str, **values: Any) -> FedAvg:
    """The method `name` with these hyper-parameters; strings become the hyper-parameter's own type.

    Raises ValueError for an unknown method or hyper-parameter (suggesting the nearest), or a value outside its range.
    """
    if name not in METHODS:
        raise ValueError(f"method={name!r} is unknown; {nearest(name, METHODS)}")
    known = hypers(METHODS[name])
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{key}={value!r} means nothing to method={name!r}; {nearest(key, known)}")
        try:
            kind: Any = type(known[key].default)
            values[key] = kind(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError(f"{key}={value!r} of method={name!r} must be {allowed(known[key])}") from None
    return METHODS[name](**values)
