"""What is looked at beyond accuracy: features with their anchors, their picture in the plane, drift."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import last

from fedecouple_lite import make, rounds, split
from fedecouple_lite.engine import State, images_of, start
from fedecouple_lite.metrics import client_spread, feature_scores
from fedecouple_lite.partition import Federation
from fedecouple_lite.studies.features import (
    drift,
    embed,
    extractors_of,
    feature_space,
    has_umap,
    space_scores,
    space_under,
    umap_or_pca,
)
from fedecouple_lite.tensors import EXTRACTOR, pick


@pytest.fixture
def trained(net, federation):
    """Two rounds of FedeCouple: every client's extractor is another one."""
    return last(rounds(make("fedecouple", epochs=1), net, federation, rounds=2))


@pytest.mark.parametrize("whose", ["own", "server"])
def test_the_feature_space_holds_every_test_image_and_every_anchor(net, federation, trained, whose):
    space = feature_space(net, trained, federation, whose)
    assert len(space["features"]) == len(space["labels"]) == sum(map(len, federation.test))
    assert np.array_equal(np.bincount(space["clients"]), [len(index) for index in federation.test])
    labels = federation.data.y[torch.cat(federation.test)]
    assert np.array_equal(space["labels"], labels)
    anchors, anchor_labels = [], []
    for k, index in enumerate(federation.test):
        extractor = pick(trained.clients[k] if whose == "own" else trained.server, EXTRACTOR)
        features = net.features(extractor, federation.data.images(index)).detach()
        assert np.allclose(space["features"][space["clients"] == k], features, atol=1e-5)
        y = federation.data.y[federation.train[k]]
        z = net.features(extractor, federation.data.images(federation.train[k])).detach()
        for c in np.unique(y):
            anchors.append(z[y == c].mean(0))
            anchor_labels.append(c)
    assert np.allclose(space["anchors"], torch.stack(anchors), atol=1e-5)
    assert space["anchor_labels"].tolist() == anchor_labels


def test_own_and_servers_features_differ_after_local_training_and_not_before(net, federation, trained):
    own, servers = (feature_space(net, trained, federation, whose)["features"] for whose in ("own", "server"))
    assert not np.allclose(own, servers, atol=1e-2)
    before = start(make("fedecouple"), net, federation, seed=3)
    own, servers = (feature_space(net, before, federation, whose)["features"] for whose in ("own", "server"))
    x, _ = images_of(federation, torch.cat(federation.test))
    assert np.allclose(own, servers, atol=1e-6) and np.allclose(own, net.features(net.init(3), x).detach(), atol=1e-5)


def test_any_extractors_may_be_looked_through_one_for_each_client(net, federation):
    weights = [net.init(seed) for seed in range(4)]
    space = space_under(weights, net, federation)
    for k, index in enumerate(federation.test):
        features = net.features(weights[k], federation.data.images(index)).detach()
        assert np.allclose(space["features"][space["clients"] == k], features, atol=1e-5)
    with pytest.raises(ValueError, match=r"len\(extractors\)=3 must be 4: one a client"):
        space_under(weights[:3], net, federation)


def test_own_is_the_personal_model_where_there_is_one(net, federation):
    state = last(rounds(make("ditto", epochs=2), net, federation, rounds=1))
    for k, extractor in enumerate(extractors_of(state, "own")):
        assert list(extractor) == list(pick(state.server, EXTRACTOR))
        for name, tensor in extractor.items():
            assert torch.equal(tensor, state.clients[k][f"personal.{name}"])
            assert not torch.equal(tensor, state.clients[k][name])


def test_a_client_that_never_took_part_has_what_it_would_receive_now(net, federation):
    state = last(rounds(make("fedrep", epochs=1), net, federation, rounds=1, participation=0.5))
    extractors = extractors_of(state, "own")
    for k, extractor in enumerate(extractors):
        there = state.clients[k] if k in state.joined else state.server
        assert all(torch.equal(tensor, there[name]) for name, tensor in extractor.items())
    assert 0 < len(state.joined) < len(extractors)


def test_without_an_extractor_the_server_has_no_feature_space(net, federation):
    state = last(rounds(make("local", epochs=1), net, federation, rounds=1, participation=0.5))
    with pytest.raises(ValueError, match="whose='server' must be 'own' here: this method's server holds no extractor"):
        feature_space(net, state, federation, "server")
    assert len(feature_space(net, state, federation)["features"]) == sum(map(len, federation.test))
    with pytest.raises(ValueError, match="whose='mine' must be 'own' or 'server'"):
        feature_space(net, state, federation, "mine")


def test_a_state_of_other_clients_is_refused(net, few, federation, trained):
    with pytest.raises(ValueError, match="state has 4 clients; federation has 5"):
        feature_space(net, trained, split(few, 5))


