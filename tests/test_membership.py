"""Membership inference: scores by hand, an overfitted client that gives its images away, and chance where there is
nothing to find."""

from math import exp, log

import numpy as np
import pytest
import torch

from fedecouple_lite import make, rounds, split
from fedecouple_lite.losses import cross_entropy
from fedecouple_lite.security.membership import (
    attack,
    auc,
    chance_error,
    likelihood_ratio,
    logit_of_true_class,
    loss_threshold,
    losses_of,
    tpr_at,
)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="module")
def overfitted(net, digits):
    """Six clients of 30 digits after 20 epochs, and many digits that nobody trained on."""
    federation = split(digits, clients=6, partition="iid", seed=1, per_client=60)
    method = make("fedavg", epochs=20, batch_size=10)
    return federation, next(rounds(method, net, federation, rounds=1))


def labelled(federation, index):
    return federation.data.images(index), federation.data.y[index]


# --- The figures, by hand ---


def test_auc_is_the_share_of_pairs_in_order():
    assert auc(numbers(3, 1), numbers(2, 0)) == 0.75
    assert auc(numbers(2, 3), numbers(0, 1)) == 1
    assert auc(numbers(0), numbers(1, 2)) == 0
    assert auc(numbers(1, 2), numbers(1, 3)) == 0.375  # 1 > none, ties one; 2 > one: (0.5 + 1) / 4


def test_auc_equals_counting_pairs():
    rng = np.random.default_rng(0)
    members, others = torch.from_numpy(rng.integers(0, 6, 40)), torch.from_numpy(rng.integers(0, 5, 30))
    above = (members[:, None] > others[None]).double() + (members[:, None] == others[None]).double() / 2
    assert auc(members.double(), others.double()) == pytest.approx(above.mean().item())


def test_a_constant_score_tells_nothing():
    assert auc(torch.zeros(5), torch.zeros(9)) == 0.5
    assert tpr_at(torch.zeros(5), torch.zeros(9)) == 0


def test_members_found_at_one_percent_false_alarms():
    """Of 100 others one may be taken for a member: the threshold is the second highest."""
    others = torch.arange(100).double()
    members = numbers(98.5, 97.5, 200, 50)
    assert tpr_at(members, others, 0.01) == 0.5  # 98.5 and 200, above all others but 99
    assert tpr_at(members, others, 0.0) == 0.25
    assert tpr_at(members, others, 0.02) == 0.75
    assert tpr_at(members, others, 1.0) == 1
    few = others[-50:]  # one of 50 is more than 1 %
    assert tpr_at(members, few, 0.01) == 0.25


def test_the_error_at_chance_is_that_of_all_orders():
    """Every order of 3 members among 7 images: the spread of the AUC."""
    from itertools import combinations

    areas = []
    for places in combinations(range(7), 3):
        rest = [place for place in range(7) if place not in places]
        areas.append(auc(numbers(*places), numbers(*rest)))
    assert np.mean(areas) == pytest.approx(0.5)
    assert np.std(areas) == pytest.approx(chance_error(3, 4))


# --- The scores, by hand ---


def test_the_logit_of_the_true_class():
    for p in (0.01, 0.5, 0.99):
        assert logit_of_true_class(numbers(-log(p))).item() == pytest.approx(log(p / (1 - p)))
    sure = logit_of_true_class(numbers(0.0, 1e-15, 800.0))
    assert torch.isfinite(sure).all() and sure[0] == sure[1] > 20 and sure[2] == pytest.approx(-800)


def test_the_likelihood_ratio_counts_standard_deviations():
    """Sureness 0 under the model; 1 and 3 under two others, then -4 and 0."""

    def loss(logit):
        return log(1 + exp(-logit))

    losses = numbers(loss(0), loss(0))
    under_others = torch.tensor([[loss(1), loss(-4)], [loss(3), loss(0)]], dtype=torch.float64)
    each = likelihood_ratio(losses, under_others, "each")
    assert each.tolist() == pytest.approx([-2 / 2**0.5, 2 / 8**0.5])  # variances 2 and 8
    common = likelihood_ratio(losses, under_others, "common")
    assert common.tolist() == pytest.approx([-2 / 5**0.5, 2 / 5**0.5])  # 5 is their mean


