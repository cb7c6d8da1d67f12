"""Submissions as students hand them in, made from masters, and what became of them."""

from __future__ import annotations

import copy
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import nbformat
import pandas as pd
from nbformat import NotebookNode

from fedecouple_lite.coursework.course import Course

ASSIGNMENTS = Path(__file__).resolve().parents[2] / "notebooks" / "assignments"
ANSWERS = Path(__file__).parent / "answers"
NAMES = sorted(path.name for path in (ASSIGNMENTS / "source").iterdir())

# Label -> (cell, its source, tests that must fail over it, words that the student must be told).
Wrong = dict[str, tuple[str, str, set[str], str]]


def copy_of_course(folder: Path) -> Path:
    """A course of one's own: the configuration and the masters, and nothing that was built from them."""
    folder.mkdir()
    shutil.copy(ASSIGNMENTS / "nbgrader_config.py", folder)
    shutil.copytree(ASSIGNMENTS / "source", folder / "source", ignore=shutil.ignore_patterns(".*"))
    return folder


def answers_to(assignment: str) -> ModuleType:
    """The file of wrong answers to an assignment."""
    spec = importlib.util.spec_from_file_location(assignment, ANSWERS / f"{assignment}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wrong_answers(assignment: str) -> Wrong:
    """The wrong answers that are planted into an assignment."""
    return answers_to(assignment).WRONG


def packed(assignment: str) -> list[list[str]]:
    """All labels, in as few notebooks as are needed so that no two wrong answers of one meet: in a cell, in a test, or
    in cells of which the file says that one uses the other (LINKED, sets of cells)."""
    module = answers_to(assignment)
    notebooks: list[list[str]] = []
    touched: list[set[str]] = []
    for label, (cell, _, tests, _) in module.WRONG.items():
        touches = {cell, *tests}
        for linked in getattr(module, "LINKED", ()):
            if cell in linked:
                touches |= linked
        for labels, cells in zip(notebooks, touched, strict=True):
            if not cells & touches:
                labels.append(label)
                cells |= touches
                break
        else:
            notebooks.append([label])
            touched.append(touches)
    return notebooks


def solved(course: Path, assignment: str) -> NotebookNode:
    """The students' version with the master's answers in it: as somebody hands it in who has everything right."""
    notebook = nbformat.read(course / "release" / assignment / f"{assignment}.ipynb", as_version=4)
    master = nbformat.read(course / "source" / assignment / f"{assignment}.ipynb", as_version=4)
    answers = {cell.id: cell for cell in master.cells if cell.metadata.get("nbgrader", {}).get("solution")}
    for cell in notebook.cells:
        if cell.id in answers:
            lines = answers[cell.id].source.splitlines()
            cell.source = "\n".join(line for line in lines if " SOLUTION" not in line)
    return notebook


def cell_of(notebook: NotebookNode, grade_id: str) -> NotebookNode:
    """The cell with this id."""
    return next(cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def answered(notebook: NotebookNode, grade_id: str, source: str) -> NotebookNode:
    """A copy of the notebook with another answer in one cell."""
    changed = copy.deepcopy(notebook)
    cell_of(changed, grade_id).source = source
    return changed


def without_work_by_hand(notebook: NotebookNode) -> NotebookNode:
    """A copy in which the code cells that are graded by hand, some of which train, only say that they are answered."""
    changed = copy.deepcopy(notebook)
    for cell in changed.cells:
        by_hand = cell.metadata.get("nbgrader", {}).get("grade_id", "").endswith("-manual")
        if by_hand and cell.cell_type == "code":
            cell.source = cell.source.partition("\n")[0] + "\nprint('a table')"
    return changed


def as_student(*words: str) -> str:
    """A file's name that says what is in it."""
    return "".join(letter if letter.isalnum() else "_" for letter in "-".join(words))


class Graded(NamedTuple):
    """What became of a submission: points and their maxima by cell, cells that wait for a hand, comments by cell, and
    its row of the table."""

    points: dict[str, float]
    most: dict[str, float]
    by_hand: set[str]
    comments: dict[str, str]
    row: pd.Series

    @property
    def lost(self) -> set[str]:
        """The cells with less than full points, those that wait for a hand apart."""
        return {name for name, points in self.points.items() if points < self.most[name]}


def graded(course: Course, table: pd.DataFrame, student: str) -> Graded:
    """What the gradebook and the table say about a student."""
    [row] = [row for _, row in table.iterrows() if row.student == student]
    with course.gradebook() as gradebook:
        [notebook] = gradebook.find_submission(row.assignment, student).notebooks
        points = {grade.name: grade.auto_score for grade in notebook.grades if not grade.needs_manual_grade}
        most = {grade.name: grade.max_score for grade in notebook.grades}
        by_hand = {grade.name for grade in notebook.grades if grade.needs_manual_grade}
        comments = {comment.name: comment.auto_comment or "" for comment in notebook.comments}
    return Graded(points, most, by_hand, comments, row)
