"""Derivatives of whole expressions, shared sub-expressions accumulated, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation import evaluate
from hypothesis import assume, given, settings
from strategies import SMOOTH, expressions

from attncc.ir.expr import Call, Coord, Expr, Load, Param, Score, Sort, postorder, to_const
from attncc.ir.intrinsics import call
from attncc.ir.printer import print_expr
from attncc.passes.differentiate import gradients

S, K = Score(), Coord("k")
X, Y = (Param(n, Sort.FLOAT) for n in "xy")
P = Param("p", Sort.BOOL)
BIAS = Load("bias", (K,), Sort.FLOAT)
ZERO = to_const(0.0)


def mul(a: Expr, b: Expr) -> Expr:
    return call("mul", a, b)


TWICE = mul(to_const(2.0), S)


@pytest.mark.parametrize(
    ("expr", "by", "slope"),
    [
        (S, S, "1.0"),
        (BIAS, S, "0.0"),
        (call("add", S, BIAS), BIAS, "1.0"),
        (call("sub", S, BIAS), BIAS, "-1.0"),
        (call("sub", S, mul(BIAS, K)), BIAS, "-k"),
        (mul(to_const(50.0), call("tanh", call("div", S, to_const(50.0)))), S, None),
        (call("exp", S), S, "exp(s)"),
        (call("log", S), S, "1.0 / s"),
        (call("where", P, S, BIAS), S, "1.0 if p else 0.0"),
        (call("where", P, mul(S, S), ZERO), S, "s + s if p else 0.0"),
        (call("abs", S), S, "sign(s)"),
        (call("sign", S), S, "0.0"),
        (call("relu", S), S, "0.0 if s <= 0.0 else 1.0"),
        (call("to_float", call("floor", S)), S, "0.0"),
        (call("where", call("lt", S, ZERO), X, Y), S, "0.0"),
        (Load("t", (call("floor", S),), Sort.FLOAT), S, "0.0"),
    ],
)
def test_small_cases(expr: Expr, by: Expr, slope: str | None) -> None:
    found = gradients(expr, [by])
    assert list(found) == [by]
    if slope is not None:
        assert print_expr(found[by]) == slope


def test_shared_expressions_accumulate() -> None:
    """For t = 2 s and y = t t the derivative is 8 s."""
    slope = gradients(mul(TWICE, TWICE), [S])[S]
    assert evaluate(slope, {S: np.array([0.5, -3.0])}).tolist() == [4.0, -24.0]


def test_the_derivative_by_an_inner_node_is_its_own() -> None:
    found = gradients(mul(TWICE, TWICE), [TWICE, S])
    assert evaluate(found[TWICE], {S: np.array(3.0)}) == 12.0
    assert evaluate(found[S], {S: np.array(3.0)}) == 24.0


def test_only_floats_have_derivatives() -> None:
    for expr, by in ((call("add", K, K), S), (S, K)):
        with pytest.raises(ValueError, match="only floats have derivatives, not int"):
            gradients(expr, [by])


@pytest.mark.parametrize(
    ("op", "at", "slopes"),
    [
        ("max", (1.0, 1.0), (0.5, 0.5)),
        ("min", (1.0, 1.0), (0.5, 0.5)),
        ("max", (2.0, 1.0), (1.0, 0.0)),
        ("min", (2.0, 1.0), (0.0, 1.0)),
    ],
)
def test_ties_are_shared(op: str, at: tuple[float, float], slopes: tuple[float, float]) -> None:
    found = gradients(call(op, X, Y), [X, Y])
    values = {X: np.array(at[0]), Y: np.array(at[1])}
    assert tuple(evaluate(found[node], values).item() for node in (X, Y)) == slopes


@pytest.mark.parametrize(
    "expr",
    [
        call("where", call("gt", S, ZERO), call("log", S), ZERO),
        call("where", call("gt", S, ZERO), call("sqrt", call("mul", S, S)), S),
        call("where", call("gt", S, ZERO), call("div", to_const(1.0), call("exp", call("log", S))), S),
        call("relu", call("where", call("gt", S, ZERO), call("log", S), to_const(-1.0))),
    ],
    ids=print_expr,
)
def test_a_branch_not_taken_adds_no_nan(expr: Expr) -> None:
    """torch multiplies its 0 by the branch's infinite slope there."""
    slope = gradients(expr, [S])[S]
    assert np.isfinite(evaluate(slope, {S: np.array([0.0, 4.0])})).all()


@settings(max_examples=150, deadline=None)
@given(expr=expressions(Sort.FLOAT, (S, X, Y, P, K), 6, SMOOTH))
def test_random_shared_graphs_agree_with_torch(expr: Expr) -> None:
    rng = np.random.default_rng(3)
    wrt = [node for node in (S, X, Y) if node in set(postorder(expr))]
    assume(wrt)
    points = {S: rng.normal(size=8), X: rng.normal(size=8), Y: rng.normal(size=8)}
    fixed = {P: np.arange(8) % 2 > 0, K: np.arange(8)}
    tensors = {n: torch.tensor(v, requires_grad=n in wrt) for n, v in (points | fixed).items()}
    result = evaluate(expr, tensors, xp=torch, floating=torch.float64)
    assume(result.requires_grad)
    assume(bool(result.isfinite().all()))
    expected = torch.autograd.grad(result.expand(8).sum(), [tensors[n] for n in wrt], allow_unused=True)
    found = gradients(expr, wrt)
    for node, slope in zip(wrt, expected, strict=True):
        value = np.broadcast_to(evaluate(found[node], points | fixed), 8)
        reference = np.zeros(8) if slope is None else slope.numpy()
        np.testing.assert_allclose(value, reference, rtol=1e-9, atol=1e-9)


def test_graphs_grow_linearly() -> None:
    """A chain that doubles at every step has 2**200 paths and few nodes."""
    expr: Expr = S
    for _ in range(200):
        expr = call("tanh", call("add", expr, mul(expr, expr)))
    slope = gradients(expr, [S])[S]
    assert sum(1 for _ in postorder(slope)) < 3000


def test_choices_grow_linearly() -> None:
    expr: Expr = S
    for index in range(60):
        bound = to_const(float(index))
        expr = call("max", call("min", mul(expr, to_const(3.0)), bound), call("clamp", expr, call("neg", bound), bound))
    nodes = sum(1 for _ in postorder(gradients(expr, [S])[S]))
    assert nodes < 6000
    assert all(isinstance(n, Call | Score) or n.sort is not Sort.INT for n in postorder(expr))
