"""Widgets driven from Python, as a reader's clicks would: values set, callbacks run, pictures and texts checked."""

import re
import threading
import time

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from helpers import arrays, last, same

from fedecouple_lite import METHODS, from_arrays, make, rounds, split
from fedecouple_lite.course import demonstrations, plots, widgets
from fedecouple_lite.course.widgets import Picture, TrainingPanel
from fedecouple_lite.studies.experiment import Setting


@pytest.fixture
def explorer(digits):
    return widgets.heterogeneity(digits)


def test_only_core_widgets_are_used_so_that_7_and_8_both_work():
    assert int(ipywidgets.__version__.split(".")[0]) in (7, 8)


def test_a_picture_that_is_not_of_its_controls_is_greyed(explorer):
    def is_greyed():
        return "fedecouple-stale" in explorer.image._dom_classes

    assert not is_greyed()
    explorer.controls["partition"].value = "pathological"
    explorer.controls["classes_per_client"].value = 1
    shown = bytes(explorer.image.value)
    explorer.controls["clients"].value = 2  # one class each: most images would be nobody's
    assert is_greyed() and bytes(explorer.image.value) == shown
    assert "ValueError" in explorer.caption.value
    explorer.controls["clients"].value = 20
    assert not is_greyed() and "Label skew" in explorer.caption.value
    assert ".fedecouple-stale { opacity: 0.25 }" in explorer.children[0].value


def test_the_explorer_follows_every_control_and_shows_the_partitions_own_option(explorer):
    first = explorer.image.value
    assert bytes(first).startswith(b"\x89PNG") and "Label skew" in explorer.caption.value
    explorer.controls["alpha"].value = 0.1
    skewed = explorer.caption.value
    assert explorer.image.value != first
    explorer.controls["alpha"].value = 50.0
    assert (
        float(skewed.split("Label skew ")[1][:4])
        > 0.6
        > 0.2
        > float(explorer.caption.value.split("Label skew ")[1][:4])
    )
    explorer.controls["partition"].value = "pathological"
    assert explorer.controls["alpha"].layout.display == "none"
    assert explorer.controls["classes_per_client"].layout.display is None
    assert "holds 2.0 of 10 classes" in explorer.caption.value


def test_an_error_in_a_callback_reaches_the_reader_and_goes_again(explorer):
    explorer.controls["partition"].value = "pathological"
    before = explorer.image.value
    explorer.controls["clients"].value = 3
    assert "ValueError" in explorer.caption.value and "classes_per_client=2" in explorer.caption.value
    assert explorer.image.value == before
    explorer.controls["classes_per_client"].value = 5
    assert "ValueError" not in explorer.caption.value


def test_callbacks_in_several_threads_draw_one_at_a_time_and_end_with_the_newest_values():
    at_work, seen = [], []

    def draw(x):
        at_work.append(x)
        time.sleep(0.05)
        seen.append((x, len(at_work)))
        at_work.remove(x)
        raise ValueError(f"<x> is {x}")

    picture = Picture({"x": ipywidgets.IntText()}, draw)
    threads = [threading.Thread(target=setattr, args=(picture.controls["x"], "value", i)) for i in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(together == 1 for _, together in seen) and seen[-1][0] == picture.controls["x"].value
    assert "&lt;x&gt; is" in picture.caption.value


def test_sliders_act_on_release(explorer):
    sliders = [c for c in explorer.controls.values() if hasattr(c, "continuous_update")]
    assert sliders and not any(c.continuous_update for c in sliders)


def test_which_part_travels(net):
    picture = widgets.travels()
    first = picture.image.value
    picture.controls["names"].value = tuple(METHODS)
    assert picture.image.value != first
    picture.controls["names"].value = ()
    assert "Error" not in picture.caption.value


def test_anchor_pull_tightens_the_features_as_mu_grows(net, digits):
    federation = split(digits, 10, alpha=0.5)
    picture = widgets.anchor_pull(net, net.init(0), federation)
    first = picture.image.value
    picture.controls["mu"].value = 10.0
    assert picture.image.value != first and "Error" not in picture.caption.value
    omegas = []
    for mu in (0.0, 10.0):
        *_, pulled = demonstrations.anchor_pull(net, net.init(0), federation, mu=mu, steps=30).axes
        omegas.append(float(re.search(r"Omega ([\d.]+)", pulled.get_title())[1]))
    assert omegas[1] < omegas[0]


def test_distillation_shows_the_sum_that_it_explains():
    student, teacher = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    (ax,) = plots.distillation_bars(student, teacher, 3, temperature=2.0, lam=5.0).axes
    assert ax.patches[3].get_height() == pytest.approx((teacher / 2).softmax(0)[3].item())
    picture = widgets.distillation(torch.stack([student] * 3), torch.stack([teacher] * 3), torch.tensor([1, 2, 3]))
    first = picture.image.value
    picture.controls["temperature"].value = 5.0
    assert picture.image.value != first and "Error" not in picture.caption.value


def wait_until(condition, seconds=300):  # only where something hangs: a busy machine is slow
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)


