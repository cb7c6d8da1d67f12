"""Grade a folder of submissions with nbgrader: points, feedback, a table. Whatever one does, the others go on."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import nbformat
import pandas as pd
from nbformat import NotebookNode
from nbgrader.api import MissingEntry, SubmittedAssignment
from nbgrader.plugins.export import CsvExportPlugin

from .course import Course, last_error, read
from .preprocessors import NOTES, first_line
from .release import release

SUMMARY = "summary.csv"
GRADES = "grades.csv"


class Submission(NamedTuple):
    """A student's notebook. problem: why it cannot be graded, in words, or None."""

    student: str
    assignment: str
    path: Path
    problem: str | None = None


def grade(
    course: Course,
    folder: Path,
    assignment: str | None = None,
    workers: int = 0,
    again: bool = False,
    on_graded: Callable[[Submission, int], None] = lambda submission, of: None,
) -> pd.DataFrame:
    """Autograde all submissions in `folder`, write feedback, `grades.csv` and `summary.csv` beside the gradebook.

    folder: as nbgrader's `submitted/`, STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb, or flat, STUDENT.ipynb; it stays as it is.
    assignment: None finds out from each notebook. workers: processes that grade; 0 is one for each core. again: those,
    too, whose notebook has not changed since it was graded. Returns the table (see `summary`), one row a submission.

    Raises ValueError where there is nothing to grade. A notebook that cannot be graded gets no points and a reason.
    """
    if assignment is not None:
        course.check_assignment(assignment)
    for name in course.assignments if assignment is None else [assignment]:
        if not is_released(course, name):
            release(course, name)
    submissions = collect(course, folder, assignment)
    to_do = []
    for submission in submissions:
        if submission.problem is None and (hand_in(course, submission) or again):
            to_do.append(submission)

    failures = run_all(course, to_do, workers or os.cpu_count() or 1, on_graded)
    with course.gradebook() as gradebook:
        for submission in submissions:
            gradebook.update_or_create_student(submission.student)
        exporter = CsvExportPlugin()
        exporter.to = str(course.folder / GRADES)
        exporter.export(gradebook)
    table = summary(course, submissions, failures)
    table.to_csv(course.folder / SUMMARY, index=False)
    return table


def is_released(course: Course, assignment: str) -> bool:
    """Whether the gradebook knows the assignment, and the students' version is newer than the master."""
    source = course.notebook("source", assignment)
    released = course.notebook("release", assignment)
    if not released.exists() or released.stat().st_mtime < source.stat().st_mtime:
        return False
    try:
        course.known_cells(assignment)
    except MissingEntry:
        return False
    return True


# --- What was handed in ---


def collect(course: Course, folder: Path, assignment: str | None) -> list[Submission]:
    """The submissions in a folder, by student. ValueError where there are none, or two of one student."""
    if not folder.is_dir():
        raise ValueError(f"folder={str(folder)!r} must be a folder of submissions")
    laid_out = sorted(folder.glob("*/*/*.ipynb"))
    flat = sorted(path for path in folder.iterdir() if path.suffix == ".ipynb")
    submissions = [of_layout(path, course) for path in laid_out]
    submissions += [of_flat(path, course, assignment) for path in flat]
    if assignment is not None:
        submissions = [submission for submission in submissions if submission.assignment == assignment]
    if not submissions:
        raise ValueError(
            f"folder={str(folder)!r} holds no submissions; it must have STUDENT.ipynb, or "
            "STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb"
        )
    by_name: dict[tuple[str, str], Path] = {}
    for student, name, path, _ in submissions:
        other = by_name.setdefault((student, name), path)
        if other != path:
            raise ValueError(f"two submissions of {name} by {student!r}: {other} and {path}")
    return submissions


def of_layout(path: Path, course: Course) -> Submission:
    """A submission that lies where nbgrader wants it."""
    student, name = path.parts[-3:-1]
    return readable(Submission(as_id(student), name, path), course)


def of_flat(path: Path, course: Course, assignment: str | None) -> Submission:
    """A submission that is a file with the student's name."""
    student = as_id(path.stem)
    if assignment is None:
        try:
            assignment = likeliest_assignment(course, read(path))
        except ValueError as error:
            return Submission(student, "", path, str(error))
    return readable(Submission(student, assignment, path), course)


def as_id(name: str) -> str:
    """A name as nbgrader can use it for a folder."""
    return re.sub(r"[^\w.@-]+", "_", name).strip("._") or "nameless"


def readable(submission: Submission, course: Course) -> Submission:
    """The same, with a problem where the file is no notebook, or the assignment none of the course."""
    try:
        course.check_assignment(submission.assignment)
        read(submission.path)
    except ValueError as error:
        return submission._replace(problem=str(error))
    return submission


def likeliest_assignment(course: Course, notebook: NotebookNode) -> str:
    """The assignment with which a notebook shares most cells, by id or first line. ValueError where it shares none."""
    ids = {cell.get("id") for cell in notebook.cells}
    ids |= {cell.metadata.get("nbgrader", {}).get("grade_id") for cell in notebook.cells}
    lines = {first_line(cell.source) for cell in notebook.cells}

    def shared(assignment: str) -> int:
        known = course.known_cells(assignment)
        return sum(cell.id in ids or first_line(cell.source) in lines for cell in known)

    counts = {assignment: shared(assignment) for assignment in course.assignments}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] <= 2:  # the set-up cells are alike in all of them
        raise ValueError("it has no cell of any assignment")
    return best


