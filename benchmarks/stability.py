"""How steady four methods are: fewer clients a round, clients that drop out, data that change, real people.

    python benchmarks/stability.py participation dropout change    # digits, about 20 minutes on 2 cores
    python benchmarks/stability.py costs                           # bytes of every method, and the server's seconds
    FEDECOUPLE_DATA=folder python benchmarks/stability.py writers  # handwriting by 100 people, and 79 newcomers

Three seeds, nothing tuned. Each part writes data/results/stability/PART.csv (a row per setting, method and seed) and
PART.json (settings and versions). Interrupted, it goes on where it stopped: what is finished lies in runs/stability.
"""

import argparse
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from published import RESULTS, RUNS, Job, Row, rows_of, versions, write_about

from fedecouple_lite import Federation, load, make, net_for, rounds, split
from fedecouple_lite.client import client_round
from fedecouple_lite.engine import State, start
from fedecouple_lite.faults import DropAfter, DropBefore, Fault
from fedecouple_lite.methods import METHODS, FedAvg
from fedecouple_lite.newcomers import newcomer_accuracy, newcomer_data
from fedecouple_lite.partition import split_unseen
from fedecouple_lite.studies.experiment import SUMMARY_ROUNDS
from fedecouple_lite.studies.steadiness import steadiness
from fedecouple_lite.tensors import Tensors, nbytes

TABLES = RESULTS / "stability"
OUR_RUNS = RUNS / "stability"
SEEDS = range(3)
FOUR = {"FedAvg": "fedavg", "FedRep": "fedrep", "FedPAC": "fedpac", "FedeCouple": "fedecouple"}
SIX = {
    "FedAvg": "fedavg",
    "FedAvg + fine-tuning": "fedavg_ft",
    "FedRep": "fedrep",
    "FedBABU": "fedbabu",
    "FedPAC": "fedpac",
    "FedeCouple": "fedecouple",
}
CLIENTS = 20  # of the digits
ROUNDS = 20
PARTICIPATIONS = (1.0, 0.5, 0.1)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
WRITERS = 100
WRITERS_ROUNDS = 30
COHORTS = (10, 30, 100, 300)  # clients that a server takes in at once; FedPAC's would take minutes for a thousand


def digits(seed: int) -> Federation:
    """The digits over twenty clients, Dirichlet 0.3."""
    return split(load("digits"), CLIENTS, seed=seed, alpha=0.3)


def last_rounds(states: Sequence[State]) -> Row:
    """What a run's last five evaluated rounds say. personal, personal_received, percentile10, global: their means;
    over_rounds: the standard deviation of personal accuracy; never_took_part: clients that were in no cohort."""
    records = [state.records[-1] for state in states]
    figures = steadiness([records])
    last = records[-SUMMARY_ROUNDS:]
    return {
        "personal": figures.mean,
        "personal_received": np.mean([record["personal_received"] for record in last]),
        "percentile10": figures.percentile10,
        "global": np.mean([record["global"] for record in last]),
        "over_rounds": figures.over_rounds,
        "never_took_part": last[-1]["newcomers"],
    }


# --- What is measured ---


def participation() -> Iterator[Job]:
    """A share of the clients trains in each round. FedeCouple also with joint coupling, in half of the steps."""
    for share in PARTICIPATIONS:
        for label, method, seed in (*of_methods(FOUR), *joint_coupling()):
            yield {"participation": share}, label, method, seed, partial(run, method, seed, share, [])


def dropout() -> Iterator[Job]:
    """Half of the clients are drawn for each round; of these a share is away, or trains and its upload gets lost."""
    for kind, fault in (("before training", DropBefore), ("after training", DropAfter)):
        for share in SHARES:
            for label, method, seed in of_methods(FOUR):
                said = {"dropout": kind, "share": share}
                yield said, label, method, seed, partial(run, method, seed, 0.5, [fault(share)])


def run(method: FedAvg, seed: int, share: float, faults: Sequence[Fault]) -> list[Row]:
    """One run on the digits, as one row."""
    federation = digits(seed)
    net = net_for(federation.data.in_shape, 10)
    # No round is given up, however few uploads arrive: that is what is measured.
    least = 0 if faults else None
    states = rounds(
        method, net, federation, rounds=ROUNDS, seed=seed, participation=share, faults=faults, min_uploads=least
    )
    return [last_rounds(list(states))]


def change() -> Iterator[Job]:
    """Half-way every client's data are replaced: the same number of clients, another draw of the partition."""
    for label, method, seed in of_methods(FOUR):
        yield {"change": "half-way"}, label, method, seed, partial(run_with_change, method, seed)


