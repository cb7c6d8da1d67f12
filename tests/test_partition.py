from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecouple_lite import PARTITIONS, from_arrays, load, split, unevenness
from fedecouple_lite.partition import (
    dirichlet_shares,
    split_by_class,
    split_in_proportion,
    split_unseen,
    train_test_split_by_class,
)
from fedecouple_lite.studies.experiment import Setting

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
    name = "".join(["mix", "ture"])  # as from a command line: equal to the library's own word, and no more
    counts = split(DIGITS, 5, name, 0, share=0.2, per_client=100, test_share=0).label_counts()
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
        ({"partition": "quantity", "sigma": 0}, "sigma=0 must be"),
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


# --- Every client and every class, by hand; the test part as well as the training part ---


def all_of(federation, k):
    """Both parts of client k."""
    return torch.cat([federation.train[k], federation.test[k]])


def counts_of(federation):
    """(N, C), both parts together."""
    return federation.label_counts("train") + federation.label_counts("test")


def test_label_counts_are_of_the_part_asked_for():
    f = split(DIGITS, 6, "dirichlet", 3, test_share=0.3)
    for part, indices in (("train", f.train), ("test", f.test)):
        for k, index in enumerate(indices):
            for c in range(10):
                assert f.label_counts(part)[k, c] == sum(DIGITS.y[i].item() == c for i in index)
    with pytest.raises(ValueError, match="part='both' must be train or test"):
        f.label_counts("both")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("per_client", [None, 80])
def test_the_mixture_gives_every_client_its_dominant_classes(share, per_client):
    """Client k's are 2k, 2k + 1, 2k + 2 (mod 10): they share 1 - s of its images, all ten share s."""
    f = split(DIGITS, 12, "mixture", 1, share=share, per_client=per_client)
    law = np.full((12, 10), share / 10)
    for k in range(12):
        for c in (2 * k, 2 * k + 1, 2 * k + 2):
            law[k, c % 10] += (1 - share) / 3
    counts = counts_of(f)
    if per_client is not None:
        expected = law * per_client
        assert (counts.sum(1) == per_client).all()
    else:
        expected = law / law.sum(0) * np.bincount(DIGITS.y.numpy(), minlength=10)
    assert np.abs(counts - expected).max() <= 1
    test = f.label_counts("test")
    assert np.abs(test - counts / 2).max() <= 2  # test_share 0.5; classes of one image owe theirs to later ones


def test_the_mixture_of_many_classes_draws_a_tenth_of_them_for_each_client():
    y = np.arange(8000) % 40
    f = split(labelled(y), 25, "mixture", 2, share=0.2, per_client=100)
    counts = counts_of(f)
    dominant = counts > 10  # 4 of 40 classes share 80 images; the others have at most one each
    assert (dominant.sum(1) == 4).all() and (counts[~dominant] <= 1).all()
    assert len({tuple(row) for row in dominant}) > 20 and dominant.any(0).sum() > 35  # drawn per client


def test_pathological_owners_share_each_class_evenly():
    f = split(DIGITS, 15, "pathological", 4, classes_per_client=4)
    counts = counts_of(f)
    owners = counts > 0
    assert (owners.sum(1) == 4).all() and (owners.sum(0) == 6).all()  # 60 cards of ten kinds
    for c in range(10):
        of_owners = counts[owners[:, c], c]
        assert of_owners.max() - of_owners.min() <= 1
        assert of_owners.sum() == (DIGITS.y == c).sum()
    assert not np.array_equal(owners, counts_of(split(DIGITS, 15, "pathological", 5, classes_per_client=4)) > 0)


def test_classes_are_divided_by_their_own_column_of_weights():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 500) * 2 + 1  # labels 1, 3, 5
    weights = rng.random((4, 3))
    parts = split_by_class(y, weights, rng)
    for column, label in enumerate((1, 3, 5)):
        held = [np.sum(y[part] == label) for part in parts]
        expected = weights[:, column] / weights[:, column].sum() * np.sum(y == label)
        assert np.abs(held - expected).max() <= 1
    for part in parts:  # which of the images is drawn, too: not the first ones of the class
        assert not np.array_equal(np.sort(part), part)
    pieces = split_in_proportion(np.arange(7, 17), np.array([0.0, 3.0, 1.0]))
    assert [piece.tolist() for piece in pieces] == [[], [7, 8, 9, 10, 11, 12, 13, 14], [15, 16]]


