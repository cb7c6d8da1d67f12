"""Every check passes the reference, names each mistake it knows, and never raises."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from fedecouple_lite import losses, make, partition, tensors
from fedecouple_lite.course import checks

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def joint_loss(g, o, z, y, a, mu):
    ce = torch.nn.functional.cross_entropy
    return ce(g, y, reduction="none") + ce(o, y, reduction="none") + mu * (z - a[y]).square().mean(1)


def kl(student, teacher):
    """KL(teacher || student), (B,), of logits as they are."""
    ours, theirs = student.log_softmax(1), teacher.softmax(1)
    return torch.nn.functional.kl_div(ours, theirs, reduction="none").sum(1)


def spreads(a, ddof=1):
    """Mean, standard deviation of the seeds' means, mean of the seeds' standard deviations."""
    by_seed = [(np.mean(row), np.std(row, ddof=ddof)) for row in a]
    means, deviations = zip(*by_seed, strict=True)
    return np.mean(means), np.std(means, ddof=ddof), np.mean(deviations)


def trimmed(uploads, cut):
    """Column by column, without the smallest and largest."""
    left = [sorted(column)[cut : len(column) - cut] for column in uploads.T.tolist()]
    return np.array([sum(values) / len(values) for values in left])


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
    "steadiness": lambda a: spreads(a[:, -5:]),
    "label_of_image": lambda gradient: gradient.tolist().index(min(gradient)),
    "trimmed_mean": trimmed,
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
        (
            lambda z, y, c: torch.nn.functional.one_hot(y, c).float().T @ z / len(z),
            "divide by the number of all samples",
        ),
    ],
    "centre_loss": [
        (lambda z, y, a: (z - a[y]).square().sum(1), "divide by d"),
        (lambda z, y, a: (z - a[y]).square().mean(), "one number for the batch"),
        (lambda z, y, a: torch.linalg.vector_norm(z - a[y], dim=1), "this is the distance"),
        (lambda z, y, a: 0.5 * (z - a[y]).square().mean(1), "a factor 1/2 too many"),
    ],
    "distillation": [
        (lambda s, t, T: losses.distillation(s, t, T) / T**2, "T^2 is missing"),
        (lambda s, t, T: losses.distillation(t, s, T), "exchanged"),
        (lambda s, t, T: kl(s, t), "divide both logits by T before the softmax"),
        (lambda s, t, T: T**2 * kl(s, t), "missing in the softmax"),
        (
            lambda s, t, T: T**2 * torch.nn.functional.cross_entropy(s / T, (t / T).softmax(1), reduction="none"),
            "teacher's entropy",
        ),
        (lambda s, t, T: T**2 * kl(s / T, t / T).mean(), "one number for the batch"),
    ],
    "dynamic_weight": [
        (lambda t, y: t.softmax(1).max(1).values, "TRUE class"),
        (lambda t, y: t.softmax(1)[torch.arange(len(y)), y][:, None], "(B, 1)"),
        (lambda t, y: -losses.cross_entropy(t, y), "log-probability"),
        (lambda t, y: t[torch.arange(len(y)), y], "the logit of the true class"),
        (lambda t, y: t.softmax(0)[torch.arange(len(y)), y], "not over the batch"),
        (lambda t, y: 1.0 * (t.max(1).indices == y), "1 where the teacher is right"),
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
        (lambda g, L, s, k, N, K: 2.5 * (g * L * s / K * (1 + 1 / N) + (g * L) ** 2 * (k + 2 * s / K)), "squared"),
    ],
    "interaction": [
        (lambda none, a, b, both: both - a - b, "with neither"),
        (lambda none, a, b, both: both - none, "each gives alone"),
        (lambda none, a, b, both: a - none - (both - b), "sign is the wrong way round"),
    ],
    "paired_interval": [
        (lambda a, b: stats.t.interval(0.95, len(a) - 1, np.mean(a - b), np.std(a - b) / len(a) ** 0.5), "ddof=1"),
        (lambda a, b: stats.norm.interval(0.95, np.mean(a - b), stats.sem(a - b)), "1.96"),
        (lambda a, b: stats.ttest_rel(b, a).confidence_interval(0.95), "the other way round"),
        (
            lambda a, b: stats.t.interval(0.95, len(a) - 1, np.mean(a - b), np.std(a - b, ddof=1)),
            "divide by the root of n",
        ),
    ],
    "steadiness": [
        (lambda a: spreads(a[:, -5:], ddof=0), "divides by n - 1"),
        (spreads, "yours are of all"),
    ],
    "label_of_image": [
        (lambda gradient: gradient.argmax(), "the wrong class that the net finds likeliest"),
        (lambda gradient: gradient.sign() == -1, "return its number"),
    ],
    "trimmed_mean": [
        (lambda u, cut: np.median(u, axis=0), "this is the median"),
        (lambda u, cut: trimmed(u, 1), "here it is always one"),
        (lambda u, cut: trimmed(u, 0), "nothing is cut"),
    ],
    "weighted_mean": [
        (lambda m, w: tensors.weighted_mean(m, [1] * len(m)), "use the weights"),
        (lambda m, w: {n: sum(v * t[n] for v, t in zip(w, m, strict=True)) for n in m[0]}, "divide by the sum"),
    ],
    "split_names": [
        (lambda t, part: {n: v for n, v in t.items() if part in n}, "startswith"),
        (lambda t, part: {n: v for n, v in t.items() if n.find(part) != 0}, "do NOT start"),
        (lambda t, part: {n[len(part) :]: v for n, v in t.items() if n.startswith(part)}, "keep the whole names"),
    ],
    "unevenness": [
        (lambda c: 2 * partition.unevenness(c)["label_skew"], "half of it"),
        (lambda c: len(c) * partition.unevenness(c)["label_skew"], "not the sum"),
        (lambda c: np.mean([((row / row.sum() - c.sum(0) / c.sum()) ** 2).sum() / 2 for row in c]), "not squares"),
        (lambda c: np.mean([abs(row / row.sum() - 1 / len(row)).sum() / 2 for row in c]), "not with the uniform one"),
    ],
    "partition": [
        (lambda y, n, alpha, rng: np.array_split(rng.permutation(len(y)), n), "does not fall as alpha grows"),
        (lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=alpha)[:-1], "19 parts"),
        (lambda y, n, alpha, rng: [part[1:] for part in partition.iid(y, n, rng)], "go to nobody"),
        (lambda y, n, alpha, rng: [np.arange(len(y))] * n, "more than one client"),
        (
            lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=2 * alpha),
            "it should be",
        ),
        (
            lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=max(0.1, alpha / 3)),
            "with alpha = 1 the label skew",
        ),
        (
            lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=min(alpha, 10)),
            "with alpha = 100 the label skew",
        ),
        (
            lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=max(0.1, 1 / alpha)),
            "does not fall as alpha grows",
        ),
    ],
}


def per_client(y, n, alpha, rng):
    """Each client's label distribution is a Dirichlet draw: the skew of labels is alike, sizes are too even."""
    weights = rng.dirichlet(np.full(10, alpha), size=n)  # (N, C), rows sum to 1
    return cut_up(y, weights / weights.sum(0), rng)


