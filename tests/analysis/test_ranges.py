"""Intervals enclose, 32-bit ints suffice where that is claimed, and indices proved in bounds are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mask_strategies import BATCH, HEADS, WINDOW, B, Case, H, K, Q, cases, comparisons, ints, spec_of

from attncc.analysis.evaluation import Values, evaluate_all
from attncc.analysis.facts import LENGTH_LIMIT, environment_of
from attncc.analysis.monotone import direction
from attncc.analysis.ranges import in_bounds, interval_of, is_nonnegative, may_wrap, narrow
from attncc.ir.expr import Call, Coord, Expr, Load, Param, Size, Sort, postorder, to_const
from attncc.ir.interval import Interval
from attncc.ir.intrinsics import call
from attncc.ir.spec import Input, Parameter, RangeFact, Require, Spec

ROW = Coord("row")
QUIET = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
N, EXTENT = Param("n", Sort.INT), to_const(8)


def n(value: int) -> Expr:
    return to_const(value)


@QUIET
@given(cases(comparisons(ints)))
def test_intervals_enclose_every_value(case: Case) -> None:
    nodes = list(postorder(*(c.expr for c in case.spec.masks)))
    environment = environment_of(case.spec)
    for node, value in zip(nodes, evaluate_all(nodes, pairs(case)), strict=True):
        interval = interval_of(node, environment)
        if node.sort is not Sort.FLOAT:
            assert interval.low <= value.min()
            assert value.max() <= interval.high


@QUIET
@given(cases(comparisons(ints)))
def test_narrow_nodes_survive_32_bits(case: Case) -> None:
    nodes = [x for x in postorder(*(c.expr for c in case.spec.masks)) if x.sort is Sort.INT]
    narrowed = narrow(nodes, environment_of(case.spec))
    for node, value in zip(nodes, evaluate_all(nodes, pairs(case)), strict=True):
        if node in narrowed:
            assert (value == value.astype(np.int32)).all()
            operands = node.args if isinstance(node, Call) else ()
            for operand in evaluate_all([a for a in operands if a.sort is Sort.INT], pairs(case)):
                assert (operand == operand.astype(np.int32)).all()


@QUIET
@given(cases(comparisons(ints)), st.sampled_from(["row", "k"]))
def test_directions_hold_where_their_guards_do(case: Case, coordinate: str) -> None:
    environment = environment_of(case.spec, wide=False)
    values, axis = pairs(case), 2 if coordinate == "row" else 3
    shape = (BATCH, HEADS, case.queries, case.keys)
    for node in postorder(*(c.expr for c in case.spec.masks)):
        if node.sort is not Sort.INT or may_wrap(node, environment):
            continue
        found = direction(node, coordinate, environment)
        if found is None:
            continue
        value, *guards = evaluate_all([node, *found.guards], values)
        steps = np.diff(np.broadcast_to(value, shape), axis=axis)
        holds = np.broadcast_to(np.all(np.broadcast_arrays(True, *guards), axis=0), shape)
        holds = np.take(holds, range(steps.shape[axis]), axis=axis)
        assert (np.sign(steps[holds]) * found.sign >= 0).all()
        assert found.sign != 0 or (steps[holds] == 0).all()


@QUIET
@given(cases(comparisons(ints)), st.sampled_from([Size("keys"), Size("queries"), to_const(8), WINDOW]))
def test_indices_proved_in_bounds_are(case: Case, extent: Expr) -> None:
    environment = environment_of(case.spec)
    nodes = [x for x in postorder(*(c.expr for c in case.spec.masks)) if x.sort is Sort.INT]
    proved = [x for x in nodes if in_bounds(x, extent, environment)]
    assume(proved)
    limit, *values = evaluate_all([extent, *proved], pairs(case))
    for value in values:
        assert ((value >= 0) & (value < limit)).all()


@pytest.mark.parametrize(
    ("index", "extent", "proved"),
    [
        (K, Size("keys"), True),
        (ROW, Size("queries"), True),
        (H, Size("heads"), True),
        (B, Size("batch"), True),
        (call("floordiv", H, call("floordiv", Size("heads"), Size("kv_heads"))), Size("kv_heads"), True),
        (call("floordiv", K, n(64)), Size("keys"), True),
        (call("floordiv", K, n(64)), call("floordiv", call("add", Size("keys"), n(63)), n(64)), False),
        (call("clamp", call("sub", Q, K), n(0), n(7)), EXTENT, True),
        (call("min", call("abs", call("sub", Q, K)), n(7)), EXTENT, True),
        (call("mod", call("sub", Q, K), n(8)), EXTENT, True),
        (call("add", call("clamp", call("sub", K, Q), n(-3), n(3)), n(3)), n(7), True),
        (call("where", call("lt", K, Q), n(0), n(7)), EXTENT, True),
        (call("add", call("mod", K, n(4)), n(5)), EXTENT, False),
        (Q, Size("keys"), False),
        (K, Size("queries"), False),
        (call("sub", Q, K), EXTENT, False),
        (call("add", K, n(1)), Size("keys"), False),
        (call("clamp", K, n(0), call("sub", N, n(1))), N, False),  # n may be 0
        (Load("ids", (B, K), Sort.INT), EXTENT, False),  # a fact is no proof of safety
    ],
)
def test_in_bounds(index: Expr, extent: Expr, proved: bool) -> None:
    spec = Spec(
        "example",
        params=(Parameter("n", Sort.INT, 4),),
        inputs=(Input("ids", Sort.INT, (Size("batch"), Size("keys")), facts=(RangeFact(n(0), n(8)),)),),
    )
    assert in_bounds(index, extent, environment_of(spec, facts=False)) is proved


@pytest.mark.parametrize(
    ("expr", "proved"),
    [
        (K, True),
        (Q, False),
        (call("abs", call("sub", Q, K)), True),
        (call("sub", Size("keys"), K), True),
        (call("sub", call("sub", Size("keys"), K), n(2)), False),
        (call("sub", call("max", K, ROW), K), True),
        (call("mod", Q, n(5)), True),
        (call("mod", Q, n(-5)), False),
    ],
)
def test_is_nonnegative(expr: Expr, proved: bool) -> None:
    assert is_nonnegative(expr, environment_of(spec_of())) is proved


@pytest.mark.parametrize(
    ("expr", "wide", "narrowed"),
    [
        (Q, False, True),
        (Q, True, False),
        (call("sub", Q, K), False, True),
        (call("mul", Q, n(16)), False, False),
        (call("mul", call("min", K, n(100)), n(16)), False, True),
        (Load("small", (K,), Sort.INT), False, True),
        (Load("large", (K,), Sort.INT), False, False),
        (call("mod", Load("large", (K,), Sort.INT), n(8)), False, False),  # the operand needs 64 bits
    ],
)
def test_narrow(expr: Expr, wide: bool, narrowed: bool) -> None:
    spec = Spec("example", inputs=tuple(Input(x, Sort.INT, (Size("keys"),)) for x in ("small", "large")))
    environment = environment_of(spec, wide=wide, input_dtypes={"small": "int32", "large": "int64"})
    assert (expr in narrow([expr], environment)) is narrowed


@pytest.mark.parametrize(
    ("condition", "interval"),
    [
        (call("ge", N, n(1)), Interval(1, LENGTH_LIMIT)),
        (call("lt", N, n(8)), Interval(-LENGTH_LIMIT, 7)),
        (call("and", call("le", n(2), N), call("le", N, n(9))), Interval(2, 9)),
        (call("eq", N, n(5)), Interval(5, 5)),
        (call("or", call("ge", N, n(1)), call("le", N, n(-1))), Interval(-LENGTH_LIMIT, LENGTH_LIMIT)),
        (call("ge", N, Size("heads")), Interval(1, LENGTH_LIMIT)),
    ],
)
def test_requirements_are_facts(condition: Expr, interval: Interval) -> None:
    spec = Spec("example", params=(Parameter("n", Sort.INT, 4),), requires=(Require(condition, "so"),))
    assert interval_of(N, environment_of(spec)) == interval


def pairs(case: Case) -> Values:
    """The leaves at every pair, as arrays over `[batch, heads, queries, keys]`."""
    return Values(
        sizes={"batch": BATCH, "heads": HEADS, "queries": case.queries, "keys": case.keys},
        scalars={**case.params, "q_offset": case.q_offset},
        tensors=case.inputs,
        coordinates={
            "b": np.arange(BATCH)[:, None, None, None],
            "h": np.arange(HEADS)[None, :, None, None],
            "row": np.arange(case.queries)[None, None, :, None],
            "k": np.arange(case.keys)[None, None, None, :],
        },
    )
