"""Convergence: exact gradients of a method's own objective, the theorem's bound, a problem with known constants.

Notebook 06 states and proves the theorem. Paper: FedeCouple (arXiv 2511.09599) states convergence for nonconvex
objectives in its abstract; objective, proof and constants here are our own.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..client import Trained, forward, run_phases, trainable
from ..engine import State, client_of, images_of
from ..methods import FedAvg
from ..models import DecoupledNet
from ..partition import Federation
from ..phases import Derive, Train
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors, flat, pick, weighted_mean

ALL = slice(None)  # the index of all of a client's images

# --- A method's own objective, on real clients ---


class Part(NamedTuple):
    """What one phase descends on one client: the weights it trains, and what its losses need."""

    phase: Train
    weights: Tensors
    client: Tensors
    download: Tensors
    inputs: Tensor
    y: Tensor

    def loss(self, net: DecoupledNet, weights: Tensors, index: Tensor | slice = ALL) -> Tensor:
        """The sum of the phase's losses, each a mean over the images at `index`, at these weights: a scalar."""
        client = {**self.client, **weights}
        x = self.inputs[index]
        y = self.y[index]
        losses = [loss_of(net, client, self.download, x, y).mean() for loss_of in self.phase.losses]
        return torch.stack(losses).sum()

    def gradient(self, net: DecoupledNet, index: Tensor | slice = ALL, graph: bool = False) -> tuple[Tensors, Tensors]:
        """The weights (leaves of the graph) and the exact gradient of `loss` at them, name by name.

        graph: keep the gradient's own graph, so that it can be differentiated again.
        """
        leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in self.weights.items()}
        loss = self.loss(net, leaves, index)
        gradients = torch.autograd.grad(loss, list(leaves.values()), create_graph=graph)
        return leaves, dict(zip(leaves, gradients, strict=True))


class Recorder:
    """The Trainer of one client who trains nothing: it notes what each phase would descend."""

    shape: tuple[int, ...] = ()  # of one client, no stack

    def __init__(self, net: DecoupledNet, download: Tensors, images: Tensor, y: Tensor):
        self.net = net
        self.download = download
        self.images = images
        self.y = y
        self.parts: list[Part] = []

    def features(self, client: Tensors) -> Tensor:
        return forward(self.net.features, client, self.images)

    def derive(self, phase: Derive, client: Tensors, inputs: Tensor) -> Tensors:
        every_image = torch.ones_like(self.y, dtype=inputs.dtype)
        return phase.compute(self.net, inputs, self.y, every_image)

    def train(self, phase: Train, client: Tensors, inputs: Tensor) -> Trained:
        weights = trainable(self.net, client, phase.prefixes)
        self.parts.append(Part(phase, weights, client, self.download, inputs, self.y))
        return Trained(tensors={}, loss=inputs.new_zeros(()), steps=torch.tensor(0))


def objective(method: FedAvg, net: DecoupledNet, federation: Federation, state: State, k: int) -> list[Part]:
    """Client k's own objective at `state`, phase by phase, on all its training images: nothing is trained, so every
    gradient is taken at the same point, the one that the next round starts from. A client that has never taken part is
    where it would then join."""
    download = method.send(state.server, k)
    client = method.receive(client_of(method, state, k, download), download)
    x, y = images_of(federation, federation.train[k])
    recorder = Recorder(net, download, x, y)
    run_phases(method.phases(), client, recorder)
    return recorder.parts


