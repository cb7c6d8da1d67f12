"""Personalized federated learning on real images, from the command line."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, get_type_hints

import pandas as pd
import typer
from tqdm import tqdm

from . import engine
from .checkpoint import CheckpointWarning, checkpoints_of
from .data import data_folder, load
from .engine import State
from .errors import closest
from .files import check_writable, write_whole
from .hyper import hypers
from .methods import METHODS, FedAvg, make
from .studies import experiment
from .studies.benchmark import PRESETS, Preset, check_preset, flag_of, length, length_of, measure
from .studies.experiment import Progress, Run, Setting
from .studies.features import Space, UmapProcess, feature_space, umap_or_pca
from .studies.tables import as_text, leaderboard, margins, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

ALL = ",".join(METHODS)
COMPARED = Path("runs/compare")

Seeds = Annotated[int, typer.Option(min=1, help="seeds 0, 1, ...: each a new split, new weights, new batches")]
Trials = Annotated[int, typer.Option(min=1, help="hyper-parameters tried per method and seed, on validation images")]
EqualSteps = Annotated[
    int | None, typer.Option(min=1, help="gradient steps per batch and round: epochs are set to match")
]

Command = Callable[..., None]


# --- What all commands share ---


def command(function: Command) -> Command:
    """Register a command. A parameter `setting` becomes one flag for each field of Setting; one named `context` takes
    hyper-parameters. A wrong argument ends in one message and exit code 2, a failed run in 1, Ctrl-C in 130."""
    parameters = inspect.signature(function, eval_str=True).parameters
    flags = flags_of_setting() if "setting" in parameters else []
    others = [parameter for name, parameter in parameters.items() if name != "setting"]

    def with_setting(**values: Any) -> None:
        if flags:
            values["setting"] = Setting(**{flag.name: values.pop(flag.name) for flag in flags})
        function(**values)

    # Typer reads a command's flags off its signature.
    registered: Any = wraps(function)(with_exit_code(with_setting))
    registered.__signature__ = inspect.Signature([*others, *flags])
    registered.__annotations__ = {parameter.name: parameter.annotation for parameter in [*others, *flags]}
    if "context" not in parameters:
        return app.command()(registered)
    takes_hypers = {"allow_extra_args": True, "ignore_unknown_options": True}
    return app.command(context_settings=takes_hypers, epilog=list_of_hypers())(registered)


def flags_of_setting() -> list[inspect.Parameter]:
    """One keyword parameter for each field of Setting: its default, its type and its help."""
    kinds = get_type_hints(Setting)
    flags = []
    for field in fields(Setting):
        option = typer.Option(field.default, help=field.metadata["help"])
        kind = inspect.Parameter.KEYWORD_ONLY
        flags.append(inspect.Parameter(field.name, kind, default=option, annotation=kinds[field.name]))
    return flags


def list_of_hypers() -> str:
    """For the help of a command that takes them: every method's hyper-parameters."""
    methods = []
    for name, method in METHODS.items():
        methods.append(f"{name}: " + " ".join(flag_of(hyper_parameter) for hyper_parameter in hypers(method)))
    return "Hyper-parameters: " + "; ".join(methods)


def with_exit_code(function: Command) -> Command:
    """`function`, but that an error is one message and an exit code in place of a traceback."""

    def run_guarded(**values: Any) -> None:
        try:
            with terminated_as_interrupted(), warnings_in_words():
                function(**values)
        except KeyboardInterrupt as interrupt:
            what_next = str(interrupt) or "the same command goes on from there"
            typer.echo(f"\nInterrupted; what is finished is kept, and {what_next}.", err=True)
            raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
        except FloatingPointError as error:  # the run failed
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from None
        except (ValueError, OSError) as error:  # the user asked for what cannot be
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(2) from None

    return run_guarded


