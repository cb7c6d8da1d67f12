"""Image sets, partitions, methods: each (set, partition, method, seed) is a file; resumable, cheapest first."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ..data import DATASETS
from ..errors import is_whole_number, nearest, require
from ..hyper import hypers
from ..methods import METHODS, FedAvg, make
from .experiment import Run, Setting, Watch, check_budget, check_test_images, compare, tune, watch_nothing
from .tables import table

PARTITION_SETTINGS: dict[str, dict[str, Any]] = {
    "Dirichlet 0.1": {"partition": "dirichlet", "alpha": 0.1},
    "Dirichlet 0.5": {"partition": "dirichlet", "alpha": 0.5},
    "s = 20 %": {"partition": "mixture", "share": 0.2},
}
BASELINES = ("fedavg", "fedprox", "ditto", "fedper", "lg_fedavg", "fedrep", "fedbabu", "fedrod", "fedpac")
DATASETS_BY_COST = ("mnist", "fashion_mnist", "emnist", "cifar10", "cifar100")  # cheapest first

# Rows of a table beside the methods as they are by default: (method, the hyper-parameters that make it this row, which
# tuning leaves alone). FedeCouple's default is the alternate coupling.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fedecouple_phases": ("fedecouple", {"coupling": "phases"}),
    "fedecouple_joint": ("fedecouple", {"coupling": "joint"}),
}

SMALLEST_LR = 1e-5  # a method that diverges even below this step size is given up


@dataclass(frozen=True)
class Preset:
    """A benchmark: what is run, and what all of it shares. `common` goes to every method that knows the name, and
    tuning leaves it alone. methods: the rows, each the name of a method or one of VARIANTS. budget: gradient steps per
    batch and round, which every row's epochs are set to (`at_equal_steps`); None leaves the epochs. other_rounds: of
    the data sets whose runs have another number of rounds than the setting says."""

    datasets: tuple[str, ...]
    partitions: tuple[str, ...] = tuple(PARTITION_SETTINGS)
    seeds: int = 3
    trials: int = 3
    tuning_rounds: int = 10
    setting: Setting = field(default_factory=Setting)
    common: dict[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = tuple(METHODS)
    budget: int | None = None
    other_rounds: dict[str, int] = field(default_factory=dict)

    def rounds_of_a_run(self, dataset: str) -> int:
        """Rounds of a run on this data set."""
        return self.other_rounds.get(dataset, self.setting.rounds)

    def rounds_of_a_trial(self, dataset: str) -> int:
        """Rounds that judge one set of hyper-parameters on this data set: never more than a run has."""
        return min(self.rounds_of_a_run(dataset), self.tuning_rounds)


# "paper": the literature's usual setting (FedPAC and its follow-ups). "small": what two cores do in an hour. "medium":
# the five sets with the images that small copies of CIFAR have enough of. Its batches are small, because forty rounds
# of 150 images are few steps (640, where batches of 50 would leave 240); it evaluates every other round, because
# fine-tuning only to predict may cost more than the round itself. The three grey sets have half the rounds,
# to save time.
# "medium_steps": the same at equal steps, as many as the alternate coupling takes with two local epochs, for
# FedeCouple in each of its couplings and its two strongest rivals. A round is two and a half times as many steps for
# the rivals; so all sets have twenty rounds, and eight rounds judge a trial (40 passes over a client's images, where
# medium's twelve rounds are 24).
MEDIUM = Preset(
    datasets=DATASETS_BY_COST,
    partitions=("Dirichlet 0.1", "s = 20 %"),
    setting=Setting(rounds=40, per_client=225, test_share=1 / 3, keep_test=True, eval_every=2),
    trials=4,
    tuning_rounds=12,
    common={"epochs": 2, "batch_size": 20},
    methods=(*METHODS, *VARIANTS),
    other_rounds=dict.fromkeys(("mnist", "fashion_mnist", "emnist"), 20),
)
PRESETS = {
    "laptop": Preset(datasets=("digits",), trials=1, setting=Setting(rounds=8)),
    "small": Preset(
        datasets=("mnist", "fashion_mnist"),
        partitions=("Dirichlet 0.1",),
        setting=Setting(rounds=40, per_client=90, test_share=1 / 3, keep_test=True),
        common={"epochs": 2, "batch_size": 20},
    ),
    "medium": MEDIUM,
    "medium_steps": replace(
        MEDIUM,
        tuning_rounds=8,
        common={"batch_size": 20},
        methods=("fedavg_ft", "fedbabu", "fedecouple", *VARIANTS),
        budget=5,
        other_rounds=dict.fromkeys(DATASETS_BY_COST, 20),
    ),
    "paper": Preset(
        datasets=DATASETS_BY_COST,
        setting=Setting(rounds=200, per_client=900, test_share=1 / 3, keep_test=True),
        tuning_rounds=50,
        common={"epochs": 5, "batch_size": 50},
    ),
}

OnCell = Callable[[str, str, str], None]  # data set, partition, what is wrong with them ("": nothing)


def announce_nothing(dataset: str, partition: str, problem: str) -> None:
    """The `OnCell` of somebody who only wants the results."""


def cells(preset: Preset) -> Iterator[tuple[str, str, Setting]]:
    """(data set, partition, setting) of every table cell's runs, cheapest first.

    Examples
    --------
    >>> for dataset, partition, setting in cells(PRESETS["small"]):
    ...     print(f"{dataset}, {partition}: alpha {setting.alpha}, {setting.rounds} rounds")
    mnist, Dirichlet 0.1: alpha 0.1, 40 rounds
    fashion_mnist, Dirichlet 0.1: alpha 0.1, 40 rounds
    """
    for dataset in preset.datasets:
        for partition in preset.partitions:
            rounds = preset.rounds_of_a_run(dataset)
            setting = replace(preset.setting, dataset=dataset, rounds=rounds, **PARTITION_SETTINGS[partition])
            yield dataset, partition, setting


def length(preset: Preset) -> int:
    """Rounds in all: what a progress bar counts to.

    Examples
    --------
    >>> length(PRESETS["laptop"])  # 3 cells, 12 methods, 3 seeds of 8 rounds, one trial: no tuning
    864
    """
    of_all_sets = 0
    for dataset in preset.datasets:
        tuning = preset.trials * preset.rounds_of_a_trial(dataset) if preset.trials > 1 else 0
        final = preset.seeds * preset.rounds_of_a_run(dataset)
        of_all_sets += tuning + final
    return of_all_sets * len(preset.partitions) * len(preset.methods)


def length_of(preset: Preset, dataset: str, label: str) -> int:
    """Rounds of one run."""
    if label.startswith("tuning"):
        return preset.rounds_of_a_trial(dataset)
    return preset.rounds_of_a_run(dataset)


def flag_of(name: str) -> str:
    """The command line's flag for a field or a hyper-parameter.

    Examples
    --------
    >>> flag_of("batch_size")
    '--batch-size'
    """
    return "--" + name.replace("_", "-")


def command_line_of(setting: Setting, name: str, method: FedAvg, seed: int) -> str:
    """The command line that makes this row again: of the setting what is not its default, of the method everything.

    Examples
    --------
    >>> local = make("local", lr=0.1, epochs=5, batch_size=32, momentum=0.5, weight_decay=0.0)
    >>> print(command_line_of(Setting(alpha=0.1), "local", local, seed=3))
    python -m fedecouple_lite run --method local --seed 3 --alpha 0.1
        --lr 0.1 --epochs 5 --batch-size 32 --momentum 0.5 --weight-decay 0.0
    """
    words = [f"python -m fedecouple_lite run --method {name} --seed {seed}"]
    for setting_field in fields(Setting):
        value = getattr(setting, setting_field.name)
        if value is True:  # a switch: the flag alone
            words.append(flag_of(setting_field.name))
        elif value != setting_field.default:
            words.append(f"{flag_of(setting_field.name)} {shlex.quote(str(value))}")
    for hyper_parameter in hypers(method):
        value = getattr(method, hyper_parameter)
        words.append(f"{flag_of(hyper_parameter)} {'none' if value is None else value}")
    return " ".join(words)


def measure(
    preset: Preset, folder: Path, on_round: Watch = watch_nothing, on_cell: OnCell = announce_nothing
) -> pd.DataFrame:
    """Run, or read back, everything: one row per (dataset, partition, method, seed), with its command.

    A method's hyper-parameters are tuned once per cell, on validation images of seed 0, over `trials` values and
    `tuning_rounds` rounds, the same budget of trials for all; those in the preset's `common` keep their value. A final
    run that diverges is repeated with half its step sizes. Epochs are equal for all methods, not gradient steps: the
    column steps counts them, predict_steps those that were spent only to predict, and hyperparameters says what each
    run had. A data set that cannot be had is left out: on_cell(dataset, partition, problem) tells, problem "" where all
    is well. Raises ValueError for a name that is unknown, or where no data set can be had.
    """
    check_preset(preset)
    parts = []
    problem = ""
    for dataset, partition, setting in cells(preset):
        problem = problem_of(setting, preset)
        on_cell(dataset, partition, problem)
        if problem:
            continue
        cell_folder = folder / folder_of_cell(dataset, partition)
        for row in preset.methods:
            rows = measure_row(preset, setting, row, cell_folder, on_round)
            rows.insert(0, "dataset", dataset)
            rows.insert(1, "partition", partition)
            parts.append(rows)
    if not parts:
        raise ValueError(problem)
    return pd.concat(parts, ignore_index=True)


def check_preset(preset: Preset) -> None:
    """Raise ValueError for what there is not, or cannot be: at once, not after an hour."""
    rows = (*METHODS, *VARIANTS)
    for name in preset.methods:
        if name not in rows:
            raise ValueError(f"methods={name!r} is unknown; {nearest(name, rows)}")
    for field_name in ("datasets", "other_rounds"):
        for name in getattr(preset, field_name):
            if name not in DATASETS and not name.endswith(".npz"):
                raise ValueError(
                    f"{field_name}={name!r} is unknown; {nearest(name, DATASETS)} or a path ending in .npz"
                )
    for name in preset.partitions:
        if name not in PARTITION_SETTINGS:
            raise ValueError(f"partitions={name!r} is unknown; {nearest(name, PARTITION_SETTINGS)}")
    for field_name in ("seeds", "trials", "tuning_rounds"):
        value = getattr(preset, field_name)
        require(is_whole_number(value) and value >= 1, field_name, value, "a whole number >= 1")
    for name, rounds in preset.other_rounds.items():
        right = is_whole_number(rounds) and rounds >= 1
        require(right, f"other_rounds[{name!r}]", rounds, "a whole number >= 1")
    known: dict[str, None] = {}
    for row in preset.methods:
        name, _ = method_of(row)
        known |= dict.fromkeys(hypers(METHODS[name]))
    for name in preset.common:
        if name not in known:
            raise ValueError(
                f"common={name!r} means nothing to any of methods={preset.methods}; {nearest(name, known)}"
            )
    for row in preset.methods:
        name, _ = method_of(row)
        fixed = fixed_of(preset, row)
        check_budget(make(name, **fixed), list(fixed), preset.budget)


def method_of(row: str) -> tuple[str, dict[str, Any]]:
    """The method that a table's row is of, and the hyper-parameters that make it this row.

    Examples
    --------
    >>> method_of("fedrep")
    ('fedrep', {})
    >>> method_of("fedecouple_joint")
    ('fedecouple', {'coupling': 'joint'})
    """
    return VARIANTS.get(row, (row, {}))


def fixed_of(preset: Preset, row: str) -> dict[str, Any]:
    """The hyper-parameters that tuning leaves alone: those of the preset's common ones that the row's method knows, and
    those that make it this row."""
    name, of_row = method_of(row)
    known = hypers(METHODS[name])
    common = {key: value for key, value in preset.common.items() if key in known}
    return common | of_row


def problem_of(setting: Setting, preset: Preset) -> str:
    """Why this cell cannot be run; "" where it can."""
    try:
        for seed in range(preset.seeds):
            check_test_images(setting, seed)
        if preset.trials > 1:
            check_test_images(replace(setting, evaluate_on="validation"), seed=0)
    except ValueError as error:
        return str(error)
    return ""


def folder_of_cell(dataset: str, partition: str) -> str:
    """The folder that the runs of a table's cell are in.

    Examples
    --------
    >>> folder_of_cell("mnist", "s = 20 %")
    'mnist-s=20%'
    """
    return f"{Path(dataset).stem}-{partition.replace(' ', '')}"


def measure_row(
    preset: Preset, setting: Setting, row: str, folder: Path, on_round: Watch = watch_nothing
) -> pd.DataFrame:
    """One row of one cell's table, tuned once: a line for each seed, the hyper-parameters in it, chosen or fixed."""
    name, _ = method_of(row)
    fixed = fixed_of(preset, row)
    while_tuning = replace(setting, rounds=preset.rounds_of_a_trial(setting.dataset))
    on_trial = partial(on_round, f"tuning {row}", 0)
    method = make(name, **fixed)
    tuned = tune(while_tuning, method, 0, preset.trials, folder / "tuning", on_trial, list(fixed), preset.budget)
    lines = []
    for seed in range(preset.seeds):
        result, as_run = run_halving_lr(setting, row, tuned, seed, folder, on_round)
        lines.append(line_of(result, setting, name, as_run))
    return pd.concat(lines)


