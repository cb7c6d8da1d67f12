"""What the server and a node say to each other: tensors under the names that a method shares, and a few numbers.

There are three kinds of messages. "query" asks a node what it has, once; "train" is a client's part of a round;
"evaluate" tests its models. Each is a record of tensors, where there are some, and one of plain values, all of them
listed here. No image, no label and no private tensor is in any of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from ..client import ClientResult
from ..engine import Hits
from ..tensors import Tensors
from .arrays import as_arrays, as_tensors

TENSORS = "tensors"
VALUES = "values"
RUN = r"[0-9a-f]{16}"

# What the server holds in place of a client's tensors: the round after which they are the client's, 0 before its first.
KEPT_ROUND = "node.round"


class Order(NamedTuple):
    """What the server asks a client to do.

    method: its name in the plan. run: sixteen hexadecimal digits that stand for the run. round: the round to train in,
    or the one after which to test. kept: the round that the client goes on from, the last one that the server took from
    it; 0 for a client that has never taken part. oldest: the client's tensors of earlier rounds are needed no more.
    server_model: whether what is sent, with what all began with for the rest, is the server's whole model.
    """

    method: str
    run: str
    round: int
    kept: int
    oldest: int
    server_model: bool = False


class Told(NamedTuple):
    """What a node says of itself: its client's number, the numbers of its training and test images, their shape, the
    data set's name and its classes, and what has made the division of the images (`part.division_of`)."""

    client: int
    train: int
    test: int
    in_shape: tuple[int, ...]
    name: str
    classes: tuple[str, ...]
    division: dict[str, Any]


def values_of(content: RecordDict) -> ConfigRecord:
    """The plain values of a message. ValueError where it has none."""
    record = content.get(VALUES)
    if not isinstance(record, ConfigRecord):
        raise ValueError(f"the message holds no {VALUES!r}, only {', '.join(content) or 'nothing'}")
    return record


def tensors_of(content: RecordDict, device: str = "cpu") -> Tensors:
    """The tensors of a message, on this device. ValueError where it has none."""
    record = content.get(TENSORS)
    if not isinstance(record, ArrayRecord):
        raise ValueError(f"the message holds no {TENSORS!r}, only {', '.join(content) or 'nothing'}")
    return as_tensors(record, device)


def whole(values: Mapping[str, Any], name: str) -> int:
    """The whole number >= 0 of this name. ValueError where it is none."""
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name}={value!r} must be a whole number >= 0")
    return value


# --- From the server ---


def order_content(order: Order, download: Tensors) -> RecordDict:
    """The content of a message that asks for this."""
    return RecordDict({TENSORS: as_arrays(download), VALUES: ConfigRecord(dict(order._asdict()))})


def order_from(content: RecordDict) -> Order:
    """What such a message asks for. ValueError where it is no such message."""
    values = values_of(content)
    run = str(values.get("run"))
    if not re.fullmatch(RUN, run):  # a node's files carry it in their names: it must not lead anywhere else
        raise ValueError(f"run={run!r} must be sixteen hexadecimal digits")
    return Order(
        method=str(values.get("method")),
        run=run,
        round=whole(values, "round"),
        kept=whole(values, "kept"),
        oldest=whole(values, "oldest"),
        server_model=bool(values.get("server_model")),
    )


# --- From a node ---


def told_content(told: Told) -> RecordDict:
    """The answer to "query"."""
    values = told._asdict()
    values["in_shape"] = list(told.in_shape)
    values["classes"] = list(told.classes)
    values["division"] = json.dumps(told.division)
    return RecordDict({VALUES: ConfigRecord(dict(values))})


def problem_content(problem: str) -> RecordDict:
    """The answer of a node that cannot take part, to any message: why."""
    return RecordDict({VALUES: ConfigRecord({"problem": problem})})


def problem_in(content: RecordDict) -> str | None:
    """Why a node cannot take part; None where it can."""
    problem = values_of(content).get("problem")
    return None if problem is None else str(problem)


def told_from(content: RecordDict) -> Told:
    """What a node has said of itself. ValueError where it is no such answer."""
    values = values_of(content)
    try:
        in_shape: tuple[int, ...] = tuple(values["in_shape"])  # type: ignore[arg-type]  # no list: a TypeError
        classes: tuple[str, ...] = tuple(values["classes"])  # type: ignore[arg-type]  # likewise
        division = json.loads(str(values["division"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a node's answer lacks what it has: {error!r}") from None
    return Told(
        client=whole(values, "client"),
        train=whole(values, "train"),
        test=whole(values, "test"),
        in_shape=in_shape,
        name=str(values.get("name")),
        classes=classes,
        division=division,
    )


def result_content(result: ClientResult, upload: Tensors, not_finite: str | None) -> RecordDict:
    """The answer to "train": the upload, the loss, the number of steps, and the name of the first of the client's
    tensors that is not finite, of which there should be none."""
    values: dict[str, Any] = {"loss": float(result.loss), "steps": result.steps, "not_finite": not_finite or ""}
    return RecordDict({TENSORS: as_arrays(upload), VALUES: ConfigRecord(values)})


def result_from(content: RecordDict, round: int) -> ClientResult:
    """What a client's round left, as the server sees it: in place of the client's tensors there is the round, and a NaN
    where one of them is not finite. ValueError where it is no such answer."""
    values = values_of(content)
    loss = values.get("loss")
    if not isinstance(loss, float):
        raise ValueError(f"loss={loss!r} must be a number")
    client = {KEPT_ROUND: torch.tensor(round)}
    not_finite = values.get("not_finite")
    if not_finite:
        client[str(not_finite)] = torch.tensor(torch.nan)
    return ClientResult(client, tensors_of(content), torch.tensor(loss, dtype=torch.float64), whole(values, "steps"))


def hits_content(hits: Hits) -> RecordDict:
    """The answer to "evaluate"."""
    return RecordDict({VALUES: ConfigRecord(dict(hits._asdict()))})


def hits_from(content: RecordDict) -> Hits:
    """How many of a client's test images are right. ValueError where it is no such answer."""
    values = values_of(content)
    return Hits(*(whole(values, name) for name in Hits._fields))
