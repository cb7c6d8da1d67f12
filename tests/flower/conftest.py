"""What is started once for all tests of a file."""

import socket
from contextlib import ExitStack

import pytest
from filelock import FileLock
from wire import SMALL

from fedecouple_lite.flower.deployment import LINK_PORT, NODE_PORT, Loopback
from fedecouple_lite.flower.part import write_parts
from fedecouple_lite.flower.plan import plan_of
from fedecouple_lite.flower.processes import HOST, is_free, marked


@pytest.fixture(scope="module")
def taken():
    """Flower's own ports, which somebody has: this process, where nobody else."""
    with ExitStack() as stack:
        for port in (LINK_PORT, NODE_PORT):
            if is_free(port):
                listening = stack.enter_context(socket.socket())
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((HOST, port))
                listening.listen()
        yield (LINK_PORT, NODE_PORT)


@pytest.fixture(scope="module")
def loopback(taken, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loopback")
    parts = write_parts(plan_of(SMALL).setting, 0, folder / "parts")
    one_at_a_time = FileLock(tmp_path_factory.getbasetemp().parent / "loopback.lock")  # of all processes of the tests
    with ExitStack() as stack:
        with one_at_a_time:  # two that start at once may choose the same ports
            flower = stack.enter_context(Loopback(folder / "flower", parts))
        yield flower
    assert flower.processes.running() == [] and marked(flower.mark) == []
