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
    """softmax(logits)_y, (B,): FedeCouple's dynamic weight when `logits` are the teacher's.

    Examples
    --------
    >>> import torch
    >>> teacher = torch.tensor([[8.0, 1.0, 1.0], [8.0, 1.0, 1.0]]).log()  # the same answer twice ...
    >>> true_class_probability(teacher, torch.tensor([0, 1]))  # ... right on the first image, wrong on the second
    tensor([0.8000, 0.1000])
    """
    probabilities = logits.softmax(1)  # (B, C)
    return probabilities.gather(1, y[:, None])[:, 0]


def distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), (B,), of (B, C) logits (Hinton et al. 2015).

    0 exactly where the two agree; T^2 keeps the gradient's size from depending on the temperature T > 0.

    Examples
    --------
    >>> import torch
    >>> teacher = torch.tensor([[0.5, 0.25, 0.25]]).log()
    >>> student = torch.tensor([[0.25, 0.25, 0.5]]).log()
    >>> distillation(student, teacher)  # ln(2) / 4
    tensor([0.1733])
    """
    log_teacher = (teacher / temperature).log_softmax(1)
    log_student = (student / temperature).log_softmax(1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(1)
    return temperature**2 * divergence


def class_means(
    features: Tensor,
    y: Tensor,
    classes: int,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean feature of each class (C, d), zero for a class without samples, and the number of samples in it (C,).

    features: (n, d); y: (n,) in [0, classes); valid: (n,) 1 for a sample, 0 for padding (None: all samples). With a
    client's own images these are FedeCouple's anchors.

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([[1.0, 0.0], [3.0, 2.0], [0.0, 4.0]])
    >>> means, counts = class_means(z, torch.tensor([0, 0, 2]), classes=3)
    >>> means.tolist(), counts.tolist()
    ([[2.0, 1.0], [0.0, 0.0], [0.0, 4.0]], [2.0, 0.0, 1.0])
    """
    one_hot = F.one_hot(y, classes).to(features.dtype)  # (n, C)
    if valid is not None:
        one_hot = one_hot * valid[:, None]
    counts = one_hot.sum(0)  # (C,)
    sums = one_hot.T @ features  # (C, d)
    return sums / counts.clamp(min=1)[:, None], counts


def centre_loss(features: Tensor, y: Tensor, centres: Tensor) -> Tensor:
    """||f(x) - centre_y||^2 / d, (B,): pulls features (B, d) to their class's centre of (C, d) (Wen et al. 2016)."""
    return (features - centres[y]).square().mean(1)
