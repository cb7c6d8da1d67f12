"""The documentation site: `make docs` builds docs/_build/html, which reads without a network.

FEDECOUPLE_EXECUTED names a folder of notebooks that somebody has run already: those are shown as they are there, the
others without outputs, and nothing is run here. Without it every notebook is run, once.
"""

import os
import sys
from hashlib import sha256
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

import docstrings
import executed
import mathjax
import mend
import reference
from sphinx.application import Sphinx

import fedecouple_lite

# What is made here before Sphinx looks: pages of notebooks and of modules. None of it is in git.
executed.prepare(
    ROOT / "notebooks",
    DOCS / "course",
    cache=DOCS / "_build" / "executed",
    given=os.environ.get("FEDECOUPLE_EXECUTED"),
)
reference.write_pages(DOCS / "api")

project = "fedecouple-lite"
author = "the fedecouple-lite authors"
project_copyright = "the fedecouple-lite authors, Apache-2.0"
version = release = fedecouple_lite.__version__
language = "en"
smartquotes = False  # "vmap" in a docstring is a string

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# --- Pages in Markdown and as notebooks ---

myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `executed` has done it
nb_output_stderr = "remove"  # progress bars
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
nb_ipywidgets_js = {}  # no widgets: they would be loaded from elsewhere, and have no kernel here
suppress_warnings = ["mystnb.unknown_mime_type"]

# --- The reference ---

default_role = "code"
add_module_names = False
python_maximum_signature_line_length = 90
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
nitpicky = True  # a link that leads nowhere is a warning

# --- What it looks like ---

html_theme = "sphinx_book_theme"
html_title = "fedecouple-lite"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # one search field, in the sidebar
}
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is, until the switch is used
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
mathjax_path = mathjax.SCRIPT
mathjax3_config = {"chtml": {"scale": 0.88}}  # formulas as large as the text around them


def setup(app: Sphinx) -> None:
    """Our own steps of the build. Where one of them changes, all pages are made anew."""
    steps = "".join(path.read_text() for path in sorted(DOCS.glob("*.py")))
    app.add_config_value("our_steps", sha256(steps.encode()).hexdigest(), "env")
    app.connect("autodoc-process-docstring", docstrings.readable)
    app.connect("autodoc-process-signature", docstrings.signature_as_written)
    app.connect("missing-reference", docstrings.link_to_ours)
    app.connect("source-read", mend.links_of_page)
    app.connect("include-read", mend.links_of_included)
    app.connect("doctree-read", mend.words_for_figures)
    app.connect("doctree-read", mend.numbers_together)
    app.connect("build-finished", mathjax.copy)
