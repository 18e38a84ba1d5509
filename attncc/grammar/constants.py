"""The value of an expression that has one before any call: literals, consts and arithmetic on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from attncc.ir.expr import Call, Const, Expr, Param, Scalar, Sort, children, postorder

_MOST_BITS = 63


class ConstantError(Exception):
    """The value does not exist: a zero divisor, a logarithm of a negative number, an int beyond 64 bits."""


def evaluate(expr: Expr, consts: Mapping[str, Scalar]) -> Scalar | None:
    """The value, None where it depends on something other than `consts`. Raises ConstantError."""
    values: dict[Expr, Scalar | None] = {}
    for node in postorder(expr):
        match node:
            case Const(value=value):
                values[node] = value
            case Param(name=name):
                values[node] = consts.get(name)
            case Call(op=op):
                values[node] = _apply(op, [values[c] for c in children(node)], node.sort)
            case _:
                values[node] = None
    return values[expr]


def _apply(op: str, arguments: list[Scalar | None], sort: Sort) -> Scalar | None:
    if any(a is None for a in arguments):
        return None
    if op == "pow" and sort is Sort.INT:
        _guard_power(arguments)
    try:
        value = _MEANINGS[op](*arguments)
    except ZeroDivisionError:
        raise ConstantError("it divides by zero") from None
    except (ValueError, OverflowError):
        raise ConstantError("it has no value") from None
    if isinstance(value, complex):
        raise ConstantError("it has no value")
    if sort is Sort.INT and not -(1 << _MOST_BITS) <= value < 1 << _MOST_BITS:
        raise ConstantError("it does not fit in 64 bits")
    match sort:
        case Sort.INT:
            return int(value)
        case Sort.BOOL:
            return bool(value)
        case Sort.FLOAT:
            return float(value)


def _guard_power(arguments: list[Any]) -> None:
    # Python would compute an integer of any length before we could refuse it.
    base, exponent = arguments
    if abs(base) > 1 and exponent > _MOST_BITS:
        raise ConstantError("it does not fit in 64 bits")


def _shift_left(x: int, by: int) -> int:
    if not 0 <= by <= _MOST_BITS:
        return 0
    wrapped = (x << by) & ((1 << 64) - 1)
    return wrapped - (1 << 64) if wrapped >> _MOST_BITS else wrapped


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _power(x: Any, y: Any) -> Any:
    return x**y


_MEANINGS: dict[str, Callable[..., Any]] = {
    "neg": lambda x: -x,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "floordiv": lambda x, y: x // y,
    "mod": lambda x, y: x % y,
    "pow": _power,
    "abs": abs,
    "sign": lambda x: (x > 0) - (x < 0),
    "min": min,
    "max": max,
    "clamp": lambda x, low, high: min(max(x, low), high),
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "and": lambda x, y: x and y,
    "or": lambda x, y: x or y,
    "not": lambda x: not x,
    "where": lambda c, x, y: x if c else y,
    "bitand": lambda x, y: x & y,
    "bitor": lambda x, y: x | y,
    "bitxor": lambda x, y: x ^ y,
    "bitnot": lambda x: ~x,
    "shl": _shift_left,
    "shr": lambda x, by: x >> by if 0 <= by <= _MOST_BITS else 0,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "sigmoid": _sigmoid,
    "relu": lambda x: max(x, 0.0),
    "erf": math.erf,
    "to_float": float,
}
