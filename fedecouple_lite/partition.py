"""Who holds what: partitions of a data set over clients, and figures of how uneven the result is.

Every partition gives each image to exactly one client (`per_client` may then leave some out) and draws from one
generator. Those in PARTITIONS make clients of any labelled images. NATURAL makes a client of each person whose images
they are, where the data set says so; nobody else gets them.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from .data import Dataset
from .errors import SEED, as_python, is_number, is_seed, is_whole_number, nearest, require

Parts = list[np.ndarray]  # one array of image indices per client
NATURAL = "natural"


@dataclass(frozen=True)
class Federation:
    """One data set divided over N clients: train[i] and test[i] are client i's image indices (n_i,), int64.

    owners: which of the data set's owners each client is, N numbers; None where clients are not people.
    """

    data: Dataset
    train: tuple[Tensor, ...]
    test: tuple[Tensor, ...]
    owners: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.train)

    def label_counts(self, part: str = "train") -> np.ndarray:
        """(N, C) images of the "train" or "test" part by client and class."""
        require(part in ("train", "test"), "part", part, "train or test")
        classes = len(self.data.classes)
        indices = self.train if part == "train" else self.test
        return np.stack([self.data.y[index].bincount(minlength=classes).cpu().numpy() for index in indices])

    def validation(self, share: float = 0.4) -> Federation:
        """The training images alone, divided anew: `share` of each client's, class by class, take the test images'
        place. For choosing hyper-parameters; no test image is in it. share: above 0 and below 1."""
        require(0 < share < 1, "share", share, "above 0 and below 1")
        parts = [index.cpu().numpy() for index in self.train]
        train, held_out = train_test_split_by_class(self.data, parts, share)
        return Federation(self.data, train, held_out, self.owners)

    def to(self, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Federation:
        """The same federation on `device`, its images coming as `dtype`."""
        train = tuple(index.to(device) for index in self.train)
        test = tuple(index.to(device) for index in self.test)
        return Federation(self.data.to(device, dtype), train, test, self.owners)

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for the data and for who holds what; the device does not matter."""
        content = hashlib.blake2b(self.data.digest.encode(), digest_size=8)
        for part in (self.train, self.test):
            for index in part:
                content.update(f"{len(index)};".encode())
                content.update(index.cpu().numpy().tobytes())
        return content.hexdigest()


