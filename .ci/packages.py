"""Builds the wheel and the sdist from a copy of what belongs to them, so that nothing else gets in.

It needs no network. The same content gives the same bytes of a wheel: dates and permissions are fixed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
CONTENT = ("fedecouple_lite", "data/results", "pyproject.toml", "README.md", "LICENSE")
FIRST_DATE = "315532800"  # 1 January 1980, the first that an archive can hold, in seconds
KINDS = ("wheel", "sdist")


def build(kind: str, folder: Path) -> Path:
    """Build a "wheel" or an "sdist" into `folder`; its file. RuntimeError, with setuptools' words, where that fails."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(KINDS)}")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as home:
        copy_content(Path(home))
        # What pip and build call in a folder with a pyproject.toml. The name comes last.
        code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder.resolve())!r}))"
        command = [sys.executable, "-W", "ignore", "-c", code]
        env = os.environ | {"SOURCE_DATE_EPOCH": FIRST_DATE}
        said = subprocess.run(command, cwd=home, env=env, umask=0o022, text=True, capture_output=True)
    if said.returncode:
        raise RuntimeError(f"setuptools cannot build the {kind}:\n{said.stderr}")
    return folder / said.stdout.split()[-1]


def copy_content(home: Path) -> None:
    """Copy what belongs to the package, with the same permissions everywhere."""
    for name in CONTENT:
        source, target = ROOT / name, home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, target, ignore=unwanted, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, target)
    for path in home.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
