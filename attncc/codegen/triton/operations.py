"""Device functions behind the operations of the language that Triton has no single operator for.

Generated modules copy from here the functions their expressions name, so each stands on `tl` alone. Operands are
block tensors, scalars or literals, at least one of them a tensor; ints are int32 or int64, floats float32.
The records in `attncc.ir.intrinsics` name these functions and define what they mean.
"""

import triton
import triton.language as tl


@triton.jit
def floor_div(a, b):
    """The quotient rounded down, 0 by 0. Triton's own `//` truncates."""
    is_plain = (b != 0) & (b != -1)  # dividing the smallest int by -1 is undefined
    divisor = tl.where(is_plain, b, 1)
    quotient = a // divisor
    remainder = a - quotient * divisor
    quotient = tl.where((remainder != 0) & ((remainder < 0) != (divisor < 0)), quotient - 1, quotient)
    return tl.where(is_plain, quotient, tl.where(b == 0, 0, -a))


@triton.jit
def floor_mod(a, b):
    """The remainder with the divisor's sign, 0 by 0. Triton's own `%` has the dividend's sign."""
    is_plain = (b != 0) & (b != -1)
    divisor = tl.where(is_plain, b, 1)
    remainder = a - (a // divisor) * divisor
    remainder = tl.where((remainder != 0) & ((remainder < 0) != (divisor < 0)), remainder + divisor, remainder)
    return tl.where(is_plain, remainder, 0)


@triton.jit
def shift_left(a, n):
    """`a << n`, 0 for a shift outside 0..63. In 32 bits the result is right where it fits 32 bits."""
    value = a + n * 0  # the tensor among the two gives the type
    last: tl.constexpr = value.dtype.primitive_bitwidth - 1
    inside = (n >= 0) & (n <= last)
    return tl.where(inside, value << tl.where(inside, n, 0), 0)


@triton.jit
def shift_right(a, n):
    """`a >> n` with the sign kept, 0 for a shift outside 0..63."""
    value = a + n * 0
    last: tl.constexpr = value.dtype.primitive_bitwidth - 1
    inside = (n >= 0) & (n <= 63)
    return tl.where(inside, value >> tl.where(inside, tl.minimum(n, last), 0), 0)


@triton.jit
def power(a, b):
    """`a ** b`: by squaring on ints, whose exponent is not negative; through log2 and exp2 on floats."""
    if (a * b).dtype.is_floating():
        # Of one shape: the interpreter cannot combine a scalar's comparison with a block's.
        base, exponent = tl.broadcast(tl.cast(a, tl.float32), tl.cast(b, tl.float32))
        size = tl.exp2(exponent * tl.log2(tl.abs(base)))
        size = tl.where((tl.abs(base) == 1.0) | (exponent == 0.0), 1.0, size)
        is_whole = exponent == tl.floor(exponent)
        is_odd = is_whole & (exponent * 0.5 != tl.floor(exponent * 0.5))
        has_value = is_whole | (base == float("-inf"))
        below = tl.where(has_value, tl.where(is_odd, -size, size), float("nan"))
        return tl.where(base < 0.0, below, size)
    else:
        factor = a + b * 0
        result = factor * 0 + 1
        left = tl.cast(b, tl.int64)
        for _ in tl.static_range(63):
            result = tl.where((left & 1) != 0, result * factor, result)
            factor = factor * factor
            left = left >> 1
        return result


@triton.jit
def clamp(x, low, high):
    """min(max(x, low), high); nan wins."""
    raised = tl.maximum(x, low, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(raised, high, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def sign(x):
    """-1, 0 or 1; 0 for nan."""
    return (tl.where(x > 0, 1, 0) - tl.where(x < 0, 1, 0)).to(x.dtype)


@triton.jit
def floor_to_int(x):
    """The int64 at or below; nan gives 0, what is beyond int64 its nearest end."""
    whole = tl.floor(tl.cast(x, tl.float32))
    inside = (whole >= -9223372036854775808.0) & (whole < 9223372036854775808.0)
    result = tl.where(inside, whole, 0.0).to(tl.int64)
    result = tl.where(whole >= 9223372036854775808.0, 9223372036854775807, result)
    return tl.where(whole < -9223372036854775808.0, -9223372036854775808, result)


@triton.jit
def ceil_to_int(x):
    """The int64 at or above; nan gives 0, what is beyond int64 its nearest end."""
    whole = tl.ceil(tl.cast(x, tl.float32))
    inside = (whole >= -9223372036854775808.0) & (whole < 9223372036854775808.0)
    result = tl.where(inside, whole, 0.0).to(tl.int64)
    result = tl.where(whole >= 9223372036854775808.0, 9223372036854775807, result)
    return tl.where(whole < -9223372036854775808.0, -9223372036854775808, result)


@triton.jit
def tanh(x):
    """The hyperbolic tangent. Near 0 the quotient cancels, so three terms of the series stand in for it."""
    value = tl.cast(x, tl.float32)
    square = value * value
    series = value * (1.0 - square * (0.33333334 - square * 0.13333334))
    decay = tl.exp(-2.0 * tl.abs(value))  # at most 1: nothing overflows
    quotient = (1.0 - decay) / (1.0 + decay)
    return tl.where(tl.abs(value) < 0.1, series, tl.where(value < 0.0, -quotient, quotient))
