"""What a node keeps between rounds: its client's tensors, which no message ever holds.

They are in Flower's `context.state`, which a SuperNode forgets when it is restarted; so a node with a disk has them
there, too. There is a copy for each round that may still be gone on from: the server may refuse what a client has
sent, never get it, or be set back to a checkpoint, and says with each order which copy counts.
"""

from __future__ import annotations

import re
from pathlib import Path

from flwr.app import ArrayRecord, RecordDict
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from ..files import write_whole
from ..tensors import Tensors
from .arrays import as_arrays, as_tensors


class NotKept(ValueError):
    """A client's tensors are asked for that its node does not have."""


def key_of(run: str, round: int) -> str:
    """The name of a run's copy after this round.

    Examples
    --------
    >>> key_of("89abcdef01234567", 3)
    '89abcdef01234567.00003'
    """
    return f"{run}.{round:05}"


def round_of(run: str, key: str) -> int | None:
    """The round of a copy by its name; None where it is none of this run's."""
    match = re.fullmatch(re.escape(run) + r"\.(\d{5,})", key)
    return None if match is None else int(match[1])


def file_of(folder: Path, run: str, round: int) -> Path:
    """Where a copy lies on the disk."""
    return folder / f"{key_of(run, round)}.safetensors"


def remember(state: RecordDict, folder: Path | None, run: str, round: int, tensors: Tensors, oldest: int) -> None:
    """Keep the client's tensors after this round, and let go of the run's copies before round `oldest`.

    state: the node's own, which changes. folder: on the node's disk; None for a node without one. OSError where the
    disk does not take it.
    """
    state[key_of(run, round)] = as_arrays(tensors)
    for key in list(state):
        kept = round_of(run, key)
        if kept is not None and kept < oldest:
            del state[key]
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    on_cpu = {}
    for name, tensor in tensors.items():
        on_cpu[name] = tensor.detach().cpu().contiguous().clone()  # safetensors takes no views
    write_whole(file_of(folder, run, round), lambda beside: save_file(on_cpu, beside))
    for file in list(folder.iterdir()):
        kept = round_of(run, file.name.removesuffix(".safetensors"))
        if kept is not None and kept < oldest:
            file.unlink(missing_ok=True)


def recall(state: RecordDict, folder: Path | None, run: str, round: int, device: str = "cpu") -> Tensors:
    """The client's tensors as they were after this round, to the bit. NotKept where they are nowhere."""
    record = state.get(key_of(run, round))
    if isinstance(record, ArrayRecord):
        return as_tensors(record, device)
    if folder is None:
        raise NotKept(f"this node has no tensors of round {round}: it has no disk, and was restarted")
    path = file_of(folder, run, round)
    try:
        stored = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise NotKept(f"this node has no tensors of round {round} of this run ({error})") from None
    return {name: tensor.clone().to(device) for name, tensor in stored.items()}