def split(
    data: Dataset,
    clients: int = 20,
    partition: str = "dirichlet",
    seed: int = 0,
    *,
    test_share: float = 0.5,
    per_client: int | None = None,
    keep_test: bool = False,
    **options: float,
) -> Federation:
    """Divide `data` over `clients` by `partition`, then each client's images into training and test ones, class by
    class.

    partition: one of PARTITIONS, or "natural". test_share: in [0, 1), of each client's images. per_client: >= 2, at
    most so many images a client in all. keep_test: False pools the set's own training and test images and divides anew;
    True keeps them apart: clients train on images of its training part and are tested on images of its test part, in
    the same proportions of classes. options: the partition's own (see OPTIONS). Raises ValueError, naming argument and
    remedy, where the split cannot be made.

    A client is tested on no class of which it has no training image. Partitions divide the classes that have images.

    "natural" makes a client of each of `clients` owners, drawn with the seed and in order of their numbers; the images
    of the others go to nobody. With keep_test an owner is tested on all its own images of the test part, also on those
    of a class of which its training part has none: `unevenness` says how many they are.

    Examples
    --------
    >>> from fedecouple_lite import load
    >>> federation = split(load("digits"), clients=3, partition="pathological", classes_per_client=4)
    >>> len(federation)
    3
    >>> (federation.label_counts() > 0).sum(axis=1)  # classes that each client holds
    array([4, 4, 4])
    """
    if not isinstance(partition, str) or partition not in partition_names():
        raise ValueError(f"partition={partition!r} is unknown; {nearest(partition, partition_names())}")
    for name, value in options.items():
        known = ", ".join(OPTIONS[partition]) or "no options"
        require(name in OPTIONS[partition], name, value, f"known to partition={partition!r}, which takes: {known}")
        require(is_number(value), name, value, "a number")
    require(is_whole_number(clients), "clients", clients, "a whole number")
    require(1 <= clients <= len(data.y), "clients", clients, f"from 1 to the number of images, {len(data.y)}")
    require(is_seed(seed), "seed", seed, SEED)
    require(is_number(test_share) and 0 <= test_share < 1, "test_share", test_share, "at least 0 and below 1")
    if per_client is not None:
        require(is_whole_number(per_client), "per_client", per_client, "a whole number")
        require(is_number(per_client) and per_client >= 2, "per_client", per_client, "at least 2")
    require(isinstance(keep_test, bool | np.bool_), "keep_test", keep_test, "True or False")
    if keep_test:
        require(data.own_test > 0, "keep_test", keep_test, f"False for data={data.name!r}, which has no test part")
    if partition == NATURAL:
        other = f"another for data={data.name!r}, which does not say whose image each is (w_train, in data/README.md)"
        require(data.owners is not None, "partition", partition, other)

    clients, seed, per_client = as_python(clients), as_python(seed), as_python(per_client)
    options = {name: as_python(value) for name, value in options.items()}
    rng = np.random.default_rng([seed, 0])
    labels = data.y.cpu().numpy()
    owners = None
    if partition == NATURAL and data.owners is not None:
        owners = data.owners.cpu().numpy()
    by = labels if owners is None else owners  # what the partition's law looks at
    if not keep_test:
        parts = divide(by, clients, partition, rng, per_client, options)
        if partition == "feature":
            data = rotate_by_client(data, parts)
        train, test = train_test_split_by_class(data, parts, test_share)
        return Federation(data, train, test, owners_of(parts, owners))

    first_of_test = len(labels) - data.own_test
    most_for_testing = None if per_client is None else round(per_client * test_share)
    most_for_training = None if per_client is None else per_client - round(per_client * test_share)
    some = most_for_training is None or most_for_training > 0
    require(some, "test_share", test_share, f"smaller: of per_client={per_client} images none is left to train on")
    parts = divide(by[:first_of_test], clients, partition, rng, most_for_training, options)
    if owners is None:
        test_parts = divide_alike(labels, parts, first_of_test, rng)
    else:
        test_parts = own_images(owners, parts, first_of_test, rng)
    test_parts = [part[:most_for_testing] for part in test_parts]
    if partition == "feature":
        data = rotate_by_client(rotate_by_client(data, parts), test_parts)
    train = tuple(torch.from_numpy(part).to(data.y.device) for part in parts)
    test = tuple(torch.from_numpy(part).to(data.y.device) for part in test_parts)
    return Federation(data, train, test, owners_of(parts, owners))


def split_unseen(data: Dataset, seed: int = 0, *, test_share: float = 0.5, min_images: int = 2) -> Federation:
    """The people who own none of `data`'s images (data.unseen), each as a client: newcomers, who join at the end.

    Their images are divided as `split` does it, class by class: test_share are for testing, the others to adapt on.
    min_images: who has fewer is left out. Raises ValueError where the data set has none of such people.
    """
    unseen = data.unseen
    if unseen is None or unseen.owners is None:
        raise ValueError(f"data={data.name!r} must be one with images of unseen people (x_unseen, in data/README.md)")
    people = len(owners_with(unseen.owners.cpu().numpy(), min_images))
    require(people > 0, "min_images", min_images, f"smaller: none of the unseen people of {data.name!r} has so many")
    return split(unseen, people, NATURAL, seed, test_share=test_share, min_images=min_images)


def divide(
    y: np.ndarray,
    clients: int,
    partition: str,
    rng: np.random.Generator,
    per_client: int | None,
    options: Mapping[str, float],
) -> Parts:
    """Who holds which images of labels y (n,): the partition's law, then at most `per_client` images each.

    For NATURAL, y are the owners' numbers in place of labels.
    """
    require(clients <= len(y), "clients", clients, f"at most the number of images to divide, {len(y)}")
    if partition == "mixture":  # the one that can meet per_client exactly
        parts = mixture(y, clients, rng, per_client, **options)
    else:
        law: Callable[..., Parts] = natural if partition == NATURAL else PARTITIONS[partition]
        parts = law(y, clients, rng, **options)
    empty = sum(len(part) == 0 for part in parts)
    milder = "use fewer clients, or a milder skew (a larger alpha, share or classes_per_client)"
    require(not empty, "clients", clients, f"such that {partition!r} leaves nobody empty, but {empty} are: {milder}")
    return [rng.permutation(part)[:per_client] for part in parts]


