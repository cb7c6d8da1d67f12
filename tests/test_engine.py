import contextlib
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from helpers import arrays, copied, last, same
from torch import nn

from fedecouple_lite import METHODS, DecoupledNet, Federation, from_arrays, make, net_for, rounds, split
from fedecouple_lite.client import LocalData, Stopped, client_round, sgd
from fedecouple_lite.engine import Pool, start, train_stack
from fedecouple_lite.losses import class_means
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.phases import Derive, Train

QUICK = {"lr": 0.1, "epochs": 2, "batch_size": 8}


def equal(a, b):
    return same(a.server, b.server) and all(same(x, y) for x, y in zip(a.clients, b.clients, strict=True))


def metrics(state):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in state.records]


@pytest.mark.parametrize("name", METHODS)
def test_threads_equal_in_turn_to_the_bit_and_a_run_repeats(net, federation, name):
    a, b = (last(rounds(make(name, **QUICK), net, federation, rounds=2, backend=x)) for x in ("loop", "threads"))
    assert equal(a, b)
    assert np.array_equal(str(metrics(a)), str(metrics(b)))  # as text: NaN equals NaN


def test_another_seed_is_another_run(net, federation):
    a, b = (last(rounds(make("fedrep", **QUICK), net, federation, rounds=1, seed=s)) for s in (0, 1))
    assert not equal(a, b)


def test_sgd_equals_torchs_own_to_rounding(net, local):
    """Momentum and weight decay as in torch.optim.SGD, on the same batches."""
    method, start = make("fedavg", lr=0.05, momentum=0.9, weight_decay=0.01), net.init(0)
    data = LocalData(local.x.double(), local.y, local.batches)
    start = {n: t.double() for n, t in start.items()}
    phase = Train(("extractor.", "classifier."), (method.loss,), 3)
    got, loss, steps = sgd(method, phase, net, start, {}, data.x, data)
    weights = {n: t.clone().requires_grad_() for n, t in start.items()}
    optimizer = torch.optim.SGD(weights.values(), lr=0.05, momentum=0.9, weight_decay=0.01)
    losses = []
    for index in data.batches(3):
        optimizer.zero_grad()
        loss_there = nn.functional.cross_entropy(net.logits(weights, data.x[index]), data.y[index])
        loss_there.backward()
        optimizer.step()
        losses.append(loss_there.item())
    assert steps == len(losses) == 9 and loss.item() == pytest.approx(np.mean(losses))
    assert all(torch.allclose(got[n], weights[n], atol=1e-12) for n in got)


def test_a_resumed_run_equals_the_uninterrupted_one(net, federation):
    method = make("fedecouple", **QUICK)
    whole = last(rounds(method, net, federation, rounds=4, participation=0.5))
    half = last(rounds(method, net, federation, rounds=2, participation=0.5))
    assert equal(whole, last(rounds(method, net, federation, rounds=4, participation=0.5, state=half)))


def test_an_earlier_state_is_not_touched_by_later_rounds(net, federation):
    states = rounds(make("fedecouple", **QUICK), net, federation, rounds=2)
    first = next(states)
    kept = copied(first.server), [copied(c) for c in first.clients]
    next(states)
    assert same(first.server, kept[0]) and all(same(a, b) for a, b in zip(first.clients, kept[1], strict=True))


def test_participation_draws_a_cohort_and_leaves_the_others_alone(net, federation):
    state = next(rounds(make("fedrep", **QUICK), net, federation, rounds=1, participation=0.3))
    start = net.init(0)
    assert sum(not same(c, start) for c in state.clients) == 1  # 0.3 of 4, rounded, at least one


@pytest.mark.parametrize("name", METHODS)
def test_a_step_size_of_zero_changes_nothing(net, federation, name):
    state = last(rounds(make(name, lr=0.0, epochs=1), net, federation, rounds=1))
    start = net.init(0)
    assert all(torch.equal(client[n], start[n]) for client in state.clients for n in start)
    assert all(torch.allclose(state.server[n], start[n], atol=1e-6) for n in start if n in state.server)


