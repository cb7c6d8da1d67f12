"""Convergence: exact gradients of a method's own objective, the theorem's bound, a problem with known constants.

Notebook 06 states and proves the theorem. Paper: FedeCouple (arXiv 2511.09599) states convergence for nonconvex
objectives in its abstract; objective, proof and constants here are our own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..engine import State, forward, images_of
from ..methods import FedAvg
from ..models import DecoupledNet
from ..partition import Federation
from ..phases import Measure, Phase
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors, flat, pick, weighted_mean

# --- A method's own objective, on real clients ---


class Part(NamedTuple):
    """What one phase descends on one client: the weights it trains, and what its losses need."""

    phase: Phase
    weights: Tensors
    client: Tensors
    download: Tensors
    inputs: Tensor
    y: Tensor

    def loss(self, net: DecoupledNet, weights: Tensors, index: Any = slice(None)) -> Tensor:
        """The sum of the phase's losses, each a mean over the images at `index`, at these weights: a scalar."""
        client, x, y = {**self.client, **weights}, self.inputs[index], self.y[index]
        return torch.stack([of(net, client, self.download, x, y).mean() for of in self.phase.losses]).sum()

    def gradient(self, net: DecoupledNet, index: Any = slice(None), graph: bool = False) -> tuple[Tensors, Tensors]:
        """The weights (leaves of the graph) and the exact gradient of `loss` at them, name by name."""
        weights = {name: t.detach().clone().requires_grad_() for name, t in self.weights.items()}
        found = torch.autograd.grad(self.loss(net, weights, index), list(weights.values()), create_graph=graph)
        return weights, dict(zip(weights, found, strict=True))


def objective(method: FedAvg, net: DecoupledNet, federation: Federation, state: State, k: int) -> list[Part]:
    """Client k's own objective at `state`, phase by phase, on all its training images: nothing is trained, so every
    gradient is taken at the same point, the one that the next round starts from."""
    download = method.send(state.server, k)
    client = method.receive(state.clients[k], download)
    x, y = images_of(federation, federation.train[k])
    parts, features = [], forward(net.features, client, x)  # nothing moves, so one pass serves all phases
    for phase in method.phases():
        inputs = features if phase.on_features else x
        if isinstance(phase, Measure):
            client = {**client, **phase.compute(net, inputs, y, torch.ones_like(y, dtype=x.dtype))}
        else:
            parts.append(Part(phase, pick(client, *phase.train), client, download, inputs, y))
    return parts


def gradient_norms(method: FedAvg, net: DecoupledNet, federation: Federation, state: State) -> dict[str, float]:
    """Squared norms of the exact full-data gradient of the method's own objective, sum_i p_i F_i with p_i = n_i / n.

    "extractor" and "classifiers": for tensors that clients receive from the server, of the clients' weighted mean; for
    tensors that each keeps, the weighted mean of the clients' own. "dissimilarity": sum_i p_i ||grad_i - mean||^2 over
    what is averaged. "distance": sum_i p_i ||phi_i - phi||^2 between the clients' classifiers and the server's, NaN
    where one of them is missing.
    """
    sizes = [len(index) for index in federation.train]
    gradients: list[Tensors] = []
    for k in range(len(federation)):
        gradients.append({})
        for part in objective(method, net, federation, state, k):
            for name, g in part.gradient(net)[1].items():
                gradients[k][name] = gradients[k].get(name, 0) + g
    download = method.send(state.server, 0)
    received = method.receive(state.clients[0], download)
    averaged = [name for name in gradients[0] if name in download and received[name] is download[name]]
    mean, p = weighted_mean(gradients, sizes), np.array(sizes) / sum(sizes)
    found = {"extractor": 0.0, "classifiers": 0.0, "dissimilarity": 0.0}
    for name in gradients[0]:
        own = float(p @ [float(g[name].square().sum()) for g in gradients])
        of_mean = float(mean[name].square().sum())
        found["extractor" if EXTRACTOR in name else "classifiers"] += of_mean if name in averaged else own
        found["dissimilarity"] += own - of_mean if name in averaged else 0.0
    shared = {name: t for name, t in state.server.items() if name.startswith(CLASSIFIER)}
    apart = [sum(float((c[name] - t).square().sum()) for name, t in shared.items()) for c in state.clients]
    return {**found, "distance": float(p @ apart) if shared else float("nan")}


