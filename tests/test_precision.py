"""bfloat16 in the extractor, and in nothing else. Whether this processor is fast at it does not matter here."""

import numpy as np
import pytest
import torch
from helpers import last, same
from test_cli import call, is_refused

from fedecouple_lite import METHODS, make, precision, rounds
from fedecouple_lite.precision import check_precision, products_in, share_of_float32s_time
from fedecouple_lite.studies.experiment import Setting, finished_run, run

QUICK = {"lr": 0.1, "epochs": 1, "batch_size": 8}


@pytest.fixture
def fast(monkeypatch):
    """A processor that is fast at bfloat16."""
    monkeypatch.setattr(precision, "share_of_float32s_time", lambda device_type: 0.5)


def test_features_are_rounded_and_all_else_is_float32(net, few):
    x = few.images(torch.arange(12))
    weights = {name: weight.requires_grad_() for name, weight in net.init(0).items()}
    coarse = net.in_precision("bf16")
    z = coarse.features(weights, x).detach()
    exact = net.features(weights, x).detach()
    assert z.dtype == torch.float32 and not torch.equal(z, exact)
    assert torch.equal(z, z.bfloat16().float())  # what a product of bfloat16 leaves is one
    assert torch.allclose(z, exact, atol=0.03 * float(exact.abs().max()))
    assert torch.equal(coarse.classify(weights, z), net.classify(weights, z))
    gradients = torch.autograd.grad(coarse.logits(weights, x).logsumexp(1).sum(), list(weights.values()))
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


def test_float32_is_what_it_was_and_the_net_given_does_not_change(net, few):
    x = few.images(torch.arange(12))
    weights = net.init(0)
    assert net.in_precision("bf16").precision == "bf16" and net.precision == "float32"
    back = net.in_precision("bf16").in_precision("float32")
    assert torch.equal(back.features(weights, x), net.features(weights, x))
    assert net.in_precision("bf16").structure == net.structure


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("name", METHODS)
def test_backends_agree_and_every_tensor_that_is_kept_is_float32(net, federation, name):
    coarse = net.in_precision("bf16")
    method = make(name, **QUICK)
    one, two, stacked = (
        last(rounds(method, coarse, federation, rounds=2, backend=backend)) for backend in ("loop", "threads", "vmap")
    )
    exact = last(rounds(method, net, federation, rounds=2, backend="loop"))
    assert same(one.server, two.server)
    for state in (one, two, stacked):
        for tensors in (state.server, *state.clients):
            assert all(tensor.dtype == torch.float32 for tensor in tensors.values() if tensor.is_floating_point())
    moved = {n for n in exact.clients[0] if n.startswith("extractor.")}
    assert not same({n: one.clients[0][n] for n in moved}, {n: exact.clients[0][n] for n in moved})
    for state in (stacked, exact):  # to bfloat16's rounding
        for name_of_tensor in moved:
            here, there = one.clients[0][name_of_tensor], state.clients[0][name_of_tensor]
            assert torch.allclose(here, there, atol=0.05), name_of_tensor


def test_a_processor_that_is_slow_at_it_and_images_of_another_dtype_are_refused_before_any_work(
    net, federation, monkeypatch
):
    monkeypatch.setattr(precision, "share_of_float32s_time", lambda device_type: 1.7)
    coarse = net.in_precision("bf16")
    with pytest.raises(ValueError, match=r"precision='bf16' .* take 1.7 times as long as in float32"):
        next(rounds(make("fedavg", **QUICK), coarse, federation, rounds=1))
    with pytest.raises(ValueError, match=r"precision='bf16' must be float32 for images in torch.float64"):
        next(rounds(make("fedavg", **QUICK), coarse, federation.to(dtype=torch.float64), rounds=1))
    with pytest.raises(ValueError, match="precision='fp8' must be one of float32, bf16"):
        net.in_precision("fp8")
    with pytest.raises(ValueError, match="precision='half' must be one of float32, bf16"):
        check_precision("half", torch.zeros(1))


def test_the_measurement_is_a_share_of_time_and_made_once():
    share_of_float32s_time.cache_clear()
    share = share_of_float32s_time("cpu")
    assert 0 < share < 1000 and share_of_float32s_time("cpu") == share  # two measurements would not be equal


def test_outside_nothing_is_rounded():
    x = torch.rand(20, 20)
    with products_in("bf16", "cpu"):
        assert (x @ x).dtype == torch.bfloat16
    with products_in("float32", "cpu"):
        assert (x @ x).dtype == torch.float32
    assert (x @ x).dtype == torch.float32


@pytest.mark.usefixtures("fast")
def test_a_run_says_its_precision_and_learns_as_in_float32(tmp_path):
    few = {"clients": 5, "per_client": 60, "rounds": 4}
    accuracies = {}
    for name in ("float32", "bf16"):
        out = tmp_path / f"{name}.json"
        run(Setting(**few, precision=name), make("fedecouple"), 0, out, lambda state: None)
        written = finished_run(out)
        assert written["setting"]["precision"] == name
        accuracies[name] = np.mean([record["personal"] for record in written["records"][-2:]])
    assert accuracies["float32"] > 0.6 and abs(accuracies["bf16"] - accuracies["float32"]) < 0.08


def test_the_command_line_refuses_what_there_is_not(tmp_path):
    words = ("run", "--clients", 4, "--per-client", 30, "--rounds", 1, "--out", tmp_path / "x.json")
    assert is_refused(call(*words, "--precision", "fp16"), "precision='fp16' must be one of float32, bf16")
    assert not (tmp_path / "x.json").exists()
