"""Tensors that catch reads past their end."""

from __future__ import annotations

import torch
from torch import Tensor


def poisoned(tensor: Tensor, *, layout: str = "bhnd") -> Tensor:
    """The same values as a view into a larger tensor full of NaN (or a large int), gradient requirement kept.

    `layout` "bnhd" stores tokens before heads, as projections give them.
    """
    stored = tensor.detach().transpose(1, 2) if layout == "bnhd" else tensor.detach()
    fill = float("nan") if tensor.is_floating_point() else True if tensor.dtype == torch.bool else 99
    large = torch.full([n + 2 for n in stored.shape], fill, dtype=tensor.dtype)
    inside = large[tuple(slice(1, n + 1) for n in stored.shape)]
    inside.copy_(stored)
    view = inside.transpose(1, 2) if layout == "bnhd" else inside
    return view.requires_grad_(tensor.requires_grad)
