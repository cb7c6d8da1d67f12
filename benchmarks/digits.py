"""Twelve rows on digits: all methods, five seeds, three skews, tuned alike, at equal epochs and at equal steps.

Writes data/results/digits.csv (a row per table, alpha, method and seed), digits.json (settings, versions, command) and
the table between the markers in README.md. Interrupted, it goes on where it stopped. About an hour on 2 cores:

    python benchmarks/digits.py
"""

import json
import time
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import pandas as pd
from readme import put
from tqdm import tqdm

from fedecouple_lite import METHODS, make
from fedecouple_lite.studies.experiment import Setting, as_table, at_equal_steps, compare, table, tune

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"
ALPHAS, SEEDS, ROUNDS, TRIALS, STEPS = (0.1, 0.3, 1.0), range(5), 12, 3, 11
NAMES = {
    "local": "Local", "fedavg": "FedAvg", "fedavg_ft": "FedAvg + fine-tuning", "fedprox": "FedProx", "ditto": "Ditto",
    "fedper": "FedPer", "lg_fedavg": "LG-FedAvg", "fedrep": "FedRep", "fedbabu": "FedBABU", "fedrod": "FedRoD",
    "fedpac": "FedPAC", "fedecouple": "FedeCouple",
}  # fmt: skip


def measure() -> pd.DataFrame:
    """Run, or read back, everything; one row per table, alpha, method and seed."""
    parts, runs = [], ROOT / "runs" / "digits"
    with tqdm(total=len(ALPHAS) * len(SEEDS) * len(METHODS), unit="method") as bar:
        for alpha, seed, name in product(ALPHAS, SEEDS, METHODS):
            setting = Setting(alpha=alpha, rounds=ROUNDS)
            tuned = tune(setting, make(name), seed, TRIALS, runs / "tuning")
            for equal, method in (("epochs", tuned), ("steps", at_equal_steps(tuned, STEPS))):
                try:
                    results = compare(setting, {NAMES[name]: method}, [seed], runs)
                except FloatingPointError:  # chosen on fewer images, too large on all of them
                    method = replace(method, lr=method.lr / 2)
                    results = compare(setting, {NAMES[name]: method}, [seed], runs)
                row = {"equal": equal, "alpha": alpha, "hyperparameters": json.dumps(asdict(method))}
                parts.append(table(results).assign(**row).drop(columns=["seconds"]))
            bar.update()
    return pd.concat(parts).sort_values(["equal", "alpha"], kind="stable")


def readme_table(rows: pd.DataFrame) -> str:
    """Personal accuracy by method and by skew, at equal epochs and at equal steps, as Markdown; the best is bold."""
    columns = {}
    for (equal, alpha), part in rows.groupby(["equal", "alpha"], sort=False):
        shown = as_table(
            part[["method", "seed", "personal", "worst10", "global", "steps", "upload_bytes", "download_bytes"]]
        )
        shown = shown.set_index("method")
        best = part.groupby("method")["personal"].mean().idxmax()
        shown.loc[best, "personal %"] = f"**{shown.loc[best, 'personal %']}**"
        columns[f"{alpha}, equal {equal}"] = shown["personal %"]
        if (equal, alpha) == ("epochs", 0.3):
            fixed = shown[["steps", "KB up"]]
    whole = pd.DataFrame(columns).join(fixed)
    lines = ["| method | " + " | ".join(whole.columns) + " |", "| --- " * (len(whole.columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(row) + " |" for name, row in zip(whole.index, whole.to_numpy(), strict=True)]
    return "\n".join(lines)


def into_readme(text: str, readme: str) -> str:
    """`readme` with `text` between its markers."""
    return put("digits", text, readme)


def main() -> None:
    began = time.time()
    rows = measure()
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows.round(6).to_csv(RESULTS / "digits.csv", index=False)
    example = json.loads(next(iter(sorted((ROOT / "runs" / "digits").glob("*.json")))).read_text())
    about = {
        "command": "python benchmarks/digits.py",
        "setting": asdict(Setting(rounds=ROUNDS)) | {"alpha": list(ALPHAS)},
        "seeds": list(SEEDS),
        "trials per method and seed, on validation images": TRIALS,
        "gradient steps per batch and round in the table at equal steps": STEPS,
        "figures": "mean of the last five rounds",
        "divergence": "a run that diverges with the step size chosen is repeated with half of it",
        "versions": example["versions"],
        "hardware": example["hardware"],
        "seconds of the last call": round(time.time() - began),
    }
    (RESULTS / "digits.json").write_text(json.dumps(about, indent=1) + "\n")
    readme = ROOT / "README.md"
    readme.write_text(into_readme(readme_table(pd.read_csv(RESULTS / "digits.csv")), readme.read_text()))
    print(readme_table(rows))


if __name__ == "__main__":
    main()
