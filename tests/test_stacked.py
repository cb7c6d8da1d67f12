"""All backends compute the same: float64 to 1e-10 for every method, float32 to rounding; any net, or a reason."""

from dataclasses import replace

import pytest
import torch
from helpers import difference, last, same
from torch import nn

from fedecouple_lite import METHODS, DecoupledNet, client, make, net_for, rounds, split, stacked
from fedecouple_lite import engine as engine_module
from fedecouple_lite.client import LocalData, first_not_finite
from fedecouple_lite.engine import backends_for, threads_for
from fedecouple_lite.stacked import StackOfClients, close

QUICK = {"lr": 0.05, "epochs": 2, "batch_size": 8}


@pytest.mark.parametrize("name", METHODS)
def test_backends_agree_in_float64_over_five_rounds(net, federation, name):
    doubles = federation.to(dtype=torch.float64)
    runs = [
        last(rounds(make(name, **QUICK), net, doubles, rounds=5, backend=b, eval_every=5)) for b in ("loop", "vmap")
    ]
    assert difference(*runs) < 1e-10
    assert runs[0].records[-1]["steps"] == runs[1].records[-1]["steps"]
    assert runs[0].records[-1]["loss"] == pytest.approx(runs[1].records[-1]["loss"], abs=1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_backends_agree_where_newcomers_and_veterans_share_a_stack(net, few, name):
    """Half of the clients each round: some have measured anchors or statistics before, some never took part."""
    federation = split(few, 6, "iid").to(dtype=torch.float64)
    common = {"rounds": 4, "participation": 0.5, "eval_every": 4}
    runs = [last(rounds(make(name, **QUICK), net, federation, backend=b, **common)) for b in ("loop", "vmap")]
    assert difference(*runs) < 1e-10


@pytest.mark.parametrize("name", ["fedavg", "fedecouple"])
def test_backends_agree_in_float32_over_one_round(net, federation, name):
    """Rounding apart; over many rounds ReLU nets drift, which is why the strict test is in float64."""
    runs = [
        last(rounds(make(name, **QUICK), net, federation, rounds=1, backend=b)) for b in ("loop", "threads", "vmap")
    ]
    assert difference(runs[0], runs[1]) == 0
    assert difference(runs[0], runs[2]) < 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_a_stack_is_evaluated_as_its_clients_one_by_one(net, few, name, monkeypatch):
    """Clients of unequal size, one without a test image; half of them newcomers."""
    federation = split(few, 6, "quantity").to(dtype=torch.float64)
    federation = replace(federation, test=(*federation.test[:5], federation.test[5][:0]))
    one_by_one, in_stacks = (
        last(rounds(make(name, **QUICK), net, federation, rounds=2, participation=0.5, backend=backend))
        for backend in ("loop", "vmap")
    )
    seen = []
    original = engine_module.evaluate_stack
    monkeypatch.setattr(engine_module, "evaluate_stack", lambda *args: seen.append(args[-1]) or original(*args))
    monkeypatch.setattr(engine_module, "evaluate_client", None)  # asking it would fail
    again = last(rounds(make(name, **QUICK), net, federation, rounds=2, participation=0.5, backend="vmap"))
    assert [sorted(stack) for stack in seen] == [list(range(6))] * 2
    for state in (in_stacks, again):
        for record, expected in zip(state.records, one_by_one.records, strict=True):
            for key in ("accuracies", "personal", "personal_received", "global", "newcomers", "predict_steps"):
                assert str(record[key]) == str(expected[key]), key  # as text: NaN equals NaN


def test_a_stack_is_evaluated_chunk_by_chunk(net, federation, monkeypatch):
    whole = last(rounds(make("fedrep", **QUICK), net, federation, rounds=1, backend="vmap"))
    monkeypatch.setattr(engine_module, "CHUNK", 3 * len(federation))  # three images of each client at once
    seen = []
    original = engine_module.predict_stack
    monkeypatch.setattr(engine_module, "predict_stack", lambda *args: seen.append(args[-1].shape[1]) or original(*args))
    in_chunks = last(rounds(make("fedrep", **QUICK), net, federation, rounds=1, backend="vmap"))
    assert max(seen) == 3 and len(seen) > 2
    assert in_chunks.records[-1]["accuracies"] == whole.records[-1]["accuracies"]


def test_a_prediction_that_looks_at_its_batch_is_made_client_by_client(net, federation):
    """Logits over the batch's own mean: padding would change them."""

    class OverItsBatch(METHODS["fedrep"]):
        def predict(self, net, client, download, x):
            logits = net.logits(client, x)
            return logits - logits.mean(0)

    class NotVectorised(METHODS["fedrep"]):
        def predict(self, net, client, download, x):
            logits = net.logits(client, x)
            return logits if logits.sum().item() > 0 else -logits

    for kind in (OverItsBatch, NotVectorised):
        method = kind(**QUICK)
        doubles = federation.to(dtype=torch.float64)
        loop, vmap = (last(rounds(method, net, doubles, rounds=2, backend=b)) for b in ("loop", "vmap"))
        assert vmap.backend == "vmap"  # as the round was trained
        assert vmap.records[-1]["accuracies"] == loop.records[-1]["accuracies"]


def test_a_stack_that_diverges_while_fine_tuning_names_the_client_and_the_step_sizes(net, federation):
    method = make("fedavg_ft", **QUICK, fine_tune_lr=1e30)
    with pytest.raises(FloatingPointError, match=r"FedAvgFT, client \d+, after round 1: .* smaller lr or fine_tune_lr"):
        last(rounds(method, net, federation, rounds=1, backend="vmap"))


def test_what_is_not_finite_is_found_among_numbers_of_all_kinds():
    huge = torch.full((4,), 3e38)  # its length is infinite, its numbers are not
    whole = torch.tensor([1, 2])
    fine = {"huge": huge, "whole": whole, "empty": torch.zeros(0), "complex": torch.ones(2, dtype=torch.complex64)}
    assert first_not_finite({}) is None and first_not_finite({"whole": whole}) is None
    assert first_not_finite(fine) is None
    for value in (float("nan"), float("inf"), -float("inf")):
        for dtype in (torch.float32, torch.float64, torch.float16, torch.complex64):
            assert first_not_finite({**fine, "bad": torch.tensor([0.0, value]).to(dtype)}) == "bad"


def test_results_do_not_depend_on_the_number_of_cores(net, few, monkeypatch):
    """Several stacks on one, two and five threads: equal to the bit."""
    federation, states = split(few, 12, "dirichlet", alpha=1.0), []
    monkeypatch.setattr(engine_module, "MAX_STACK", {"cpu": 5})
    for cores in (1, 2, 5):
        monkeypatch.setattr(engine_module.os, "cpu_count", lambda cores=cores: cores)
        for backend in ("vmap", "threads"):
            states.append(last(rounds(make("fedecouple", **QUICK), net, federation, rounds=2, backend=backend)))
    for i in range(2, 6):
        assert same(states[i].server, states[i % 2].server)


def test_stacks_are_of_equal_length_and_largest_first(few):
    federation = split(few, 12, "quantity")
    stacks = engine_module.stacks_of(federation, list(range(12)), 5)
    assert sorted(k for stack in stacks for k in stack) == list(range(12)) and [len(s) for s in stacks] == [4, 4, 4]
    for stack in stacks:
        sizes = [len(federation.train[k]) for k in stack]
        assert sizes == sorted(sizes, reverse=True)


def test_partial_batches_and_one_image_clients_are_stacked_without_a_trace_of_padding(few):
    """Clients of 1, 2 and many images, a batch of 8: padding must touch neither weights nor momentum."""
    parts = [torch.arange(0, 1), torch.arange(1, 3), torch.arange(3, 50)]
    from fedecouple_lite import Federation

    federation = Federation(few, tuple(parts), tuple(parts)).to(dtype=torch.float64)
    net = net_for((1, 8, 8), 10)
    for name in ("fedpac", "fedrod", "fedecouple"):
        runs = [
            last(rounds(make(name, **QUICK, momentum=0.9), net, federation, rounds=2, backend=b))
            for b in ("loop", "vmap")
        ]
        assert difference(*runs) < 1e-12


def own_net():
    """32-64-512: two 5x5 convolutions with pooling, 1600 -> 512 | 512 -> 10, on 32x32 images."""
    extractor = nn.Sequential(
        nn.Conv2d(3, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1600, 512), nn.ReLU(),
    )  # fmt: skip
    return DecoupledNet(extractor, nn.Linear(512, 10), (3, 32, 32))


def test_a_users_larger_cnn_works_in_every_backend():
    from fedecouple_lite import from_arrays

    x = torch.randint(0, 255, (24, 32, 32, 3), dtype=torch.uint8).numpy()
    y = torch.arange(24).remainder(10).numpy()
    federation = split(from_arrays("made up", x, y, x[:0], y[:0]), 3, "iid").to(dtype=torch.float64)
    method = make("fedecouple", lr=0.02, epochs=1, batch_size=4)
    runs = [last(rounds(method, own_net(), federation, rounds=1, backend=b)) for b in ("loop", "threads", "vmap")]
    assert difference(runs[0], runs[1]) == 0 and difference(runs[0], runs[2]) < 1e-10


def test_a_net_that_cannot_be_vectorised_is_refused_with_the_reason(federation):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 9)

        def forward(self, x):
            z = self.layer(x.flatten(1))
            return z if z.sum().item() > 0 else -z  # looks at values: no vectorised form

    net = DecoupledNet(Branches(), nn.Linear(9, 10), (1, 8, 8))
    last(rounds(make("fedrep", **QUICK), net, federation, rounds=1, backend="threads"))
    with pytest.raises(ValueError, match=r"backend='vmap' cannot vectorise this net or method .* use 'threads'"):
        last(rounds(make("fedrep", **QUICK), net, federation, rounds=1, backend="vmap"))


