"""A SuperNode or the SuperLink is killed on loopback. In a file of its own, whose processes run beside the others'."""

from helpers import same
from processes_of_flower import SECONDS, server_of
from test_rounds import AwayIn
from wire import SMALL, in_process

from fedecouple_lite.flower.deployment import LINK, node_name


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
