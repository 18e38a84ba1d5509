"""What values an expression can take: intervals over boxes, proofs of signs and bounds, and how wide an int must be."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from attncc.analysis.linear import Linear, linear_of
from attncc.ir.expr import (
    Call,
    Const,
    Coord,
    Expr,
    Listed,
    Load,
    Param,
    RowCount,
    RowSum,
    Score,
    Size,
    Sort,
    children,
    postorder,
    to_const,
)
from attncc.ir.interval import EITHER, UNKNOWN, Interval, point
from attncc.ir.intrinsics import INTRINSICS, call

_INT32 = Interval(-(2**31), 2**31 - 1)


@dataclass(frozen=True, slots=True)
class Environment:
    """What is known of the leaves: an interval for each size, coordinate, param and input's elements by name.

    A leaf that is not named has its sort's widest interval. `known` gives single nodes a tighter interval than their
    operands imply. `order` holds triples `(small, large, gap)`: `large >= small + gap` for every program and pair.
    """

    sizes: Mapping[str, Interval] = field(default_factory=dict)
    coordinates: Mapping[str, Interval] = field(default_factory=dict)
    params: Mapping[str, Interval] = field(default_factory=dict)
    inputs: Mapping[str, Interval] = field(default_factory=dict)
    known: Mapping[Expr, Interval] = field(default_factory=dict)
    order: tuple[tuple[Expr, Expr, int], ...] = ()
    _memo: dict[Expr, Interval] = field(default_factory=dict, init=False, repr=False, compare=False)
    _proofs: dict[tuple[Linear, int], bool] = field(default_factory=dict, init=False, repr=False, compare=False)
    _sums: dict[Expr, Linear] = field(default_factory=dict, init=False, repr=False, compare=False)

    def where(self, known: Mapping[Expr, Interval]) -> Environment:
        """The same with more known of single nodes."""
        return replace(self, known={**self.known, **known})


def interval_of(expr: Expr, environment: Environment) -> Interval:
    """An interval that encloses every value of `expr`. An int whose exact value may leave int64 is unknown."""
    memo = environment._memo
    if expr not in memo:
        for node in postorder(expr):
            if node not in memo:
                memo[node] = _tightest(node, environment, memo)
    return memo[expr]


def may_wrap(expr: Expr, environment: Environment) -> bool:
    """Whether some int operation below (load indices aside) may leave int64, where it would wrap."""
    stack, seen = [expr], set[Expr]()
    while stack:
        node = stack.pop()
        if node in seen or isinstance(node, Load):
            continue
        seen.add(node)
        if isinstance(node, Call):
            if node.sort is Sort.INT and node.op in _WRAPPING and interval_of(node, environment).is_unknown:
                return True
            stack.extend(children(node))
    return False


def narrow(roots: Iterable[Expr], environment: Environment) -> frozenset[Expr]:
    """The int nodes that may be computed in 32 bits: their own interval and those of all their int operands fit.

    An operand may itself be outside the set (say a clamped 64-bit load): it is then converted after it is computed,
    since its value fits. Pass an environment whose assumptions the launcher checks.
    """
    return frozenset(
        node
        for node in postorder(*roots)
        if node.sort is Sort.INT
        and fits_int32(node, environment)
        and (not isinstance(node, Call) or all(fits_int32(a, environment) for a in node.args if a.sort is Sort.INT))
    )


def fits_int32(expr: Expr, environment: Environment) -> bool:
    """Whether every value of an int expression is a 32-bit one."""
    interval = interval_of(expr, environment)
    return _INT32.low <= interval.low and interval.high <= _INT32.high


def is_nonnegative(expr: Expr, environment: Environment) -> bool:
    """Whether an int expression is proved to be at least 0."""
    if interval_of(expr, environment).low >= 0:
        return True
    return not may_wrap(expr, environment) and proves_nonnegative(linear_of(expr), environment)


def in_bounds(index: Expr, extent: Expr, environment: Environment) -> bool:
    """Whether `0 <= index < extent` is proved, for pairs that exist (`row < queries` and `k < keys`).

    Lanes of a tile past the last row or key are not such pairs: a kernel that drops the bounds code on this proof
    still has to keep those lanes from loading.
    """
    return is_nonnegative(index, environment) and is_below(index, extent, environment)


def is_below(index: Expr, extent: Expr, environment: Environment) -> bool:
    """Whether `index < extent` is proved: the upper half of `in_bounds`, with the same caution about lanes."""
    if may_wrap(index, environment) or may_wrap(extent, environment):
        return False
    return proves_nonnegative((linear_of(extent) - linear_of(index)).plus(-1), environment)


def proves_nonnegative(linear: Linear, environment: Environment, depth: int = 6) -> bool:
    """Whether a sum is proved to be at least 0, from intervals, the environment's order, and min, max and the like."""
    key = (linear, depth)
    if key not in environment._proofs:
        environment._proofs[key] = _proves_nonnegative(linear, environment, depth)
    return environment._proofs[key]


