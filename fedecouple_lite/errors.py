"""How the library says no: a ValueError that names the caller's own argument, its value, and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np


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


def nearest(name: str, known: Iterable[str]) -> str:
    """Help after a typing error: the known name most like `name`, if any is like it, and all of them.

    Examples
    --------
    >>> nearest("fedrap", ["fedavg", "fedrep"])
    "did you mean 'fedrep'? choose from fedavg, fedrep"
    """
    names = list(known)
    alike = get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.4)
    hint = f"did you mean {alike[0]!r}? " if alike else ""
    return f"{hint}choose from {', '.join(names)}"


def is_number(value: Any) -> bool:
    """A real number, Python's or NumPy's, and not a truth value."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def is_whole_number(value: Any) -> bool:
    """A whole number, Python's or NumPy's, and not a truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