def no_dirichlet(y, n, alpha, rng):
    """Uniform numbers to a power, which falls as alpha grows."""
    weights = rng.random((n, 10)) ** (1 / alpha)
    return cut_up(y, weights / weights.sum(0), rng)


def one_draw_for_all_classes(y, n, alpha, rng):
    weights = np.repeat(rng.dirichlet(np.full(n, alpha))[:, None], 10, axis=1)
    return cut_up(y, weights, rng)


def cut_up(y, shares, rng):
    """Every class divided between clients as its column of shares (N, C) says."""
    parts = [[] for _ in shares]
    for c in range(10):
        of_class = rng.permutation(np.flatnonzero(y == c))
        cuts = (np.cumsum(shares[:, c])[:-1] * len(of_class)).round().astype(int)
        for part, piece in zip(parts, np.split(of_class, cuts), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=2 * alpha),
        lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=3 * alpha),
        lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=alpha / 2),
        lambda y, n, alpha, rng: partition.dirichlet(y, n, rng, alpha=alpha**0.5),
        per_client,
        no_dirichlet,
        one_draw_for_all_classes,
        lambda y, n, alpha, rng: partition.iid(y, n, rng),
        lambda y, n, alpha, rng: partition.dirichlet(y, n, np.random.default_rng(0), alpha=alpha),
    ],
)
def test_a_division_by_another_law_is_refused(wrong, capsys):
    assert checks.check_partition(wrong) is False
    out = capsys.readouterr().out
    assert "on average; it should be" in out or "does not fall" in out or "the same division" in out, out


def cut_anew(y, n, alpha, rng):
    return cut_up(y, rng.dirichlet(np.full(n, alpha), size=10).T, rng)


def image_by_image(y, n, alpha, rng):
    owner = np.empty(len(y), dtype=int)
    for c in np.unique(y):
        owner[y == c] = rng.choice(n, size=(y == c).sum(), p=rng.dirichlet(np.full(n, alpha)))
    return [np.flatnonzero(owner == i) for i in range(n)]


