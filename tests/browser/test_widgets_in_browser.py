"""The widgets in JupyterLab, clicked in a browser: text and picture have to follow."""

import re

import nbformat
import pytest
from browser.lab import open_lab, open_notebook, run_all

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install -e .[browser]")
PATIENCE = 60_000  # milliseconds: other notebooks compute beside this one

CELLS = (
    "from fedecouple_lite import load\nfrom fedecouple_lite.course import plots, widgets\ndata = load('digits')",
    "widgets.heterogeneity(data)",
    "widgets.TrainingPanel(data, clients=5, epochs=1)",
    "figures = {}\nfor n in (1, 2, 3):\n    figures[n], (ax,) = plots.figure()\n    ax.set_title(n)\n"
    "widgets.slideshow(figures)",
    "widgets.descent()",
    "import tempfile\nfrom pathlib import Path\nfrom fedecouple_lite.studies.experiment import Setting\n"
    "few = Setting(rounds=2, clients=4, per_client=30)\n"
    "widgets.AblationPanel(few, seeds=1, folder=Path(tempfile.mkdtemp()), epochs=1)",
    "widgets.TrainingPanel(data, clients=5, epochs=1, mu=3.0, lam=25)",
    "few_runs = {'clients': 5, 'per_client': 30, 'length': 2, 'seeds': 2}\nwidgets.steadiness(data, **few_runs)",
    "widgets.attacked(data, **few_runs)",
)


@pytest.fixture(scope="module")
def page(jupyter_lab, browser, tmp_path_factory):
    """The notebook, all of its cells run."""
    folder = tmp_path_factory.mktemp("lab")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "widgets.ipynb")
    with jupyter_lab(folder, OMP_NUM_THREADS="1") as address:  # a core: notebooks run beside it
        page = browser.new_page(viewport={"width": 1280, "height": 3600})  # all cells in view: Lab draws no others
        open_lab(page, address)
        open_notebook(page, "widgets.ipynb")
        assert run_all(page)
        yield page
        page.close()


class Widget:
    """One cell's widget."""

    def __init__(self, page, cell):
        self.page = page
        self.out = page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-Cell-outputArea")
        self.image = self.out.locator("img.widget-image").first
        self.image.wait_for(state="attached")  # the studio shows none before its first run

    def slider(self, name):
        label = self.page.locator(f".widget-label:text-is('{name}')")
        return self.out.locator(".widget-slider").filter(has=label)

    def type(self, name, value):
        """A value typed into a slider's readout."""
        self.slider(name).locator(".widget-readout").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(str(value))
        self.page.keyboard.press("Enter")

    def reads(self, name, text):
        """A slider's readout."""
        playwright.expect(self.slider(name).locator(".widget-readout")).to_have_text(text, timeout=PATIENCE)

    def press_key(self, name, key):
        self.slider(name).locator(".noUi-handle").focus()
        self.page.keyboard.press(key)

    def click(self, button):
        self.out.locator(f"button:text-is('{button}')").click()

    def choose(self, value, of=0):
        self.out.locator("select").nth(of).select_option(value)

    def says(self, text):
        playwright.expect(self.out.locator(".widget-html").last).to_contain_text(text, timeout=PATIENCE)

    def src(self):
        return self.image.get_attribute("src")

    def drawn(self):
        """What the picture shows: its address is another one whenever the widget changes."""
        return self.image.evaluate(
            "e => { const paper = document.createElement('canvas');"
            "paper.width = e.naturalWidth; paper.height = e.naturalHeight;"
            "paper.getContext('2d').drawImage(e, 0, 0); return paper.toDataURL(); }"
        )

    def changed(self, before):
        """Another picture than `before`, as tall and wide as it was drawn: neither cut nor stretched."""
        playwright.expect(self.image).not_to_have_attribute("src", before, timeout=PATIENCE)
        self.page.wait_for_function("e => e.complete && e.naturalWidth", arg=self.image.element_handle())
        width, height, shown, tall = self.image.evaluate(
            "e => [e.naturalWidth, e.naturalHeight, e.clientWidth, e.clientHeight]"
        )
        assert shown <= width and abs(shown / tall - width / height) < 0.05
        return self.src()