@pytest.mark.parametrize("name", METHODS)
def test_odd_clients_one_class_smaller_than_a_batch_no_test_image_and_one_client(name):
    x, y = arrays(40, 4)
    odd = from_arrays("odd", x, y, x[:0], y[:0])
    net = net_for((1, 8, 8), 4)
    one_class = split(odd, 4, "pathological", classes_per_client=1)
    tiny = split(odd, 40, "iid")
    alone = split(odd, 1, "iid")
    for federation in (one_class, tiny, alone):
        record = last(rounds(make(name, **QUICK), net, federation, rounds=1)).records[-1]
        assert np.isfinite(record["loss"])
        assert np.isnan(record["personal"]) == (federation is tiny)  # 40 clients of one image: nothing to test on


def test_global_accuracy_only_where_the_server_holds_a_model(net, federation):
    record = last(rounds(make("fedrep", **QUICK), net, federation, rounds=1)).records[-1]
    assert np.isnan(record["global"]) and 0 <= record["personal"] <= 1


def test_the_record_counts_bytes_steps_and_accuracies_as_defined(net, federation):
    state = last(rounds(make("fedrep", **QUICK), net, federation, rounds=3, eval_every=2))
    assert [r["round"] for r in state.records] == [2, 3]
    record, start = state.records[-1], net.init(0)
    assert record["upload_bytes"] == 4 * sum(t.numel() for n, t in start.items() if n.startswith("extractor."))
    batches = sum(-(-len(index) // 8) for index in federation.train)
    assert record["steps"] == batches * (1 + 2)
    own = []
    for client, index in zip(state.clients, federation.test, strict=True):
        x, y = federation.data.images(index), federation.data.y[index]
        own.append((net.logits(client, x).argmax(1) == y).float().mean().item())
    assert record["accuracies"] == pytest.approx(own) and record["personal"] == pytest.approx(np.mean(own))


def test_a_loss_that_is_not_finite_names_method_client_and_round(net, federation):
    with pytest.raises(
        FloatingPointError, match=r"FedAvg, client \d, round \d: the loss is (nan|inf); try an lr below"
    ):
        last(rounds(make("fedavg", lr=1e30, epochs=3), net, federation, rounds=3))


def test_threads_are_gone_when_the_run_is_left_early(net, federation):
    before = threading.active_count()
    states = rounds(make("fedrep", **QUICK), net, federation, rounds=50)
    next(states)
    states.close()
    assert threading.active_count() == before


def test_an_error_in_one_task_stops_the_others_and_is_raised(net):
    pool = Pool(net, 2)

    def task(net, k):
        if k == 1:
            raise RuntimeError("client 1 fails")
        return k

    with pytest.raises(RuntimeError, match="client 1 fails"):
        pool.map(task, range(4))
    assert pool.stop.is_set()


def test_a_closed_pool_has_waited_for_what_ran_and_begins_nothing_more(net):
    """So that nothing trains on after an error, or after Ctrl-C."""
    pool = Pool(net, 1)
    begun, may_end = threading.Event(), threading.Event()
    ended = []

    def task(net, k):
        begun.set()
        may_end.wait()
        ended.append(k)

    def run():
        with contextlib.suppress(CancelledError):
            pool.map(task, [0, 1])

    running = threading.Thread(target=run)
    running.start()
    begun.wait()
    closing = threading.Thread(target=pool.close)
    closing.start()
    closing.join(timeout=0.3)
    assert closing.is_alive() and pool.stop.is_set() and not ended
    may_end.set()
    closing.join()
    running.join()
    assert ended == [0]


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 1000), (2, 1000)])
def test_the_recorded_loss_is_the_mean_over_steps_and_clients(net, federation, backend, epochs, batch_size):
    """One step, and two: a step's loss is the one before it moves the weights."""
    method = make("fedavg", lr=0.05, epochs=epochs, batch_size=batch_size, momentum=0.0, weight_decay=0.0)
    state = last(rounds(method, net, federation, rounds=1, backend=backend))
    of_clients = []
    for index in federation.train:
        x, y = federation.data.images(index), federation.data.y[index]
        weights = {name: tensor.clone().requires_grad_() for name, tensor in net.init(0).items()}
        descent = torch.optim.SGD(weights.values(), lr=0.05)
        losses = []
        for _ in range(epochs):
            loss = torch.nn.functional.cross_entropy(net.logits(weights, x), y)
            losses.append(loss.item())
            descent.zero_grad()
            loss.backward()
            descent.step()
        of_clients.append(np.mean(losses))
    assert state.records[-1]["loss"] == pytest.approx(np.mean(of_clients), rel=1e-4)