def run_with_change(method: FedAvg, seed: int) -> list[Row]:
    """A row per round; from round ROUNDS / 2 + 1 on clients train, and are tested, on other images of other classes."""
    before = digits(seed)
    after = digits(seed + 100)
    net = net_for(before.data.in_shape, 10)
    *_, state = rounds(method, net, before, rounds=ROUNDS // 2, seed=seed)
    # The state of another federation is refused, and rightly; here it is what we want.
    moved = replace(state, origin=None)
    *_, state = rounds(method, net, after, rounds=ROUNDS, seed=seed, state=moved)
    wanted = ("round", "personal", "personal_received", "percentile10", "global")
    return [{name: record[name] for name in wanted} for record in state.records]


def writers() -> Iterator[Job]:
    """A hundred people's handwriting, thirty drawn for each round, and 79 who come when the run is over."""
    for label, method, seed in of_methods(SIX, lr=0.05, epochs=1):
        yield {"writers": WRITERS}, label, method, seed, partial(run_writers, method, seed)


def run_writers(method: FedAvg, seed: int) -> list[Row]:
    """One row: the writers' accuracy on images of their own test part, and the newcomers'."""
    data = load(os.path.join(os.environ["FEDECOUPLE_DATA"], "femnist_writers.npz"))
    federation = split(data, WRITERS, "natural", seed, keep_test=True)
    net = net_for(data.in_shape, len(data.classes))
    states = rounds(method, net, federation, rounds=WRITERS_ROUNDS, seed=seed, participation=0.3, eval_every=3)
    evaluated = [state for state in states if state.round % 3 == 0]
    newcomers = newcomer_accuracy(method, net, evaluated[-1], split_unseen(data, seed), seed)
    row = last_rounds(evaluated)
    row["newcomers"] = np.nanmean(newcomers)  # NaN: somebody whose images are all of different classes
    row["newcomers_percentile10"] = np.nanpercentile(newcomers, 10)
    return [row]


def share_of_digits() -> Row:
    """Which share of the writers' training images, and of the newcomers' images, are digits, not letters."""
    data = load(os.path.join(os.environ["FEDECOUPLE_DATA"], "femnist_writers.npz"))
    of_training = data.y[: len(data.y) - data.own_test] < 10
    of_newcomers = data.unseen.y < 10
    return {"writers": float(of_training.float().mean()), "newcomers": float(of_newcomers.float().mean())}


def of_methods(
    names: Mapping[str, str],
    lr: float = 0.1,
    epochs: int = 2,
) -> Iterator[tuple[str, FedAvg, int]]:
    """(label, method, seed) of each method with each seed, all with the same step size and epochs."""
    for label, name in names.items():
        for seed in SEEDS:
            yield label, make(name, lr=lr, epochs=epochs), seed


def joint_coupling() -> Iterator[tuple[str, FedAvg, int]]:
    """FedeCouple with one step of the extractor for each batch, as the others take."""
    for seed in SEEDS:
        yield "FedeCouple, joint", make("fedecouple", lr=0.1, epochs=2, coupling="joint"), seed


# --- Bytes, and the server's work ---


def costs() -> Iterator[Job]:
    """For every method, what travels and what a client keeps, with the net for digits and with the larger one."""
    for net in ("small_cnn", "resnet18"):
        for name in METHODS:
            method = make(name, epochs=1)
            yield {"net": net}, type(method).__name__, method, 0, partial(bytes_of, method, net)
    for cohort in COHORTS:
        for label, name in FOUR.items():
            method = make(name, epochs=1)
            said = {"net": "small_cnn", "cohort": cohort}
            yield said, label, method, 0, partial(seconds_of_server, method, cohort)


def uploads_of(method: FedAvg, net_name: str, clients: int) -> tuple[Tensors, dict[int, Tensors], Tensors]:
    """The server's tensors before a round, what so many clients upload, and what one of them keeps.

    Two clients train; the others' uploads are theirs in turn, each number shaken a little so that none is alike.
    """
    federation = split(load("digits"), 2, "iid", per_client=40)
    net = net_for(federation.data.in_shape, 10, net_name)
    state = start(method, net, federation)
    real = []
    for k in range(2):
        download = method.send(state.server, k)
        data = newcomer_data(method, federation, k)
        real.append(client_round(method, net, state.clients[k], download, data))
    rng = np.random.default_rng(0)
    uploads = {}
    for k in range(clients):
        scale = 1 + 0.1 * float(rng.random())
        uploads[k] = {name: tensor * scale for name, tensor in real[k % 2].upload.items()}
    return state.server, uploads, real[0].client


def bytes_of(method: FedAvg, net: str) -> list[Row]:
    """Of one client and round."""
    server, uploads, kept = uploads_of(method, net, 2)
    after = method.aggregate(server, uploads, {0: 20, 1: 20})
    row = {
        "upload_bytes": nbytes(uploads[0]),
        "download_bytes": nbytes(method.send(after, 0)),
        "kept_bytes": nbytes(kept),
    }
    return [row]


def seconds_of_server(method: FedAvg, cohort: int) -> list[Row]:
    """How long the server takes for one round's uploads."""
    server, uploads, _ = uploads_of(method, "small_cnn", cohort)
    sizes = dict.fromkeys(uploads, 20)
    began = time.perf_counter()
    method.aggregate(server, uploads, sizes)
    return [{"server_seconds": time.perf_counter() - began}]


# --- Running, and going on ---


PARTS = {
    "participation": participation,
    "dropout": dropout,
    "change": change,
    "writers": writers,
    "costs": costs,
}


def publish(part: str) -> None:
    """Run a part, or read it back, and write its table and what it depends on."""
    TABLES.mkdir(parents=True, exist_ok=True)
    rows_of(part, PARTS[part](), OUR_RUNS).round(6).to_csv(TABLES / f"{part}.csv", index=False)
    of_writers = part == "writers"
    methods = of_methods(SIX, 0.05, 1) if of_writers else of_methods(FOUR)
    about = {
        "command": f"python benchmarks/stability.py {part}",
        "what": " ".join(str(PARTS[part].__doc__).split()),
        "figures": " ".join(str(last_rounds.__doc__).split()),
        "clients": WRITERS if of_writers else CLIENTS,
        "rounds": WRITERS_ROUNDS if of_writers else ROUNDS,
        "seeds": list(SEEDS),
        "methods": {label: asdict(method) for label, method, _ in methods},
        "versions": versions(),
        "hardware": f"{os.cpu_count()} cores ({platform.machine()}), no GPU",
    }
    if of_writers:
        about["share of digits among the images"] = share_of_digits()
    write_about(TABLES / f"{part}.json", about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    for wanted in parser.parse_args().parts:
        publish(wanted)