def gradient_norms(method: FedAvg, net: DecoupledNet, federation: Federation, state: State) -> dict[str, float]:
    """Squared norms of the exact full-data gradient of the method's own objective, sum_i p_i F_i with p_i = n_i / n.

    "extractor" and "classifiers": for tensors that clients receive from the server, of the clients' weighted mean; for
    tensors that each keeps, the weighted mean of the clients' own. "dissimilarity": sum_i p_i ||grad_i - mean||^2 over
    what is averaged. "distance": sum_i p_i ||phi_i - phi||^2 between the clients' classifiers and the server's, NaN
    where one of them is missing.
    """
    sizes = [len(index) for index in federation.train]
    shares = np.array(sizes) / sum(sizes)  # p
    gradients = [whole_gradient(method, net, federation, state, k) for k in range(len(federation))]
    mean = weighted_mean(gradients, sizes)
    shared = shared_names(method, state)
    norms = {"extractor": 0.0, "classifiers": 0.0, "dissimilarity": 0.0}
    for name in gradients[0]:
        norm_of_each = [squared_norm(gradient[name]) for gradient in gradients]
        mean_of_norms = float(shares @ norm_of_each)
        norm_of_mean = squared_norm(mean[name])
        part = "extractor" if EXTRACTOR in name else "classifiers"
        if name in shared:
            norms[part] += norm_of_mean
            norms["dissimilarity"] += mean_of_norms - norm_of_mean
        else:
            norms[part] += mean_of_norms
    norms["distance"] = distance_of_classifiers(method, state, shares)
    return norms


def whole_gradient(method: FedAvg, net: DecoupledNet, federation: Federation, state: State, k: int) -> Tensors:
    """The gradient of client k's objective, all phases added up, name by name."""
    whole: Tensors = {}
    for part in objective(method, net, federation, state, k):
        _, gradient = part.gradient(net)
        for name, tensor in gradient.items():
            whole[name] = whole[name] + tensor if name in whole else tensor
    return whole


def shared_names(method: FedAvg, state: State) -> set[str]:
    """The names of the tensors that a client takes over from its download as they are: those that are averaged. What a
    client starts with at the server's values, and then keeps, is its own from the first round on."""
    download = method.send(state.server, 0)
    client = client_of(method, state, 0, download)
    own = {name: tensor.clone() for name, tensor in client.items()}  # a newcomer's may be the download's very tensors
    received = method.receive(own, download)
    return {name for name in received if name in download and received[name] is download[name]}


def distance_of_classifiers(method: FedAvg, state: State, shares: np.ndarray) -> float:
    """sum_i p_i ||phi_i - phi||^2 between the clients' classifiers and the server's; NaN where it has none."""
    if not any(name.startswith(CLASSIFIER) for name in state.server):
        return float("nan")
    of_server = pick(state.server, CLASSIFIER)
    distances = []
    for k in range(len(state.clients)):
        client = client_of(method, state, k, method.send(state.server, k))
        distances.append(sum(squared_norm(client[name] - tensor) for name, tensor in of_server.items()))
    return float(shares @ distances)


def squared_norm(tensor: Tensor) -> float:
    """||tensor||^2."""
    return float(tensor.square().sum())


def noise(
    method: FedAvg, net: DecoupledNet, federation: Federation, state: State, draws: int = 8, seed: int = 0
) -> float:
    """Estimate of sigma^2: ||batch gradient - full gradient||^2, mean over clients and `draws` batches (drawn with
    replacement, so unbiased), of the noisiest phase."""
    rng = np.random.default_rng(seed)
    errors_by_phase: dict[int, list[float]] = defaultdict(list)  # as many of every client
    for k in range(len(federation)):
        for number, part in enumerate(objective(method, net, federation, state, k)):
            _, gradient = part.gradient(net)
            exact = flat(gradient)
            batch_size = min(method.batch_size, len(part.y))
            for _ in range(draws):
                index = torch.from_numpy(rng.integers(0, len(part.y), batch_size))
                _, of_batch = part.gradient(net, index)
                errors_by_phase[number].append(squared_norm(flat(of_batch) - exact))
    return max(float(np.mean(errors)) for errors in errors_by_phase.values())


def smoothness(method: FedAvg, net: DecoupledNet, federation: Federation, state: State, steps: int = 12) -> float:
    """Estimate of L: the largest curvature in size, over clients and phases, at this point, by `steps` power iterations
    with Hessian-vector products. A lower estimate: L holds everywhere, this is one point."""
    largest = 0.0
    for k in range(len(federation)):
        for part in objective(method, net, federation, state, k):
            largest = max(largest, curvature(part, net, steps, seed=k))
    return largest


