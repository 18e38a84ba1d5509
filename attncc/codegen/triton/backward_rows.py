"""Skeletons: what the backward pass needs of each row, `norm`, `gain` and `shift`, once before the pairs are visited.

All are float32 [batch, heads, queries]. With delta = rowsum(dO · O), which a factor after normalization keeps:
softmax has weight = exp2((logit - norm) · UNIT) · gain and dscore = weight · (dweight - shift);
a ratio f(s) / d has weight = f(s) · gain and df = dweight · gain + shift, and no norm.
"""

import triton
import triton.language as tl

from attncc.codegen.triton.leaves import denominator, denominator_slope, learn_denominator, learn_sinks
from attncc.codegen.triton.tiles import load_row_values, load_rows, store_row_values


@triton.jit
def softmax_rows_kernel(
    out,
    grad_out,
    top,
    mass,
    grad_lse,
    norm,
    gain,
    shift,
    grads,
    values,
    HAS_GRAD_LSE: tl.constexpr,
    APART: tl.constexpr,
    LEARNS: tl.constexpr,
    DIM_V: tl.constexpr,
    WIDTH_V: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):
    """shift = delta - grad_lse. norm is the lse in the exp2 domain and gain 1, a multiplication less for each pair; or,
    where APART, norm is the maximum and gain 1 / sum: a sum added to a large maximum would lose float32's digits."""
    tiles = tl.cdiv(values.queries, BLOCK_Q)
    first = tl.program_id(0) % tiles * BLOCK_Q
    h = tl.program_id(0) // tiles % values.heads
    b = tl.program_id(0) // tiles // values.heads
    row = tl.minimum(first + tl.arange(0, BLOCK_Q), values.queries - 1)

    out_tile = load_rows(out, b, h, first, values.queries, False, BLOCK_Q, DIM_V, WIDTH_V)
    grad_tile = load_rows(grad_out, b, h, first, values.queries, False, BLOCK_Q, DIM_V, WIDTH_V)
    row_shift = tl.sum(out_tile.to(tl.float32) * grad_tile.to(tl.float32), 1)
    if HAS_GRAD_LSE:
        row_shift -= load_row_values(grad_lse, b, h, first, values, 0.0, BLOCK_Q)
    row_norm = load_row_values(top, b, h, first, values, float("-inf"), BLOCK_Q)
    row_sum = load_row_values(mass, b, h, first, values, 1.0, BLOCK_Q)
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)
    row_gain = 1.0 / row_sum
    if not APART:
        row_norm += tl.log2(row_sum)
        row_gain = tl.full([BLOCK_Q], 1.0, tl.float32)
    # exp2((logit - inf) * UNIT) is 0: neither an empty row nor a lane past the end contributes anything.
    row_norm = tl.where(row_norm == float("-inf"), float("inf"), row_norm)
    store_row_values(norm, row_norm, b, h, first, values, BLOCK_Q)
    store_row_values(gain, row_gain, b, h, first, values, BLOCK_Q)
    store_row_values(shift, row_shift, b, h, first, values, BLOCK_Q)
    if LEARNS:
        learn_sinks(row_norm, row_gain, row_shift, b, h, row, grads, values)


@triton.jit
def ratio_rows_kernel(
    out,
    grad_out,
    total,
    count,
    gain,
    shift,
    grads,
    values,
    LEARNS: tl.constexpr,
    DIM_V: tl.constexpr,
    WIDTH_V: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):
    """gain = 1 / d; shift = -delta · d'(total) / d. Zero where the denominator is zero."""
    tiles = tl.cdiv(values.queries, BLOCK_Q)
    first = tl.program_id(0) % tiles * BLOCK_Q
    h = tl.program_id(0) // tiles % values.heads
    b = tl.program_id(0) // tiles // values.heads
    row = tl.minimum(first + tl.arange(0, BLOCK_Q), values.queries - 1)

    out_tile = load_rows(out, b, h, first, values.queries, False, BLOCK_Q, DIM_V, WIDTH_V)
    grad_tile = load_rows(grad_out, b, h, first, values.queries, False, BLOCK_Q, DIM_V, WIDTH_V)
    delta = tl.sum(out_tile.to(tl.float32) * grad_tile.to(tl.float32), 1)
    row_total = load_row_values(total, b, h, first, values, 0.0, BLOCK_Q)
    row_count = load_row_values(count, b, h, first, values, 0.0, BLOCK_Q).to(tl.int32)
    divisor = denominator(row_total, row_count, b, h, row, values)
    row_gain = tl.where(divisor == 0.0, 0.0, 1.0 / tl.where(divisor == 0.0, 1.0, divisor))
    ddenominator = -delta * row_gain
    row_shift = ddenominator * denominator_slope(row_total, row_count, b, h, row, values)
    row_shift = tl.where(divisor == 0.0, 0.0, row_shift)
    store_row_values(gain, row_gain, b, h, first, values, BLOCK_Q)
    store_row_values(shift, row_shift, b, h, first, values, BLOCK_Q)
    if LEARNS:
        learn_denominator(ddenominator, row_total, row_count, b, h, row, grads, values)
