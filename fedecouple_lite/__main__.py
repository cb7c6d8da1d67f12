"""Personalized federated learning on real images, from the command line."""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import wraps
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
import typer
from tqdm import tqdm

from . import data, engine
from .methods import METHODS, FedAvg, make
from .phases import hypers
from .studies import benchmark as study
from .studies import experiment
from .studies.experiment import Setting

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
ALL = ",".join(METHODS)
COMPARED = Path("runs/compare")
Seeds = Annotated[int, typer.Option(min=1, help="seeds 0, 1, ...: each a new split, new weights, new batches")]

Trials = Annotated[int, typer.Option(min=1, help="hyper-parameters tried per method and seed, on validation images")]
EqualSteps = Annotated[
    int | None, typer.Option(min=1, help="gradient steps per batch and round: epochs are set to match")
]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command. A parameter `setting` becomes one flag for each field of Setting; one named `context` takes
    hyper-parameters. A wrong argument ends in one message and exit code 2, a failed run in 1, Ctrl-C in 130."""
    own = inspect.signature(function, eval_str=True).parameters
    flags, kinds = [], get_type_hints(Setting)
    for f in fields(Setting) if "setting" in own else ():
        option = typer.Option(f.default, help=f.metadata["help"])
        flags.append(
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kinds[f.name])
        )

    def run_guarded(**values: Any) -> None:
        try:
            if flags:
                values["setting"] = Setting(**{f.name: values.pop(f.name) for f in flags})
            function(**values)
        except KeyboardInterrupt:
            typer.echo("\nInterrupted; the rounds finished are kept.", err=True)
            raise typer.Exit(130) from None
        except (ValueError, OSError, FloatingPointError) as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1 if isinstance(error, FloatingPointError) else 2) from None

    shown = [*(p for name, p in own.items() if name != "setting"), *flags]
    guarded: Any = wraps(function)(run_guarded)
    guarded.__signature__ = inspect.Signature(shown)
    guarded.__annotations__ = {p.name: p.annotation for p in shown}
    lists = (f"{name}: " + " ".join(f"--{h.replace('_', '-')}" for h in hypers(m)) for name, m in METHODS.items())
    extra = {"allow_extra_args": True, "ignore_unknown_options": True} if "context" in own else {}
    return app.command(context_settings=extra, epilog="Hyper-parameters: " + "; ".join(lists) if extra else "")(guarded)


def _hypers(words: list[str]) -> dict[str, str]:
    """["--mu", "0.5", "--lr=0.1"] -> {"mu": "0.5", "lr": "0.1"}."""
    found, rest = {}, list(words)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("--") or not (equals or rest):
            raise ValueError(f"{flag!r} is not understood; a hyper-parameter is given as --name value")
        found[flag[2:].replace("-", "_")] = value if equals else rest.pop(0)
    return found


def _compare(
    setting: Setting, methods: dict[str, FedAvg], seeds: int, folder: Path, trials: int = 1
) -> tuple[list[experiment.Run], dict]:
    states = {}
    each = trials + 1 if trials > 1 else 1
    with tqdm(total=len(methods) * seeds * setting.rounds * each, unit="round", dynamic_ncols=True, delay=0.3) as bar:

        def on_round(label: str, seed: int, state: engine.State | None) -> None:
            bar.set_description(f"{label}, seed {seed}", refresh=False)
            bar.update(setting.rounds if state is None else 1)
            states[label, seed] = state

        results = experiment.compare(setting, methods, range(seeds), folder, on_round, trials)
    print(experiment.as_text(results))
    return results, states


@command
def run(context: typer.Context, setting: Setting, method: str = "fedecouple", seed: int = 0, out: Path | None = None):
    """Train one method; write settings, versions and each round's metrics to a JSON file."""
    made = make(method, **_hypers(context.args))
    out = out or Path("runs") / f"{method}-{Path(setting.dataset).stem}-{setting.partition}-{seed}.json"
    with tqdm(total=setting.rounds, unit="round", dynamic_ncols=True, delay=0.3) as bar:
        result = experiment.run(setting, made, seed, out, lambda state: bar.update() and None, method)
    print(experiment.as_text([result]), f"Every round is in {out}", sep="\n")


