"""What runs at the server: Flower's ServerApp, which goes through the library's rounds with clients on nodes.

A round is the engine's: its cohort, its faults and defences, its inspection of uploads, its sum in order of clients,
its record. Only two things are done elsewhere, training and testing. The server never holds a client's tensors; in
their place in the State is the number of the last round that it took from the client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from flwr.app import Context, MessageType
from flwr.serverapp import Grid, ServerApp

from .. import __version__
from ..checkpoint import Checkpoints, remove_checkpoints, save_state
from ..defence import check_defences
from ..engine import (
    Forms,
    Hits,
    State,
    accuracies_from,
    aggregate,
    check_arguments,
    check_origin,
    check_server,
    cohort_size,
    cost_of_round,
    downloads_of,
    draw_cohort,
    has_model,
    inspect,
    next_state,
    start,
)
from ..faults import Outcome, after_training, arrived, before_training, check_faults, check_outcomes, kept, report
from ..files import check_writable, write_whole
from ..methods import FedAvg
from ..models import DecoupledNet
from ..partition import Federation
from ..studies.experiment import as_json, digest_of
from ..studies.fingerprints import code_digest, library_digest
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors
from .messages import KEPT_ROUND, Order, hits_from
from .nodes import LOG, Nodes, outcome_of
from .plan import Plan, plan_of

FORMAT = 1  # of a run's file
NO_HITS = Hits(0, 0, 0, 0)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run configuration says."""
    run_plan(grid, plan_of(context.run_config))


def run_plan(grid: Grid, plan: Plan) -> dict[str, State]:
    """Run the plan's methods one after the other: the last state of each, by name. A method whose run had finished
    before, and is resumed, is not there."""
    check_writable(plan.out / "run.json")
    nodes = Nodes(grid, plan)
    nodes.wait_for_all()
    states = {}
    for name, method in plan.methods.items():
        state = run_method(nodes, plan, name, method)
        if state is not None:
            states[name] = state
    return states


class ServerForms(Forms):
    """What the uploads of a run must look like, found out where no client's tensors are: by those of a client that
    would join now, which have the same form."""

    def __init__(self, method: FedAvg, net: DecoupledNet, federation: Federation, beginning: State):
        super().__init__(method, net, federation)
        self.beginning = beginning

    def of_client(self, state: State, k: int) -> dict[str, Any]:
        newcomers = replace(state, clients=self.beginning.clients, joined=frozenset())
        return super().of_client(newcomers, k)


def run_method(nodes: Nodes, plan: Plan, name: str, method: FedAvg) -> State | None:
    """Run one method to its end, or on from its newest checkpoint, and write NAME.json, which tells of it, and
    NAME.state.safetensors, which holds the server's tensors (`checkpoint.load_state`). None where it had finished."""
    setting = plan.setting
    federation = nodes.federation()
    net = setting.net_of(federation.data)
    cohort = cohort_size(federation, setting.participation)
    check_arguments(
        net, federation, setting.rounds, plan.seed, setting.participation, setting.eval_every, setting.augment
    )
    check_faults(plan.faults, plan.min_uploads, len(federation), cohort)
    check_defences(plan.defences, method, cohort)

    depends_on = dependencies(nodes, plan, method, net)
    run = digest_of(depends_on)
    path = run_file(plan, name, run)
    check_writable(path)
    result = {"format": FORMAT, "digest": run, "label": name, **depends_on, "finished": False, "records": ()}
    beginning = start(method, net, federation, plan.seed)
    forms = ServerForms(method, net, federation, beginning)
    state = replace(beginning, clients=({KEPT_ROUND: torch.tensor(0)},) * len(federation))
    checkpoints = Checkpoints(path, depends_on, plan.checkpoint_every)
    saved: dict[int, State] = {}  # the states of checkpoints, by round
    has_checkpoints = plan.resume or plan.checkpoint_every is not None
    if plan.resume:
        if is_done(path, run):
            LOG.info("%s had finished already: every round is in %s", name, path)
            return None
        newest = checkpoints.latest()
        check_origin(newest, method, net, federation)
        if newest is not None:
            LOG.info("%s goes on after round %s", name, newest.round)
            state = newest
            saved[state.round] = state

    try:
        while state.round < setting.rounds:
            oldest = oldest_needed([state, *saved.values()])
            state = next_round(nodes, plan, name, method, net, federation, forms, run, state, oldest)
            result["records"] = state.records
            if has_checkpoints and state.round < setting.rounds:
                checkpoints.offer(state)
                saved[state.round] = state
                saved = {round: saved[round] for round in checkpoints.whole if round in saved}
            say(name, state, setting.rounds)
        result["finished"] = True
    finally:
        write_run(path, result)
    save_state(state, state_file(path), depends_on)
    remove_checkpoints(path)
    LOG.info("%s: every round is in %s", name, path)
    return state


