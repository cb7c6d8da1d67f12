"""Would the tests notice? Mutants of the library, drawn at random, against the tests that run the changed line.

Cosmic Ray makes the mutants: in a copy of the project it changes one operator, number, comparison or keyword at a time.
Each meets the unit tests and docstring examples that execute its line, the fastest first, until one fails. Mutants in
annotations are left out: those are never run. Survivors that compute the same are listed, with the reason, in
tests/mutants.md. Resumable: what has been tried is kept in build/mutants/ until a file of the library or of the tests
changes.

    make mutants                                  300 of them, with seed 0
    python tests/mutants.py --number 50 --seed 3 --only engine.py
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "mutants"
LIBRARY = "fedecouple_lite"
LEFT_OUT = ("__main__.py", "course/")  # neither ground nor method, engine or study
# Bits of a float are a TypeError: not a mistake that anybody makes, nor one that a test could miss.
NOT_FOR_NUMBERS = re.compile(r"(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)_(Bit|LShift|RShift)|_USub_Invert|_Delete_Invert")
MOST_SECONDS = 60.0  # of tests for one mutant, by their durations when all was well; the fastest come first
HANGS = 60  # seconds: longer than any test takes, so a test that takes longer hangs, and that has noticed the mutant
UNIT = ["tests", "--ignore=tests/slow", "--ignore=tests/notebooks", "--ignore=tests/browser"]
UNIT += ["--ignore=tests/colab", "--ignore=tests/test_address.py"]
UNIT += ["--ignore=tests/test_widgets.py"]
# These hold files, tables and versions to each other; or the code itself, which a mutant changes by its nature.
UNIT += ["--ignore=tests/test_project.py", "--ignore=tests/test_results.py", "--ignore=tests/test_imports.py"]


@dataclass(frozen=True)
class Mutant:
    """One change: where it is, which of Cosmic Ray's operators makes it, and at which of that operator's places."""

    file: str
    function: str
    operator: str
    occurrence: int
    line: int
    column: int


# --- Which tests run which line ---


def trace(out: Path) -> None:
    """Run all tests once under coverage; write the tests that execute each line, and how long each test takes."""
    import coverage
    import pytest

    measured = coverage.Coverage(data_file=None, source=[LIBRARY], messages=False)
    seconds: dict[str, float] = {}
    failed: set[str] = set()

    class Recorder:
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
            measured.switch_context(item.nodeid)
            began = time.perf_counter()
            result = yield
            seconds[item.nodeid] = time.perf_counter() - began
            return result

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.add(report.nodeid)

    measured.start()
    pytest.main([*UNIT, LIBRARY, "--doctest-modules", "-q", "-p", "no:cacheprovider"], plugins=[Recorder()])
    measured.stop()
    if failed:
        print("Fail where lines are counted, and judge no mutant:", *sorted(failed), sep="\n")
    if len(failed) > len(seconds) / 100:
        sys.exit("the tests must pass before mutants are made")
    data = measured.get_data()
    lines = {}
    for path in data.measured_files():
        lines[str(Path(path).relative_to(Path.cwd()))] = {
            line: [test for test in tests if test and test not in failed]
            for line, tests in data.contexts_by_lineno(path).items()
        }
    out.write_text(json.dumps({"lines": lines, "seconds": seconds}))


def tests_of(mutant: Mutant, traced: dict) -> list[str]:
    """The tests that run the mutant's line, the fastest first, for up to MOST_SECONDS; for a line that runs only on
    import, those that run anything of its file."""
    lines = traced["lines"].get(mutant.file, {})
    tests = lines.get(str(mutant.line), [])
    if not tests:
        of_file = {test for of_line in lines.values() for test in of_line}
        # Defaults are read without running a line of the file that holds them.
        of_defaults = {test for test in traced["seconds"] if test.startswith("tests/test_defaults.py")}
        tests = sorted(of_file | of_defaults)
    chosen = []
    total = 0.0
    for test in sorted(tests, key=lambda test: traced["seconds"].get(test, 0.0)):
        total += traced["seconds"].get(test, 0.0)
        if total > MOST_SECONDS and chosen:
            break
        chosen.append(test)
    return chosen


# --- Mutants ---


def library_files(only: Iterable[str]) -> list[Path]:
    """The files that are mutated; those whose path ends in one of `only`, if there are any."""
    files = []
    for path in sorted((ROOT / LIBRARY).rglob("*.py")):
        name = path.relative_to(ROOT / LIBRARY).as_posix()
        if not name.startswith(LEFT_OUT) and path.name != "__init__.py":
            files.append(path)
    wanted = tuple(only)
    return [path for path in files if not wanted or str(path).endswith(wanted)]


def mutants_of(path: Path) -> list[Mutant]:
    """Every change that Cosmic Ray knows of one file and that could be noticed."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.ast.ast_query import ASTQuery
    from cosmic_ray.plugins import get_operator, operator_names

    text = path.read_text()
    never_run = annotations(text)
    tree = get_ast(text)
    mutants = []
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments() or name.endswith("NoOp") or NOT_FOR_NUMBERS.search(name):
            continue
        occurrence = -1
        for node in ast_nodes(tree):
            function = ASTQuery(node).get_definition_name() or "the module"
            for start, _ in kind().mutation_positions(node):
                occurrence += 1
                if not any(first <= start < last for first, last in never_run):
                    mutants.append(Mutant(str(path.relative_to(ROOT)), function, name, occurrence, *start))
    return mutants


