"""Writes where this project lives on GitHub, everywhere that this is said, or takes it away again:

python .ci/address.py owner/name
python .ci/address.py ""

That is: a badge that opens it on Colab, in every notebook's first cell and in README.md between `<!-- badge -->` and
`<!-- /badge -->`, if it has these; the address from which a set-up cell installs; `repository-code` in CITATION.cff.
Without an address nothing of this is there, and nothing is installed from the network: an address that is not ours
could be anybody's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from notebook_files import as_json, lessons, read
from packages import ROOT

COLAB = "https://colab.research.google.com"
DEFAULT = re.compile(r'(?<=^REPO = os\.environ\.get\("FEDECOUPLE_REPO", ")[^"]*', re.M)  # in a set-up cell
BADGE = re.compile(r"\[!\[Open in Colab\][^\n]*")
IN_README = re.compile(r"(?<=<!-- badge -->).*?(?=<!-- /badge -->)")
IN_CITATION = re.compile(r"^repository-code: .*\n", re.M)
OWNER = r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}"  # as GitHub allows
NAME = r"[A-Za-z0-9._-]{1,100}"


def check(repo: str) -> None:
    """ValueError where `repo` is neither empty nor owner/name of a repository on GitHub."""
    is_name = re.fullmatch(f"{OWNER}/{NAME}", repo) is not None
    is_special = repo.endswith(("/.", "/..", ".git"))
    if repo and (not is_name or is_special):
        raise ValueError(f"REPO={repo!r} must be owner/name of a repository on GitHub, or empty for none")


def write_address(root: Path, repo: str) -> list[Path]:
    """Write `repo`, owner/name or "" for none, into the files of the checkout `root`; those that changed.

    ValueError for anything else, before any work.
    """
    check(repo)
    texts = {}
    for path, rewrite in places(root):
        texts[path] = rewrite(path, repo)
    changed = [path for path, text in texts.items() if text != path.read_text(encoding="utf-8")]
    for path in changed:
        path.write_text(texts[path], encoding="utf-8")
    return changed


def address(root: Path) -> str:
    """The address that the checkout `root` says now, as its first notebook's set-up cell has it; "" for none."""
    set_up = "".join(read(lessons(root)[0])["cells"][1]["source"])
    match = DEFAULT.search(set_up)
    return match[0] if match else ""


def places(root: Path) -> list[tuple[Path, Callable[[Path, str], str]]]:
    """Every file that says the address, and the function (path, repo) -> its text with it."""
    masters = sorted((root / "notebooks" / "assignments" / "source").glob("*/*.ipynb"))
    found: list[tuple[Path, Callable[[Path, str], str]]] = []
    found += [(path, lesson) for path in lessons(root)]
    found += [(path, master) for path in masters]
    found += [(root / "README.md", readme), (root / "CITATION.cff", citation)]
    return found


def lesson(path: Path, repo: str) -> str:
    """A notebook of the course: a badge below its title, and the default in its set-up cell."""
    notebook = read(path)
    opening = notebook["cells"][0]
    opening["source"] = with_badge(opening["source"], badge(repo, path.name))
    return as_json(with_default(notebook, repo))


def master(path: Path, repo: str) -> str:
    """An assignment: the default in its set-up cell. Students get another file than this one: no badge."""
    return as_json(with_default(read(path), repo))


def readme(path: Path, repo: str) -> str:
    """README.md: the first notebook's badge between its two marks, where it has them."""
    return IN_README.sub(badge(repo, "00_start_here.ipynb"), path.read_text(encoding="utf-8"))


def citation(path: Path, repo: str) -> str:
    """CITATION.cff: the repository, below the kind of work."""
    text = IN_CITATION.sub("", path.read_text(encoding="utf-8"))
    line = f'repository-code: "https://github.com/{repo}"\n' if repo else ""
    return text.replace("type: software\n", "type: software\n" + line, 1)


def badge(repo: str, notebook: str) -> str:
    """The badge that opens a notebook of the repository on Colab, in Markdown; nothing without a repository."""
    if not repo:
        return ""
    target = f"{COLAB}/github/{repo}/blob/main/notebooks/{notebook}"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({target})"


def with_badge(lines: list[str], badge: str) -> list[str]:
    """A first cell, title first, with this badge in place of the one that it may have."""
    title, blank, *rest = lines
    if rest and BADGE.match(rest[0]):
        rest = rest[2:]  # the old badge, and the blank line below it
    new = [badge + "\n", "\n"] if badge else []
    return [title, blank, *new, *rest]


def with_default(notebook: dict, repo: str) -> dict:
    """The notebook with `repo` as the default address in its set-up cell, where it has one."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = DEFAULT.sub(repo, "".join(cell["source"])).splitlines(keepends=True)
    return notebook


def main(arguments: list[str]) -> None:
    """Write the address that is given, and say what changed; exit code 2 where it is none."""
    if len(arguments) != 1:
        sys.exit('python .ci/address.py owner/name, or python .ci/address.py "" for none')
    try:
        changed = write_address(ROOT, arguments[0])
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    for path in changed:
        print(path.relative_to(ROOT))
    print(f"{len(changed)} files changed")


if __name__ == "__main__":
    main(sys.argv[1:])
