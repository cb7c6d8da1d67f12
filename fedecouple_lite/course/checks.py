"""Checks for the exercises: your function against a reference on random inputs, and in words what is wrong.

Every check prints a verdict and returns whether the function is right; none raises, so an unsolved notebook still runs.
Inputs are fresh at every call, so that no answer can be learned by heart; references are bound here by name, so that
one who changes the library's function is still compared with the library's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import norm, t
from torch import Tensor

from ..losses import centre_loss, cross_entropy, distillation, true_class_probability
from ..losses import class_means as means_and_counts
from ..partition import dirichlet, unevenness
from ..studies.convergence import bound
from ..tensors import Tensors, weighted_mean

# --- How a check works ---


class Mistake(NamedTuple):
    """A mistake that is known: what to say, and the function that somebody who made it has written."""

    message: str
    made: Callable[..., Any]


class Wrong(Exception):
    """What is wrong with a student's function, in words."""


def _verdict(name: str, examine: Callable[[], None]) -> bool:
    """Print what `examine` finds wrong, or that nothing is; returns whether nothing is."""
    try:
        examine()
    except Wrong as wrong:
        print(f"{name}: {wrong}")
        return False
    except Exception as error:  # a result so odd that looking at it fails; that, too, has to reach the student
        print(f"{name}: your result cannot be looked at ({type(error).__name__}). Return plain arrays or numbers.")
        return False
    print(f"{name}: correct.")
    return True


def _result_of(yours: Callable[..., Any], *arguments: Any) -> Any:
    """What `yours` returns; Wrong where it does not. It gets copies, so that it cannot spoil the case for others."""
    if not callable(yours):
        raise Wrong(f"give the check your function itself, not {_kind(yours)}.")
    try:
        result = yours(*copy.deepcopy(arguments))
    except NotImplementedError:
        raise Wrong("not written yet. Replace `raise NotImplementedError` by your code.") from None
    except (Exception, SystemExit) as error:  # whatever a student's code may raise is reported, not passed on
        raise Wrong(f"your function raises {type(error).__name__}: {error}") from None
    if result is None:
        raise Wrong("your function returns None. Did you forget `return`?")
    return result


def _check(
    name: str, yours: Callable[..., Any], reference: Callable[..., Any], cases: Sequence[tuple], mistakes: list[Mistake]
) -> bool:
    """`yours` must agree with `reference` on every case; where it agrees with a mistake instead, that is said."""

    def examine() -> None:
        for case in cases:
            result = _result_of(yours, *case)
            _compare(result, reference(*case), case, mistakes)

    return _verdict(name, examine)


def _compare(result: Any, expected: Any, case: tuple, mistakes: list[Mistake]) -> None:
    """Wrong, unless the result is as expected."""
    if _same(result, expected):
        return
    for mistake in mistakes:
        if _same(result, mistake.made(*case)):
            raise Wrong(mistake.message)
    if isinstance(result, dict) and isinstance(expected, dict) and result.keys() == expected.keys():
        for name in expected:
            _blame_kind_and_shape(f"under {name!r} ", result[name], expected[name])
    else:
        _blame_kind_and_shape("", result, expected)
    _blame_what_is_not_finite(result, expected)
    if np.ndim(expected) == 0 and not isinstance(expected, dict):
        shown = ", ".join(f"{argument:.4g}" for argument in case if np.ndim(argument) == 0)
        raise Wrong(f"for ({shown}) you return {float(result):.4g}; it should be {float(expected):.4g}.")
    raise Wrong("the shape is right but the values are not. Try three samples that you can compute by hand.")


def _blame_what_is_not_finite(result: Any, expected: Any) -> None:
    """Wrong where the result holds NaN or infinite numbers and what is expected does not."""
    ours = _as_tensor(result)
    theirs = _as_tensor(expected)
    if ours is None or theirs is None:
        return
    should_be_finite = bool(theirs.isfinite().all())
    is_finite = bool(ours.isfinite().all())
    if should_be_finite and not is_finite:
        raise Wrong(
            "your result holds NaN or infinite numbers where there should be none. Is there a division by 0, a "
            "logarithm of 0, or an exponential of something large? The inputs may be large; log_softmax bears that."
        )