def until_nobody_is_empty(y, n, alpha, rng):
    while True:
        parts = image_by_image(y, n, alpha, rng)
        if min(len(part) for part in parts) >= 2:
            return parts


@pytest.mark.parametrize("right", [cut_anew, image_by_image, until_nobody_is_empty])
def test_a_division_written_anew_by_the_same_law_passes(right, capsys):
    assert checks.check_partition(right) is True, capsys.readouterr().out


def solutions():
    """(check, the code of the solution, the function's name) of every exercise in the notebooks that has both."""
    found = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        sources = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        for exercise, text in pairwise(sources):
            for check, function in re.findall(r"^checks\.(check_\w+)\((\w+)\)", exercise, re.MULTILINE):
                for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                    if f"def {function}(" in code:
                        found.append((check, code, function))
    return found


def test_the_solution_under_every_exercise_passes_its_check(capsys):
    checked = set()
    for check, code, function in solutions():
        names = {"np": np, "torch": torch, "F": torch.nn.functional, "stats": stats}
        names["total_variation"] = lambda a, b: np.abs(a - b).sum() / 2  # notebook 01 defines it above the exercise
        exec(code, names)
        assert getattr(checks, check)(names[function]) is True, (check, capsys.readouterr().out)
        checked.add(check.removeprefix("check_"))
    assert checked >= set(RIGHT) - {"largest_lr"}  # that one's solution is a line of text


@pytest.mark.parametrize("name", sorted(RIGHT.keys() - {"partition"}))
def test_answers_cannot_be_learned_by_heart(name, capsys):
    """One who has seen all cases of one call, and answers by them, is wrong at the next: inputs are fresh."""
    check = getattr(checks, f"check_{name}")
    known = {}

    def watch(*case):
        known[str(case)] = RIGHT[name](*case)
        return known[str(case)]

    def by_heart(*case):
        return known.get(str(case), next(iter(known.values())))

    assert check(watch) is True and check(by_heart) is False


@pytest.mark.parametrize("name", ["class_means", "centre_loss", "distillation", "true_class_probability"])
def test_the_reference_cannot_be_replaced(name, monkeypatch):
    def nonsense(*case):
        return torch.zeros(3)

    monkeypatch.setattr(losses, name, nonsense)
    check = {"true_class_probability": checks.check_dynamic_weight}.get(name) or getattr(checks, f"check_{name}")
    assert check(nonsense) is False


def test_a_distillation_that_breaks_at_large_logits_is_told_so(capsys):
    def unstable(student, teacher, T):
        p, q = (teacher / T).softmax(1), (student / T).softmax(1)
        return T**2 * (p * (p / q).log()).sum(1)

    assert checks.check_distillation(unstable) is False
    assert "NaN or infinite numbers where there should be none" in capsys.readouterr().out


def test_a_single_wrong_number_is_shown_beside_the_right_one(capsys):
    """There are no samples to try by hand."""
    assert checks.check_largest_lr(lambda L, K: 1 / (8 * L * K)) is False
    out = capsys.readouterr().out
    found = re.search(r"for \(L = (.+), K = (.+)\) you return (.+); it should be (.+)\.$", out.strip())
    L, K, ours, right = (float(number) for number in found.groups())
    assert ours == pytest.approx(1 / (8 * L * K), rel=0.01) and right == pytest.approx(2 * ours, rel=0.01)
    assert "samples" not in out


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.array, torch.tensor, lambda value: [value][0]])
def test_a_number_may_be_of_any_kind(kind):
    assert checks.check_largest_lr(lambda L, K: kind(1 / (4 * L * K))) is True
    assert checks.check_interaction(lambda none, a, b, both: kind(both - a - b + none)) is True


class Odd:
    """Nothing about it works."""

    shape = 3

    def __len__(self):
        raise OSError("no")

    def __iter__(self):
        raise OSError("no")

    def __array__(self, *arguments, **options):
        raise OSError("no")

    def __repr__(self):
        raise OSError("no")

    def __float__(self):
        raise OSError("no")


def numbers():
    yield 1


