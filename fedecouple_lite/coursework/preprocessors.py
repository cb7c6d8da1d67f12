"""The steps that nbgrader takes with our notebooks, named in `nbgrader_config.py`: all of nbgrader's, and four of ours.

`SetCourse` writes the course's seed and data set into a master before it becomes the students' version. `MendCells`
finds the cells of a submission again whose metadata were lost. `JudgedExecute` runs a submission: the student's cells
in a kernel with limits, the tests in the grader's own process (see `judge`). `SayWhatIsWrong` puts the tests' words
beside the student's answer, as the comment that feedback shows.
"""

from __future__ import annotations

import copy
import json
import os
import re
import resource
import secrets
import shutil
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbclient.util import run_sync
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.api import Gradebook, Notebook
from nbgrader.preprocessors import Execute, NbGraderPreprocessor
from traitlets import Int, Unicode

from .judge import GONE, Judged, given, judged_beside
from .warm import AVAILABLE, Limits, WarmProvisioner, set_limits

GIVEN = "given-"  # how the ids of cells begin that the grader runs, too
ANSWER = "-answer"  # how the ids of cells end that a student writes, and tests judge
NOTES = "coursework"  # where a notebook's metadata hold what had to be done to it
MANY = 5  # cells of one notebook that hang or end the kernel, after which the rest is not run
MARK = "FEDECOUPLE_SUBMISSION"  # in the environment of a submission's processes
ROOM_FOR_OUTPUT = 5_000_000  # characters that the cells of one notebook may show, figures included

# A kernel tells its log where it listens, which is no news for who grades.
QUIET = ["--IPKernelApp.log_level=ERROR"]
GUARD = "from fedecouple_lite.coursework.answers import guard\nguard({folder!r})\ndel guard"
SERVE = "from fedecouple_lite.coursework.answers import serve\nserve({address!r}, {word!r})"


def add_note(nb: NotebookNode, words: str) -> None:
    """Keep in a submission, for the table of results, what had to be done to it."""
    notes = nb.metadata.setdefault(NOTES, NotebookNode()).setdefault("notes", [])
    if words not in notes:
        notes.append(words)


def first_line(source: str) -> str:
    """A cell's first line, by which it is known when all else is lost."""
    return source.strip().partition("\n")[0].strip()


# --- From a master to the students' version ---


class SetCourse(NbGraderPreprocessor):
    """Writes COURSE_SEED and DATASET into the cells that set them, and a number drawn anew where a hidden test has a
    line SECRET = ...: splits that nobody knows before, the same for a whole course."""

    seed = Int(2026, help="of this course: changes data, numbers and right answers").tag(config=True)
    dataset = Unicode("digits", help="digits or fashion_mnist").tag(config=True)

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        if cell.cell_type == "code":
            cell.source = re.sub(r"^COURSE_SEED = \d+", f"COURSE_SEED = {self.seed}", cell.source, flags=re.M)
            cell.source = re.sub(r"^SECRET = \d+", f"SECRET = {secrets.randbelow(2**31)}", cell.source, flags=re.M)
            cell.source = re.sub(r'^DATASET = "\w+"', f'DATASET = "{self.dataset}"', cell.source, flags=re.M)
        return cell, resources


# --- A submission, made whole ---


class MendCells(NbGraderPreprocessor):
    """Gives every cell that nbgrader knows its metadata back, and puts lost ones where they were, unanswered.

    A cell is found by its metadata, by its id, or by its first line, in this order.
    """

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        nbgrader = resources["nbgrader"]
        nb.metadata.pop(NOTES, None)  # what is noted is noted here
        with Gradebook(nbgrader["db_url"]) as gradebook:
            source = gradebook.find_notebook(nbgrader["notebook"], nbgrader["assignment"])
            mend(nb, known_cells(source))
        return nb, resources


