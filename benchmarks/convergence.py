"""Squared gradient norms of each method's own objective on digits, round by round: what notebook 06 reads.

float64, small_cnn, 20 clients of at most 60 images (half of them for training), no momentum, no weight decay; all of a
client's images in each step (so no noise, and the same number of steps for everyone), but for the cases named "batch
16". Writes data/results/convergence.csv (a row per case, seed and round; columns as in `gradient_norms` of
fedecouple_lite.studies.convergence) and convergence.json (settings, versions, command). Interrupted, it goes on at the
run where it stopped. About half an hour on 2 cores:

    python benchmarks/convergence.py
"""

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from fedecouple_lite import make
from fedecouple_lite.engine import rounds, start
from fedecouple_lite.studies.convergence import gradient_norms
from fedecouple_lite.studies.experiment import Setting

ROOT = Path(__file__).resolve().parents[1]
RESULTS, RUNS = ROOT / "data" / "results", ROOT / "runs" / "convergence"
ROUNDS = 300
SETTING = Setting(rounds=ROUNDS, per_client=60)
COMMON = {"lr": 0.05, "epochs": 5, "batch_size": 10_000, "momentum": 0.0, "weight_decay": 0.0}
OURS = {"method": "fedecouple", "classifier_epochs": 5, "coupling": "joint", "lam": 1.0}
REP = {"method": "fedrep", "classifier_epochs": 5}
SCHEDULES = {"constant": lambda t: 1.0, "decreasing": lambda t: (1 + t / 10) ** -0.5}  # of the round t = 0, 1, ...

# case: (method and what differs from COMMON, alpha, schedule, seeds)
CASES = {
    "FedAvg": ({"method": "fedavg"}, 0.3, "constant", 3),
    "FedRep": (REP, 0.3, "constant", 3),
    "FedeCouple": (OURS, 0.3, "constant", 3),
    "FedeCouple, anchors only": (OURS | {"lam": 0.0, "global_loss": 0.0}, 0.3, "constant", 3),
    "FedeCouple, decreasing step": (OURS, 0.3, "decreasing", 1),
    "FedRep, batch 16": (REP | {"batch_size": 16}, 0.3, "constant", 1),
    "FedRep, batch 16, decreasing step": (REP | {"batch_size": 16}, 0.3, "decreasing", 1),
    "FedeCouple, E = 1": (OURS | {"epochs": 1, "classifier_epochs": 1}, 0.3, "constant", 1),
    "FedeCouple, E = 15": (OURS | {"epochs": 15, "classifier_epochs": 15}, 0.3, "constant", 1),
    "FedeCouple, alpha = 0.1": (OURS, 0.1, "constant", 1),
    "FedeCouple, alpha = 10": (OURS, 10.0, "constant", 1),
}


def measure(case: str, seed: int, total: int = ROUNDS) -> pd.DataFrame:
    """One run: a row per round t = 0, ..., total - 1, measured before that round's training."""
    options, alpha, schedule, _ = CASES[case]
    options = COMMON | options
    method = make(**{"name": options.pop("method")} | options)
    setting = replace(SETTING, alpha=alpha)
    federation, net = setting.federation(seed).to(dtype=torch.float64), setting.build_net()
    state, rows = start(method, net, federation, seed), []
    for t in range(total):
        rows.append({"case": case, "seed": seed, "round": t, **gradient_norms(method, net, federation, state)})
        now = replace(method, lr=method.lr * SCHEDULES[schedule](t))
        (state,) = rounds(
            now, net, federation, rounds=t + 1, seed=seed, eval_every=total + 1, backend="loop", state=state
        )
    return pd.DataFrame(rows)


def main() -> None:
    torch.set_num_threads(1)  # small steps: a second thread costs more than it gives
    RUNS.mkdir(parents=True, exist_ok=True)
    order = sorted((seed, case) for case, (*_, seeds) in CASES.items() for seed in range(seeds))
    parts = []
    for seed, case in tqdm(order, unit="run"):
        path = RUNS / f"{case}-{seed}.csv"
        if not path.exists():
            part = path.with_suffix(".part")
            measure(case, seed).to_csv(part, index=False, float_format="%.4g")
            part.rename(path)
        parts.append(pd.read_csv(path))
    rows = pd.concat(parts)
    rows["case"] = pd.Categorical(rows["case"], list(CASES))
    rows.sort_values(["case", "seed", "round"]).to_csv(RESULTS / "convergence.csv", index=False)
    about = {
        "command": "python benchmarks/convergence.py",
        "rounds": ROUNDS,
        "setting": asdict(SETTING) | {"dtype": "float64"},
        "common": COMMON,
        "cases": {case: {"options": o, "alpha": a, "schedule": s, "seeds": n} for case, (o, a, s, n) in CASES.items()},
        "schedules": {"constant": "lr", "decreasing": "lr / sqrt(1 + t / 10)"},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": f"{platform.machine()}, CPU",
    }
    (RESULTS / "convergence.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
