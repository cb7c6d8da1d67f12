"""The steps with which docs/ makes pages: notebooks are run once and anew when they must, prose stays prose."""

import sys
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("sphinx", reason="no Sphinx here: pip install -e .[docs,coursework]")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import docstrings
import executed
import mend
import reference


@pytest.fixture
def course(tmp_path):
    """A folder with one notebook and no drawings."""
    (tmp_path / "notebooks" / "drawings").mkdir(parents=True)
    cells = [nbformat.v4.new_markdown_cell("# One"), nbformat.v4.new_code_cell("print(1 + 1)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "one.ipynb")
    return tmp_path


def prepared(course, given=None):
    """The one notebook as it is on its page."""
    executed.prepare(course / "notebooks", course / "pages", course / "cache", given)
    return nbformat.read(course / "pages" / "one.ipynb", as_version=4)


@pytest.fixture
def runs(monkeypatch):
    """In place of running a notebook: which ones would have been."""
    called = []

    def run(notebook, folder):
        called.append(notebook.cells[1].source)
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"run {len(called)}\n")]

    monkeypatch.setattr(executed, "run", run)
    return called


def printed(notebook):
    return "".join(output.text for output in notebook.cells[1].outputs)


def test_a_notebook_is_run_once_and_read_back(course, runs):
    assert printed(prepared(course)) == "run 1\n"
    assert printed(prepared(course)) == "run 1\n" and len(runs) == 1


def test_what_was_really_run_is_read_back(course, monkeypatch):
    assert printed(prepared(course)) == "2\n"
    monkeypatch.setattr(executed, "run", lambda notebook, folder: pytest.fail("run again"))
    assert printed(prepared(course)) == "2\n"


def test_new_words_are_shown_without_running_anything_and_new_code_is_run(course, runs):
    prepared(course)
    path = course / "notebooks" / "one.ipynb"
    path.write_text(path.read_text().replace("# One", "# Two"))
    page = prepared(course)
    assert page.cells[0].source == "# Two" and printed(page) == "run 1\n"
    path.write_text(path.read_text().replace("1 + 1", "1 + 2"))
    assert printed(prepared(course)) == "run 2\n" and runs == ["print(1 + 1)", "print(1 + 2)"]


def test_another_library_runs_everything_anew(course, runs, monkeypatch):
    prepared(course)
    monkeypatch.setattr(executed, "state_of_library", lambda: "another")
    assert printed(prepared(course)) == "run 2\n"
    assert [path.name for path in (course / "cache").iterdir()] == ["another"]


def test_the_librarys_state_follows_its_code_and_the_quick_pass(monkeypatch, tmp_path):
    (tmp_path / "fedecouple_lite").mkdir()
    code = tmp_path / "fedecouple_lite" / "engine.py"
    code.write_text("a = 1\n")
    monkeypatch.setattr(executed, "ROOT", tmp_path)
    monkeypatch.delenv("FEDECOUPLE_FAST", raising=False)
    before = executed.state_of_library()
    assert executed.state_of_library() == before
    monkeypatch.setenv("FEDECOUPLE_FAST", "1")
    quick = executed.state_of_library()
    code.write_text("a = 2\n")
    assert len({before, quick, executed.state_of_library()}) == 3


def test_given_outputs_are_taken_and_nothing_is_run(course, runs):
    given = course / "given"
    given.mkdir()
    assert prepared(course, str(given)).cells[1].outputs == []
    notebook = nbformat.read(course / "notebooks" / "one.ipynb", as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="given\n")]
    nbformat.write(notebook, given / "one.ipynb")
    assert printed(prepared(course, str(given))) == "given\n" and runs == []
    notebook.cells[1].source = "print(3)"
    nbformat.write(notebook, given / "one.ipynb")
    with pytest.raises(ValueError, match=r"one\.ipynb was run with other code"):
        prepared(course, str(given))
    with pytest.raises(ValueError, match="is no folder"):
        prepared(course, str(course / "nowhere"))


