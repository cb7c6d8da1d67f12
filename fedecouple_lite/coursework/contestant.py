"""The process in which a student's method of a contest trains. It knows training images, and later test images without
labels; what it says is looked at in another process (see `contest`)."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..client import OneClient, run_phases
from ..engine import PREDICT, State, client_of, images_of, local_data
from ..engine import rounds as run_rounds
from ..methods import FedAvg
from ..models import DecoupledNet, net_for
from ..partition import Federation
from ..phases import Phases
from ..tensors import EXTRACTOR, Tensors
from . import wire

MEMORY = 4 * 2**30  # bytes
# What an import, torch or NumPy opens: code, archives of code, and what the system says of itself.
CODE = (
    ".py",
    ".pyc",
    ".so",
    ".pyi",
    "METADATA",
    "direct_url.json",
    "python311.zip",
    "python312.zip",
    "python313.zip",
    "python314.zip",
)
SYSTEM = ("/proc/", "/sys/", "/dev/")
PROGRAMS = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn")
SETTINGS = ("lr", "batch_size", "momentum", "weight_decay")  # of SGD: FedRep's for everybody


class Broken(Exception):
    """A rule that the method breaks, in words."""


def main(line: Connection) -> None:
    """Receive a task, train, say so, receive test images, return logits and steps. What goes wrong is said in words."""
    seen: list[str] = []
    with contextlib.suppress(EOFError, BrokenPipeError):
        task = pickle.loads(line.recv_bytes())
        limit_memory()
        answer: tuple[str, Any]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                answer = ("done", compete(task, line, seen))
        except Broken as error:
            answer = ("refused", str(error))
        except BaseException as error:
            answer = ("refused", f"it crashes: {type(error).__name__}: {error}{where(error)}")
        line.send_bytes(wire.pack(("refused", seen[0]) if seen else answer))


def compete(task: dict[str, Any], line: Connection, seen: list[str]) -> list[tuple]:
    """The task as `contest` sends it -> (logits of each client, steps in all) on every split."""
    torch.set_num_threads(1)
    federations: list[Federation] = task["federations"]
    data = federations[0].data
    net = net_for(data.in_shape, len(data.classes))
    refuse_files(seen)
    method = watched(method_in(task["source"]), net, task["lr"])
    states = []
    for federation, seed in zip(federations, task["seeds"], strict=True):
        *_, state = run_rounds(method, net, federation, rounds=task["rounds"], seed=seed, backend="loop")
        states.append(state)
    line.send_bytes(wire.pack(("refused", seen[0]) if seen else ("done", None)))
    images = pickle.loads(line.recv_bytes())
    entries = []
    for federation, state, seed, of_split in zip(federations, states, task["seeds"], images, strict=True):
        logits, steps = predictions(method, net, federation, state, seed, of_split)
        steps += sum(record["steps"] for record in state.records)
        entries.append((logits, steps))
    return entries


def predictions(
    method: FedAvg, net: DecoupledNet, federation: Federation, state: State, seed: int, images: list[Tensor]
) -> tuple[list[Tensor], int]:
    """Logits (n_i, C) of each client's images by its own model, and the gradient steps taken only to predict."""
    logits = []
    steps = 0
    for k, x in enumerate(images):
        download = method.send(state.server, k)
        client = client_of(method, state, k, download)
        phases = method.personalise()
        if phases:
            received = method.receive(client, download)
            of_client = local_data(federation, method, k, [seed, PREDICT, state.round], threading.Event())
            tuned = run_phases(phases, received, OneClient(method, net, download, of_client))
            client = tuned.tensors
            steps += int(tuned.steps)
        data = replace(federation.data, x=x, y=torch.zeros(len(x), dtype=torch.int64))
        pixels, _ = images_of(Federation(data, (), ()), torch.arange(len(x)))
        with torch.no_grad():
            logits.append(method.predict(net, client, download, pixels))
    return logits, steps


