"""How fast the engine is, as ratios to a bare training loop in the same run. `make bench`; ten minutes on 2 cores.

Four tables, each printed and written to data/results/speed/: (a) the engine's backends against benchmarks/bare.py;
(b) clients per second and memory against the number of clients; (c) the fixed cost of a step; (d) start-up. Pixels are
random: time does not depend on them. Times are medians.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import bare
import numpy as np
import pandas as pd
import torch
from torch import nn

from fedecouple_lite import DecoupledNet, from_arrays, load, make, net_for, rounds, split
from fedecouple_lite.engine import TRAIN, _local, client_round

OUT = Path(__file__).resolve().parents[1] / "data" / "results" / "speed"


def machine() -> str:
    """What the figures depend on, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}"


def report(name: str, rows: list[dict]) -> None:
    """Print a table and write it as CSV, the machine in its first line."""
    table = pd.DataFrame(rows)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.csv").write_text(f"# {machine()}; python benchmarks/speed.py\n{table.to_csv(index=False)}")
    print(f"\n{name}\n{table.to_string(index=False)}", flush=True)


def images(size: int, channels: int, n: int, seed: int = 0):
    """n random images of ten classes."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 255, (n, channels, size, size), dtype=np.uint8)
    return from_arrays("random pixels", x, rng.permutation(np.arange(n) % 10), x[:0], np.arange(0))


def seconds_of_rounds(method, net, federation, backend: str, repeats: int) -> list[float]:
    """Training and aggregation of `repeats` rounds after a first one that warms up."""
    *_, state = rounds(method, net, federation, rounds=repeats + 1, backend=backend, eval_every=1)
    return [record["seconds"] for record in state.records[1:]]


def seconds_of_bare(name: str, method, net, federation) -> float:
    """The same round as a plain loop, on PyTorch's own threads."""
    weights = net.init(0)
    data = [_local(federation, method, k, [0, TRAIN, 1], threading.Event()) for k in range(len(federation))]
    data = [type(own)(own.x.clone(memory_format=torch.contiguous_format), own.y, own.batches) for own in data]
    began = time.perf_counter()
    states = [bare.client_round(name, method, net, weights, own) for own in data]
    for part in zip(*states, strict=True):
        {key: sum(state[key] for state in part) / len(part) for key in part[0]}
    return time.perf_counter() - began


def against_the_bare_loop(repeats: int) -> None:
    settings = {
        "digits-small_cnn": (split(load("digits"), 20, test_share=0.5), {"epochs": 2, "batch_size": 16}),
        "FMNIST-cnn28": (split(images(28, 1, 20 * 610), 20, "iid", test_share=1 / 61), {"epochs": 1, "batch_size": 50}),
        "CIFAR-cnn32": (split(images(32, 3, 20 * 610), 20, "iid", test_share=1 / 61), {"epochs": 2, "batch_size": 50}),
    }
    methods = {"fedavg": {}, "fedrep": {}, "fedecouple joint": {"coupling": "joint"}, "fedecouple alternate": {}}
    rows = []
    for setting, (federation, common) in settings.items():
        net = net_for(federation.data.in_shape, 10)
        times = repeats * (10 if setting.startswith("digits") else 1)  # short rounds need more of them
        for title, own in methods.items():
            name = title.split()[0]
            method = make(name, lr=0.02, **common, **own)
            runs = {
                b: rounds(method, net, federation, rounds=times + 1, backend=b) for b in ("loop", "threads", "vmap")
            }
            plain, engine = [], {backend: [] for backend in runs}
            for repeat in range(times + 1):  # in turn, so that a busy moment of the machine hits all alike
                seconds = seconds_of_bare(name, method, net, federation)
                records = {backend: next(run).records[-1]["seconds"] for backend, run in runs.items()}
                if repeat:  # the first one warms up
                    plain.append(seconds)
                    for backend, time_ in records.items():
                        engine[backend].append(time_)
            row = {"setting": setting, "E": common["epochs"], "method": title}
            row["bare loop s"] = round(statistics.median(plain), 3)
            row |= {f"{b} / bare": round(statistics.median(t) / statistics.median(plain), 2) for b, t in engine.items()}
            rows.append(row | {"repeats": times})
            print(row, flush=True)
    report("ratio_to_bare_loop", rows)


def number_of_clients() -> None:
    rows = []
    data = images(8, 1, 20_000)
    net = net_for(data.in_shape, 10)
    for clients, participation in ((10, 1.0), (100, 1.0), (1000, 0.1), (1000, 1.0)):
        federation = split(data, clients, "iid")
        *_, state = rounds(make("fedecouple"), net, federation, rounds=4, participation=participation, eval_every=1)
        cohort = max(1, round(participation * clients))
        seconds = statistics.median(record["seconds"] for record in state.records[1:])
        held = sum(t.numel() * t.element_size() for client in state.clients for t in client.values())
        row = {"clients": clients, "participation": participation, "round s": round(seconds, 2)}
        row |= {"clients / s": round(cohort / seconds), "clients' state MB": round(held / 1e6)}
        row |= {"images MB": round(data.x.numel() / 1e6, 1)}
        rows.append(row | {"peak memory MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)})
    report("number_of_clients", rows)


def cost_of_a_step() -> None:
    data = images(8, 1, 2000)
    net = DecoupledNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), nn.Linear(4, 10), (1, 8, 8))
    federation = split(data, 1, "iid", test_share=0)
    method, weights, rows = make("fedavg", epochs=1, batch_size=1), net.init(0), []
    torch.set_num_threads(1)
    for title in ("bare loop", "engine"):
        times = []
        for _ in range(5):
            own = _local(federation, method, 0, [0, TRAIN, 1], threading.Event())
            began = time.perf_counter()
            if title == "engine":
                client_round(method, net, weights, weights, own)
            else:
                bare.client_round("fedavg", method, net, weights, own)
            times.append(time.perf_counter() - began)
        rows.append({"": title, "microseconds a step": round(statistics.median(times) / len(own.y) * 1e6)})
    torch.set_num_threads(os.cpu_count() or 1)
    report("fixed_cost_of_a_step", rows)


def start_up(repeats: int = 5) -> None:
    code = {
        "import torch, torchvision": "import torch, torchvision",
        "import fedecouple_lite": "import fedecouple_lite",
        "first round on digits": "from fedecouple_lite import *; d = load('digits'); "
        "next(rounds(make('fedecouple'), net_for(d.in_shape, 10), split(d), rounds=1))",
    }
    times = {name: [] for name in code}
    for _ in range(repeats):
        for name, line in code.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", line], check=True)
            times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(t) for name, t in times.items()}
    base = medians["import torch, torchvision"]
    report("start_up", [{"": n, "s": round(t, 2), "ratio": round(t / base, 2)} for n, t in medians.items()])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of the ratios to the bare loop")
    given = parser.parse_args()
    print(machine())
    start_up()
    cost_of_a_step()
    number_of_clients()
    against_the_bare_loop(given.repeats)
