"""What may be assumed of a spec's leaves: from the launcher's checks, element types, declared facts and `require`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from attncc.analysis.linear import Linear, linear_of
from attncc.analysis.ranges import Environment, interval_of, may_wrap
from attncc.ir.expr import Call, Coord, Expr, Param, Size, Sort, to_const
from attncc.ir.interval import EITHER, UNKNOWN, Interval
from attncc.ir.intrinsics import call
from attncc.ir.spec import RangeFact, Spec

LENGTH_LIMIT = 2**28
"""Without `wide`, sizes are below this and int params and offsets of at most this magnitude."""

_WIDE_LENGTH_LIMIT = 2**40
_ELEMENTS = {
    "int8": Interval(-(2**7), 2**7 - 1),
    "uint8": Interval(0, 2**8 - 1),
    "int16": Interval(-(2**15), 2**15 - 1),
    "int32": Interval(-(2**31), 2**31 - 1),
    "bool": Interval(0, 1),
}
_AT_LEAST_ONE = ("batch", "heads", "kv_heads", "dim", "tile")


def environment_of(
    spec: Spec, *, wide: bool = False, input_dtypes: Mapping[str, str] | None = None, facts: bool = True
) -> Environment:
    """What holds of every leaf of a lowered spec while a kernel of it runs, for pairs that exist.

    `wide` drops the limits on int params, and takes lengths below 2**40. `input_dtypes` are torch's names of element
    types; an input not named is taken for 64 bits wide. Without `facts`, `in low .. high` of inputs is not believed:
    for proofs that guard memory, since nothing but `check=True` verifies it.
    """
    limit = _WIDE_LENGTH_LIMIT if wide else LENGTH_LIMIT
    below = Interval(0, limit - 1)
    scalar = UNKNOWN if wide else Interval(-LENGTH_LIMIT, LENGTH_LIMIT)
    names = ("batch", "heads", "kv_heads", "queries", "keys", "dim", "tile", "prefix_tokens", "suffix_tokens")
    axes = () if spec.grid is None else (*(f"queries.{a}" for a in spec.grid.queries), *_key_axes(spec))
    sizes = {name: Interval(int(name in _AT_LEAST_ONE), below.high) for name in (*names, *axes, *spec.extents)}
    params = {p.name: EITHER if p.sort is Sort.BOOL else scalar for p in spec.params if p.sort is not Sort.FLOAT}
    inputs = {"q_offset": Interval(-limit, limit)}
    for declared in spec.inputs:
        if declared.sort is not Sort.FLOAT:
            widest = EITHER if declared.sort is Sort.BOOL else UNKNOWN
            inputs[declared.name] = _ELEMENTS.get((input_dtypes or {}).get(declared.name, ""), widest)
    environment = Environment(
        sizes=sizes,
        coordinates=dict.fromkeys(("b", "h", "h_kv", "row", "k", "first", "last"), below),
        params={**params, "q_offset": Interval(-limit, limit)},
        inputs=inputs,
        order=_ORDER,
    )
    environment = replace(environment, params={**environment.params, **_required(spec, environment)})
    return _with_ranges(spec, environment) if facts else environment


_ORDER = (
    (Coord("k"), Size("keys"), 1),
    (Coord("row"), Size("queries"), 1),
    (Coord("h"), Size("heads"), 1),
    (Coord("b"), Size("batch"), 1),
    (Coord("first"), Coord("last"), 0),
)


def _key_axes(spec: Spec) -> tuple[str, ...]:
    return () if spec.grid is None else tuple(f"keys.{a}" for a in spec.grid.keys)


def _with_ranges(spec: Spec, environment: Environment) -> Environment:
    inputs = dict(environment.inputs)
    for declared in spec.inputs:
        for fact in declared.facts:
            if isinstance(fact, RangeFact) and not may_wrap(fact.low, environment):
                low = interval_of(fact.low, environment).low
                high = math.inf if may_wrap(fact.high, environment) else interval_of(fact.high, environment).high
                before = inputs[declared.name]
                inputs[declared.name] = Interval(max(before.low, low), min(before.high, high - 1))
    return replace(environment, inputs=inputs)


def _required(spec: Spec, environment: Environment) -> dict[str, Interval]:
    """Tighter intervals of params, from `require`s that bound one by a constant or by other bounded scalars."""
    found: dict[str, Interval] = {}
    for require in spec.requires:
        for difference in _differences(require.condition):
            if may_wrap(difference, environment):
                continue
            linear = linear_of(difference)
            for term, coefficient in linear.terms:
                if isinstance(term, Param) and abs(coefficient) == 1:
                    before = found.get(term.name, environment.params.get(term.name, UNKNOWN))
                    found[term.name] = _solved(linear, term, coefficient, before, environment)
    return found


def _differences(condition: Expr) -> Iterator[Expr]:
    """Int expressions that the condition says are at least 0."""
    match condition:
        case Call(op="and", args=(a, b)):
            yield from _differences(a)
            yield from _differences(b)
        case Call(op=("lt" | "le" | "gt" | "ge" | "eq") as op, args=(a, b)) if a.sort is b.sort is Sort.INT:
            if op in ("lt", "le", "eq"):
                yield call("sub", call("sub", b, a), to_const(int(op == "lt")))
            if op in ("gt", "ge", "eq"):
                yield call("sub", call("sub", a, b), to_const(int(op == "gt")))


def _solved(linear: Linear, term: Expr, coefficient: int, before: Interval, environment: Environment) -> Interval:
    # coefficient * term + rest >= 0, so term >= -rest or term <= rest: the weakest over all values of the rest.
    most: float = linear.constant
    for other, factor in linear.terms:
        if other is not term:
            interval = interval_of(other, environment)
            end = interval.high if factor > 0 else interval.low
            most = most + factor * int(end) if not math.isinf(end + most) else math.inf
    if coefficient > 0:
        return Interval(max(before.low, -most), before.high)
    return Interval(before.low, min(before.high, most))
