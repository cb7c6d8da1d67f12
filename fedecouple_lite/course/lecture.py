"""One page for a lecture room: the explorer, live training and the ablation studio, large enough for the last row."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as w
import platformdirs

from ..data import Dataset
from .widgets import DPI, AblationPanel, TrainingPanel, heterogeneity

ROOM = "fedecouple-room"  # the CSS class of the page
FINE = 2 * DPI  # pictures are shown half as large again

# Controls grow by the variables that ipywidgets has for it.
LOOKS = f"""<style>
.{ROOM} {{
  --jp-widgets-font-size: 20px;
  --jp-widgets-inline-height: 40px;
  --jp-widgets-inline-width: 440px;
  --jp-widgets-inline-width-short: 200px;
  --jp-widgets-inline-label-width: 130px;
  padding: 0 24px;
  overflow-x: auto;
}}
.{ROOM} h1 {{ font-size: 40px; line-height: 1.2 }}
.{ROOM} h2 {{ font-size: 30px; line-height: 1.2; margin-top: 24px }}
.{ROOM} p {{ font-size: 20px; line-height: 1.4 }}
.{ROOM} table {{ font-size: 20px; line-height: 1.5 }}
.{ROOM} td, .{ROOM} th {{ padding: 2px 12px; text-align: right }}
.{ROOM} .widget-image {{ zoom: 1.5 }}
.{ROOM} .jupyter-button {{ min-width: 120px; overflow: visible }}
</style>"""


def lecture_room(data: Dataset, folder: str | Path | None = None) -> w.VBox:
    """The page. data: for the explorer and for training; the studio's runs are on the digits.

    folder: where the studio keeps finished runs; None: this user's cache, so that what is run before a lecture is there
    in it. `children` hold the page's head and, after each section's head, its widget.
    """
    if folder is None:
        folder = Path(platformdirs.user_cache_dir("fedecouple-lite")) / "lecture_room"
    explorer = heterogeneity(data)
    training = TrainingPanel(data)
    studio = AblationPanel(folder=folder)
    for widget in (explorer, training, studio):
        widget.dpi = FINE
    explorer.update()  # it has drawn already, as coarsely as in a notebook
    children = [
        w.HTML(LOOKS + "<h1>Personalized federated learning</h1>"),
        head("Who holds what", "Twenty clients, ten classes. A smaller alpha leaves each client fewer of them."),
        explorer,
        head("A federation in training", "Choose a method and press start."),
        training,
        head("What does each part do?", "Switch parts of FedeCouple on and off and press run. Finished runs are kept."),
        studio,
    ]
    page = w.VBox(children)
    page.add_class(ROOM)
    return page


def head(title: str, text: str) -> w.HTML:
    """A section's head."""
    return w.HTML(f"<h2>{title}</h2><p>{text}</p>")
