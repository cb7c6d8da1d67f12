"""A run's State as one file, and the checkpoints that a long run leaves on its way.

The file is one of safetensors: the server's tensors and every client's; in its metadata, as JSON, all else that a State
holds and what the run depends on; and a checksum over every byte. Nothing in it is ever unpickled, and nothing of it is
read before the checksum holds: a file that is cut short or altered is refused, not misread.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .engine import Origin, State
from .errors import is_whole_number, require
from .files import write_whole
from .tensors import Tensors

FORMAT = 1  # of a state's file; a file of another format is refused
LARGEST_HEADER = 100_000_000  # bytes; safetensors reads no larger one
KEPT = 2  # checkpoints of a run: its newest, and one before that should the newest be damaged
SECONDS = 30.0  # between checkpoints of a run that has not said after how many rounds it wants one
SHARE = 0.05  # of a run's time, at most, that goes into checkpoints of this kind

SERVER = "server"
CLIENTS = "clients"
CHECKSUM = re.compile(rb'"checksum"\s*:\s*"([0-9a-f]{64})"')  # no text inside the header has such quotes
ZEROS = "0" * 64  # what stands for the checksum while it is computed

# What a State holds beside tensors and what has a form of its own in a file: numbers and words.
PLAIN_FIELDS = tuple(
    field.name for field in fields(State) if field.name not in ("server", "clients", "records", "joined", "origin")
)

# What a run depends on, each thing by the name that a user knows it by: {"method": "FedRep", "seed": 0, ...}. What is
# in it can be written as JSON.
Dependencies = Mapping[str, Any]


class NotWhole(ValueError):
    """This file holds no state, or not all of it as it was written."""


class OfAnotherRun(ValueError):
    """This file holds the state of a run that depends on something else."""


class CheckpointWarning(UserWarning):
    """A checkpoint cannot be used, or could not be written; the run does without."""


# --- One file ---


def save_state(state: State, path: Path, depends_on: Dependencies) -> None:
    """Write all of the state, its records too, to `path`: whole or not at all.

    depends_on: what its run depends on; `load_state` asks for the same. A tensor that several clients share is stored
    once. ValueError where names, records and `depends_on` take more than LARGEST_HEADER bytes; OSError where the file
    cannot be written.
    """
    by_name = dict(named(state))
    stored_as = {}
    first_name: dict[int, str] = {}  # of a tensor, by its id
    for name, tensor in by_name.items():
        stored_as[name] = first_name.setdefault(id(tensor), name)
    stored = {}
    for name in first_name.values():
        on_cpu = by_name[name].detach().cpu().contiguous()
        stored[name] = on_cpu.clone()  # different tensors may still share memory, which a file cannot
    about = {
        "plain": {name: getattr(state, name) for name in PLAIN_FIELDS},
        "clients": len(state.clients),
        "joined": sorted(state.joined),
        "records": state.records,
        "origin": None if state.origin is None else asdict(state.origin),
        "depends_on": depends_on,
        "names": stored_as,  # in order, which a file does not keep
        "tensors": forms(stored),
    }
    metadata = {"format": str(FORMAT), "checksum": ZEROS, "about": json.dumps(about)}
    content = save(stored, metadata)
    header_end = end_of_header(content)
    if header_end > LARGEST_HEADER:
        raise ValueError(
            f"state after round {state.round} has {header_end:,} bytes of names and records; a file holds at most "
            f"{LARGEST_HEADER:,}: evaluate less often"
        )
    place = place_of_checksum(content)
    checksum = checksum_of(content).encode()
    pieces = (content[: place.start], checksum, memoryview(content)[place.stop :])

    def write(part: Path) -> None:
        with part.open("wb") as file:
            file.writelines(pieces)

    write_whole(path, write)


def named(state: State) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a state by the names that they have in a file: server/NAME, clients/K/NAME."""
    for name, tensor in state.server.items():
        yield f"{SERVER}/{name}", tensor
    for k, client in enumerate(state.clients):
        for name, tensor in client.items():
            yield f"{CLIENTS}/{k}/{name}", tensor


def forms(tensors: Tensors) -> dict[str, list[Any]]:
    """Dtype and shape of each tensor, as JSON gives them back."""
    return {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}


def end_of_header(content: bytes) -> int:
    """Where the tensors of a file of safetensors begin: after eight bytes, which say how long the header is, and it. At
    the end of the file, where it is shorter than that."""
    return min(8 + int.from_bytes(content[:8], "little"), len(content))


