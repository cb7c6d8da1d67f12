"""What trains in order to show: the figures say what was computed, and what was computed is right."""

import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fedecouple_lite import METHODS
from fedecouple_lite.__main__ import app
from fedecouple_lite.course import demonstrations
from fedecouple_lite.engine import images_of
from fedecouple_lite.partition import Federation
from fedecouple_lite.studies.convergence import descend, random_problem
from fedecouple_lite.tensors import EXTRACTOR


def test_travel_map_shows_where_the_tensors_of_each_method_go():
    where = demonstrations.what_travels(["fedecouple", "fedper"])
    assert where["fedecouple"] == {"extractor": "travels", "classifier": "travels", "anchors": "stays"}
    texts = [t.get_text() for t in demonstrations.travel_map(["fedecouple", "fedper"]).axes[0].texts]
    assert texts == ["travels", "travels", "stays", "travels", "stays", ""]


def test_every_method_has_an_extractor_and_a_classifier_and_local_sends_nothing():
    where = demonstrations.what_travels(list(METHODS))
    assert all({"extractor", "classifier"} <= parts.keys() for parts in where.values())
    assert set(where["local"].values()) == {"stays"}


def test_anchors_hold_the_features_and_no_step_moves_none(net, federation):
    weights = net.init(0)
    free = demonstrations.pull_to_anchors(net, weights, federation, client=1, mu=0.0, steps=20)
    held = demonstrations.pull_to_anchors(net, weights, federation, client=1, mu=10.0, steps=20)
    assert held.omega_after < free.omega_after and held.omega_before == free.omega_before
    _, y = images_of(federation, federation.train[1])
    assert np.array_equal(held.labels, y) and np.array_equal(held.anchor_labels, np.unique(y))
    of_first_class = held.before[held.labels == held.anchor_labels[0]]
    assert np.allclose(held.anchors[0], of_first_class.mean(0), atol=1e-5)
    still = demonstrations.pull_to_anchors(net, weights, federation, client=1, steps=0)
    assert np.array_equal(still.before, still.after)


def test_the_pull_is_so_many_steps_on_the_clients_own_loss(net, federation):
    """Once more by torch.optim: SGD on ce with the received classifier and mu Omega; no half of the server's."""
    weights = net.init(3)
    pull = demonstrations.pull_to_anchors(net, weights, federation, client=2, mu=0.7, steps=3)
    x, y = images_of(federation, federation.train[2])
    start = net.features(weights, x)
    own_anchor = torch.stack([start[y == label].mean(0) for label in y])
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in weights.items() if name.startswith(EXTRACTOR)}
    descent = torch.optim.SGD(leaves.values(), lr=0.1, momentum=0.5, weight_decay=5e-4)
    for _ in range(3):
        z = net.features(leaves, x)
        omega = (z - own_anchor).square().mean(1)
        loss = torch.nn.functional.cross_entropy(net.classify(weights, z), y) + 0.7 * omega.mean()
        descent.zero_grad()
        loss.backward()
        descent.step()
    end = net.features(leaves, x)
    assert np.allclose(pull.before, start, atol=1e-5) and np.allclose(pull.after, end.detach(), atol=1e-4)
    assert pull.omega_before == pytest.approx((start - own_anchor).square().mean().item(), rel=1e-4)
    assert pull.omega_after == pytest.approx((end - own_anchor).square().mean().item(), rel=1e-3)
    shorter = demonstrations.pull_to_anchors(net, weights, federation, client=2, mu=0.7, steps=3, lr=0.01)
    assert 0 < np.abs(shorter.after - start.numpy()).max() < 0.3 * np.abs(pull.after - pull.before).max()
    two_steps = demonstrations.pull_to_anchors(net, weights, federation, client=2, mu=0.7, steps=2)
    assert not np.allclose(pull.after, two_steps.after, atol=1e-3)  # a step can be told from none


def test_descent_stays_under_its_bound_and_has_none_beyond_the_theorems_step():
    average, terms = demonstrations.measure_descent(random_problem(0), step=1.0, local_steps=3, rounds=40)
    assert list(terms) == ["start", "noise", "drift", "context"]
    assert (average <= sum(terms.values())).all()
    _, words = demonstrations.descent(random_problem(0), step=1.0, local_steps=3, rounds=40)
    assert f"is {average[-1]:.3g}" in words and "The bound is" in words
    fig, words = demonstrations.descent(random_problem(0), step=1.5, local_steps=3, rounds=40)
    left, right = fig.axes
    assert len(left.lines) == 1 and not right.lines and "there is no bound" in words


@pytest.mark.parametrize(("skew", "sign"), [(1.0, "negative"), (3.0, "positive")])
def test_a_descent_draws_every_term_and_the_context_whatever_its_sign(skew, sign):
    constants = {"h": 1.0, "r": 1.0, "c": 2.0, "tau": 0.5, "mu": 1.0, "lam": 1.0, "global_loss": 1.0, "sigma": 0.5}
    problem = random_problem(0, skew=skew, **constants)
    average, terms = demonstrations.measure_descent(problem, rounds=200)
    fig, words = demonstrations.descent(problem, rounds=200)
    left, right = fig.axes

    _, alone = right.lines
    assert alone.get_ydata() == pytest.approx(terms["context"])
    assert list(alone.get_xdata()) == list(range(1, 201)) and right.get_yscale() == "linear"
    assert (terms["context"][-1] < 0) == (sign == "negative") and terms["context"][0] < 0
    assert f"ends at {terms['context'][-1]:.3g}: {sign}" in words

    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    assert drawn.pop("measured, average of T rounds") == pytest.approx(average)
    assert drawn.pop("bound") == pytest.approx(sum(terms.values()))
    assert len(drawn) == len(terms) == 4
    for label, values in drawn.items():
        (name,) = [name for name in terms if f"of it: {name}" in label]
        shown = terms[name] > 0  # a logarithmic axis has no place for the others
        assert values[shown] == pytest.approx(terms[name][shown]) and np.isnan(values[~shown]).all()


