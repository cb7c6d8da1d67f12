"""What a page needs that its source does not have: links that hold on the site, and words for every figure."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
# Files that have a page of their own here.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "notebooks/assignments/README.md": "lecturers.md",
}
MADE_HERE = ("api", "course")  # pages that are right already
LINK = re.compile(r"(?<=\]\()(?!https?:|path:|#)([^)#\s]+)")
MOST_WORDS = 400  # characters


def links_of_page(app: Sphinx, page: str, content: list[str]) -> None:
    """In a page of docs/: links to files outside it, which hold in the project's folder, hold on the site, too."""
    folder = (DOCS / page).parent
    if folder.name not in MADE_HERE:
        content[0] = mended(content[0], folder, folder)


def links_of_included(app: Sphinx, path: Path, page: str, content: list[str]) -> None:
    """In a file that lies elsewhere and is a part of a page: all links."""
    content[0] = mended(content[0], Path(os.path.normpath(DOCS / path)).parent, DOCS)


def mended(text: str, folder: Path, seen_from: Path) -> str:
    """`text` of a file in `folder`, its links as they must be on a page in the folder `seen_from`: to a page of this
    site where there is one, else to the file itself, to be downloaded."""

    def link(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / match[1]))
        inside = target.relative_to(ROOT).as_posix()
        if inside in PAGES:
            target = DOCS / PAGES[inside]
        elif inside.startswith("notebooks/") and target.suffix == ".ipynb":
            target = DOCS / "course" / target.name
        relative = os.path.relpath(target, seen_from)
        return relative if target.is_relative_to(DOCS) or target.suffix == ".png" else f"path:{relative}"

    return LINK.sub(link, text)


def words_for_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Alternative text for a notebook's figures: the line that the cell prints below, or the words before the cell."""
    for cell in doctree.findall(is_cell):
        parts = list(outputs_of(cell))
        for i, part in enumerate(parts):
            if not isinstance(part, nodes.image):
                continue
            below = [other.astext() for other in parts[i + 1 :] if isinstance(other, nodes.literal_block)]
            words = below[0] if below else words_before(cell)
            without_tex = re.sub(r"\\([A-Za-z]+)", r"\1", words)  # mu, not \mu
            part["alt"] = " ".join(without_tex.split())[:MOST_WORDS]


def is_cell(node: nodes.Node) -> bool:
    """Whether this is a notebook's code cell, with its outputs."""
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def outputs_of(cell: nodes.Node) -> Iterator[nodes.Element]:
    """Pictures and printed text of a cell, in order."""
    for outputs in cell.findall(lambda node: isinstance(node, nodes.container)):
        if outputs.get("nb_element") != "cell_code_output":
            continue
        for node in outputs.findall():
            if isinstance(node, nodes.image) or (isinstance(node, nodes.literal_block) and is_printed(node)):
                yield node


def is_printed(node: nodes.Element) -> bool:
    """Whether this text was printed, and is not the plain form of a figure."""
    return "stream" in node.get("classes", [])


def words_before(cell: nodes.Element) -> str:
    """The last paragraph before a cell."""
    place = cell.parent.index(cell)
    paragraphs = [node for node in cell.parent[:place] if isinstance(node, nodes.paragraph)]
    return paragraphs[-1].astext() if paragraphs else "Figure"


def numbers_together(app: Sphinx, doctree: nodes.document) -> None:
    """Mark the cells of tables whose "94.0 +- 3.1" must not be broken."""
    for entry in doctree.findall(nodes.entry):
        if re.search(r"\d \+- \d|\d \[[+-]", entry.astext()):
            entry["classes"].append("number")
