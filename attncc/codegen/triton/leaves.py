"""The leaves a skeleton calls, as declarations: what each takes and returns. The generated module holds the bodies.

A skeleton knows nothing of the spec. Leaves take `b h row k` as broadcastable integer tensors (a program's own `b`
and `h` are 0-d, `row` and `k` lie along the two axes of the tile), `values` (the module's `Values`: sizes, params,
inputs and their strides) and, where gradients are gathered, `grads` (the module's `Grads`: one float32 buffer for
each learnable input). Lanes past the end repeat the last valid `row` or `k`, so a leaf may load with them.

These bodies exist so that skeletons can be read, linted and tested on their own: dense softmax attention.
"""

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
# What turns a difference of logits into one of base 2. Logits of 16-bit types are in base 2 already, which saves each
# pair a multiplication; those of float32 are natural, since multiplying a large logit rounds away what sets it apart.
UNIT: tl.constexpr = tl.constexpr(1.0)
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)
UNIT_TO_NATURAL: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def key_ranges(b, h, first, last, TILE: tl.constexpr, values):
    """The ends of the segments over keys for the query rows `first .. last`: start, stop, start, stop, …"""
    whole = values.keys // TILE * TILE
    return 0, whole, whole, values.keys


@triton.jit
def row_ranges(b, h, first, last, TILE: tl.constexpr, values):
    """The ends of the segments over query rows for the keys `first .. last`."""
    whole = values.queries // TILE * TILE
    return 0, whole, whole, values.queries


@triton.jit
def full_key_tiles(ranges, TILE: tl.constexpr):
    """How many tiles the FULL segments have."""
    return (ranges[1] - ranges[0]) // TILE


@triton.jit
def full_key_tile(t, ranges, TILE: tl.constexpr):
    """Where the t-th tile of the FULL segments starts."""
    return ranges[0] + t * TILE


@triton.jit
def partial_key_tiles(ranges, TILE: tl.constexpr):
    """How many tiles the PARTIAL segments have."""
    return tl.cdiv(tl.maximum(ranges[3] - ranges[2], 0), TILE)


@triton.jit
def partial_key_tile(t, ranges, TILE: tl.constexpr):
    """Where the t-th tile of the PARTIAL segments starts, and where its segment stops."""
    return ranges[2] + t * TILE, ranges[3]


@triton.jit
def full_row_tiles(ranges, TILE: tl.constexpr):
    """How many tiles the FULL segments have."""
    return (ranges[1] - ranges[0]) // TILE


@triton.jit
def full_row_tile(t, ranges, TILE: tl.constexpr):
    """Where the t-th tile of the FULL segments starts."""
    return ranges[0] + t * TILE


@triton.jit
def partial_row_tiles(ranges, TILE: tl.constexpr):
    """How many tiles the PARTIAL segments have."""
    return tl.cdiv(tl.maximum(ranges[3] - ranges[2], 0), TILE)


@triton.jit
def partial_row_tile(t, ranges, TILE: tl.constexpr):
    """Where the t-th tile of the PARTIAL segments starts, and where its segment stops."""
    return ranges[2] + t * TILE, ranges[3]


@triton.jit
def mask(b, h, row, k, values):
    """Whether each pair is live: bool."""
    return (row >= 0) & (k >= 0)


@triton.jit
def logits(dot, scale, b, h, row, k, values):
    """Softmax logits from plain dot products, in base 2 or natural as UNIT says: float32."""
    return dot * (scale * LOG2E)


@triton.jit
def with_sinks(row_max, row_sum, b, h, row, values):
    """The running maximum and sum after the sinks have joined: each [BLOCK]."""
    return row_max, row_sum


@triton.jit
def numerator(dot, scale, b, h, row, k, values):
    """The weight of each pair before the mask and the denominator: float32."""
    return dot * scale


@triton.jit
def counted(live, dot, scale, b, h, row, k, values):
    """Which of a tile's live pairs count: those whose score is not -inf. `live` is bool of the tile's shape."""
    return live


@triton.jit
def full_count(dot, scale, b, h, row, k, values):
    """How many pairs of each row count where all of a tile are live: [BLOCK] or a scalar."""
    return dot.shape[1]


@triton.jit
def denominator(total, count, b, h, row, values):
    """What a row's weights are divided by: [BLOCK], float32."""
    return total


@triton.jit
def denominator_slope(total, count, b, h, row, values):
    """The derivative of `denominator` by `total`: [BLOCK], float32."""
    return total * 0.0 + 1.0


@triton.jit
def reweighted(weight, b, h, row, k, values):
    """The weight, or its gradient, times the factor of `reweight`: float32."""
    return weight


@triton.jit
def pair_weight(dot, scale, norm, gain, b, h, row, k, values):
    """Backward: the normalized weight of each pair from its dot product and its row: float32."""
    return tl.exp2((dot * (scale * LOG2E) - norm) * UNIT) * gain


@triton.jit
def dscore(weight, dweight, gain, shift, dot, scale, b, h, row, k, values):
    """Backward: the gradient by the final score from the gradient by the weight: float32."""
    return weight * (dweight - shift)


@triton.jit
def dscaled(ds, dot, scale, b, h, row, k, values):
    """Backward: the gradient by `s`, the scaled dot product, from that by the final score: float32."""
    return ds


@triton.jit
def learn(ds, dfactor, dot, scale, b, h, row, k, grads, values):
    """Backward: adds to the gradients of learnable inputs what these pairs give, `row` along axis 0."""


@triton.jit
def learn_sinks(norm, gain, shift, b, h, row, grads, values):
    """Backward: adds to the gradients of learnable inputs what these rows' sinks give, from
    `norm` and `gain` (weight = exp2((logit - norm) * UNIT) * gain) and `shift` (the gradient is -weight * shift)."""


@triton.jit
def learn_denominator(ddenominator, total, count, b, h, row, grads, values):
    """Backward: adds to the gradients of learnable inputs what these rows' denominators give."""