def test_each_class_has_a_dirichlet_draw_of_its_own():
    """The clients' shares of two classes are not related; with one draw for all classes they would be equal."""
    shares = dirichlet_shares(0.5, 5, 20_000, np.random.default_rng(1))
    related = np.corrcoef(shares[0, :10_000], shares[0, 10_000:])[0, 1]
    assert abs(related) < 0.05
    counts = counts_of(split(DIGITS, 8, "dirichlet", 0, alpha=0.3))
    assert np.abs(np.corrcoef(counts.T) - 1)[np.triu_indices(10, 1)].mean() > 0.3


def test_sizes_of_quantity_skew_are_log_normal_and_labels_even():
    data = labelled(np.arange(60_000) % 2)
    for sigma in (0.5, 1.5):
        f = split(data, 300, "quantity", 0, sigma=sigma)
        sizes = np.array([len(all_of(f, k)) for k in range(300)])
        assert sizes.sum() == 60_000 and sizes.min() >= 2
        logs = np.log(np.maximum(sizes - 2, 0.5))  # the two that everyone has are not part of the law
        quartiles = np.quantile(logs, (0.25, 0.75))
        assert (quartiles[1] - quartiles[0]) / 1.349 == pytest.approx(sigma, rel=0.12)  # of a normal law
        ones = np.array([(data.y[all_of(f, k)] == 1).float().mean().item() for k in range(300)])
        assert abs(ones[sizes > 100] - 0.5).max() < 0.25


def test_iid_sizes_differ_by_one_at_most_and_images_are_shuffled():
    f = split(DIGITS, 7, "iid", 2)
    sizes = [len(all_of(f, k)) for k in range(7)]
    assert max(sizes) - min(sizes) <= 1
    assert all(all_of(f, k).max() - all_of(f, k).min() > 1500 for k in range(7))


@pytest.mark.parametrize("keep_test", [False, True])
def test_feature_skew_turns_every_image_of_every_client_in_both_parts(keep_test):
    data = labelled(np.arange(60) % 3, np.arange(45) % 3)
    f = split(data, 6, "feature", 1, keep_test=keep_test)
    for k in range(6):
        for index in (f.train[k], f.test[k]):
            assert len(index)
            for i in index:
                by_hand = np.rot90(data.x[i, 0].numpy(), k % 4)
                assert np.array_equal(f.data.x[i, 0].numpy(), by_hand), (k, i)


def test_per_client_is_a_cap_on_both_parts_together_and_takes_at_random():
    whole = split(DIGITS, 9, "dirichlet", 5)
    capped = split(DIGITS, 9, "dirichlet", 5, per_client=50)
    for k in range(9):
        size = len(all_of(whole, k))
        assert len(all_of(capped, k)) == min(50, size)
        assert set(all_of(capped, k).tolist()) <= set(all_of(whole, k).tolist())
        if size > 100:  # a draw from all classes that the client holds, not the first ones
            held = set(DIGITS.y[all_of(whole, k)].tolist())
            assert len(set(DIGITS.y[all_of(capped, k)].tolist())) > len(held) / 2


@pytest.mark.parametrize("test_share", [0.0, 0.25, 0.5, 0.8])
def test_the_share_of_test_images_is_kept_by_every_client_and_class(test_share):
    f = split(DIGITS, 4, "iid", 0, test_share=test_share)
    for k in range(4):
        counts, test = counts_of(f)[k], f.label_counts("test")[k]
        assert abs(test.sum() - test_share * counts.sum()) <= 1
        assert np.abs(test - test_share * counts).max() <= 1


