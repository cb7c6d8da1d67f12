"""What each method moves, sends, keeps, averages and predicts with: one table, from the papers, held to a real round.

The methods are watched from outside: tensors are compared before and after, or disturbed, and what follows is noted.
"""

import threading
from typing import NamedTuple

import pytest
import torch
from helpers import last

from fedecouple_lite import METHODS, Federation, make, rounds
from fedecouple_lite.client import OneClient, run_phases
from fedecouple_lite.engine import local_data

E, C, HEAD, OWN_E, OWN_C = "extractor", "classifier", "head.classifier", "personal.extractor", "personal.classifier"
STATISTICS, PROTOTYPES = "statistics", "prototypes"


class Row(NamedTuple):
    """Groups of tensors, named by what stands before their last parts."""

    phases: tuple[set[str], ...]  # what each phase moves, or adds, in order
    download: set[str]
    upload: set[str]
    taken_over: set[str]  # what the download replaces of the client's own
    averaged: set[str]  # what the server takes as the mean by size
    predicts: set[str]  # of the client's own tensors, what its prediction depends on
    predicts_sent: set[str]  # of the download
    tuned: set[str]  # what changes only to predict


TABLE = {
    "local": Row(({E, C},), set(), set(), set(), set(), {E, C}, set(), set()),
    "fedavg": Row(({E, C},), {E, C}, {E, C}, {E, C}, {E, C}, set(), {E, C}, set()),
    "fedavg_ft": Row(({E, C},), {E, C}, {E, C}, {E, C}, {E, C}, {E, C}, set(), {C}),
    "fedprox": Row(({E, C},), {E, C}, {E, C}, {E, C}, {E, C}, set(), {E, C}, set()),
    "ditto": Row(({E, C}, {OWN_E, OWN_C}), {E, C}, {E, C}, {E, C}, {E, C}, {OWN_E, OWN_C}, set(), set()),
    "fedper": Row(({E, C},), {E}, {E}, {E}, {E}, {E, C}, set(), set()),
    "lg_fedavg": Row(({E, C},), {C}, {C}, {C}, {C}, {E, C}, set(), set()),
    "fedrep": Row(({C}, {E}), {E}, {E}, {E}, {E}, {E, C}, set(), set()),
    "fedbabu": Row(({E},), {E}, {E}, {E}, {E}, {E, C}, set(), {E, C}),
    "fedrod": Row(
        ({"class_counts"}, {E, C, HEAD}), {E, C}, {E, C}, {E, C}, {E, C}, {E, C, HEAD}, set(), set()
    ),
    "fedpac": Row(
        ({"own", STATISTICS}, {C}, {E}, {PROTOTYPES}),
        {E, C, PROTOTYPES}, {E, C, PROTOTYPES, STATISTICS}, {E, C, PROTOTYPES}, {E}, {E, C}, set(), set(),
    ),
    "fedecouple": Row(({"anchors"}, {C}, {E}), {E, C}, {E, C}, {E}, {E, C}, {E, C}, set(), set()),
}  # fmt: skip


def group_of(name):
    """ "personal.extractor.0.weight" -> "personal.extractor"; "anchors.means" -> "anchors"."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in ("personal", "head") else parts[0]


def groups_of(names):
    return {group_of(name) for name in names}


def changed(before, after):
    """The names that are new in `after` or whose tensors are others."""
    return {name for name in after if name not in before or not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def unequal(few):
    """Three clients of 12, 20 and 36 digits, in float64."""
    index = torch.arange(68).split([12, 20, 36])
    return Federation(few, index, index).to(dtype=torch.float64)


class Watched(NamedTuple):
    """A method after two rounds, and its third round seen from the client that is numbered 1."""

    method: object
    before: object
    after: object
    download: dict
    received: dict
    data: object


@pytest.fixture(scope="module")
def watched(net, unequal):
    """name -> that method's rounds, made once."""
    made = {}

    def watch(name):
        if name not in made:
            method = make(name, epochs=1, batch_size=8)
            before = last(rounds(method, net, unequal, rounds=2, backend="loop"))
            after = last(rounds(method, net, unequal, rounds=3, backend="loop", state=before))
            download = method.send(before.server, 1)
            received = method.receive(before.clients[1], download)
            data = local_data(unequal, method, 1, [0, 2, 3], threading.Event())
            made[name] = Watched(method, before, after, download, received, data)
        return made[name]

    return watch


