"""What the notebooks ask a reader to predict, they do not tell before the reader has run it."""

import copy
import io
import json
import re
import tokenize
from pathlib import Path

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
GUESS = 'guess = ""  # your prediction, before you run'
TITLE = "# @title Verdict"  # Colab shows it where the code is folded away
ECHO = 'print("Your guess:", guess or "none")'
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}  # in JupyterLab, and on Colab
COMPARISONS = (
    "more less fewer most least higher lower highest lowest larger smaller largest smallest bigger biggest",
    "better worse best worst rises falls grows shrinks nearly equal",
)


def source(cell):
    return "".join(cell["source"])


def is_prediction(cell):
    return cell["cell_type"] == "markdown" and re.search(r"\*\*predict", source(cell), re.IGNORECASE) is not None


def is_verdict(cell):
    return cell["cell_type"] == "code" and TITLE in source(cell)


def ends_the_wait(cell):
    """Whether this cell is about something new: the verdict has to come before it."""
    return cell["cell_type"] == "markdown" and (is_prediction(cell) or re.search(r"(?m)^#+ ", source(cell)) is not None)


def tokens(cell, kind):
    """The words of one kind in a code cell's source: its comments, or its names."""
    lines = io.StringIO(source(cell)).readline
    return [token.string for token in tokenize.generate_tokens(lines) if token.type == kind]


def asserts(cell):
    """Whether it holds something to be true, by itself or by lessons.claim."""
    names = tokens(cell, tokenize.NAME)
    return "assert" in names or "claim" in names


def told_by_comments(cell):
    """The words of comparison in a code cell's comments: they say a result."""
    words = re.findall(r"[a-z]+", " ".join(tokens(cell, tokenize.COMMENT)).lower())
    tell = " ".join(COMPARISONS).split()
    return [word for word in words if word in tell]


def mistakes_between(cells):
    """What gives the answer away in the code between a prediction and its verdict, or leaves no place for a guess."""
    found = []
    if not cells or cells[0]["cell_type"] != "code" or source(cells[0]).split("\n")[0] != GUESS:
        found.append("no place for a guess right below it")
    for cell in cells:
        if cell["cell_type"] == "code":
            if asserts(cell):
                found.append("an assert before the verdict")
            if told_by_comments(cell):
                found.append(f"a comment before the verdict says {told_by_comments(cell)}")
    return found


def mistakes_of_verdict(cell):
    found = []
    if source(cell).split("\n")[:2] != [TITLE, ECHO]:
        found.append("its verdict does not begin with the title and the guess")
    if cell["metadata"] != FOLDED:
        found.append("its verdict is not folded away")
    if not asserts(cell):
        found.append("its verdict checks nothing")
    return found


def mistakes(notebook):
    """What is wrong with a notebook's predictions, one sentence each."""
    cells = notebook["cells"]
    found = []
    verdicts = []  # those that belong to a prediction
    for start, cell in enumerate(cells):
        if not is_prediction(cell):
            continue
        end = start + 1
        while end < len(cells) and not is_verdict(cells[end]) and not ends_the_wait(cells[end]):
            end += 1
        wrong = mistakes_between(cells[start + 1 : end])
        if end < len(cells) and is_verdict(cells[end]):
            verdicts.append(end)
            wrong += mistakes_of_verdict(cells[end])
        else:
            wrong.append("no verdict before something new begins")
        found += [f"prediction in cell {start}: {sentence}" for sentence in wrong]
    for number, cell in enumerate(cells):
        if is_verdict(cell) and number not in verdicts:
            found.append(f"cell {number}: a verdict on no prediction")
    return found


def test_a_prediction_can_be_made_before_anything_gives_it_away():
    for path in NOTEBOOKS:
        assert mistakes(json.loads(path.read_text())) == [], path.name


def test_there_is_something_to_predict_in_every_notebook():
    assert len(NOTEBOOKS) >= 9
    for path in NOTEBOOKS:
        assert any(is_prediction(cell) for cell in json.loads(path.read_text())["cells"]), path


def markdown(text):
    return {"cell_type": "markdown", "metadata": {}, "source": [text]}


def code(text, metadata=None):
    return {"cell_type": "code", "metadata": metadata or {}, "source": text.splitlines(keepends=True)}


GOOD = {
    "cells": [
        markdown("# A lesson"),
        markdown("Two coins. **Predict before you run:** how often do both show heads?"),
        code(f"{GUESS}\n\ncoins = toss(2)  # (n, 2)\nshare = coins.all(1).mean()"),
        markdown("Read the share as a probability."),
        code("print(share)"),
        code(f"{TITLE}\n{ECHO}\nprint('A quarter.')\nassert abs(share - 0.25) < 0.01", FOLDED),
        code("assert coins.shape[1] == 2  # after the verdict: no more and no less"),
        markdown("## Something else"),
    ]
}


def test_a_notebook_that_keeps_every_rule_is_accepted():
    assert mistakes(GOOD) == []


def broken(number, cell):
    """The good notebook with another cell in place of one of its own."""
    notebook = copy.deepcopy(GOOD)
    notebook["cells"][number] = cell
    return notebook


def test_a_notebook_that_breaks_a_rule_is_refused():
    verdict = source(GOOD["cells"][5])
    folded_in_lab_only = {"jupyter": {"source_hidden": True}}
    cases = [
        (2, code("coins = toss(2)"), "no place for a guess right below it"),
        (2, markdown("It is a quarter."), "no place for a guess right below it"),
        (4, code("assert share < 0.3"), "an assert before the verdict"),
        (4, code("share  # less than a third"), "a comment before the verdict says ['less']"),
        (5, code(verdict), "its verdict is not folded away"),
        (5, code(verdict, folded_in_lab_only), "its verdict is not folded away"),
        (5, code(f"{TITLE}\nassert share < 1", FOLDED), "its verdict does not begin with the title and the guess"),
        (5, code(f"{TITLE}\n{ECHO}\nprint('A quarter.')", FOLDED), "its verdict checks nothing"),
        (4, code("claim('A quarter.', share < 0.3, 'coins')"), "an assert before the verdict"),
        (5, code("print('A quarter.')", FOLDED), "no verdict before something new begins"),
        (4, markdown("### The next question"), "no verdict before something new begins"),
        (4, markdown("**Predict:** and three coins?"), "no verdict before something new begins"),
        (1, markdown("Two coins."), "cell 5: a verdict on no prediction"),
        (6, code(verdict, FOLDED), "cell 6: a verdict on no prediction"),
    ]
    for number, cell, expected in cases:
        found = mistakes(broken(number, cell))
        assert any(sentence.endswith(expected) for sentence in found), (expected, found)


def test_the_words_of_a_result_are_looked_for_in_comments_only():
    cell = code("most = 'more'  # (n, d), of class 0\nprint('less', most)")
    assert told_by_comments(cell) == []
    assert told_by_comments(code("x = 1  # It FALLS: nearly nothing is left")) == ["falls", "nearly"]
    assert not asserts(code("words = 'assert'  # assert"))
