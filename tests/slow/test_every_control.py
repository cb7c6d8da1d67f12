"""Every control of every widget is moved: the picture and the words are then those of the plain call."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import last, same

from fedecouple_lite import make, rounds, split, unevenness
from fedecouple_lite.course import demonstrations, plots, widgets
from fedecouple_lite.course.widgets import png
from fedecouple_lite.studies import ablation
from fedecouple_lite.studies.convergence import random_problem
from fedecouple_lite.studies.experiment import Setting
from fedecouple_lite.studies.features import UmapProcess, drift, feature_space


def moves_with(picture, plain, moves):
    """Move each control to a value of `moves`, one after the other; `plain` gives the figure and the words."""
    assert {name for name, _ in moves} == set(picture.controls)
    for name, value in moves:
        before = bytes(picture.image.value)
        assert picture.controls[name].value != value, name
        picture.controls[name].value = value
        values = {each: control.value for each, control in picture.controls.items()}
        figure, words = plain(**values)
        assert bytes(picture.image.value) == png(figure), name
        assert picture.caption.value == words, name
        assert bytes(picture.image.value) != before, f"{name} does nothing"


def test_heterogeneity(digits):
    def plain(partition, clients, seed, **options):
        own = {"dirichlet": ["alpha"], "pathological": ["classes_per_client"], "mixture": ["share"]}
        own |= {"quantity": ["sigma"]}
        federation = split(digits, clients, partition, seed, **{name: options[name] for name in own.get(partition, [])})
        counts = federation.label_counts()
        skew = unevenness(counts)
        words = (
            f"A client holds {(counts > 0).sum(1).mean():.1f} of 10 classes on average. Label skew "
            f"{skew['label_skew']:.2f} (0: all alike), size skew {skew['size_skew']:.2f} (0: all equal)."
        )
        return plots.label_map(federation), words

    moves = [("alpha", 1.0), ("clients", 9), ("seed", 4)]
    moves += [("partition", "pathological"), ("classes_per_client", 4)]
    moves += [("partition", "mixture"), ("share", 0.6)]
    moves += [("partition", "quantity"), ("sigma", 0.4), ("partition", "iid")]
    moves_with(widgets.heterogeneity(digits), plain, moves)


def test_anchor_pull(net, federation):
    weights = net.init(1)

    def plain(client, mu, steps):
        words = "Same colour, same class. The larger mu, the nearer features stay to the star of their class."
        return demonstrations.anchor_pull(net, weights, federation, client, mu, steps), words

    moves_with(widgets.anchor_pull(net, weights, federation), plain, [("client", 2), ("mu", 4.0), ("steps", 5)])


def test_distillation():
    student, teacher = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([4, 0, 9])

    def plain(image, temperature, lam):
        figure = plots.distillation_bars(student[image], teacher[image], int(y[image]), temperature, lam)
        words = "The weight is the teacher's probability of the true class at T = 1: a wrong teacher is ignored."
        return figure, words

    picture = widgets.distillation(student, teacher, y)
    moves_with(picture, plain, [("image", 2), ("temperature", 4.0), ("lam", 0.5), ("image", 1)])


def test_descent():
    def plain(step, local_steps, skew, mu, lam, sigma):
        problem = random_problem(3, h=1.0, c=1.5, global_loss=0.0, skew=skew, mu=mu, lam=lam, sigma=sigma)
        return demonstrations.descent(problem, step, local_steps)

    moves = [("step", 0.5), ("local_steps", 2), ("skew", 2.0), ("mu", 0.25), ("lam", 1.5), ("sigma", 2.0)]
    moves_with(widgets.descent(seed=3), plain, moves)


def test_steadiness(digits):
    def plain(name, participation, dropout):
        return demonstrations.steadiness(digits, name, participation, dropout, **few)

    few = {"clients": 4, "per_client": 30, "length": 3, "seeds": 2}
    moves = [("name", "fedavg"), ("participation", 0.5), ("dropout", 0.6), ("name", "fedper")]
    moves_with(widgets.steadiness(digits, **few), plain, moves)


def test_attacked(digits):
    def plain(name, attack, share, defence):
        return demonstrations.attacked(digits, name, attack, round(share, 1), defence, **few)

    few = {"clients": 5, "per_client": 40, "length": 3, "seeds": 1}
    # FedAvg predicts with the server's model, so that whatever moves it is seen after a few rounds.
    moves = [("attack", "label flip"), ("share", 0.4), ("defence", "median"), ("name", "fedrep")]
    moves_with(widgets.attacked(digits, **few), plain, moves)


def test_results():
    rng = np.random.default_rng(0)
    rows = [
        {"dataset": d, "partition": p, "method": m, "seed": s, "personal": rng.random(), "global": rng.random()}
        for d in ("digits", "mnist")
        for p in ("iid", "skewed")
        for m in ("fedper", "local")
        for s in range(3)
    ]
    rows = pd.DataFrame(rows)
    # In each cell and figure another method is the best, and not by its lucky seed: the other has the highest accuracy
    # of all there, and a lower mean.
    for i, (dataset, partition) in enumerate(product(("digits", "mnist"), ("iid", "skewed"))):
        for j, figure in enumerate(("personal", "global")):
            best, other = ("fedper", "local") if (i + j) % 2 else ("local", "fedper")
            in_cell = (rows["dataset"] == dataset) & (rows["partition"] == partition)
            rows.loc[in_cell & (rows["method"] == best), figure] = 0.8 + rows[figure] / 10
            rows.loc[in_cell & (rows["method"] == other) & (rows["seed"] == 1), figure] = 0.99

    def plain(dataset, partition, metric):
        cell = rows.query("dataset == @dataset and partition == @partition")
        means = {method: cell.query("method == @method")[metric].mean() for method in ("fedper", "local")}
        words = {"personal": "personal accuracy, trained", "global": "global accuracy"}[metric]
        best = max(means, key=means.get)
        return plots.dots(cell, metric), f"{dataset}, {partition}: highest {words}, {best}."

    moves_with(widgets.results(rows), plain, [("dataset", "mnist"), ("partition", "skewed"), ("metric", "global")])


def test_travels():
    def plain(names):
        return demonstrations.travel_map(names), (
            "Orange travels to the server in every round, blue never leaves the client."
        )

    moves_with(widgets.travels(), plain, [("names", ("ditto", "fedpac")), ("names", ("local",))])


def test_slideshow():
    figures, pictures = {}, {}
    for number in (2, 4, 8):
        fig, (ax,) = plots.figure()
        ax.plot([0, number])
        pictures[number] = png(fig, dpi=90)
        figures[number], (ax,) = plots.figure()
        ax.plot([0, number])
    for name, given in (("round", []), ("mu", ["mu"])):
        show = widgets.slideshow(figures, *given)
        (slider,) = show.controls.values()
        assert slider.description == name
        for place, number in ((3, 8), (1, 2), (2, 4)):
            slider.value = number
            assert bytes(show.image.value) == pictures[number]
            assert show.caption.value == f"Picture {place} of 3: {name} {number}."


@pytest.mark.parametrize(
    ("control", "value"), [("method", "fedprox"), ("mu", 0.4), ("lam", 0.7), ("alpha", 1.0), ("rounds", 2)]
)
def test_the_training_panel(digits, control, value):
    panel = widgets.TrainingPanel(digits, clients=3, epochs=1)
    getattr(panel, control).value = value
    while panel.state is None or panel.state.round < min(panel.rounds.value, 2):
        panel.step()
    moved = {control: value} if control in ("mu", "lam") else {}
    method = make(value if control == "method" else "fedecouple", epochs=1, **moved)
    federation = split(digits, 3, alpha=1.0 if control == "alpha" else 0.3)
    states = list(rounds(method, panel.net, federation, rounds=2))
    there = states[-1]
    assert same(panel.state.server, there.server)
    assert panel.drift == [drift(state) for state in states]
    assert bytes(panel.image.value) == png(plots.progress(panel.state, panel.drift))
    record = there.records[-1]
    words = f"Personal accuracy {100 * record['personal']:.1f} % trained, {100 * record['personal_received']:.1f} %"
    assert words in panel.caption.value
    assert f"{100 * record['percentile10']:.1f} %; drift {drift(there):.2f}." in panel.caption.value
    assert (panel.bar.value, panel.bar.max) == (2, value if control == "rounds" else 10)
    if control == "rounds":
        panel.start()  # all rounds are done: this begins anew
        panel.thread.join()
        assert panel.state.round == 2


FORMS = {
    "weighting": "constant",
    "coupling": "phases",
    "aggregation": "similarity",
    "global_loss": 0.5,
    "mu": 0.2,
    "lam": 1.4,
    "temperature": 3.0,
    "lr": 0.05,
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_of_the_studio(tmp_path, name):
    studio = widgets.AblationPanel(folder=tmp_path)
    assert studio.forms.keys() == FORMS.keys()
    studio.forms[name].value = FORMS[name]
    label, method = studio.chosen()
    assert method == make("fedecouple", **{name: FORMS[name]})
    assert label == f"GLF + GFA + GPC, {name} {FORMS[name]}"


@pytest.mark.parametrize(("part", "off"), [("GLF", "global_loss"), ("GFA", "mu"), ("GPC", "lam")])
def test_a_part_of_the_studio(tmp_path, part, off):
    studio = widgets.AblationPanel(folder=tmp_path)
    studio.parts[part].value = False
    label, method = studio.chosen()
    assert method == make("fedecouple", **{off: 0.0})
    assert label == " + ".join(other for other in ("GLF", "GFA", "GPC") if other != part)


def test_the_studios_curves_table_and_maps_are_those_of_its_runs(tmp_path, monkeypatch):
    setting = Setting(rounds=1, clients=3, per_client=30)
    studio = widgets.AblationPanel(setting, seeds=1, folder=tmp_path, epochs=1)
    studio.run()
    studio.wait()
    studio.parts["GFA"].value = False
    studio.run()
    studio.wait()
    methods = {"GLF + GFA + GPC": make("fedecouple", epochs=1), "GLF + GPC": make("fedecouple", epochs=1, mu=0.0)}
    assert studio.methods == methods
    runs = ablation.run_all(setting, methods, [0], tmp_path, lambda *of: None)
    assert bytes(studio.image.value) == png(plots.multiples(runs))
    for run in runs:
        assert f"<td>{100 * run['records'][-1]['personal']:.1f}</td>" in studio.table.value

    net, federation = setting.build_net(), setting.federation(0)
    spaces = {}
    for name, method in methods.items():
        state = last(rounds(method, net, federation, rounds=1))
        spaces[name] = feature_space(net, state, federation)
    both, other_way = list(methods), list(reversed(methods))
    assert (studio.left.value, studio.right.value) == tuple(both)
    assert bytes(studio.map.value) == png(plots.feature_map({name: spaces[name] for name in both}, "pca"))
    studio.left.value, studio.right.value = other_way
    assert bytes(studio.map.value) == png(plots.feature_map({name: spaces[name] for name in other_way}, "pca"))
    asked = []
    blank, _ = plots.figure()
    monkeypatch.setattr(plots, "feature_map", lambda spaces, how: asked.append((list(spaces), how)) or blank)
    studio.how.value = "umap"
    assert asked == [(other_way, "umap")]


def test_the_studio_offers_the_umap_that_it_is_given(tmp_path):
    with UmapProcess() as process:
        studio = widgets.AblationPanel(folder=tmp_path, maps=process)
        assert studio.how.value is process and [value for _, value in studio.how.options] == ["pca", process]
    assert widgets.AblationPanel(folder=tmp_path).how.value == "pca"


def test_the_studio_keeps_a_step_size_that_it_does_not_offer(tmp_path):
    studio = widgets.AblationPanel(folder=tmp_path, lr=0.07)
    assert studio.forms["lr"].value == 0.07 and 0.07 in studio.forms["lr"].options
    assert studio.chosen() == ("GLF + GFA + GPC", make("fedecouple", lr=0.07))
