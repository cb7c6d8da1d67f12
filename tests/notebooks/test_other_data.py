"""The notebooks that offer other data sets run on every one of them: the same cells, one word changed, no network.

Where a notebook asserts a claim the sizes are its own; a data set on which it only reports what it finds gets fewer
images. `make datasets` runs these; one data set of each notebook is among the browser's tests, too.
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from other_data import OFFERS, claims_are_measured, on_other_data

ROOT = Path(__file__).resolve().parents[2]
CASES = [(name, dataset) for name, datasets in OFFERS.items() for dataset in datasets]


def test_claims_are_measured_where_the_notebook_says_so():
    notebook = nbformat.read(ROOT / "notebooks" / "05_fedecouple.ipynb", as_version=4)
    assert claims_are_measured(notebook, "fashion_mnist")
    assert not claims_are_measured(notebook, "cifar10")


@pytest.mark.parametrize(("name", "dataset"), CASES)
def test_a_notebook_runs_on_every_data_set_that_it_offers(real_images, monkeypatch, tmp_path, name, dataset):
    monkeypatch.setenv("FEDECOUPLE_DATA", str(real_images))
    monkeypatch.setenv("FEDECOUPLE_FAST", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # notebook 07 keeps its runs there
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    changed = on_other_data(notebook, name, dataset)
    NotebookClient(changed, timeout=300, resources={"metadata": {"path": ROOT / "notebooks"}}).execute()
