"""Nodes in this process: every message goes through Flower's own bytes, is kept, and is answered by the ClientApp."""

from collections.abc import Callable, Iterable
from uuid import uuid4

import pytest

pytest.importorskip("flwr", reason="no Flower here: pip install -e .[flower]")

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from fedecouple_lite import make
from fedecouple_lite.engine import rounds
from fedecouple_lite.flower.client_app import app as client_app
from fedecouple_lite.flower.plan import plan_of
from fedecouple_lite.flower.server_app import run_plan

FIVE = ("fedavg", "fedrep", "fedpac", "ditto", "fedecouple")
SMALL = {"clients": 4, "per-client": 60, "rounds": 3, "participation": 0.5, "epochs": 1}
RAISED = 2  # Flower's code of an answer in place of a ClientApp's error

Bytes = dict[str, bytes]  # what travels for a message, by Flower's object id


def packed(message: Message) -> tuple[str, Bytes]:
    """A message as what Flower sends: its object's id, and the bytes of every object in it."""
    objects = get_all_nested_objects(message)
    return message.object_id, {name: thing.deflate() for name, thing in objects.items()}


def unpacked(root: str, contents: Bytes) -> Message:
    """The message that these bytes are."""
    return inflate_object_from_contents(root, dict(contents))


class Wire(Grid):
    """A grid whose nodes are in this process, one for each client.

    node_configs: what SuperNodes are started with, by client; None: simulated ones. answers: whether a node answers a
    message. Every message and answer is in `sent`, as bytes, in order.
    """

    def __init__(
        self, config, node_configs=None, answers: Callable[[int, Message], bool] = lambda client, message: True
    ):
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # as the processes of a run have it
        self.config = config
        self.answers = answers
        self.sent: list[tuple[str, Bytes]] = []
        self.contexts: dict[int, Context] = {}
        self.client_at: dict[int, int] = {}
        self.waiting: dict[str, Message] = {}
        clients = config["clients"]
        for client in range(clients):
            node_config = {"partition-id": client, "num-partitions": clients}
            self.add_node(client, node_config if node_configs is None else node_configs[client])

    def add_node(self, client, node_config):
        """A node for this client; an older one is gone."""
        for node, of in list(self.client_at.items()):
            if of == client:
                del self.contexts[node], self.client_at[node]
        node = 1000 + uuid4().int % 2**40
        self.contexts[node] = Context(1, node, node_config, RecordDict(), self.config)
        self.client_at[node] = client

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *arguments, **more):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages):
        taken = []
        for message in messages:
            name = uuid4().hex
            message.metadata.__dict__["_message_id"] = name
            taken.append(name)
            self.sent.append(packed(message))
            node = message.metadata.dst_node_id
            if not self.answers(self.client_at[node], message):
                continue
            received = unpacked(*self.sent[-1])
            received.metadata.__dict__["_message_id"] = name
            try:
                answer = client_app(received, self.contexts[node])
            except Exception as error:
                answer = Message(Error(RAISED, f"{type(error)}:<'{error}'>"), reply_to=received)
            self.sent.append(packed(answer))
            self.waiting[name] = unpacked(*self.sent[-1])
        return taken

    def pull_messages(self, message_ids):
        return [self.waiting.pop(name) for name in list(message_ids) if name in self.waiting]


def run_on_wire(config, wire=None):
    """The states of a run with nodes in this process, and the grid."""
    wire = Wire(config) if wire is None else wire
    return run_plan(wire, plan_of(config)), wire


def in_process(config, name, **more):
    """The state that the engine's own loop ends in, client by client."""
    plan = plan_of(config)
    setting = plan.setting
    federation = setting.federation(plan.seed)
    net = setting.build_net()
    *_, state = rounds(
        plan.methods[name],
        net,
        federation,
        rounds=setting.rounds,
        seed=plan.seed,
        participation=setting.participation,
        eval_every=setting.eval_every,
        backend="loop",
        **more,
    )
    return state


def figures(state):
    """A run's records without what the clock says, and without reports of faults, as words: NaN is like NaN."""
    return [repr({k: v for k, v in record.items() if k not in ("seconds", "faults")}) for record in state.records]


def names_in(message: Message) -> tuple[set[str], set[str]]:
    """The names of a message's tensors, and of its plain values."""
    tensors, values = set(), set()
    for record in message.content.values():
        if isinstance(record, ArrayRecord):
            tensors |= set(record)
        else:
            assert isinstance(record, ConfigRecord)
            values |= set(record)
    return tensors, values


def of_method(name):
    """A method with one local epoch."""
    return make(name, epochs=1)