def test_a_descent_without_anchors_and_teacher_says_that_its_context_is_zero():
    problem = random_problem(0, mu=0.0, lam=0.0, global_loss=0.0)
    _, terms = demonstrations.measure_descent(problem, rounds=5)
    _, words = demonstrations.descent(problem, rounds=5)
    assert not terms["context"].any() and "context term is zero" in words


@pytest.mark.parametrize("mu", [0.0, 2.0])
def test_anchor_pull_draws_all_three_times_in_one_window(net, federation, mu):
    weights = net.init(0)
    axes = demonstrations.anchor_pull(net, weights, federation, client=2, mu=mu, steps=3).axes
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in axes}) == 1
    free = demonstrations.pull_to_anchors(net, weights, federation, client=2, mu=0.0, steps=3)
    pulled = demonstrations.pull_to_anchors(net, weights, federation, client=2, mu=mu, steps=3)
    assert [ax.get_title() for ax in axes] == [
        f"received\nOmega {free.omega_before:.3f}",
        f"3 steps without a pull\nOmega {free.omega_after:.3f}",
        f"3 steps, mu = {mu:g}\nOmega {pulled.omega_after:.3f}",
    ]
    dots = []
    for ax in axes:
        clouds = [np.array(cloud.get_offsets()) for cloud in ax.collections if len(cloud.get_offsets()) > 1]
        dots.append(np.concatenate(clouds))
    # One plane: the last panel is the middle one where mu is 0, and nearer to the first where it is not.
    moved_freely = np.linalg.norm(dots[1] - dots[0])
    moved_pulled = np.linalg.norm(dots[2] - dots[0])
    assert moved_pulled == pytest.approx(moved_freely) if mu == 0 else moved_pulled < 0.95 * moved_freely


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"client": 4}, "client=4 must be a whole number from 0 to 3"),
        ({"client": -1}, "client=-1 must be"),
        ({"client": 1.0}, "client=1.0 must be"),
        ({"steps": -1}, "steps=-1 must be"),
        ({"lr": -0.1}, "lr=-0.1 of FedeCouple must be"),
        ({"mu": -0.5}, "mu=-0.5 of FedeCouple must be"),
    ],
)
def test_anchor_pull_names_what_cannot_be(net, federation, values, message):
    with pytest.raises(ValueError, match=message):
        demonstrations.anchor_pull(net, net.init(0), federation, **values)


def test_a_client_without_training_images_has_no_anchors_to_show(net, federation):
    empty = Federation(federation.data, (federation.train[0][:0], *federation.train[1:]), federation.test)
    with pytest.raises(ValueError, match="client=0 must be one that has training images"):
        demonstrations.pull_to_anchors(net, net.init(0), empty)


@pytest.mark.parametrize("values", [{"step": 0.0}, {"step": -1.0}, {"local_steps": 0}, {"rounds": 0}, {"rounds": 2.5}])
def test_descent_names_what_cannot_be(values):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=f"{name}={value} must be"):
        demonstrations.descent(random_problem(0), **values)


@pytest.mark.parametrize("words", [[], ["--embedding", "umap"]])
def test_demo_without_umap_says_so_before_it_trains_and_draws_a_pca(monkeypatch, tmp_path, words):
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not there
    result = CliRunner().invoke(app, ["demo", "--seeds", "1", "--rounds", "1", "--out", str(tmp_path), *words])
    assert result.exit_code == 0, result.output
    said, trained = result.output.index("umap-learn is not installed"), result.output.index("FedAvg + fine-tuning")
    assert said < trained and "PCA" in result.output[said:trained]
    assert (tmp_path / "features.png").stat().st_size > 10_000


def test_demo_with_a_umap_that_cannot_be_loaded_draws_a_pca(monkeypatch, tmp_path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "umap.py").write_text("raise ImportError('numba does not fit')")
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))  # the drawing process gets it, too
    result = CliRunner().invoke(app, ["demo", "--seeds", "1", "--rounds", "1", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "numba does not fit" in result.output and "features.png is a PCA" in result.output
    assert (tmp_path / "features.png").stat().st_size > 10_000


def test_the_terms_of_a_descent_are_averages_over_its_rounds():
    problem = random_problem(2, lam=0.7, global_loss=0.3)
    rounds, local_steps, step = 25, 3, 0.8
    average, terms = demonstrations.measure_descent(problem, step, local_steps, rounds)
    lr = step / 4 / problem.smoothness / local_steps
    run = descend(problem, lr, local_steps, rounds)
    for t in (1, 7, 25):
        assert average[t - 1] == pytest.approx(np.mean(run.measured[:t]))
        context = 2.5 * (np.mean(run.bias[:t]) + np.mean(run.change[:t]) / (lr * local_steps))
        assert terms["context"][t - 1] == pytest.approx(context)
        assert terms["start"][t - 1] == pytest.approx(2.5 * run.gap / (lr * local_steps * t))
