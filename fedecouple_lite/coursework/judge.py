"""The grader's side of a grading: tests run here, in a process that has never run a line of a student's code.

Names that a tests cell uses and the given cells do not define are the student's: functions become `Remote`, which sends
its arguments to the student's kernel and gets plain data back; values are copies. So a student who changes the library,
torch or a builtin has changed it for nobody else.
"""

from __future__ import annotations

import ast
import builtins
import io
import os
import pickle
import secrets
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any, NamedTuple

from ..course.checks import Wrong
from . import wire

WAIT_FOR_KERNEL = 20.0  # seconds until the student's kernel must have called for the first time
WAIT_FOR_WORD = 2.0  # and until it must have said its word
WAIT_FOR_END = 5.0  # seconds after the tests until it must have hung up; then it is killed
LONGEST = 4000  # letters that a verdict says
GONE = "Gone"  # the error's name in a verdict on a kernel that does not answer
FILE = "tests"  # what a traceback calls a tests cell


class Gone(BaseException):
    """The student's kernel does not answer any more, in words. Not an Exception, for tests may catch those."""


class Judged(NamedTuple):
    """What became of a tests cell: what it printed; the value of a number in its last line, or None; what is wrong, in
    words, with the error's name and the line of the tests where it was seen, or three times None."""

    printed: str
    number: float | None
    error: str | None
    words: str | None
    line: int | None


def given(source: str, names: dict[str, Any]) -> None:
    """Run a given cell in the grader's `names`. What it prints is not shown twice."""
    with redirect_stdout(io.StringIO()):
        exec(compile(source, "given", "exec"), names)


def judge(source: str, names: dict[str, Any], student: Student) -> Judged:
    """Run a tests cell. names: those of the given cells, which stay as they are. student: for all other names."""
    here = dict(names)
    tree = ast.parse(source)
    output = io.StringIO()
    number = None
    try:
        for name in names_of_student(tree, here):
            student.lend(name, here)
        with redirect_stdout(output):
            statements, last = without_last_expression(tree)
            exec(compile(statements, FILE, "exec"), here)
            if last is not None:
                number = as_points(eval(compile(last, FILE, "eval"), here))
    except Gone as error:
        return Judged(in_short(output.getvalue()), None, GONE, in_short(str(error)), line_of(error))
    except (Exception, SystemExit) as error:
        printed = output.getvalue()
        words = words_for(error, student.not_lent) or last_line(printed) or "the test fails"
        return Judged(in_short(printed), None, type(error).__name__[:100], in_short(words), line_of(error))
    return Judged(in_short(output.getvalue()), number, None, None, None)


def in_short(text: str) -> str:
    """The first lines of what may be very long: it is kept in notebooks and in the gradebook."""
    return text if len(text) <= LONGEST else text[:LONGEST] + " ... (cut)"


def words_for(error: BaseException, not_lent: dict[str, str]) -> str:
    """What an error says to a student, or ""."""
    if isinstance(error, NameError) and error.name in not_lent:
        return not_lent[error.name]
    if isinstance(error, NotImplementedError):
        return "not written yet"
    if isinstance(error, AssertionError | Wrong):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def without_last_expression(tree: ast.Module) -> tuple[ast.Module, ast.Expression | None]:
    """A cell's statements, and the expression that it ends in, whose value a notebook would show; None without one."""
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        return ast.Module(tree.body[:-1], type_ignores=[]), ast.Expression(last.value)
    return tree, None


