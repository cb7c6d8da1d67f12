"""The nine baselines, and Local, each held to its definition."""

import copy

import numpy as np
import pytest
import torch
from helpers import last, same
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from fedecouple_lite import METHODS, Federation, client_round, make, net_for, rounds, split
from fedecouple_lite.client import sgd
from fedecouple_lite.losses import balanced_softmax
from fedecouple_lite.methods.fedpac import mixture
from fedecouple_lite.phases import Train
from fedecouple_lite.tensors import flat, pick, weighted_mean

QUICK = {"lr": 0.1, "epochs": 2, "batch_size": 8}
BOTH = ("extractor.", "classifier.")


def run(name, net, federation, n=2, **values):
    return last(rounds(make(name, **QUICK | values), net, federation, rounds=n))


def test_fedprox_with_mu_zero_is_fedavg_and_a_strong_leash_holds(net, federation):
    plain = run("fedavg", net, federation)
    assert same(run("fedprox", net, federation, mu=0).server, plain.server)
    start = flat(net.init(0))
    free, held = (flat(run("fedprox", net, federation, mu=mu).server) - start for mu in (0.0, 5.0))
    assert held.norm() < 0.5 * free.norm()


def test_fedprox_gradient_by_hand(net, local):
    method, mine, server = make("fedprox", mu=0.3), net.init(0), net.init(1)
    leaves = {n: t.clone().requires_grad_() for n, t in mine.items()}
    with_pull = method.loss(net, leaves, server, local.x, local.y).mean()
    without = make("fedavg").loss(net, leaves, server, local.x, local.y).mean()
    for name, t in leaves.items():
        (a,), (b,) = (torch.autograd.grad(loss, t, retain_graph=True) for loss in (with_pull, without))
        assert torch.allclose(a - b, 0.3 * (mine[name] - server[name]), atol=1e-5)


def test_ditto_with_lambda_zero_is_local_and_a_large_one_reaches_the_received_weights(net, federation, local):
    free = run("ditto", net, federation, lam=0)
    plain = run("fedavg", net, federation)
    assert same(free.server, plain.server)  # the personal models never touch the federated one
    method = make("ditto", lr=0.01, lam=50.0, momentum=0.0, epochs=40)
    received = net.init(1)
    client = client_round(method, net, method.init(net.init(0)), received, local).client
    far = flat(net.init(0)) - flat(received)
    near = flat({n: client[f"personal.{n}"] for n in received}) - flat(received)
    assert near.norm() < 0.05 * far.norm()


def test_dittos_personal_models_are_independent_of_the_server_at_lambda_zero(net, local):
    method = make("ditto", lam=0.0, **QUICK)
    mine = method.init(net.init(0))
    a, b = (client_round(method, net, mine, net.init(seed), local).client for seed in (1, 2))
    assert same(pick(a, "personal."), pick(b, "personal."))


@pytest.mark.parametrize(
    ("name", "travels"),
    [
        ("local", set()),
        ("fedavg", {"extractor", "classifier"}),
        ("fedavg_ft", {"extractor", "classifier"}),
        ("fedprox", {"extractor", "classifier"}),
        ("ditto", {"extractor", "classifier"}),
        ("fedper", {"extractor"}),
        ("lg_fedavg", {"classifier"}),
        ("fedrep", {"extractor"}),
        ("fedbabu", {"extractor"}),
        ("fedrod", {"extractor", "classifier"}),
        ("fedpac", {"extractor", "classifier", "prototypes", "statistics"}),
        ("fedecouple", {"extractor", "classifier"}),
    ],
)
def test_uploads_are_exactly_the_names_they_say(net, local, name, travels):
    method, start = make(name, **QUICK), net.init(0)
    download = method.send(method.init_server(start), 0)
    upload = client_round(method, net, method.init(start), download, local).upload
    assert {n.split(".")[0] for n in upload} == travels
    whole = {n for n in start if n.split(".")[0] in travels}
    assert {n for n in upload if n.startswith(BOTH)} == whole  # a part travels whole


def test_every_method_is_in_the_test_above():
    assert len(METHODS) == 12


def test_local_clients_never_influence_each_other(net, few):
    whole = split(few, 4, "iid", seed=0)
    from dataclasses import replace

    swapped = replace(whole, train=(whole.train[0], *whole.train[:0:-1]))  # client 0 as before, the others exchanged
    a, b = (run("local", net, f) for f in (whole, swapped))
    assert a.server == {} and same(a.clients[0], b.clients[0]) and not same(a.clients[1], b.clients[1])


