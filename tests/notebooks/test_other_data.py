"""The notebooks that offer other data sets run on every one of them: the same cells, one word changed, no network."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from fedecouple_lite.course.lessons import LESSONS

ROOT = Path(__file__).resolve().parents[2]
OFFERS = [
    ("01_heterogeneous_clients", ("mnist", "fashion_mnist", "cifar10")),
    ("03_anchors", ("fashion_mnist", "cifar10")),
    ("05_fedecouple", ("fashion_mnist", "cifar10")),
    ("07_ablations", ("fashion_mnist", "cifar10")),
]
CASES = [(name, dataset) for name, datasets in OFFERS for dataset in datasets]


@pytest.mark.parametrize(("name", "dataset"), CASES)
def test_a_notebook_runs_on_every_data_set_that_it_offers(real_images, monkeypatch, tmp_path, name, dataset):
    monkeypatch.setenv("FEDECOUPLE_DATA", str(real_images))
    monkeypatch.setenv("FEDECOUPLE_FAST", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # notebook 07 keeps its runs there
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    changed = 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and 'DATASET = "digits"' in cell.source:
            for other in LESSONS.keys() - {"digits"}:
                assert (f'"{other}"' in cell.source) == (other in dict(OFFERS)[name]), f"{name} offers {other}?"
            cell.source = cell.source.replace('DATASET = "digits"', f'DATASET = "{dataset}"')
            changed += 1
    assert changed == 1
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": ROOT / "notebooks"}}).execute()