def curvature(part: Part, net: DecoupledNet, steps: int, seed: int) -> float:
    """The size of the Hessian's largest eigenvalue, by power iteration: a random direction, multiplied by the Hessian
    again and again, turns towards that eigenvector and is then stretched by that eigenvalue."""
    leaves, gradients = part.gradient(net, graph=True)
    gradient = flat(gradients)  # (P,)
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64).to(gradient)
    stretch = 0.0
    for _ in range(steps):
        direction = direction / direction.norm()
        products = torch.autograd.grad(gradient @ direction, list(leaves.values()), retain_graph=True)
        direction = flat(dict(zip(leaves, products, strict=True)))  # the Hessian times the direction
        stretch = float(direction.norm())
        if stretch == 0:
            break
    return stretch


# --- The theorem ---


def bound(
    gap: float,
    smoothness: float,
    sigma: float,
    kappa: float,
    clients: int,
    lr: float,
    local_steps: int,
    rounds: int | np.ndarray,
    bias: float | np.ndarray = 0.0,
    change: float | np.ndarray = 0.0,
) -> dict[str, Any]:
    """The theorem's terms; their sum bounds the average over `rounds` rounds T of E[||q_t||^2 + p_t^2].

    With gamma = lr * local_steps <= 1 / (4 L), equal weights and full participation: "start" 5/2 gap / (gamma T),
    "noise" 5/2 gamma L sigma^2 (1 + 1/N) / K, "drift" 5/2 gamma^2 L^2 (kappa^2 + 2 sigma^2 / K), "context" 5/2 (bias +
    change / gamma). gap: Phi at the start minus its lower bound. bias: average ||b_t||^2; b_t is minus the gradient
    that the extractor leaves out, the distillation's. change: average growth of Phi a round as anchors and teacher are
    renewed (anchors never add to it). rounds, bias and change may be arrays, (T,): so are the terms made of them.
    Raises ValueError where gamma is too large for the theorem.

    Examples
    --------
    >>> terms = bound(gap=4.0, smoothness=2.0, sigma=1.0, kappa=3.0, clients=4, lr=0.05, local_steps=2, rounds=10)
    >>> {name: round(term, 4) for name, term in terms.items()}
    {'start': 10.0, 'noise': 0.3125, 'drift': 1.0, 'context': 0.0}
    """
    if local_steps < 1 or clients < 1 or np.min(rounds) < 1:
        raise ValueError(f"local_steps={local_steps}, clients={clients} and rounds={rounds} must be at least 1")
    gamma = lr * local_steps
    if not 0 < gamma * smoothness <= 0.25 + 1e-12:
        product = f"lr * local_steps * L = {gamma * smoothness:.3g}"
        raise ValueError(f"lr={lr}, local_steps={local_steps}: {product} must be above 0 and at most 1/4")
    return {
        "start": 2.5 * gap / (gamma * rounds),
        "noise": 2.5 * gamma * smoothness * sigma**2 * (1 + 1 / clients) / local_steps,
        "drift": 2.5 * (gamma * smoothness) ** 2 * (kappa**2 + 2 * sigma**2 / local_steps),
        "context": 2.5 * (bias + change / gamma),
    }


class Rate(NamedTuple):
    """Fitted slopes of log(value) on log(round)."""

    slope: float  # of the mean over seeds
    of_seeds: tuple[float, ...]  # each seed's own, (S,)


