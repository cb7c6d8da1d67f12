"""Checks for the exercises: your function against a reference on random inputs, and in words what is wrong.

Every check prints a verdict and returns whether the function is right; none raises, so an unsolved notebook still runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import norm, t
from torch import Tensor

from .. import losses
from ..partition import unevenness
from ..studies.convergence import bound
from ..tensors import weighted_mean

Mistake = tuple[str, Callable[..., Any]]  # what to say, and the function that somebody who made it has written


def _close(a: Any, b: Any) -> bool:
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(_close(a[name], b[name]) for name in b)
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dictionary with the names {sorted(value)}"
    return f"shape {tuple(value.shape)}" if hasattr(value, "shape") else f"a {type(value).__name__}"


def _say(name: str, verdict: str, good: bool = False) -> bool:
    print(f"{name}: {'correct.' if good else verdict}")
    return good


def _check(name: str, yours: Any, reference: Any, cases: Sequence[tuple], mistakes: Sequence[Mistake]) -> bool:
    for case in cases:
        expected = reference(*case)
        try:
            got = yours(*[value.clone() if isinstance(value, Tensor) else value for value in case])
        except NotImplementedError:
            return _say(name, "not written yet. Replace `raise NotImplementedError` by your code.")
        except Exception as error:  # whatever a student's code may raise is reported, not passed on
            return _say(name, f"your function raises {type(error).__name__}: {error}")
        if got is None:
            return _say(name, "your function returns None. Did you forget `return`?")
        try:
            if _close(got, expected):
                continue
            for text, wrong in mistakes:
                if _close(got, wrong(*case)):
                    return _say(name, text)
        except (TypeError, ValueError, RuntimeError):
            return _say(name, f"your result is {_shape(got)}, where {_shape(expected)} is expected.")
        if _shape(got) != _shape(expected):
            return _say(name, f"your result has {_shape(got)}, where {_shape(expected)} is expected.")
        return _say(name, "the shape is right but the values are not. Try three samples that you can compute by hand.")
    return _say(name, "", True)


def _random(*shapes: tuple[int, ...], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in shapes]


def _labels(n: int, classes: int, seed: int) -> Tensor:
    return torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(seed))


def check_class_means(yours: Callable[[Tensor, Tensor, int], Tensor]) -> bool:
    """yours(z (n, d), y (n,), classes) -> anchors (C, d), zeros for an absent class."""

    def means(z: Tensor, y: Tensor, c: int) -> Tensor:
        return losses.class_means(z, y, c)[0]

    cases = [(*_random((n, d), seed=n), _labels(n, c - 1, n), c) for n, d, c in ((6, 3, 4), (25, 8, 10), (1, 2, 3))]
    return _check("class means", yours, means, cases, [
        ("your anchors have the right shape but average over the batch, not the class.",
         lambda z, y, c: z.mean(0).expand(c, -1)),
        ("these are sums: divide by the number of samples of the class.",
         lambda z, y, c: means(z, y, c) * torch.bincount(y, minlength=c)[:, None]),
        ("you divide by the number of all samples, not by that of the class.",
         lambda z, y, c: means(z, y, c) * torch.bincount(y, minlength=c)[:, None] / len(y)),
        ("a class without samples gives NaN: 0 / 0. Its row should be zeros; divide by at least 1.",
         lambda z, y, c: torch.stack([z[y == k].mean(0) for k in range(c)])),
    ])  # fmt: skip


def check_centre_loss(yours: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """yours(z (B, d), y (B,), centres (C, d)) -> (B,)."""
    cases = [(_random((n, d), seed=d)[0], _labels(n, 5, d), _random((5, d), seed=n)[0]) for n, d in ((4, 3), (9, 16))]
    return _check("centre loss", yours, losses.centre_loss, cases, [
        ("divide by d, the number of features: mu then means the same for every net.",
         lambda z, y, a: (z - a[y]).square().sum(1)),
        ("this is the distance; the loss is its square, divided by d.", lambda z, y, a: (z - a[y]).norm(dim=1)),
        ("you return one number for the batch; one for each sample is wanted, (B,).",
         lambda z, y, a: losses.centre_loss(z, y, a).mean()),
        ("there is a factor 1/2 too many.", lambda z, y, a: losses.centre_loss(z, y, a) / 2),
    ])  # fmt: skip


def check_distillation(yours: Callable[[Tensor, Tensor, float], Tensor]) -> bool:
    """yours(student (B, C), teacher (B, C), temperature) -> (B,)."""
    cases = [(*_random((4, 3), (4, 3), seed=1), 2.0), (*_random((7, 10), (7, 10), seed=2), 3.0)]
    return _check("distillation", yours, losses.distillation, cases, [
        ("the factor T^2 is missing: without it the gradient shrinks as the temperature grows.",
         lambda s, t, T: losses.distillation(s, t, T) / T**2),
        ("student and teacher are exchanged: KL(teacher || student) is wanted.",
         lambda s, t, T: losses.distillation(t, s, T)),
        ("the temperature is missing: divide both logits by T before the softmax.",
         lambda s, t, T: losses.distillation(s, t, 1.0)),
        ("the temperature is missing in the softmax: divide both logits by T.",
         lambda s, t, T: losses.distillation(s, t, 1.0) * T**2),
        ("this is the cross-entropy; subtract the teacher's entropy, so that equal distributions give 0.",
         lambda s, t, T: -(T**2) * ((t / T).softmax(1) * (s / T).log_softmax(1)).sum(1)),
        ("you return one number for the batch; one for each sample is wanted, (B,).",
         lambda s, t, T: losses.distillation(s, t, T).mean()),
    ])  # fmt: skip


def check_dynamic_weight(yours: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """yours(teacher logits (B, C), y (B,)) -> (B,)."""
    cases = [(_random((n, c), seed=n)[0] * 2, _labels(n, c, n)) for n, c in ((4, 3), (9, 10))]
    return _check("dynamic weight", yours, losses.true_class_probability, cases, [
        ("this is the teacher's confidence in its own answer; the probability of the TRUE class is wanted.",
         lambda t, y: t.softmax(1).max(1).values),
        ("this is the log-probability; the probability itself is the weight.",
         lambda t, y: t.log_softmax(1).gather(1, y[:, None])[:, 0]),
        ("this is the logit of the true class: take the softmax first.", lambda t, y: t.gather(1, y[:, None])[:, 0]),
        ("the softmax goes over the classes, dim=1, not over the batch.",
         lambda t, y: t.softmax(0).gather(1, y[:, None])[:, 0]),
        ("the shape should be (B,), not (B, 1).", lambda t, y: t.softmax(1).gather(1, y[:, None])),
        ("this is 1 where the teacher is right and 0 elsewhere; the weight is its probability of the true class.",
         lambda t, y: (t.argmax(1) == y).float()),
    ])  # fmt: skip


def check_joint_loss(yours: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], Tensor]) -> bool:
    """yours(global logits (B, C), own logits (B, C), z (B, d), y (B,), anchors (C, d), mu) -> (B,)."""

    def joint(g: Tensor, o: Tensor, z: Tensor, y: Tensor, a: Tensor, mu: float) -> Tensor:
        return losses.cross_entropy(g, y) + losses.cross_entropy(o, y) + mu * losses.centre_loss(z, y, a)

    sizes = ((4, 3, 5, 0.3), (9, 10, 16, 2.5))
    cases = [(*_random((n, c), (n, c), (n, d), seed=n), _labels(n, c, n), _random((c, d), seed=d)[0], mu)
             for n, c, d, mu in sizes]  # fmt: skip
    return _check("joint loss", yours, joint, cases, [
        ("Omega is there twice: one step on the sum has mu * Omega once.",
         lambda g, o, z, y, a, mu: joint(g, o, z, y, a, 2 * mu)),
        ("Omega is missing.", lambda g, o, z, y, a, mu: joint(g, o, z, y, a, 0.0)),
        ("mu is missing.", lambda g, o, z, y, a, mu: joint(g, o, z, y, a, 1.0)),
        ("divide Omega by d, the number of features.",
         lambda g, o, z, y, a, mu: joint(g, o, z, y, a, mu * z.shape[1])),
        ("the global classifier's cross-entropy is missing.",
         lambda g, o, z, y, a, mu: joint(g, o, z, y, a, mu) - losses.cross_entropy(g, y)),
        ("the client's own cross-entropy is missing.",
         lambda g, o, z, y, a, mu: joint(g, o, z, y, a, mu) - losses.cross_entropy(o, y)),
        ("you return one number for the batch; one for each image is wanted, (B,).",
         lambda g, o, z, y, a, mu: joint(g, o, z, y, a, mu).mean()),
    ])  # fmt: skip


def check_largest_lr(yours: Callable[[float, int], float]) -> bool:
    """yours(L, K local steps) -> the largest lr with lr K L <= 1/4."""
    return _check("largest step size", yours, lambda big, k: 1 / (4 * big * k), [(2.0, 1), (3.0, 5), (40.0, 20)], [
        ("that is gamma. One step is gamma / K.", lambda big, k: 1 / (4 * big)),
        ("this is 1/(K L): the theorem asks for a quarter of it.", lambda big, k: 1 / (big * k)),
    ])  # fmt: skip


def check_floor(yours: Callable[[float, float, float, float, int, int], float]) -> bool:
    """yours(gamma, L, sigma, kappa, N, K) -> noise + drift, what stays of the bound as T grows."""

    def floor(gamma: float, big: float, sigma: float, kappa: float, n: int, k: int) -> float:
        terms = bound(0.0, big, sigma, kappa, n, gamma / k, k, 1)
        return terms["noise"] + terms["drift"]

    cases = [(0.1, 2.0, 1.0, 3.0, 4, 2), (0.01, 20.0, 0.5, 1.0, 10, 5)]
    return _check("floor", yours, floor, cases, [
        ("the factor 5/2 is missing.", lambda *a: floor(*a) / 2.5),
        ("the drift is missing: skew moves clients apart.",
         lambda g, b, s, kappa, n, k: bound(0.0, b, s, kappa, n, g / k, k, 1)["noise"]),
        ("the noise is missing.", lambda g, b, s, kappa, n, k: bound(0.0, b, s, kappa, n, g / k, k, 1)["drift"]),
        ("sigma and kappa enter squared.", lambda g, b, s, kappa, n, k: floor(g, b, s**0.5, kappa**0.5, n, k)),
    ])  # fmt: skip


def check_interaction(yours: Callable[[float, float, float, float], float]) -> bool:
    """yours(neither, only A, only B, both) -> what both give beyond the sum of each alone."""
    cases = [(50.0, 55.0, 60.0, 70.0), (0.0, 1.0, 2.0, 3.0), (10.0, 9.0, 12.0, 10.0)]
    return _check("interaction", yours, lambda none, a, b, both: both - a - b + none, cases, [
        ("add the accuracy with neither: it was subtracted twice.", lambda none, a, b, both: both - a - b),
        ("that is the effect of both together; take off what each gives alone.", lambda none, a, b, both: both - none),
        ("the sign is the wrong way round.", lambda none, a, b, both: a + b - both - none),
    ])  # fmt: skip


def check_paired_interval(yours: Callable[[np.ndarray, np.ndarray], tuple[float, float]]) -> bool:
    """yours(ours (n,), theirs (n,), seed by seed) -> (low, high): the 95 % t-interval of the mean difference."""

    def interval(ours: np.ndarray, theirs: np.ndarray, ddof: int = 1, per: bool = True, z: bool = False) -> Any:
        lead, n = np.asarray(ours) - np.asarray(theirs), len(ours)
        half = (norm.ppf(0.975) if z else t.ppf(0.975, n - 1)) * lead.std(ddof=ddof) / (np.sqrt(n) if per else 1)
        return np.array([lead.mean() - half, lead.mean() + half])

    rng = np.random.default_rng(0)
    cases = [(rng.normal(90, 2, n), rng.normal(89, 2, n)) for n in (3, 5)]
    return _check("paired interval", lambda a, b: np.array(yours(a, b)), interval, cases, [
        ("the standard deviation of a sample divides by n - 1: ddof=1.", lambda a, b: interval(a, b, 0)),
        ("the mean of n differences spreads less than one: divide by the root of n.",
         lambda a, b: interval(a, b, per=False)),
        ("1.96 is for many seeds; with few, take the quantile of the t-distribution with n - 1 degrees of freedom.",
         lambda a, b: interval(a, b, z=True)),
        ("difference the other way round: ours minus theirs.", lambda a, b: interval(b, a)),
    ])  # fmt: skip


def check_weighted_mean(yours: Callable[[list, list], dict]) -> bool:
    """yours(list of dictionaries of tensors, weights) -> dictionary."""
    many = [dict(zip(("extractor.w", "classifier.b"), _random((2, 3), (4,), seed=k), strict=True)) for k in range(3)]
    return _check("weighted mean", yours, weighted_mean, [(many, [1, 3, 6]), (many[:1], [5])], [
        ("every client counts the same here: use the weights.", lambda m, w: weighted_mean(m, [1] * len(m))),
        ("divide by the sum of the weights.",
         lambda m, w: {n: t * sum(w) for n, t in weighted_mean(m, w).items()}),
    ])  # fmt: skip


def check_split_names(yours: Callable[[dict, str], dict]) -> bool:
    """yours(tensors, part) -> those whose names start with part."""
    names = ("extractor.w", "classifier.w", "personal.extractor.w", "anchors.means")
    tensors = dict(zip(names, _random((2,), (3,), (2,), (4,), seed=0), strict=True))

    def starting(tensors: dict, part: str) -> dict:
        return {n: t for n, t in tensors.items() if n.startswith(part)}

    return _check("names", yours, starting, [(tensors, "extractor."), (tensors, "anchors.")], [
        ("you take every name that contains the part; Ditto's personal.extractor would travel. Use startswith.",
         lambda tensors, part: {n: t for n, t in tensors.items() if part in n}),
        ("these are the names that do NOT start with the part.",
         lambda tensors, part: {n: t for n, t in tensors.items() if not n.startswith(part)}),
        ("keep the whole names: the server must know where each tensor belongs.",
         lambda tensors, part: {n.removeprefix(part): t for n, t in starting(tensors, part).items()}),
    ])  # fmt: skip


def check_unevenness(yours: Callable[[np.ndarray], float]) -> bool:
    """yours(counts (N, C)) -> mean total-variation distance of the clients' label distributions to the whole's."""
    rng = np.random.default_rng(0)

    def distance(counts: np.ndarray, order: int = 1) -> np.ndarray:
        gaps = counts / counts.sum(1, keepdims=True) - counts.sum(0) / counts.sum()
        return (np.abs(gaps) ** order).sum(1) / 2

    return _check("label skew", yours, lambda counts: unevenness(counts)["label_skew"],
                  [(rng.integers(1, 30, shape),) for shape in ((4, 3), (10, 10))], [
        ("half of it: the total variation is the sum of absolute differences, divided by 2.",
         lambda c: 2 * distance(c).mean()),
        ("take the mean over clients, not the sum.", lambda c: distance(c).sum()),
        ("absolute differences, not squares.", lambda c: distance(c, 2).mean()),
        ("compare with the label distribution of all images together, not with the uniform one.",
         lambda c: (np.abs(c / c.sum(1, keepdims=True) - 1 / c.shape[1]).sum(1) / 2).mean()),
    ])  # fmt: skip


def check_partition(yours: Callable[[np.ndarray, int, float, np.random.Generator], list]) -> bool:
    """yours(labels (n,), clients, alpha, rng) -> a list of index arrays: Dirichlet label skew."""
    name, y, skews = "partition", np.arange(2000) % 10, {}
    for alpha in (0.1, 1.0, 100.0):
        try:
            parts = [np.asarray(part, dtype=int) for part in yours(y.copy(), 20, alpha, np.random.default_rng(0))]
        except NotImplementedError:
            return _say(name, "not written yet. Replace `raise NotImplementedError` by your code.")
        except Exception as error:  # whatever a student's code may raise is reported, not passed on
            return _say(name, f"your function raises {type(error).__name__}: {error}")
        if len(parts) != 20:
            return _say(name, f"it gives {len(parts)} parts for 20 clients.")
        together = np.concatenate(parts)
        if len(np.unique(together)) < len(together):
            return _say(name, "some image goes to more than one client.")
        if len(together) < len(y):
            return _say(name, f"{len(y) - len(together)} of {len(y)} images go to nobody. Look at the last cut point.")
        skews[alpha] = unevenness(np.stack([np.bincount(y[part], minlength=10) for part in parts]))["label_skew"]
    if not skews[0.1] > skews[1.0] > skews[100.0]:
        return _say(
            name, "the skew does not fall as alpha grows. Is alpha passed to the Dirichlet draw of every class?"
        )
    if skews[100.0] > 0.2 or skews[0.1] < 0.5:
        return _say(
            name, "alpha = 100 should be nearly even and alpha = 0.1 very uneven. One draw over clients per class?"
        )
    return _say(name, "", True)
