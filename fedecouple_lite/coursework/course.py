"""A course as nbgrader lays it out, and nbgrader's own interface to it."""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from ..errors import nearest
from .preprocessors import known_cells

CONFIG = "nbgrader_config.py"
LARGEST_NOTEBOOK = 128 * 2**20  # bytes of a file that is handed in: with many figures one has some 10 MiB
HERE = Path("notebooks") / "assignments"  # where the course lies, from the top of the project


class Course:
    """A folder with `nbgrader_config.py` and `source/`; ValueError where it is none.

    nbgrader keeps the rest beside them: `release/`, `submitted/`, `autograded/`, `feedback/` and `gradebook.db`.
    """

    def __init__(
        self, folder: Path, seconds: int | None = None, memory: int | None = None, config: Config | None = None
    ):
        """seconds, MiB: limits for each cell and each kernel; None: as the course's configuration has them. config: the
        configuration, where it has been read already; the file is a program, and is run once, before any submission."""
        self.folder = folder.resolve()
        if not (self.folder / CONFIG).is_file():
            raise ValueError(f"course={str(folder)!r} holds no {CONFIG}; it must be the folder of a course")
        make_programs_findable()
        self.config = self._config(seconds, memory) if config is None else config
        self.api = NbGraderAPI(config=self.config)
        self.api.coursedir.root = str(self.folder)
        self.api.log.setLevel("WARNING")

    def _config(self, seconds: int | None, memory: int | None) -> Config:
        """The course's configuration, with these limits."""
        config = PyFileConfigLoader(CONFIG, path=str(self.folder)).load_config()
        if seconds is not None:
            config.JudgedExecute.timeout = seconds
        if memory is not None:
            config.JudgedExecute.memory = memory
        return config

    @property
    def assignments(self) -> list[str]:
        """Names of all assignments, sorted."""
        return sorted(path.parent.name for path in (self.folder / "source").glob("*/*.ipynb"))

    def check_assignment(self, assignment: str) -> None:
        """ValueError for one that there is none of."""
        if assignment not in self.assignments:
            raise ValueError(
                f"assignment={assignment!r} is none of this course; {nearest(assignment, self.assignments)}"
            )

    def notebook(self, step: str, assignment: str, student: str = ".") -> Path:
        """Where an assignment's notebook lies after a step: source, release, submitted, autograded."""
        return self.folder / step / student / assignment / f"{assignment}.ipynb"

    def master(self, assignment: str) -> NotebookNode:
        """An assignment's master notebook."""
        return read(self.notebook("source", assignment))

    def gradebook(self) -> Gradebook:
        """nbgrader's data base, to be used in a `with`."""
        return Gradebook(self.api.coursedir.db_url)

    def known_cells(self, assignment: str) -> list[NotebookNode]:
        """The cells of an assignment that nbgrader knows, as `release` left them in the gradebook."""
        with self.gradebook() as gradebook:
            return known_cells(gradebook.find_notebook(assignment, assignment))


def make_programs_findable() -> None:
    """nbgrader calls a program of its own environment by name; it must be found where that is not activated. And its
    data base's warnings of what it does itself are not for lecturers."""
    programs = str(Path(sys.executable).parent)
    paths = os.environ.get("PATH", "").split(os.pathsep)
    if programs not in paths:
        os.environ["PATH"] = os.pathsep.join([programs, *paths])
    warnings.filterwarnings("ignore", module="nbgrader")
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def read(path: Path) -> NotebookNode:
    """A notebook; ValueError, in words, where the file is none."""
    try:
        size = path.stat().st_size
        if size > LARGEST_NOTEBOOK:
            raise ValueError(f"it has {size / 2**20:.0f} MiB; at most {LARGEST_NOTEBOOK // 2**20} are read")
        notebook = nbformat.reads(path.read_text(encoding="utf-8-sig"), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises a dozen kinds for what is no notebook
        first = str(error).strip().partition("\n")[0][:120]
        raise ValueError(f"{path.name} is no notebook: {first or type(error).__name__}") from None
    return notebook


def last_error(result: dict) -> str:
    """Why a step of nbgrader failed: the last error that is named in its words, nbgrader's own summary of it apart."""
    text = f"{result.get('log', '')}\n{result.get('error', '')}"
    errors = re.findall(r"^\s*([\w.]*(?:Error|Exception|Entry)): (.*)$", text, re.M)
    for kind, words in reversed(errors):
        if "NbGraderException" not in kind and "the above traceback" not in words:
            return f"{kind.rpartition('.')[2]}: {words}"[:300]
    return str(text).strip().rpartition("\n")[2][:300]