def fit_rate(curves: np.ndarray, first: int = 1) -> Rate:
    """Least-squares slope of log(curve) on log(t), t = first, ..., T, at 25 log-spaced rounds: of the mean over seeds,
    and of each seed's own curve, the rows of `curves`, (S >= 2, T).

    How far the seeds' slopes lie apart is all that a few seeds know of the spread. Rounds of one run are no independent
    sample, so the fit has no standard error.

    Raises ValueError where there are fewer seeds or rounds, or a value that is not positive and finite.

    Examples
    --------
    >>> t = np.arange(1, 101)
    >>> rate = fit_rate(np.stack([1 / t, 3 / t**2]))  # two seeds: one falls as 1 / t, one as 1 / t^2
    >>> print(f"{rate.slope:.2f}:", ", ".join(f"{slope:.2f}" for slope in rate.of_seeds))
    -1.24: -1.00, -2.00
    """
    curves = np.asarray(curves, dtype=float)
    has_shape = curves.ndim == 2 and len(curves) >= 2 and 1 <= first < curves.shape[1]
    if not has_shape or not (np.isfinite(curves) & (curves > 0)).all():
        raise ValueError(
            f"curves of shape {curves.shape} must be positive and finite, (S >= 2 seeds, T > first={first} rounds)"
        )
    t = np.unique(np.geomspace(first, curves.shape[1], 25).round().astype(int))
    x = np.log(t) - np.log(t).mean()

    def slope(curve: np.ndarray) -> float:
        y = np.log(curve[t - 1])
        return float(x @ y / (x @ x))

    return Rate(slope(curves.mean(axis=0)), tuple(slope(curve) for curve in curves))


def running_mean(values: np.ndarray) -> np.ndarray:
    """(1/T) sum over the first T values, for every T, along the last axis: what the theorem bounds.

    Examples
    --------
    >>> running_mean(np.array([4.0, 2.0, 0.0])).tolist()
    [4.0, 3.0, 2.0]
    """
    rounds = np.arange(1, np.shape(values)[-1] + 1)
    return np.cumsum(values, axis=-1) / rounds


# --- A problem with known constants ---


