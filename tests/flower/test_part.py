"""A client's part as a file: what its node computes from it is what the whole federation would give, and no more."""

import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedecouple_lite.engine import local_data
from fedecouple_lite.flower.part import part_in_memory, part_path, read_part, write_parts
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.studies.experiment import Setting

SETTING = Setting(clients=3, per_client=40)


@pytest.fixture
def folder(tmp_path):
    write_parts(SETTING, 5, tmp_path)
    return tmp_path


def test_a_node_computes_from_its_file_what_it_would_from_all(folder):
    federation = SETTING.federation(5)
    for client in range(3):
        part = read_part(part_path(folder, client))
        assert part.client == client and part.division["digest"] == federation.digest
        assert part.division == part_in_memory(SETTING, 5, client).division
        stop = threading.Event()
        here = local_data(part.federation, FedAvg(), client, [5, 2, 1], stop)
        there = local_data(federation, FedAvg(), client, [5, 2, 1], stop)
        assert torch.equal(here.x, there.x) and torch.equal(here.y, there.y)
        assert all(torch.equal(a, b) for a, b in zip(here.batches(2), there.batches(2), strict=True))
        tested = federation.test[client]
        assert torch.equal(part.federation.data.images(part.federation.test[client]), federation.data.images(tested))


def test_a_file_holds_nobody_elses_images(folder):
    federation = SETTING.federation(5)
    for client in range(3):
        tensors = load_file(part_path(folder, client))
        assert sorted(tensors) == ["mean", "std", "x", "y"]
        own = len(federation.train[client]) + len(federation.test[client])
        assert len(tensors["x"]) == len(tensors["y"]) == own
        others = read_part(part_path(folder, client)).federation
        for other in range(3):
            assert (len(others.train[other]) > 0) == (other == client)


def test_a_client_that_is_not_there_is_refused():
    for client in (3, -1, None, "1"):
        with pytest.raises(ValueError, match=f"partition-id={client!r} must be a client's number, from 0 to 2"):
            part_in_memory(SETTING, 5, client)


def test_what_is_no_part_is_refused_by_its_path(folder):
    path = part_path(folder, 0)
    with pytest.raises(FileNotFoundError, match=r"client-0009.*partitions writes them"):
        read_part(part_path(folder, 9))
    content = path.read_bytes()
    for wrong in (b"", content[:100], content[: len(content) // 2], b"x" * 1000):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"client-0000.* is not the file of a client's part"):
            read_part(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="is not the file of a client's part"):
        read_part(path)


@pytest.mark.parametrize("change", ["labels", "lengths", "kind"])
def test_a_part_whose_arrays_do_not_fit_is_refused(folder, change):
    from safetensors import safe_open

    path = part_path(folder, 1)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    if change == "labels":
        tensors["y"] = tensors["y"] + 10
    if change == "lengths":
        tensors["y"] = tensors["y"][1:].clone()
    if change == "kind":
        tensors["y"] = tensors["y"].float()
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="is not the file of a client's part"):
        read_part(path)
