"""What the tests share that start Flower's own processes."""

import json
from pathlib import Path

import pytest
from helpers import same
from wire import FIVE, SMALL, in_process

from fedecouple_lite.checkpoint import load_state
from fedecouple_lite.flower.server_app import state_file

# Enough for a machine that does much else; nothing waits so long where all goes well.
SECONDS = 600
ALL_FIVE = {**SMALL, "method": ",".join(FIVE), "eval-every": 3}
ABOUT = ("format", "digest", "label", "finished", "records")  # the rest of a run's file is what it depends on


def server_of(path: Path):
    """The server's tensors that a run's file stands for."""
    said = json.loads(path.read_text())
    depends_on = {name: value for name, value in said.items() if name not in ABOUT}
    return load_state(state_file(path), depends_on).server


def check_same_as_in_process(config, paths, **more):
    """The runs in these files, one a method, say that they have finished, and have ended in the server that the
    engine's loop ends in, to the bit."""
    for name, path in zip(config["method"].split(","), paths, strict=True):
        right = in_process(config, name, **more)
        assert same(server_of(path), right.server), name
        said = json.loads(path.read_text())
        (record,) = said["records"]
        assert said["finished"] and said["setting"]["clients"] == len(right.clients)
        assert record["accuracies"] == pytest.approx(right.records[-1]["accuracies"], abs=0), name
