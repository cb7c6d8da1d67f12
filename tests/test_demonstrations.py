"""What trains in order to show: the figures say what was computed, and what was computed is right."""

import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fedecouple_lite import METHODS, make, net_for, rounds, split
from fedecouple_lite.__main__ import app
from fedecouple_lite.course import demonstrations
from fedecouple_lite.engine import images_of
from fedecouple_lite.partition import Federation
from fedecouple_lite.security.defences import ClipNorm, CoordinateMedian, MultiKrum, SimilarityWeights, TrimmedMean
from fedecouple_lite.security.poisoning import GaussianUpdate, SignFlip, draw_attackers
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


FIVE = {"clients": 5, "per_client": 30, "length": 2, "seeds": 1}


def plain_run(digits, name, seed=0, **how):
    """The records of a run without any of `runs_under_attack`."""
    federation = split(digits, 5, seed=seed, alpha=0.5, per_client=30)
    *_, state = rounds(make(name, epochs=4), net_for((1, 8, 8), 10), federation, rounds=2, seed=seed, **how)
    return state.records


def figures_of(records):
    """What does not depend on the clock."""
    return [(record["accuracies"], record["personal"], record["loss"]) for record in records]


@pytest.mark.parametrize("attack", demonstrations.ATTACKS)
@pytest.mark.parametrize("share", [0, 0.05])  # 0.05 of five clients is none
def test_without_attackers_a_run_under_attack_is_a_plain_run(digits, attack, share):
    runs = demonstrations.runs_under_attack(digits, "fedrep", attack, share, **FIVE | {"seeds": 2})
    assert [(run["label"], run["seed"]) for run in runs] == [("fedrep", 0), ("fedrep", 1)]
    for run in runs:
        assert figures_of(run["records"]) == figures_of(plain_run(digits, "fedrep", run["seed"]))


def test_only_honest_clients_are_counted_and_attackers_are_those_that_are_drawn(digits):
    (run,) = demonstrations.runs_under_attack(digits, "fedavg", "sign flip", 0.4, **FIVE)
    attackers = draw_attackers(split(digits, 5, seed=0, alpha=0.5, per_client=30), 0.4, seed=0)
    by_hand = plain_run(digits, "fedavg", faults=[SignFlip(attackers)])
    assert len(attackers) == 2
    for record, expected in zip(run["records"], by_hand, strict=True):
        assert record["accuracies"] == expected["accuracies"]
        honest = [accuracy for k, accuracy in enumerate(record["accuracies"]) if k not in attackers]
        assert record["personal"] == pytest.approx(np.mean(honest))
        assert record["personal"] != expected["personal"]  # the mean over all of them


@pytest.mark.parametrize("attack", demonstrations.ATTACKS)
def test_attackers_hurt_those_who_predict_with_the_mean(digits, attack):
    sizes = {"clients": 10, "per_client": 60, "length": 5, "seeds": 1}
    (harmless,) = demonstrations.runs_under_attack(digits, "fedavg", attack, 0.0, **sizes)
    (harmed,) = demonstrations.runs_under_attack(digits, "fedavg", attack, 0.4, **sizes)
    assert harmed["records"][-1]["personal"] < harmless["records"][-1]["personal"] - 0.05


@pytest.mark.parametrize("defence", demonstrations.DEFENCES)
@pytest.mark.parametrize("attack", demonstrations.ATTACKS)
def test_every_defence_stands_against_every_attack(digits, attack, defence):
    (run,) = demonstrations.runs_under_attack(digits, "fedecouple", attack, 0.2, defence, **FIVE)
    accuracies = [record["personal"] for record in run["records"]]
    assert len(accuracies) == 2 and all(0 < accuracy <= 1 for accuracy in accuracies)
    if defence != "none":
        (open_to_all,) = demonstrations.runs_under_attack(digits, "fedecouple", attack, 0.2, **FIVE)
        assert figures_of(run["records"]) != figures_of(open_to_all["records"])  # it does something


def test_the_attacks_are_what_they_are_called(federation):
    same, (fault,) = demonstrations.ATTACKS["sign flip"](federation, [1, 3])
    assert same is federation and fault == SignFlip([1, 3])
    same, (fault,) = demonstrations.ATTACKS["noise"](federation, [2])
    assert same is federation and fault == GaussianUpdate([2], std=3.0)
    other, faults = demonstrations.ATTACKS["label flip"](federation, [2])
    turned = federation.train[2]
    assert faults == [] and torch.equal(other.data.y[turned], 9 - federation.data.y[turned])


@pytest.mark.parametrize(
    ("clients", "attackers"), [(10, 3), (20, 8), (5, 1), (3, 0), (1, 0)]
)  # n >= 2 attackers + 3, where n allows it
def test_the_defences_are_what_they_are_called_and_prepare_for_as_many_as_krum_can(clients, attackers):
    made = {name: demonstrations.defences_against(name, clients) for name in demonstrations.DEFENCES}
    assert made == {
        "none": [],
        "median": [CoordinateMedian()],
        "trimmed mean": [TrimmedMean(attackers / clients)],
        "multi-Krum": [MultiKrum(attackers, keep=clients - attackers)],
        "similarity weights": [SimilarityWeights()],
        "norm clipping": [ClipNorm(0.5)],
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "fedrap"}, "fedrap.*fedrep"),
        ({"attack": "sign flop"}, "attack='sign flop' is unknown.*sign flip"),
        ({"defence": "medien"}, "defence='medien' is unknown.*median"),
        ({"share": -0.1}, "share=-0.1 must be a number from 0"),
        ({"share": 1.0}, "share=1.0 must be a number from 0 to below 1"),
        ({"share": float("nan")}, "share=nan must be"),
        ({"share": "a tenth"}, "share='a tenth' must be"),
        ({"share": 0.95}, "share=0.95 must be such that one of clients=5 at least is honest"),
        ({"seeds": 0}, "seeds=0 must be"),
        ({"clients": 0}, "clients=0 must be a whole number >= 1"),
        ({"clients": 2.5}, "clients=2.5 must be"),
    ],
)
def test_an_attack_that_cannot_be_is_refused_before_anything_is_done(digits, monkeypatch, values, message):
    monkeypatch.setattr(demonstrations, "split", None)
    for function in (demonstrations.runs_under_attack, demonstrations.attacked):
        with pytest.raises(ValueError, match=message):
            function(digits, **{"name": "fedavg"} | FIVE | values)


def test_attacked_draws_its_runs_and_says_where_they_end(digits):
    sizes = FIVE | {"seeds": 2}
    runs = demonstrations.runs_under_attack(digits, "fedper", "label flip", 0.4, "median", **sizes)
    fig, words = demonstrations.attacked(digits, "fedper", "label flip", 0.4, "median", **sizes)
    (ax,) = fig.axes
    ends = [100 * run["records"][-1]["personal"] for run in runs]
    drawn = [line.get_ydata()[-1] for line in ax.lines if len(line.get_xdata()) == 2]
    assert all(any(end == pytest.approx(value) for value in drawn) for end in ends)
    means = [100 * np.mean([record["personal"] for record in run["records"]]) for run in runs]  # of both rounds
    assert words.startswith("fedper, 40% of the clients attack (label flip), defence: median. Honest clients: ")
    assert f"{np.mean(means):.1f} % at the end, spread over seeds {np.std(means, ddof=1):.1f} points." in words
