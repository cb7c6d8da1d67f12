"""Draws the steps of a round as SVG files beside this script: `python notebooks/drawings/draw.py`.

Each drawing has the same two places, the server above and one client below, and the same five things in them, each
with its colour: the extractor theta, the global classifier phi, the client's own classifier phi_i, anchors and images.
What a step trains has a thick border, what is frozen in it a dashed one. Colours are Okabe and Ito's, as in all
figures; a dark page gets light ink on a dark sheet.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
WIDTH = 680
HEIGHT = 300
COLOURS = {"extractor": "#56B4E9", "global": "#009E73", "own": "#E69F00", "anchors": "#CC79A7", "images": "#999999"}
NAMES = {"extractor": "extractor θ", "global": "classifier φ", "own": "own classifier φᵢ"}
STYLE = """
.sheet { fill: #ffffff; }  .place { fill: none; stroke: #777777; }  .line { fill: none; stroke: #222222; }
text { font-family: sans-serif; font-size: 14px; fill: #222222; }  .small { font-size: 12px; }
.block { stroke: #222222; }  .in { fill: #111111; }
@media (prefers-color-scheme: dark) {
  .sheet { fill: #1e1e1e; }  .line, .block { stroke: #dddddd; }  text { fill: #dddddd; }  .in { fill: #111111; }
}
"""


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Words at a place."""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def place(y: float, height: float, name: str) -> str:
    """The server, or a client: a frame with its name."""
    frame = f'<rect class="place" x="14" y="{y}" width="{WIDTH - 28}" height="{height}" rx="10"/>'
    return frame + text(28, y + 22, name)


def block(x: float, y: float, part: str, words: str = "", border: str = "plain") -> str:
    """One part of a model. border: "trained", "frozen" or "plain"."""
    looks = {"trained": 'stroke-width="4"', "frozen": 'stroke-width="1.5" stroke-dasharray="5 4"', "plain": ""}
    box = f'<rect class="block" x="{x}" y="{y}" width="138" height="38" rx="6" fill="{COLOURS[part]}" {looks[border]}/>'
    return box + text(x + 69, y + 24, words or NAMES[part], "in", "middle")


def stars(x: float, y: float, words: str) -> str:
    """The anchors: a star for each of some classes."""
    shape = "0,-9 2.4,-3 8.6,-2.8 3.8,1.2 5.3,7.3 0,3.8 -5.3,7.3 -3.8,1.2 -8.6,-2.8 -2.4,-3"
    drawn = ""
    for i in range(3):
        moved = f'transform="translate({x + 26 * i},{y})"'
        drawn += f'<polygon class="block" points="{shape}" fill="{COLOURS["anchors"]}" {moved}/>'
    return drawn + text(x - 10, y + 26, words, "small")


def images(x: float, y: float) -> str:
    """The client's own images: a little pile."""
    pile = ""
    for shift in (10, 5, 0):
        pile += (
            f'<rect class="block" x="{x + shift}" y="{y - shift}" width="34" height="34" fill="{COLOURS["images"]}"/>'
        )
    return pile + text(x - 4, y + 52, "its images", "small")


def arrow(x1: float, y1: float, x2: float, y2: float, words: str = "") -> str:
    """An arrow, with words beside its middle."""
    line = f'<path class="line" d="M {x1} {y1} L {x2} {y2}" stroke-width="2" marker-end="url(#tip)"/>'
    return line + text((x1 + x2) / 2 + 8, (y1 + y2) / 2 + 4, words, "small")


def both_classifiers(extractor: str, own: str) -> tuple[str, ...]:
    """Images through the extractor, and its features into the frozen global and the own classifier; how each of the
    two others stands in this step."""
    return (
        images(50, 202),
        arrow(100, 218, 146, 218),
        block(150, 200, "extractor", border=extractor),
        arrow(292, 212, 330, 186),
        arrow(292, 224, 330, 242),
        block(334, 160, "global", border="frozen"),
        block(334, 226, "own", border=own),
    )


def one_classifier(extractor: str, own: str) -> tuple[str, ...]:
    """Images through the extractor, and its features into the client's own classifier; how each stands in this step."""
    return (
        images(60, 202),
        arrow(110, 218, 168, 218),
        block(180, 200, "extractor", border=extractor),
        arrow(322, 218, 348, 218),
        block(352, 200, "own", border=own),
    )


def drawing(title: str, *parts: str) -> str:
    """A whole SVG: its title is what a screen reader says."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="tip" markerWidth="9" markerHeight="9" refX="8" refY="4" orient="auto">'
            '<path class="line" d="M 0 0 L 8 4 L 0 8"/></marker></defs>',
            f'<rect class="sheet" width="{WIDTH}" height="{HEIGHT}" rx="12"/>',
            *parts,
            text(WIDTH / 2, HEIGHT - 8, title, "small", "middle"),
            "</svg>\n",
        ]
    )


SERVER = place(12, 84, "server")
CLIENT = place(150, 122, "client i")


def drawings() -> dict[str, str]:
    """File name -> SVG: one client alone, a shared extractor and FedRep's two steps, FedeCouple's five steps."""
    at_server = block(180, 44, "extractor"), block(350, 44, "global")
    return {
        "alone.svg": drawing(
            "One client alone: its few images are all that its model ever sees",
            place(60, 150, "client i"),
            images(60, 112),
            arrow(110, 128, 168, 128),
            block(180, 110, "extractor", border="trained"),
            arrow(322, 128, 348, 128),
            block(352, 110, "own", border="trained"),
        ),
        "share_extractor.svg": drawing(
            "Decoupled: the extractor travels and is averaged; every classifier stays where it is",
            SERVER,
            CLIENT,
            block(180, 44, "extractor", "mean of θᵢ"),
            block(180, 200, "extractor", "extractor θᵢ"),
            arrow(225, 196, 225, 86, "up"),
            arrow(275, 86, 275, 196, "down"),
            block(390, 200, "own"),
            text(538, 224, "stays", "small"),
        ),
        "fedrep_1_classifier.svg": drawing(
            "FedRep, first: φᵢ learns from features that stand still, H epochs",
            SERVER,
            CLIENT,
            block(180, 44, "extractor", "extractor θ"),
            arrow(249, 86, 249, 196, "received"),
            *one_classifier(extractor="frozen", own="trained"),
        ),
        "fedrep_2_extractor.svg": drawing(
            "FedRep, then: θᵢ learns behind a classifier that stands still, E epochs, and goes up",
            SERVER,
            CLIENT,
            block(180, 44, "extractor", "mean of θᵢ"),
            arrow(249, 196, 249, 86, "upload"),
            *one_classifier(extractor="trained", own="frozen"),
        ),
        "round_1_receive.svg": drawing(
            "1. Receive: θ and φ come down; the client's own classifier has stayed",
            SERVER,
            CLIENT,
            *at_server,
            arrow(249, 86, 249, 196),
            arrow(419, 86, 419, 196, "frozen copy"),
            block(180, 200, "extractor"),
            block(350, 200, "global"),
            block(510, 200, "own"),
        ),
        "round_2_anchors.svg": drawing(
            "2. Anchors: the mean feature of each class it has, by the received θ. They never leave",
            SERVER,
            CLIENT,
            *at_server,
            images(60, 202),
            arrow(110, 218, 168, 218),
            block(180, 200, "extractor", border="frozen"),
            arrow(322, 218, 372, 218),
            stars(392, 216, "anchors, one a class"),
        ),
        "round_3_classifier.svg": drawing(
            "3. Personal classifier: φᵢ learns from the labels and, as far as φ is right, from φ",
            SERVER,
            CLIENT,
            *at_server,
            *both_classifiers(extractor="frozen", own="trained"),
            arrow(420, 200, 420, 222, "distillation"),
        ),
        "round_4_extractor.svg": drawing(
            "4. Extractor: features must suit φ, then φᵢ, and stay near the anchor of their class",
            SERVER,
            CLIENT,
            *at_server,
            *both_classifiers(extractor="trained", own="frozen"),
            arrow(292, 219, 500, 214),
            stars(520, 212, "anchors"),
        ),
        "round_5_upload.svg": drawing(
            "5. Upload: θ and φᵢ go up, nothing else. The server averages them over clients",
            SERVER,
            CLIENT,
            block(180, 44, "extractor", "mean of θ"),
            block(350, 44, "global", "mean of φᵢ"),
            block(180, 200, "extractor"),
            block(350, 200, "own"),
            arrow(249, 196, 249, 86),
            arrow(419, 196, 419, 86),
            stars(540, 212, "anchors stay"),
            images(60, 202),
        ),
    }


def main() -> None:
    """Write all drawings."""
    for name, svg in drawings().items():
        (HERE / name).write_text(svg)


if __name__ == "__main__":
    main()