def test_live_training_starts_pauses_steps_and_goes_on_in_python(digits):
    panel = widgets.TrainingPanel(digits, clients=5, epochs=1)
    panel.rounds.value = 6
    panel.buttons["step"].click()
    assert panel.state.round == 1 and panel.bar.value == 1 and "Round 1" in panel.caption.value
    first = panel.image.value
    panel.buttons["start"].click()
    wait_until(lambda: panel.state.round >= 2)
    panel.buttons["pause"].click()
    panel.thread.join()
    at = panel.state.round
    assert 2 <= at <= 6 and panel.image.value != first
    panel.buttons["start"].click()
    panel.thread.join()
    assert panel.state.round == 6 and len(panel.drift) == 6 and all(d > 0 for d in panel.drift)
    federation = split(digits, 5, alpha=panel.alpha.value)
    later = next(rounds(make("fedecouple", epochs=1), panel.net, federation, rounds=7, state=panel.state))
    assert later.round == 7


def test_start_after_a_changed_control_begins_anew_and_start_soon_after_pause_goes_on(digits):
    panel = TrainingPanel(digits, clients=5, epochs=1)
    panel.step()
    panel.step()
    panel.alpha.value = 1.0
    panel.step()
    assert panel.state.round == 1 and len(panel.drift) == 1
    panel.rounds.value = 50
    panel.start()
    wait_until(lambda: panel.state is not None and panel.bar.max == 50)
    panel.pause()
    panel.start()  # the round that pause waits for may still be under way
    assert panel.going.is_set() and panel.thread.is_alive()
    panel.method.value = "fedavg"
    panel.start()
    panel.stop()
    assert panel.values[0] == "fedavg" and (panel.state is None or panel.state.round < 50)


def test_the_panel_does_what_python_does(digits):
    panel = TrainingPanel(digits, clients=5, epochs=1)
    panel.method.value, panel.rounds.value, panel.mu.value, panel.lam.value = "fedecouple", 2, 0.5, 2.0
    panel.start()
    panel.thread.join()
    method = make("fedecouple", epochs=1, mu=0.5, lam=2.0)
    there = last(rounds(method, panel.net, split(digits, 5, alpha=panel.alpha.value), rounds=2))
    assert same(panel.state.server, there.server)


def test_the_kernel_stays_free_while_training_runs_and_stop_ends_it(digits):
    panel = TrainingPanel(digits, clients=10)
    panel.rounds.value = 50
    panel.start()
    assert panel.thread.is_alive() and panel.thread is not threading.current_thread()  # start has returned meanwhile
    wait_until(lambda: panel.state is not None)
    panel.stop()
    assert not panel.thread.is_alive() and panel.state.round < 50


def test_an_error_in_the_training_thread_reaches_the_reader(digits):
    panel = TrainingPanel(digits, clients=5, lr=1e30)
    panel.start()
    panel.thread.join()
    assert "FloatingPointError" in panel.caption.value and "client" in panel.caption.value


def test_a_picture_keeps_no_figure_open(explorer):
    plt.close("all")
    explorer.controls["seed"].value = 3
    assert not plt.get_fignums()


def test_slideshow_moves_through_prepared_figures():
    figures = {}
    for number in (1, 5):
        fig, (ax,) = plots.figure()
        ax.set_title(str(number))
        figures[number] = fig
    show = widgets.slideshow(figures)
    first = show.image.value
    show.controls["round"].value = 5
    assert show.image.value != first and isinstance(show, Picture)


def test_the_descent_widget_moves_measurement_and_bound_together():
    panel = widgets.descent()
    first, words = bytes(panel.image.value), panel.caption.value
    assert "The bound is" in words
    panel.controls["lam"].value = 1.0
    assert panel.image.value != first and panel.caption.value != words
    panel.controls["step"].value = 4.0
    assert "there is no bound" in panel.caption.value