def method_in(source: str) -> FedAvg:
    """METHOD of a student's file; Broken where there is none."""
    module = ModuleType("my_method")
    sys.modules["my_method"] = module  # a dataclass looks its module up
    exec(compile(source, "my_method.py", "exec"), vars(module))
    method = getattr(module, "METHOD", None)
    if not isinstance(method, FedAvg):
        raise Broken("my_method.py must set METHOD to an instance of a subclass of FedAvg")
    return method


def watched(method: FedAvg, net: DecoupledNet, lr: float) -> FedAvg:
    """The same method with FedRep's SGD, whose phases and uploads are looked at; Broken where they are not allowed."""
    kind = type(method)
    shapes = {name: tensor.shape for name, tensor in net.init(0).items() if name.startswith(EXTRACTOR)}

    def phases(self: FedAvg) -> Phases:
        return with_usual_steps(kind.phases(self), lr)

    def personalise(self: FedAvg) -> Phases:
        return with_usual_steps(kind.personalise(self), lr)

    def aggregate(
        self: FedAvg,
        server: Tensors,
        uploads: Mapping[int, Tensors],
        sizes: Mapping[int, float],
    ) -> Tensors:
        for upload in uploads.values():
            check_upload(upload, shapes)
        return kind.aggregate(self, server, uploads, sizes)

    hooks = {"phases": phases, "personalise": personalise, "aggregate": aggregate}
    looked_at = copy.copy(method)
    object.__setattr__(looked_at, "__class__", type(kind.__name__, (kind,), hooks))
    usual = FedAvg(lr=lr)
    for setting in SETTINGS:
        object.__setattr__(looked_at, setting, getattr(usual, setting))
    return looked_at


def with_usual_steps(phases: Phases, lr: float) -> Phases:
    """The phases as they are; Broken where one has a step size of its own."""
    for phase in phases:
        own = getattr(phase, "lr", None)
        if own is not None and own != lr:
            raise Broken(f"a phase has the step size {own}; the contest's is {lr} for everybody")
    return phases


def check_upload(upload: Tensors, shapes: Mapping[str, torch.Size]) -> None:
    """Broken where a client sends something else than the extractor's tensors."""
    for name, tensor in upload.items():
        if name not in shapes:
            raise Broken(f"it transmits {name}; only the extractor's tensors may leave a client")
        if tensor.shape != shapes[name]:
            raise Broken(f"it transmits {name} with shape {tuple(tensor.shape)}, not {tuple(shapes[name])}")


def refuse_files(seen: list[str]) -> None:
    """From here on this process opens no file but code, no line, and starts no program. What it tries is noted in
    `seen`, for the error that it meets may be caught."""

    # Whatever the hook needs is bound here: what a module holds can be exchanged.
    def hook(
        event: str,
        arguments: tuple,
        note: Callable[[str], None] = seen.append,
        plain: Callable[[Any], str] = os.fsdecode,
        ends: Callable[..., bool] = str.endswith,
        begins: Callable[..., bool] = str.startswith,
        code: tuple[str, ...] = CODE,
        system: tuple[str, ...] = SYSTEM,
        programs: tuple[str, ...] = PROGRAMS,
    ) -> None:
        words = ""
        if event == "open" and type(arguments[0]) is not int:
            path = plain(arguments[0])
            if not ends(path, code) and not begins(path, system):
                words = f"it opens {path}: a method gets its images from the engine, and test images never"
        elif event in programs:
            words = f"it calls {event}: a method needs nothing outside of itself"
        if words:
            note(words)
            raise PermissionError(words)

    sys.addaudithook(hook)


def limit_memory() -> None:
    """Where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def where(error: BaseException) -> str:
    """The line of the student's file in which an error was met, in words; "" where in none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "my_method.py"]
    return f" (line {lines[-1]} of my_method.py)" if lines else ""