def annotations(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end, (line, column) each: they are never run."""
    places = []
    for node in ast.walk(ast.parse(text)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(part, ast.AST):
                places.append(((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)))
    return places


def drawn(number: int, seed: int, only: Iterable[str]) -> list[Mutant]:
    """So many mutants: a place in the code at random, then one of the changes there, so that an operator with many
    others to take its place does not count many times."""
    places: dict[tuple, list[Mutant]] = {}
    for path in library_files(only):
        for mutant in mutants_of(path):
            places.setdefault((mutant.file, mutant.line, mutant.column), []).append(mutant)
    rng = random.Random(seed)
    chosen = rng.sample(sorted(places), min(number, len(places)))
    return [rng.choice(places[place]) for place in chosen]


def mutated(mutant: Mutant, text: str) -> str:
    """The file's text with this change."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    changed = mutate_code(text, get_operator(mutant.operator)(), mutant.occurrence)
    assert changed is not None, mutant
    return changed


def lines_changed(before: str, after: str) -> tuple[str, str]:
    """What stood on the lines that differ, and what stands there now."""
    old, new = before.split("\n"), after.split("\n")
    pairs = [(one.strip(), other.strip()) for one, other in zip(old, new, strict=False) if one != other]
    if len(old) != len(new) or not pairs:  # a whole line has gone or come
        gone = [line.strip() for line in old if line not in new]
        come = [line.strip() for line in new if line not in old]
        return " / ".join(gone), " / ".join(come)
    return " / ".join(one for one, _ in pairs), " / ".join(other for _, other in pairs)


# --- One mutant against its tests ---


def copy_of_project(folder: Path) -> Path:
    """The project's files, without what is built, in a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith("notebooks/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def try_mutant(mutant: Mutant, tests: list[str], seconds: float, folder: Path) -> dict:
    """Whether a test notices it: "killed", "survived", or "not run" where no test runs its line."""
    path = folder / mutant.file
    text = path.read_text()
    changed = mutated(mutant, text)
    before, after = lines_changed(text, changed)
    outcome = "not run"
    if tests:
        path.write_text(changed)
        try:
            outcome = "killed" if fails(tests, 60 + 5 * seconds, folder) else "survived"
        finally:
            path.write_text(text)
    return {**asdict(mutant), "before": before, "after": after, "outcome": outcome, "tests": len(tests)}


def fails(tests: list[str], timeout: float, folder: Path) -> bool:
    """Whether one of the tests fails, or all together take too long."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--doctest-modules"]
    command += ["-o", f"faulthandler_timeout={HANGS}", "-o", "faulthandler_exit_on_timeout=true", *tests]
    # Files of compiled code could be those of another mutant of the same length, made in the same second.
    alone = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | alone, stdout=nothing, stderr=nothing, start_new_session=True
    )
    try:
        return process.wait(timeout) != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


