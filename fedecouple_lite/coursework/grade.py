"""Grade a folder of submissions with nbgrader: points, feedback, a table. Whatever one does, the others go on."""

from __future__ import annotations

import ctypes
import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import nbformat
import pandas as pd
import psutil
from nbformat import NotebookNode
from nbgrader.api import Grade, Gradebook, MissingEntry, SubmittedAssignment
from nbgrader.plugins.export import CsvExportPlugin
from traitlets.config import Config

from .course import Course, last_error, read
from .fresh import fresh_processes
from .preprocessors import NOTES, first_line, id_of
from .release import release
from .warm import pid_of_warm_process

PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl

SUMMARY = "summary.csv"
GRADES = "grades.csv"


Failures = dict[tuple[str, str], str]  # why grading failed, by student and assignment


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
    assignment: to grade no other; None grades all. workers: processes that grade; 0 is one for each core. again: those,
    too, whose notebook has not changed since it was graded. Returns the table (see `summary`), one row a submission.

    Raises ValueError where there is nothing to grade. A notebook that cannot be graded gets no points and a reason.
    """
    if not folder.is_dir():
        raise ValueError(f"folder={str(folder)!r} must be a folder of submissions")
    if assignment is not None:
        course.check_assignment(assignment)
    for name in course.assignments if assignment is None else [assignment]:
        if not is_released(course, name):
            release(course, name)
    submissions, ignored = collect(course, folder, assignment)
    to_do = []
    for submission in submissions:
        if submission.problem is None and (hand_in(course, submission) or again):
            to_do.append(submission)

    with course.gradebook() as gradebook:
        by_hand = points_by_hand(gradebook)
    failures = run_all(course, to_do, workers or os.cpu_count() or 1, on_graded)
    with course.gradebook() as gradebook:
        put_back(gradebook, by_hand)
        for submission in submissions:
            gradebook.update_or_create_student(submission.student)
            if submission.problem is not None and submission.assignment:
                forget(gradebook, submission)
        exporter = CsvExportPlugin()
        exporter.to = str(course.folder / GRADES)
        exporter.export(gradebook)
    table = summary(course, submissions + ignored, failures)
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


def collect(course: Course, folder: Path, assignment: str | None) -> tuple[list[Submission], list[Submission]]:
    """The submissions in a folder, by student, and what looks like one and is not. ValueError where there are none."""
    submissions = []
    ignored = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
        if hidden or path.is_dir() or len(parts) > 3:
            continue
        if path.suffix != ".ipynb":
            if ".ipynb" in path.name.lower():
                ignored.append(Submission(as_id(path.stem), "", path, f"ignored: {path.name} must end in .ipynb"))
            continue
        if len(parts) == 3:  # as nbgrader lays it out: STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb
            submissions.append(readable(Submission(as_id(parts[0]), parts[1], path), course))
        else:  # Moodle puts each into a folder of its own: "Jane Doe_1234_assignsubmission_file"
            name = path.stem if len(parts) == 1 else parts[0].partition("_assignsubmission")[0]
            submissions.append(of_student(as_id(name), path, course, assignment))
    if assignment is not None:
        submissions = [one for one in submissions if one.assignment in ("", assignment)]
    if not submissions:
        raise ValueError(
            f"folder={str(folder)!r} holds no submissions; it must have STUDENT.ipynb, or "
            "STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb"
        )
    return without_clashes(submissions), ignored


def without_clashes(submissions: list[Submission]) -> list[Submission]:
    """The same; of several notebooks of one student for one assignment none can be graded, and each says so."""
    of_student: dict[tuple[str, str], list[str]] = {}
    for one in submissions:
        of_student.setdefault((one.student, one.assignment), []).append(one.path.name)
    checked = []
    for one in submissions:
        names = of_student[one.student, one.assignment]
        if len(names) > 1 and one.problem is None:
            words = f"not graded: {len(names)} notebooks of {one.student}: {', '.join(names)}"
            one = one._replace(problem=words[:300])
        checked.append(one)
    return checked


def of_student(student: str, path: Path, course: Course, assignment: str | None) -> Submission:
    """A submission whose assignment is found out from the notebook; the one that is given stands for no other."""
    try:
        found = likeliest_assignment(course, read(path))
    except ValueError as error:
        return Submission(student, assignment or "", path, str(error))
    return Submission(student, found, path)


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
    ids = [cell.get("id") for cell in notebook.cells] + [id_of(cell) for cell in notebook.cells]
    lines = {first_line(cell.source) for cell in notebook.cells}

    def shared(assignment: str) -> int:
        try:
            known = course.known_cells(assignment)
        except MissingEntry:  # it was never released, so nobody has it
            return 0
        return sum(cell.id in ids or first_line(cell.source) in lines for cell in known)

    counts = {assignment: shared(assignment) for assignment in course.assignments}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] <= 2:  # the set-up cells are alike in all of them
        raise ValueError("it has no cell of any assignment")
    return best


def hand_in(course: Course, submission: Submission) -> bool:
    """Put a copy where nbgrader looks for it. Whether there is something to grade: what is there already, with the same
    content, and has feedback, which is written last, has been graded, unless the assignment was released anew."""
    target = course.notebook("submitted", submission.assignment, submission.student)
    content = submission.path.read_bytes().removeprefix(BOM_UTF8)  # which nbgrader does not read
    if not target.exists() or target.read_bytes() != content:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    done = course.notebook("feedback", submission.assignment, submission.student).with_suffix(".html")
    newest = max(target.stat().st_mtime, course.notebook("release", submission.assignment).stat().st_mtime)
    return not done.exists() or done.stat().st_mtime < newest


def forget(gradebook: Gradebook, submission: Submission) -> None:
    """Take back the points of what was handed in before something that cannot be graded."""
    with suppress(MissingEntry):
        gradebook.remove_submission(submission.assignment, submission.student)


# --- Grading ---


def run_all(
    course: Course, submissions: Sequence[Submission], workers: int, on_graded: Callable[[Submission, int], None]
) -> Failures:
    """Autograde, some at once. Returns why it failed, by student and assignment, for those for which it did.

    What fails is tried once more, alone: it may have been the machine, too busy to start a kernel in time.
    """
    failures = run_once(course, submissions, workers, on_graded)
    failed = [one for one in submissions if (one.student, one.assignment) in failures]
    return run_once(course, failed, 1, lambda submission, of: None)


def run_once(
    course: Course, submissions: Sequence[Submission], workers: int, on_graded: Callable[[Submission, int], None]
) -> Failures:
    """The same, each once."""
    failures: Failures = {}
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
    failures: Failures,
    on_graded: Callable[[Submission, int], None],
    of: int,
) -> None:
    """Autograde until none is `left`; those done are taken out. Raises BrokenProcessPool when a worker dies."""
    with ProcessPoolExecutor(workers, fresh_processes(__name__), take_environment, (dict(os.environ),)) as pool:
        jobs = {}
        for submission in left:
            jobs[pool.submit(autograde, course.folder, course.config, submission)] = submission
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


def take_environment(environment: Mapping[str, str]) -> None:
    """Make it this process's, which is forked from one that may have begun with another."""
    os.environ.clear()
    os.environ.update(environment)


