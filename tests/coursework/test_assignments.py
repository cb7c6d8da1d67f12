"""nbgrader for real: every master becomes a students' notebook, and every answer gets the points that it should."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from coursework.submissions import (
    ASSIGNMENTS,
    NAMES,
    Graded,
    answered,
    as_student,
    cell_of,
    copy_of_course,
    graded,
    packed,
    solved,
    without_work_by_hand,
    wrong_answers,
)
from nbclient import NotebookClient

from fedecouple_lite.coursework.course import Course
from fedecouple_lite.coursework.grade import feedback, grade
from fedecouple_lite.coursework.release import release

A1 = "a1_partitions_and_drift"
A3 = "a3_distillation_and_a_method_of_your_own"
WRONG = [(name, label) for name in NAMES for label in wrong_answers(name)]
SOLVED, UNTOUCHED = "solved", "untouched"


def student_with(name: str, label: str) -> str:
    """In whose notebook a wrong answer was planted."""
    [number] = [number for number, labels in enumerate(packed(name)) if label in labels]
    return as_student(name, f"wrong {number}")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A client whose kernels are as students have them: no nbgrader, and Colab's ipywidgets."""
    absent = tmp_path_factory.mktemp("absent") / "nbgrader"
    absent.mkdir()
    (absent / "__init__.py").write_text("raise ImportError('there is no nbgrader here')\n")
    colab = Path(sys.prefix) / "widgets7"
    if not colab.exists():
        pytest.skip("ipywidgets 7.7.1 is not there: make .venv/widgets7")
    paths = f"{absent.parent}{os.pathsep}{colab}"

    class BareClient(NotebookClient):
        def execute(self):
            return super().execute(env=dict(os.environ) | {"PYTHONPATH": paths})

    return BareClient


@pytest.fixture(scope="module")
def submissions(tmp_path_factory, bare):
    """A course, all assignments released, and a flat folder of submissions."""
    course = Course(copy_of_course(tmp_path_factory.mktemp("coursework") / "course"))
    folder = tmp_path_factory.mktemp("handed in")
    notebooks = {}
    for name in NAMES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fedecouple_lite.coursework.release.WarmClient", bare)  # run as a student would
            released = release(course, name)
        assert (released.points, released.path.name) == (20, f"{name}.ipynb")
        notebooks[as_student(name, UNTOUCHED)] = nbformat.read(released.path, as_version=4)
        right = notebooks[as_student(name, SOLVED)] = solved(course.folder, name)
        quick = without_work_by_hand(right)
        for label, (cell, source, _, _) in wrong_answers(name).items():
            student = student_with(name, label)
            notebooks[student] = answered(notebooks.get(student, quick), cell, source)
    for student, notebook in notebooks.items():
        nbformat.write(notebook, folder / f"{student}.ipynb")
    return course, folder


@pytest.fixture(scope="module")
def of(submissions):
    """All of them graded at once: a function from a student to what became of the submission."""
    course, folder = submissions
    table = grade(course, folder)
    return lambda student: graded(course, table, student)


def test_released_notebooks_were_run_without_nbgrader_and_with_colabs_widgets(bare):
    """That the kernels are what the fixture says."""
    cell = nbformat.v4.new_code_cell("import ipywidgets\nprint(ipywidgets.__version__)\nimport nbgrader")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    [printed, error] = bare(notebook, allow_errors=True, kernel_name="python3").execute().cells[0].outputs
    assert printed.text == "7.7.1\n"
    assert error.evalue == "there is no nbgrader here"


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_has_all_points(of, name):
    submission: Graded = of(as_student(name, SOLVED))
    assert submission.lost == set()
    assert submission.by_hand == {cell for cell in submission.most if cell.endswith("-manual")}
    assert submission.row.by_tests + submission.row.to_grade == 20
    assert not any(submission.comments.values())
    assert not submission.row.notes


@pytest.mark.parametrize("name", NAMES)
def test_the_untouched_notebook_has_none_and_is_told_why(of, name):
    submission: Graded = of(as_student(name, UNTOUCHED))
    assert submission.row.score == 0
    assert set(submission.points.values()) == {0}
    assert submission.by_hand == set()
    for cell, comment in submission.comments.items():
        if cell.endswith("-manual"):
            assert comment == "No response."
        else:
            assert comment == "not written yet" or "not answered yet" in comment, (cell, comment)


@pytest.mark.parametrize(("name", "label"), WRONG)
def test_a_wrong_answer_loses_its_points_and_no_others(of, name, label):
    wrong = wrong_answers(name)
    [together] = [labels for labels in packed(name) if label in labels]
    submission: Graded = of(student_with(name, label))
    cell, _, tests, words = wrong[label]
    assert words in submission.comments[cell]
    assert tests <= submission.lost
    assert submission.lost == set().union(*(wrong[other][2] for other in together))


