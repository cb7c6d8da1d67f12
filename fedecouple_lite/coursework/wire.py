"""Plain data as bytes and back. Reading runs no code: what a student's process sends can do nothing but be wrong.

Numbers, strings, truth values, None, tensors, arrays, and lists, tuples and dictionaries of these. The layout is JSON;
the numbers of tensors travel as safetensors.
"""

from __future__ import annotations

import json
import os
from multiprocessing.connection import Connection
from socket import SHUT_RDWR, socket
from threading import Event, Timer
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

LARGEST = 64 * 2**20  # bytes of one message: more than any exercise's result
LARGEST_LAYOUT = 2 * 2**20  # of these, without the numbers of tensors
DEEPEST = 20  # lists within lists
HEADER = 8  # bytes that say how long the layout is

Layout = Any  # what JSON can hold


class NotPlain(ValueError):
    """A value that cannot travel, in words."""


def pack(value: Any) -> bytes:
    """`value` as bytes; NotPlain where it is, or holds, something else than plain data."""
    tensors: dict[str, Tensor] = {}
    layout = json.dumps(_layout_of(value, tensors, depth=0)).encode()
    if len(layout) > LARGEST_LAYOUT:
        raise NotPlain(f"a result of {len(layout) / 2**20:.0f} MiB beside its arrays and tensors: that is too much")
    numbers = save(tensors) if tensors else b""
    message = len(layout).to_bytes(HEADER, "big") + layout + numbers
    if len(message) > LARGEST:
        raise NotPlain(f"a result of {len(message) / 2**20:.0f} MiB; at most {LARGEST / 2**20:.0f} are looked at")
    return message


def received(connection: Connection, seconds: float) -> bytes:
    """The next message; TimeoutError where it is not there, as a whole, in so many seconds. EOFError or OSError where
    the line is closed."""
    seconds = max(0.0, seconds)
    line = socket(fileno=os.dup(connection.fileno()))
    too_late = Event()

    def hang_up() -> None:
        too_late.set()
        line.shutdown(SHUT_RDWR)  # whoever began a message and does not end it is not waited for

    watch = Timer(seconds, hang_up)
    watch.daemon = True
    try:
        if not connection.poll(seconds):
            raise TimeoutError
        watch.start()
        return connection.recv_bytes(LARGEST)
    except (OSError, EOFError):
        if too_late.is_set():
            raise TimeoutError from None
        raise
    finally:
        watch.cancel()
        line.close()


def unpack(message: bytes) -> Any:
    """What `pack` made bytes of. ValueError where they are no such bytes."""
    length = int.from_bytes(message[:HEADER], "big")
    try:
        if length > LARGEST_LAYOUT:
            raise ValueError("too long")
        layout = json.loads(message[HEADER : HEADER + length])
        numbers = message[HEADER + length :]
        tensors = load(numbers) if numbers else {}
        return _value_of(layout, tensors)
    except Exception as error:  # whatever a broken message makes json, safetensors or us raise
        raise ValueError(f"no readable message: {type(error).__name__}") from None


def _layout_of(value: Any, tensors: dict[str, Tensor], depth: int) -> Layout:
    """What JSON can hold of `value`: [kind, content]. Tensors are put into `tensors`, under the name that stands for
    them."""
    if depth > DEEPEST:
        raise NotPlain(f"lists more than {DEEPEST} deep")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return ["plain", value]
    if isinstance(value, Tensor):
        return ["tensor", _put(value, tensors)]
    if isinstance(value, np.ndarray):
        return ["array", _put(_tensor_of(value), tensors)]
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, [_layout_of(item, tensors, depth + 1) for item in value]]
    if isinstance(value, dict):
        pairs = []
        for key, item in value.items():
            pairs.append([_layout_of(key, tensors, depth + 1), _layout_of(item, tensors, depth + 1)])
        return ["dict", pairs]
    raise NotPlain(f"{type(value).__name__}")


def _put(tensor: Tensor, tensors: dict[str, Tensor]) -> str:
    """Keep a copy of `tensor` under a new name, and return the name."""
    if tensor.is_complex() or tensor.layout != torch.strided:
        raise NotPlain(f"a tensor of {tensor.dtype}, {tensor.layout}")
    name = str(len(tensors))
    tensors[name] = tensor.detach().cpu().contiguous().clone()
    return name


def _tensor_of(array: np.ndarray) -> Tensor:
    """An array of numbers as a tensor; NotPlain for one of something else."""
    if array.dtype.kind not in "biuf":
        raise NotPlain(f"an array of {array.dtype}")
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(native.reshape(array.shape))


def _value_of(layout: Layout, tensors: dict[str, Tensor]) -> Any:
    """The value that a layout stands for."""
    kind, content = layout
    if kind == "plain":
        return content
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "list":
        return [_value_of(item, tensors) for item in content]
    if kind == "tuple":
        return tuple(_value_of(item, tensors) for item in content)
    if kind == "dict":
        return {_value_of(key, tensors): _value_of(item, tensors) for key, item in content}
    raise ValueError(f"no such kind: {kind!r}")
