"""The set-up cell: where it looks, what it installs, and what it says where there is nothing."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import lessons, read
from packages import ROOT, copy_content

SET_UP = "".join(read(lessons(ROOT)[0])["cells"][1]["source"])
ORIGIN = 'print(importlib.util.find_spec("fedecouple_lite").origin)'  # after the cell: where the package is


def run(colab, folder, source=SET_UP, **variables):
    """Run the cell in a folder, as a script, and return the finished process; it prints where the package is."""
    command = [colab.python, "-c", f"{source}\n{ORIGIN}"]
    return subprocess.run(command, cwd=folder, env=colab.env | variables, text=True, capture_output=True)


def assert_installed(colab, said):
    """From where it lay into the environment, and without a word."""
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == str(colab.site / "fedecouple_lite" / "__init__.py")
    assert (colab.site / "fedecouple_lite" / "results" / "benchmark" / "small.csv").is_file()


def put_wheel(bundle, folder):
    """The bundle's wheel into a folder."""
    with zipfile.ZipFile(bundle) as archive:
        (wheel,) = [name for name in archive.namelist() if name.endswith(".whl")]
        archive.extract(wheel, folder)
    return folder / wheel


@pytest.fixture
def here(tmp_path):
    """Where the notebook lies."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    return folder


def test_without_anything_it_says_what_to_do_in_three_lines_and_no_further_cell_runs(colab, here, monkeypatch):
    for name, value in colab.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FEDECOUPLE_REPO", raising=False)
    cells = [new_code_cell(SET_UP), new_code_cell("print('reached')")]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    with pytest.raises(CellExecutionError):
        NotebookClient(notebook, timeout=60, resources={"metadata": {"path": here}}).execute()
    (output,) = notebook.cells[0].outputs
    assert (output.output_type, output.name) == ("stream", "stderr")  # words, and no traceback
    lines = output.text.splitlines()
    assert len(lines) == 3 and all(len(line) <= 110 for line in lines)
    assert "fedecouple-lite-course.zip" in lines[0] and "FEDECOUPLE_REPO" in lines[1]
    assert not notebook.cells[1].outputs
    assert not list(colab.site.glob("fedecouple*"))


def test_where_the_package_is_nothing_is_installed(colab, here, bundle):
    put_wheel(bundle, here)
    mine = here / "fedecouple_lite"
    mine.mkdir()
    (mine / "__init__.py").write_text("")
    said = run(colab, here)
    assert said.returncode == 0 and Path(said.stdout.strip()) == mine / "__init__.py"
    assert not list(colab.site.glob("fedecouple*"))


@pytest.mark.parametrize("name", ["fedecouple-lite-course.zip", "fedecouple-lite-course (1).zip"])
def test_a_bundle_beside_the_notebook(colab, here, bundle, name):
    shutil.copy(bundle, here / name)
    assert_installed(colab, run(colab, here))


def test_a_wheel_alone(colab, here, bundle):
    put_wheel(bundle, here)
    assert_installed(colab, run(colab, here))


def test_an_unpacked_bundle(colab, tmp_path, bundle):
    shutil.unpack_archive(bundle, tmp_path)
    assert_installed(colab, run(colab, tmp_path / "notebooks"))


@pytest.mark.parametrize("place", ["beside", "parent"])
def test_a_checkout(colab, here, place):
    """Any name will do. setuptools comes from the environment: there is no network."""
    copy_content(here / "my-clone" if place == "beside" else here.parent)
    assert_installed(colab, run(colab, here, PIP_NO_BUILD_ISOLATION="0"))


@pytest.mark.parametrize("place", ["content", "content/drive/MyDrive"])
def test_a_bundle_in_colabs_files_or_in_drive(colab, tmp_path, bundle, place):
    (tmp_path / place).mkdir(parents=True)
    shutil.copy(bundle, tmp_path / place)
    source = SET_UP.replace('"/content', f'"{tmp_path}/content')
    assert source.count(f'"{tmp_path}/content') == 2
    elsewhere = tmp_path / "some" / "where"
    elsewhere.mkdir(parents=True)
    assert_installed(colab, run(colab, elsewhere, source))


def test_other_files_of_a_like_name_are_left_alone(colab, here, bundle):
    for name in ("fedecouple-lite-notes.txt", "fedecouple-lite-00_start_here.ipynb", "federated.zip"):
        (here / name).write_text("mine")
    (here / "another").mkdir()
    (here / "another" / "pyproject.toml").write_text("[project]\nname = 'another'\nversion = '1'\n")
    said = run(colab, here)
    assert said.returncode != 0 and "the package is missing" in said.stderr
    shutil.copy(bundle, here)
    assert_installed(colab, run(colab, here))


def test_an_address_for_pip(colab, here, tmp_path, bundle):
    wheel = put_wheel(bundle, tmp_path / "far" / "away")
    assert_installed(colab, run(colab, here, FEDECOUPLE_REPO=wheel.as_uri()))


def test_owner_and_name_are_a_repository_on_github(colab, here, tmp_path):
    """git takes what it would get from GitHub from a folder."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    repository = tmp_path / "hub" / "ada" / "course"
    copy_content(repository)
    env = colab.env | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "all")):
        subprocess.run(["git", *who, *command], cwd=repository, env=env, check=True)
    instead = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": "https://github.com/"}
    instead["GIT_CONFIG_KEY_0"] = f"url.{(tmp_path / 'hub').as_uri()}/.insteadOf"
    variables = {"FEDECOUPLE_REPO": "ada/course", "PIP_NO_BUILD_ISOLATION": "0", **instead}
    assert_installed(colab, run(colab, here, **variables))


def test_what_lies_there_is_preferred_to_an_address(colab, here, bundle):
    put_wheel(bundle, here)
    assert_installed(colab, run(colab, here, FEDECOUPLE_REPO="nobody/nothing"))
