"""Losses, each one value per sample, (B,) (the engine takes the mean), and class statistics."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)_y. logits: (B, C); y: (B,) int64; returns (B,)."""
    return F.cross_entropy(logits, y, reduction="none")


def balanced_softmax(logits: Tensor, y: Tensor, counts: Tensor) -> Tensor:
    """Cross-entropy of logits + log counts, (B,) (Ren et al. 2020): frequent classes cannot drown rare ones.

    counts: (C,) images of each class; equal ones give the ordinary cross-entropy, 0 takes a class out of the softmax.
    """
    return cross_entropy(logits + counts.log(), y)


def true_class_probability(logits: Tensor, y: Tensor) -> Tensor:
    """softmax(logits)_y, (B,): FedeCouple's dynamic weight when `logits` are the teacher's."""
    return logits.softmax(1).gather(1, y[:, None])[:, 0]


def distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), (B,), of (B, C) logits (Hinton et al. 2015).

    0 exactly where the two agree; T^2 keeps the gradient's size from depending on the temperature T > 0.
    """
    log_teacher, log_student = (teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1)
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(1)


def class_means(features: Tensor, y: Tensor, classes: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean feature of each class (C, d), zero for a class without samples, and the number of samples in it (C,).

    features: (n, d); y: (n,) in [0, classes); valid: (n,) 1 for a sample, 0 for padding (None: all samples).
    """
    one_hot = F.one_hot(y, classes).to(features.dtype)  # (n, C)
    if valid is not None:
        one_hot = one_hot * valid[:, None]
    counts = one_hot.sum(0)
    return one_hot.T @ features / counts.clamp(min=1)[:, None], counts


def centre_loss(features: Tensor, y: Tensor, centres: Tensor) -> Tensor:
    """||f(x) - centre_y||^2 / d, (B,): pulls features (B, d) to their class's centre of (C, d) (Wen et al. 2016)."""
    return (features - centres[y]).square().mean(1)
