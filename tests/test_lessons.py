"""Sizes and step sizes by data set, and claims that are held to where they were measured."""

import io
import json
import re
import tokenize
from pathlib import Path

import pytest

from fedecouple_lite import DATASETS
from fedecouple_lite.course.lessons import LESSONS, claim, lesson

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


def offered(path: Path) -> list[str]:
    """The data sets that a notebook's DATASET may name, the one that it does name first; none without a choice."""
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "DATASET = " in source:
            tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
            comments = " ".join(token.string for token in tokens if token.type == tokenize.COMMENT)
            default = re.search(r'DATASET = "(\w+)"', source)[1]
            return [default, *re.findall(r'"(\w+)"', comments)]
    return []


def test_every_data_set_that_a_notebook_offers_has_a_lesson_and_every_lesson_is_offered():
    names = {name for path in NOTEBOOKS for name in offered(path)}
    assert names == set(LESSONS) and names <= set(DATASETS)
    assert {path.name[:2]: len(offered(path)) for path in NOTEBOOKS if offered(path)} == {
        "01": 4,
        "03": 3,
        "05": 3,
        "07": 3,
    }


def test_the_digits_are_used_whole_and_larger_sets_in_part():
    assert lesson("digits").per_client is None
    for name in LESSONS.keys() - {"digits"}:
        assert lesson(name).per_client <= 200 and lesson(name).lr < lesson("digits").lr


def test_a_data_set_without_a_lesson_is_refused_by_name():
    with pytest.raises(ValueError, match=r"dataset='cifar' has no lesson; did you mean 'cifar10'\? choose from digits"):
        lesson("cifar")


def test_a_claim_that_holds_is_said_as_it_stands_wherever_it_was_measured(capsys):
    claim("Anchors help.", True, "digits")
    claim("Anchors help.", True, "cifar10", measured=("digits",))
    assert capsys.readouterr().out == "Anchors help.\n" * 2


def test_a_claim_that_fails_where_it_was_measured_is_an_error():
    with pytest.raises(AssertionError, match="was measured on digits, mnist, but does not hold"):
        claim("Anchors help.", False, "mnist", measured=("digits", "mnist"))
    with pytest.raises(AssertionError):
        claim("Anchors help.", False, "digits")


def test_a_claim_that_fails_elsewhere_is_a_sentence(capsys):
    claim("Anchors help.", False, "cifar10", measured=("digits", "mnist"))
    said = 'Not so here: "Anchors help." was measured on digits, mnist. On cifar10 this run found otherwise.\n'
    assert capsys.readouterr().out == said