ODD = {
    "a dictionary": {0: np.arange(3), "b": 1, None: 2},
    "a dictionary of itself": {"extractor.w": "text", "anchors.means": None},
    "text": "0.5",
    "a set": {1, 2},
    "a number": 7,
    "a huge number": 10**400,
    "infinity": float("inf"),
    "a complex number": 0.5 + 0j,
    "an empty list": [],
    "a ragged list": [[1, 2], [3]],
    "a list of None": [None] * 20,
    "a list of text": ["0"] * 20,
    "a list of dictionaries": [{}] * 20,
    "a deep list": [[[[[0.5]]]]],
    "a class": int,
    "a function": numbers,
    "a generator": numbers(),
    "a module": np,
    "an object array": np.array([None, 1], dtype=object),
    "a structured array": np.zeros(3, dtype="i4,f4"),
    "dates": np.zeros(20, dtype="datetime64[s]"),
    "a backward array": np.arange(20.0)[::-1],
    "a tensor with gradients": torch.ones(4, requires_grad=True),
    "a meta tensor": torch.ones(4, device="meta"),
    "a sparse tensor": torch.ones(4).to_sparse(),
    "a complex tensor": torch.ones(4, dtype=torch.complex64),
    "an empty tensor": torch.zeros(0, 3),
    "nothing that works": Odd(),
    "many things that do not work": [Odd()] * 20,
    "an error": ValueError("mine"),
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


@pytest.fixture
def known_mistakes(monkeypatch):
    """check's name -> the messages of the mistakes that it knows."""
    known = {}
    for name in RIGHT:
        given = []
        monkeypatch.setattr(checks, "_check", lambda *of, given=given: given.extend(of[-1]))
        if name != "partition":  # that one looks at a division and knows no list of mistakes
            getattr(checks, f"check_{name}")(RIGHT[name])
        known[name] = [mistake.message for mistake in given]
    monkeypatch.undo()
    return known


def test_every_mistake_that_a_check_knows_is_made_here_and_called_by_its_own_words_alone(known_mistakes, capsys):
    """Made by functions of our own, not by those that the check compares with."""
    from test_wrong_answers import WRONG_ANSWERS  # here, as that file takes the right answers from this one

    for name, messages in known_mistakes.items():
        if name == "partition":
            continue  # judged by its law, not by a list of mistakes
        called = set()
        for wrong, _ in WRONG[name] + WRONG_ANSWERS[name]:
            getattr(checks, f"check_{name}")(wrong)
            out = capsys.readouterr().out
            said = [message for message in messages if message in out]
            assert len(said) <= 1, out
            called.update(said)
        assert called == set(messages), name
        assert len(set(messages)) == len(messages)


def scaled(result, factor):
    """A result of any kind, its numbers times `factor`."""
    if isinstance(result, dict):
        return {name: scaled(value, factor) for name, value in result.items()}
    if isinstance(result, tuple):
        return tuple(scaled(value, factor) for value in result)
    return result * factor


@pytest.mark.parametrize("factor", [1.05, 0.95, 1.001, -1.0])
@pytest.mark.parametrize("name", sorted(RIGHT.keys() - {"partition", "label_of_image"}))
def test_a_right_answer_that_is_a_little_off_is_refused_in_whatever_case_it_is(name, factor, capsys):
    check = getattr(checks, f"check_{name}")
    calls = []
    check(lambda *case: calls.append(1) or RIGHT[name](*case))
    assert len(calls) >= 2
    for off in range(len(calls)):
        calls.clear()

        def nearly(*case, off=off):
            calls.append(1)
            right = RIGHT[name](*case)
            return scaled(right, factor) if len(calls) == off + 1 else right

        assert check(nearly) is False, (off, capsys.readouterr().out)
    assert check(lambda *case: scaled(RIGHT[name](*case), 1 + 1e-7)) is True  # rounding is no mistake


def test_a_label_that_is_wrong_for_one_image_alone_is_refused_and_any_kind_of_number_passes(capsys):
    calls = []
    checks.check_label_of_image(lambda gradient: calls.append(1) or RIGHT["label_of_image"](gradient))
    images = len(calls)
    for off in range(images):
        calls.clear()

        def nearly(gradient, off=off):
            calls.append(1)
            label = RIGHT["label_of_image"](gradient)
            return (label + 2) % len(gradient) if len(calls) == off + 1 else label

        assert checks.check_label_of_image(nearly) is False, (off, capsys.readouterr().out)
    for kind in (int, np.int64, torch.tensor, float):
        assert checks.check_label_of_image(lambda gradient, kind=kind: kind(gradient.tolist().index(min(gradient))))
    assert checks.check_label_of_image(lambda gradient: gradient.abs().argmax())  # no other entry is as large


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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", RIGHT)
def test_whatever_a_function_returns_gets_a_verdict_in_words(name, odd, capsys):
    assert getattr(checks, f"check_{name}")(lambda *arguments: ODD[odd]) is False
    words = capsys.readouterr().out
    assert words.count("\n") == 1 and len(words) > 30 and "correct" not in words


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_no_function_or_raises_anything_gets_a_verdict(name, capsys):
    check = getattr(checks, f"check_{name}")

    def leaves(*arguments):
        raise SystemExit(3)

    def endless(*arguments):
        return endless(*arguments)

    assert check("text") is False and "your function itself, not a str" in capsys.readouterr().out
    assert check(None) is False and "your function itself, not a NoneType" in capsys.readouterr().out
    assert check(lambda: 1) is False and "raises TypeError" in capsys.readouterr().out
    assert check(leaves) is False and "raises SystemExit" in capsys.readouterr().out
    assert check(endless) is False and "raises RecursionError" in capsys.readouterr().out


def dealt(change):
    """A Dirichlet division, spoiled: check_partition must say how."""
    return lambda y, n, alpha, rng: change(partition.dirichlet(y, n, rng, alpha=alpha))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda parts: [part + 1 for part in parts], "image number 2000; they run from 0 to 1999"),
        (lambda parts: [part - 1 for part in parts], "image number -1; they run from 0 to 1999"),
        (lambda parts: [part[:, None] for part in parts], "(n,), is expected"),
        (lambda parts: [np.stack([part, part]) for part in parts], "(n,), is expected"),
        (lambda parts: dict(enumerate(parts)), "a dictionary with the names ['0', '1'"),
        (lambda parts: [part.astype(float) for part in parts], "client 0's part holds float64 where image numbers"),
        (lambda parts: [part.astype(str) for part in parts], "where image numbers, whole numbers, are expected"),
        (lambda parts: [np.isin(np.arange(2000), part) for part in parts], "np.flatnonzero"),
        (lambda parts: [*parts[:-1], None], "client 19's part is a NoneType"),
        (lambda parts: [*parts[:-1], {"a": 1}], "client 19's part is a dictionary"),
        (lambda parts: [*parts[:-1], 3], "client 19's part is an int"),
        (lambda parts: (part for part in parts), "your result is a generator, where a list of 20"),
        (lambda parts: np.concatenate(parts), "it gives 2000 parts for 20 clients"),
        (lambda parts: set(map(tuple, parts)), "your result is a set"),
        (lambda parts: [*parts, []], "it gives 21 parts for 20 clients"),
        (lambda parts: [np.concatenate(parts[:2]), *parts[1:]], "more than one client"),
    ],
)
def test_a_division_that_is_none_is_described(change, words, capsys):
    assert checks.check_partition(dealt(change)) is False
    out = capsys.readouterr().out
    assert words in out, out