def test_the_callers_number_of_threads_is_left_alone(net, federation):
    before = torch.get_num_threads()
    last(rounds(make("fedrep", **QUICK), net, federation, rounds=1))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "bad", [{"rounds": 0}, {"participation": 0.0}, {"participation": 1.5}, {"eval_every": 0}, {"backend": "warp"}]
)
def test_arguments_outside_their_range_are_named(net, federation, bad):
    (name, value) = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        next(rounds(make("fedavg"), net, federation, **{"rounds": 1} | bad))


def test_a_net_that_does_not_fit_the_data_is_refused(federation):
    with pytest.raises(ValueError, match="net takes images"):
        next(rounds(make("fedavg"), net_for((1, 28, 28), 10), federation, rounds=1))
    with pytest.raises(ValueError, match="3 classes; data='few' has"):
        next(rounds(make("fedavg"), net_for((1, 8, 8), 3), federation, rounds=1))


def test_a_users_own_net_trains(federation):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 9)

        def forward(self, x):
            return torch.tanh(self.layer(x.flatten(1)))

    state = last(
        rounds(make("fedecouple", **QUICK), DecoupledNet(Own(), nn.Linear(9, 10), (1, 8, 8)), federation, rounds=1)
    )
    assert state.clients[0]["anchors.means"].shape == (10, 9)


def test_client_round_runs_the_phases_in_order_on_cached_features(net, local):
    """FedRep by hand: classifier first on the received features, then the extractor under the new classifier."""
    method, start = make("fedrep", **QUICK), net.init(0)
    got, _, _, steps = client_round(method, net, start, {}, local)
    first, second = method.phases()
    z = net.features(start, local.x).detach()
    a, _, n = sgd(method, first, net, start, {}, z, local)
    b, _, m = sgd(method, second, net, start | a, {}, local.x, local)
    assert same(got, start | a | b) and steps == n + m


def emptied(federation, *clients):
    """The federation with some clients' training images taken away."""
    nothing = torch.zeros(0, dtype=torch.int64)
    train = tuple(nothing if k in clients else index for k, index in enumerate(federation.train))
    return replace(federation, train=train)


@pytest.mark.parametrize("backend", ["loop", "threads", "vmap", "auto"])
@pytest.mark.parametrize("name", METHODS)
def test_a_client_without_training_images_takes_no_part(net, federation, name, backend):
    """The others' run is the run without it, but for the batches' keys: compared in one round with full batches."""
    common = {"lr": 0.1, "epochs": 1, "batch_size": 1000}  # the whole of a client's data: no order of batches matters
    doubles = federation.to(dtype=torch.float64)
    with_it = last(rounds(make(name, **common), net, emptied(doubles, 3), rounds=2, backend=backend))
    three = Federation(doubles.data, doubles.train[:3], doubles.test[:3])
    without = last(rounds(make(name, **common), net, three, rounds=2, backend=backend))
    for tensor in without.server:
        assert torch.allclose(with_it.server[tensor], without.server[tensor], atol=1e-10)
    start = make(name).init(net.init(0, torch.float64))
    assert same(with_it.clients[3], start) and with_it.joined == {0, 1, 2}
    record = with_it.records[-1]
    assert record["newcomers"] == 1 and np.isfinite(record["personal"]) and np.isfinite(record["loss"])


def test_a_round_in_which_nobody_has_images_changes_nothing(net, federation):
    state = last(rounds(make("fedavg", **QUICK), net, emptied(federation, 0, 1, 2, 3), rounds=2))
    assert same(state.server, net.init(0)) and state.joined == frozenset()
    assert np.isnan(state.records[-1]["loss"]) and state.records[-1]["steps"] == state.records[-1]["upload_bytes"] == 0


@pytest.mark.parametrize("name", ["fedrep", "fedpac", "fedecouple"])
def test_weights_that_are_not_finite_are_noticed_where_no_loss_shows_them(net, federation, name):
    """epochs=0: the last phase takes no step and its loss is 0, but the classifier has been trained to NaN."""
    with pytest.raises(
        FloatingPointError, match=r"client \d, round \d: .* is no longer finite; try an lr below 1e\+30"
    ):
        last(rounds(make(name, lr=1e30, epochs=0, classifier_epochs=3), net, federation, rounds=3))


def test_fine_tuning_that_diverges_is_noticed(net, federation):
    with pytest.raises(FloatingPointError, match=r"FedBABU, client \d, after round 1: fine-tuning to predict"):
        last(rounds(make("fedbabu", **QUICK, fine_tune_lr=1e30), net, federation, rounds=1))