def divide_alike(y: np.ndarray, parts: Parts, first: int, rng: np.random.Generator) -> Parts:
    """The images from number `first` on, each class divided in proportion to what clients hold of it in `parts`.

    Images of a class that nobody holds go to nobody.
    """
    held = np.stack([np.bincount(y[part], minlength=y.max() + 1) for part in parts])  # (N, C)
    pieces: list[list[np.ndarray]] = [[] for _ in parts]
    for c in range(held.shape[1]):
        if held[:, c].sum() == 0:
            continue
        of_class = rng.permutation(first + np.flatnonzero(y[first:] == c))
        for client, piece in enumerate(split_in_proportion(of_class, held[:, c])):
            pieces[client].append(piece)
    return [rng.permutation(np.concatenate(of_client)) for of_client in pieces]


def own_images(owners: np.ndarray, parts: Parts, first: int, rng: np.random.Generator) -> Parts:
    """The images from number `first` on of those who own `parts`: everybody's own, in random order."""
    own = []
    for part in parts:
        of_owner = first + np.flatnonzero(owners[first:] == owners[part[0]])
        own.append(rng.permutation(of_owner))
    return own


def owners_of(parts: Parts, owners: np.ndarray | None) -> tuple[int, ...] | None:
    """The owner of each part; None where nobody owns the images."""
    if owners is None:
        return None
    return tuple(int(owners[part[0]]) for part in parts)