def place_of_checksum(content: bytes) -> slice:
    """Where in the bytes of a state's file its checksum stands. NotWhole where it does not."""
    match = CHECKSUM.search(content, 8, end_of_header(content))
    if match is None:
        raise NotWhole("it holds no checksum")
    return slice(*match.span(1))


def checksum_of(content: bytes) -> str:
    """SHA-256 of a state's file, with zeros in the checksum's own place: 64 hexadecimal digits."""
    place = place_of_checksum(content)
    whole = memoryview(content)
    digest = hashlib.sha256()
    for piece in (whole[: place.start], ZEROS.encode(), whole[place.stop :]):
        digest.update(piece)
    return digest.hexdigest()


class Read(NamedTuple):
    """What a state's file holds, its checksum found right: `about` as `save_state` makes it, and all of its bytes."""

    about: dict[str, Any]
    content: bytes


def read(path: Path) -> Read:
    """NotWhole where the file holds no state, or is not as it was written; OSError where it cannot be read."""
    content = path.read_bytes()
    try:
        place = place_of_checksum(content)
    except NotWhole as error:
        raise NotWhole(f"{path} is not the file of a state, or it is damaged: {error}") from None
    if content[place].decode() != checksum_of(content):
        raise NotWhole(f"{path} is damaged: it was cut short or altered after it had been written")
    # From here on every byte is as it was written by somebody who knew the checksum.
    try:
        header = json.loads(content[8 : end_of_header(content)])
        metadata = header["__metadata__"]
        format = metadata["format"]
        about = json.loads(metadata["about"])
    except (KeyError, TypeError, ValueError) as error:
        raise NotWhole(f"{path} is not the file of a state: {error!r}") from None
    if format != str(FORMAT):
        raise NotWhole(f"{path} has format {format}; this version of the library reads {FORMAT}")
    return Read(about, content)


def load_state(path: Path, depends_on: Dependencies, device: str = "cpu") -> State:
    """The state in this file, on this device, to the bit as it was saved.

    ValueError: NotWhole where the file holds no state, is cut short or altered, or is of another format; OfAnotherRun,
    which names the differences, where it stands for a run that does not depend on the same. OSError where the file
    cannot be read.
    """
    about, content = read(path)
    different = differences(about["depends_on"], depends_on)
    if different:
        raise OfAnotherRun(f"{path} is of another run: {', '.join(different)}")
    try:
        # Clones, which lie where PyTorch puts its own tensors: results may depend on the alignment, in the last bit.
        stored = {name: tensor.clone().to(device) for name, tensor in load(content).items()}
    except SafetensorError as error:
        raise NotWhole(f"{path} is not the file of a state ({error})") from None
    if forms(stored) != about["tensors"]:
        raise NotWhole(f"{path} does not hold the tensors that it says: their names, shapes or dtypes differ")
    server: Tensors = {}
    clients: list[Tensors] = [{} for _ in range(about["clients"])]
    for name, stored_name in about["names"].items():
        whose, _, rest = name.partition("/")
        if whose == SERVER:
            server[rest] = stored[stored_name]
        else:
            k, _, name_of_client = rest.partition("/")
            clients[int(k)][name_of_client] = stored[stored_name]
    return State(
        **about["plain"],
        server=server,
        clients=tuple(clients),
        records=tuple(about["records"]),
        joined=frozenset(about["joined"]),
        origin=None if about["origin"] is None else Origin(**about["origin"]),
    )


def holds_state(path: Path, depends_on: Dependencies) -> bool:
    """Whether this file holds, whole, a state of the run that depends on just this."""
    try:
        return not differences(read(path).about["depends_on"], depends_on)
    except (OSError, NotWhole):
        return False


def differences(there: Dependencies, here: Dependencies) -> list[str]:
    """What two runs do not have in common, in words; nothing where they are the same.

    Examples
    --------
    >>> differences({"setting": {"alpha": 0.1}, "seed": 0}, {"setting": {"alpha": 0.5}, "seed": 0})
    ['another setting (alpha 0.1, not 0.5)']
    >>> differences({"method": "FedAvg", "seed": 1}, {"method": "FedRep", "seed": 0})
    ['another method (FedAvg, not FedRep)', 'another seed (1, not 0)']
    """
    here = json.loads(json.dumps(here))  # as it would come out of a file
    words = []
    for name in dict.fromkeys([*here, *there]):
        before, now = there.get(name), here.get(name)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            common = [key for key in now if key in before and before[key] != now[key]]
            details = [f"{key} {before[key]}, not {now[key]}" for key in common]
        else:
            details = [f"{before}, not {now}"]
        words.append(f"another {name} ({'; '.join(details)})" if details else f"another {name}")
    return words


