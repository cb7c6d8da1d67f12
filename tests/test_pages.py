"""Pages in Markdown say what is so: programs run, links lead somewhere, the course's table is the course."""

import json
import re
from pathlib import Path

import pytest

from fedecouple_lite import METHODS
from fedecouple_lite.models import NETS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("howto/*.md")])
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def programs(page):
    """The Python blocks of a page, with fewer rounds."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    return [block.replace("rounds=10", "rounds=1") for block in blocks]


@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)], ids=lambda page: page.stem)
def test_the_programs_of_a_page_run_in_order(page, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(METHODS, "lazy", None)  # put back afterwards
    monkeypatch.setitem(NETS, "wide", None)
    names = {}
    for block in programs(page):
        exec(compile(block, page.name, "exec"), names)
    out = capsys.readouterr().out
    if page.stem == "own_method":
        assert "slowness=0 of Lazy must be a number >= 1" in out and re.search(r"Lazy +\d", out)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_a_page_hold_in_the_projects_folder(page):
    for name in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        made = name.startswith(("api/", "../api/"))  # by `make docs`
        assert made or (page.parent / name).exists(), name


def course():
    """The rows of README's table of notebooks: (file name, question, minutes)."""
    text = (ROOT / "README.md").read_text()
    table = text.partition("<!-- course -->")[2].partition("<!-- /course -->")[0]
    return re.findall(r"\]\(notebooks/(\S+?)\) \| (.+?) \| (.+?) \|", table)


def test_the_courses_table_has_every_notebook_in_order():
    assert [name for name, *_ in course()] == [path.name for path in NOTEBOOKS]
    assert all(question.endswith("?") for _, question, _ in course())


@pytest.mark.parametrize(("name", "question", "minutes"), course())
def test_minutes_are_what_the_notebook_says(name, question, minutes):
    opening = "".join(json.loads((ROOT / "notebooks" / name).read_text())["cells"][0]["source"])
    reading = re.split(r"exercises|[Aa]bout", re.search(r"\*\*Time:\*\* (.*)", opening)[1])[0]
    assert re.findall(r"\d+", minutes) == re.findall(r"\d+", reading)


def test_every_how_to_is_on_the_page_that_lists_them():
    listing = (DOCS / "howto.md").read_text()
    for page in DOCS.glob("howto/*.md"):
        assert f"](howto/{page.name})" in listing and f"\nhowto/{page.stem}\n" in listing


def test_no_page_names_an_address_of_ours():
    for page in [ROOT / "README.md", *PAGES]:
        assert not re.search(r"github\.com|github\.io|readthedocs\.io/projects", page.read_text()), page.name