def test_the_explorer_follows_keys_text_and_choice_and_shows_errors(page):
    widget = Widget(page, 1)
    picture = widget.src()
    widget.press_key("alpha", "ArrowLeft")
    picture = widget.changed(picture)
    widget.choose("pathological")
    widget.says("holds 2.0 of 10 classes")
    widget.changed(picture)
    page.wait_for_timeout(1000)  # a choice of partition draws twice: its own slider appears
    picture, drawn = widget.src(), widget.drawn()
    assert widget.slider("classes").is_visible() and not widget.slider("alpha").is_visible()
    widget.type("clients", 3)
    widget.says("ValueError: classes_per_client=2 must be")
    playwright.expect(widget.image).to_have_class(re.compile("fedecouple-stale"))
    assert widget.drawn() == drawn  # the last picture stays, greyed
    widget.type("classes", 5)
    widget.says("holds 5.0 of 10 classes")
    widget.changed(picture)
    page.wait_for_timeout(1000)
    assert widget.drawn() != drawn


def test_the_training_panel_steps_starts_pauses_and_begins_anew(page):
    widget = Widget(page, 2)
    picture = widget.src()
    height = widget.out.bounding_box()["height"]
    widget.click("step")
    widget.says("Round 1:")
    picture = widget.changed(picture)
    assert abs(widget.out.bounding_box()["height"] - height) < 2  # the page does not jump
    widget.type("rounds", 50)
    widget.click("start")
    widget.says(re.compile(r"Round ([3-9]|\d\d):"))  # the page may skip a number
    widget.click("pause")
    page.wait_for_timeout(1000)
    paused = widget.changed(picture)
    page.wait_for_timeout(1000)
    assert widget.src() == paused
    widget.click("start")
    picture = widget.changed(paused)
    widget.click("stop")
    widget.choose("fedavg")
    widget.click("step")
    widget.says("Round 1: fedavg (mu -, lam -)")
    widget.choose("fedprox")
    widget.reads("mu", "0.01")
    widget.says("This is not what the controls say now")  # the picture is still FedAvg's
    widget.click("step")
    widget.says("Round 1: fedprox (mu 0.01, lam -)")
    widget.press_key("mu", "ArrowRight")
    widget.reads("mu", "0.02")  # its steps are as fine as its value
    widget.click("step")
    widget.says("Round 1: fedprox (mu 0.02, lam -)")


def test_the_training_panels_sliders_show_what_was_given(page):
    widget = Widget(page, 6)
    widget.reads("mu", "3.00")
    widget.reads("lambda", "25.00")
    widget.choose("fedprox")
    widget.reads("mu", "3.00")
    widget.click("step")
    widget.says("Round 1: fedprox (mu 3, lam -)")
    widget.choose("ditto")
    widget.reads("lambda", "25.00")
    widget.click("step")
    widget.says("Round 1: ditto (mu -, lam 25)")


def test_the_slideshow_moves(page):
    widget = Widget(page, 3)
    first = widget.src()
    widget.press_key("round", "ArrowRight")
    widget.changed(first)


def test_measurement_and_bound_follow_the_constants(page):
    widget = Widget(page, 4)
    widget.says("The bound is")
    first = widget.src()
    widget.type("lambda", 1)
    first = widget.changed(first)
    widget.type("K", 1)
    widget.changed(first)


def test_participation_and_dropout_follow_the_controls(page):
    widget = Widget(page, 7)
    first = widget.src()
    widget.press_key("participation", "ArrowLeft")
    widget.says("participation 0.9, dropout 0")
    first = widget.changed(first)
    widget.type("dropout", 0.5)
    widget.says("participation 0.9, dropout 0.5")
    widget.changed(first)


def test_attackers_and_defences_follow_the_controls(page):
    widget = Widget(page, 8)
    first = widget.src()
    widget.choose("label flip", of=1)
    widget.says("20% of the clients attack (label flip), defence: none")
    first = widget.changed(first)
    widget.press_key("attackers", "ArrowRight")
    widget.says("30% of the clients attack")
    first = widget.changed(first)
    widget.choose("similarity weights", of=2)
    widget.says("defence: similarity weights")
    widget.changed(first)


def test_the_studio_runs_two_combinations_and_maps_them(page):
    widget = Widget(page, 5)
    playwright.expect(widget.image).to_be_hidden()  # no broken picture before there is one
    widget.click("run")
    playwright.expect(widget.out).to_contain_text("Combinations so far: 1", timeout=PATIENCE)
    first = widget.src()
    widget.out.get_by_label("GLF").uncheck()
    widget.click("run")
    playwright.expect(widget.out).to_contain_text("Combinations so far: 2", timeout=PATIENCE)
    widget.changed(first)
    playwright.expect(widget.out.locator("td", has_text="GFA + GPC").last).to_be_visible()
    spaces = widget.out.locator("img.widget-image").nth(1)
    before = spaces.get_attribute("src")
    widget.out.locator(".widget-dropdown", has_text="right").locator("select").select_option("GLF + GFA + GPC")
    playwright.expect(spaces).not_to_have_attribute("src", before, timeout=PATIENCE)
