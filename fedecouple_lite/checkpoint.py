"""A run's State as one file of safetensors: the server's tensors, every client's, and who has taken part."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file

from .engine import State
from .files import write_whole
from .tensors import under

SERVER = "server/"


def of_client(k: int) -> str:
    """What the names of client k's tensors begin with in a file."""
    return f"clients/{k}/"


def save_state(state: State, path: Path, stands_for: str) -> None:
    """Write the state's tensors, its round and who has joined to `path`, whole or not at all. Records are not kept.

    stands_for: the digest of the run that it belongs to; `load_state` asks for the same one.
    """
    tensors = {SERVER + name: tensor for name, tensor in state.server.items()}
    for k, client in enumerate(state.clients):
        for name, tensor in client.items():
            tensors[of_client(k) + name] = tensor.clone()  # clients may share one, which a file cannot
    about = {
        "round": state.round,
        "clients": len(state.clients),
        "joined": sorted(state.joined),
        "names": list(tensors),  # in order, which a file does not keep
    }
    metadata = {"digest": stands_for, "about": json.dumps(about)}
    write_whole(path, partial(save_file, tensors, metadata=metadata))


def holds_state(path: Path, stands_for: str) -> bool:
    """Whether this file holds, whole, the state of the run with this digest."""
    return metadata_of(path).get("digest") == stands_for


def metadata_of(path: Path) -> dict[str, str]:
    """What a file of safetensors says of itself; nothing where it is not there, or damaged."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def load_state(path: Path, stands_for: str, device: str = "cpu") -> State:
    """The state in this file, on this device. ValueError where it is not there, damaged, or another run's."""
    if not holds_state(path, stands_for):
        raise ValueError(f"{path} does not hold this run's state: it is not there, damaged, or another run's")
    about = json.loads(metadata_of(path)["about"])
    # Not load_file, whose tensors lie in the file for as long as they live.
    stored = load(path.read_bytes())
    tensors = {name: stored[name].to(device) for name in about["names"]}
    clients = tuple(under(tensors, of_client(k)) for k in range(about["clients"]))
    return State(about["round"], under(tensors, SERVER), clients, joined=frozenset(about["joined"]))
