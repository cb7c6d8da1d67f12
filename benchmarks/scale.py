"""What grows with the number of clients and with the net: accuracy, time, bytes and memory of four methods.

    python benchmarks/scale.py clients              # 10 to 1,000 clients of Fashion-MNIST
    python benchmarks/scale.py net --device cuda    # ResNet-18 with GroupNorm against cnn32, on CIFAR-10

`clients`: up to 1,000 share the same 10,000 images, and up to 100 bring 50 each. `net`: ten clients
of 225 images. Three seeds, nothing tuned. Writes data/results/stability/clients.csv and net.csv (a row per setting,
method and seed) and a .json with settings and versions beside each. Interrupted, it goes on where it stopped.
FEDECOUPLE_DATA names the folder of images. Hours on 2 cores; --most 100 stops at a hundred clients.
"""

import argparse
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd
from published import RESULTS, RUNS, versions, write_about
from tqdm import tqdm

from fedecouple_lite import make
from fedecouple_lite.engine import State
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.studies.experiment import Run, Setting, compare

TABLES = RESULTS / "stability"
OUR_RUNS = RUNS / "scale"
SEEDS = range(3)
METHODS = {"FedAvg": "fedavg", "FedRep": "fedrep", "FedPAC": "fedpac", "FedeCouple": "fedecouple"}
IMAGES = 10_000  # of the whole federation, where that is what is constant
SHARING = (10, 30, 100, 1000)  # clients that share them
OF_EACH = 50  # images of one client, where that is
BRINGING = (10, 30, 100)  # clients that bring so many
NETS = ("cnn32", "resnet18")
FIGURES = ("personal", "percentile10", "global", "loss", "seconds", "steps", "upload_bytes", "download_bytes")
# At full participation FedPAC's server solves one problem of as many unknowns as clients for each client, every round:
# minutes a round with a thousand of them, which is said in place of an accuracy.
MOST_OF_FEDPAC = 100

OF_CLIENTS = Setting(dataset="fashion_mnist", partition="mixture", test_share=0.4, rounds=10, eval_every=10)
OF_NETS = Setting(
    dataset="cifar10", partition="mixture", clients=10, per_client=225, test_share=1 / 3, rounds=20, eval_every=20
)


def methods_for(clients: int) -> dict[str, FedAvg]:
    """By label, with a step size that all can take on these images."""
    methods = {}
    for label, name in METHODS.items():
        if name != "fedpac" or clients <= MOST_OF_FEDPAC:
            methods[label] = make(name, lr=0.05, epochs=2)
    return methods


def settings_of_clients(most: int, device: str) -> Iterator[tuple[dict[str, Any], Setting]]:
    """What to say of a setting in the table, and the setting; the cheapest first. most: clients, at most."""
    images_each = {"images in all": [(clients, IMAGES // clients) for clients in SHARING]}
    images_each["images per client"] = [(clients, OF_EACH) for clients in BRINGING]
    for constant, sizes in images_each.items():
        for clients, per_client in sizes:
            if clients <= most:
                said = {"constant": constant, "clients": clients, "images_per_client": per_client}
                yield said, replace(OF_CLIENTS, clients=clients, per_client=per_client, device=device)


def settings_of_nets(device: str) -> Iterator[tuple[dict[str, Any], Setting]]:
    """The same for the two nets."""
    for net in NETS:
        yield {"net": net}, replace(OF_NETS, net=net, device=device)


def row_of(run: Run, said: dict[str, Any]) -> dict[str, Any]:
    """What one run says after its last round, and on what it was run."""
    last = run["records"][-1]
    hardware = run["hardware"]
    on_gpu = run["setting"]["device"] != "cpu"
    figures = {name: last[name] for name in FIGURES}
    where = hardware["gpu"] if on_gpu else f"{hardware['cores']} cores ({hardware['processor']})"
    return said | {"method": run["label"], "seed": run["seed"], **figures, "hardware": where}


def measure(settings: Sequence[tuple[dict[str, Any], Setting]]) -> pd.DataFrame:
    """A row for every setting, method and seed."""
    rows = []
    with tqdm(unit="round", delay=0.3) as bar:

        def on_round(label: str, seed: int, state: State | None) -> None:
            bar.update()

        for said, setting in settings:
            bar.set_description(" ".join(str(word) for word in said.values()))
            for run in compare(setting, methods_for(setting.clients), SEEDS, OUR_RUNS, on_round):
                rows.append(row_of(run, said))
    return pd.DataFrame(rows)


def publish(part: str, device: str, most: int) -> None:
    """Run the part, or read it back, and write its table and what it depends on."""
    settings = list(settings_of_clients(most, device) if part == "clients" else settings_of_nets(device))
    rows = measure(settings)
    TABLES.mkdir(parents=True, exist_ok=True)
    rows.round(6).to_csv(TABLES / f"{part}.csv", index=False)
    about = {
        "command": f"python benchmarks/scale.py {part} --device {device}",
        "figures": "after the last round; seconds are those of its training",
        "setting": asdict(OF_CLIENTS if part == "clients" else OF_NETS),
        "seeds": list(SEEDS),
        "methods": {label: asdict(method) for label, method in methods_for(1).items()},
        "versions": versions(),
        "hardware": [*sorted(rows["hardware"].unique()), platform.machine()],
    }
    write_about(TABLES / f"{part}.json", about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("clients", "net"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--most", type=int, default=max(SHARING), help="clients of the largest federation")
    given = parser.parse_args()
    publish(given.part, given.device, given.most)
