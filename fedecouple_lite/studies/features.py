"""What can be seen beyond accuracy: the feature space, its picture in the plane, and how far clients drift apart."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing import get_context

import numpy as np
import torch

from ..client import forward
from ..engine import State, images_of
from ..errors import is_whole_number, require
from ..losses import class_means
from ..methods.ditto import PERSONAL
from ..metrics import client_spread, feature_scores
from ..models import DecoupledNet, one_thread
from ..partition import Federation
from ..tensors import EXTRACTOR, Tensors, flat, pick, rename

WHOSE = ("own", "server")  # extractors under which features are looked at
Space = dict[str, np.ndarray]  # features (n, d), labels and clients (n,); anchors (A, d), anchor_labels (A,)


def feature_space(
    net: DecoupledNet, state: State, federation: Federation, whose: str = "own", limit: int = 1000
) -> Space:
    """Features of up to `limit` test images with their labels and clients, and every client's anchors (its class means
    under the same extractor) with their labels.

    whose: "own" takes each client's images to that client's extractor, as it is after its last local training (where
    anchors act); "server" takes all images to the server's, the average that clients receive next.

    Raises ValueError where `whose` is neither, or "server" and the server holds no extractor; where `limit` is below 1;
    where the federation has no test image, or not as many clients as the state.

    Examples
    --------
    >>> from fedecouple_lite import load, make, net_for, rounds, split
    >>> digits, net = load("digits"), net_for((1, 8, 8), 10)
    >>> federation = split(digits, clients=4)
    >>> *_, state = rounds(make("fedrep", epochs=1), net, federation, rounds=2)
    >>> space = feature_space(net, state, federation, limit=100)
    >>> {name: values.shape[1:] for name, values in space.items()}
    {'features': (128,), 'labels': (), 'clients': (), 'anchors': (128,), 'anchor_labels': ()}
    """
    if len(state.clients) != len(federation):
        raise ValueError(f"state has {len(state.clients)} clients; federation has {len(federation)}")
    return space_under(extractors_of(state, whose), net, federation, limit)


def space_under(extractors: Sequence[Tensors], net: DecoupledNet, federation: Federation, limit: int = 1000) -> Space:
    """The same where each client's images, and its anchors, are seen through its entry of `extractors`.

    Raises ValueError where these are not one for each client, `limit` is below 1, or the federation has no test image.
    """
    require(is_whole_number(limit) and limit >= 1, "limit", limit, "a whole number >= 1")
    require(len(extractors) == len(federation), "len(extractors)", len(extractors), f"{len(federation)}: one a client")
    require_test_images(federation)
    test_images = torch.cat(federation.test)
    owners = [torch.full((len(index),), client) for client, index in enumerate(federation.test)]
    every = -(-len(test_images) // limit)  # every so many-th image, so that clients and classes keep their shares
    shown = test_images[::every]
    clients = torch.cat(owners)[::every]
    features = []
    with one_thread():
        for client in clients.unique().tolist():
            x, _ = images_of(federation, shown[clients == client])
            features.append(forward(net.features, extractors[client], x))
        anchors, anchor_labels = anchors_of_clients(net, extractors, federation)
    _, labels = images_of(federation, shown)
    space = {
        "features": torch.cat(features),
        "labels": labels,
        "clients": clients,
        "anchors": anchors,
        "anchor_labels": anchor_labels,
    }
    return {name: tensor.cpu().numpy() for name, tensor in space.items()}


def extractors_of(state: State, whose: str = "own") -> tuple[Tensors, ...]:
    """The extractor through which each client's images are seen, one for each client: its own after its last local
    training, or the "server"'s for all.

    A method's second, personal model (Ditto's) is the client's own. A client that has never taken part has the one
    that it would receive now. ValueError where `whose` is another word, or the server holds no extractor.
    """
    require(whose in WHOSE, "whose", whose, "'own' or 'server'")
    server_has_one = holds(state.server, EXTRACTOR)
    if whose == "server":
        require(server_has_one, "whose", whose, "'own' here: this method's server holds no extractor")
        return (pick(state.server, EXTRACTOR),) * len(state.clients)
    extractors = []
    for k, client in enumerate(state.clients):
        is_newcomer = state.joined and k not in state.joined
        if is_newcomer and server_has_one:
            extractors.append(pick(state.server, EXTRACTOR))
        elif holds(client, PERSONAL):
            extractors.append(rename(pick(client, PERSONAL + EXTRACTOR), PERSONAL, ""))
        else:
            extractors.append(pick(client, EXTRACTOR))
    return tuple(extractors)


def holds(tensors: Tensors, prefix: str) -> bool:
    """Whether the name of one of these tensors begins so."""
    return any(name.startswith(prefix) for name in tensors)


def space_scores(space: Space) -> dict[str, float]:
    """silhouette and knn of the images (`metrics.feature_scores`), spread of the anchors (`metrics.client_spread`)."""
    with one_thread():  # numbers this few take longer on several
        scores = feature_scores(space["features"], space["labels"])
    return {**scores, "spread": client_spread(space["anchors"], space["anchor_labels"])}


def require_test_images(federation: Federation, argument: str = "federation") -> None:
    """Raise ValueError where nobody has a test image, so that nothing could be shown. argument: the caller's own, that
    is to blame."""
    if not sum(len(index) for index in federation.test):
        raise ValueError(f"{argument} leaves nobody a test image: use fewer clients, or a test_share above 0")


def anchors_of_clients(
    net: DecoupledNet, extractors: Sequence[Tensors], federation: Federation
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class means, (A, d), one for each client and class that it holds, under that client's entry of `extractors`, and
    their labels, (A,)."""
    anchors = []
    labels = []
    for extractor, index in zip(extractors, federation.train, strict=True):
        if not len(index):
            continue  # a client without training images has no anchors
        x, y = images_of(federation, index)
        means, counts = class_means(forward(net.features, extractor, x), y, net.classes)
        present = counts > 0
        anchors.append(means[present])
        labels.append(torch.nonzero(present)[:, 0])
    return torch.cat(anchors), torch.cat(labels)


