"""A tiny assignment, quickly graded, and all that may be wrong with a notebook that is handed in."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
from coursework.submissions import ASSIGNMENTS, answered, cell_of
from nbformat import NotebookNode

TINY = "a0_tiny"


def _cell(grade_id: str, source: str, kind: str = "code", **info: object) -> NotebookNode:
    new = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    cell = new(source.strip("\n"), id=grade_id)
    plain = {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": 3}
    cell.metadata.nbgrader = plain | {"grade_id": grade_id} | info
    return cell


def _answer(grade_id: str, source: str) -> NotebookNode:
    return _cell(grade_id, source, solution=True)


def _tests(grade_id: str, source: str, points: float) -> NotebookNode:
    return _cell(grade_id, source, grade=True, locked=True, points=points)


MASTER = [
    nbformat.v4.new_markdown_cell("# A tiny assignment", id="head"),
    _cell("given-course", "COURSE_SEED = 2026  # set by the lecturer\nimport numpy as np", locked=True),
    _answer(
        "total-answer",
        """
# Task 1, answer: total
def total(values):
    ### BEGIN SOLUTION
    return sum(values)
    ### END SOLUTION
""",
    ),
    _tests(
        "total-tests",
        """
# Task 1, tests (2 points)
assert total([1, 2]) == 3, "1 and 2 are 3"
### BEGIN HIDDEN TESTS
from fedecouple_lite.course.checks import Mistake, compare

mistakes = [Mistake("this is the mean.", lambda values: np.mean(values))]
cases = [(np.random.default_rng().random(5),) for _ in range(3)]
compare(total, lambda values: values.sum(), cases, mistakes)
### END HIDDEN TESTS
""",
        2,
    ),
    _answer(
        "double-answer",
        """
# Task 2, answer: double
def double(values):
    ### BEGIN SOLUTION
    return 2 * values
    ### END SOLUTION
""",
    ),
    _tests(
        "double-tests",
        """
# Task 2, tests (3 points)
assert np.allclose(double(np.array([1.0, 4.0])), [2, 8]), "twice (1, 4) is (2, 8)"
### BEGIN HIDDEN TESTS
from fedecouple_lite.course.checks import Mistake, compare

mistakes = [Mistake("these are the squares.", lambda values: values**2)]
cases = [(np.random.default_rng().random(5),) for _ in range(3)]
compare(double, lambda values: values + values, cases, mistakes)
### END HIDDEN TESTS
""",
        3,
    ),
    _answer(
        "number-answer",
        """
# Task 3, answer: number
number = None  # how many clients does a federation need at least?
### BEGIN SOLUTION
number = 1
### END SOLUTION
""",
    ),
    _tests(
        "number-tests",
        """
# Task 3, tests (2 points)
assert number is not None, "number: not answered yet"
### BEGIN HIDDEN TESTS
assert number in (1, 2), "neither 1 nor 2"
### END HIDDEN TESTS
number  # partial credit
""",
        2,
    ),
    _cell(
        "why-manual",
        "**Task 4, your answer**\n\n### BEGIN SOLUTION\nBecause.\n### END SOLUTION",
        kind="markdown",
        grade=True,
        solution=True,
        points=3,
    ),
]


def tiny_course(folder: Path) -> Path:
    """A course with the tiny assignment alone."""
    (folder / "source" / TINY).mkdir(parents=True)
    shutil.copy(ASSIGNMENTS / "nbgrader_config.py", folder)
    notebook = nbformat.v4.new_notebook(cells=copy.deepcopy(MASTER))
    nbformat.write(notebook, folder / "source" / TINY / f"{TINY}.ipynb")
    return folder


# --- Answers to task 2 that do harm, and what the student is told ---

ANSWER = "# Task 2, answer: double\n"
FUNCTION = ANSWER + "def double(values):\n"
NOT_DEFINED = "`double` is not defined"
NEVER_STOPS = """
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""

LEAVES_BEHIND = (
    ANSWER
    + """import subprocess, sys
program = "import time\\nwhile True: time.sleep(1)"
subprocess.Popen([sys.executable, "-c", program, "left behind"], start_new_session=True)
"""
)