# --- A run's checkpoints ---


def checkpoint_path(run_file: Path, round: int) -> Path:
    """Where the checkpoint after this round lies: beside the run's own file.

    Examples
    --------
    >>> checkpoint_path(Path("runs/mine.json"), 12).name
    'mine.ckpt-00012.safetensors'
    """
    return run_file.with_name(f"{run_file.name.removesuffix('.json')}.ckpt-{round:05}.safetensors")


def checkpoints_of(run_file: Path) -> dict[int, Path]:
    """The checkpoints beside a run's file, whole or not, by round; the newest first. None where there is no folder."""
    name = re.escape(run_file.name.removesuffix(".json"))
    by_round = {}
    if run_file.parent.is_dir():
        for file in run_file.parent.iterdir():
            after = re.fullmatch(name + r"\.ckpt-(\d{5,})\.safetensors", file.name)
            if after is not None:
                by_round[int(after[1])] = file
    return dict(sorted(by_round.items(), reverse=True))


def remove_checkpoints(run_file: Path) -> None:
    """Remove the checkpoints beside a run's file: it is finished, or has diverged."""
    for file in checkpoints_of(run_file).values():
        file.unlink(missing_ok=True)


class Checkpoints:
    """The checkpoints of one run, beside its file: when one is due, and which is gone on from.

    run_file: the run's own file. depends_on: what the run depends on. every: rounds between checkpoints, >= 1; None: by
    time, after SECONDS, so that a short run writes none. keep: how many of the last ones stay, >= 1. A checkpoint that
    was asked for by `every` and cannot be written is an error, OSError; of one by time it is a CheckpointWarning, once,
    and the run goes on.
    """

    def __init__(self, run_file: Path, depends_on: Dependencies, every: int | None = None, keep: int = KEPT) -> None:
        good_every = every is None or (is_whole_number(every) and every >= 1)
        require(good_every, "checkpoint_every", every, "a whole number >= 1, or None")
        require(is_whole_number(keep) and keep >= 1, "keep", keep, "a whole number >= 1")
        self.run_file = run_file
        self.depends_on = depends_on
        self.every = every
        self.keep = keep
        self.whole: list[int] = []  # the rounds of those that are known to be this run's, and whole; the newest last
        self.pause = SECONDS
        self.last_time = perf_counter()
        self.has_warned = False

    def latest(self, device: str = "cpu") -> State | None:
        """The state of the newest checkpoint that is whole; None where there is none. One that is damaged is passed
        over, with a CheckpointWarning. OfAnotherRun where the newest whole one stands for another run."""
        for round, path in checkpoints_of(self.run_file).items():
            try:
                state = load_state(path, self.depends_on, device)
            except OfAnotherRun as error:
                raise OfAnotherRun(f"{error}. Delete it, or begin anew (without resume)") from None
            except FileNotFoundError:
                continue  # another process has finished this very run meanwhile
            except (OSError, NotWhole) as error:
                self._warn(f"{error}. It is passed over: the run goes on from the checkpoint before, or begins anew")
                continue
            self.whole = [round]
            return state
        return None

    def offer(self, state: State) -> None:
        """Save the state if a checkpoint is due after this round."""
        if self._is_due(state):
            self.save(state)

    def save(self, state: State) -> None:
        """Save the state, unless its round is saved already, and remove all checkpoints but this run's last ones."""
        if state.round in self.whole:
            return
        path = checkpoint_path(self.run_file, state.round)
        began = perf_counter()
        try:
            save_state(state, path, self.depends_on)
        except (OSError, ValueError) as error:
            if self.every is not None:
                raise
            if not self.has_warned:
                self._warn(f"{path} could not be written: {error}. The run goes on without it")
                self.has_warned = True
        else:
            self.whole = [*self.whole, state.round][-self.keep :]
            self._remove_others()
        self.last_time = perf_counter()
        self.pause = max(SECONDS, (self.last_time - began) / SHARE)

    def _is_due(self, state: State) -> bool:
        if self.every is not None:
            return state.round % self.every == 0
        return perf_counter() - self.last_time >= self.pause

    def _remove_others(self) -> None:
        """Among them those of an earlier run in the same place, now that this one has a checkpoint of its own."""
        for round, file in checkpoints_of(self.run_file).items():
            if round not in self.whole:
                file.unlink(missing_ok=True)

    def _warn(self, message: str) -> None:
        warnings.warn(message, CheckpointWarning, stacklevel=2)