@pytest.mark.parametrize("name", METHODS)
def test_each_phase_moves_what_the_table_says(net, watched, name):
    seen = watched(name)
    trainer = OneClient(seen.method, net, seen.download, seen.data)
    derived = {"anchors", "class_counts", "own", STATISTICS, PROTOTYPES}
    client = {tensor: value for tensor, value in seen.received.items() if group_of(tensor) not in derived}
    moved = []
    for phase in seen.method.phases():
        after = run_phases((phase,), client, trainer).tensors
        moved.append(groups_of(changed(client, after)))
        client = after
    assert tuple(moved) == TABLE[name].phases


@pytest.mark.parametrize("name", METHODS)
def test_what_travels_is_what_the_table_says(watched, name):
    seen = watched(name)
    row = TABLE[name]
    assert groups_of(seen.download) == row.download
    assert groups_of(seen.method.upload(seen.after.clients[1])) == row.upload
    mine = seen.before.clients[1]
    assert groups_of(changed(mine, seen.received)) == row.taken_over
    for tensor in seen.received:
        if group_of(tensor) in row.taken_over:
            assert torch.equal(seen.received[tensor], seen.download[tensor])


@pytest.mark.parametrize("name", METHODS)
def test_the_server_averages_by_size_what_the_table_says(watched, unequal, name):
    seen = watched(name)
    sizes = [len(index) for index in unequal.train]
    uploads = [seen.method.upload(client) for client in seen.after.clients]
    averaged = set()
    for tensor, value in seen.after.server.items():
        if tensor not in uploads[0]:
            continue
        mean = sum(size * upload[tensor] for size, upload in zip(sizes, uploads, strict=True)) / sum(sizes)
        plain = sum(upload[tensor] for upload in uploads) / len(uploads)
        if float((value - mean).abs().max()) < 1e-12:
            assert float((plain - mean).abs().max()) > 1e-6  # sizes matter here
            averaged.add(group_of(tensor))
    assert averaged == TABLE[name].averaged


@pytest.mark.parametrize("name", METHODS)
def test_predictions_depend_on_what_the_table_says(net, watched, name):
    """Every group of the client's tensors, and of the download, is disturbed by itself."""
    seen = watched(name)
    x = seen.data.x[:5]

    def predictions(client, download):
        return seen.method.predict(net, client, download, x)

    client = seen.after.clients[1]
    plain = predictions(client, seen.download)
    of_client = set()
    of_download = set()
    for group in groups_of(client):
        if not torch.equal(predictions(disturbed(client, group), seen.download), plain):
            of_client.add(group)
    for group in groups_of(seen.download):
        if not torch.equal(predictions(client, disturbed(seen.download, group)), plain):
            of_download.add(group)
    assert of_client == TABLE[name].predicts and of_download == TABLE[name].predicts_sent


def disturbed(tensors, group):
    """The same tensors, those of one group moved."""
    return {name: tensor + 0.1 if group_of(name) == group else tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", METHODS)
def test_what_changes_only_to_predict_is_what_the_table_says(net, watched, name):
    seen = watched(name)
    trainer = OneClient(seen.method, net, seen.download, seen.data)
    tuned = run_phases(seen.method.personalise(), seen.received, trainer).tensors
    assert groups_of(changed(seen.received, tuned)) == TABLE[name].tuned


def test_the_table_has_every_method():
    assert TABLE.keys() == METHODS.keys()
