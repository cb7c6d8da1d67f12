"""A client's part of a federation: all that a node has of the images, in its memory or as one file on its disk.

`write_parts` makes a federation and writes a file for each client. Each goes to its node; no node has another's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..data import Dataset
from ..errors import is_whole_number
from ..files import write_whole
from ..partition import Federation
from ..studies.experiment import Setting
from ..tensors import Tensors

FORMAT = 1  # of a part's file; a file of another format is refused
# The fields of a Setting that say who holds which images.
DIVIDING = (
    "dataset",
    "partition",
    "alpha",
    "classes_per_client",
    "share",
    "sigma",
    "min_images",
    "clients",
    "test_share",
    "per_client",
    "keep_test",
    "evaluate_on",
)


@dataclass(frozen=True, eq=False)
class ClientPart:
    """Client `client`'s part.

    federation: all clients, of whom only this one's images need be there; the others may have none. division: what
    made it, so that a run can tell a part of another federation: the fields in DIVIDING, the seed and the whole
    federation's digest.
    """

    client: int
    federation: Federation
    division: dict[str, Any]


def division_of(setting: Setting, seed: int) -> dict[str, Any]:
    """What says who holds which images, by name."""
    return {name: getattr(setting, name) for name in DIVIDING} | {"seed": seed}


def part_in_memory(setting: Setting, seed: int, client: Any) -> ClientPart:
    """The part of a node that makes the whole federation itself, as simulated ones do. ValueError where it cannot be
    made, or has no such client."""
    federation = federation_once(setting, seed)
    check_client(client, len(federation))
    division = division_of(setting, seed) | {"digest": federation.digest}
    return ClientPart(client, federation, division)


@lru_cache(maxsize=1)
def federation_once(setting: Setting, seed: int) -> Federation:
    """The federation of this setting, made once for all simulated nodes of a process."""
    return setting.federation(seed)


def check_client(client: Any, clients: int) -> None:
    """Raise ValueError unless it is the number of one of so many clients."""
    if not is_whole_number(client) or not 0 <= client < clients:
        raise ValueError(f"partition-id={client!r} must be a client's number, from 0 to {clients - 1}")


# --- As a file ---


def part_path(folder: Path, client: int) -> Path:
    """Where a client's part lies.

    Examples
    --------
    >>> part_path(Path("parts"), 3).name
    'client-0003.safetensors'
    """
    return folder / f"client-{client:04}.safetensors"


def write_parts(setting: Setting, seed: int, folder: Path) -> list[Path]:
    """Divide the data set and write a file for each client. ValueError where the setting cannot be; OSError where a
    file cannot be written."""
    federation = setting.federation(seed)
    division = division_of(setting, seed) | {"digest": federation.digest}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for client in range(len(federation)):
        path = part_path(folder, client)
        write_part(path, federation, client, division)
        paths.append(path)
    return paths


def write_part(path: Path, federation: Federation, client: int, division: dict[str, Any]) -> None:
    """Write what one client holds, and nothing of the others: its images and labels, the training ones first."""
    data = federation.data
    index = torch.cat([federation.train[client], federation.test[client]])
    tensors = {"x": data.x[index], "y": data.y[index], "mean": data.mean, "std": data.std}
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    about = {
        "format": FORMAT,
        "client": client,
        "train": len(federation.train[client]),
        "name": data.name,
        "classes": data.classes,
        "division": division,
    }
    metadata = {"part": json.dumps(about)}
    write_whole(path, lambda beside: save_file(on_cpu, beside, metadata))


def read_part(path: Path) -> ClientPart:
    """The part in this file. ValueError where it holds none, or not all of one; OSError where it cannot be read."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; python -m fedecouple_lite partitions writes them")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["part"])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no dictionary)
        if about["format"] != FORMAT:
            raise ValueError(f"it has format {about['format']}; this version of the library reads {FORMAT}")
        return part_from(about, tensors)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the file of a client's part: {error}") from None


def part_from(about: dict[str, Any], tensors: Tensors) -> ClientPart:
    """The part that a file's content stands for. ValueError, KeyError or TypeError where it is none."""
    x, y = tensors["x"], tensors["y"]
    client, clients, train = about["client"], about["division"]["clients"], about["train"]
    classes = tuple(about["classes"])
    check_client(client, clients)
    if x.ndim != 4 or y.shape != x.shape[:1] or not 0 <= train <= len(y):
        raise ValueError(f"images {tuple(x.shape)}, labels {tuple(y.shape)} and {train} for training do not fit")
    within = (y >= 0) & (y < len(classes))
    if y.dtype != torch.int64 or not bool(within.all()):
        raise ValueError(f"its labels must be whole numbers from 0 to {len(classes) - 1}")
    data = Dataset(about["name"], x, y, classes, tensors["mean"], tensors["std"])
    training = torch.arange(train)
    testing = torch.arange(train, len(y))
    federation = Federation(data, only(training, client, clients), only(testing, client, clients))
    return ClientPart(client, federation, about["division"])


def only(index: Tensor, client: int, clients: int) -> tuple[Tensor, ...]:
    """One client's image indices, and none for the others."""
    nobody: Sequence[Tensor] = [index[:0]] * clients
    return (*nobody[:client], index, *nobody[client + 1 :])
