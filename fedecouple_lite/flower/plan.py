"""Flower's run configuration as what the library runs: a Plan. Pure, and without Flower.

The names are the command line's flags without their dashes in front: `per-client`, `participation`, every method's
hyper-parameters, and a few of its own. Flower's values are numbers, words and truth values; an empty word stands for
"not given". All names with their defaults are in pyproject.toml, where a test holds them against `defaults`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from .. import faults as faults_module
from ..defence import Defence
from ..errors import SEED, is_number, is_seed, is_whole_number, nearest, require
from ..faults import Fault
from ..hyper import hypers
from ..methods import METHODS, FedAvg, make
from ..security import defences as defences_module
from ..studies.experiment import Setting

Value = bool | int | float | str  # what Flower's run configuration may hold
NOT_GIVEN = ""
BACKENDS = ("auto", "loop", "threads")  # "vmap" trains many clients at once; on Flower each is by itself

# What the run configuration holds beside a Setting's fields and hyper-parameters, with the defaults.
OWN: dict[str, Value] = {
    "method": "fedecouple",
    "seed": 0,
    "faults": NOT_GIVEN,
    "min-uploads": NOT_GIVEN,
    "defences": NOT_GIVEN,
    "deadline": 600.0,
    "wait-for-nodes": 60.0,
    "out": "runs/flower",
    "checkpoint-every": NOT_GIVEN,
    "resume": False,
}


@dataclass(frozen=True)
class Plan:
    """What a run on Flower does.

    methods: by name, run one after the other. min_uploads: as `engine.rounds` has it. deadline: seconds, above 0, that
    a round waits for its clients' answers. wait_for_nodes: seconds, above 0, that the run waits at its beginning until
    every client's node is there. out: the folder that the server writes to. checkpoint_every: rounds between
    checkpoints; None writes none. resume: go on from the newest checkpoint.
    """

    setting: Setting
    methods: dict[str, FedAvg]
    seed: int
    faults: tuple[Fault, ...]
    min_uploads: int | None
    defences: tuple[Defence, ...]
    deadline: float
    wait_for_nodes: float
    out: Path
    checkpoint_every: int | None
    resume: bool


def as_key(name: str) -> str:
    """A field's name as the run configuration has it: "per_client" is "per-client"."""
    return name.replace("_", "-")


def defaults() -> dict[str, Value]:
    """Every name of the run configuration with its default: a Setting's, this module's own, and no hyper-parameter
    given."""
    names: dict[str, Value] = dict(OWN)
    for field in fields(Setting):
        default: Any = field.default
        names[as_key(field.name)] = NOT_GIVEN if default is None else default
    for name in all_hypers():
        names[as_key(name)] = NOT_GIVEN
    return names


def all_hypers() -> list[str]:
    """The hyper-parameters of all methods, each once."""
    return list(dict.fromkeys(name for method in METHODS.values() for name in hypers(method)))


def plan_of(config: Mapping[str, Value]) -> Plan:
    """The plan that a run configuration stands for; a name that is missing has its default.

    ValueError, naming the argument as the command line does, for an unknown name, or a value that cannot be.

    Examples
    --------
    >>> plan = plan_of({"method": "fedrep", "clients": 4, "lr": 0.05, "defences": "CoordinateMedian()"})
    >>> plan.setting.clients, plan.methods["fedrep"].lr, plan.defences
    (4, 0.05, (CoordinateMedian(),))
    >>> plan_of({"rounds": "many"})
    Traceback (most recent call last):
    ValueError: rounds='many' must be a whole number
    """
    known = defaults()
    for key, value in config.items():
        if key not in known:
            raise ValueError(f"{key}={value!r} is unknown; {nearest(key, known)}")
    values = {**known, **config}
    setting = setting_of(values)
    seed, deadline, wait = values["seed"], values["deadline"], values["wait-for-nodes"]
    require(is_seed(seed), "seed", seed, SEED)
    require(is_positive(deadline), "deadline", deadline, "a number of seconds above 0")
    require(is_positive(wait), "wait_for_nodes", wait, "a number of seconds above 0")
    every = optional_whole_number("checkpoint_every", values["checkpoint-every"])
    require(every is None or every >= 1, "checkpoint_every", every, "a whole number >= 1, or not given")
    resume = values["resume"]
    require(isinstance(resume, bool), "resume", resume, "true or false")
    return Plan(
        setting=setting,
        methods=methods_of(values),
        seed=int(seed),
        faults=tuple(made("faults", values["faults"], makers(faults_module, Fault))),
        min_uploads=optional_whole_number("min_uploads", values["min-uploads"]),
        defences=tuple(made("defences", values["defences"], makers(defences_module, Defence))),
        deadline=float(deadline),
        wait_for_nodes=float(wait),
        out=Path(str(values["out"])),
        checkpoint_every=every,
        resume=bool(resume),
    )