def _blame_kind_and_shape(where: str, result: Any, expected: Any) -> None:
    """Wrong, unless the result is of the kind and shape that is expected."""
    ours = _as_tensor(result)
    theirs = _as_tensor(expected)
    if ours is None or theirs is None:
        raise Wrong(f"{where}your result is {_kind(result)}, where {_kind(expected)} is expected.")
    if ours.shape != theirs.shape:
        raise Wrong(f"{where}your result has shape {tuple(ours.shape)}, where shape {tuple(theirs.shape)} is expected.")


def _same(a: Any, b: Any) -> bool:
    """Whether two numbers, arrays, tensors or dictionaries of them are the same, but for rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in b)
    a = _as_tensor(a)
    b = _as_tensor(b)
    if a is None or b is None or a.shape != b.shape:
        return False
    largest = float(b.abs().max()) if b.numel() else 0.0
    rounding = 1e-6 * min(1.0, largest) or 1e-6  # small numbers must not pass for each other
    return torch.allclose(a, b, rtol=1e-4, atol=rounding, equal_nan=True)


def _as_tensor(value: Any) -> Tensor | None:
    """A number, an array, a tensor or a list of numbers as a float64 tensor on the CPU; None where it is no such
    thing."""
    try:
        if isinstance(value, np.ndarray):
            value = np.array(value, order="C")  # torch takes no array that runs backwards
        if torch.as_tensor(value).is_complex():
            return None
        return torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    except Exception:  # torch raises half a dozen kinds for what it cannot take
        return None


def _kind(value: Any) -> str:
    """What it is, in words."""
    if isinstance(value, dict):
        return f"a dictionary with the names {sorted(map(str, value))}"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} ({value.dtype})"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _random(*shapes: tuple[int, ...]) -> list[Tensor]:
    """A tensor of normal numbers for each shape, others at every call."""
    generator = torch.Generator()
    generator.seed()
    return [torch.randn(*shape, generator=generator) for shape in shapes]


def _labels(n: int, classes: int) -> Tensor:
    """(n,) labels in [0, classes), others at every call; where n allows, every class at least once."""
    generator = torch.Generator()
    generator.seed()
    drawn = torch.randint(0, classes, (n,), generator=generator)
    every_class = torch.arange(min(n, classes))
    return torch.cat([every_class, drawn])[:n][torch.randperm(n, generator=generator)]


# --- 01: who holds what ---


def check_partition(yours: Callable[[np.ndarray, int, float, np.random.Generator], list]) -> bool:
    """yours(labels (n,), clients, alpha, rng) -> a list of index arrays: Dirichlet label skew."""
    labels = np.arange(2000) % 10
    clients = 20
    draws = 40

    def figures(parts: list[np.ndarray]) -> list[float]:
        counts = np.stack([np.bincount(labels[part], minlength=10) for part in parts])  # (N, C)
        skews = unevenness(counts)
        return [skews["label_skew"], skews["size_skew"]]

    def of_ours(alpha: float) -> np.ndarray:
        """Label and size skew of so many draws of the right law, (draws, 2)."""
        rng = np.random.default_rng()
        return np.array([figures(dirichlet(labels, clients, rng, alpha=alpha)) for _ in range(draws)])

    def of_yours(alpha: float) -> np.ndarray:
        """The same of your divisions, each of which must be one, (draws, 2)."""
        return np.array([figures(division(alpha)) for _ in range(draws)])

    def division(alpha: float) -> list[np.ndarray]:
        """Your division, once it is one: everybody has a part, and every image is in exactly one."""
        result = _result_of(yours, labels, clients, alpha, np.random.default_rng())
        parts = _index_arrays(result, clients, len(labels))
        together = np.concatenate(parts)
        missing = len(labels) - len(together)
        if len(np.unique(together)) < len(together):
            raise Wrong("some image goes to more than one client.")
        if missing > 0:
            raise Wrong(f"{missing} of {len(labels)} images go to nobody. Look at the last cut point.")
        return parts

    def examine() -> None:
        alphas = (0.1, 1.0, 100.0)
        yours_by_alpha = {alpha: of_yours(alpha) for alpha in alphas}
        label_skews = [of_alpha[:, 0].mean() for of_alpha in yours_by_alpha.values()]
        clearly = 0.1  # more than chance moves the mean of so many draws
        if label_skews[0] < label_skews[1] + clearly or label_skews[1] < label_skews[2] + clearly:
            raise Wrong("the skew does not fall as alpha grows. Is alpha passed to the Dirichlet draw of every class?")
        if not yours_by_alpha[1.0].std(0).all():
            raise Wrong("every call gives the same division. Draw from the rng that you are given.")
        for alpha in alphas:
            wanted = of_ours(alpha)
            found = yours_by_alpha[alpha]
            # Means of so many draws: six standard errors of their difference are not met by chance.
            error = np.sqrt((wanted.var(0) + found.var(0)) / draws)
            for i, name in enumerate(("label skew", "size skew")):
                ours = wanted[:, i].mean()
                yours_on_average = found[:, i].mean()
                farthest = 6 * error[i] + 1e-3
                if abs(yours_on_average - ours) > farthest:
                    raise Wrong(
                        f"with alpha = {alpha:g} the {name} is {yours_on_average:.2f} on average; it should be "
                        f"{ours:.2f}. Is there one draw over the clients for each class, with this alpha for all of "
                        "them?"
                    )

    return _verdict("partition", examine)


def _index_arrays(result: Any, clients: int, images: int) -> list[np.ndarray]:
    """A division as a list of `clients` arrays of image numbers below `images`; Wrong, in words, where it is none."""
    is_sequence = isinstance(result, list | tuple) or (isinstance(result, np.ndarray) and result.ndim > 0)
    if not is_sequence:
        raise Wrong(f"your result is {_kind(result)}, where a list of {clients} index arrays is expected.")
    if len(result) != clients:
        raise Wrong(f"it gives {len(result)} parts for {clients} clients.")
    return [_image_numbers(f"client {client}'s part", part, images) for client, part in enumerate(result)]


def _image_numbers(whose: str, part: Any, images: int) -> np.ndarray:
    """One client's part as an array of whole numbers, (n,), each from 0 to images - 1; Wrong where it is none."""
    numbers = _as_array(part)
    if numbers is None or numbers.ndim != 1:
        raise Wrong(f"{whose} is {_kind(part)}; an array of image numbers, (n,), is expected.")
    if len(numbers) == 0:
        return np.zeros(0, dtype=int)
    if numbers.dtype == bool:
        raise Wrong(f"{whose} holds True and False; np.flatnonzero makes image numbers of them.")
    if not np.issubdtype(numbers.dtype, np.integer):
        raise Wrong(f"{whose} holds {numbers.dtype} where image numbers, whole numbers, are expected.")
    for number in (numbers.min(), numbers.max()):
        if not 0 <= number < images:
            raise Wrong(f"{whose} holds the image number {number}; they run from 0 to {images - 1}.")
    return numbers.astype(int)