def sum_of(expr: Expr, environment: Environment) -> Linear:
    """`linear_of`, remembered."""
    if expr not in environment._sums:
        environment._sums[expr] = linear_of(expr)
    return environment._sums[expr]


_WRAPPING = frozenset({"neg", "add", "sub", "mul", "floordiv", "pow", "abs", "shl"})


def _proves_nonnegative(linear: Linear, environment: Environment, depth: int) -> bool:
    if _least(linear, environment) >= 0:
        return True
    if depth == 0:
        return False
    for small, large, gap in environment.order:
        step = _raised(linear, small, large, gap)
        if step is not None and proves_nonnegative(step, environment, depth - 1):
            return True
    return any(
        all(proves_nonnegative(linear.replaced(term, v), environment, depth - 1) for v in values)
        for term, coefficient in linear.terms
        for values in _lower_values(term, coefficient, environment)
    )


def _tightest(node: Expr, environment: Environment, memo: Mapping[Expr, Interval]) -> Interval:
    found = _leaf(node, environment) if not isinstance(node, Call) else _call(node, memo)
    given = environment.known.get(node)
    if given is None:
        return found
    return Interval(max(found.low, given.low), min(found.high, given.high))


def _call(node: Call, memo: Mapping[Expr, Interval]) -> Interval:
    return INTRINSICS[node.op].interval(node.sort, *(memo[a] for a in node.args))


def _leaf(node: Expr, environment: Environment) -> Interval:
    widest = EITHER if node.sort is Sort.BOOL else UNKNOWN
    match node:
        case Const(value=value, sort=sort):
            return point(value, sort)
        case Size(name=name):
            return environment.sizes.get(name, Interval(0, math.inf))
        case Param(name=name):
            return environment.params.get(name, widest)
        case Coord(name=name):
            return environment.coordinates.get(name, widest)
        case Load(input=name):
            # Total: an index out of range reads 0.
            return environment.inputs.get(name, widest).join(Interval(0, 0))
        case RowCount():
            return environment.sizes.get("keys", Interval(0, math.inf)).join(Interval(0, 0))
        case Score() | RowSum() | Listed():
            return widest
        case _:
            raise TypeError(f"no leaf: {node!r}")


def _least(linear: Linear, environment: Environment) -> float:
    least: float = linear.constant
    for term, coefficient in linear.terms:
        interval = interval_of(term, environment)
        end = interval.low if coefficient > 0 else interval.high
        if math.isinf(end):
            return -math.inf
        least += coefficient * int(end)
    return least


def _raised(linear: Linear, small: Expr, large: Expr, gap: int) -> Linear | None:
    """A smaller sum, by `large >= small + gap`; None where the rule says nothing of this sum."""
    if (factor := linear.coefficient(large)) > 0:
        return linear.replaced(large, Linear(((small, 1),), gap))
    if (factor := linear.coefficient(small)) < 0 and factor:
        return linear.replaced(small, Linear(((large, 1),), -gap))
    return None


def _lower_values(term: Expr, coefficient: int, environment: Environment) -> list[tuple[Linear, ...]]:
    """Ways to bound `coefficient * term` from below: it suffices to show all values of one of the tuples."""
    rising = coefficient > 0
    total = functools.partial(sum_of, environment=environment)
    match term:
        case Call(op="min" | "max" as op, args=(a, b)):
            both = (op == "min") == rising
            return [(total(a), total(b))] if both else [(total(a),), (total(b),)]
        case Call(op="clamp", args=(_, low, high)):  # min(max(x, low), high)
            return [(total(low), total(high))] if rising else [(total(high),)]
        case Call(op="where", args=(_, a, b)):
            return [(total(a), total(b))]
        case Call(op="mod", args=(_, divisor)) if not rising and is_nonnegative(_less_one(divisor), environment):
            return [(total(divisor).plus(-1),)]
        case Call(op="floordiv", args=(Coord(name="h"), divisor)) if not rising and divisor is _group():
            return [(Linear(((Size("kv_heads"), 1),), -1),)]  # heads is a multiple of kv_heads: the launcher checks
        case Call(op="floordiv", args=(a, divisor)) if not rising and is_nonnegative(a, environment):
            return [(total(a),)] if is_nonnegative(divisor, environment) else []
        case _:
            return []


def _less_one(expr: Expr) -> Expr:
    return call("sub", expr, to_const(1))


def _group() -> Expr:
    return call("floordiv", Size("heads"), Size("kv_heads"))
