"""What a notebook does on the data set that its reader chose: sizes and a step size that train, and claims that hold
only where they were measured."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import NamedTuple

from ..errors import nearest

WIDTH = 100  # letters that a line below a notebook's cell has room for


class Lesson(NamedTuple):
    """How much of a data set a notebook uses, and the step size that trains it."""

    clients: int
    per_client: int | None  # images of one client, test ones included; None: all there are
    lr: float


# Sizes that two cores train in a lesson. Step sizes: of 0.01, 0.02, 0.05 and 0.1 the last is best on validation images
# of all three larger sets (FedeCouple, eight rounds, two seeds); half of it is within three points of that, and leaves
# room for other methods, other seeds and a strong pull (with mu = 10 it trains, too).
LESSONS = {
    "digits": Lesson(clients=20, per_client=None, lr=0.1),
    "mnist": Lesson(clients=10, per_client=120, lr=0.05),
    "fashion_mnist": Lesson(clients=10, per_client=120, lr=0.05),
    "cifar10": Lesson(clients=10, per_client=120, lr=0.05),
}


def lesson(dataset: str) -> Lesson:
    """The sizes and the step size for a data set that the notebooks offer. ValueError for another one.

    Examples
    --------
    >>> lesson("digits")
    Lesson(clients=20, per_client=None, lr=0.1)
    """
    if dataset not in LESSONS:
        raise ValueError(f"dataset={dataset!r} has no lesson; {nearest(dataset, LESSONS)}")
    return LESSONS[dataset]


def claim(words: str, holds: bool, dataset: str, measured: Sequence[str] = ("digits",)) -> None:
    """Say a claim where it holds. Where it does not: AssertionError if it was measured on this data set (then something
    is broken), and if not, a sentence that it was found otherwise here.

    Examples
    --------
    >>> claim("Anchors help.", holds=True, dataset="cifar10")
    Anchors help.
    >>> claim("Anchors help.", holds=False, dataset="cifar10", measured=("digits", "mnist"))
    Not so here: "Anchors help." was measured on digits, mnist. On cifar10 this run found otherwise.
    """
    if holds:
        print(fill(words, WIDTH))
        return
    where = ", ".join(measured)
    if dataset in measured:
        raise AssertionError(f'"{words}" was measured on {where}, but does not hold in this run on {dataset}')
    print(fill(f'Not so here: "{words}" was measured on {where}. On {dataset} this run found otherwise.', WIDTH))