def test_an_easy_image_is_a_member_by_its_loss_and_not_beside_other_models():
    losses = numbers(0.01, 0.5)
    under_others = torch.tensor([[0.01, 2.0], [0.012, 2.2], [0.009, 1.9]], dtype=torch.float64)
    by_loss = loss_threshold(losses)
    assert by_loss[0] > by_loss[1]
    beside_others = likelihood_ratio(losses, under_others)
    assert beside_others[0] < beside_others[1]


def test_losses_are_cross_entropies(net, few):
    weights = net.init(0)
    x, y = few.images(torch.arange(20)), few.y[:20]
    expected = cross_entropy(net.logits(weights, x), y)
    assert torch.allclose(losses_of(net, weights, x, y), expected.double(), atol=1e-5)


# --- The attack ---


def test_an_overfitted_client_gives_its_images_away(net, overfitted):
    federation, state = overfitted
    others = labelled(federation, torch.cat(federation.test))
    references = state.clients[1:]
    members = labelled(federation, federation.train[0])
    for found in (
        attack(net, state.clients[0], members, others),
        attack(net, state.clients[0], members, others, references),
        attack(net, state.clients[0], members, others, references, "each"),
    ):
        assert found.auc > 0.5 + 4 * found.error
        assert found.auc > 0.7
        assert len(found.members) == len(members[1]) and len(found.others) == len(others[1])


def test_the_mean_over_clients_gives_less_away_than_a_client(net, overfitted):
    federation, state = overfitted
    others = labelled(federation, torch.cat(federation.test))
    of_clients, of_mean = [], []
    for k, index in enumerate(federation.train):
        members = labelled(federation, index)
        of_clients.append(attack(net, state.clients[k], members, others).auc)
        of_mean.append(attack(net, state.server, members, others).auc)
    assert np.mean(of_clients) > np.mean(of_mean) + 0.1


def test_images_that_nobody_trained_on_are_at_chance(net, overfitted):
    """Halves of the held-out images, drawn at random: as members and as others."""
    federation, state = overfitted
    held_out = torch.cat(federation.test)
    for seed in range(3):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(held_out)))
        half = len(order) // 2
        some = labelled(federation, held_out[order[:half]])
        rest = labelled(federation, held_out[order[half:]])
        for references in ((), state.clients[1:]):
            found = attack(net, state.clients[0], some, rest, references)
            assert abs(found.auc - 0.5) < 3 * found.error


def test_an_untrained_model_has_no_members(net, overfitted):
    federation, _ = overfitted
    members = labelled(federation, federation.train[0])
    others = labelled(federation, torch.cat(federation.test))
    found = attack(net, net.init(0), members, others)
    assert abs(found.auc - 0.5) < 3 * found.error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auc(torch.zeros(0), torch.zeros(2)), r"members=\(0,\) must be scores"),
        (lambda: auc(torch.zeros(2), torch.zeros(0)), r"others=\(0,\) must be scores"),
        (lambda: tpr_at(torch.zeros(0), torch.zeros(2)), r"members=\(0,\) must be scores"),
        (lambda: auc(numbers(float("nan"), 1), numbers(0)), r"members=\[nan, 1.0\] must be finite scores"),
        (lambda: tpr_at(numbers(1), numbers(float("inf"))), r"others=\[inf\] must be finite scores"),
        (lambda: tpr_at(numbers(1), numbers(0), 1.5), "fpr=1.5 must be a number from 0 to 1"),
        (lambda: chance_error(0, 3), "members=0 must be at least 1"),
        (lambda: likelihood_ratio(numbers(1), torch.ones(1, 1)), r"under_others=\(1, 1\) must be \(K, 1\), of at l"),
        (lambda: likelihood_ratio(numbers(1), torch.ones(2, 3)), r"under_others=\(2, 3\) must be"),
        (lambda: likelihood_ratio(numbers(1), torch.ones(2, 1), "eech"), "spread='eech' is unknown; did you mean 'eac"),
        (lambda: likelihood_ratio(numbers(), torch.ones(2, 0)), r"losses=\(0,\) must be one loss an image"),
    ],
)
def test_an_argument_that_cannot_be_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_images_is_an_error(net, few):
    x, y = few.images(torch.arange(4)), few.y[:4]
    with pytest.raises(ValueError, match=r"images=\(0, 0\) must be as many images as labels, at least one"):
        attack(net, net.init(0), (x[:0], y[:0]), (x, y))
    with pytest.raises(ValueError, match=r"images=\(4, 3\) must be"):
        attack(net, net.init(0), (x, y), (x, y[:3]))
