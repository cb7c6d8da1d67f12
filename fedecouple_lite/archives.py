"""An ``.npz`` looked at before its arrays are unpacked: a file from elsewhere may be small, and fill the memory.

An ``.npz`` is a zip archive of ``.npy`` files. Its directory says how large each is when it is unpacked, and the first
bytes of each say which array it holds; both can be read in no time, and must agree.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

SMALL = 2**28  # bytes, unpacked, that are never too many: repetitive labels and blank images are packed tightly, too
TIGHTEST = 200  # times smaller than unpacked. Photographs and handwriting reach 10, deflated zeros 1,000.
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def check_npz(path: Path, names: Iterable[str]) -> None:
    """Raise ValueError where the arrays `names` of an ``.npz`` cannot be what they say they are, or are too large to be
    unpacked here. Names that it lacks are passed over, and so is a file that is no zip archive: its reader says so.

    Too large is more than this machine's memory; or more than SMALL bytes that are packed more than TIGHTEST times
    smaller, as no images are, and as a file made to fill the memory is.
    """
    if not zipfile.is_zipfile(path):
        return
    unpacked = 0
    with zipfile.ZipFile(path) as archive:
        there = set(archive.namelist())
        for name in names:
            if f"{name}.npy" in there:
                unpacked += checked_size(archive, name)
    memory = memory_of_machine()
    if memory is not None and unpacked > memory:
        raise ValueError(f"its arrays take {in_gigabytes(unpacked)}, and this machine has {in_gigabytes(memory)}")
    packed = max(1, path.stat().st_size)
    if unpacked > SMALL and unpacked > TIGHTEST * packed:
        times = unpacked // packed
        raise ValueError(f"its arrays take {in_gigabytes(unpacked)}, {times:,} times the file: no images are so alike")


def checked_size(archive: zipfile.ZipFile, name: str) -> int:
    """Bytes of one array, unpacked, by the archive's directory; ValueError where the array's own header says
    otherwise."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as content:
        in_header = size_in_header(content)
        if in_header is None:
            return member.file_size
        expected = content.tell() + in_header
    if member.file_size != expected:
        raise ValueError(
            f"{name} says that it has {expected:,} bytes, and the archive that it has {member.file_size:,}"
        )
    return member.file_size


def size_in_header(content: IO[bytes]) -> int | None:
    """Bytes of the array that follows in an ``.npy`` file, by its header; the place in the file is then behind it. None
    for an array of Python objects, whose size nobody knows beforehand, and which is never read."""
    read_header = HEADERS.get(np.lib.format.read_magic(content))
    if read_header is None:
        return None
    shape, _, dtype = read_header(content)
    return None if dtype.hasobject else prod(shape) * dtype.itemsize


def memory_of_machine() -> int | None:
    """Bytes of this machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def in_gigabytes(size: int) -> str:
    """A number of bytes in words."""
    return f"{size / 1e9:.1f} GB"