def test_auto_stacks_small_images_and_threads_large_ones(digits):
    assert backends_for("auto", digits) == ("vmap", "threads")
    assert backends_for("auto", replace(digits, x=torch.zeros(2, 1, 28, 28))) == ("threads",)
    assert backends_for("loop", digits) == ("loop",) and threads_for(("loop",), digits) == 1


def test_uint8_stays_uint8_and_data_is_not_copied_per_client(digits):
    federation = split(digits, 20)
    assert federation.data.x is digits.x and federation.data.x.dtype == torch.uint8
    assert federation.to().data.x.data_ptr() == digits.x.data_ptr()


def test_a_frozen_extractor_runs_once_per_round(net, local, monkeypatch):
    """FedeCouple's anchors and its classifier phase of five epochs share one pass over the images."""
    from fedecouple_lite import client_round

    seen = []
    features = net.features
    monkeypatch.setattr(net, "features", lambda *args: seen.append(len(args[1])) or features(*args))
    client_round(make("fedecouple", classifier_epochs=5, epochs=0), net, net.init(0), net.init(1), local)
    assert seen == [12]


def test_features_chunk_by_chunk_are_the_features(net, few, monkeypatch):
    """25 images in chunks of 7, by one client and by a stack of two."""
    monkeypatch.setattr(client, "CHUNK", 7)
    monkeypatch.setattr(stacked, "CHUNK", 7)
    weights = {name: tensor.double() for name, tensor in net.init(0).items()}
    x = few.to(dtype=torch.float64).images(torch.arange(25))
    whole = net.features(weights, x)
    seen = []
    features = net.features
    monkeypatch.setattr(net, "features", lambda *args: seen.append(len(args[1])) or features(*args))
    assert torch.allclose(client.forward(net.features, weights, x), whole, atol=1e-12) and seen == [7, 7, 7, 4]
    method = make("fedrep")
    data = [LocalData(x, few.y[:25], lambda epochs: []), LocalData(x[:9], few.y[:9], lambda epochs: [])]
    trainer = StackOfClients(method, net, [weights, weights], data)
    seen.clear()
    both = trainer.features({name: torch.stack([tensor, tensor]) for name, tensor in weights.items()})
    assert set(seen) == {3, 1} and len(seen) == 9  # seven images of two clients are three of each
    assert torch.allclose(both[0], whole, atol=1e-12) and torch.allclose(both[1, :9], whole[:9], atol=1e-12)


def test_what_differs_by_more_than_rounding_is_not_close():
    one = torch.tensor([1.0, -2.0])
    cases = (
        (torch.float32, "float32", 1e-5, 1e-2),
        (torch.float64, "float32", 1e-10, 1e-6),
        (torch.float32, "bf16", 1e-2, 0.5),  # of numbers that a net in bfloat16 has computed
    )
    for dtype, precision, rounding, difference_ in cases:
        a = one.to(dtype)
        assert close(a, a + rounding, precision)
        assert not close(a, a + difference_, precision) and not close(a + difference_, a, precision)
    assert not close(one, one[:1], "float32")
    assert close(one * float("nan"), one * float("nan"), "float32")
