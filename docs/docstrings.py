"""Our docstrings are prose with `code` in backticks, lists, and Examples: here they become what Sphinx reads."""

import inspect
import re
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode

from fedecouple_lite.hyper import allowed, hypers

CODE = re.compile(r"(``.+?``|`[^`]+`)")


def readable(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Change a docstring's lines in place. Mark-up of reStructuredText is not meant; names of arguments, where they are
    explained, become code; a method's hyper-parameters become a table."""
    arguments = names_of(obj)
    changed: list[str] = []
    in_example = False
    for line in escaped_paragraphs(lines):
        if re.fullmatch(r"\s*-{4,}", line) and changed and changed[-1].strip() == "Examples":
            changed[-1:] = [".. rubric:: Examples", ""]
            continue
        if line.lstrip().startswith(">>>"):
            in_example = True
        elif not line.strip():
            in_example = False
        changed.append(line if in_example else with_names(line, arguments))
    lines[:] = changed
    if what == "class":
        bases = [base for base in obj.__bases__ if base.__module__.startswith("fedecouple_lite")]
        lines += [f"Inherits from :py:class:`~{base.__module__}.{base.__qualname__}`." for base in bases] + [""]
    if what == "class" and hypers_of(obj):
        lines += table_of(obj)


def escaped_paragraphs(lines: Iterable[str]) -> list[str]:
    """The lines, with mark-up that is not meant taken away everywhere but in examples. A code span may go over two
    lines."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    changed: list[str] = []
    for paragraph in paragraphs:
        is_example = any(line.lstrip().startswith(">>>") for line in paragraph)
        changed += paragraph if is_example else escaped("\n".join(paragraph)).split("\n")
        changed.append("")
    return changed


def escaped(text: str) -> str:
    """Text in which backticks alone mean anything."""
    pieces = CODE.split(text)  # every other one is a code span
    for i, piece in enumerate(pieces):
        if i % 2:
            pieces[i] = "``" + " ".join(piece.strip("`").split()) + "``"
        else:
            pieces[i] = re.sub(r"[\\*|]|_(?!\w)", lambda match: "\\" + match[0], piece)
    return "".join(pieces)


def with_names(line: str, names: Iterable[str]) -> str:
    """A line in which a name before a colon, or several, are set as code: `alpha: from 1e-8 ...`."""
    name = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    if not name:
        return line
    before_colon = rf"(?<![\w`.])(?:(?:{name}), )*(?:{name})(?=: )"
    return re.sub(before_colon, lambda match: ", ".join(f"``{one}``" for one in match[0].split(", ")), line)


def names_of(obj: Any) -> list[str]:
    """The names that a docstring may explain: of arguments, or of a class's fields."""
    try:
        names = list(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        names = []
    return [*names, *getattr(obj, "__annotations__", {})] if isinstance(obj, type) else names


# --- Hyper-parameters ---


def hypers_of(kind: Any) -> dict[str, Any]:
    """Hyper-parameters of a method's class; of anything else none."""
    try:
        return hypers(kind)
    except TypeError:
        return {}


def table_of(method: type) -> list[str]:
    """All of a method's hyper-parameters, those of its base too."""
    rows = [("hyper-parameter", "default", "meaning", "allowed", "tuning tries")]
    for name, field in hypers(method).items():
        tries = ", ".join("none" if value is None else str(value) for value in field.metadata["tries"])
        default = "none" if field.default is None else str(field.default)
        meaning = escaped(field.metadata["meaning"])
        rows.append((f"``{name}``", default, meaning, allowed(field), tries or "the default"))
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for i, cell in enumerate(row):
            lines.append(("   * - " if i == 0 else "     - ") + cell)
    return [*lines, ""]


# --- Signatures ---


def signature_as_written(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Types as the source has them: `Tensors`, not the dictionary that it stands for."""
    if signature is None or what not in ("function", "method", "class"):
        return None
    found = inspect.signature(obj)
    parameters = list(found.parameters.values())
    if what == "method" and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    text = stringify_signature(found.replace(parameters=parameters))
    arguments, _, result = text.rpartition(" -> ") if " -> " in text else (text, "", "")
    return arguments, None if what == "class" else result or None


def link_to_ours(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.Element | None:
    """A bare name in a signature: a link where exactly one class of ours is called so, plain text otherwise."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or target.startswith("fedecouple_lite"):
        return None  # a link that somebody wrote: it has to be right
    found = []
    for full_name, entry in env.domains.python_domain.objects.items():
        if full_name.rpartition(".")[2] == target and entry.objtype in ("class", "exception"):
            found.append((full_name, entry))
    if len(found) != 1:
        return text
    ((full_name, entry),) = found
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, [text], full_name)
