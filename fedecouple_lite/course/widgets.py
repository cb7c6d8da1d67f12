"""Controls over the same figures: every widget here shows what `plots` and `demonstrations` draw without it.

Only core widgets are used, as in ipywidgets 7.7.1 and 8. Pictures are PNG in an Image, which a background thread may
change; sliders act on release; an error inside a callback is shown where the reader looks. JupyterLab runs callbacks in
threads of its own, beside cells and each other: a widget takes one at a time, and shares no net with the notebook.
"""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from html import escape
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..client import Stopped
from ..data import Dataset
from ..engine import State, rounds
from ..errors import is_number, is_whole_number, nearest, require
from ..hyper import hypers
from ..methods import METHODS, FedAvg, FedeCouple, make
from ..models import DecoupledNet, net_for
from ..partition import OPTIONS, PARTITIONS, Federation, split, unevenness
from ..studies import ablation
from ..studies.convergence import random_problem
from ..studies.experiment import Progress, Run, Setting
from ..studies.features import UmapProcess, drift, feature_space, require_test_images
from ..studies.tables import as_table
from ..tensors import Tensors
from . import demonstrations, plots

if TYPE_CHECKING:
    import pandas as pd

DRAWING = threading.Lock()  # pyplot keeps one list of figures for all threads
DPI = 80  # of pictures as wide as a notebook


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as PNG; it is closed.

    Examples
    --------
    >>> fig, _ = plots.figure()
    >>> png(fig)[1:4]
    b'PNG'
    """
    with io.BytesIO() as buffer, DRAWING:
        figure.savefig(buffer, format="png", dpi=dpi)
        plt.close(figure)
        return buffer.getvalue()


def _message(error: Exception) -> str:
    return f"<b>{type(error).__name__}:</b> {escape(str(error))}"


def _slider(text: str, value: float, low: float, high: float, step: float, log: bool = False) -> w.ValueWidget:
    """A slider that acts on release; whole numbers where `step` is one. log: `low` and `high` are powers of ten."""
    if log:
        kind = w.FloatLogSlider
    elif isinstance(step, int):
        kind = w.IntSlider
    else:
        kind = w.FloatSlider
    return kind(value=value, min=low, max=high, step=step, description=text, continuous_update=False)


def _number_slider(text: str, value: float, low: float = 0.0, high: float = 10.0) -> w.FloatSlider:
    """A slider for a hyper-parameter, from `low` to `high` in tenths; `_put` says what it does where that is too
    narrow or too coarse for the value."""
    slider = _slider(text, low, low, high, 0.1)
    _put(slider, value)
    return slider


def _put(slider: w.FloatSlider, value: float) -> None:
    """Set a slider to `value`. Its range widens where it does not hold the value, which would be cut off in silence;
    its steps become fine enough to return to the value, and its readout shows it."""
    slider.min = min(slider.min, value)
    slider.max = max(slider.max, value)
    decimals = 1
    while decimals < 12 and not isclose(value, round(value, decimals)):
        decimals += 1
    slider.step = 10.0**-decimals
    slider.readout_format = f".{max(2, decimals)}f"
    slider.value = value


def _row(controls: Sequence[w.Widget]) -> w.HBox:
    """Side by side; what finds no room goes to the next line."""
    return w.HBox(list(controls), layout=w.Layout(flex_flow="row wrap"))


# --- Pictures that follow their controls ---


STALE = "fedecouple-stale"  # the CSS class of a picture that is not of its controls' values


class Picture(w.VBox):
    """Controls above a picture and a line of text. draw(**values) follows every change at once: it returns a Figure (or
    a PNG drawn beforehand) and the text. dpi: how finely pictures are drawn, not how large."""

    dpi = DPI

    def __init__(
        self,
        controls: Mapping[str, w.ValueWidget],
        draw: Callable[..., tuple[Figure | bytes, str]],
        width: str = "640px",
    ):
        self.controls = controls
        self.draw = draw
        self.lock = threading.Lock()
        place = w.Layout(width=width, max_width="100%", align_self="flex-start")
        self.image = w.Image(format="png", layout=place)
        self.caption = w.HTML()
        looks = w.HTML(f"<style>.{STALE} {{ opacity: 0.25 }}</style>")
        super().__init__([looks, _row(list(controls.values())), self.image, self.caption])
        for control in controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, change: Any = None) -> None:
        """Draw again; where that fails, the caption says why and the last picture stays, greyed."""
        with self.lock:  # values are read inside, so that the last picture is of the newest ones
            try:
                values = {name: control.value for name, control in self.controls.items()}
                picture, caption = self.draw(**values)
                self.image.value = picture if isinstance(picture, bytes) else png(picture, self.dpi)
                self.image.remove_class(STALE)
                self.caption.value = caption
            except Exception as error:  # anything: it has to reach the reader, and a callback's traceback would not
                self.image.add_class(STALE)
                self.caption.value = _message(error)


def heterogeneity(data: Dataset) -> Picture:
    """Partition, its own option, clients and seed against who then holds what, with the figures of unevenness."""
    own: dict[str, float] = {}  # each option's value where none is given
    for options_of_one in OPTIONS.values():
        own.update(options_of_one)
    options = {
        "alpha": _slider("alpha", own["alpha"], -1, 2, 0.1, log=True),  # below, hardly a split leaves nobody empty
        "classes_per_client": _slider("classes", own["classes_per_client"], 1, len(data.classes), 1),
        "share": _slider("share", own["share"], 0.0, 1.0, 0.05),
        "sigma": _slider("sigma", own["sigma"], 0.1, 3.0, 0.1),
    }
    controls = {
        "partition": w.Dropdown(options=list(PARTITIONS), description="partition"),
        **options,
        "clients": _slider("clients", 20, 2, 100, 1),
        "seed": _slider("seed", 0, 0, 20, 1),
    }

    def draw(partition: str, clients: int, seed: int, **values: float) -> tuple[Figure, str]:
        chosen: dict[str, Any] = {}
        for name, slider in options.items():  # show, and use, only what this partition knows
            known = name in OPTIONS[partition]
            slider.layout.display = None if known else "none"
            if known:
                chosen[name] = values[name]
        federation = split(data, clients, partition, seed, **chosen)
        skew = unevenness(federation.label_counts())
        caption = (
            f"A client holds {skew['classes_per_client']:.1f} of {len(data.classes)} classes on average. Label skew "
            f"{skew['label_skew']:.2f} (0: all alike), size skew {skew['size_skew']:.2f} (0: all equal)."
        )
        return plots.label_map(federation), caption

    return Picture(controls, draw)


def travels() -> Picture:
    """Methods against which of their tensors travel."""
    all_names = list(METHODS)
    chosen = w.SelectMultiple(options=all_names, value=tuple(all_names[:6]), description="methods", rows=6)

    def draw(names: Sequence[str]) -> tuple[Figure, str]:
        figure = demonstrations.travel_map(names or all_names)
        return figure, "Orange travels to the server in every round, blue never leaves the client."

    return Picture({"names": chosen}, draw)


def anchor_pull(net: DecoupledNet, weights: Tensors, federation: Federation, lr: float = FedeCouple.lr) -> Picture:
    """mu and the number of steps, each of size lr, against one client's features around its anchors."""
    controls = {
        "client": _slider("client", 0, 0, len(federation) - 1, 1),
        "mu": _number_slider("mu", FedeCouple.mu),
        "steps": _slider("steps", 20, 0, 100, 5),
    }
    net = copy.deepcopy(net)  # weights are put into its modules while it runs: a cell's and ours must not meet there

    def draw(client: int, mu: float, steps: int) -> tuple[Figure, str]:
        figure = demonstrations.anchor_pull(net, weights, federation, client, mu, steps, lr)
        return figure, "Same colour, same class. The larger mu, the nearer features stay to the star of their class."

    return Picture(controls, draw, "860px")