def test_the_studio_runs_a_combination_once_and_compares_two(tmp_path):
    setting = Setting(rounds=2, clients=4, per_client=30)
    studio = widgets.AblationPanel(setting, seeds=2, folder=tmp_path, epochs=1)
    assert [place.layout.display for place in (studio.image, studio.map)] == ["none", "none"]  # no broken pictures
    said = []
    studio.caption.observe(lambda change: said.append(change["new"]), names="value")
    studio.run()
    studio.thread.join()
    assert [place.layout.display for place in (studio.image, studio.map)] == [None, None]
    assert said[-2] == "Drawing the map ..."  # it takes a while
    assert (
        studio.caption.value == "Combinations so far: 1 (seeds: 2, rounds: 2)."
        and studio.bar.value == studio.bar.max == 4
    )
    curves = bytes(studio.image.value)
    studio.parts["GLF"].value, studio.forms["coupling"].value = False, "joint"
    studio.run()
    studio.thread.join()
    assert list(studio.methods) == ["GLF + GFA + GPC", "GFA + GPC, coupling joint"] and studio.image.value != curves
    assert studio.methods["GFA + GPC, coupling joint"].global_loss == 0 and "GFA + GPC" in studio.table.value
    before = bytes(studio.map.value)
    studio.right.value = studio.left.value
    assert studio.map.value != before
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    said.clear()
    studio.run()
    studio.thread.join()  # the same again: read back
    assert "Drawing the map ..." not in said  # the map is there
    assert files == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} and len(files) == 4


def test_the_studio_draws_no_map_before_its_first_run(tmp_path):
    studio = widgets.AblationPanel(folder=tmp_path)
    assert studio.setting == Setting(rounds=6) and not studio.at_work()
    before = studio.caption.value
    studio.how.value = "umap"
    assert studio.caption.value == before and not studio.map.value


def test_a_map_that_failed_is_drawn_at_the_next_run(tmp_path, monkeypatch):
    studio = widgets.AblationPanel(Setting(rounds=1, clients=4, per_client=30), seeds=1, folder=tmp_path, epochs=1)
    draw = plots.feature_map

    def fails(*arguments):
        raise ValueError("no map today")

    monkeypatch.setattr(plots, "feature_map", fails)
    studio.run()
    studio.thread.join()
    assert "no map today" in studio.caption.value and not studio.map.value
    assert not studio.buttons["run"].disabled
    monkeypatch.setattr(plots, "feature_map", draw)
    studio.run()
    studio.thread.join()
    assert studio.map.value and studio.caption.value.startswith("Combinations so far: 1")


def test_the_studio_runs_one_thing_at_a_time(tmp_path, monkeypatch):
    studio = widgets.AblationPanel(Setting(rounds=50, clients=4, per_client=30), seeds=1, folder=tmp_path, epochs=1)
    work, begun = studio.work, []

    def counting(action):
        begun.append(action)
        work(action)

    monkeypatch.setattr(studio, "work", counting)
    presses = [threading.Thread(target=studio.buttons["run"].click) for _ in range(3)]
    for press in presses:
        press.start()
    for press in presses:
        press.join()
    assert len(begun) == 1
    studio.buttons["stop"].click()
    studio.thread.join()
    assert not studio.going.is_set() and "Stopped" in studio.caption.value


def test_the_studio_stops_and_says_what_went_wrong(tmp_path):
    studio = widgets.AblationPanel(Setting(rounds=50, clients=4, per_client=30), seeds=1, folder=tmp_path)
    said = []
    studio.caption.observe(lambda change: said.append(change["new"]), names="value")
    studio.run()
    wait_until(lambda: studio.bar.value > 0)
    assert studio.buttons["run"].disabled and studio.buttons["run all eight"].disabled  # pressed in vain
    assert not studio.buttons["stop"].disabled
    studio.stop()
    studio.thread.join()
    assert studio.caption.value == "Stopped. Finished seeds are kept; press run to go on."
    assert "Stopping after this round ..." in said
    assert studio.bar.value < 50 and not studio.methods
    assert not studio.buttons["run"].disabled and not studio.buttons["run all eight"].disabled
    wrong = widgets.AblationPanel(Setting(clients=5000), seeds=1, folder=tmp_path)
    wrong.run()
    wrong.thread.join()
    assert "ValueError" in wrong.caption.value and "clients" in wrong.caption.value
    assert not wrong.buttons["run"].disabled  # after an error, too