@pytest.mark.parametrize("share", [0.25, 0.4, 0.75])
def test_validation_images_are_a_share_of_each_class_of_the_training_images(share):
    f = split(DIGITS, 4, "iid", 0, test_share=0.3)
    v = f.validation(share)
    for k in range(4):
        assert torch.equal(all_of(v, k).sort().values, f.train[k].sort().values)
        before, held_out = f.label_counts("train")[k], v.label_counts("test")[k]
        assert np.abs(held_out - share * before).max() <= 1
    default = f.validation().label_counts("test").sum() / f.label_counts("train").sum()
    assert default == pytest.approx(0.4, abs=0.01)


def test_unevenness_is_zero_only_for_even_divisions_and_each_figure_is_its_own():
    """Three clients of 10, 20 and 30 images of two classes."""
    counts = np.array([[10, 0], [5, 15], [15, 15]])
    figures = unevenness(counts)
    # The whole is (1/2, 1/2): distances 1/2, 1/4, 0. Sizes differ by 2 (10 + 20 + 10) / 9 on average, over 2 x 20.
    assert figures["label_skew"] == pytest.approx((0.5 + 0.25 + 0) / 3)
    assert figures["classes_per_client"] == pytest.approx(5 / 3)
    assert figures["size_skew"] == pytest.approx((80 / 9) / 40)
    assert unevenness(np.array([[4, 4], [4, 4]])) == {"label_skew": 0, "classes_per_client": 2, "size_skew": 0}


def test_what_one_client_cannot_spare_the_next_does_not_owe():
    """Client 0 has one image of each class, all to train on; client 1 has twenty of one, half of them to test on."""
    data = labelled([*range(10), *[3] * 20, *[5] * 8])
    parts = [np.arange(10), np.arange(10, 30), np.arange(30, 38)]
    train, test = train_test_split_by_class(data, parts, 0.5)
    assert [len(index) for index in train] == [10, 10, 4] and [len(index) for index in test] == [0, 10, 4]


@pytest.mark.parametrize(("name", "value"), [("share", 0.0), ("share", 1.0)])
def test_an_option_of_zero_is_one(name, value):
    """Setting and `split` agree, and zero is not the default."""
    f = Setting(partition="mixture", clients=6, share=value).federation(0)
    assert f.digest == split(DIGITS, 6, "mixture", 0, share=value).digest
    assert f.digest != split(DIGITS, 6, "mixture", 0).digest


def test_a_class_that_no_client_of_a_mixture_is_given_goes_to_all():
    """Two clients at share 0 are given classes 0 to 4 alone: the others are divided between them, none is lost."""
    f = split(DIGITS, 2, "mixture", 0, share=0.0, test_share=0)
    counts = f.label_counts()
    assert np.array_equal(counts.sum(0), np.bincount(DIGITS.y))
    assert counts[0, [3, 4]].sum() == 0 and counts[1, [0, 1]].sum() == 0
    assert (abs(counts[0, 5:] - counts[1, 5:]) <= 1).all()


def test_a_test_part_that_leaves_nothing_to_train_on_is_refused():
    from fedecouple_lite import from_arrays

    x, y = DIGITS.x[:, 0].numpy(), DIGITS.y.numpy()
    kept = from_arrays("kept", x[:900], y[:900], x[900:], y[900:], range(10))
    for per_client, test_share in ((2, 0.9), (3, 0.99)):
        message = f"test_share={test_share} must be smaller: of per_client={per_client} images none is left to train on"
        with pytest.raises(ValueError, match=message):
            split(kept, 3, "iid", per_client=per_client, test_share=test_share, keep_test=True)
    train = split(kept, 3, "iid", per_client=2, test_share=0.6, keep_test=True).train
    assert [len(index) for index in train] == [1, 1, 1]


@pytest.mark.parametrize(("per_client", "test_share", "train", "test"), [(30, 1 / 3, 20, 10), (40, 0.25, 30, 10)])
def test_of_a_set_with_its_own_test_part_each_client_has_its_share_of_both(per_client, test_share, train, test):
    """Of per_client images in all, test_share are for testing, where there are so many."""
    from fedecouple_lite import from_arrays

    x, y = DIGITS.x[:, 0].numpy(), DIGITS.y.numpy()
    kept = from_arrays("kept", x[:1000], y[:1000], x[1000:], y[1000:], range(10))
    f = split(kept, 5, "iid", per_client=per_client, test_share=test_share, keep_test=True)
    assert [len(index) for index in f.train] == [train] * 5
    assert [len(index) for index in f.test] == [test] * 5