def train_test_split_by_class(
    data: Dataset, parts: Parts, test_share: float
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Each client's training and test images, class by class.

    Of each class at least one image is for training, so nobody is tested on what it has never seen. Going through the
    classes, every image adds `test_share` to a quota, and each class gives as many test images as the quota holds and
    it can spare; what it cannot spare the next ones owe.
    """
    labels = data.y.cpu().numpy()
    train, test = [], []
    for part in parts:
        quota = 1e-9  # not 0: 3 * (1 / 3) is 1, whatever rounding says
        for_training: list[np.ndarray] = []
        for_testing: list[np.ndarray] = []
        for label in np.unique(labels[part]):
            of_class = part[labels[part] == label]
            quota += len(of_class) * test_share
            tested = min(int(quota), len(of_class) - 1)
            quota -= tested
            kept = len(of_class) - tested
            for_training.append(of_class[:kept])
            for_testing.append(of_class[kept:])
        train.append(torch.from_numpy(np.concatenate(for_training)).to(data.y.device))
        test.append(torch.from_numpy(np.concatenate(for_testing)).to(data.y.device))
    return tuple(train), tuple(test)


def split_in_proportion(index: np.ndarray, weights: np.ndarray) -> Parts:
    """Cut `index` (n,) into consecutive pieces, one for each of weights (N,), as long as their share of n, rounded.

    Examples
    --------
    >>> [piece.tolist() for piece in split_in_proportion(np.arange(10), np.array([2, 5, 3]))]
    [[0, 1], [2, 3, 4, 5, 6], [7, 8, 9]]
    """
    cumulative_share = np.cumsum(weights)[:-1] / weights.sum()
    cut_points = np.rint(cumulative_share * len(index)).astype(int)
    return np.split(index, cut_points)


def split_by_class(y: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> Parts:
    """Divide the images of each class over the clients in proportion to a column of weights, (N, C).

    The C columns are the classes that have images, in order of their labels.
    """
    pieces: list[list[np.ndarray]] = [[] for _ in weights]
    for column, label in enumerate(np.unique(y)):
        of_class = rng.permutation(np.flatnonzero(y == label))
        for client, piece in enumerate(split_in_proportion(of_class, weights[:, column])):
            pieces[client].append(piece)
    return [np.concatenate(of_client) for of_client in pieces]


def iid(y: np.ndarray, clients: int, rng: np.random.Generator) -> Parts:
    """Equal shares of a shuffle: sizes differ by at most one."""
    return np.array_split(rng.permutation(len(y)), clients)


def dirichlet(y: np.ndarray, clients: int, rng: np.random.Generator, *, alpha: float = 0.3) -> Parts:
    """Label skew: each class is divided over the clients by a draw from Dirichlet(alpha) (Yurochkin et al. 2019).

    alpha: from 1e-8 to 1e8; with 0.1 most of a client's images are of two classes (85 % of them with ten classes and
    twenty clients), 100 is nearly iid. Redrawn until everyone holds two images (one, where there are not so many).
    """
    require(isfinite(alpha) and 1e-8 <= alpha <= 1e8, "alpha", alpha, "a number from 1e-8 to 1e8")
    classes = len(np.unique(y))
    wanted = min(2, len(y) // clients)
    for _ in range(200):
        parts = split_by_class(y, dirichlet_shares(alpha, clients, classes, rng), rng)
        if min(len(part) for part in parts) >= wanted:
            return parts
    remedy = "raise alpha, or use fewer clients"
    raise ValueError(f"alpha={alpha} left one of clients={clients} without two images in 200 draws: {remedy}")


def dirichlet_shares(alpha: float, clients: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """One Dirichlet(alpha) draw over the clients for each class: (N, C), every column sums to 1.

    A Dirichlet draw is one gamma draw for each client, over their sum. With a small alpha gamma draws are too small for
    floating point, so they are taken as logarithms: a draw of Gamma(alpha) is one of Gamma(alpha + 1) times
    U^(1/alpha), U uniform (Marsaglia and Tsang 2000).
    """
    log_gammas = np.log(rng.gamma(alpha + 1, size=(clients, classes)))
    log_gammas += np.log(1 - rng.random((clients, classes))) / alpha  # 1 - U is never 0
    gammas = np.exp(log_gammas - log_gammas.max(0))  # the largest of a class is 1: its sum is not 0
    return gammas / gammas.sum(0)


def pathological(y: np.ndarray, clients: int, rng: np.random.Generator, *, classes_per_client: int = 2) -> Parts:
    """Each client holds `classes_per_client` classes and no other (McMahan et al. 2017), dealt out in turn."""
    classes = len(np.unique(y))
    k = classes_per_client
    allowed = f"a whole number up to {classes} that lets clients={clients} cover all {classes} classes"
    require(isfinite(k) and k == int(k), "classes_per_client", k, allowed)
    k = int(k)
    require(1 <= k <= classes <= clients * k, "classes_per_client", k, allowed)
    deck = rng.permutation(classes)
    owns = np.zeros((clients, classes))
    for client in range(clients):
        places = client * k + np.arange(k)  # the next k of the deck, from its top again after its end
        owns[client, deck[places % classes]] = 1
    return split_by_class(y, owns, rng)


def mixture(
    y: np.ndarray, clients: int, rng: np.random.Generator, per_client: int | None = None, *, share: float = 0.2
) -> Parts:
    """s % skew (as with FedPAC): a share of each client's images is uniform, the rest from its dominant classes.

    share: in [0, 1]; 1 is uniform. Exact with per_client; without, all images are divided in proportion. Dominant are,
    with up to ten classes, three in a row by client number, (0,1,2), (2,3,4), ...; of three classes two, of two one, so
    that dominant classes are never all of them; with more, a tenth of the classes, drawn per client.
    """
    require(0 <= share <= 1, "share", share, "from 0 to 1")
    labels, images = np.unique(y, return_counts=True)
    classes = len(labels)
    require(classes >= 2, "partition", "mixture", "of images of two classes at least")
    weights = np.full((clients, classes), share / classes)
    for client in range(clients):
        dominant = _dominant_classes(client, classes, rng)
        weights[client, dominant] += (1 - share) / len(dominant)
    if per_client is None:
        weights[:, weights.sum(0) == 0] = 1.0  # a class that nobody is given goes to all
        return split_by_class(y, weights, rng)

    require(per_client <= len(y), "per_client", per_client, f"at most the number of images, {len(y)}")
    up_to_class = np.rint(per_client * np.cumsum(weights, axis=1))
    counts = np.diff(up_to_class, prepend=0).astype(int)  # (N, C); each row adds up to per_client exactly
    spare = images - counts.sum(0)
    scarce = spare.argmin()
    remedy = f"smaller: class {labels[scarce]} lacks {-spare[scarce]} images"
    require(spare[scarce] >= 0, "per_client", per_client, remedy)
    pieces: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for column, label in enumerate(labels):
        of_class = rng.permutation(np.flatnonzero(y == label))
        *taken, _ = np.split(of_class, counts[:, column].cumsum())  # what is left after the last cut goes to nobody
        for client, piece in enumerate(taken):
            pieces[client].append(piece)
    return [np.concatenate(of_client) for of_client in pieces]


def _dominant_classes(client: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    if classes > 10:
        return rng.choice(classes, classes // 10, replace=False)
    group = min(3, classes - 1)
    step = 2 if classes > 2 else 1
    first = step * (client % 5)
    return (first + np.arange(group)) % classes


def quantity(y: np.ndarray, clients: int, rng: np.random.Generator, *, sigma: float = 1.0) -> Parts:
    """Quantity skew: two images each, the rest by log-normal weights, labels iid. sigma > 0: spread of log sizes."""
    require(0 < sigma <= 100, "sigma", sigma, "a number above 0 and at most 100")
    everyone_gets = min(2, len(y) // clients)
    shuffled = rng.permutation(len(y))
    first = np.split(shuffled[: everyone_gets * clients], clients)
    more = split_in_proportion(shuffled[everyone_gets * clients :], rng.lognormal(0.0, sigma, clients))
    return [np.concatenate(pair) for pair in zip(first, more, strict=True)]


def natural(owners: np.ndarray, clients: int, rng: np.random.Generator, *, min_images: int = 2) -> Parts:
    """The images of `clients` owners, drawn among those who have at least min_images; in order of their numbers.

    owners: (n,), whose image each is. min_images: >= 1, of the images that are divided: all of an owner's, or those of
    the training part where the test part is kept apart. (LEAF's `-k`, the minimum number of samples per user.)

    Examples
    --------
    >>> owners = np.array([3, 5, 3, 8, 5, 3])  # 8 has one image alone
    >>> [part.tolist() for part in natural(owners, 2, np.random.default_rng(0))]
    [[0, 2, 5], [1, 4]]
    """
    enough = owners_with(owners, min_images)
    those = f"the number of owners with min_images={min_images} images or more"
    require(clients <= len(enough), "clients", clients, f"at most {len(enough)}, {those}")
    drawn = np.sort(rng.choice(enough, clients, replace=False))
    return [np.flatnonzero(owners == owner) for owner in drawn]


def owners_with(owners: np.ndarray, min_images: int) -> np.ndarray:
    """The owners of at least min_images of the images that `owners` (n,) tells of, by number."""
    good = is_number(min_images) and isfinite(min_images) and min_images == int(min_images) and min_images >= 1
    require(good, "min_images", min_images, "a whole number >= 1")
    numbers, images = np.unique(owners, return_counts=True)
    return numbers[images >= min_images]


def rotate_by_client(data: Dataset, parts: Parts) -> Dataset:
    """Feature skew: client i's images turned by i mod 4 quarter turns, which moves pixels and blurs none."""
    square = data.x.shape[2] == data.x.shape[3]
    require(square, "partition", "feature", f"of square images, not {data.in_shape}")
    x = data.x.clone()
    for client, part in enumerate(parts):
        x[part] = torch.rot90(data.x[part], client % 4, (2, 3))
    return replace(data, x=x)


PARTITIONS: dict[str, Callable[..., Parts]] = {
    "dirichlet": dirichlet,
    "pathological": pathological,
    "mixture": mixture,
    "quantity": quantity,
    "iid": iid,
    "feature": iid,  # then turned, client by client
}
# A partition's options and their defaults are its keyword arguments.
OPTIONS: dict[str, dict[str, float]] = {
    name: inspect.getfullargspec(function).kwonlydefaults or {}
    for name, function in (PARTITIONS | {NATURAL: natural}).items()
}


def partition_names() -> tuple[str, ...]:
    """What `split` takes for its partition: the names of PARTITIONS, also of those that somebody has added, and
    "natural", which needs images whose owners are known."""
    return (*PARTITIONS, NATURAL)


def unevenness(counts: np.ndarray, test_counts: np.ndarray | None = None) -> dict[str, float]:
    """How uneven a split is, from its (N, C) label counts. label_skew: total-variation distance of a client's label
    distribution to the whole's, mean over clients, 0 for iid. classes_per_client: mean number of classes present.
    size_skew: Gini coefficient of the clients' sizes, 0 for equal ones, near 1 where one client holds everything. With
    test_counts also unseen_test: the share of all test images that are of a class of which their client has no training
    image; 0 for what `split` makes, but for a natural federation with its own test images.

    Examples
    --------
    >>> unevenness(np.array([[3, 1], [1, 3]]))
    {'label_skew': 0.25, 'classes_per_client': 2.0, 'size_skew': 0.0}
    """
    sizes = counts.sum(1)
    of_clients = counts / np.maximum(sizes, 1)[:, None]  # (N, C) label distributions; a row of zeros for an empty one
    of_all = counts.sum(0) / counts.sum()  # (C,)
    total_variation = np.abs(of_clients - of_all).sum(1) / 2  # (N,)
    differences = np.abs(sizes[:, None] - sizes[None, :])  # (N, N)
    gini = differences.mean() / (2 * sizes.mean())
    present = (counts > 0).sum(1)
    figures = {
        "label_skew": float(total_variation.mean()),
        "classes_per_client": float(present.mean()),
        "size_skew": float(gini),
    }
    if test_counts is not None:
        unseen = test_counts[counts == 0].sum()
        figures["unseen_test"] = float(unseen / max(1, test_counts.sum()))
    return figures
