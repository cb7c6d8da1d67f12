"""Demonstrations: what trains or runs in order to show. Each has a function that computes and one that draws it.

`what_travels`, `pull_to_anchors`, `measure_descent`, `runs_with_faults` and `runs_under_attack` compute and return
plain results; `travel_map`, `anchor_pull`, `descent`, `steadiness` and `attacked` hand those to `plots` and return the
Figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..client import LocalData, client_round, forward
from ..data import Dataset
from ..defence import Defence
from ..engine import images_of, rounds
from ..errors import is_number, is_whole_number, nearest, require
from ..faults import DropBefore, Fault
from ..losses import centre_loss
from ..methods import FedeCouple, make
from ..models import DecoupledNet, net_for
from ..partition import Federation, split
from ..security.defences import ClipNorm, CoordinateMedian, MultiKrum, SimilarityWeights, TrimmedMean
from ..security.poisoning import GaussianUpdate, SignFlip, draw_attackers, flip_labels, honest_accuracy
from ..studies import convergence
from ..studies.convergence import Problem
from ..studies.steadiness import steadiness as steadiness_of
from ..tensors import Tensors
from . import plots

# --- What travels ---


def what_travels(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """For each method named, what each part of a client's tensors does: "travels" to the server, or "stays". Found by
    running a round of each method on two blank images.

    Examples
    --------
    >>> what_travels(["fedper"])
    {'fedper': {'extractor': 'travels', 'classifier': 'stays'}}
    """
    net = net_for((1, 8, 8), 10)
    weights = net.init(0)
    images = torch.zeros(2, 1, 8, 8)
    labels = torch.tensor([0, 1])
    both_at_once = torch.arange(2)
    two_images = LocalData(images, labels, lambda epochs: [both_at_once] * epochs)
    where = {}
    for name in names:
        method = make(name)
        client = method.init(weights)
        download = method.send(method.init_server(weights), 0)
        result = client_round(method, net, client, download, two_images)
        sent = _parts(result.upload)
        where[name] = {part: "travels" if part in sent else "stays" for part in _parts(result.client) + sent}
    return where


def _parts(tensors: Tensors) -> list[str]:
    """What stands before the first dot of each name, each part once."""
    return list(dict.fromkeys(name.split(".")[0] for name in tensors))


def travel_map(names: Sequence[str]) -> Figure:
    """Which tensors of a client travel to the server and which stay, by method: found by running a round of each."""
    return plots.travel_table(what_travels(names))


# --- The anchors' pull ---


class AnchorPull(NamedTuple):
    """One client's features before and after some steps of its extractor, with the anchors that pulled at them."""

    before: np.ndarray  # features of its n training images, (n, d)
    after: np.ndarray
    labels: np.ndarray  # the images' classes, (n,)
    anchors: np.ndarray  # of the classes that it holds, (A, d)
    anchor_labels: np.ndarray  # their classes, (A,)
    omega_before: float  # the centre loss, mean over the images
    omega_after: float


def pull_to_anchors(
    net: DecoupledNet,
    weights: Tensors,
    federation: Federation,
    client: int = 0,
    mu: float = FedeCouple.mu,
    steps: int = 20,
    lr: float = FedeCouple.lr,
) -> AnchorPull:
    """One client receives `weights`; its extractor takes `steps` steps on ce + mu Omega, each on all its images.

    Raises ValueError for a client that there is not, or that has no training images, for mu or steps below 0, and for
    a step size lr that is not above 0.
    """
    known = is_whole_number(client) and 0 <= client < len(federation)
    require(known, "client", client, f"a whole number from 0 to {len(federation) - 1}")
    require(len(federation.train[client]) > 0, "client", client, "one that has training images")
    require(is_whole_number(steps) and steps >= 0, "steps", steps, "a whole number >= 0")
    x, y = images_of(federation, federation.train[client])

    def all_at_once(epochs: int) -> list[Tensor]:
        return [torch.arange(len(y))] * epochs

    # One step on all images in an epoch, so that epochs are steps; no classifier phase, no pull of the server's.
    all_in_one = {"classifier_epochs": 0, "epochs": steps, "batch_size": len(y)}
    method = make("fedecouple", mu=mu, lr=lr, global_loss=0, **all_in_one)
    trained = client_round(method, net, weights, weights, LocalData(x, y, all_at_once)).client
    before = forward(net.features, weights, x)
    after = forward(net.features, trained, x)
    anchors = trained["anchors.means"]  # (C, d)
    held = torch.nonzero(trained["anchors.counts"])[:, 0]  # the classes that this client has
    return AnchorPull(
        before=before.cpu().numpy(),
        after=after.cpu().numpy(),
        labels=y.cpu().numpy(),
        anchors=anchors[held].cpu().numpy(),
        anchor_labels=held.cpu().numpy(),
        omega_before=centre_loss(before, y, anchors).mean().item(),
        omega_after=centre_loss(after, y, anchors).mean().item(),
    )