def _as_array(value: Any) -> np.ndarray | None:
    """`value` as an array; None where it is a dictionary, or cannot be one."""
    if isinstance(value, dict):
        return None
    try:
        return np.asarray(value)
    except Exception:  # ragged lists, tensors with gradients, ...
        return None


def check_unevenness(yours: Callable[[np.ndarray], float]) -> bool:
    """yours(counts (N, C)) -> mean total-variation distance of the clients' label distributions to the whole's."""

    def reference(counts: np.ndarray) -> float:
        return unevenness(counts)["label_skew"]

    def gaps(counts: np.ndarray) -> np.ndarray:
        """(N, C): each client's label distribution minus the whole's."""
        return counts / counts.sum(1, keepdims=True) - counts.sum(0) / counts.sum()

    def sum_over_clients(counts: np.ndarray) -> float:
        return np.abs(gaps(counts)).sum() / 2

    def squares(counts: np.ndarray) -> float:
        return (np.square(gaps(counts)).sum(1) / 2).mean()

    def against_uniform(counts: np.ndarray) -> float:
        gaps_to_uniform = counts / counts.sum(1, keepdims=True) - 1 / counts.shape[1]
        return (np.abs(gaps_to_uniform).sum(1) / 2).mean()

    rng = np.random.default_rng()
    cases = [(rng.integers(1, 30, shape),) for shape in ((4, 3), (10, 10))]
    mistakes = [
        Mistake(
            "half of it: the total variation is the sum of absolute differences, divided by 2.",
            lambda counts: 2 * reference(counts),
        ),
        Mistake("take the mean over clients, not the sum.", sum_over_clients),
        Mistake("absolute differences, not squares.", squares),
        Mistake(
            "compare with the label distribution of all images together, not with the uniform one.", against_uniform
        ),
    ]
    return _check("label skew", yours, reference, cases, mistakes)


