"""Clients that come when the run is over: what each method trains of them, from where, and that nobody else notices."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import copied, last, same

from fedecouple_lite import METHODS, DecoupledNet, Federation, from_arrays, load, make, net_for, rounds, split
from fedecouple_lite.engine import start
from fedecouple_lite.losses import class_means
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.newcomers import adapt, newcomer_accuracy, newcomer_data
from fedecouple_lite.partition import split_unseen
from fedecouple_lite.phases import Train

QUICK = {"lr": 0.1, "epochs": 2, "batch_size": 8}
CASES = {name: {} for name in METHODS} | {
    "fedecouple, joint": {"coupling": "joint"},
    "fedecouple, phases": {"coupling": "phases"},
    "fedecouple, similarity": {"aggregation": "similarity"},
}
BOTH = ("extractor.", "classifier.")
# What a newcomer trains and keeps; all else that its model holds is as the server sent it, or as it began.
TRAINED = {
    "local": BOTH,
    "fedavg": (),
    "fedavg_ft": (),
    "fedprox": (),
    "ditto": ("personal.",),
    "fedper": ("classifier.",),
    "lg_fedavg": ("extractor.",),
    "fedrep": ("classifier.",),
    "fedbabu": (),
    "fedrod": ("head.",),
    "fedpac": ("classifier.",),
    "fedecouple": ("classifier.",),
}
TUNED_TO_PREDICT = {"fedavg_ft": ("classifier.",), "fedbabu": BOTH}


def method_of(case):
    return make(case.split(",")[0], **QUICK, **CASES[case])


@pytest.fixture(scope="module")
def whole(few):
    """Six clients: the first four take part, two come later."""
    return split(few, clients=6, partition="iid", seed=1)


@pytest.fixture(scope="module")
def here(whole):
    return Federation(whole.data, whole.train[:4], whole.test[:4])


@pytest.fixture(scope="module")
def late(whole):
    return Federation(whole.data, whole.train[4:], whole.test[4:])


@pytest.fixture(scope="module")
def states(net, here):
    """Every method after two rounds."""
    return {case: last(rounds(method_of(case), net, here, rounds=2)) for case in CASES}


def come(case, net, states, late, number=0, **options):
    method = method_of(case)
    local = newcomer_data(method, late, number, 0, states[case].round)
    return adapt(method, net, states[case], local, number=number, **options)


def begins_with(case, net, state):
    """What a newcomer's tensors are before it trains: by hand, from the initial weights and the server's."""
    initial, server, name = net.init(0), state.server, case.split(",")[0]
    sent = {"local": (), "fedper": BOTH[:1], "fedrep": BOTH[:1], "fedpac": BOTH[:1], "lg_fedavg": BOTH[1:]}.get(
        name, BOTH
    )
    model = {tensor: server[tensor] if tensor.startswith(sent) else initial[tensor] for tensor in initial}
    if name == "ditto":
        return model | {f"personal.{tensor}": model[tensor] for tensor in model}
    if name == "fedrod":
        return model | {f"head.{tensor}": model[tensor] for tensor in model if tensor.startswith("classifier.")}
    return model


@pytest.mark.parametrize("case", CASES)
def test_a_newcomer_trains_what_stays_and_nothing_else(net, states, late, case):
    before = begins_with(case, net, states[case])
    newcomer = come(case, net, states, late)
    trained = TRAINED[case.split(",")[0]]
    for name, tensor in before.items():
        moved = not torch.equal(newcomer.client[name], tensor)
        assert moved == name.startswith(trained), name


@pytest.mark.parametrize("case", CASES)
def test_neither_the_server_nor_a_client_that_took_part_changes(net, states, late, case):
    state = states[case]
    server, clients = copied(state.server), [copied(client) for client in state.clients]
    come(case, net, states, late)
    newcomer_accuracy(method_of(case), net, state, late)
    assert same(state.server, server)
    assert all(same(a, b) for a, b in zip(state.clients, clients, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_newcomer_takes_as_many_steps_as_its_method_says(net, states, late, case):
    """One epoch of what stays; where there is fine-tuning to predict, its own epochs."""
    name = case.split(",")[0]
    batches = -(-len(late.train[0]) // 8)
    epochs = 5 if name in TUNED_TO_PREDICT else len(TRAINED[name]) > 0
    assert come(case, net, states, late).steps == epochs * batches
    if name not in TUNED_TO_PREDICT:
        assert come(case, net, states, late, epochs=3).steps == 3 * epochs * batches


@pytest.mark.parametrize("case", CASES)
def test_a_newcomer_that_trains_no_epoch_is_what_it_began_with(net, states, late, case):
    before = begins_with(case, net, states[case])
    client = come(case, net, states, late, epochs=0).client
    assert all(torch.equal(client[name], before[name]) for name in before)


def logits_of(name, net, tensors, x):
    """A method's personal prediction, by hand."""
    if name == "ditto":
        return net.logits(tensors, x, "personal.")
    if name == "fedrod":
        return net.logits(tensors, x) + net.classify(tensors, net.features(tensors, x), "head.")
    return net.logits(tensors, x)


