"""The page for a lecture room, served by Voila: it opens soon, and two browsers at once do not meet."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from browser.lab import free_port, served

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(find_spec("voila") is None, reason="no Voila here: pip install -e .[app]")
PICTURE = ".fedecouple-room img.widget-image"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of the page, as `make app` serves it."""
    home = tmp_path_factory.mktemp("app")
    shutil.copytree(ROOT / "notebooks" / "app", home / "app")
    port = free_port()
    program = Path(sys.executable).with_name("voila")
    command = [program, "lecture_room.ipynb", "--no-browser", f"--port={port}", "--Voila.port_retries=0"]
    env = os.environ | {"JUPYTER_PATH": "jupyter", "XDG_CACHE_HOME": str(home / "cache")}
    env |= {"JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data")}
    env["OMP_NUM_THREADS"] = "1"  # a core for each kernel: notebooks run beside it
    where = f"http://127.0.0.1:{port}/"
    with served(command, home / "app", home / "log", where + "voila/static/", env):
        yield where


@pytest.fixture(scope="module")
def pages(browser, address):
    """Two browsers with the page, what either has asked of other machines, and the errors it met."""
    opened = []
    elsewhere = []
    errors = []
    for _ in range(2):
        page = browser.new_context(viewport={"width": 1600, "height": 2600}).new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: elsewhere.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.locator(PICTURE).first.wait_for(state="visible")
        opened.append(page)
    yield opened, elsewhere, errors
    for page in opened:
        page.context.close()


def slider(page, name):
    """The nearest one of this name from the top."""
    label = page.locator(f".widget-label:text-is('{name}')")
    return page.locator(".widget-slider").filter(has=label).first


def wait_for_words(page, words):
    page.locator(".widget-html", has_text=words).last.wait_for(state="visible")


def picture(page):
    """The bytes of the first picture, as a word: its address is another one whenever it is shown anew."""
    return page.locator(PICTURE).first.evaluate(
        "async image => new Uint8Array(await (await fetch(image.src)).arrayBuffer()).join()"
    )


def settled_picture(page):
    """The first picture, once it has stayed the same for a while: a page that opens may draw it more than once."""
    before = None
    for _ in range(40):
        now = picture(page)
        if now == before:
            return now
        before = now
        page.wait_for_timeout(1500)
    raise AssertionError("the picture changes again and again")


def test_two_browsers_do_not_meet(pages):
    (first, second), _, _ = pages
    before = [settled_picture(page) for page in (first, second)]
    source = first.locator(PICTURE).first.get_attribute("src")
    slider(first, "clients").locator(".noUi-handle").focus()
    first.keyboard.press("ArrowRight")
    first.wait_for_function(
        "([place, src]) => document.querySelector(place).getAttribute('src') !== src", arg=[PICTURE, source]
    )
    assert slider(first, "clients").locator(".widget-readout").inner_text() == "21"
    assert slider(second, "clients").locator(".widget-readout").inner_text() == "20"
    assert settled_picture(first) != before[0]
    assert settled_picture(second) == before[1]


def test_both_train_at_once(pages):
    (first, second), _, _ = pages
    second.locator("select").filter(has=second.locator("option", has_text="fedbabu")).first.select_option("fedavg")
    for page in (first, second):
        page.locator("button:text-is('step')").click()
    wait_for_words(first, "Round 1: fedecouple")
    wait_for_words(second, "Round 1: fedavg")


def test_it_reads_from_the_last_row(pages):
    """Nothing that is said is smaller than 20 pixels, and pictures are drawn as finely as they are shown."""
    (page, _), _, _ = pages
    sizes = page.evaluate(
        "[...document.querySelectorAll('.widget-label, .widget-html-content, .widget-readout, select, button')]"
        ".filter(e => e.offsetParent && e.innerText.trim())"
        ".map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert len(sizes) > 20
    assert min(sizes) >= 20
    drawn, shown = page.locator(PICTURE).first.evaluate("e => [e.naturalWidth, e.getBoundingClientRect().width]")
    assert drawn >= shown > 900


def test_nothing_is_asked_of_other_machines_and_nothing_fails(pages, address):
    _, asked, errors = pages
    assert [url for url in asked if not url.startswith((address, "data:", "blob:", "ws:"))] == []
    assert errors == []