# --- 02: what is shared ---


def check_split_names(yours: Callable[[dict, str], dict]) -> bool:
    """yours(tensors, part) -> those whose names start with part."""

    def starting(tensors: Tensors, part: str) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if name.startswith(part)}

    def containing(tensors: Tensors, part: str) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if part in name}

    def not_starting(tensors: Tensors, part: str) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(part)}

    def names_cut_off(tensors: Tensors, part: str) -> Tensors:
        return {name.removeprefix(part): tensor for name, tensor in starting(tensors, part).items()}

    names = ("extractor.w", "classifier.w", "personal.extractor.w", "anchors.means")
    values = _random((2,), (3,), (2,), (4,))
    tensors = dict(zip(names, values, strict=True))
    cases = [(tensors, "extractor."), (tensors, "anchors.")]
    mistakes = [
        Mistake(
            "you take every name that contains the part; Ditto's personal.extractor would travel. Use startswith.",
            containing,
        ),
        Mistake("these are the names that do NOT start with the part.", not_starting),
        Mistake("keep the whole names: the server must know where each tensor belongs.", names_cut_off),
    ]
    return _check("names", yours, starting, cases, mistakes)


def check_weighted_mean(yours: Callable[[list, list], dict]) -> bool:
    """yours(list of dictionaries of tensors, weights) -> dictionary."""

    def weighted_sum(many: list[Tensors], weights: list[float]) -> Tensors:
        return {name: mean * sum(weights) for name, mean in weighted_mean(many, weights).items()}

    many = []
    for _ in range(3):
        of_extractor, of_classifier = _random((2, 3), (4,))
        many.append({"extractor.w": of_extractor, "classifier.b": of_classifier})
    cases = [(many, [1, 3, 6]), (many[:1], [5])]
    mistakes = [
        Mistake(
            "every client counts the same here: use the weights.",
            lambda many, weights: weighted_mean(many, [1] * len(many)),
        ),
        Mistake("divide by the sum of the weights.", weighted_sum),
    ]
    return _check("weighted mean", yours, weighted_mean, cases, mistakes)


# --- 03: anchors ---


def check_class_means(yours: Callable[[Tensor, Tensor, int], Tensor]) -> bool:
    """yours(z (n, d), y (n,), classes) -> anchors (C, d), zeros for an absent class."""

    def means(z: Tensor, y: Tensor, classes: int) -> Tensor:
        return means_and_counts(z, y, classes)[0]

    def sums(z: Tensor, y: Tensor, classes: int) -> Tensor:
        return means(z, y, classes) * torch.bincount(y, minlength=classes)[:, None]

    def means_without_clamp(z: Tensor, y: Tensor, classes: int) -> Tensor:
        return torch.stack([z[y == c].mean(0) for c in range(classes)])

    cases = []
    for n, d, classes in ((6, 3, 4), (25, 8, 10), (1, 2, 3)):
        (z,) = _random((n, d))
        y = _labels(n, classes - 1)  # the last class is always absent
        cases.append((z, y, classes))
    mistakes = [
        Mistake(
            "your anchors have the right shape but average over the batch, not the class.",
            lambda z, y, classes: z.mean(0).expand(classes, -1),
        ),
        Mistake("these are sums: divide by the number of samples of the class.", sums),
        Mistake(
            "you divide by the number of all samples, not by that of the class.",
            lambda z, y, classes: sums(z, y, classes) / len(y),
        ),
        Mistake(
            "a class without samples gives NaN: 0 / 0. Its row should be zeros; divide by at least 1.",
            means_without_clamp,
        ),
    ]
    return _check("class means", yours, means, cases, mistakes)


