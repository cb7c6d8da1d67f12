"""What runs on a node: Flower's ClientApp, which does a client's round with the library's own `client_round`.

A node has one client. A SuperNode that is started with ``--node-config 'part="client-0003.safetensors"'`` has its
images in that file, and keeps its client's tensors in a folder beside it. A simulated node makes the federation from
the run configuration, and has the client of its partition-id.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from ..client import ClientResult, client_round, first_not_finite
from ..defence import protect
from ..engine import TRAIN, AtHand, Hits, Pool, client_of, hits_of_client, local_data, start
from ..methods import FedAvg
from ..models import DecoupledNet
from ..tensors import Tensors
from .memory import recall, remember
from .messages import Order, Told, hits_content, order_from, problem_content, result_content, tensors_of, told_content
from .part import ClientPart, part_in_memory, read_part
from .plan import Plan, plan_of

PART = "part"  # in a node's configuration: the path of its client's part
PARTITION = "partition-id"  # a simulated node's client; Flower gives it

app = ClientApp()


class Node(NamedTuple):
    """One client's node, as a message finds it. folder: where on its disk it keeps its tensors; None for none."""

    plan: Plan
    part: ClientPart
    net: DecoupledNet
    folder: Path | None


def node_of(context: Context) -> Node:
    """The node that this context is of. ValueError where its configuration, or the run's, cannot be; OSError where its
    part cannot be read."""
    plan = plan_of(context.run_config)
    path = context.node_config.get(PART)
    if path is None:
        part = part_in_memory(plan.setting, plan.seed, context.node_config.get(PARTITION))
        folder = None
    else:
        part = read_part(Path(str(path)).expanduser())
        part = ClientPart(part.client, part.federation.to(plan.setting.device), part.division)
        folder = Path(str(path)).expanduser().with_suffix(".kept")
    net = plan.setting.net_of(part.federation.data)
    return Node(plan, part, net, folder)


@app.query()
def tell(message: Message, context: Context) -> Message:
    """Say what this node has; or why it cannot take part."""
    try:
        part = node_of(context).part
    except (ValueError, OSError) as error:
        return Message(problem_content(str(error)), reply_to=message)
    data = part.federation.data
    train = len(part.federation.train[part.client])
    test = len(part.federation.test[part.client])
    told = Told(part.client, train, test, data.in_shape, data.name, data.classes, part.division)
    return Message(told_content(told), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """The client's part of a round. Errors in it are the answer that Flower makes of them."""
    node, order, method, download, client = task_of(message, context)
    result = train_alone(node, order, method, client, download)
    upload = protect(node.plan.defences, node.plan.seed, order.round, node.part.client, download, result.upload)
    remember(context.state, node.folder, order.run, order.round, result.client, order.oldest)
    not_finite = first_not_finite(result.client)
    return Message(result_content(result, upload, not_finite), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """How many of the client's test images are right."""
    node, order, method, download, client = task_of(message, context)
    of_server = None
    if order.server_model:
        of_server = {**start(method, node.net, node.part.federation, node.plan.seed).server, **download}
    at_hand = AtHand(client, order.kept > 0, download, of_server)
    return Message(hits_content(test_alone(node, order, method, at_hand)), reply_to=message)


class Task(NamedTuple):
    """What a message asks of a node, with all that is needed for it. client: the tensors that it goes on from."""

    node: Node
    order: Order
    method: FedAvg
    download: Tensors
    client: Tensors


def task_of(message: Message, context: Context) -> Task:
    """The task in a message. ValueError where it holds none, or where the node cannot do it."""
    node = node_of(context)
    order = order_from(message.content)
    method = node.plan.methods[order.method]
    download = tensors_of(message.content, node.plan.setting.device)
    client = client_before(node, context, order, method, download)
    return Task(node, order, method, download, client)


def client_before(node: Node, context: Context, order: Order, method: FedAvg, download: Tensors) -> Tensors:
    """The client's tensors that the order goes on from: those that it kept, or those that it would start with now."""
    if order.kept > 0:
        return recall(context.state, node.folder, order.run, order.kept, node.plan.setting.device)
    beginning = start(method, node.net, node.part.federation, node.plan.seed)
    return client_of(method, beginning, node.part.client, download)


def train_alone(node: Node, order: Order, method: FedAvg, client: Tensors, download: Tensors) -> ClientResult:
    """`client_round`, on a thread of the engine's, which computes the same whatever the number of cores."""
    key = [node.plan.seed, TRAIN, order.round]
    k = node.part.client
    stop = threading.Event()

    def one_round(net: DecoupledNet, k: int) -> ClientResult:
        data = local_data(node.part.federation, method, k, key, stop, node.plan.setting.augment)
        return client_round(method, net, client, download, data)

    pool = Pool(node.net, workers=1)
    try:
        (result,) = pool.map(one_round, [k])
    finally:
        pool.close()
    return result


def test_alone(node: Node, order: Order, method: FedAvg, at_hand: AtHand) -> Hits:
    """`hits_of_client`, likewise."""
    stop = threading.Event()
    federation = node.part.federation

    def one_test(net: DecoupledNet, k: int) -> Hits:
        return hits_of_client(method, federation, at_hand, node.plan.seed, order.round, stop, net, k)

    pool = Pool(node.net, workers=1)
    try:
        (hits,) = pool.map(one_test, [node.part.client])
    finally:
        pool.close()
    return hits