def noise(
    method: FedAvg, net: DecoupledNet, federation: Federation, state: State, draws: int = 8, seed: int = 0
) -> float:
    """Estimate of sigma^2: ||batch gradient - full gradient||^2, mean over clients and `draws` batches (drawn with
    replacement, so unbiased), of the noisiest phase."""
    rng, by_phase = np.random.default_rng(seed), defaultdict[int, list[float]](list)
    for k in range(len(federation)):
        for i, part in enumerate(objective(method, net, federation, state, k)):
            exact = flat(part.gradient(net)[1])
            size = min(method.batch_size, len(part.y))
            picks = [torch.from_numpy(rng.integers(0, len(part.y), size)) for _ in range(draws)]
            found = [float((flat(part.gradient(net, index)[1]) - exact).square().sum()) for index in picks]
            by_phase[i] += found  # as many for every client
    return max(float(np.mean(found)) for found in by_phase.values())


def smoothness(method: FedAvg, net: DecoupledNet, federation: Federation, state: State, steps: int = 12) -> float:
    """Estimate of L: the largest curvature in size, over clients and phases, at this point, by `steps` power iterations
    with Hessian-vector products. A lower estimate: L holds everywhere, this is one point."""
    largest = 0.0
    for k in range(len(federation)):
        for part in objective(method, net, federation, state, k):
            weights, gradient = part.gradient(net, graph=True)
            g, leaves = flat(gradient), list(weights.values())
            v = torch.randn(g.shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64).to(g)
            size = 0.0
            for _ in range(steps):
                v = v / v.norm()
                products = torch.autograd.grad(g @ v, leaves, retain_graph=True)
                v = flat(dict(zip(weights, products, strict=True)))
                size = float(v.norm())
                if size == 0:
                    break
            largest = max(largest, size)
    return largest


# --- The theorem ---


