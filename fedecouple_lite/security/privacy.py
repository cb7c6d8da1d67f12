"""What `GaussianNoise` buys: differential privacy for each client, counted by Google's dp-accounting.

Two runs are neighbours where all of one client's data are replaced by other data, and nothing else differs: the number
of clients is no secret. A run is (epsilon, delta)-private towards somebody if whatever they see is at most exp(epsilon)
times as likely in one of two neighbours as in the other, delta apart. Smaller is better; epsilon 0 tells nothing.

One client's clipped update has a length of at most `clip`, so replacing its data moves it by up to 2 * clip: from the
tip of one arrow to the tip of the opposite one. The noise that counts is the standard deviation in units of that
(2 * clip), half of what `multiplier` says. (Where neighbours differ in a client being there or not, as in much of the
literature, it is moved by clip alone, and the same noise is quoted with a smaller epsilon. The two are not comparable.)

- Towards whoever sees a client's own uploads (the server, or who listens on the line): every round in which the client
  took part counts in full. Noise is added before anything leaves, so the server need not be trusted.
- Towards whoever sees only what the server makes of them: a round shows the mean, and the mean of `cohort` noisy
  updates has `cohort` noises on it. Nor is it known who was in the cohort.

Both hold for all that a client uploads, whatever is later computed from it, and count every round; an update may depend
on what the client has kept to itself. Neither speaks of what is no upload: a State's records (losses, steps,
accuracies) are the simulation's own, and are computed from the data without noise. Noise drawn from a known seed, as it
is here so that runs can be repeated, hides nothing from who knows the seed; nor has it been hardened against what
floating-point numbers give away (Mironov: On Significance of the Least Significant Bits for Differential Privacy. CCS
2012). This is for learning, not for hospital data.

Needs dp-accounting: pip install "fedecouple-lite[security]".
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Any

from ..errors import is_number, is_whole_number, require

SENSITIVITY = 2.0  # how far replacing a client's data may move its clipped update, in units of clip


def privacy_spent_to_server(multiplier: float, rounds_joined: int, delta: float) -> float:
    """epsilon towards whoever sees the client's own uploads, after it has taken part in so many rounds.

    multiplier: >= 0, GaussianNoise's; with 0 epsilon is infinite. rounds_joined: >= 1. delta: above 0 and below 1;
    usually below 1 / clients. Raises ValueError for an argument outside its range, ImportError where dp-accounting is
    missing.

    Examples
    --------
    >>> round(privacy_spent_to_server(multiplier=8.0, rounds_joined=10, delta=1e-5), 2)
    3.62
    """
    check_multiplier(multiplier)
    check_count("rounds_joined", rounds_joined)
    check_delta(delta)
    accounting = dp_accounting()
    if multiplier == 0:
        return inf
    event = accounting.GaussianDpEvent(multiplier / SENSITIVITY)
    return epsilon_of(event, rounds_joined, delta)


def privacy_spent_to_others(
    multiplier: float,
    clients: int,
    cohort: int,
    rounds: int,
    delta: float,
    colluding: int = 0,
    secret_cohorts: bool = True,
) -> float:
    """epsilon towards whoever sees only the server's tensors, after every one of so many rounds.

    multiplier: >= 0, GaussianNoise's; with 0 epsilon is infinite. clients: of the federation. cohort: of the clients,
    how many uploads the server averages in each round, a fixed number drawn without replacement; where clients drop
    out, the fewest that have arrived. rounds: >= 1. delta: above 0 and below 1. colluding: >= 0 and below cohort;
    clients that put together what they know: one for a curious client by itself. Each knows its own noise, which then
    hides nobody, and whether it was in the cohort: so its noise is left out, and the cohort drawn from the others.
    secret_cohorts: False counts as if everybody knew who takes part, and the client did in every round. That is what
    holds, too, where a client's upload depends on more than its data and the download, on what it has kept since an
    earlier round: FedPer, FedRep, LG-FedAvg, FedPAC and FedeCouple. The proof below does not cover these.

    The sum of a cohort's updates is moved by up to 2 * clip and has sqrt(cohort) * multiplier * clip of noise on it.
    dp-accounting bounds what is left when the cohort is drawn in secret (Wang, Balle, Kasiviswanathan: Subsampled Renyi
    Differential Privacy and Analytical Moments Accountant. AISTATS 2019, Theorem 27). That bound is not tight for large
    shares; what holds for known cohorts holds then, too. The smaller of the two counts.

    It holds where the server sends everybody the same mean with equal weights. With FedPAC, whose server mixes
    classifiers client by client, FedeCouple's aggregation by similarity, or a defence that selects or weighs uploads,
    `privacy_spent_to_server` is what holds towards everybody. Raises ValueError and ImportError as that does.

    Examples
    --------
    >>> round(privacy_spent_to_others(2.0, clients=20, cohort=10, rounds=10, delta=1e-5), 2)
    4.07
    """
    check_multiplier(multiplier)
    check_count("clients", clients)
    check_count("cohort", cohort)
    require(cohort <= clients, "cohort", cohort, f"at most clients={clients}")
    check_count("rounds", rounds)
    check_delta(delta)
    good = is_whole_number(colluding) and 0 <= colluding < cohort
    require(good, "colluding", colluding, f"a whole number >= 0 and below cohort={cohort}")
    require(isinstance(secret_cohorts, bool), "secret_cohorts", secret_cohorts, "True or False")
    accounting = dp_accounting()
    if multiplier == 0:
        return inf
    noises = cohort - colluding
    others = clients - colluding
    of_cohort = accounting.GaussianDpEvent(sqrt(noises) * multiplier / SENSITIVITY)
    known = epsilon_of(of_cohort, rounds, delta)
    if not secret_cohorts:
        return known
    drawn = accounting.SampledWithoutReplacementDpEvent(others, min(cohort, others), of_cohort)
    return min(known, epsilon_of(drawn, rounds, delta))


def epsilon_of(event: Any, times: int, delta: float) -> float:
    """dp-accounting's epsilon after `times` times the event, by Renyi differential privacy; one client is replaced."""
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=dp_accounting().NeighboringRelation.REPLACE_ONE)
    accountant.compose(event, int(times))
    return float(accountant.get_epsilon(delta))


def dp_accounting() -> Any:
    """The package of that name; ImportError, saying how to get it, where it cannot be loaded."""
    try:
        import dp_accounting as package
    except ImportError as error:
        remedy = 'pip install "fedecouple-lite[security]"'
        raise ImportError(f"privacy is counted by dp-accounting, which cannot be loaded ({error}): {remedy}") from None
    return package


def check_multiplier(multiplier: Any) -> None:
    """Raise ValueError unless noise can have this standard deviation, in numbers that the accountant can count with."""
    good = is_number(multiplier) and (multiplier == 0 or 1e-6 <= multiplier <= 1e6)
    require(good, "multiplier", multiplier, "0, or a number from 1e-6 to 1e6")


def check_count(name: str, value: Any) -> None:
    """Raise ValueError unless it is a whole number >= 1."""
    require(is_whole_number(value) and value >= 1, name, value, "a whole number >= 1")


def check_delta(delta: Any) -> None:
    """Raise ValueError unless it is a probability, neither 0 nor 1."""
    require(is_number(delta) and 0 < delta < 1, "delta", delta, "above 0 and below 1")
