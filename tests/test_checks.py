"""Every check passes the reference, names each mistake it knows, and never raises."""

import numpy as np
import pytest
import torch
from scipy import stats

from fedecouple_lite import losses, make, partition, tensors
from fedecouple_lite.course import checks


def joint_loss(g, o, z, y, a, mu):
    ce = torch.nn.functional.cross_entropy
    return ce(g, y, reduction="none") + ce(o, y, reduction="none") + mu * (z - a[y]).square().mean(1)


RIGHT = {
    "class_means": lambda z, y, c: losses.class_means(z, y, c)[0],
    "centre_loss": losses.centre_loss,
    "distillation": losses.distillation,
    "dynamic_weight": losses.true_class_probability,
    "joint_loss": joint_loss,
    "largest_lr": lambda L, K: 1 / (4 * L * K),
    "floor": lambda g, L, s, k, N, K: 2.5 * (g * L * s**2 / K * (1 + 1 / N) + (g * L) ** 2 * (k**2 + 2 * s**2 / K)),
    "interaction": lambda none, a, b, both: both - a - b + none,
    "paired_interval": lambda a, b: stats.ttest_rel(a, b).confidence_interval(0.95),
    "weighted_mean": tensors.weighted_mean,
    "split_names": lambda t, part: tensors.pick(t, part),
    "unevenness": lambda counts: partition.unevenness(counts)["label_skew"],
    "partition": lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=alpha),
}
WRONG = {
    "class_means": [
        (lambda z, y, c: z.mean(0).expand(c, -1), "average over the batch, not the class"),
        (lambda z, y, c: torch.nn.functional.one_hot(y, c).float().T @ z, "these are sums"),
        (lambda z, y, c: torch.stack([z[y == k].mean(0) for k in range(c)]), "NaN"),
        (lambda z, y, c: z, "shape"),
    ],
    "centre_loss": [
        (lambda z, y, a: (z - a[y]).square().sum(1), "divide by d"),
        (lambda z, y, a: (z - a[y]).square().mean(), "one number for the batch"),
    ],
    "distillation": [
        (lambda s, t, T: losses.distillation(s, t, T) / T**2, "T^2 is missing"),
        (lambda s, t, T: losses.distillation(t, s, T), "exchanged"),
    ],
    "dynamic_weight": [
        (lambda t, y: t.softmax(1).max(1).values, "TRUE class"),
        (lambda t, y: t.softmax(1)[torch.arange(len(y)), y][:, None], "(B, 1)"),
    ],
    "joint_loss": [
        (lambda g, o, z, y, a, mu: joint_loss(g, o, z, y, a, 2 * mu), "Omega is there twice"),
        (lambda g, o, z, y, a, mu: joint_loss(g, o, z, y, a, 0), "Omega is missing"),
        (lambda g, o, z, y, a, mu: joint_loss(g, o, z, y, a, 1), "mu is missing"),
        (lambda g, o, z, y, a, mu: joint_loss(g, o, z, y, a, mu * z.shape[1]), "divide Omega by d"),
        (lambda g, o, z, y, a, mu: losses.cross_entropy(o, y) + mu * losses.centre_loss(z, y, a), "global classifier"),
        (lambda g, o, z, y, a, mu: losses.cross_entropy(g, y) + mu * losses.centre_loss(z, y, a), "client's own"),
        (lambda g, o, z, y, a, mu: joint_loss(g, o, z, y, a, mu).mean(), "one number for the batch"),
    ],
    "largest_lr": [(lambda L, K: 1 / (4 * L), "that is gamma"), (lambda L, K: 1 / (K * L), "a quarter")],
    "floor": [
        (lambda g, L, s, k, N, K: RIGHT["floor"](g, L, s, k, N, K) / 2.5, "5/2"),
        (lambda g, L, s, k, N, K: 2.5 * (g * L) ** 2 * (k**2 + 2 * s**2 / K), "noise is missing"),
        (lambda g, L, s, k, N, K: 2.5 * g * L * s**2 / K * (1 + 1 / N), "drift is missing"),
    ],
    "interaction": [
        (lambda none, a, b, both: both - a - b, "with neither"),
        (lambda none, a, b, both: both - none, "each gives alone"),
    ],
    "paired_interval": [
        (lambda a, b: stats.t.interval(0.95, len(a) - 1, np.mean(a - b), np.std(a - b) / len(a) ** 0.5), "ddof=1"),
        (lambda a, b: stats.norm.interval(0.95, np.mean(a - b), stats.sem(a - b)), "1.96"),
        (lambda a, b: stats.ttest_rel(b, a).confidence_interval(0.95), "the other way round"),
    ],
    "weighted_mean": [(lambda m, w: tensors.weighted_mean(m, [1] * len(m)), "use the weights")],
    "split_names": [(lambda t, part: {n: v for n, v in t.items() if part in n}, "startswith")],
    "unevenness": [(lambda c: 2 * partition.unevenness(c)["label_skew"], "half of it")],
    "partition": [
        (lambda y, n, alpha, rng: np.array_split(rng.permutation(len(y)), n), "does not fall as alpha grows"),
        (lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=alpha)[:-1], "19 parts"),
        (lambda y, n, alpha, rng: [part[1:] for part in partition.iid(y, n, rng)], "go to nobody"),
        (lambda y, n, alpha, rng: [np.arange(len(y))] * n, "more than one client"),
    ],
}


def unwritten(*arguments):
    raise NotImplementedError


def broken(*arguments):
    return 1 / 0


@pytest.mark.parametrize("name", RIGHT)
def test_the_reference_passes(name, capsys):
    assert getattr(checks, f"check_{name}")(RIGHT[name]) is True
    assert "correct" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "i"), [(name, i) for name, wrongs in WRONG.items() for i in range(len(wrongs))])
def test_a_known_mistake_is_named(name, i, capsys):
    wrong, text = WRONG[name][i]
    assert getattr(checks, f"check_{name}")(wrong) is False
    out = capsys.readouterr().out
    assert text in out, out


@pytest.mark.parametrize("name", RIGHT)
def test_unwritten_broken_and_forgotten_return_are_reported_not_raised(name, capsys):
    check = getattr(checks, f"check_{name}")
    assert not check(unwritten) and "not written yet" in capsys.readouterr().out
    assert not check(broken) and "ZeroDivisionError" in capsys.readouterr().out
    assert not check(lambda *arguments: None) and capsys.readouterr().out


def test_the_joint_loss_is_the_methods(net, local):
    method, server, mine = make("fedecouple", mu=0.7, coupling="joint"), net.init(0), net.init(1)
    x, y, anchors = local.x, local.y, torch.randn(10, 128, generator=torch.Generator().manual_seed(0))
    z = net.features(mine, x)
    given = joint_loss(net.classify(server, z), net.classify(mine, z), z, y, anchors, 0.7)
    assert torch.allclose(given, method.both_pulls(net, mine | {"anchors.means": anchors}, server, x, y), atol=1e-6)
