"""What Flower costs: a round's time on its nodes against the same round in this process, and clients per second.

    python benchmarks/flower.py

Ten clients in this process, in a simulation and on loopback; a hundred and a thousand tiny ones in this process and in
a simulation. FedAvg, one epoch, everybody takes part. Seconds are those of one round's training with what travels for
it, without the test: the median of three rounds after the first with ten clients, the second round with more. The
figures compare with each other, not with those of another machine. Writes data/results/flower/rounds.csv and .json;
some minutes on 2 cores. Needs the extra `flower`.
"""

import argparse
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import flwr
import numpy as np
import pandas as pd
from published import RESULTS, versions, write_about

from fedecouple_lite import make
from fedecouple_lite.__main__ import terminated_as_interrupted
from fedecouple_lite.engine import rounds
from fedecouple_lite.flower.deployment import Deployment, Loopback, Simulation
from fedecouple_lite.flower.part import write_parts
from fedecouple_lite.flower.plan import config_of
from fedecouple_lite.studies.experiment import Setting

TABLES = RESULTS / "flower"
METHOD = make("fedavg", epochs=1)
FEW = 10  # clients, as many as SuperNodes fit on one machine
MANY = (100, 1000)  # only simulated
HERE, SIMULATION, LOOPBACK = "in this process", "simulation", "loopback"

Row = dict[str, Any]


def setting_of(clients: int) -> Setting:
    """So many clients who share the 1,797 digits."""
    is_few = clients == FEW
    return Setting(partition="iid", clients=clients, rounds=4 if is_few else 2, eval_every=1 if is_few else 2)


def row_of(clients: int, where: str, records: list[dict[str, Any]]) -> Row:
    """The median time of a round, the first one apart, and what it means."""
    after_first = [record["seconds"] for record in records if record["round"] > 1]
    seconds = float(np.median(after_first))
    return {"clients": clients, "where": where, "seconds": seconds, "clients_per_second": clients / seconds}


def in_this_process(setting: Setting) -> Row:
    """The engine's own loop, client by client on a thread for each core, as Flower's nodes compute."""
    federation = setting.federation(0)
    net = setting.build_net()
    states = rounds(METHOD, net, federation, rounds=setting.rounds, eval_every=setting.eval_every, backend="threads")
    *_, state = states
    return row_of(setting.clients, HERE, list(state.records))


def on_flower(setting: Setting, where: str, deployment: Deployment, out: Path) -> Row:
    """The same on a deployment."""
    config = config_of(setting, {"method": "fedavg", "epochs": METHOD.epochs, "out": str(out)})
    with deployment:
        (path,) = deployment.run(config)
    return row_of(setting.clients, where, loads(path.read_text())["records"])


def measured(folder: Path, most: int) -> Iterator[Row]:
    """A row for each number of clients, up to `most`, and each place."""
    few = setting_of(FEW)
    yield in_this_process(few)
    yield on_flower(few, SIMULATION, Simulation(folder / "few"), folder / "out")
    yield on_flower(
        few, LOOPBACK, Loopback(folder / "loopback", write_parts(few, 0, folder / "parts")), folder / "out2"
    )
    for clients in MANY:
        if clients > most:
            return
        many = setting_of(clients)
        yield in_this_process(many)
        yield on_flower(many, SIMULATION, Simulation(folder / str(clients)), folder / f"out-{clients}")


def publish(most: int) -> None:
    """Measure, and write the table and what it depends on; most: clients of the largest federation."""
    with TemporaryDirectory(prefix="flower-") as folder:
        rows = pd.DataFrame(measured(Path(folder), most))
    TABLES.mkdir(parents=True, exist_ok=True)
    rows.round(4).to_csv(TABLES / "rounds.csv", index=False)
    about = {
        "command": f"python benchmarks/flower.py --most {most}",
        "figures": "seconds of one round's training, and of what travels for it",
        "setting": asdict(setting_of(FEW)),
        "method": {"name": "FedAvg", **asdict(METHOD)},
        "versions": versions() | {"flwr": flwr.__version__},
        "hardware": f"{os.cpu_count()} cores ({platform.machine()})",
    }
    write_about(TABLES / "rounds.json", about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=max(MANY), help="clients of the largest federation")
    with terminated_as_interrupted():  # else SIGTERM would leave Flower's processes behind
        publish(parser.parse_args().most)
