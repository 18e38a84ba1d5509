"""Block tables: which tiles a `blocks` input lists, and whether a pair of rows lies in one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attncc.ir.expr import Size
from attncc.ir.spec import Spec, Table
from attncc.runtime.evaluate import Evaluator


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of one table in one call. Key blocks are numbered in row-major order of `keys`."""

    query_size: tuple[int, ...]
    key_size: tuple[int, ...]
    queries: tuple[int, ...]
    keys: tuple[int, ...]


def blocks_of(spec: Spec, table: Table, evaluator: Evaluator) -> Blocks:
    """How many blocks a table has along each axis: of rows, or of the grid's axes where its sizes are boxes."""
    sizes = evaluator.sizes
    query_size = tuple(int(evaluator.scalar(e)) for e in table.query_size)
    key_size = tuple(int(evaluator.scalar(e)) for e in table.key_size)
    if len(query_size) == 1 or spec.grid is None:
        lengths: tuple[int, ...] = (sizes["queries"],)
        key_lengths: tuple[int, ...] = (sizes["keys"],)
    else:
        lengths = tuple(sizes[f"queries.{axis}"] for axis in spec.grid.queries)
        key_lengths = tuple(sizes[f"keys.{axis}"] for axis in spec.grid.keys)
    return Blocks(
        query_size,
        key_size,
        tuple(-(-n // size) for n, size in zip(lengths, query_size, strict=True)),
        tuple(-(-n // size) for n, size in zip(key_lengths, key_size, strict=True)),
    )


def is_valid_entry(entries: Tensor, blocks: Blocks) -> Tensor:
    """Which entries name a key block; the others list nothing."""
    return (entries >= 0) & (entries < math.prod(blocks.keys))


def listed(
    spec: Spec, table: Table, entries: Tensor, blocks: Blocks, coordinates: Mapping[str, Tensor], groups: int
) -> Tensor:
    """Whether each pair's tile is listed: bool, broadcasting over `[batch, heads, queries, keys]`.

    `entries` is `[…, query blocks…, listed]`, its leading axes any of batch and heads; `groups` is heads / kv_heads.
    Duplicates count once; -1 and every other invalid entry list nothing; tokens off the grid lie in no box.
    """
    leading = entries.shape[: entries.ndim - 1 - len(blocks.queries)]
    query_blocks, key_blocks = math.prod(blocks.queries), math.prod(blocks.keys)
    flat = entries.reshape(*leading, query_blocks, entries.shape[-1]).long()
    # One more column takes the invalid entries, and goes unread.
    flags = torch.zeros(*leading, query_blocks, key_blocks + 1, dtype=torch.bool, device=entries.device)
    flags = flags.scatter(-1, torch.where(is_valid_entry(flat, blocks), flat, key_blocks), True)
    for axis, extent in enumerate(table.extents[: len(leading)]):
        if extent == Size("kv_heads"):
            flags = flags.repeat_interleave(groups, dim=axis)
    flags = flags[(None,) * _missing_before(table, len(leading), "batch")]
    if flags.ndim == 3:
        flags = flags[:, None]
    row = _block_of(spec.grid.queries if spec.grid else (), "q", "row", blocks.query_size, blocks.queries, coordinates)
    col = _block_of(spec.grid.keys if spec.grid else (), "k", "k", blocks.key_size, blocks.keys, coordinates)
    row, col = row.expand(-1, -1, -1, 1), col.expand(-1, -1, 1, -1)
    batch = torch.arange(flags.shape[0], device=entries.device)[:, None, None, None]
    head = torch.arange(flags.shape[1], device=entries.device)[None, :, None, None]
    found = flags[batch, head, row.clamp(min=0), torch.where(col < 0, key_blocks, col)]
    return found & (row >= 0) & (col >= 0)


def _missing_before(table: Table, leading: int, name: str) -> int:
    return 0 if any(e == Size(name) for e in table.extents[:leading]) else 1


def _block_of(
    axes: tuple[str, ...],
    side: str,
    position: str,
    size: tuple[int, ...],
    counts: tuple[int, ...],
    coordinates: Mapping[str, Tensor],
) -> Tensor:
    """The number of the block of every row or key, -1 where it lies in none."""
    if len(size) == 1:
        return coordinates[position] // size[0]
    number = torch.zeros((), dtype=torch.int64)
    on_grid = torch.ones((), dtype=torch.bool)
    for axis, length, count in zip(axes, size, counts, strict=True):
        coordinate = coordinates[f"{side}.{axis}"]
        on_grid = on_grid.to(coordinate.device) & (coordinate >= 0)
        number = number.to(coordinate.device) * count + coordinate // length
    return torch.where(on_grid, number, -1)
