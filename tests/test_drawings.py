"""The drawings of a round are those that their script makes, and can be read by everybody."""

import json
import re
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "notebooks" / "drawings"
MADE = runpy.run_path(str(FOLDER / "draw.py"))["drawings"]()


def test_the_drawings_are_what_their_script_makes():
    assert {path.name for path in FOLDER.glob("*.svg")} == set(MADE)
    for name, svg in MADE.items():
        assert (FOLDER / name).read_text() == svg, f"{name}: run notebooks/drawings/draw.py"


def test_every_drawing_is_an_svg_with_a_title_and_words_inside_its_sheet():
    for name, svg in MADE.items():
        root = ElementTree.fromstring(svg)
        _, _, width, height = map(int, root.attrib["viewBox"].split())
        texts = [element for element in root.iter() if element.tag.endswith("}text")]
        assert any(element.tag.endswith("}title") and element.text for element in root.iter()) and texts, name
        for element in texts:
            x, y, letters = float(element.attrib["x"]), float(element.attrib["y"]), len(element.text or "")
            before = {"start": 0, "middle": 0.5}[element.attrib["text-anchor"]]
            assert x - before * 7 * letters >= 0 and x + (1 - before) * 7 * letters <= width, (name, element.text)
            assert 0 < y <= height


def test_a_dark_page_gets_light_ink():
    for svg in MADE.values():
        dark = re.search(r"prefers-color-scheme: dark\) \{(.*?)\n\}", svg, re.S)[1]
        assert ".sheet { fill: #1e1e1e; }" in dark and "text { fill: #dddddd; }" in dark


def test_the_notebooks_show_every_drawing_and_none_that_is_not_there():
    shown = set()
    for path in FOLDER.parent.glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            for words, name in re.findall(r"!\[([^\]]*)\]\(drawings/([^)]+)\)", "".join(cell["source"])):
                assert words, f"{path.name}: {name} says nothing to a screen reader"
                shown.add(name)
    assert shown == set(MADE)