def distillation(student_logits: Any, teacher_logits: Any, y: Any) -> Picture:
    """Image, temperature and lambda against what the teacher asks of the student; logits (n, C) and y (n,).

    Raises ValueError where there is no image, or not a row of logits for each.
    """
    require(len(y) > 0, "len(y)", len(y), "at least 1: there is no image to show")
    for name, logits in (("student_logits", student_logits), ("teacher_logits", teacher_logits)):
        require(len(logits) == len(y), f"len({name})", len(logits), f"len(y), {len(y)}")
    controls = {
        "image": _slider("image", 0, 0, len(y) - 1, 1),
        "temperature": _slider("T", FedeCouple.temperature, 0.5, 10.0, 0.5),
        "lam": _slider("lambda", FedeCouple.lam, 0.0, 10.0, 0.5),
    }

    def draw(image: int, temperature: float, lam: float) -> tuple[Figure, str]:
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

    def draw(step: float, local_steps: int, **constants: float) -> tuple[Figure, str]:
        problem = random_problem(seed, h=1.0, c=1.5, global_loss=0.0, **constants)
        return demonstrations.descent(problem, step, local_steps)

    return Picture(controls, draw, "880px")


def steadiness(data: Dataset, **sizes: int) -> Picture:
    """Method, participation and dropout, and what they do to the spread over seeds and rounds. A move takes a few
    seconds; values that were shown before come at once. sizes: as `demonstrations.steadiness` takes them."""
    controls = {
        "name": w.Dropdown(options=list(METHODS), value="fedecouple", description="method"),
        "participation": _slider("participation", 1.0, 0.1, 1.0, 0.1),
        "dropout": _slider("dropout", 0.0, 0.0, 0.9, 0.1),
    }
    shown: dict[tuple[str, float, float], tuple[bytes, str]] = {}

    def draw(name: str, participation: float, dropout: float) -> tuple[bytes, str]:
        values = (name, round(participation, 1), round(dropout, 1))
        if values not in shown:
            figure, words = demonstrations.steadiness(data, name, values[1], values[2], **sizes)
            shown[values] = png(figure), words
        return shown[values]

    return Picture(controls, draw, "auto")  # as wide as it was drawn


