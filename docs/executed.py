"""The course's notebooks made ready for the site: run, and readable where nothing runs.

A notebook is run once. jupyter-cache keeps what it showed, apart for each state of the library and of the stored
results, so that no page shows what another version printed.
"""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from html import unescape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
SECONDS = 900  # a cell may take, on a slow machine
BADGE = "[![Open in Colab]"


def prepare(source: Path, target: Path, cache: Path, given: str | None) -> None:
    """Write every notebook of `source` into `target`, with outputs, and the drawings that it shows.

    given: a folder of notebooks that were run elsewhere; what is not in it has no outputs, and nothing is run. None
    runs each notebook, or takes it from the cache.
    """
    paths = sorted(source.glob("*.ipynb"))
    cache = cache / state_of_library()
    target.mkdir(parents=True, exist_ok=True)
    for old in set(target.glob("*.ipynb")) - {target / path.name for path in paths}:
        old.unlink()
    shutil.copytree(source / "drawings", target / "drawings", dirs_exist_ok=True, ignore=only_svg)
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        if given is None:
            notebook = run_once(notebook, path, cache)
        elif (Path(given) / path.name).exists():
            notebook = outputs_from(Path(given) / path.name, notebook)
        elif not Path(given).is_dir():
            raise ValueError(f"FEDECOUPLE_EXECUTED={given!r} is no folder")
        write_if_new(nbformat.writes(for_readers(notebook)), target / path.name)


def only_svg(folder: str, names: list[str]) -> list[str]:
    """For copytree: all but drawings."""
    return [name for name in names if not name.endswith(".svg")]


def write_if_new(text: str, path: Path) -> None:
    """Leave a file alone that holds this already: Sphinx reads again what has a new date."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


# --- Running, or taking what was run ---


def state_of_library() -> str:
    """Sixteen hexadecimal digits: the library's code (coursework apart, which no notebook of the course uses), stored
    results, versions, and whether this is the quick pass."""
    content = hashlib.blake2b(digest_size=8)
    code = [path for path in ROOT.glob("fedecouple_lite/**/*.py") if path.parent.name != "coursework"]
    for path in sorted([*code, *ROOT.glob("data/results/**/*.csv")]):
        content.update(str(path.relative_to(ROOT)).encode())
        content.update(path.read_bytes())
    content.update(repr((sys.version_info, version("torch"), os.environ.get("FEDECOUPLE_FAST"))).encode())
    return content.hexdigest()


def run_once(notebook: NotebookNode, path: Path, cache: Path) -> NotebookNode:
    """The notebook with its outputs, from the cache where the same code was run with the same library."""
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    for other in cache.parent.glob("*"):
        if other != cache:  # another state of the library
            shutil.rmtree(other)
    kept = get_cache(cache)
    try:
        _, found = kept.merge_match_into_notebook(notebook)
        return found
    except KeyError:
        print(f"running {path.name} ...", flush=True)
    run(notebook, path.parent)
    kept.cache_notebook_bundle(CacheBundleIn(notebook, str(path)), check_validity=False, overwrite=True)
    return notebook


def run(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells, in this folder; an error in one ends the build."""
    from nbclient import NotebookClient

    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # figures are shown
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3")
    client.resources = {"metadata": {"path": str(folder)}}
    client.record_timing = False  # in a cell's metadata, by which the cache knows it
    client.execute(env=environment)


def outputs_from(path: Path, notebook: NotebookNode) -> NotebookNode:
    """`notebook` with the outputs of the one at `path`, which must have the same code."""
    ran = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.source for cell in ran] != [cell.source for cell in code]:
        raise ValueError(f"{path} was run with other code than the notebook has today: run it again")
    for cell, of_run in zip(code, ran, strict=True):
        cell.outputs = of_run.outputs
        cell.execution_count = of_run.execution_count
    notebook.metadata["widgets"] = nbformat.read(path, as_version=4).metadata.get("widgets", {})
    return notebook


# --- What a reader sees who cannot run it ---


def for_readers(notebook: NotebookNode) -> NotebookNode:
    """The notebook as a page: no badge, set-up and verdicts folded, pictures in place of widgets."""
    opening = notebook.cells[0]
    opening.source = "\n".join(line for line in opening.source.splitlines() if not line.startswith(BADGE))
    widgets = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        first_line = cell.source.partition("\n")[0]
        if first_line.startswith("# Set-up"):
            fold(cell, "hide-input", "the set-up cell")
        elif first_line.startswith("# @title Verdict"):
            fold(cell, "hide-cell", "the verdict")
        elif cell.metadata.get("jupyter", {}).get("source_hidden"):
            fold(cell, "hide-input", "the code")
        outputs = []
        for output in cell.outputs:
            if WIDGET in output.get("data", {}):
                outputs += in_place_of(output.data[WIDGET]["model_id"], widgets)
            else:
                outputs.append(output)
        cell.outputs = outputs
    return notebook


def fold(cell: NotebookNode, tag: str, what: str) -> None:
    """Have the page show `what` only to those who click."""
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), tag]
    cell.metadata["mystnb"] = {"code_prompt_show": f"Show {what}", "code_prompt_hide": f"Hide {what}"}


def in_place_of(model: str, widgets: dict[str, Any]) -> list[NotebookNode]:
    """Outputs for a page: what the widget is, the picture with which it opens, and its line of text."""
    parts = [widgets[name] for name in parts_of(model, widgets)]
    labels = [part["state"].get("description") for part in parts]
    controls = ", ".join(label for label in labels if label)
    note = f"*A widget: it moves where the notebook runs, and opens like this. Its controls: {controls}.*"
    outputs = [nbformat.v4.new_output("display_data", {"text/markdown": note})]
    for part in parts:
        if part["model_name"] == "ImageModel":
            pictures = [buffer["data"] for buffer in part.get("buffers", []) if buffer["data"]]
            outputs += [nbformat.v4.new_output("display_data", {"image/png": picture}) for picture in pictures]
        elif part["model_name"] == "HTMLModel":
            words = plain(part["state"].get("value", ""))
            if words:
                outputs.append(nbformat.v4.new_output("stream", name="stdout", text=words + "\n"))
    return outputs


def plain(html: str) -> str:
    """The words of a widget's line of text."""
    without_style = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]+>", " ", without_style)).strip()


def parts_of(model: str, widgets: dict[str, Any]) -> Iterator[str]:
    """The widget and all inside it, in order."""
    if model not in widgets:
        return
    yield model
    for child in widgets[model]["state"].get("children", []):
        yield from parts_of(child.removeprefix("IPY_MODEL_"), widgets)