@pytest.mark.parametrize(
    "change",
    [tuple, lambda parts: [part.tolist() for part in parts], lambda parts: [torch.from_numpy(part) for part in parts]],
)
def test_a_division_may_come_as_any_sequence_of_whole_numbers(change):
    assert checks.check_partition(dealt(change)) is True


def test_a_value_of_a_wrong_kind_or_shape_is_named_with_what_is_wanted(capsys):
    checks.check_weighted_mean(lambda many, w: {"extractor.w": torch.zeros(3), "classifier.b": torch.zeros(4)})
    assert "under 'extractor.w' your result has shape (3,), where shape (2, 3) is" in capsys.readouterr().out
    checks.check_weighted_mean(lambda many, w: {"extractor.w": "none", "classifier.b": torch.zeros(4)})
    assert "under 'extractor.w' your result is a str, where a tensor of shape (2, 3)" in capsys.readouterr().out
    checks.check_interaction(lambda *accuracies: "5")
    assert "your result is a str, where a float is expected" in capsys.readouterr().out
    checks.check_paired_interval(lambda ours, theirs: 1.0)
    assert "your result has shape (), where shape (2,) is expected" in capsys.readouterr().out


def test_a_right_result_may_run_backwards_in_memory_or_carry_gradients():
    assert checks.check_paired_interval(lambda a, b: np.array(RIGHT["paired_interval"](a, b))[::-1].copy()[::-1])
    assert checks.check_centre_loss(lambda z, y, a: losses.centre_loss(z, y, a.requires_grad_()))


def test_a_dictionary_that_lacks_a_name_or_has_one_too_many_is_refused(capsys):
    assert checks.check_weighted_mean(lambda many, w: {}) is False
    assert checks.check_split_names(lambda tensors, part: {}) is False

    def without_one(many, weights):
        mean = tensors.weighted_mean(many, weights)
        return {"extractor.w": mean["extractor.w"]}

    assert checks.check_weighted_mean(without_one) is False
    assert checks.check_weighted_mean(lambda m, w: tensors.weighted_mean(m, w) | {"more": torch.zeros(1)}) is False
    assert capsys.readouterr().out.count("your result is a dictionary with the names") == 4