def attacked(data: Dataset, **sizes: int) -> Picture:
    """Method, attack, share of attackers and defence, and how the honest clients fare. A move takes a few seconds;
    values that were shown before come at once. sizes: as `demonstrations.attacked` takes them."""
    controls = {
        "name": w.Dropdown(options=list(METHODS), value="fedavg", description="method"),
        "attack": w.Dropdown(options=list(demonstrations.ATTACKS), description="attack"),
        "share": _slider("attackers", 0.2, 0.0, 0.4, 0.1),
        "defence": w.Dropdown(options=demonstrations.DEFENCES, description="defence"),
    }
    shown: dict[tuple[str, str, float, str], tuple[bytes, str]] = {}

    def draw(name: str, attack: str, share: float, defence: str) -> tuple[bytes, str]:
        values = (name, attack, round(share, 1), defence)
        if values not in shown:
            figure, words = demonstrations.attacked(data, name, attack, values[2], defence, **sizes)
            shown[values] = png(figure), words
        return shown[values]

    return Picture(controls, draw, "auto")  # as wide as it was drawn


def slideshow(figures: Mapping[Any, Figure], name: str = "round") -> Picture:
    """Figures by number under one slider, drawn beforehand: the rounds of an embedding, say, or whatever `name` calls
    the numbers. ValueError for none."""
    require(len(figures) > 0, "figures", dict(figures), "at least one figure by its number")
    pictures = {number: png(figure, dpi=90) for number, figure in figures.items()}
    numbers = list(pictures)
    slider = w.SelectionSlider(options=numbers, description=name, continuous_update=True)

    def draw(**chosen: Any) -> tuple[bytes, str]:
        number = chosen[name]
        return pictures[number], f"Picture {numbers.index(number) + 1} of {len(numbers)}: {name} {number}."

    return Picture({name: slider}, draw, "auto")  # as wide as they were drawn


