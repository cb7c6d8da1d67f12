"""UMAP itself, in the process that compiles it beside the reader: half a minute."""

import multiprocessing

import numpy as np
import pytest

from fedecouple_lite.course import plots
from fedecouple_lite.studies.features import UmapProcess, embed, name_of, umap_or_pca

pytest.importorskip("umap")


def test_a_process_of_its_own_embeds_as_here_and_ends_when_it_is_closed():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(40, 6)), rng.normal(size=(40, 6)) + 30])
    before = set(multiprocessing.active_children())
    with umap_or_pca() as process:
        assert isinstance(process, UmapProcess) and name_of(process) == "UMAP"
        (worker,) = set(multiprocessing.active_children()) - before
        there = embed(points, process, seed=3)
        again = process.embed(points, seed=3)
        space = {
            "features": points,
            "labels": np.repeat([0, 1], 40),
            "clients": np.tile([0, 1], 40),
            "anchors": points[::20],
            "anchor_labels": np.array([0, 0, 1, 1]),
        }
        fig = plots.feature_map({"two heaps": space}, process)
        with pytest.raises(ValueError, match=r"points=.* must be of shape"):
            embed(points[:3], process)
    worker.join(30)
    assert not worker.is_alive()
    assert there.shape == (80, 2) and np.array_equal(there, again)
    assert np.allclose(there, embed(points, "umap", seed=3), atol=1e-3)
    own, other = there[:40], there[40:]
    assert np.linalg.norm(own.mean(0) - other.mean(0)) > 3 * own.std()  # two heaps are two islands
    assert fig.get_supxlabel().startswith("UMAP of features")