# --- Natural federations: each person a client ---


def owned(images=(6, 4, 3, 2, 1), test_images=(2, 0, 1, 3, 0), classes=3, unseen=None):
    """Made-up images of owners 10, 11, ...: so many of each in the training and in the test part, shuffled."""
    rng = np.random.default_rng(3)
    w_train = rng.permutation(np.repeat(10 + np.arange(len(images)), images))
    w_test = rng.permutation(np.repeat(10 + np.arange(len(test_images)), test_images))
    n, more = len(w_train), len(w_test)
    x = rng.integers(0, 255, (n + more, 8, 8), dtype=np.uint8)
    y = np.arange(n + more) % classes
    others = {}
    if unseen is not None:
        theirs = np.repeat(90 + np.arange(len(unseen)), unseen)
        their_x = rng.integers(0, 255, (len(theirs), 8, 8), dtype=np.uint8)
        others = {"x_unseen": their_x, "y_unseen": np.arange(len(theirs)) % classes, "w_unseen": theirs}
    return from_arrays("owned", x[:n], y[:n], x[n:], y[n:], range(classes), w_train=w_train, w_test=w_test, **others)


many_owners = st.lists(st.integers(1, 30), min_size=2, max_size=12)


@given(many_owners, st.integers(0, 10**6), st.floats(0, 0.9), st.integers(1, 8), st.data())
@settings(max_examples=60, deadline=None)
def test_a_natural_client_holds_all_images_of_one_owner_and_no_other(images, seed, test_share, min_images, data):
    d = owned(images, [0] * len(images))
    enough = sum(n >= min_images for n in images)
    if not enough:
        return
    clients = data.draw(st.integers(1, enough))
    f = split(d, clients, "natural", seed, test_share=test_share, min_images=min_images)
    assert len(f) == clients == len(set(f.owners)) and list(f.owners) == sorted(f.owners)
    for k, owner in enumerate(f.owners):
        assert torch.equal(all_of(f, k).sort().values, torch.nonzero(d.owners == owner)[:, 0])
        assert len(all_of(f, k)) == images[owner - 10] >= min_images
        assert set(d.y[f.test[k]].tolist()) <= set(d.y[f.train[k]].tolist())


def test_as_many_clients_as_owners_are_all_of_them_in_order():
    assert split(owned(), 5, "natural", 7, min_images=1).owners == (10, 11, 12, 13, 14)
    assert split(owned(), 4, "natural", 7).owners == (10, 11, 12, 13)  # owner 14 has one image


def test_owners_are_drawn_with_the_seed_and_all_are_drawn_alike():
    d = owned([3] * 10, [0] * 10)
    drawn = [split(d, 4, "natural", seed).owners for seed in range(200)]
    assert drawn[:20] == [split(d, 4, "natural", seed).owners for seed in range(20)]
    counts = np.bincount(np.concatenate(drawn) - 10, minlength=10)
    assert counts.sum() == 800 and counts.min() > 50 and len(set(drawn)) > 100


@pytest.mark.parametrize("clients", [4, 3])
def test_kept_test_images_are_the_owners_own(clients):
    d = owned()
    f = split(d, clients, "natural", 1, keep_test=True)
    first = len(d.y) - d.own_test
    for owner, train, test in zip(f.owners, f.train, f.test, strict=True):
        theirs = torch.nonzero(d.owners == owner)[:, 0]
        assert torch.equal(train.sort().values, theirs[theirs < first])
        assert torch.equal(test.sort().values, theirs[theirs >= first])
    assert {10: 2, 11: 0, 12: 1, 13: 3}[f.owners[-1]] == len(f.test[-1])


def test_min_images_counts_the_images_that_are_divided():
    d = owned()  # with its test part owner 13 has five images, and two to train on
    assert split(d, 4, "natural", min_images=4, test_share=0).owners == (10, 11, 12, 13)
    assert split(d, 2, "natural", min_images=4, keep_test=True).owners == (10, 11)


