"""The site, built as `make docs` builds it, but from notebooks that were run before, and running none."""

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
EXECUTED = ROOT / "build" / "executed"  # where the browser's tests leave the notebooks that they ran
PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da63fcff1f00030302ef"
        "bf6a9c0000000049454e44ae426082"
    )
).decode()


def build_site(folder):
    """Build it in this folder; returns where the pages are. A warning is an error."""
    given = folder / "executed"
    given.mkdir(parents=True)
    some_outputs(given)
    for path in EXECUTED.glob("*.ipynb"):
        is_as_it_was_run = code_of(path) == code_of(ROOT / "notebooks" / path.name)
        if is_as_it_was_run and not (given / path.name).exists():
            shutil.copy(path, given)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-d", str(folder / "read")]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(folder / "html")],
        env={**os.environ, "FEDECOUPLE_EXECUTED": str(given)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def code_of(path):
    """The code of a notebook's cells; nothing where there is no such notebook."""
    if not path.exists():
        return []
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def some_outputs(folder):
    """Notebook 01 as if it had been run: its first figure with a line of text, and its widget."""
    notebook = nbformat.read(ROOT / "notebooks" / "01_heterogeneous_clients.ipynb", as_version=4)
    output = nbformat.v4.new_output
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    figure = next(cell for cell in code if "plt.show()" in cell.source)
    figure.outputs = [
        output("display_data", {"image/png": PIXEL, "text/plain": "<Figure size 9x9>"}),
        output("stream", name="stdout", text="What the first figure shows.\n"),
    ]
    widget = next(cell for cell in code if "widgets.heterogeneity(data)" in cell.source)
    view = {"model_id": "whole", "version_major": 2, "version_minor": 0}
    widget.outputs = [output("display_data", {"application/vnd.jupyter.widget-view+json": view})]
    parts = {
        "whole": {"model_name": "VBoxModel", "state": {"children": [f"IPY_MODEL_{name}" for name in "abc"]}},
        "a": {"model_name": "FloatSliderModel", "state": {"description": "alpha"}},
        "b": {"model_name": "ImageModel", "state": {}, "buffers": [{"data": PIXEL, "path": ["value"]}]},
        "c": {"model_name": "HTMLModel", "state": {"value": "<b>Sizes</b> &amp; classes."}},
    }
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": parts}}
    nbformat.write(notebook, folder / "01_heterogeneous_clients.ipynb")
