"""Hyper-parameters: fields of a method that know their meaning, their range and the values that tuning tries."""

from __future__ import annotations

from dataclasses import Field, field, fields
from math import inf
from typing import Any

import numpy as np

from .errors import is_number

LARGEST = float(np.finfo(np.float32).max)  # the largest number that a tensor can be multiplied by


def hyper(
    default: Any,
    meaning: str,
    low: float = 0,
    high: float = inf,
    choices: tuple[str, ...] = (),
    tries: tuple = (),
) -> Any:
    """A dataclass field for a hyper-parameter.

    default: an int makes it a whole number; None makes it a number that may be left out, and `meaning` says what then
    holds. meaning: one line for people. low, high: its range, both ends allowed. choices: for a word, the words
    allowed. tries: the values that tuning draws from; none leaves it alone.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Method:
    ...     mu: float = hyper(1.0, "pull towards the anchors; 0 removes it", tries=(0.1, 1.0))
    >>> Method().mu
    1.0
    """
    about = {"meaning": meaning, "low": low, "high": high, "choices": choices, "tries": tries}
    return field(default=default, metadata=about)


def hypers(method: Any) -> dict[str, Field]:
    """The hyper-parameters of a method, or of its class, by name."""
    return {f.name: f for f in fields(method) if "meaning" in f.metadata}


def allowed(f: Field) -> str:
    """The range in words, such as "a whole number >= 1"."""
    low, high, choices = (f.metadata[name] for name in ("low", "high", "choices"))
    if choices:
        return "one of " + ", ".join(choices)
    kind = "a whole number" if isinstance(f.default, int) else "a number"
    upper = "" if high == inf else f" and <= {high}"
    left_out = ", or none" if f.default is None else ""
    return f"{kind} >= {low}{upper}{left_out}"


def is_allowed(f: Field, value: Any) -> bool:
    """Whether `value` may stand in field `f`: one of its choices, or a finite number of its kind in its range."""
    if f.metadata["choices"]:
        return isinstance(value, str) and value in f.metadata["choices"]
    if value is None:
        return f.default is None
    kinds = int if isinstance(f.default, int) else (int, float)
    if not is_number(value) or not isinstance(value, kinds):
        return False
    return abs(value) <= LARGEST and f.metadata["low"] <= value <= f.metadata["high"]


def from_text(f: Field, text: str) -> Any:
    """The value of field `f` that `text` writes; "none" leaves out what may be left out. ValueError: no number."""
    if f.metadata["choices"]:
        return text
    if f.default is None and text.lower() == "none":
        return None
    return int(text) if isinstance(f.default, int) else float(text)


def check_hypers(method: Any) -> None:
    """Raise ValueError naming the first hyper-parameter outside its range, its value and the range. NumPy's numbers
    become Python's."""
    for name, f in hypers(method).items():
        value = getattr(method, name)
        if isinstance(value, np.generic):
            value = value.item()
        if not is_allowed(f, value):
            raise ValueError(f"{name}={value!r} of {type(method).__name__} must be {allowed(f)}")
        if is_number(value) and not isinstance(f.default, int):
            value = float(value)  # 1 and 1.0 are one value, in digests too
        object.__setattr__(method, name, value)  # a method is frozen once it is made; it is being made
