"""Runs and comparisons that can be repeated: a setting, a method and a seed make one JSON file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..augment import AUGMENTATIONS
from ..checkpoint import Checkpoints, checkpoint_path, remove_checkpoints
from ..data import DATASETS, Dataset, files_of, load
from ..engine import BACKENDS, State, backends_for, check_arguments, check_origin, rounds
from ..errors import SEED, is_seed, is_whole_number, nearest, require
from ..files import check_writable, remove_abandoned, write_whole
from ..hyper import hypers
from ..methods import FedAvg
from ..models import NETS, DecoupledNet, net_for
from ..partition import OPTIONS, PARTITIONS, Federation, partition_names, split, unevenness
from ..phases import Train
from .fingerprints import code_digest, library_digest

Run = dict[str, Any]  # what a run's JSON file holds; `run` says what that is
OnRound = Callable[[State | None], None]  # called after every round; None: the run was there already
Watch = Callable[[str, int, State | None], None]  # the same for many runs: label, seed, state

SUMMARY_ROUNDS = 5  # a run is summed up by the mean of its last five evaluated rounds, never by its best

FORMAT = 2  # of a run's file; a file of another format is made again


def flag(default: Any, meaning: str) -> Any:
    """A field of Setting: its default, and its meaning for `--help`."""
    return field(default=default, metadata={"help": meaning})


def load_once(name: str) -> Dataset:
    """`load`, remembered for as long as the files that the data set is read from do not change: a comparison asks for
    its data set again for every run."""
    return _load_at(name, files_of(name))


@lru_cache(maxsize=2)
def _load_at(name: str, files: tuple) -> Dataset:
    return load(name)


def net_once(data: Dataset, name: str | None) -> DecoupledNet:
    """`net_for` these images, remembered for as long as NETS does not change. Not to be given away: it is shared."""
    return _net_for(data.in_shape, len(data.classes), name, repr(NETS))


@lru_cache(maxsize=16)
def _net_for(in_shape: tuple[int, ...], classes: int, name: str | None, nets: str) -> DecoupledNet:
    return net_for(in_shape, classes, name)


def watch_nothing(label: str, seed: int, state: State | None) -> None:
    """The `Watch` of somebody who only wants the results."""


class Progress:
    """What a bar that counts rounds moves on by, also where a run that was interrupted goes on."""

    def __init__(self) -> None:
        self.run: Hashable = None
        self.round = 0

    def rounds_since(self, run: Hashable, state: State | None, rounds: int) -> int:
        """Rounds of this run since the last call. rounds: how many it has; done at once where the state is None: it was
        there already.

        Examples
        --------
        >>> progress = Progress()
        >>> one, seven = State(1, {}, ()), State(7, {}, ())
        >>> [progress.rounds_since("a", state, rounds=9) for state in (None, one, seven)]
        [9, 1, 6]
        >>> progress.rounds_since("b", one, rounds=9)
        1
        """
        if state is None:
            self.run = None
            return rounds
        goes_on = run == self.run and state.round > self.round
        since = state.round - self.round if goes_on else state.round
        self.run = run
        self.round = state.round
        return since


@dataclass(frozen=True)
class Setting:
    """What all methods of a comparison share. Its fields are also the command line's flags."""

    dataset: str = flag("digits", ", ".join(DATASETS) + " or a path.npz")
    partition: str = flag("dirichlet", ", ".join(partition_names()))
    alpha: float | None = flag(None, "dirichlet: concentration, small is skewed (0.3 where not given)")
    classes_per_client: int | None = flag(None, "pathological: classes a client holds (2)")
    share: float | None = flag(None, "mixture: share of a client's images spread over all classes (0.2)")
    sigma: float | None = flag(None, "quantity: spread of the log sizes (1)")
    min_images: int | None = flag(None, "natural: an owner with fewer images is no client (2)")
    clients: int = flag(20, "number of clients")
    test_share: float = flag(0.5, "share of each client's images kept for testing")
    per_client: int | None = flag(None, "at most so many images a client, test ones included")
    keep_test: bool = flag(False, "test on images of the set's own test part, and train on none of them")
    participation: float = flag(1.0, "share of the clients in each round's cohort")
    evaluate_on: str = flag("test", "which images to predict: test, or validation (held out of the training images)")
    rounds: int = flag(15, "rounds of training")
    eval_every: int = flag(1, "rounds between evaluations")
    augment: str | None = flag(None, ", ".join(AUGMENTATIONS) + ": random views of colour images in training")
    net: str | None = flag(None, ", ".join(NETS) + " (by image size)")
    precision: str = flag("float32", "float32, or bf16: extractors compute in bfloat16, where that is faster")
    device: str = flag("cpu", "cpu, cuda, cuda:1, mps")
    backend: str = flag("auto", ", ".join(BACKENDS))

    def __post_init__(self) -> None:
        """NumPy's numbers become Python's and a path becomes a string, so that a setting can be written as JSON."""
        for setting_field in fields(self):
            value = getattr(self, setting_field.name)
            if isinstance(value, np.generic):
                object.__setattr__(self, setting_field.name, value.item())
            if isinstance(value, Path):
                object.__setattr__(self, setting_field.name, str(value))

    def federation(self, seed: int) -> Federation:
        """The data set, divided with `seed`, on the device. Raises ValueError where one of them cannot be had."""
        check_device(self.device)
        on = self.evaluate_on
        require(on in ("test", "validation"), "evaluate_on", on, "test or validation")
        federation = split(
            load_once(self.dataset),
            self.clients,
            self.partition,
            seed,
            test_share=self.test_share,
            per_client=self.per_client,
            keep_test=self.keep_test,
            **self.partition_options(),
        )
        federation = federation.to(self.device)
        if on == "validation":
            return federation.validation()
        return federation

    def partition_options(self) -> dict[str, Any]:
        """The options of partitions that were given; `split` refuses those that are not its partition's own."""
        options = {}
        for names in OPTIONS.values():
            for name in names:
                value = getattr(self, name)
                if value is not None:
                    options[name] = value
        return options

    def build_net(self) -> DecoupledNet:
        """The net named, or the one for the data set's image size."""
        return self.net_of(load_once(self.dataset))

    def net_of(self, data: Dataset) -> DecoupledNet:
        """The net named, or the one for the size of these images, computing in the setting's precision."""
        return net_for(data.in_shape, len(data.classes), self.net).in_precision(self.precision)