def test_per_client_caps_a_natural_client_in_both_parts():
    d = owned((12, 9, 8), (6, 5, 1))
    pooled = split(d, 3, "natural", 0, per_client=6, test_share=1 / 3)
    assert [len(all_of(pooled, k)) for k in range(3)] == [6, 6, 6]
    kept = split(d, 3, "natural", 0, per_client=6, test_share=1 / 3, keep_test=True)
    assert [len(index) for index in kept.train] == [4, 4, 4] and [len(index) for index in kept.test] == [2, 2, 1]
    for owner, index in zip(kept.owners, kept.test, strict=True):
        assert (d.owners[index] == owner).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clients": 5}, "clients=5 must be at most 4, the number of owners with min_images=2 images or more"),
        ({"clients": 2, "min_images": 9}, "clients=2 must be at most 0, the number of owners with min_images=9"),
        ({"min_images": 0}, "min_images=0 must be a whole number >= 1"),
        ({"min_images": 1.5}, "min_images=1.5 must be a whole number >= 1"),
        ({"min_images": float("nan")}, "min_images=nan must be a whole number >= 1"),
        ({"min_images": True}, "min_images=True must be a number"),
        ({"alpha": 0.3}, "alpha=0.3 must be known to partition='natural', which takes: min_images"),
        ({"partition": "iid", "min_images": 2}, "min_images=2 must be known to partition='iid'"),
        ({"partition": "naturel"}, "partition='naturel' is unknown; did you mean 'natural'"),
    ],
)
def test_a_natural_split_that_cannot_be_made_says_what_to_change(options, message):
    with pytest.raises(ValueError, match=message):
        split(owned(), **{"clients": 3, "partition": "natural"} | options)


def test_a_set_without_owners_cannot_be_a_natural_federation():
    with pytest.raises(ValueError, match="partition='natural' must be another for data='digits', which does not say"):
        split(DIGITS, 3, "natural")
    with pytest.raises(ValueError, match="data='digits' must be one with images of unseen people"):
        split_unseen(DIGITS)


def test_other_partitions_do_not_look_at_owners():
    d = owned()
    without = replace(d, owners=None)
    a, b = split(d, 3, "iid", 2), split(without, 3, "iid", 2)
    assert a.owners is None
    assert all(torch.equal(x, y) for x, y in zip((*a.train, *a.test), (*b.train, *b.test), strict=True))


def test_a_natural_federation_keeps_its_owners_for_validation_and_in_another_dtype():
    f = split(owned(), 3, "natural", 1)
    assert f.validation().owners == f.to(dtype=torch.float64).owners == f.owners


def test_unseen_people_are_a_federation_of_newcomers():
    d = owned(unseen=(8, 1, 6))
    f = split_unseen(d, seed=4, test_share=0.5)
    assert f.owners == (90, 92) and f.data is d.unseen  # 91 has one image
    assert [len(all_of(f, k)) for k in range(2)] == [8, 6]
    for k in range(2):
        counts, test = counts_of(f)[k], f.label_counts("test")[k]
        assert np.abs(test - counts / 2).max() <= 1 and (counts > test)[counts > 0].all()
    assert split_unseen(d, seed=4).digest == f.digest != split_unseen(d, seed=5).digest
    assert split_unseen(d, min_images=1).owners == (90, 91, 92)
    with pytest.raises(ValueError, match="min_images=9 must be smaller: none of the unseen people of 'owned'"):
        split_unseen(d, min_images=9)


def test_real_writers_are_clients_and_real_newcomers_join(real_images):
    path = real_images / "femnist_writers.npz"
    if not path.exists():
        pytest.skip("no handwriting here")
    d = load(path)
    f = split(d, 100, "natural", keep_test=True)
    assert f.owners == tuple(range(100)) and sum(len(index) for index in f.train) == 14561
    assert sum(len(index) for index in f.test) == 1677
    newcomers = split_unseen(d)
    assert len(newcomers) == 78 and set(newcomers.owners) <= set(range(100, 179))  # one has a single image
