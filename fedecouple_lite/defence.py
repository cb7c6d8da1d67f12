"""A defence: what stands between the clients' training and the server's rule.

`on_client` says what leaves a client that has trained; `on_server`, what the server goes on with before the method's
own rule makes its next tensors from it. Those that there are, medians, selections, clipping and noise, are in
`security.defences`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .errors import require
from .faults import Turn
from .methods import FedAvg
from .tensors import Tensors

DEFENCE = 7  # what a stream of random numbers is for, beside the engine's purposes


class Received(NamedTuple):
    """What the server goes on with: uploads, and each one's weight in a mean, >= 0, by client number.

    Weights begin as the clients' numbers of training images.
    """

    uploads: Mapping[int, Tensors]
    weights: Mapping[int, float]


class Defence:
    """Something between the clients' training and the server's rule. A subclass overrides one of the hooks, or both;
    they are pure, and no tensor of an argument changes."""

    def on_client(self, turn: Turn, upload: Tensors) -> Tensors:
        """What leaves the client. turn: whose upload it is, what it was sent, and a generator for what is random."""
        return upload

    def on_server(
        self,
        server: Tensors,
        uploads: Mapping[int, Tensors],
        weights: Mapping[int, float],
    ) -> Received:
        """What the server goes on with. uploads: one at least, sound and of equal form, in order of clients."""
        return Received(uploads, weights)

    def check(self, method: FedAvg, cohort: int) -> None:
        """Raise ValueError where the defence cannot work with this method and cohorts of so many clients."""


# --- A round with defences: its steps ---


def protect(
    defences: Sequence[Defence],
    seed: int,
    t: int,
    k: int,
    download: Tensors,
    upload: Tensors,
) -> Tensors:
    """What leaves client k in round t: its upload through every defence in turn. download: what it was sent."""
    for place, defence in enumerate(defences):
        turn = Turn(seed, place, t, k, download, DEFENCE)
        upload = defence.on_client(turn, upload)
    return upload


def receive(defences: Iterable[Defence], server: Tensors, received: Received) -> Received:
    """What the server goes on with: what it received, through every defence in turn."""
    for defence in defences:
        received = defence.on_server(server, received.uploads, received.weights)
    return received


def check_defences(defences: Any, method: FedAvg, cohort: int) -> None:
    """Raise ValueError, naming the argument, for defences that cannot be. cohort: how many are drawn for a round."""
    good = isinstance(defences, Sequence) and all(isinstance(defence, Defence) for defence in defences)
    require(good, "defences", defences, "a list of defences, such as [CoordinateMedian()]")
    if defences:
        something = len(method.shared) > 0
        require(something, "defences", defences, f"empty for {type(method).__name__}, whose clients upload nothing")
    for defence in defences:
        defence.check(method, cohort)
