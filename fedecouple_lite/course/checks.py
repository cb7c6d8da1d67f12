"""Checks for the exercises: your function against a reference on random inputs, and in words what is wrong.

Every check prints a verdict and returns whether the function is right; none raises, so an unsolved notebook still runs.
Inputs are fresh at every call, so that no answer can be learned by heart; references are bound here by name, so that
one who changes the library's function is still compared with the library's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import norm, t
from torch import Tensor

from ..losses import centre_loss, cross_entropy, distillation, true_class_probability
from ..losses import class_means as means_and_counts
from ..partition import dirichlet, dirichlet_shares, unevenness
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
    given = copy.deepcopy(arguments)
    try:
        result = yours(*given)
    except NotImplementedError:
        raise Wrong("not written yet. Replace `raise NotImplementedError` by your code.") from None
    except (Exception, SystemExit) as error:  # whatever a student's code may raise is reported, not passed on
        raise Wrong(f"your function raises {type(error).__name__}: {error}") from None
    if result is None:
        raise Wrong("your function returns None. Did you forget `return`?")
    for number, (before, after) in enumerate(zip(arguments, given, strict=True), start=1):
        if not _unchanged(before, after):
            raise Wrong(
                f"your function changes what it is given, its argument number {number}, and whoever called it still "
                "needs that. Make something new: `a = a + b` in place of `a += b`, a new dictionary in place of `del`."
            )
    return result


def _unchanged(before: Any, after: Any) -> bool:
    """Whether an argument still holds what it held. Numbers cannot change, and a generator of random numbers may."""
    if type(before) is not type(after):
        return False
    if isinstance(before, dict):
        if before.keys() != after.keys():
            return False
        return all(_unchanged(before[name], after[name]) for name in before)
    if isinstance(before, list):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    if isinstance(before, Tensor):
        return before.dtype == after.dtype and torch.equal(before, after)
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after)
    return True


def _check(
    name: str, yours: Callable[..., Any], reference: Callable[..., Any], cases: Sequence[tuple], mistakes: list[Mistake]
) -> bool:
    """Print whether `yours` agrees with `reference` on every case (see `compare`); returns whether it does."""
    return _verdict(name, lambda: compare(yours, reference, cases, mistakes))


def compare(
    yours: Callable[..., Any], reference: Callable[..., Any], cases: Sequence[tuple], mistakes: Sequence[Mistake]
) -> None:
    """Wrong, in words, unless `yours` returns what `reference` does on every case, a tuple of arguments.

    Where it returns what a known mistake makes, that is said; else what is seen: kind, shape, the first value.

    Examples
    --------
    >>> compare(lambda a, b: a * b, lambda a, b: a + b, [(2.0, 3.0), (1.0, 1.0)], [])
    Traceback (most recent call last):
    Wrong: for (a = 2, b = 3) you return 6; it should be 5.
    """
    for case in cases:
        result = _result_of(yours, *case)
        expected = reference(*case)
        if _same(result, expected):
            continue
        suspects = [mistake for mistake in mistakes if _resembles(result, mistake, case)]
        _blame_one_of(suspects, yours, cases)
        _blame_what_is_seen(result, expected, _named(case, reference))


def _blame_one_of(suspects: Sequence[Mistake], yours: Callable[..., Any], cases: Sequence[tuple]) -> None:
    """Wrong, in the words of the mistake that explains most cases. One case alone may look like a mistake by chance."""

    def explained(mistake: Mistake) -> int:
        return sum(_agrees_with(yours, mistake, case) for case in cases)

    if not suspects:
        return
    likeliest = max(suspects, key=explained)
    if explained(likeliest) >= 2:
        raise Wrong(likeliest.message)


def _agrees_with(yours: Callable[..., Any], mistake: Mistake, case: tuple) -> bool:
    """Whether `yours` returns on this case what somebody who made the mistake returns."""
    try:
        result = _result_of(yours, *case)
    except Wrong:
        return False
    return _resembles(result, mistake, case)


def _resembles(result: Any, mistake: Mistake, case: tuple) -> bool:
    """Whether this is what somebody who made the mistake returns; 1.96 may stand for 1.959964."""
    return _same(result, mistake.made(*case), rounding=2e-4)


def _named(case: tuple, reference: Callable[..., Any]) -> dict[str, Any]:
    """A case's arguments under the names that the reference has for them."""
    return dict(zip(signature(reference).parameters, case, strict=False))  # it may have options of its own


def _blame_what_is_seen(result: Any, expected: Any, given: dict[str, Any]) -> None:
    """Wrong: what can be said of a result that is not as expected, and not that of a known mistake either. given: the
    arguments by name."""
    if isinstance(result, dict) and isinstance(expected, dict):
        _blame_names(result, expected)
        pairs = [(f"under {name!r} ", result[name], expected[name]) for name in expected]
    else:
        pairs = [("", result, expected)]
    for where, ours, theirs in pairs:
        _blame_kind_and_shape(where, ours, theirs)
    for where, ours, theirs in pairs:
        _blame_what_is_not_finite(where, ours, theirs)
    for where, ours, theirs in pairs:
        _blame_values(where, ours, theirs, given)


def _blame_names(result: dict, expected: dict) -> None:
    """Wrong, unless the two dictionaries have the same names."""
    missing = [name for name in expected if name not in result]
    too_many = [name for name in result if name not in expected]
    if not missing and not too_many:
        return
    words = f"your result is {_kind(result)}, where {_kind(expected)} is expected."
    if missing:
        words += f" Missing: {missing}."
    if too_many:
        words += f" Too many: {too_many}."
    raise Wrong(words)


def _blame_kind_and_shape(where: str, result: Any, expected: Any) -> None:
    """Wrong, unless the result is of the kind and shape that is expected."""
    ours = _as_tensor(result)
    theirs = _as_tensor(expected)
    if ours is None or theirs is None:
        raise Wrong(f"{where}your result is {_kind(result)}, where {_kind(expected)} is expected.")
    if ours.shape == theirs.shape:
        return
    words = f"{where}your result has shape {tuple(ours.shape)}, where shape {tuple(theirs.shape)} is expected."
    if ours.ndim < theirs.ndim:
        words += " Is there a sum, a mean or an index too many?"
    if ours.ndim > theirs.ndim:
        words += " Is a sum, a mean or an index missing?"
    raise Wrong(words)


def _blame_what_is_not_finite(where: str, result: Any, expected: Any) -> None:
    """Wrong where the result holds NaN or infinite numbers and what is expected does not."""
    ours = _as_tensor(result)
    theirs = _as_tensor(expected)
    if ours is None or theirs is None:
        return
    should_be_finite = bool(theirs.isfinite().all())
    is_finite = bool(ours.isfinite().all())
    if should_be_finite and not is_finite:
        raise Wrong(
            f"{where}your result holds NaN or infinite numbers where there should be none. Is there a division by 0, a "
            "logarithm of 0 or of a negative number, or an exponential of something large? The inputs may be large; "
            "log_softmax bears that."
        )


def _blame_values(where: str, result: Any, expected: Any, given: dict[str, Any]) -> None:
    """Wrong, unless the values are as expected: which is the first that differs, and how they all differ."""
    ours = _as_tensor(result)
    theirs = _as_tensor(expected)
    if ours is None or theirs is None or _same(ours, theirs):
        return
    if theirs.ndim == 0:
        arguments = ", ".join(f"{name} = {_in_short(argument)}" for name, argument in given.items())
        raise Wrong(f"{where}for ({arguments}) you return {float(ours):.6g}; it should be {float(theirs):.6g}.")
    first = (~_close(ours, theirs)).nonzero()[0].tolist()
    place = "row {}, column {}".format(*first) if len(first) == 2 else f"entry {first[0]}"
    yours_there = float(ours[tuple(first)]) + 0.0  # never -0
    right_there = float(theirs[tuple(first)])
    words = f"{where}you return {yours_there:.6g} in {place}, where {right_there:.6g} is expected."
    factor = yours_there / right_there if right_there else 0.0
    if factor and ours.numel() > 1 and _same(ours, factor * theirs):
        words += f" All your values are {factor:.4g} times what they should be."
    if isinstance(next(iter(given.values())), Tensor):  # a batch: there are samples
        words += " Try three samples that you can compute by hand."
    raise Wrong(words)


def _in_short(argument: Any) -> str:
    """A number, or a small array, as somebody would type it in order to try it."""
    if np.ndim(argument) == 0:
        return f"{argument:.4g}"
    array = np.asarray(argument)
    if array.size <= 12:
        return str(array.round(4).tolist())
    return f"an array of shape {array.shape}"


