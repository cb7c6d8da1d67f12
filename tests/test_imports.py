"""Where things live: imports point down only, and the core loads nothing that only the studies or the course need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "fedecouple_lite"

# From the ground up. A module may import from its own floor and from those below it.
FLOORS = (
    ("errors",),
    ("archives", "augment", "files", "tensors", "data", "losses", "metrics", "models", "partition", "precision"),
    ("hyper", "phases"),
    ("methods",),
    ("client",),
    ("stacked", "faults"),
    ("defence",),
    ("engine",),
    ("newcomers", "security"),
    ("__init__",),
    ("checkpoint",),
    ("studies",),
    ("flower",),
    ("course",),
    ("coursework",),
    ("__main__",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path.relative_to(LIBRARY) for path in LIBRARY.rglob("*.py"))
NAMES = {path.with_suffix("").parts for path in MODULES}


def room_of(module: tuple[str, ...]) -> str:
    """The room that a module lies in: its package, or itself in the flat core."""
    return module[0] if module else "__init__"


def imported_by(path: Path) -> set[tuple[str, ...]]:
    """Every module of the library that `path` imports, anywhere in it, also inside functions and for types only."""
    package = path.parent.parts
    imported = set()
    for node in ast.walk(ast.parse((LIBRARY / path).read_text())):
        if isinstance(node, ast.Import):
            absolute = [tuple(alias.name.split(".")) for alias in node.names]
            imported |= {parts[1:] for parts in absolute if parts[0] == "fedecouple_lite"}
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = tuple(node.module.split(".")) if node.module else ()
        if node.level:  # one dot is this package, each further one the package above
            target = (*package[: len(package) - (node.level - 1)], *parts)
        elif parts and parts[0] == "fedecouple_lite":
            target = parts[1:]
        else:
            continue
        # from package import name: the name may be a module of it.
        modules = {(*target, alias.name) for alias in node.names if (*target, alias.name) in NAMES}
        imported |= modules or {target}
    return imported


def test_every_module_has_a_floor():
    rooms = {room_of(path.with_suffix("").parts) for path in MODULES}
    assert rooms == set(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down(path):
    here = FLOOR_OF[room_of(path.with_suffix("").parts)]
    for target in imported_by(path):
        there = FLOOR_OF[room_of(target)]
        assert there <= here, f"{path} imports {'.'.join(target)}, which lies above it"


def graph() -> dict[str, set[str]]:
    """Module -> modules that it imports, in dots; a package stands for its __init__."""
    names = {".".join(path.with_suffix("").parts) for path in MODULES}
    arrows = {}
    for path in MODULES:
        arrows[".".join(path.with_suffix("").parts)] = targets = set()
        for target in imported_by(path):
            name = ".".join(target)
            targets |= {known for known in (name, f"{name}.__init__") if known in names}
    return arrows


def test_no_module_imports_itself_by_a_circle():
    """A floor may hold several modules that import each other in one direction only."""
    arrows = graph()
    while arrows:
        free = {name for name, targets in arrows.items() if not targets & arrows.keys()}
        assert free, f"these import each other in a circle: {sorted(arrows)}"
        arrows = {name: targets for name, targets in arrows.items() if name not in free}


def test_the_tests_own_reading_of_imports():
    """It sees what is there: a wrong reader would find nothing wrong."""
    assert {("client",), ("stacked",), ("methods",)} <= imported_by(Path("engine.py"))
    assert ("engine",) in imported_by(Path("studies/experiment.py"))
    assert ("studies", "ablation") in imported_by(Path("course/widgets.py"))
    assert ("losses",) in imported_by(Path("methods/fedecouple.py"))
    assert ("methods", "fedavg") in imported_by(Path("methods/fedecouple.py"))


def test_the_core_loads_neither_studies_nor_course_nor_what_only_they_need():
    code = "import sys, fedecouple_lite; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "fedecouple_lite.engine" in loaded
    for name in ("fedecouple_lite.studies", "fedecouple_lite.course", "matplotlib", "pandas", "umap", "IPython"):
        assert not [module for module in loaded if module == name or module.startswith(name + ".")], name
    for name in ("ipywidgets", "jupyter", "sklearn", "scipy", "flwr", "typer"):
        assert name not in loaded, name