def test_the_feature_space_takes_at_most_so_many_images_evenly(net, federation, trained):
    whole, some = (feature_space(net, trained, federation, limit=limit) for limit in (1000, 30))
    assert 15 < len(some["features"]) <= 30 and len(some["anchors"]) == len(whole["anchors"])
    every = -(-len(whole["features"]) // 30)
    for name in ("clients", "labels", "features"):
        assert np.allclose(some[name], whole[name][::every], atol=1e-5)


def test_without_a_test_image_or_with_a_limit_below_one_the_feature_space_is_refused(net, few, trained):
    nothing = split(few, 4, test_share=0.0)
    with pytest.raises(ValueError, match="federation leaves nobody a test image: use fewer clients"):
        feature_space(net, trained, nothing)
    for limit in (0, -3, 2.5):
        with pytest.raises(ValueError, match=f"limit={limit} must be a whole number >= 1"):
            feature_space(net, trained, split(few, 4), limit=limit)


def test_a_client_without_training_images_has_no_anchors(net, federation, trained):
    nothing = federation.train[0][:0]
    some = Federation(federation.data, (nothing, *federation.train[1:]), federation.test)
    space = feature_space(net, trained, some)
    assert len(space["anchors"]) == (federation.label_counts()[1:] > 0).sum()
    assert len(space["features"]) == sum(map(len, federation.test))


def test_the_scores_of_a_space_are_those_of_its_images_and_anchors(net, federation, trained):
    space = feature_space(net, trained, federation)
    scores = space_scores(space)
    of_images = feature_scores(space["features"], space["labels"])
    assert scores == {**of_images, "spread": client_spread(space["anchors"], space["anchor_labels"])}


def test_embed_says_how_many_points_it_needs():
    for how, points in (("pca", np.zeros((1, 3))), ("pca", np.zeros((9, 1))), ("umap", np.zeros((4, 3)))):
        with pytest.raises(ValueError, match=r"points=\(\d, \d\) must be of shape"):
            embed(points, how)


def test_embed_refuses_another_name_and_pca_is_orthogonal():
    with pytest.raises(ValueError, match="how='tsne' must be 'umap', 'pca' or a UmapProcess"):
        embed(np.zeros((5, 3)), "tsne")
    points = embed(np.random.default_rng(0).normal(size=(50, 5)), "pca")
    assert points.shape == (50, 2) and abs(points[:, 0] @ points[:, 1]) < 1e-8


def test_embed_says_what_to_install_where_umap_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not there
    with pytest.raises(ValueError, match="pip install umap-learn; or use how='pca'"):
        embed(np.zeros((5, 3)), "umap")
    assert not has_umap()


@pytest.mark.parametrize(("points", "neighbours"), [(40, 15), (16, 15), (6, 5)])
def test_umap_is_asked_for_a_plane_with_its_own_neighbours_one_job_and_the_seed(monkeypatch, points, neighbours):
    asked = []

    class UMAP:
        def __init__(self, **options):
            asked.append(options)

        def fit_transform(self, given):
            return given[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP))
    given = np.random.default_rng(0).normal(size=(points, 4))
    assert np.array_equal(embed(given, "umap", seed=7), given[:, :2])
    assert asked == [{"n_components": 2, "n_neighbors": neighbours, "random_state": 7, "n_jobs": 1}]


def test_a_fast_notebook_or_one_without_umap_draws_a_pca(monkeypatch, capsys):
    assert umap_or_pca(fast=True) == "pca" and not capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "umap", None)
    assert umap_or_pca() == "pca"
    assert "umap-learn is not installed" in capsys.readouterr().out


def test_umap_is_seen_without_being_loaded(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    (tmp_path / "umap.py").write_text("raise ImportError('numba does not fit')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert has_umap() and "umap" not in sys.modules
    with pytest.raises(ValueError, match="numba does not fit"):
        embed(np.zeros((5, 3)), "umap")


def test_drift_by_hand():
    server = {"extractor.w": torch.tensor([3.0, 4.0])}
    one, two = {"extractor.w": torch.tensor([3.0, 0.0])}, {"extractor.w": torch.tensor([0.0, 3.0])}
    assert drift(State(1, server, (one, two))) == pytest.approx((4 + 10**0.5) / 2 / 5)
    assert drift(State(1, {}, (one, one))) == 0


def test_drift_counts_those_who_have_taken_part(net, federation):
    """A client that never trained holds the initial weights: that is no drift."""
    server = {"extractor.w": torch.tensor([3.0, 4.0])}
    one, never = {"extractor.w": torch.tensor([3.0, 0.0])}, {"extractor.w": torch.tensor([900.0, 4.0])}
    assert drift(State(1, server, (one, never), joined=frozenset({0}))) == pytest.approx(4 / 5)
    state = next(rounds(make("fedavg", epochs=1), net, federation, rounds=1, participation=0.5))
    server, total = state.server, 0.0
    for k in state.joined:
        parts = [(state.clients[k][n] - server[n]).square().sum() for n in server if n.startswith("extractor.")]
        total += float(sum(parts)) ** 0.5
    norm = float(sum(t.square().sum() for n, t in server.items() if n.startswith("extractor."))) ** 0.5
    assert len(state.joined) == 2 and drift(state) == pytest.approx(total / 2 / norm, rel=1e-5)
