"""What `make coursework` refuses: a master that gives something away, or asks for nothing."""

from __future__ import annotations

import nbformat
import pytest
from coursework.submissions import cell_of
from coursework.tiny import TINY, tiny_course

from fedecouple_lite.coursework.course import Course
from fedecouple_lite.coursework.release import hidden_lines, leaks, release, unasked


@pytest.fixture
def course(tmp_path):
    return Course(tiny_course(tmp_path / "course"))


def change(course: Course, grade_id: str, old: str, new: str) -> None:
    """Put `new` in place of `old` in a cell of the tiny master."""
    path = course.notebook("source", TINY)
    master = nbformat.read(path, as_version=4)
    cell = cell_of(master, grade_id)
    assert old in cell.source
    cell.source = cell.source.replace(old, new)
    nbformat.write(master, path)


def test_a_sound_master_is_released_with_its_points(course):
    released = release(course, TINY)
    assert (released.points, released.by_hand) == (10, 3)
    text = released.path.read_text()
    for hidden in ("HIDDEN", "SOLUTION", "Mistake", "return 2 * values", "Because."):
        assert hidden not in text
    assert text.count("raise NotImplementedError()") == 3
    assert "YOUR ANSWER HERE" in text


SPOILT = {
    "a test that passes without an answer": (
        ("number-tests", 'assert number is not None, "number: not answered yet"', "pass"),
        "number-tests, with no answer, passes",
    ),
    "a test that fails for another reason": (
        ("total-tests", "assert total([1, 2]) == 3", "assert totl([1, 2]) == 3"),
        "total-tests, with no answer, fails with NameError",
    ),
    "an answer without a stub": (
        ("double-answer", "### BEGIN SOLUTION\n    return 2 * values\n    ### END SOLUTION", "return 2 * values"),
        "double-tests, with no answer, fails with NameError",
    ),
    "a given cell that fails": (
        ("given-course", "import numpy as np", "import numpy as np\n1 / 0"),
        "given-course raises ZeroDivisionError: division by zero",
    ),
    "a region that is never closed": (
        ("total-tests", "### END HIDDEN TESTS", ""),
        "nbgrader cannot build it",
    ),
}


@pytest.mark.parametrize("label", SPOILT)
def test_a_spoilt_master_is_refused_and_leaves_nothing(course, label):
    change_of_cell, words = SPOILT[label]
    change(course, *change_of_cell)
    with pytest.raises(ValueError, match=TINY) as error:
        release(course, TINY)
    assert words in str(error.value)
    assert not course.notebook("release", TINY).exists()


def test_what_a_students_version_must_not_show_is_found(course):
    master = course.master(TINY)
    shows = "### BEGIN HIDDEN TESTS\nreturn 2 * values"
    output = nbformat.v4.new_output("stream", text="1")
    released = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(shows, outputs=[output])])
    assert leaks(master, released) == [
        "it holds a mark of HIDDEN TESTS",
        "it shows the hidden line 'return 2 * values'",
        "its cell 1 has outputs",
    ]
    assert leaks(nbformat.v4.new_notebook(), nbformat.v4.new_notebook()) == []


def test_hidden_lines_are_those_of_both_kinds_of_regions(course):
    lines = hidden_lines(course.master(TINY))
    assert "return 2 * values" in lines
    assert 'mistakes = [Mistake("these are the squares.", lambda values: values**2)]' in lines
    assert not any("assert total" in line for line in lines)


def test_a_notebook_without_graded_cells_asks_for_nothing():
    assert unasked(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("text")])) == []


def test_a_file_beside_the_master_that_shows_a_solution_is_refused(course):
    source = course.notebook("source", TINY).parent
    (source / "data.csv").write_text("1,2,3\n")
    assert release(course, TINY).points == 10
    (source / "left_over.py").write_text("def double(values):\n    return 2 * values\n")
    with pytest.raises(ValueError, match=r"left_over\.py lies beside it, and shows a hidden line"):
        release(course, TINY)
    assert not course.notebook("release", TINY).parent.exists()