class Terminated(KeyboardInterrupt):
    """SIGTERM: what a batch system sends. It ends a run as Ctrl-C does."""


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """While this lasts, SIGTERM raises Terminated."""
    if threading.current_thread() is not threading.main_thread():  # no other may set a handler
        yield
        return

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def warnings_in_words() -> Iterator[None]:
    """While this lasts, a CheckpointWarning is one line for the user, not a line of code with its number."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_in_words(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, CheckpointWarning):
                typer.echo(f"Note: {message}", err=True)
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = show_in_words
        warnings.simplefilter("always", CheckpointWarning)
        yield


def parse_hypers(words: Sequence[str], known: Sequence[str] = ()) -> dict[str, str]:
    """["--mu", "0.5", "--lr=0.1"] -> {"mu": "0.5", "lr": "0.1"}. ValueError for a word that is neither; it suggests one
    of the `known` flags.

    Examples
    --------
    >>> parse_hypers(["--mu", "0.5", "--batch-size=16"])
    {'mu': '0.5', 'batch_size': '16'}
    """
    values = {}
    rest = list(words)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        has_value = bool(equals) or (bool(rest) and not rest[0].startswith("--"))
        if not flag.startswith("--") or not has_value:
            hint = suggestion(flag, known) if flag not in known else ""
            raise ValueError(f"{flag!r} is not understood; a hyper-parameter is given as --name value{hint}")
        if not equals:
            value = rest.pop(0)
        name = flag.removeprefix("--").replace("-", "_")
        values[name] = value
    return values


def suggestion(flag: str, known: Sequence[str]) -> str:
    """What to add to a message about this flag; nothing where no known one is like it.

    Examples
    --------
    >>> suggestion("--rouns", ["--rounds", "--seed"])
    '; did you mean --rounds?'
    """
    alike = closest(flag, known, cutoff=0.6)
    return f"; did you mean {alike}?" if alike else ""


def flags_of(context: typer.Context, methods: str) -> list[str]:
    """All flags that this command takes with these methods, unknown ones left out: its own, then hyper-parameters."""
    flags = [flag for parameter in context.command.params for flag in parameter.opts]
    for name in methods.split(","):
        if name in METHODS:
            flags += [flag_of(hyper_parameter) for hyper_parameter in hypers(METHODS[name])]
    return list(dict.fromkeys(flags))


def progress_bar(total: int) -> tqdm:
    """A bar that counts rounds; it shows itself once something takes time."""
    return tqdm(total=total, unit="round", dynamic_ncols=True, delay=0.3)


def compare_and_print(
    setting: Setting,
    methods: Mapping[str, FedAvg],
    seeds: int,
    folder: Path,
    trials: int = 1,
    fixed: Sequence[str] = (),
    budget: int | None = None,
) -> tuple[list[Run], dict[tuple[str, int], State | None]]:
    """All methods with seeds 0, 1, ... under a progress bar, then their table. Returns the runs, and each one's last
    state by (label, seed): None where the run was there already."""
    states: dict[tuple[str, int], State | None] = {}
    progress = Progress()
    runs_of_each = seeds * (trials + 1 if trials > 1 else 1)
    with progress_bar(len(methods) * runs_of_each * setting.rounds) as bar:

        def on_round(label: str, seed: int, state: State | None) -> None:
            bar.set_description(f"{label}, seed {seed}", refresh=False)
            bar.update(progress.rounds_since((label, seed), state, setting.rounds))
            states[label, seed] = state

        results = experiment.compare(setting, methods, range(seeds), folder, on_round, trials, fixed, budget)
    print(as_text(results))
    return results, states


# --- The commands ---


@command
def run(
    context: typer.Context,
    setting: Setting,
    method: str = "fedecouple",
    seed: int = 0,
    out: Path | None = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="rounds between checkpoints, beside OUT")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the newest checkpoint, if there is one")] = False,
) -> None:
    """Train one method; write settings, versions and each round's metrics to a JSON file. With --checkpoint-every, or
    --resume, an interrupted run can be resumed: its end is the same, to the bit."""
    methods, _ = make_all(method, context.args, flags_of(context, method))
    chosen = methods[method]
    if out is None:
        of_setting = f"{method}-{Path(setting.dataset).stem}-{setting.partition}-{seed}"
        out = Path("runs") / f"{of_setting}-{experiment.digest(setting, chosen, seed)}.json"
    say_how_it_begins(setting, chosen, seed, out, resume)
    progress = Progress()
    with progress_bar(setting.rounds) as bar:

        def on_round(state: State) -> None:
            bar.update(progress.rounds_since(out, state, setting.rounds))

        try:
            result = experiment.run(setting, chosen, seed, out, on_round, method, checkpoint_every, resume)
        except KeyboardInterrupt as interrupt:
            has_checkpoints = resume or checkpoint_every is not None
            what_next = "the same command with --resume goes on from there" if has_checkpoints else f"is in {out}"
            raise type(interrupt)(what_next) from None
    print(as_text([result]))
    print(f"Every round is in {out}")


def say_how_it_begins(setting: Setting, method: FedAvg, seed: int, out: Path, resume: bool) -> None:
    """One line where a user may not expect it: a run that was interrupted is there and not resumed, or one is to be
    resumed that is not there, or has finished."""
    left = list(checkpoints_of(out).values())
    message = ""
    if resume:
        finished = experiment.finished_run(out)
        if finished is not None and finished["digest"] == experiment.digest(setting, method, seed):
            message = "This run has finished already."
        elif not left:
            message = f"There is no checkpoint beside {out}: the run begins anew."
    elif left:
        message = f"{left[0]} is left of a run that was interrupted; --resume would go on. This run begins anew."
    if message:
        typer.echo(message, err=True)


@command
def compare(
    context: typer.Context,
    setting: Setting,
    methods: str = ALL,
    seeds: Seeds = 3,
    trials: Trials = 1,
    equal_steps: EqualSteps = None,
    out: Path = COMPARED,
) -> None:
    """Train several methods on the same splits: a table, CSV, curves and a dot plot. Hyper-parameters go to all methods
    that know them, and tuning (--trials) leaves them alone. With --equal-steps all runs, trials too, keep to that
    budget; steps spent only to predict are outside it, in a column of their own. The table says which hyper-parameters
    each method had."""
    chosen, given = make_all(methods, context.args, flags_of(context, methods))
    if equal_steps is not None and "epochs" in given:
        raise ValueError(f"equal_steps={equal_steps} sets the epochs, and so does epochs={given['epochs']}: give one")
    experiment.check_comparison(setting, chosen, range(seeds), trials, tuple(given), equal_steps)
    check_all_writable(out, "table.csv", "curves.png", "dots.png")
    results, _ = compare_and_print(setting, chosen, seeds, out / "runs", trials, tuple(given), equal_steps)

    from .course import plots

    rows = table(results)
    save_table(rows, out / "table.csv")
    save_figure(plots.curves(results), out / "curves.png")
    save_figure(plots.dots(rows), out / "dots.png")
    print(f"table.csv, curves.png and dots.png are in {out}/")


def check_all_writable(folder: Path, *names: str) -> None:
    """Raise ValueError where one of these files cannot be written in `folder`."""
    for name in names:
        check_writable(folder / name)


def save_table(rows: pd.DataFrame, path: Path) -> None:
    """`rows` as CSV."""
    write_whole(path, lambda part: rows.to_csv(part, index=False))


def save_figure(figure: Figure, path: Path) -> None:
    """`figure` as PNG."""
    write_whole(path, lambda part: figure.savefig(part, dpi=130, format="png"))


def make_all(names: str, words: Sequence[str], known: Sequence[str]) -> tuple[dict[str, FedAvg], dict[str, str]]:
    """The methods in a comma-separated list, each with those of the hyper-parameters in `words` that it knows; and all
    of these, by name. ValueError for an unknown method, or a hyper-parameter that none of them knows: it suggests one
    of the `known` flags."""
    values = parse_hypers(words, known)
    methods = {}
    used: set[str] = set()
    for name in names.split(","):
        of_method = hypers(METHODS[name]) if name in METHODS else {}
        own_values = {key: value for key, value in values.items() if key in of_method}
        methods[name] = make(name, **own_values)
        used.update(own_values)
    for key, value in values.items():
        if key not in used:
            to_whom = f"any of methods={names!r}" if len(methods) > 1 else f"method={names!r}"
            hint = suggestion(flag_of(key), known) or f"; choose from {', '.join(known)}"
            raise ValueError(f"{key}={value!r} means nothing to {to_whom}{hint}")
    return methods, values


@command
def demo(
    seeds: Seeds = 3, rounds: int = 6, out: Path = Path("runs/demo"), embedding: Literal["umap", "pca"] = "umap"
) -> None:
    """FedAvg, FedRep and FedeCouple on real handwritten digits: a table, and figures."""
    from .course import plots

    check_all_writable(out, "accuracy.png", "clients.png", "features.png")
    setting = Setting(rounds=rounds)
    methods = {
        "FedAvg": make("fedavg"),
        "FedAvg + fine-tuning": make("fedavg_ft"),
        "FedRep": make("fedrep"),
        "FedeCouple": make("fedecouple"),
    }
    print("20 clients share 1,797 real digits unevenly (Dirichlet 0.3); mean +- std over seeds.")
    how = umap_or_pca(fast=embedding == "pca")  # compiles beside the training
    try:
        results, states = compare_and_print(setting, methods, seeds, out / "runs")
        spaces = refinement(setting, methods, states)
        print("Drawing ...")
        save_figure(plots.curves(results), out / "accuracy.png")
        save_figure(plots.client_bars(results), out / "clients.png")
        try:
            figure = plots.feature_map(spaces, how)
        except ValueError as error:  # umap-learn is there, and cannot be loaded
            print(f"{error}. features.png is a PCA in place of a UMAP.")
            figure = plots.feature_map(spaces, "pca")
        save_figure(figure, out / "features.png")
    finally:
        if isinstance(how, UmapProcess):
            how.close()
    print(f"accuracy.png, clients.png and features.png are in {out}/. Next: `make lab` opens the notebooks.")


def refinement(
    setting: Setting, methods: Mapping[str, FedAvg], states: Mapping[tuple[str, int], State | None]
) -> dict[str, Space]:
    """The clients' own feature spaces with seed 0: before training, then after FedRep and after FedeCouple."""
    federation = setting.federation(seed=0)
    net = setting.build_net()
    spaces = {"before training": feature_space(net, engine.start(methods["FedRep"], net, federation), federation)}
    for label in ("FedRep", "FedeCouple"):
        state = states[label, 0]
        if state is None:  # that run was there already; it left figures, not weights
            state = train_again(setting, methods[label])
        spaces[f"{label}, {setting.rounds} rounds"] = feature_space(net, state, federation)
    return spaces