def known_cells(source: Notebook) -> list[NotebookNode]:
    """The cells of an assignment's notebook that nbgrader knows, in order, as the students had them but for hidden
    tests, which are there."""
    points = {cell.name: cell.max_score for cell in source.grade_cells}
    answers = {cell.name for cell in source.solution_cells}
    cells = []
    for known in source.source_cells:
        new = nbformat.v4.new_code_cell if known.cell_type == "code" else nbformat.v4.new_markdown_cell
        cell = new(known.source, id=known.name)
        cell.metadata.nbgrader = {
            "grade": known.name in points,
            "grade_id": known.name,
            "locked": known.locked,
            "schema_version": 3,
            "solution": known.name in answers,
            "task": False,
            "cell_type": known.cell_type,
            "checksum": known.checksum,
        }
        if known.name in points:
            cell.metadata.nbgrader["points"] = points[known.name]
        cells.append(cell)
    return cells


def mend(nb: NotebookNode, known: list[NotebookNode]) -> None:
    """Give the cells of a submission that are `known` their metadata and their order, and add those that are not there.
    A student's own cells stay behind the known cell that they stood behind."""
    followers: dict[str, list[NotebookNode]] = {}  # by a known cell's id; "" for those before the first
    found: dict[str, NotebookNode] = {}
    free = list(nb.cells)
    for cell in known:
        same, note = find(cell, free)
        if note:
            add_note(nb, note)
        if same is None:
            same = nbformat.from_dict(cell)
        else:
            free = [other for other in free if other is not same]
            same.metadata.nbgrader = cell.metadata.nbgrader
        found[cell.metadata.nbgrader.grade_id] = same

    latest = ""
    order = []
    for cell in nb.cells:
        ids = [grade_id for grade_id, same in found.items() if same is cell]
        if ids:
            latest = ids[0]
            order.append(latest)
        else:
            cell.metadata.pop("nbgrader", None)  # a copy of a cell that was found, or of another notebook's
            followers.setdefault(latest, []).append(cell)
    if order != [grade_id for grade_id in found if grade_id in order]:
        add_note(nb, "cells were in another order")

    nb.cells = followers.get("", [])
    for grade_id, cell in found.items():
        nb.cells += [cell, *followers.get(grade_id, [])]


def id_of(cell: NotebookNode) -> Any:
    """The id that nbgrader's metadata give a cell; None where they are missing, or no metadata at all."""
    info = cell.metadata.get("nbgrader")
    return info.get("grade_id") if isinstance(info, dict) else None


def find(known: NotebookNode, cells: list[NotebookNode]) -> tuple[NotebookNode | None, str]:
    """Which of a submission's cells a known one is, or None; and what a lecturer should know of that, or ""."""
    wanted = known.metadata.nbgrader.grade_id
    for cell in cells:
        if id_of(cell) == wanted:
            return cell, ""
    for cell in cells:
        if wanted in (cell.get("id"), cell.metadata.get("id")):
            return cell, "metadata lost, found by the cell's id"
    for cell in cells:
        if first_line(cell.source) == first_line(known.source):
            return cell, "metadata lost, found by the cell's first line"
    return None, f"cell {wanted} was lost, and put back without an answer"


# --- A submission, run ---