def test_results_by_data_set_partition_and_accuracy():
    row = {"dataset": "digits", "partition": "iid", "seed": 0, "personal": 0.9, "percentile10": 0.5}
    row["global"] = float("nan")
    rows = pd.DataFrame([row | {"method": "fedper"}, row | {"method": "local", "personal": 0.8, "percentile10": 0.6}])
    panel = widgets.results(rows)
    assert "highest personal accuracy, trained, fedper" in panel.caption.value
    panel.controls["metric"].value = "percentile10"
    assert "digits, iid: highest 10th percentile of clients, trained, local" in panel.caption.value
    panel.controls["metric"].value = "global"
    assert "this cell is empty" in panel.caption.value
    offered = [metric for _, metric in panel.controls["metric"].options]
    assert offered == ["personal", "percentile10", "global"]  # what the rows have
    panel = widgets.results(rows.assign(personal_received=[0.1, 0.2]))
    panel.controls["metric"].value = "personal_received"
    assert "highest personal accuracy, received, local" in panel.caption.value


def test_the_studio_takes_forms_from_its_arguments_and_goes_on_after_a_stop(tmp_path):
    studio = widgets.AblationPanel(
        Setting(rounds=30, clients=4, per_client=30), seeds=1, folder=tmp_path, coupling="joint", mu=20.0, epochs=1
    )
    label, method = studio.chosen()
    assert (label, method.coupling, method.mu) == ("GLF + GFA + GPC", "joint", 20.0)
    studio.forms["mu"].value = 5.0
    assert studio.chosen()[0] == "GLF + GFA + GPC, mu 5.0"
    studio.forms["mu"].value = 0.0
    assert studio.chosen()[0] == "GLF + GPC"  # no anchors at mu 0
    studio.run()
    studio.stop()
    studio.run()  # waits for the first to give up
    studio.thread.join()
    assert studio.caption.value.startswith("Combinations so far: 1")
    wrong = widgets.AblationPanel(Setting(rounds=1, clients=4), seeds=1, folder=tmp_path, mu=0.0)
    wrong.buttons["run all eight"].click()
    assert "parts='GFA' is off in this method already" in wrong.caption.value.replace("&#x27;", "'")


# --- What a given value means ---

OWN_VALUES = {  # from the methods' files: the panel's sliders must start there
    "fedavg": {},
    "fedprox": {"mu": 0.01},
    "ditto": {"lam": 1.0},
    "fedpac": {"lam": 1.0},
    "fedecouple": {"mu": 1.0, "lam": 3.0},
}


@pytest.mark.parametrize("name", OWN_VALUES)
def test_sliders_start_at_the_chosen_methods_own_values_and_the_caption_says_what_ran(digits, name):
    panel = TrainingPanel(digits, clients=3, epochs=1)
    panel.mu.value, panel.lam.value = 7.0, 7.0  # moved, then another method is chosen
    panel.method.value = "local"
    panel.method.value = name
    own = OWN_VALUES[name]
    for knob in ("mu", "lam"):
        assert panel.knobs[knob].disabled == (knob not in own)
        assert knob not in own or panel.knobs[knob].value == own[knob]
    panel.step()
    words = [f"{knob} {own[knob]:g}" if knob in own else f"{knob} -" for knob in ("mu", "lam")]
    assert f"Round 1: {name} ({words[0]}, {words[1]}), alpha 0.3." in panel.caption.value
    there = next(rounds(make(name, epochs=1, **own), panel.net, split(digits, 3, alpha=0.3), rounds=10))
    assert same(panel.state.server, there.server)
    percent = 100 * there.records[-1]["personal_received"]
    assert f"{percent:.1f} % received" in panel.caption.value


def test_a_given_value_wins_over_the_methods_own_and_widens_the_slider(digits):
    panel = TrainingPanel(digits, clients=3, epochs=1, mu=3.0, lam=25.0)
    assert (panel.mu.value, panel.lam.value, panel.lam.max) == (3.0, 25.0, 25.0)
    panel.method.value = "fedprox"
    assert panel.mu.value == 3.0
    panel.step()
    assert "fedprox (mu 3, lam -)" in panel.caption.value
    there = next(rounds(make("fedprox", epochs=1, mu=3.0), panel.net, split(digits, 3, alpha=0.3), rounds=10))
    assert same(panel.state.server, there.server)
    panel.mu.value = 0.5  # and what the reader then sets wins over both
    panel.step()
    assert panel.state.round == 1 and "fedprox (mu 0.5, lam -)" in panel.caption.value


