"""All methods on digits, FedeCouple in two couplings, at equal epochs and at equal steps; five seeds, three values of
alpha, all tuned alike.

Writes data/results/digits.csv (a row per table, alpha, method and seed), digits.json (settings, versions, command) and
the table between the markers in docs/results.md. Interrupted, it goes on where it stopped. Two hours on 2 cores:

    python benchmarks/digits.py

Rows that are new, or whose method has changed, can be measured alone; the file keeps the others, and digits.json says
which were measured so, and with what:

    python benchmarks/digits.py --rows fedecouple,fedecouple_joint
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import pandas as pd
from pages import markdown, put
from published import PAGE, RESULTS, RUNS, write_about
from tqdm import tqdm

from fedecouple_lite import make
from fedecouple_lite.errors import nearest
from fedecouple_lite.studies.benchmark import method_of, run_halving_lr
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
    "fedecouple_joint": "FedeCouple, joint",
}


def measure(names: Sequence[str]) -> pd.DataFrame:
    """Run, or read back, the rows of these NAMES; one line per table, alpha, row and seed."""
    parts = []
    with tqdm(total=len(ALPHAS) * len(SEEDS) * len(names), unit="row") as bar:
        for seed, alpha, name in product(SEEDS, ALPHAS, names):
            parts += measure_row(alpha, seed, name)
            bar.update()
    return pd.concat(parts)


def in_order(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines by table, alpha and seed, and each of these in the order of NAMES."""
    place = lines["method"].map(list(NAMES.values()).index)
    ordered = lines.assign(place=place).sort_values(["equal", "alpha", "seed", "place"])
    return ordered.drop(columns="place")


def with_others(lines: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """`lines`, those of these NAMES, and what the file has of the others."""
    before = pd.read_csv(RESULTS / "digits.csv")
    labels = [NAMES[name] for name in names]
    return pd.concat([before[~before["method"].isin(labels)], lines])


def measure_row(alpha: float, seed: int, row: str) -> list[pd.DataFrame]:
    """One of NAMES, tuned for this seed and for each budget: its row at equal epochs and its row at equal steps."""
    setting = Setting(alpha=alpha, rounds=ROUNDS)
    name, fixed = method_of(row)
    method = make(name, **fixed)
    rows = []
    for equal, budget in (("epochs", None), ("steps", STEPS)):
        tuned = tune(setting, method, seed, TRIALS, OUR_RUNS / "tuning", fixed=list(fixed), budget=budget)
        result, _ = run_halving_lr(setting, NAMES[row], tuned, seed, OUR_RUNS)
        line = table([result]).drop(columns="seconds")
        line["equal"] = equal
        line["alpha"] = alpha
        line["hyperparameters"] = line.pop("hyperparameters")  # last
        rows.append(line)
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
    return {
        "command": "python benchmarks/digits.py",
        "setting": asdict(Setting(rounds=ROUNDS)) | {"alpha": list(ALPHAS)},
        "seeds": list(SEEDS),
        "trials per method and seed, on validation images": TRIALS,
        "gradient steps per batch and round in the table at equal steps": STEPS,
        "figures": "mean of the last five rounds",
        "divergence": "a run that diverges with the step size chosen is repeated with half of it",
        **where_made(),
        "seconds of the last call": round(seconds),
    }


def about_these(names: Sequence[str], seconds: float) -> dict[str, Any]:
    """What the file says of all rows, and with what these NAMES were measured by themselves."""
    whole: dict[str, Any] = json.loads((RESULTS / "digits.json").read_text())
    alone = {"command": f"python benchmarks/digits.py --rows {','.join(names)}", **where_made()}
    alone["seconds of the last call"] = round(seconds)
    rows = {**whole.get("measured alone, in the same setting", {}), **{NAMES[name]: alone for name in names}}
    return whole | {"measured alone, in the same setting": rows}


def where_made() -> dict[str, Any]:
    """Versions and hardware of the runs that lie here."""
    first = min(OUR_RUNS.glob("*.json"))
    run = json.loads(first.read_text())
    return {"versions": run["versions"], "hardware": run["hardware"]}


def main(words: Sequence[str]) -> None:
    """Run, or read back, all rows or those that the command line names, and write both files and the page's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=lambda text: text.split(","), help=f"comma-separated, of {', '.join(NAMES)}")
    given = parser.parse_args(words)
    names = given.rows or list(NAMES)
    for name in names:
        if name not in NAMES:
            parser.error(f"rows={name!r} is unknown; {nearest(name, NAMES)}")
    began = time.time()
    lines = measure(names)
    RESULTS.mkdir(parents=True, exist_ok=True)
    if given.rows:
        lines = with_others(lines, names)
    in_order(lines).round(6).to_csv(RESULTS / "digits.csv", index=False)
    seconds = time.time() - began
    write_about(RESULTS / "digits.json", about_these(names, seconds) if given.rows else about(seconds))
    text = page_table(pd.read_csv(RESULTS / "digits.csv"))
    PAGE.write_text(into_page(text, PAGE.read_text()))
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
