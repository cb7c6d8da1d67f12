"""FedeCouple: decoupled training, coupled again by local anchors, distillation and a global-and-local extractor loss.

FedeCouple, arXiv 2511.09599. Stated in the paper: two extractor updates (one against the frozen global classifier, one
against the frozen local one), the regulariser mu * Omega, anchors that stay on the client, dynamic distillation, fair
similarity-based aggregation. Our reading: the forms of Omega, of the dynamic weight and of the similarity below; how
the two updates follow each other, which `coupling` leaves to choose; and weights by size as the default, as for every
other method here.

Symbols: theta is an extractor, f its features (B, d); phi a classifier, g its logits (B, C). The index i marks client
i's own, t what the server sent at the start of round t. The three parts have names: GFA, global feature anchors; GPC,
the distillation from the global into the personal classifier; GLF, the global half of the extractor's loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..hyper import hyper
from ..losses import centre_loss, class_means, cross_entropy, distillation, true_class_probability
from ..models import DecoupledNet
from ..phases import Derive, Phases, Train
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors, flat, pick, weighted_mean
from .fedavg import FedAvg, own_model


@dataclass(frozen=True)
class FedeCouple(FedAvg):
    """One round: receive theta and hold phi beside the client's own phi_i; take the anchors; train phi_i with the
    extractor frozen; train the extractor with both classifiers frozen; upload both parts, as FedAvg does. The server's
    phi is the mean of the uploaded phi_i; each client goes on with its own.

    With mu = lam = global_loss = 0 and aggregation "size" this is FedRep to the bit, where all clients take part from
    the first round (one that joins later starts its classifier at the server's, not at the initial one).
    """

    classifier_epochs: int = hyper(1, "local epochs of the personal classifier before the extractor's, H", tries=(1, 5))
    classifier_lr: float | None = hyper(None, "step size of the classifier; none: as lr", tries=(None, 0.05, 0.2))
    mu: float = hyper(1.0, "pull towards the local anchors (GFA); 0 removes them", tries=(0.1, 0.3, 1.0))
    lam: float = hyper(3.0, "weight of distillation into the personal classifier (GPC); 0 removes it", tries=(1.0, 3.0))
    weighting: str = hyper(
        "dynamic", "each image's weight in distillation: trust, or 1", choices=("dynamic", "constant")
    )
    temperature: float = hyper(1.0, "softens both sides of the distillation", low=0.01)
    global_loss: float = hyper(1.0, "weight of the global half of the extractor's loss (GLF); 0 removes it")
    coupling: str = hyper(
        "alternate",
        "global and local step in turn on each batch, one step on their sum, or two whole phases, the global one first",
        choices=("alternate", "joint", "phases"),
    )
    aggregation: str = hyper("size", "the server's weights", choices=("size", "similarity"))

    predict = own_model

    def receive(self, client: Tensors, download: Tensors) -> Tensors:
        """theta_i <- theta^t; the client's own classifier stays, and phi^t is held beside it in the download."""
        return {**client, **pick(download, EXTRACTOR)}

    def phases(self) -> Phases:
        """Anchors, then the personal classifier, then the extractor."""
        classifier = Train(
            (CLASSIFIER,), (self.personal_loss,), self.classifier_epochs, on_features=True, lr=self.classifier_lr
        )
        return (Derive(self.anchors, on_features=True), classifier, *self.extractor_phases())

    def extractor_phases(self) -> Phases:
        """One phase with a gradient step a batch for each of its losses, sharing one momentum; or two phases one after
        the other."""
        if self.global_loss == 0:  # no global step at all: it would still pull to the anchors and decay the weights
            return (Train((EXTRACTOR,), (self.local_pull,), self.epochs),)
        if self.coupling == "joint":
            return (Train((EXTRACTOR,), (self.both_pulls,), self.epochs),)
        if self.coupling == "phases":
            globally = Train((EXTRACTOR,), (self.global_pull,), self.epochs)
            locally = Train((EXTRACTOR,), (self.local_pull,), self.epochs)
            return (globally, locally)
        return (Train((EXTRACTOR,), (self.global_pull, self.local_pull), self.epochs),)

    def anchors(self, net: DecoupledNet, z: Tensor, y: Tensor, valid: Tensor) -> Tensors:
        """a_ic: mean of f(theta^t; x) over the client's images of class c, (C, d), and their number, (C,). Kept here,
        part of no message; the numbers are only for looking at. valid: (n,) 1 for an image, 0 for padding.

        Made with the received extractor, so all clients' anchors lie in one space. A class without images has count
        0 and a row of zeros that no sample ever asks for.
        """
        means, counts = class_means(z, y, net.classes, valid)
        return {"anchors.means": means, "anchors.counts": counts}

    def personal_loss(self, net: DecoupledNet, client: Tensors, download: Tensors, z: Tensor, y: Tensor) -> Tensor:
        """ce(g(phi_i; z), y) + lam * w(x) * KL_T(g(phi^t; z) || g(phi_i; z)), (B,).

        w(x) = softmax(g(phi^t; z))_y: a teacher that is wrong about this sample is ignored, a sure one is followed.
        weighting "constant" is w(x) = 1, ordinary distillation.
        """
        student = net.classify(client, z)
        teacher = net.classify(download, z)
        weight = true_class_probability(teacher, y) if self.weighting == "dynamic" else 1.0
        return cross_entropy(student, y) + self.lam * weight * distillation(student, teacher, self.temperature)

    def global_pull(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """global_loss * ce(g(phi^t; f), y) + mu * Omega, (B,): the features must suit the global classifier."""
        z = net.features(client, x)
        of_server = cross_entropy(net.classify(download, z), y)
        return self.global_loss * of_server + self.mu * self.omega(client, z, y)

    def local_pull(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """ce(g(phi_i; f), y) + mu * Omega, (B,): the features must suit the client's own classifier."""
        z = net.features(client, x)
        of_client = cross_entropy(net.classify(client, z), y)
        return of_client + self.mu * self.omega(client, z, y)

    def both_pulls(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """The joint form: both cross-entropies and one mu * Omega, in one step, (B,)."""
        z = net.features(client, x)
        of_client = cross_entropy(net.classify(client, z), y)
        of_server = cross_entropy(net.classify(download, z), y)
        return of_client + self.global_loss * of_server + self.mu * self.omega(client, z, y)

    def omega(self, client: Tensors, z: Tensor, y: Tensor) -> Tensor:
        """Omega = ||f(theta_i; x) - a_iy||^2 / d, (B,)."""
        return centre_loss(z, y, client["anchors.means"])

    def aggregate(self, server: Tensors, uploads: Mapping[int, Tensors], sizes: Mapping[int, float]) -> Tensors:
        """Size-weighted mean; or, in place of sizes, weights s_i = max(0, mean over j != i of cos(u_i, u_j)) of the
        extractor's updates u_i = theta_i - theta^t, for the classifiers, too."""
        if self.aggregation == "size":
            return super().aggregate(server, uploads, sizes)
        weights = similarity_weights(server, uploads)
        return {**server, **weighted_mean(list(uploads.values()), weights)}


def similarity_weights(server: Tensors, uploads: Mapping[int, Tensors]) -> list[float]:
    """One weight >= 0 per upload; all equal where no update agrees with the others on average, or there is only one."""
    before = flat(pick(server, EXTRACTOR))  # (P,)
    after = [flat(pick(upload, EXTRACTOR)) for upload in uploads.values()]
    directions = normalize(torch.stack(after) - before, dim=1)  # (K, P), of length 1 each
    cosines = directions @ directions.T  # (K, K)
    with_others = cosines.sum(1) - cosines.diagonal()
    mean_cosine = with_others / max(1, len(after) - 1)
    weights = mean_cosine.clamp(min=0).tolist()
    return weights if sum(weights) > 0 else [1.0] * len(weights)
