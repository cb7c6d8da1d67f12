"""The methods, one file each: frozen dataclasses whose fields are their hyper-parameters and whose hooks are pure."""

from __future__ import annotations

from typing import Any

from ..data import nearest
from ..phases import allowed, hypers
from .fedavg import FedAvg, FedAvgFT
from .fedecouple import FedeCouple
from .fedrep import FedRep

METHODS: dict[str, type[FedAvg]] = {"fedavg": FedAvg, "fedavg_ft": FedAvgFT, "fedrep": FedRep, "fedecouple": FedeCouple}


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