def anchor_pull(
    net: DecoupledNet,
    weights: Tensors,
    federation: Federation,
    client: int = 0,
    mu: float = FedeCouple.mu,
    steps: int = 20,
    lr: float = FedeCouple.lr,
) -> Figure:
    """One client's features as received, after `steps` steps of its extractor without a pull, and after as many on
    ce + mu Omega: three panels in ONE plane (PCA) and one window, so that they can be compared, also over mu."""
    free = pull_to_anchors(net, weights, federation, client, mu=0.0, steps=steps, lr=lr)
    pulled = pull_to_anchors(net, weights, federation, client, mu, steps, lr)
    panels = {
        f"received\nOmega {pulled.omega_before:.3f}": pulled.before,
        f"{steps} steps without a pull\nOmega {free.omega_after:.3f}": free.after,
        f"{steps} steps, mu = {mu:g}\nOmega {pulled.omega_after:.3f}": pulled.after,
    }
    text = "PCA of one client's features, one plane for all panels; its anchors as stars"
    classes = federation.data.classes
    return plots.around_anchors(panels, pulled.labels, pulled.anchors, pulled.anchor_labels, classes, text)


# --- Convergence, measured under its bound ---


class MeasuredDescent(NamedTuple):
    """A run on a problem whose constants are known, and what the theorem says about it; arrays (T,)."""

    average: np.ndarray  # squared gradient norm, mean of the first 1, 2, ..., T rounds
    terms: dict[str, np.ndarray]  # of the bound on it, by name; none where the step is larger than the theorem allows


def measure_descent(problem: Problem, step: float = 1.0, local_steps: int = 5, rounds: int = 300) -> MeasuredDescent:
    """Run `problem`. step: gamma as a share of 1 / (4 L), the largest that the theorem allows; above 1, no bound.

    Raises ValueError where step is not above 0, or there is no local step or no round.
    """
    require(is_number(step) and step > 0, "step", step, "a number above 0")
    require(is_whole_number(local_steps) and local_steps >= 1, "local_steps", local_steps, "a whole number >= 1")
    require(is_whole_number(rounds) and rounds >= 1, "rounds", rounds, "a whole number >= 1")
    lr = step / (4 * problem.smoothness * local_steps)
    run = convergence.descend(problem, lr, local_steps, rounds)
    average = convergence.running_mean(run.measured)
    if step > 1:
        return MeasuredDescent(average, terms={})
    terms = convergence.bound(
        run.gap,
        problem.smoothness,
        problem.sigma,
        problem.kappa,
        clients=len(problem.a),
        lr=lr,
        local_steps=local_steps,
        rounds=np.arange(1, rounds + 1),
        bias=convergence.running_mean(run.bias),
        change=convergence.running_mean(run.change),
    )
    return MeasuredDescent(average, {name: np.broadcast_to(term, rounds) for name, term in terms.items()})


