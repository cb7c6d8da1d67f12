"""Digests of what a run depends on, so that a stored run is read back only where it would come out the same."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from ..methods import FedAvg

# Written by @dataclass, from the fields; their values are in every digest anyway.
GENERATED = ("__init__", "__repr__", "__eq__", "__hash__", "__replace__")
PLAIN = (int, float, complex, str, bytes, bool, type(None))


def code_digest(kind: type) -> str:
    """Sixteen hexadecimal digits that stand for what a method's class does: the code of its own attributes and of its
    bases', up to FedAvg, and of the functions, classes and constants of its own module that they use.

    The code is the compiled one, so comments and line breaks do not count, and a class that was defined in a notebook's
    cell has it as well.
    """
    content = hashlib.blake2b(digest_size=8)
    seen: set[int] = set()
    for base in kind.__mro__:
        for words in words_of_class(base, seen):
            content.update(words.encode())
        if base is FedAvg:
            break
    return content.hexdigest()


def words_of_class(kind: type, seen: set[int]) -> Iterator[str]:
    """What the attributes of one class are, bases left out, as text."""
    yield kind.__qualname__
    for name, value in sorted(vars(kind).items()):
        is_hook = not name.startswith("__") or name in ("__post_init__", "__call__")
        if is_hook and name not in GENERATED:
            yield name
            yield from words_of(value, kind.__module__, seen)


def words_of(value: Any, module: str, seen: set[int]) -> Iterator[str]:
    """What `value` is, as text: a function's code, a class's attributes, a constant; of others only their type."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        for part in (value.fget, value.fset):
            yield from words_of(part, module, seen)
    elif isinstance(value, PLAIN):
        yield repr(value)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from words_of(item, module, seen)
    elif isinstance(value, FunctionType):
        yield from words_of_function(value, module, seen)
    elif isinstance(value, type) and value.__module__ == module and id(value) not in seen:
        seen.add(id(value))
        yield from words_of_class(value, seen)
    else:
        yield type(value).__qualname__


def words_of_function(function: FunctionType, module: str, seen: set[int]) -> Iterator[str]:
    """A function's code, defaults and enclosed values, and what it uses of its own module."""
    if id(function) in seen:
        return
    seen.add(id(function))
    yield function.__qualname__
    yield from words_of_code(function.__code__)
    yield from words_of(function.__defaults__ or (), module, seen)
    for _, default in sorted((function.__kwdefaults__ or {}).items()):
        yield from words_of(default, module, seen)
    used = inspect.getclosurevars(function)
    for name, value in sorted({**used.globals, **used.nonlocals}.items()):
        belongs_here = isinstance(value, PLAIN) or getattr(value, "__module__", None) == module
        if belongs_here:
            yield name
            yield from words_of(value, module, seen)


def words_of_code(code: CodeType) -> Iterator[str]:
    """Instructions, names and constants, also of the functions inside."""
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from words_of_code(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))  # a set has no order
        else:
            yield repr(constant)
