"""Files that are whole or not there: a reader, or a second run, never meets half of one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

ROOM = 2**20  # bytes that a disk must have to spare before a run begins; a run's file has fewer


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file beside `path`, which then takes its place in one step. If it fails, nothing is left.

    The name of the file beside it is this thread's own, so that two runs may write the same file at once. The folder
    must exist.
    """
    part = part_of(path)
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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
