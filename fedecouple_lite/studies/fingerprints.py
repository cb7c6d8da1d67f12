"""Digests of the code that a run depends on, so that a stored run is read back only where it would come out the same.

Code is read as compiled: comments, docstrings and line breaks do not count, and a class from a notebook's cell has it
as well as one from a file. Another release of Python compiles to something else; there, everything runs anew.
"""

from __future__ import annotations

import builtins
import dis
import hashlib
import inspect
import os
import pickle
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Dataset
from ..partition import Federation

PLAIN = (int, float, complex, str, bytes, bool, type(None), np.generic)
# Written by @dataclass from the fields, whose values are in every run's digest anyway.
GENERATED = ("__init__", "__repr__", "__eq__", "__hash__", "__replace__", "__setattr__", "__delattr__")
LIBRARY = Path(__file__).parents[1]

Seen = dict[int, Any]  # what has been read already, by its id; kept alive, so that no id comes twice


@cache
def library_digest() -> str:
    """Sixteen hexadecimal digits that stand for the code of the library's core, which all runs depend on.

    They tell updates apart, also those of a source checkout that has the same version all the while.
    """
    files = [*LIBRARY.glob("*.py"), *LIBRARY.glob("methods/*.py")]
    words: list[str] = []
    for path in sorted(files):
        if path.name != "__main__.py":
            without_docstrings = 2
            code = compile(path.read_bytes(), path.name, "exec", dont_inherit=True, optimize=without_docstrings)
            words += [path.name, *words_of_code(code)]
    return digest_of(words)


def code_digest(kind: type, *others: Any) -> str:
    """Sixteen hexadecimal digits that stand for what a method's class does, and for anything else that a run uses.

    They cover the attributes of the class and of all its bases, the code of its functions, and what these use: the
    functions, classes, constants and data of the same notebook or file, and of files beside it, however far that goes.
    Of what is installed, such as PyTorch, only what is used directly is covered. others: functions, classes or data.
    """
    seen: Seen = {}
    words: list[str] = []
    for base in kind.__mro__[:-1]:  # the last is object
        words += words_of_class(base, seen)
    for other in others:
        words += words_of(other, seen)
    return digest_of(words)


def digest_of(words: Iterable[str]) -> str:
    """Sixteen hexadecimal digits that stand for these words in this order."""
    content = hashlib.blake2b(digest_size=8)
    for word in words:
        content.update(f"{len(word)} {word}".encode(errors="surrogatepass"))
    return content.hexdigest()


def words_of_class(kind: type, seen: Seen) -> Iterator[str]:
    """What the attributes of one class are, bases left out, as text."""
    if id(kind) in seen:
        return
    seen[id(kind)] = kind
    yield kind.__qualname__
    in_digest_anyway: set[str] = set()
    if is_dataclass(kind):
        in_digest_anyway = {*GENERATED, *(field.name for field in fields(kind))}
    for name, value in sorted(vars(kind).items()):
        is_hook = not name.startswith("__") or isinstance(value, FunctionType)
        if is_hook and name not in in_digest_anyway:
            yield name
            yield from words_of(value, seen)


def words_of(value: Any, seen: Seen) -> Iterator[str]:
    """What `value` is, as text: a function's code and what it uses, a class's attributes, the content of data."""
    yield type(value).__qualname__
    if isinstance(value, PLAIN):
        yield repr(value)
    elif isinstance(value, type):
        yield value.__qualname__
        for base in value.__mro__[:-1]:
            if not is_installed(base):
                yield from words_of_class(base, seen)
    elif isinstance(value, tuple):
        for item in value:
            yield from words_of(item, seen)
    elif id(value) in seen:
        yield f"number {list(seen).index(id(value))}"
    else:
        seen[id(value)] = value
        if isinstance(value, FunctionType):
            yield from words_of_function(value, seen)
        elif isinstance(value, set | frozenset):  # they have no order
            yield from sorted(" ".join(words_of(item, dict(seen))) for item in value)
        elif isinstance(value, np.ndarray | Tensor):
            yield words_of_array(value)
        else:
            for part in parts_of(value):
                yield from words_of(part, seen)