def check_device(device: str) -> None:
    """Raise ValueError where PyTorch cannot put a number on `device` and read it again."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} is not available ({reason}); use cpu") from None


def run(
    setting: Setting,
    method: FedAvg,
    seed: int,
    out: Path,
    on_round: Callable[[State], None],
    label: str = "",
    checkpoint_every: int | None = None,
    resume: bool = False,
) -> Run:
    """Train `method` in `setting`; write settings, versions and every round's metrics to the JSON file `out`.

    on_round is called after every round. Interrupted, the file keeps the rounds finished, with ``"finished": false``; a
    finished file is replaced only by a finished one. ValueError, before any training, for what cannot be run, or where
    `out` cannot be written.

    checkpoint_every: rounds, >= 1, between checkpoints of the whole state, which lie beside `out` until the run has
    finished. resume: go on from the newest checkpoint there, if there is one, and read `out` where it has this very run
    finished; on_round is called first with the state that is gone on from. The end is that of an uninterrupted run, to
    the bit, on the same device and number of threads. Without checkpoint_every, a run to be resumed saves itself every
    half minute; and every run that has checkpoints saves one when Ctrl-C interrupts it. ValueError where a checkpoint
    is another run's; CheckpointWarning where one is damaged, and the one before is taken.
    """
    out = Path(out)
    federation, net = prepared(setting, seed)
    depends_on = dependencies(setting, method, seed)
    checkpoints = Checkpoints(out, depends_on, checkpoint_every)
    has_checkpoints = resume or checkpoint_every is not None
    check_writable(out)
    if checkpoint_every is not None:
        check_writable(checkpoint_path(out, setting.rounds))  # its name is longer
    remove_abandoned(out)
    state = None
    if resume:
        finished = finished_run(out)
        if finished is not None and finished["digest"] == digest_of(depends_on):
            remove_checkpoints(out)  # of a process that was killed when it had just finished
            return {**finished, "label": label or finished["label"]}
        state = checkpoints.latest(setting.device)
        check_origin(state, method, net, federation)
    states = rounds(
        method,
        net,
        federation,
        rounds=setting.rounds,
        seed=seed,
        participation=setting.participation,
        backend=setting.backend,
        eval_every=setting.eval_every,
        augment=setting.augment,
        state=state,
    )
    result = description(setting, method, seed, federation, label)
    result |= {"finished": False, "records": ()}
    try:
        if state is not None:
            result["records"] = state.records
            on_round(state)
        for state in states:
            result["records"] = state.records
            if has_checkpoints and state.round < setting.rounds:
                checkpoints.offer(state)
            on_round(state)
        result["finished"] = True
    except KeyboardInterrupt:
        if has_checkpoints and state is not None:
            checkpoints.save(state)
        raise
    finally:
        if result["finished"] or (result["records"] and not is_finished(out)):
            text = json.dumps(as_json(result), indent=1) + "\n"
            write_whole(out, lambda part: part.write_text(text))
    remove_checkpoints(out)
    return as_json(result)


def prepared(setting: Setting, seed: int) -> tuple[Federation, DecoupledNet]:
    """What `run` trains. ValueError for any field of the setting, or a seed, with which it could not."""
    federation = setting.federation(seed)
    net = net_once(federation.data, setting.net).in_precision(setting.precision)
    check_arguments(net, federation, setting.rounds, seed, setting.participation, setting.eval_every, setting.augment)
    backends_for(setting.backend, federation.data)
    return federation, net


def description(setting: Setting, method: FedAvg, seed: int, federation: Federation, label: str) -> Run:
    """What a run's file says of it before its first round: all that is needed to repeat it, and where it was run."""
    name = type(method).__name__
    given = {key: value for key, value in asdict(setting).items() if value is not None}
    return {
        "format": FORMAT,
        "digest": digest(setting, method, seed),
        "label": label or name,
        "method": {"name": name, **asdict(method)},
        "setting": {**OPTIONS[setting.partition], **given},  # the partition's defaults, where nothing was given
        "seed": int(seed),
        "split": unevenness(federation.label_counts("train"), federation.label_counts("test")),
        "versions": {
            "fedecouple_lite": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "hardware": {"processor": platform.machine(), "cores": os.cpu_count(), "gpu": name_of_gpu()},
    }


def name_of_gpu() -> str | None:
    """The first GPU's name; None without one."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return None


def compare(
    setting: Setting,
    methods: Mapping[str, FedAvg],
    seeds: Iterable[int],
    folder: Path,
    on_round: Watch = watch_nothing,
    trials: int = 1,
    fixed: Collection[str] = (),
    budget: int | None = None,
) -> list[Run]:
    """Every method with every seed: the same splits, starting weights, sample order and number of passes for all.

    trials: hyper-parameters tried by `tune` for each method and seed; 1 takes them as they are. fixed: names that
    tuning leaves alone, such as those that a user has given. budget: gradient steps per batch and round, which every
    method's epochs are set to (`at_equal_steps`), also in every trial; None leaves the epochs. Steps that are spent
    only to predict are outside the budget, and the records count them apart, as predict_steps. The hyper-parameters
    that a run had, chosen or given, are in it under "method", and in its row of `tables.table`.

    Each (method, seed) is a file in `folder`, named by a digest of what it depends on: a second call, or one after an
    interruption, runs only what is missing, and goes on inside the run that was interrupted. on_round(label, seed,
    state) watches; state None: it was there already. Of a run that is gone on with, the first state is not its first.
    ValueError, before any training, for an argument that cannot be, or where nobody has a test image.
    """
    seeds, fixed, folder = list(seeds), names_in(fixed), Path(folder)
    check_comparison(setting, methods, seeds, trials, fixed, budget)
    results = []
    for seed in seeds:
        for label, method in methods.items():
            on_trial = partial(on_round, f"tuning {label}", seed)
            tuned = tune(setting, method, seed, trials, folder / "tuning", on_trial, fixed, budget)
            result = run_or_read(setting, tuned, seed, folder, partial(on_round, label, seed), label)
            results.append(result)
    return results


def check_comparison(
    setting: Setting,
    methods: Mapping[str, FedAvg],
    seeds: Sequence[int],
    trials: int = 1,
    fixed: Sequence[str] = (),
    budget: int | None = None,
) -> None:
    """Raise ValueError for arguments with which `compare` would fail sooner or later."""
    require(bool(methods), "methods", methods, "one at least, by name")
    good_seeds = bool(seeds) and all(is_seed(seed) for seed in seeds) and len(set(seeds)) == len(seeds)
    require(good_seeds, "seeds", seeds, "whole numbers from 0 to 2^63 - 1, at least one, none twice")
    check_trials(trials)
    known = list(dict.fromkeys(name for method in methods.values() for name in hypers(method)))
    for name in fixed:
        if name not in known:
            raise ValueError(f"fixed={name!r} is unknown; {nearest(name, known)}")
    for method in methods.values():
        check_budget(method, fixed, budget)
    for seed in seeds:
        check_test_images(setting, seed)
        if trials > 1:
            check_test_images(replace(setting, evaluate_on="validation"), seed)


def names_in(names: Collection[str]) -> list[str]:
    """A list of names from one of any kind, or from a single name."""
    return [names] if isinstance(names, str) else list(names)


def check_trials(trials: int) -> None:
    """Raise ValueError unless it is a number of trials."""
    require(is_whole_number(trials) and trials >= 1, "trials", trials, "a whole number >= 1")


def check_budget(method: FedAvg, fixed: Collection[str], budget: int | None) -> None:
    """Raise ValueError where the budget is none, too small for `method`, or at odds with fixed epochs."""
    if budget is not None:
        at_equal_steps(method, budget)
        free = "epochs" not in fixed
        require(free, "budget", budget, f"None, or epochs={method.epochs} not fixed: a budget is what sets the epochs")


def check_test_images(setting: Setting, seed: int) -> None:
    """Raise ValueError where nothing can be run in this setting, or no client has an image to predict."""
    federation, _ = prepared(setting, seed)
    if not sum(len(index) for index in federation.test):
        few = f"test_share={setting.test_share} and per_client={setting.per_client} with clients={setting.clients}"
        raise ValueError(f"{few} leave nobody a {setting.evaluate_on} image: there is nothing to compare")


def run_or_read(setting: Setting, method: FedAvg, seed: int, folder: Path, on_round: OnRound, label: str) -> Run:
    """The run's file in `folder`, where there is a finished one; else `run`, which makes it, or goes on inside it.

    A run that diverges leaves a note of that, NAME.diverged, so that it need not diverge again: FloatingPointError.
    """
    stands_for = digest(setting, method, seed)
    path = folder / f"{as_file_name(label)}-{seed}-{stands_for}.json"
    old = finished_run(path)
    if old is not None and old["digest"] == stands_for:
        remove_checkpoints(path)  # of a process that was killed when it had just finished
        on_round(None)
        return {**old, "label": label}
    note = path.with_suffix(".diverged")
    reason = noted_divergence(note, stands_for)
    if reason is not None:
        raise FloatingPointError(reason)
    try:
        return run(setting, method, seed, path, on_round, label, resume=True)
    except FloatingPointError as error:
        text = json.dumps({"format": FORMAT, "digest": stands_for, "diverged": str(error)})
        write_whole(note, lambda part: part.write_text(text))
        remove_checkpoints(path)  # from any of them it would diverge again
        raise


def noted_divergence(note: Path, stands_for: str) -> str | None:
    """How the run with this digest diverged; None where the file is no such note."""
    try:
        content = json.loads(note.read_text())
        is_of_this_run = content["format"] == FORMAT and content["digest"] == stands_for
        return str(content["diverged"]) if is_of_this_run else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def as_file_name(label: str) -> str:
    """A label without what means something in a path, and not too long for one.

    Examples
    --------
    >>> as_file_name("FedAvg + fine-tuning, lr 0.1")
    'FedAvg + fine-tuning, lr 0.1'
    >>> as_file_name("../FedAvg/mine")
    '.._FedAvg_mine'
    """
    return re.sub(r"[^\w .,+=()%-]", "_", label)[:80]


def finished_run(path: Path) -> Run | None:
    """The run in this file; None where there is no file, a damaged one, one of another format, or one of a run that was
    interrupted."""
    try:
        result = json.loads(path.read_text())
        is_whole = result["format"] == FORMAT and result["finished"] is True and isinstance(result["digest"], str)
        is_whole = is_whole and result["records"][-1]["round"] == result["setting"]["rounds"]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return result if is_whole else None


def is_finished(path: Path) -> bool:
    """Whether this is the file of a finished run, of whatever format."""
    try:
        return bool(json.loads(path.read_text())["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def digest(setting: Setting, method: FedAvg, seed: int) -> str:
    """Sixteen hexadecimal digits that stand for everything a run depends on: the setting, the content of the data, the
    net, the method's hyper-parameters and its code, the seed, and the library's version and code.

    Examples
    --------
    >>> from fedecouple_lite import make
    >>> one, two = make("fedrep", lr=0.1), make("fedrep", lr=0.2)
    >>> digest(Setting(), one, seed=0) == digest(Setting(), one, seed=0)
    True
    >>> digest(Setting(), one, seed=0) == digest(Setting(), two, seed=0)
    False
    """
    return digest_of(dependencies(setting, method, seed))


def digest_of(depends_on: Mapping[str, Any]) -> str:
    """The digest of a run that depends on this, as `dependencies` says it."""
    text = json.dumps(depends_on, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def dependencies(setting: Setting, method: FedAvg, seed: int) -> dict[str, Any]:
    """Everything that a run depends on, as JSON gives it back, each thing by a name that users know it by. What has no
    short form, such as images and code, is there by a digest of its content."""
    require(is_seed(seed), "seed", seed, SEED)
    data = load_once(setting.dataset)
    # Somebody may have added partitions or views of their own.
    used = [vars(method), PARTITIONS.get(setting.partition), AUGMENTATIONS.get(setting.augment or "")]
    depends_on = {
        "method": type(method).__name__,
        "hyper-parameter": asdict(method),
        "setting": asdict(setting),
        "seed": int(seed),
        "data set": data.digest,
        "net": net_once(data, setting.net).structure,
        "code of method, partition or views": code_digest(type(method), *used),
        "version of the library": [__version__, library_digest()],
        "format of runs": FORMAT,
    }
    return as_json(depends_on)


def tune(
    setting: Setting,
    method: FedAvg,
    seed: int,
    trials: int,
    folder: Path,
    on_round: OnRound = lambda state: None,
    fixed: Collection[str] = (),
    budget: int | None = None,
) -> FedAvg:
    """`method` with the best of `trials` sets of hyper-parameters: its own, then others drawn from their `tries`, those
    in `fixed` left alone; each brought to the `budget` of gradient steps, if there is one, before it is tried.

    Best is the personal accuracy (`score_of_trial`) on validation images taken out of this seed's training images: no
    test image plays a part. A trial that diverges counts as worst. Trials are files, like all runs.
    ValueError, before any training, where there is nothing to validate on. Nothing is trained for a single candidate.
    """
    folder = Path(folder)
    check_trials(trials)
    to_try = candidates(method, seed, trials, fixed, budget)
    if len(to_try) == 1:
        return to_try[0]
    held_out = replace(setting, evaluate_on="validation")
    check_test_images(held_out, seed)
    scores = []
    for candidate in to_try:
        try:
            result = run_or_read(held_out, candidate, seed, folder, on_round, type(method).__name__)
            scores.append(score_of_trial(result["records"]))
        except FloatingPointError:
            scores.append(-1.0)
    best = int(np.argmax(scores))
    return to_try[best]


def score_of_trial(records: Sequence[Mapping[str, Any]]) -> float:
    """The accuracy that a trial is judged by: the mean over its last five evaluated rounds, and over no more than the
    last third of them.

    A trial may be much shorter than the run that it stands for. Judged by all of its rounds it would be judged by how
    quickly it begins, which need not be how far it goes (short-horizon bias: Wu, Ren, Liao and Grosse, ICLR 2018).

    Examples
    --------
    >>> score_of_trial([{"personal": accuracy} for accuracy in (0.1, 0.1, 0.1, 0.2, 0.5, 0.75)])
    0.625
    """
    number = min(SUMMARY_ROUNDS, max(1, len(records) // 3))
    return float(np.mean([record["personal"] for record in records[-number:]]))


def candidates(
    method: FedAvg, seed: int, trials: int, fixed: Collection[str] = (), budget: int | None = None
) -> list[FedAvg]:
    """`method` as it is, then others drawn without repetition from all combinations of its hyper-parameters' `tries`:
    `trials` in all, or fewer where there are no more. Those in `fixed` keep their value. With a budget each is brought
    to it, and the ones for which it is too small are left out; ValueError where it is too small for `method`, or epochs
    are fixed.

    Examples
    --------
    >>> from fedecouple_lite import make
    >>> [method.lr for method in candidates(make("fedavg", lr=0.1), seed=0, trials=3)]
    [0.1, 0.05, 0.02]
    >>> [method.lr for method in candidates(make("fedavg", lr=0.1), seed=0, trials=3, fixed=["lr"])]
    [0.1]
    """
    require(is_seed(seed), "seed", seed, SEED)
    fixed = names_in(fixed)
    check_budget(method, fixed, budget)
    first = method if budget is None else at_equal_steps(method, budget)
    tries = {}
    for name, hyper_parameter in hypers(method).items():
        if hyper_parameter.metadata["tries"] and name not in fixed:
            tries[name] = hyper_parameter.metadata["tries"]
    grid = []
    for values in product(*tries.values()):
        chosen = dict(zip(tries, values, strict=True))
        grid.append(replace(method, **chosen))
    order = np.random.default_rng([seed, len(grid)]).permutation(len(grid))
    different = {first: None}
    for i in order:
        if len(different) == trials:
            break
        if budget is None:
            different[grid[i]] = None
        elif fits(grid[i], budget):
            different[at_equal_steps(grid[i], budget)] = None
    return list(different)[:trials]


def steps_per_batch(method: FedAvg) -> int:
    """Gradient steps that a round takes for each batch of a client's images.

    Examples
    --------
    >>> from fedecouple_lite import make
    >>> steps_per_batch(make("fedrep", epochs=5, classifier_epochs=1))
    6
    >>> steps_per_batch(make("fedecouple", epochs=5, classifier_epochs=1))  # two steps for each of the extractor's
    11
    """
    steps = 0
    for phase in method.phases():
        if isinstance(phase, Train):
            steps += phase.epochs * len(phase.losses)
    return steps


def at_equal_steps(method: FedAvg, budget: int) -> FedAvg:
    """`method` with as many local epochs as `steps_per_batch` <= budget allows; as it is where its steps do not depend
    on them. ValueError where not even one fits.

    Examples
    --------
    >>> from fedecouple_lite import make
    >>> at_equal_steps(make("fedavg"), budget=11).epochs
    11
    >>> at_equal_steps(make("fedecouple"), budget=11).epochs
    5
    """
    require(is_whole_number(budget), "budget", budget, "a whole number")
    if not fits(method, budget):
        raise ValueError(f"budget={budget} is below one epoch of {type(method).__name__}: it needs more equal steps")
    of_one, of_two = (steps_per_batch(replace(method, epochs=epochs)) for epochs in (1, 2))
    if of_one == of_two:
        return method
    most = 1 + (int(budget) - of_one) // (of_two - of_one)
    while steps_per_batch(replace(method, epochs=most)) > budget:  # where later epochs take more steps
        most -= 1
    return replace(method, epochs=most)


def fits(method: FedAvg, budget: int) -> bool:
    """Whether one local epoch of `method` is within the budget of steps per batch."""
    return steps_per_batch(replace(method, epochs=1)) <= budget


def as_json(value: Any) -> Any:
    """`value` as JSON gives it back: tuples become lists, NaN None.

    Examples
    --------
    >>> as_json({"accuracies": (0.5, float("nan"))})
    {'accuracies': [0.5, None]}
    """
    return json.loads(json.dumps(value, default=plain), parse_constant=lambda constant: None)


def plain(value: Any) -> Any:
    """What stands in JSON for a value that it does not know: numbers for arrays, words for everything else."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray | torch.Tensor) else repr(value)
