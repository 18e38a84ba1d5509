"""The meanings of operations that are more than one library call, over numpy or torch.

`xp` is the module. Ints are int64 and wrap; floats keep the operands' own type.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def over_arrays(rule: Callable[..., Any]) -> Callable[..., Any]:
    """`rule(xp, *arrays)` made to take Python scalars too: a float takes the float type (and device) of the other
    operands, float64 if there is none; an int is int64. numpy's warnings on wrapping and infinities are silenced."""

    @functools.wraps(rule)
    def meaning(xp: Any, *args: Any) -> Any:
        if xp.__name__ != "numpy":
            return rule(xp, *_tensors(xp, args))
        with xp.errstate(all="ignore"):
            return rule(xp, *_arrays(xp, args))

    return meaning


def _tensors(torch: Any, args: tuple[Any, ...]) -> list[Any]:
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    if len(tensors) == len(args):
        return tensors
    floating = next((t.dtype for t in tensors if t.is_floating_point()), torch.float64)
    kinds = {bool: torch.bool, int: torch.int64, float: floating}
    device = tensors[0].device if tensors else None
    return [a if isinstance(a, torch.Tensor) else torch.as_tensor(a, dtype=kinds[type(a)], device=device) for a in args]


def _arrays(numpy: Any, args: tuple[Any, ...]) -> list[Any]:
    given = [a.dtype for a in args if isinstance(a, numpy.ndarray | numpy.generic)]
    floating = next((dtype for dtype in given if dtype.kind == "f"), numpy.float64)
    kinds = {bool: numpy.bool_, int: numpy.int64, float: floating}
    return [numpy.asarray(a, dtype=kinds.get(type(a))) for a in args]


def floordiv(xp: Any, a: Any, b: Any) -> Any:
    """Floor division; 0 by 0. The smallest int64 by -1 wraps, where C would trap."""
    plain = (b != 0) & (b != -1)
    quotient = xp.floor_divide(a, xp.where(plain, b, xp.ones_like(b)))
    return xp.where(plain, quotient, xp.where(b == -1, -a, xp.zeros_like(a)))


def mod(xp: Any, a: Any, b: Any) -> Any:
    """Remainder with the divisor's sign; 0 by 0."""
    plain = (b != 0) & (b != -1)
    remainder = xp.remainder(a, xp.where(plain, b, xp.ones_like(b)))
    return xp.where(plain, remainder, xp.zeros_like(a))


def power(xp: Any, a: Any, b: Any) -> Any:
    """a ** b; wraps on ints."""
    return xp.power(a, b) if xp.__name__ == "numpy" else xp.pow(a, b)


def sign(xp: Any, x: Any) -> Any:
    """-1, 0 or 1; 0 for nan."""
    signs = xp.sign(x)
    return xp.where(xp.isnan(x), xp.zeros_like(signs), signs)


def clamp(xp: Any, x: Any, low: Any, high: Any) -> Any:
    """min(max(x, low), high); torch's own function, for its derivative on a bound."""
    if xp.__name__ == "numpy":
        return xp.minimum(xp.maximum(x, low), high)
    return xp.clamp(x, low, high)


def shift_left(xp: Any, a: Any, n: Any) -> Any:
    """a << n, 0 for a shift outside 0..63."""
    inside = (n >= 0) & (n <= 63)
    return xp.where(inside, a << xp.where(inside, n, xp.zeros_like(n)), xp.zeros_like(a))


def shift_right(xp: Any, a: Any, n: Any) -> Any:
    """a >> n, arithmetic, 0 for a shift outside 0..63."""
    inside = (n >= 0) & (n <= 63)
    return xp.where(inside, a >> xp.where(inside, n, xp.zeros_like(n)), xp.zeros_like(a))


def floor(xp: Any, x: Any) -> Any:
    """The int at or below; nan gives 0, what is beyond int64 its nearest end."""
    return _to_int(xp, xp.floor(x))


def ceil(xp: Any, x: Any) -> Any:
    """The int at or above; nan gives 0, what is beyond int64 its nearest end."""
    return _to_int(xp, xp.ceil(x))


def _to_int(xp: Any, whole: Any) -> Any:
    inside = (whole >= -(2.0**63)) & (whole < 2.0**63)
    value = _cast(xp, xp.where(inside, whole, xp.zeros_like(whole)), xp.int64)
    value = xp.where(whole >= 2.0**63, xp.full_like(value, INT64_MAX), value)
    return xp.where(whole < -(2.0**63), xp.full_like(value, INT64_MIN), value)


def to_float(xp: Any, x: Any) -> Any:
    """An int as float64."""
    return _cast(xp, x, xp.float64)


def _cast(xp: Any, x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if xp.__name__ == "numpy" else x.to(dtype)


def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + xp.exp(-x)) if xp.__name__ == "numpy" else xp.sigmoid(x)


def relu(xp: Any, x: Any) -> Any:
    """max(x, 0), with derivative 0 at 0."""
    return xp.maximum(x, xp.zeros_like(x)) if xp.__name__ == "numpy" else xp.relu(x)


def erf(xp: Any, x: Any) -> Any:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t*t) from 0 to x."""
    if xp.__name__ != "numpy":
        return xp.erf(x)
    return xp.vectorize(math.erf, otypes=[xp.float64])(x).astype(x.dtype)