def check_centre_loss(yours: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """yours(z (B, d), y (B,), centres (C, d)) -> (B,)."""
    cases = []
    for batch, d in ((4, 3), (9, 16)):
        (z,) = _random((batch, d))
        (centres,) = _random((5, d))
        cases.append((z, _labels(batch, 5), centres))
    mistakes = [
        Mistake(
            "divide by d, the number of features: mu then means the same for every net.",
            lambda z, y, centres: (z - centres[y]).square().sum(1),
        ),
        Mistake(
            "this is the distance; the loss is its square, divided by d.",
            lambda z, y, centres: (z - centres[y]).norm(dim=1),
        ),
        Mistake(
            "you return one number for the batch; one for each sample is wanted, (B,).",
            lambda z, y, centres: centre_loss(z, y, centres).mean(),
        ),
        Mistake("there is a factor 1/2 too many.", lambda z, y, centres: centre_loss(z, y, centres) / 2),
    ]
    return _check("centre loss", yours, centre_loss, cases, mistakes)


# --- 04: distillation ---


def check_distillation(yours: Callable[[Tensor, Tensor, float], Tensor]) -> bool:
    """yours(student (B, C), teacher (B, C), temperature) -> (B,)."""

    def soft_cross_entropy(student: Tensor, teacher: Tensor, T: float) -> Tensor:
        return -(T**2) * ((teacher / T).softmax(1) * (student / T).log_softmax(1)).sum(1)

    cases = []
    for shape, temperature in (((4, 3), 2.0), ((7, 10), 3.0)):
        student, teacher = _random(shape, shape)
        cases.append((student, teacher, temperature))
    student, teacher = _random((5, 4), (5, 4))
    cases.append((400 * student, 400 * teacher, 1.5))  # logits at which the logarithm of a softmax breaks
    mistakes = [
        Mistake(
            "the factor T^2 is missing: without it the gradient shrinks as the temperature grows.",
            lambda student, teacher, T: distillation(student, teacher, T) / T**2,
        ),
        Mistake(
            "student and teacher are exchanged: KL(teacher || student) is wanted.",
            lambda student, teacher, T: distillation(teacher, student, T),
        ),
        Mistake(
            "the temperature is missing: divide both logits by T before the softmax.",
            lambda student, teacher, T: distillation(student, teacher, 1.0),
        ),
        Mistake(
            "the temperature is missing in the softmax: divide both logits by T.",
            lambda student, teacher, T: distillation(student, teacher, 1.0) * T**2,
        ),
        Mistake(
            "this is the cross-entropy; subtract the teacher's entropy, so that equal distributions give 0.",
            soft_cross_entropy,
        ),
        Mistake(
            "you return one number for the batch; one for each sample is wanted, (B,).",
            lambda student, teacher, T: distillation(student, teacher, T).mean(),
        ),
    ]
    return _check("distillation", yours, distillation, cases, mistakes)


def check_dynamic_weight(yours: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """yours(teacher logits (B, C), y (B,)) -> (B,)."""

    def of_true_class(values: Tensor, y: Tensor) -> Tensor:
        return values.gather(1, y[:, None])  # (B, 1)

    cases = []
    for batch, classes in ((4, 3), (9, 10)):
        (logits,) = _random((batch, classes))
        cases.append((2 * logits, _labels(batch, classes)))
    mistakes = [
        Mistake(
            "this is the teacher's confidence in its own answer; the probability of the TRUE class is wanted.",
            lambda teacher, y: teacher.softmax(1).max(1).values,
        ),
        Mistake(
            "this is the log-probability; the probability itself is the weight.",
            lambda teacher, y: of_true_class(teacher.log_softmax(1), y)[:, 0],
        ),
        Mistake(
            "this is the logit of the true class: take the softmax first.",
            lambda teacher, y: of_true_class(teacher, y)[:, 0],
        ),
        Mistake(
            "the softmax goes over the classes, dim=1, not over the batch.",
            lambda teacher, y: of_true_class(teacher.softmax(0), y)[:, 0],
        ),
        Mistake("the shape should be (B,), not (B, 1).", lambda teacher, y: of_true_class(teacher.softmax(1), y)),
        Mistake(
            "this is 1 where the teacher is right and 0 elsewhere; the weight is its probability of the true class.",
            lambda teacher, y: (teacher.argmax(1) == y).float(),
        ),
    ]
    return _check("dynamic weight", yours, true_class_probability, cases, mistakes)


# --- 05: the whole algorithm ---


def check_joint_loss(yours: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], Tensor]) -> bool:
    """yours(global logits (B, C), own logits (B, C), z (B, d), y (B,), anchors (C, d), mu) -> (B,)."""

    def joint(global_logits: Tensor, own_logits: Tensor, z: Tensor, y: Tensor, anchors: Tensor, mu: float) -> Tensor:
        both = cross_entropy(global_logits, y) + cross_entropy(own_logits, y)
        return both + mu * centre_loss(z, y, anchors)

    cases = []
    for batch, classes, d, mu in ((4, 3, 5, 0.3), (9, 10, 16, 2.5)):
        global_logits, own_logits, z = _random((batch, classes), (batch, classes), (batch, d))
        (anchors,) = _random((classes, d))
        cases.append((global_logits, own_logits, z, _labels(batch, classes), anchors, mu))
    # g, o: logits of the global and of the own classifier; a: anchors
    mistakes = [
        Mistake(
            "Omega is there twice: one step on the sum has mu * Omega once.",
            lambda g, o, z, y, a, mu: joint(g, o, z, y, a, 2 * mu),
        ),
        Mistake("Omega is missing.", lambda g, o, z, y, a, mu: joint(g, o, z, y, a, 0.0)),
        Mistake("mu is missing.", lambda g, o, z, y, a, mu: joint(g, o, z, y, a, 1.0)),
        Mistake(
            "divide Omega by d, the number of features.",
            lambda g, o, z, y, a, mu: joint(g, o, z, y, a, mu * z.shape[1]),
        ),
        Mistake(
            "the global classifier's cross-entropy is missing.",
            lambda g, o, z, y, a, mu: joint(g, o, z, y, a, mu) - cross_entropy(g, y),
        ),
        Mistake(
            "the client's own cross-entropy is missing.",
            lambda g, o, z, y, a, mu: joint(g, o, z, y, a, mu) - cross_entropy(o, y),
        ),
        Mistake(
            "you return one number for the batch; one for each image is wanted, (B,).",
            lambda g, o, z, y, a, mu: joint(g, o, z, y, a, mu).mean(),
        ),
    ]
    return _check("joint loss", yours, joint, cases, mistakes)