# --- The whole ---


def state_of_files() -> str:
    """A digest of all code of the library and of the tests."""
    content = hashlib.sha256()
    for path in sorted([*(ROOT / LIBRARY).rglob("*.py"), *(ROOT / "tests").rglob("*.py")]):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def equivalent() -> set[tuple[str, str, str]]:
    """(file, before, after) of the mutants that are listed as computing the same."""
    listed = set()
    file = ""
    for line in (ROOT / "tests" / "mutants.md").read_text().splitlines():
        if line.startswith("## "):
            file = line.removeprefix("## ").strip("` ")
        found = re.match(r"- `(.+)` becomes `(.*?)`: .+", line)
        if found:
            listed.add((file, found[1], found[2]))
    return listed


def report(results: list[dict]) -> int:
    """Print figures by file and the survivors that are not listed; returns how many these are."""
    listed = equivalent()
    survivors = [result for result in results if result["outcome"] != "killed"]
    alike = [r for r in survivors if (r["file"], r["before"], r["after"]) in listed]
    unlisted = [result for result in survivors if result not in alike]
    print(f"{'':44}{'mutants':>8}{'killed':>8}{'alike':>8}{'survive':>8}")
    for file in sorted({result["file"] for result in results}):
        counts = [sum(r["file"] == file for r in some) for some in (results, alike, unlisted)]
        print(f"{file:44}{counts[0]:8}{counts[0] - counts[1] - counts[2]:8}{counts[1]:8}{counts[2]:8}")
    counts = [len(results), len(results) - len(survivors), len(alike), len(unlisted)]
    print(f"{'in all':44}" + "".join(f"{count:8}" for count in counts))
    for result in unlisted:
        where = f"{result['file']}:{result['line']} in {result['function']} ({result['outcome']})"
        print(f"\n{where}\n- `{result['before']}` becomes `{result['after']}`: ")
    return len(unlisted)


def main() -> None:
    """Draw, try, report; exit code 1 where more than one in twenty survives that is not listed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=300, help="of mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", nargs="*", default=[], help="ends of the paths of files, such as engine.py")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="mutants at a time")
    parser.add_argument("--trace", type=Path, help=argparse.SUPPRESS)  # what this program calls itself with
    given = parser.parse_args()
    if given.trace:
        trace(given.trace)
        return

    home = BUILD / state_of_files()
    home.mkdir(parents=True, exist_ok=True)
    traced_in = home / "trace.json"
    if not traced_in.exists():
        print("Which tests run which line? All of them run once, under coverage.", flush=True)
        subprocess.run([sys.executable, __file__, "--trace", traced_in], cwd=ROOT, check=True)
    traced = json.loads(traced_in.read_text())

    done: dict[str, dict] = {}
    kept = home / "results.jsonl"
    if kept.exists():
        for line in kept.read_text().splitlines():
            result = json.loads(line)
            done[name_of(result)] = result
    folders: SimpleQueue[Path] = SimpleQueue()
    for i in range(given.workers):
        folders.put(copy_of_project(home / f"copy{i}"))

    def result_of(mutant: Mutant) -> dict:
        if name_of(asdict(mutant)) in done:
            return done[name_of(asdict(mutant))]
        tests = tests_of(mutant, traced)
        seconds = sum(traced["seconds"].get(test, 0.0) for test in tests)
        folder = folders.get()
        try:
            result = try_mutant(mutant, tests, seconds, folder)
        finally:
            folders.put(folder)
        with kept.open("a") as file:
            file.write(json.dumps(result) + "\n")
        return result

    mutants = drawn(given.number, given.seed, given.only)
    with ThreadPoolExecutor(given.workers) as pool:
        results = list(tqdm(pool.map(result_of, mutants), total=len(mutants), unit="mutant"))
    sys.exit(report(results) > len(results) / 20)


def name_of(result: dict) -> str:
    """What tells one mutant from all others."""
    return f"{result['file']} {result['operator']} {result['occurrence']}"


if __name__ == "__main__":
    main()
