"""Tensors that catch reads past their end."""

from __future__ import annotations

import os

import torch
from torch import Tensor

DEVICE = os.environ.get("ATTNCC_TEST_DEVICE", "cpu")


def poisoned(tensor: Tensor, *, layout: str = "bhnd") -> Tensor:
    """The same values as a view into a larger tensor full of NaN (or a large int), on the device that tests run on.

    `layout` "bnhd" stores tokens before heads, as projections give them.
    """
    given = tensor.detach().to(DEVICE)
    stored = given.transpose(1, 2) if layout == "bnhd" else given
    fill = float("nan") if tensor.is_floating_point() else True if tensor.dtype == torch.bool else 99
    large = torch.full([n + 2 for n in stored.shape], fill, dtype=tensor.dtype, device=DEVICE)
    inside = large[tuple(slice(1, n + 1) for n in stored.shape)]
    inside.copy_(stored)
    view = inside.transpose(1, 2) if layout == "bnhd" else inside
    return view.requires_grad_(tensor.requires_grad)
