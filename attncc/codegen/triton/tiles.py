"""Device functions shared by the skeletons: rows of a matrix in and out of registers."""

import triton
import triton.language as tl


@triton.jit
def load_rows(
    matrix, b, h, start, rows, WHOLE: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr
):
    """Rows `start .. start + BLOCK` of `matrix[b, h]`, as a tile [BLOCK, WIDTH].

    Zero past `rows` and past column DIM. WHOLE promises that all BLOCK rows exist. Offsets are 64-bit: a
    matrix may be any strided view, larger than 2**31 elements.
    """
    row_pointers = _row_pointers(matrix, b, h, start, BLOCK)
    column = tl.arange(0, WIDTH)[None, :]
    if WHOLE and DIM == WIDTH:
        return tl.load(row_pointers + column)
    elif WHOLE:
        return tl.load(row_pointers + column, mask=column < DIM, other=0.0)
    elif DIM == WIDTH:
        inside = (start + tl.arange(0, BLOCK) < rows)[:, None]
        return tl.load(row_pointers + column, mask=inside, other=0.0)
    else:
        inside = (start + tl.arange(0, BLOCK) < rows)[:, None]
        return tl.load(row_pointers + column, mask=inside & (column < DIM), other=0.0)


@triton.jit
def store_rows(matrix, tile, b, h, start, rows, BLOCK: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Writes a tile [BLOCK, WIDTH] to rows `start .. start + BLOCK` of `matrix[b, h]`, nothing past `rows` or DIM."""
    row_pointers = _row_pointers(matrix, b, h, start, BLOCK)
    column = tl.arange(0, WIDTH)[None, :]
    inside = (start + tl.arange(0, BLOCK) < rows)[:, None] & (column < DIM)
    tl.store(row_pointers + column, tile.to(matrix.pointer.dtype.element_ty), mask=inside)


@triton.jit
def load_row_values(pointer, b, h, start, values, PAST_END: tl.constexpr, BLOCK: tl.constexpr):
    """`pointer[b, h, start .. start + BLOCK]` of a contiguous [batch, heads, queries] tensor, PAST_END past the end."""
    row = start + tl.arange(0, BLOCK)
    base = (tl.cast(b, tl.int64) * values.heads + h) * values.queries
    return tl.load(pointer + base + row, mask=row < values.queries, other=PAST_END)


@triton.jit
def store_row_values(pointer, row_values, b, h, start, values, BLOCK: tl.constexpr):
    """Writes `pointer[b, h, start .. start + BLOCK]` of a contiguous [batch, heads, queries] tensor."""
    row = start + tl.arange(0, BLOCK)
    base = (tl.cast(b, tl.int64) * values.heads + h) * values.queries
    tl.store(pointer + base + row, row_values, mask=row < values.queries)


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """`a @ b`, summed in float32. See `product_onto` for PRECISION."""
    return product_onto(a, b, tl.zeros([a.shape[0], b.shape[1]], tl.float32), PRECISION)


@triton.jit
def product_onto(a, b, accumulator, PRECISION: tl.constexpr):
    """`accumulator + a @ b` in float32.

    PRECISION is Triton's `input_precision` for float32 operands; or "widened", for Triton's interpreter alone, which
    would multiply the bits of bfloat16 as if they were ints: widening first gives what matrix units compute.
    """
    if PRECISION == "widened":
        return accumulator + tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(a, b, accumulator, input_precision=PRECISION)


@triton.jit
def _row_pointers(matrix, b, h, start, BLOCK: tl.constexpr):
    base = matrix.pointer + tl.cast(b, tl.int64) * matrix.stride_b + tl.cast(h, tl.int64) * matrix.stride_h
    row = tl.cast(start, tl.int64) + tl.arange(0, BLOCK)
    return base + row[:, None] * matrix.stride_row
