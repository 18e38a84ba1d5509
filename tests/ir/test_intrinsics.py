"""Every operation's record: typing, meaning, interval and derivative agree with each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from evaluation import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import scalars

from attncc.ir.expr import Call, Const, Coord, Expr, Param, Score, Sort, to_const
from attncc.ir.intrinsics import INTRINSICS, Interval, Intrinsic, Signature, TypingError, call, is_plain

NAMES = (
    "neg add sub mul div floordiv mod pow abs sign min max clamp eq ne lt le gt ge and or not where "
    "bitand bitor bitxor bitnot shl shr floor ceil exp log sqrt sin cos tanh sigmoid relu erf to_float"
)
TYPINGS = [(r, s) for r in INTRINSICS.values() for s in r.signatures]
SLOPES = [(r, s, i) for r, s in TYPINGS if r.derivative for i, o in enumerate(s[0]) if s[1] is o is Sort.FLOAT]
CORNERS = {
    Sort.INT: [0, 1, -1, 2, 3, -3, 7, -8, 31, 32, 63, 64, 65, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), -(2**62)],
    Sort.FLOAT: [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 80.0, -90.0, 1e19, -1e19, math.inf, -math.inf, math.nan],
    Sort.BOOL: [False, True],
}
DTYPES = {Sort.INT: np.int64, Sort.BOOL: np.bool_, Sort.FLOAT: np.float32}


def typing_id(case: tuple[Intrinsic, Signature]) -> str:
    return f"{case[0].name}-{'-'.join(s.value for s in case[0 + 1][0])}"


def grid(record: Intrinsic, signature: Signature) -> list[np.ndarray]:
    """Every combination of corner values, flattened."""
    axes = [np.array(CORNERS[s], dtype=DTYPES[s]) for s in signature[0]]
    if record.name == "pow" and signature[1] is Sort.INT:
        axes[1] = np.array([0, 1, 2, 3, 5, 64, 65])
    return [a.ravel() for a in np.meshgrid(*axes, indexing="ij")]


def test_the_operations_are_the_documented_ones() -> None:
    assert list(INTRINSICS) == NAMES.split()
    assert all(r.doc.endswith(".") and r.name == name for name, r in INTRINSICS.items())


@pytest.mark.parametrize("case", TYPINGS, ids=typing_id)
def test_meaning_is_the_same_in_numpy_and_torch(case: tuple[Intrinsic, Signature]) -> None:
    record, signature = case
    operands = grid(record, signature)
    found = record.meaning(np, *operands)
    tensors = record.meaning(torch, *map(torch.from_numpy, operands))
    result = np.float64 if record.name == "to_float" else DTYPES[signature[1]]
    assert found.dtype == tensors.numpy().dtype == result
    # Neither library rounds a transcendental exactly; infinities and nan must still agree.
    np.testing.assert_allclose(tensors.numpy(), found, rtol=1e-6 if signature[1] is Sort.FLOAT else 0)


@pytest.mark.parametrize("case", TYPINGS, ids=typing_id)
def test_meaning_takes_python_scalars(case: tuple[Intrinsic, Signature]) -> None:
    record, signature = case
    given = {Sort.INT: 3, Sort.FLOAT: 0.1, Sort.BOOL: True}
    operands = [given[s] for s in signature[0]]
    expected = record.meaning(np, *(np.array(o) for o in operands))
    for xp in (np, torch):
        assert float(record.meaning(xp, *operands)) == pytest.approx(float(expected), rel=1e-14)
    if len(operands) > 1:  # a scalar beside float32 does not widen it
        mixed = [torch.tensor([o], dtype=torch.float32) if isinstance(o, float) else o for o in operands[:-1]]
        result = record.meaning(torch, *mixed, operands[-1])
        assert result.dtype != torch.float64


@pytest.mark.parametrize(
    ("op", "operands", "expected"),
    [
        ("floordiv", (-7, 2), -4),
        ("floordiv", (7, -2), -4),
        ("floordiv", (7, 0), 0),
        ("floordiv", (-(2**63), -1), -(2**63)),
        ("mod", (-7, 3), 2),
        ("mod", (7, -3), -2),
        ("mod", (7, 0), 0),
        ("mod", (-(2**63), -1), 0),
        ("add", (2**63 - 1, 1), -(2**63)),
        ("mul", (2**62, 4), 0),
        ("abs", (-(2**63),), -(2**63)),
        ("shl", (1, 63), -(2**63)),
        ("shl", (1, 64), 0),
        ("shl", (1, -1), 0),
        ("shr", (-8, 1), -4),
        ("shr", (-8, 63), -1),
        ("shr", (-8, 64), 0),
        ("floor", (math.nan,), 0),
        ("floor", (1e30,), 2**63 - 1),
        ("ceil", (-1e30,), -(2**63)),
        ("ceil", (-0.5,), 0),
        ("floor", (-0.5,), -1),
        ("sign", (math.nan,), 0),
        ("clamp", (5, 3, 1), 1),
        ("pow", (0, 0), 1),
        ("pow", (3, 41), 3**41 - 2 * 2**64),
    ],
)
def test_corners_of_meaning(op: str, operands: tuple[Any, ...], expected: float) -> None:
    for xp in (np, torch):
        assert INTRINSICS[op].meaning(xp, *operands).item() == expected


@pytest.mark.parametrize("op", ["min", "max", "relu", "clamp", "abs", "exp"])
def test_nan_goes_through(op: str) -> None:
    operands = (math.nan, 1.0, 2.0)[: INTRINSICS[op].arity]
    for xp in (np, torch):
        assert math.isnan(INTRINSICS[op].meaning(xp, *operands).item())


# Typing

Q, S, ON = Coord("q"), Score(), Param("on", Sort.BOOL)


@pytest.mark.parametrize(
    ("op", "args", "sort"),
    [
        ("add", (Q, Q), Sort.INT),
        ("add", (S, Q), Sort.FLOAT),
        ("div", (Q, Q), Sort.FLOAT),
        ("eq", (ON, ON), Sort.BOOL),
        ("eq", (Q, S), Sort.BOOL),
        ("where", (ON, Q, S), Sort.FLOAT),
        ("where", (ON, ON, ON), Sort.BOOL),
        ("clamp", (Q, S, Q), Sort.FLOAT),
        ("pow", (Q, to_const(2)), Sort.INT),
        ("pow", (S, Q), Sort.FLOAT),
        ("floor", (Q,), Sort.INT),
        ("floor", (S,), Sort.INT),
    ],
)
def test_call_types_and_converts(op: str, args: Sequence[Expr], sort: Sort) -> None:
    result = call(op, *args)
    assert result.sort is sort
    if isinstance(result, Call):
        assert (tuple(a.sort for a in result.args), sort) in INTRINSICS[result.op].signatures


@pytest.mark.parametrize(
    ("op", "args", "message", "operand"),
    [
        ("and", (Q, ON), "'and' wants bools, its left operand is an int", 0),
        ("add", (ON, Q), "'+' wants numbers, its left operand is a bool", 0),
        ("sub", (Q, ON), "'-' wants numbers, its right operand is a bool", 1),
        ("eq", (ON, Q), "'==' cannot take a bool and an int together", 1),
        ("where", (Q, S, S), "a choice is made by a bool, not by an int", 0),
        ("where", (ON, ON, Q), "a choice is between two of a kind, not a bool and an int", 2),
        ("pow", (Q, Q), "'**' on ints wants a literal exponent of 0 or more; write a float, as in 2.0 ** n", 1),
        (
            "pow",
            (Q, to_const(-1)),
            "'**' on ints wants a literal exponent of 0 or more; write a float, as in 2.0 ** n",
            1,
        ),
        ("sqrt", (ON,), "'sqrt' wants a number, not a bool", 0),
        ("bitand", (S, Q), "'&' wants ints, its left operand is a float", 0),
        ("floordiv", (Q, S), "'//' wants ints, its right operand is a float", 1),
        ("clamp", (S, ON, Q), "'clamp' wants numbers, its second argument is a bool", 1),
        ("bitnot", (S,), "'~' wants an int, not a float", 0),
        ("neg", (), "'neg' takes 1 operands, not 0", None),
    ],
)
def test_call_refuses_in_plain_words(op: str, args: Sequence[Expr], message: str, operand: int | None) -> None:
    with pytest.raises(TypingError) as caught:
        call(op, *args)
    assert (str(caught.value), caught.value.operand) == (message, operand)


# Intervals


def inside(low: float, high: float, sort: Sort, picks: Sequence[float]) -> list[float]:
    """Values of the interval: its ends, and some between."""
    if sort is Sort.FLOAT:
        span = [low, high, *(x for x in (0.0, 1.0, -1.0, 2.5) if low <= x <= high)]
        if math.isfinite(low) and math.isfinite(high):
            span += [float(np.clip(np.float32(low + (high - low) * p), low, high)) for p in picks]
        return span
    return (
        [low, high, *(low + round((high - low) * int(p * 1024) / 1024) for p in picks)]
        if sort is Sort.BOOL
        else [
            low,
            high,
            *(low + (high - low) * int(p * 1024) // 1024 for p in picks),
            *(x for x in (-1, 0, 1, 63, 64) if low <= x <= high),
        ]
    )


def boxes(sort: Sort) -> st.SearchStrategy[tuple[float, float]]:
    near = {Sort.INT: st.integers(-70, 70), Sort.FLOAT: st.floats(-6, 6, width=32), Sort.BOOL: st.booleans()}[sort]
    ends = scalars(sort).filter(lambda v: not math.isnan(v) and (sort is not Sort.FLOAT or float(np.float32(v)) == v))
    return st.one_of(near, ends).flatmap(
        lambda a: st.one_of(st.just(a), near, ends).map(lambda b: (min(a, b), max(a, b)))
    )


@pytest.mark.parametrize("case", TYPINGS, ids=typing_id)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_intervals_enclose_every_meaning(case: tuple[Intrinsic, Signature], data: st.DataObject) -> None:
    record, (sorts, result) = case
    ends = [data.draw(boxes(s)) for s in sorts]
    if record.name == "pow" and result is Sort.INT:
        ends[1] = (data.draw(st.integers(0, 70)),) * 2
    picks = data.draw(st.lists(st.floats(0, 1), max_size=3))
    values = [inside(*e, s, picks) for e, s in zip(ends, sorts, strict=True)]
    grids = np.meshgrid(*(np.array(v, dtype=DTYPES[s]) for v, s in zip(values, sorts, strict=True)))
    found = record.interval(result, *(Interval(*e) for e in ends))
    for floating in (np.float32, np.float64):
        operands = [g.astype(floating) if g.dtype.kind == "f" else g for g in grids]
        outcomes = record.meaning(np, *operands)
        if result is Sort.FLOAT:
            outcomes = outcomes.astype(floating)
        wrong = [v for v in outcomes.ravel().tolist() if not found.contains(v)]
        assert not wrong, f"{record.name} over {ends} gives {wrong[0]}, outside {found}"


@pytest.mark.parametrize(
    ("op", "sort", "intervals", "expected"),
    [
        ("add", Sort.INT, [(0, 5), (1, 2)], (1, 7)),
        ("add", Sort.INT, [(0, 2**63 - 1), (1, 1)], (-math.inf, math.inf)),  # may wrap
        ("mul", Sort.INT, [(-3, 2), (-5, 7)], (-21, 15)),
        ("floordiv", Sort.INT, [(-7, 7), (2, 2)], (-4, 3)),
        ("mod", Sort.INT, [(128, 255), (256, 256)], (128, 255)),
        ("mod", Sort.INT, [(0, 900), (64, 64)], (0, 63)),
        ("mod", Sort.INT, [(0, 5), (64, 128)], (0, 5)),
        ("max", Sort.INT, [(-9, 4), (0, 0)], (0, 4)),
        ("pow", Sort.INT, [(-3, 2), (2, 2)], (0, 9)),
        ("pow", Sort.INT, [(-1, 1), (65, 65)], (-1, 1)),
        ("pow", Sort.INT, [(-1, 0), (10**9, 10**9)], (0, 1)),
        ("le", Sort.BOOL, [(0, 5), (5, 9)], (1, 1)),
        ("lt", Sort.BOOL, [(5, 9), (0, 5)], (0, 0)),
        ("lt", Sort.BOOL, [(0, 5), (5, 9)], (0, 1)),
        ("abs", Sort.INT, [(-4, 2)], (0, 4)),
        ("bitand", Sort.INT, [(0, 100), (0, 7)], (0, 7)),
        ("shr", Sort.INT, [(0, 100), (3, 3)], (0, 12)),
        ("where", Sort.INT, [(0, 1), (1, 2), (5, 9)], (1, 9)),
        ("where", Sort.INT, [(1, 1), (1, 2), (5, 9)], (1, 2)),
        ("floor", Sort.INT, [(-0.5, 2.5)], (-1, 2)),
        ("div", Sort.FLOAT, [(1.0, 2.0), (-1.0, 1.0)], (-math.inf, math.inf)),
        ("sub", Sort.FLOAT, [(1.0, 2.0), (0.5, 1.0)], (0.0, 1.5)),
    ],
)
def test_intervals_are_as_tight_as_expected(
    op: str, sort: Sort, intervals: list[tuple[float, float]], expected: tuple[float, float]
) -> None:
    assert INTRINSICS[op].interval(sort, *(Interval(*i) for i in intervals)) == Interval(*expected)


def test_unknown_joined_with_anything_stays_unknown() -> None:
    unknown = Interval(-math.inf, math.inf)
    assert INTRINSICS["where"].interval(Sort.INT, Interval(0, 1), unknown, Interval(3, 3)).is_unknown


@pytest.mark.parametrize(
    ("op", "intervals", "expected"),
    [
        ("floordiv", [(0, 9), (1, 4)], True),
        ("floordiv", [(0, 9), (0, 4)], False),
        ("mod", [(-1, 9), (1, 4)], False),
        ("shl", [(0, 9), (0, 31)], True),
        ("shl", [(0, 9), (0, 32)], False),
        ("add", [(0, 9), (0, 4)], False),
    ],
)
def test_plain_text_serves_where_signs_are_proved(op: str, intervals: list[tuple[int, int]], expected: bool) -> None:
    assert is_plain(op, *(Interval(*i) for i in intervals)) is expected


# Derivatives


def slope_id(case: tuple[Intrinsic, Signature, int]) -> str:
    return f"{case[0].name}-{case[2]}"


def test_every_float_operation_has_a_derivative() -> None:
    assert {r.name for r, s, _ in SLOPES} == {r.name for r, s in TYPINGS if s[1] is Sort.FLOAT and r.name != "to_float"}


@pytest.mark.parametrize("case", SLOPES, ids=slope_id)
def test_derivative_is_that_of_torch(case: tuple[Intrinsic, Signature, int]) -> None:
    record, (sorts, _), index = case
    axes = [[False, True] if s is Sort.BOOL else [-2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 2.0] for s in sorts]
    operands = [torch.tensor(g.ravel()) for g in np.meshgrid(*axes, indexing="ij")]
    operands[index].requires_grad_()
    (expected,) = torch.autograd.grad(record.meaning(torch, *operands).sum(), operands[index])
    leaves = [Param(f"x{i}", s) for i, s in enumerate(sorts)]
    node = call(record.name, *leaves)
    assert isinstance(node, Call)
    assert record.derivative is not None
    slope = record.derivative(node, index)
    assert slope is not None
    values = dict(zip(leaves, (o.detach().numpy() for o in operands), strict=True))
    found = np.broadcast_to(evaluate(slope, values), expected.shape)
    # Outside the domain (log of a negative) torch gives some number; the function has none.
    defined = ~np.isnan(record.meaning(np, *values.values()))
    np.testing.assert_allclose(found[defined], expected.numpy()[defined], rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("case", SLOPES, ids=slope_id)
def test_derivative_is_the_limit_of_differences(case: tuple[Intrinsic, Signature, int]) -> None:
    record, (sorts, _), index = case
    rng = np.random.default_rng(7)
    # Positive, and no two alike: inside every domain, away from every tie.
    operands = [rng.uniform(0.2, 3.0, 50) if s is Sort.FLOAT else rng.integers(0, 2, 50) > 0 for s in sorts]
    step = 1e-6
    ends = []
    for sign in (1, -1):
        moved = list(operands)
        moved[index] = operands[index] + sign * step
        ends.append(record.meaning(np, *moved))
    leaves = [Param(f"x{i}", s) for i, s in enumerate(sorts)]
    node = call(record.name, *leaves)
    assert isinstance(node, Call)
    assert record.derivative is not None
    slope = record.derivative(node, index)
    assert slope is not None
    found = np.broadcast_to(evaluate(slope, dict(zip(leaves, operands, strict=True))), 50)
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-7)


def test_literals_of_equal_value_stay_apart() -> None:
    assert len({Const(True, Sort.BOOL), Const(1, Sort.INT), Const(1.0, Sort.FLOAT)}) == 3
