"""How fast the engine is, as ratios to a bare training loop in the same run. `make bench`; a quarter of an hour on 2
cores.

Five tables, each printed and written to data/results/speed/: (a) the engine's backends against benchmarks/bare.py;
(b) clients per second and memory against the number of clients; (c) the fixed cost of a step; (d) start-up; (e) what
share of the arithmetic that this machine can do is done. Pixels are random: time does not depend on them. Times are
medians.

    python benchmarks/speed.py --only peak
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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import bare
import numpy as np
import pandas as pd
import torch
from published import RESULTS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedecouple_lite import Dataset, DecoupledNet, Federation, from_arrays, load, make, net_for, rounds, split
from fedecouple_lite.client import LocalData, client_round
from fedecouple_lite.engine import TRAIN, State, local_data
from fedecouple_lite.errors import require
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.tensors import nbytes

TABLES = RESULTS / "speed"
BACKENDS = ("loop", "threads", "vmap")
Row = dict[str, Any]


def machine() -> str:
    """What the figures depend on, in one line."""
    return f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}"


def processor() -> str:
    """The processor's name, where Linux tells it; else its kind."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if "model name" in line:
                return line.split(":")[1].strip()
    return platform.machine()


def report(name: str, rows: Sequence[Row], command: str = "python benchmarks/speed.py") -> None:
    """Print a table and write it as CSV, machine and command in its first line."""
    write_table(name, rows, command)
    print(f"\n{name}\n{pd.DataFrame(rows).to_string(index=False)}", flush=True)


def write_table(name: str, rows: Sequence[Row], command: str) -> None:
    """The CSV file alone."""
    TABLES.mkdir(parents=True, exist_ok=True)
    head = f"# {machine()}; {command}\n"
    (TABLES / f"{name}.csv").write_text(head + pd.DataFrame(rows).to_csv(index=False))


def images(size: int, channels: int, n: int, seed: int = 0) -> Dataset:
    """n random images of ten classes."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 255, (n, channels, size, size), dtype=np.uint8)
    y = rng.permutation(np.arange(n) % 10)
    return from_arrays("random pixels", x, y, x[:0], y[:0])


def seconds_of_rounds(
    method: FedAvg, net: DecoupledNet, federation: Federation, backend: str, repeats: int
) -> list[float]:
    """Training and aggregation of `repeats` rounds after a first one that warms up."""
    *_, state = rounds(method, net, federation, rounds=repeats + 1, backend=backend, eval_every=1)
    return [record["seconds"] for record in state.records[1:]]


def first_rounds_data(federation: Federation, method: FedAvg, k: int) -> LocalData:
    """What client k trains on in the first round."""
    return local_data(federation, method, k, [0, TRAIN, 1], threading.Event())


# --- (a) the backends against a bare loop ---


def seconds_of_bare(name: str, method: FedAvg, net: DecoupledNet, federation: Federation) -> float:
    """The same round as a plain loop, on PyTorch's own threads."""
    weights = net.init(0)
    clients = []
    for k in range(len(federation)):
        data = first_rounds_data(federation, method, k)
        clients.append(replace(data, x=data.x.clone(memory_format=torch.contiguous_format)))
    began = time.perf_counter()
    results = [bare.client_round(name, method, net, weights, data) for data in clients]
    for states in zip(*results, strict=True):  # the extractors', then the classifiers'
        {key: sum(state[key] for state in states) / len(states) for key in states[0]}
    return time.perf_counter() - began


def seconds_of_round(run: Iterator[State]) -> float:
    """Training and aggregation of the next round of a run."""
    state = next(run)
    return state.records[-1]["seconds"]


