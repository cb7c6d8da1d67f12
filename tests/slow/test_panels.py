"""Panels that train whatever they can: every method, all eight combinations."""

import itertools

from fedecouple_lite import METHODS
from fedecouple_lite.course import widgets
from fedecouple_lite.course.widgets import TrainingPanel
from fedecouple_lite.studies.experiment import Setting


def test_every_method_trains_in_the_panel(few):
    for name in METHODS:
        panel = TrainingPanel(few, clients=2, epochs=1)
        panel.method.value = name
        panel.step()
        assert "Round 1" in panel.caption.value, panel.caption.value


def test_the_studio_shows_effects_once_all_eight_are_there(tmp_path):
    studio = widgets.AblationPanel(Setting(rounds=1, clients=4, per_client=30), seeds=2, folder=tmp_path, epochs=1)
    studio.run(everything=True)
    studio.thread.join()
    assert studio.caption.value.startswith("Combinations so far: 8") and "in the whole" in studio.table.value
    assert studio.left.value == "FedRep (all off)" and studio.right.value == "GLF + GFA + GPC"


def test_run_all_eight_takes_the_forms_that_are_chosen(tmp_path):
    studio = widgets.AblationPanel(Setting(rounds=1, clients=4, per_client=30), 1, tmp_path, epochs=1)
    studio.forms["coupling"].value = "joint"
    studio.forms["temperature"].value = 2.0
    studio.buttons["run all eight"].click()
    studio.wait()
    assert studio.caption.value.startswith("Combinations so far: 8") and "in the whole" in studio.table.value
    assert {(method.coupling, method.temperature) for method in studio.methods.values()} == {("joint", 2.0)}
    assert all(name.endswith(", coupling joint, temperature 2.0") for name in studio.methods)
    values = {(method.global_loss, method.mu, method.lam) for method in studio.methods.values()}
    assert values == set(itertools.product((0.0, 1.0), (0.0, 1.0), (0.0, 3.0)))
    studio.forms["coupling"].value = "alternate"
    studio.run()
    studio.wait()
    assert len(studio.methods) == 9 and "in the whole" not in studio.table.value  # one of the other eight
