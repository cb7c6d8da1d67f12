"""Flower's processes end with the program that has started them. In a file of its own, it runs beside the others."""

import os
import subprocess
import sys
import time

import pytest
from helpers import heed_ctrl_c

pytest.importorskip("flwr", reason="no Flower here: pip install -e .[flower]")


def test_ctrl_c_leaves_nothing_behind(tmp_path):
    """Where it comes: the whole program is interrupted while it starts."""
    words = ["flower", "--clients", "2", "--per-client", "40", "--rounds", "1", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "fedecouple_lite", *words]
    with (tmp_path / "said").open("wb") as said:
        own = {"start_new_session": True, "preexec_fn": heed_ctrl_c}
        process = subprocess.Popen(command, stdout=said, stderr=said, **own)
        try:
            end = time.monotonic() + 120
            while len(children_of(process.pid)) < 2 and time.monotonic() < end and process.poll() is None:
                time.sleep(0.1)
            started = children_of(process.pid)
            os.kill(process.pid, 2)
            assert process.wait(60) == 130, (tmp_path / "said").read_text()
        finally:
            process.kill()
            process.wait()
    assert len(started) >= 2
    for number in started:
        assert not is_there(number)


def children_of(number):
    """The numbers of a process's own children."""
    told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(number)], capture_output=True, text=True).stdout
    return [int(word) for word in told.split()]


def is_there(number):
    """Whether this process runs; a zombie does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")
