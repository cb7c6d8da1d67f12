"""A SuperLink and four SuperNodes on loopback, over TLS and with keys, started once for all tests of this file.

Somebody else has Flower's own ports meanwhile.
"""

import pytest
from processes_of_flower import ALL_FIVE, SECONDS, check_same_as_in_process
from wire import FIVE, SMALL

from fedecouple_lite.flower.certificates import make_node_key
from fedecouple_lite.flower.deployment import LINK, NODE_PORT
from fedecouple_lite.flower.processes import free_ports


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
