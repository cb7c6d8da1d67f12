from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecouple_lite import PARTITIONS, from_arrays, load, split, unevenness
from fedecouple_lite.partition import dirichlet_shares

DIGITS = load("digits")


@given(st.sampled_from(sorted(PARTITIONS)), st.integers(1, 40), st.integers(0, 10**6), st.floats(0, 0.9))
@settings(max_examples=80, deadline=None)
def test_every_image_goes_to_exactly_one_client(scheme, clients, seed, test_share):
    options = {"pathological": {"classes_per_client": 10 if clients < 5 else 2}, "dirichlet": {"alpha": 1.0}}
    f = split(DIGITS, clients, scheme, seed, test_share=test_share, **options.get(scheme, {}))
    given_out = torch.cat([*f.train, *f.test])
    assert len(f) == clients and torch.equal(given_out.sort().values, torch.arange(1797))
    assert all(len(index) for index in f.train)


@given(st.sampled_from(sorted(PARTITIONS)), st.integers(0, 100))
@settings(max_examples=12, deadline=None)
def test_the_seed_decides(scheme, seed):
    a, b, c = (split(DIGITS, 10, scheme, s) for s in (seed, seed, seed + 1))
    assert all(torch.equal(x, y) for x, y in zip(a.train, b.train, strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a.train, c.train, strict=True))


def test_train_and_test_of_a_client_follow_the_same_law():
    f = split(DIGITS, 5, "dirichlet", 0, alpha=0.5, test_share=1 / 3)
    for train, test in zip(f.train, f.test, strict=True):
        a, b = (torch.bincount(DIGITS.y[index], minlength=10) for index in (train, test))
        assert ((a - 2 * b).abs() <= 2).all(), (a, b)  # each class two to one, up to rounding
        assert abs(len(train) - 2 * len(test)) <= 2


def test_pathological_clients_hold_exactly_so_many_classes():
    counts = split(DIGITS, 10, "pathological", 3, classes_per_client=3, test_share=0).label_counts()
    assert ((counts > 0).sum(1) == 3).all()


def test_skew_with_per_client_is_the_exact_mixture():
    counts = split(DIGITS, 5, "mixture", 0, share=0.2, per_client=100, test_share=0).label_counts()
    assert (counts.sum(1) == 100).all()
    assert counts[0].tolist() == pytest.approx([2 + 80 / 3] * 3 + [2] * 7, abs=1)


def test_alpha_orders_the_skew_and_iid_has_nearly_none():
    skews = [unevenness(split(DIGITS, 20, "dirichlet", 0, alpha=a).label_counts())["label_skew"] for a in (0.1, 1, 100)]
    iid = unevenness(split(DIGITS, 20, "iid", 0).label_counts())
    assert skews[0] > 0.5 > skews[1] > skews[2] and iid["label_skew"] < 0.2 and iid["size_skew"] < 0.02
    assert unevenness(split(DIGITS, 20, "quantity", 0, sigma=1.5).label_counts())["size_skew"] > 0.4


def test_unevenness_by_hand():
    assert unevenness(np.array([[4, 0], [0, 4]])) == {"label_skew": 0.5, "classes_per_client": 1.0, "size_skew": 0.0}
    assert unevenness(np.array([[9, 0], [1, 0]]))["size_skew"] == pytest.approx(0.4)