def bound(
    gap: float, smoothness: float, sigma: float, kappa: float, clients: int, lr: float, local_steps: int,
    rounds: int | np.ndarray, bias: Any = 0.0, change: Any = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """The theorem's terms; their sum bounds the average over `rounds` rounds T of E[||q_t||^2 + p_t^2].

    With gamma = lr * local_steps <= 1 / (4 L), equal weights and full participation: "start" 5/2 gap / (gamma T),
    "noise" 5/2 gamma L sigma^2 (1 + 1/N) / K, "drift" 5/2 gamma^2 L^2 (kappa^2 + 2 sigma^2 / K), "context" 5/2 (bias +
    change / gamma). gap: Phi at the start minus its lower bound. bias: average ||b_t||^2, the distillation gradient
    that the extractor leaves out. change: average growth of Phi a round as anchors and teacher are renewed (anchors
    never add to it). Raises ValueError where gamma is too large for the theorem.
    """
    gamma = lr * local_steps
    if local_steps < 1 or clients < 1 or np.min(rounds) < 1:
        raise ValueError(f"local_steps={local_steps}, clients={clients} and rounds={rounds} must be at least 1")
    if not 0 < gamma * smoothness <= 0.25 + 1e-12:
        found = f"lr * local_steps * L = {gamma * smoothness:.3g}"
        raise ValueError(f"lr={lr}, local_steps={local_steps}: {found} must be above 0 and at most 1/4")
    return {
        "start": 2.5 * gap / (gamma * rounds),
        "noise": 2.5 * gamma * smoothness * sigma**2 * (1 + 1 / clients) / local_steps,
        "drift": 2.5 * (gamma * smoothness) ** 2 * (kappa**2 + 2 * sigma**2 / local_steps),
        "context": 2.5 * (bias + change / gamma),
    }


class Rate(NamedTuple):
    """A fitted slope of log(value) on log(round), and the ends of its interval."""

    slope: float
    low: float
    high: float


def fit_rate(curves: np.ndarray, first: int = 1, resamples: int = 1000, seed: int = 0) -> Rate:
    """Least-squares slope of log(curves' mean over seeds) on log(t), t = first, ..., T, at 25 log-spaced rounds, with a
    95 % bootstrap interval over seeds: rows of `curves`, (S >= 2, T). Rounds of one run are no independent sample."""
    curves = np.asarray(curves, dtype=float)
    if (
        curves.ndim != 2
        or len(curves) < 2
        or not ((curves > 0) & np.isfinite(curves)).all()
        or not 1 <= first < curves.shape[1]
    ):
        raise ValueError(
            f"curves of shape {curves.shape} must be positive and finite, (S >= 2 seeds, T > first={first} rounds)"
        )
    t = np.unique(np.geomspace(first, curves.shape[1], 25).round().astype(int))
    rng, x = np.random.default_rng(seed), np.log(t) - np.log(t).mean()

    def slope(rows: Any) -> float:
        return float(x @ np.log(curves[rows].mean(0)[t - 1]) / (x @ x))

    spread = [slope(rng.integers(0, len(curves), len(curves))) for _ in range(resamples)]
    return Rate(slope(slice(None)), *np.quantile(spread, [0.025, 0.975]).tolist())


def running_mean(values: np.ndarray) -> np.ndarray:
    """(1/T) sum over the first T values, for every T, along the last axis: what the theorem bounds."""
    return np.cumsum(values, -1) / np.arange(1, np.shape(values)[-1] + 1)


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
        of_theta = (1 + self.global_loss) * (self.h + self.c) + self.mu * (1 + self.tau**2) + self.lam
        return max(of_theta, self.r + self.c + 1.5 * self.lam)

    @property
    def kappa(self) -> float:
        """The largest dissimilarity: the root of max (1/N) sum_i ||u_i + c s_i - mean||^2 over s_i in [-1, 1]^m. It is
        convex in s, so s_ij = +-1 there, and the largest u_ij have the plus: N + 1 cases for each coordinate."""
        u = np.sort((1 + self.global_loss) * self.h * self.a, axis=0)  # (N, m)
        n = len(u)
        cases = [np.where(np.arange(n) < minus, -1, 1)[:, None] for minus in range(n + 1)]
        return float(np.sqrt(np.max([(u + self.c * s).var(0) for s in cases], axis=0).sum()))

    @property
    def lowest(self) -> float:
        """A lower bound of Phi: each quadratic at its minimum, each cosine at -1."""
        g, m = self.global_loss, self.a.shape[1]
        return (1 + g) * self.h / 2 * self.a.var(0).sum() + g * self.r / 2 * self.e.var(0).sum() - (1 + g) * self.c * m

    def value(self, theta: np.ndarray, phi: np.ndarray, anchor: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """Phi, the mean over clients. theta, anchor, psi: (..., 1, m); phi: (..., N, m)."""

        def ce(p: np.ndarray) -> np.ndarray:
            quadratic = self.h / 2 * (theta - self.a) ** 2 + self.r / 2 * (p - self.e) ** 2
            return (quadratic + self.c * np.cos(theta - p)).sum(-1)

        omega = sum(((x * theta - anchor) ** 2).sum(-1) / 4 for x in (1 + self.tau, 1 - self.tau))
        distilled = ((1 + np.sin(theta) / 2) * (1 - np.cos(phi - psi))).sum(-1)
        return (ce(phi) + self.global_loss * ce(psi) + self.mu * omega + self.lam * distilled).mean(-1)

    def extractor_gradient(self, theta: np.ndarray, phi: np.ndarray, anchor: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """h_i, (..., N, m): of the extractor's own loss, ce + global_loss ce(psi) + mu Omega, without distillation."""
        pull = (1 + self.global_loss) * self.h * (theta - self.a)
        waves = self.c * (np.sin(theta - phi) + self.global_loss * np.sin(theta - psi))
        return pull - waves + self.mu * ((1 + self.tau**2) * theta - anchor)

    def classifier_gradient(self, theta: np.ndarray, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """(..., N, m): of each personal loss, ce + lam D."""
        distilled = self.lam * (1 + np.sin(theta) / 2) * np.sin(phi - psi)
        return self.r * (phi - self.e) + self.c * np.sin(theta - phi) + distilled

    def bias(self, theta: np.ndarray, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """b, (..., 1, m): minus the gradient of lam D in theta, which the extractor does not follow."""
        return -self.lam * (np.cos(theta) / 2 * (1 - np.cos(phi - psi))).mean(-2, keepdims=True)


def random_problem(seed: int, skew: float | None = None, **fixed: float) -> Problem:
    """A problem drawn at random: 2 to 8 clients, 1 to 5 coordinates, all constants; `fixed` ones as given. skew: spread
    of the clients' wishes a_i and e_i."""
    rng = np.random.default_rng(seed)
    shape, spread = (int(rng.integers(2, 9)), int(rng.integers(1, 6))), rng.uniform(0, 3)
    drawn = {"h": rng.uniform(0.2, 2), "r": rng.uniform(0.2, 2), "c": rng.uniform(0, 3), "sigma": rng.uniform(0, 2)}
    drawn |= {"tau": rng.uniform(0, 1), "mu": rng.uniform(0, 2), "lam": rng.uniform(0, 2)}
    drawn["global_loss"] = rng.uniform(0, 1.5)
    a, e = rng.normal(size=(2, *shape)) * (spread if skew is None else skew)
    return Problem(a, e, **{**drawn, **fixed})


class Descent(NamedTuple):
    """A run on a Problem, each an array (T,), mean over replicas; `gap` a number."""

    measured: np.ndarray  # ||q_t||^2 + p_t^2
    bias: np.ndarray  # ||b_t||^2
    change: np.ndarray  # Phi after the context is renewed, minus before
    gap: float


def descend(problem: Problem, lr: float, local_steps: int, rounds: int, replicas: int = 8, seed: int = 0) -> Descent:
    """FedeCouple on `problem`: anchor and teacher renewed, K steps on each phi_i, K steps on each theta_i, average.

    replicas: independent noise, averaged: the theorem bounds an expectation. A run that diverges gives inf or NaN.
    """
    if rounds < 1 or replicas < 1 or local_steps < 1:
        raise ValueError(f"rounds={rounds}, replicas={replicas} and local_steps={local_steps} must be at least 1")
    found = list(_rounds(problem, lr, local_steps, rounds, replicas, np.random.default_rng(seed)))
    measured, bias, change, values = (np.array(column) for column in zip(*found, strict=True))
    return Descent(measured, bias, change, float(values[0]) - problem.lowest)


def _rounds(p: Problem, lr: float, steps: int, rounds: int, replicas: int, rng: Any) -> Iterator[Sequence[float]]:
    n, m = p.a.shape
    theta, phi = np.full((replicas, 1, m), 3.0), np.zeros((replicas, n, m))
    anchor, psi = theta, phi.mean(1, keepdims=True)

    def noisy(gradient: np.ndarray) -> np.ndarray:
        return gradient + p.sigma / np.sqrt(m) * rng.normal(size=gradient.shape)

    with np.errstate(all="ignore"):
        for _ in range(rounds):
            before = p.value(theta, phi, anchor, psi)
            of_classifiers = (p.classifier_gradient(theta, phi, psi) ** 2).sum(-1).mean(-1)
            for _ in range(steps):
                phi = phi - lr * noisy(p.classifier_gradient(theta, phi, psi))
            q = p.extractor_gradient(theta, phi, anchor, psi).mean(1)  # (replicas, m)
            bias = p.bias(theta, phi, psi)
            local = np.repeat(theta, n, axis=1)
            for _ in range(steps):
                local = local - lr * noisy(p.extractor_gradient(local, phi, anchor, psi))
            theta = local.mean(1, keepdims=True)
            ended = p.value(theta, phi, anchor, psi)
            anchor, psi = theta, phi.mean(1, keepdims=True)
            change = p.value(theta, phi, anchor, psi) - ended
            yield tuple(x.mean() for x in ((q**2).sum(-1) + of_classifiers, (bias**2).sum((-1, -2)), change, before))
