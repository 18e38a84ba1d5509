"""The verifier accepts every valid spec and names the node of every broken rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from strategies import specs

from attncc.ir.expr import (
    FALSE,
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
    to_const,
)
from attncc.ir.intrinsics import call
from attncc.ir.spec import Clause, Constant, Grid, Input, Parameter, RangeFact, Ratio, Softmax, SortedFact, Spec
from attncc.ir.verify import InvalidIR, verify

Q, K, S = Coord("q"), Coord("k"), Score()
EMPTY = Spec("test")
DOC = Input("doc", Sort.INT, (Size("batch"), Size("keys")))


def masked(expr: Expr, **changes: object) -> Spec:
    return replace(EMPTY, masks=(Clause(expr),), **changes)


def scored(expr: Expr, **changes: object) -> Spec:
    return replace(EMPTY, scores=(Clause(expr),), **changes)


@settings(max_examples=40, deadline=None)
@given(spec=specs())
def test_valid_specs_pass(spec: Spec) -> None:
    verify(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (masked(K), "in a mask: 'k' is int, not bool"),
        (scored(K), "in a score: 'k' is int, not float"),
        (masked(call("lt", S, to_const(0.0))), "in a mask: 's' may not be read here"),
        (scored(RowSum()), "in a score: 'total' may be read in a denominator only"),
        (scored(call("add", S, RowCount())), "in a score: 'count' may be read in a denominator only"),
        (replace(EMPTY, reweight=Clause(S)), "in the reweight factor: 's' may not be read here"),
        (replace(EMPTY, weights=Ratio(Clause(S), Clause(S))), "in the denominator: 's' may not be read here"),
        (
            replace(EMPTY, weights=Ratio(Clause(S), Clause(call("to_float", K)))),
            "in the denominator: 'k' is no position that may be read here",
        ),
        (
            replace(EMPTY, weights=Softmax((Clause(call("to_float", K)),))),
            "in a sink: 'k' is no position that may be read here",
        ),
        (masked(call("lt", Coord("q.y"), K)), "in a mask: 'q.y' is no position that may be read here"),
        (masked(call("lt", Coord("z"), K)), "in a mask: 'z' is no position that may be read here"),
        (masked(call("lt", Size("top"), K)), "in a mask: 'top' is no size of this spec"),
        (masked(call("lt", Param("w", Sort.INT), K)), "in a mask: 'w' is no int constant or parameter"),
        (
            scored(Param("w", Sort.FLOAT), params=(Parameter("w", Sort.INT, 1),)),
            "in a score: 'w' is no float constant or parameter",
        ),
        (masked(Listed("t")), "in a mask: 't' is no table"),
        (masked(Load("doc", (K,), Sort.BOOL)), "in a mask: 'doc[k]' reads no declared input"),
        (
            masked(Load("doc", (Q, K), Sort.BOOL), inputs=(DOC,)),
            "in a mask: 'doc[q, k]' is bool, but the input is int",
        ),
        (
            masked(call("eq", Load("doc", (K,), Sort.INT), K), inputs=(DOC,)),
            "in a mask: 'doc[k]' has 1 indices for 2 extents",
        ),
        (
            masked(call("eq", Load("doc", (Q, FALSE), Sort.INT), K), inputs=(DOC,)),
            "in a mask: 'doc[q, false]' has an index that is not int",
        ),
        (masked(Call("lt", (K, S), Sort.BOOL)), "in a mask: 's' may not be read here"),
        (
            masked(Call("lt", (K, FALSE), Sort.BOOL)),
            "in a mask: 'k < false' applies 'lt' to (int, bool) giving bool, which it has no signature for",
        ),
        (
            masked(call("eq", Call("pow", (Q, K), Sort.INT), K)),
            "in a mask: 'q ** k' has an int exponent that is no literal",
        ),
        (masked(call("lt", Const(2**63, Sort.INT), K)), f"in a mask: '{2**63}' does not fit 64 bits"),
        (masked(Const(1, Sort.BOOL)), "in a mask: 'true' is a bool literal holding a int"),
        (
            replace(EMPTY, inputs=(Input("t", Sort.INT, (Size("keys"),), learnable=True),)),
            "input 't' is learnable but int",
        ),
        (replace(EMPTY, inputs=(Input("t", Sort.INT, (K,)),)), "in an extent of 't': 'k' is no position"),
        (
            replace(EMPTY, inputs=(Input("t", Sort.INT, (Size("keys"),), facts=(SortedFact(1),)),)),
            "input 't' is sorted along axis 1, which it does not have",
        ),
        (
            replace(EMPTY, inputs=(Input("t", Sort.BOOL, (), facts=(RangeFact(to_const(0), to_const(1)),)),)),
            "input 't' has a range but is bool",
        ),
        (replace(EMPTY, inputs=(DOC,), extents=("doc",)), "'doc' is declared twice"),
        (replace(EMPTY, outputs=("lse", "lse")), "outputs lse, lse are not distinct names"),
    ],
)
def test_broken_rules_are_named(spec: Spec, message: str) -> None:
    with pytest.raises(InvalidIR) as caught:
        verify(spec)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(EMPTY, constants=(Constant("n", Sort.INT, 1),)), "constant 'n' is left in a lowered spec"),
        (masked(call("lt", Q, K)), "in a mask: 'q' is no position that may be read here"),
        (masked(call("lt", Coord("h_kv"), K)), "in a mask: 'h_kv' is no position that may be read here"),
        (
            masked(call("lt", Coord("k.y"), K), grid=Grid(("y",), ("y",))),
            "in a mask: 'k.y' is no position that may be read here",
        ),
        (
            masked(call("lt", Size("k.y"), K), grid=Grid(("y",), ("y",))),
            "in a mask: 'len(k.y)' is no size of this spec",
        ),
    ],
)
def test_lowered_specs_keep_more_rules(spec: Spec, message: str) -> None:
    verify(spec)
    with pytest.raises(InvalidIR) as caught:
        verify(spec, lowered=True)
    assert str(caught.value).startswith(message)


def test_offsets_are_known_once_lowered() -> None:
    offset = Load("q_offset", (Coord("b"),), Sort.INT)
    for shift in (offset, Param("q_offset", Sort.INT)):
        spec = masked(call("le", K, call("add", Coord("row"), shift)))
        verify(spec, lowered=True)
        with pytest.raises(InvalidIR):
            verify(spec)
