"""What is the method, and what is the fine-tuning? Every row of the benchmark's preset `laptop` (digits, nothing tuned)
trained once more with its own hyper-parameters, and then predicting after the same fine-tuning of its classifier,
whatever the method itself would do to predict. Some minutes:

    python benchmarks/fine_tuning.py

Writes data/results/benchmark/laptop-fine_tuned.csv and .json, of which `python benchmarks/pages.py` makes a table of
docs/results.md, beside the accuracies of the preset itself. Interrupted, it goes on where it stopped.
"""

import json
from pathlib import Path

import pandas as pd
from five_datasets import where_made
from published import RESULTS, RUNS, in_cell, write_about
from torch import Tensor
from tqdm import tqdm

from fedecouple_lite import make
from fedecouple_lite.engine import State
from fedecouple_lite.losses import cross_entropy
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.methods.ditto import PERSONAL, Ditto
from fedecouple_lite.methods.fedavg import own_model
from fedecouple_lite.methods.fedrod import HEAD, FedRoD
from fedecouple_lite.models import DecoupledNet
from fedecouple_lite.phases import Phases, Train
from fedecouple_lite.studies.benchmark import PRESETS, cells, folder_of_cell, method_of
from fedecouple_lite.studies.experiment import Setting, compare
from fedecouple_lite.studies.tables import table
from fedecouple_lite.tensors import CLASSIFIER, Tensors

TABLES = RESULTS / "benchmark"
OUR_RUNS = RUNS / "fine_tuning" / "laptop"
EPOCHS, STEP_SIZE = 5, 0.01  # of the fine-tuning, FedBABU's defaults
PLAIN = "fedbabu, not fine-tuned"  # the one row that the preset does not have
# Its row predicts after fine-tuning already: with the same one it is FedAvg's.
LEFT_OUT = ("fedavg_ft",)


def with_fine_tuning(method: FedAvg) -> FedAvg:
    """`method`, which trains as it does, and predicts with what a client receives after EPOCHS epochs on its
    classifier: Ditto's of the personal model, FedRoD's head."""
    kind = type(method)
    trained = {Ditto: PERSONAL + CLASSIFIER, FedRoD: HEAD}.get(kind, CLASSIFIER)
    of_one_model = kind.predict is FedAvg.predict  # by what the server sends, which a client cannot fine-tune

    class FineTuned(kind):  # type: ignore[valid-type, misc]  # mypy knows no class that is an argument
        predict = own_model if of_one_model else kind.predict

        def personalise(self) -> Phases:
            return (Train((trained,), (self.loss_to_predict,), EPOCHS, lr=STEP_SIZE),)

        def loss_to_predict(
            self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor, y: Tensor
        ) -> Tensor:
            """Cross-entropy of what the method predicts, (B,)."""
            return cross_entropy(self.predict(net, client, download, x), y)

    FineTuned.__name__ = FineTuned.__qualname__ = f"{kind.__name__}FineTuned"
    return FineTuned(**vars(method))


def chosen_methods(of_cell: pd.DataFrame) -> dict[str, FedAvg]:
    """The cell's rows by name, with their hyper-parameters, which are those of all seeds: nothing was tuned."""
    of_seed = of_cell[of_cell["seed"] == 0].set_index("method")["hyperparameters"]
    methods = {}
    for row, values in of_seed.items():
        name, _ = method_of(str(row))
        methods[str(row)] = make(name, **json.loads(values))
    return methods


def measured(setting: Setting, of_cell: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A row per method and seed of this cell of the preset."""
    chosen = chosen_methods(of_cell)
    as_it_travels = {**vars(chosen["fedbabu"]), "fine_tune_epochs": 0}
    methods = {PLAIN: make("fedbabu", **as_it_travels)}
    for name, method in chosen.items():
        if name not in LEFT_OUT:
            methods[name] = with_fine_tuning(method)
    seeds = sorted(of_cell["seed"].unique())
    with tqdm(total=len(methods) * len(seeds) * setting.rounds, unit="round", desc=setting.dataset) as bar:

        def on_round(label: str, seed: int, state: State | None) -> None:
            bar.update(setting.rounds if state is None else 1)

        return table(compare(setting, methods, seeds, folder, on_round)).drop(columns="seconds")


def main() -> None:
    """Measure all cells, and write the files."""
    stored = pd.read_csv(TABLES / "laptop.csv")
    parts = []
    for dataset, partition, setting in cells(PRESETS["laptop"]):
        of_cell = stored[(stored["dataset"] == dataset) & (stored["partition"] == partition)]
        rows = measured(setting, of_cell, OUR_RUNS / folder_of_cell(dataset, partition))
        parts.append(in_cell(rows, dataset, partition))
    pd.concat(parts).round(6).to_csv(TABLES / "laptop-fine_tuned.csv", index=False)
    about = {"command": "python benchmarks/fine_tuning.py", "epochs": EPOCHS, "step size": STEP_SIZE}
    about["settings and hyper-parameters"] = "those of laptop.csv"
    write_about(TABLES / "laptop-fine_tuned.json", about | where_made(OUR_RUNS))


if __name__ == "__main__":
    main()
