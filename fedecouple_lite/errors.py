"""How the library says no: a ValueError that names the caller's own argument, its value, and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np

LARGEST_FLOAT = float(np.finfo(np.float64).max)


def require(good: bool, name: str, value: Any, allowed: str) -> None:
    """Raise ValueError where `good` is false: "name=value must be allowed".

    Examples
    --------
    >>> require(0 <= 1.5 <= 1, "share", 1.5, "from 0 to 1")
    Traceback (most recent call last):
    ValueError: share=1.5 must be from 0 to 1
    """
    if not good:
        raise ValueError(f"{name}={value!r} must be {allowed}")


def nearest(name: object, known: Iterable[str]) -> str:
    """Help after a typing error: the known name most like `name`, if any is like it, and all of them.

    Examples
    --------
    >>> nearest("fedrap", ["fedavg", "fedrep"])
    "did you mean 'fedrep'? choose from fedavg, fedrep"
    """
    names = list(known)
    alike = closest(name, names, cutoff=0.4)
    hint = f"did you mean {alike!r}? " if alike else ""
    return f"{hint}choose from {', '.join(names)}"


def closest(name: object, known: Iterable[str], cutoff: float) -> str | None:
    """The known name most like `name`, capitals and dashes apart; None where none is as like as `cutoff`, in [0, 1]."""
    by_spelling = {spelling(other): other for other in known}
    alike = get_close_matches(spelling(name), by_spelling, n=1, cutoff=cutoff)
    return by_spelling[alike[0]] if alike else None


def spelling(name: object) -> str:
    """A name as it is compared: small letters, and "_" for "-"."""
    return str(name).lower().replace("-", "_")


def is_number(value: Any) -> bool:
    """A real number, Python's or NumPy's, that floating point can hold, and not a truth value."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= LARGEST_FLOAT
    return isinstance(value, float | np.integer | np.floating)


def is_whole_number(value: Any) -> bool:
    """A whole number, Python's or NumPy's, and not a truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_seed(value: Any) -> bool:
    """Whether both NumPy and PyTorch can draw random numbers with it."""
    return is_whole_number(value) and 0 <= value < 2**63


SEED = "a whole number from 0 to 2^63 - 1"  # what is_seed allows, in words


def as_python(value: Any) -> Any:
    """NumPy's number as Python's, which has no overflow; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value
