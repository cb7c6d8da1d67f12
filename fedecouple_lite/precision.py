"""How exactly an extractor computes: in float32, or with products of numbers that are rounded to bfloat16.

bfloat16 is float32 with 8 bits of precision in place of 24. Processors with units for it multiply it several times as
fast. Only the extractor's pass over the images, forward and back, is computed in it (`torch.autocast`): weights and
their momentum, features as others see them, the classifier, losses, anchors and the server's means stay float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from time import perf_counter

import torch

from .errors import require

PRECISIONS = ("float32", "bf16")
ENOUGH = 0.8  # of float32's time: what bfloat16 may take at most, to be worth its rounding
SIDE = 512  # of the matrices that are multiplied to find that out
TRIES = 5


def products_in(precision: str, device_type: str) -> AbstractContextManager[object]:
    """In between, products are formed in this precision on devices of this type, such as "cpu"."""
    if precision == "bf16":
        return torch.autocast(device_type, torch.bfloat16)
    return nullcontext()


def check_precision(precision: str, like: torch.Tensor) -> None:
    """Raise ValueError for a precision that is none of PRECISIONS, or is not one for numbers of this tensor's dtype, or
    that its device is not fast at."""
    require(precision in PRECISIONS, "precision", precision, f"one of {', '.join(PRECISIONS)}")
    if precision == "float32":
        return
    require(like.dtype == torch.float32, "precision", precision, f"float32 for images in {like.dtype}")
    share = share_of_float32s_time(like.device.type)
    if share > ENOUGH:
        raise ValueError(
            f"precision={precision!r} is for processors that are fast at it; on this one products take {share:.1f} "
            "times as long as in float32, which is the precision to use here"
        )


@cache
def share_of_float32s_time(device_type: str) -> float:
    """How long bfloat16's products take, over float32's: measured, once for each type of device and process."""
    return seconds_of_a_product(torch.bfloat16, device_type) / seconds_of_a_product(torch.float32, device_type)


def seconds_of_a_product(dtype: torch.dtype, device_type: str) -> float:
    """Seconds that two matrices of this dtype take to be multiplied, the fastest of some tries: others may use the
    processor meanwhile."""
    matrix = torch.ones(SIDE, SIDE, dtype=dtype, device=device_type)
    matrix @ matrix  # the first time more is done
    seconds = []
    for _ in range(TRIES):
        began = perf_counter()
        (matrix @ matrix)[0, 0].item()  # a GPU has to be waited for
        seconds.append(perf_counter() - began)
    return min(seconds)