def _same(a: Any, b: Any, rounding: float = 1e-6) -> bool:
    """Whether two numbers, arrays, tensors or dictionaries of them are the same, but for rounding (see _close)."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return False
        return all(_same(a[name], b[name], rounding) for name in b)
    a = _as_tensor(a)
    b = _as_tensor(b)
    if a is None or b is None or a.shape != b.shape:
        return False
    return bool(_close(a, b, rounding).all())


def _close(a: Tensor, b: Tensor, rounding: float = 1e-6) -> Tensor:
    """Of two tensors of one shape: where they are the same, but for 1e-4 of each number and `rounding` of the largest,
    or of 1, if that is smaller."""
    largest = float(b.abs().max()) if b.numel() else 0.0
    absolute = rounding * min(1.0, largest) or 1e-6  # small numbers must not pass for each other
    return torch.isclose(a, b, rtol=1e-4, atol=absolute, equal_nan=True)


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

ALPHAS = (0.1, 1.0, 100.0)
DRAWS = 40  # divisions for each alpha


def check_partition(yours: Callable[[np.ndarray, int, float, np.random.Generator], list]) -> bool:
    """yours(labels (n,), clients, alpha, rng) -> a list of index arrays: Dirichlet label skew.

    Right is who cuts each class into pieces, as the library does, and who lets each image choose its owner.
    """
    clients = 20

    def labels_for(alpha: float) -> np.ndarray:
        """(n,): ten classes, all of one size. For the large alpha more images: with few, chance hides its law."""
        images = 2000 if alpha < 10 else 6000
        return np.arange(images) % 10

    def label_counts(parts: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
        """(N, C) images by client and class."""
        return np.stack([np.bincount(labels[part], minlength=10) for part in parts])

    def of_yours(alpha: float) -> np.ndarray:
        """Label counts of your divisions, each of which must be one, (draws, N, C)."""
        labels = labels_for(alpha)
        many = []
        for _ in range(DRAWS):
            result = _result_of(yours, labels, clients, alpha, np.random.default_rng())
            parts = _index_arrays(result, clients, len(labels))
            _blame_no_division(parts, labels)
            many.append(label_counts(parts, labels))
        return np.stack(many)

    def of_ours(way: Callable[..., list[np.ndarray]], alpha: float) -> np.ndarray:
        """Label counts of as many divisions in a right way, (draws, N, C)."""
        labels = labels_for(alpha)
        rng = np.random.default_rng()
        return np.stack([label_counts(way(labels, clients, alpha, rng), labels) for _ in range(DRAWS)])

    def examine() -> None:
        counts = {alpha: of_yours(alpha) for alpha in ALPHAS}
        _blame_the_same_every_time(counts)
        _blame_undivided_classes(counts[100.0])
        found = {alpha: _skews(counts[alpha]) for alpha in ALPHAS}
        _blame_what_does_not_fall(found)
        by_cuts = {alpha: _skews(of_ours(_by_cuts, alpha)) for alpha in ALPHAS}
        image_by_image = {alpha: _skews(of_ours(_image_by_image, alpha)) for alpha in ALPHAS}
        nearer = min(by_cuts, image_by_image, key=lambda right: _distance(found, right))
        _blame_another_law(found, nearer)

    return _verdict("partition", examine)


def _by_cuts(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    """The library's way: each class is shuffled and cut into pieces as long as the shares say."""
    return dirichlet(labels, clients, rng, alpha=alpha)


