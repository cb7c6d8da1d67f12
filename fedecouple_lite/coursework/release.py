"""From masters to the students' notebooks, and whether those give nothing away and ask for everything."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from nbformat import NotebookNode
from nbgrader import utils

from .course import Course, last_error, read
from .preprocessors import ANSWER, QUIET, is_tests
from .warm import WarmClient

SHORTEST = 12  # letters of a line that could give something away


class Released(NamedTuple):
    """A students' notebook that was built: its file, points in all, and of these by hand."""

    path: Path
    points: float
    by_hand: float


def release(course: Course, assignment: str) -> Released:
    """Build and check the students' version. ValueError where nbgrader cannot build it or it is not as it must be: then
    there is none."""
    result = course.api.generate_assignment(assignment)
    if not result["success"]:
        raise ValueError(f"{assignment}: nbgrader cannot build it: {last_error(result)}")
    path = course.notebook("release", assignment)
    master = course.master(assignment)
    released = read(path)
    problems = leaks(master, released) + leaks_beside(path, master) + unasked(released)
    if problems:
        shutil.rmtree(path.parent)
        raise ValueError(f"{assignment}: not released: " + "; ".join(problems))
    graded = [cell for cell in master.cells if utils.is_grade(cell)]
    points = sum(cell.metadata.nbgrader.points for cell in graded)
    by_hand = sum(cell.metadata.nbgrader.points for cell in graded if utils.is_solution(cell))
    return Released(path, points, by_hand)


def leaks(master: NotebookNode, released: NotebookNode) -> list[str]:
    """What a students' version shows of solutions, hidden tests or outputs, in words; nothing where it is sound."""
    text = "\n".join(cell.source for cell in released.cells)
    problems = []
    for mark in ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME"):
        if f"BEGIN {mark}" in text or f"END {mark}" in text:
            problems.append(f"it holds a mark of {mark}")
    shown = visible(master)
    for line in sorted(hidden_lines(master)):
        if line in text and line not in shown:
            problems.append(f"it shows the hidden line {line!r}")
    for number, cell in enumerate(released.cells, start=1):
        if cell.get("outputs"):
            problems.append(f"its cell {number} has outputs")
    return problems


def leaks_beside(released: Path, master: NotebookNode) -> list[str]:
    """Files beside a students' version, which go out with it, that show a hidden line, in words. Running a master may
    leave some."""
    problems = []
    hidden = hidden_lines(master)
    for path in sorted(released.parent.rglob("*")):
        if path == released or not path.is_file():
            continue
        text = path.read_bytes().decode(errors="replace")
        if any(line in text for line in hidden):
            problems.append(f"{path.name} lies beside it, and shows a hidden line")
    return problems


REGION = re.compile(r"^[^\n]*BEGIN (SOLUTION|HIDDEN TESTS)[^\n]*\n(.*?)^[^\n]*END \1[^\n]*$", re.M | re.S)


def hidden_lines(master: NotebookNode) -> set[str]:
    """The lines of solutions and hidden tests, short ones apart: those occur everywhere."""
    lines: set[str] = set()
    for cell in master.cells:
        for match in REGION.finditer(cell.source):
            lines |= {line.strip() for line in match.group(2).splitlines()}
    return {line for line in lines if len(line) >= SHORTEST}


def visible(master: NotebookNode) -> str:
    """What a master shows outside of solutions and hidden tests."""
    return "\n".join(REGION.sub("", cell.source) for cell in master.cells)


def unasked(released: NotebookNode) -> list[str]:
    """Where an untouched students' version, run from top to bottom, does not ask for an answer, in words: a stub that
    does not raise, a test that passes, or that fails for another reason than the missing answer."""
    with tempfile.TemporaryDirectory() as elsewhere:  # a cell may write a file
        place = {"metadata": {"path": elsewhere}}
        client = WarmClient(released, kernel_name="python3", timeout=120, allow_errors=True, resources=place)
        client.extra_arguments = list(QUIET)
        run = client.execute()
    problems = []
    answer = None  # the last answer's cell
    for cell in run.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        error = error_of(cell)
        if grade_id.endswith(ANSWER):
            answer = cell
            if "raise NotImplementedError()" not in cell.source:
                problems.append(f"{grade_id} has no stub")
        elif grade_id.startswith("given-") and error is not None:
            problems.append(f"{grade_id} raises {error.ename}: {error.evalue}")
        elif is_tests(cell):
            asks = error is not None and is_missing_answer(error)
            if answer is None or not asks:
                seen = "passes" if error is None else f"fails with {error.ename}: {error.evalue}"
                problems.append(f"{grade_id}, with no answer, {seen}")
    return problems


def error_of(cell: NotebookNode) -> NotebookNode | None:
    """The error that a cell ended in."""
    errors = [output for output in cell.get("outputs", []) if output.output_type == "error"]
    return errors[0] if errors else None


def is_missing_answer(error: NotebookNode) -> bool:
    """Whether an error says that an answer is not there: a stub was called, or a value was never set."""
    if error.ename == "NotImplementedError":
        return True
    return error.ename in ("AssertionError", "Wrong") and "not answered yet" in error.evalue