def autograde(folder: Path, config: Config, submission: Submission) -> str | None:
    """Grade one submission, in a worker; what went wrong, in words, or None."""
    adopt_orphans()
    course = Course(folder, config=config)
    result = course.api.autograde(submission.assignment, submission.student)
    if result["success"]:
        result = course.api.generate_feedback(submission.assignment, submission.student)
    end_children()
    return None if result["success"] else last_error(result)


def end_children() -> None:
    """Kill whatever a submission has left running under this worker."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            is_ours = process.pid == pid_of_warm_process() or "resource_tracker" in " ".join(process.cmdline())
            if not is_ours:  # the tracker is multiprocessing's own
                process.kill()


def adopt_orphans() -> None:
    """From here on processes whose parents have ended become this one's children, where Linux can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def feedback(course: Course, assignment: str) -> int:
    """Write all feedback of an assignment anew, with what was graded by hand; returns how many. ValueError where that
    fails."""
    course.check_assignment(assignment)
    result = course.api.generate_feedback(assignment)
    if not result["success"]:
        raise ValueError(f"assignment={assignment!r}: no feedback: {last_error(result)}")
    return len(list((course.folder / "feedback").glob(f"*/{assignment}/*.html")))


ByHand = dict[str, tuple[float | None, float | None]]  # points by hand and extra credit, by the grade's id


def all_grades(gradebook: Gradebook) -> Iterator[Grade]:
    """Every grade of every submission."""
    for assignment in gradebook.assignments:
        for submission in assignment.submissions:
            for notebook in submission.notebooks:
                yield from notebook.grades


def points_by_hand(gradebook: Gradebook) -> ByHand:
    """What was given by hand, and extra: nothing that runs while submissions do may change it."""
    return {grade.id: (grade.manual_score, grade.extra_credit) for grade in all_grades(gradebook)}


def put_back(gradebook: Gradebook, before: ByHand) -> None:
    """Points by hand as they were before; a grade that is new has none."""
    for grade in all_grades(gradebook):
        grade.manual_score, grade.extra_credit = before.get(grade.id, (None, None))
    gradebook.db.commit()


# --- The table ---


def summary(course: Course, submissions: Sequence[Submission], failures: Failures) -> pd.DataFrame:
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
                row |= points_of(graded) | {"notes": "; ".join(map(str, notes_of(course, submission)))}
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