def test_fedbabus_classifier_is_bit_equal_to_its_start_with_momentum_and_decay(net, federation):
    start = net.init(0)
    state = run("fedbabu", net, federation, momentum=0.9, weight_decay=0.1)
    for tensors in (state.server, *state.clients):
        assert same(pick(tensors, "classifier."), pick(start, "classifier."))
        assert not same(pick(tensors, "extractor."), pick(start, "extractor."))
    assert not np.isnan(state.records[-1]["global"])
    tuned, bare = (run("fedbabu", net, federation, fine_tune_epochs=e).records[-1]["accuracies"] for e in (5, 0))
    assert tuned != bare


def test_balanced_softmax_by_hand_and_at_equal_counts():
    logits, y = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([0])
    e = [3 * np.exp(1.0), 1 * np.exp(2.0), 0.0]  # counts 3, 1, 0: the third class is out
    by_hand = -np.log(e[0] / sum(e))
    assert balanced_softmax(logits, y, torch.tensor([3.0, 1.0, 0.0])).item() == pytest.approx(by_hand)
    equal = balanced_softmax(logits, y, torch.full((3,), 7.0))
    assert equal.item() == pytest.approx(cross_entropy(logits, y).item())


def test_fedrods_head_sees_stopped_features_and_its_counts_stay(net, local):
    method = make("fedrod", **QUICK)
    client = method.init(net.init(0)) | method.counts(net, local.x, local.y, torch.ones(12))
    assert client["class_counts"].tolist() == np.bincount(local.y, minlength=10).tolist()
    leaves = {n: t.clone().requires_grad_() for n, t in client.items() if n != "class_counts"}
    tensors = leaves | {"class_counts": client["class_counts"]}
    total = method.loss(net, tensors, {}, local.x, local.y).mean()
    generic = balanced_softmax(net.logits(tensors, local.x), local.y, client["class_counts"]).mean()
    for name in pick(leaves, *BOTH):  # extractor and generic classifier learn from the generic loss alone
        a, b = (torch.autograd.grad(loss, leaves[name], retain_graph=True)[0] for loss in (total, generic))
        assert torch.allclose(a, b, atol=1e-6)
    assert torch.autograd.grad(total, leaves["head.classifier.weight"])[0].abs().sum() > 0


def test_fedpacs_prototypes_are_size_weighted_class_means_absent_classes_included(net, federation):
    method, start = make("fedpac", **QUICK), net.init(0)
    uploads, features, labels = {}, [], []
    for k, index in enumerate(federation.train[:3]):
        x, y = federation.data.images(index), federation.data.y[index]
        z = net.features(start, x)
        own = method.statistics(net, z, y, torch.ones(len(y))) | method.prototypes(net, z, y, torch.ones(len(y)))
        uploads[k] = method.upload(start | own)
        features.append(z)
        labels.append(y)
    z, y = torch.cat(features), torch.cat(labels)
    server = method.aggregate(method.init_server(start), uploads, dict.fromkeys(uploads, 1))
    assert torch.equal(server["prototypes.counts"], torch.bincount(y, minlength=10).float())
    for c in range(10):
        there = z[y == c].mean(0) if (y == c).any() else torch.zeros(128)
        assert torch.allclose(server["prototypes.means"][c], there, atol=1e-5)


def test_fedpac_pulls_from_the_second_round_on_and_falls_back_to_its_own_prototype(net, local):
    method, start = make("fedpac", lam=2.0), net.init(0)
    z = net.features(start, local.x)
    plain = make("fedavg").loss(net, start, {}, local.x, local.y)
    assert torch.equal(method.loss(net, start, start, local.x, local.y), plain)
    own = torch.ones(10, 128)
    counts = torch.zeros(10)
    counts[3] = 5.0
    download = start | {"prototypes.means": torch.zeros(10, 128), "prototypes.counts": counts}
    got = method.loss(net, start | {"own.means": own}, download, local.x, local.y)
    for i, label in enumerate(local.y.tolist()):
        centre = torch.zeros(128) if label == 3 else torch.ones(128)
        assert got[i].item() == pytest.approx((plain[i] + 2 * (z[i] - centre).square().mean()).item(), rel=1e-4)