def train_again(setting: Setting, method: FedAvg) -> State:
    """The state at the end of a run with seed 0."""
    *_, state = engine.rounds(
        method, setting.build_net(), setting.federation(seed=0), rounds=setting.rounds, eval_every=setting.rounds
    )
    return state


@command
def benchmark(
    preset: Literal["laptop", "small", "medium", "medium_steps", "paper"] = "laptop",
    datasets: Annotated[str | None, typer.Option(help="comma-separated; the preset's where not given")] = None,
    methods: Annotated[str | None, typer.Option(help="comma-separated; all where not given")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="the preset's where not given")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="the preset's where not given")] = None,
    device: str = "cpu",
    out: Path = Path("runs/benchmark"),
) -> None:
    """All methods on several image sets and partitions, tuned alike; resumable. "laptop": digits, in minutes; "small":
    MNIST and Fashion-MNIST with few images, an hour; "medium": five sets, FedeCouple in each of its couplings, a night
    on two cores or minutes on a GPU; "medium_steps": the strongest of these at equal steps; "paper": five sets in the
    literature's setting, for a GPU. But for "medium_steps", epochs are equal for all methods; table.csv counts gradient
    steps, those spent only to predict apart, and says which hyper-parameters each run had."""
    chosen = changed_preset(PRESETS[preset], datasets, methods, seeds, rounds, device)
    check_preset(chosen)
    folder = out / preset
    check_writable(folder / "table.csv")
    progress = Progress()
    now = chosen.datasets[0]  # the data set that is being run
    with progress_bar(length(chosen)) as bar:

        def on_round(label: str, seed: int, state: State | None) -> None:
            bar.update(progress.rounds_since((label, seed), state, length_of(chosen, now, label)))

        def on_cell(dataset: str, partition: str, problem: str) -> None:
            nonlocal now
            now = dataset
            bar.set_description(f"{dataset}, {partition}", refresh=False)
            if problem:
                bar.write(f"{dataset}, {partition}: not run. {problem}", file=sys.stderr)

        rows = measure(chosen, folder / "runs", on_round, on_cell)
    save_table(rows, folder / "table.csv")
    print("Personal accuracy in %, mean +- std over seeds (rank):")
    print(leaderboard(rows).to_string())
    if "fedecouple" in set(rows["method"]) and rows["method"].nunique() > 1:
        print("FedeCouple minus the best other, points:")
        print(margins(rows).round(2).to_string(index=False))
    print(f"table.csv, with the command for every row, is in {folder}/")