@dataclass(frozen=True)
class Problem:
    """FedeCouple's structure with every constant known: N clients, a shared theta (m,) and personal phi_i (m,).

    ce_i(theta, phi) = h/2 ||theta - a_i||^2 + r/2 ||phi - e_i||^2 + c sum_j cos(theta_j - phi_j), nonconvex for c > h.
    Omega(theta; A) = mean over two samples x = 1 + tau, 1 - tau of ||x theta - A||^2 / 2: "features" x theta, whose
    mean, the anchor, is theta. D(theta, phi; psi) = sum_j (1 + sin(theta_j) / 2) (1 - cos(phi_j - psi_j)), zero where
    student and teacher agree. psi: the mean of the phi_i.
    """

    a: np.ndarray  # (N, m): what each client wants theta to be; their distance is the skew
    e: np.ndarray  # (N, m): the same for phi_i
    h: float = 1.0
    r: float = 1.0
    c: float = 2.0
    sigma: float = 0.5  # E ||noise||^2 = sigma^2 in each gradient
    tau: float = 0.5
    mu: float = 1.0
    lam: float = 0.0
    global_loss: float = 0.0

    @property
    def smoothness(self) -> float:
        """L: no gradient, in theta or in any phi_i, changes faster. Attained for lam = 0."""
        in_theta = (1 + self.global_loss) * (self.h + self.c) + self.mu * (1 + self.tau**2) + self.lam
        in_phi = self.r + self.c + 1.5 * self.lam
        return max(in_theta, in_phi)

    @property
    def kappa(self) -> float:
        """The largest dissimilarity: the root of max (1/N) sum_i ||u_i + c s_i - mean||^2 over s_i in [-1, 1]^m. It is
        convex in s, so s_ij = +-1 there, and the largest u_ij have the plus: N + 1 cases for each coordinate."""
        u = np.sort((1 + self.global_loss) * self.h * self.a, axis=0)  # (N, m), the smallest first
        client = np.arange(len(u))
        variances = []
        for number_minus in range(len(u) + 1):
            s = np.where(client < number_minus, -1, 1)[:, None]  # (N, 1)
            variances.append((u + self.c * s).var(axis=0))  # (m,)
        largest = np.max(variances, axis=0)  # over the cases, coordinate by coordinate
        return float(np.sqrt(largest.sum()))

    @property
    def lowest(self) -> float:
        """A lower bound of Phi: each quadratic at its minimum, each cosine at -1."""
        m = self.a.shape[1]
        of_theta = (1 + self.global_loss) * self.h / 2 * self.a.var(0).sum()
        of_psi = self.global_loss * self.r / 2 * self.e.var(0).sum()
        of_cosines = (1 + self.global_loss) * self.c * m
        return of_theta + of_psi - of_cosines

    def value(self, theta: np.ndarray, phi: np.ndarray, anchor: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """Phi, the mean over clients. theta, anchor, psi: (..., 1, m); phi: (..., N, m)."""
        own = self.cross_entropy(theta, phi)
        of_teacher = self.cross_entropy(theta, psi)
        one_sample = (1 + self.tau) * theta - anchor
        other_sample = (1 - self.tau) * theta - anchor
        omega = (one_sample**2).sum(-1) / 4 + (other_sample**2).sum(-1) / 4
        distilled = ((1 + np.sin(theta) / 2) * (1 - np.cos(phi - psi))).sum(-1)
        of_each = own + self.global_loss * of_teacher + self.mu * omega + self.lam * distilled
        return of_each.mean(-1)

    def cross_entropy(self, theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """ce_i, (..., N), of theta (..., 1, m) with a classifier phi (..., N, m) for each client or (..., 1, m)."""
        quadratic = self.h / 2 * (theta - self.a) ** 2 + self.r / 2 * (phi - self.e) ** 2
        waves = self.c * np.cos(theta - phi)
        return (quadratic + waves).sum(-1)

    def extractor_gradient(self, theta: np.ndarray, phi: np.ndarray, anchor: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """v_i, (..., N, m): of the extractor's own loss, ce + global_loss ce(psi) + mu Omega, without distillation."""
        pull = (1 + self.global_loss) * self.h * (theta - self.a)
        waves = self.c * (np.sin(theta - phi) + self.global_loss * np.sin(theta - psi))
        to_anchor = (1 + self.tau**2) * theta - anchor
        return pull - waves + self.mu * to_anchor

    def classifier_gradient(self, theta: np.ndarray, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """(..., N, m): of each personal loss, ce + lam D."""
        pull = self.r * (phi - self.e)
        waves = self.c * np.sin(theta - phi)
        distilled = self.lam * (1 + np.sin(theta) / 2) * np.sin(phi - psi)
        return pull + waves + distilled

    def bias(self, theta: np.ndarray, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """b, (..., 1, m): minus the gradient that the extractor leaves out, that of the mean lam D in theta."""
        of_each = np.cos(theta) / 2 * (1 - np.cos(phi - psi))
        return -self.lam * of_each.mean(-2, keepdims=True)


def random_problem(seed: int, skew: float | None = None, **fixed: float) -> Problem:
    """A problem drawn at random: 2 to 8 clients, 1 to 5 coordinates, all constants; `fixed` ones as given. skew: spread
    of the clients' wishes a_i and e_i.

    Examples
    --------
    >>> problem = random_problem(seed=0, lam=0.0)
    >>> problem.a.shape, problem.lam
    ((7, 4), 0.0)
    """
    rng = np.random.default_rng(seed)
    clients = int(rng.integers(2, 9))
    coordinates = int(rng.integers(1, 6))
    spread = rng.uniform(0, 3)
    constants = {
        "h": rng.uniform(0.2, 2),
        "r": rng.uniform(0.2, 2),
        "c": rng.uniform(0, 3),
        "sigma": rng.uniform(0, 2),
        "tau": rng.uniform(0, 1),
        "mu": rng.uniform(0, 2),
        "lam": rng.uniform(0, 2),
        "global_loss": rng.uniform(0, 1.5),
    }
    constants.update(fixed)
    if skew is not None:
        spread = skew
    wishes = spread * rng.normal(size=(2, clients, coordinates))
    return Problem(a=wishes[0], e=wishes[1], **constants)


class Descent(NamedTuple):
    """A run on a Problem, each an array (T,), mean over replicas; `gap` a number."""

    measured: np.ndarray  # ||q_t||^2 + p_t^2
    bias: np.ndarray  # ||b_t||^2
    change: np.ndarray  # Phi after the context is renewed, minus before
    gap: float


def descend(problem: Problem, lr: float, local_steps: int, rounds: int, replicas: int = 8, seed: int = 0) -> Descent:
    """FedeCouple on `problem`: anchor and teacher renewed, K steps on each phi_i, K steps on each theta_i, average.

    replicas: independent noise, averaged: the theorem bounds an expectation. A run that diverges gives inf or NaN.

    Examples
    --------
    >>> problem = random_problem(seed=0)
    >>> run = descend(problem, lr=0.25 / problem.smoothness / 5, local_steps=5, rounds=50)
    >>> bool(run.measured[-1] < run.measured[0])
    True
    """
    if rounds < 1 or replicas < 1 or local_steps < 1:
        raise ValueError(f"rounds={rounds}, replicas={replicas} and local_steps={local_steps} must be at least 1")
    rng = np.random.default_rng(seed)
    point = first_point(problem, replicas)
    history = []
    with np.errstate(all="ignore"):  # a run that diverges overflows; what it gives says so
        for _ in range(rounds):
            point, observed = one_round(problem, point, lr, local_steps, rng)
            history.append(observed)
    return Descent(
        measured=np.array([observed.measured for observed in history]),
        bias=np.array([observed.bias for observed in history]),
        change=np.array([observed.change for observed in history]),
        gap=history[0].value - problem.lowest,
    )


class Point(NamedTuple):
    """Where R replicas of a run on a Problem stand before a round."""

    theta: np.ndarray  # (R, 1, m)
    phi: np.ndarray  # (R, N, m)
    anchor: np.ndarray  # (R, 1, m), fixed for a round
    psi: np.ndarray  # (R, 1, m), the teacher, fixed for a round


class Observed(NamedTuple):
    """What one round measures, means over replicas."""

    measured: float  # ||q_t||^2 + p_t^2
    bias: float  # ||b_t||^2
    change: float  # Phi after the context is renewed, minus before
    value: float  # Phi before the round


def first_point(problem: Problem, replicas: int) -> Point:
    """theta at 3, all phi_i at 0, with their anchor and teacher."""
    clients, coordinates = problem.a.shape
    theta = np.full((replicas, 1, coordinates), 3.0)
    phi = np.zeros((replicas, clients, coordinates))
    return renewed(theta, phi)


def renewed(theta: np.ndarray, phi: np.ndarray) -> Point:
    """theta and the phi_i with the anchor and the teacher that follow from them."""
    return Point(theta, phi, anchor=theta, psi=phi.mean(1, keepdims=True))


def one_round(
    problem: Problem, point: Point, lr: float, local_steps: int, rng: np.random.Generator
) -> tuple[Point, Observed]:
    """One round of all clients, and what the theorem asks of it."""
    theta, phi, anchor, psi = point
    value = problem.value(theta, phi, anchor, psi)
    p = problem.classifier_gradient(theta, phi, psi)  # (R, N, m)

    for _ in range(local_steps):
        gradient = problem.classifier_gradient(theta, phi, psi)
        phi = phi - lr * with_noise(gradient, problem.sigma, rng)

    q = problem.extractor_gradient(theta, phi, anchor, psi).mean(1)  # (R, m)
    b = problem.bias(theta, phi, psi)  # (R, 1, m)

    clients = phi.shape[1]
    local = np.repeat(theta, clients, axis=1)  # theta_i, (R, N, m)
    for _ in range(local_steps):
        gradient = problem.extractor_gradient(local, phi, anchor, psi)
        local = local - lr * with_noise(gradient, problem.sigma, rng)
    theta = local.mean(1, keepdims=True)

    before_renewal = problem.value(theta, phi, anchor, psi)
    point = renewed(theta, phi)
    change = problem.value(*point) - before_renewal

    of_extractor = (q**2).sum(-1)  # (R,)
    of_classifiers = (p**2).sum(-1).mean(-1)  # (R,)
    observed = Observed(
        measured=float((of_extractor + of_classifiers).mean()),
        bias=float((b**2).sum((-1, -2)).mean()),
        change=float(change.mean()),
        value=float(value.mean()),
    )
    return point, observed


def with_noise(gradient: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """The gradient, (..., m), plus normal noise of E ||noise||^2 = sigma^2."""
    coordinates = gradient.shape[-1]
    return gradient + sigma / np.sqrt(coordinates) * rng.normal(size=gradient.shape)
