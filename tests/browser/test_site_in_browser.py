"""The built site in a browser: front page, a notebook, the results and a page of the reference, light and dark."""

import sys

import pytest
from browser.lab import free_port, served

PAGES = ("index.html", "course/05_fedecouple.html", "results.html", "api/fedecouple_lite.engine.html")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install -e .[browser]")


@pytest.fixture(scope="module")
def address(site, tmp_path_factory):
    """Of the site, served as any web server serves it."""
    home = tmp_path_factory.mktemp("served")
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(site)]
    where = f"http://127.0.0.1:{port}/"
    with served(command, home, home / "log", where, None):
        yield where


@pytest.fixture(params=["light", "dark"])
def opened(browser, address, request):
    """A page whose reader prefers this scheme, what it asked of other machines, and what went wrong."""
    page = browser.new_context(color_scheme=request.param, viewport={"width": 1280, "height": 1600}).new_page()
    asked, wrong = [], []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda got: wrong.append(f"{got.status} {got.url}") if got.status >= 400 else None)
    yield page, request.param, asked, wrong
    page.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_read_without_network_error_or_barrier(opened, address, name):
    page, scheme, asked, wrong = opened
    page.goto(address + name, wait_until="networkidle")
    assert page.locator(".bd-article h1").first.is_visible()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert wrong == []  # before axe, which asks for style sheets where none are
    background = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number)"
    )
    assert (sum(background) / 3 < 100) == (scheme == "dark")
    found = axe_playwright.Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]}).response["violations"]
    barriers = [(one["id"], one["nodes"][0]["html"][:200], len(one["nodes"])) for one in found]
    assert barriers == []


def test_mathematics_is_drawn_and_search_finds(opened, address):
    page, *_ = opened
    page.goto(address + "course/03_anchors.html", wait_until="networkidle")
    page.locator("mjx-container").first.wait_for(state="attached", timeout=30_000)
    assert page.locator("mjx-merror").count() == 0
    page.goto(address + "search.html?q=anchors", wait_until="networkidle")
    page.locator("#search-results li").first.wait_for(state="visible", timeout=30_000)
