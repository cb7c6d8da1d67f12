"""MathJax on the site itself: formulas need no network. Its files come with the package sphinx-mathjax-offline."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx

SCRIPT = "mathjax/tex-chtml.js"  # under _static/
# Of 24 MB what this script may ask for: fonts, rarer commands of TeX, and what reads formulas aloud in English.
PARTS = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions", "a11y")
SPOKEN = ("base.json", "en.json", "nemeth.json")


def folder() -> Path:
    """Where the package keeps MathJax."""
    package = find_spec("sphinx-mathjax-offline")
    if package is None or package.origin is None:
        raise ImportError("MathJax is missing: pip install -e .[docs]")
    return Path(package.origin).parent / "static" / "mathjax"


def copy(app: Sphinx, error: Exception | None) -> None:
    """Put MathJax into the finished site."""
    if error is not None or app.builder.format != "html":
        return
    source = folder()
    target = Path(app.outdir) / "_static" / "mathjax"
    parts = [source / part for part in PARTS] + [source / "sre" / "mathmaps" / name for name in SPOKEN]
    for part in parts:
        copied = target / part.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        if part.is_dir():
            shutil.copytree(part, copied, dirs_exist_ok=True)
        else:
            shutil.copy(part, copied)