def test_a_state_of_something_else_is_refused(net, federation, few, digits):
    method = make("fedrep", **QUICK)
    state = last(rounds(method, net, federation, rounds=1))
    other_net = DecoupledNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 128)), nn.Linear(128, 10), (1, 8, 8))
    other_split = split(few, clients=4, partition="dirichlet", seed=2, alpha=0.5)
    more = split(few, clients=6, partition="iid")
    for message, arguments in (
        ("another method", (make("fedper", **QUICK), net, federation)),
        ("another net", (method, other_net, federation)),
        ("another federation", (method, net, other_split)),
        ("another dtype", (method, net, federation.to(dtype=torch.float64))),
        ("state has 4 clients; federation has 6", (method, net, more)),
    ):
        with pytest.raises(ValueError, match=message):
            next(rounds(*arguments, rounds=2, state=state))
    changed = make("fedrep", **QUICK | {"lr": 0.01})  # a hyper-parameter may change on the way
    assert next(rounds(changed, net, federation, rounds=2, state=state)).round == 2


def test_newcomers_predict_with_what_the_server_would_send_now(net, federation):
    """FedAvg's extractor and FedeCouple's whole model: computed here from the server's tensors."""
    for name in ("fedper", "fedecouple", "fedrod", "ditto"):
        method = make(name, **QUICK)
        state = last(rounds(method, net, federation, rounds=3, participation=0.25))
        record = state.records[-1]
        strangers = sorted(set(range(4)) - state.joined)
        assert record["newcomers"] == len(strangers) > 0
        for k in strangers:
            index = federation.test[k]
            x, y = federation.data.images(index), federation.data.y[index]
            model = {**net.init(0), **state.server}  # initial where the server has nothing
            expected = (net.logits(model, x).argmax(1) == y).float().mean().item()
            assert record["accuracies"][k] == pytest.approx(expected), name


def test_a_client_that_joins_late_starts_at_what_it_receives(net, federation):
    """FedeCouple's classifier: after its first round at round t it has moved from phi^t, not from phi^0."""
    method = make("fedecouple", **QUICK, classifier_lr=0.0)  # the classifier stays where it starts
    before = None
    for state in rounds(method, net, federation, rounds=6, participation=0.25):
        if before is not None:
            for k in state.joined - before.joined:
                assert torch.equal(state.clients[k]["classifier.weight"], before.server["classifier.weight"])
        before = state
    assert len(state.joined) > 1


def test_what_is_received_is_judged_beside_what_was_trained(net, federation):
    """FedRep: the server's extractor with the client's own classifier, computed here."""
    state = last(rounds(make("fedrep", **QUICK), net, federation, rounds=2))
    record, trained, received = state.records[-1], [], []
    for client, index in zip(state.clients, federation.test, strict=True):
        x, y = federation.data.images(index), federation.data.y[index]
        trained.append((net.logits(client, x).argmax(1) == y).float().mean().item())
        mixed = {**client, **state.server}
        received.append((net.logits(mixed, x).argmax(1) == y).float().mean().item())
    assert record["personal"] == pytest.approx(np.mean(trained))
    assert record["personal_received"] == pytest.approx(np.mean(received))
    assert record["predict_steps"] == 0


