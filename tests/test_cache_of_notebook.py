"""Where notebook 07 keeps finished runs: a folder of one's own, never one that all users share."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]


def lines_that_name_the_cache() -> str:
    """The notebook's own lines: the import and the assignment, and no other."""
    notebook = nbformat.read(ROOT / "notebooks" / "07_ablations.ipynb", as_version=4)
    lines = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for node in ast.parse(cell.source).body:
            line = ast.unparse(node)
            if line.startswith("CACHE = ") or line in ("from pathlib import Path", "import platformdirs"):
                lines.append(line)
    assert sum(line.startswith("CACHE = ") for line in lines) == 1
    return "\n".join(lines)


def cache_of(home: Path, **variables: str) -> Path:
    """The notebook's cache for the user with this home folder."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    env |= {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home / "AppData")} | variables
    code = lines_that_name_the_cache() + "\nprint(CACHE)"
    said = subprocess.run([sys.executable, "-c", code], env=env, cwd=home, capture_output=True, text=True, check=True)
    return Path(said.stdout.strip())


@pytest.mark.skipif(os.name == "nt", reason="Windows asks the system, not the environment, for the user's folder")
def test_two_users_do_not_meet_and_each_may_write(tmp_path):
    homes = [tmp_path / name for name in ("ada", "bob")]
    for home in homes:
        home.mkdir()
    caches = [cache_of(home) for home in homes]
    for home, cache in zip(homes, caches, strict=True):
        assert cache.is_relative_to(home) and cache.is_absolute()
        cache.mkdir(parents=True)  # no folder on the way belongs to somebody else
    assert caches[0] != caches[1]


def test_the_systems_temporary_folder_is_not_asked(tmp_path):
    home, shared = tmp_path / "ada", tmp_path / "tmp"
    home.mkdir()
    shared.mkdir()
    assert not cache_of(home, TMPDIR=str(shared), TEMP=str(shared)).is_relative_to(shared)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert "gettempdir" not in path.read_text(), path
