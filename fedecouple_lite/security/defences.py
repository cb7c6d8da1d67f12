"""Defences: what protects the server from clients, and clients from whoever sees what they send.

Each is a frozen dataclass with the two hooks of a `defence.Defence`. Several are applied in the order of the list. An
attacker is a fault (see `poisoning`): it acts after all `on_client` hooks, and sends what it likes.

What a defence acts on is what the server averages: floating-point tensors of the extractor and the classifier that are
in the uploads and, under the same name, in the server's tensors. All else arrives as it was sent: FedPAC's class
statistics, its prototypes, and its classifiers, of which the server mixes one for each client.

- CoordinateMedian, TrimmedMean: every upload's averaged tensors become the robust value, so that whatever weighted mean
  the method then takes is that value, but for rounding in the last bits; the uploads stay as many as they were.
- Krum, MultiKrum: only the selected uploads go on. With FedPAC a client that is left out keeps its last mixture of
  classifiers, or none where it has had none.
- ClipNorm: no update is longer than this.
- SimilarityWeights: who goes where nobody else goes weighs nothing. A method that weighs uploads in its own way
  (FedeCouple with aggregation "similarity", FedPAC its classifiers) does so still.
- GaussianNoise: differential privacy for each client, at a price in accuracy (see `privacy`).

Examples
--------
>>> from fedecouple_lite import load, make, net_for, rounds, split
>>> from fedecouple_lite.security.poisoning import SignFlip
>>> federation = split(load("digits"), clients=6, per_client=40)
>>> net = net_for((1, 8, 8), 10)
>>> method = make("fedavg", epochs=1)
>>> attack = [SignFlip(clients=[5], scale=10)]
>>> state = next(rounds(method, net, federation, rounds=1, faults=attack, defences=[CoordinateMedian()]))
>>> state.round
1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..defence import Defence, Received
from ..errors import is_number, is_whole_number, require
from ..faults import Turn
from ..methods import FedAvg
from ..methods.fedecouple import similarity_weights
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors, flat

# --- Robust means ---


@dataclass(frozen=True)
class CoordinateMedian(Defence):
    """The median over clients, number by number; of an even number of clients, the mean of the two in the middle.

    It stays among the honest clients' values for as long as fewer than half of the clients attack, whatever they send.
    Every client counts the same, however many images it has. (Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust
    Distributed Learning: Towards Optimal Statistical Rates. ICML 2018, Definition 1.)
    """

    def on_server(
        self,
        server: Tensors,
        uploads: Mapping[int, Tensors],
        weights: Mapping[int, float],
    ) -> Received:
        cut = (len(uploads) - 1) // 2
        return Received(with_trimmed_means(server, uploads, cut), weights)


@dataclass(frozen=True)
class TrimmedMean(Defence):
    """The mean over clients, number by number, without the largest and the smallest.

    share: in [0, 0.5), of the uploads that is cut at each end, rounded down; 0 is the mean in which every client counts
    the same. It stays among the honest clients' values for as long as no more attack than are cut at one end. (Yin et
    al. 2018, Definition 2.)
    """

    share: float

    def __post_init__(self) -> None:
        require(is_number(self.share) and 0 <= self.share < 0.5, "share", self.share, "at least 0 and below 0.5")

    def on_server(
        self,
        server: Tensors,
        uploads: Mapping[int, Tensors],
        weights: Mapping[int, float],
    ) -> Received:
        cut = int(self.share * len(uploads) + 1e-9)  # 0.3 * 10 is 3, whatever rounding says
        at_most = (len(uploads) - 1) // 2  # something must be left
        return Received(with_trimmed_means(server, uploads, min(cut, at_most)), weights)


def with_trimmed_means(server: Tensors, uploads: Mapping[int, Tensors], cut: int) -> dict[int, Tensors]:
    """The uploads, what the server averages of each replaced by the mean over all without `cut` at each end."""
    averaged = {k: averaged_part(server, upload) for k, upload in uploads.items()}
    first, *_ = averaged.values()
    robust = {}
    for name in first:
        of_clients = torch.stack([part[name] for part in averaged.values()])  # (K, ...)
        robust[name] = trimmed_mean(of_clients, cut)
    return {k: {**upload, **robust} for k, upload in uploads.items()}


def trimmed_mean(values: Tensor, cut: int) -> Tensor:
    """The mean of values (K, ...) over the first dimension without the `cut` smallest and largest; 2 cut < K.

    Computed in double precision; never outside the values that are left, whatever rounding says.

    Examples
    --------
    >>> trimmed_mean(torch.tensor([[1.0], [2.0], [6.0], [1e30]]), 1)
    tensor([4.])
    """
    in_order = values.double().sort(dim=0).values
    left = in_order[cut : len(values) - cut]
    mean = left.mean(dim=0).clamp(left[0], left[-1])
    return mean.to(values.dtype)


# --- Selection ---


@dataclass(frozen=True)
class Krum(Defence):
    """One upload alone, the one with the closest company.

    attackers: >= 0, f, how many are expected at most; a round needs 2 f + 3 uploads. The score of an upload is the sum
    of its squared distances to the n - f - 2 nearest others, over all that the server averages; the lowest wins, of
    equal ones the client with the lower number. (Blanchard, El Mhamdi, Guerraoui, Stainer: Machine Learning with
    Adversaries: Byzantine Tolerant Gradient Descent. NeurIPS 2017.)

    Distances assume that honest clients want the same. Where their data differ much, it picks one client's model.
    """

    attackers: int

    def __post_init__(self) -> None:
        check_attackers(self.attackers)

    def check(self, method: FedAvg, cohort: int) -> None:
        check_enough(self.attackers, cohort)

    def on_server(
        self,
        server: Tensors,
        uploads: Mapping[int, Tensors],
        weights: Mapping[int, float],
    ) -> Received:
        return with_closest_company(server, Received(uploads, weights), self.attackers, keep=1)


@dataclass(frozen=True)
class MultiKrum(Defence):
    """The `keep` uploads with the lowest scores of Krum; the method's mean is over them.

    attackers: f, as in Krum. keep: from 1, which is Krum, to n - f of n uploads: with more an attacker would be among
    them for certain, if there are f. (Blanchard et al. 2017, where it is m.)
    """

    attackers: int
    keep: int

    def __post_init__(self) -> None:
        check_attackers(self.attackers)
        require(is_whole_number(self.keep) and self.keep >= 1, "keep", self.keep, "a whole number >= 1")

    def check(self, method: FedAvg, cohort: int) -> None:
        check_enough(self.attackers, cohort)
        most = cohort - self.attackers
        require(self.keep <= most, "keep", self.keep, f"at most {most}, the {cohort} uploads of a round less attackers")

    def on_server(
        self,
        server: Tensors,
        uploads: Mapping[int, Tensors],
        weights: Mapping[int, float],
    ) -> Received:
        check_enough(self.attackers, len(uploads))
        most = len(uploads) - self.attackers
        allowed = f"at most {most}, the {len(uploads)} uploads that arrived less attackers"
        require(self.keep <= most, "keep", self.keep, allowed)
        return with_closest_company(server, Received(uploads, weights), self.attackers, self.keep)


def with_closest_company(server: Tensors, received: Received, attackers: int, keep: int) -> Received:
    """The `keep` uploads with the lowest scores, in order of clients; ValueError where a round has too few uploads."""
    uploads = received.uploads
    check_enough(attackers, len(uploads))
    vectors = torch.stack([flat(averaged_part(server, upload)) for upload in uploads.values()])  # (K, P)
    scores = dict(zip(uploads, krum_scores(vectors, attackers).tolist(), strict=True))
    lowest_first = sorted(uploads, key=lambda k: (scores[k], k))
    chosen = sorted(lowest_first[:keep])
    return Received({k: uploads[k] for k in chosen}, {k: received.weights[k] for k in chosen})


def krum_scores(vectors: Tensor, attackers: int) -> Tensor:
    """The sum of squared distances of each of vectors (K, P) to its K - attackers - 2 nearest others, (K,) double.

    Examples
    --------
    >>> krum_scores(torch.tensor([[0.0], [1.0], [3.0], [100.0], [2.0]]), attackers=1).tolist()
    [5.0, 2.0, 5.0, 19013.0, 2.0]
    """
    vectors = vectors.double()
    distances = [(vectors - vector).square().sum(dim=1) for vector in vectors]  # not |a|^2 - 2 ab + |b|^2: inexact
    squared = torch.stack(distances)  # (K, K)
    nearest_first = squared.sort(dim=1).values[:, 1:]  # without the distance to itself, which is 0
    company = len(vectors) - attackers - 2
    return nearest_first[:, :company].sum(dim=1)


def check_attackers(attackers: Any) -> None:
    """Raise ValueError unless it is a number of attackers."""
    require(is_whole_number(attackers) and attackers >= 0, "attackers", attackers, "a whole number >= 0")


def check_enough(attackers: int, uploads: int) -> None:
    """Raise ValueError unless a round of so many uploads is enough for Krum: 2 attackers + 3."""
    needed = 2 * attackers + 3
    allowed = f"such that 2 attackers + 3 = {needed} uploads come together in a round, but there are {uploads}"
    require(uploads >= needed, "attackers", attackers, allowed)


# --- Lengths and weights ---


@dataclass(frozen=True)
class ClipNorm(Defence):
    """No update longer than `most`: a longer one keeps its direction and becomes as long as that.

    most: > 0, the largest L2 norm of an update, upload less server, over all that the server averages. The server does
    it, as an attacker would not. (Sun, Kairouz, Suresh, McMahan: Can You Really Backdoor Federated Learning? 2019.)
    """

    most: float

    def __post_init__(self) -> None:
        check_positive("most", self.most)

    def on_server(
        self,
        server: Tensors,
        uploads: Mapping[int, Tensors],
        weights: Mapping[int, float],
    ) -> Received:
        shortened = {}
        for k, upload in uploads.items():
            update = update_of(averaged_part(server, upload), server)
            shortened[k] = upload
            if norm(update) > self.most:
                moved = add(server, clipped(update, self.most), like=upload)
                shortened[k] = {**upload, **moved}
        return Received(shortened, weights)


@dataclass(frozen=True)
class SimilarityWeights(Defence):
    """Weights by how much a client's update of the extractor points where the others' do, in place of sizes.

    FedeCouple's aggregation by similarity (`similarity_weights`), here for every method whose uploads hold an
    extractor: max(0, the mean cosine with the others). FedPAC's mixtures of classifiers have weights of their own.
    """

    def check(self, method: FedAvg, cohort: int) -> None:
        has_extractor = any(prefix.startswith(EXTRACTOR) for prefix in method.shared)
        allowed = f"for a method whose uploads hold an extractor; those of {type(method).__name__} hold none"
        require(has_extractor, "defences", [self], allowed)

    def on_server(
        self,
        server: Tensors,
        uploads: Mapping[int, Tensors],
        weights: Mapping[int, float],
    ) -> Received:
        by_similarity = similarity_weights(server, uploads)
        return Received(uploads, dict(zip(uploads, by_similarity, strict=True)))


# --- Noise ---


@dataclass(frozen=True)
class GaussianNoise(Defence):
    """Each client clips its update and adds Gaussian noise before it sends; the server weighs all clients equally.

    clip: > 0, the largest L2 norm of what a client tells, over all tensors of its upload together: of the model, upload
    less download; of all else (FedPAC's statistics and prototypes) and of a part of the model that the client was not
    sent, the tensors themselves. multiplier: >= 0, the noise's standard deviation in every coordinate, in units of
    `clip`; 0 only clips. `privacy` says what that buys. FedPAC's counts of images are far longer than its updates of
    the model, which are clipped with them: it learns slowly.

    A size as a weight would tell of the data, and let one client move the mean further than `clip` allows: so all
    weights are 1. ValueError where an upload holds whole numbers, to which noise cannot be added. The noise is drawn
    from the run's seed, so that a run can be repeated: who knows the seed takes it off again. (Dwork, Roth: The
    Algorithmic Foundations of Differential Privacy. 2014, Appendix A; McMahan, Ramage, Talwar, Zhang: Learning
    Differentially Private Recurrent Language Models. ICLR 2018, where the server adds it.)
    """

    clip: float
    multiplier: float

    def __post_init__(self) -> None:
        check_positive("clip", self.clip)
        good = is_number(self.multiplier) and 0 <= self.multiplier < float("inf")
        require(good, "multiplier", self.multiplier, "a number >= 0")

    def on_client(self, turn: Turn, upload: Tensors) -> Tensors:
        for name, tensor in upload.items():
            if not tensor.is_floating_point():
                raise ValueError(f"upload holds {name} in {tensor.dtype}; GaussianNoise takes floating point alone")
        model = {name: tensor for name, tensor in turn.download.items() if name.startswith((EXTRACTOR, CLASSIFIER))}
        told = clipped(update_of(upload, model), self.clip)
        rng = turn.rng()
        noisy = {}
        for name, tensor in told.items():
            noise = torch.from_numpy(rng.standard_normal(tuple(tensor.shape)))  # on the CPU: the same everywhere
            noisy[name] = tensor + self.multiplier * self.clip * noise.to(tensor.device)
        return add(model, noisy, like=upload)

    def on_server(
        self,
        server: Tensors,
        uploads: Mapping[int, Tensors],
        weights: Mapping[int, float],
    ) -> Received:
        return Received(uploads, dict.fromkeys(uploads, 1.0))


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError unless it is a finite number above 0."""
    require(is_number(value) and 0 < value < float("inf"), name, value, "a number above 0")


