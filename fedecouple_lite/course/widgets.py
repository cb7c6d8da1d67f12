"""Controls over the same figures: every widget here draws a function of `plots` that can be called without it.

Only core widgets are used, as in ipywidgets 7.7.1 and 8. Pictures are PNG in an Image, which a background thread may
change; sliders act on release; an error inside a callback is shown where the reader looks. JupyterLab runs callbacks in
threads of its own, beside cells and each other: a widget takes one at a time, and shares no net with the notebook.
"""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import matplotlib.pyplot as plt

from ..data import Dataset
from ..engine import State, rounds
from ..methods import METHODS, FedAvg, make
from ..models import DecoupledNet, net_for
from ..partition import OPTIONS, SCHEMES, Federation, split, unevenness
from ..phases import hypers
from ..studies import ablation
from ..studies.convergence import random_problem
from ..studies.experiment import Run, Setting, as_table
from ..tensors import Tensors
from . import plots

DRAWING = threading.Lock()  # pyplot keeps one list of figures for all threads


def png(figure: Any, dpi: int = 80) -> bytes:
    """The figure as PNG; it is closed."""
    with io.BytesIO() as buffer, DRAWING:
        figure.savefig(buffer, format="png", dpi=dpi)
        plt.close(figure)
        return buffer.getvalue()


def _message(error: Exception) -> str:
    return f"<b>{type(error).__name__}:</b> {escape(str(error))}"


class Picture(w.VBox):
    """Controls above a picture and a line of text. draw(**values) -> (figure, caption) follows every change at once."""

    def __init__(
        self, controls: Mapping[str, w.ValueWidget], draw: Callable[..., tuple[Any, str]], width: str = "640px"
    ):
        self.controls, self.draw, self.lock = controls, draw, threading.Lock()
        self.image, self.caption = w.Image(format="png", layout=w.Layout(width=width)), w.HTML()
        for control in controls.values():
            control.observe(self.update, names="value")
        super().__init__(
            [w.HBox(list(controls.values()), layout=w.Layout(flex_flow="row wrap")), self.image, self.caption]
        )
        self.update()

    def update(self, change: Any = None) -> None:
        """Draw again; where that fails, the caption says why and the last picture stays."""
        with self.lock:  # values are read inside, so that the last picture is of the newest ones
            try:
                figure, caption = self.draw(**{name: control.value for name, control in self.controls.items()})
                self.image.value, self.caption.value = png(figure), caption
            except Exception as error:  # anything: it has to reach the reader, and a callback's traceback would not
                self.caption.value = _message(error)


def _slider(text: str, value: float, low: float, high: float, step: float, log: bool = False) -> Any:
    kind = w.FloatLogSlider if log else w.IntSlider if isinstance(step, int) else w.FloatSlider
    return kind(value=value, min=low, max=high, step=step, description=text, continuous_update=False)


def heterogeneity(data: Dataset) -> Picture:
    """Scheme, its own option, clients and seed against who then holds what, with the figures of unevenness."""
    controls = {
        "scheme": w.Dropdown(options=list(SCHEMES), description="scheme"),
        "alpha": _slider("alpha", 0.3, -2, 2, 0.1, log=True),
        "classes_per_client": _slider("classes", 2, 1, len(data.classes), 1),
        "share": _slider("share", 0.2, 0.0, 1.0, 0.05),
        "sigma": _slider("sigma", 1.0, 0.1, 3.0, 0.1),
        "clients": _slider("clients", 20, 2, 100, 1),
        "seed": _slider("seed", 0, 0, 20, 1),
    }

    def draw(scheme: str, clients: int, seed: int, **options: float) -> tuple[Any, str]:
        for name in options:  # show the option that this scheme has
            controls[name].layout.display = None if name in OPTIONS[scheme] else "none"
        own: dict[str, Any] = {name: options[name] for name in OPTIONS[scheme]}
        federation = split(data, clients, scheme, seed, **own)
        skew = unevenness(federation.label_counts())
        return plots.label_map(federation), (
            f"A client holds {skew['classes_per_client']:.1f} of {len(data.classes)} classes on average. Label skew "
            f"{skew['label_skew']:.2f} (0: all alike), size skew {skew['size_skew']:.2f} (0: all equal)."
        )

    return Picture(controls, draw)


