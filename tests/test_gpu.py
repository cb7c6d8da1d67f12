"""The same figures on a GPU: every method, every backend, resumed. Skipped where PyTorch finds none."""

from dataclasses import replace

import pytest
import torch
from helpers import difference, last, same

from fedecouple_lite import make, rounds
from fedecouple_lite.engine import backends_for
from fedecouple_lite.methods import METHODS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
QUICK = {"epochs": 1, "batch_size": 16}


@pytest.fixture
def on_gpu(federation):
    return federation.to("cuda")


def on_cpu(state):
    """A copy of a state whose tensors lie on the CPU."""
    server = {name: tensor.cpu() for name, tensor in state.server.items()}
    clients = tuple({name: tensor.cpu() for name, tensor in client.items()} for client in state.clients)
    return replace(state, server=server, clients=clients)


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("name", METHODS)
def test_a_gpu_computes_what_a_cpu_computes(net, federation, name, backend):
    doubles = federation.to(dtype=torch.float64)
    reference = last(rounds(make(name, **QUICK), net, doubles, rounds=3, backend="loop"))
    state = last(rounds(make(name, **QUICK), net, doubles.to("cuda", torch.float64), rounds=3, backend=backend))
    assert all(tensor.is_cuda for tensor in state.server.values())
    assert difference(on_cpu(state), reference) < 1e-8
    for record, expected in zip(state.records, reference.records, strict=True):
        assert record["accuracies"] == expected["accuracies"]


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("name", ["fedavg", "fedpac", "fedecouple"])
def test_a_resumed_run_is_the_uninterrupted_one(net, on_gpu, name, backend):
    method = make(name, **QUICK)
    whole = last(rounds(method, net, on_gpu, rounds=4, backend=backend))
    half = last(rounds(method, net, on_gpu, rounds=2, backend=backend))
    resumed = last(rounds(method, net, on_gpu, rounds=4, backend=backend, state=half))
    pairs = zip((resumed.server, *resumed.clients), (whole.server, *whole.clients), strict=True)
    assert all(same(one, other) for one, other in pairs)


def test_auto_trains_in_stacks(on_gpu):
    assert backends_for("auto", on_gpu.data) == ("vmap", "threads")