def test_a_page_whose_notebook_is_gone_goes_and_one_that_is_the_same_keeps_its_date(course, runs):
    prepared(course)
    page = course / "pages" / "one.ipynb"
    before = page.stat().st_mtime_ns
    prepared(course)
    assert page.stat().st_mtime_ns == before
    (course / "notebooks" / "one.ipynb").rename(course / "notebooks" / "two.ipynb")
    executed.prepare(course / "notebooks", course / "pages", course / "cache", None)
    assert [path.name for path in (course / "pages").glob("*.ipynb")] == ["two.ipynb"]


def test_a_run_shows_figures_where_matplotlib_is_told_to_draw_none(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")  # as the Makefile does
    source = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    executed.run(notebook, tmp_path)
    assert ["image/png" in output.get("data", {}) for output in notebook.cells[0].outputs] == [True]


def test_verdicts_and_set_up_are_folded_and_the_badge_is_off():
    opening = "# One\n\n[![Open in Colab](https://x/badge.svg)](https://x)\n\nWords."
    sources = ("# Set-up, the same", "# @title Verdict\nprint(1)", "print(2)")
    cells = [nbformat.v4.new_markdown_cell(opening), *map(nbformat.v4.new_code_cell, sources)]
    page = executed.for_readers(nbformat.v4.new_notebook(cells=cells))
    assert "Colab" not in page.cells[0].source and "Words." in page.cells[0].source
    assert [cell.metadata.get("tags") for cell in page.cells[1:]] == [["hide-input"], ["hide-cell"], None]


def rendered(text, function):
    lines = text.split("\n")
    docstrings.readable(None, "function", "f", function, None, lines)
    return "\n".join(lines)


def test_a_docstring_is_prose_with_code_in_backticks():
    def f(alpha, lam, kept_):
        pass

    text = rendered("Of `x_` and *not* |this|; kept_ and `two\nlines`.\n\nalpha: a. lam, kept_: b. other: c.", f)
    assert "``x_``" in text and r"\*not\*" in text and r"\|this\|" in text and r"kept\_ and" in text
    assert "``two lines``" in text
    assert "``alpha``: a. lam," in text and "other: c" in text and "``other``" not in text


def test_examples_stay_as_they_are():
    def f(x):
        pass

    text = rendered("One.\n\nExamples\n--------\n>>> f(x=2)  # `a` * |b|\n{'x': 2}", f)
    assert ".. rubric:: Examples\n\n>>> f(x=2)  # `a` * |b|\n{'x': 2}" in text


def test_links_are_mended_for_the_site():
    text = "[a](CHANGELOG.md) [b](tests/mutants.md) [c](notebooks/03_anchors.ipynb) [d](docs/howto.md)"
    here = mend.mended(text, mend.ROOT, mend.DOCS)
    assert here == "[a](changelog.md) [b](path:../tests/mutants.md) [c](course/03_anchors.ipynb) [d](howto.md)"
    untouched = "[e](https://x) [f](#g)"
    assert mend.mended(untouched, mend.ROOT, mend.DOCS) == untouched
    below = mend.mended("[a](../../CHANGELOG.md) [h](own_net.md)", mend.DOCS / "howto", mend.DOCS / "howto")
    assert below == "[a](../changelog.md) [h](own_net.md)"


def test_every_module_is_on_one_floor(monkeypatch, tmp_path):
    placed = [module for names in reference.FLOORS.values() for module in reference.on_floor(names)]
    assert len(placed) == len(set(placed)) and {*placed, "__main__"} == set(reference.modules())
    monkeypatch.setattr(reference, "modules", lambda: [*placed, "__main__", "cellar"])
    with pytest.raises(ValueError, match="no place for cellar"):
        reference.write_pages(tmp_path / "api")


def test_the_command_lines_page_has_every_command(tmp_path):
    text = reference.command_line()
    for name in ("demo", "run", "compare", "benchmark", "fetch", "coursework", "grade", "feedback"):
        assert f"## {name}\n" in text and f"python -m fedecouple_lite {name}" in text
