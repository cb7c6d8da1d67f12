"""Runs and comparisons that can be repeated: a setting, a method and a seed make one JSON file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import DATASETS, load
from ..engine import BACKENDS, State, rounds
from ..methods import FedAvg
from ..models import NETS, DecoupledNet, net_for
from ..partition import OPTIONS, SCHEMES, Federation, split, unevenness
from ..phases import Phase, hypers

Run = dict[str, Any]
LAST = 5  # a run is summed up by the mean of its last five evaluated rounds, never by its best
_load = lru_cache(maxsize=2)(load)


def _flag(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class Setting:
    """What all methods of a comparison share. Its fields are also the command line's flags."""

    dataset: str = _flag("digits", ", ".join(DATASETS) + " or a path.npz")
    partition: str = _flag("dirichlet", ", ".join(SCHEMES))
    alpha: float | None = _flag(None, "dirichlet: concentration, small is skewed (0.3 where not given)")
    classes_per_client: int | None = _flag(None, "pathological: classes a client holds (2)")
    share: float | None = _flag(None, "skew: share of a client's images spread over all classes (0.2)")
    sigma: float | None = _flag(None, "quantity: spread of the log sizes (1)")
    clients: int = _flag(20, "number of clients")
    test_share: float = _flag(0.5, "share of each client's images kept for testing")
    per_client: int | None = _flag(None, "at most so many images a client, test ones included")
    participation: float = _flag(1.0, "share of the clients in each round's cohort")
    on: str = _flag("test", "which images to predict: test, or validation (held out of the training images)")
    rounds: int = _flag(15, "rounds of training")
    eval_every: int = _flag(1, "rounds between evaluations")
    net: str | None = _flag(None, ", ".join(NETS) + " (by image size)")
    device: str = _flag("cpu", "cpu, cuda, cuda:1, mps")
    backend: str = _flag("auto", ", ".join(BACKENDS))

    def federation(self, seed: int) -> Federation:
        """The data set, divided with `seed`, on the device. Raises ValueError where one of them cannot be had."""
        try:
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device={self.device!r} is not available ({str(error).splitlines()[0]}); use cpu"
            ) from None
        given: dict[str, Any] = {name: getattr(self, name) for own in OPTIONS.values() for name in own}
        given = {name: value for name, value in given.items() if value is not None}
        given |= {"test_share": self.test_share, "per_client": self.per_client}
        if self.on not in ("test", "validation"):
            raise ValueError(f"on={self.on!r} must be test or validation")
        federation = split(_load(self.dataset), self.clients, self.partition, seed, **given).to(self.device)
        return federation if self.on == "test" else federation.validation()

    def build_net(self) -> DecoupledNet:
        """The net named, or the one for the data set's image size."""
        data = _load(self.dataset)
        return net_for(data.in_shape, len(data.classes), self.net)