def loss_of(case, net, start, weights, x, y):
    """The loss of what is trained, by hand: `start` holds what stands still and what is pulled to."""
    name = case.split(",")[0]
    tensors = start | weights
    if name == "fedrod":
        z = net.features(tensors, x)
        return F.cross_entropy(net.classify(tensors, z).detach() + net.classify(tensors, z, "head."), y)
    if name == "ditto":
        pull = sum((weights[f"personal.{n}"] - start[n]).square().sum() for n in net.init(0))
        return F.cross_entropy(net.logits(tensors, x, "personal."), y) + pull / 2
    if name == "fedecouple":
        student, teacher = net.logits(tensors, x).log_softmax(1), net.logits(start, x).log_softmax(1)
        trust = teacher.exp().gather(1, y[:, None])[:, 0]
        divergence = (teacher.exp() * (teacher - student)).sum(1)
        return F.cross_entropy(student, y) + 3.0 * (trust * divergence).mean()
    return F.cross_entropy(net.logits(tensors, x), y)


@pytest.mark.parametrize("case", CASES)
def test_a_newcomers_tensors_and_predictions_by_torchs_own_sgd(net, states, late, case):
    """On the batches that were drawn, from what the newcomer began with; two newcomers, each with its own batches."""
    name, state = case.split(",")[0], states[case]
    expected = []
    for number in range(2):
        newcomer = come(case, net, states, late, number)
        start = begins_with(case, net, state)
        tuned = TUNED_TO_PREDICT.get(name)
        moving = tuned or TRAINED[name]
        lr = 0.01 if name == "fedbabu" else 0.1
        weights = {n: t.clone().requires_grad_() for n, t in start.items() if moving and n.startswith(moving)}
        x, y = late.data.images(late.train[number]), late.data.y[late.train[number]]
        rng = np.random.default_rng([0, 6, 2, number])
        if weights:
            optimizer = torch.optim.SGD(weights.values(), lr, 0.5, weight_decay=5e-4)
            for _ in range(5 if tuned else 1):
                for batch in torch.from_numpy(rng.permutation(len(y))).split(8):
                    optimizer.zero_grad()
                    loss_of(case, net, start, weights, x[batch], y[batch]).backward()
                    optimizer.step()
        by_hand = start | {n: t.detach() for n, t in weights.items()}
        if not tuned:
            assert all(torch.allclose(newcomer.client[n], by_hand[n], atol=1e-4) for n in by_hand)
        shown, labels = late.data.images(late.test[number]), late.data.y[late.test[number]]
        logits = logits_of(name, net, by_hand, shown)
        assert torch.allclose(newcomer.predict(shown), logits, atol=2e-2 if tuned else 2e-3)
        expected.append((logits.argmax(1) == labels).float().mean().item())
    one_image = 1 / min(len(index) for index in late.test)
    assert newcomer_accuracy(method_of(case), net, state, late) == pytest.approx(expected, abs=one_image + 1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("fedecouple")])
def test_a_newcomers_anchors_are_its_own_class_means_under_the_received_extractor(net, states, late, case):
    newcomer = come(case, net, states, late)
    x, y = late.data.images(late.train[0]), late.data.y[late.train[0]]
    means, counts = class_means(net.features(states[case].server, x), y, 10)
    assert torch.allclose(newcomer.client["anchors.means"], means, atol=1e-5)
    assert torch.equal(newcomer.client["anchors.counts"], counts)
    assert not any(name.startswith("anchors.") for name in newcomer.download)


def test_a_newcomer_gets_no_mixture_that_was_made_for_a_client(net, states, late):
    """FedPAC's server holds a classifier for each of the clients 0 to 3."""
    assert any(name.startswith("mixed.0.") for name in states["fedpac"].server)
    for number in range(2):
        download = come("fedpac", net, states, late, number).download
        assert not any(name.startswith(("classifier.", "mixed.")) for name in download)


def test_who_else_comes_and_who_asks_twice_does_not_matter(net, states, late):
    method, state = method_of("fedrep"), states["fedrep"]
    both = newcomer_accuracy(method, net, state, late)
    assert both == newcomer_accuracy(method, net, state, late)
    first = Federation(late.data, late.train[:1], late.test[:1])
    assert newcomer_accuracy(method, net, state, first) == both[:1]


def test_seed_round_and_newcomer_draw_other_batches(late):
    method = method_of("fedrep")

    def batches(number=0, seed=0, t=0):
        return [index.tolist() for index in newcomer_data(method, late, number, seed, t).batches(2)]

    assert batches() == batches()
    assert len({str(b) for b in (batches(), batches(1), batches(seed=1), batches(t=1))}) == 4


