"""Who holds what: schemes that divide a data set over clients, and figures of how uneven the result is.

Every scheme gives each image to exactly one client (`per_client` may then leave some out) and draws from one generator.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data import Dataset, nearest

Parts = list[np.ndarray]  # one array of image indices per client


@dataclass(frozen=True)
class Federation:
    """One data set divided over N clients: train[i] and test[i] are client i's image indices (n_i,), int64."""

    data: Dataset
    train: tuple[Tensor, ...]
    test: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.train)

    def label_counts(self) -> np.ndarray:
        """(N, C) training images by client and class."""
        classes = len(self.data.classes)
        return np.stack([self.data.y[index].bincount(minlength=classes).cpu().numpy() for index in self.train])

    def validation(self, share: float = 0.4) -> Federation:
        """The training images alone, divided anew: `share` of each client's, class by class, take the test images'
        place. For choosing hyper-parameters; no test image is in it."""
        return Federation(self.data, *_halves(self.data, [index.cpu().numpy() for index in self.train], share))

    def to(self, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Federation:
        """The same federation on `device`, its images coming as `dtype`."""
        train, test = (tuple(index.to(device) for index in part) for part in (self.train, self.test))
        return Federation(self.data.to(device, dtype), train, test)


def split(
    data: Dataset, clients: int = 20, scheme: str = "dirichlet", seed: int = 0, *,
    test_share: float = 0.5, per_client: int | None = None, **options: float,
) -> Federation:  # fmt: skip
    """Divide `data` over `clients` by `scheme`, then each client's images into training and test ones, class by class.

    test_share: in [0, 1), of each client's images. per_client: >= 2, at most so many images a client in all. options:
    the scheme's own (see OPTIONS). Raises ValueError, naming argument and remedy, where the split cannot be made.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"partition={scheme!r} is unknown; {nearest(scheme, SCHEMES)}")
    for name, value in options.items():
        knows = f"known to partition={scheme!r}, which takes: {', '.join(OPTIONS[scheme]) or 'no options'}"
        _require(name in OPTIONS[scheme], name, value, knows)
    _require(1 <= clients <= len(data.y), "clients", clients, f"from 1 to the number of images, {len(data.y)}")
    _require(seed >= 0, "seed", seed, "a whole number >= 0")
    _require(0 <= test_share < 1, "test_share", test_share, "at least 0 and below 1")
    _require(per_client is None or per_client >= 2, "per_client", per_client, "at least 2")
    rng = np.random.default_rng([seed, 0])
    exact = {"per_client": per_client} if scheme == "skew" else {}
    parts = SCHEMES[scheme](data.y.cpu().numpy(), clients, rng, **exact, **options)
    empty = sum(len(part) == 0 for part in parts)
    milder = "use fewer clients, or a milder skew (a larger alpha, share or classes_per_client)"
    _require(not empty, "clients", clients, f"such that {scheme!r} leaves nobody empty, but {empty} are: {milder}")
    parts = [rng.permutation(part)[:per_client] for part in parts]
    data = _turned(data, parts) if scheme == "feature" else data
    return Federation(data, *_halves(data, parts, test_share))


def _halves(data: Dataset, parts: Parts, test_share: float) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Each client's training and test images, class by class."""
    y, train, test = data.y.cpu().numpy(), [], []
    for part in parts:
        part = part[np.argsort(y[part], kind="stable")]
        # Images in order of class: every (1 / test_share)-th is for testing, never the first. 1e-9: 3 (1/3) is 1.
        to_test = np.diff(np.floor(np.arange(len(part) + 1) * test_share + 1e-9)) > 0
        train.append(torch.from_numpy(part[~to_test]).to(data.y.device))
        test.append(torch.from_numpy(part[to_test]).to(data.y.device))
    return tuple(train), tuple(test)


def _require(good: bool, name: str, value: Any, allowed: str) -> None:
    if not good:
        raise ValueError(f"{name}={value!r} must be {allowed}")


def _cut(index: np.ndarray, weights: np.ndarray) -> Parts:
    return np.split(index, np.rint(np.cumsum(weights)[:-1] / weights.sum() * len(index)).astype(int))


def _by_class(y: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> Parts:
    """Divide the images of each class c over the clients in proportion to weights[:, c], shape (N, C)."""
    pieces = [_cut(rng.permutation(np.flatnonzero(y == c)), w) for c, w in enumerate(weights.T)]
    return [np.concatenate(own) for own in zip(*pieces, strict=True)]


def iid(y: np.ndarray, clients: int, rng: np.random.Generator) -> Parts:
    """Equal shares of a shuffle: sizes differ by at most one."""
    return np.array_split(rng.permutation(len(y)), clients)


def dirichlet(y: np.ndarray, clients: int, rng: np.random.Generator, *, alpha: float = 0.3) -> Parts:
    """Label skew: each class is divided over the clients by a draw from Dirichlet(alpha) (Yurochkin et al. 2019).

    alpha > 0: 0.1 leaves two or three classes a client, 100 is nearly iid. Redrawn until everyone holds two images.
    """
    _require(isfinite(alpha) and alpha > 0, "alpha", alpha, "a number above 0")
    for _ in range(200):
        parts = _by_class(y, rng.gamma(alpha, size=(clients, y.max() + 1)) + 1e-300, rng)  # gammas in proportion
        if min(map(len, parts)) >= min(2, len(y) // clients):
            return parts
    remedy = "raise alpha, or use fewer clients"
    raise ValueError(f"alpha={alpha} left one of clients={clients} without two images in 200 draws: {remedy}")


def pathological(y: np.ndarray, clients: int, rng: np.random.Generator, *, classes_per_client: int = 2) -> Parts:
    """Each client holds `classes_per_client` classes and no other (McMahan et al. 2017), dealt out in turn."""
    k, classes = classes_per_client, int(y.max()) + 1
    allowed = f"a whole number up to {classes} that lets clients={clients} cover all {classes} classes"
    _require(k == int(k) and 1 <= k <= classes <= clients * k, "classes_per_client", k, allowed)
    owners, order = np.zeros((clients, classes)), rng.permutation(classes)
    for client in range(clients):
        owners[client, order[(client * k + np.arange(k)) % classes]] = 1
    return _by_class(y, owners, rng)


def skew(y: np.ndarray, clients: int, rng: np.random.Generator, per_client: int | None, *, share: float = 0.2) -> Parts:
    """s% skew (as with FedPAC): a share of each client's images is uniform, the rest from its dominant classes.

    share: in [0, 1]; 1 is uniform. Up to ten classes: dominant are (0,1,2), (2,3,4), ... by client number; more: a
    tenth of the classes, drawn per client. Exact with per_client; without, all images are divided in proportion.
    """
    _require(0 <= share <= 1, "share", share, "from 0 to 1")
    classes = int(y.max()) + 1
    weights = np.full((clients, classes), share / classes)
    for i, row in enumerate(weights):
        group = np.unique((2 * (i % 5) + np.arange(3)) % classes)
        few = rng.choice(classes, classes // 10, replace=False) if classes > 10 else group
        row[few] += (1 - share) / len(few)
    if per_client is None:
        return _by_class(y, np.where(weights.sum(0) > 0, weights, 1.0), rng)  # nobody's class goes to all
    counts = np.diff(np.rint(per_client * np.cumsum(weights, 1)), prepend=0).astype(int)  # rows add up exactly
    spare = np.bincount(y) - counts.sum(0)
    _require(spare.min() >= 0, "per_client", per_client, f"smaller: class {spare.argmin()} lacks {-spare.min()} images")
    pieces = [np.split(rng.permutation(np.flatnonzero(y == c)), counts[:, c].cumsum())[:-1] for c in range(classes)]
    return [np.concatenate(own) for own in zip(*pieces, strict=True)]


def quantity(y: np.ndarray, clients: int, rng: np.random.Generator, *, sigma: float = 1.0) -> Parts:
    """Quantity skew: two images each, the rest by log-normal weights, labels iid. sigma > 0: spread of log sizes."""
    _require(isfinite(sigma) and sigma > 0, "sigma", sigma, "a number above 0")
    first, rest = np.split(rng.permutation(len(y)), [min(2, len(y) // clients) * clients])
    more = _cut(rest, rng.lognormal(0.0, sigma, clients))
    return [np.concatenate(pair) for pair in zip(np.split(first, clients), more, strict=True)]


def _turned(data: Dataset, parts: Parts) -> Dataset:
    """Feature skew: client i's images turned by i mod 4 quarter turns, which moves pixels and blurs none."""
    _require(data.x.shape[2] == data.x.shape[3], "partition", "feature", f"of square images, not {data.in_shape}")
    x = data.x.clone()
    for i, part in enumerate(parts):
        x[part] = torch.rot90(data.x[part], i % 4, (2, 3))
    return replace(data, x=x)


SCHEMES: dict[str, Callable[..., Parts]] = {f.__name__: f for f in (dirichlet, pathological, skew, quantity, iid)}
SCHEMES["feature"] = iid
# A scheme's options and their defaults are its keyword arguments.
OPTIONS: dict[str, dict[str, float]] = {
    name: inspect.getfullargspec(f).kwonlydefaults or {} for name, f in SCHEMES.items()
}


def unevenness(counts: np.ndarray) -> dict[str, float]:
    """How uneven a split is, from its (N, C) label counts. label_skew: total-variation distance of a client's label
    distribution to the whole's, mean over clients, 0 for iid. classes_per_client: mean number of classes present.
    size_skew: Gini coefficient of the clients' sizes, 0 for equal ones, near 1 where one client holds everything."""
    sizes = counts.sum(1)
    gaps = np.abs(counts / np.maximum(sizes, 1)[:, None] - counts.sum(0) / counts.sum()).sum(1) / 2
    gini = np.abs(sizes[:, None] - sizes[None, :]).mean() / (2 * sizes.mean())
    present = (counts > 0).sum(1).mean()
    return {"label_skew": float(gaps.mean()), "classes_per_client": float(present), "size_skew": float(gini)}
