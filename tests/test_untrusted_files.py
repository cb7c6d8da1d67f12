"""Files from elsewhere: nothing in them is run, none fills the memory, and commands write where they were told."""

import io
import os
import re
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import nbformat
import numpy as np
import pytest

from fedecouple_lite import archives, load
from fedecouple_lite.archives import check_npz

ROOT = Path(__file__).resolve().parents[1]
# Who may write with pickle: what never is read again, and what the grader says to a process of its own.
WRITERS = {
    "fedecouple_lite/studies/fingerprints.py",  # bytes to take a digest of
    "fedecouple_lite/coursework/contest.py",
    "fedecouple_lite/coursework/judge.py",
}
# Who may read it: the process that runs a student's code, from a pipe whose other end only the grader has. What it
# answers is read as plain data (see `coursework.wire`).
READERS = {"fedecouple_lite/coursework/contestant.py", "fedecouple_lite/coursework/answers.py"}
READS = re.compile(
    r"pickle\.(loads?|Unpickler)\b|torch\.load\b|joblib|allow_pickle=True|read_pickle|shelve|marshal|dill|yaml\.load"
)
WRITES = re.compile(r"pickle\.(dumps?|Pickler)\b|torch\.save\b|to_pickle")


def programs():
    """Our code outside of tests: path from the top -> text; notebooks, too."""
    found = {}
    for folder in ("fedecouple_lite", "benchmarks", ".ci", "docs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_build" not in path.parts:
                found[path.relative_to(ROOT).as_posix()] = path.read_text()
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        found[path.relative_to(ROOT).as_posix()] = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return found


def test_no_file_and_no_stranger_is_ever_unpickled():
    texts = programs()
    assert len(texts) > 60
    assert {name for name, text in texts.items() if READS.search(text)} == READERS
    assert {name for name, text in texts.items() if WRITES.search(text)} == WRITERS


@pytest.mark.parametrize(
    "line", ["pickle.load(file)", "torch.load(path)", "np.load(path, allow_pickle=True)", "pd.read_pickle(path)"]
)
def test_the_search_would_find_it(line):
    assert READS.search(line)


# --- Archives that are too large ---


def npy_header(shape, dtype="uint8"):
    """The first bytes of an .npy file."""
    header = io.BytesIO()
    about = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def write_bomb(path, name, shape, said_size=None):
    """An .npz with one array of zeros, never in memory: the same packed megabytes again and again. said_size: what the
    archive's directory claims, where it lies."""
    size = int(np.prod(shape))
    block = 2**24
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    header = npy_header(shape)
    first = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(size % block)) + packer.flush()
    packed = first + again * (size // block) + rest
    member = zipfile.ZipInfo(f"{name}.npy")
    member.compress_type = zipfile.ZIP_DEFLATED
    member.file_size = len(header) + size if said_size is None else said_size
    member.compress_size = len(packed)
    member.header_offset = 0
    member.CRC = 0  # not the right one: it would be compared at the end of ten gigabytes
    with zipfile.ZipFile(path, "w") as archive:  # its own way in would unpack what it is given
        archive.fp.write(member.FileHeader(zip64=True) + packed)
        archive.filelist.append(member)
        archive.NameToInfo[member.filename] = member
        archive.start_dir = archive.fp.tell()
        archive._didModify = True
    return path


def test_ten_gigabytes_of_zeros_are_refused_at_once(tmp_path):
    path = write_bomb(tmp_path / "bomb.npz", "x_train", (10_000_000, 10, 100))
    with np.load(path) as made:  # that it is an archive as NumPy reads them
        assert made.files == ["x_train"]
    assert path.stat().st_size < 2e7
    began = time.perf_counter()
    with pytest.raises(ValueError, match=r"bomb\.npz' cannot be used: its arrays take 10\.0 GB"):
        load(path)
    assert time.perf_counter() - began < 1


def test_zeros_are_refused_on_a_machine_with_memory_for_them(tmp_path, monkeypatch):
    path = write_bomb(tmp_path / "bomb.npz", "x_train", (10_000_000, 10, 100))
    monkeypatch.setattr(archives, "memory_of_machine", lambda: None)
    with pytest.raises(ValueError, match=r"take 10\.0 GB, 1,0\d\d times the file"):
        check_npz(path, ["x_train"])


def test_what_does_not_fit_into_the_memory_is_refused_however_it_is_packed(tmp_path, monkeypatch):
    path = tmp_path / "noise.npz"
    np.savez(path, x_train=np.random.default_rng(0).integers(0, 255, (100, 100)))
    monkeypatch.setattr(archives, "memory_of_machine", lambda: 79_999)
    with pytest.raises(ValueError, match=r"this machine has 0\.0 GB"):
        check_npz(path, ["x_train"])
    monkeypatch.setattr(archives, "memory_of_machine", lambda: 80_200)  # and the header's
    check_npz(path, ["x_train"])


@pytest.mark.parametrize("said", [100_000, 10**6])
def test_an_archive_that_lies_about_an_array_is_refused(tmp_path, said):
    path = write_bomb(tmp_path / "liar.npz", "x_train", (500, 10, 100), said_size=said)
    with pytest.raises(ValueError, match=rf"x_train says that it has 500,128 bytes, and the archive .*{said:,}"):
        check_npz(path, ["x_train"])


def test_blank_images_and_other_arrays_in_the_archive_are_no_harm(tmp_path):
    few = tmp_path / "blank.npz"
    np.savez_compressed(few, x_train=np.zeros((1000, 28, 28), np.uint8), y_train=np.zeros(1000, int))
    check_npz(few, ["x_train", "y_train", "x_test"])
    with zipfile.ZipFile(few) as archive:
        tightly = sum(info.file_size for info in archive.infolist()) / few.stat().st_size
    assert tightly > archives.TIGHTEST
    check_npz(write_bomb(tmp_path / "bomb.npz", "x_train", (10_000_000, 10, 100)), ["y_train"])  # is not read


def test_what_is_no_archive_is_left_to_its_reader(tmp_path):
    path = tmp_path / "words.npz"
    path.write_bytes(b"no archive")
    check_npz(path, ["x_train"])


def test_the_size_of_an_array_of_objects_is_not_asked_for(tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, x_train=np.array([{"a": 1}], dtype=object))
    check_npz(path, ["x_train"])
    with pytest.raises(ValueError, match="lacks y_train"):
        load(path)


def test_a_huge_notebook_is_no_submission(tmp_path):
    pytest.importorskip("nbgrader", reason="no nbgrader here: make .venv/.coursework")
    from fedecouple_lite.coursework.course import LARGEST_NOTEBOOK, read

    path = tmp_path / "huge.ipynb"
    with open(path, "wb") as file:
        file.truncate(LARGEST_NOTEBOOK + 2**20)  # of nothing: it takes no place on the disk
    began = time.perf_counter()
    with pytest.raises(ValueError, match=r"huge\.ipynb is no notebook: it has 129 MiB; at most 128 are read"):
        read(path)
    assert time.perf_counter() - began < 1


# --- Where commands write ---

# Every Python below notes what it opens for writing, makes, moves and removes.
WATCH = """
import os, sys
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
notes = os.open(os.environ["WRITTEN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")

def note(event, arguments):
    changes = event in CHANGES
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    if not changes and not writes:
        return
    paths = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
    for path in paths:
        if isinstance(path, (str, bytes)):
            os.write(notes, os.path.realpath(os.fsdecode(path)).encode() + b"\\n")

sys.addaudithook(note)
"""
SMALL = ("--clients", "4", "--per-client", "40", "--rounds", "2", "--epochs", "1")


def written_by(words, tmp_path, cwd):
    """Every path that a command has written, apart from the folders for what is temporary or can be made again."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WATCH)
    notes = tmp_path / "notes"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCH")}  # its own folders
    env = {**inherited, "PYTHONPATH": str(hooks), "WRITTEN": str(notes), "PYTHONDONTWRITEBYTECODE": "1"}
    allowed = [Path("/dev")]
    for variable in ("TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "HOME"):
        folder = tmp_path / variable
        folder.mkdir()
        env[variable] = str(folder)
        if variable != "HOME":
            allowed.append(folder)
    command = [sys.executable, "-m", "fedecouple_lite", *words]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    paths = {Path(line) for line in notes.read_text().splitlines()}
    return {path for path in paths if not any(path.is_relative_to(folder) for folder in allowed)}


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--method", "fedecouple", *SMALL, "--checkpoint-every", "1"),
        ("benchmark", "--methods", "fedavg,fedrep", "--seeds", "1", "--rounds", "1"),
    ],
    ids=lambda words: words[0],
)
def test_a_command_writes_nowhere_but_where_it_was_told(tmp_path, words):
    here = tmp_path / "here"
    here.mkdir()
    told = tmp_path / "told"
    told.mkdir()
    out = told / "metrics.json" if words[0] == "run" else told
    written = written_by((*words, "--out", str(out)), tmp_path, here)
    assert written, "the watch sees nothing"
    assert [path for path in written if not path.is_relative_to(told.resolve())] == []
    assert list(here.iterdir()) == []
