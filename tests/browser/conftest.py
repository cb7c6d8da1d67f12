"""One Chromium for all tests here. They skip where playwright or Chromium is missing; CHROMIUM may name one."""

import pytest
from browser.lab import CHROMIUM, lab_in


@pytest.fixture(scope="session")
def browser():
    tool = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install -e .[browser]")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install one, or set CHROMIUM to its path")
    with tool.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def jupyter_lab():
    """A function from a folder to a context in which JupyterLab serves it."""
    return lab_in


@pytest.hookimpl(optionalhook=True)  # known only where xdist is installed
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadscope` the tests of a file, which share a server and its pages, stay in one process; notebooks
    of the course, each a test of its own, go to whichever process is free.

    Not xdist's groups: version 3.8 loses them under pytest 9.2, and every process then starts every server.
    """
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file, _, test = nodeid.partition("::")
            return nodeid if test.startswith("test_a_notebook_runs_from_top_to_bottom") else file

    return ByServer(config, log)