def changed_preset(
    preset: Preset, datasets: str | None, methods: str | None, seeds: int | None, rounds: int | None, device: str
) -> Preset:
    """`preset` on this device, with what was given in place of its own; names are comma-separated."""
    setting = replace(preset.setting, device=device)
    if rounds is not None:
        setting = replace(setting, rounds=rounds)
        preset = replace(preset, other_rounds={})
    preset = replace(preset, setting=setting)
    if seeds is not None:
        preset = replace(preset, seeds=seeds)
    if datasets is not None:
        preset = replace(preset, datasets=tuple(dict.fromkeys(datasets.split(","))))
    if methods is not None:
        preset = replace(preset, methods=tuple(dict.fromkeys(methods.split(","))))
    return preset


@command
def fetch(dataset: str) -> None:
    """Download a data set into the data folder (FEDECOUPLE_DATA, or data/)."""
    print(f"{dataset}: {len(load(dataset).y)} images, in {data_folder()}")


# --- Beyond one process: with the extra `flower`, which no other command needs ---


@command
def partitions(setting: Setting, seed: int = 0, out: Path = Path("runs/partitions")) -> None:
    """Divide a data set, and write a file for each client: all that its Flower node has of the images."""
    from .flower.part import write_parts

    check_writable(out / "client-0000.safetensors")
    paths = write_parts(setting, seed, out)
    print(f"{len(paths)} files, {paths[0].name} to {paths[-1].name}, are in {out}/")


