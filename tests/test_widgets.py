"""Widgets driven from Python, as a reader's clicks would: values set, callbacks run, pictures and texts checked."""

import re
import threading
import time

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from helpers import last, same

from fedecouple_lite import METHODS, make, rounds, split
from fedecouple_lite.course import demonstrations, plots, widgets
from fedecouple_lite.course.widgets import Picture, TrainingPanel
from fedecouple_lite.studies.experiment import Setting


@pytest.fixture
def explorer(digits):
    return widgets.heterogeneity(digits)


def test_only_core_widgets_are_used_so_that_7_and_8_both_work():
    assert int(ipywidgets.__version__.split(".")[0]) in (7, 8)


def test_the_explorer_follows_every_control_and_shows_the_partitions_own_option(explorer):
    first = explorer.image.value
    assert bytes(first).startswith(b"\x89PNG") and "Label skew" in explorer.caption.value
    explorer.controls["alpha"].value = 0.05
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
        text = demonstrations.anchor_pull(net, net.init(0), federation, mu=mu, steps=30)._supxlabel.get_text()
        omegas.append(float(re.search(r"-> ([\d.]+)", text)[1]))
    assert omegas[1] < omegas[0]


def test_distillation_shows_the_sum_that_it_explains():
    student, teacher = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    (ax,) = plots.distillation_bars(student, teacher, 3, temperature=2.0, lam=5.0).axes
    assert ax.patches[3].get_height() == pytest.approx((teacher / 2).softmax(0)[3].item())
    picture = widgets.distillation(torch.stack([student] * 3), torch.stack([teacher] * 3), torch.tensor([1, 2, 3]))
    first = picture.image.value
    picture.controls["temperature"].value = 5.0
    assert picture.image.value != first and "Error" not in picture.caption.value


def wait_until(condition, seconds=30):
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
    began = time.monotonic()
    panel.start()
    assert time.monotonic() - began < 2  # start returns at once: the work is in a thread
    wait_until(lambda: panel.state is not None)
    panel.stop()
    assert not panel.thread.is_alive() and panel.state.round < 50


def test_every_method_trains_in_the_panel(digits):
    for name in METHODS:
        panel = TrainingPanel(digits, clients=2, epochs=1)
        panel.method.value = name
        panel.step()
        assert "Round 1" in panel.caption.value, panel.caption.value


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
    studio.run()
    studio.thread.join()
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
    studio.run()
    studio.thread.join()  # the same again: read back
    assert files == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} and len(files) == 4


def test_the_studio_draws_no_map_before_its_first_run(tmp_path):
    studio = widgets.AblationPanel(folder=tmp_path)
    assert studio.setting == Setting(rounds=6) and not studio.at_work()
    before = studio.caption.value
    studio.how.value = "umap"
    assert studio.caption.value == before and not studio.map.value


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


def test_the_studio_shows_effects_once_all_eight_are_there(tmp_path):
    studio = widgets.AblationPanel(Setting(rounds=1, clients=4, per_client=30), seeds=2, folder=tmp_path, epochs=1)
    studio.run(everything=True)
    studio.thread.join()
    assert studio.caption.value.startswith("Combinations so far: 8") and "in the whole" in studio.table.value
    assert studio.left.value == "FedRep (all off)" and studio.right.value == "GLF + GFA + GPC"


def test_the_studio_stops_and_says_what_went_wrong(tmp_path):
    studio = widgets.AblationPanel(Setting(rounds=50, clients=4, per_client=30), seeds=1, folder=tmp_path)
    studio.run()
    while studio.bar.value == 0:
        time.sleep(0.01)
    studio.stop()
    studio.thread.join()
    assert "Stopped" in studio.caption.value and studio.bar.value < 50 and not studio.methods
    wrong = widgets.AblationPanel(Setting(clients=5000), seeds=1, folder=tmp_path)
    wrong.run()
    wrong.thread.join()
    assert "ValueError" in wrong.caption.value and "clients" in wrong.caption.value


def test_results_by_data_set_partition_and_accuracy():
    row = {"dataset": "digits", "partition": "iid", "seed": 0, "personal": 0.9, "percentile10": 0.5}
    row["global"] = float("nan")
    rows = pd.DataFrame([row | {"method": "fedper"}, row | {"method": "local", "personal": 0.8, "percentile10": 0.6}])
    panel = widgets.results(rows)
    assert "highest personal accuracy, fedper" in panel.caption.value
    panel.controls["metric"].value = "percentile10"
    assert "digits, iid: highest 10th percentile of clients, local" in panel.caption.value
    panel.controls["metric"].value = "global"
    assert "this cell is empty" in panel.caption.value


def test_the_studio_takes_forms_from_its_arguments_and_goes_on_after_a_stop(tmp_path):
    studio = widgets.AblationPanel(
        Setting(rounds=30, clients=4, per_client=30), seeds=1, folder=tmp_path, coupling="joint", mu=20.0, epochs=1
    )
    label, method = studio.chosen()
    assert (label, method.coupling, method.mu) == ("GLF + GFA + GPC", "joint", 20.0)
    studio.forms["mu"].value = 0.0
    assert studio.chosen()[0] == "GLF + GFA + GPC, mu 0.0"
    studio.run()
    studio.stop()
    studio.run()  # waits for the first to give up
    studio.thread.join()
    assert studio.caption.value.startswith("Combinations so far: 1")
    wrong = widgets.AblationPanel(Setting(rounds=1, clients=4), seeds=1, folder=tmp_path, mu=0.0)
    wrong.buttons["run all eight"].click()
    assert "parts='GFA' is off in this method already" in wrong.caption.value.replace("&#x27;", "'")