class JudgedExecute(Execute):
    """Runs the student's cells in a kernel with limits, and judges them in this process.

    The kernel works in a folder of its own, and the course's is closed to it (see `answers.guard`). A cell that takes
    too long is interrupted; one that kills the kernel is left out: the kernel is started anew and the cells before are
    run again, so that the other tasks keep their points. `timeout`, of nbgrader, holds for each cell, and for all
    answers that one tests cell asks for together.
    """

    memory = Int(4096, help="MiB that a kernel may take").tag(config=True)
    file_size = Int(200, help="MiB that a file may have that a submission writes").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict, km: Any = None) -> tuple[NotebookNode, dict]:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.costly: list[int] = []  # cells that hung or ended the kernel: they are not run again
        self.printed = 0
        self.extra_arguments = list(QUIET)
        self.verdicts: dict[int, list[NotebookNode]] = {}
        database = resources["nbgrader"]["db_url"].removeprefix("sqlite:///")
        self.course = str(Path(database).resolve().parent)
        own = resources["metadata"]["path"]
        with (
            tempfile.TemporaryDirectory(prefix="submission-") as elsewhere,
            tempfile.TemporaryDirectory(prefix="kernel-") as self.sockets,
        ):
            shutil.copytree(own, elsewhere, ignore=shutil.ignore_patterns("*.ipynb"), dirs_exist_ok=True)
            resources["metadata"]["path"] = elsewhere
            self.mark = secrets.token_hex(16)
            try:
                nb, resources = super().preprocess(nb, resources, km)
                # A later cell may have updated what it takes for its own display.
                for index, outputs in self.verdicts.items():
                    nb.cells[index].outputs = outputs
                return nb, resources
            finally:
                resources["metadata"]["path"] = own
                end_processes(self.mark)

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        self._check_assign_resources(resources)
        if cell.cell_type != "code":
            return cell, resources
        if len(self.costly) > MANY:
            words = f"not run: {len(self.costly)} cells before it had hung, or ended the kernel"
            cell.outputs = [error_output("NotRun", words)]
            return cell, resources
        if is_tests(cell):
            self.judge(cell, index)
            return cell, resources
        if cell.metadata.get("nbgrader", {}).get("grade_id", "").startswith(GIVEN):
            given(cell.source, self.names)
        self.run_student(cell, index)
        return cell, resources

    def judge(self, cell: NotebookNode, index: int) -> None:
        """Judge a tests cell while the student's kernel answers; its outputs are the verdict."""
        seconds = float(self.timeout or 3600)
        with judged_beside(cell.source, self.names, seconds, self.pid) as (address, word, verdict):
            serving = nbformat.v4.new_code_cell(SERVE.format(address=address, word=word))
            self.timeout_func = lambda _: 3600  # the judge keeps the time: the tests themselves may take some
            try:
                self.run_student(serving, index)
            finally:
                self.timeout_func = None  # type: ignore[assignment]  # nbclient allows None, its annotation does not
            judged = verdict()
        if judged.error == GONE:
            self.costly.append(index)
        cell.outputs = outputs_of(judged, cell)
        self.verdicts[index] = copy.deepcopy(cell.outputs)
        self.nb.cells[index] = cell

    def run_student(self, cell: NotebookNode, index: int) -> None:
        """Run a cell in the student's kernel. Whatever it does, the kernel stands afterwards."""
        try:
            self.execute_cell(cell, index, store_history=True)
        except DeadKernelError:
            words = "the kernel died: out of memory, or ended by the cell's own code"
            cell.outputs = [error_output("KernelDied", words)]
            self.revive(index)
        except CellTimeoutError:
            words = f"not done within {self.timeout} seconds, nor to be stopped"
            cell.outputs = [error_output("NotStopped", words)]
            self.revive(index)
        else:
            if any(output.get("ename") == "CellTimeoutError" for output in cell.outputs):
                self.costly.append(index)

    def revive(self, index: int) -> None:
        """Start the kernel anew and run the student's cells before `index` again, those that killed it left out."""
        self.costly.append(index)
        add_note(self.nb, f"cell {index + 1} ended the kernel or could not be stopped")
        self._cleanup_kernel()
        self.km = self.create_kernel_manager()
        self.start_new_kernel()
        self.start_new_kernel_client()
        for earlier in range(index):
            cell = self.nb.cells[earlier]
            if cell.cell_type != "code" or is_tests(cell) or earlier in self.costly:
                continue
            again = nbformat.v4.new_code_cell(cell.source)
            try:
                self.execute_cell(again, earlier, store_history=True)
            except (DeadKernelError, CellTimeoutError):  # it was well-behaved before; once more would not help
                self.costly.append(earlier)
                return
            finally:
                self.nb.cells[earlier] = cell

    @property
    def pid(self) -> int | None:
        """The process of the student's kernel."""
        return getattr(self.km.provisioner, "pid", None)

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        own = self.resources["metadata"]["path"]  # what one submission puts into a profile must not start with the next
        marked = dict(os.environ) | {MARK: self.mark, "IPYTHONDIR": own, "PYTHONNOUSERSITE": "1"}
        # Not over TCP: a port that was free a moment ago may be taken when the kernel begins to listen, and then a
        # submission fails that has done nothing.
        self.km.transport = "ipc"
        self.km.ip = str(Path(self.sockets) / "line")
        if not AVAILABLE:
            await super().async_start_new_kernel(preexec_fn=partial(set_limits, self.limits()), env=marked, **kwargs)
            return
        who = {"kernel_id": self.km.kernel_id, "kernel_spec": self.km.kernel_spec, "parent": self.km}
        self.km.provisioner = WarmProvisioner(limits=self.limits(), **who)
        await super().async_start_new_kernel(env=marked, **kwargs)

    start_new_kernel = run_sync(async_start_new_kernel)

    async def async_start_new_kernel_client(self) -> Any:
        client = await super().async_start_new_kernel_client()
        await self.async_wait_for_reply(client.execute(GUARD.format(folder=self.course), silent=True))
        return client

    start_new_kernel_client = run_sync(async_start_new_kernel_client)

    def limits(self) -> Limits:
        """What a kernel's process may take, set before it runs a line of the submission."""
        return {
            resource.RLIMIT_DATA: self.memory * 2**20,
            resource.RLIMIT_FSIZE: self.file_size * 2**20,
            resource.RLIMIT_CORE: 0,
        }

    def output(self, outs: list, msg: dict, display_id: str, cell_index: int) -> Any:
        """Keep an output of the student's, until there is too much of it."""
        if self.printed > ROOM_FOR_OUTPUT:
            return None
        self.printed += len(json.dumps(msg["content"]))
        if self.printed > ROOM_FOR_OUTPUT:
            add_note(self.nb, f"printed more than {ROOM_FOR_OUTPUT} characters; the rest was dropped")
            return None
        return super().output(outs, msg, display_id, cell_index)