def descent(problem: Problem, step: float = 1.0, local_steps: int = 5, rounds: int = 300) -> tuple[Figure, str]:
    """The measured average squared gradient norm of a known problem under the theorem's bound and its terms, and what
    they come to in words. The context term may be negative, so it has a second panel, on a linear scale. step: gamma as
    a share of 1 / (4 L), the largest that the theorem allows; above 1, no bound.
    """
    average, terms = measure_descent(problem, step, local_steps, rounds)
    context = "of it: context (alone: right)"
    bounds = {}
    words = "The step is larger than the theorem allows: there is no bound."
    if terms:
        bound = np.zeros(rounds)
        for term in terms.values():
            bound = bound + term
        bounds = {"bound": bound}
        for name in ("start", "noise", "drift"):
            bounds[f"of it: {name}"] = terms[name]
        bounds[context] = terms["context"]
        times = f"The bound is {bound[-1] / average[-1]:.1f} times what was measured."
        words = f"{times} {_context_in_words(terms['context'][-1])}"
    fig = plots.rates_and_context({"measured, average of T rounds": average}, bounds, context)
    return fig, f"After {rounds} rounds the average squared gradient norm is {average[-1]:.3g}. {words}"


def _context_in_words(context: float) -> str:
    """The sign of the context term, 5/2 (mean ||b_t||^2 + mean change / gamma), and what it says."""
    if context < 0:
        return f"Its context term ends at {context:.3g}: negative, because the renewals lowered Phi."
    if context > 0:
        return f"Its context term ends at {context:.3g}: positive, it adds to the bound."
    return "Its context term is zero: the renewals did not change Phi, and the extractor left nothing out."


# --- Fewer clients in a round ---


def runs_with_faults(
    data: Dataset,
    name: str,
    participation: float = 1.0,
    dropout: float = 0.0,
    *,
    clients: int = 10,
    per_client: int = 80,
    length: int = 12,
    seeds: int = 3,
) -> list[dict[str, Any]]:
    """Runs of the method `name`, one for each seed, as `plots.curves` takes them.

    participation: in (0, 1], the share of `clients` that is drawn for each of `length` rounds. dropout: in [0, 1], the
    share of these, on average, that is away all the same. Splits are Dirichlet 0.3, with at most `per_client` images a
    client, half of them for testing. Raises ValueError for what cannot be.
    """
    require(is_whole_number(seeds) and seeds >= 1, "seeds", seeds, "a whole number >= 1")
    method = make(name, epochs=2)
    faults = [DropBefore(dropout)]
    runs = []
    for seed in range(seeds):
        federation = split(data, clients, seed=seed, alpha=0.3, per_client=per_client)
        net = net_for(data.in_shape, len(data.classes))
        how: dict[str, Any] = {"seed": seed, "participation": participation, "faults": faults, "min_uploads": 0}
        *_, state = rounds(method, net, federation, rounds=length, **how)
        runs.append({"label": name, "seed": seed, "records": state.records})
    return runs


def steadiness(
    data: Dataset,
    name: str,
    participation: float = 1.0,
    dropout: float = 0.0,
    **sizes: int,
) -> tuple[Figure, str]:
    """The personal accuracy of `runs_with_faults` round by round, a line a seed and their mean, and in words the
    spreads over seeds, rounds and clients. sizes: clients, per_client, length and seeds."""
    runs = runs_with_faults(data, name, participation, dropout, **sizes)
    figures = steadiness_of([run["records"] for run in runs])
    mean, over_seeds, over_rounds, percentile10 = (100 * figure for figure in figures)
    words = (
        f"{name}, participation {participation:g}, dropout {dropout:g}: {mean:.1f} % at the end; spread over seeds "
        f"{over_seeds:.1f}, over rounds {over_rounds:.1f} points; 10th percentile of clients {percentile10:.1f} %."
    )
    return plots.seeds_apart(runs), words


# --- Clients that attack ---


def flip_signs(federation: Federation, attackers: Sequence[int]) -> tuple[Federation, list[Fault]]:
    """Attackers send the opposite of what they have learned."""
    return federation, [SignFlip(attackers)]


def send_noise(federation: Federation, attackers: Sequence[int]) -> tuple[Federation, list[Fault]]:
    """Attackers send noise, three times as long as what they have learned."""
    return federation, [GaussianUpdate(attackers, std=3.0)]


def label_wrongly(federation: Federation, attackers: Sequence[int]) -> tuple[Federation, list[Fault]]:
    """Attackers train as everybody does, on wrong labels."""
    return flip_labels(federation, attackers), []


