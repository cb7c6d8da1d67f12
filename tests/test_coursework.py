"""The parts of grading by themselves: what travels, whose names are whose, what raises, what is mended."""

from __future__ import annotations

import ast
import pickle
import sys
import threading
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from socket import AF_UNIX, socket

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from nbgrader.api import MissingEntry

import fedecouple_lite
from fedecouple_lite import tensors
from fedecouple_lite.coursework import wire
from fedecouple_lite.coursework.answers import answer, functions_of_library, library_refused, serve
from fedecouple_lite.coursework.grade import Submission, likeliest_assignment, run_all
from fedecouple_lite.coursework.judge import (
    Judged,
    Remote,
    Student,
    error_named,
    judge,
    judged_beside,
    names_of_student,
)
from fedecouple_lite.losses import cross_entropy

# --- The wire ---

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.text(), st.booleans()), inner)
    ),
    max_leaves=20,
)


@drawn(nested)
def test_plain_data_come_back_as_they_were(value):
    returned = wire.unpack(wire.pack(value))
    assert returned == value
    assert type(returned) is type(value)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float16", "float32", "float64", ">f8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_arrays_come_back_as_they_were(dtype, shape):
    array = np.asarray(10 * np.random.default_rng(0).random(shape)).astype(dtype)
    returned = wire.unpack(wire.pack(array))
    assert isinstance(returned, np.ndarray)
    assert returned.shape == array.shape
    assert returned.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(returned, array)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_come_back_as_they_were(dtype):
    tensor = (10 * torch.rand(3, 4)).to(dtype)
    for same in (tensor, tensor.T, tensor[:, ::2], tensor[0, 0]):
        returned = wire.unpack(wire.pack({"a": [same]}))["a"][0]
        assert returned.dtype == dtype
        assert torch.equal(returned, same)


def test_a_tensor_with_a_gradient_travels_without():
    returned = wire.unpack(wire.pack(torch.ones(2, requires_grad=True)))
    assert not returned.requires_grad


def deep(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        lambda: 0,
        np.array(["a"]),
        np.array([object()]),
        torch.ones(2, dtype=torch.complex64),
        deep(30),
    ],
    ids=["object", "set", "function", "words", "objects", "complex", "deep"],
)
def test_what_is_not_plain_is_refused(value):
    with pytest.raises(wire.NotPlain):
        wire.pack({"a": value})


def test_too_much_is_refused():
    with pytest.raises(wire.NotPlain, match="65 MiB"):
        wire.pack("x" * (65 * 2**20))


@drawn(st.binary(max_size=200))
def test_noise_is_no_message(noise):
    with pytest.raises(ValueError, match="no readable message"):
        wire.unpack(noise)


def test_a_pickle_is_not_read():
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("code of the other side was run",)

    with pytest.raises(ValueError, match="no readable message"):
        wire.unpack(pickle.dumps(Trap()))


# --- The library, refused ---


def test_functions_of_the_library_raise_under_any_name_and_then_work_again():
    innocent = cross_entropy
    logits, y = torch.zeros(1, 2), torch.tensor([0])
    before = innocent(logits, y)
    with library_refused():
        with pytest.raises(RuntimeError, match="fedecouple_lite's cross_entropy must not be called here"):
            innocent(logits, y)
        with pytest.raises(RuntimeError, match="weighted_mean"):
            tensors.weighted_mean([{}], [1])
        with pytest.raises(RuntimeError, match="label_counts"):
            fedecouple_lite.Federation.label_counts(None)
    assert torch.equal(innocent(logits, y), before)


def test_every_public_function_is_among_them():
    names = {function.__name__ for function in functions_of_library()}
    assert {"split", "make", "rounds", "weighted_mean", "client_round", "dirichlet"} <= names


# --- Questions and answers ---


def names_with(**extra):
    def double(x):
        return 2 * x

    def spoil(x):
        x += 1
        return x

    def fail(x):
        raise KeyError("no such thing")

    return {"double": double, "spoil": spoil, "fail": fail, "value": 3, "thing": object(), **extra}


def asked(*question):
    return wire.unpack(answer(question, names_with()))


