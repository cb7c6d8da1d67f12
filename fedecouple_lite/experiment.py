"""Runs and comparisons that can be repeated: a setting, a method and a seed make one JSON file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .data import DATASETS, load
from .engine import BACKENDS, State, rounds
from .methods import FedAvg
from .models import NETS, DecoupledNet, net_for
from .partition import OPTIONS, SCHEMES, Federation, split, unevenness

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
        return split(_load(self.dataset), self.clients, self.partition, seed, **given).to(self.device)

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
            part = out.with_name(out.name + ".part")  # whole or not at all
            part.write_text(json.dumps(plain(result), indent=1) + "\n")
            os.replace(part, out)
    return plain(result)


def compare(
    setting: Setting, methods: Mapping[str, FedAvg], seeds: Sequence[int], folder: Path,
    on_round: Callable[[str, int, State | None], None] = lambda label, seed, state: None,
) -> list[Run]:  # fmt: skip
    """Every method with every seed: the same splits, starting weights and number of passes over the data for all.

    Each (method, seed) is a file in `folder`, named by a digest of what it depends on: a second call, or one after an
    interruption, runs only what is missing. on_round(label, seed, state) watches; state None: it was there already.
    """
    results = []
    for seed in seeds:
        for label, method in methods.items():
            about = json.dumps(plain([asdict(setting), type(method).__name__, asdict(method), seed]), sort_keys=True)
            path = folder / f"{label}-{seed}-{hashlib.sha256(about.encode()).hexdigest()[:10]}.json"
            old = json.loads(path.read_text()) if path.exists() else {}
            if old.get("finished"):
                on_round(label, seed, None)
                results.append(old)
            else:
                results.append(run(setting, method, seed, path, partial(on_round, label, seed), label))
    return results


def summary(results: Sequence[Run]) -> Any:
    """A pandas DataFrame, one row per method: (mean, std) over seeds of each figure's mean over the last five evaluated
    rounds; std is the sample's (n - 1), NaN for one seed."""
    import pandas as pd

    rows = []
    for r in results:
        last = pd.DataFrame(r["records"]).drop(columns=["accuracies", "round"]).astype(float).tail(LAST)
        rows.append({"method": r["label"], **last.mean()})
    return pd.DataFrame(rows).groupby("method", sort=False).agg(["mean", "std"])


def as_text(results: Sequence[Run]) -> str:
    """The summary for people: accuracies in %, mean +- std over seeds; gradient steps of all clients and kilobytes per
    client, each per round."""
    import pandas as pd

    figures, rows = summary(results), {}
    for title, key in (("personal %", "personal"), ("worst 10% of clients", "worst10"), ("global %", "global")):
        pairs = (100 * figures[key]).itertuples(index=False)
        rows[title] = [f"{m:.1f}" + (f" +- {s:.1f}" if s == s else "") for m, s in pairs]  # NaN is not itself
    for title, key, unit in (("steps", "steps", 1), ("KB up", "upload_bytes", 1e3), ("KB down", "download_bytes", 1e3)):
        rows[title] = [f"{value / unit:.0f}" for value in figures[key, "mean"]]
    return pd.DataFrame(rows, figures.index).replace("nan", "-").reset_index().to_string(index=False)


def plain(value: Any) -> Any:
    """`value` as JSON gives it back: tuples become lists, NaN None."""
    return json.loads(json.dumps(value), parse_constant=lambda constant: None)
