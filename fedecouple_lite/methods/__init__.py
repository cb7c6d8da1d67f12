"""The methods, one file each: frozen dataclasses whose fields are their hyper-parameters and whose hooks are pure."""

from __future__ import annotations

from typing import Any

from ..errors import nearest
from ..hyper import allowed, from_text, hypers
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

    Examples
    --------
    >>> make("fedrep", lr=0.05, epochs=2)
    FedRep(lr=0.05, epochs=2, batch_size=32, momentum=0.5, weight_decay=0.0005, classifier_epochs=1,
    classifier_lr=None)
    >>> make("fedrep", mu=1)
    Traceback (most recent call last):
    ValueError: mu=1 means nothing to method='fedrep'; choose from lr, epochs, batch_size, momentum, weight_decay, \
classifier_epochs, classifier_lr
    """
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"method={name!r} is unknown; {nearest(name, METHODS)}")
    method = METHODS[name]
    known = hypers(method)
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{key}={value!r} means nothing to method={name!r}; {nearest(key, known)}")
        if isinstance(value, str):
            try:
                values[key] = from_text(known[key], value)
            except ValueError:
                raise ValueError(f"{key}={value!r} of method={name!r} must be {allowed(known[key])}") from None
    return method(**values)