def test_fedpacs_statistics_by_hand(net):
    z, y = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0, 1])
    got = make("fedpac").statistics(net, z, y, torch.ones(3))
    assert torch.allclose(got["statistics.h"][:2], torch.tensor([[4 / 3, 0.0], [0.0, 2 / 3]]))
    # p = (2/3, 1/3); E|f|^2 = (5, 4); |mu|^2 = (4, 4): (14/3 - 16/9 - 4/9) / 3
    assert got["statistics.v"].item() == pytest.approx((14 / 3 - 20 / 9) / 3)


@pytest.mark.parametrize("seed", range(8))
def test_fedpacs_mixture_against_a_search_over_the_simplex(seed):
    rng = np.random.default_rng(seed)
    h, v = rng.normal(size=(3, 6)) * rng.uniform(0.1, 2), rng.uniform(0.01, 2, 3)
    steps = np.linspace(0, 1, 201)
    for i in range(3):
        d = h[i] - h
        q = np.diag(v) + d @ d.T
        grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-12])
        values = np.einsum("nk,kl,nl->n", grid, q, grid)
        alpha = mixture(h, v, i)
        assert alpha.sum() == pytest.approx(1) and (alpha >= 0).all()
        assert alpha @ q @ alpha <= values.min() + 1e-6
        assert np.abs(alpha - grid[values.argmin()]).max() < 0.02


def test_fedpacs_mixture_of_equal_clients_is_even_and_of_lone_samples_defined():
    assert mixture(np.ones((4, 3)), np.full(4, 0.5), 0) == pytest.approx([0.25] * 4)
    alone = mixture(np.array([[1.0, 0.0], [0.0, 50.0]]), np.zeros(2), 0)  # no variance, far away: its own classifier
    assert alone == pytest.approx([1.0, 0.0])


def test_fedpac_sends_every_client_its_own_mixture(net, federation):
    state = run("fedpac", net, federation)
    method = make("fedpac")
    downloads = [method.send(state.server, k) for k in range(4)]
    assert all({n.split(".")[0] for n in d} == {"extractor", "classifier", "prototypes"} for d in downloads)
    assert not same(pick(downloads[0], "classifier."), pick(downloads[1], "classifier."))


def test_weighted_mean_does_not_depend_on_the_order_of_clients(net):
    many = [{n: t.double() for n, t in net.init(seed).items()} for seed in range(4)]
    a, b = weighted_mean(many, [1, 2, 3, 4]), weighted_mean(many[::-1], [4, 3, 2, 1])
    assert all(torch.allclose(a[n], b[n], atol=1e-14) for n in a)


@pytest.mark.parametrize("name", METHODS)
def test_partial_participation_works_for_every_method(net, few, name):
    state = last(rounds(make(name, **QUICK), net, split(few, 10, "iid"), rounds=3, participation=0.1))
    assert np.isfinite(state.records[-1]["personal"])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns(net, digits, name):
    """On ten clients with real digits every method is far above guessing (0.1) after a few rounds."""
    federation = split(digits, 10, "dirichlet", alpha=0.5)
    state = last(rounds(make(name, lr=0.1, epochs=3), net, federation, rounds=4, eval_every=4))
    assert state.records[-1]["personal"] > 0.4


def three_clients(few):
    """Three clients of 20, 30 and 40 digits, in float64."""
    index = torch.arange(90).split([20, 30, 40])
    return Federation(few, index, index).to(dtype=torch.float64)