def run(
    setting: Setting, method: FedAvg, seed: int, out: Path, on_round: Callable[[State], None], label: str = ""
) -> Run:
    """Train `method` in `setting`; write settings, versions and every round's metrics to the JSON file `out`.

    on_round is called after every round. Interrupted, the file keeps the rounds finished, with ``"finished": false``.
    """
    federation, net = setting.federation(seed), setting.build_net()
    out.parent.mkdir(parents=True, exist_ok=True)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    result: Run = {
        "label": label or type(method).__name__,
        "method": {"name": type(method).__name__, **asdict(method)},
        "setting": OPTIONS[setting.partition] | {k: v for k, v in asdict(setting).items() if v is not None},
        "seed": seed,
        "split": unevenness(federation.label_counts()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "hardware": {"processor": platform.machine(), "cores": os.cpu_count(), "gpu": gpu},
        "finished": False,
        "records": (),
    }
    shared: dict[str, Any] = {
        "rounds": setting.rounds,
        "participation": setting.participation,
        "eval_every": setting.eval_every,
    }
    try:
        for state in rounds(method, net, federation, seed=seed, backend=setting.backend, **shared):
            result["records"] = state.records
            on_round(state)
        result["finished"] = True
    finally:
        if result["records"]:
            part = out.with_name(f"{out.name}.{os.getpid()}-{threading.get_ident()}.part")  # whole or not at all
            part.write_text(json.dumps(plain(result), indent=1) + "\n")
            os.replace(part, out)
    return plain(result)


def compare(
    setting: Setting, methods: Mapping[str, FedAvg], seeds: Sequence[int], folder: Path,
    on_round: Callable[[str, int, State | None], None] = lambda label, seed, state: None, trials: int = 1,
) -> list[Run]:  # fmt: skip
    """Every method with every seed: the same splits, starting weights, sample order and number of passes for all.

    trials: hyper-parameters tried by `tune` for each method and seed; 1 takes them as they are. Each (method, seed) is
    a file in `folder`, named by a digest of what it depends on: a second call, or one after an interruption, runs only
    what is missing. on_round(label, seed, state) watches; state None: it was there already.
    """
    results = []
    for seed in seeds:
        for label, method in methods.items():
            chosen = tune(setting, method, seed, trials, folder / "tuning", partial(on_round, f"tuning {label}", seed))
            results.append(_once(setting, chosen, seed, folder, partial(on_round, label, seed), label))
    return results


def _once(
    setting: Setting, method: FedAvg, seed: int, folder: Path, on_round: Callable[[State | None], None], label: str
) -> Run:
    path = folder / f"{label}-{seed}-{digest(setting, method, seed)}.json"
    try:
        old = json.loads(path.read_text())
        finished = old["finished"] and bool(old["records"])
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged
        finished = False
    if not finished:
        return run(setting, method, seed, path, on_round, label)
    on_round(None)
    return old | {"label": label}


def digest(setting: Setting, method: FedAvg, seed: int) -> str:
    """Ten hexadecimal digits that stand for everything a run depends on."""
    about = json.dumps(plain([asdict(setting), type(method).__name__, asdict(method), seed]), sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()[:10]


def tune(
    setting: Setting, method: FedAvg, seed: int, trials: int, folder: Path,
    on_round: Callable[[State | None], None] = lambda state: None,
) -> FedAvg:  # fmt: skip
    """`method` with the best of `trials` sets of hyper-parameters: its own, then others drawn from their `tries`.

    Best is the personal accuracy, mean of the last five rounds, on validation images taken out of this seed's training
    images: no test image plays a part. A trial that diverges counts as worst. Trials are files, like all runs.
    """
    if trials < 1:
        raise ValueError(f"trials={trials} must be at least 1")
    tries = {name: f.metadata["tries"] for name, f in hypers(method).items() if f.metadata["tries"]}
    grid = [replace(method, **dict(zip(tries, values, strict=True))) for values in product(*tries.values())]
    order = np.random.default_rng([seed, len(grid)]).permutation(len(grid))
    candidates = list(dict.fromkeys([method, *(grid[i] for i in order)]))[:trials]
    scores = []
    for candidate in candidates if trials > 1 else ():
        try:
            held_out = replace(setting, on="validation")
            tried = _once(held_out, candidate, seed, folder, on_round, type(method).__name__)
            scores.append(float(np.mean([record["personal"] for record in tried["records"][-LAST:]])))
        except FloatingPointError:
            scores.append(-1.0)
    return candidates[int(np.argmax(scores)) if scores else 0]


def passes(method: FedAvg) -> int:
    """Gradient steps that a round takes for each batch of a client's images."""
    return sum(phase.epochs * len(phase.losses) for phase in method.phases() if isinstance(phase, Phase))


def at_equal_steps(method: FedAvg, budget: int) -> FedAvg:
    """`method` with as many local epochs as `passes` <= budget allows. ValueError where not even one fits."""
    fitting = [e for e in range(1, budget + 1) if passes(replace(method, epochs=e)) <= budget]
    if not fitting:
        raise ValueError(f"budget={budget} is below one epoch of {type(method).__name__}")
    return replace(method, epochs=max(fitting))


def table(results: Sequence[Run]) -> Any:
    """A pandas DataFrame, one row per (method, seed): each figure's mean over the last five evaluated rounds."""
    import pandas as pd

    rows = []
    for r in results:
        last = pd.DataFrame(r["records"]).drop(columns=["accuracies", "round"]).astype(float).tail(LAST)
        rows.append({"method": r["label"], "seed": r["seed"], **last.mean()})
    return pd.DataFrame(rows)


def summary(rows: Any) -> Any:
    """From `table`'s rows one per method: (mean, std) over seeds of every figure, std the sample's (n - 1), NaN for one
    seed; and under "p" the paired t-test of its personal accuracy over seeds against the best other method's."""
    from scipy.stats import ttest_rel

    figures = rows.drop(columns=["seed"]).groupby("method", sort=False).agg(["mean", "std"])
    personal = rows.pivot(index="seed", columns="method", values="personal")
    for method in figures.index:
        others = personal.drop(columns=[method])
        figures.loc[method, ("p", "")] = float("nan")
        if len(personal) > 1 and len(others.columns):
            rival = others[others.mean().idxmax()]
            figures.loc[method, ("p", "")] = ttest_rel(personal[method], rival).pvalue
    return figures


def as_table(rows: Any) -> Any:
    """The summary for people, strings in a DataFrame: accuracies in %, mean +- std over seeds; p (see `summary`);
    gradient steps of all clients and kilobytes of each, per round."""
    import pandas as pd

    figures, shown = summary(rows), {}
    for title, key in (("personal %", "personal"), ("worst 10% of clients", "worst10"), ("global %", "global")):
        pairs = (100 * figures[key]).itertuples(index=False)
        shown[title] = [f"{m:.1f}" + (f" +- {s:.1f}" if s == s else "") for m, s in pairs]  # NaN is not itself
    shown["p"] = [f"{p:.3f}" for p in figures["p"]]
    for title, key, unit in (("steps", "steps", 1), ("KB up", "upload_bytes", 1e3), ("KB down", "download_bytes", 1e3)):
        shown[title] = [f"{value / unit:.0f}" for value in figures[key, "mean"]]
    return pd.DataFrame(shown, figures.index).replace("nan", "-").reset_index()


def as_text(results: Sequence[Run]) -> str:
    """`as_table` of these runs, as text."""
    return as_table(table(results)).to_string(index=False)


def plain(value: Any) -> Any:
    """`value` as JSON gives it back: tuples become lists, NaN None."""
    return json.loads(json.dumps(value), parse_constant=lambda constant: None)
