"""Builds wheel and sdist into dist/, and tries each in an environment that has nothing else of this project:

python .ci/dist.py
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from environments import empty_environment
from packages import KINDS, ROOT, build

DEMO = ("-m", "fedecouple_lite", "demo", "--seeds", "1", "--rounds", "2", "--embedding", "pca")


def try_out(package: Path) -> str:
    """Install a wheel or an sdist into an empty environment and run a short demo with it, far from any checkout; what
    the demo said. CalledProcessError where one of the two fails."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        python = empty_environment(home / "environment")
        # Nothing is downloaded: setuptools, which builds from the sdist, comes from the environment at hand, too.
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", package.resolve()]
        subprocess.run(install, cwd=home, check=True)
        where = [python, "-c", "import fedecouple_lite; print(fedecouple_lite.__file__)"]
        installed = subprocess.run(where, cwd=home, check=True, text=True, capture_output=True).stdout.strip()
        if not Path(installed).is_relative_to(home.resolve()):
            raise RuntimeError(f"{installed} was tried, not {package}")
        said = subprocess.run([python, *DEMO], cwd=home, check=True, text=True, stdout=subprocess.PIPE).stdout
        if "FedeCouple" not in said:
            raise RuntimeError(f"the demo says nothing of FedeCouple: {said}")
        return said


def main() -> None:
    """Build both, try both, and say how long it took."""
    for kind in KINDS:
        began = time.perf_counter()
        package = build(kind, ROOT / "dist")
        try_out(package)
        print(f"{package.relative_to(ROOT)}: installs and runs, {time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    main()
