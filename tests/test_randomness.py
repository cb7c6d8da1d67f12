"""What is drawn: batches, cohorts, views and weights differ where they should, repeat where they should, and are draws
without replacement."""

import threading
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from fedecouple_lite import Federation, from_arrays, make, net_for, split
from fedecouple_lite.engine import PREDICT, TRAIN, draw_cohort, local_data


@pytest.fixture(scope="module")
def equal(few):
    """Three clients of 20 digits each."""
    index = torch.arange(60).split(20)
    return Federation(few, index, index)


def epochs_of(federation, seed=0, purpose=TRAIN, t=1, k=0, epochs=1, batch_size=6):
    """The epochs that one client goes through: each a list of batches, a batch a list of image numbers."""
    data = local_data(federation, make("fedavg", batch_size=batch_size), k, [seed, purpose, t], threading.Event())
    return [[batch.tolist() for batch in data.batches(1)] for _ in range(epochs)]


def test_an_epoch_takes_every_image_once_in_batches_of_the_size_asked_for(equal):
    for batches in epochs_of(equal, epochs=5):
        assert [len(batch) for batch in batches] == [6, 6, 6, 2]
        assert sorted(image for batch in batches for image in batch) == list(range(20))
    (one_batch,) = epochs_of(equal, batch_size=1000)
    assert [len(batch) for batch in one_batch] == [20]


def test_batches_differ_between_epochs_phases_clients_rounds_seeds_and_purposes(equal):
    orders = {
        "as it is": epochs_of(equal),
        "another client": epochs_of(equal, k=1),
        "another round": epochs_of(equal, t=2),
        "another seed": epochs_of(equal, seed=1),
        "to predict": epochs_of(equal, purpose=PREDICT),
    }
    for (what, one), (other_what, other) in combinations(orders.items(), 2):
        assert one != other, (what, other_what)
    first, second, third = epochs_of(equal, epochs=3)  # three phases of one epoch each
    assert first != second != third != first


def test_the_same_keys_give_the_same_batches(equal):
    assert epochs_of(equal, seed=5, t=7, k=2, epochs=3) == epochs_of(equal, seed=5, t=7, k=2, epochs=3)


def test_the_order_of_images_is_even(equal):
    """Over many rounds every image comes first about equally often."""
    firsts = np.bincount([epochs_of(equal, t=t)[0][0][0] for t in range(1, 801)], minlength=20)
    assert chisquare(firsts).pvalue > 1e-3


def cohorts(federation, participation=0.3, seed=0, rounds=200):
    return [draw_cohort(federation, participation, seed, t) for t in range(1, rounds + 1)]


def test_cohorts_have_the_size_asked_for_and_nobody_twice(digits):
    federation = split(digits, 11, "iid")
    for participation, size in ((1.0, 11), (0.5, 6), (0.3, 3), (0.04, 1), (0.001, 1)):
        for cohort in cohorts(federation, participation, rounds=20):
            assert len(cohort) == len(set(cohort)) == size and cohort == sorted(cohort)
            assert set(cohort) <= set(range(11))


def test_cohorts_vary_with_round_and_seed_repeat_and_treat_all_clients_alike(digits):
    federation = split(digits, 10, "iid")
    drawn = cohorts(federation)
    assert drawn == cohorts(federation) != cohorts(federation, seed=1)
    assert len({tuple(cohort) for cohort in drawn}) > 60  # of 120 possible ones
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    assert counts.sum() == 600 and chisquare(counts).pvalue > 1e-3


def test_views_of_images_differ_between_clients_rounds_and_seeds_and_repeat(few):
    x = torch.randint(0, 255, (30, 3, 8, 8), dtype=torch.uint8)
    data = from_arrays("colour", x.numpy(), few.y[:30].numpy(), x[:0].numpy(), few.y[:0].numpy(), range(10))
    index = torch.arange(30).split(10)
    federation = Federation(data, index, index)

    def views(seed=0, t=1, k=0):
        local = local_data(federation, make("fedavg"), k, [seed, TRAIN, t], threading.Event(), "crop_flip")
        return [local.draw_views(10).tolist() for _ in range(2)]

    assert views() == views() and views()[0] != views()[1]
    assert len({str(v) for v in (views(), views(seed=1), views(t=2), views(k=1))}) == 4


def test_initial_weights_are_uniform_within_one_over_the_root_of_the_fan_in():
    """PyTorch's default for convolutions and linear layers, layer by layer."""
    net = net_for((1, 8, 8), 10)
    weights = net.init(3)
    fan_in = {"extractor.0": 1 * 3 * 3, "extractor.3": 16 * 3 * 3, "extractor.7": 32 * 2 * 2, "classifier": 128}
    assert {name.rpartition(".")[0] for name in weights} == set(fan_in)
    for name, tensor in weights.items():
        bound = fan_in[name.rpartition(".")[0]] ** -0.5
        scaled = ((tensor.flatten().double() / bound) + 1) / 2  # uniform in [0, 1]
        assert float(scaled.min()) >= 0 and float(scaled.max()) <= 1
        assert kstest(scaled.numpy(), "uniform").pvalue > 1e-3, name
    other = net.init(4)
    assert not any(torch.equal(weights[name], other[name]) for name in weights)