def results(rows: pd.DataFrame) -> Picture:
    """Benchmark rows (`benchmark.measure`) by data set, partition and figure: a dot a seed, the mean and its
    interval. ValueError where there is no row."""
    require(len(rows) > 0, "len(rows)", len(rows), "at least 1: there is nothing to show")
    controls = {
        "dataset": w.Dropdown(options=list(rows["dataset"].unique()), description="data set"),
        "partition": w.Dropdown(options=list(rows["partition"].unique()), description="partition"),
        "metric": w.Dropdown(
            options=[(words, metric) for metric, words in plots.ACCURACIES.items() if metric in rows],
            description="accuracy",
        ),
    }

    def draw(dataset: str, partition: str, metric: str) -> tuple[Figure, str]:
        of_cell = (rows["dataset"] == dataset) & (rows["partition"] == partition)
        cell = rows[of_cell].dropna(subset=[metric])
        if cell.empty:
            blank, _ = plots.figure(height=1.5)
            return blank, f"{dataset}, {partition}: this cell is empty, it has not been run."
        best = cell.groupby("method")[metric].mean().idxmax()
        return plots.dots(cell, metric), f"{dataset}, {partition}: highest {plots.ACCURACIES[metric]}, {best}."

    return Picture(controls, draw, "576px")


# --- Panels that train in a background thread ---


