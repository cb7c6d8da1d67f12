"""Pages of the reference: one for each module, ordered by the floors of the library, and one for the command line."""

import importlib
import pkgutil
from pathlib import Path

from executed import write_if_new

import fedecouple_lite

# From the ground up; a name that ends in a dot stands for all modules under it.
FLOORS = {
    "The ground": (
        "errors",
        "files",
        "archives",
        "tensors",
        "precision",
        "models",
        "losses",
        "data",
        "partition",
        "metrics",
        "augment",
    ),
    "What a method is": ("hyper", "phases", "methods."),
    "One client's round": ("client",),
    "Many clients, and rounds": ("stacked", "faults", "defence", "engine"),
    "Clients that come later": ("newcomers",),
    "Security and privacy": ("security.",),
    "A run as one file": ("checkpoint",),
    "Studies": ("studies.",),
    "On Flower": ("flower.",),
    "The course": ("course.",),
    "Coursework": ("coursework.",),
}
COMMAND_LINE = "__main__"


def modules() -> list[str]:
    """All modules of the package, without the first name: "engine", "methods.fedavg"."""
    names = [found.name for found in pkgutil.walk_packages(fedecouple_lite.__path__, "fedecouple_lite.")]
    return [name.removeprefix("fedecouple_lite.") for name in names]


def on_floor(names: tuple[str, ...]) -> list[str]:
    """The modules that a floor's names stand for, a package before what is in it."""
    found = []
    for name in names:
        if name.endswith("."):
            package = name[:-1]
            found += [package, *sorted(module for module in modules() if module.startswith(name))]
        else:
            found.append(name)
    return found


def first_sentence(docstring: str | None) -> str:
    """What a docstring opens with, without its full stop."""
    paragraph = " ".join((docstring or "").strip().split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")


def about(module: str) -> str:
    """What a module says of itself."""
    return first_sentence(importlib.import_module(f"fedecouple_lite.{module}").__doc__)


def write_pages(folder: Path) -> None:
    """Write the pages; one whose module is gone goes, too. ValueError where a module is on no floor."""
    placed = [module for names in FLOORS.values() for module in on_floor(names)]
    missing = sorted(set(modules()) - {*placed, COMMAND_LINE})
    if missing:
        raise ValueError(f"docs/reference.py: FLOORS has no place for {', '.join(missing)}")
    folder.mkdir(exist_ok=True)
    pages = {f"fedecouple_lite.{module}.md": page_of(module) for module in placed}
    pages["command_line.md"] = command_line()
    pages["index.md"] = index()
    for old in set(folder.iterdir()) - {folder / name for name in pages}:
        old.unlink()
    for name, text in pages.items():
        write_if_new(text, folder / name)


def page_of(module: str) -> str:
    """One module's page."""
    name = f"fedecouple_lite.{module}"
    found = vars(importlib.import_module(name))
    foreign = [key for key, value in found.items() if getattr(value, "__module__", name) != name]
    directive = f".. automodule:: {name}\n   :members:\n   :exclude-members: {', '.join(foreign)}\n"
    return f"# `{name}`\n\n```{{eval-rst}}\n{directive}```\n"


def index() -> str:
    """The reference's first page: what `import fedecouple_lite` gives, then the floors."""
    lines = ["# Reference", "", "From the ground up; each floor imports from those above it in this list only.", ""]
    lines += ["What most programs need comes with `import fedecouple_lite`:", "", *top_names(), ""]
    for title, names in FLOORS.items():
        lines += [f"## {title}", ""]
        found = on_floor(names)
        lines += [f"- [`{module}`](fedecouple_lite.{module}.md): {about(module)}" for module in found]
        lines += ["", "```{toctree}", ":hidden:", ""]
        lines += [f"{module} <fedecouple_lite.{module}>" for module in found]
        lines += ["```", ""]
    lines += ["## The command line", "", "- [`python -m fedecouple_lite`](command_line.md): all commands and flags", ""]
    lines += ["```{toctree}", ":hidden:", "", "Command line <command_line>", "```", ""]
    return "\n".join(lines)


def top_names() -> list[str]:
    """One line for each name that the package gives directly, with a link to where it is described."""
    lines = []
    for name in fedecouple_lite.__all__:
        obj = getattr(fedecouple_lite, name)
        home = getattr(obj, "__module__", None)
        if home is None or not home.startswith("fedecouple_lite"):  # a constant, which has no home of its own
            continue
        role = "class" if isinstance(obj, type) else "func"
        lines.append(f"- {{py:{role}}}`{name} <{home}.{name}>`: {first_sentence(obj.__doc__)}")
    return lines


def command_line() -> str:
    """`--help` of every command."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from fedecouple_lite.__main__ import app

    wide = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    lines = ["# The command line", "", "`python -m fedecouple_lite COMMAND --help` prints the same.", ""]
    for name in get_command(app).commands:
        shown = CliRunner().invoke(app, [name, "--help"], env=wide, prog_name="python -m fedecouple_lite")
        lines += [f"## {name}", "", "```text", shown.output.strip(), "```", ""]
    return "\n".join(lines)