# --- Updates, in double precision ---


def averaged_part(server: Tensors, upload: Tensors) -> Tensors:
    """What the server averages of an upload (see above). ValueError where that is nothing."""
    part = {}
    for name in server:  # in the server's order: every client's vector is laid out alike
        of_model = name.startswith((EXTRACTOR, CLASSIFIER))
        if of_model and name in upload and upload[name].is_floating_point():
            part[name] = upload[name]
    if not part:
        raise ValueError(f"uploads hold {list(upload)}, of which the server averages nothing: nothing to defend")
    return part


def update_of(tensors: Tensors, before: Tensors) -> Tensors:
    """tensors - before, name by name, double; a tensor that `before` lacks is its own update."""
    update = {}
    for name, tensor in tensors.items():
        update[name] = tensor.double()
        if name in before:
            update[name] = update[name] - before[name].double()
    return update


def add(before: Tensors, update: Tensors, like: Tensors) -> Tensors:
    """before + update over the update's names, in the dtypes of `like`: what `update_of` took apart."""
    after = {}
    for name, tensor in update.items():
        moved = tensor + before[name].double() if name in before else tensor
        after[name] = moved.to(like[name].dtype)
    return after


def norm(tensors: Tensors) -> float:
    """The L2 norm of all tensors together."""
    return float(flat(tensors).norm())


def clipped(update: Tensors, most: float) -> Tensors:
    """The update, as it is or shortened to the length `most`."""
    length = norm(update)
    if length <= most:
        return update
    return {name: tensor * (most / length) for name, tensor in update.items()}