@pytest.mark.parametrize("value", [0.01, 0.001, 2.5e-7, 12.34, 0, 400])
def test_a_slider_can_show_and_return_to_a_given_value(digits, value):
    panel = TrainingPanel(digits, mu=value)
    slider = panel.mu
    assert slider.value == value and slider.min <= value <= slider.max
    steps = value / slider.step
    assert abs(steps - round(steps)) < 1e-6 * max(1, steps)
    decimals = int(slider.readout_format[1:-1])  # ".2f"
    assert float(f"{value:.{decimals}f}") == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"warmth": 3}, "warmth=3 means nothing to any method"),
        ({"moo": 3}, "did you mean 'mu'"),
        ({"alpha": 1.0}, "alpha=1.0 means nothing to any method"),
        ({"mu": -1.0}, "mu=-1.0 of FedeCouple must be"),
        ({"lr": float("nan")}, "lr=nan of FedeCouple must be"),
    ],
)
def test_a_given_value_that_no_method_can_take_is_refused_at_once(digits, given, message):
    with pytest.raises(ValueError, match=message):
        TrainingPanel(digits, **given)


def test_a_given_value_goes_to_the_methods_that_know_it(few):
    panel = TrainingPanel(few, clients=3, epochs=1, fine_tune_epochs=0, mu=2.0)
    for name in METHODS:
        panel.method.value = name
        panel.step()
        assert f"Round 1: {name} (" in panel.caption.value
        assert panel.state.records[-1]["predict_steps"] == 0  # nobody fine-tunes


def test_a_given_value_that_another_method_cannot_take_is_said_when_that_is_chosen(digits):
    panel = TrainingPanel(digits, clients=3, epochs=1, fine_tune_epochs=-1)
    panel.step()
    assert "Round 1: fedecouple" in panel.caption.value
    panel.method.value = "fedavg_ft"
    assert "fine_tune_epochs=-1 of FedAvgFT must be" in panel.caption.value
    panel.method.value = "fedrep"
    panel.step()
    assert "Round 1: fedrep" in panel.caption.value


def test_start_right_after_another_choice_uses_that_methods_values(digits):
    """The choice and the start may be handled in two threads, in either order."""
    panel = TrainingPanel(digits, clients=3, epochs=1)
    panel.method.unobserve_all("value")  # as if that callback came last
    panel.method.value = "fedprox"
    panel.step()
    assert "fedprox (mu 0.01, lam -)" in panel.caption.value and panel.mu.value == 0.01


def test_a_picture_of_another_method_than_the_chosen_one_says_so(digits):
    """Paused or running: the curve on the screen keeps its own name until a new run begins."""
    panel = widgets.TrainingPanel(digits, clients=4, epochs=1)
    panel.method.value = "fedper"  # nothing has been run: there is nothing to be told apart
    panel.method.value = "fedecouple"
    assert panel.caption.value == "Choose, then press start; step does one round."
    panel.step()
    shown = panel.caption.value
    assert shown.startswith("Round 1: fedecouple (mu 1, lam 3)") and "controls" not in shown
    panel.method.value = "fedrep"
    warning = "<b>This is not what the controls say now: press start for a run of that.</b>"
    assert panel.caption.value == f"{shown} {warning}"
    panel.method.value = "fedecouple"
    assert panel.caption.value == shown
    panel.alpha.value = 10.0
    assert panel.caption.value.startswith(f"{shown} <b>This is not what the controls say now")
    panel.step()
    assert panel.caption.value.startswith("Round 1: fedecouple (mu 1, lam 3), alpha 10.")
    assert "controls" not in panel.caption.value