class BackgroundPanel(w.VBox):
    """What the two panels below share: buttons, and one background thread at a time, so that the kernel stays free.

    An error, in a button's action or in the thread, is shown in `caption`. dpi: how finely pictures are drawn.
    """

    dpi = DPI

    def __init__(self, text: str):
        super().__init__()
        self.caption = w.HTML(text)
        self.buttons: dict[str, w.Button] = {}
        self.thread: threading.Thread | None = None
        self.going = threading.Event()  # cleared: the thread is to stop at its next round
        self.lock = threading.Lock()  # held while a button's action runs: two may be pressed at once

    def add_button(self, name: str, action: Callable[[], None], width: str | None = None) -> None:
        """A button that runs `action`, one button at a time."""
        button = w.Button(description=name, layout=w.Layout(width=width))
        button.on_click(partial(self._press, action))
        self.buttons[name] = button

    def _press(self, action: Callable[[], None], button: w.Button) -> None:
        with self.lock:
            self.guard(action)

    def guard(self, action: Callable[[], Any]) -> bool:
        """Run `action`; whether it went well. If not, the caption says why."""
        try:
            action()
        except Exception as error:  # anything: it has to reach the reader, and a thread's traceback would not
            self.after_error()
            self.caption.value = _message(error)
            return False
        return True

    def after_error(self) -> None:
        """What a panel does besides."""

    def at_work(self) -> bool:
        """Whether the thread is running, be it only to end the round that it is in."""
        return self.thread is not None and self.thread.is_alive()

    def work(self, action: Callable[[], None]) -> None:
        """Run `action` in the background: it looks at `going` after every round."""
        self.going.set()
        self.thread = threading.Thread(target=self.guard, args=(action,), daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Until the thread, if there is one, has ended."""
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()


class TrainingPanel(BackgroundPanel):
    """Live training in a background thread: start, pause, step, stop. `state` is the run so far, for use in Python.

    given: hyper-parameters, such as lr, epochs or mu; each goes to the methods that know it. The sliders for mu and
    lambda start at the value given or, where none is, at the chosen method's own, also when another method is chosen; a
    method without one greys it out. The caption says what was run. ValueError for a name that no method knows, or a
    value that FedeCouple, chosen at first, cannot take.
    """

    def __init__(self, data: Dataset, clients: int = 20, **given: Any):
        super().__init__("Choose, then press start; step does one round.")
        self.caption.layout.min_height = "84px"  # three lines: keeps the place, so that the page does not jump
        self.data = data
        self.clients = clients
        self.given = given
        self.net = net_for(data.in_shape, len(data.classes))
        check_names(given)

        self.state: State | None = None
        self.drift: list[float] = []  # after each round
        self.federation: Federation | None = None  # None: the next start begins anew
        self.states: Iterator[State] = iter(())  # the rounds to come
        self.values: list[Any] = []  # the controls' at the start of this run
        self.ran = ""  # this run's method and values, in words
        self.report = ""  # on this run's last round

        self.method = w.Dropdown(options=list(METHODS), value="fedecouple", description="method")
        self.mu = _number_slider("mu", 0.0)
        self.lam = _number_slider("lambda", 0.0)
        self.knobs = {"mu": self.mu, "lam": self.lam}
        self.followed = ""  # the method whose values the sliders were put to
        self.following = threading.Lock()
        self.alpha = _slider("alpha", OPTIONS["dirichlet"]["alpha"], -1, 2, 0.1, log=True)
        self.rounds = _slider("rounds", 10, 1, 50, 1)
        self.controls = [self.method, self.mu, self.lam, self.alpha, self.rounds]
        self._follow_method()
        self.method.observe(lambda change: self.guard(self._follow_method), names="value")
        for control in self.controls:
            control.observe(lambda change: self._show_report(), names="value")

        self.add_button("start", self.start, width="80px")
        self.add_button("pause", self.pause, width="80px")
        self.add_button("step", self.step, width="80px")
        self.add_button("stop", self.stop, width="80px")
        self.bar = w.IntProgress(min=0, max=10, description="round")

        blank, _ = plots.figure(3, width=11.0, height=3.4)  # keeps the place as well
        self.image = w.Image(value=png(blank), format="png", layout=w.Layout(width="880px"))
        buttons = w.HBox([*self.buttons.values(), self.bar])
        self.children = [_row(self.controls), buttons, self.image, self.caption]

    def _as_given(self) -> FedAvg:
        """The chosen method with those of the given hyper-parameters that it knows."""
        name = self.method.value
        known = hypers(METHODS[name])
        return make(name, **{key: value for key, value in self.given.items() if key in known})

    def _follow_method(self) -> None:
        """Put the sliders where the chosen method starts, once each time that another one is chosen."""
        with self.following:
            if self.method.value == self.followed:
                return
            values = knobs_of(self._as_given())
            for name, slider in self.knobs.items():
                slider.disabled = name not in values
                if name in values:
                    _put(slider, values[name])
            self.followed = self.method.value

    def start(self) -> None:
        """Go on with a paused run; after its end, or where a control was changed, begin a new one."""
        if self.at_work():
            if self.going.is_set() and self.values == self._chosen():
                return  # it is running already
            self.pause()
            self.wait()
        if self.guard(self._prepare):
            self.work(self._go_on)

    def pause(self) -> None:
        """Stop after the round that is being computed; start or step go on."""
        self.going.clear()

    def step(self) -> None:
        """One round."""
        if not self.at_work() and self.guard(self._prepare):
            self.guard(self._one_round)

    def stop(self) -> None:
        """End the run; `state` stays, and the next start begins anew."""
        self.pause()
        self.wait()
        self._end()

    def after_error(self) -> None:
        self.pause()
        self._end()
        self.report = ""  # the caption is the error's

    def _end(self) -> None:
        """This run is over: the next start begins anew."""
        self.states = iter(())
        self.federation = None

    def _chosen(self) -> list[Any]:
        return [control.value for control in self.controls]

    def _prepare(self) -> None:
        """Begin a new run, unless the last one can go on."""
        finished = self.state is not None and self.state.round >= self.rounds.value
        if self.federation is not None and not finished and self.values == self._chosen():
            return
        self._end()
        self._follow_method()  # the choice of a method and this may come in two threads
        self.values = self._chosen()
        method = self._as_given()
        for name in knobs_of(method):
            method = replace(method, **{name: self.knobs[name].value})
        federation = split(self.data, self.clients, alpha=self.alpha.value)
        require_test_images(federation, f"clients={self.clients}")
        self.federation = federation
        self.states = rounds(method, self.net, federation, rounds=self.rounds.value)
        self.ran = self._in_words(method)
        self.report = ""
        self.state = None
        self.drift = []
        self.bar.max = self.rounds.value
        self.bar.value = 0

    def _in_words(self, method: FedAvg) -> str:
        """What is run: the method, and the values that it has; "-" for one that it does not have."""
        values = knobs_of(method)
        words = [f"{name} {values[name]:g}" if name in values else f"{name} -" for name in self.knobs]
        return f"{self.method.value} ({', '.join(words)}), alpha {self.alpha.value:g}"

    def _go_on(self) -> None:
        while self.going.is_set() and self._one_round():
            pass
        self.going.clear()

    def _one_round(self) -> bool:
        """Whether there was one left to do."""
        state = next(self.states, None)
        if state is None:
            self._end()
            return False
        self.state = state
        self.drift.append(drift(state))
        self.bar.value = state.round
        self.image.value = png(plots.progress(state, self.drift), self.dpi)
        record = state.records[-1]
        self.report = (
            f"Round {state.round}: {self.ran}. Personal accuracy {100 * record['personal']:.1f} % trained, "
            f"{100 * record['personal_received']:.1f} % received; 10th percentile of clients, trained, "
            f"{100 * record['percentile10']:.1f} %; drift {self.drift[-1]:.2f}."
        )
        self._show_report()
        return True

    def _show_report(self) -> None:
        """What was run, under its picture; and that the controls say something else by now, if they do."""
        if not self.report:
            return
        text = self.report
        if self.values != self._chosen():
            text += " <b>This is not what the controls say now: press start for a run of that.</b>"
        self.caption.value = text


def check_names(given: Mapping[str, Any]) -> None:
    """Raise ValueError for a hyper-parameter that no method knows."""
    known = [name for method in METHODS.values() for name in hypers(method)]
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{name}={value!r} means nothing to any method; {nearest(name, dict.fromkeys(known))}")


def knobs_of(method: FedAvg) -> dict[str, float]:
    """Those of a method's hyper-parameters that have a slider in the panel, and their values.

    Examples
    --------
    >>> knobs_of(make("fedprox")), knobs_of(make("fedecouple")), knobs_of(make("fedavg"))
    ({'mu': 0.01}, {'mu': 1.0, 'lam': 3.0}, {})
    """
    values = {name: getattr(method, name) for name in ("mu", "lam") if name in hypers(method)}
    return {name: value for name, value in values.items() if is_number(value)}


def empty_place() -> w.Image:
    """Where a picture will be: nothing is seen of it until there is one."""
    return w.Image(format="png", layout=w.Layout(align_self="flex-start", max_width="100%", display="none"))


def fill_place(place: w.Image, figure: Figure, dpi: int) -> None:
    """Put a picture there, and show it; as large whatever its dpi."""
    place.layout.width = f"{figure.get_figwidth() * DPI:.0f}px"
    place.value = png(figure, dpi)
    place.layout.display = None


# Step sizes that the studio offers: what trains digits is too much for larger images.
STEP_SIZES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


class AblationPanel(BackgroundPanel):
    """The ablation studio: switch parts and forms of FedeCouple, run the combination (once: runs are cached on disk),
    see all curves so far as small multiples, a table, and two combinations' feature spaces side by side.

    setting: what all runs share; six rounds on the digits where none is given. seeds: how many. folder: where finished
    runs are kept. given: hyper-parameters for all combinations, such as lr or coupling; controls start at them. A
    combination's name says which parts are on in what was run, and which forms differ from those given. maps: what
    feature maps are drawn with at first, "pca", "umap" or a UmapProcess, which has compiled already.
    """

    def __init__(
        self,
        setting: Setting | None = None,
        seeds: int = 2,
        folder: str | Path = ablation.FOLDER,
        maps: str | UmapProcess = "pca",
        **given: Any,
    ):
        super().__init__("Choose, then press run. What was run before is read back.")
        require(is_whole_number(seeds) and seeds >= 1, "seeds", seeds, "a whole number >= 1")
        self.setting = setting or Setting(rounds=6)
        self.seeds = range(seeds)
        self.folder = Path(folder)
        self.whole = make("fedecouple", **given)  # every part, every form as given
        self.methods: dict[str, FedAvg] = {}  # the combinations run so far, by name
        self.eight: list[str] = []  # names of the eight combinations of parts in the forms that were run last
        self.results: list[Run] = []

        self.parts = {}
        for part in ablation.PARTS:
            on = ablation.is_on(part, asdict(self.whole))
            self.parts[part] = w.Checkbox(value=on, description=part, indent=False)
        self.forms = self._forms()
        self.add_button("run", self.run)
        self.add_button("run all eight", partial(self.run, everything=True))
        self.add_button("stop", self.stop)
        self.bar = w.IntProgress(description="rounds")
        self.progress = Progress()
        self.image = empty_place()
        self.table = w.HTML()

        self.left = w.Dropdown(options=[], description="left")
        self.right = w.Dropdown(options=[], description="right")
        umap = maps if isinstance(maps, UmapProcess) else "umap"
        self.how = w.Dropdown(options=[("PCA", "pca"), ("UMAP", umap)], value=maps, description="map")
        self.map = empty_place()
        self.mapped: list[str] = []  # the combinations that the map could choose from when it was drawn last
        self.map_lock = threading.Lock()
        self.filling = False  # while the names in `left` and `right` are renewed, one after the other
        for control in (self.left, self.right, self.how):
            control.observe(self._on_map_control, names="value")

        self.children = [
            w.HBox(list(self.parts.values())),
            _row(list(self.forms.values())),
            w.HBox([*self.buttons.values(), self.bar]),
            self.caption,
            self.image,
            self.table,
            w.HBox([self.left, self.right, self.how]),
            self.map,
        ]

    def _forms(self) -> dict[str, w.ValueWidget]:
        """A control for each of FedeCouple's choices, for four of its numbers and the step size, set as in `whole`."""
        forms: dict[str, w.ValueWidget] = {}
        for name, hyper in hypers(self.whole).items():
            choices = hyper.metadata["choices"]
            if choices:
                forms[name] = w.Dropdown(options=list(choices), value=getattr(self.whole, name), description=name)
        numbers = (("global_loss", "global", 0.0), ("mu", "mu", 0.0), ("lam", "lambda", 0.0), ("temperature", "T", 0.5))
        for name, text, low in numbers:
            forms[name] = _number_slider(text, getattr(self.whole, name), low)
        step_sizes = sorted({*STEP_SIZES, self.whole.lr})
        forms["lr"] = w.SelectionSlider(
            options=step_sizes, value=self.whole.lr, description="lr", continuous_update=False
        )
        return forms

    def _in_chosen_forms(self) -> FedAvg:
        """`whole` in the forms that the controls say, whatever the parts."""
        method = self.whole
        for name, form in self.forms.items():
            if form.value != getattr(self.whole, name):
                method = replace(method, **{name: form.value})
        return method

    def name_of(self, method: FedAvg) -> str:
        """A combination's name: the parts that are on in it, and each form in which it differs from `whole`."""
        values = asdict(method)
        on = [part for part in ablation.PARTS if ablation.is_on(part, values)]
        named_by_parts = [name for part, off in ablation.PARTS.items() if part not in on for name in off]
        changed = []
        for name in self.forms:
            if values[name] != getattr(self.whole, name) and name not in named_by_parts:
                changed.append(f"{name} {values[name]}")
        return ", ".join([ablation.parts_on(on), *changed])

    def chosen(self) -> tuple[str, FedAvg]:
        """The combination that the controls say, and its name."""
        method = self._in_chosen_forms()
        for part, box in self.parts.items():
            if not box.value:
                method = replace(method, **ablation.PARTS[part])
        return self.name_of(method), method

    def all_eight(self) -> dict[str, FedAvg]:
        """Every combination of the three parts in the chosen forms. ValueError where a form leaves a part off."""
        return {self.name_of(method): method for method in ablation.variants(self._in_chosen_forms()).values()}

    def run(self, everything: bool = False) -> None:
        """Train what is chosen (or all eight combinations of the parts) in the background."""
        if self.at_work():
            if self.going.is_set():
                return
            self.wait()  # it gives up at its next round
        if everything:
            added = self.all_eight()
        else:
            name, method = self.chosen()
            added = {name: method}
        self.eight = self._names_of_eight()
        self._allow_run(False)
        self.bar.value = 0
        self.bar.max = len(added) * len(self.seeds) * self.setting.rounds
        self.work(partial(self._train_and_show, added))

    def _allow_run(self, allowed: bool) -> None:
        """Grey the run buttons while something is computed, so that nobody presses them in vain."""
        for name in ("run", "run all eight"):
            self.buttons[name].disabled = not allowed

    def _names_of_eight(self) -> list[str]:
        """The names of all eight combinations in the chosen forms; none where a form leaves a part off."""
        try:
            return list(self.all_eight())
        except ValueError:
            return []

    def stop(self) -> None:
        """Give up the run in progress; finished seeds are kept."""
        if self.at_work():
            self.caption.value = "Stopping after this round ..."
        self.going.clear()

    def _train_and_show(self, added: Mapping[str, FedAvg]) -> None:
        try:
            for name, method in added.items():
                self._train(name, method)
            counted = f"{len(self.methods)} (seeds: {len(self.seeds)}, rounds: {self.setting.rounds})"
            text = f"Combinations so far: {counted}."
        except Stopped:
            text = "Stopped. Finished seeds are kept; press run to go on."
        finally:
            try:
                self._renew_map()
            finally:
                self.going.clear()
                self._allow_run(True)
        self.caption.value = text  # last: it tells the reader that run may be pressed again

    def _train(self, name: str, method: FedAvg) -> None:
        """All seeds of one combination; then curves and table show it."""
        runs = ablation.run_all(self.setting, {name: method}, self.seeds, self.folder, self._on_round)
        self.methods[name] = method
        self.results = [run for run in self.results if run["label"] != name] + runs
        fill_place(self.image, plots.multiples(self.results), self.dpi)
        self.table.value = self._tables()

    def _on_round(self, name: str, seed: int, state: State | None) -> None:
        """After every round, and for every run that was read back; raises Stopped where it is to be given up."""
        self.bar.value += self.progress.rounds_since((name, seed), state, self.setting.rounds)
        if state is None:
            self.caption.value = f"{name}, seed {seed}: from the cache"
        else:
            self.caption.value = f"{name}, seed {seed}, round {state.round}"
        if not self.going.is_set():
            raise Stopped

    def _tables(self) -> str:
        """What was run, and each part's effect once all eight combinations of the forms run last are there."""
        rows = ablation.tidy(self.results)
        html = as_table(rows.drop(columns=list(ablation.PARTS))).to_html(index=False)
        eight = rows[rows["method"].isin(self.eight)]
        if eight["method"].nunique() == 8:
            html += ablation.effects(eight).round(2).to_html(index=False)
        return html

    def _renew_map(self) -> None:
        """Offer all combinations run so far, and show the first beside the last."""
        names = list(self.methods)
        if names == self.mapped:
            return  # nothing that the last map does not know
        self.caption.value = "Drawing the map ..."
        self.filling = True  # one map at the end, not one for each of these
        self.left.options = names
        self.right.options = names
        self.left.value = names[0]
        self.right.value = names[-1]
        self.filling = False
        self._draw_map()
        self.mapped = names

    def _on_map_control(self, change: Any) -> None:
        if not self.filling:
            self.guard(self._draw_map)

    def _draw_map(self) -> None:
        with self.map_lock:
            names = [self.left.value, self.right.value]
            if None in names:
                return  # nothing has been run yet
            seed = self.seeds[0]
            net = self.setting.build_net()
            federation = self.setting.federation(seed)
            spaces = {}
            for name in names:
                state = ablation.state_of(self.setting, self.methods[name], seed, self.folder)
                spaces[name] = feature_space(net, state, federation)
            fill_place(self.map, plots.feature_map(spaces, self.how.value), self.dpi)
