"""Named tensors as Flower's arrays, and back. Nothing is pickled, on neither side.

Flower's Array holds what ``numpy.save`` writes, with its dtype and shape, and reads it with pickles forbidden.
"""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from ..tensors import Tensors

# What has an array of NumPy's with the same bytes.
DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


def as_arrays(tensors: Tensors) -> ArrayRecord:
    """Tensors of any shape, also () and empty ones, as Flower's arrays by the same names. ValueError for a dtype that
    NumPy does not have, such as bfloat16."""
    record = ArrayRecord()
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise ValueError(f"tensors: {name} is in {tensor.dtype}, which Flower's arrays cannot hold")
        on_cpu = tensor.detach().cpu().contiguous()
        record[name] = Array(on_cpu.numpy())
    return record


def as_tensors(record: ArrayRecord, device: str = "cpu") -> Tensors:
    """The tensors that `as_arrays` has put there, on this device, to the bit.

    ValueError, naming the array, where one is none of NumPy's, or not what it says it is: a record may come from
    anybody.
    """
    return {name: as_tensor(name, array).to(device) for name, array in record.items()}


def as_tensor(name: str, array: Array) -> Tensor:
    """One tensor, on the CPU, in memory of its own."""
    try:
        values = array.numpy()
        tensor = torch.from_numpy(np.ascontiguousarray(values).reshape(values.shape))
    except (TypeError, ValueError, EOFError, OSError) as error:
        raise ValueError(f"record: {name} cannot be read as an array ({error})") from None
    said = (array.dtype, tuple(array.shape))
    held = (str(values.dtype), tuple(values.shape))
    if said != held:
        raise ValueError(f"record: {name} says that it is {said}, and holds {held}")
    return tensor.clone()  # where PyTorch puts its own tensors: results may depend on the alignment, in the last bit
