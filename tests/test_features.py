"""What is looked at beyond accuracy: features with their anchors, their picture in the plane, drift."""

import sys

import numpy as np
import pytest
import torch

from fedecouple_lite import make, rounds, split
from fedecouple_lite.engine import State
from fedecouple_lite.losses import class_means
from fedecouple_lite.partition import Federation
from fedecouple_lite.studies.features import drift, embed, feature_space, has_umap
from fedecouple_lite.tensors import EXTRACTOR, pick


def test_the_feature_space_holds_every_test_image_and_every_anchor(net, federation):
    extractor = pick(net.init(0), EXTRACTOR)
    space = feature_space(net, extractor, federation)
    assert len(space["features"]) == len(space["labels"]) == sum(map(len, federation.test))
    assert np.array_equal(np.bincount(space["clients"]), [len(index) for index in federation.test])
    images = federation.data.images(torch.cat(federation.test))
    assert np.allclose(space["features"], net.features(extractor, images).detach(), atol=1e-6)
    # The last client's anchors are the last rows: the means of its own classes.
    index = federation.train[-1]
    own = net.features(extractor, federation.data.images(index)).detach()
    means, counts = class_means(own, federation.data.y[index], net.classes)
    number = int((counts > 0).sum())
    assert len(space["anchors"]) == (federation.label_counts() > 0).sum()
    assert np.allclose(space["anchors"][-number:], means[counts > 0], atol=1e-6)
    assert space["anchor_labels"][-number:].tolist() == torch.nonzero(counts)[:, 0].tolist()


def test_the_feature_space_takes_at_most_so_many_images_evenly(net, federation):
    whole, some = (feature_space(net, net.init(0), federation, limit) for limit in (1000, 30))
    assert 15 < len(some["features"]) <= 30 and len(some["anchors"]) == len(whole["anchors"])
    every = -(-len(whole["features"]) // 30)
    assert np.array_equal(some["clients"], whole["clients"][::every])
    assert np.array_equal(some["labels"], whole["labels"][::every])


def test_without_a_test_image_or_with_a_limit_below_one_the_feature_space_is_refused(net, few, federation):
    for none in (split(few, 4, test_share=0.0), split(few, 160, "iid")):  # one image each
        with pytest.raises(ValueError, match="federation leaves nobody a test image: use fewer clients"):
            feature_space(net, net.init(0), none)
    for limit in (0, -3, 2.5):
        with pytest.raises(ValueError, match=f"limit={limit} must be a whole number >= 1"):
            feature_space(net, net.init(0), federation, limit)


def test_a_client_without_training_images_has_no_anchors(net, federation):
    nothing = federation.train[0][:0]
    some = Federation(federation.data, (nothing, *federation.train[1:]), federation.test)
    space = feature_space(net, net.init(0), some)
    assert len(space["anchors"]) == (federation.label_counts()[1:] > 0).sum()
    assert len(space["features"]) == sum(map(len, federation.test))


def test_embed_says_how_many_points_it_needs():
    for how, points in (("pca", np.zeros((1, 3))), ("pca", np.zeros((9, 1))), ("umap", np.zeros((4, 3)))):
        with pytest.raises(ValueError, match=r"points=\(\d, \d\) must be of shape"):
            embed(points, how)


def test_embed_refuses_another_name_and_pca_is_orthogonal():
    with pytest.raises(ValueError, match="how='tsne' must be 'umap' or 'pca'"):
        embed(np.zeros((5, 3)), "tsne")
    points = embed(np.random.default_rng(0).normal(size=(50, 5)), "pca")
    assert points.shape == (50, 2) and abs(points[:, 0] @ points[:, 1]) < 1e-8


def test_embed_says_what_to_install_where_umap_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not there
    with pytest.raises(ValueError, match="pip install umap-learn; or use how='pca'"):
        embed(np.zeros((5, 3)), "umap")
    assert not has_umap()


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