def test_feature_skew_turns_whole_images_by_client():
    f = split(DIGITS, 4, "feature", 0)
    for i in range(4):
        k = f.train[i][0]
        assert torch.equal(f.data.x[k], torch.rot90(DIGITS.x[k], i, (1, 2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clients": 0}, "clients=0 must be from 1 to the number of images, 1797"),
        ({"clients": 100_000}, "clients=100000 must be"),
        ({"alpha": 0.0}, "alpha=0.0 must be a number from 1e-8 to 1e8"),
        ({"alpha": float("nan")}, "alpha=nan must be"),
        ({"alpha": 0.01, "clients": 200}, "alpha=0.01 left one of clients=200 .* raise alpha"),
        (
            {"partition": "pathological", "classes_per_client": 11},
            "classes_per_client=11 must be a whole number",
        ),
        ({"partition": "pathological", "classes_per_client": 1, "clients": 5}, "classes_per_client=1 must be"),
        ({"partition": "pathological", "clients": 1500}, "leaves nobody empty, .* use fewer clients"),
        ({"partition": "mixture", "share": 1.5}, "share=1.5 must be from 0 to 1"),
        ({"partition": "mixture", "per_client": 200}, "per_client=200 must be smaller: class"),
        ({"partition": "quantity", "sigma": -1.0}, "sigma=-1.0 must be"),
        ({"partition": "iid", "alpha": 0.5}, "alpha=0.5 must be known to partition='iid', which takes: no options"),
        ({"partition": "dirichlt"}, "partition='dirichlt' is unknown; did you mean 'dirichlet'"),
        ({"test_share": 1.0}, "test_share=1.0 must be"),
        ({"per_client": 1}, "per_client=1 must be at least 2"),
        ({"per_client": 30.5}, "per_client=30.5 must be a whole number"),
        ({"clients": "20"}, "clients='20' must be a whole number"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0"),
        ({"alpha": "0.3"}, "alpha='0.3' must be a number"),
        ({"test_share": float("nan")}, "test_share=nan must be"),
        ({"keep_test": True}, "keep_test=True must be False for data='digits', which has no test part"),
    ],
)
def test_a_split_that_cannot_be_made_says_what_to_change(options, message):
    with pytest.raises(ValueError, match=message):
        split(DIGITS, **options)


def test_one_image_each_leaves_no_test_image_but_a_training_one():
    x = np.zeros((3, 8, 8), np.uint8)
    f = split(from_arrays("three", x, np.arange(3), x[:0], np.arange(0)), 3, "iid", 0)
    assert [len(t) for t in f.train] == [1, 1, 1] and [len(t) for t in f.test] == [0, 0, 0]


def labelled(labels, test_labels=(), names=None):
    """Made-up images with these labels."""
    y, more_y = np.array(labels), np.array(test_labels, dtype=int)
    x = np.random.default_rng(0).integers(0, 255, (len(y) + len(more_y), 8, 8), dtype=np.uint8)
    return from_arrays("labelled", x[: len(y)], y, x[len(y) :], more_y, names)


@pytest.mark.parametrize("partition", sorted(PARTITIONS))
@pytest.mark.parametrize("test_share", [0.1, 0.5, 0.9])
def test_nobody_is_tested_on_a_class_without_a_training_image(partition, test_share):
    """Counted here, image by image, not by the library's own figure."""
    for seed in range(3):
        f = split(DIGITS, 20, partition, seed, test_share=test_share)
        for train, test in zip(f.train, f.test, strict=True):
            assert set(DIGITS.y[test].tolist()) <= set(DIGITS.y[train].tolist())


def test_a_class_with_one_image_trains_and_the_share_is_made_up_for_elsewhere():
    f = split(labelled([0] * 9 + [1]), 1, "iid", test_share=0.5)
    assert f.label_counts("train").tolist() == [[5, 1]] and f.label_counts("test").tolist() == [[4, 0]]
    f = split(labelled([0] * 2 + [1] * 8), 1, "iid", test_share=0.6)
    assert f.label_counts("test").tolist() == [[1, 5]]  # 6 of 10; class 0 spares one of 1.2
    f = split(labelled([0, 1, 2]), 1, "iid", test_share=0.9)
    assert len(f.test[0]) == 0 and len(f.train[0]) == 3


def test_the_share_of_unseen_test_images_by_hand():
    train, test = np.array([[2, 0], [1, 1]]), np.array([[3, 1], [0, 4]])
    assert unevenness(train, test)["unseen_test"] == 1 / 8
    assert unevenness(train, np.zeros((2, 2), int))["unseen_test"] == 0


def test_label_skew_rises_as_alpha_falls_over_sixteen_orders_of_magnitude():
    alphas = [1e8, 1e4, 100.0, 10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-8]
    skews = []
    for alpha in alphas:
        of_seeds = [unevenness(split(DIGITS, 5, alpha=alpha, seed=s).label_counts())["label_skew"] for s in range(10)]
        skews.append(np.mean(of_seeds))
    assert (np.diff(skews) > -0.01).all()  # level at both ends, where a class goes to one client or evenly to all
    assert skews[0] < 0.02 and skews[-1] > 0.75


def test_dirichlet_shares_have_the_moments_of_a_dirichlet_draw():
    """Mean 1/N and variance (1/N)(1 - 1/N) / (N alpha + 1), for small and large alpha."""
    for alpha in (0.02, 0.3, 2.0):
        shares = dirichlet_shares(alpha, 4, 100_000, np.random.default_rng(0))
        assert np.allclose(shares.sum(0), 1)
        assert shares[0].mean() == pytest.approx(1 / 4, abs=0.005)
        assert shares[0].var() == pytest.approx(3 / 16 / (4 * alpha + 1), rel=0.02)
    tiny = dirichlet_shares(1e-8, 4, 1000, np.random.default_rng(0))
    assert np.isfinite(tiny).all() and (np.sort(tiny, axis=0)[-1] == 1).all()  # everything goes to one


@pytest.mark.parametrize("partition", sorted(PARTITIONS))
def test_partitions_divide_the_classes_that_are_there(partition):
    """Labels 3, 5 and 9: the same clients get the same images as with labels 0, 1 and 2."""
    compact = np.arange(90) % 3
    gaps = np.array([3, 5, 9])[compact]
    options = {"per_client": 9} if partition == "mixture" else {}
    a = split(labelled(compact), 6, partition, seed=4, **options)
    b = split(labelled(gaps, names=list("abcdefghij")), 6, partition, seed=4, **options)
    for x, y in zip((*a.train, *a.test), (*b.train, *b.test), strict=True):
        assert torch.equal(x, y)
    assert b.data.classes[9] == "j" and b.label_counts()[:, [0, 1, 2, 4, 6, 7, 8]].sum() == 0


def test_pathological_gives_every_client_its_classes_where_labels_start_at_one():
    counts = split(
        labelled(np.arange(100) % 4 + 1), 8, "pathological", classes_per_client=2, test_share=0
    ).label_counts()
    assert ((counts > 0).sum(1) == 2).all()


def test_a_mixture_without_a_uniform_share_is_never_uniform():
    for classes in range(2, 11):
        counts = split(
            labelled(np.arange(classes * 60) % classes), 5, "mixture", share=0.0, test_share=0
        ).label_counts()
        assert ((counts > 0).sum(1) < classes).all(), classes
        assert (counts.sum(0) > 0).all()
    with pytest.raises(ValueError, match="partition='mixture' must be of images of two classes"):
        split(labelled([0] * 20, names=["a", "b"]), 2, "mixture")


def test_a_class_that_a_mixture_lacks_is_called_by_its_label():
    with pytest.raises(ValueError, match="per_client=60 must be smaller: class 7 lacks"):
        split(labelled([2] * 100 + [7] * 10), 2, "mixture", per_client=60, share=1.0)


@pytest.mark.parametrize("share", [1.0, 0.0, -0.1, 1.5, float("nan")])
def test_a_validation_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ValueError, match=f"share={share} must be above 0 and below 1"):
        split(DIGITS, 5).validation(share)


@pytest.mark.parametrize("partition", sorted(PARTITIONS))
def test_kept_test_images_are_the_sets_own_in_the_clients_proportions(partition):
    y, more_y = np.arange(600) % 6, np.arange(300) % 6
    data = labelled(y, more_y)
    f = split(data, 6, partition, seed=1, keep_test=True)
    assert torch.cat(f.train).max() < 600 <= torch.cat(f.test).min()
    assert torch.equal(torch.cat(f.train).sort().values, torch.arange(600))
    assert torch.equal(torch.cat(f.test).sort().values, torch.arange(600, 900))
    train, test = f.label_counts("train"), f.label_counts("test")
    assert (abs(train - 2 * test) <= 2).all()  # twice as many to train on, up to rounding
    capped = split(data, 6, partition, seed=1, keep_test=True, per_client=60, test_share=1 / 3)
    assert max(len(index) for index in capped.train) <= 40 and max(len(index) for index in capped.test) <= 20
    for train, test in zip(capped.train, capped.test, strict=True):
        assert set(data.y[test].tolist()) <= set(data.y[train].tolist())


def test_digests_tell_federations_and_data_apart_and_ignore_the_dtype():
    f = split(DIGITS, 5, seed=0)
    assert f.digest == split(DIGITS, 5, seed=0).digest == f.to(dtype=torch.float64).digest
    assert f.digest != split(DIGITS, 5, seed=1).digest
    changed = DIGITS.x.clone()
    changed[7, 0, 0, 0] += 1
    assert replace(DIGITS, x=changed).digest != DIGITS.digest
    assert split(replace(DIGITS, x=changed), 5, seed=0).digest != f.digest