# name -> a function of (federation, attackers): what everybody then trains on, and what goes wrong with uploads
ATTACKS: dict[str, Callable[[Federation, Sequence[int]], tuple[Federation, list[Fault]]]] = {
    "sign flip": flip_signs,
    "noise": send_noise,
    "label flip": label_wrongly,
}
DEFENCES = ("none", "median", "trimmed mean", "multi-Krum", "similarity weights", "norm clipping")


def defences_against(name: str, clients: int) -> list[Defence]:
    """The defence of this name for so many clients in a round. Krum and the trimmed mean prepare for as many attackers
    as Krum can: fewer than half. ValueError for a name that is not one of DEFENCES, and where there is no client."""
    require(is_whole_number(clients) and clients >= 1, "clients", clients, "a whole number >= 1")
    if name not in DEFENCES:
        raise ValueError(f"defence={name!r} is unknown; {nearest(name, DEFENCES)}")
    attackers = max(0, (clients - 3) // 2)
    defences: dict[str, list[Defence]] = {
        "none": [],
        "median": [CoordinateMedian()],
        "trimmed mean": [TrimmedMean(attackers / clients)],
        "multi-Krum": [MultiKrum(attackers, keep=clients - attackers)],
        "similarity weights": [SimilarityWeights()],
        "norm clipping": [ClipNorm(0.5)],
    }
    return defences[name]


def runs_under_attack(
    data: Dataset,
    name: str,
    attack: str = "sign flip",
    share: float = 0.2,
    defence: str = "none",
    *,
    clients: int = 10,
    per_client: int = 120,
    length: int = 8,
    seeds: int = 2,
) -> list[dict[str, Any]]:
    """Runs of the method `name` in which a share of the clients attack, one for each seed, as `plots.curves` takes
    them; "personal" is the mean over the others, the honest ones.

    attack: one of ATTACKS. share: in [0, 1), of `clients`, rounded; one client at least is honest. defence: one of
    DEFENCES. Splits are Dirichlet 0.5, with at most `per_client` images a client, half of them for testing; all clients
    take part in each of `length` rounds of four local epochs. Raises ValueError for what cannot be.
    """
    require(is_whole_number(seeds) and seeds >= 1, "seeds", seeds, "a whole number >= 1")
    require(is_number(share) and 0 <= share < 1, "share", share, "a number from 0 to below 1")
    if attack not in ATTACKS:
        raise ValueError(f"attack={attack!r} is unknown; {nearest(attack, ATTACKS)}")
    method = make(name, epochs=4)
    defences = defences_against(defence, clients)
    somebody_is_honest = round(share * clients) < clients
    require(somebody_is_honest, "share", share, f"such that one of clients={clients} at least is honest")
    runs = []
    for seed in range(seeds):
        federation = split(data, clients, seed=seed, alpha=0.5, per_client=per_client)
        attackers = draw_attackers(federation, share, seed)
        poisoned, faults = ATTACKS[attack](federation, attackers)
        net = net_for(data.in_shape, len(data.classes))
        how: dict[str, Any] = {"seed": seed, "faults": faults, "defences": defences}
        *_, state = rounds(method, net, poisoned, rounds=length, **how)
        records = [{**record, "personal": honest_accuracy(record, attackers)} for record in state.records]
        runs.append({"label": name, "seed": seed, "records": records})
    return runs


def attacked(
    data: Dataset,
    name: str,
    attack: str = "sign flip",
    share: float = 0.2,
    defence: str = "none",
    **sizes: int,
) -> tuple[Figure, str]:
    """The honest clients' personal accuracy of `runs_under_attack` round by round, a line a seed and their mean, and in
    words where it ends. sizes: clients, per_client, length and seeds."""
    runs = runs_under_attack(data, name, attack, share, defence, **sizes)
    mean, over_seeds, _, _ = steadiness_of([run["records"] for run in runs])
    words = (
        f"{name}, {share:.0%} of the clients attack ({attack}), defence: {defence}. Honest clients: {100 * mean:.1f} % "
        f"at the end, spread over seeds {100 * over_seeds:.1f} points."
    )
    return plots.seeds_apart(runs), words
