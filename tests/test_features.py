"""What is looked at beyond accuracy: features with their anchors, their picture in the plane, drift."""

import sys

import numpy as np
import pytest
import torch

from fedecouple_lite.engine import State
from fedecouple_lite.losses import class_means
from fedecouple_lite.studies.features import drift, embed, feature_space
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


def test_embed_refuses_another_name_and_pca_is_orthogonal():
    with pytest.raises(ValueError, match="how='tsne' must be 'umap' or 'pca'"):
        embed(np.zeros((5, 3)), "tsne")
    points = embed(np.random.default_rng(0).normal(size=(50, 5)), "pca")
    assert points.shape == (50, 2) and abs(points[:, 0] @ points[:, 1]) < 1e-8


def test_embed_says_what_to_install_where_umap_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not there
    with pytest.raises(ValueError, match="pip install umap-learn; or use how='pca'"):
        embed(np.zeros((5, 3)), "umap")


def test_drift_by_hand():
    server = {"extractor.w": torch.tensor([3.0, 4.0])}
    one, two = {"extractor.w": torch.tensor([3.0, 0.0])}, {"extractor.w": torch.tensor([0.0, 3.0])}
    assert drift(State(1, server, (one, two))) == pytest.approx((4 + 10**0.5) / 2 / 5)
    assert drift(State(1, {}, (one, one))) == 0