@command
def compare(context: typer.Context, setting: Setting, methods: str = ALL, seeds: Seeds = 3, trials: Trials = 1,
            equal_steps: EqualSteps = None, out: Path = COMPARED):  # fmt: skip
    """Train several methods on the same splits: a table, CSV, curves and a dot plot. Hyper-parameters go to all that
    know them. p is a paired t-test over seeds against the best other method."""
    values, made = _hypers(context.args), {}
    chosen = dict.fromkeys(methods.split(","))
    for name in chosen:
        known = {k: v for k, v in values.items() if name in METHODS and k in hypers(METHODS[name])}
        made[name] = make(name, **known)
    for key, value in values.items():
        if not any(key in hypers(method) for method in made.values()):
            raise ValueError(f"{key}={value!r} means nothing to any of methods={methods!r}")
    if equal_steps:
        made = {name: experiment.at_equal_steps(method, equal_steps) for name, method in made.items()}
    results, _ = _compare(setting, made, seeds, out / "runs", trials)
    from .course import plots

    rows = experiment.table(results)
    rows.to_csv(out / "table.csv", index=False)
    plots.curves(results).savefig(out / "curves.png", dpi=130)
    plots.dots(rows).savefig(out / "dots.png", dpi=130)
    print(f"table.csv, curves.png and dots.png are in {out}/")


@command
def demo(seeds: Seeds = 3, rounds: int = 6, out: Path = Path("runs/demo"), embedding: Literal["umap", "pca"] = "umap"):
    """FedAvg, FedRep and FedeCouple on real handwritten digits: a table, and figures."""
    from .course import plots

    setting = Setting(rounds=rounds)
    names = {"FedAvg": "fedavg", "FedAvg + fine-tuning": "fedavg_ft", "FedRep": "fedrep", "FedeCouple": "fedecouple"}
    print("20 clients share 1,797 real digits unevenly (Dirichlet 0.3); mean +- std over seeds.")
    methods = {label: make(name) for label, name in names.items()}
    # UMAP compiles for ten seconds and more: a second process does so beside the training and later draws the map.
    with get_context("spawn").Pool(1, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as artist:
        artist.apply_async(plots.embed, (np.random.default_rng(0).normal(size=(100, 8)), embedding))
        results, states = _compare(setting, methods, seeds, out / "runs")
        federation, net = setting.federation(0), setting.build_net()
        state = states["FedeCouple", 0]
        if state is None:  # that run was there already; it left figures, not weights
            *_, state = engine.rounds(methods["FedeCouple"], net, federation, rounds=rounds, eval_every=rounds)
        stages = {"before training": net.init(0), f"after {rounds} rounds": state.server}
        spaces = {title: plots.feature_space(net, tensors, federation) for title, tensors in stages.items()}
        feature_map = artist.apply_async(plots.feature_map, (spaces, embedding))
        print("Drawing ...")
        figures = {"accuracy": plots.curves(results), "clients": plots.client_bars(results)}
        figures["features"] = feature_map.get()
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=130)
    print(f"accuracy.png, clients.png and features.png are in {out}/. Next: `make lab` opens the notebooks.")


@command
def benchmark(
    preset: Literal["laptop", "small", "paper"] = "laptop",
    datasets: Annotated[str | None, typer.Option(help="comma-separated; the preset's where not given")] = None,
    methods: Annotated[str | None, typer.Option(help="comma-separated; all where not given")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="the preset's where not given")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="the preset's where not given")] = None,
    device: str = "cpu", out: Path = Path("runs/benchmark"),
):  # fmt: skip
    """All methods on several image sets and skews, tuned alike; resumable. "laptop": digits, in minutes; "small": MNIST
    and Fashion-MNIST with few images, an hour; "paper": five sets in the literature's setting, for a GPU."""
    chosen = study.PRESETS[preset]
    if datasets is not None:
        chosen = replace(chosen, datasets=tuple(dict.fromkeys(datasets.split(","))))
    if methods is not None:
        chosen = replace(chosen, methods=tuple(dict.fromkeys(methods.split(","))))
    setting = replace(chosen.setting, device=device, rounds=rounds or chosen.setting.rounds)
    chosen, out = replace(chosen, seeds=seeds or chosen.seeds, setting=setting), out / preset
    with tqdm(total=study.length(chosen), unit="round", dynamic_ncols=True, delay=0.3) as bar:

        def on_round(label: str, seed: int, state: engine.State | None) -> None:
            bar.update(study.length_of(chosen, label) if state is None else 1)

        def on_cell(dataset: str, skew: str, problem: str) -> None:
            bar.set_description(f"{dataset}, {skew}", refresh=False)
            if problem:
                bar.write(f"{dataset}, {skew}: not run. {problem}", file=sys.stderr)

        rows = study.measure(chosen, out / "runs", on_round, on_cell)
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / "table.csv", index=False)
    print("Personal accuracy in %, mean +- std over seeds (rank):", study.leaderboard(rows).to_string(), sep="\n")
    if "fedecouple" in set(rows["method"]) and rows["method"].nunique() > 1:
        print("FedeCouple minus the best other, points:", study.margins(rows).round(2).to_string(index=False), sep="\n")
    print(f"table.csv, with the command for every row, is in {out}/")


@command
def fetch(dataset: str):
    """Download a data set into the data folder (FEDECOUPLE_DATA, or data/)."""
    print(f"{dataset}: {len(data.load(dataset).y)} images, in {data.data_folder()}")


if __name__ == "__main__":
    app()
