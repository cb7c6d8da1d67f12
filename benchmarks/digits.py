"""Twelve rows on digits: all methods, five seeds, three values of alpha, tuned alike, at equal epochs and equal steps.

Writes data/results/digits.csv (a row per table, alpha, method and seed), digits.json (settings, versions, command) and
the table between the markers in docs/results.md. Interrupted, it goes on where it stopped. About an hour on 2 cores:

    python benchmarks/digits.py
"""

import json
import time
from dataclasses import asdict
from itertools import product
from typing import Any

import pandas as pd
from pages import markdown, put
from published import PAGE, RESULTS, RUNS, write_about
from tqdm import tqdm

from fedecouple_lite import METHODS, make
from fedecouple_lite.studies.benchmark import run_halving_lr
from fedecouple_lite.studies.experiment import Setting, tune
from fedecouple_lite.studies.tables import ACCURACIES, as_table, table

OUR_RUNS = RUNS / "digits"
ALPHAS = (0.1, 0.3, 1.0)
SEEDS = range(5)
ROUNDS = 12
TRIALS = 3
STEPS = 11  # gradient steps per batch and round: what FedeCouple takes
NAMES = {
    "local": "Local",
    "fedavg": "FedAvg",
    "fedavg_ft": "FedAvg + fine-tuning",
    "fedprox": "FedProx",
    "ditto": "Ditto",
    "fedper": "FedPer",
    "lg_fedavg": "LG-FedAvg",
    "fedrep": "FedRep",
    "fedbabu": "FedBABU",
    "fedrod": "FedRoD",
    "fedpac": "FedPAC",
    "fedecouple": "FedeCouple",
}


def measure() -> pd.DataFrame:
    """Run, or read back, everything; one row per table, alpha, method and seed."""
    parts = []
    with tqdm(total=len(ALPHAS) * len(SEEDS) * len(METHODS), unit="method") as bar:
        for seed, alpha, name in product(SEEDS, ALPHAS, METHODS):
            parts += measure_method(alpha, seed, name)
            bar.update()
    return pd.concat(parts).sort_values(["equal", "alpha"], kind="stable")


def measure_method(alpha: float, seed: int, name: str) -> list[pd.DataFrame]:
    """One method, tuned for this seed and for each budget: its row at equal epochs and its row at equal steps."""
    setting = Setting(alpha=alpha, rounds=ROUNDS)
    rows = []
    for equal, budget in (("epochs", None), ("steps", STEPS)):
        tuned = tune(setting, make(name), seed, TRIALS, OUR_RUNS / "tuning", budget=budget)
        result, _ = run_halving_lr(setting, NAMES[name], tuned, seed, OUR_RUNS)
        row = table([result]).drop(columns="seconds")
        row["equal"] = equal
        row["alpha"] = alpha
        row["hyperparameters"] = row.pop("hyperparameters")  # last
        rows.append(row)
    return rows


def page_table(rows: pd.DataFrame) -> str:
    """Personal accuracy by method and by alpha, at equal epochs and at equal steps, as Markdown; the best is bold."""
    whole = pd.DataFrame()
    for (equal, alpha), part in rows.groupby(["equal", "alpha"], sort=False):
        shown = as_table(part.drop(columns=["equal", "alpha"])).set_index("method")
        best = part.groupby("method")["personal"].mean().idxmax()
        accuracies = shown[ACCURACIES["personal"]]
        accuracies[best] = f"**{accuracies[best]}**"
        whole[f"{alpha}, equal {equal}"] = accuracies
        if (equal, alpha) == ("epochs", 0.3):
            costs = shown[[heading for heading in ("steps", "steps to predict", "KB up") if heading in shown]]
    return markdown(whole.join(costs).reset_index())


def into_page(text: str, page: str) -> str:
    """`page` with `text` between its markers."""
    return put("digits", text, page)


def about(seconds: float) -> dict[str, Any]:
    """What the figures depend on. Versions and hardware are those of the runs."""
    first = min(OUR_RUNS.glob("*.json"))
    run = json.loads(first.read_text())
    return {
        "command": "python benchmarks/digits.py",
        "setting": asdict(Setting(rounds=ROUNDS)) | {"alpha": list(ALPHAS)},
        "seeds": list(SEEDS),
        "trials per method and seed, on validation images": TRIALS,
        "gradient steps per batch and round in the table at equal steps": STEPS,
        "figures": "mean of the last five rounds",
        "divergence": "a run that diverges with the step size chosen is repeated with half of it",
        "versions": run["versions"],
        "hardware": run["hardware"],
        "seconds of the last call": round(seconds),
    }


def main() -> None:
    """Run, or read back, everything, and write both files and the page's table."""
    began = time.time()
    rows = measure()
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows.round(6).to_csv(RESULTS / "digits.csv", index=False)
    write_about(RESULTS / "digits.json", about(time.time() - began))
    text = page_table(pd.read_csv(RESULTS / "digits.csv"))
    PAGE.write_text(into_page(text, PAGE.read_text()))
    print(text)


if __name__ == "__main__":
    main()
