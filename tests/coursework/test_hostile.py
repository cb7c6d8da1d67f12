"""Whatever is handed in, it costs only its own points, with a reason, and everybody else is graded."""

from __future__ import annotations

from contextlib import suppress

import nbformat
import pandas as pd
import psutil
import pytest
from coursework.submissions import Graded, answered, as_student, cell_of, graded, solved
from coursework.tiny import DAMAGED, HOSTILE, NO_NOTEBOOKS, PATCHES, TINY, TRESPASSING, patched, tiny_course

from fedecouple_lite.coursework.course import Course
from fedecouple_lite.coursework.grade import grade
from fedecouple_lite.coursework.preprocessors import MARK
from fedecouple_lite.coursework.release import release

SECONDS = 8  # for a cell: enough for an honest one beside other work
MEMORY = 2048  # MiB of a kernel: soon full


@pytest.fixture(scope="module")
def submissions(tmp_path_factory):
    """A course with the tiny assignment, and a flat folder of what was handed in."""
    course = Course(tiny_course(tmp_path_factory.mktemp("coursework")), seconds=SECONDS, memory=MEMORY)
    release(course, TINY)
    right = solved(course.folder, TINY)
    notebooks = {
        "right": right,
        "partly right": answered(right, "number-answer", "# Task 3, answer: number\nnumber = 1"),
    }
    notebooks["right"] = answered(right, "number-answer", "# Task 3, answer: number\nnumber = 2")
    right = notebooks["right"]
    for label, (source, _) in HOSTILE.items():
        notebooks[label] = answered(right, "double-answer", source)
    for label, (source, _) in TRESPASSING.items():
        notebooks[label] = answered(right, "double-answer", source.format(course=course.folder))
    for label, (damage, _, _) in DAMAGED.items():
        notebooks[label] = damage(right)
    for label, patch in PATCHES.items():
        notebooks[label] = patched(right, patch)
    folder = tmp_path_factory.mktemp("handed in")
    for label, notebook in notebooks.items():
        nbformat.write(notebook, folder / f"{as_student(label)}.ipynb")
    for label, content in NO_NOTEBOOKS.items():
        (folder / f"{as_student(label)}.ipynb").write_bytes(content)
    return course, folder


@pytest.fixture(scope="module")
def table(submissions):
    course, folder = submissions
    return grade(course, folder)


@pytest.fixture(scope="module")
def of(submissions, table):
    """From a student to what became of the submission."""
    course, _ = submissions
    return lambda label: graded(course, table, as_student(label))


def test_who_is_right_has_all_points(of):
    submission: Graded = of("right")
    assert submission.lost == set()
    assert (submission.row.by_tests, submission.row.to_grade, submission.row.notes) == (7, 3, "")


def test_a_number_in_the_last_line_is_partial_credit(of):
    submission: Graded = of("partly right")
    assert submission.points["number-tests"] == 1
    assert submission.lost == {"number-tests"}


@pytest.mark.parametrize("label", [*HOSTILE, *TRESPASSING])
def test_a_hostile_answer_costs_its_own_points(of, label):
    _, words = {**HOSTILE, **TRESPASSING}[label]
    submission: Graded = of(label)
    assert submission.row.notes == "" or submission.points, submission.row.notes
    assert submission.lost == {"double-tests"}
    assert words in submission.comments["double-answer"]


@pytest.mark.parametrize("label", TRESPASSING)
def test_the_course_is_closed_to_a_submission(submissions, table, label):
    course, _ = submissions
    notebook = nbformat.read(course.notebook("autograded", TINY, as_student(label)), as_version=4)
    [error] = cell_of(notebook, "double-answer").outputs
    assert "belongs to the course; a submission has no business there" in error.evalue


@pytest.mark.parametrize("label", DAMAGED)
def test_a_damaged_notebook_is_mended(of, label):
    _, tests, words = DAMAGED[label]
    submission: Graded = of(label)
    assert submission.lost == tests
    assert submission.row.out_of == 10
    assert words in submission.row.notes


@pytest.mark.parametrize("label", PATCHES)
def test_patches_earn_nothing(of, label):
    submission: Graded = of(label)
    assert submission.row.by_tests == 0
    assert all(submission.comments[f"{task}-answer"] for task in ("total", "double", "number"))


@pytest.mark.parametrize("label", NO_NOTEBOOKS)
def test_what_is_no_notebook_has_no_points_and_a_reason(table, label):
    [row] = [row for _, row in table.iterrows() if row.student == as_student(label)]
    assert row.score == 0
    assert "is no notebook" in row.notes


def test_table_and_export_have_everybody(submissions, table):
    course, folder = submissions
    students = {path.stem for path in folder.iterdir()}
    assert set(table.student) == students
    assert set(pd.read_csv(course.folder / "summary.csv").student) == students
    assert set(pd.read_csv(course.folder / "grades.csv").student_id) == students


def test_nothing_is_left_running(table):
    """No kernel outlives its grading, nor what a submission has started."""
    commands = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if MARK in process.environ():
                commands.append(process.cmdline())
    assert [command for command in commands if "left behind" in command] == []
    children = [process.cmdline() for process in psutil.Process().children(recursive=True)]
    assert [command for command in children if "ipykernel_launcher" in command] == []


def test_a_changed_submission_is_graded_again_and_no_other(submissions, table):
    course, folder = submissions
    before = folder / f"{as_student('hangs when called')}.ipynb"
    before.write_bytes((folder / "right.ipynb").read_bytes())
    calls = []
    again = grade(course, folder, on_graded=lambda submission, total: calls.append(submission.student))
    assert calls == [before.stem]
    assert graded(course, again, before.stem).lost == set()
    others = table.student != before.stem
    pd.testing.assert_frame_equal(again[others.values], table[others])


