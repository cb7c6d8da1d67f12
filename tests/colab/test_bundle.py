"""What the bundle and the packages hold, and what they do not."""

import base64
import io
import json
import re
import subprocess
import tarfile
import zipfile
from pathlib import PurePosixPath

import pytest
from bundle import NAME, make_bundle
from environments import empty_environment, site_packages
from matplotlib import colors, image
from notebook_files import lessons, read
from packages import ROOT, build
from pictures import png

import fedecouple_lite

WHEEL = f"fedecouple_lite-{fedecouple_lite.__version__}-py3-none-any.whl"
DRAWING = re.compile(r"!\[[^\]]+\]\(data:image/png;base64,([^)]+)\)")


@pytest.fixture(scope="module")
def files(bundle):
    """Name -> content."""
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def in_wheel(files):
    """Name -> content, of the bundle's wheel."""
    with zipfile.ZipFile(io.BytesIO(files[WHEEL])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_holds_the_wheel_the_notebooks_and_a_word_on_how_to_use_it(bundle, files):
    assert bundle.name == NAME == "fedecouple-lite-course.zip"
    notebooks = {f"notebooks/{path.name}" for path in lessons(ROOT)}
    assert set(files) == {"README.txt", "pyproject.toml", "take_wheel.py", WHEEL} | notebooks
    assert all(len(line) <= 120 for line in files["README.txt"].decode().splitlines())
    assert bundle.stat().st_size < 2e6


def test_the_same_content_gives_the_same_bytes(bundle, tmp_path):
    assert make_bundle(tmp_path).read_bytes() == bundle.read_bytes()


def test_its_notebooks_are_the_courses_with_the_drawings_in_them(files):
    drawings = 0
    for path in lessons(ROOT):
        inside, stored = json.loads(files[f"notebooks/{path.name}"]), read(path)
        for cell, original in zip(inside["cells"], stored["cells"], strict=True):
            text, original_text = "".join(cell["source"]), "".join(original["source"])
            names = re.findall(r"\(drawings/(\w+\.svg)\)", original_text)
            shown = [base64.b64decode(picture) for picture in DRAWING.findall(text)]
            assert shown == [png((path.parent / "drawings" / name).read_text()) for name in names]
            drawings += len(names)
            plain = re.sub(r"data:image/png;base64,[^)]+", "picture", text)
            assert plain == re.sub(r"drawings/\w+\.svg", "picture", original_text)
            assert {**cell, "source": ""} == {**original, "source": ""}
            assert not cell.get("outputs") and cell.get("execution_count") is None
    assert drawings >= 9


def test_the_package_in_it_has_every_module_and_every_measured_table(in_wheel):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fedecouple_lite").rglob("*.py")}
    results = ROOT / "data" / "results"
    tables = [path for path in results.rglob("*") if path.suffix in (".csv", ".json")]
    stored = {f"fedecouple_lite/results/{path.relative_to(results).as_posix()}" for path in tables}
    packaged = {name for name in in_wheel if name.startswith("fedecouple_lite/")}
    assert packaged == modules | stored | {"fedecouple_lite/py.typed"}
    for path in tables:
        assert in_wheel[f"fedecouple_lite/results/{path.relative_to(results).as_posix()}"] == path.read_bytes()


def test_there_is_nothing_in_it_of_the_machine_that_made_it(files, in_wheel):
    for name, content in {**files, **in_wheel}.items():
        parts = PurePosixPath(name).parts
        assert not {"tests", ".git", "__pycache__", "runs", "build"} & set(parts), name
        assert str(ROOT).encode() not in content, name
        if name != WHEEL:
            assert not re.search(rb"(/home|/root|/Users|/tmp)/\w", content), name


def test_pip_installs_it_as_it_is(bundle, tmp_path):
    """Into an empty environment, offline: nothing is built."""
    python = empty_environment(tmp_path / "environment")
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", bundle]
    subprocess.run(command, check=True, cwd=tmp_path)
    package = site_packages(tmp_path / "environment") / "fedecouple_lite"
    assert (package / "__init__.py").is_file() and (package / "results" / "digits.csv").is_file()


def test_the_sdist_has_what_its_wheel_is_built_from(tmp_path, in_wheel):
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix() for name in archive.getnames()}
    wanted = set()
    for name in in_wheel:
        if name.startswith("fedecouple_lite/"):
            wanted.add(name.replace("fedecouple_lite/results/", "data/results/"))
    assert wanted | {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests", "notebooks", "benchmarks", "docs"))]


def test_a_kind_of_package_that_there_is_not(tmp_path):
    with pytest.raises(ValueError, match=r"kind='egg' must be one of wheel, sdist"):
        build("egg", tmp_path)


def test_a_drawing_as_a_picture_has_its_size_its_colours_and_its_words():
    svg = (ROOT / "notebooks" / "drawings" / "alone.svg").read_text()
    pixels = image.imread(io.BytesIO(png(svg)))  # (height, width, RGBA), from 0 to 1
    assert pixels.shape == (450, 1020, 4)
    extractor, nothing = pixels[180, 285], pixels[400, 20]  # by the places in the file, one and a half pixels a unit
    assert colors.to_hex(extractor).upper() == "#56B4E9" and colors.to_hex(nothing) == "#ffffff"
    caption = pixels[420:445, :, :3]
    assert (caption.min(axis=2) < 0.3).sum() > 500, "no letters"


def test_a_drawing_with_an_element_that_no_picture_can_show():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle r="1"/></svg>'
    with pytest.raises(ValueError, match="element='circle' is none that can be drawn; choose from rect, text"):
        png(svg)
