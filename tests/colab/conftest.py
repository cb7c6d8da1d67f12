"""Colab without Colab: an environment that lacks this project and has Colab's ipywidgets, a `google.colab` that is
loaded already, no network, and folders in which lies only what somebody uploads there."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from bundle import make_bundle
from environments import empty_environment, site_packages

WIDGETS = Path(sys.prefix) / "widgets7"  # `make colab` puts ipywidgets 7.7.1 there
GOOGLE_COLAB = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')\n"


@dataclass(frozen=True)
class Colab:
    """python: of the environment; site: where pip installs; env: what its programs and a notebook's client get."""

    python: Path
    site: Path
    env: dict[str, str]

    def forget(self):
        """Take the package away again."""
        for path in self.site.glob("*fedecouple*"):
            shutil.rmtree(path)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def session(tmp_path_factory):
    """One environment for all tests that one process runs."""
    if not WIDGETS.exists():
        pytest.skip("no ipywidgets 7.7.1 here: make colab fetches it")
    home = tmp_path_factory.mktemp("colab")
    python = empty_environment(home / "environment", before=[WIDGETS])
    site = site_packages(home / "environment")
    (site / "google_colab.pth").write_text(GOOGLE_COLAB)  # every Python there begins with it
    kernel = home / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": start, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(about))
    inherited = {}
    for name, value in os.environ.items():
        if not name.startswith(("FEDECOUPLE_", "PYTHONPATH", "PYTEST_", "PIP_")):
            inherited[name] = value
    own = {
        "FEDECOUPLE_FAST": "1",
        "OMP_NUM_THREADS": "1",  # a core for each notebook: they are run side by side
        "JUPYTER_PATH": str(home / "jupyter"),
        "IPYTHONDIR": str(home / "ipython"),
        "XDG_CACHE_HOME": str(home / "cache"),  # notebook 07 keeps its runs there
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    return Colab(python, site, inherited | own)


@pytest.fixture
def colab(session):
    """The environment as Colab has it at first: without the package."""
    session.forget()
    yield session
    session.forget()