def travels() -> Picture:
    """Methods against which of their tensors travel."""
    names = list(METHODS)
    chosen = w.SelectMultiple(options=names, value=tuple(names[:6]), description="methods", rows=6)
    text = "Orange travels to the server in every round, blue never leaves the client."
    return Picture({"names": chosen}, lambda names: (plots.travel_map(names or list(METHODS)), text))


def anchor_pull(net: DecoupledNet, weights: Tensors, federation: Federation) -> Picture:
    """mu and the number of steps against one client's features around its anchors."""
    controls = {
        "client": _slider("client", 0, 0, len(federation) - 1, 1),
        "mu": _slider("mu", 1.0, 0.0, 10.0, 0.1),
        "steps": _slider("steps", 20, 0, 100, 5),
    }
    net = copy.deepcopy(net)  # weights are put into its modules while it runs: a cell's and ours must not meet there
    text = "Same colour, same class. The larger mu, the closer features come to the star of their class."
    return Picture(controls, lambda **values: (plots.anchor_pull(net, weights, federation, **values), text), "720px")


def distillation(student_logits: Any, teacher_logits: Any, y: Any) -> Picture:
    """Image, temperature and lambda against what the teacher asks of the student; logits (n, C) and y (n,)."""
    controls = {
        "image": _slider("image", 0, 0, len(y) - 1, 1),
        "temperature": _slider("T", 1.0, 0.5, 10.0, 0.5),
        "lam": _slider("lambda", 3.0, 0.0, 10.0, 0.5),
    }

    def draw(image: int, temperature: float, lam: float) -> tuple[Any, str]:
        figure = plots.distillation_bars(student_logits[image], teacher_logits[image], int(y[image]), temperature, lam)
        return figure, "The weight is the teacher's probability of the true class at T = 1: a wrong teacher is ignored."

    return Picture(controls, draw, "576px")


def descent(seed: int = 0) -> Picture:
    """Step size, local steps, skew and the weights of anchors and teacher against a known problem and its bound."""
    controls = {
        "step": _slider("step", 1.0, -2, 1, 0.1, log=True),
        "local_steps": _slider("K", 5, 1, 20, 1),
        "skew": _slider("skew", 1.0, 0.0, 3.0, 0.25),
        "mu": _slider("mu", 1.0, 0.0, 3.0, 0.25),
        "lam": _slider("lambda", 0.0, 0.0, 3.0, 0.25),
        "sigma": _slider("sigma", 0.5, 0.0, 3.0, 0.25),
    }

    def draw(step: float, local_steps: int, **constants: float) -> tuple[Any, str]:
        return plots.descent(random_problem(seed, h=1.0, c=1.5, global_loss=0.0, **constants), step, local_steps)

    return Picture(controls, draw, "576px")


