"""What the project's own files promise."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import address
import pytest

import fedecouple_lite
from fedecouple_lite import METHODS, make

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()

# Other people's projects that are named here. Whoever adds one has looked at it.
CITED = {"jupyter/nbgrader"}
# What stands between the host and owner/name, where such an address leads to somebody's repository.
HOSTS = r"(?:github\.com|githubusercontent\.com|gitlab\.com|colab\.research\.google\.com/github|mybinder\.org/v2/gh)/"
REPOSITORY = re.compile(HOSTS + r"([A-Za-z0-9-]+/[A-Za-z0-9._-]*[A-Za-z0-9_-])")
PAGES = re.compile(r"\b[A-Za-z0-9-]+\.github\.io\b")
# pip and git: only what is configured is installed, as the set-up cell does.
FROM_GIT = re.compile(r"git\+(?!https://github\.com/\{)\w+://")


def test_readme_code_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(METHODS, "lazy", None)  # put back afterwards
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        assert len(block.splitlines()) <= 20
        exec(compile(block.replace("rounds=10", "rounds=1"), "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("1 0.")
    assert make("lazy", slowness=3).slowness == 3
    with pytest.raises(ValueError, match="slowness=0 of Lazy must be a number >= 1"):
        make("lazy", slowness=0)


def test_files_that_the_readme_names_exist():
    for name in re.findall(r"\]\(((?!http)[^)#]+)", README):
        assert (ROOT / name).exists(), name


def test_dependencies_are_floors_and_environment_yml_repeats_none():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        assert re.fullmatch(r"[a-z-]+>=[\d.]+(,<9)?", line), line
    assert re.findall(r"- -e (.*)", (ROOT / "environment.yml").read_text()) == [".[umap,lab,security]"]


def texts():
    """Path -> text of every file of the project, also of those not yet added to it."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git here: the project's files are not listed")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout.splitlines()
    for name in names:
        path = ROOT / name
        if path.is_file() and path.suffix not in (".png", ".npz", ".gz"):
            yield name, path.read_text(encoding="utf-8")


def unowned(text, own=""):
    """Addresses in a text that lead to somebody's code and are neither `own`, owner/name, nor cited."""
    known = CITED | {own}
    found = [name for name in REPOSITORY.findall(text) if name.removesuffix(".git") not in known]
    return found + PAGES.findall(text) + FROM_GIT.findall(text)


def test_no_address_is_named_that_nobody_of_us_owns():
    """Whoever registers a name that we give away runs their code on our readers' machines."""
    own = address.address(ROOT)
    found = {name: unowned(text, own) for name, text in texts()}
    assert [(name, addresses) for name, addresses in found.items() if addresses] == []


def test_an_address_that_nobody_owns_is_found():
    hub = "https://" + "github.com"
    for wrong in (
        f"see {hub}/stranger/course",
        f"({hub}/stranger/course.git)",
        "git" + f"+{hub}/ada/course",
        "https://raw.githubusercontent.com" + "/stranger/course/main/x.svg",
        "https://colab.research.google.com" + "/github/stranger/course/blob/main/a.ipynb",
        "https://stranger." + "github.io/course",
    ):
        assert unowned(wrong, own="ada/course"), wrong
    for right in (f"{hub}/ada/course/issues", f"{hub}/jupyter/nbgrader.", 'f"git' + f'+{hub}/{{REPO}}"', hub):
        assert not unowned(right, own="ada/course"), right


def test_the_address_is_the_same_everywhere(tmp_path):
    """Writing it once more changes nothing."""
    for name in ("notebooks", "README.md", "CITATION.cff"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    assert address.write_address(tmp_path, address.address(ROOT)) == []


def test_the_version_is_stated_once_and_repeated_by_pyproject_citation_and_changelog():
    version = fedecouple_lite.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == version  # Flower reads no version that is found out
    assert re.findall(r"(?m)^version: (.+)$", (ROOT / "CITATION.cff").read_text()) == [version]
    headings = re.findall(r"(?m)^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text())
    released = headings[1:] if headings[0] == "Unreleased" else headings
    assert released[0] == version and "Unreleased" not in released


def test_every_package_is_listed_for_the_wheel():
    """And the measured tables, which lie elsewhere in a checkout."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "fedecouple_lite").rglob("__init__.py")}
    packages = {".".join(folder.parts) for folder in folders}
    assert set(listed) == packages | {"fedecouple_lite.results"} and len(listed) == len(set(listed))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_carry_no_outputs_and_the_same_set_up_cell(path):
    cells = json.loads(path.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert all(not c["outputs"] and c["execution_count"] is None for c in code)
    first = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text())["cells"][1]
    assert cells[1]["source"] == first["source"] and "Set-up" in "".join(first["source"])
    assert 25 <= len(cells) <= 60  # a verdict on each prediction has a cell of its own
    assert all(sum(bool(line.strip()) for line in c["source"]) <= 20 for c in code)
    opening = "".join(cells[0]["source"])
    for promise in ("You will be able to", "You need to know", "Time"):
        assert promise in opening
    closing = "".join(cells[-1]["source"])
    papers = closing.partition("## Further reading\n")[2].partition("**Next:**")[0]
    assert len(re.findall(r"(?m)^- .*\*.+", papers)) == 3, "three papers, their titles in italics"
