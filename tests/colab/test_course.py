"""All notebooks of the course as on Colab, each as if alone: a folder with the bundle and one notebook, whose set-up
cell installs the package. This is nbval's run of the course, the only one: `make colab`."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from notebook_files import lessons
from packages import ROOT

BEFORE = """import importlib.util
import sys

assert "google.colab" in sys.modules
assert importlib.util.find_spec("fedecouple_lite") is None"""

AFTER = """import shutil
from pathlib import Path

import ipywidgets

import fedecouple_lite
from fedecouple_lite.studies.tables import stored_file

assert ipywidgets.__version__ == "7.7.1"
package = Path(fedecouple_lite.__file__).parent
assert package.parent == Path({site!r}), package
assert stored_file("digits.csv").parent == package / "results"
for path in package.parent.glob("fedecouple_lite*"):  # for the next notebook
    shutil.rmtree(path)"""


def prepare(bundle: Path, name: str, folder: Path, site: Path) -> Path:
    """A folder with the bundle and one of its notebooks, with a cell before that looks for the package and finds none,
    and one behind that says where everything came from."""
    folder.mkdir()
    shutil.copy(bundle, folder)
    with zipfile.ZipFile(bundle) as archive:
        notebook = nbformat.reads(archive.read(f"notebooks/{name}").decode(), as_version=4)
    notebook.cells.insert(0, new_code_cell(BEFORE))
    notebook.cells.append(new_code_cell(AFTER.format(site=str(site))))
    path = folder / name
    nbformat.write(notebook, path)
    return path


# The longest first, by the size of their text: a core would wait for the last one.
NOTEBOOKS = [path.name for path in sorted(lessons(ROOT), key=lambda path: -path.stat().st_size)]


def test_the_course_has_its_notebooks():
    assert len(NOTEBOOKS) >= 9


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_the_bundle_alone(colab, bundle, tmp_path, name):
    path = prepare(bundle, name, tmp_path / "here", colab.site)
    command = [sys.executable, "-m", "pytest", "-p", "nbval.plugin", "--nbval-lax", "--nbval-cell-timeout=300"]
    command += ["-p", "no:cacheprovider", "--rootdir", tmp_path, path]
    no_other_plugin = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # they take longer to load than some notebooks to run
    said = subprocess.run(command, cwd=tmp_path, env=colab.env | no_other_plugin, text=True, capture_output=True)
    assert said.returncode == 0, said.stdout + said.stderr
