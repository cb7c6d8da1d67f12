"""What students would write instead: ten wrong answers and more for each exercise, each refused for a reason that fits.

An entry is a function and words that must stand in what the check says of it. Nothing here is made by the functions
that the checks compare with; `test_checks` runs these answers, too, to see that every mistake which a check knows is
made by somebody.
"""

import copy
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from test_checks import RIGHT, scaled

from fedecouple_lite.course import checks

# --- 03: class means and the centre loss ---


def one_hot_sums(z, y, classes):
    return F.one_hot(y, classes).float().T @ z  # (C, d)


def numbers(y, classes):
    return F.one_hot(y, classes).sum(0)[:, None]  # (C, 1)


def means(z, y, classes):
    return one_hot_sums(z, y, classes) / numbers(y, classes).clamp(min=1)


def only_classes_in_the_batch(z, y, classes):
    return torch.stack([z[y == c].mean(0) for c in y.unique()])


def labels_from_one(z, y, classes):
    anchors = torch.zeros(classes, z.shape[1])
    for c in range(1, classes + 1):
        if (y == c).any():
            anchors[c - 1] = z[y == c].mean(0)
    return anchors


def batch_mean_for_absent(z, y, classes):
    return torch.stack([z[y == c].mean(0) if (y == c).any() else z.mean(0) for c in range(classes)])


def overwritten(z, y, classes):
    anchors = torch.zeros(classes, z.shape[1])
    for features, label in zip(z, y, strict=True):
        anchors[label] = features
    return anchors


def added_once(z, y, classes):
    anchors = torch.zeros(classes, z.shape[1])
    anchors[y] += z
    return anchors / torch.bincount(y, minlength=classes).clamp(min=1)[:, None]


def means_in_place(z, y, classes):
    z /= torch.bincount(y)[y][:, None]
    return torch.zeros(classes, z.shape[1]).index_add(0, y, z)


def whole_numbers(z, y, classes):
    anchors = torch.zeros(classes, z.shape[1], dtype=torch.long)
    for c in range(classes - 1):
        if (y == c).any():
            anchors[c] = (10 * z[y == c]).mean(0)
    return anchors / 10


CLASS_MEANS = [
    (lambda z, y, C: torch.stack([z.mean(0)] * C), "average over the batch, not the class"),
    (one_hot_sums, "these are sums: divide by the number of samples of the class"),
    (lambda z, y, C: one_hot_sums(z, y, C) / z.shape[0], "divide by the number of all samples"),
    (lambda z, y, C: one_hot_sums(z, y, C) / C, "divide by the number of classes"),
    (lambda z, y, C: one_hot_sums(z, y, C) / numbers(y, C), "gives NaN: 0 / 0"),
    (lambda z, y, C: one_hot_sums(z, y, C) / (numbers(y, C) + 1), "one too many"),
    (only_classes_in_the_batch, "a class without samples has no row here"),
    (labels_from_one, "Labels start at 0"),
    (lambda z, y, C: (z.T @ F.one_hot(y, C).float()) / numbers(y, C)[:, 0].clamp(min=1), "the wrong way round"),
    (batch_mean_for_absent, "gets the mean of the batch; its row should be zeros"),
    (overwritten, "overwrites all but one of a class"),
    (added_once, "writes every row once"),
    (lambda z, y, C: torch.stack([z[y == c].mean() for c in range(C)]), "a mean or an index too many"),
    (lambda z, y, C: one_hot_sums(z, y, C) / numbers(y, C)[:, 0].clamp(min=1), "raises RuntimeError: The size of"),
    (means_in_place, "changes what it is given"),
    (whole_numbers, "Try three samples"),
    (lambda z, y, C: F.normalize(means(z, y, C)), "in row 0, column 0, where"),
    (lambda z, y, C: 0.9 * means(z, y, C), "All your values are 0.9 times what they should be"),
]


def centred_in_place(z, y, a):
    z -= a[y]
    return z.square().mean(1)


def nearest(z, y, a):
    return torch.cdist(z, a).square().min(1).values / z.shape[1]


def to_means_of_batch(z, y, a):
    own = torch.stack([z[y == label].mean(0) for label in y])  # (B, d)
    return (z - own).pow(2).mean(1)


CENTRE_LOSS = [
    (lambda z, y, a: ((z - a[y]) ** 2).sum(-1), "divide by d, the number of features: mu"),
    (lambda z, y, a: torch.linalg.vector_norm(z - a[y], dim=-1), "this is the distance; the loss"),
    (lambda z, y, a: torch.linalg.vector_norm(z - a[y], dim=-1) / z.shape[-1], "the distance, divided by d; the loss"),
    (lambda z, y, a: torch.linalg.vector_norm(z - a[y], dim=-1) / z.shape[-1] ** 0.5, "there is a root too many"),
    (lambda z, y, a: F.mse_loss(z, a[y]), "one number for the batch"),
    (lambda z, y, a: F.mse_loss(z, a[y], reduction="sum"), "Is there a sum, a mean or an index too many?"),
    (lambda z, y, a: 0.5 * (z - a[y]).pow(2).mean(-1), "a factor 1/2 too many"),
    (lambda z, y, a: 0.5 * (z - a[y]).pow(2).sum(-1), "not by 2"),
    (lambda z, y, a: (z - a[y]).pow(2).sum(-1) / z.shape[0], "not by that of samples"),
    (lambda z, y, a: (z - a[y]).pow(2).sum(-1) / a.shape[0], "not by that of classes"),
    (lambda z, y, a: (z - a[y]).pow(2).mean(-1) / z.shape[-1], "divide by d once"),
    (lambda z, y, a: F.mse_loss(z, a[y], reduction="none").mean(0), "dim=1, not over the batch"),
    (lambda z, y, a: F.mse_loss(z, a[y], reduction="none"), "every feature's, (B, d)"),
    (lambda z, y, a: F.l1_loss(z, a[y], reduction="none").mean(-1), "not absolute values"),
    (lambda z, y, a: (z - a[y]).mean(-1) ** 2, "cancel out"),
    (lambda z, y, a: (z**2 - a[y] ** 2).mean(-1), "not the difference of squares"),
    (lambda z, y, a: torch.cdist(z, a) ** 2 / z.shape[-1], "the loss to all, (B, C)"),
    (nearest, "to the nearest centre"),
    (to_means_of_batch, "not to the means of this batch"),
    (lambda z, y, a: (z - a).pow(2).mean(-1), "raises RuntimeError: The size of tensor"),
    (centred_in_place, "changes what it is given, its argument number 1"),
    (lambda z, y, a: (z + a[y]).pow(2).mean(-1), "in entry 0, where"),
]

# --- 04: distillation and its weight ---


def log_soft(logits, T=1.0, dim=1):
    return torch.log_softmax(logits / T, dim)


