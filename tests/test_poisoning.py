"""Attackers: what they send, by hand; that only their own training images change; and that a backdoor opens."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import arrays, copied, last, same
from torch import nn

from fedecouple_lite import METHODS, DecoupledNet, Federation, from_arrays, load, make, net_for, rounds, split
from fedecouple_lite.client import ClientResult
from fedecouple_lite.engine import start
from fedecouple_lite.faults import ARRIVED, Turn
from fedecouple_lite.security.defences import ClipNorm, CoordinateMedian
from fedecouple_lite.security.poisoning import (
    GaussianUpdate,
    ScaledUpdate,
    SignFlip,
    Trigger,
    backdoor_success,
    draw_attackers,
    flip_labels,
    honest_accuracy,
    plant_backdoor,
    stamp,
    trigger_for,
)

QUICK = {"lr": 0.05, "epochs": 1, "batch_size": 8}
NET = DecoupledNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh()), nn.Linear(6, 10), (1, 8, 8))


@pytest.fixture(scope="module")
def digits_of_ten():
    """All digits, ten clients, alike."""
    return split(load("digits"), 10, "iid")


# --- What attackers send ---

DOWNLOAD = {
    "extractor.w": torch.tensor([1.0, 2.0]),
    "classifier.b": torch.tensor([0.5]),
    "prototypes.means": torch.ones(2),
}
UPLOAD = {
    "extractor.w": torch.tensor([1.5, 1.0]),
    "classifier.b": torch.tensor([1.5]),
    "classifier.new": torch.tensor([7.0]),  # it was not sent
    "prototypes.means": torch.tensor([3.0, 4.0]),
    "extractor.seen": torch.tensor([3]),
}


def sent_by(attack, client=3, download=DOWNLOAD, t=1, seed=0):
    result = ClientResult({"extractor.w": torch.zeros(2)}, UPLOAD, torch.tensor(0.5), 7)
    outcome = attack.after(Turn(seed, 0, t, client, download), result)
    assert outcome.fate == ARRIVED and outcome.result._replace(upload=UPLOAD) == result
    return outcome.result.upload


@pytest.mark.parametrize(
    ("attack", "w", "b"),
    [
        (SignFlip([3]), [0.5, 3.0], [-0.5]),
        (SignFlip([3], scale=4), [-1.0, 6.0], [-3.5]),
        (SignFlip([3], scale=0), [1.0, 2.0], [0.5]),
        (ScaledUpdate([3], scale=4), [3.0, -2.0], [4.5]),
        (ScaledUpdate([3], scale=1), [1.5, 1.0], [1.5]),
        (GaussianUpdate([3], std=0), [1.0, 2.0], [0.5]),
    ],
)
def test_what_is_sent_by_hand(attack, w, b):
    before = copied(UPLOAD), copied(DOWNLOAD)
    sent = sent_by(attack)
    assert sent["extractor.w"].tolist() == w and sent["classifier.b"].tolist() == b
    others = ("classifier.new", "prototypes.means", "extractor.seen")
    assert all(torch.equal(sent[name], UPLOAD[name]) for name in others)
    assert list(sent) == list(UPLOAD) and all(sent[name].dtype == UPLOAD[name].dtype for name in UPLOAD)
    assert same(UPLOAD, before[0]) and same(DOWNLOAD, before[1])
    assert same(sent_by(attack, client=2), UPLOAD)


def test_gaussian_noise_is_as_long_as_the_update_and_drawn_by_seed_client_and_round():
    download = {"extractor.w": torch.zeros(10_000), "classifier.b": torch.zeros(10_000)}
    upload = {"extractor.w": torch.full((10_000,), 0.5), "classifier.b": torch.full((10_000,), -3.0)}
    result = ClientResult({}, upload, torch.tensor(0.5), 7)

    def sent(t=1, client=3, seed=0):
        return GaussianUpdate([3, 4], std=2.0).after(Turn(seed, 0, t, client, download), result).result.upload

    assert sent()["extractor.w"].std().item() == pytest.approx(2 * 0.5, rel=0.05)
    assert sent()["classifier.b"].std().item() == pytest.approx(2 * 3.0, rel=0.05)
    assert sent()["classifier.b"].mean().item() == pytest.approx(0, abs=0.3)
    assert same(sent(), sent())
    others = [sent(t=2), sent(client=4), sent(seed=1)]
    assert len({tuple(upload["extractor.w"][:5].tolist()) for upload in (sent(), *others)}) == 4


@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_with_attackers_and_only_what_they_send_is_another(few, name):
    federation = split(few, 5, "iid")
    method = make(name, **QUICK)
    for attack in (SignFlip([1, 4], 2.0), ScaledUpdate([1, 4], 3.0), GaussianUpdate([1, 4], 1.0)):
        plain, state = (
            last(rounds(method, NET, federation, rounds=1, backend="loop", faults=faults)) for faults in ([], [attack])
        )
        assert all(same(a, b) for a, b in zip(plain.clients, state.clients, strict=True))
        assert same(plain.server, state.server) == (name == "local")
        later = last(rounds(method, NET, federation, rounds=2, state=state, backend="loop", faults=[attack]))
        assert all(torch.isfinite(tensor).all() for tensor in later.server.values())


def test_who_flips_the_sign_takes_away_from_the_mean_what_it_would_have_given(few):
    """Of four clients with equally many images one flips: the server moves by (u_1 + u_2 + u_3 - u_4) / 4."""
    federation = split(few, 4, "iid")
    federation = replace(federation, train=tuple(index[:16] for index in federation.train))
    method = make("fedavg", **QUICK)
    state = last(rounds(method, NET, federation, rounds=1, backend="loop", faults=[SignFlip([3])]))
    begin = NET.init(0)
    for name, tensor in state.server.items():
        signed = [
            sign * (client[name] - begin[name]) for sign, client in zip((1, 1, 1, -1), state.clients, strict=True)
        ]
        assert torch.allclose(tensor - begin[name], sum(signed) / 4, atol=1e-6)


# --- Who attacks ---


def test_attackers_are_drawn_by_seed_as_many_as_asked_for_and_nested(digits_of_ten):
    federation = split(load("digits"), 30, "iid")
    by_share = [draw_attackers(federation, share, seed=4) for share in (0, 0.1, 0.2, 0.5, 1)]
    assert [len(drawn) for drawn in by_share] == [0, 3, 6, 15, 30]
    assert all(set(fewer) < set(more) for fewer, more in pairwise(by_share))
    assert all(list(drawn) == sorted(set(drawn)) for drawn in by_share) and by_share[-1] == tuple(range(30))
    assert draw_attackers(federation, 0.5, seed=4) == by_share[3]
    assert len({draw_attackers(federation, 0.5, seed=s) for s in range(5)}) == 5
    chosen = [k for s in range(200) for k in draw_attackers(digits_of_ten, 0.3, seed=s)]
    assert all(np.bincount(chosen, minlength=10)[k] == pytest.approx(60, abs=25) for k in range(10))


def test_the_honest_clients_accuracy_leaves_attackers_out_and_those_without_test_images():
    record = {"accuracies": [1.0, 0.0, 0.5, float("nan"), 0.25]}
    assert honest_accuracy(record, [1, 4]) == pytest.approx(0.75)
    assert honest_accuracy(record, []) == pytest.approx(0.4375)
    assert np.isnan(honest_accuracy(record, [0, 1, 2, 4]))
    with pytest.raises(ValueError, match=r"clients=\(5,\) must be numbers from 0 to 4"):
        honest_accuracy(record, [5])


# --- Poisoned data ---


def test_flipped_are_the_training_labels_of_these_clients_alone(few):
    federation = split(few, 4, "dirichlet", alpha=0.5)
    x, y = few.x.clone(), few.y.clone()
    poisoned = flip_labels(federation, [1, 3])
    for k in range(4):
        before, after = few.y[federation.train[k]], poisoned.data.y[poisoned.train[k]]
        assert torch.equal(after, 9 - before if k in (1, 3) else before)
        assert torch.equal(poisoned.data.y[poisoned.test[k]], few.y[federation.test[k]])
        assert torch.equal(poisoned.train[k], federation.train[k])
    assert torch.equal(few.x, x) and torch.equal(few.y, y) and torch.equal(poisoned.data.x, x)
    assert poisoned.digest != federation.digest == flip_labels(federation, []).digest
    twice = flip_labels(poisoned, [1, 3])
    assert twice.digest == federation.digest


def in_colour(kind, n=40):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 200, (n, 3, 16, 16)).astype(kind)
    return from_arrays("colour", x / 200 if kind is np.float32 else x, np.arange(n) % 4, [], [])


@pytest.mark.parametrize("kind", ["grey uint8", "grey float", "colour uint8", "colour float"])
def test_a_stamp_is_as_bright_as_the_brightest_pixel_and_changes_nothing_else(kind):
    x, y = arrays(n=12, size=8)
    data = {
        "grey uint8": from_arrays("grey", x, y, [], []),
        "grey float": from_arrays("grey", x / np.float32(255) - 0.5, y, [], []),
        "colour uint8": in_colour(np.uint8),
        "colour float": in_colour(np.float32),
    }[kind]
    before = data.x.clone()
    trigger = trigger_for(data)
    assert trigger.value == data.x.max() and trigger.size == 2
    stamped = stamp(data.x, trigger)
    assert stamped.dtype == data.x.dtype and torch.equal(data.x, before)
    assert (stamped[:, :, -2:, -2:] == data.x.max()).all()
    stamped[:, :, -2:, -2:] = before[:, :, -2:, -2:]
    assert torch.equal(stamped, before)
    assert trigger_for(replace(data, x=torch.zeros(1, 1, 32, 32))) == Trigger(4, 0.0)


def test_a_backdoor_is_in_a_share_of_these_clients_training_images_of_other_classes(digits_of_ten):
    federation, data = digits_of_ten, digits_of_ten.data
    poisoned = plant_backdoor(federation, [2, 5], target=7, share=0.25)
    trigger = trigger_for(data)
    for k in range(10):
        assert torch.equal(poisoned.train[k], federation.train[k]) and torch.equal(poisoned.test[k], federation.test[k])
        index = federation.train[k]
        changed = poisoned.data.y[index] != data.y[index]
        others = int((data.y[index] != 7).sum())
        assert int(changed.sum()) == (round(0.25 * others) if k in (2, 5) else 0)
        assert (poisoned.data.y[index[changed]] == 7).all()
        assert torch.equal(poisoned.data.x[index[changed]], stamp(data.x[index[changed]], trigger))
        assert torch.equal(poisoned.data.x[index[~changed]], data.x[index[~changed]])
        tested = federation.test[k]
        assert torch.equal(poisoned.data.x[tested], data.x[tested])
        assert torch.equal(poisoned.data.y[tested], data.y[tested])
    assert data.x.max() == 16 and torch.equal(poisoned.data.mean, data.mean)
    assert plant_backdoor(federation, [2, 5], 7, share=0.25).digest == poisoned.digest
    assert plant_backdoor(federation, [2, 5], 7, share=0.25, seed=1).digest != poisoned.digest
    assert plant_backdoor(federation, [2, 5], 7, share=0).digest == federation.digest


def test_who_else_is_poisoned_does_not_matter_to_an_attacker(digits_of_ten):
    alone, both = (plant_backdoor(digits_of_ten, clients, target=0) for clients in ([2], [2, 5]))
    index = digits_of_ten.train[2]
    assert torch.equal(alone.data.y[index], both.data.y[index])


# --- A backdoor opens ---

TARGET = 0
ATTACKERS = (1, 3)
HONEST = [k for k in range(10) if k not in ATTACKERS]


def backdoored(federation, name="fedavg", attackers=ATTACKERS, until=8, **options):
    """Two of ten poison half of their images and send three times their update."""
    poisoned = plant_backdoor(federation, attackers, TARGET)
    method, net = make(name, epochs=2), net_for((1, 8, 8), 10)
    faults = [ScaledUpdate(attackers, 3.0)]
    state = last(rounds(method, net, poisoned, rounds=until, eval_every=until, faults=faults, **options))
    return state, backdoor_success(method, net, state, poisoned, TARGET, HONEST)


def test_a_backdoor_opens_in_undefended_fedavg_and_without_attackers_there_is_none(digits_of_ten):
    """Most images with the trigger are taken for a nought, while those without are known almost as well as before."""
    _, success = backdoored(digits_of_ten)
    _, nobody = backdoored(digits_of_ten, attackers=())
    assert success.server > 0.8 and success.server_accuracy > nobody.server_accuracy - 0.1 > 0.6
    assert nobody.server < 0.05
    assert success.personal == success.server and success.personal_accuracy == success.server_accuracy


def test_a_backdoor_of_scaled_updates_is_narrower_where_lengths_or_outliers_are_cut(digits_of_ten):
    for defence, most in ((ClipNorm(1.0), 0.7), (CoordinateMedian(), 0.1)):
        _, success = backdoored(digits_of_ten, defences=[defence])
        assert success.server < most and success.server_accuracy > 0.75


def test_success_and_accuracy_by_hand(digits_of_ten):
    """FedRoD: the server's model and the clients' own predict differently."""
    state, success = backdoored(digits_of_ten, "fedrod", until=2)
    net, method, data = net_for((1, 8, 8), 10), make("fedrod", epochs=2), digits_of_ten.data
    stamped_data = replace(data, x=stamp(data.x, trigger_for(data)))
    fooled, right, of_others, of_all = np.zeros(2), np.zeros(2), 0, 0
    for k in HONEST:
        index = digits_of_ten.test[k]
        others = index[data.y[index] != TARGET]
        for number, tensors in enumerate((None, state.clients[k])):
            for shown, at, counts in ((stamped_data, others, fooled), (data, index, right)):
                x = shown.images(at)
                logits = net.logits(state.server, x) if tensors is None else method.predict(net, tensors, {}, x)
                wanted = TARGET if counts is fooled else data.y[at]
                counts[number] += (logits.argmax(1) == wanted).sum().item()
        of_others, of_all = of_others + len(others), of_all + len(index)
    assert success == pytest.approx((*(fooled / of_others), *(right / of_all)))
    assert success.server != success.personal


@pytest.mark.parametrize("name", METHODS)
def test_success_can_be_had_of_every_method_and_where_there_is_no_whole_model_the_servers_is_nan(few, name):
    federation = split(few, 4, "iid")
    method = make(name, **QUICK)
    state = start(method, NET, federation)
    success = backdoor_success(method, NET, state, federation, TARGET, [0, 2])
    whole = {"extractor", "classifier"} <= {tensor.split(".")[0] for tensor in state.server}
    assert whole == (name not in ("local", "fedper", "fedrep", "fedpac", "lg_fedavg"))
    assert np.isnan(success.server) == np.isnan(success.server_accuracy) == (not whole)
    assert 0 <= success.personal <= 1 and 0 <= success.personal_accuracy <= 1
    nobody = backdoor_success(method, NET, state, federation, TARGET, [])
    assert np.isnan(list(nobody)).all()


# --- What cannot be ---


@pytest.mark.parametrize(
    ("make_attack", "message"),
    [
        (lambda: SignFlip(2), "clients=2 must be a list of clients' numbers, from 0 on"),
        (lambda: SignFlip([-1]), r"clients=\[-1\] must be"),
        (lambda: SignFlip([1], scale=-1), "scale=-1 must be a number >= 0"),
        (lambda: ScaledUpdate([1], scale=float("inf")), "scale=inf must be"),
        (lambda: ScaledUpdate([1], scale="2"), "scale='2' must be"),
        (lambda: GaussianUpdate([1], std=-0.5), "std=-0.5 must be a number >= 0"),
        (lambda: Trigger(0, 1.0), "size=0 must be a whole number >= 1"),
        (lambda: Trigger(2, float("nan")), "value=nan must be a number"),
    ],
)
def test_an_attack_outside_its_range_is_refused(make_attack, message):
    with pytest.raises(ValueError, match=message):
        make_attack()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda f: flip_labels(f, [4]), r"clients=\(4,\) must be numbers from 0 to 3"),
        (lambda f: plant_backdoor(f, [4], 0), r"clients=\(4,\) must be numbers from 0 to 3"),
        (lambda f: plant_backdoor(f, [1], 10), "target=10 must be a class, a whole number from 0 to 9"),
        (lambda f: plant_backdoor(f, [1], 0, share=1.5), "share=1.5 must be a number from 0 to 1"),
        (lambda f: plant_backdoor(f, [1], 0, seed=-1), "seed=-1 must be"),
        (lambda f: plant_backdoor(f, [1], 0, trigger=Trigger(9, 1)), r"trigger=.* no larger than images of 8 x 8"),
        (lambda f: plant_backdoor(f, [1], 0, trigger=Trigger(2, 0.5)), r"trigger=.* a whole number from 0 to 255"),
        (lambda f: plant_backdoor(f, [1], 0, trigger=Trigger(2, 300)), r"trigger=.* a whole number from 0 to 255"),
        (lambda f: draw_attackers(f, 1.1), "share=1.1 must be a number from 0 to 1"),
        (lambda f: draw_attackers(f, 0.5, seed=0.5), "seed=0.5 must be"),
    ],
)
def test_an_argument_that_cannot_be_is_named(few, act, message):
    with pytest.raises(ValueError, match=message):
        act(split(few, 4, "iid"))


def test_an_attacker_that_is_not_there_is_named_before_any_work(few):
    with pytest.raises(ValueError, match=r"clients=\(1, 7\) must be numbers from 0 to 3, the federation's clients"):
        next(rounds(make("fedavg", **QUICK), NET, split(few, 4, "iid"), rounds=1, faults=[SignFlip([7, 1])]))


def test_images_that_are_held_twice_are_not_changed_for_one_alone(few):
    federation = split(few, 4, "iid")
    shared = Federation(few, (*federation.train[:3], federation.train[0]), federation.test)
    tested = Federation(few, federation.train, (federation.train[1], *federation.test[1:]))
    for between, clients in ((shared, [0]), (shared, [3]), (tested, [1])):
        first = int(between.train[clients[0]][0])
        with pytest.raises(ValueError, match=rf"federation holds image {first} twice, by two clients, or for training"):
            flip_labels(between, clients)
        with pytest.raises(ValueError, match=r"federation holds image \d+ twice"):
            plant_backdoor(between, clients, TARGET)
    assert flip_labels(shared, [1]).digest != shared.digest and flip_labels(tested, [0]).digest != tested.digest
    method = make("fedavg", **QUICK)
    with pytest.raises(ValueError, match=r"federation holds image \d+ twice"):
        backdoor_success(method, NET, start(method, NET, tested), tested, TARGET, [2])