@pytest.mark.parametrize("name", ["fedbabu", "fedavg_ft"])
def test_fine_tuning_to_predict_starts_from_what_is_received(net, federation, name):
    """By torch.optim.SGD on the server's model, on the batches that the library drew."""
    own = {"fine_tune_epochs": 2, "fine_tune_lr": 0.02}
    method = make(name, **QUICK, **own)
    state = last(rounds(method, net, federation, rounds=2))
    record = state.records[-1]
    hits = []
    for k, (index, test) in enumerate(zip(federation.train, federation.test, strict=True)):
        model = {**net.init(0), **state.server}
        moving = {n for n in model if name == "fedbabu" or n.startswith("classifier.")}
        weights = {n: t.clone().requires_grad_(n in moving) for n, t in model.items()}
        optimizer = torch.optim.SGD([weights[n] for n in moving], 0.02, 0.5, weight_decay=5e-4)
        x, y = federation.data.images(index), federation.data.y[index]
        rng = np.random.default_rng([0, 3, 2, k])
        for _ in range(2):
            for batch in torch.from_numpy(rng.permutation(len(y))).split(8):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net.logits(weights, x[batch]), y[batch]).backward()
                optimizer.step()
        shown, labels = federation.data.images(test), federation.data.y[test]
        hits.append((net.logits(weights, shown).argmax(1) == labels).float().mean().item())
    assert record["accuracies"] == pytest.approx(hits, abs=0.05)
    assert record["personal"] == record["personal_received"]
    assert record["predict_steps"] == sum(2 * -(-len(index) // 8) for index in federation.train)


def test_numpys_numbers_are_taken_and_words_are_not(net, federation):
    method = make("fedavg", lr=np.float32(0.1), epochs=np.int64(1), batch_size=8)
    assert type(method.lr) is float and type(method.epochs) is int
    state = next(rounds(method, net, federation, rounds=np.int64(1), seed=np.int32(3), participation=np.float64(0.5)))
    assert state.round == 1
    for bad in (
        {"seed": -1},
        {"seed": 0.5},
        {"rounds": 1.0},
        {"rounds": True},
        {"participation": "1"},
        {"participation": float("nan")},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
            next(rounds(method, net, federation, **{"rounds": 1} | bad))


@pytest.mark.parametrize("clients", [1, 3])
def test_a_run_that_is_given_up_ends_at_the_next_step(net, federation, clients):
    """One client by itself, and a stack: of a round of hundreds of steps a few are taken."""
    stop = threading.Event()
    steps = []

    @dataclass(frozen=True)
    class Counting(FedAvg):
        def loss(self, net, client, download, x, y):
            steps.append(len(y))
            if len(steps) >= 6:  # a stack looks at a loss twice before its first step
                stop.set()
            return super().loss(net, client, download, x, y)

    method = Counting(epochs=200)
    state = start(method, net, federation)
    with pytest.raises(Stopped):
        train_stack(method, federation, state, 0, None, stop, net, list(range(clients)))
    assert len(steps) < 12


@pytest.mark.parametrize("name", ["fedavg_ft", "fedbabu"])
def test_a_client_without_training_images_predicts_with_what_it_receives(net, federation, name):
    """It has nothing to tune on: no step is taken, not even of weight decay, and none is counted."""
    method = make(name, **QUICK | {"weight_decay": 0.5}, fine_tune_epochs=3)
    state = last(rounds(method, net, emptied(federation, 2), rounds=2))
    record = state.records[-1]
    index = federation.test[2]
    x, y = federation.data.images(index), federation.data.y[index]
    model = {**net.init(0), **state.server}
    assert record["accuracies"][2] == pytest.approx((net.logits(model, x).argmax(1) == y).float().mean().item())
    assert record["predict_steps"] == sum(3 * -(-len(federation.train[k]) // 8) for k in (0, 1, 3))


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_features_are_computed_anew_after_a_part_of_the_extractor_has_moved(net, federation, backend):
    """One phase moves the last layer of the extractor alone; the anchors taken then are of the moved one."""

    @dataclass(frozen=True)
    class Halves(FedAvg):
        def phases(self):
            return (Derive(self.before), Train(("extractor.7.",), (self.loss,), 1), Derive(self.after))

        def before(self, net, z, y, valid):
            return {"means.before": class_means(z, y, net.classes, valid)[0]}

        def after(self, net, z, y, valid):
            return {"means.after": class_means(z, y, net.classes, valid)[0]}

    state = last(rounds(Halves(**QUICK), net, federation, rounds=1, backend=backend))
    for client, index in zip(state.clients, federation.train, strict=True):
        x, y = federation.data.images(index), federation.data.y[index]
        for weights, name in ((net.init(0), "means.before"), (client, "means.after")):
            means, _ = class_means(net.features(weights, x), y, 10)
            assert torch.allclose(client[name], means, atol=1e-5)
        assert not torch.allclose(client["means.before"], client["means.after"], atol=1e-3)


def test_cudnn_is_told_to_compute_the_same_in_float32_while_clients_train_and_only_then(net, federation):
    cudnn = torch.backends.cudnn
    seen = []

    class Watching(FedAvg):
        def loss(self, net, client, download, x, y):
            seen.append((cudnn.deterministic, cudnn.allow_tf32))
            return super().loss(net, client, download, x, y)

    before = (cudnn.deterministic, cudnn.allow_tf32)
    assert before == (False, True)
    for _ in rounds(Watching(epochs=1), net, federation, rounds=2, backend="loop"):
        assert (cudnn.deterministic, cudnn.allow_tf32) == before
    assert set(seen) == {(True, False)}