def test_without_a_test_image_the_panels_say_so_and_train_nothing(tmp_path):
    x, y = arrays(n=20, classes=20)  # one image of each class: all are for training
    panel = TrainingPanel(from_arrays("few", x, y, x[:0], y[:0]), clients=3, epochs=1)
    for button in ("step", "start"):
        panel.buttons[button].click()
        panel.wait()
        assert "ValueError" in panel.caption.value and "clients=3 leaves nobody a test image" in panel.caption.value
        assert panel.state is None
    studio = widgets.AblationPanel(Setting(clients=4, rounds=1, test_share=0.0), seeds=1, folder=tmp_path, epochs=1)
    studio.run()
    studio.wait()
    assert "ValueError" in studio.caption.value and "test_share=0.0" in studio.caption.value
    assert studio.bar.value == 0 and not studio.methods and not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"mu": 0.0}, "GLF + GPC"),
        ({"lam": 0.0}, "GLF + GFA"),
        ({"global_loss": 0.0}, "GFA + GPC"),
        ({"mu": 0.0, "lam": 0.0, "global_loss": 0.0}, "FedRep (all off)"),
        ({"mu": 0.5, "coupling": "phases"}, "GLF + GFA + GPC"),
    ],
)
def test_the_studios_names_say_which_parts_are_on_in_what_ran(tmp_path, given, name):
    studio = widgets.AblationPanel(Setting(rounds=1, clients=4, per_client=30), 1, tmp_path, epochs=1, **given)
    on = [part for part, box in studio.parts.items() if box.value]
    assert studio.chosen()[0] == name and (" + ".join(on) or "FedRep (all off)") == name
    for part in studio.parts.values():
        part.value = True  # ticked, but its weight is given as 0: still off
    label, method = studio.chosen()
    assert label == name and all(getattr(method, key) == value for key, value in given.items())
    studio.run()
    studio.wait()
    assert list(studio.methods) == [name]
    assert f"<td>{name}</td>" in studio.table.value


def test_a_part_that_was_given_as_off_can_be_turned_on_with_its_weight(tmp_path):
    studio = widgets.AblationPanel(folder=tmp_path, mu=0.0)
    studio.forms["mu"].value = 2.0
    assert studio.chosen()[0] == "GLF + GPC" and studio.chosen()[1].mu == 0  # the box is not ticked
    studio.parts["GFA"].value = True
    label, method = studio.chosen()
    assert label == "GLF + GFA + GPC, mu 2.0" and method.mu == 2.0
    studio.forms["global_loss"].value = 0.0
    assert studio.chosen()[0] == "GFA + GPC, mu 2.0"


@pytest.mark.parametrize("seeds", [0, -1, 1.5, "2", True, None])
def test_the_studio_needs_a_seed(seeds, tmp_path):
    with pytest.raises(ValueError, match=r"seeds=.* must be a whole number >= 1"):
        widgets.AblationPanel(seeds=seeds, folder=tmp_path)


def test_the_studio_takes_a_folder_as_text(tmp_path):
    studio = widgets.AblationPanel(Setting(rounds=1, clients=4, per_client=30), 1, str(tmp_path / "runs"), epochs=1)
    studio.run()
    studio.wait()
    assert studio.caption.value.startswith("Combinations so far: 1") and list((tmp_path / "runs").glob("*.json"))


def test_pictures_start_at_the_librarys_own_values(digits, net, federation, explorer):
    """The defaults of `split` and FedeCouple, by hand."""
    values = {name: explorer.controls[name].value for name in ("alpha", "classes_per_client", "share", "sigma")}
    assert values == pytest.approx({"alpha": 0.3, "classes_per_client": 2, "share": 0.2, "sigma": 1.0})
    assert widgets.anchor_pull(net, net.init(0), federation).controls["mu"].value == 1.0
    logits = torch.zeros(3, 10)
    controls = widgets.distillation(logits, logits, torch.tensor([0, 1, 2])).controls
    assert (controls["lam"].value, controls["temperature"].value) == (3.0, 1.0)
    assert TrainingPanel(digits).alpha.value == pytest.approx(0.3)


def test_pictures_of_nothing_are_refused():
    none = torch.zeros(0, 10)
    with pytest.raises(ValueError, match=r"len\(y\)=0 must be at least 1"):
        widgets.distillation(none, none, torch.zeros(0, dtype=torch.int64))
    three = torch.zeros(3, 10)
    with pytest.raises(ValueError, match=r"len\(teacher_logits\)=0 must be len\(y\), 3"):
        widgets.distillation(three, none, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="at least one figure"):
        widgets.slideshow({})
    with pytest.raises(ValueError, match="there is nothing to show"):
        widgets.results(pd.DataFrame({"dataset": [], "partition": [], "personal": []}))
