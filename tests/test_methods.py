"""Each method against its definition; FedeCouple against its limits."""

import math

import pytest
import torch
from helpers import copied, last, same

from fedecouple_lite import METHODS, client_round, make, rounds
from fedecouple_lite.client import LocalData
from fedecouple_lite.methods.fedecouple import similarity_weights
from fedecouple_lite.tensors import pick

QUICK = {"lr": 0.1, "epochs": 2, "batch_size": 8}


@pytest.mark.parametrize("coupling", ["alternate", "joint"])
def test_fedecouple_with_everything_off_is_fedrep_to_the_bit(net, federation, coupling):
    off = make("fedecouple", mu=0, lam=0, global_loss=0, coupling=coupling, classifier_epochs=2, **QUICK)
    a = last(rounds(off, net, federation, rounds=3))
    b = last(rounds(make("fedrep", classifier_epochs=2, **QUICK), net, federation, rounds=3))
    for mine, theirs in zip(a.clients, b.clients, strict=True):
        assert same(pick(mine, "extractor.", "classifier."), theirs)
    assert same(pick(a.server, "extractor."), b.server)
    assert [r["accuracies"] for r in a.records] == [r["accuracies"] for r in b.records]


@pytest.mark.parametrize("part", ["mu", "lam", "global_loss"])
def test_each_part_of_fedecouple_changes_the_result(net, federation, part):
    off = {"mu": 0, "lam": 0, "global_loss": 0}
    runs = [
        last(rounds(make("fedecouple", **QUICK, **off | on), net, federation, rounds=2)) for on in ({}, {part: 1.0})
    ]
    assert not same(runs[0].server, runs[1].server)


def test_fedecouples_upload_holds_neither_anchors_nor_counts(net, local):
    start = net.init(0)
    client, upload, _, _ = client_round(make("fedecouple", **QUICK), net, start, start, local)
    assert {"anchors.means", "anchors.counts"} <= client.keys()
    assert upload.keys() == start.keys()
    assert {name.split(".")[0] for name in upload} == {"extractor", "classifier"}


def test_anchors_equal_the_hand_computed_class_means_of_three_samples(net, few):
    """Two samples of class a, one of class b: means of the received extractor's features, not of the trained one's."""
    y = few.y
    a = torch.nonzero(y == 3)[:2, 0]
    index = torch.cat([a, torch.nonzero(y == 5)[:1, 0]])
    data = LocalData(few.images(index), y[index], lambda epochs: [torch.arange(3)] * epochs)
    mine, server = net.init(0), net.init(1)
    client = client_round(make("fedecouple", **QUICK), net, mine, server, data).client
    z = net.features(server, data.x)
    assert torch.allclose(client["anchors.means"][3], (z[0] + z[1]) / 2, atol=1e-6)
    assert torch.allclose(client["anchors.means"][5], z[2], atol=1e-6)
    assert client["anchors.counts"].tolist() == [0, 0, 0, 2, 0, 1, 0, 0, 0, 0]


def test_a_class_that_a_client_lacks_pulls_nothing(net, local):
    """Omega's gradient does not depend on the anchors of absent classes, and no gradient reaches them."""
    method, start = make("fedecouple"), net.init(0)
    x, y = local.x[:4], torch.tensor([1, 1, 2, 2])
    losses = []
    for filler in (0.0, 1e6):
        anchors = torch.full((10, 128), filler)
        anchors[1:3] = 0.5
        anchors.requires_grad_()
        loss = method.local_pull(net, start | {"anchors.means": anchors}, start, x, y).mean()
        losses.append(loss.item())
    (gradient,) = torch.autograd.grad(loss, anchors)
    assert losses[0] == losses[1]
    assert (gradient.abs().sum(1) > 0).nonzero()[:, 0].tolist() == [1, 2]


def test_the_personal_loss_by_hand(net, local):
    method = make("fedecouple", lam=2.0, temperature=3.0)
    student, teacher = net.init(0), net.init(1)
    z = net.features(teacher, local.x[:2])
    got = method.personal_loss(net, student, teacher, z, local.y[:2])
    for i in range(2):
        s, t = net.classify(student, z)[i], net.classify(teacher, z)[i]
        w = t.softmax(0)[local.y[i]]
        p, q = (t / 3).softmax(0), (s / 3).softmax(0)
        by_hand = -math.log(s.softmax(0)[local.y[i]]) + 2.0 * w * 9 * sum(p * (p / q).log())
        assert got[i].item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_the_two_pulls_add_up_to_the_joint_loss(net, local):
    method = make("fedecouple", mu=0.5)
    mine, server = net.init(0) | {"anchors.means": torch.randn(10, 128)}, net.init(1)
    args = (net, mine, server, local.x, local.y)
    omega = method.omega(mine, net.features(mine, local.x), local.y)
    both = method.global_pull(*args) + method.local_pull(*args) - 0.5 * omega
    assert torch.allclose(both, method.both_pulls(*args), atol=1e-5)


def test_the_personal_classifier_stays_and_the_extractor_is_taken():
    mine = {"extractor.w": torch.zeros(1), "classifier.w": torch.zeros(1)}
    server = {"extractor.w": torch.ones(1), "classifier.w": torch.ones(1)}
    for name in ("fedecouple", "fedrep"):
        download = make(name).send(server, 0)
        got = make(name).receive(mine, download)
        assert got["extractor.w"] == 1 and got["classifier.w"] == 0
    assert make("fedavg").receive(mine, server)["classifier.w"] == 1


def test_alternate_takes_two_steps_a_batch_and_joint_one(net, local):
    start = net.init(0)
    steps = [
        client_round(make("fedecouple", coupling=c, **QUICK), net, start, start, local).steps
        for c in ("alternate", "joint")
    ]
    assert steps == [3 + 2 * 2 * 3, 3 + 2 * 3]


