"""Each rule of the simplifier fires on its example, and none ever changes a value or a derivative."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import expressions, specs

from attncc.ir.expr import FALSE, TRUE, Call, Const, Expr, Load, Param, Score, Sort, postorder, to_const
from attncc.ir.intrinsics import INTRINSICS, call
from attncc.ir.printer import print_expr
from attncc.ir.spec import Clause, Require, Spec
from attncc.ir.verify import verify
from attncc.passes.simplify import RULES, simplify, simplify_expr

A, B, C = (Param(n, Sort.INT) for n in "abc")
X, Y, Z = (Param(n, Sort.FLOAT) for n in "xyz")
P, R, T = (Param(n, Sort.BOOL) for n in "prt")
LEAVES = (A, B, C, X, Y, Z, P, R, T)


def lit(value: float) -> Expr:
    return to_const(value)


def neg(x: Expr) -> Expr:
    return call("neg", x)


def add(a: Expr, b: Expr) -> Expr:
    return call("add", a, b)


def sub(a: Expr, b: Expr) -> Expr:
    return call("sub", a, b)


def both(a: Expr, b: Expr) -> Expr:
    return call("and", a, b)


def either(a: Expr, b: Expr) -> Expr:
    return call("or", a, b)


def no(a: Expr) -> Expr:
    return call("not", a)


def where(c: Expr, a: Expr, b: Expr) -> Expr:
    return call("where", c, a, b)


TABLE: list[tuple[Expr, str]] = [
    (neg(neg(X)), "x"),
    (neg(sub(A, B)), "b - a"),
    (add(A, lit(0)), "a"),
    (add(lit(0), A), "a"),
    (add(X, lit(-0.0)), "x"),
    (add(X, neg(Y)), "x - y"),
    (add(neg(X), Y), "y - x"),
    (add(add(A, lit(2)), lit(3)), "a + 5"),
    (add(sub(A, lit(2)), lit(3)), "a + 1"),
    (add(sub(A, lit(5)), lit(3)), "a - 2"),
    (add(A, lit(-3)), "a - 3"),
    (add(sub(A, B), B), "a"),
    (add(B, sub(A, B)), "a"),
    (add(where(P, X, lit(0.0)), where(P, Y, lit(1.0))), "x + y if p else 1.0"),
    (sub(A, lit(0)), "a"),
    (sub(X, lit(0.0)), "x"),
    (sub(A, A), "0"),
    (sub(lit(0), A), "-a"),
    (sub(lit(-0.0), X), "-x"),
    (sub(X, neg(Y)), "x + y"),
    (sub(add(A, lit(2)), lit(3)), "a - 1"),
    (sub(A, lit(-3)), "a + 3"),
    (sub(add(A, B), B), "a"),
    (sub(add(A, B), A), "b"),
    (sub(A, sub(A, B)), "b"),
    (call("mul", A, lit(0)), "0"),
    (call("mul", lit(1.0), X), "x"),
    (call("mul", A, lit(1)), "a"),
    (call("mul", X, lit(-1.0)), "-x"),
    (call("mul", neg(X), neg(Y)), "x * y"),
    (call("div", X, lit(4.0)), "x * 0.25"),
    (call("div", X, lit(1.0)), "x"),
    (call("div", neg(X), neg(Y)), "x / y"),
    (call("floordiv", A, lit(1)), "a"),
    (call("floordiv", lit(0), A), "0"),
    (call("floordiv", A, lit(0)), "0"),
    (call("mod", A, lit(-1)), "0"),
    (call("mod", A, A), "0"),
    (call("mod", call("mod", A, B), B), "a % b"),
    (call("pow", A, lit(0)), "1"),
    (call("pow", X, lit(0.0)), "1.0"),
    (call("pow", X, lit(1.0)), "x"),
    (call("pow", A, lit(2)), "a * a"),
    (call("abs", call("abs", X)), "abs(x)"),
    (call("abs", neg(X)), "abs(x)"),
    (call("min", X, X), "x"),
    (call("min", X, lit(math.inf)), "x"),
    (call("min", call("min", A, B), B), "min(a, b)"),
    (call("max", X, X), "x"),
    (call("max", lit(-math.inf), X), "x"),
    (call("max", call("max", A, B), A), "max(a, b)"),
    (call("eq", A, A), "true"),
    (call("eq", P, TRUE), "p"),
    (call("eq", P, FALSE), "not p"),
    (call("ne", A, A), "false"),
    (call("ne", P, FALSE), "p"),
    (call("ne", TRUE, P), "not p"),
    (call("lt", X, X), "false"),
    (call("gt", X, X), "false"),
    (call("le", A, A), "true"),
    (call("ge", A, A), "true"),
    (both(P, TRUE), "p"),
    (both(FALSE, P), "false"),
    (both(P, P), "p"),
    (both(no(P), P), "false"),
    (both(P, no(P)), "false"),
    (both(P, either(R, P)), "p"),
    (both(either(P, R), P), "p"),
    (both(both(P, R), P), "p and r"),
    (both(call("lt", A, B), call("ge", A, B)), "false"),
    (either(P, FALSE), "p"),
    (either(TRUE, P), "true"),
    (either(P, P), "p"),
    (either(no(P), P), "true"),
    (either(P, both(R, P)), "p"),
    (either(both(P, R), P), "p"),
    (either(either(P, R), R), "p or r"),
    (no(no(P)), "p"),
    (no(call("lt", A, B)), "a >= b"),
    (no(call("eq", X, Y)), "x != y"),
    (where(TRUE, X, Y), "x"),
    (where(P, X, X), "x"),
    (where(FALSE, X, Y), "y"),
    (where(P, TRUE, R), "p or r"),
    (where(P, R, FALSE), "p and r"),
    (where(P, FALSE, R), "not p and r"),
    (where(P, R, TRUE), "not p or r"),
    (where(no(P), X, Y), "y if p else x"),
    (where(P, where(P, X, Y), Z), "x if p else z"),
    (where(P, X, where(P, Y, Z)), "x if p else z"),
    (where(P, where(R, X, Y), Y), "x if p and r else y"),
    (where(P, X, where(R, X, Y)), "x if p or r else y"),
    (call("bitand", A, lit(0)), "0"),
    (call("bitand", A, lit(-1)), "a"),
    (call("bitand", A, A), "a"),
    (call("bitor", A, lit(0)), "a"),
    (call("bitor", A, lit(-1)), "-1"),
    (call("bitxor", A, lit(0)), "a"),
    (call("bitxor", A, A), "0"),
    (call("bitxor", A, lit(-1)), "~a"),
    (call("bitnot", call("bitnot", A)), "a"),
    (call("shl", A, lit(0)), "a"),
    (call("shl", A, lit(64)), "0"),
    (call("shr", A, lit(0)), "a"),
    (call("shr", A, lit(-1)), "0"),
    (call("relu", call("relu", X)), "relu(x)"),
    # Folded literals
    (add(lit(2**63 - 1), lit(1)), str(-(2**63))),
    (call("floordiv", lit(-7), lit(2)), "-4"),
    (call("mul", lit(0.5), lit(4.0)), "2.0"),
    (call("mul", X, lit(3)), "x * 3.0"),
    (call("lt", lit(0.1), lit(0.2)), "true"),
    (call("floor", lit(2.5)), "2"),
    (call("exp", lit(0.0)), "1.0"),
]

UNCHANGED = [
    add(X, lit(0.0)),  # -0.0 + 0.0 is 0.0
    sub(X, X),  # inf - inf is nan
    call("mul", X, lit(0.0)),
    call("div", X, X),
    call("div", X, lit(3.0)),
    call("eq", X, X),
    call("le", X, X),
    no(call("lt", X, Y)),  # both false at nan
    neg(sub(X, Y)),  # the zero's sign
    call("max", call("max", X, Y), Y),  # the derivative at a tie
    call("mul", lit(1e38), lit(1e38)),  # infinite in float32 only
    call("mul", lit(0.1), lit(0.1)),  # rounds another way in float32
    sub(A, lit(-(2**63))),  # its opposite is no int64
    call("floordiv", A, A),  # 0 at 0
]


@pytest.mark.parametrize(("before", "after"), TABLE, ids=lambda e: print_expr(e) if isinstance(e, Expr) else e)
def test_rule(before: Expr, after: str) -> None:
    assert print_expr(simplify_expr(before)) == after


@pytest.mark.parametrize("expr", UNCHANGED, ids=print_expr)
def test_what_only_looks_equal_is_left(expr: Expr) -> None:
    assert simplify_expr(expr) is expr


def test_every_rule_has_an_example() -> None:
    idle = {(op, index) for op, rules in RULES.items() for index in range(len(rules))}
    for before, _ in TABLE:
        assert isinstance(before, Call)
        args = tuple(simplify_expr(a) for a in before.args)
        for candidate in (args, args[::-1]) if len(args) == 2 else (args,):
            idle -= {(before.op, i) for i, rule in enumerate(RULES.get(before.op, ())) if _fires(rule, candidate)}
    assert not idle


@pytest.mark.parametrize("before", [before for before, _ in TABLE], ids=print_expr)
@pytest.mark.parametrize("floating", [np.float32, np.float64])
def test_rule_keeps_every_value(before: Expr, floating: type) -> None:
    values = corner_values(floating)
    assert_same(evaluate(before, values, floating=floating), evaluate(simplify_expr(before), values, floating=floating))


@pytest.mark.parametrize("sort", list(Sort))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_simplified_expressions_keep_every_value(sort: Sort, data: st.DataObject) -> None:
    expr = data.draw(expressions(sort, LEAVES, 5))
    simplified = simplify_expr(expr)
    assert simplified.sort is sort
    assert simplify_expr(simplified) is simplified
    for floating in (np.float32, np.float64):
        if floating is np.float64 and _has_discrete_use_of_floats(expr):
            continue  # there floats are float32, and literals fold as such
        values = corner_values(floating)
        before, after = (evaluate(e, values, floating=floating) for e in (expr, simplified))
        # numpy itself rounds a transcendental of one element and of many differently.
        assert_same(before, after, exact=not _has_transcendental(expr))


@pytest.mark.parametrize(
    "before", [b for b, _ in TABLE if b.sort is Sort.FLOAT and isinstance(b, Call)], ids=print_expr
)
def test_rule_keeps_derivatives(before: Expr) -> None:
    """At finite operands, ties included."""
    floats = [leaf for leaf in (X, Y, Z) if leaf in set(postorder(before))]
    choices = torch.tensor([-2.0, -1.0, 0.0, 1.0, 1.5], dtype=torch.float64)
    grid = torch.meshgrid(*[choices] * 3, indexing="ij")
    slopes = []
    for expr in (before, simplify_expr(before)):
        values: dict[Expr, torch.Tensor] = {
            leaf: g.reshape(-1).clone().requires_grad_() for leaf, g in zip((X, Y, Z), grid, strict=True)
        }
        for index, leaf in enumerate((P, R, T)):
            values[leaf] = torch.arange(125) >> index & 1 > 0
        result = evaluate(expr, values, xp=torch, floating=torch.float64)
        if not result.requires_grad:
            slopes.append([torch.zeros(125, dtype=torch.float64)] * len(floats))
            continue
        found = torch.autograd.grad(result.sum(), [values[leaf] for leaf in floats], allow_unused=True)
        slopes.append([torch.zeros(125, dtype=torch.float64) if g is None else g for g in found])
    for before_slope, after_slope in zip(*slopes, strict=True):
        torch.testing.assert_close(before_slope, after_slope, equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(spec=specs())
def test_simplified_specs_are_valid(spec: Spec) -> None:
    verify(simplify(spec))


def test_clauses_that_do_nothing_are_dropped() -> None:
    span_free = Spec(
        "test",
        masks=(Clause(TRUE), Clause(P), Clause(FALSE)),
        scores=(Clause(add(Score(), neg(lit(0.0)))),),
        requires=(Require(TRUE, "fine"), Require(FALSE, "never")),
        reweight=Clause(lit(1.0)),
    )
    expected = Spec("test", masks=(Clause(P), Clause(FALSE)), requires=(Require(FALSE, "never"),))
    assert simplify(span_free) == expected


def test_indices_are_simplified_and_sharing_kept() -> None:
    load = Load("t", (add(A, lit(0)),), Sort.FLOAT)
    assert simplify_expr(add(load, load)) is add(Load("t", (A,), Sort.FLOAT), Load("t", (A,), Sort.FLOAT))
    deep: Expr = X
    for _ in range(5000):
        deep = add(deep, deep)
    assert simplify_expr(deep) is deep
    assert replace(Spec("a"), scale=lit(2.0)) == simplify(replace(Spec("a"), scale=lit(2.0)))


def corner_values(floating: type) -> dict[Expr, np.ndarray]:
    """Columns that pair corner values in many ways, the same ones often."""
    ints = np.array([0, 1, -1, 2, 5, 63, 64, 2**31, 2**62, 2**63 - 1, -(2**63), 0, 7, 7])
    floats = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 2.5, 1e30, math.inf, -math.inf, math.nan, 3.0, 3.0, 0.1, 1e-30])
    values: dict[Expr, np.ndarray] = {}
    for index, leaves in enumerate(((A, X, P), (B, Y, R), (C, Z, T))):
        columns = (np.arange(14 * 14) // (14 if index == 1 else 1) + 3 * (index == 2)) % 14
        values[leaves[0]] = ints[columns]
        values[leaves[1]] = floats[columns].astype(floating)
        values[leaves[2]] = columns % 3 == index
    return values


def assert_same(before: np.ndarray, after: np.ndarray, *, exact: bool = True) -> None:
    before, after = np.broadcast_arrays(before, after)
    if exact or before.dtype.kind != "f":
        np.testing.assert_array_equal(before, after)
        if before.dtype.kind == "f":
            numbers = ~np.isnan(before)
            np.testing.assert_array_equal(np.signbit(before[numbers]), np.signbit(after[numbers]))
    else:
        np.testing.assert_allclose(before, after, rtol=1e-5)


def _fires(rule: object, args: tuple[Expr, ...]) -> bool:
    assert callable(rule)
    return rule(*args) is not None


def _has_transcendental(expr: Expr) -> bool:
    approximate = {"exp", "log", "sin", "cos", "tanh", "sigmoid", "erf", "pow"}
    return any(isinstance(n, Call) and n.op in approximate for n in postorder(expr))


def _has_discrete_use_of_floats(expr: Expr) -> bool:
    return any(
        isinstance(n, Call) and n.sort is not Sort.FLOAT and any(a.sort is Sort.FLOAT for a in n.args)
        for n in postorder(expr)
    )


def test_meanings_exist_for_all_rules() -> None:
    assert set(RULES) <= set(INTRINSICS)
    assert all(isinstance(c, Const) for c in (TRUE, FALSE))