def next_round(
    nodes: Nodes,
    plan: Plan,
    name: str,
    method: FedAvg,
    net: DecoupledNet,
    federation: Federation,
    forms: ServerForms,
    run: str,
    state: State,
    oldest: Sequence[int],
) -> State:
    """The state after one round more. oldest: for each client, the round before which nobody will go on from."""
    setting, seed = plan.setting, plan.seed
    began = perf_counter()
    t = state.round + 1
    cohort = draw_cohort(federation, setting.participation, seed, t)
    absent = before_training(plan.faults, seed, t, cohort)
    present = [k for k in cohort if k not in absent]
    sent = train_on_nodes(nodes, method, state, present, name, run, oldest)
    outcomes = absent | after_training(plan.faults, seed, t, sent, downloads_of(method, state, sent))
    outcomes = inspect(method, state, outcomes, forms)
    check_outcomes(method, outcomes, plan.min_uploads, t)
    server = aggregate(method, net, federation, state.server, arrived(outcomes), plan.defences)
    check_server(method, server, t)
    state = next_state(state, server, kept(outcomes))
    if t % setting.eval_every == 0 or t == setting.rounds:
        costs = cost_of_round(method, server, kept(outcomes))
        costs["seconds"] = perf_counter() - began  # of training, and of what travels for it
        record = {"round": t} | costs | test_on_nodes(nodes, federation, method, state, forms.beginning, name, run)
        record["faults"] = report(outcomes)
        state = replace(state, records=(*state.records, record))
    return state


def kept_round(state: State, k: int) -> int:
    """The last round that the server took from client k; 0 where it has never taken part."""
    return int(state.clients[k][KEPT_ROUND])


def oldest_needed(states: Sequence[State]) -> list[int]:
    """For each client the earliest round that one of these states goes on from."""
    clients = range(len(states[0].clients))
    return [min(kept_round(state, k) for state in states) for k in clients]


def train_on_nodes(
    nodes: Nodes, method: FedAvg, state: State, present: Sequence[int], name: str, run: str, oldest: Sequence[int]
) -> dict[int, Outcome]:
    """One round of these clients on their nodes: what became of each, in order of clients."""
    t = state.round + 1
    orders = {k: Order(name, run, t, kept_round(state, k), oldest[k]) for k in present}
    downloads = {k: method.send(state.server, k) for k in present}
    answers = nodes.ask(MessageType.TRAIN, orders, downloads, f"{name} {t}")
    return {k: outcome_of(answers.get(k), k, t) for k in present}


def test_on_nodes(
    nodes: Nodes, federation: Federation, method: FedAvg, state: State, beginning: State, name: str, run: str
) -> dict[str, Any]:
    """What `engine.evaluate` says after a round, each client tested on its node. A client whose node does not answer
    has no accuracy, as one without test images has none."""
    t = state.round
    clients = range(len(federation))
    downloads = {k: method.send(state.server, k) for k in clients}
    of_server = has_model(state.server)
    sends_all = all(gets_the_model(state.server, download, beginning.server) for download in downloads.values())
    orders = {k: Order(name, run, t, kept_round(state, k), 0, of_server and sends_all) for k in clients}
    answers = nodes.ask(MessageType.EVALUATE, orders, downloads, f"{name} {t}, test")
    hits, sizes = [], []
    for k in clients:
        answer = answers.get(k)
        has_answered = answer is not None and not answer.has_error()
        if answer is not None and answer.has_error():
            LOG.warning("Client %s is not tested after round %s: %s", k, t, answer.error.reason)
        hits.append(hits_from(answer.content) if answer is not None and has_answered else NO_HITS)
        sizes.append(len(federation.test[k]) if has_answered else 0)
    figures = accuracies_from(state, hits, sizes)
    if not sends_all:  # nobody but the server knows its model, and it has no images
        figures["global"] = float("nan")
    return figures


def gets_the_model(server: Tensors, download: Tensors, beginning: Tensors) -> bool:
    """Whether a client can put together the server's own model: all of it is in what is sent, or is still what it was
    in the `beginning`, which every node knows from the seed."""
    known = {**beginning, **download}
    model = {name: tensor for name, tensor in server.items() if name.startswith((EXTRACTOR, CLASSIFIER))}
    return all(name in known and torch.equal(tensor, known[name]) for name, tensor in model.items())


# --- What a run leaves ---


def dependencies(nodes: Nodes, plan: Plan, method: FedAvg, net: DecoupledNet) -> dict[str, Any]:
    """What a run on Flower depends on, as `experiment.dependencies` has it: the images are there by the digest that
    their nodes name."""
    depends_on = {
        "method": type(method).__name__,
        "hyper-parameter": asdict(method),
        "setting": asdict(plan.setting),
        "seed": plan.seed,
        "data set": nodes.told[0].division.get("digest"),
        "net": net.structure,
        "code of method": code_digest(type(method), vars(method)),
        "faults": repr(plan.faults),
        "defences": repr(plan.defences),
        "version of the library": [__version__, library_digest()],
    }
    return as_json(depends_on)


def run_file(plan: Plan, name: str, digest: str) -> Path:
    """Where a run's file lies."""
    setting = plan.setting
    return plan.out / f"{name}-{Path(setting.dataset).stem}-{setting.partition}-{plan.seed}-{digest}.json"


def state_file(path: Path) -> Path:
    """Where the state after a run's last round lies, beside its file."""
    return path.with_name(path.name.removesuffix(".json") + ".state.safetensors")


def is_done(path: Path, digest: str) -> bool:
    """Whether this run has finished before."""
    try:
        result = json.loads(path.read_text())
        return bool(result["finished"]) and result["digest"] == digest and state_file(path).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_run(path: Path, result: Mapping[str, Any]) -> None:
    """Write a run's file, as JSON."""
    text = json.dumps(as_json(result), indent=1) + "\n"
    write_whole(path, lambda beside: beside.write_text(text))


def say(name: str, state: State, rounds: int) -> None:
    """One line in Flower's log about the round."""
    words = ""
    last = state.records[-1] if state.records else None
    if last is not None and last["round"] == state.round:
        words = f": personal {last['personal']:.3f}, global {last['global']:.3f}"
    LOG.info("%s, round %s of %s%s", name, state.round, rounds, words)