def line_of(run: Run, setting: Setting, name: str, method: FedAvg) -> pd.DataFrame:
    """The table's line of one run, with the command that makes it again. name: the method's."""
    line = table([run]).drop(columns="seconds")
    line["command"] = command_line_of(setting, name, method, run["seed"])
    line["hyperparameters"] = line.pop("hyperparameters")  # last
    return line


def run_halving_lr(
    setting: Setting, label: str, method: FedAvg, seed: int, folder: Path, on_round: Watch = watch_nothing
) -> tuple[Run, FedAvg]:
    """A run, and the method as it was run: as given; or, where that diverges, with half its step sizes, and so on.

    Hyper-parameters are chosen on fewer images, so that a step size may be too large on all of them. FloatingPointError
    where even the smallest step diverges.
    """
    while True:
        try:
            (result,) = compare(setting, {label: method}, [seed], folder, on_round)
            return result, method
        except FloatingPointError:
            method = with_half_the_steps(method)
            if method.lr < SMALLEST_LR:
                raise


def with_half_the_steps(method: FedAvg) -> FedAvg:
    """`method` with half of every step size that it has; any of them may be what diverges.

    Examples
    --------
    >>> with_half_the_steps(make("fedbabu", lr=0.2, fine_tune_lr=0.03))
    FedBABU(lr=0.1, epochs=5, batch_size=32, momentum=0.5, weight_decay=0.0005, fine_tune_epochs=5, fine_tune_lr=0.015)
    >>> with_half_the_steps(make("fedrep", lr=0.2)).classifier_lr is None  # as lr
    True
    """
    halved = {}
    for name in hypers(method):
        value = getattr(method, name)
        if name.endswith("lr") and value is not None:
            halved[name] = value / 2
    return replace(method, **halved)
