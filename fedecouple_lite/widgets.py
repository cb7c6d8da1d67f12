"""Controls over the same figures: every widget here draws a function of `plots` that can be called without it.

Only core widgets are used, as in ipywidgets 7.7.1 and 8. Pictures are PNG in an Image, which a background thread may
change; sliders act on release; an error inside a callback is shown where the reader looks.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import ipywidgets as w
import matplotlib.pyplot as plt

from . import plots
from .data import Dataset
from .engine import State, rounds
from .methods import METHODS, make
from .models import DecoupledNet, net_for
from .partition import OPTIONS, SCHEMES, Federation, split, unevenness
from .tensors import Tensors

DRAWING = threading.Lock()  # pyplot keeps one list of figures for all threads


def png(figure: Any, dpi: int = 80) -> bytes:
    """The figure as PNG; it is closed."""
    with io.BytesIO() as buffer, DRAWING:
        figure.savefig(buffer, format="png", dpi=dpi)
        plt.close(figure)
        return buffer.getvalue()


class Picture(w.VBox):
    """Controls above a picture and a line of text. draw(**values) -> (figure, caption) follows every change at once."""

    def __init__(
        self, controls: Mapping[str, w.ValueWidget], draw: Callable[..., tuple[Any, str]], width: str = "640px"
    ):
        self.controls, self.draw = controls, draw
        self.image, self.caption = w.Image(format="png", layout=w.Layout(width=width)), w.HTML()
        for control in controls.values():
            control.observe(self.update, names="value")
        super().__init__(
            [w.HBox(list(controls.values()), layout=w.Layout(flex_flow="row wrap")), self.image, self.caption]
        )
        self.update()

    def update(self, change: Any = None) -> None:
        """Draw again; where that fails, the caption says why and the last picture stays."""
        try:
            figure, caption = self.draw(**{name: control.value for name, control in self.controls.items()})
            self.image.value, self.caption.value = png(figure), caption
        except Exception as error:  # anything: it has to reach the reader, and a callback's traceback would not
            self.caption.value = f"<b>{type(error).__name__}:</b> {error}"


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

    return Picture(controls, draw)


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
        self.going = threading.Event()
        self.states: Iterator[State] = iter(())
        self.method = w.Dropdown(options=list(METHODS), value="fedecouple", description="method")
        self.mu = _slider("mu", 1.0, 0.0, 10.0, 0.1)
        self.lam = _slider("lambda", 3.0, 0.0, 10.0, 0.5)
        self.alpha = _slider("alpha", 0.3, -1, 2, 0.1, log=True)
        self.rounds = _slider("rounds", 10, 1, 50, 1)
        self.controls = [self.method, self.mu, self.lam, self.alpha, self.rounds]
        names = ("start", "pause", "step", "stop")
        self.buttons = {name: w.Button(description=name, layout=w.Layout(width="80px")) for name in names}
        for name, button in self.buttons.items():
            button.on_click(partial(self._press, name))
        self.bar = w.IntProgress(min=0, max=10, description="round")
        self.image = w.Image(format="png", layout=w.Layout(width="860px", min_height="300px"))
        self.caption = w.HTML("Choose, then press start; step does one round.")
        rows = [
            w.HBox(self.controls, layout=w.Layout(flex_flow="row wrap")),
            w.HBox([*self.buttons.values(), self.bar]),
        ]
        super().__init__([*rows, self.image, self.caption])

    def _press(self, name: str, button: Any) -> None:
        getattr(self, name)()

    def start(self) -> None:
        """Go on with a paused run, or begin a new one with the controls' values."""
        if self.thread is not None and self.thread.is_alive():
            return
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
            self.caption.value = f"<b>{type(error).__name__}:</b> {error}"

    def _prepare(self) -> None:
        if self.federation is not None and self.state is not None and self.state.round < self.rounds.value:
            return
        method = make(self.method.value, **self.common)
        given = {name: getattr(self, name).value for name in ("mu", "lam") if hasattr(method, name)}
        self.federation = split(self.data, self.clients, alpha=self.alpha.value)
        self.states = rounds(replace(method, **given), self.net, self.federation, rounds=self.rounds.value)
        self.state, self.drift, self.bar.max = None, [], self.rounds.value

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
    picture = Picture({}, lambda: (plots.figure()[0], ""))
    picture.image.value, picture.children = pictures[slider.value], [slider, picture.image, picture.caption]
    picture.controls = {"round": slider}

    def show(change: Any) -> None:
        picture.image.value = pictures[change["new"]]

    slider.observe(show, names="value")
    return picture
