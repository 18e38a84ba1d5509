"""Skeletons: backward over pairs. One kernel owns query tiles (dQ and learnable inputs), one owns key tiles (dK, dV).

Each recomputes the weights of its pairs from the dot product and the row's `norm` and `gain`, so nothing of the score
matrix is kept. Both serve every kind of weights: what differs is in the leaves `pair_weight` and `dscore`.
"""

import triton
import triton.language as tl

from attncc.codegen.triton.leaves import (
    dscaled,
    dscore,
    full_key_tile,
    full_key_tiles,
    full_row_tile,
    full_row_tiles,
    key_ranges,
    learn,
    mask,
    pair_weight,
    partial_key_tile,
    partial_key_tiles,
    partial_row_tile,
    partial_row_tiles,
    reweighted,
    row_ranges,
)
from attncc.codegen.triton.tiles import load_row_values, load_rows, product, product_onto, store_rows


@triton.jit
def dquery_kernel(
    query,
    key,
    value,
    grad_out,
    norm,
    gain,
    shift,
    dquery,
    grads,
    scale,
    values,
    LEARNS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_V: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_V: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`dquery` [batch, heads, queries, dim], and sums into the buffers of `grads`."""
    tiles = tl.cdiv(values.queries, BLOCK_Q)
    first = tl.program_id(0) % tiles * BLOCK_Q
    h = tl.program_id(0) // tiles % values.heads
    b = tl.program_id(0) // tiles // values.heads
    h_kv = h // (values.heads // values.kv_heads)
    last = tl.minimum(first + BLOCK_Q, values.queries) - 1
    row = tl.minimum(first + tl.arange(0, BLOCK_Q), last)[:, None]

    query_tile = load_rows(query, b, h, first, values.queries, False, BLOCK_Q, DIM, WIDTH)
    grad_tile = load_rows(grad_out, b, h, first, values.queries, False, BLOCK_Q, DIM_V, WIDTH_V)
    row_norm = load_row_values(norm, b, h, first, values, float("inf"), BLOCK_Q)[:, None]
    row_gain = load_row_values(gain, b, h, first, values, 0.0, BLOCK_Q)[:, None]
    row_shift = load_row_values(shift, b, h, first, values, 0.0, BLOCK_Q)[:, None]
    accumulator = tl.zeros([BLOCK_Q, WIDTH], tl.float32)

    ranges = key_ranges(b, h, first, last, BLOCK_K, values)
    for t in range(0, partial_key_tiles(ranges, BLOCK_K)):
        start, stop = partial_key_tile(t, ranges, BLOCK_K)
        lane = (start + tl.arange(0, BLOCK_K))[None, :]
        k = tl.minimum(lane, stop - 1)
        key_tile = load_rows(key, b, h_kv, start, values.keys, False, BLOCK_K, DIM, WIDTH)
        value_tile = load_rows(value, b, h_kv, start, values.keys, False, BLOCK_K, DIM_V, WIDTH_V)
        dot = product(query_tile, tl.trans(key_tile), PRECISION)
        dout = product(grad_tile, tl.trans(value_tile), PRECISION)
        live = mask(b, h, row, k, values) & (lane < stop)
        weight = tl.where(live, pair_weight(dot, scale, row_norm, row_gain, b, h, row, k, values), 0.0)
        dweight = reweighted(dout, b, h, row, k, values)
        ds = dscore(weight, dweight, row_gain, row_shift, dot, scale, b, h, row, k, values)
        ds = tl.where(live, ds, 0.0)
        if LEARNS:
            learn(ds, weight * dout, dot, scale, b, h, row, k, grads, values)
        ds = tl.where(live, dscaled(ds, dot, scale, b, h, row, k, values), 0.0)
        accumulator = product_onto(ds.to(key_tile.dtype), key_tile, accumulator, PRECISION)
    for t in range(0, full_key_tiles(ranges, BLOCK_K)):
        start = full_key_tile(t, ranges, BLOCK_K)
        k = (start + tl.arange(0, BLOCK_K))[None, :]
        key_tile = load_rows(key, b, h_kv, start, values.keys, True, BLOCK_K, DIM, WIDTH)
        value_tile = load_rows(value, b, h_kv, start, values.keys, True, BLOCK_K, DIM_V, WIDTH_V)
        dot = product(query_tile, tl.trans(key_tile), PRECISION)
        dout = product(grad_tile, tl.trans(value_tile), PRECISION)
        weight = pair_weight(dot, scale, row_norm, row_gain, b, h, row, k, values)
        dweight = reweighted(dout, b, h, row, k, values)
        ds = dscore(weight, dweight, row_gain, row_shift, dot, scale, b, h, row, k, values)
        if LEARNS:
            learn(ds, weight * dout, dot, scale, b, h, row, k, grads, values)
        ds = dscaled(ds, dot, scale, b, h, row, k, values)
        accumulator = product_onto(ds.to(key_tile.dtype), key_tile, accumulator, PRECISION)

    store_rows(dquery, accumulator * scale, b, h, first, values.queries, BLOCK_Q, DIM, WIDTH)


@triton.jit
def dkeyvalue_kernel(
    query,
    key,
    value,
    grad_out,
    norm,
    gain,
    shift,
    dkey,
    dvalue,
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
    """`dkey` [batch, kv_heads, keys, dim] and `dvalue` [batch, kv_heads, keys, dim_v], summed over the group's heads.

    Tiles are transposed, keys along axis 0: the weights then stand as the products need them.
    """
    tiles = tl.cdiv(values.keys, BLOCK_K)
    first = tl.program_id(0) % tiles * BLOCK_K
    h_kv = tl.program_id(0) // tiles % values.kv_heads
    b = tl.program_id(0) // tiles // values.kv_heads
    group = values.heads // values.kv_heads
    last = tl.minimum(first + BLOCK_K, values.keys) - 1
    k = tl.minimum(first + tl.arange(0, BLOCK_K), last)[:, None]

    key_tile = load_rows(key, b, h_kv, first, values.keys, False, BLOCK_K, DIM, WIDTH)
    value_tile = load_rows(value, b, h_kv, first, values.keys, False, BLOCK_K, DIM_V, WIDTH_V)
    dkey_tile = tl.zeros([BLOCK_K, WIDTH], tl.float32)
    dvalue_tile = tl.zeros([BLOCK_K, WIDTH_V], tl.float32)

    for member in range(0, group):
        h = h_kv * group + member
        ranges = row_ranges(b, h, first, last, BLOCK_Q, values)
        for t in range(0, partial_row_tiles(ranges, BLOCK_Q)):
            start, stop = partial_row_tile(t, ranges, BLOCK_Q)
            lane = (start + tl.arange(0, BLOCK_Q))[None, :]
            row = tl.minimum(lane, stop - 1)
            query_tile = load_rows(query, b, h, start, values.queries, False, BLOCK_Q, DIM, WIDTH)
            grad_tile = load_rows(grad_out, b, h, start, values.queries, False, BLOCK_Q, DIM_V, WIDTH_V)
            row_norm = load_row_values(norm, b, h, start, values, float("inf"), BLOCK_Q)[None, :]
            row_gain = load_row_values(gain, b, h, start, values, 0.0, BLOCK_Q)[None, :]
            row_shift = load_row_values(shift, b, h, start, values, 0.0, BLOCK_Q)[None, :]
            dot = product(key_tile, tl.trans(query_tile), PRECISION)
            dout = product(value_tile, tl.trans(grad_tile), PRECISION)
            live = mask(b, h, row, k, values) & (lane < stop)
            weight = tl.where(live, pair_weight(dot, scale, row_norm, row_gain, b, h, row, k, values), 0.0)
            factored = reweighted(weight, b, h, row, k, values).to(grad_tile.dtype)
            dvalue_tile = product_onto(factored, grad_tile, dvalue_tile, PRECISION)
            dweight = reweighted(dout, b, h, row, k, values)
            ds = dscore(weight, dweight, row_gain, row_shift, dot, scale, b, h, row, k, values)
            ds = tl.where(live, dscaled(ds, dot, scale, b, h, row, k, values), 0.0)
            dkey_tile = product_onto(ds.to(query_tile.dtype), query_tile, dkey_tile, PRECISION)
        for t in range(0, full_row_tiles(ranges, BLOCK_Q)):
            start = full_row_tile(t, ranges, BLOCK_Q)
            row = (start + tl.arange(0, BLOCK_Q))[None, :]
            query_tile = load_rows(query, b, h, start, values.queries, True, BLOCK_Q, DIM, WIDTH)
            grad_tile = load_rows(grad_out, b, h, start, values.queries, True, BLOCK_Q, DIM_V, WIDTH_V)
            row_norm = load_row_values(norm, b, h, start, values, float("inf"), BLOCK_Q)[None, :]
            row_gain = load_row_values(gain, b, h, start, values, 0.0, BLOCK_Q)[None, :]
            row_shift = load_row_values(shift, b, h, start, values, 0.0, BLOCK_Q)[None, :]
            dot = product(key_tile, tl.trans(query_tile), PRECISION)
            dout = product(value_tile, tl.trans(grad_tile), PRECISION)
            weight = pair_weight(dot, scale, row_norm, row_gain, b, h, row, k, values)
            factored = reweighted(weight, b, h, row, k, values).to(grad_tile.dtype)
            dvalue_tile = product_onto(factored, grad_tile, dvalue_tile, PRECISION)
            dweight = reweighted(dout, b, h, row, k, values)
            ds = dscore(weight, dweight, row_gain, row_shift, dot, scale, b, h, row, k, values)
            ds = dscaled(ds, dot, scale, b, h, row, k, values)
            dkey_tile = product_onto(ds.to(query_tile.dtype), query_tile, dkey_tile, PRECISION)

    store_rows(dkey, dkey_tile * scale, b, h_kv, first, values.keys, BLOCK_K, DIM, WIDTH)
    store_rows(dvalue, dvalue_tile, b, h_kv, first, values.keys, BLOCK_K, DIM_V, WIDTH_V)