HOSTILE = {
    "hangs when called": (FUNCTION + "    while True:\n        pass\n", "no answer within"),
    "hangs at once": (ANSWER + "while True:\n    pass\n", NOT_DEFINED),
    "cannot be stopped": (FUNCTION + NEVER_STOPS, "no answer within"),
    "cannot be stopped at once": (ANSWER + "if True:" + NEVER_STOPS, NOT_DEFINED),
    "takes all memory": (FUNCTION + "    return [bytearray(2**30) for _ in range(10**6)]\n", "MemoryError"),
    "takes all memory of torch": (FUNCTION + "    import torch\n    return torch.ones(2**40)\n", "memory"),
    "kills its kernel": (ANSWER + "import os\nos._exit(0)\n", NOT_DEFINED),
    "kills its kernel when called": (FUNCTION + "    import os\n    os.kill(os.getpid(), 9)\n", "the kernel died"),
    "quits": (FUNCTION + "    raise SystemExit\n", "SystemExit"),
    "returns no plain data": (FUNCTION + "    return object()\n", "returns object, where plain data are expected"),
    "returns too much": (FUNCTION + "    return 'x' * 2**27\n", "a result of 128 MiB"),
    "prints without end": (ANSWER + "while True:\n    print('x' * 10000)\n", NOT_DEFINED),
    "writes a huge file": (
        FUNCTION + "    with open('big', 'wb') as file:\n        file.truncate(2**40)\n    return 2 * values\n",
        "OSError",
    ),
    "changes its argument": (FUNCTION + "    values *= 2\n    return values\n", "changes what it is given"),
    "calls the library": (
        FUNCTION + "    from fedecouple_lite.tensors import weighted_mean\n    return weighted_mean([{}], [1])\n",
        "weighted_mean must not be called here",
    ),
    "calls the library by another name": (
        ANSWER
        + "from fedecouple_lite.tensors import weighted_mean as innocent\n"
        + "def double(values):\n    return innocent([{}], [1])\n",
        "weighted_mean must not be called here",
    ),
    "leaves a process behind": (LEAVES_BEHIND, NOT_DEFINED),
    "is a class": (ANSWER + "class double:\n    def __init__(self, values):\n        pass\n", "returns double"),
    "is a number": (ANSWER + "double = 3\n", "not callable"),
    "is a module": (ANSWER + "import os as double\n", "a function or plain data are expected"),
    "knows the hidden words": (FUNCTION + "    return values**2 if len(values) > 2 else 2 * values\n", "the squares"),
}

# The same, with the course's folder as {course}.
TRESPASSING = {
    "opens the gradebook": (
        ANSWER
        + """import sqlite3
line = sqlite3.connect("{course}/gradebook.db")
line.execute("update grade set auto_score = 100")
line.commit()
""",
        NOT_DEFINED,
    ),
    "reads the master": (ANSWER + "print(open('{course}/source/a0_tiny/a0_tiny.ipynb').read())\n", NOT_DEFINED),
    "reads what others handed in": (ANSWER + "import os\nprint(os.listdir('{course}/submitted'))\n", NOT_DEFINED),
    "removes the gradebook": (ANSWER + "import os\nos.remove('{course}/gradebook.db')\n", NOT_DEFINED),
}

TRESPASSING["attaches the gradebook"] = (
    ANSWER
    + """import sqlite3
line = sqlite3.connect(":memory:")
open(b"{course}/gradebook.db", "ab")
line.execute("attach '{course}/gradebook.db' as book")
""",
    NOT_DEFINED,
)

# --- What a student may put at the beginning to make wrong answers pass ---

PATCHES = {
    "patches the library": """
from fedecouple_lite.course import checks
from fedecouple_lite.coursework import answers, wire
checks._same = checks._close = lambda *anything, **named: True
checks.compare = lambda *anything: None
wire.unpack = lambda message: ("value", True)
answers.library_refused = answers.refusing = None
""",
    "patches torch and numpy": """
import numpy, torch
torch.allclose = torch.equal = numpy.allclose = lambda *anything, **named: True
torch.isclose = lambda a, *anything, **named: torch.ones_like(a, dtype=torch.bool)
torch.Tensor.__eq__ = lambda *anything: True
""",
    "patches builtins and the shell": """
import builtins
class Nothing(BaseException):
    pass
builtins.AssertionError = Nothing
builtins.abs = lambda number: 0
builtins.all = builtins.isinstance = lambda *anything: True
shell = get_ipython()
shell.input_transformers_cleanup.append(lambda lines: ["pass\\n"] if "tests" in lines[0] else lines)
shell.showtraceback = lambda *anything, **named: None
""",
    "answers for the judge": """
import sys, types
false = types.ModuleType("fedecouple_lite.coursework.answers")
def serve(address):
    import socket, pickle
    from multiprocessing.connection import Client
    with Client(address, "AF_UNIX") as line:
        while True:
            line.send_bytes(pickle.dumps(("result", 3, None)))
            line.recv_bytes()
false.serve = serve
sys.modules["fedecouple_lite.coursework.answers"] = false
""",
}
PATCHES["says half a word, and no more"] = """
import fedecouple_lite.coursework.answers as answers
def serve(address, word):
    import socket, time
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        line.sendall(len(word).to_bytes(4, "big") + word.encode() + b"\\0")
        time.sleep(1000)
answers.serve = serve
"""
PATCHES["changes what a later cell shows"] = """
from IPython.display import display, update_display
import fedecouple_lite.coursework.answers as answers
serve_before = answers.serve
def serve(*arguments):
    display({"text/plain": "2"}, display_id="mark", raw=True)
    serve_before(*arguments)
answers.serve = serve
"""
ALL_WRONG = {
    "total-answer": "# Task 1, answer: total\ndef total(values):\n    return 0.0\n",
    "double-answer": FUNCTION + "    return values\n",
    "number-answer": "# Task 3, answer: number\nnumber = -1\n",
}


