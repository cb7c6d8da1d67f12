"""How the library says no, and files that are whole or not there."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from fedecouple_lite import files
from fedecouple_lite.errors import as_python, closest, is_number, is_seed, is_whole_number, nearest, require, spelling
from fedecouple_lite.files import check_writable, part_of, write_whole

FLOATS = (0.5, -1.0, np.float32(0.5), np.float64(2), float("inf"), float("nan"))
WHOLE = (0, -3, 7, 10**30, np.int64(3), np.uint8(5))
NEITHER = (True, False, np.bool_(True), "1", None, 1j, [1], np.array(1.0), np.array([1]))


def test_what_is_a_number():
    assert all(is_number(value) for value in (*FLOATS, *WHOLE))
    assert all(is_whole_number(value) for value in WHOLE) and not any(is_whole_number(value) for value in FLOATS)
    assert not any(is_number(value) or is_whole_number(value) for value in NEITHER)
    largest = int(np.finfo(np.float64).max)
    assert is_number(largest) and is_number(-largest) and not is_number(2 * largest) and not is_number(-2 * largest)


def test_what_is_a_seed():
    """NumPy takes any that is not negative, PyTorch those below 2^63."""
    assert all(is_seed(seed) for seed in (0, 1, 2**63 - 1, np.int32(4)))
    assert not any(is_seed(seed) for seed in (-1, 2**63, 0.0, True, "0", None))


def test_numpys_numbers_become_pythons_and_anything_else_stays():
    for value, kind in ((np.int64(3), int), (np.float32(0.5), float), (np.bool_(True), bool)):
        assert type(as_python(value)) is kind and as_python(value) == value
    for value in ("a", None, [np.int64(1)], 2.5):
        assert as_python(value) is value


def test_a_name_is_compared_without_capitals_and_dashes():
    assert spelling("Batch-Size") == "batch_size"
    assert (
        nearest("Fed-Rep", ["fedrep", "fedper", "fed_rep"])
        == "did you mean 'fed_rep'? choose from fedrep, fedper, fed_rep"
    )
    assert closest("FEDPER", ["fedrep", "FedPer"], cutoff=0.9) == "FedPer"  # the known spelling comes back


def test_only_a_name_that_is_alike_is_suggested():
    assert nearest("zzz", ["fedavg", "fedrep"]) == "choose from fedavg, fedrep"
    assert nearest(None, ["fedavg"]) == "choose from fedavg"
    # two of six letters in place, and three of six
    assert closest("fexxxx", ["fedavg"], cutoff=0.4) is None and closest("fedxxx", ["fedavg"], cutoff=0.4) == "fedavg"
    assert closest("fedxxx", ["fedavg"], cutoff=0.6) is None


def test_what_is_required_is_named_with_its_value():
    require(True, "x", 1, "anything")
    with pytest.raises(ValueError, match=r"^name='v' must be a number$"):
        require(False, "name", "v", "a number")


def test_a_file_is_replaced_by_a_whole_one_or_left_as_it_is(tmp_path):
    path = tmp_path / "file"
    write_whole(path, lambda part: part.write_text("one"))
    assert path.read_text() == "one"

    def fail(part):
        part.write_text("half")
        assert part != path and part.parent == path.parent and part.name.endswith(".part")
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        write_whole(path, fail)
    assert path.read_text() == "one" and os.listdir(tmp_path) == ["file"]
    write_whole(path, lambda part: part.write_text("two"))
    assert path.read_text() == "two" and os.listdir(tmp_path) == ["file"]


def test_every_process_and_thread_writes_beside_a_file_under_a_name_of_its_own(tmp_path):
    names = [part_of(tmp_path / "file")]
    thread = threading.Thread(target=lambda: names.append(part_of(tmp_path / "file")))
    thread.start()
    thread.join()
    assert names[0] != names[1] and str(os.getpid()) in names[0].name and names[0].name.startswith("file.")


def test_before_a_run_there_must_be_room_for_its_file(tmp_path, monkeypatch):
    """It tries a megabyte: a disk that takes only less is full."""
    tried = []
    write_bytes = type(tmp_path).write_bytes

    def noted(self, content):
        tried.append(len(content))
        if len(content) >= 2**20:
            raise OSError(28, "No space left on device")
        return write_bytes(self, content)

    monkeypatch.setattr(type(tmp_path), "write_bytes", noted)
    with pytest.raises(ValueError, match=r"out=.*deep/file' cannot be written: .*No space left"):
        check_writable(tmp_path / "deep" / "file")
    assert tried == [2**20] and os.listdir(tmp_path / "deep") == []
    monkeypatch.setattr(files, "ROOM", 2**20 - 1)
    check_writable(tmp_path / "deep" / "file")
    assert os.listdir(tmp_path / "deep") == []


def test_a_file_that_is_there_stays_as_it_is_when_it_is_checked(tmp_path):
    (tmp_path / "file").write_text("kept")
    check_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_where_a_folder_or_a_device_is_nothing_is_tried_out(tmp_path, monkeypatch):
    """Not even a file beside it."""
    monkeypatch.setattr(Path, "write_bytes", lambda *of: pytest.fail("something was written"))
    for path, kind in ((tmp_path, "a folder"), (Path(os.devnull), "a device")):
        with pytest.raises(ValueError, match=f"is {kind}; it must be the path of a file"):
            check_writable(path)