def against_the_bare_loop(repeats: int) -> None:
    """Every backend's round as a share of the bare loop's, for three nets and four methods."""
    many = 20 * 610  # 610 images for each of 20 clients, 10 of them for testing
    settings = {
        "digits-small_cnn": (split(load("digits"), 20, test_share=0.5), {"epochs": 2, "batch_size": 16}),
        "FMNIST-cnn28": (split(images(28, 1, many), 20, "iid", test_share=1 / 61), {"epochs": 1, "batch_size": 50}),
        "CIFAR-cnn32": (split(images(32, 3, many), 20, "iid", test_share=1 / 61), {"epochs": 2, "batch_size": 50}),
    }
    methods = {
        "fedavg": make("fedavg", lr=0.02),
        "fedrep": make("fedrep", lr=0.02),
        "fedecouple joint": make("fedecouple", lr=0.02, coupling="joint"),
        "fedecouple alternate": make("fedecouple", lr=0.02),
    }
    rows = []
    for setting, (federation, common) in settings.items():
        times = repeats * (10 if setting.startswith("digits") else 1)  # short rounds need more of them
        for title, method in methods.items():
            medians = compare_backends(title.split()[0], replace(method, **common), federation, times)
            row: Row = {"setting": setting, "E": common["epochs"], "method": title}
            row["bare loop s"] = round(medians["bare"], 3)
            for backend in BACKENDS:
                row[f"{backend} / bare"] = round(medians[backend] / medians["bare"], 2)
            row["repeats"] = times
            print(row, flush=True)
            rows.append(row)
    report("ratio_to_bare_loop", rows)


def compare_backends(name: str, method: FedAvg, federation: Federation, times: int) -> dict[str, float]:
    """Median seconds of a round: of the bare loop and of each backend, in turn, so that a busy moment of the machine
    hits all alike."""
    net = net_for(federation.data.in_shape, 10)
    runs = {backend: rounds(method, net, federation, rounds=times + 1, backend=backend) for backend in BACKENDS}
    seconds: dict[str, list[float]] = {"bare": [], **{backend: [] for backend in BACKENDS}}
    for _ in range(times + 1):
        seconds["bare"].append(seconds_of_bare(name, method, net, federation))
        for backend, run in runs.items():
            seconds[backend].append(seconds_of_round(run))
    return {title: statistics.median(each[1:]) for title, each in seconds.items()}  # the first one warms up


# --- (b) the number of clients ---


CLIENTS = (10, 100, 1000, 10_000)
PARTICIPATION = (0.01, 0.1, 1.0)


def number_of_clients() -> None:
    """Seconds and memory of a round of FedeCouple, on 20,000 images of the digits' size, by the number of clients and
    the share of them that takes part; where that is one client at least."""
    data = images(8, 1, 20_000)
    net = net_for(data.in_shape, 10)
    rows = []
    for clients, participation in product(CLIENTS, PARTICIPATION):
        cohort = round(participation * clients)
        if cohort == 0:
            continue
        federation = split(data, clients, "iid")
        *_, state = rounds(make("fedecouple"), net, federation, rounds=4, participation=participation, eval_every=1)
        seconds = statistics.median(record["seconds"] for record in state.records[1:])
        row: Row = {"clients": clients, "participation": participation, "round s": round(seconds, 2)}
        row["clients / s"] = round(cohort / seconds)
        row["clients' state MB"] = round(bytes_of_clients(state) / 1e6)
        row["images MB"] = round(data.x.numel() / 1e6, 1)
        row["peak memory MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
        print(row, flush=True)
        rows.append(row)
    report("number_of_clients", rows)


def bytes_of_clients(state: State) -> int:
    """What all clients' tensors take, each counted as often as it is held."""
    return sum(nbytes(client) for client in state.clients)


# --- (c) the fixed cost of a step ---


def cost_of_a_step() -> None:
    """Microseconds of a step that has next to nothing to compute: one image, a linear net."""
    data = images(8, 1, 2000)
    net = DecoupledNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), nn.Linear(4, 10), (1, 8, 8))
    federation = split(data, 1, "iid", test_share=0)
    method = make("fedavg", epochs=1, batch_size=1)
    weights = net.init(0)
    rows = []
    torch.set_num_threads(1)
    for title in ("bare loop", "engine"):
        times = []
        for _ in range(5):
            one_client = first_rounds_data(federation, method, 0)
            began = time.perf_counter()
            if title == "engine":
                client_round(method, net, weights, weights, one_client)
            else:
                bare.client_round("fedavg", method, net, weights, one_client)
            times.append(time.perf_counter() - began)
        steps = len(one_client.y)
        rows.append({"": title, "microseconds a step": round(statistics.median(times) / steps * 1e6)})
    torch.set_num_threads(os.cpu_count() or 1)
    report("fixed_cost_of_a_step", rows)