@command
def flower(
    context: typer.Context,
    setting: Setting,
    method: str = "fedecouple",
    seed: int = 0,
    simulation: Annotated[bool, typer.Option("--simulation", help="all nodes in Ray; else a SuperNode each")] = False,
    faults: Annotated[str, typer.Option(help='such as "DropBefore(0.1)"')] = "",
    defences: Annotated[str, typer.Option(help='such as "CoordinateMedian()"')] = "",
    deadline: Annotated[float, typer.Option(help="seconds that a round waits for its clients")] = 600.0,
    out: Path = Path("runs/flower"),
) -> None:
    """Train on Flower, on this machine: a SuperLink and a SuperNode for each client, by TLS and keys, each with its own
    client's images. Methods are comma-separated. All that is started is ended."""
    check_flower()
    from .flower.deployment import Loopback, Simulation
    from .flower.part import write_parts
    from .flower.plan import config_of
    from .flower.processes import Failed

    _, given = make_all(method, context.args, flags_of(context, method))
    own: dict[str, Any] = {"method": method, "seed": seed, "faults": faults, "defences": defences, "deadline": deadline}
    config = config_of(setting, {**own, **given, "out": str(out)})
    experiment.prepared(setting, seed)
    check_writable(out / "run.json")
    with TemporaryDirectory(prefix="flower-") as folder:
        if simulation:
            deployment: Simulation | Loopback = Simulation(Path(folder), sys.stdout)
        else:
            parts = write_parts(setting, seed, out / "parts")
            deployment = Loopback(Path(folder), parts, sys.stdout)
        try:
            with deployment:
                files = deployment.run(config)
        except Failed as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from None
    for file in files:
        print(f"Every round is in {file}")


