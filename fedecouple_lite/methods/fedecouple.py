"""FedeCouple: decoupled training, coupled again by local anchors, distillation and a global-and-local extractor loss.

FedeCouple, arXiv 2511.09599. Stated in the paper: the two extractor updates (global classifier frozen, then the local
one), the regulariser mu * Omega, anchors that stay on the client, dynamic distillation, fair similarity-based
aggregation. Our reading: the forms of Omega, of the dynamic weight and of the similarity below.
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
from ..phases import Derive, Loss, Phases, Train
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors, flat, pick, weighted_mean
from .fedavg import FedAvg, own_model


@dataclass(frozen=True)
class FedeCouple(FedAvg):
    """With mu = lam = global_loss = 0 and aggregation "size" this is FedRep to the bit."""

    classifier_epochs: int = hyper(1, "local epochs of the personal classifier before the extractor's, H", tries=(1, 5))
    mu: float = hyper(1.0, "pull towards the local anchors (GFA); 0 removes them", tries=(0.1, 0.3, 1.0))
    lam: float = hyper(3.0, "weight of distillation into the personal classifier (GPC); 0 removes it", tries=(1.0, 3.0))
    weighting: str = hyper(
        "dynamic", "each image's weight in distillation: trust, or 1", choices=("dynamic", "constant")
    )
    temperature: float = hyper(1.0, "softens both sides of the distillation", low=0.01)
    global_loss: float = hyper(1.0, "weight of the global half of the extractor's loss (GLF); 0 removes it")
    coupling: str = hyper("alternate", "two steps a batch, or one on the sum", choices=("alternate", "joint"))
    aggregation: str = hyper("size", "the server's weights", choices=("size", "similarity"))

    predict = own_model

    def receive(self, client: Tensors, download: Tensors) -> Tensors:
        """theta_i <- theta^t; the client's own classifier stays, and phi^t is held beside it in the download."""
        return {**client, **pick(download, EXTRACTOR)}

    def phases(self) -> Phases:
        """Anchors, then the personal classifier, then the extractor."""
        return (
            Derive(self.anchors),
            Train((CLASSIFIER,), (self.personal_loss,), self.classifier_epochs, on_features=True),
            Train((EXTRACTOR,), self.extractor_losses(), self.epochs),
        )

    def extractor_losses(self) -> tuple[Loss, ...]:
        """One gradient step a batch for each: two to alternate, one on the sum, or the local one alone."""
        if self.global_loss == 0:  # no global step at all: even a step of zero loss would decay the weights
            return (self.local_pull,)
        if self.coupling == "joint":
            return (self.both_pulls,)
        return (self.global_pull, self.local_pull)

    def anchors(self, net: DecoupledNet, z: Tensor, y: Tensor, valid: Tensor) -> Tensors:
        """a_ic: mean of f(theta^t; x) over the client's images of class c, (C, d). Kept here, part of no message.

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
        """global_loss * ce(g(phi^t; f), y) + mu * Omega, (B,): the features must suit the global classifier ..."""
        z = net.features(client, x)
        of_server = cross_entropy(net.classify(download, z), y)
        return self.global_loss * of_server + self.mu * self.omega(client, z, y)

    def local_pull(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """... and ce(g(phi_i; f), y) + mu * Omega, (B,): the client's own as well."""
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

    def aggregate(self, server: Tensors, uploads: Mapping[int, Tensors], sizes: Mapping[int, int]) -> Tensors:
        """Size-weighted mean, or weights s_i = max(0, mean over j of cos(u_i, u_j)) of the extractor's updates u_i."""
        if self.aggregation == "size":
            return super().aggregate(server, uploads, sizes)
        weights = similarity_weights(server, uploads)
        return {**server, **weighted_mean(list(uploads.values()), weights)}


def similarity_weights(server: Tensors, uploads: Mapping[int, Tensors]) -> list[float]:
    """One weight >= 0 per upload; all equal where no two updates agree (or there is only one)."""
    before = flat(pick(server, EXTRACTOR))  # (P,)
    after = [flat(pick(upload, EXTRACTOR)) for upload in uploads.values()]
    directions = normalize(torch.stack(after) - before, dim=1)  # (K, P), of length 1 each
    cosines = directions @ directions.T  # (K, K)
    with_others = cosines.sum(1) - cosines.diagonal()
    mean_cosine = with_others / max(1, len(after) - 1)
    weights = mean_cosine.clamp(min=0).tolist()
    return weights if sum(weights) > 0 else [1.0] * len(weights)
