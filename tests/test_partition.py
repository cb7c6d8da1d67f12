import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecouple_lite import PARTITIONS, from_arrays, load, split, unevenness

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
        ({"alpha": 0.0}, "alpha=0.0 must be a number above 0"),
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
    ],
)
def test_a_split_that_cannot_be_made_says_what_to_change(options, message):
    with pytest.raises(ValueError, match=message):
        split(DIGITS, **options)


def test_one_image_each_leaves_no_test_image_but_a_training_one():
    x = np.zeros((3, 8, 8), np.uint8)
    f = split(from_arrays("three", x, np.arange(3), x[:0], np.arange(0)), 3, "iid", 0)
    assert [len(t) for t in f.train] == [1, 1, 1] and [len(t) for t in f.test] == [0, 0, 0]