def check_flower() -> None:
    """ValueError where Flower is not installed."""
    if find_spec("flwr") is None:
        raise ValueError('flwr is not installed: pip install "fedecouple-lite[flower]", or make flower')


# --- Coursework: with the extra `coursework`, which no other command needs ---

ASSIGNMENTS = Path("notebooks/assignments")
CourseFolder = Annotated[Path, typer.Option(help="the folder with nbgrader_config.py and source/")]


@command
def coursework(course: CourseFolder = ASSIGNMENTS, assignment: str | None = None) -> None:
    """Build the students' notebooks from the masters, and check that they give nothing away and ask for everything."""
    check_nbgrader()
    from .coursework.course import Course
    from .coursework.release import release

    of_course = Course(course)
    if assignment is not None:
        of_course.check_assignment(assignment)
    for name in of_course.assignments if assignment is None else [assignment]:
        released = release(of_course, name)
        print(f"{released.path}: {released.points:g} points, {released.by_hand:g} of them by hand")


@command
def grade(
    folder: Path,
    course: CourseFolder = ASSIGNMENTS,
    assignment: Annotated[str | None, typer.Option(help="only this one; all if not given")] = None,
    seconds: Annotated[int | None, typer.Option(min=1, help="for each cell; nbgrader_config.py's if not given")] = None,
    memory: Annotated[int | None, typer.Option(min=512, help="MiB, for each kernel; likewise")] = None,
    workers: Annotated[int, typer.Option(min=0, help="submissions graded at once; 0: one for each core")] = 0,
    again: Annotated[bool, typer.Option(help="also those that are graded and have not changed")] = False,
) -> None:
    """Grade a folder of submissions, STUDENT.ipynb or nbgrader's STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb: points, feedback
    and a table of what was seen. Resumable."""
    check_nbgrader()
    from .coursework.course import Course
    from .coursework.grade import GRADES, SUMMARY, Submission
    from .coursework.grade import grade as grade_all

    of_course = Course(course, seconds, memory)
    with tqdm(unit="submission", dynamic_ncols=True, delay=0.3) as bar:

        def on_graded(submission: Submission, of: int) -> None:
            bar.total = of
            bar.set_description(submission.student, refresh=False)
            bar.update()

        rows = grade_all(of_course, folder, assignment, workers, again, on_graded)
    print(rows.fillna("").to_string(index=False))
    print(f"{SUMMARY} (this table), {GRADES} and feedback/ are in {course}/")


@command
def feedback(assignment: str, course: CourseFolder = ASSIGNMENTS) -> None:
    """Write an assignment's feedback anew, after what is graded by hand has been."""
    check_nbgrader()
    from .coursework.course import Course
    from .coursework.grade import feedback as write_feedback

    number = write_feedback(Course(course), assignment)
    print(f"{number} pages of feedback are in {course / 'feedback'}/")


def check_nbgrader() -> None:
    """ValueError where nbgrader is not installed."""
    if find_spec("nbgrader") is None:
        raise ValueError('nbgrader is not installed: pip install "fedecouple-lite[coursework]", or make coursework')


if __name__ == "__main__":
    app()
