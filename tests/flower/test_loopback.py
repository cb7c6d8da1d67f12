"""A SuperLink and four SuperNodes on loopback, over TLS and with keys, started once for all tests of this file.

Somebody else has Flower's own ports meanwhile.
"""

import socket
from contextlib import ExitStack

import pytest
from helpers import same
from processes_of_flower import ALL_FIVE, SECONDS, check_same_as_in_process, server_of
from test_rounds import AwayIn
from wire import FIVE, SMALL, in_process

from fedecouple_lite.flower.certificates import make_node_key
from fedecouple_lite.flower.deployment import LINK, LINK_PORT, NODE_PORT, Loopback, node_name
from fedecouple_lite.flower.part import write_parts
from fedecouple_lite.flower.plan import plan_of
from fedecouple_lite.flower.processes import HOST, free_ports, is_free, marked


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
    with Loopback(folder / "flower", parts) as flower:
        yield flower
    assert flower.processes.running() == [] and marked(flower.mark) == []


def test_five_methods_end_in_the_server_of_the_in_process_loop(loopback, tmp_path):
    """Five runs at once: while one waits, a node works for another."""
    plans = {}
    for name in FIVE:
        plans[name] = loopback.submit({**ALL_FIVE, "method": name, "out": str(tmp_path)}, name)
    for name, plan in plans.items():
        paths = loopback.wait(plan, SECONDS, name)
        check_same_as_in_process({**ALL_FIVE, "method": name}, paths)


def test_ports_that_are_taken_are_not_used(loopback, taken):
    assert not {loopback.port, *loopback.ports} & set(taken)
    assert len({loopback.port, *loopback.ports}) == 5


def test_what_cannot_be_ends_the_run_with_the_librarys_own_words(loopback, tmp_path):
    from fedecouple_lite.flower.processes import Failed

    wrong = r"ValueError: the part of client \d is of another federation: another alpha \(None, not 0.9\)"
    with pytest.raises(Failed, match=wrong):
        loopback.run({**SMALL, "alpha": 0.9, "out": str(tmp_path)}, SECONDS)


@pytest.mark.parametrize("has_key", [True, False])
def test_a_supernode_without_a_registered_key_is_refused(loopback, tmp_path, has_key):
    key = make_node_key(tmp_path, "stranger") if has_key else None
    (port,) = free_ports([NODE_PORT + 20])
    name = f"stranger-{has_key}"
    loopback.start_supernode(name, loopback.parts[0], port, key)
    stranger = loopback.processes.started[name]
    loopback.processes.wait_until("the stranger has ended", lambda: stranger.poll() is not None, 60)
    text = loopback.processes.text_of(name)
    assert stranger.returncode != 0 and "SuperNode ID:" not in text, text
    refused = loopback.processes.text_of(LINK)
    assert "No SuperNode found with the given public key" in refused or "401" in refused or "403" in refused


def test_a_supernode_that_is_killed_in_mid_round_is_missed_and_taken_back(loopback, tmp_path):
    """Client 1 is killed while it trains in round 2, and started anew. The round goes on without it; in round 3 it goes
    on from its disk, where its tensors after round 1 are."""
    config = {**SMALL, "method": "fedecouple", "participation": 1.0, "eval-every": 3}
    config |= {"epochs": 100, "out": str(tmp_path)}  # a round that is long enough to be killed in
    log = loopback.processes
    name = node_name(1)
    in_round_two = "ROUND fedecouple 2]"
    before = log.text_of(name).count(in_round_two)  # of other tests' runs
    plan = loopback.submit(config)
    log.wait_until("client 1 is in round 2", lambda: log.text_of(name).count(in_round_two) > before, SECONDS)
    log.kill(name)
    loopback.restart_node(1)
    (path,) = loopback.wait(plan, SECONDS)
    right = in_process(config, "fedecouple", faults=[AwayIn(1, 2)])
    assert same(server_of(path), right.server)


def test_a_superlink_that_is_killed_goes_on_from_the_checkpoint(loopback, tmp_path):
    config = {**SMALL, "method": "fedrep", "rounds": 4, "eval-every": 4, "checkpoint-every": 1, "out": str(tmp_path)}
    loopback.submit(config)
    log = loopback.processes
    log.wait_until("two rounds are kept", lambda: list(tmp_path.glob("*.ckpt-00002.safetensors")), SECONDS)
    log.kill(LINK)
    loopback.start_link_again()
    (path,) = loopback.run({**config, "resume": True, "wait-for-nodes": 120.0}, SECONDS)
    assert "fedrep goes on after round" in log.text_of("run")
    assert same(server_of(path), in_process(config, "fedrep").server)