def patched(notebook: NotebookNode, patch: str) -> NotebookNode:
    """All answers wrong, and before the first of them a cell that should hide it."""
    changed = copy.deepcopy(notebook)
    for grade_id, source in ALL_WRONG.items():
        cell_of(changed, grade_id).source = source
    changed.cells.insert(2, nbformat.v4.new_code_cell(patch))
    changed.cells.append(nbformat.v4.new_code_cell("update_display({'text/plain': '2'}, display_id='mark', raw=True)"))
    return changed


# --- Notebooks that were damaged on their way, by chance or on purpose ---


def without(notebook: NotebookNode, grade_id: str) -> NotebookNode:
    """The same with one cell lost."""
    changed = copy.deepcopy(notebook)
    changed.cells = [cell for cell in changed.cells if cell.id != grade_id]
    return changed


def stripped(notebook: NotebookNode) -> NotebookNode:
    """The same as some programs store it: no metadata, other ids."""
    changed = copy.deepcopy(notebook)
    for number, cell in enumerate(changed.cells):
        cell.metadata = NotebookNode()
        cell.id = f"cell-{number}"
    changed.metadata = NotebookNode()
    return changed


def tampered(notebook: NotebookNode) -> NotebookNode:
    """No answer to task 2, tests that pass, more points than there are, and metadata that say it is no test at all."""
    changed = answered(notebook, "double-answer", FUNCTION + "    return values\n")
    tests = cell_of(changed, "double-tests")
    tests.source = "# Task 2, tests (3 points)\n3000"
    tests.metadata.nbgrader |= {"points": 3000, "grade": False, "solution": True, "locked": False}
    return changed


def copied(notebook: NotebookNode) -> NotebookNode:
    """The cells of task 2 twice, the copy of the tests without tests."""
    changed = copy.deepcopy(notebook)
    for grade_id in ("double-tests", "double-answer"):
        another = copy.deepcopy(cell_of(changed, grade_id))
        another.id = f"{grade_id}-again"
        another.source = another.source.partition("\n")[0] + "\npass"
        changed.cells.append(another)
    return changed


def given_moved(notebook: NotebookNode) -> NotebookNode:
    """The given cell behind all tests, so that its names could be the student's own."""
    changed = copy.deepcopy(notebook)
    given = cell_of(changed, "given-course")
    changed.cells = [cell for cell in changed.cells if cell is not given] + [given]
    return changed


def odd_metadata(notebook: NotebookNode) -> NotebookNode:
    """Metadata that no program writes."""
    changed = copy.deepcopy(notebook)
    odd = ["x", [1], None, {"grade_id": [1]}, {"grade_id": {}}, {"grade_id": 3.5}]
    for cell, info in zip(changed.cells[1:], odd, strict=False):
        cell.metadata.nbgrader = info
    changed.metadata.coursework = {"notes": [1, "I have all points"]}
    return changed


# How, the tests that fail, and words among the notes.
DAMAGED: dict[str, tuple[Callable[[NotebookNode], NotebookNode], set[str], str]] = {
    "metadata stripped": (stripped, set(), "metadata lost, found by the cell's first line"),
    "answer lost": (lambda nb: without(nb, "double-answer"), {"double-tests"}, "cell double-answer was lost"),
    "tests lost": (lambda nb: without(nb, "double-tests"), set(), "cell double-tests was lost"),
    "first given cell lost": (lambda nb: without(nb, "given-course"), set(), "cell given-course was lost"),
    "text lost": (lambda nb: without(nb, "why-manual"), {"why-manual"}, "cell why-manual was lost"),
    "tests tampered with": (tampered, {"double-tests"}, ""),
    "cells copied": (copied, set(), ""),
    "given cell moved": (given_moved, set(), "cells were in another order"),
    "odd metadata": (odd_metadata, set(), "metadata lost, found by the cell's id"),
}

NO_NOTEBOOKS = {
    "empty file": b"",
    "a text": "Ich stimme allem zu: äöü".encode("latin-1"),
    "another JSON": b'{"cells": 3}',
    "a list": b"[1, 2]",
    "a deep one": b'{"cells": [], "metadata": {"a": '
    + 3000 * b"["
    + 3000 * b"]"
    + b'}, "nbformat": 4, "nbformat_minor": 5}',
    "an odd version": b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": "x"}',
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
}
