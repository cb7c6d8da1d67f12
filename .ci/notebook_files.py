"""Notebooks as this project stores them."""

from __future__ import annotations

import json
from pathlib import Path


def lessons(root: Path) -> list[Path]:
    """The notebooks of the course in the checkout `root`, in order."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def read(path: Path) -> dict:
    """A notebook's content."""
    return json.loads(path.read_text(encoding="utf-8"))


def as_json(notebook: dict) -> str:
    """A notebook's text: one that is read and written again is the same to the byte."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
