"""Environments for trials: without this project, with all else that the environment at hand has."""

from __future__ import annotations

import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

OWN = ("fedecouple", "__editable__")  # how this project's entries in site-packages begin


def empty_environment(folder: Path, before: Sequence[Path] = ()) -> Path:
    """Make a virtual environment in `folder` in which this project is not installed; its Python.

    PyTorch and all others are linked from the environment at hand: nobody wants to download them again. What lies in
    the folders `before` is found before them.
    """
    folder = folder.resolve()
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)  # pip is linked, too
    others = folder / "others"
    others.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        is_own = entry.name.startswith(OWN)
        if not is_own and entry.suffix != ".pth":
            (others / entry.name).symlink_to(entry)
    lines = [str(path.resolve()) for path in (*before, others)]
    (site_packages(folder) / "others.pth").write_text("\n".join(lines) + "\n")
    return folder / "bin" / "python"


def site_packages(folder: Path) -> Path:
    """Where pip puts what it installs into the virtual environment in `folder`."""
    return Path(sysconfig.get_path("purelib", scheme="venv", vars={"base": str(folder), "platbase": str(folder)}))