@pytest.mark.parametrize("case", CASES)
def test_a_newcomer_without_images_trains_nothing_and_one_without_test_images_has_no_accuracy(net, states, late, case):
    nothing = torch.zeros(0, dtype=torch.int64)
    empty = replace(late, train=(nothing, late.train[1]), test=(late.test[0], nothing))
    newcomer = come(case, net, states, empty)
    before = begins_with(case, net, states[case])
    assert newcomer.steps == 0 and all(torch.equal(newcomer.client[name], before[name]) for name in before)
    with_images, without = newcomer_accuracy(method_of(case), net, states[case], empty)
    assert 0 <= with_images <= 1 and np.isnan(without)


def test_a_frozen_part_of_what_stays_is_not_trained(here, late):
    net = net_for((1, 8, 8), 10)
    classifier = torch.nn.Linear(net.features_dim, 10)
    classifier.bias.requires_grad_(False)
    net = DecoupledNet(net.extractor, classifier, (1, 8, 8))
    method = make("fedper", **QUICK)
    state = last(rounds(method, net, here, rounds=1))
    newcomer = adapt(method, net, state, newcomer_data(method, late, 0))
    initial = net.init(0)
    assert torch.equal(newcomer.client["classifier.bias"], initial["classifier.bias"])
    assert not torch.equal(newcomer.client["classifier.weight"], initial["classifier.weight"])


def test_a_method_of_ones_own_trains_what_it_keeps(net, here, late):
    """It keeps one layer of the extractor, mixes the classifier that it gets into its own, and derives from images."""

    @dataclass(frozen=True)
    class Own(FedAvg):
        def receive(self, client, download):
            kept = {name: tensor for name, tensor in client.items() if name.startswith("extractor.0.")}
            mixed = {n: (client[n] + t) / 2 for n, t in download.items() if n.startswith("classifier.")}
            return {**client, **download, **kept, **mixed}

        def phases(self):
            return (Train(("extractor.",), (self.loss,), 3), Train(("classifier.",), (self.loss,), 3))

    method = Own(**QUICK)
    state = last(rounds(method, net, here, rounds=1))
    newcomer = adapt(method, net, state, newcomer_data(method, late, 0))
    assert newcomer.steps == -(-len(late.train[0]) // 8)
    for name, tensor in state.server.items():
        assert torch.equal(newcomer.client[name], tensor) == (not name.startswith("extractor.0.")), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs=-1 must be a whole number >= 0"),
        ({"epochs": 0.5}, "epochs=0.5 must be"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0"),
        ({"number": -1}, "number=-1 must be a whole number >= 0"),
        ({"number": True}, "number=True must be"),
    ],
)
def test_an_argument_that_cannot_be_is_named(net, states, late, options, message):
    method, state = method_of("fedper"), states["fedper"]
    with pytest.raises(ValueError, match=message):
        adapt(method, net, state, newcomer_data(method, late, 0), **options)
    if "number" not in options:
        with pytest.raises(ValueError, match=message):
            newcomer_accuracy(method, net, state, late, **options)


def test_a_state_or_images_of_something_else_are_refused(net, states, late, here):
    method, state = method_of("fedper"), states["fedper"]
    other_net = DecoupledNet(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 128)), torch.nn.Linear(128, 10), (1, 8, 8)
    )
    doubles = late.to(dtype=torch.float64)
    x = np.zeros((4, 9, 9), np.uint8)
    larger = split(from_arrays("larger", x, [0, 1, 0, 1], [], []), 1, "iid")
    for message, arguments in (
        ("state belongs to another method", (method_of("fedrep"), net, state, late)),
        ("state belongs to another net", (method, other_net, state, late)),
        (
            "data holds images in torch.float64; those of the state's clients were torch.float32",
            (method, net, state, doubles),
        ),
        (r"net takes images \(1, 8, 8\) and 10 classes; newcomers of 'larger'", (method, net, state, larger)),
    ):
        with pytest.raises(ValueError, match=message):
            newcomer_accuracy(*arguments)
    by_hand = replace(start(method, net, here), origin=None)  # where it is from is not known: not checked
    assert len(newcomer_accuracy(method, net, by_hand, late)) == 2


def test_adapting_that_diverges_is_noticed(net, states, late):
    wild = make("fedper", **QUICK | {"lr": 1e30})
    with pytest.raises(FloatingPointError, match=r"FedPer, newcomer 0, after round 2: adapting, classifier\.\w+ is no"):
        newcomer_accuracy(wild, net, states["fedper"], late, epochs=3)


def test_newcomers_of_a_natural_federation_come_by_themselves(real_images):
    """Ten writers take part for two rounds; eight others join."""
    path = real_images / "femnist_writers.npz"
    if not path.exists():
        pytest.skip("no handwriting here")
    data = load(path)
    federation = split(data, 10, "natural", keep_test=True)
    newcomers = split_unseen(data)
    eight = Federation(newcomers.data, newcomers.train[:8], newcomers.test[:8], newcomers.owners[:8])
    net = net_for(data.in_shape, len(data.classes))
    method = make("fedper", epochs=1)
    state = last(rounds(method, net, federation, rounds=2, eval_every=2))
    accuracies = newcomer_accuracy(method, net, state, eight)
    assert len(accuracies) == 8 and all(0 <= accuracy <= 1 for accuracy in accuracies)