def test_answers():
    assert asked("look", "double") == ("function",)
    assert asked("look", "value") == ("value", 3)
    assert asked("look", "nothing") == ("missing",)
    assert asked("look", "thing") == ("strange", "object")
    assert asked("call", "double", (4,), {}) == ("result", 8, None)
    assert asked("call", "double", (), {"x": 4}) == ("result", 8, None)
    assert asked("call", "fail", (4,), {}) == ("raised", "KeyError", "'no such thing'")
    result, array, changed = asked("call", "spoil", (np.zeros(2),), {})
    assert (result, array.tolist(), changed) == ("result", [1, 1], 1)


class Kernel:
    """A student's side in a thread: what it does with each question."""

    def __init__(self, respond, seconds=5.0):
        ours, theirs = Pipe()
        self.student = Student(ours, seconds)

        def run():
            while True:
                try:
                    question = pickle.loads(theirs.recv_bytes())
                except EOFError:
                    return
                reply = respond(question)
                if reply is None:
                    theirs.close()
                    return
                with suppress(OSError):  # the judge may have hung up
                    theirs.send_bytes(reply)

        threading.Thread(target=run, daemon=True).start()


def judged(source, given=None, respond=None, seconds=5.0):
    respond = respond or (lambda question: answer(question, names_with()))
    return judge(source, given or {}, Kernel(respond, seconds).student)


def test_a_right_answer_and_a_wrong_one():
    assert judged("assert double(2) == 4").error is None
    wrong = judged("x = 1\nassert double(2) == 5, 'twice 2 is 4'\n")
    assert (wrong.error, wrong.words, wrong.line) == ("AssertionError", "twice 2 is 4", 2)


def test_numbers_in_the_last_line_are_points_and_nothing_else():
    assert judged("double(2) / 8").number == 0.5
    assert judged("double(2) == 4").number is None
    assert judged("'7'").number is None
    assert judged("x = 3").number is None


def test_given_names_are_the_graders_and_stay_as_they_are():
    given = {"double": lambda x: 0, "count": 1}
    assert judged("assert double(2) == 0\ncount = count + 1", given).error is None
    assert given["count"] == 1


def test_builtins_and_names_that_tests_bind_are_not_the_students():
    source = "def double(x):\n    return abs(x)\nassert double(-2) == 2"
    assert judged(source, respond=lambda question: answer(question, names_with(abs=0))).error is None
    assert names_of_student(ast.parse(source), {}) == ["double", "x"]  # asked for, and bound before they are used


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nothing + 1", "`nothing` is not defined: its cell was not written, or stopped before"),
        ("thing + 1", "`thing` is object, where a function or plain data are expected"),
        ("fail(1)", "KeyError: \"'no such thing'\""),
        ("spoil(__import__('numpy').zeros(2))", "`spoil` changes what it is given, its argument number 1"),
        ("value(1)", "TypeError: 'int' object is not callable"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise NotImplementedError", "not written yet"),
        ("print('said')\nassert False", "said"),
        ("assert False", "the test fails"),
    ],
)
def test_what_a_student_is_told(source, words):
    assert words in judged(source).words


def test_a_kernel_that_says_nothing_dies_or_talks_nonsense():
    gone = "double(1)"
    slow = judged(gone, respond=lambda question: threading.Event().wait(20) or b"", seconds=0.3)
    assert (slow.error, slow.words) == ("Gone", "no answer within 0 seconds: does a loop never end?")
    assert "the kernel died" in judged(gone, respond=lambda question: None).words
    assert "cannot be read" in judged(gone, respond=lambda question: b"nonsense").words
    assert "cannot be read" in judged(gone, respond=lambda question: wire.pack([1])).words
    assert "cannot be read" in judged(gone, respond=lambda question: pickle.dumps(("function",))).words


def test_tests_that_catch_everything_do_not_catch_a_kernel_that_is_gone():
    source = "try:\n    double(1)\nexcept Exception:\n    pass"
    assert judged(source, respond=lambda question: None).error == "Gone"


def test_a_kernel_that_never_calls():
    with judged_beside("1 + 1", {}, 1.0, None) as (_, _, verdict):
        judged = verdict()
    assert (judged.error, judged.words.partition(":")[0]) == ("Gone", "the kernel does not answer")


