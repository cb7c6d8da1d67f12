"""Rounds on Flower's nodes are the engine's, to the bit; here every node is in this process, behind Flower's bytes."""

import json
from dataclasses import dataclass

import pytest
import torch
from helpers import same
from wire import FIVE, SMALL, Wire, figures, in_process, names_in, of_method, run_on_wire, unpacked

from fedecouple_lite import METHODS
from fedecouple_lite.checkpoint import checkpoints_of
from fedecouple_lite.faults import AWAY, DropAfter, DropBefore, Fault, Outcome
from fedecouple_lite.flower import nodes, server_app
from fedecouple_lite.flower.messages import KEPT_ROUND, order_from
from fedecouple_lite.flower.part import part_path, write_parts
from fedecouple_lite.flower.plan import plan_of
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.security.defences import ClipNorm, CoordinateMedian, GaussianNoise


@pytest.fixture(autouse=True)
def one_thread():
    """Numbers do not depend on threads; pools of one are quicker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_ends_in_the_same_server_and_records(name, tmp_path):
    config = {**SMALL, "method": name, "out": str(tmp_path)}
    states, _ = run_on_wire(config)
    right = in_process(config, name)
    assert same(states[name].server, right.server)
    assert figures(states[name]) == figures(right)
    assert states[name].joined == right.joined
    (path,) = tmp_path.glob(f"{name}-*.json")
    assert json.loads(path.read_text())["finished"]


def test_a_state_on_the_server_holds_no_tensor_of_a_client(tmp_path):
    states, _ = run_on_wire({**SMALL, "out": str(tmp_path)})
    for client in states["fedecouple"].clients:
        assert list(client) == [KEPT_ROUND]


def test_only_declared_names_travel(tmp_path):
    """Every message of a run is decoded from its bytes; none holds the bytes of a private tensor, either."""
    for name in FIVE:
        config = {**SMALL, "method": name, "out": str(tmp_path)}
        _, wire = run_on_wire(config)
        method = of_method(name)
        kinds = set()
        for root, contents in wire.sent:
            message = unpacked(root, contents)
            tensors, values = names_in(message)
            kinds.add((message.metadata.message_type, message.has_content()))
            assert all(tensor.startswith(method.shared) for tensor in tensors), name
            assert values <= ORDERED | ANSWERED | TOLD
        assert {kind for kind, _ in kinds} == {"query", "train", "evaluate"}
        travelling = b"".join(content for _, contents in wire.sent for content in contents.values())
        private = 0
        for context in wire.contexts.values():
            for record in context.state.values():
                shared = [array.data for tensor, array in record.items() if tensor.startswith(method.shared)]
                for tensor, array in record.items():
                    is_private = not tensor.startswith(method.shared)
                    # Ditto's personal model takes its first step as the shared one does.
                    if is_private and array.numpy().size > 9 and array.data not in shared:
                        private += 1
                        assert array.numpy().tobytes() not in travelling, (name, tensor)
        assert (private > 0) == (name != "fedavg"), name


ORDERED = {"method", "run", "round", "kept", "oldest", "server_model"}
ANSWERED = {"loss", "steps", "not_finite", "trained", "received", "server"}
TOLD = {"client", "train", "test", "in_shape", "name", "classes", "division"}


def test_faults_and_defences_are_the_engines(tmp_path):
    config = {**SMALL, "clients": 6, "method": "fedrep", "participation": 1.0, "out": str(tmp_path)}
    config |= {"faults": "DropBefore(0.3), DropAfter(0.3)", "min-uploads": 1}
    config |= {"defences": "ClipNorm(1.0), GaussianNoise(clip=1.0, multiplier=0.1), CoordinateMedian()"}
    plan = plan_of(config)
    states, _ = run_on_wire(config)
    more = {"faults": [DropBefore(0.3), DropAfter(0.3)], "min_uploads": 1}
    right = in_process(config, "fedrep", defences=list(plan.defences), **more)
    assert plan.defences == (ClipNorm(1.0), GaussianNoise(clip=1.0, multiplier=0.1), CoordinateMedian())
    assert same(states["fedrep"].server, right.server)
    assert figures(states["fedrep"]) == figures(right)
    assert [record["faults"] for record in states["fedrep"].records] == [r["faults"] for r in right.records]


@dataclass(frozen=True)
class AwayIn(Fault):
    """One client is away in one round."""

    client: int
    round: int

    def before(self, turn):
        return Outcome(AWAY) if (turn.client, turn.round) == (self.client, self.round) else None


def test_a_node_that_does_not_answer_in_time_is_away_and_is_taken_back(tmp_path):
    config = {**SMALL, "participation": 1.0, "deadline": 2.0, "out": str(tmp_path)}

    def answers(client, message):
        is_training = message.metadata.message_type == "train"
        return not (is_training and client == 1 and order_from(message.content).round == 2)

    states, _ = run_on_wire(config, Wire(config, answers=answers))
    right = in_process(config, "fedecouple", faults=[AwayIn(1, 2)])
    assert same(states["fedecouple"].server, right.server)
    assert figures(states["fedecouple"]) == figures(right)


def test_what_the_server_never_got_is_not_gone_on_from(tmp_path, monkeypatch):
    """The node has trained, its answer is lost: in the next round it goes on from before."""
    config = {**SMALL, "participation": 1.0, "deadline": 0.5, "out": str(tmp_path)}
    wire = Wire(config)
    pull = wire.pull_messages

    def pull_but_one(message_ids):
        answers = pull(message_ids)
        return [answer for answer in answers if not is_lost(answer)]

    def is_lost(answer):
        lost = answer.metadata.message_type == "train" and answer.metadata.group_id == "fedecouple 2"
        return lost and wire.client_at[answer.metadata.src_node_id] == 3

    monkeypatch.setattr(wire, "pull_messages", pull_but_one)
    states, _ = run_on_wire(config, wire)
    right = in_process(config, "fedecouple", faults=[AwayIn(3, 2)])
    assert same(states["fedecouple"].server, right.server)


def test_an_error_on_a_node_stops_the_run_or_is_refused(tmp_path, monkeypatch):
    config = {**SMALL, "method": "fedavg", "participation": 1.0, "out": str(tmp_path)}

    def loss(self, net, client, download, x, y):
        raise ArithmeticError("no luck today")

    monkeypatch.setattr(FedAvg, "loss", loss)
    with pytest.raises(nodes.NodeError, match=r"client 0, round 1: .*ArithmeticError.*no luck today"):
        run_on_wire(config)
    states, _ = run_on_wire({**config, "min-uploads": 0})
    assert states["fedavg"].records[0]["faults"]["refused"] == [0, 1, 2, 3]


def test_a_loss_that_is_not_finite_is_said_as_the_engine_says_it(tmp_path):
    config = {**SMALL, "method": "fedrep", "lr": 1e30, "participation": 1.0, "out": str(tmp_path)}
    with pytest.raises(FloatingPointError) as on_flower:
        run_on_wire(config)
    with pytest.raises(FloatingPointError) as in_engine:
        in_process(config, "fedrep")
    assert str(on_flower.value) == str(in_engine.value)


def test_a_server_that_ends_goes_on_from_its_checkpoint_with_nodes_that_were_restarted(tmp_path, monkeypatch):
    """Nodes have gone further than the checkpoint, and then lost their memory: their disks hold what is needed."""
    config = {**SMALL, "rounds": 6, "out": str(tmp_path / "out"), "checkpoint-every": 2}
    paths = write_parts(plan_of(config).setting, 0, tmp_path / "parts")
    on_disk = [{"part": str(path)} for path in paths]
    right = in_process(config, "fedecouple")

    next_round = server_app.next_round

    def fails_in_round_six(*arguments):
        state = next_round(*arguments)
        if state.round == 6:
            raise KeyboardInterrupt
        return state

    with monkeypatch.context() as patched:
        patched.setattr(server_app, "next_round", fails_in_round_six)
        with pytest.raises(KeyboardInterrupt):
            run_on_wire(config, Wire(config, on_disk))
    (path,) = (tmp_path / "out").glob("*.json")
    assert list(checkpoints_of(path)) == [4, 2]
    assert not json.loads(path.read_text())["finished"]

    states, _ = run_on_wire({**config, "resume": True}, Wire(config, on_disk))  # nodes that are new
    assert same(states["fedecouple"].server, right.server)
    assert figures(states["fedecouple"]) == figures(right)
    assert not checkpoints_of(path)
    again, _ = run_on_wire({**config, "resume": True}, Wire(config, on_disk))
    assert again == {}  # it had finished


def test_a_node_without_its_memory_says_so(tmp_path):
    config = {**SMALL, "participation": 1.0, "out": str(tmp_path)}
    wire = Wire(config)

    def answers(client, message):
        if message.metadata.message_type == "train" and order_from(message.content).round == 2:
            for context in wire.contexts.values():
                context.state.clear()
        return True

    wire.answers = answers
    with pytest.raises(nodes.NodeError, match=r"client 0, round 2: .*this node has no tensors of round 1"):
        run_on_wire(config, wire)


def test_a_node_forgets_what_nobody_goes_on_from(tmp_path):
    config = {**SMALL, "rounds": 6, "participation": 1.0, "out": str(tmp_path / "out")}
    paths = write_parts(plan_of(config).setting, 0, tmp_path / "parts")
    _, wire = run_on_wire(config, Wire(config, [{"part": str(path)} for path in paths]))
    for context in wire.contexts.values():
        assert [key[-5:] for key in context.state] == ["00005", "00006"]
    for path in paths:
        kept = sorted(file.name[-17:-12] for file in path.with_suffix(".kept").iterdir())
        assert kept == ["00005", "00006"]


def test_parts_of_another_federation_are_refused(tmp_path):
    config = {**SMALL, "out": str(tmp_path / "out")}
    other = plan_of({**config, "alpha": 0.7, "seed": 3})
    write_parts(other.setting, 3, tmp_path)
    on_disk = [{"part": str(part_path(tmp_path, client))} for client in range(4)]
    wrong = r"part of client \d is of another federation: another alpha \(0.7, not None\), another seed \(3, not 0\)"
    with pytest.raises(ValueError, match=wrong):
        run_on_wire(config, Wire(config, on_disk))


def test_nodes_that_are_missing_are_named(tmp_path):
    config = {**SMALL, "wait-for-nodes": 0.3, "out": str(tmp_path)}
    wire = Wire(config)
    wire.contexts.popitem()
    with pytest.raises(nodes.NodesMissing, match=r"none for 1 clients \(3\).*num-supernodes=4"):
        run_on_wire(config, wire)


@pytest.mark.parametrize(
    ("key", "value"), [("alpha", -1.0), ("partition", "dirichlets"), ("test-share", 2.0), ("dataset", "digit")]
)
def test_what_cannot_be_divided_is_said_as_the_library_says_it(key, value, tmp_path):
    config = {**SMALL, key: value, "out": str(tmp_path)}
    with pytest.raises(ValueError) as of_library:
        plan_of(config).setting.federation(0)
    with pytest.raises(ValueError) as on_flower:
        run_on_wire(config)
    assert str(on_flower.value) == str(of_library.value)


@pytest.mark.parametrize(("key", "value"), [("rounds", 0), ("eval-every", 0), ("participation", 1.5)])
def test_what_cannot_be_run_is_said_as_the_engine_says_it(key, value, tmp_path):
    config = {**SMALL, key: value, "out": str(tmp_path)}
    with pytest.raises(ValueError) as in_engine:
        in_process(config, "fedecouple")
    with pytest.raises(ValueError) as on_flower:
        run_on_wire(config)
    assert str(on_flower.value) == str(in_engine.value)
