"""Where the project lives: written everywhere from one word, and taken away to the byte."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import address
import pytest

ROOT = Path(__file__).resolve().parents[1]
REPO = "ada-lab/personal.federated_course"
README = "# A course\n\n<!-- badge --><!-- /badge -->\n\nWords.\n"


@pytest.fixture
def checkout(tmp_path):
    """The files that may say an address, without one."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns("drawings", "app", ".*"))
    shutil.copy(ROOT / "CITATION.cff", root)
    (root / "README.md").write_text(README)
    address.write_address(root, "")
    return root


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def source(path, number):
    return "".join(json.loads(path.read_text())["cells"][number]["source"])


def test_it_stands_in_every_place(checkout):
    address.write_address(checkout, REPO)
    notebooks = sorted((checkout / "notebooks").glob("*.ipynb"))
    assert len(notebooks) >= 9
    for path in notebooks:
        title, blank, badge, below, *_ = source(path, 0).split("\n")
        assert title.startswith("# ") and blank == below == ""
        opened = f"https://colab.research.google.com/github/{REPO}/blob/main/notebooks/{path.name}"
        assert re.fullmatch(r"\[!\[Open in Colab\]\(\S+/colab-badge\.svg\)\]\((\S+)\)", badge)[1] == opened
        assert f'REPO = os.environ.get("FEDECOUPLE_REPO", "{REPO}")\n' in source(path, 1)
    of_readme = address.badge(REPO, "00_start_here.ipynb")
    assert (checkout / "README.md").read_text() == README.replace("--><!--", f"-->{of_readme}<!--")
    assert f'\nrepository-code: "https://github.com/{REPO}"\n' in (checkout / "CITATION.cff").read_text()


def test_the_set_up_cell_installs_from_it_unless_the_variable_says_otherwise(checkout, monkeypatch):
    address.write_address(checkout, REPO)
    lines = source(checkout / "notebooks" / "00_start_here.ipynb", 1).split("\n")
    (line,) = [line for line in lines if line.startswith("REPO =")]
    for variable, expected in ((None, REPO), ("ada/other", "ada/other")):
        monkeypatch.delenv("FEDECOUPLE_REPO", raising=False)
        if variable:
            monkeypatch.setenv("FEDECOUPLE_REPO", variable)
        names = {}
        exec("import os\n" + line, names)
        assert names["REPO"] == expected


def test_it_is_taken_away_to_the_byte(checkout):
    before = contents(checkout)
    assert address.write_address(checkout, "") == []
    changed = {path.relative_to(checkout).as_posix() for path in address.write_address(checkout, REPO)}
    written = contents(checkout)
    assert {name for name in before if written[name] != before[name]} == changed
    assert len(changed) >= 9 + 2
    address.write_address(checkout, "")
    assert contents(checkout) == before


def test_written_twice_it_stands_there_once_and_another_takes_its_place(checkout):
    address.write_address(checkout, REPO)
    once = contents(checkout)
    assert address.write_address(checkout, REPO) == [] and contents(checkout) == once
    address.write_address(checkout, "bob/fork")
    address.write_address(checkout, REPO)
    assert contents(checkout) == once


def test_a_readme_without_a_mark_stays_as_it_is(checkout):
    (checkout / "README.md").write_text("# A course\n")
    address.write_address(checkout, REPO)
    assert (checkout / "README.md").read_text() == "# A course\n"


@pytest.mark.parametrize(
    "repo",
    [
        "ada",
        "ada/",
        "/course",
        "ada/course/more",
        "-ada/course",
        "ada-/course",
        "a--da/course",
        "ada/..",
        "ada/course.git",
        "ada/cou rse",
        'ada/course"',
        "ada/course\n",
        "https://example.org/ada/course",
        f"{'a' * 40}/course",
        "ada/" + "c" * 101,
    ],
)
def test_what_is_no_repository_is_refused_before_any_work(checkout, repo):
    before = contents(checkout)
    with pytest.raises(ValueError, match=r"REPO=.* must be owner/name of a repository on GitHub, or empty for none"):
        address.write_address(checkout, repo)
    assert contents(checkout) == before


def test_on_the_command_line_a_bad_name_is_one_line_and_exit_code_2():
    command = [sys.executable, ROOT / ".ci" / "address.py", "nobody"]
    said = subprocess.run(command, text=True, capture_output=True)
    assert said.returncode == 2 and said.stdout == ""
    assert said.stderr == "REPO='nobody' must be owner/name of a repository on GitHub, or empty for none\n"