def test_fedpacs_next_classifiers_by_another_solver_on_three_clients(few):
    """From the clients' tensors as the paper writes it: p_ik, class means, variance; the quadratic problem by SLSQP."""
    federation = three_clients(few)
    net = net_for((1, 8, 8), 10)
    method = make("fedpac", **QUICK)
    state = last(rounds(method, net, federation, rounds=1))
    theta = net.init(0, torch.float64)  # received in round 1: statistics are of its features
    h, v = [], []
    for index in federation.train:
        z = net.features(theta, federation.data.images(index)).detach().numpy()
        y = federation.data.y[index].numpy()
        of_classes = [z[y == c] for c in range(10)]
        share = [len(rows) / len(y) for rows in of_classes]
        mean = [rows.mean(0) if len(rows) else np.zeros(128) for rows in of_classes]
        h.append(np.concatenate([p * m for p, m in zip(share, mean, strict=True)]))
        second = sum(p * (rows**2).sum(1).mean() for p, rows in zip(share, of_classes, strict=True) if len(rows))
        v.append((second - sum(p**2 * m @ m for p, m in zip(share, mean, strict=True))) / len(y))
    for i in range(3):
        d = np.array([h[i] - h[j] for j in range(3)])

        def objective(a, d=d):
            return a @ (np.diag(v) @ a) + (a @ d) @ (a @ d)

        simplex = {"type": "eq", "fun": lambda a: a.sum() - 1}
        best = minimize(objective, np.full(3, 1 / 3), bounds=[(0, 1)] * 3, constraints=simplex, tol=1e-14)
        alpha = np.where(best.x < 1e-3, 0, best.x)
        alpha /= alpha.sum()
        for name in ("classifier.weight", "classifier.bias"):
            expected = sum(a * client[name] for a, client in zip(alpha, state.clients, strict=True))
            assert torch.allclose(state.server[f"mixed.{i}.{name}"], expected, atol=1e-5), (i, name)


def test_fedrods_prediction_is_the_sum_of_both_heads_on_three_clients(few):
    """Written with plain matrices: features by the modules, then W z + b of both heads."""
    federation = three_clients(few)
    net = net_for((1, 8, 8), 10)
    state = last(rounds(make("fedrod", **QUICK), net, federation, rounds=2))
    hits = []
    for client, index in zip(state.clients, federation.test, strict=True):
        x, y = federation.data.images(index), federation.data.y[index]
        extractor = copy.deepcopy(net.extractor).double()
        weights = pick(client, "extractor.")
        extractor.load_state_dict({name.removeprefix("extractor."): t for name, t in weights.items()})
        z = extractor(x)
        generic = z @ client["classifier.weight"].T + client["classifier.bias"]
        personal = z @ client["head.classifier.weight"].T + client["head.classifier.bias"]
        hits.append(((generic + personal).argmax(1) == y).float().mean().item())
    assert state.records[-1]["accuracies"] == pytest.approx(hits)


@pytest.mark.parametrize("name", ["fedrep", "fedpac", "fedecouple"])
def test_the_classifiers_step_size_is_its_own(net, local, name):
    """None is lr, to the bit; 0 leaves the classifier where it was, and the extractor moves all the same."""
    start, server = net.init(0), net.init(1)
    results = {}
    for lr in (None, 0.1, 0.0):
        method = make(name, **QUICK | {"lr": 0.1}, classifier_lr=lr)
        results[lr] = client_round(method, net, method.init(start), method.send(method.init_server(server), 0), local)
    assert same(results[None].client, results[0.1].client)
    still, extractor = results[0.0].client, "extractor.0.weight"
    assert torch.equal(still["classifier.weight"], start["classifier.weight"])
    assert not torch.equal(still[extractor], server[extractor])


def test_a_step_size_that_may_be_left_out_is_written_as_none():
    assert make("fedrep", classifier_lr="none") == make("fedrep") and make("fedrep").classifier_lr is None
    assert make("fedrep", classifier_lr="0.2").classifier_lr == 0.2
    with pytest.raises(ValueError, match=r"classifier_lr=-1.0 of FedRep must be a number >= 0, or none"):
        make("fedrep", classifier_lr=-1.0)
    with pytest.raises(ValueError, match=r"classifier_lr=0.1 means nothing to method='fedavg'"):
        make("fedavg", classifier_lr=0.1)


def test_two_whole_phases_are_the_global_one_and_then_the_local_one(net, local):
    """coupling "phases" by hand: what `sgd` does with each loss, one after the other, on batches drawn anew."""
    method = make("fedecouple", **QUICK, coupling="phases", classifier_epochs=0)
    start, server = net.init(0), net.init(1)
    got = client_round(method, net, start, server, local)
    client = {**start, **pick(server, "extractor.")}
    z = net.features(client, local.x).detach()
    client |= method.anchors(net, z, local.y, torch.ones(len(local.y)))
    for loss_of in (method.global_pull, method.local_pull):
        phase = Train(("extractor.",), (loss_of,), method.epochs)
        client |= sgd(method, phase, net, client, server, local.x, local).tensors
    assert same(got.client, client) and got.steps == 2 * method.epochs * 3
    assert len(make("fedecouple", coupling="phases", global_loss=0).extractor_phases()) == 1
