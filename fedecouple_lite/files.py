"""Files that are whole or not there: a reader, or a second run, never meets half of one."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOM = 2**20  # bytes that a disk must have to spare before a run begins; a run's file has fewer


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file beside `path`, which then takes its place in one step. If it fails, nothing is left.

    Once this returns, the file is on the disk, not only on its way there. The name of the file beside it is this
    thread's own, so that two runs may write the same file at once. The folder must exist.
    """
    part = part_of(path)
    try:
        write(part)
        send_to_disk(part)  # before it gets its name: a power cut must not leave the name with half a file
        os.replace(part, path)
    except OSError as error:
        if error.filename is None:  # a full disk does not say of what
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)
    with suppress(OSError):  # not every system opens folders; the file is whole, whether or not its name is safe yet
        send_folder_to_disk(path.parent)


def send_to_disk(path: Path) -> None:
    """Return when the content of this file is on the disk. OSError where it does not fit there."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def send_folder_to_disk(folder: Path) -> None:
    """Return when the names of the files in this folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: Path) -> None:
    """Make the folder of `path`, and raise ValueError where `write_whole` could not write there: what is there is no
    file, its folder cannot be written in, its name is too long, or the disk is full.

    A file that is there stays as it is.
    """
    part = part_of(path)
    try:
        is_folder = path.is_dir()
        is_device = path.exists() and not is_folder and not path.is_file()
        if not is_folder and not is_device:  # a device, such as /dev/null, would be replaced by a file
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(bytes(ROOM))
            finally:
                part.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise ValueError(f"out={str(path)!r} cannot be written: {error}") from None
    if is_folder or is_device:
        kind = "a folder" if is_folder else "a device"
        raise ValueError(f"out={str(path)!r} is {kind}; it must be the path of a file")


def part_of(path: Path) -> Path:
    """The file beside `path` that this thread writes first."""
    return path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")


def remove_abandoned(path: Path) -> None:
    """Remove what processes that were killed have left beside `path`: their parts of files that are named as it is, up
    to the suffix."""
    for file in list(path.parent.iterdir()):
        written_by = re.fullmatch(re.escape(path.stem) + r"(?:\..+)?\.(\d+)-\d+\.part", file.name)
        if written_by is not None and is_gone(int(written_by[1])):
            file.unlink(missing_ok=True)


def is_gone(process: int) -> bool:
    """Whether there is no process with this number; False where that cannot be told.

    Examples
    --------
    >>> is_gone(os.getpid())
    False
    """
    if os.name == "nt":  # signal 0 would end it there
        return False
    try:
        os.kill(process, 0)  # nothing is sent: it is only looked up
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