def as_points(value: Any) -> float | None:
    """A number as partial credit; anything else is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None


def last_line(text: str) -> str:
    """The last line that holds something, or ""."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def line_of(error: BaseException) -> int | None:
    """The line of the tests cell in which an error was met."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
    return lines[-1] if lines else None


def names_of_student(tree: ast.Module, known: dict[str, Any]) -> list[str]:
    """The names that the tests use and the grader does not know, sorted. Some the tests bind themselves, before use."""
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add(node.id)
    return sorted(used - known.keys() - vars(builtins).keys())


# --- The line to the student's kernel ---


class Student:
    """A student's kernel that serves (see `answers`): what its names stand for, and calls to its functions.

    seconds: that all answers of one tests cell may take together. pid: of the kernel, to be interrupted after that.
    """

    def __init__(self, connection: Connection, seconds: float, pid: int | None = None):
        self.connection = connection
        self.seconds = seconds
        self.left = seconds
        self.pid = pid
        self.not_lent: dict[str, str] = {}  # why, by name

    def lend(self, name: str, names: dict[str, Any]) -> None:
        """Put the student's `name` into `names`: a Remote for a function, a copy of plain data; nothing otherwise."""
        what, *rest = self.ask("look", name)
        if what == "function":
            names[name] = Remote(self, name)
        elif what == "value":
            names[name] = rest[0]
        elif what == "missing":
            self.not_lent[name] = f"`{name}` is not defined: its cell was not written, or stopped before"
        else:
            self.not_lent[name] = f"`{name}` is {rest[0]}, where a function or plain data are expected"

    def ask(self, *question: Any) -> tuple:
        """The answer to a question; Gone where none comes in time, or none that can be read."""
        began = time.monotonic()
        try:
            self.connection.send_bytes(pickle.dumps(question))
            answer = wire.unpack(wire.received(self.connection, self.left))
        except TimeoutError:
            self._interrupt()
            raise Gone(f"no answer within {self.seconds:.0f} seconds: does a loop never end?") from None
        except (OSError, EOFError):
            raise Gone("the kernel died over the answer: out of memory, or ended by its own code") from None
        except ValueError:
            raise Gone("the kernel's answer cannot be read") from None
        finally:
            self.left -= time.monotonic() - began
        if not isinstance(answer, tuple) or not answer or not isinstance(answer[0], str):
            raise Gone("the kernel's answer cannot be read")
        return answer

    def _interrupt(self) -> None:
        """Make the kernel drop what it is at."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGINT)


class Remote:
    """A student's function, called in the student's kernel."""

    def __init__(self, student: Student, name: str):
        self.student = student
        self.__name__ = name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        what, *rest = self.student.ask("call", self.__name__, arguments, named)
        if what == "result":
            result, changed = rest
            if changed is not None:
                raise ValueError(
                    f"`{self.__name__}` changes what it is given, its argument number {changed}; make something new"
                )
            return result
        if what == "raised":
            raise error_named(*rest)
        raise TypeError(f"`{self.__name__}` returns {rest[0]}, where plain data are expected" if rest else what)


def error_named(kind: str, words: str) -> Exception:
    """An error as it was raised on the other side: one of Python's own, or one with the same name."""
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(words)
        except TypeError:  # UnicodeDecodeError wants more
            pass
    return type(kind, (Exception,), {})(words)


@contextmanager
def judged_beside(
    source: str, names: dict[str, Any], seconds: float, pid: int | None
) -> Iterator[tuple[str, str, Callable[[], Judged]]]:
    """Judge a tests cell in a thread, for which this one runs the student's kernel.

    Yields an address and a word, with which that kernel must `serve`, and a function that gives the verdict after it
    has. Who calls without the word, such as a process that another submission has left behind, is not listened to.
    """
    with tempfile.TemporaryDirectory(prefix="judge-") as folder, socket.socket(socket.AF_UNIX) as listener:
        address = str(Path(folder) / "line")
        word = secrets.token_hex(16)
        listener.bind(address)
        listener.listen(8)
        over = Event()
        verdicts: list[Judged] = []
        kill = Timer(WAIT_FOR_END, _kill, args=(pid,))

        def judge_and_hang_up() -> None:
            try:
                with kernel_that_calls(listener, word, over) as connection:
                    verdicts.append(judge(source, names, Student(connection, seconds, pid)))
            except Gone as error:
                verdicts.append(Judged("", None, GONE, str(error), None))
            except Exception as error:
                words = f"the tests could not be run: {error}"
                verdicts.append(Judged("", None, type(error).__name__, words, None))
            kill.start()

        thread = Thread(target=judge_and_hang_up, daemon=True)
        thread.start()

        def verdict() -> Judged:
            over.set()  # a kernel that has not called by now never will
            thread.join()
            kill.cancel()
            return verdicts[0]

        yield address, word, verdict


def kernel_that_calls(listener: socket.socket, word: str, over: Event) -> Connection:
    """The line to the kernel that calls and says the word; Gone where none does in time, or before all is `over`."""
    listener.settimeout(0.1)
    latest = time.monotonic() + WAIT_FOR_KERNEL
    while time.monotonic() < latest:
        try:
            line, _ = listener.accept()
        except TimeoutError:
            if over.is_set():
                break
            continue
        line.setblocking(True)
        connection = Connection(line.detach())
        with suppress(OSError, EOFError):  # TimeoutError is one
            if wire.received(connection, WAIT_FOR_WORD) == word.encode():
                return connection
        connection.close()
    raise Gone("the kernel does not answer: it has ended, or is busy with something else")


def _kill(pid: int | None) -> None:
    """End a kernel that does not end what it was interrupted in."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
