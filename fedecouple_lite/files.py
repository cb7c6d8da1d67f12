"""Files that are whole or not there: a reader, or a second run, never meets half of one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file beside `path`, which then takes its place in one step. If it fails, nothing is left.

    The name of the file beside it is this thread's own, so that two runs may write the same file at once. The folder
    must exist.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
