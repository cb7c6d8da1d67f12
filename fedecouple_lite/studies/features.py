"""What can be seen beyond accuracy: the feature space, its picture in the plane, and how far clients drift apart."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch

from ..client import forward
from ..engine import State, images_of
from ..errors import is_whole_number, require
from ..losses import class_means
from ..models import DecoupledNet
from ..partition import Federation
from ..tensors import EXTRACTOR, Tensors, flat, pick

Space = dict[str, np.ndarray]  # features (n, d), labels and clients (n,); anchors (A, d), anchor_labels (A,)


def feature_space(net: DecoupledNet, extractor: Tensors, federation: Federation, limit: int = 1000) -> Space:
    """Features of up to `limit` test images with their labels and clients, and every client's anchors (its class means
    under the same extractor) with their labels.

    Raises ValueError where `limit` is below 1, or the federation has no test image.

    Examples
    --------
    >>> from fedecouple_lite import load, net_for, split
    >>> digits, net = load("digits"), net_for((1, 8, 8), 10)
    >>> space = feature_space(net, net.init(0), split(digits, clients=4), limit=100)
    >>> {name: values.shape[1:] for name, values in space.items()}
    {'features': (128,), 'labels': (), 'clients': (), 'anchors': (128,), 'anchor_labels': ()}
    """
    require(is_whole_number(limit) and limit >= 1, "limit", limit, "a whole number >= 1")
    require_test_images(federation)
    test_images = torch.cat(federation.test)
    owners = [torch.full((len(index),), client) for client, index in enumerate(federation.test)]
    every = -(-len(test_images) // limit)  # every so many-th image, so that clients and classes keep their shares
    x, y = images_of(federation, test_images[::every])
    anchors, anchor_labels = anchors_of_clients(net, extractor, federation)
    space = {
        "features": forward(net.features, extractor, x),
        "labels": y,
        "clients": torch.cat(owners)[::every],
        "anchors": anchors,
        "anchor_labels": anchor_labels,
    }
    return {name: tensor.cpu().numpy() for name, tensor in space.items()}


def require_test_images(federation: Federation, argument: str = "federation") -> None:
    """Raise ValueError where nobody has a test image, so that nothing could be shown. argument: the caller's own, that
    is to blame."""
    if not sum(len(index) for index in federation.test):
        raise ValueError(f"{argument} leaves nobody a test image: use fewer clients, or a test_share above 0")


def anchors_of_clients(
    net: DecoupledNet, extractor: Tensors, federation: Federation
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class means under `extractor`, (A, d), one for each client and class that it holds, and their labels, (A,)."""
    anchors = []
    labels = []
    for index in federation.train:
        if not len(index):
            continue  # a client without training images has no anchors
        x, y = images_of(federation, index)
        means, counts = class_means(forward(net.features, extractor, x), y, net.classes)
        present = counts > 0
        anchors.append(means[present])
        labels.append(torch.nonzero(present)[:, 0])
    return torch.cat(anchors), torch.cat(labels)


def embed(points: np.ndarray, how: str = "umap", seed: int = 0) -> np.ndarray:
    """Points (n, d) in the plane, (n, 2). "pca" is instant; "umap" takes some ten seconds at first, to compile.

    Raises ValueError for another name, "umap" where umap-learn is not installed, or too few points: "pca" needs two of
    two coordinates, "umap" five.

    Examples
    --------
    >>> embed(np.eye(5), how="pca").shape
    (5, 2)
    """
    require(how in ("umap", "pca"), "how", how, "'umap' or 'pca'")
    fewest = {"pca": 2, "umap": 5}[how]
    enough = points.ndim == 2 and len(points) >= fewest and points.shape[1] >= 2
    require(enough, "points", points.shape, f"of shape (n >= {fewest}, d >= 2) for how={how!r}")
    if how == "pca":
        from sklearn.decomposition import PCA

        return PCA(n_components=2, random_state=seed).fit_transform(points)
    try:
        from umap import UMAP
    except ImportError as error:
        remedy = "pip install umap-learn; or use how='pca'"
        raise ValueError(f"how='umap' needs umap-learn, which cannot be loaded ({error}): {remedy}") from None
    neighbours = min(15, len(points) - 1)  # its own default, where there are so many
    # One job is what a fixed random_state implies; saying so avoids a warning.
    return UMAP(n_components=2, n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(points)


def has_umap() -> bool:
    """Whether umap-learn is installed; it is not loaded, which takes long."""
    return find_spec("umap") is not None


def drift(state: State) -> float:
    """How far clients' extractors stray from the server's, relative to its norm; mean over the clients that have taken
    part (over all, where the state does not know who has), 0 where all agree.

    Where the extractor does not travel, the clients' own mean takes the server's place.

    Examples
    --------
    >>> weights = [{"extractor.w": torch.tensor([3.0, 4.0])}, {"extractor.w": torch.tensor([3.0, 9.0])}]
    >>> drift(State(round=1, server=weights[0], clients=tuple(weights)))  # distances 0 and 5, norm 5
    0.5
    """
    who = sorted(state.joined) or range(len(state.clients))
    clients = torch.stack([flat(pick(state.clients[k], EXTRACTOR)) for k in who])  # (N, P)
    extractor_travels = any(name.startswith(EXTRACTOR) for name in state.server)
    centre = flat(pick(state.server, EXTRACTOR)) if extractor_travels else clients.mean(0)
    distances = (clients - centre).norm(dim=1)
    return float(distances.mean() / centre.norm())
