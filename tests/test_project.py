"""What the project's own files promise."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from fedecouple_lite import METHODS, make

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_readme_code_runs_the_own_method_in_a_comparison_too(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(METHODS, "lazy", None)  # put back afterwards
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        assert len(block.splitlines()) <= 20
        exec(compile(block.replace("rounds=10", "rounds=1"), "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.startswith("1 0.") and re.search(r"Lazy +\d", out)
    assert make("lazy", slowness=3).slowness == 3
    with pytest.raises(ValueError, match="slowness=0 of Lazy must be a number >= 1"):
        make("lazy", slowness=0)


def test_files_that_the_readme_names_exist():
    for name in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / name).exists(), name


def test_dependencies_are_floors_and_environment_yml_repeats_none():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        assert re.fullmatch(r"[a-z-]+>=[\d.]+(,<9)?", line), line
    assert re.findall(r"- -e (.*)", (ROOT / "environment.yml").read_text()) == [".[umap,lab]"]


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
    for promise in ("You will be able to", "You need to know", "Time", "colab-badge"):
        assert promise in opening
    closing = "".join(cells[-1]["source"])
    papers = closing.partition("## Further reading\n")[2].partition("**Next:**")[0]
    assert len(re.findall(r"(?m)^- .*\*.+", papers)) == 3, "three papers, their titles in italics"