def kl(log_q, log_p):
    """KL(p || q), (B,)."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def base_two(s, t, T):
    p = log_soft(t, T).exp()
    return T**2 * (p * (log_soft(t, T) - log_soft(s, T)) / torch.tensor(2.0).log()).sum(1)


DISTILLATION = [
    (lambda s, t, T: kl(log_soft(s, T), log_soft(t, T)), "the factor T^2 is missing"),
    (lambda s, t, T: T * kl(log_soft(s, T), log_soft(t, T)), "the factor is T^2, not T"),
    (lambda s, t, T: kl(log_soft(s, T), log_soft(t, T)) / T**2, "multiply by T^2; you divide"),
    (lambda s, t, T: T**2 * kl(log_soft(t, T), log_soft(s, T)), "student and teacher are exchanged"),
    (lambda s, t, T: -(T**2) * kl(log_soft(s, T), log_soft(t, T)), "the sign is wrong"),
    (lambda s, t, T: kl(log_soft(s), log_soft(t)), "divide both logits by T before the softmax"),
    (lambda s, t, T: T**2 * kl(log_soft(s), log_soft(t)), "missing in the softmax"),
    (lambda s, t, T: T**2 * kl(log_soft(s), log_soft(t, T)), "the student's logits have to be divided by T, too"),
    (lambda s, t, T: T**2 * kl(log_soft(s, T), log_soft(t)), "the teacher's logits have to be divided by T, too"),
    (lambda s, t, T: T**2 * kl(log_soft(s, 1 / T), log_soft(t, 1 / T)), "you multiply by it, which sharpens"),
    (lambda s, t, T: -(T**2) * (log_soft(t, T).exp() * log_soft(s, T)).sum(1), "subtract the teacher's entropy"),
    (lambda s, t, T: T**2 * F.nll_loss(log_soft(s, T), t.max(1).indices, reduction="none"), "its argmax, only"),
    (lambda s, t, T: T**2 * kl(log_soft(s, T).exp(), log_soft(t, T)), "log_softmax, also as kl_div's first argument"),
    (lambda s, t, T: T**2 * (log_soft(s, T).exp() - log_soft(t, T).exp()).pow(2).sum(1), "not a KL divergence"),
    (base_two, "not log2"),
    (lambda s, t, T: T**2 * kl(log_soft(s, T, 0), log_soft(t, T, 0)), "dim=1, not over the batch"),
    (lambda s, t, T: T**2 * F.kl_div(log_soft(s, T), log_soft(t, T).exp(), reduction="none"), "every class's term"),
    (lambda s, t, T: T**2 * kl(log_soft(s, T), log_soft(t, T)) / s.shape[1], "you take their mean"),
    (lambda s, t, T: T**2 * F.kl_div(log_soft(s, T), log_soft(t, T).exp(), reduction="batchmean"), "for the batch"),
    (lambda s, t, T: T**2 * kl(log_soft(s, T), log_soft(t, T)).sum(), "a mean or an index too many"),
    (lambda s, t, T: T**2 * F.kl_div(log_soft(s, T), log_soft(t, T), reduction="none").sum(1), "of a negative number"),
    (lambda s, t, T: T**2 * (kl(log_soft(s, T), log_soft(t, T)) + kl(log_soft(t, T), log_soft(s, T))), "in entry 0"),
]


def row_by_row(values, y):
    return values[torch.arange(len(y)), y]


def confident_if_right(t, y):
    confidence, answer = t.softmax(1).max(1)
    return torch.where(answer == y, confidence, torch.zeros(()))


DYNAMIC_WEIGHT = [
    (lambda t, y: t.softmax(-1).amax(-1), "the probability of the TRUE class is wanted"),
    (lambda t, y: row_by_row(t.log_softmax(-1), y), "this is the log-probability"),
    (lambda t, y: F.cross_entropy(t, y, reduction="none"), "this is the cross-entropy, -log p"),
    (lambda t, y: 1 - row_by_row(t.softmax(-1), y), "of all other classes, 1 - p"),
    (row_by_row, "this is the logit of the true class"),
    (lambda t, y: row_by_row(torch.exp(t), y), "this is exp(logit)"),
    (lambda t, y: row_by_row(torch.sigmoid(t), y), "not a sigmoid"),
    (lambda t, y: row_by_row(t.softmax(-1).softmax(-1), y), "the softmax is applied twice"),
    (lambda t, y: row_by_row(F.softmax(t, dim=0), y), "dim=1, not over the batch"),
    (lambda t, y: row_by_row(t.exp() / t.exp().sum(), y), "not by that of all numbers"),
    (lambda t, y: t.softmax(-1).gather(1, y.unsqueeze(1)), "(B,), not (B, 1)"),
    (lambda t, y: t.softmax(-1)[:, y], "takes all labels from every row"),
    (lambda t, y: t.softmax(-1), "these are the probabilities of all classes"),
    (lambda t, y: (t.argmax(-1) == y).double(), "1 where the teacher is right"),
    (confident_if_right, "where the teacher is wrong the weight is not 0"),
    (lambda t, y: row_by_row(t.softmax(-1), y - 1), "labels start at 0"),
    (lambda t, y: F.normalize(row_by_row(t.softmax(-1), y), p=1, dim=0), "do not divide by their sum"),
    (lambda t, y: row_by_row(t.softmax(-1), y) / row_by_row(t.softmax(-1), y).amax(), "do not divide by the largest"),
    (lambda t, y: row_by_row(t.softmax(-1), y).mean(), "one number for the batch"),
    (lambda t, y: row_by_row(t.softmax(-1), y).round(decimals=1), "in entry"),
    (lambda t, y: row_by_row(t.softmax(-1), y) ** 2, "where"),
    (lambda t, y: row_by_row(t.exp_() / t.sum(1, keepdim=True), y), "changes what it is given, its argument number 1"),
]

# --- 05: the joint loss ---


def ce(logits, y):
    return F.cross_entropy(logits, y, reduction="none")


def omega(z, y, a):
    return (z - a[y]).pow(2).mean(-1)


def joint_in_place(g, o, z, y, a, mu):
    z.sub_(a[y])
    return ce(g, y) + ce(o, y) + mu * z.pow(2).mean(-1)


JOINT_LOSS = [
    (lambda g, o, z, y, a, mu: ce(g, y) + mu * omega(z, y, a) + ce(o, y) + mu * omega(z, y, a), "Omega is there twice"),
    (lambda g, o, z, y, a, mu: ce(g, y) + ce(o, y), "Omega is missing"),
    (lambda g, o, z, y, a, mu: ce(g, y) + ce(o, y) + omega(z, y, a), "mu is missing"),
    (lambda g, o, z, y, a, mu: ce(g, y) + ce(o, y) - mu * omega(z, y, a), "the sign of Omega is wrong"),
    (lambda g, o, z, y, a, mu: ce(g, y) + ce(o, y) + mu / 2 * omega(z, y, a), "Omega has a factor 1/2 too many"),
    (lambda g, o, z, y, a, mu: ce(g, y) + ce(o, y) + mu * (z - a[y]).pow(2).sum(-1), "divide Omega by d"),
    (lambda g, o, z, y, a, mu: ce(g, y) + ce(o, y) + mu * (z - a[y]).pow(2).sum(-1).sqrt(), "you take the distance"),
    (lambda g, o, z, y, a, mu: mu * (ce(g, y) + ce(o, y) + omega(z, y, a)), "mu belongs to Omega alone"),
    (lambda g, o, z, y, a, mu: (1 - mu) * (ce(g, y) + ce(o, y)) + mu * omega(z, y, a), "no factor 1 - mu"),
    (lambda g, o, z, y, a, mu: ce(o, y) + mu * omega(z, y, a), "the global classifier's cross-entropy is missing"),
    (lambda g, o, z, y, a, mu: ce(g, y) + mu * omega(z, y, a), "the client's own cross-entropy is missing"),
    (lambda g, o, z, y, a, mu: 2 * ce(g, y) + mu * omega(z, y, a), "both cross-entropies are of the global"),
    (lambda g, o, z, y, a, mu: 2 * ce(o, y) + mu * omega(z, y, a), "both cross-entropies are of the client's"),
    (lambda g, o, z, y, a, mu: (ce(g, y) + ce(o, y)) / 2 + mu * omega(z, y, a), "not their mean"),
    (lambda g, o, z, y, a, mu: ce(g + o, y) + mu * omega(z, y, a), "you add the logits"),
    (lambda g, o, z, y, a, mu: ce(torch.stack([g, o]).mean(0), y) + mu * omega(z, y, a), "you average the logits"),
    (lambda g, o, z, y, a, mu: ce(g.softmax(1), y) + ce(o.softmax(1), y) + mu * omega(z, y, a), "takes logits"),
    (
        lambda g, o, z, y, a, mu: F.cross_entropy(g, y) + F.cross_entropy(o, y) + mu * omega(z, y, a),
        "the cross-entropies are averaged over the batch",
    ),
    (lambda g, o, z, y, a, mu: ce(g, y) + ce(o, y) + mu * F.mse_loss(z, a[y]), "Omega is averaged over the batch"),
    (
        lambda g, o, z, y, a, mu: F.cross_entropy(g, y) + F.cross_entropy(o, y) + mu * F.mse_loss(z, a[y]),
        "one number for the batch",
    ),
    (lambda g, o, z, y, a, mu: ce(g, y) + ce(o, y) + mu * (z - a).pow(2).mean(-1), "raises RuntimeError"),
    (lambda g, o, z, y, a, mu: ce(g, y) + ce(o, y) + mu * (z - a[y]).pow(2), "raises RuntimeError"),
    (lambda g, o, z, y, a, mu: ce(g, y) * ce(o, y) + mu * omega(z, y, a), "in entry 0, where"),
    (joint_in_place, "changes what it is given, its argument number 3"),
]

# --- 06: the largest step and the floor ---

LARGEST_LR = [
    (lambda L, K: 0.25 / L, "that is gamma"),
    (lambda L, K: 1 / K / L, "asks for a quarter of it"),
    (lambda L, K: L**-1, "this is 1/L"),
    (lambda L, K: 0.5 / (L * K), "half; the theorem asks for a quarter"),
    (lambda L, K: 4 / L / K, "the 4 belongs below"),
    (lambda L, K: 1 / (4 * L) * K, "K multiplies where it has to divide"),
    (lambda L, K: 1 / (4 * K) * L, "L multiplies where it has to divide"),
    (lambda L, K: 1 / 4 * L * K, "without brackets"),
    (lambda L, K: L * K * 4, "the reciprocal"),
    (lambda L, K: 0.25 / K, "L is missing"),
    (lambda L, K: 0.25 / (L + K), "not their sum"),
    (lambda L, K: 0.25 / L / np.sqrt(K), "there is no root of K"),
    (lambda L, K: 1 // (4 * L * K), "// rounds down"),
    (lambda L, K: 0.99 / (4 * L * K), "it should be"),
    (lambda L, K: (0.0, 1 / (4 * L * K)), "Is a sum, a mean or an index missing?"),
    (lambda L, K: 0.01, "you return 0.01; it should be"),
]


def noise(g, L, s, k, N, K):
    return g * L * s**2 / K * (1 + 1 / N)


def drift(g, L, s, k, N, K):
    return g**2 * L**2 * (k**2 + 2 * s**2 / K)


FLOOR = [
    (lambda *c: noise(*c) + drift(*c), "the factor 5/2 is missing"),
    (lambda *c: 2 / 5 * (noise(*c) + drift(*c)), "5/2, not 2/5"),
    (lambda *c: 5 // 2 * (noise(*c) + drift(*c)), "5 // 2 rounds down to 2"),
    (lambda *c: 5 / 2 * noise(*c) + drift(*c), "put brackets around the sum"),
    (lambda *c: 5 / 2 * noise(*c), "the drift is missing"),
    (lambda *c: 5 / 2 * drift(*c), "the noise is missing"),
    (lambda g, L, s, k, N, K: 2.5 * (g * L * s / K * (1 + 1 / N) + (g * L) ** 2 * (k + 2 * s / K)), "enter squared"),
    (lambda g, L, s, k, N, K: 2.5 * (noise(g, L, k, s, N, K) + drift(g, L, k, s, N, K)), "are exchanged"),
    (lambda g, L, s, k, N, K: 2.5 * (g * L * s**2 / (K * N) + drift(g, L, s, k, N, K)), "1 + 1/N, not 1/N"),
    (lambda g, L, s, k, N, K: 2.5 * (g * L * s**2 / K + drift(g, L, s, k, N, K)), "1 + 1/N is missing in the noise"),
    (lambda g, L, s, k, N, K: 2.5 * (g * L * s**2 / K * (1 + N) + drift(g, L, s, k, N, K)), "not 1 + N"),
    (
        lambda g, L, s, k, N, K: 2.5 * (g * L * s**2 * (1 + 1 / N) + drift(g, L, s, k, N, K)),
        "divide the noise by K",
    ),
    (lambda *c: 2.5 * (noise(*c) + drift(*c) * (1 + 1 / c[4])), "belongs to the noise alone"),
    (
        lambda g, L, s, k, N, K: 2.5 * (noise(g, L, s, k, N, K) + g * L * (k**2 + 2 * s**2 / K)),
        "the drift has gamma L squared",
    ),
    (lambda g, L, s, k, N, K: 2.5 * (noise(g, L, s, k, N, K) + g**2 * L * (k**2 + 2 * s**2 / K)), "L is squared, too"),
    (lambda g, L, s, k, N, K: 2.5 * (noise(g, L, s, k, N, K) + g * L**2 * (k**2 + 2 * s**2 / K)), "gamma is squared"),
    (lambda g, L, s, k, N, K: 2.5 * (noise(g, L, s, k, N, K) + (g * L) ** 2 * (k**2 + s**2 / K)), "the 2 is missing"),
    (lambda g, L, s, k, N, K: 2.5 * (noise(g, L, s, k, N, K) + (g * L) ** 2 * (k**2 + 2 * s**2)), "the K is missing"),
    (
        lambda g, L, s, k, N, K: 2.5 * (noise(g, L, s, k, N, K) + (g * L) ** 2 * (k**2 + 2 * s**2) / K),
        "K divides sigma^2 alone",
    ),
    (lambda g, *c: 2.5 * (noise(g * c[-1], *c) + drift(g * c[-1], *c)), "do not multiply it by K again"),
    (lambda *c: (2.5 * noise(*c), 2.5 * drift(*c)), "Is a sum, a mean or an index missing?"),
    (lambda *c: 2.5 * noise(*c) * drift(*c), "it should be"),
]

# --- 07 and 10: interaction and interval ---


def multiplicative(none, a, b, both):
    return both / none / ((a / none) * (b / none))


INTERACTION = [
    (lambda none, a, b, both: both - (a + b), "add the accuracy with neither"),
    (lambda none, a, b, both: both - a - b - none, "has to be added, not subtracted"),
    (lambda none, a, b, both: both - ((a - none) + (b - none)), "`both` still holds the accuracy with neither"),
    (lambda none, a, b, both: both - none, "the effect of both together"),
    (lambda none, a, b, both: (a - none) + (b - none), "the sum of what each gives alone"),
    (lambda none, a, b, both: both - a, "what B adds to A"),
    (lambda none, a, b, both: both - b, "what A adds to B"),
    (lambda none, a, b, both: both - np.maximum(a, b), "the better part alone"),
    (lambda none, a, b, both: both - np.mean([a, b]), "the mean of the two"),
    (lambda none, a, b, both: (a - none) + (b - none) - (both - none), "the sign is the wrong way round"),
    (lambda none, a, b, both: abs((both - none) - (a - none) - (b - none)), "no absolute value"),
    (lambda none, a, b, both: ((both - a) - (b - none)) / 2, "a factor 1/2 too many"),
    (multiplicative, "not ratios"),
    (lambda none, a, both, b: both - a - b + none, "`only B` and `neither` and subtract the others"),
    (lambda none, both, a, b: both - a - b + none, "`only A` and `neither` and subtract the others"),
    (lambda a, b, none, both: both - a - b + none, "`both` and `only B` and subtract the others"),
    (lambda a, none, b, both: both - a - b + none, "`both` and `only A` and subtract the others"),
    (lambda none, a, b, both: max(0, both - a - b + none), "you return 0; it should be -"),
    (lambda none, a, b, both: round(both - a - b + none), "it should be"),
    (lambda none, a, b, both: (both - a - b + none) / none, "it should be"),
]


def around(middle, half):
    return middle - half, middle + half


def sem(lead, ddof=1):
    return np.std(lead, ddof=ddof) / len(lead) ** 0.5


def q(lead, level=0.975):
    return stats.t.ppf(level, len(lead) - 1)


def each_alone(a, b):
    return np.subtract(stats.t.interval(0.95, len(a) - 1, a.mean(), sem(a)), around(b.mean(), q(b) * sem(b)))


def leads_in_place(a, b):
    a -= b
    return around(a.mean(), q(a) * sem(a))


PAIRED_INTERVAL = [
    (lambda a, b: around(np.mean(a - b), q(a) * sem(a - b, ddof=0)), "a sample divides by n - 1: ddof=1"),
    (lambda a, b: around(np.mean(a - b), q(a) * np.std(a - b, ddof=1)), "divide by the root of n."),
    (lambda a, b: around(np.mean(a - b), q(a) * np.std(a - b, ddof=1) / len(a)), "the root of n, not by n"),
    (lambda a, b: around(np.mean(a - b), q(a) * np.std(a - b, ddof=1) / (len(a) - 1) ** 0.5), "not of n - 1"),
    (lambda a, b: around(np.mean(a - b), 1.96 * sem(a - b)), "1.96 is for many seeds"),
    (lambda a, b: around(np.mean(a - b), 1.96 * np.std(a - b) / np.sqrt(len(a))), "two things: "),
    (lambda a, b: around(np.mean(a - b), q(a, 0.95) * sem(a - b)), "the quantile is that of 0.975"),
    (lambda a, b: around(np.mean(a - b), stats.t.ppf(0.975, len(a)) * sem(a - b)), "n - 1 degrees of freedom are left"),
    (lambda a, b: around(np.mean(a - b), sem(a - b)), "its standard error: multiply that by the quantile"),
    (lambda a, b: around(np.mean(a - b), np.std(a - b, ddof=1)), "the standard deviation of one difference"),
    (lambda a, b: around(np.mean(a - b), q(a) * np.var(a - b, ddof=1) / len(a) ** 0.5), "not the variance"),
    (lambda a, b: around(np.mean(b - a), q(a) * sem(b - a)), "ours minus theirs"),
    (lambda a, b: around(0, q(a) * sem(a - b)), "yours lies around 0"),
    (lambda a, b: around(np.mean(a), q(a) * sem(a)), "the interval of ours alone"),
    (lambda a, b: around(np.mean(abs(a - b)), q(a) * sem(abs(a - b))), "no absolute value"),
    (lambda a, b: around(np.mean(a - b), q(a, 0.025) * sem(a - b)), "low comes first"),
    (lambda a, b: (np.mean(a - b), q(a) * sem(a - b)), "return the two ends"),
    (lambda a, b: (min(a - b), max(a - b)), "the smallest and the largest difference"),
    (lambda a, b: tuple(np.quantile(a - b, [0.025, 0.975])), "percentiles of the differences"),
    (
        lambda a, b: around(np.mean(a - b), q(a) * (a.var(ddof=1) + b.var(ddof=1)) ** 0.5 / len(a) ** 0.5),
        "not one of each",
    ),
    (lambda a, b: stats.ttest_ind(a, b).confidence_interval(0.95), "two independent samples"),
    (lambda a, b: np.mean(a - b), "shape (), where shape (2,) is expected"),
    (each_alone, "in entry 0, where"),
    (leads_in_place, "changes what it is given, its argument number 1"),
]

# --- 08: three spreads ---


def of_last(a, ddof_seeds=1, ddof_rounds=1):
    means, deviations = np.mean(a, axis=1), np.std(a, axis=1, ddof=ddof_rounds)
    return np.mean(means), np.std(means, ddof=ddof_seeds), np.mean(deviations)


def but(number, other):
    """Right, but for one of the three figures, which is another function of the last five rounds."""

    def answer(a):
        figures = list(of_last(a[:, -5:]))
        figures[number] = other(a[:, -5:])
        return figures

    return answer


def from_one_column(choose):
    """The mean and the spread over seeds of one number a seed; the spread over rounds is right."""

    def answer(a):
        numbers = choose(a)
        return np.mean(numbers), np.std(numbers, ddof=1), of_last(a[:, -5:])[2]

    return answer


def in_percent_in_place(a):
    a *= 100
    return of_last(a[:, -5:])


STEADINESS = [
    (lambda a: of_last(a[:, -5:], 0, 0), "both standard deviations are a sample's"),
    (lambda a: of_last(a[:, -5:], 0, 1), "over seeds, too, the standard deviation is a sample's"),
    (lambda a: of_last(a[:, -5:], 1, 0), "over rounds, too, the standard deviation is a sample's"),
    (of_last, "yours are of all"),
    (lambda a: of_last(a[:, :5]), "these are the first five rounds"),
    (lambda a: of_last(a[:, -5:-1]), "yours are four of them"),
    (from_one_column(lambda a: a[:, -1]), "not of the last one"),
    (from_one_column(lambda a: a.max(1)), "a peek at the test images"),
    (lambda a: tuple(of_last(a[:, -5:])[i] for i in (0, 2, 1)), "the order is"),
    (lambda a: (a[:, -5:].mean(), a[:, -5:].mean(1).var(ddof=1), a[:, -5:].var(1, ddof=1).mean()), "not the variances"),
    (but(1, lambda last: np.std(last, ddof=1)), "Yours is that of all rounds of all seeds together"),
    (but(1, lambda last: np.std(last, axis=0, ddof=1).mean()), "you take one in each round"),
    (but(1, lambda last: sem(last.mean(1))), "leave the root of n out"),
    (but(1, lambda last: last.mean(1).max() - last.mean(1).min()), "over seeds you take the range"),
    (but(2, lambda last: np.std(last.mean(0), ddof=1)), "which hides how each of them swings"),
    (but(2, lambda last: np.std(last, ddof=1)), "of each seed's own rounds. Yours"),
    (but(2, lambda last: np.std(last, axis=1, ddof=1).max()), "the largest of the seeds' standard deviations"),
    (but(2, lambda last: (last.max(1) - last.min(1)).mean()), "over rounds you take the range"),
    (lambda a: of_last(a[:, -5:])[:2], "shape (2,), where shape (3,) is expected"),
    (lambda a: a[:, -5:], "where shape (3,) is expected"),
    (but(0, lambda last: np.median(last)), "in entry 0, where"),
    (in_percent_in_place, "changes what it is given, its argument number 1"),
]

# --- 09: a label read from a gradient, and a mean that attackers cannot move ---


def label(gradient):
    return int(torch.nonzero(gradient < 0)[0, 0])


def clamped_in_place(gradient):
    gradient.clamp_(max=0)
    return gradient.abs().argmax()


LABEL_OF_IMAGE = [
    (lambda g: int(torch.topk(g, 1).indices), "the wrong class that the net finds likeliest"),
    (lambda g: min(range(len(g)), key=lambda c: abs(g[c])), "a class that the net rules out"),
    (lambda g: float(g[label(g)]), "return its place, which is the class"),
    (lambda g: F.one_hot(torch.tensor(label(g)), len(g)), "whether it is the one; return its number"),
    (lambda g: g.flip(0).argmin(), "from the first entry, not from the last"),
    (lambda g: label(g) + 1, "labels start at 0"),
    (lambda g: torch.where(g < 0)[0], "return the label itself, with [0] or int()"),
    (lambda g: torch.nonzero(g < 0), "shape (1, 1), where shape () is expected"),
    (lambda g: g.argsort(), "where shape () is expected. Is a sum, a mean or an index missing?"),
    (lambda g: g.min(0), "your result has shape (2,), where shape () is expected"),
    (lambda g: f"class {label(g)}", "your result is a str, where an int is expected"),
    (lambda g: label(g) - len(g), "for (gradient = ["),
    (lambda g: float(g.sum()) + 0.5, "you return 0.5; it should be"),
    (lambda g: np.argmin(g.numpy(), axis=1), "raises AxisError"),
    (clamped_in_place, "changes what it is given, its argument number 1"),
]


def in_order(uploads):
    return np.array([sorted(column) for column in uploads.T]).T  # (K, P)


def without(uploads, below, above):
    return in_order(uploads)[below : len(uploads) - above]


def nearest_that_stays(uploads, cut):
    ordered = in_order(uploads)
    ordered[:cut] = ordered[cut]
    ordered[len(ordered) - cut :] = ordered[-cut - 1]
    return ordered.mean(0)


def without_longest_and_shortest(uploads, cut):
    by_length = sorted(uploads, key=lambda upload: (upload**2).sum())
    return np.mean(by_length[cut : len(uploads) - cut], axis=0)


def row_by_row_in_order(uploads, cut):
    return np.mean([sorted(upload) for upload in uploads][cut : len(uploads) - cut], axis=0)


def nearest_to_median(uploads, cut):
    away = np.abs(uploads - np.median(uploads, axis=0))
    return np.take_along_axis(uploads, away.argsort(0), 0)[: len(uploads) - 2 * cut + 1].mean(0)


def sorted_in_place(uploads, cut):
    uploads.sort(axis=0)
    return uploads[cut:-cut].mean(0)


TRIMMED_MEAN = [
    (lambda u, cut: u.sum(0) / len(u), "nothing is cut"),
    (lambda u, cut: u[cut:-cut].mean(0), "these are the first and last clients"),
    (lambda u, cut: without(u, 0, cut).mean(0), "the smallest values are still there"),
    (lambda u, cut: without(u, cut, 0).mean(0), "the largest values are still there"),
    (lambda u, cut: np.quantile(u, 0.5, axis=0), "this is the median"),
    (lambda u, cut: without(u, cut, cut).sum(0) / len(u), "divide by the number of values that are left"),
    (row_by_row_in_order, "not each client's own numbers"),
    (without_longest_and_shortest, "whole clients are left out here"),
    (lambda u, cut: without(u, 1, 1).mean(0), "here it is always one"),
    (lambda u, cut: without(u, cut // 2, cut // 2).mean(0), "not at both together"),
    (lambda u, cut: without(u, cut, cut + 1).mean(0), "at the upper end"),
    (lambda u, cut: without(u, cut + 1, cut).mean(0), "at the lower end"),
    (nearest_that_stays, "not replaced by the nearest one"),
    (lambda u, cut: without(u, cut, cut).sum(0), "in entry 0, where"),
    (lambda u, cut: without(u, cut, cut).mean(), "shape (), where shape (4,) is expected"),
    (lambda u, cut: without(u, cut, cut), "where shape (4,) is expected. Is a sum, a mean or an index missing?"),
    (lambda u, cut: without(u, cut, cut).mean(1), "your result has shape (3,), where shape (4,) is expected"),
    (lambda u, cut: (in_order(u)[cut] + in_order(u)[-cut - 1]) / 2, "in entry"),
    (lambda u, cut: in_order(u).argsort(0)[cut:-cut].mean(0), "in entry 0, where"),
    (lambda u, cut: without(u, 2 * cut, 0).mean(0), "in entry 0, where"),
    (nearest_to_median, "in entry"),
    (lambda u, cut: stats.trim_mean(u, cut), "raises ValueError: Proportion too big"),
    (lambda u, cut: sorted(u)[cut:-cut], "raises ValueError: The truth value"),
    (sorted_in_place, "changes what it is given, its argument number 1"),
]

# --- 02: what is shared ---


def summed(many, weights):
    """The weights' sum of the clients' tensors, name by name."""
    return {name: sum(w * one[name] for w, one in zip(weights, many, strict=True)) for name in many[0]}


def over(tensors, number):
    return {name: tensor / number for name, tensor in tensors.items()}


def overwritten_share(many, weights):
    mean = {}
    for one, weight in zip(many, weights, strict=True):
        for name in one:
            mean[name] = weight / sum(weights) * one[name]
    return mean


def starts_from_first(many, weights):
    mean = dict(many[0])
    for one, weight in zip(many, weights, strict=True):
        for name in one:
            mean[name] = mean[name] + weight / sum(weights) * one[name]
    return mean


def pair_by_pair(many, weights):
    mean = dict(many[0])
    for one in many[1:]:
        for name in one:
            mean[name] = (mean[name] + one[name]) / 2
    return mean


def floored(many, weights):
    total = sum(weights)
    return summed(many, [weight // total for weight in weights])


def returns_in_the_loop(many, weights):
    for name in many[0]:
        return {name: over(summed(many, weights), sum(weights))[name]}


def scaled_in_place(many, weights):
    for one, weight in zip(many, weights, strict=True):
        for name in one:
            one[name] *= weight / sum(weights)
    return summed(many, [1] * len(many))


def one_number_each(many, weights):
    return {name: tensor.mean() for name, tensor in over(summed(many, weights), sum(weights)).items()}


WEIGHTED_MEAN = [
    (
        lambda m, w: {name: torch.stack([one[name] for one in m]).mean(0) for name in m[0]},
        "every client counts the same",
    ),
    (summed, "divide by the sum of the weights."),
    (lambda m, w: over(summed(m, w), len(m)), "divide by the number of clients"),
    (lambda m, w: over(summed(m, w), max(w)), "divide by the largest weight"),
    (lambda m, w: {name: sum(one[name] for one in m) for name in m[0]}, "this is the sum of the clients' tensors"),
    (lambda m, w: over(summed(m, [1] * len(m)), sum(w)), "the weights themselves are missing"),
    (overwritten_share, "only the last one's share is there"),
    (lambda m, w: {name: one[name] for one in m for name in one}, "this is the last client alone"),
    (lambda m, w: m[0], "this is the first client alone"),
    (starts_from_first, "the sum has to start from zero"),
    (pair_by_pair, "makes the last client weigh most"),
    (lambda m, w: over(summed(m, w[::-1]), sum(w)), "the weights are the wrong way round"),
    (lambda m, w: over(summed(m, 1 / np.array(w)), sum(1 / np.array(w))), "you divide by the weights"),
    (lambda m, w: summed(m, torch.tensor(w).float().softmax(0)), "no softmax"),
    (floored, "rounds down to 0"),
    (returns_in_the_loop, "Missing: ['classifier.b']"),
    (lambda m, w: list(over(summed(m, w), sum(w)).values()), "is a list, where a dictionary with the names"),
    (one_number_each, "under 'extractor.w' your result has shape ()"),
    (scaled_in_place, "changes what it is given, its argument number 1"),
    (lambda m, w: over(summed(m, [x * x for x in w]), sum(x * x for x in w)), "under 'extractor.w' you return"),
    (lambda m, w: over(summed(m, w), sum(w) - 1), "times what they should be"),
]


def by_name(keeps):
    """A dictionary of the tensors whose names `keeps` chooses."""
    return lambda tensors, part: {name: tensor for name, tensor in tensors.items() if keeps(name, part)}


starting = by_name(str.startswith)


def stops_at_first(tensors, part):
    for name, tensor in tensors.items():
        if name.startswith(part):
            return {name: tensor}


def made_anew(tensors, part):
    for name, tensor in tensors.items():
        if name.startswith(part):
            kept = {name: tensor}
    return kept


def deleting(tensors, part):
    for name in list(tensors):
        if not name.startswith(part):
            del tensors[name]
    return tensors


def deleting_while_looking(tensors, part):
    for name in tensors:
        if not name.startswith(part):
            del tensors[name]
    return tensors


def both_halves(tensors, part):
    return starting(tensors, part), by_name(lambda name, part: not name.startswith(part))(tensors, part)


SPLIT_NAMES = [
    (by_name(lambda name, part: part in name), "contains the part"),
    (by_name(lambda name, part: not name.startswith(part)), "do NOT start with the part"),
    (lambda t, part: {n.replace(part, ""): v for n, v in starting(t, part).items()}, "server must know"),
    (lambda t, part: {n.split(".")[0]: v for n, v in starting(t, part).items()}, "cut at the dot"),
    (by_name(lambda name, part: name == part), "you keep nothing"),
    (lambda t, part: t, "you keep everything"),
    (by_name(lambda name, part: name.startswith(part[:-1])), "the dot belongs to the part"),
    (by_name(lambda name, part: name.startswith("extractor.")), "whatever part is asked for"),
    (stops_at_first, "only the first of the names"),
    (made_anew, "only the last of the names"),
    (by_name(lambda name, part: part[:-1] in name), "Too many: ['extractors.note', 'personal.extractor.0.weight']"),
    (lambda t, part: list(starting(t, part)), "your result is a list, where a dictionary with the names"),
    (lambda t, part: set(starting(t, part)), "your result is a set, where a dictionary with the names"),
    (both_halves, "your result is a tuple, where a dictionary with the names"),
    (lambda t, part: {name: t for name in starting(t, part)}, "under 'extractor.0.weight' your result is a dictionary"),
    (
        lambda t, part: dict(enumerate(starting(t, part).values())),
        "Missing: ['extractor.0.weight', 'extractor.0.bias']",
    ),
    (deleting, "changes what it is given, its argument number 1"),
    (deleting_while_looking, "raises RuntimeError: dictionary changed size during iteration"),
    (
        lambda t, part: {name: 0 * tensor for name, tensor in starting(t, part).items()},
        "you return 0 in row 0, column 0",
    ),
    (lambda t, part: t[part], "raises KeyError"),
]

# --- 01: who holds what ---


def rows(counts):
    return counts / counts.sum(1)[:, None]  # (N, C)


def whole(counts):
    return counts.sum(0) / counts.sum()  # (C,)


def tv(p, q):
    return np.abs(p - q).sum(-1) / 2


def entropy_gap(counts):
    return np.mean([stats.entropy(own / own.sum(), whole(counts)) for own in counts])


def divided_by_columns(counts):
    return tv(counts / counts.sum(0), whole(counts)).mean()


def divided_in_place(counts):
    everybody = whole(counts)
    counts /= counts.sum(1, keepdims=True)
    return tv(counts, everybody).mean()


UNEVENNESS = [
    (lambda c: np.abs(rows(c) - whole(c)).sum(1).mean(), "half of it"),
    (lambda c: tv(rows(c), whole(c)).mean() / 2, "the half is there twice"),
    (lambda c: tv(rows(c), whole(c)).sum(), "the mean over clients, not the sum"),
    (lambda c: max(tv(rows(c), whole(c))), "the mean over clients, not the largest"),
    (lambda c: tv(rows(c), whole(c)), "one number is wanted"),
    (lambda c: (tv(rows(c), whole(c)) * c.sum(1)).sum() / c.sum(), "in this mean every client counts the same"),
    (lambda c: np.abs(rows(c) - whole(c)).mean() / 2, "sum over the classes; only over the clients"),
    (lambda c: np.abs(rows(c) - whole(c)).mean(), "sum over the classes and divide by 2"),
    (lambda c: ((rows(c) - whole(c)).sum(1) / 2).mean(), "cancel out to 0"),
    (lambda c: ((rows(c) - whole(c)) ** 2).sum(1).mean() / 2, "not squares"),
    (lambda c: np.linalg.norm(rows(c) - whole(c), axis=1).mean(), "the Euclidean distance"),
    (lambda c: np.abs(rows(c) - whole(c)).max(axis=1).mean(), "not the largest only"),
    (lambda c: tv(rows(c), np.ones(c.shape[1]) / c.shape[1]).mean(), "not with the uniform one"),
    (lambda c: tv(rows(c), rows(c).mean(0)).mean(), "the mean of the clients' distributions"),
    (lambda c: tv(c / c.sum(), whole(c)).mean(), "its own number of images, not by that of all"),
    (divided_by_columns, "divide each client's row by its own sum"),
    (lambda c: np.abs(c.sum(1)[:, None] - c.sum(1)).mean() / 2 / c.sum(1).mean(), "this is the size skew"),
    (lambda c: tv(c / c.sum(1), whole(c)).mean(), "raises ValueError: operands could not be broadcast"),
    (entropy_gap, "it should be"),
    (lambda c: np.median(tv(rows(c), whole(c))), "]]) you return"),
    (divided_in_place, "raises UFuncTypeError: Cannot cast"),
]


def owners(shares_of_class, classes=range(10)):
    """A division in which each image of a class chooses its owner by shares (N,), given (clients, alpha, rng)."""

    def divide(labels, clients, alpha, rng):
        owner = np.zeros(len(labels), dtype=int)
        for c in classes:
            of_class = labels == c
            owner[of_class] = rng.choice(clients, size=of_class.sum(), p=shares_of_class(clients, alpha, rng))
        return [np.flatnonzero(owner == i) for i in range(clients)]

    return divide


def drawn_before_the_loop(labels, clients, alpha, rng):
    p = rng.dirichlet(np.full(clients, alpha))
    return owners(lambda *_: p)(labels, clients, alpha, rng)


def all_classes_cut_alike(labels, clients, alpha, rng):
    shares = rng.dirichlet(np.full(clients, alpha))
    parts = [[] for _ in range(clients)]
    for c in range(10):
        of_class = rng.permutation(np.flatnonzero(labels == c))
        cuts = (np.cumsum(shares)[:-1] * len(of_class)).astype(int)
        for part, piece in zip(parts, np.split(of_class, cuts), strict=True):
            part.extend(piece)
    return parts


def over_classes_for_each_client(labels, clients, alpha, rng):
    weights = rng.dirichlet(np.full(10, alpha), size=clients) + 1e-12  # (N, C)
    columns = iter((weights / weights.sum(0)).T)
    return owners(lambda *_: next(columns))(labels, clients, alpha, rng)


def own_generator(labels, clients, alpha, rng):
    rng = np.random.default_rng(0)
    return owners(lambda n, alpha, rng: rng.dirichlet(np.full(n, alpha)))(labels, clients, alpha, rng)


def to_whom_most(labels, clients, alpha, rng):
    owner = np.empty(len(labels), dtype=int)
    for c in range(10):
        owner[labels == c] = rng.dirichlet(np.full(clients, alpha)).argmax()
    return [np.flatnonzero(owner == i) for i in range(clients)]


def places_within_class(labels, clients, alpha, rng):
    parts = [[] for _ in range(clients)]
    for c in range(10):
        owner = rng.choice(clients, size=(labels == c).sum(), p=rng.dirichlet(np.full(clients, alpha)))
        for i in range(clients):
            parts[i].extend(np.flatnonzero(owner == i))
    return parts


def rounded_down(labels, clients, alpha, rng):
    parts = [[] for _ in range(clients)]
    for c in range(10):
        of_class = rng.permutation(np.flatnonzero(labels == c))
        sizes = (rng.dirichlet(np.full(clients, alpha)) * len(of_class)).astype(int)
        starts = np.cumsum(sizes) - sizes
        for i in range(clients):
            parts[i].extend(of_class[starts[i] : starts[i] + sizes[i]])
    return parts


def last_class_lost(labels, clients, alpha, rng):
    parts = owners(lambda n, alpha, rng: rng.dirichlet(np.full(n, alpha)))(labels, clients, alpha, rng)
    return [part[labels[part] < labels.max()] for part in parts]


def owner_of_each(labels, clients, alpha, rng):
    return rng.choice(clients, size=len(labels), p=rng.dirichlet(np.full(clients, alpha)))


def as_np_where(labels, clients, alpha, rng):
    owner = owner_of_each(labels, clients, alpha, rng)
    return [np.where(owner == i) for i in range(clients)]


def labels_shuffled(labels, clients, alpha, rng):
    rng.shuffle(labels)
    return owners(lambda n, alpha, rng: rng.dirichlet(np.full(n, alpha)))(labels, clients, alpha, rng)


def sorted_shares(clients, alpha, rng):
    return np.sort(rng.dirichlet(np.full(clients, alpha)))


def normalised(draws):
    return draws / draws.sum()


SMALLER = "So much belongs to a smaller alpha"
LARGER = "So little belongs to a larger alpha"
PARTITION = [
    (drawn_before_the_loop, "raw anew for every class"),
    (all_classes_cut_alike, "every client holds all classes in the same proportions"),
    (over_classes_for_each_client, "not over the classes for each client"),
    (owners(lambda n, alpha, rng: rng.dirichlet(np.ones(n))), "Is alpha passed to the Dirichlet draw"),
    (owners(lambda n, alpha, rng: rng.dirichlet(np.full(n, 1 / alpha))), "does not fall as alpha grows, it rises"),
    (owners(lambda n, alpha, rng: rng.dirichlet(np.full(n, alpha / n))), SMALLER),
    (owners(lambda n, alpha, rng: rng.dirichlet(np.full(n, alpha * n))), LARGER),
    (owners(lambda n, alpha, rng: rng.dirichlet(np.full(n, alpha**2))), SMALLER),
    (owners(lambda n, alpha, rng: rng.dirichlet(np.full(n, alpha + 1))), LARGER),
    (own_generator, "every call gives the same division"),
    (owners(lambda *_: None), "everybody holds much the same mixture"),
    (owners(lambda n, alpha, rng: normalised(rng.random(n))), "does not fall as alpha grows"),
    (owners(lambda n, alpha, rng: rng.dirichlet(np.full(n, alpha)), range(9)), "all images of class 9 are with one"),
    (owners(sorted_shares), "do not sort the shares"),
    (to_whom_most, "is the class then divided by its shares?"),
    (places_within_class, "Are these places within a class, or labels?"),
    (rounded_down, "Do sizes that are rounded down add up?"),
    (last_class_lost, "All those of class 9 are lost: does the loop run over every class?"),
    (owner_of_each, "it gives 2000 parts for 20 clients. Is it the owner of each image?"),
    (as_np_where, "client 0's part is a tuple; an array of image numbers"),
    (labels_shuffled, "changes what it is given, its argument number 1"),
]

WRONG_ANSWERS = {
    "class_means": CLASS_MEANS,
    "centre_loss": CENTRE_LOSS,
    "distillation": DISTILLATION,
    "dynamic_weight": DYNAMIC_WEIGHT,
    "joint_loss": JOINT_LOSS,
    "largest_lr": LARGEST_LR,
    "floor": FLOOR,
    "interaction": INTERACTION,
    "paired_interval": PAIRED_INTERVAL,
    "steadiness": STEADINESS,
    "label_of_image": LABEL_OF_IMAGE,
    "trimmed_mean": TRIMMED_MEAN,
    "weighted_mean": WEIGHTED_MEAN,
    "split_names": SPLIT_NAMES,
    "unevenness": UNEVENNESS,
    "partition": PARTITION,
}


# --- Inputs that stay the same, to tell the wrong answers apart ---


def examples(name):
    """Inputs for an exercise, the same at every call."""
    torch_rng = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)

    def normal(*shape):
        return torch.randn(*shape, generator=torch_rng)

    y = torch.tensor([0, 2, 1, 2, 0, 0, 3])  # class 4 is absent
    ours = np.array([91.0, 88.5, 90.2, 93.1])
    clients = [{"extractor.w": normal(2, 3), "classifier.b": normal(4)} for _ in range(3)]
    names = ("extractor.0.weight", "extractor.0.bias", "extractors.note", "classifier.bias")
    names += ("personal.extractor.0.weight", "anchors.means")
    tensors = {name: normal(2, 3) for name in names}
    return {
        "class_means": [(normal(7, 3), y, 5)],
        "centre_loss": [(normal(7, 3), y, normal(5, 3))],
        "distillation": [(normal(7, 5), normal(7, 5), 2.5)],
        "dynamic_weight": [(normal(7, 5), y)],
        "joint_loss": [(normal(7, 5), normal(7, 5), normal(7, 3), y, normal(5, 3), 0.3)],
        "largest_lr": [(3.7, 6)],
        "floor": [(0.05, 3.3, 2.1, 1.7, 7, 3)],
        "interaction": [(50.0, 54.0, 61.0, 62.5), (50.0, 57.0, 52.0, 64.5)],
        "paired_interval": [(ours, ours - np.array([2.0, -1.3, 0.4, 1.1]))],
        "steadiness": [(rng.uniform(0.5, 0.9, (4, 9)),)],
        "label_of_image": [(torch.tensor([0.01, -0.6, 0.05, 0.3, 0.2, 0.04]),)],
        "trimmed_mean": [(rng.normal(0, 1, (13, 5)), 4)],
        "weighted_mean": [(clients, [7, 12, 9])],
        "split_names": [(tensors, "extractor."), (tensors, "anchors.")],
        "unevenness": [(rng.integers(1, 30, (4, 5)),)],  # of three classes the largest gap is half the sum of all
        "partition": [(np.arange(2000) % 10, 20, 0.3, rng)],
    }[name]


def described(value):
    """What a result is, in words, and the numbers in it: two results are the same if these are."""
    if isinstance(value, dict):
        value = [str(list(value)), *value.values()]
    if isinstance(value, set):
        value = ["a set", *sorted(value)]
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        pass
    else:
        return str(array.shape), array.ravel()
    if isinstance(value, list | tuple):
        parts = [described(part) for part in value]
        words = [words for words, _ in parts]
        return str(words), np.concatenate([numbers for _, numbers in parts])
    return str(value), np.zeros(0)


def outcome(function, case):
    """What comes of a function: the error that it raises, or its result and what it leaves of what it was given."""
    given = copy.deepcopy(case)
    try:
        result = function(*given)
    except Exception as error:  # of any kind
        return str(error), np.zeros(0)
    left_behind = [argument for argument in given if not isinstance(argument, np.random.Generator)]
    return described([result, left_behind])


def outcomes(function, name):
    return [outcome(function, case) for case in examples(name)]


def alike(a, b):
    """Whether two functions come to the same outcomes."""
    pairs = list(zip(a, b, strict=True))
    if any(ours[0] != theirs[0] for ours, theirs in pairs):
        return False
    return all(np.allclose(ours[1], theirs[1], rtol=1e-4, atol=1e-9, equal_nan=True) for ours, theirs in pairs)


@pytest.mark.parametrize("name", RIGHT)
def test_there_are_ten_wrong_answers_and_more_no_two_of_them_alike_and_none_right(name):
    of_wrong = [outcomes(wrong, name) for wrong, _ in WRONG_ANSWERS[name]]
    assert len(of_wrong) >= 10
    of_right = outcomes(RIGHT[name], name)
    for i, one in enumerate(of_wrong):
        assert not alike(one, of_right), (name, i)
        assert not any(alike(one, other) for other in of_wrong[:i]), (name, i)


@pytest.mark.parametrize(("name", "i"), [(name, i) for name, wrong in WRONG_ANSWERS.items() for i in range(len(wrong))])
def test_a_wrong_answer_is_refused_for_a_reason_that_fits(name, i, capsys):
    wrong, words = WRONG_ANSWERS[name][i]
    assert getattr(checks, f"check_{name}")(wrong) is False
    out = capsys.readouterr().out
    assert words in out, out


# --- Where no known mistake fits ---


@pytest.mark.parametrize(
    "name", ["centre_loss", "distillation", "dynamic_weight", "joint_loss", "paired_interval", "trimmed_mean"]
)
def test_the_first_entry_that_is_wrong_is_shown_beside_the_right_one(name, capsys):
    def one_off(*case):
        result = torch.as_tensor(RIGHT[name](*case)).clone()
        result[1] += 3
        return result

    assert getattr(checks, f"check_{name}")(one_off) is False
    out = capsys.readouterr().out
    ours, right = re.search(r"you return (\S+) in entry 1, where (\S+) is expected\.", out).groups()
    assert float(ours) == pytest.approx(float(right) + 3, rel=1e-4)
    assert "All your values" not in out


def test_a_wrong_entry_of_a_matrix_is_found_by_row_and_column_and_by_its_name_in_a_dictionary(capsys):
    def means_but_one(*case):
        anchors = RIGHT["class_means"](*case)
        anchors[0, 1] = 77
        return anchors

    assert checks.check_class_means(means_but_one) is False
    assert "you return 77 in row 0, column 1, where" in capsys.readouterr().out

    def mean_but_one(many, weights):
        mean = dict(RIGHT["weighted_mean"](many, weights))
        mean["classifier.b"] = torch.cat([mean["classifier.b"][:3], torch.tensor([77.0])])
        return mean

    assert checks.check_weighted_mean(mean_but_one) is False
    assert "under 'classifier.b' you return 77 in entry 3, where" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    sorted(RIGHT.keys() - {"partition", "largest_lr", "floor", "interaction", "unevenness", "label_of_image"}),
)
def test_a_common_factor_is_told_and_three_samples_only_where_there_are_samples(name, capsys):
    assert getattr(checks, f"check_{name}")(lambda *case: scaled(RIGHT[name](*case), 1.37)) is False
    out = capsys.readouterr().out
    assert "All your values are 1.37 times what they should be." in out
    has_samples = name not in ("paired_interval", "steadiness", "trimmed_mean", "weighted_mean", "split_names")
    assert ("Try three samples" in out) == has_samples


def test_a_single_number_made_of_an_array_is_shown_with_the_array(capsys):
    seen = []

    def wrong(counts):
        seen.append(counts)
        return 0.25

    assert checks.check_unevenness(wrong) is False
    right = RIGHT["unevenness"](seen[0])
    assert f"for (counts = {seen[0].tolist()}) you return 0.25; it should be {right:.6g}." in capsys.readouterr().out


def test_a_mistake_that_fits_one_case_alone_is_not_named(capsys):
    """One number may be that of a mistake by chance."""
    calls = []

    def once(L, K):
        calls.append(K)
        return 1 / (4 * L) if len(calls) == 1 else 0.9 / (4 * L * K)

    assert checks.check_largest_lr(once) is False
    assert "it should be" in capsys.readouterr().out


def test_of_two_mistakes_that_agree_on_the_first_case_the_one_that_goes_on_to_fit_is_named(capsys):
    """Both together give less than each alone there, so that an absolute value turns the sign round."""
    assert checks.check_interaction(lambda none, a, b, both: abs(both - a - b + none)) is False
    assert "no absolute value" in capsys.readouterr().out
    assert checks.check_interaction(lambda none, a, b, both: a + b - both - none) is False
    assert "the sign is the wrong way round" in capsys.readouterr().out


def test_a_known_mistake_is_named_also_where_large_logits_break_it(capsys):
    def unstable(s, t, T):
        p, q = (t / T).softmax(1), (s / T).softmax(1)
        return (p * (p / q).log()).sum(1)

    assert checks.check_distillation(unstable) is False
    assert "the factor T^2 is missing" in capsys.readouterr().out