def end_processes(mark: str) -> None:
    """Kill what a submission has left running: every process that has inherited its mark."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                process.kill()


def is_tests(cell: NotebookNode) -> bool:
    """Whether a cell holds tests that nbgrader takes points from."""
    return cell.cell_type == "code" and utils.is_grade(cell) and not utils.is_solution(cell)


def outputs_of(judged: Judged, cell: NotebookNode) -> list[NotebookNode]:
    """A verdict as the outputs of a tests cell: nbgrader takes an error for no points, a number for so many."""
    most = float(cell.metadata.nbgrader.points)
    outputs = []
    if judged.printed:
        outputs.append(nbformat.v4.new_output("stream", name="stdout", text=judged.printed))
    if judged.error is not None:
        where = ""
        if judged.line is not None:
            line = cell.source.splitlines()[judged.line - 1].strip()
            where = f"seen in line {judged.line} of the tests: {line}"
        outputs.append(error_output(judged.error, judged.words or "", where))
    elif judged.number is not None:
        points = min(max(judged.number, 0.0), most) if judged.number == judged.number else 0.0  # NaN: none
        outputs.append(nbformat.v4.new_output("execute_result", data={"text/plain": repr(points)}))
    return outputs


def error_output(name: str, words: str, where: str = "") -> NotebookNode:
    """An error as a cell shows it."""
    lines = [f"{name}: {words}"]
    if where:
        lines.append(where)
    return nbformat.v4.new_output("error", ename=name, evalue=words, traceback=lines)


# --- What is said to the student ---


class SayWhatIsWrong(NbGraderPreprocessor):
    """After points are given: the words of tests that failed become the comment on the answer."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        nbgrader = resources["nbgrader"]
        place = (nbgrader["notebook"], nbgrader["assignment"], nbgrader["student"])
        with Gradebook(nbgrader["db_url"]) as gradebook:
            for answer, words in wrong_answers(nb).items():
                gradebook.find_comment(answer, *place).auto_comment = words
            gradebook.db.commit()
        return nb, resources


def wrong_answers(nb: NotebookNode) -> dict[str, str]:
    """What is wrong, by the id of the answer: a tests cell that fails speaks of the last answer before it."""
    words: dict[str, list[str]] = {}
    answer = None
    for cell in nb.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if grade_id.endswith(ANSWER):
            answer = grade_id
        if not is_tests(cell) or answer is None:
            continue
        of_answer = words.setdefault(answer, [])
        for said in what_is_said(cell):
            if said not in of_answer:
                of_answer.append(said)
    return {answer: "\n\n".join(of_answer) for answer, of_answer in words.items() if of_answer}


def what_is_said(cell: NotebookNode) -> list[str]:
    """What a tests cell says that gave less than all points: its error's words, or what it printed beside a number."""
    errors = [output.evalue for output in cell.outputs if output.output_type == "error"]
    if errors:
        return errors
    points, most = utils.determine_grade(cell)
    if points is None or points >= most:
        return []
    return [output.text.strip() for output in cell.outputs if output.output_type == "stream"]