def parts_of(value: Any) -> Iterable[Any]:
    """What an object consists of, as far as its content goes."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return [part for item in value.items() for part in item]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset]
    if isinstance(value, cached_property):
        return [value.func]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, ModuleType):
        return [value.__name__]
    if hasattr(value, "__wrapped__"):  # functools.lru_cache and its like
        return [value.__wrapped__]
    if isinstance(value, Dataset | Federation):
        return [value.digest]
    if isinstance(value, nn.Module):
        return [type(value), repr(value), value.state_dict()]
    if not is_installed(type(value)) and hasattr(value, "__dict__"):
        return [type(value), vars(value)]
    return [content_of(value)]


def content_of(value: Any) -> bytes | str:
    """An installed class's object as bytes; where it has none, what it calls itself, without its place in memory."""
    try:
        return pickle.dumps(value, protocol=4)
    except Exception:  # whatever a class raises: it cannot be pickled
        return re.sub(r"0x[0-9a-fA-F]+", "", repr(value))


def words_of_array(value: np.ndarray | Tensor) -> str:
    """Kind, shape and content of an array, as text."""
    if isinstance(value, Tensor):
        values = value.detach().cpu().contiguous().reshape(-1)
        content = values.view(torch.uint8).numpy().tobytes()
    else:
        content = repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
    return f"{value.dtype} {tuple(value.shape)} {hashlib.blake2b(content).hexdigest()}"


def words_of_function(function: FunctionType, seen: Seen) -> Iterator[str]:
    """A function's code, defaults and enclosed values, and what it uses of the names around it."""
    yield function.__qualname__
    yield from words_of_code(function.__code__, function.__doc__)
    yield from words_of((function.__defaults__, function.__kwdefaults__), seen)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # nothing in it yet
            continue
        yield name
        yield from words_of(value, seen)
    if is_installed(function):
        return
    for name in sorted(global_names(function.__code__)):
        if name in function.__globals__:  # else a builtin
            value = function.__globals__[name]
            yield name
            yield from words_of(value, seen)
            if isinstance(value, ModuleType):
                yield from words_of_module(value, attribute_names(function.__code__), seen)


def words_of_module(module: ModuleType, names: Iterable[str], seen: Seen) -> Iterator[str]:
    """The module's attributes of these names, unless it is installed; also those of modules in it."""
    if is_installed(module):
        return
    for name in sorted(names):
        if name in vars(module):
            value = vars(module)[name]
            is_new = id(value) not in seen
            yield name
            yield from words_of(value, seen)
            if isinstance(value, ModuleType) and is_new:
                yield from words_of_module(value, names, seen)


def words_of_code(code: CodeType, docstring: str | None = None) -> Iterator[str]:
    """Instructions, names and constants, also of the functions inside."""
    yield code.co_code.hex() + code.co_exceptiontable.hex()
    flags = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    yield repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, flags))
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
    for position, constant in enumerate(code.co_consts):
        if isinstance(constant, CodeType):
            yield constant.co_name
            yield from words_of_code(constant)
        elif position > 0 or constant != docstring:  # a docstring is the first constant
            yield " ".join(words_of(constant, {}))


def attribute_names(code: CodeType) -> set[str]:
    """All names that this code, and the functions inside, look up anywhere but among their own variables."""
    names = set(code.co_names)
    for inside in functions_inside(code):
        names |= attribute_names(inside)
    return names


def global_names(code: CodeType) -> set[str]:
    """The names that this code, and the functions inside, look up in their module."""
    names = set()
    for instruction in dis.get_instructions(code):
        if "GLOBAL" in instruction.opname or instruction.opname == "LOAD_NAME":
            names.add(instruction.argval)
    for inside in functions_inside(code):
        names |= global_names(inside)
    return names


def functions_inside(code: CodeType) -> list[CodeType]:
    """The code of functions, classes and comprehensions that are defined in it."""
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def is_installed(thing: FunctionType | ModuleType | type) -> bool:
    """Whether it belongs to Python, to an installed package, or to this library."""
    if isinstance(thing, FunctionType):
        return thing.__code__.co_filename.startswith(installed_in())
    if isinstance(thing, type) and thing.__module__ == "__main__":
        return False  # somebody's own, even where an installed program is being run
    module = thing if isinstance(thing, ModuleType) else sys.modules.get(thing.__module__)
    if module is builtins and isinstance(thing, type):  # also what `exec` makes without a module around it
        return getattr(builtins, thing.__name__, None) is thing
    file = getattr(module, "__file__", None)
    if file is None:
        return module is not None and module.__name__ in sys.builtin_module_names
    return file.startswith(installed_in())


@cache
def installed_in() -> tuple[str, ...]:
    """How the names of installed files begin."""
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages(), str(LIBRARY)]
    folders += [os.path.realpath(folder) for folder in folders]
    return ("<frozen ", *(folder + os.sep for folder in folders))
