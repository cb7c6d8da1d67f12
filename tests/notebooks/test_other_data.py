"""The notebooks that offer other data sets run on every one of them: the same cells, one word changed, no network.

Where a notebook asserts a claim the sizes are its own; a data set on which it only reports what it finds gets fewer
images. One data set of each is left to the browser's tests, where there is a browser.
"""

from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from browser.lab import CHROMIUM
from nbclient import NotebookClient
from other_data import IN_BROWSER, OFFERS, claims_are_measured, on_other_data

ROOT = Path(__file__).resolve().parents[2]
BROWSER = CHROMIUM is not None and find_spec("playwright") is not None
CASES = []
for notebook_name, datasets in OFFERS.items():
    for of_notebook in datasets:
        if not (BROWSER and IN_BROWSER[notebook_name] == of_notebook):
            CASES.append((notebook_name, of_notebook))


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
