"""The nodes as the server sees them: who is there, what they answer, and how long it waits for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping
from time import monotonic, sleep
from typing import Any

import torch
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from ..checkpoint import differences
from ..client import ClientResult
from ..data import Dataset
from ..faults import ARRIVED, AWAY, REFUSED, Outcome
from ..partition import Federation
from .messages import Order, Told, order_content, problem_in, result_from, told_from
from .part import division_of
from .plan import Plan

# Seconds between two looks for answers: the first, and the longest, for each is half as long again as the one before.
# Flower's own `send_and_receive` looks every three seconds, longer than most rounds here take; this does the same with
# the same two calls. To look often keeps the SuperLink from its work, above all where several runs do.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 0.6
LOOK = 2.0  # seconds between two looks for nodes that have taken another one's place
# Flower's codes of answers that it makes itself, where a node has gone, or a message has (its ErrorCode):
# MESSAGE_UNAVAILABLE, REPLY_MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE, CLIENT_APP_CRASHED.
NOT_REACHED = (3, 4, 5, 8)
LOG = logging.getLogger("flwr")


class NodeError(RuntimeError):
    """A client's code has raised an error on its node, or its answer is none."""


class NodesMissing(RuntimeError):
    """Some clients have no node."""


def exchange(
    grid: Grid,
    contents: Mapping[int, RecordDict],
    kind: str,
    group: str,
    seconds: float,
    gone: Callable[[], Container[int]] = tuple,
) -> dict[int, Message]:
    """Send each node its message, and wait for the answers, at most so many seconds: the answers that came, by node.

    kind: "query", "train" or "evaluate". group: what Flower's logs call the messages. A node that does not get its
    message in this time will not get it later. gone: asked every LOOK seconds, says which nodes will not answer.
    """
    messages = {}
    for node, content in contents.items():
        messages[node] = Message(content, node, kind, ttl=seconds, group_id=group)
    taken = set(grid.push_messages(list(messages.values())))
    node_of = {}
    for node, message in messages.items():
        if message.metadata.message_id in taken:  # one to a node that is gone is not
            node_of[message.metadata.message_id] = node
    waiting = set(node_of)
    answers = {}
    end = monotonic() + seconds
    next_look = monotonic() + LOOK
    pause = FIRST_PAUSE
    while waiting and monotonic() < end:
        for answer in grid.pull_messages(sorted(waiting)):
            asked = answer.metadata.reply_to_message_id
            waiting.discard(asked)
            answers[node_of[asked]] = answer
        if waiting and monotonic() > next_look:
            will_not_answer = gone()
            waiting = {name for name in waiting if node_of[name] not in will_not_answer}
            next_look = monotonic() + LOOK
        if waiting:
            sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)
    return answers


class Nodes:
    """The nodes of a run: which one is whose, what each has said of itself. A node that comes later, or comes back, is
    taken in at the next look."""

    def __init__(self, grid: Grid, plan: Plan):
        self.grid = grid
        self.plan = plan
        self.told: dict[int, Told] = {}  # by client
        self.node_of: dict[int, int] = {}  # by client
        self.seen: set[int] = set()  # nodes that have said what they have

    def look(self) -> set[int]:
        """Ask the nodes that are new what they have; returns all that are online. ValueError where one cannot take
        part, or has a part of another federation."""
        online = set(self.grid.get_node_ids())
        fresh = sorted(online - self.seen)
        if fresh:
            questions = {node: RecordDict() for node in fresh}
            answers = exchange(self.grid, questions, MessageType.QUERY, "who is there", self.plan.deadline)
            for node, answer in answers.items():
                if answer.has_error():
                    LOG.warning("Node %s does not say what it has: %s", node, answer.error.reason)
                    continue
                self.take_in(node, answer.content)
        return online

    def take_in(self, node: int, answer: RecordDict) -> None:
        """Note whose node this is, by its answer."""
        problem = problem_in(answer)
        if problem is not None:
            raise ValueError(problem)
        told = told_from(answer)
        self.check_division(told)
        if told.client in self.node_of:
            LOG.info("Client %s has another node now: %s", told.client, node)
        self.told[told.client] = told
        self.node_of[told.client] = node
        self.seen.add(node)

    def check_division(self, told: Told) -> None:
        """Raise ValueError where the node's images are not a part of the federation that the plan, and the other nodes,
        stand for."""
        here = division_of(self.plan.setting, self.plan.seed)
        of_others = next(iter(self.told.values()), told)
        here["digest"] = of_others.division.get("digest")
        different = differences(told.division, here)
        if different:
            raise ValueError(f"the part of client {told.client} is of another federation: {', '.join(different)}")

    def wait_for_all(self) -> None:
        """Return once every client has a node. NodesMissing where that takes longer than the plan allows."""
        clients = self.plan.setting.clients
        end = monotonic() + self.plan.wait_for_nodes
        while len(self.told) < clients:
            online = self.look()
            missing = [k for k in range(clients) if k not in self.told]
            if missing and monotonic() > end:
                names = ", ".join(str(k) for k in missing[:10])
                raise NodesMissing(
                    f"clients={clients} and {len(online)} nodes: after {self.plan.wait_for_nodes:g} seconds there is "
                    f"none for {len(missing)} clients ({names}{', ...' if missing[10:] else ''}). A simulation has as "
                    f"many as are asked for: flwr run . --federation-config 'num-supernodes={clients}'"
                )
            if missing:
                sleep(LONGEST_PAUSE)

    def federation(self) -> Federation:
        """The federation as the server knows it: how many images each client has, of what shape and classes. Every
        image is the same blank one."""
        told = self.told[0]
        shape = told.in_shape
        blank = torch.zeros(1, *shape, dtype=torch.uint8)
        of_channels = torch.ones(shape[0], 1, 1)
        nobody = torch.zeros(1, dtype=torch.int64)
        data = Dataset(told.name, blank, nobody, told.classes, 0 * of_channels, of_channels)
        clients = range(self.plan.setting.clients)
        train = tuple(nobody.expand(self.told[k].train).clone() for k in clients)
        test = tuple(nobody.expand(self.told[k].test).clone() for k in clients)
        return Federation(data, train, test)

    def ask(
        self, kind: str, orders: Mapping[int, Order], downloads: Mapping[int, Any], group: str
    ) -> dict[int, Message]:
        """Send each client its order, and what the server sends with it: the answers that came in time, by client. A
        node that another one has taken the place of is not waited for: it was started anew, and has forgotten."""
        online = self.look()
        client_at = {self.node_of[k]: k for k in orders if self.node_of[k] in online}
        contents = {node: order_content(orders[k], downloads[k]) for node, k in client_at.items()}

        def replaced() -> set[int]:
            self.look()
            return {node for node, k in client_at.items() if self.node_of[k] != node}

        answers = exchange(self.grid, contents, kind, group, self.plan.deadline, replaced)
        return {client_at[node]: answer for node, answer in answers.items()}


def outcome_of(answer: Message | None, k: int, t: int) -> Outcome:
    """What became of client k in round t, by its node's answer. None: there was none in time, and the client counts as
    away: the server goes on as if it had not trained, and so will the client."""
    if answer is None:
        return Outcome(AWAY)
    where = f"client {k}, round {t}"
    if answer.has_error():
        if answer.error.code in NOT_REACHED:
            return Outcome(AWAY)
        return Outcome(REFUSED, error=NodeError(f"{where}: {answer.error.reason}"))
    try:
        result: ClientResult = result_from(answer.content, t)
    except ValueError as error:
        return Outcome(REFUSED, error=NodeError(f"{where}: {error}"))
    return Outcome(ARRIVED, result)
