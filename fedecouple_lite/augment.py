"""Random views of colour images: drawing a view and applying it are apart, so that all backends see the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PAD = 4  # pixels by which a view may be shifted, in each direction


def draw_crop_flip(rng: np.random.Generator, images: int) -> Tensor:
    """One view for each of so many images, (B, 3) int64: the crop's first row and column in the padded image, 0 to
    2 PAD, and 1 where it is mirrored."""
    corners = rng.integers(0, 2 * PAD + 1, (images, 2))
    mirrored = rng.integers(0, 2, (images, 1))
    return torch.from_numpy(np.concatenate([corners, mirrored], axis=1))


def crop_flip(images: Tensor, views: Tensor) -> Tensor:
    """Images (B, C, H, W), padded by PAD pixels of the mean colour, cut out and mirrored as `views` (B, 3) say.

    Examples
    --------
    >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> crop_flip(image, torch.tensor([[PAD, PAD, 1]]))[0, 0]  # not shifted, mirrored
    tensor([[2., 1., 0.],
            [5., 4., 3.],
            [8., 7., 6.]])
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (PAD, PAD, PAD, PAD))
    image = torch.arange(len(images), device=images.device)[:, None, None]  # (B, 1, 1)
    rows = views[:, :1] + torch.arange(height, device=images.device)  # (B, H)
    columns = views[:, 1:2] + torch.arange(width, device=images.device)  # (B, W)
    columns = torch.where(views[:, 2:] == 1, columns.flip(1), columns)
    pixels = padded.movedim(1, 3)[image, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return pixels.movedim(3, 1)


# What is drawn for a batch; `crop_flip` applies it.
AUGMENTATIONS: dict[str, Callable[[np.random.Generator, int], Tensor]] = {"crop_flip": draw_crop_flip}
