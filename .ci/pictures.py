"""The drawings of notebooks/drawings as PNG: text cells on Colab show PNG, but no SVG and no file of a folder.

It knows what draw.py draws, on a light sheet: rectangles, texts, arrows and stars.
"""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon

UNITS_PER_INCH = 72  # a unit of the drawing is a point
PIXELS_PER_INCH = 108  # one and a half pixels a unit: sharp, and not too wide for a cell
INK, FRAME, SHEET = "#222222", "#777777", "#ffffff"
SIZES = {"small": 12, "in": 14, "": 14}  # of letters, by class


def png(svg: str) -> bytes:
    """A drawing as PNG, one and a half pixels a unit. ValueError for an element that is none of draw.py's."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(int, root.attrib["viewBox"].split())
    figure = Figure(figsize=(width / UNITS_PER_INCH, height / UNITS_PER_INCH), dpi=PIXELS_PER_INCH)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))  # y grows downwards
    ax.axis("off")
    for element in root:
        kind = element.tag.rpartition("}")[2]
        if kind in ("title", "style", "defs"):
            continue
        if kind not in DRAW:
            raise ValueError(f"element={kind!r} is none that can be drawn; choose from {', '.join(DRAW)}")
        DRAW[kind](ax, element.attrib, element.text or "")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def rectangle(ax: Axes, given: dict[str, str], _: str) -> None:
    """The sheet, a place or a block."""
    x, y = float(given.get("x", 0)), float(given.get("y", 0))
    width, height = float(given["width"]), float(given["height"])
    look = {
        "sheet": {"facecolor": SHEET, "edgecolor": "none"},
        "place": {"facecolor": "none", "edgecolor": FRAME},
        "block": {"facecolor": given.get("fill"), "edgecolor": INK},
    }[given["class"]]
    corner = f"round,pad=0,rounding_size={given.get('rx', 0)}"
    dashes = (0, (3, 2)) if "stroke-dasharray" in given else "solid"
    line = {"linewidth": float(given.get("stroke-width", 1)), "linestyle": dashes}
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=corner, **look, **line))


def words(ax: Axes, given: dict[str, str], text: str) -> None:
    """A text, from its place on or around it."""
    side = {"start": "left", "middle": "center"}[given["text-anchor"]]
    place = float(given["x"]), float(given["y"])
    ax.text(*place, text, color=INK, fontsize=SIZES[given["class"]], ha=side, va="baseline")


def arrow(ax: Axes, given: dict[str, str], _: str) -> None:
    """A straight arrow."""
    x1, y1, x2, y2 = map(float, re.fullmatch(r"M (\S+) (\S+) L (\S+) (\S+)", given["d"]).groups())
    tip = "->,head_length=5,head_width=3"
    ax.add_patch(FancyArrowPatch((x1, y1), (x2, y2), arrowstyle=tip, color=INK, linewidth=2, shrinkA=0, shrinkB=0))


def star(ax: Axes, given: dict[str, str], _: str) -> None:
    """A polygon, moved to its place."""
    dx, dy = map(float, re.fullmatch(r"translate\((\S+),(\S+)\)", given["transform"]).groups())
    corners = []
    for corner in given["points"].split():
        x, y = map(float, corner.split(","))
        corners.append((x + dx, y + dy))
    ax.add_patch(Polygon(corners, facecolor=given["fill"], edgecolor=INK))


DRAW = {"rect": rectangle, "text": words, "path": arrow, "polygon": star}