# --- 06: convergence ---


def check_largest_lr(yours: Callable[[float, int], float]) -> bool:
    """yours(L, K local steps) -> the largest lr with lr K L <= 1/4.

    Examples
    --------
    >>> check_largest_lr(lambda L, K: 1 / (4 * L))
    largest step size: that is gamma. One step is gamma / K.
    False
    """
    rng = np.random.default_rng()
    cases = []
    for fewest, most in ((1, 1), (2, 9), (11, 29)):
        L = rng.uniform(1, 50)
        K = int(rng.integers(fewest, most + 1))
        cases.append((L, K))
    mistakes = [
        Mistake("that is gamma. One step is gamma / K.", lambda L, K: 1 / (4 * L)),
        Mistake("this is 1/(K L): the theorem asks for a quarter of it.", lambda L, K: 1 / (L * K)),
    ]
    return _check("largest step size", yours, lambda L, K: 1 / (4 * L * K), cases, mistakes)


def check_floor(yours: Callable[[float, float, float, float, int, int], float]) -> bool:
    """yours(gamma, L, sigma, kappa, N, K) -> noise + drift, what stays of the bound as T grows."""

    def terms(gamma: float, L: float, sigma: float, kappa: float, N: int, K: int) -> dict[str, Any]:
        return bound(gap=0.0, smoothness=L, sigma=sigma, kappa=kappa, clients=N, lr=gamma / K, local_steps=K, rounds=1)

    def floor(gamma: float, L: float, sigma: float, kappa: float, N: int, K: int) -> float:
        both = terms(gamma, L, sigma, kappa, N, K)
        return both["noise"] + both["drift"]

    rng = np.random.default_rng()
    cases = []
    for N, K in ((4, 2), (10, 5)):
        L, sigma, kappa = rng.uniform(1.5, 5, 3)
        gamma = rng.uniform(0.05, 0.25) / L  # the theorem allows up to 1 / (4 L)
        cases.append((gamma, L, sigma, kappa, N, K))
    mistakes = [
        Mistake("the factor 5/2 is missing.", lambda *case: floor(*case) / 2.5),
        Mistake("the drift is missing: skew moves clients apart.", lambda *case: terms(*case)["noise"]),
        Mistake("the noise is missing.", lambda *case: terms(*case)["drift"]),
        Mistake(
            "sigma and kappa enter squared.",
            lambda gamma, L, sigma, kappa, N, K: floor(gamma, L, sigma**0.5, kappa**0.5, N, K),
        ),
    ]
    return _check("floor", yours, floor, cases, mistakes)