def hand_in(course: Course, submission: Submission) -> bool:
    """Put a copy where nbgrader looks for it. Whether there is something to grade: what is there already, with the same
    content, and has feedback, which is written last, has been graded."""
    target = course.notebook("submitted", submission.assignment, submission.student)
    if not target.exists() or not filecmp.cmp(submission.path, target, shallow=False):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(submission.path, target)
    done = course.notebook("feedback", submission.assignment, submission.student).with_suffix(".html")
    return not done.exists() or done.stat().st_mtime < target.stat().st_mtime


# --- Grading ---


def run_all(
    course: Course, submissions: Sequence[Submission], workers: int, on_graded: Callable[[Submission, int], None]
) -> dict[tuple[str, str], str]:
    """Autograde, some at once. Returns why it failed, by student and assignment, for those for which it did."""
    failures: dict[tuple[str, str], str] = {}
    left = list(submissions)
    while left:
        try:
            run_some(course, left, min(workers, len(left)), failures, on_graded, len(submissions))
        except BrokenProcessPool:  # a worker died; one by one shows over which submission
            if workers == 1:
                culprit = left.pop(0)
                failures[culprit.student, culprit.assignment] = "the grader's own process died over it"
            workers = 1
    return failures


def run_some(
    course: Course,
    left: list[Submission],
    workers: int,
    failures: dict[tuple[str, str], str],
    on_graded: Callable[[Submission, int], None],
    of: int,
) -> None:
    """Autograde until none is `left`; those done are taken out. Raises BrokenProcessPool when a worker dies."""
    seconds = course.config.JudgedExecute.timeout
    memory = course.config.JudgedExecute.memory
    # Not forked: a worker must not inherit threads of this process.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        jobs = {}
        for submission in left:
            jobs[pool.submit(autograde, course.folder, submission, seconds, memory)] = submission
        try:
            for job in as_completed(jobs):
                failure = job.result()
                submission = jobs[job]
                left.remove(submission)
                if failure is not None:
                    failures[submission.student, submission.assignment] = failure
                on_graded(submission, of)
        except KeyboardInterrupt:  # what is graded stays, and is not graded again
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def autograde(folder: Path, submission: Submission, seconds: int, memory: int) -> str | None:
    """Grade one submission, in a worker; what went wrong, in words, or None."""
    course = Course(folder, seconds, memory)
    result = course.api.autograde(submission.assignment, submission.student)
    if result["success"]:
        result = course.api.generate_feedback(submission.assignment, submission.student)
    return None if result["success"] else last_error(result)


def feedback(course: Course, assignment: str) -> int:
    """Write all feedback of an assignment anew, with what was graded by hand; returns how many. ValueError where that
    fails."""
    course.check_assignment(assignment)
    result = course.api.generate_feedback(assignment)
    if not result["success"]:
        raise ValueError(f"assignment={assignment!r}: no feedback: {last_error(result)}")
    return len(list((course.folder / "feedback").glob(f"*/{assignment}/*.html")))


# --- The table ---


def summary(course: Course, submissions: Sequence[Submission], failures: dict[tuple[str, str], str]) -> pd.DataFrame:
    """One row a submission.

    Columns: student; assignment; by_tests and by_hand, points; score, their sum; out_of; to_grade, the points that wait
    for a hand; lost, the cells that have less than their points; notes, what had to be done to the notebook, or why it
    has no points.
    """
    rows = []
    with course.gradebook() as gradebook:
        for submission in submissions:
            problem = submission.problem or failures.get((submission.student, submission.assignment))
            row: dict[str, object] = {"student": submission.student, "assignment": submission.assignment}
            if problem is None:
                graded = gradebook.find_submission(submission.assignment, submission.student)
                row |= points_of(graded) | {"notes": "; ".join(notes_of(course, submission))}
            else:
                row |= {"score": 0.0, "notes": problem}
            rows.append(row)
    columns = ["student", "assignment", "by_tests", "by_hand", "score", "out_of", "to_grade", "lost", "notes"]
    return pd.DataFrame(rows, columns=columns)


def points_of(graded: SubmittedAssignment) -> dict[str, object]:
    """The columns of `summary` that hold points."""
    grades = [grade for notebook in graded.notebooks for grade in notebook.grades]
    judged = [grade for grade in grades if grade.auto_score is not None]
    waiting = [grade for grade in grades if grade.needs_manual_grade]
    lost = [grade.name for grade in judged if grade.auto_score < grade.max_score and grade.manual_score is None]
    return {
        "by_tests": sum(grade.auto_score for grade in judged),
        "by_hand": sum(grade.manual_score for grade in grades if grade.manual_score is not None),
        "score": graded.score,
        "out_of": graded.max_score,
        "to_grade": sum(grade.max_score for grade in waiting),
        "lost": " ".join(lost),
    }


def notes_of(course: Course, submission: Submission) -> list[str]:
    """What had to be done to a submission."""
    path = course.notebook("autograded", submission.assignment, submission.student)
    notebook = nbformat.read(path, as_version=4)
    return list(notebook.metadata.get(NOTES, {}).get("notes", []))
