"""Every notebook of the course in JupyterLab, in a browser: all cells run, none fails, and all show something."""

import shutil
from pathlib import Path

import nbformat
import pytest
from browser.lab import close_notebook, open_lab, open_notebook, restart, run_all, save
from other_data import IN_BROWSER, on_other_data
from site_build import EXECUTED

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
LONGEST_FIRST = ("05_fedecouple.ipynb", "03_anchors.ipynb", "04_dynamic_distillation.ipynb", "07_ablations.ipynb")


@pytest.fixture(scope="module")
def course(jupyter_lab, browser, tmp_path_factory, request):
    """The folder of notebooks and drawings, and JupyterLab's address. Some notebooks are set to another data set."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns("assignments", "app", ".*"))
    environment = {"FEDECOUPLE_FAST": "1", "XDG_CACHE_HOME": str(home / "cache")}
    environment["OMP_NUM_THREADS"] = "1"  # a core for each notebook: they are run side by side
    try:
        environment["FEDECOUPLE_DATA"] = str(request.getfixturevalue("real_images"))
        for name, dataset in IN_BROWSER.items():
            path = folder / f"{name}.ipynb"
            nbformat.write(on_other_data(nbformat.read(path, as_version=4), name, dataset), path)
    except pytest.skip.Exception:
        pass  # no other images here: all notebooks are run on the digits
    with jupyter_lab(folder, **environment) as address:
        yield folder, address


@pytest.fixture(scope="module")
def page(course, browser):
    """JupyterLab, loaded once: every notebook is opened in it, and closed again."""
    _, address = course
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    open_lab(page, address)
    yield page
    page.close()


@pytest.mark.parametrize("name", sorted(NOTEBOOKS, key=lambda name: name not in LONGEST_FIRST))
def test_a_notebook_runs_from_top_to_bottom(course, page, name):
    folder, _ = course
    failed = []

    def note(error):
        failed.append(str(error))

    page.on("pageerror", note)
    open_notebook(page, name)
    try:
        assert run_all(page), errors_in(page, folder / name)
        save(page)
    finally:
        close_notebook(page)
        page.remove_listener("pageerror", note)
    assert not failed
    EXECUTED.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / name, EXECUTED)  # for the site's test
    notebook = nbformat.read(folder / name, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code if not cell.execution_count] == []
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1


def errors_in(page, path):
    """What the cells of a notebook that failed say."""
    save(page)
    notebook = nbformat.read(path, as_version=4)
    return [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "error"]


def test_a_notebook_runs_again_after_its_kernel_was_restarted(page):
    """Its first cells: names are gone, and come again."""
    open_notebook(page, NOTEBOOKS[0])
    try:
        run_until(page, 3)
        code = "try:\n    print('known', FAST)\nexcept NameError:\n    print('forgotten')"
        assert said(page, code) == "known True"
        restart(page)
        assert said(page, code) == "forgotten"
        run_until(page, 3)
        assert said(page, code) == "known True"
    finally:
        close_notebook(page)


def run_until(page, cell):
    """Run the cells above this one."""
    page.evaluate(
        "async cell => { const app = window.jupyterapp; app.shell.currentWidget.content.activeCellIndex = cell;"
        "await app.commands.execute('notebook:run-all-above'); }",
        cell,
    )


def said(page, code):
    """What code prints in the kernel of the page's notebook."""
    return page.evaluate(
        """async code => {
        const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
        const future = kernel.requestExecute({code});
        let text = '';
        future.onIOPub = message => { if (message.header.msg_type === 'stream') text += message.content.text; };
        await future.done;
        return text.trim();
    }""",
        code,
    )


def test_executed_notebooks_are_kept_for_the_site():
    """The folder is not in git."""
    ignored = (ROOT / ".gitignore").read_text().split()
    assert "build/" in ignored
    assert EXECUTED.is_relative_to(ROOT / "build")
