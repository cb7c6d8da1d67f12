"""The yardsticks measure the same work as the engine; timings themselves are never asserted."""

from pathlib import Path

import pytest
import torch
from helpers import same

from fedecouple_lite import client_round, make


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))


@pytest.mark.parametrize(
    ("name", "own"), [("fedavg", {}), ("fedrep", {}), ("fedecouple", {}), ("fedecouple", {"coupling": "joint"})]
)
def test_the_bare_loop_computes_what_the_engine_computes(net, local, name, own):
    import bare

    method, start = make(name, lr=0.05, epochs=2, batch_size=5, **own), net.init(0)
    extractor, classifier = bare.client_round(name, method, net, start, local)
    got = client_round(method, net, start, start, local).client
    there = {f"extractor.{n}": t for n, t in extractor.items()} | {f"classifier.{n}": t for n, t in classifier.items()}
    assert all(torch.allclose(got[n], there[n], atol=1e-5) for n in start)
    assert not same({n: got[n] for n in start}, start)


def test_the_gpu_script_runs_on_a_cpu():
    import gpu

    rows = list(gpu.main("cpu", [3], 12, 1))
    assert [row["net"] for row in rows] == ["cnn28", "cnn32"] and all(row["vmap s"] > 0 for row in rows)