def embed(points: np.ndarray, how: str | UmapProcess = "umap", seed: int = 0) -> np.ndarray:
    """Points (n, d) in the plane, (n, 2). "pca" is instant; "umap" takes some ten seconds at first, to compile, which a
    `UmapProcess` has behind it.

    Raises ValueError for another name, "umap" where umap-learn is not installed, or too few points: "pca" needs two of
    two coordinates, "umap" five.

    Examples
    --------
    >>> embed(np.eye(5), how="pca").shape
    (5, 2)
    """
    if isinstance(how, UmapProcess):
        return how.embed(points, seed)
    require(how in ("umap", "pca"), "how", how, "'umap', 'pca' or a UmapProcess")
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


class UmapProcess:
    """UMAP in a process of its own, which imports and compiles it while this one trains, or its reader reads.

    It ends with this process, or with `close`; Ctrl-C leaves it alone.
    """

    def __init__(self) -> None:
        ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)
        self.pool = get_context("spawn").Pool(1, signal.signal, ignore_ctrl_c)
        any_points = np.random.default_rng(0).normal(size=(100, 8))
        self.compiled = self.pool.apply_async(embed, (any_points, "umap"))

    def embed(self, points: np.ndarray, seed: int = 0) -> np.ndarray:
        """`embed(points, "umap", seed)`, computed there."""
        return self.pool.apply(embed, (points, "umap", seed))

    def close(self) -> None:
        """End the process: one that is at rest by itself, so that it clears up; one that still compiles at once."""
        if self.compiled.ready():
            self.pool.close()
            self.pool.join()
        else:
            self.pool.terminate()

    def __enter__(self) -> UmapProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def umap_or_pca(fast: bool = False) -> str | UmapProcess:
    """What a notebook draws its maps with: UMAP, which from now on compiles beside it; or "pca" where umap-learn is
    not installed, which is then said, or where it is to be `fast`."""
    if fast:
        return "pca"
    if not has_umap():
        print("umap-learn is not installed (pip install umap-learn): maps will be a PCA in place of a UMAP.")
        return "pca"
    return UmapProcess()


def name_of(how: str | UmapProcess) -> str:
    """An embedding's name in a figure.

    Examples
    --------
    >>> name_of("pca")
    'PCA'
    """
    return "UMAP" if isinstance(how, UmapProcess) else how.upper()


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
    extractor_travels = holds(state.server, EXTRACTOR)
    centre = flat(pick(state.server, EXTRACTOR)) if extractor_travels else clients.mean(0)
    distances = (clients - centre).norm(dim=1)
    return float(distances.mean() / centre.norm())
