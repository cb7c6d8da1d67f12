"""What travels: read from real rounds, against a table of private names written by hand."""

from dataclasses import dataclass

import pytest
import torch

from fedecouple_lite import METHODS, make, rounds
from fedecouple_lite.methods import FedeCouple
from fedecouple_lite.security.messages import (
    DOWNLOAD,
    UPLOAD,
    class_mix_of,
    leaks,
    look,
    messages,
    not_weights,
    private_names,
)
from fedecouple_lite.tensors import pick

QUICK = {"lr": 0.05, "epochs": 1, "batch_size": 64}
MODEL = ("extractor.", "classifier.")
# What a client has after a round and never uploads, by the beginnings of the names.
PRIVATE = {
    "local": MODEL,
    "fedavg": (),
    "fedavg_ft": (),
    "fedprox": (),
    "ditto": ("personal.extractor.", "personal.classifier."),
    "fedper": ("classifier.",),
    "lg_fedavg": ("extractor.",),
    "fedrep": ("classifier.",),
    "fedbabu": ("classifier.",),
    "fedrod": ("head.", "class_counts"),
    "fedpac": ("own.means",),
    "fedecouple": ("anchors.means", "anchors.counts"),
}
# What is uploaded, likewise: `shared`, and what FedPAC sends on top of it.
UPLOADED = {
    "local": (),
    "fedper": ("extractor.",),
    "fedrep": ("extractor.",),
    "fedbabu": ("extractor.",),
    "lg_fedavg": ("classifier.",),
    "fedpac": (*MODEL, "prototypes.means", "prototypes.counts", "statistics.h", "statistics.v"),
}


@dataclass(frozen=True)
class Leaky(FedeCouple):
    """FedeCouple whose anchors slip into the upload."""

    def upload(self, client):
        return {**super().upload(client), **pick(client, "anchors.")}


@pytest.fixture(scope="module")
def looks(net, few):
    """Every method's first two rounds, seen from client 0."""
    from fedecouple_lite import split

    federation = split(few, clients=4, partition="dirichlet", seed=1, alpha=0.5)
    return {name: look(make(name, **QUICK), net, federation) for name in METHODS}


def test_the_table_has_every_method():
    assert PRIVATE.keys() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_the_private_names_are_those_written_here(looks, name):
    found = private_names(looks[name])
    assert all(tensor.startswith(PRIVATE[name]) for tensor in found), found
    for prefix in PRIVATE[name]:
        assert any(tensor.startswith(prefix) for tensor in found), prefix


@pytest.mark.parametrize("name", METHODS)
def test_no_private_name_is_in_an_upload(looks, name):
    assert leaks(looks[name], private=PRIVATE[name]) == []


@pytest.mark.parametrize("name", METHODS)
def test_what_is_uploaded_is_what_the_method_declares(looks, name):
    uploads = looks[name].uploads
    allowed = UPLOADED.get(name, MODEL)
    assert all(tensor.startswith(allowed) for upload in uploads for tensor in upload)
    for prefix in allowed:
        assert all(any(tensor.startswith(prefix) for tensor in upload) for upload in uploads), prefix


@pytest.mark.parametrize("name", METHODS)
def test_nothing_leaves_that_is_not_declared_and_only_fedpac_sends_more_than_weights(looks, name):
    more = ["prototypes.counts", "prototypes.means", "statistics.h", "statistics.v"]
    assert leaks(looks[name]) == []
    assert not_weights(looks[name]) == (more if name == "fedpac" else [])


def test_a_planted_leak_is_caught(net, federation):
    leaky = look(Leaky(**QUICK), net, federation, rounds=1)
    assert leaks(leaky) == ["anchors.counts", "anchors.means"]
    assert leaks(leaky, private=["anchors."]) == ["anchors.counts", "anchors.means"]
    assert private_names(leaky) == []


@pytest.mark.parametrize("name", METHODS)
def test_the_rounds_are_the_engines(looks, net, federation, name):
    """With one batch an epoch its order does not matter: what the server sends in round 2 is the same."""
    method = make(name, **QUICK)
    state = next(rounds(method, net, federation, rounds=1, backend="loop"))
    download = method.send(state.server, 0)
    seen = looks[name].downloads[1]
    assert download.keys() == seen.keys()
    assert all(torch.allclose(download[tensor], seen[tensor], atol=1e-4) for tensor in download)
    client = looks[name].clients[0]
    assert all(torch.allclose(state.clients[0][tensor], client[tensor], atol=1e-4) for tensor in client)


def test_fedpac_sends_prototypes_and_a_mixed_classifier_only_from_round_2_on(looks):
    rows = messages(looks["fedpac"])
    down = {t: {row.name for row in rows if row.round == t and row.direction == DOWNLOAD} for t in (1, 2)}
    new = {"prototypes.means", "prototypes.counts", "classifier.weight", "classifier.bias"}
    assert down[2] - down[1] == new
    assert down[1] < down[2]


def test_rows_give_shapes_and_bytes(looks):
    rows = messages(looks["fedecouple"])
    (row,) = [row for row in rows if (row.round, row.direction, row.name) == (1, UPLOAD, "classifier.weight")]
    assert row.shape == (10, 128) and row.bytes == 10 * 128 * 4
    # By hand: 16 kernels 3x3 and biases, 32 of 16 channels, 128 -> 128, 128 -> 10; both ways, in two rounds.
    weights = (16 * 9 + 16) + (32 * 16 * 9 + 32) + (128 * 128 + 128) + (128 * 10 + 10)
    assert sum(row.bytes for row in rows) == 2 * 2 * 4 * weights
    assert [(row.round, row.direction) for row in rows[:: len(rows) // 4]] == [
        (1, DOWNLOAD),
        (1, UPLOAD),
        (2, DOWNLOAD),
        (2, UPLOAD),
    ]


@pytest.mark.parametrize("client", range(4))
def test_fedpacs_upload_says_how_many_images_of_each_class_a_client_has(net, federation, client):
    seen = look(make("fedpac", **QUICK), net, federation, client=client, rounds=1)
    counts = class_mix_of(seen.uploads[0])
    assert counts.tolist() == federation.label_counts()[client].tolist()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "fedpac"])
def test_no_other_upload_says_so(looks, name):
    with pytest.raises(ValueError, match=r"upload holds no prototypes\.counts"):
        class_mix_of(looks[name].uploads[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client": 4}, "client=4 must be a whole number from 0 to 3"),
        ({"client": -1}, "client=-1 must be"),
        ({"rounds": 0}, "rounds=0 must be a whole number >= 1"),
        ({"seed": -1}, "seed=-1 must be"),
    ],
)
def test_an_argument_that_cannot_be_is_named(net, federation, options, message):
    with pytest.raises(ValueError, match=message):
        look(make("fedavg", **QUICK), net, federation, **options)


def test_a_client_without_images_has_no_messages(net, federation):
    from dataclasses import replace

    empty = replace(federation, train=(torch.zeros(0, dtype=torch.int64), *federation.train[1:]))
    with pytest.raises(ValueError, match="client=0 must be one that has training images"):
        look(make("fedavg", **QUICK), net, empty)
    assert len(look(make("fedavg", **QUICK), net, empty, client=1).uploads) == 2
