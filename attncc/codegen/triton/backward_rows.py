"""Skeletons: what the backward pass needs of each row, `norm` and `shift`, once before the pairs are visited.

Both are float32 [batch, heads, queries]. With delta = rowsum(dO · O), which a factor after normalization keeps:
softmax has weight = exp2(logit - norm) and dscore = weight · (dweight - shift);
a ratio f(s) / d has weight = f(s) · norm and df = dweight · norm + shift.
"""

import triton
import triton.language as tl

from attncc.codegen.triton.leaves import LOG2E, denominator, denominator_slope, learn_denominator, learn_sinks
from attncc.codegen.triton.tiles import load_row_values, load_rows, store_row_values


@triton.jit(do_not_specialize=["values"])
def softmax_rows_kernel(
    out,
    grad_out,
    lse,
    grad_lse,
    norm,
    shift,
    grads,
    values,
    HAS_GRAD_LSE: tl.constexpr,
    LEARNS: tl.constexpr,
    DIM_V: tl.constexpr,
    WIDTH_V: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):
    """norm = lse in the exp2 domain, inf for an empty row; shift = delta - grad_lse."""
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
    row_lse = load_row_values(lse, b, h, first, values, float("-inf"), BLOCK_Q)
    # exp2(logit - inf) is 0: neither an empty row nor a lane past the end contributes anything.
    row_norm = tl.where(row_lse == float("-inf"), float("inf"), row_lse * LOG2E)
    store_row_values(norm, row_norm, b, h, first, values, BLOCK_Q)
    store_row_values(shift, row_shift, b, h, first, values, BLOCK_Q)
    if LEARNS:
        learn_sinks(row_norm, row_shift, b, h, row, grads, values)


@triton.jit(do_not_specialize=["values"])
def ratio_rows_kernel(
    out,
    grad_out,
    total,
    count,
    norm,
    shift,
    grads,
    values,
    LEARNS: tl.constexpr,
    DIM_V: tl.constexpr,
    WIDTH_V: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):
    """norm = 1 / d; shift = -delta · d'(total) / d. Zero where the denominator is zero."""
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
    row_norm = tl.where(divisor == 0.0, 0.0, 1.0 / tl.where(divisor == 0.0, 1.0, divisor))
    ddenominator = -delta * row_norm
    row_shift = ddenominator * denominator_slope(row_total, row_count, b, h, row, values)
    row_shift = tl.where(divisor == 0.0, 0.0, row_shift)
    store_row_values(norm, row_norm, b, h, first, values, BLOCK_Q)
    store_row_values(shift, row_shift, b, h, first, values, BLOCK_Q)
    if LEARNS:
        learn_denominator(ddenominator, row_total, row_count, b, h, row, grads, values)