@pytest.mark.parametrize("name", NAMES)
def test_there_are_wrong_answers_to_every_test(submissions, name):
    wrong = wrong_answers(name)
    assert len(wrong) >= 5
    course, _ = submissions
    cells = [cell.metadata.nbgrader for cell in course.master(name).cells if "nbgrader" in cell.metadata]
    tests = {cell.grade_id for cell in cells if cell.grade and not cell.solution}
    assert set().union(*(tests for _, _, tests, _ in wrong.values())) == tests


@pytest.mark.parametrize("name", NAMES)
def test_a_third_of_the_points_is_for_understanding(submissions, name):
    """Manual cells, and tests of values that were predicted or measured: their answers define no function."""
    course, _ = submissions
    points = 0
    answer = None
    for cell in course.master(name).cells:
        info = cell.metadata.get("nbgrader", {})
        if info.get("solution") and not info.get("grade"):
            answer = cell
        if info.get("grade") and (info.solution or "\ndef " not in answer.source):
            points += info.points
    assert points >= 20 / 3


@pytest.mark.parametrize("name", NAMES)
def test_points_and_minutes_are_the_same_wherever_they_are_said(name):
    """In the head's table, in a task's heading, and in the cells that nbgrader grades; parts of a task add up."""
    master = nbformat.read(ASSIGNMENTS / "source" / name / f"{name}.ipynb", as_version=4)
    rows = re.findall(r"^\| (\d+)(\w?) [^|]*\| (\d+) \| (\d+) \|", master.cells[0].source, re.M)
    in_table = {number + part: (int(points), int(minutes)) for number, part, points, minutes in rows}
    text = "\n".join(cell.source for cell in master.cells if cell.cell_type == "markdown")
    heads = re.findall(r"^#+ Task (\d+)(\w?) \((\d+) points?, (\d+) minutes\)", text, re.M)
    in_heads = {number + part: (int(points), int(minutes)) for number, part, points, minutes in heads}
    assert in_heads.items() <= in_table.items()
    assert sum(points for points, _ in in_table.values()) == 20
    assert 120 <= sum(minutes for _, minutes in in_table.values()) <= 240
    graded_by_task: dict[str, float] = {}
    for cell in master.cells:
        info = cell.metadata.get("nbgrader", {})
        if info.get("grade"):
            number = re.search(r"Task (\d+)", cell.source.partition("\n")[0]).group(1)
            graded_by_task[number] = graded_by_task.get(number, 0) + info.points
    of_tasks: dict[str, float] = {}
    for number, _, points, _ in rows:
        of_tasks[number] = of_tasks.get(number, 0) + int(points)
    assert of_tasks == graded_by_task


def test_feedback_shows_the_comment(submissions, of):
    course, _ = submissions
    label = "alpha doubled"
    of(student_with(A1, label))
    page = course.notebook("feedback", A1, student_with(A1, label)).with_suffix(".html")
    assert "alpha is twice what it should be" in page.read_text()


def test_points_by_hand_count_and_stay(submissions, of):
    course, folder = submissions
    student = as_student(A1, SOLVED)
    of(student)
    with course.gradebook() as gradebook:
        [notebook] = gradebook.find_submission(A1, student).notebooks
        for given in notebook.grades:
            if given.needs_manual_grade:
                given.manual_score = given.max_score
                given.needs_manual_grade = False
        gradebook.db.commit()
    calls = []
    table = grade(course, folder, on_graded=lambda submission, total: calls.append(submission.student))
    assert calls == []  # nothing has changed since
    row = graded(course, table, student).row
    assert (row.score, row.to_grade, row.by_hand) == (20, 0, 4)
    assert feedback(course, A1) >= 3


def test_a_course_seed_changes_data_and_answers(submissions, of, tmp_path):
    """The seed is written into the students' notebooks; another seed makes another course."""
    course, _ = submissions
    other = copy_of_course(tmp_path / "other")
    config = other / "nbgrader_config.py"
    config.write_text(config.read_text().replace("COURSE_SEED = 2026", "COURSE_SEED = 7"))
    released = release(Course(other), A1)
    cell = cell_of(nbformat.read(released.path, as_version=4), "given-course")
    assert cell.source.startswith("COURSE_SEED = 7 ")
    assert 'DATASET = "digits"' in cell.source
    ours = cell_of(nbformat.read(course.notebook("release", A1), as_version=4), "given-course")
    assert ours.source.startswith("COURSE_SEED = 2026 ")


@pytest.mark.parametrize("seed", [334, 404, 421, 448])
def test_a_right_answer_keeps_its_points_where_student_and_teacher_agree(seed):
    """With these seeds they prefer the same class on every image of a case: their distance is 0, but for rounding."""
    master = nbformat.read(ASSIGNMENTS / "source" / A3 / f"{A3}.ipynb", as_version=4)
    names = {"torch": torch}
    exec(cell_of(master, "distil-answer").source, names)
    torch.manual_seed(seed)
    exec(cell_of(master, "distil-tests").source, names)
