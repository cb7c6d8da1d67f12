"""FedPAC: features aligned to global prototypes, classifiers mixed among clients whose data are alike.

Xu, Tong, Huang: Personalized Federated Learning with Feature Alignment and Classifier Collaboration. ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..hyper import hyper
from ..losses import centre_loss, class_means
from ..models import DecoupledNet
from ..phases import Derive, Phases, Train
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors, pick, rename, weighted_mean
from .fedavg import FedAvg, own_model


@dataclass(frozen=True)
class FedPAC(FedAvg):
    """phi_i first, then theta pulled to *transmitted* prototypes; the server mixes a classifier for every client.

    Unlike FedeCouple's anchors, class means and class statistics leave the client here.
    """

    classifier_epochs: int = hyper(1, "local epochs of the classifier before the extractor's", tries=(1, 5))
    classifier_lr: float | None = hyper(None, "step size of the classifier; none: as lr", tries=(None, 0.05, 0.2))
    lam: float = hyper(1.0, "pull to the global prototypes, from round 2 on; 0 removes it", tries=(0.1, 1.0, 3.0))

    shared = (EXTRACTOR, CLASSIFIER, "prototypes.", "statistics.")
    predict = own_model

    def init_server(self, start: Tensors) -> Tensors:
        return pick(start, EXTRACTOR)

    def send(self, server: Tensors, client_id: int) -> Tensors:
        """theta, the global prototypes, and this client's own mixture of classifiers, once there is one."""
        mixture_of_client = f"mixed.{client_id}."
        download = {}
        for name, tensor in server.items():
            if name.startswith((EXTRACTOR, "prototypes.", mixture_of_client)):
                download[name.removeprefix(mixture_of_client)] = tensor
        return download

    def phases(self) -> Phases:
        return (
            Derive(self.statistics),
            Train(
                (CLASSIFIER,), (self.classifier_loss,), self.classifier_epochs, on_features=True, lr=self.classifier_lr
            ),
            Train((EXTRACTOR,), (self.loss,), self.epochs),
            Derive(self.prototypes),
        )

    def statistics(self, net: DecoupledNet, z: Tensor, y: Tensor, valid: Tensor) -> Tensors:
        """h_i = p_ik mu_ik, (C, d), and v_i = (sum_k p_ik E|f|^2_k - sum_k p_ik^2 |mu_ik|^2) / n_i, under the received
        theta; and the client's own prototypes, which stand in for a global one that is missing."""
        means, counts = class_means(z, y, net.classes, valid)
        n = counts.sum()
        p = counts / n  # (C,) p_ik
        h = p[:, None] * means  # (C, d)
        second_moment = (z.square().sum(1) * valid).sum() / n  # sum_k p_ik E|f|^2_k
        v = (second_moment - h.square().sum()) / n
        return {"own.means": means, "statistics.h": h, "statistics.v": v}

    def loss(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy + lam |f - C_y|^2 / d, (B,)."""
        if "prototypes.means" not in download:  # the first round
            return super().loss(net, client, download, x, y)
        z = net.features(client, x)
        known = download["prototypes.counts"][:, None] > 0
        centres = torch.where(known, download["prototypes.means"], client["own.means"])
        return self.classifier_loss(net, client, download, z, y) + self.lam * centre_loss(z, y, centres)

    def prototypes(self, net: DecoupledNet, z: Tensor, y: Tensor, valid: Tensor) -> Tensors:
        """Class means (C, d) and counts (C,) under the trained theta."""
        means, counts = class_means(z, y, net.classes, valid)
        return {"prototypes.means": means, "prototypes.counts": counts}

    def aggregate(self, server: Tensors, uploads: Mapping[int, Tensors], sizes: Mapping[int, float]) -> Tensors:
        """The mean extractor, the global prototypes, and for every client of the cohort a mixture of classifiers."""
        many = list(uploads.values())
        extractors = [pick(upload, EXTRACTOR) for upload in many]
        theta = weighted_mean(extractors, [sizes[k] for k in uploads])
        new = {**server, **theta, **global_prototypes(many)}

        h = as_rows([upload["statistics.h"] for upload in many])  # (K, C d)
        v = as_rows([upload["statistics.v"] for upload in many])[:, 0]  # (K,)
        classifiers = [pick(upload, CLASSIFIER) for upload in many]
        for i, k in enumerate(uploads):
            mixed = weighted_mean(classifiers, mixture(h, v, i).tolist())
            new |= rename(mixed, "", f"mixed.{k}.")
        return new


def global_prototypes(uploads: Sequence[Tensors]) -> Tensors:
    """Mean feature of each class over all images of the cohort, (C, d), and their number, (C,)."""
    counts = torch.stack([upload["prototypes.counts"] for upload in uploads])  # (K, C)
    means = torch.stack([upload["prototypes.means"] for upload in uploads])  # (K, C, d)
    total = counts.sum(0)
    sums = (counts[:, :, None] * means).sum(0)  # (C, d)
    return {"prototypes.means": sums / total.clamp(min=1)[:, None], "prototypes.counts": total}


def as_rows(tensors: Sequence[Tensor]) -> np.ndarray:
    """Tensors of one shape as the rows of a float64 array on the CPU."""
    return torch.stack([tensor.flatten() for tensor in tensors]).double().cpu().numpy()


def mixture(h: np.ndarray, v: np.ndarray, i: int) -> np.ndarray:
    """Client i's weights alpha (K,) over the cohort's classifiers, on the simplex; those below 1e-3 are dropped.

    Minimises alpha^T (diag(v) + D D^T) alpha with rows D_j = h_i - h_j; h: (K, C d), v: (K,). Only K x K matrices
    are formed. On the cone the minimiser of x^T Q x / 2 - 1^T x points the same way, and with Q = L L^T that is
    non-negative least squares, |L^T x - L^-1 1|^2.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import nnls

    differences = h[i] - h  # (K, C d)
    q = differences @ differences.T + np.diag(np.maximum(v, 0))
    q += np.eye(len(q)) * (1e-9 * np.trace(q) + 1e-12)  # a lone sample has variance 0: keep L invertible
    lower = np.linalg.cholesky(q)
    target = solve_triangular(lower, np.ones(len(q)), lower=True)
    x, _ = nnls(lower.T, target)
    alpha = x / x.sum()
    alpha[alpha < 1e-3] = 0
    return alpha / alpha.sum()
