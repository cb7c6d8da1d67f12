"""The student's side of a grading: a kernel that has run the student's cells answers calls to the student's functions.

Whatever runs here may have been changed by the student, this module included; therefore nothing here decides about
points. It sends results, and `judge` looks at them in another process.
"""

from __future__ import annotations

import copy
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from socket import AF_UNIX, socket
from types import CodeType, FunctionType, ModuleType
from typing import Any

from . import wire

LIBRARY = __package__.partition(".")[0]


def serve(address: str, word: str) -> None:
    """Answer, until the other side hangs up, what it asks about the names of this process's __main__.

    address: of the Unix socket on which `judge` listens; word: by which it knows who calls. The library's functions
    raise in the meantime: a task is to write a function, not to call the one that is there.
    """
    with socket(AF_UNIX) as line:
        line.connect(address)
        connection = Connection(line.detach())
    names = vars(sys.modules["__main__"])
    connection.send_bytes(word.encode())
    with connection, library_refused():
        while True:
            try:
                question = pickle.loads(connection.recv_bytes())  # from the grader, whom this side can trust
            except EOFError:
                return
            connection.send_bytes(answer(question, names))


def answer(question: tuple, names: dict[str, Any]) -> bytes:
    """The bytes of an answer: what a name stands for, or what a function returns.

    Questions are ("look", name) and ("call", name, arguments, named arguments). Answers are ("function",),
    ("value", it), ("missing",), ("result", it, position of an argument that was changed, or None), ("raised", its kind,
    its words), and ("strange", what it is, in words) for what cannot travel.
    """
    what, name, *rest = question
    if name not in names:
        return wire.pack(("missing",))
    found = names[name]
    if what == "look":
        return wire.pack(("function",)) if callable(found) else _packed("value", found)
    arguments, named = rest
    before = copy.deepcopy(arguments)
    try:
        result = found(*arguments, **named)
    except KeyboardInterrupt:  # the time is over
        raise
    except BaseException as error:
        return wire.pack(("raised", type(error).__name__, str(error)[:2000]))
    return _packed("result", result, _changed(before, arguments))


def _packed(what: str, value: Any, *rest: Any) -> bytes:
    """A packed answer; ("strange", in words) where the value cannot travel."""
    try:
        return wire.pack((what, value, *rest))
    except wire.NotPlain as error:
        return wire.pack(("strange", str(error)))


def _changed(before: tuple, after: tuple) -> int | None:
    """The position, from 1, of the first argument that no longer holds what it held. Only plain data are looked at."""
    for position, (was, now) in enumerate(zip(before, after, strict=True), start=1):
        try:
            if wire.pack(was) != wire.pack(now):
                return position
        except wire.NotPlain:  # a generator of random numbers may change
            continue
    return None


# --- What a submission must not touch ---

FILES = ("open", "sqlite3.connect", "os.chmod", "os.link", "os.listdir", "os.mkdir", "os.remove", "os.rename")
MORE_FILES = ("os.rmdir", "os.scandir", "os.symlink", "os.truncate")


def guard(folder: str) -> None:
    """From here on Python's usual ways to files refuse what lies in `folder`: the gradebook, the masters, what others
    handed in. It stops the curious. It is no wall against who sets out to climb it, which a container is.
    """

    # Whatever the hook needs is bound here: what a module holds can be exchanged.
    def hook(
        event: str,
        arguments: tuple,
        events: tuple[str, ...] = FILES + MORE_FILES,
        plain: Callable[[Any], str] = os.fsdecode,
        real: Callable[[str], str] = os.path.realpath,
        begins: Callable[..., bool] = str.startswith,
        closed: str = folder,
    ) -> None:
        if event not in events:
            return
        for path in arguments[:2]:
            if type(path) is int or path is None:
                continue
            name = plain(path).removeprefix("file:").partition("?")[0]
            if begins(real(name), closed):
                raise PermissionError(f"{name} belongs to the course; a submission has no business there")

    sys.addaudithook(hook)


# --- The library's functions, made to raise ---


@contextmanager
def library_refused() -> Iterator[None]:
    """Within, the functions of fedecouple_lite raise, under whatever name they were imported.

    Their code is exchanged, not their name: a function that was imported before is the same object, and raises, too.
    """
    codes = {function: function.__code__ for function in functions_of_library()}
    for function in codes:
        function.__code__ = refusing(function)
    try:
        yield
    finally:
        for function, code in codes.items():
            function.__code__ = code


def functions_of_library() -> set[FunctionType]:
    """The functions and methods of all modules of the library that are loaded, those of coursework apart."""
    functions = set()
    for name, module in list(sys.modules.items()):
        is_ours = name == LIBRARY or name.startswith(LIBRARY + ".")
        if is_ours and not name.startswith(__package__) and isinstance(module, ModuleType):
            functions |= functions_in(module, module.__name__)
    return functions


def functions_in(holder: Any, module: str) -> set[FunctionType]:
    """The functions that a module defines, with those of its classes and what its decorators wrap."""
    functions = set()
    for value in list(vars(holder).values()):
        if isinstance(value, type) and value.__module__ == module and value is not holder:
            functions |= functions_in(value, module)
            continue
        value = getattr(value, "__func__", value)  # of a class method
        value = getattr(value, "__wrapped__", value)
        is_theirs = isinstance(value, FunctionType) and value.__module__ == module
        if is_theirs and not value.__code__.co_freevars:
            functions.add(value)
    return functions


def refusing(function: FunctionType) -> CodeType:
    """Code that can stand in for that of `function`, and says that it must not be called."""

    def refused(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("WORDS")

    words = f"{LIBRARY}'s {function.__name__} must not be called here: to write it yourself is the task"
    template = refused.__code__
    constants = tuple(words if constant == "WORDS" else constant for constant in template.co_consts)
    return template.replace(co_consts=constants, co_name=function.__name__)
