"""Skeleton: softmax attention, forward. One program for each tile of queries of one head."""

import triton
import triton.language as tl

from attncc.codegen.triton.leaves import (
    LN2,
    UNIT,
    UNIT_TO_NATURAL,
    full_key_tile,
    full_key_tiles,
    key_ranges,
    logits,
    mask,
    partial_key_tile,
    partial_key_tiles,
    reweighted,
    with_sinks,
)
from attncc.codegen.triton.tiles import load_rows, product, product_onto, store_row_values, store_rows


@triton.jit
def forward_kernel(
    query,
    key,
    value,
    out,
    lse,
    top,
    mass,
    scale,
    values,
    DIM: tl.constexpr,
    DIM_V: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_V: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`out` [batch, heads, queries, dim_v]; each [batch, heads, queries]: `lse` (natural log), and for backward `top`
    and `mass`, the largest logit and the sum of exp2 of all logits less it."""
    tiles = tl.cdiv(values.queries, BLOCK_Q)
    first = tl.program_id(0) % tiles * BLOCK_Q
    h = tl.program_id(0) // tiles % values.heads
    b = tl.program_id(0) // tiles // values.heads
    h_kv = h // (values.heads // values.kv_heads)
    last = tl.minimum(first + BLOCK_Q, values.queries) - 1
    row = tl.minimum(first + tl.arange(0, BLOCK_Q), last)

    query_tile = load_rows(query, b, h, first, values.queries, False, BLOCK_Q, DIM, WIDTH)
    row_max = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_Q], tl.float32)
    accumulator = tl.zeros([BLOCK_Q, WIDTH_V], tl.float32)

    ranges = key_ranges(b, h, first, last, BLOCK_K, values)
    for t in range(0, partial_key_tiles(ranges, BLOCK_K)):
        start, stop = partial_key_tile(t, ranges, BLOCK_K)
        lane = start + tl.arange(0, BLOCK_K)
        k = tl.minimum(lane, stop - 1)
        key_tile = load_rows(key, b, h_kv, start, values.keys, False, BLOCK_K, DIM, WIDTH)
        dot = product(query_tile, tl.trans(key_tile), PRECISION)
        live = mask(b, h, row[:, None], k[None, :], values) & (lane < stop)[None, :]
        logit = tl.where(live, logits(dot, scale, b, h, row[:, None], k[None, :], values), float("-inf"))
        row_max, row_sum, keep, weight = online_softmax(row_max, row_sum, logit)
        weight = reweighted(weight, b, h, row[:, None], k[None, :], values)
        value_tile = load_rows(value, b, h_kv, start, values.keys, False, BLOCK_K, DIM_V, WIDTH_V)
        accumulator = accumulator * keep[:, None]
        accumulator = product_onto(weight.to(value_tile.dtype), value_tile, accumulator, PRECISION)
    for t in range(0, full_key_tiles(ranges, BLOCK_K)):
        start = full_key_tile(t, ranges, BLOCK_K)
        k = start + tl.arange(0, BLOCK_K)
        key_tile = load_rows(key, b, h_kv, start, values.keys, True, BLOCK_K, DIM, WIDTH)
        dot = product(query_tile, tl.trans(key_tile), PRECISION)
        logit = logits(dot, scale, b, h, row[:, None], k[None, :], values)
        row_max, row_sum, keep, weight = online_softmax(row_max, row_sum, logit)
        weight = reweighted(weight, b, h, row[:, None], k[None, :], values)
        value_tile = load_rows(value, b, h_kv, start, values.keys, True, BLOCK_K, DIM_V, WIDTH_V)
        accumulator = accumulator * keep[:, None]
        accumulator = product_onto(weight.to(value_tile.dtype), value_tile, accumulator, PRECISION)

    before = row_max
    row_max, row_sum = with_sinks(row_max, row_sum, b, h, row, values)
    finite_max = tl.where(row_max == float("-inf"), 0.0, row_max)
    # A row that saw nothing has maximum -inf, sum 0 and accumulator 0: its output is 0 and its lse is -inf.
    store_row_values(top, row_max, b, h, first, values, BLOCK_Q)
    store_row_values(mass, row_sum, b, h, first, values, BLOCK_Q)
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)
    rescale = tl.exp2((before - finite_max) * UNIT) / row_sum
    store_rows(out, accumulator * rescale[:, None], b, h, first, values.queries, BLOCK_Q, DIM_V, WIDTH_V)
    natural_lse = row_max * UNIT_TO_NATURAL + tl.log2(row_sum) * LN2
    store_row_values(lse, natural_lse, b, h, first, values, BLOCK_Q)


@triton.jit
def online_softmax(row_max, row_sum, logit):
    """One step of the running softmax: new maximum and sum, what to keep of the old
    accumulator, and the new weights.

    A row may have seen no live key yet, even in a later tile: its maximum is -inf, and 0 stands in for it.
    """
    new_max = tl.maximum(row_max, tl.max(logit, 1))
    finite_max = tl.where(new_max == float("-inf"), 0.0, new_max)
    keep = tl.exp2((row_max - finite_max) * UNIT)
    weight = tl.exp2((logit - finite_max[:, None]) * UNIT)
    return new_max, row_sum * keep + tl.sum(weight, 1), keep, weight