def _image_by_image(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    """The exercise's way: each image chooses its owner, with the shares of its class as probabilities."""
    classes = labels.max() + 1
    shares = dirichlet_shares(alpha, clients, classes, rng)  # (N, C)
    owner = np.empty(len(labels), dtype=int)
    for label in range(classes):
        of_class = np.flatnonzero(labels == label)
        owner[of_class] = rng.choice(clients, size=len(of_class), p=shares[:, label])
    return [np.flatnonzero(owner == client) for client in range(clients)]


def _index_arrays(result: Any, clients: int, images: int) -> list[np.ndarray]:
    """A division as a list of `clients` arrays of image numbers below `images`; Wrong, in words, where it is none."""
    is_sequence = isinstance(result, list | tuple) or (isinstance(result, np.ndarray) and result.ndim > 0)
    if not is_sequence:
        raise Wrong(f"your result is {_kind(result)}, where a list of {clients} index arrays is expected.")
    if len(result) == images:
        raise Wrong(
            f"it gives {images} parts for {clients} clients. Is it the owner of each image? Client i's part is "
            "np.flatnonzero(owner == i)."
        )
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


def _blame_no_division(parts: list[np.ndarray], labels: np.ndarray) -> None:
    """Wrong, unless every image is in exactly one part."""
    numbers = np.concatenate(parts)
    times = np.bincount(numbers, minlength=len(labels))  # (n,): how often each image is given away
    if times.max() > 1:
        twice = times.argmax()
        owners = [client for client, part in enumerate(parts) if twice in part]
        if len(owners) == 1:
            raise Wrong(f"client {owners[0]}'s part holds image {twice} more than once.")
        words = f"some image goes to more than one client: image {twice} to clients {owners[0]} and {owners[1]}."
        if numbers.max() < len(labels) / 2:
            words += (
                f" No number is above {numbers.max()}, though there are {len(labels)} images. Are these places within "
                "a class, or labels? np.flatnonzero(labels == c) says which images are of class c."
            )
        raise Wrong(words)
    missing = times == 0
    if missing.any():
        words = f"{missing.sum()} of {len(labels)} images go to nobody."
        whole_classes = [int(label) for label in np.unique(labels) if missing[labels == label].all()]
        if whole_classes:
            raise Wrong(f"{words} All those of class {whole_classes[0]} are lost: does the loop run over every class?")
        raise Wrong(f"{words} Do sizes that are rounded down add up? Look at the last cut point.")


def _blame_the_same_every_time(counts: dict[float, np.ndarray]) -> None:
    """Wrong where all divisions with the same alpha give everybody the same label counts, (draws, N, C)."""
    if all((of_alpha == of_alpha[0]).all() for of_alpha in counts.values()):
        raise Wrong("every call gives the same division, class by class. Draw from the rng that you are given.")


def _blame_undivided_classes(counts: np.ndarray) -> None:
    """Wrong where all images of a class are with one client in every division, (draws, N, C), though alpha is large."""
    largest_share = counts.max(1) / counts.sum(1)  # (draws, C)
    undivided = np.flatnonzero((largest_share == 1).all(0))
    if len(undivided) > 0:
        raise Wrong(
            f"with alpha = 100 all images of class {undivided[0]} are with one client, at every call. Does the loop "
            "run over every class, and is the class then divided by its shares?"
        )


def _skews(counts: np.ndarray) -> np.ndarray:
    """Label skew, of those clients who hold something, and size skew of divisions (draws, N, C); (draws, 2)."""
    skews = []
    for of_clients in counts:
        of_somebody = of_clients[of_clients.sum(1) > 0]
        label_skew = unevenness(of_somebody)["label_skew"]
        size_skew = unevenness(of_clients)["size_skew"]
        skews.append([label_skew, size_skew])
    return np.array(skews)


def _blame_what_does_not_fall(found: dict[float, np.ndarray]) -> None:
    """Wrong, unless the label skew falls from alpha to alpha. found: label and size skews (draws, 2) by alpha."""
    label_skews = [found[alpha][:, 0].mean() for alpha in ALPHAS]
    size_skew = found[0.1][:, 1].mean()
    clearly = 0.03  # more than chance moves the mean of so many draws
    if label_skews[0] > label_skews[1] + clearly and label_skews[1] > label_skews[2] + clearly:
        return
    words = "the skew does not fall as alpha grows"
    nearly_even = label_skews[0] < 0.3  # what shares drawn with alpha = 0.1 give is 0.7
    if label_skews[0] < label_skews[2] - clearly:
        raise Wrong(f"{words}, it rises. The Dirichlet draw takes alpha itself: a small one gives uneven shares.")
    if nearly_even and size_skew > 0.5:
        raise Wrong(f"{words}: every client holds all classes in the same proportions. Draw anew for every class.")
    if nearly_even:
        raise Wrong(
            f"{words}: with alpha = 0.1, too, everybody holds much the same mixture of classes. Do the shares of the "
            "Dirichlet draw decide who gets an image (p= of rng.choice), and is alpha passed to that draw?"
        )
    raise Wrong(f"{words}. Is alpha passed to the Dirichlet draw of every class?")


def _misfits(found: dict[float, np.ndarray], right: dict[float, np.ndarray]) -> np.ndarray:
    """How far the mean skews are from the right ones, in terms of what chance can do, (alphas, 2): above 1 is wrong.

    found, right: label and size skews by alpha, (draws, 2).
    """
    misfits = []
    for alpha in ALPHAS:
        gaps = np.abs(found[alpha].mean(0) - right[alpha].mean(0))
        # Means of so many draws: six standard errors of their difference are not met by chance.
        error = np.sqrt((found[alpha].var(0) + right[alpha].var(0)) / DRAWS)
        misfits.append(gaps / (6 * error + 1e-3))
    return np.array(misfits)


def _distance(found: dict[float, np.ndarray], right: dict[float, np.ndarray]) -> tuple[int, float]:
    """How many of the mean skews are wrong, and how far the farthest is; the smaller, the nearer."""
    misfits = _misfits(found, right)
    return int((misfits > 1).sum()), float(misfits.max())


def _blame_another_law(found: dict[float, np.ndarray], right: dict[float, np.ndarray]) -> None:
    """Wrong, unless the label and size skews (draws, 2) by alpha are on average the right ones."""
    misfits = _misfits(found, right)
    if misfits.max() <= 1:
        return
    row = int((misfits > 1).any(1).argmax())  # the smallest alpha at which something is wrong
    alpha = ALPHAS[row]
    label_is_wrong, size_is_wrong = misfits[row] > 1
    label_skew, size_skew = found[alpha].mean(0)
    right_label_skew, right_size_skew = right[alpha].mean(0)
    if label_is_wrong:
        words = f"with alpha = {alpha:g} the label skew is {label_skew:.3f} on average; it should be "
        words += f"{right_label_skew:.3f}."
    else:
        words = f"with alpha = {alpha:g} the size skew is {size_skew:.3f} on average; it should be "
        words += f"{right_size_skew:.3f}."

    too_little = label_is_wrong and label_skew < right_label_skew
    too_much = label_is_wrong and label_skew > right_label_skew
    sizes_too_even = size_is_wrong and size_skew < right_size_skew
    sizes_too_uneven = size_is_wrong and size_skew > right_size_skew
    if too_little and sizes_too_uneven:
        raise Wrong(
            f"{words} The same clients get the most of every class. Draw anew for every class, and do not sort the "
            "shares."
        )
    if sizes_too_even and not label_is_wrong:
        raise Wrong(
            f"{words} The clients' sizes are too even. Draw over the clients for each class, not over the classes for "
            "each client."
        )
    if too_much:
        words += " So much belongs to a smaller alpha."
    if too_little:
        words += " So little belongs to a larger alpha."
    raise Wrong(f"{words} Is there one draw over the clients for each class, with this alpha for all of them?")


def check_unevenness(yours: Callable[[np.ndarray], float]) -> bool:
    """yours(counts (N, C)) -> mean total-variation distance of the clients' label distributions to the whole's."""

    def reference(counts: np.ndarray) -> float:
        return unevenness(counts)["label_skew"]

    def distributions(counts: np.ndarray) -> np.ndarray:
        """(N, C): each client's label distribution."""
        return counts / counts.sum(1, keepdims=True)

    def of_all(counts: np.ndarray) -> np.ndarray:
        """(C,): the label distribution of all images together."""
        return counts.sum(0) / counts.sum()

    def distances(counts: np.ndarray) -> np.ndarray:
        """(N,): each client's total variation to the whole."""
        gaps = distributions(counts) - of_all(counts)
        return np.abs(gaps).sum(1) / 2

    def squares(counts: np.ndarray) -> float:
        gaps = distributions(counts) - of_all(counts)
        return (np.square(gaps).sum(1) / 2).mean()

    def euclidean(counts: np.ndarray) -> float:
        gaps = distributions(counts) - of_all(counts)
        return np.sqrt(np.square(gaps).sum(1)).mean()

    def largest_gaps(counts: np.ndarray) -> float:
        gaps = distributions(counts) - of_all(counts)
        return np.abs(gaps).max(1).mean()

    def against_uniform(counts: np.ndarray) -> float:
        gaps_to_uniform = distributions(counts) - 1 / counts.shape[1]
        return (np.abs(gaps_to_uniform).sum(1) / 2).mean()

    def against_mean_client(counts: np.ndarray) -> float:
        mean_client = distributions(counts).mean(0)
        gaps = distributions(counts) - mean_client
        return (np.abs(gaps).sum(1) / 2).mean()

    def weighted_by_size(counts: np.ndarray) -> float:
        return np.average(distances(counts), weights=counts.sum(1))

    def over_all_images(counts: np.ndarray) -> float:
        gaps = counts / counts.sum() - of_all(counts)
        return (np.abs(gaps).sum(1) / 2).mean()

    def shares_of_class(counts: np.ndarray) -> float:
        gaps = counts / counts.sum(0) - of_all(counts)
        return (np.abs(gaps).sum(1) / 2).mean()

    rng = np.random.default_rng()
    cases = []
    for shape in ((4, 3), (5, 7), (10, 10)):
        counts = rng.integers(1, 30, shape)
        cases.append((counts,))
    mistakes = [
        Mistake(
            "half of it: the total variation is the sum of absolute differences, divided by 2.",
            lambda counts: 2 * reference(counts),
        ),
        Mistake(
            "the half is there twice: divide by 2 once.",
            lambda counts: reference(counts) / 2,
        ),
        Mistake("take the mean over clients, not the sum.", lambda counts: distances(counts).sum()),
        Mistake("take the mean over clients, not the largest.", lambda counts: distances(counts).max()),
        Mistake("one number is wanted: take the mean over clients of what you return.", distances),
        Mistake(
            "you weight the clients by their sizes; in this mean every client counts the same.",
            weighted_by_size,
        ),
        Mistake(
            "sum over the classes; only over the clients take the mean.",
            lambda counts: reference(counts) / counts.shape[1],
        ),
        Mistake(
            "sum over the classes and divide by 2; only over the clients take the mean.",
            lambda counts: 2 * reference(counts) / counts.shape[1],
        ),
        Mistake(
            "your differences cancel out to 0: sum their absolute values.",
            lambda counts: 0.0,
        ),
        Mistake("absolute differences, not squares.", squares),
        Mistake("this is the Euclidean distance; the total variation is half the sum of absolute gaps.", euclidean),
        Mistake("the gaps of all classes count, not the largest only: half of their sum.", largest_gaps),
        Mistake(
            "compare with the label distribution of all images together, not with the uniform one.", against_uniform
        ),
        Mistake(
            "everybody's distribution is that of all images together, counts.sum(0) / counts.sum(). You take the "
            "mean of the clients' distributions, in which a small client weighs as much as a large one.",
            against_mean_client,
        ),
        Mistake(
            "a client's distribution sums to 1: divide its counts by its own number of images, not by that of all.",
            over_all_images,
        ),
        Mistake(
            "divide each client's row by its own sum, counts.sum(1, keepdims=True). You divide each class's column, "
            "which gives shares of a class.",
            shares_of_class,
        ),
        Mistake(
            "this is the size skew, the Gini coefficient; the label skew compares distributions of labels.",
            lambda counts: unevenness(counts)["size_skew"],
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

    def names_cut_after_part(tensors: Tensors, part: str) -> Tensors:
        return {name.split(".")[0]: tensor for name, tensor in starting(tensors, part).items()}

    def without_the_dot(tensors: Tensors, part: str) -> Tensors:
        return starting(tensors, part.rstrip("."))

    def first_only(tensors: Tensors, part: str) -> Tensors:
        return dict(list(starting(tensors, part).items())[:1])

    def last_only(tensors: Tensors, part: str) -> Tensors:
        return dict(list(starting(tensors, part).items())[-1:])

    shapes = {
        "extractor.0.weight": (2, 3),
        "extractor.0.bias": (2,),
        "extractors.note": (2,),  # another part, whose name differs by a letter
        "classifier.weight": (3, 2),
        "classifier.bias": (3,),
        "personal.extractor.0.weight": (2, 3),
        "anchors.means": (3, 2),
        "anchors.counts": (3,),
    }
    values = _random(*shapes.values())
    tensors = dict(zip(shapes, values, strict=True))
    cases = [(tensors, "extractor."), (tensors, "anchors."), (tensors, "classifier.")]
    mistakes = [
        Mistake(
            "you take every name that contains the part; Ditto's personal.extractor would travel. Use startswith.",
            containing,
        ),
        Mistake("these are the names that do NOT start with the part.", not_starting),
        Mistake("keep the whole names: the server must know where each tensor belongs.", names_cut_off),
        Mistake(
            "keep the whole names: cut at the dot, two tensors of a part have the same name, and one is lost.",
            names_cut_after_part,
        ),
        Mistake(
            "your result is a dictionary with the names [], so you keep nothing. No name equals the part, ends with it "
            "or is contained in it: ask name.startswith(part).",
            lambda tensors, part: {},
        ),
        Mistake("you keep everything: a condition is missing, or it is always true.", lambda tensors, part: tensors),
        Mistake(
            "the dot belongs to the part: extractors.note does not start with 'extractor.', but you take it.",
            without_the_dot,
        ),
        Mistake(
            "you keep 'extractor.' whatever part is asked for: use `part`.",
            lambda tensors, part: starting(tensors, "extractor."),
        ),
        Mistake("you keep only the first of the names that start with the part. Do you return too early?", first_only),
        Mistake(
            "you keep only the last of the names that start with the part. Is the dictionary made anew in the loop?",
            last_only,
        ),
    ]
    return _check("names", yours, starting, cases, mistakes)


def check_weighted_mean(yours: Callable[[list, list], dict]) -> bool:
    """yours(list of dictionaries of tensors, weights) -> dictionary."""

    def times(tensors: Tensors, factor: float) -> Tensors:
        return {name: factor * tensor for name, tensor in tensors.items()}

    def weighted_sum(many: list[Tensors], weights: Sequence[float]) -> Tensors:
        return times(weighted_mean(many, weights), sum(weights))

    def plain_sum(many: list[Tensors], weights: list[float]) -> Tensors:
        ones = [1] * len(many)
        return weighted_sum(many, ones)

    def last_added(many: list[Tensors], weights: list[float]) -> Tensors:
        share = weights[-1] / sum(weights)
        return times(many[-1], share)

    def first_counted_twice(many: list[Tensors], weights: list[float]) -> Tensors:
        mean = weighted_mean(many, weights)
        return {name: tensor + mean[name] for name, tensor in many[0].items()}

    def mean_so_far(many: list[Tensors], weights: list[float]) -> Tensors:
        """Each client is averaged, half and half, with the mean of those before."""
        mean = many[0]
        for tensors in many[1:]:
            mean = weighted_mean([mean, tensors], [1, 1])
        return mean

    def inverse_weights(many: list[Tensors], weights: list[float]) -> Tensors:
        return weighted_mean(many, [1 / weight for weight in weights])

    def softmax_of_weights(many: list[Tensors], weights: list[float]) -> Tensors:
        shares = torch.tensor(weights, dtype=torch.float64).softmax(0)
        return weighted_mean(many, shares.tolist())

    # Weights are above the number of clients: so no weight, and no sum of weights, equals it by chance.
    rng = np.random.default_rng()
    cases = []
    for clients in (3, 4, 1):
        many = []
        for _ in range(clients):
            of_extractor, of_classifier = _random((2, 3), (4,))
            many.append({"extractor.w": of_extractor, "classifier.b": of_classifier})
        weights = 5 + rng.permutation(9)[:clients]  # no two are equal
        cases.append((many, weights.tolist()))
    mistakes = [
        Mistake(
            "every client counts the same here: use the weights.",
            lambda many, weights: weighted_mean(many, [1] * len(many)),
        ),
        Mistake("divide by the sum of the weights.", weighted_sum),
        Mistake(
            "you divide by the number of clients; the sum of the weights belongs there.",
            lambda many, weights: times(weighted_sum(many, weights), 1 / len(many)),
        ),
        Mistake(
            "you divide by the largest weight; the sum of the weights belongs there.",
            lambda many, weights: times(weighted_sum(many, weights), 1 / max(weights)),
        ),
        Mistake("this is the sum of the clients' tensors: use the weights, and divide by their sum.", plain_sum),
        Mistake(
            "you divide by the sum of the weights, but the weights themselves are missing in the sum.",
            lambda many, weights: times(plain_sum(many, weights), 1 / sum(weights)),
        ),
        Mistake("the clients are not added up: only the last one's share is there. Use += in the loop.", last_added),
        Mistake("this is the last client alone, not a mean.", lambda many, weights: many[-1]),
        Mistake("this is the first client alone, not a mean.", lambda many, weights: many[0]),
        Mistake(
            "the first client's tensors are there once too often: the sum has to start from zero.", first_counted_twice
        ),
        Mistake(
            "averaging half and half in the loop makes the last client weigh most. Use the weights, over their sum.",
            mean_so_far,
        ),
        Mistake(
            "the weights are the wrong way round: the last goes to the first client.",
            lambda many, weights: weighted_mean(many, weights[::-1]),
        ),
        Mistake("you divide by the weights; multiply by them, then divide by their sum.", inverse_weights),
        Mistake("no softmax: a client's share is its weight, over the sum of the weights.", softmax_of_weights),
        Mistake(
            "every number is 0: weight // total rounds down to 0. Divide by /.",
            lambda many, weights: times(many[0], float(len(many) == 1)),  # one client: its share is 1, not below
        ),
    ]
    return _check("weighted mean", yours, weighted_mean, cases, mistakes)


# --- 03: anchors ---


def check_class_means(yours: Callable[[Tensor, Tensor, int], Tensor]) -> bool:
    """yours(z (n, d), y (n,), classes) -> anchors (C, d), zeros for an absent class."""

    def means(z: Tensor, y: Tensor, classes: int) -> Tensor:
        return means_and_counts(z, y, classes)[0]

    def counts(y: Tensor, classes: int) -> Tensor:
        return torch.bincount(y, minlength=classes)[:, None]  # (C, 1)

    def sums(z: Tensor, y: Tensor, classes: int) -> Tensor:
        return means(z, y, classes) * counts(y, classes)

    def means_without_clamp(z: Tensor, y: Tensor, classes: int) -> Tensor:
        return torch.stack([z[y == c].mean(0) for c in range(classes)])

    def batch_mean_where_absent(z: Tensor, y: Tensor, classes: int) -> Tensor:
        is_present = counts(y, classes) > 0  # (C, 1)
        return torch.where(is_present, means(z, y, classes), z.mean(0))

    def rows_of_present(z: Tensor, y: Tensor, classes: int) -> Tensor:
        is_present = counts(y, classes)[:, 0] > 0  # (C,)
        return means(z, y, classes)[is_present]

    def one_class_late(z: Tensor, y: Tensor, classes: int) -> Tensor:
        """Row c holds class c + 1; the last row, of a class that there is not, zeros."""
        next_class = means(z, y, classes)[1:]
        return torch.cat([next_class, torch.zeros(1, z.shape[1])])

    def last_samples(z: Tensor, y: Tensor, classes: int) -> Tensor:
        anchors = torch.zeros(classes, z.shape[1])
        anchors[y] = z  # writes every row once: the last sample of a class stays
        return anchors

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
            "you divide by the number of classes, not by the number of samples of the class.",
            lambda z, y, classes: sums(z, y, classes) / classes,
        ),
        Mistake(
            "you divide by one too many: clamp(min=1) changes the number of an absent class only, + 1 that of every "
            "class. (index_reduce_ counts the zeros that it starts from, unless include_self=False.)",
            lambda z, y, classes: sums(z, y, classes) / (counts(y, classes) + 1),
        ),
        Mistake(
            "a class without samples gives NaN: 0 / 0. Its row should be zeros; divide by at least 1.",
            means_without_clamp,
        ),
        Mistake(
            "a class without samples gets the mean of the batch; its row should be zeros.", batch_mean_where_absent
        ),
        Mistake(
            "a class without samples has no row here. There are `classes` rows; that of an absent class is zeros.",
            rows_of_present,
        ),
        Mistake("the rows are one off: row c holds class c + 1. Labels start at 0.", one_class_late),
        Mistake(
            "rows are classes and columns features, (C, d): yours are the wrong way round.",
            lambda z, y, classes: means(z, y, classes).T,
        ),
        Mistake("these are single samples, not means: anchors[y] = z overwrites all but one of a class.", last_samples),
        Mistake(
            "one sample of each class is added, not all: anchors[y] += z writes every row once. Use one_hot.T @ z, or "
            "index_add_.",
            lambda z, y, classes: last_samples(z, y, classes) / counts(y, classes).clamp(min=1),
        ),
    ]
    return _check("class means", yours, means, cases, mistakes)


def check_centre_loss(yours: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """yours(z (B, d), y (B,), centres (C, d)) -> (B,)."""

    def squares(z: Tensor, y: Tensor, centres: Tensor) -> Tensor:
        """(B, d)"""
        return (z - centres[y]).square()

    def to_every_centre(z: Tensor, y: Tensor, centres: Tensor) -> Tensor:
        gaps = z[:, None] - centres[None]  # (B, C, d)
        return gaps.square().mean(2)

    def to_own_means(z: Tensor, y: Tensor, centres: Tensor) -> Tensor:
        own_means, _ = means_and_counts(z, y, len(centres))
        return centre_loss(z, y, own_means)

    cases = []
    for batch, d in ((4, 3), (9, 16)):
        (z,) = _random((batch, d))
        (centres,) = _random((5, d))
        cases.append((z, _labels(batch, 5), centres))
    mistakes = [
        Mistake(
            "divide by d, the number of features: mu then means the same for every net.",
            lambda z, y, centres: squares(z, y, centres).sum(1),
        ),
        Mistake(
            "this is the distance; the loss is its square, divided by d.",
            lambda z, y, centres: (z - centres[y]).norm(dim=1),
        ),
        Mistake(
            "this is the distance, divided by d; the loss is its square, divided by d.",
            lambda z, y, centres: (z - centres[y]).norm(dim=1) / z.shape[1],
        ),
        Mistake(
            "there is a root too many: the loss is the mean of squares itself.",
            lambda z, y, centres: centre_loss(z, y, centres).sqrt(),
        ),
        Mistake(
            "you return one number for the batch; one for each sample is wanted, (B,).",
            lambda z, y, centres: centre_loss(z, y, centres).mean(),
        ),
        Mistake("there is a factor 1/2 too many.", lambda z, y, centres: centre_loss(z, y, centres) / 2),
        Mistake(
            "divide by d, the number of features, not by 2.",
            lambda z, y, centres: squares(z, y, centres).sum(1) / 2,
        ),
        Mistake(
            "divide by d, the number of features, not by that of samples.",
            lambda z, y, centres: squares(z, y, centres).sum(1) / len(z),
        ),
        Mistake(
            "divide by d, the number of features, not by that of classes.",
            lambda z, y, centres: squares(z, y, centres).sum(1) / len(centres),
        ),
        Mistake(
            "divide by d once: the mean over features does so already.",
            lambda z, y, centres: centre_loss(z, y, centres) / z.shape[1],
        ),
        Mistake(
            "take the mean over the features, dim=1, not over the batch.",
            lambda z, y, centres: squares(z, y, centres).mean(0),
        ),
        Mistake(
            "sum the squares over the features, dim=1: you return every feature's, (B, d).",
            squares,
        ),
        Mistake(
            "squares of the differences, not absolute values.",
            lambda z, y, centres: (z - centres[y]).abs().mean(1),
        ),
        Mistake(
            "square first, then take the mean: positive and negative differences cancel out here.",
            lambda z, y, centres: (z - centres[y]).mean(1).square(),
        ),
        Mistake(
            "the square of the difference is wanted, not the difference of squares.",
            lambda z, y, centres: (z.square() - centres[y].square()).mean(1),
        ),
        Mistake(
            "every sample has one centre, that of its class: centres[y], (B, d). You return the loss to all, (B, C).",
            to_every_centre,
        ),
        Mistake(
            "you measure to the nearest centre; that of the sample's own class is wanted, centres[y].",
            lambda z, y, centres: to_every_centre(z, y, centres).min(1).values,
        ),
        Mistake("measure to the centres that you are given, not to the means of this batch.", to_own_means),
    ]
    return _check("centre loss", yours, centre_loss, cases, mistakes)


# --- 04: distillation ---


def check_distillation(yours: Callable[[Tensor, Tensor, float], Tensor]) -> bool:
    """yours(student (B, C), teacher (B, C), temperature) -> (B,)."""

    def divergences(log_q: Tensor, log_p: Tensor) -> Tensor:
        """The terms of KL(p || q), one for each class, (B, C)."""
        return log_p.exp() * (log_p - log_q)

    def of_each_class(student: Tensor, teacher: Tensor, T: float) -> Tensor:
        log_q = (student / T).log_softmax(1)
        log_p = (teacher / T).log_softmax(1)
        return T**2 * divergences(log_q, log_p)

    def over_the_batch(student: Tensor, teacher: Tensor, T: float) -> Tensor:
        log_q = (student / T).log_softmax(0)
        log_p = (teacher / T).log_softmax(0)
        return T**2 * divergences(log_q, log_p).sum(1)

    def only_teacher_softened(student: Tensor, teacher: Tensor, T: float) -> Tensor:
        log_q = student.log_softmax(1)
        log_p = (teacher / T).log_softmax(1)
        return T**2 * divergences(log_q, log_p).sum(1)

    def only_student_softened(student: Tensor, teacher: Tensor, T: float) -> Tensor:
        log_q = (student / T).log_softmax(1)
        log_p = teacher.log_softmax(1)
        return T**2 * divergences(log_q, log_p).sum(1)

    def sharpened(student: Tensor, teacher: Tensor, T: float) -> Tensor:
        log_q = (student * T).log_softmax(1)
        log_p = (teacher * T).log_softmax(1)
        return T**2 * divergences(log_q, log_p).sum(1)

    def probabilities_for_log(student: Tensor, teacher: Tensor, T: float) -> Tensor:
        q = (student / T).softmax(1)
        log_p = (teacher / T).log_softmax(1)
        return T**2 * divergences(q, log_p).sum(1)

    def soft_cross_entropy(student: Tensor, teacher: Tensor, T: float) -> Tensor:
        p = (teacher / T).softmax(1)
        log_q = (student / T).log_softmax(1)
        return -(T**2) * (p * log_q).sum(1)

    def hard_cross_entropy(student: Tensor, teacher: Tensor, T: float) -> Tensor:
        return T**2 * cross_entropy(student / T, teacher.argmax(1))

    def squared_gaps(student: Tensor, teacher: Tensor, T: float) -> Tensor:
        p = (teacher / T).softmax(1)
        q = (student / T).softmax(1)
        return T**2 * (p - q).square().sum(1)

    # Temperatures are others at every call, and none is near 2 or 4: there T^2 is 2^T, and at 2 also 2 T.
    rng = np.random.default_rng()
    low = rng.uniform(1.4, 1.7)
    middle = rng.uniform(2.3, 2.6)
    high = rng.uniform(2.8, 3.4)
    cases = []
    for shape, temperature in (((4, 3), middle), ((7, 10), high)):
        student, teacher = _random(shape, shape)
        cases.append((student, teacher, temperature))
    student, teacher = _random((5, 4), (5, 4))
    cases.append((400 * student, 400 * teacher, low))  # logits at which the logarithm of a softmax breaks
    mistakes = [
        Mistake(
            "the factor T^2 is missing: without it the gradient shrinks as the temperature grows.",
            lambda student, teacher, T: distillation(student, teacher, T) / T**2,
        ),
        Mistake(
            "the factor is T^2, not T.",
            lambda student, teacher, T: distillation(student, teacher, T) / T,
        ),
        Mistake(
            "multiply by T^2; you divide by it.",
            lambda student, teacher, T: distillation(student, teacher, T) / T**4,
        ),
        Mistake(
            "student and teacher are exchanged: KL(teacher || student) is wanted.",
            lambda student, teacher, T: distillation(teacher, student, T),
        ),
        Mistake(
            "the sign is wrong: log teacher minus log student, not the other way round.",
            lambda student, teacher, T: -distillation(student, teacher, T),
        ),
        Mistake(
            "the temperature is missing: divide both logits by T before the softmax.",
            lambda student, teacher, T: distillation(student, teacher, 1.0),
        ),
        Mistake(
            "the temperature is missing in the softmax: divide both logits by T.",
            lambda student, teacher, T: distillation(student, teacher, 1.0) * T**2,
        ),
        Mistake("the student's logits have to be divided by T, too.", only_teacher_softened),
        Mistake("the teacher's logits have to be divided by T, too.", only_student_softened),
        Mistake("divide the logits by T; you multiply by it, which sharpens.", sharpened),
        Mistake(
            "this is the cross-entropy; subtract the teacher's entropy, so that equal distributions give 0.",
            soft_cross_entropy,
        ),
        Mistake(
            "you use the teacher's answer, its argmax, only: all of its probabilities count.",
            hard_cross_entropy,
        ),
        Mistake(
            "the logarithm of the student's probabilities is wanted: log_softmax, also as kl_div's first argument.",
            probabilities_for_log,
        ),
        Mistake("this is the squared difference of the probabilities, not a KL divergence.", squared_gaps),
        Mistake(
            "take the natural logarithm, log, not log2.",
            lambda student, teacher, T: distillation(student, teacher, T) / np.log(2),
        ),
        Mistake("the softmax goes over the classes, dim=1, not over the batch.", over_the_batch),
        Mistake(
            "sum over the classes, dim=1: you return every class's term, (B, C).",
            of_each_class,
        ),
        Mistake(
            "sum over the classes; you take their mean.",
            lambda student, teacher, T: of_each_class(student, teacher, T).mean(1),
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

    def weight_over(total: Callable[[Tensor], Tensor], teacher: Tensor, y: Tensor) -> Tensor:
        """The weights, divided by what `total` makes of them."""
        weights = true_class_probability(teacher, y)
        return weights / total(weights)

    def only_where_right(teacher: Tensor, y: Tensor) -> Tensor:
        is_right = teacher.argmax(1) == y
        return true_class_probability(teacher, y) * is_right

    cases = []
    for batch, classes in ((4, 3), (9, 10)):
        (logits,) = _random((batch, classes))
        y = _labels(batch, classes)
        y[0] = logits[0].argmax()  # here the teacher is right ...
        y[1] = logits[1].argmin()  # ... and here it is wrong
        cases.append((2 * logits, y))
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
            "this is the cross-entropy, -log p; the probability p itself is the weight.",
            cross_entropy,
        ),
        Mistake(
            "this is the probability of all other classes, 1 - p.",
            lambda teacher, y: 1 - true_class_probability(teacher, y),
        ),
        Mistake(
            "this is the logit of the true class: take the softmax first.",
            lambda teacher, y: of_true_class(teacher, y)[:, 0],
        ),
        Mistake(
            "this is exp(logit): divide by the sum over the classes, which makes it a softmax.",
            lambda teacher, y: of_true_class(teacher.exp(), y)[:, 0],
        ),
        Mistake(
            "take the softmax over the classes, not a sigmoid of one logit.",
            lambda teacher, y: of_true_class(teacher.sigmoid(), y)[:, 0],
        ),
        Mistake(
            "the softmax is applied twice.",
            lambda teacher, y: true_class_probability(teacher.softmax(1), y),
        ),
        Mistake(
            "the softmax goes over the classes, dim=1, not over the batch.",
            lambda teacher, y: of_true_class(teacher.softmax(0), y)[:, 0],
        ),
        Mistake(
            "each row sums to 1: divide by the sum over the classes, dim=1, not by that of all numbers.",
            lambda teacher, y: of_true_class(teacher.flatten().softmax(0).view_as(teacher), y)[:, 0],
        ),
        Mistake("the shape should be (B,), not (B, 1).", lambda teacher, y: of_true_class(teacher.softmax(1), y)),
        Mistake(
            "p[:, y] takes all labels from every row, (B, B): use gather, or p[torch.arange(len(y)), y].",
            lambda teacher, y: teacher.softmax(1)[:, y],
        ),
        Mistake(
            "these are the probabilities of all classes, (B, C): take that of the true class from each row.",
            lambda teacher, y: teacher.softmax(1),
        ),
        Mistake(
            "this is 1 where the teacher is right and 0 elsewhere; the weight is its probability of the true class.",
            lambda teacher, y: (teacher.argmax(1) == y).float(),
        ),
        Mistake(
            "where the teacher is wrong the weight is not 0: it is the probability of the true class there, too.",
            only_where_right,
        ),
        Mistake(
            "labels start at 0: you take the column before that of the true class.",
            lambda teacher, y: of_true_class(teacher.softmax(1).roll(1, dims=1), y)[:, 0],
        ),
        Mistake(
            "every weight stands for itself: do not divide by their sum over the batch.",
            lambda teacher, y: weight_over(torch.sum, teacher, y),
        ),
        Mistake(
            "every weight stands for itself: do not divide by the largest of the batch.",
            lambda teacher, y: weight_over(torch.max, teacher, y),
        ),
        Mistake(
            "you return one number for the batch; one for each sample is wanted, (B,).",
            lambda teacher, y: true_class_probability(teacher, y).mean(),
        ),
    ]
    return _check("dynamic weight", yours, true_class_probability, cases, mistakes)


# --- 05: the whole algorithm ---


def check_joint_loss(yours: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], Tensor]) -> bool:
    """yours(global logits (B, C), own logits (B, C), z (B, d), y (B,), anchors (C, d), mu) -> (B,)."""

    def entropies(*case: Any) -> Tensor:
        """The sum of both cross-entropies, (B,)."""
        global_logits, own_logits, _, y, _, _ = case
        return cross_entropy(global_logits, y) + cross_entropy(own_logits, y)

    def omega(*case: Any) -> Tensor:
        _, _, z, y, anchors, _ = case
        return centre_loss(z, y, anchors)

    def pull(*case: Any) -> Tensor:
        """mu * Omega, (B,)."""
        mu = case[-1]
        return mu * omega(*case)

    def joint(*case: Any) -> Tensor:
        return entropies(*case) + pull(*case)

    def not_divided(*case: Any) -> Tensor:
        d = case[2].shape[1]
        return entropies(*case) + d * pull(*case)

    def distance(*case: Any) -> Tensor:
        _, _, z, y, anchors, mu = case
        return entropies(*case) + mu * (z - anchors[y]).norm(dim=1)

    def shared_out(*case: Any) -> Tensor:
        mu = case[-1]
        return (1 - mu) * entropies(*case) + mu * omega(*case)

    def without_global(*case: Any) -> Tensor:
        _, own_logits, _, y, _, _ = case
        return cross_entropy(own_logits, y) + pull(*case)

    def without_own(*case: Any) -> Tensor:
        global_logits, _, _, y, _, _ = case
        return cross_entropy(global_logits, y) + pull(*case)

    def of_added_logits(*case: Any) -> Tensor:
        global_logits, own_logits, _, y, _, _ = case
        return cross_entropy(global_logits + own_logits, y) + pull(*case)

    def of_mean_logits(*case: Any) -> Tensor:
        global_logits, own_logits, _, y, _, _ = case
        return cross_entropy((global_logits + own_logits) / 2, y) + pull(*case)

    def softmax_twice(*case: Any) -> Tensor:
        global_logits, own_logits, *others = case
        return joint(global_logits.softmax(1), own_logits.softmax(1), *others)

    cases = []
    for batch, classes, d, mu in ((4, 3, 5, 0.3), (9, 10, 16, 2.5)):
        global_logits, own_logits, z = _random((batch, classes), (batch, classes), (batch, d))
        (anchors,) = _random((classes, d))
        cases.append((global_logits, own_logits, z, _labels(batch, classes), anchors, mu))
    mistakes = [
        Mistake(
            "Omega is there twice: one step on the sum has mu * Omega once.",
            lambda *case: entropies(*case) + 2 * pull(*case),
        ),
        Mistake("Omega is missing.", entropies),
        Mistake("mu is missing.", lambda *case: entropies(*case) + omega(*case)),
        Mistake("the sign of Omega is wrong: it is added.", lambda *case: entropies(*case) - pull(*case)),
        Mistake("Omega has a factor 1/2 too many.", lambda *case: entropies(*case) + pull(*case) / 2),
        Mistake("divide Omega by d, the number of features.", not_divided),
        Mistake("Omega is the squared distance, divided by d; you take the distance.", distance),
        Mistake(
            "mu belongs to Omega alone; you multiply the cross-entropies by it, too.",
            lambda *case: case[-1] * entropies(*case) + pull(*case),
        ),
        Mistake("the cross-entropies have no factor 1 - mu: mu is no share, it only multiplies Omega.", shared_out),
        Mistake("the global classifier's cross-entropy is missing.", without_global),
        Mistake("the client's own cross-entropy is missing.", without_own),
        Mistake(
            "both cross-entropies are of the global classifier's logits.",
            lambda *case: 2 * without_own(*case) - pull(*case),
        ),
        Mistake(
            "both cross-entropies are of the client's own logits.",
            lambda *case: 2 * without_global(*case) - pull(*case),
        ),
        Mistake(
            "the sum of the two cross-entropies is wanted, not their mean.",
            lambda *case: entropies(*case) / 2 + pull(*case),
        ),
        Mistake("two cross-entropies, then their sum; you add the logits and take one.", of_added_logits),
        Mistake("two cross-entropies, then their sum; you average the logits and take one.", of_mean_logits),
        Mistake("F.cross_entropy takes logits: it does the softmax itself, and yours is there before.", softmax_twice),
        Mistake(
            "the cross-entropies are averaged over the batch before Omega is added: use reduction='none'.",
            lambda *case: entropies(*case).mean() + pull(*case),
        ),
        Mistake(
            "Omega is averaged over the batch: take the mean over the features only, dim=1.",
            lambda *case: entropies(*case) + pull(*case).mean(),
        ),
        Mistake(
            "you return one number for the batch; one for each image is wanted, (B,).",
            lambda *case: joint(*case).mean(),
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
    for fewest, most in ((3, 9), (11, 29), (1, 1)):  # with one step K does not show: that comes last
        L = rng.uniform(2, 50)
        K = int(rng.integers(fewest, most + 1))
        cases.append((L, K))
    mistakes = [
        Mistake("that is gamma. One step is gamma / K.", lambda L, K: 1 / (4 * L)),
        Mistake("this is 1/(K L): the theorem asks for a quarter of it.", lambda L, K: 1 / (L * K)),
        Mistake(
            "this is 1/L: the theorem asks for a quarter of it, and one step is gamma / K.",
            lambda L, K: 1 / L,
        ),
        Mistake("this is 1/(2 K L), half; the theorem asks for a quarter.", lambda L, K: 1 / (2 * L * K)),
        Mistake("the 4 belongs below: lr K L <= 1/4, so lr <= 1 / (4 K L).", lambda L, K: 4 / (L * K)),
        Mistake("K multiplies where it has to divide: 1 / (4 * L * K), with brackets.", lambda L, K: K / (4 * L)),
        Mistake("L multiplies where it has to divide: 1 / (4 * L * K), with brackets.", lambda L, K: L / (4 * K)),
        Mistake("without brackets 1 / 4 * L * K multiplies by L and K: 1 / (4 * L * K).", lambda L, K: L * K / 4),
        Mistake("this is the reciprocal, 4 K L: solve lr K L <= 1/4 for lr.", lambda L, K: 4 * L * K),
        Mistake("L is missing: lr K L <= 1/4.", lambda L, K: 1 / (4 * K)),
        Mistake("L and K multiply each other: 1 / (4 * L * K), not their sum.", lambda L, K: 1 / (4 * (L + K))),
        Mistake("there is no root of K: gamma is lr times K.", lambda L, K: 1 / (4 * L * K**0.5)),
        Mistake("this is 0: // rounds down, as int and round do. Divide by /.", lambda L, K: 0.0),
    ]
    return _check("largest step size", yours, lambda L, K: 1 / (4 * L * K), cases, mistakes)


def check_floor(yours: Callable[[float, float, float, float, int, int], float]) -> bool:
    """yours(gamma, L, sigma, kappa, N, K) -> noise + drift, what stays of the bound as T grows."""

    def terms(gamma: float, L: float, sigma: float, kappa: float, N: int, K: int) -> tuple[float, float]:
        """Noise and drift."""
        constants = {"gap": 0.0, "smoothness": L, "sigma": sigma, "kappa": kappa}
        of_bound = bound(**constants, clients=N, lr=gamma / K, local_steps=K, rounds=1)
        return of_bound["noise"], of_bound["drift"]

    def floor(*case: Any) -> float:
        noise, drift = terms(*case)
        return noise + drift

    def only_noise_times_factor(*case: Any) -> float:
        noise, drift = terms(*case)
        return noise + drift / 2.5

    def with_noise_times(factor: Callable[[int, int], float]) -> Callable[..., float]:
        """The floor where the noise has a factor, made of N and K, too many."""

        def made(gamma: float, L: float, sigma: float, kappa: float, N: int, K: int) -> float:
            noise, drift = terms(gamma, L, sigma, kappa, N, K)
            return noise * factor(N, K) + drift

        return made

    def with_drift(spread: Callable[[float, float, int], float], power: int = 2) -> Callable[..., float]:
        """The floor where the drift is 5/2 (gamma L)^power times a spread made of sigma, kappa and K."""

        def made(gamma: float, L: float, sigma: float, kappa: float, N: int, K: int) -> float:
            noise, _ = terms(gamma, L, sigma, kappa, N, K)
            return noise + 2.5 * (gamma * L) ** power * spread(sigma, kappa, K)

        return made

    def right_spread(sigma: float, kappa: float, K: int) -> float:
        return kappa**2 + 2 * sigma**2 / K

    def only_gamma_squared(gamma: float, L: float, sigma: float, kappa: float, N: int, K: int) -> float:
        noise, drift = terms(gamma, L, sigma, kappa, N, K)
        return noise + drift / L

    def only_L_squared(gamma: float, L: float, sigma: float, kappa: float, N: int, K: int) -> float:
        noise, drift = terms(gamma, L, sigma, kappa, N, K)
        return noise + drift / gamma

    def clients_in_both(gamma: float, L: float, sigma: float, kappa: float, N: int, K: int) -> float:
        noise, drift = terms(gamma, L, sigma, kappa, N, K)
        return noise + drift * (1 + 1 / N)

    def gamma_times_K(gamma: float, L: float, sigma: float, kappa: float, N: int, K: int) -> float:
        """As if gamma were one step's size: terms grow as gamma and as its square."""
        noise, drift = terms(gamma, L, sigma, kappa, N, K)
        return noise * K + drift * K**2

    rng = np.random.default_rng()
    cases = []
    for N, K in ((7, 3), (10, 5), (23, 9)):
        L, sigma, kappa = rng.uniform(1.5, 5, 3)
        gamma = rng.uniform(0.05, 0.25) / L  # the theorem allows up to 1 / (4 L)
        cases.append((gamma, L, sigma, kappa, N, K))
    mistakes = [
        Mistake("the factor 5/2 is missing.", lambda *case: floor(*case) / 2.5),
        Mistake("the factor is 5/2, not 2/5.", lambda *case: floor(*case) / 2.5 * 0.4),
        Mistake("the factor is 5 / 2 = 2.5; 5 // 2 rounds down to 2.", lambda *case: floor(*case) / 2.5 * 2),
        Mistake("the factor 5/2 belongs to the drift, too: put brackets around the sum.", only_noise_times_factor),
        Mistake("the drift is missing: skew moves clients apart.", lambda *case: terms(*case)[0]),
        Mistake("the noise is missing.", lambda *case: terms(*case)[1]),
        Mistake(
            "sigma and kappa enter squared.",
            lambda gamma, L, sigma, kappa, N, K: floor(gamma, L, sigma**0.5, kappa**0.5, N, K),
        ),
        Mistake(
            "sigma and kappa are exchanged.",
            lambda gamma, L, sigma, kappa, N, K: floor(gamma, L, kappa, sigma, N, K),
        ),
        Mistake(
            "the noise has the factor 1 + 1/N, not 1/N: the 1 is that of the classifiers, one client's each.",
            with_noise_times(lambda N, K: (1 / N) / (1 + 1 / N)),
        ),
        Mistake("the factor 1 + 1/N is missing in the noise.", with_noise_times(lambda N, K: 1 / (1 + 1 / N))),
        Mistake("the noise has the factor 1 + 1/N, not 1 + N.", with_noise_times(lambda N, K: (1 + N) / (1 + 1 / N))),
        Mistake("divide the noise by K: K steps average it out.", with_noise_times(lambda N, K: K)),
        Mistake("the factor 1 + 1/N belongs to the noise alone, not to the drift.", clients_in_both),
        Mistake("the drift has gamma L squared: (gamma * L)**2 times the rest.", with_drift(right_spread, power=1)),
        Mistake("in the drift L is squared, too: (gamma * L)**2.", only_gamma_squared),
        Mistake("in the drift gamma is squared, too: (gamma * L)**2.", only_L_squared),
        Mistake(
            "the drift's second part is 2 sigma^2 / K: the 2 is missing.",
            with_drift(lambda sigma, kappa, K: kappa**2 + sigma**2 / K),
        ),
        Mistake(
            "the drift's second part is 2 sigma^2 / K: the K is missing.",
            with_drift(lambda sigma, kappa, K: kappa**2 + 2 * sigma**2),
        ),
        Mistake(
            "in the drift K divides sigma^2 alone, not kappa^2.",
            with_drift(lambda sigma, kappa, K: (kappa**2 + 2 * sigma**2) / K),
        ),
        Mistake("gamma is lr times K already: do not multiply it by K again.", gamma_times_K),
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
    rng = np.random.default_rng()
    cases = []
    # Both together give less than the sum of each alone, then more, then neither helps alone.
    for gains in ((4.0, 9.0, -4.0), (8.0, 3.0, 7.0), (-3.0, -8.0, 2.0)):
        neither = rng.uniform(40, 60)
        gain_a, gain_b, beyond = (np.array(gains) * rng.uniform(0.7, 1.3, size=3)).tolist()
        both = neither + gain_a + gain_b + beyond
        cases.append((neither, neither + gain_a, neither + gain_b, both))
    mistakes = [
        Mistake("add the accuracy with neither: it was subtracted twice.", lambda neither, a, b, both: both - a - b),
        Mistake(
            "the accuracy with neither has to be added, not subtracted.",
            lambda neither, a, b, both: both - a - b - neither,
        ),
        Mistake(
            "`both` still holds the accuracy with neither: subtract that as well as what each gives alone.",
            lambda neither, a, b, both: both - (a - neither) - (b - neither),
        ),
        Mistake(
            "that is the effect of both together; take off what each gives alone.",
            lambda neither, a, b, both: both - neither,
        ),
        Mistake(
            "that is the sum of what each gives alone; how much more, or less, do both give together?",
            lambda neither, a, b, both: a + b - 2 * neither,
        ),
        Mistake("that is what B adds to A; take off what B gives alone.", lambda neither, a, b, both: both - a),
        Mistake("that is what A adds to B; take off what A gives alone.", lambda neither, a, b, both: both - b),
        Mistake(
            "that is how far both are ahead of the better part alone; take off what each of the two gives.",
            lambda neither, a, b, both: both - max(a, b),
        ),
        Mistake(
            "that is how far both are ahead of the mean of the two; take off what each of them gives, not half of it.",
            lambda neither, a, b, both: both - (a + b) / 2,
        ),
        Mistake("the sign is the wrong way round.", lambda neither, a, b, both: a + b - both - neither),
        Mistake("no absolute value: parts may also get into each other's way.", lambda *four: abs(_interaction(*four))),
        Mistake("there is a factor 1/2 too many.", lambda *four: _interaction(*four) / 2),
        Mistake("differences of accuracies, not ratios.", lambda neither, a, b, both: both * neither / (a * b)),
        Mistake(
            "you add `both` and `only B` and subtract the others. (Their order: neither, only A, only B, both.)",
            lambda neither, a, b, both: both + b - a - neither,
        ),
        Mistake(
            "you add `both` and `only A` and subtract the others. (Their order: neither, only A, only B, both.)",
            lambda neither, a, b, both: both + a - b - neither,
        ),
        Mistake(
            "you add `only A` and `neither` and subtract the others. (Their order: neither, only A, only B, both.)",
            lambda neither, a, b, both: a + neither - b - both,
        ),
        Mistake(
            "you add `only B` and `neither` and subtract the others. (Their order: neither, only A, only B, both.)",
            lambda neither, a, b, both: b + neither - a - both,
        ),
    ]
    return _check("interaction", yours, _interaction, cases, mistakes)


def _interaction(neither: float, only_a: float, only_b: float, both: float) -> float:
    return both - only_a - only_b + neither


def check_paired_interval(yours: Callable[[np.ndarray, np.ndarray], tuple[float, float]]) -> bool:
    """yours(ours (n,), theirs (n,), seed by seed) -> (low, high): the 95 % t-interval of the mean difference."""

    def around(middle: float, half_width: float) -> np.ndarray:
        return np.array([middle - half_width, middle + half_width])

    def quantile(leads: np.ndarray) -> float:
        return t.ppf(0.975, len(leads) - 1)

    def standard_error(leads: np.ndarray) -> float:
        return leads.std(ddof=1) / np.sqrt(len(leads))

    def error_of_population(leads: np.ndarray) -> float:
        return leads.std(ddof=0) / np.sqrt(len(leads))

    def error_by_n_minus_1(leads: np.ndarray) -> float:
        return leads.std(ddof=1) / np.sqrt(len(leads) - 1)

    def half_width(leads: np.ndarray) -> float:
        return quantile(leads) * standard_error(leads)

    def of_leads(leads: np.ndarray) -> np.ndarray:
        return around(leads.mean(), half_width(leads))

    def interval(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        return of_leads(ours - theirs)

    def with_half_width(other: Callable[[np.ndarray], float]) -> Callable[..., np.ndarray]:
        """The interval around the mean lead whose half width is another function of the leads."""

        def made(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            leads = ours - theirs
            return around(leads.mean(), other(leads))

        return made

    def around_zero(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        return around(0.0, half_width(ours - theirs))

    def mean_and_half_width(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        leads = ours - theirs
        return np.array([leads.mean(), half_width(leads)])

    def extremes(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        leads = ours - theirs
        return np.array([leads.min(), leads.max()])

    def percentiles(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        return np.percentile(ours - theirs, [2.5, 97.5])

    def error_of_unpaired(ours: np.ndarray, theirs: np.ndarray) -> float:
        """The standard error of a difference of two means that have nothing to do with each other."""
        variances = ours.var(ddof=1) + theirs.var(ddof=1)
        return np.sqrt(variances / len(ours))

    def unpaired(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        half = quantile(ours) * error_of_unpaired(ours, theirs)
        return around((ours - theirs).mean(), half)

    def unpaired_pooled(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        degrees_of_freedom = 2 * len(ours) - 2
        half = t.ppf(0.975, degrees_of_freedom) * error_of_unpaired(ours, theirs)
        return around((ours - theirs).mean(), half)

    rng = np.random.default_rng()
    cases = []
    for n in (3, 5):
        ours = rng.normal(90, 2, n)
        leads = rng.normal(1, 2, n)
        leads[0] = rng.uniform(2, 4)  # there is one seed with which we lead ...
        leads[1] = rng.uniform(-2, -1)  # ... and one with which they do
        cases.append((ours, ours - leads))
    mistakes = [
        Mistake(
            "the standard deviation of a sample divides by n - 1: ddof=1.",
            with_half_width(lambda leads: quantile(leads) * error_of_population(leads)),
        ),
        Mistake(
            "the mean of n differences spreads less than one: divide by the root of n.",
            with_half_width(lambda leads: quantile(leads) * leads.std(ddof=1)),
        ),
        Mistake(
            "divide by the root of n, not by n.",
            with_half_width(lambda leads: half_width(leads) / np.sqrt(len(leads))),
        ),
        Mistake(
            "with ddof=1 the standard deviation has its n - 1 already: divide by the root of n, not of n - 1.",
            with_half_width(lambda leads: quantile(leads) * error_by_n_minus_1(leads)),
        ),
        Mistake(
            "1.96 is for many seeds; with few, take the quantile of the t-distribution with n - 1 degrees of freedom.",
            with_half_width(lambda leads: norm.ppf(0.975) * standard_error(leads)),
        ),
        Mistake(
            "two things: the standard deviation of a sample has ddof=1, and with few seeds the quantile is that of the "
            "t-distribution, not 1.96.",
            with_half_width(lambda leads: norm.ppf(0.975) * error_of_population(leads)),
        ),
        Mistake(
            "0.95 leaves 5 % out on each side, so 10 % in all: the quantile is that of 0.975.",
            with_half_width(lambda leads: t.ppf(0.95, len(leads) - 1) * standard_error(leads)),
        ),
        Mistake(
            "of n differences n - 1 degrees of freedom are left, not n.",
            with_half_width(lambda leads: t.ppf(0.975, len(leads)) * standard_error(leads)),
        ),
        Mistake(
            "this is the mean, plus and minus its standard error: multiply that by the quantile.",
            with_half_width(standard_error),
        ),
        Mistake(
            "this is the mean, plus and minus the standard deviation of one difference: divide it by the root of n "
            "and multiply it by the quantile.",
            with_half_width(lambda leads: leads.std(ddof=1)),
        ),
        Mistake(
            "take the standard deviation, not the variance.",
            with_half_width(lambda leads: quantile(leads) * leads.var(ddof=1) / np.sqrt(len(leads))),
        ),
        Mistake("difference the other way round: ours minus theirs.", lambda ours, theirs: interval(theirs, ours)),
        Mistake("the interval lies around the mean difference; yours lies around 0.", around_zero),
        Mistake("this is the interval of ours alone; take the differences.", lambda ours, theirs: of_leads(ours)),
        Mistake(
            "no absolute value: a seed with which theirs is ahead counts against ours.",
            lambda ours, theirs: of_leads(np.abs(ours - theirs)),
        ),
        Mistake(
            "low comes first, then high. (The quantile of 0.025 is negative; take that of 0.975.)",
            lambda ours, theirs: interval(ours, theirs)[::-1],
        ),
        Mistake("return the two ends, mean - half width and mean + half width.", mean_and_half_width),
        Mistake("these are the smallest and the largest difference, not an interval of the mean.", extremes),
        Mistake(
            "these are percentiles of the differences: where one lies, not where their mean does.",
            percentiles,
        ),
        Mistake(
            "ours and theirs share their seeds: take the standard deviation of the differences, not one of each.",
            unpaired,
        ),
        Mistake(
            "this is the interval of two independent samples, with 2 n - 2 degrees of freedom; these are pairs: take "
            "the standard deviation of the differences, and n - 1.",
            unpaired_pooled,
        ),
    ]
    return _check("paired interval", yours, interval, cases, mistakes)


def check_steadiness(yours: Callable[[np.ndarray], tuple[float, float, float]]) -> bool:
    """yours(accuracies (S, T), a row a seed, a column a round) -> (mean, spread over seeds, spread over rounds), all of
    the last five rounds; both spreads are standard deviations of a sample."""

    def figures(mean: float, over_seeds: float, over_rounds: float) -> np.ndarray:
        return np.array([mean, over_seeds, over_rounds])

    def of_rounds(last: np.ndarray, ddof_seeds: int = 1, ddof_rounds: int = 1) -> np.ndarray:
        """The three figures, of all columns of `last`."""
        of_seeds = last.mean(1)
        over_seeds = of_seeds.std(ddof=ddof_seeds)
        over_rounds = last.std(1, ddof=ddof_rounds).mean()
        return figures(of_seeds.mean(), over_seeds, over_rounds)

    def reference(accuracies: np.ndarray) -> np.ndarray:
        return of_rounds(accuracies[:, -5:])

    def with_seeds(other: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], np.ndarray]:
        """Right, but that the spread over seeds is another function of the last five rounds (S, 5)."""

        def made(accuracies: np.ndarray) -> np.ndarray:
            last = accuracies[:, -5:]
            mean, _, over_rounds = reference(accuracies)
            return figures(mean, other(last), over_rounds)

        return made

    def with_rounds(other: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], np.ndarray]:
        """The same for the spread over rounds."""

        def made(accuracies: np.ndarray) -> np.ndarray:
            last = accuracies[:, -5:]
            mean, over_seeds, _ = reference(accuracies)
            return figures(mean, over_seeds, other(last))

        return made

    def exchanged(accuracies: np.ndarray) -> np.ndarray:
        mean, over_seeds, over_rounds = reference(accuracies)
        return figures(mean, over_rounds, over_seeds)

    def variances(accuracies: np.ndarray) -> np.ndarray:
        last = accuracies[:, -5:]
        over_seeds = last.mean(1).var(ddof=1)
        over_rounds = last.var(1, ddof=1).mean()
        return figures(last.mean(), over_seeds, over_rounds)

    def best_round(accuracies: np.ndarray) -> np.ndarray:
        best = accuracies.max(1)
        _, _, over_rounds = reference(accuracies)
        return figures(best.mean(), best.std(ddof=1), over_rounds)

    def last_round(accuracies: np.ndarray) -> np.ndarray:
        last = accuracies[:, -1]
        _, _, over_rounds = reference(accuracies)
        return figures(last.mean(), last.std(ddof=1), over_rounds)

    rng = np.random.default_rng()
    cases = []
    for seeds, rounds in ((3, 8), (4, 12), (6, 14)):
        of_seeds = rng.uniform(0.6, 0.8, (seeds, 1))
        learning = np.linspace(-0.4, 0.0, rounds)  # so that early rounds are told from late ones
        accuracies = of_seeds + learning + rng.normal(0, 0.03, (seeds, rounds))
        accuracies[:, -1] -= 0.15  # the last round is nobody's best
        cases.append((accuracies,))
    mistakes = [
        Mistake(
            "both standard deviations are a sample's, which divides by n - 1: ddof=1.",
            lambda a: of_rounds(a[:, -5:], 0, 0),
        ),
        Mistake(
            "over seeds, too, the standard deviation is a sample's: ddof=1.",
            lambda a: of_rounds(a[:, -5:], ddof_seeds=0),
        ),
        Mistake(
            "over rounds, too, the standard deviation is a sample's: ddof=1.",
            lambda a: of_rounds(a[:, -5:], ddof_rounds=0),
        ),
        Mistake("only the last five rounds count; yours are of all.", of_rounds),
        Mistake("these are the first five rounds; the last five count.", lambda a: of_rounds(a[:, :5])),
        Mistake(
            "the last five rounds count; yours are four of them (a slice leaves its end out).",
            lambda a: of_rounds(a[:, -5:-1]),
        ),
        Mistake("the mean is that of the last five rounds, not of the last one.", last_round),
        Mistake("the best round is a peek at the test images: take the mean of the last five.", best_round),
        Mistake("the order is: mean, spread over seeds, spread over rounds.", exchanged),
        Mistake("take the standard deviations, not the variances.", variances),
        Mistake(
            "over seeds: one number for each seed first (its mean), then their standard deviation. Yours is that of "
            "all rounds of all seeds together.",
            with_seeds(lambda last: last.std(ddof=1)),
        ),
        Mistake(
            "over seeds: first the mean of each seed's rounds, then one standard deviation; you take one in each "
            "round.",
            with_seeds(lambda last: last.std(0, ddof=1).mean()),
        ),
        Mistake(
            "that is the standard error of the mean over seeds; leave the root of n out.",
            with_seeds(lambda last: last.mean(1).std(ddof=1) / np.sqrt(len(last))),
        ),
        Mistake(
            "over seeds you take the range, largest minus smallest; take the standard deviation.",
            with_seeds(lambda last: np.ptp(last.mean(1))),
        ),
        Mistake(
            "over rounds: the standard deviation of each seed's own rounds, then the mean. Yours averages the seeds "
            "first, which hides how each of them swings.",
            with_rounds(lambda last: last.mean(0).std(ddof=1)),
        ),
        Mistake(
            "over rounds: of each seed's own rounds. Yours is that of all rounds of all seeds together.",
            with_rounds(lambda last: last.std(ddof=1)),
        ),
        Mistake(
            "over rounds you take the largest of the seeds' standard deviations; take their mean.",
            with_rounds(lambda last: last.std(1, ddof=1).max()),
        ),
        Mistake(
            "over rounds you take the range, largest minus smallest; take the standard deviation.",
            with_rounds(lambda last: np.ptp(last, axis=1).mean()),
        ),
    ]
    return _check("steadiness", yours, reference, cases, mistakes)


def check_label_of_image(yours: Callable[[Tensor], int]) -> bool:
    """yours(gradient (C,) of the classifier's bias, of one image's cross-entropy) -> the image's label."""

    def reference(gradient: Tensor) -> int:
        return int(gradient.argmin())

    def largest(gradient: Tensor) -> int:
        return int(gradient.argmax())

    def smallest_in_size(gradient: Tensor) -> int:
        return int(gradient.abs().argmin())

    def how_negative(gradient: Tensor) -> float:
        return float(gradient.min())

    def negative_or_not(gradient: Tensor) -> Tensor:
        return gradient < 0

    def last_place(gradient: Tensor) -> int:
        return len(gradient) - 1 - int(gradient.argmin())

    def from_one(gradient: Tensor) -> int:
        return int(gradient.argmin()) + 1

    def in_a_list(gradient: Tensor) -> list[int]:
        return [int(gradient.argmin())]

    rng = np.random.default_rng()
    cases = []
    for classes in (10, 20, 47, 62, 100):  # the more there are, the seldomer a wrong label is like a mistake by chance
        label = int(rng.integers(classes))
        probabilities = torch.from_numpy(rng.dirichlet(np.ones(classes)))  # what the net says of the image
        gradient = probabilities.clone()
        gradient[label] -= 1
        cases.append((gradient,))
    mistakes = [
        Mistake("the largest entry is the wrong class that the net finds likeliest; look at the signs.", largest),
        Mistake("the entry nearest to zero is a class that the net rules out; look at the signs.", smallest_in_size),
        Mistake("that is the entry itself; return its place, which is the class.", how_negative),
        Mistake("that says of each class whether it is the one; return its number.", negative_or_not),
        Mistake("classes are counted from the first entry, not from the last.", last_place),
        Mistake("one too many: labels start at 0.", from_one),
        Mistake("this is a list of one label, or an array; return the label itself, with [0] or int().", in_a_list),
    ]
    return _check("label of an image", yours, reference, cases, mistakes)


def check_trimmed_mean(yours: Callable[[np.ndarray, int], np.ndarray]) -> bool:
    """yours(uploads (K, P), cut) -> (P,): in each column the mean without the `cut` smallest and largest; 2 cut < K."""

    def reference(uploads: np.ndarray, cut: int) -> np.ndarray:
        in_order = np.sort(uploads, axis=0)
        return in_order[cut : len(uploads) - cut].mean(0)

    def in_order_of_clients(uploads: np.ndarray, cut: int) -> np.ndarray:
        return uploads[cut : len(uploads) - cut].mean(0)

    def of_all(uploads: np.ndarray, cut: int) -> np.ndarray:
        return uploads.mean(0)

    def median(uploads: np.ndarray, cut: int) -> np.ndarray:
        return np.median(uploads, axis=0)

    def without_largest(uploads: np.ndarray, cut: int) -> np.ndarray:
        return np.sort(uploads, axis=0)[: len(uploads) - cut].mean(0)

    def without_smallest(uploads: np.ndarray, cut: int) -> np.ndarray:
        return np.sort(uploads, axis=0)[cut:].mean(0)

    def over_all_clients(uploads: np.ndarray, cut: int) -> np.ndarray:
        left = np.sort(uploads, axis=0)[cut : len(uploads) - cut]
        return left.sum(0) / len(uploads)

    def sorted_rows(uploads: np.ndarray, cut: int) -> np.ndarray:
        return np.sort(uploads, axis=1)[cut : len(uploads) - cut].mean(0)

    def whole_clients(uploads: np.ndarray, cut: int) -> np.ndarray:
        shortest_first = uploads[np.argsort(np.linalg.norm(uploads, axis=1))]
        return shortest_first[cut : len(uploads) - cut].mean(0)

    def one_at_each_end(uploads: np.ndarray, cut: int) -> np.ndarray:
        return np.sort(uploads, axis=0)[1:-1].mean(0)

    def half_at_each_end(uploads: np.ndarray, cut: int) -> np.ndarray:
        half = cut // 2
        return np.sort(uploads, axis=0)[half : len(uploads) - half].mean(0)

    def one_too_many(uploads: np.ndarray, cut: int) -> np.ndarray:
        return np.sort(uploads, axis=0)[cut : len(uploads) - cut - 1].mean(0)

    def one_too_many_below(uploads: np.ndarray, cut: int) -> np.ndarray:
        return np.sort(uploads, axis=0)[cut + 1 : len(uploads) - cut].mean(0)

    def cut_to_the_ends(uploads: np.ndarray, cut: int) -> np.ndarray:
        in_order = np.sort(uploads, axis=0)
        return np.clip(uploads, in_order[cut], in_order[len(uploads) - cut - 1]).mean(0)

    rng = np.random.default_rng()
    cases = []
    sizes = ((7, 4, 2), (9, 5, 3), (8, 3, 2), (12, 4, 4))
    for clients, numbers, cut in sizes:
        uploads = rng.normal(0, 1, (clients, numbers))
        uploads[0] += 20  # an attacker
        cases.append((rng.permutation(uploads), cut))
    mistakes = [
        Mistake("this is the mean over all clients: nothing is cut.", of_all),
        Mistake(
            "sort first: these are the first and last clients, not the smallest and largest values.",
            in_order_of_clients,
        ),
        Mistake("cut at both ends: the smallest values are still there.", without_largest),
        Mistake("cut at both ends: the largest values are still there.", without_smallest),
        Mistake("this is the median, which leaves one or two values; leave all but 2 cut of them.", median),
        Mistake("divide by the number of values that are left, K - 2 cut.", over_all_clients),
        Mistake("sort each column (over clients, axis 0), not each client's own numbers.", sorted_rows),
        Mistake(
            "every column by itself: whole clients are left out here, by the length of their uploads.", whole_clients
        ),
        Mistake("cut says how many go at each end; here it is always one.", one_at_each_end),
        Mistake("cut says how many go at each end, not at both together.", half_at_each_end),
        Mistake("one value too many is cut at the upper end (a slice leaves its end out already).", one_too_many),
        Mistake("one value too many is cut at the lower end (places are counted from 0).", one_too_many_below),
        Mistake("values are left out, not replaced by the nearest one that stays.", cut_to_the_ends),
    ]
    return _check("trimmed mean", yours, reference, cases, mistakes)