def config_of(setting: Setting, others: Mapping[str, Value]) -> dict[str, Value]:
    """The run configuration that stands for this setting and, by their fields' names, other values."""
    config: dict[str, Value] = {}
    for field in fields(setting):
        value = getattr(setting, field.name)
        config[as_key(field.name)] = NOT_GIVEN if value is None else value
    for name, value in others.items():
        config[as_key(name)] = value
    return config


def is_positive(value: Value) -> bool:
    """Whether it is a number above 0."""
    return is_number(value) and float(value) > 0


def optional_whole_number(name: str, value: Value) -> int | None:
    """A whole number, or None where it is not given. ValueError for anything else."""
    if value == NOT_GIVEN:
        return None
    require(is_whole_number(value), name, value, "a whole number, or not given")
    return int(value)


# --- The setting ---


def setting_of(values: Mapping[str, Value]) -> Setting:
    """The Setting that these values stand for. ValueError for a value of the wrong kind, or one that cannot be run on
    Flower; what else cannot be, the library says when it runs it."""
    kinds = get_type_hints(Setting)
    given: dict[str, Any] = {}
    for field in fields(Setting):
        value = values[as_key(field.name)]
        if value == NOT_GIVEN and field.default is None:
            continue
        given[field.name] = value_of_kind(field.name, value, kinds[field.name])
    setting = Setting(**given)
    one_by_one = setting.backend in BACKENDS
    require(one_by_one, "backend", setting.backend, f"one of {', '.join(BACKENDS)}: on Flower each client is by itself")
    return setting


def value_of_kind(name: str, value: Value, kind: Any) -> Value:
    """The value of a field of this kind, `int`, `float`, `bool` or `str`, or one of them and None."""
    if kind in (bool, bool | None):
        require(isinstance(value, bool), name, value, "true or false")
        return value
    if kind in (int, int | None):
        require(is_whole_number(value), name, value, "a whole number")
        return value
    if kind in (float, float | None):
        require(is_number(value), name, value, "a number")
        return float(value)
    require(isinstance(value, str), name, value, "a word")
    return value


# --- The methods ---


def methods_of(values: Mapping[str, Value]) -> dict[str, FedAvg]:
    """The methods in the comma-separated list, each with those of the hyper-parameters given that it knows. ValueError
    for an unknown method, or a hyper-parameter that none of them knows."""
    require(isinstance(values["method"], str), "method", values["method"], "a word")
    given = {name: values[as_key(name)] for name in all_hypers() if values[as_key(name)] != NOT_GIVEN}
    names = str(values["method"]).split(",")
    if len(names) == 1:
        return {names[0]: make(names[0], **given)}
    methods = {}
    used: set[str] = set()
    for name in names:
        known = hypers(METHODS[name]) if name in METHODS else {}
        of_method = {key: value for key, value in given.items() if key in known}
        methods[name] = make(name, **of_method)
        used.update(of_method)
    for key, value in given.items():
        if key not in used:
            raise ValueError(f"{key}={value!r} means nothing to any of method={values['method']!r}")
    return methods


# --- Faults and defences, written as in Python ---


def makers(module: ModuleType, kind: type) -> dict[str, Any]:
    """The classes of this kind that a module defines, by name."""
    classes = {}
    for name, value in vars(module).items():
        if inspect.isclass(value) and issubclass(value, kind) and value is not kind:
            classes[name] = value
    return classes


def made(argument: str, text: Value, known: Mapping[str, Any]) -> list[Any]:
    """What `text` writes: calls of the `known` classes, with numbers, words and lists for arguments.

    The text is read, and never run as a program. ValueError, naming the argument, for what is none of this, and
    whatever the classes themselves say of their arguments.

    Examples
    --------
    >>> made("faults", 'DropBefore(0.1), Broken([3], how="nan")', makers(faults_module, Fault))
    [DropBefore(share=0.1), Broken(clients=(3,), how='nan')]
    """
    if text == NOT_GIVEN:
        return []
    example = f"a list such as {next(iter(known))}(...), of {', '.join(known)}"
    try:
        tree = ast.parse(f"[{text}]", mode="eval").body
    except (SyntaxError, ValueError):
        raise ValueError(f"{argument}={text!r} must be {example}") from None
    things = []
    for node in tree.elts if isinstance(tree, ast.List) else ():
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        require(is_call, argument, text, example)
        things.append(made_from(argument, node, known))
    return things


def made_from(argument: str, call: Any, known: Mapping[str, Any]) -> Any:
    """The object that one call stands for."""
    name = call.func.id
    if name not in known:
        raise ValueError(f"{argument}={name!r} is unknown; {nearest(name, known)}")
    try:
        values = [ast.literal_eval(value) for value in call.args]
        by_name = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError:
        raise ValueError(f"{argument}: the arguments of {name} must be numbers, words or lists of them") from None
    try:
        return known[name](*values, **by_name)
    except TypeError as error:
        raise ValueError(f"{argument}: {name} does not take these arguments ({error})") from None