def test_nbgraders_own_layout_gives_the_same(submissions, table, tmp_path):
    course, folder = submissions
    for student in ("right", as_student("quits")):
        place = tmp_path / student / TINY
        place.mkdir(parents=True)
        (place / f"{TINY}.ipynb").write_bytes((folder / f"{student}.ipynb").read_bytes())
    again = grade(course, tmp_path)
    assert list(again.by_tests) == [4, 7]
    assert list(again.student) == ["quits", "right"]


def test_names_as_learning_platforms_give_them(submissions, table, tmp_path):
    course, folder = submissions
    right = (folder / "right.ipynb").read_bytes()
    other = (folder / "quits.ipynb").read_bytes()
    files = {
        "Jane Doe_1234_assignsubmission_file/a0_tiny.ipynb": right,
        "Zoë Müller.ipynb": b"\xef\xbb\xbf" + right,  # with a byte order mark
        "twice!.ipynb": right,
        "twice_.ipynb": other,
        "_.ipynb": right,
        "._right.ipynb": b"of a Mac",
        ".ipynb_checkpoints/right-checkpoint.ipynb": other,
        "__MACOSX/right.ipynb": other,
        "capitals.IPYNB": right,
        "text.ipynb.txt": right,
        "readme.txt": b"no submission",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    rows = {row.student: row for _, row in grade(course, tmp_path).iterrows()}
    assert set(rows) == {"Jane_Doe_1234", "Zoë_Müller", "twice", "nameless", "capitals", "text.ipynb"}
    assert [rows[name].by_tests for name in ("Jane_Doe_1234", "Zoë_Müller", "nameless")] == [7, 7, 7]
    assert rows["twice"].notes == "not graded: 2 notebooks of twice: twice!.ipynb, twice_.ipynb"
    assert rows["capitals"].notes == "ignored: capitals.IPYNB must end in .ipynb"
    assert "text.ipynb.txt" in rows["text.ipynb"].notes


def test_a_worse_hand_in_replaces_a_better_one(submissions, table, tmp_path):
    course, folder = submissions
    (tmp_path / "changes.ipynb").write_bytes((folder / "right.ipynb").read_bytes())
    assert grade(course, tmp_path).by_tests.tolist() == [7]
    (tmp_path / "changes.ipynb").write_bytes(b"{}")
    again = grade(course, tmp_path, TINY)
    assert again.score.tolist() == [0]
    exported = pd.read_csv(course.folder / "grades.csv").set_index("student_id")
    assert exported.loc["changes", "score"] == 0


def test_points_by_hand_that_change_while_grading_are_put_back(submissions, table, tmp_path, monkeypatch):
    """As if a submission had reached the gradebook."""
    course, folder = submissions

    def run_all(course, *others):
        with course.gradebook() as gradebook:
            [notebook] = gradebook.find_submission(TINY, "right").notebooks
            notebook.grades[0].extra_credit = 50
            gradebook.db.commit()
        return {}

    monkeypatch.setattr("fedecouple_lite.coursework.grade.run_all", run_all)
    (tmp_path / "right.ipynb").write_bytes((folder / "right.ipynb").read_bytes())
    assert grade(course, tmp_path).score.tolist() == [7]


def test_the_configuration_is_run_once_and_before_any_submission(submissions, table, tmp_path):
    """It is a program: a submission that could write it would run in the grader."""
    course, folder = submissions
    config = course.folder / "nbgrader_config.py"
    before = config.read_text()
    try:
        config.write_text(before + "\nraise SystemExit('the configuration was run again')\n")
        (tmp_path / "fresh.ipynb").write_bytes((folder / "right.ipynb").read_bytes())
        assert grade(course, tmp_path).by_tests.tolist() == [7]
    finally:
        config.write_text(before)


def test_what_cannot_be_graded_at_all_is_refused(submissions, tmp_path):
    course, folder = submissions
    with pytest.raises(ValueError, match="must be a folder of submissions"):
        grade(course, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no submissions"):
        grade(course, tmp_path)
    with pytest.raises(ValueError, match="did you mean 'a0_tiny'"):
        grade(course, folder, "a0_tinny")
    with pytest.raises(ValueError, match=r"holds no nbgrader_config\.py"):
        Course(tmp_path)


def test_a_notebook_that_hangs_everywhere_is_given_up(submissions, tmp_path_factory):
    """After six cells that hang the rest is not run: one submission cannot hold up a night's grading."""
    course = Course(tiny_course(tmp_path_factory.mktemp("hanging")), seconds=1)
    release(course, TINY)
    notebook = solved(course.folder, TINY)
    for _ in range(9):
        notebook.cells.insert(2, nbformat.v4.new_code_cell("import time\ntime.sleep(1000)"))
    folder = tmp_path_factory.mktemp("handed in")
    nbformat.write(notebook, folder / "hangs.ipynb")
    table = grade(course, folder)
    assert table.by_tests.tolist() == [0]
    graded_notebook = nbformat.read(course.notebook("autograded", TINY, "hangs"), as_version=4)
    names = [output.ename for cell in graded_notebook.cells for output in cell.get("outputs", []) if "ename" in output]
    assert names.count("CellTimeoutError") == 6
    assert names.count("NotRun") == 9  # three more that hang, three answers and their tests
