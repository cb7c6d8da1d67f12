"""The notebooks that offer another data set run on it: the same cells, one parameter changed, no network."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["01_heterogeneous_clients", "03_anchors", "05_fedecouple"])
def test_fashion_mnist(real_images, monkeypatch, name):
    monkeypatch.setenv("FEDECOUPLE_DATA", str(real_images))
    monkeypatch.setenv("FEDECOUPLE_FAST", "1")
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    changed = 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and 'DATASET = "digits"' in cell.source:
            cell.source = cell.source.replace('DATASET = "digits"', 'DATASET = "fashion_mnist"')
            changed += 1
    assert changed == 1
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": ROOT / "notebooks"}}).execute()
