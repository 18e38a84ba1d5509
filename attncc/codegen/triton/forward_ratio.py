"""Skeleton: weights `f(s) / d(total, count)`, forward. One program for each tile of queries of one head."""

import triton
import triton.language as tl

from attncc.codegen.triton.leaves import (
    counted,
    denominator,
    full_count,
    full_key_tile,
    full_key_tiles,
    key_ranges,
    mask,
    numerator,
    partial_key_tile,
    partial_key_tiles,
    reweighted,
)
from attncc.codegen.triton.tiles import load_rows, product, product_onto, store_row_values, store_rows


@triton.jit
def forward_kernel(
    query,
    key,
    value,
    out,
    total,
    count,
    scale,
    values,
    NORMALIZED: tl.constexpr,
    DIM: tl.constexpr,
    DIM_V: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_V: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`out` [batch, heads, queries, dim_v]; where NORMALIZED, `total` and `count` [batch, heads, queries]."""
    tiles = tl.cdiv(values.queries, BLOCK_Q)
    first = tl.program_id(0) % tiles * BLOCK_Q
    h = tl.program_id(0) // tiles % values.heads
    b = tl.program_id(0) // tiles // values.heads
    h_kv = h // (values.heads // values.kv_heads)
    last = tl.minimum(first + BLOCK_Q, values.queries) - 1
    row = tl.minimum(first + tl.arange(0, BLOCK_Q), last)

    query_tile = load_rows(query, b, h, first, values.queries, False, BLOCK_Q, DIM, WIDTH)
    row_total = tl.zeros([BLOCK_Q], tl.float32)
    row_count = tl.zeros([BLOCK_Q], tl.int32)
    accumulator = tl.zeros([BLOCK_Q, WIDTH_V], tl.float32)

    ranges = key_ranges(b, h, first, last, BLOCK_K, values)
    for t in range(0, partial_key_tiles(ranges, BLOCK_K)):
        start, stop = partial_key_tile(t, ranges, BLOCK_K)
        lane = start + tl.arange(0, BLOCK_K)
        k = tl.minimum(lane, stop - 1)
        key_tile = load_rows(key, b, h_kv, start, values.keys, False, BLOCK_K, DIM, WIDTH)
        dot = product(query_tile, tl.trans(key_tile), PRECISION)
        live = mask(b, h, row[:, None], k[None, :], values) & (lane < stop)[None, :]
        live = tl.broadcast_to(live, [BLOCK_Q, BLOCK_K])
        # The mask comes after f: sigmoid(-inf) is 0, but f(-inf) in general is not.
        weight = tl.where(live, numerator(dot, scale, b, h, row[:, None], k[None, :], values), 0.0)
        row_total += tl.sum(weight, 1)
        live = counted(live, dot, scale, b, h, row[:, None], k[None, :], values)
        row_count += tl.sum(live.to(tl.int32), 1)
        weight = reweighted(weight, b, h, row[:, None], k[None, :], values)
        value_tile = load_rows(value, b, h_kv, start, values.keys, False, BLOCK_K, DIM_V, WIDTH_V)
        accumulator = product_onto(weight.to(value_tile.dtype), value_tile, accumulator, PRECISION)
    for t in range(0, full_key_tiles(ranges, BLOCK_K)):
        start = full_key_tile(t, ranges, BLOCK_K)
        k = start + tl.arange(0, BLOCK_K)
        key_tile = load_rows(key, b, h_kv, start, values.keys, True, BLOCK_K, DIM, WIDTH)
        dot = product(query_tile, tl.trans(key_tile), PRECISION)
        weight = numerator(dot, scale, b, h, row[:, None], k[None, :], values)
        row_total += tl.sum(weight, 1)
        row_count += full_count(dot, scale, b, h, row[:, None], k[None, :], values)
        weight = reweighted(weight, b, h, row[:, None], k[None, :], values)
        value_tile = load_rows(value, b, h_kv, start, values.keys, True, BLOCK_K, DIM_V, WIDTH_V)
        accumulator = product_onto(weight.to(value_tile.dtype), value_tile, accumulator, PRECISION)

    if NORMALIZED:
        divisor = denominator(row_total, row_count, b, h, row, values)
        # A zero denominator gives 0.
        inverse = tl.where(divisor == 0.0, 0.0, 1.0 / tl.where(divisor == 0.0, 1.0, divisor))
        accumulator = accumulator * inverse[:, None]
        store_row_values(total, row_total, b, h, first, values, BLOCK_Q)
        store_row_values(count, row_count.to(tl.float32), b, h, first, values, BLOCK_Q)
    store_rows(out, accumulator, b, h, first, values.queries, BLOCK_Q, DIM_V, WIDTH_V)