def test_who_calls_without_the_word_is_not_listened_to():
    with judged_beside("word", {}, 5.0, None) as (address, word, verdict):
        for wrong in (b"", b"x", word.encode()[:-1], word.upper().encode() + b"x"):
            with socket(AF_UNIX) as line:
                line.connect(address)
                Connection(line.detach()).send_bytes(wrong)
        __main__ = sys.modules["__main__"]
        __main__.word = 2.5
        try:
            calling = threading.Thread(target=serve, args=(address, word))
            calling.start()
            calling.join()
        finally:
            del __main__.word
        assert verdict().number == 2.5


def test_errors_keep_their_names():
    assert isinstance(error_named("ValueError", "words"), ValueError)
    assert isinstance(error_named("NotImplementedError", ""), NotImplementedError)
    strange = error_named("UnicodeDecodeError", "words")
    assert (type(strange).__name__, str(strange)) == ("UnicodeDecodeError", "words")
    quits = error_named("SystemExit", "0")
    assert isinstance(quits, Exception)
    assert type(quits).__name__ == "SystemExit"


def test_a_remote_has_its_name():
    assert Remote(Kernel(lambda question: None).student, "double").__name__ == "double"


# --- Verdicts as nbgrader reads them ---


def graded_as(judged):
    """The points that nbgrader gives a tests cell worth three."""
    nbgrader_utils = pytest.importorskip("nbgrader.utils")
    from fedecouple_lite.coursework.preprocessors import outputs_of

    cell = nbformat.v4.new_code_cell("first line\nsecond line")
    cell.metadata.nbgrader = {"grade": True, "solution": False, "grade_id": "a-tests", "points": 3}
    cell.outputs = outputs_of(judged, cell)
    points, most = nbgrader_utils.determine_grade(cell)
    assert most == 3
    return points, cell.outputs


@pytest.mark.parametrize(
    ("number", "points"), [(None, 3), (0.0, 0), (1.5, 1.5), (3.0, 3), (7.0, 3), (-1.0, 0), (float("nan"), 0)]
)
def test_a_number_is_so_many_points_but_never_more_than_there_are(number, points):
    assert graded_as(Judged("", number, None, None, None))[0] == points


def test_an_error_is_no_points_and_says_where():
    points, [printed, error] = graded_as(Judged("said\n", None, "AssertionError", "wrong", 2))
    assert points == 0
    assert printed.text == "said\n"
    assert (error.ename, error.evalue) == ("AssertionError", "wrong")
    assert error.traceback == ["AssertionError: wrong", "seen in line 2 of the tests: second line"]


# --- What fails is tried again ---


def test_what_fails_is_tried_once_more_and_alone(monkeypatch):
    """A busy machine may fail a notebook that has nothing wrong with it; one that fails twice has."""
    busy, broken, right = (Submission(name, "a1", Path(name)) for name in ("busy", "broken", "right"))
    passes = []
    seen = []

    def run_once(course, submissions, workers, on_graded):
        passes.append((list(submissions), workers))
        for one in submissions:
            on_graded(one, len(submissions))
        if len(passes) == 1:
            return {("busy", "a1"): "no kernel", ("broken", "a1"): "no kernel"}
        return {("broken", "a1"): "no kernel, again"}

    monkeypatch.setattr("fedecouple_lite.coursework.grade.run_once", run_once)
    failures = run_all(None, [busy, broken, right], 2, lambda one, of: seen.append(one.student))
    assert failures == {("broken", "a1"): "no kernel, again"}
    assert passes == [([busy, broken, right], 2), ([busy, broken], 1)]
    assert seen == ["busy", "broken", "right"]  # a progress bar counts each once


def test_an_assignment_that_was_never_released_is_nobodys():
    """Grading one of a course does not ask for the others."""
    cells = [nbformat.v4.new_code_cell(f"# Task {number}", id=f"task-{number}") for number in range(4)]

    class Half:
        assignments = ("released", "to_come")

        def known_cells(self, assignment):
            if assignment == "to_come":
                raise MissingEntry("No such notebook")
            return cells

    assert likeliest_assignment(Half(), nbformat.v4.new_notebook(cells=cells)) == "released"
    with pytest.raises(ValueError, match="no cell of any assignment"):
        likeliest_assignment(Half(), nbformat.v4.new_notebook())
