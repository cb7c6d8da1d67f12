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