# --- 07 and 10: what a comparison says ---


def check_interaction(yours: Callable[[float, float, float, float], float]) -> bool:
    """yours(neither, only A, only B, both) -> what both give beyond the sum of each alone.

    Examples
    --------
    >>> check_interaction(lambda neither, a, b, both: both - neither)
    interaction: that is the effect of both together; take off what each gives alone.
    False
    """
    accuracies = np.random.default_rng().uniform(10, 90, size=(3, 4))
    cases = [tuple(row) for row in accuracies.tolist()]
    mistakes = [
        Mistake("add the accuracy with neither: it was subtracted twice.", lambda neither, a, b, both: both - a - b),
        Mistake(
            "that is the effect of both together; take off what each gives alone.",
            lambda neither, a, b, both: both - neither,
        ),
        Mistake("the sign is the wrong way round.", lambda neither, a, b, both: a + b - both - neither),
    ]
    return _check("interaction", yours, lambda neither, a, b, both: both - a - b + neither, cases, mistakes)


def check_paired_interval(yours: Callable[[np.ndarray, np.ndarray], tuple[float, float]]) -> bool:
    """yours(ours (n,), theirs (n,), seed by seed) -> (low, high): the 95 % t-interval of the mean difference."""

    def around_mean(leads: np.ndarray, half_width: float) -> np.ndarray:
        return np.array([leads.mean() - half_width, leads.mean() + half_width])

    def interval(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        leads = ours - theirs
        n = len(leads)
        return around_mean(leads, t.ppf(0.975, n - 1) * leads.std(ddof=1) / np.sqrt(n))

    def std_of_population(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        leads = ours - theirs
        n = len(leads)
        return around_mean(leads, t.ppf(0.975, n - 1) * leads.std(ddof=0) / np.sqrt(n))

    def spread_of_one(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        leads = ours - theirs
        return around_mean(leads, t.ppf(0.975, len(leads) - 1) * leads.std(ddof=1))

    def normal_quantile(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        leads = ours - theirs
        return around_mean(leads, norm.ppf(0.975) * leads.std(ddof=1) / np.sqrt(len(leads)))

    rng = np.random.default_rng()
    cases = [(rng.normal(90, 2, n), rng.normal(89, 2, n)) for n in (3, 5)]
    mistakes = [
        Mistake("the standard deviation of a sample divides by n - 1: ddof=1.", std_of_population),
        Mistake("the mean of n differences spreads less than one: divide by the root of n.", spread_of_one),
        Mistake(
            "1.96 is for many seeds; with few, take the quantile of the t-distribution with n - 1 degrees of freedom.",
            normal_quantile,
        ),
        Mistake("difference the other way round: ours minus theirs.", lambda ours, theirs: interval(theirs, ours)),
    ]
    return _check("paired interval", yours, interval, cases, mistakes)
