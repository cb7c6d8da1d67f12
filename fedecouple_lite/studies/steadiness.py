"""How steady a method is: what its accuracy does from seed to seed, from round to round, and from client to client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import require
from .experiment import SUMMARY_ROUNDS

Records = Sequence[Mapping[str, Any]]  # of one run: a record for each evaluated round


class Steadiness(NamedTuple):
    """Of one method, over seeds; all in [0, 1].

    mean: personal accuracy, mean over the last five rounds, then over seeds. over_seeds: the standard deviation of
    those means over seeds, the sample's; NaN for one seed. over_rounds: the standard deviation of personal accuracy
    over a run's last five rounds, mean over seeds. percentile10: of the clients, mean over the last five rounds and
    seeds: nine in ten clients are better off.
    """

    mean: float
    over_seeds: float
    over_rounds: float
    percentile10: float


def steadiness(runs: Sequence[Records]) -> Steadiness:
    """The three spreads of runs that differ in their seed only. Rounds that were evaluated count, and the last ones do.

    Raises ValueError for no run, or one with fewer than two evaluated rounds.

    Examples
    --------
    >>> first = [{"personal": 0.5, "percentile10": 0.2}, {"personal": 0.7, "percentile10": 0.4}]
    >>> second = [{"personal": 0.7, "percentile10": 0.2}, {"personal": 0.9, "percentile10": 0.4}]
    >>> figures = steadiness([first, second])
    >>> [round(figure, 3) for figure in figures]
    [0.7, 0.141, 0.141, 0.3]
    """
    require(len(runs) > 0, "runs", runs, "one run at least, a list of records each")
    fewest = min(len(records) for records in runs)
    require(fewest >= 2, "runs", f"{fewest} evaluated rounds", "runs of two evaluated rounds at least")
    means = []
    over_rounds = []
    percentiles = []
    for records in runs:
        personal = np.array([record["personal"] for record in records])
        percentile10 = np.array([record["percentile10"] for record in records])
        means.append(personal[-SUMMARY_ROUNDS:].mean())
        over_rounds.append(personal[-SUMMARY_ROUNDS:].std(ddof=1))
        percentiles.append(percentile10[-SUMMARY_ROUNDS:].mean())
    return Steadiness(
        mean=float(np.mean(means)),
        over_seeds=float(np.std(means, ddof=1)) if len(means) > 1 else float("nan"),
        over_rounds=float(np.mean(over_rounds)),
        percentile10=float(np.mean(percentiles)),
    )