class Training(w.VBox):
    """Live training in a background thread: start, pause, step, stop. `state` is the run so far, for use in Python."""

    def __init__(self, data: Dataset, clients: int = 20, **common: Any):
        self.data, self.clients, self.common, self.net = (
            data,
            clients,
            common,
            net_for(data.in_shape, len(data.classes)),
        )
        self.state: State | None = None
        self.federation: Federation | None = None
        self.drift: list[float] = []
        self.thread: threading.Thread | None = None
        self.going, self.lock = threading.Event(), threading.Lock()
        self.states: Iterator[State] = iter(())
        self.method = w.Dropdown(options=list(METHODS), value="fedecouple", description="method")
        self.mu = _slider("mu", 1.0, 0.0, 10.0, 0.1)
        self.lam = _slider("lambda", 3.0, 0.0, 10.0, 0.5)
        self.alpha = _slider("alpha", 0.3, -1, 2, 0.1, log=True)
        self.rounds = _slider("rounds", 10, 1, 50, 1)
        self.controls = [self.method, self.mu, self.lam, self.alpha, self.rounds]
        self.values: list[Any] = []  # the controls' at the start of this run
        names = ("start", "pause", "step", "stop")
        self.buttons = {name: w.Button(description=name, layout=w.Layout(width="80px")) for name in names}
        for name, button in self.buttons.items():
            button.on_click(partial(self._press, name))
        self.bar = w.IntProgress(min=0, max=10, description="round")
        blank = png(plots.figure(3, width=11.0, height=3.4)[0])  # keeps the place, so that the page does not jump
        self.image = w.Image(value=blank, format="png", layout=w.Layout(width="880px"))
        self.caption = w.HTML("Choose, then press start; step does one round.")
        rows = [
            w.HBox(self.controls, layout=w.Layout(flex_flow="row wrap")),
            w.HBox([*self.buttons.values(), self.bar]),
        ]
        super().__init__([*rows, self.image, self.caption])

    def _press(self, name: str, button: Any) -> None:
        with self.lock:
            getattr(self, name)()

    def start(self) -> None:
        """Go on with a paused run; after its end, or where a control was changed, begin a new one."""
        if self.thread is not None and self.thread.is_alive():
            if self.going.is_set() and self.values == self._chosen():
                return
            self.pause()
            self.thread.join()
        self._guard(self._prepare)
        self.going.set()
        self.thread = threading.Thread(target=self._guard, args=(self._go_on,), daemon=True)
        self.thread.start()

    def pause(self) -> None:
        """Stop after the round that is being computed; start or step go on."""
        self.going.clear()

    def step(self) -> None:
        """One round."""
        if self.thread is None or not self.thread.is_alive():
            self._guard(self._prepare)
            self._guard(self._one_round)

    def stop(self) -> None:
        """End the run; `state` stays, and the next start begins anew."""
        self.going.clear()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()
        self.states, self.federation = iter(()), None

    def _guard(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # anything: it has to reach the reader, and a thread's traceback would not
            self.going.clear()
            self.federation = None  # this run is over: the next start begins anew
            self.caption.value = _message(error)

    def _chosen(self) -> list[Any]:
        return [control.value for control in self.controls]

    def _prepare(self) -> None:
        unfinished = self.state is not None and self.state.round < self.rounds.value
        if self.federation is not None and unfinished and self.values == self._chosen():
            return
        self.states, self.federation, self.values = iter(()), None, self._chosen()
        method = make(self.method.value, **self.common)
        given = {name: getattr(self, name).value for name in ("mu", "lam") if hasattr(method, name)}
        self.federation = split(self.data, self.clients, alpha=self.alpha.value)
        self.states = rounds(replace(method, **given), self.net, self.federation, rounds=self.rounds.value)
        self.state, self.drift, self.bar.max, self.bar.value = None, [], self.rounds.value, 0

    def _go_on(self) -> None:
        while self.going.is_set() and self._one_round():
            pass
        self.going.clear()

    def _one_round(self) -> bool:
        state = next(self.states, None)
        if state is None:
            self.federation = None  # finished: the next start begins anew
            return False
        self.state, self.bar.value = state, state.round
        self.drift.append(plots.drift(state))
        self.image.value = png(plots.progress(state, self.drift))
        record = state.records[-1]
        personal, worst = 100 * record["personal"], 100 * record["worst10"]
        self.caption.value = (
            f"Round {state.round}: personal accuracy {personal:.1f} %, the worst tenth of them at {worst:.1f} %, "
            f"drift {self.drift[-1]:.2f}."
        )
        return True


def training(data: Dataset, clients: int = 20, **common: Any) -> Training:
    """The live training panel; `common`: hyper-parameters for every method, such as lr or epochs."""
    return Training(data, clients, **common)


def slideshow(figures: Mapping[int, Any]) -> Picture:
    """Figures by number under one slider, drawn beforehand: the rounds of an embedding, say."""
    pictures = {number: png(figure, dpi=90) for number, figure in figures.items()}
    slider = w.SelectionSlider(options=list(pictures), description="round", continuous_update=True)
    picture = Picture({}, lambda: (plots.figure()[0], ""), "540px")
    picture.image.value, picture.children = pictures[slider.value], [slider, picture.image, picture.caption]
    picture.controls = {"round": slider}

    def show(change: Any) -> None:
        picture.image.value = pictures[change["new"]]

    slider.observe(show, names="value")
    return picture


class Studio(w.VBox):
    """The ablation studio: switch parts and forms of FedeCouple, run the combination (once: runs are cached on disk),
    see all curves so far as small multiples, a table, and two combinations' feature spaces side by side."""

    def __init__(self, setting: Setting, seeds: int = 2, folder: Path = ablation.FOLDER, **common: Any):
        self.setting, self.seeds, self.folder, self.common = setting, range(seeds), folder, common
        self.methods: dict[str, FedAvg] = {}
        self.results: list[Run] = []
        self.thread: threading.Thread | None = None
        self.filling = False
        self.stopping, self.lock = threading.Event(), threading.Lock()
        self.parts = {part: w.Checkbox(value=True, description=part, indent=False) for part in ablation.PARTS}
        known, plain = hypers(METHODS["fedecouple"]), make("fedecouple", **common)
        self.forms: dict[str, Any] = {
            name: w.Dropdown(options=list(f.metadata["choices"]), value=getattr(plain, name), description=name)
            for name, f in known.items() if f.metadata["choices"]
        }  # fmt: skip
        for name, high in (("mu", 10.0), ("lam", 10.0), ("temperature", 10.0)):
            value = getattr(plain, name)
            low, text = (0.5, "T") if name == "temperature" else (0.0, name)
            self.forms[name] = _slider(text, value, min(low, value), max(high, value), 0.1)
        self.buttons = {name: w.Button(description=name) for name in ("run", "run all eight", "stop")}
        self.buttons["run"].on_click(lambda _: self._guard(self.run))
        self.buttons["run all eight"].on_click(lambda _: self._guard(partial(self.run, everything=True)))
        self.buttons["stop"].on_click(lambda _: self.stop())
        self.bar = w.IntProgress(description="rounds")
        self.image, self.map = (w.Image(format="png", layout=w.Layout(align_self="flex-start")) for _ in range(2))
        self.caption, self.table = w.HTML("Choose, then press run. What was run before is read back."), w.HTML()
        self.left, self.right = (w.Dropdown(options=[], description=side) for side in ("left", "right"))
        self.how = w.Dropdown(options=["pca", "umap"], description="map")
        for side in (self.left, self.right, self.how):
            side.observe(lambda change: None if self.filling else self._guard(self._draw_map), names="value")
        wrap = w.Layout(flex_flow="row wrap")
        super().__init__([
            w.HBox(list(self.parts.values())), w.HBox(list(self.forms.values()), layout=wrap),
            w.HBox([*self.buttons.values(), self.bar]), self.caption, self.image, self.table,
            w.HBox([self.left, self.right, self.how]), self.map,
        ])  # fmt: skip

    def chosen(self) -> tuple[str, FedAvg]:
        """The combination that the controls say, and its name."""
        method = make("fedecouple", **{**self.common, **{name: form.value for name, form in self.forms.items()}})
        on = [part for part, box in self.parts.items() if box.value]
        plain = make("fedecouple", **self.common)
        changed = [f"{name} {form.value}" for name, form in self.forms.items() if form.value != getattr(plain, name)]
        off = {k: v for part in ablation.PARTS if part not in on for k, v in ablation.PARTS[part].items()}
        return ", ".join([ablation.label(on), *changed]), replace(method, **off)

    def run(self, everything: bool = False) -> None:
        """Train what is chosen (or all eight combinations of the parts) in the background."""
        if self.thread is not None and self.thread.is_alive():
            if not self.stopping.is_set():
                return
            self.thread.join()  # it gives up at its next round
        added = dict([self.chosen()])
        if everything:
            added = ablation.variants(make("fedecouple", **self.common))
        self.stopping.clear()
        self.bar.value, self.bar.max = 0, len(added) * len(self.seeds) * self.setting.rounds
        self.thread = threading.Thread(target=self._guard, args=(partial(self._work, added),), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Give up the run in progress; finished seeds are kept."""
        self.stopping.set()

    def _work(self, added: dict[str, FedAvg]) -> None:
        try:
            self._train(added)
            counted = f"{len(self.methods)} (seeds: {len(self.seeds)}, rounds: {self.setting.rounds})"
            said = f"Combinations so far: {counted}."
        except InterruptedError:
            said = "Stopped; finished seeds are kept, run goes on."
        finally:
            if self.methods:
                names, self.filling = list(self.methods), True  # one map at the end, not one for each of these
                self.left.options = self.right.options = names
                self.left.value, self.right.value = names[0], names[-1]
                self.filling = False
                self._draw_map()
        self.caption.value = said  # last: it tells the reader that run may be pressed again

    def _train(self, added: dict[str, FedAvg]) -> None:
        def on_round(label: str, seed: int, state: State | None) -> None:
            self.bar.value += self.setting.rounds if state is None else 1
            self.caption.value = f"{label}, seed {seed}" + (f", round {state.round}" if state else ": from the cache")
            if self.stopping.is_set():
                raise InterruptedError

        for label, method in added.items():
            fresh = ablation.run_all(self.setting, {label: method}, self.seeds, self.folder, on_round)
            self.methods[label] = method
            self.results = [r for r in self.results if r["label"] != label] + fresh
            self.image.value = png(plots.multiples(self.results))
            self.table.value = self._tables()

    def _tables(self) -> str:
        """What was run, and each part's effect once all eight combinations are there."""
        rows = ablation.tidy(self.results)
        shown = as_table(rows.drop(columns=list(ablation.PARTS))).to_html(index=False)
        eight = rows[rows["method"].isin(ablation.variants(make("fedecouple")))]
        if eight["method"].nunique() == 8:
            shown += ablation.effects(eight).round(2).to_html(index=False)
        return shown

    def _draw_map(self) -> None:
        with self.lock:
            net, federation = self.setting.build_net(), self.setting.federation(self.seeds[0])
            labels = [side.value for side in (self.left, self.right)]
            servers = {
                k: ablation.server(self.setting, self.methods[k], self.seeds[0], self.folder) for k in labels if k
            }
            spaces = {label: plots.feature_space(net, tensors, federation) for label, tensors in servers.items()}
            self.map.value = png(plots.feature_map(spaces, self.how.value))

    def _guard(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # anything: it has to reach the reader, and a thread's traceback would not
            self.caption.value = _message(error)


def studio(setting: Setting | None = None, seeds: int = 2, folder: Path = ablation.FOLDER, **common: Any) -> Studio:
    """The ablation studio; `common`: hyper-parameters for all combinations, such as lr or coupling."""
    return Studio(setting or Setting(rounds=6), seeds, folder, **common)


def results(rows: Any) -> Picture:
    """Benchmark rows (`benchmark.measure`) by data set, skew and figure: a dot a seed, the mean and its interval."""
    sets, skews = list(rows["dataset"].unique()), list(rows["skew"].unique())
    controls = {
        "dataset": w.Dropdown(options=sets, description="data set"),
        "skew": w.Dropdown(options=skews, description="skew"),
        "metric": w.Dropdown(options=["personal", "worst10", "global"], description="accuracy"),
    }

    def draw(dataset: str, skew: str, metric: str) -> tuple[Any, str]:
        part = rows[(rows["dataset"] == dataset) & (rows["skew"] == skew)].dropna(subset=[metric])
        if part.empty:
            return plots.figure(height=1.5)[0], f"{dataset}, {skew}: this cell is empty, it has not been run."
        mean = part.groupby("method")[metric].mean()
        return plots.dots(part, metric), f"{dataset}, {skew}: highest {metric} accuracy, {mean.idxmax()}."

    return Picture(controls, draw, "576px")
