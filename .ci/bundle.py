"""Writes dist/fedecouple-lite-course.zip, the course for a Jupyter that has no address to install it from:

python .ci/bundle.py

It holds the wheel and the notebooks, with their drawings in them. pip installs the whole archive as it is, by the few
lines of `TAKE_WHEEL`; the set-up cell of a notebook does so. The same content gives the same bytes.
"""

from __future__ import annotations

import base64
import re
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from notebook_files import as_json, lessons, read
from packages import ROOT, build
from pictures import png

NAME = "fedecouple-lite-course.zip"
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # that an archive can hold

README = """The course on personalized federated learning, for Colab and any hosted Jupyter

Colab
  1. Open a notebook of the folder "notebooks": File, Upload notebook.
  2. Upload fedecouple-lite-course.zip into the folder symbol's pane (Files). Or keep it in the top folder of your
     Google Drive and mount Drive: then it is there the next time, too.
  3. Run the cells from the top. The first one installs the package from the archive and leaves Colab's torch alone.

JupyterHub and others
  Unpack the archive where your notebooks are, and open "notebooks". Or upload the archive beside a notebook.
  What the package needs, PyTorch first of all, is not installed along. Where it is missing:
      pip install fedecouple-lite-course.zip
  If the package is not found right after it was installed, restart the kernel once.

From a repository
  Write %env FEDECOUPLE_REPO=owner/name into a cell above the first one: the package is then installed from that
  repository on GitHub. Any address that pip understands will do as well.
"""

PYPROJECT = """# pip install fedecouple-lite-course.zip: nothing is built, the wheel beside this file is taken.
[build-system]
requires = []
build-backend = "take_wheel"
backend-path = ["."]
"""

TAKE_WHEEL = '''"""Gives pip the wheel that lies beside this file."""

import shutil
from pathlib import Path


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Put the wheel where pip wants it; its name."""
    (wheel,) = Path(__file__).parent.glob("*.whl")
    shutil.copy(wheel, wheel_directory)
    return wheel.name
'''


def make_bundle(folder: Path) -> Path:
    """Write the bundle into `folder`; its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(contents().items()):
            entry = zipfile.ZipInfo(name, FIRST_DATE)
            entry.external_attr = 0o644 << 16  # who may read it, once unpacked
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def contents() -> dict[str, str | bytes]:
    """Everything in the bundle, by its name there."""
    files: dict[str, str | bytes] = {"README.txt": README, "pyproject.toml": PYPROJECT, "take_wheel.py": TAKE_WHEEL}
    with TemporaryDirectory() as folder:
        wheel = build("wheel", Path(folder))
        files[wheel.name] = wheel.read_bytes()
    for path in lessons(ROOT):
        files[f"notebooks/{path.name}"] = with_drawings(path)
    return files


def with_drawings(path: Path) -> str:
    """A notebook as JSON, each drawing that its text cells show from a file now in the text itself, as PNG."""
    notebook = read(path)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = [drawings_inside(line, path.parent) for line in cell["source"]]
    return as_json(notebook)


def drawings_inside(line: str, folder: Path) -> str:
    """A line of Markdown with `![words](drawings/name.svg)`, of `folder`, as `![words](data:...)`."""

    def inside(match: re.Match[str]) -> str:
        svg = (folder / match[1]).read_text(encoding="utf-8")
        return f"](data:image/png;base64,{base64.b64encode(png(svg)).decode()})"

    return re.sub(r"\]\((drawings/[^)]+\.svg)\)", inside, line)


def main() -> None:
    """Write the bundle into dist/ and say so."""
    path = make_bundle(ROOT / "dist")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
