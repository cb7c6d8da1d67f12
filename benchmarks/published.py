"""Where the published figures lie, and what is written beside them."""

import json
import platform
from pathlib import Path
from typing import Any

import torch

import fedecouple_lite

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"  # the table of `make demo`
PAGE = ROOT / "docs" / "results.md"  # all other tables
RESULTS = ROOT / "data" / "results"
RUNS = ROOT / "runs"  # finished runs, read back by a second call


def versions() -> dict[str, str]:
    """What the figures depend on, besides settings and hardware."""
    return {
        "fedecouple_lite": fedecouple_lite.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_about(path: Path, about: dict[str, Any]) -> None:
    """Write settings, versions and command beside the figures, as JSON."""
    path.write_text(json.dumps(about, indent=1) + "\n")
