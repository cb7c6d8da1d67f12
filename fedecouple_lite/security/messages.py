"""What travels: every tensor of the messages of real rounds, and what a curious server reads from them as they are.

A method says in `shared` what the names that leave a client begin with. That is a claim; here rounds are run, and the
messages are looked at.

Examples
--------
>>> from fedecouple_lite import load, make, net_for, split
>>> federation = split(load("digits"), clients=3, per_client=20)
>>> net = net_for((1, 8, 8), 10)
>>> seen = look(make("fedecouple", epochs=1), net, federation)
>>> private_names(seen)
['anchors.counts', 'anchors.means']
>>> leaks(seen), not_weights(seen)
([], [])
>>> not_weights(look(make("fedpac", epochs=1), net, federation))
['prototypes.counts', 'prototypes.means', 'statistics.h', 'statistics.v']
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..client import LocalData, client_round
from ..errors import SEED, is_seed, is_whole_number, require
from ..methods import FedAvg
from ..models import DecoupledNet
from ..partition import Federation
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors, nbytes

DOWNLOAD, UPLOAD = "download", "upload"
COUNTS = "prototypes.counts"  # FedPAC's


class Message(NamedTuple):
    """One tensor of a message. direction: "download" or "upload". bytes: uncompressed."""

    round: int
    direction: str
    name: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, eq=False)
class Exchange:
    """What went to and fro between the server and one client, round by round, the first round first.

    downloads, uploads: the messages. clients: the client's tensors after each round, of which an attacker sees nothing.
    before: those before the first, which are the same for all clients.
    """

    method: FedAvg
    net: DecoupledNet
    before: Tensors
    downloads: tuple[Tensors, ...]
    uploads: tuple[Tensors, ...]
    clients: tuple[Tensors, ...]


def in_order(x: Tensor, y: Tensor, batch_size: int) -> LocalData:
    """Images (n, *in_shape) and labels (n,) as a client's, in batches of so many, in the same order in every epoch."""

    def batches(epochs: int) -> Iterator[Tensor]:
        for _ in range(epochs if len(y) else 0):
            yield from torch.arange(len(y)).split(batch_size)

    return LocalData(x, y, batches)


def data_of(federation: Federation, k: int, batch_size: int) -> LocalData:
    """Client k's training images, in order."""
    index = federation.train[k]
    return in_order(federation.data.images(index), federation.data.y[index], batch_size)


def look(
    method: FedAvg,
    net: DecoupledNet,
    federation: Federation,
    *,
    client: int = 0,
    rounds: int = 2,
    seed: int = 0,
) -> Exchange:
    """Run `rounds` rounds with all clients that have images, and note what goes to and fro between the server and
    `client`.

    The rounds are real, by the method's own hooks, with batches in order. Some messages change with time: FedPAC sends
    prototypes and a mixed classifier from round 2 on. ValueError: a client that is not there or has no images, rounds
    < 1, or no seed.
    """
    check_look(federation, client, rounds, seed)
    present = [k for k in range(len(federation)) if len(federation.train[k])]
    data = {k: data_of(federation, k, method.batch_size) for k in present}
    sizes = {k: len(federation.train[k]) for k in present}
    images = federation.data
    weights = net.init(seed, images.mean.dtype, images.y.device)
    server = method.init_server(weights)
    before = method.join(method.init(weights), method.send(server, client))
    clients = dict.fromkeys(present, before)
    noted: list[tuple[Tensors, Tensors, Tensors]] = []
    for _ in range(rounds):
        uploads = {}
        for k in present:
            download = method.send(server, k)
            result = client_round(method, net, clients[k], download, data[k])
            clients[k] = result.client
            uploads[k] = result.upload
            if k == client:
                noted.append((download, result.upload, result.client))
        server = method.aggregate(server, uploads, sizes)
    downloads, sent, after = zip(*noted, strict=True)
    return Exchange(method, net, before, downloads, sent, after)


def check_look(federation: Federation, client: int, rounds: int, seed: int) -> None:
    """Raise ValueError, naming the argument, where `look` cannot run with it."""
    known = is_whole_number(client) and 0 <= client < len(federation)
    require(known, "client", client, f"a whole number from 0 to {len(federation) - 1}")
    require(len(federation.train[client]) > 0, "client", client, "one that has training images")
    require(is_whole_number(rounds) and rounds >= 1, "rounds", rounds, "a whole number >= 1")
    require(is_seed(seed), "seed", seed, SEED)


def messages(seen: Exchange) -> list[Message]:
    """One row a tensor, in order of rounds, the download before the upload."""
    rows = []
    for t, (download, upload) in enumerate(zip(seen.downloads, seen.uploads, strict=True), start=1):
        rows += rows_of(t, DOWNLOAD, download)
        rows += rows_of(t, UPLOAD, upload)
    return rows


def rows_of(t: int, direction: str, message: Tensors) -> list[Message]:
    """The rows of one message of round t."""
    rows = []
    for name, tensor in message.items():
        rows.append(Message(t, direction, name, tuple(tensor.shape), nbytes({name: tensor})))
    return rows


def private_names(seen: Exchange) -> list[str]:
    """The names, sorted, of tensors that the client has after a round and never uploads.

    A name that the server sends and the client only keeps is one of them, too: the server knows that tensor, and not
    from the client.
    """
    kept = {name for client in seen.clients for name in client}
    sent = {name for upload in seen.uploads for name in upload}
    return sorted(kept - sent)


def leaks(seen: Exchange, private: Sequence[str] | None = None) -> list[str]:
    """The names, sorted, of uploaded tensors that should have stayed with the client.

    private: what the names that must stay begin with. None is what the method itself declares: all that does not begin
    with one of its `shared`.
    """
    uploaded = {name for upload in seen.uploads for name in upload}
    if private is None:
        return sorted(name for name in uploaded if not name.startswith(seen.method.shared))
    return sorted(name for name in uploaded if name.startswith(tuple(private)))


def not_weights(seen: Exchange) -> list[str]:
    """The names, sorted, of uploaded tensors that are no weights of a model: what is computed from images as such."""
    uploaded = {name for upload in seen.uploads for name in upload}
    return sorted(name for name in uploaded if not name.startswith((EXTRACTOR, CLASSIFIER)))


def class_mix_of(upload: Tensors) -> Tensor:
    """How many images of each class the client has, (C,) int64: FedPAC's upload says so outright.

    ValueError where the upload holds no such counts; FedeCouple's does not (what its classifier gives away is another
    matter: `inversion.class_mix_from`).
    """
    if COUNTS not in upload:
        raise ValueError(f"upload holds no {COUNTS}, only {', '.join(upload) or 'nothing'}")
    return upload[COUNTS].round().to(torch.int64)
