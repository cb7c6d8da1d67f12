"""Membership inference: was this image among those that a model was trained on?

A model has a lower loss on images that it has seen. The attack needs nothing but the model, which a server has of every
client that uploads both parts.

- The loss itself is the score: Yeom, Giacomelli, Fredrikson, Jha: Privacy Risk in Machine Learning: Analyzing the
  Connection to Overfitting. CSF 2018. An image that any model finds easy looks like a member.
- The loss compared with that of models which have not seen the image: Carlini, Chien, Nasr, Song, Terzis, Tramer:
  Membership Inference Attacks From First Principles. IEEE S&P 2022; their test with models of one side only
  ("offline"). Here the other models are other clients', which cost a server nothing. After the first round these are
  not quite strangers: they started from a mean that holds something of every client.

A score is higher for an image more likely a member.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from ..client import forward
from ..errors import is_number, nearest, require
from ..losses import cross_entropy
from ..models import DecoupledNet
from ..tensors import Tensors

SPREADS = ("common", "each")
SMALLEST_LOSS = 1e-12  # a loss of 0 would have an infinite score
SMALLEST_SPREAD = 1e-6


class Membership(NamedTuple):
    """How well an attack tells members from others.

    members, others: scores (m,) and (n,). auc: the chance that a member scores above another image; 0.5 is guessing.
    error: the standard error of an AUC where the attack is guessing. tpr: the share of members found where 1 % of the
    others are taken for members.
    """

    members: Tensor
    others: Tensor
    auc: float
    error: float
    tpr: float


def attack(
    net: DecoupledNet,
    tensors: Tensors,
    members: tuple[Tensor, Tensor],
    others: tuple[Tensor, Tensor],
    references: Sequence[Tensors] = (),
    spread: str = "common",
) -> Membership:
    """Score images that the model was trained on, and images that it was not, and say how well that tells them apart.

    tensors: the model under attack, both parts, such as a client's upload. members, others: images (n, *in_shape) and
    labels (n,). references: models that have seen none of these images, at least two; () is the attack by the loss
    alone. spread: see `likelihood_ratio`. ValueError: no images, too few references, scores that are not finite.
    """
    scores = []
    for x, y in (members, others):
        losses = losses_of(net, tensors, x, y)
        if references:
            under_others = torch.stack([losses_of(net, reference, x, y) for reference in references])  # (K, n)
            scores.append(likelihood_ratio(losses, under_others, spread))
        else:
            scores.append(loss_threshold(losses))
    of_members, of_others = scores
    error = chance_error(len(of_members), len(of_others))
    return Membership(of_members, of_others, auc(of_members, of_others), error, tpr_at(of_members, of_others))


def losses_of(net: DecoupledNet, tensors: Tensors, x: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of each image, (n,), in float64: well-learnt images differ in the last digits."""
    fits = len(x) == len(y) and len(y) > 0
    require(fits, "images", (len(x), len(y)), "as many images as labels, at least one")
    return cross_entropy(forward(net.logits, tensors, x).double(), y)


def loss_threshold(losses: Tensor) -> Tensor:
    """The score of Yeom et al. 2018, (n,): minus the loss (n,)."""
    return -losses


def likelihood_ratio(losses: Tensor, under_others: Tensor, spread: str = "common") -> Tensor:
    """The score of Carlini et al. 2022 (section VI, offline), (n,): by how many standard deviations the model is surer
    of an image than models are that have not seen it.

    losses: (n,), of the model under attack. under_others: (K, n), of K >= 2 models that have not seen the images.
    How sure a model is, is the logit of the true class's probability, which is about normal over models. spread: the
    standard deviation is "each" image's own, or one "common" to all, which is better for few models.
    """
    require(losses.ndim == 1 and len(losses) > 0, "losses", tuple(losses.shape), "one loss an image, of at least one")
    fits = under_others.ndim == 2 and len(under_others) >= 2 and under_others.shape[1:] == losses.shape
    require(fits, "under_others", tuple(under_others.shape), f"(K, {len(losses)}), of at least two models")
    if spread not in SPREADS:
        raise ValueError(f"spread={spread!r} is unknown; {nearest(spread, SPREADS)}")
    sureness = logit_of_true_class(losses)  # (n,)
    of_others = logit_of_true_class(under_others)  # (K, n)
    variance = of_others.var(0)  # (n,)
    if spread == "common":
        variance = variance.mean().expand_as(variance)
    return (sureness - of_others.mean(0)) / variance.sqrt().clamp(min=SMALLEST_SPREAD)


def logit_of_true_class(losses: Tensor) -> Tensor:
    """log(p / (1 - p)) for p = exp(-loss)."""
    losses = losses.clamp(min=SMALLEST_LOSS)
    log_of_rest = torch.log(-torch.expm1(-losses))  # log(1 - p)
    return -losses - log_of_rest


def auc(members: Tensor, others: Tensor) -> float:
    """The area under the ROC curve: the chance that a random member scores above a random other, ties counted half.

    Examples
    --------
    >>> auc(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0]))  # of four pairs three are in order
    0.75
    """
    from sklearn.metrics import roc_auc_score

    truth, scores = truth_and_scores(members, others)
    return float(roc_auc_score(truth, scores))


def tpr_at(members: Tensor, others: Tensor, fpr: float = 0.01) -> float:
    """The share of members found where at most the share `fpr` of the others is taken for members. fpr: in [0, 1].

    This is what an attacker who must be right cares about (Carlini et al. 2022). Fewer than 1 / fpr others make it the
    share of members above all others.
    """
    from sklearn.metrics import roc_curve

    require(is_number(fpr) and 0 <= fpr <= 1, "fpr", fpr, "a number from 0 to 1")
    truth, scores = truth_and_scores(members, others)
    false_alarms, found, _ = roc_curve(truth, scores, drop_intermediate=False)
    return float(found[false_alarms <= fpr].max())


def chance_error(members: int, others: int) -> float:
    """The standard error of the AUC of a score that knows nothing (Mann and Whitney 1947): sqrt((m + n + 1) / 12 m n).

    An AUC within three of these of 0.5 is no evidence of a leak.
    """
    for name, images in (("members", members), ("others", others)):
        require(images >= 1, name, images, "at least 1")
    return sqrt((members + others + 1) / (12 * members * others))


def truth_and_scores(members: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """1 for a member and 0 for another, and the scores, (m + n,) each. ValueError where there are none, or not finite
    ones."""
    for name, scores in (("members", members), ("others", others)):
        require(scores.ndim == 1 and len(scores) > 0, name, tuple(scores.shape), "scores (n,), at least one")
        require(bool(torch.isfinite(scores).all()), name, scores.tolist(), "finite scores")
    is_member = torch.ones(len(members))
    is_other = torch.zeros(len(others))
    truth = torch.cat([is_member, is_other])
    return truth, torch.cat([members, others]).cpu()
