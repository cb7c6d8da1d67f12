"""Small real data for every test: some digits, four clients, a tiny net."""

import os
import sys
from pathlib import Path

import pytest
import torch

from fedecouple_lite import from_arrays, load, net_for, split
from fedecouple_lite.client import LocalData

# Side by side in processes (pytest -n) each has one core; alone a second one shows what threads may break.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def _shared() -> Path | None:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    given = os.environ.get("FEDECOUPLE_DATA")
    return Path(given) if given else beside if beside.exists() else None


@pytest.fixture(autouse=True)
def close_figures():
    """pyplot keeps every figure until it is closed, and warns at twenty."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def real_images():
    """The folder of real image sets, where there is one."""
    folder = _shared()
    if folder is None or not (folder / "cifar10.npz").exists():
        pytest.skip("no real image sets here (FEDECOUPLE_DATA)")
    return folder


@pytest.fixture(scope="session")
def digits():
    return load("digits")


@pytest.fixture(scope="session")
def few(digits):
    """160 digits."""
    x, y = digits.x[:160, 0].numpy(), digits.y[:160].numpy()
    return from_arrays("few", x, y, x[:0], y[:0], range(10))


@pytest.fixture(scope="session")
def net():
    return net_for((1, 8, 8), 10)


@pytest.fixture
def federation(few):
    return split(few, clients=4, partition="dirichlet", seed=1, alpha=0.5)


@pytest.fixture
def local(few):
    """One client's 12 images of classes 0 to 9 and its batches of 5, in order."""
    x, y = few.images(torch.arange(12)), few.y[:12]
    return LocalData(x, y, lambda epochs: [i for _ in range(epochs) for i in torch.arange(12).split(5)])


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site, for all tests of it."""
    pytest.importorskip("sphinx_book_theme", reason="no Sphinx here: pip install -e .[docs,coursework]")
    from site_build import build_site

    if "PYTEST_XDIST_WORKER" not in os.environ:
        return build_site(tmp_path_factory.mktemp("site"))
    from filelock import FileLock

    folder = tmp_path_factory.getbasetemp().parent / "site"  # of all processes: who comes first builds it
    with FileLock(f"{folder}.lock"):
        return folder / "html" if (folder / "html").exists() else build_site(folder)