# --- (d) start-up ---


def start_up(repeats: int = 5) -> None:
    """Seconds until the library is there, and until it has trained a round, against PyTorch's own start."""
    first_round = (
        "from fedecouple_lite import *; d = load('digits'); "
        "next(rounds(make('fedecouple'), net_for(d.in_shape, 10), split(d), rounds=1))"
    )
    programs = {
        "import torch, torchvision": "import torch, torchvision",
        "import fedecouple_lite": "import fedecouple_lite",
        "first round on digits": first_round,
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(each) for name, each in times.items()}
    of_torch = medians["import torch, torchvision"]
    rows = [{"": name, "s": round(t, 2), "ratio": round(t / of_torch, 2)} for name, t in medians.items()]
    report("start_up", rows)


# --- (e) the machine's arithmetic ---

SIDE = 2048  # of the matrices whose product is the machine's best


def peak() -> float:
    """Billions of float32 operations a second that this machine does when it multiplies large matrices: the best of
    five."""
    left, right = torch.rand(2, SIDE, SIDE)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - began)
    return 2 * SIDE**3 / min(times) / 1e9


def operations_of_a_step(net: DecoupledNet, batch_size: int) -> int:
    """Float32 operations of one gradient step: a multiplication and an addition are two."""
    weights = {name: tensor.requires_grad_() for name, tensor in net.init(0).items()}
    x = torch.rand(batch_size, *net.in_shape)
    with FlopCounterMode(display=False) as counter:
        net.logits(weights, x).sum().backward()
    return counter.get_total_flops()


def share_of_peak(repeats: int) -> None:
    """How much of it a round of FedAvg reaches, for three nets and every backend."""
    settings = {"small_cnn": (8, 1, 16), "cnn28": (28, 1, 50), "cnn32": (32, 3, 50)}  # size, channels, batch size
    best = peak()
    rows = []
    for title, (size, channels, batch_size) in settings.items():
        federation = split(images(size, channels, 20 * 610), 20, "iid", test_share=1 / 61)
        net = net_for(federation.data.in_shape, 10, title)
        method = make("fedavg", lr=0.02, epochs=1, batch_size=batch_size)
        steps = 20 * 600 // batch_size
        operations = steps * operations_of_a_step(net, batch_size)
        row: Row = {"net": title, "batch size": batch_size, "peak GFLOP/s": round(best)}
        for backend in BACKENDS:
            seconds = statistics.median(seconds_of_rounds(method, net, federation, backend, repeats))
            row[f"{backend} GFLOP/s"] = round(operations / seconds / 1e9)
            row[f"{backend} / peak"] = round(operations / seconds / 1e9 / best, 2)
        rows.append(row | {"repeats": repeats})
    report("share_of_peak", rows)


def main(only: Sequence[str] | None, repeats: int) -> None:
    """The tables named."""
    print(machine())
    tables = {
        "start": start_up,
        "step": cost_of_a_step,
        "clients": number_of_clients,
        "peak": partial(share_of_peak, repeats),
        "bare": partial(against_the_bare_loop, repeats),
    }
    chosen = tables if only is None else only
    for name in chosen:
        require(name in tables, "only", name, f"of {', '.join(tables)}")
    for name in chosen:
        tables[name]()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help="of start,step,clients,peak,bare; all")
    parser.add_argument("--repeats", type=int, default=3, help="of the shares of the peak, and of the bare loop's time")
    given = parser.parse_args()
    main(given.only, given.repeats)