def test_similarity_weights_by_hand():
    server = {"extractor.w": torch.zeros(2), "classifier.w": torch.zeros(1)}

    def upload(a, b):
        return {"extractor.w": torch.tensor([a, b]), "classifier.w": torch.tensor([9.0])}

    agree = similarity_weights(server, {0: upload(1.0, 0.0), 1: upload(2.0, 0.0), 2: upload(0.0, 1.0)})
    assert agree == pytest.approx([0.5, 0.5, 0.0])
    assert similarity_weights(server, {0: upload(1.0, 0.0), 1: upload(-1.0, 0.0)}) == [1.0, 1.0]
    assert similarity_weights(server, {4: upload(1.0, 0.0)}) == [1.0]
    mixed = make("fedecouple", aggregation="similarity").aggregate(
        server, {0: upload(1.0, 0.0), 1: upload(3.0, 0.0)}, {0: 1, 1: 9}
    )
    assert mixed["extractor.w"].tolist() == [2.0, 0.0]  # similarity, not size, decides


def test_fedavg_aggregates_by_size():
    uploads = {2: {"extractor.w": torch.zeros(1)}, 5: {"extractor.w": torch.ones(1)}}
    assert make("fedavg").aggregate({}, uploads, {2: 10, 5: 30})["extractor.w"].item() == 0.75


def test_fine_tuning_trains_as_fedavg_and_differs_only_in_prediction(net, federation):
    a, b = (last(rounds(make(name, **QUICK), net, federation, rounds=3)) for name in ("fedavg", "fedavg_ft"))
    assert same(a.server, b.server)
    assert a.records[-1]["global"] == b.records[-1]["global"]
    assert a.records[-1]["personal"] < b.records[-1]["personal"]


@pytest.mark.parametrize("name", METHODS)
def test_a_round_changes_no_argument_and_only_trained_tensors(net, local, name):
    start, server = net.init(0), net.init(1)
    method = make(name, **QUICK)
    client = method.init(start)
    before = copied(client), copied(server), local.x.clone(), local.y.clone()
    after, upload, loss, _ = client_round(method, net, client, method.send(server, 0), local)
    assert same(client, before[0]) and same(server, before[1])
    assert torch.equal(local.x, before[2]) and torch.equal(local.y, before[3])
    assert torch.isfinite(loss)
    assert not any(t.requires_grad for t in (after | upload).values())


@pytest.mark.parametrize("name", METHODS)
def test_a_frozen_part_is_moved_by_neither_momentum_nor_weight_decay(net, local, name):
    """While the classifier trains, the extractor is bit-equal to the received one, and the other way round."""
    from dataclasses import replace

    from fedecouple_lite.client import OneClient, run_phases
    from fedecouple_lite.phases import Train

    method = make(name, momentum=0.9, weight_decay=0.1, **QUICK)
    for phase in method.phases():
        if isinstance(phase, Train):
            start = method.init(net.init(0)) | {"anchors.means": torch.zeros(10, 128), "class_counts": torch.ones(10)}
            trainer = OneClient(method, net, net.init(1), local)
            after = run_phases((replace(phase, epochs=1),), start, trainer).tensors
            for tensor in start:
                moved = not torch.equal(start[tensor], after[tensor])
                assert moved == tensor.startswith(phase.prefixes), tensor


def test_an_unknown_method_or_hyper_parameter_suggests_the_nearest():
    with pytest.raises(ValueError, match="method='fedcouple' is unknown; did you mean 'fedecouple'"):
        make("fedcouple")
    with pytest.raises(
        ValueError, match="temprature=2 means nothing to method='fedecouple'; did you mean 'temperature'"
    ):
        make("fedecouple", temprature=2)
    with pytest.raises(ValueError, match=r"mu=1 means nothing to method=.fedrep.; .*choose from lr, epochs"):
        make("fedrep", mu=1)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("lr", -0.1, "a number >= 0"),
        ("lr", math.nan, "a number >= 0"),
        ("lr", "fast", "a number >= 0"),
        ("epochs", -1, "a whole number >= 0"),
        ("epochs", 1.5, "a whole number >= 0"),
        ("batch_size", 0, "a whole number >= 1"),
        ("batch_size", True, "a whole number >= 1"),
        ("momentum", 1.5, "a number >= 0 and <= 1"),
        ("temperature", 0.0, "a number >= 0.01"),
        ("coupling", "both", "one of alternate, joint"),
    ],
)
def test_a_hyper_parameter_outside_its_range_is_named_with_its_range(name, value, allowed):
    with pytest.raises(ValueError, match=f"{name}={value!r} of .* must be {allowed}"):
        make("fedecouple", **{name: value})


def test_hyper_parameters_from_the_command_line_are_converted():
    method = make("fedecouple", mu="0.5", epochs="3", coupling="joint")
    assert (method.mu, method.epochs, method.coupling) == (0.5, 3, "joint")


def test_similarity_is_the_mean_cosine_and_then_at_least_zero():
    """Cosines 1/root 2, 0 and -1/root 2: the middle one agrees with one and disagrees with the other."""
    server = {"extractor.w": torch.tensor([5.0, 5.0])}
    moves = {3: (2.0, 0.0), 4: (1.0, 1.0), 9: (0.0, -3.0)}
    uploads = {k: {"extractor.w": server["extractor.w"] + torch.tensor(move)} for k, move in moves.items()}
    assert similarity_weights(server, uploads) == pytest.approx([8**-0.5, 0.0, 0.0], abs=1e-6)
