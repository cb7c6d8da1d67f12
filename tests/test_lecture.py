"""The page for a lecture room: three widgets under their heads, larger than in a notebook, and no other than there."""

import io
import json
from pathlib import Path

import nbformat
import platformdirs
import pytest
from PIL import Image

from fedecouple_lite import load
from fedecouple_lite.course.lecture import FINE, ROOM, lecture_room
from fedecouple_lite.course.widgets import DPI, AblationPanel, Picture, TrainingPanel, heterogeneity

APP = Path(__file__).resolve().parents[1] / "notebooks" / "app"


def width(widget):
    """Of the picture that a widget shows, in pixels."""
    with Image.open(io.BytesIO(widget.image.value)) as picture:
        return picture.width


@pytest.fixture
def page(tmp_path):
    return lecture_room(load("digits"), tmp_path)


def test_three_widgets_each_under_its_head(page):
    kinds = [type(child) for child in page.children[2::2]]
    assert kinds == [Picture, TrainingPanel, AblationPanel]
    heads = [child.value for child in page.children[1::2]]
    assert len(heads) == 3 and all("<h2>" in head for head in heads)
    assert ROOM in page._dom_classes


def test_pictures_are_drawn_more_finely_and_are_not_wider(page):
    explorer, training, _ = page.children[2::2]
    as_in_a_notebook = heterogeneity(load("digits"))
    assert width(explorer) * DPI == width(as_in_a_notebook) * FINE
    assert explorer.image.layout.width == as_in_a_notebook.image.layout.width
    training.step()
    assert width(training) == pytest.approx(11.0 * FINE, abs=2)
    assert training.image.layout.width == "880px"


def test_the_studio_shows_its_pictures_as_large_whatever_their_dpi(page):
    studio = page.children[-1]
    studio.setting = studio.setting.__class__(rounds=1, clients=4, per_client=30)
    studio.run()
    studio.wait()
    assert studio.caption.value.startswith("Combinations so far: 1")
    for place in (studio.image, studio.map):
        with Image.open(io.BytesIO(place.value)) as picture:
            shown = int(place.layout.width.removesuffix("px"))
            assert picture.width == pytest.approx(shown * FINE / DPI, abs=2)


def test_runs_are_kept_in_the_users_cache_where_no_folder_is_given(monkeypatch, tmp_path):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    assert lecture_room(load("digits")).children[-1].folder == tmp_path / "fedecouple-lite" / "lecture_room"


def test_the_notebook_is_the_page_and_its_template_is_found():
    notebook = nbformat.read(APP / "lecture_room.ipynb", as_version=4)
    [cell] = notebook.cells
    assert not cell.outputs
    names: dict = {}
    *lines, last = cell.source.splitlines()
    exec("\n".join(lines), names)
    assert ROOM in eval(last, names)._dom_classes
    template = json.loads((APP / "voila.json").read_text())["VoilaConfiguration"]["template"]
    assert (APP / "jupyter" / "voila" / "templates" / template / "index.html.j2").exists()
