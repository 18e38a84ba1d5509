"""Simplifies expressions by one-line rules, each exact: same value for every operand, nan, infinities and wrapping
included, and the same derivative.

`build` applies an operation the simplified way; rules and passes make new nodes through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from attncc.ir.expr import (
    FALSE,
    TRUE,
    Call,
    Const,
    Expr,
    Scalar,
    Score,
    Sort,
    children,
    postorder,
    with_children,
)
from attncc.ir.intrinsics import INTRINSICS
from attncc.ir.spec import Spec
from attncc.ir.traversal import map_expressions

Rule: TypeAlias = Callable[..., Expr | None]
"""From an operation's operands to what stands for it, None for unchanged."""


def simplify(spec: Spec) -> Spec:
    """The spec with every expression simplified, and without masks, scores, requires and factors that do nothing."""
    spec = map_expressions(spec, simplify_expr)
    return replace(
        spec,
        requires=tuple(r for r in spec.requires if r.condition is not TRUE),
        masks=tuple(c for c in spec.masks if c.expr is not TRUE),
        scores=tuple(c for c in spec.scores if c.expr is not Score()),
        reweight=None if spec.reweight is None or spec.reweight.expr is _ONE_F else spec.reweight,
    )


def simplify_expr(expr: Expr) -> Expr:
    """The expression simplified from the leaves up, shared nodes once."""
    done: dict[Expr, Expr] = {}
    for node in postorder(expr):
        below = tuple(done[c] for c in children(node))
        done[node] = build(node.op, *below) if isinstance(node, Call) else with_children(node, below)
    return done[expr]


def build(op: str, *args: Expr) -> Expr:
    """The operation over simplified operands of the right sorts, simplified."""
    if all(isinstance(a, Const) for a in args):
        folded = _fold(op, *(a for a in args if isinstance(a, Const)))
        if folded is not None:
            return folded
    if op in _COMMUTATIVE and isinstance(args[0], Const) and not isinstance(args[1], Const):
        args = args[::-1]
    for rule in RULES.get(op, ()):
        changed = rule(*args)
        if changed is not None:
            return changed
    return Call(op, args, _result_sort(op, args))


def _result_sort(op: str, args: tuple[Expr, ...]) -> Sort:
    sorts = tuple(a.sort for a in args)
    for operands, result in INTRINSICS[op].signatures:
        if operands == sorts:
            return result
    raise AssertionError(f"'{op}' has no signature for {sorts}")


def _fold(op: str, *args: Const) -> Const | None:
    """The literal an operation on literals gives; None where float32 and float64 evaluation would differ.

    The same expression may be evaluated in float32 (where it feeds a bool or an index) and in float64 (a score in the
    oracle); a comparison or a `floor` always takes float32.
    """
    sort = _result_sort(op, args)
    if sort is not Sort.FLOAT:
        value: Scalar = _evaluate(op, args, np.float32).item()
        return Const(bool(value) if sort is Sort.BOOL else int(value), sort)
    single = np.float32(_evaluate(op, args, np.float32))
    double = float(_evaluate(op, args, np.float64))
    with np.errstate(over="ignore"):
        agree = np.float32(double) == single or (math.isnan(double) and np.isnan(single))
    # What float32 cannot hold, or only as a subnormal, is not one literal in every backend.
    is_ordinary = double == 0 or not math.isfinite(double) or 2.0**-126 <= abs(double) < 2.0**128
    return Const(double, sort) if agree and is_ordinary else None


def _evaluate(op: str, args: tuple[Const, ...], floating: Any) -> Any:
    kinds = {Sort.INT: np.int64, Sort.BOOL: np.bool_, Sort.FLOAT: floating}
    with np.errstate(all="ignore"):
        # Arrays of one element: numpy warns of wrapping scalars.
        operands = [np.array([a.value]).astype(kinds[a.sort]) for a in args]
        return INTRINSICS[op].meaning(np, *operands)[0]


_ZERO, _ONE, _MINUS_ONE = (Const(v, Sort.INT) for v in (0, 1, -1))
_TWO = Const(2, Sort.INT)
_ZERO_F, _MINUS_ZERO_F, _ONE_F, _MINUS_ONE_F, _TWO_F, _INF = (
    Const(v, Sort.FLOAT) for v in (0.0, -0.0, 1.0, -1.0, 2.0, math.inf)
)
_MINUS_INF = Const(-math.inf, Sort.FLOAT)
_COMMUTATIVE = frozenset({"add", "mul", "min", "max", "eq", "ne", "and", "or", "bitand", "bitor", "bitxor"})
# Both hold for nan as well, unlike the orders.
_OPPOSITE = {"eq": "ne", "ne": "eq"}
_OPPOSITE_ON_INTS = {"lt": "ge", "ge": "lt", "le": "gt", "gt": "le", **_OPPOSITE}


def _is(node: Expr, op: str) -> bool:
    return isinstance(node, Call) and node.op == op


def _args(node: Expr) -> tuple[Expr, ...]:
    return node.args if isinstance(node, Call) else ()


def _is_int(node: Expr) -> bool:
    return node.sort is Sort.INT


def _is_discrete(node: Expr) -> bool:
    return node.sort is not Sort.FLOAT


def _is_negative(node: Expr) -> bool:
    """A negative int literal whose opposite is an int64 too."""
    return _is_int(node) and -(2**63) < _value(node) < 0


def _value(node: Expr) -> Any:
    return node.value if isinstance(node, Const) else math.nan


def _shifted_by(node: Expr) -> tuple[Expr, Expr] | None:
    """`(x, c)` where an int node is `x + c` or `x - c` with a literal, as `x + c`."""
    if not (_is(node, "add") or _is(node, "sub")) or not _is_int(node):
        return None
    base, literal = _args(node)
    if not isinstance(literal, Const) or isinstance(base, Const):
        return None
    return base, literal if _is(node, "add") else build("neg", literal)


def _merge_shifts(base_and_shift: tuple[Expr, Expr] | None, op: str, literal: Expr) -> Expr | None:
    if base_and_shift is None or not isinstance(literal, Const):
        return None
    base, shift = base_and_shift
    total = build(op, shift, literal)
    return build("sub", base, build("neg", total)) if _value(total) < 0 else build("add", base, total)


def _sum_of_choices(a: Expr, b: Expr) -> Expr | None:
    if not _is(a, "where") or not _is(b, "where") or _args(a)[0] is not _args(b)[0]:
        return None
    (condition, x, z), (_, y, w) = _args(a), _args(b)
    if not isinstance(z, Const) or not isinstance(w, Const):
        return None
    return build("where", condition, build("add", x, y), build("add", z, w))


def _opposite(node: Expr) -> Expr | None:
    if not isinstance(node, Call):
        return None
    orders = _OPPOSITE_ON_INTS if all(_is_discrete(a) for a in node.args) else _OPPOSITE
    return build(orders[node.op], *node.args) if node.op in orders else None


def _reciprocal(node: Expr) -> Expr | None:
    """1 / c where that is exact: c a power of two in the middle of float32's range."""
    value = abs(_value(node))
    if math.isfinite(value) and 2.0**-100 <= value <= 2.0**100 and math.frexp(value)[0] == 0.5:
        return Const(1.0 / float(_value(node)), Sort.FLOAT)
    return None


def _over(op: str, a: Expr, b: Expr | None) -> Expr | None:
    return None if b is None else build(op, a, b)


RULES: Mapping[str, tuple[Rule, ...]] = {
    "neg": (
        lambda a: _args(a)[0] if _is(a, "neg") else None,  # --a = a
        lambda a: build("sub", *_args(a)[::-1]) if _is(a, "sub") and _is_int(a) else None,  # -(a - b) = b - a
    ),
    "add": (
        lambda a, b: a if b is _ZERO or b is _MINUS_ZERO_F else None,  # a + 0 = a; in floats a + -0.0 = a
        lambda a, b: build("sub", a, _args(b)[0]) if _is(b, "neg") else None,  # a + -b = a - b
        lambda a, b: build("sub", b, _args(a)[0]) if _is(a, "neg") else None,  # -a + b = b - a
        lambda a, b: _merge_shifts(_shifted_by(a), "add", b),  # (a + c) + d = a + (c + d) on ints
        lambda a, b: build("sub", a, _ints(-_value(b))) if _is_negative(b) else None,  # a + -c = a - c
        lambda a, b: _args(a)[0] if _is_int(a) and _is(a, "sub") and _args(a)[1] is b else None,  # (a - b) + b = a
        lambda a, b: _args(b)[0] if _is_int(b) and _is(b, "sub") and _args(b)[1] is a else None,  # b + (a - b) = a
        lambda a, b: _sum_of_choices(a, b),  # (a if c else 0) + (b if c else 0) = a + b if c else 0, 0 any literal
    ),
    "sub": (
        lambda a, b: a if b is _ZERO or b is _ZERO_F else None,  # a - 0 = a
        lambda a, b: _ZERO if a is b and _is_int(a) else None,  # a - a = 0 on ints; in floats inf - inf is nan
        lambda a, b: build("neg", b) if a is _ZERO or a is _MINUS_ZERO_F else None,  # 0 - b = -b; -0.0 - b = -b
        lambda a, b: build("add", a, _args(b)[0]) if _is(b, "neg") else None,  # a - -b = a + b
        lambda a, b: _merge_shifts(_shifted_by(a), "sub", b),  # (a + c) - d = a + (c - d) on ints
        lambda a, b: build("add", a, _ints(-_value(b))) if _is_negative(b) else None,  # a - -c = a + c
        lambda a, b: _other(a, b) if _is_int(a) and _is(a, "add") else None,  # (a + b) - b = a, (a + b) - a = b
        lambda a, b: _args(b)[1] if _is_int(b) and _is(b, "sub") and _args(b)[0] is a else None,  # a - (a - b) = b
    ),
    "mul": (
        lambda a, b: b if b is _ZERO else None,  # a * 0 = 0 on ints; in floats inf * 0 is nan
        lambda a, b: a if b is _ONE or b is _ONE_F else None,  # a * 1 = a
        lambda a, b: build("neg", a) if b is _MINUS_ONE or b is _MINUS_ONE_F else None,  # a * -1 = -a
        lambda a, b: build("mul", _args(a)[0], _args(b)[0]) if _is(a, "neg") and _is(b, "neg") else None,  # -a*-b = a*b
    ),
    "div": (
        lambda a, b: _over("mul", a, _reciprocal(b)),  # a / 2**n = a * 2**-n
        lambda a, b: build("div", _args(a)[0], _args(b)[0]) if _is(a, "neg") and _is(b, "neg") else None,  # -a/-b = a/b
    ),
    "floordiv": (
        lambda a, b: a if b is _ONE else None,  # a // 1 = a
        lambda a, b: _ZERO if a is _ZERO or b is _ZERO else None,  # 0 // b = a // 0 = 0
    ),
    "mod": (
        lambda a, b: _ZERO if b is _ONE or b is _MINUS_ONE else None,  # a % 1 = a % -1 = 0
        lambda a, b: _ZERO if a is _ZERO or b is _ZERO or a is b else None,  # 0 % b = a % 0 = a % a = 0
        lambda a, b: a if _is(a, "mod") and _args(a)[1] is b else None,  # (a % b) % b = a % b
    ),
    "pow": (
        lambda a, b: _ONE if b is _ZERO else None,  # a ** 0 = 1
        lambda a, b: _ONE_F if b is _ZERO_F else None,  # a ** 0.0 = 1.0, for nan too
        lambda a, b: a if b is _ONE or b is _ONE_F else None,  # a ** 1 = a
        lambda a, b: build("mul", a, a) if b is _TWO or b is _TWO_F else None,  # a ** 2 = a * a
    ),
    "abs": (
        lambda a: a if _is(a, "abs") else None,  # abs(abs(a)) = abs(a)
        lambda a: build("abs", _args(a)[0]) if _is(a, "neg") else None,  # abs(-a) = abs(a)
    ),
    "min": (
        lambda a, b: a if a is b else None,  # min(a, a) = a
        lambda a, b: a if b is _INF else None,  # min(a, inf) = a
        lambda a, b: a if _is_int(a) and _is(a, "min") and b in _args(a) else None,  # min(min(a, b), b) = min(a, b)
    ),
    "max": (
        lambda a, b: a if a is b else None,  # max(a, a) = a
        lambda a, b: a if b is _MINUS_INF else None,  # max(a, -inf) = a
        lambda a, b: a if _is_int(a) and _is(a, "max") and b in _args(a) else None,  # max(max(a, b), b) = max(a, b)
    ),
    "eq": (
        lambda a, b: TRUE if a is b and _is_discrete(a) else None,  # a == a, but nan != nan
        lambda a, b: a if b is TRUE else None,  # a == true = a
        lambda a, b: build("not", a) if b is FALSE else None,  # a == false = not a
    ),
    "ne": (
        lambda a, b: FALSE if a is b and _is_discrete(a) else None,  # not a != a
        lambda a, b: a if b is FALSE else None,  # a != false = a
        lambda a, b: build("not", a) if b is TRUE else None,  # a != true = not a
    ),
    "lt": (lambda a, b: FALSE if a is b else None,),  # not a < a, nan or not
    "gt": (lambda a, b: FALSE if a is b else None,),  # not a > a, nan or not
    "le": (lambda a, b: TRUE if a is b and _is_int(a) else None,),  # a <= a on ints
    "ge": (lambda a, b: TRUE if a is b and _is_int(a) else None,),  # a >= a on ints
    "and": (
        lambda a, b: a if b is TRUE else None,  # a and true = a
        lambda a, b: FALSE if b is FALSE else None,  # a and false = false
        lambda a, b: a if a is b else None,  # a and a = a
        lambda a, b: FALSE if build("not", a) is b or build("not", b) is a else None,  # a and not a = false
        lambda a, b: a if _is(b, "or") and a in _args(b) else None,  # a and (a or b) = a
        lambda a, b: b if _is(a, "or") and b in _args(a) else None,  # (a or b) and a = a
        lambda a, b: a if _is(a, "and") and b in _args(a) else None,  # (a and b) and b = a and b
    ),
    "or": (
        lambda a, b: a if b is FALSE else None,  # a or false = a
        lambda a, b: TRUE if b is TRUE else None,  # a or true = true
        lambda a, b: a if a is b else None,  # a or a = a
        lambda a, b: TRUE if build("not", a) is b or build("not", b) is a else None,  # a or not a = true
        lambda a, b: a if _is(b, "and") and a in _args(b) else None,  # a or (a and b) = a
        lambda a, b: b if _is(a, "and") and b in _args(a) else None,  # (a and b) or a = a
        lambda a, b: a if _is(a, "or") and b in _args(a) else None,  # (a or b) or b = a or b
    ),
    "not": (
        lambda a: _args(a)[0] if _is(a, "not") else None,  # not not a = a
        lambda a: _opposite(a),  # not a < b = a >= b on ints; not a == b = a != b
    ),
    "where": (
        lambda c, a, b: a if c is TRUE or a is b else None,  # a if true else b = a; a if c else a = a
        lambda c, a, b: b if c is FALSE else None,  # a if false else b = b
        lambda c, a, b: build("or", c, b) if a is TRUE else None,  # true if c else b = c or b
        lambda c, a, b: build("and", c, a) if b is FALSE else None,  # a if c else false = c and a
        lambda c, a, b: build("and", build("not", c), b) if a is FALSE else None,  # false if c else b = not c and b
        lambda c, a, b: build("or", build("not", c), a) if b is TRUE else None,  # a if c else true = not c or a
        lambda c, a, b: (
            build("where", _args(c)[0], b, a) if _is(c, "not") else None
        ),  # a if not c else b = b if c else a
        lambda c, a, b: build("where", c, _args(a)[1], b) if _is(a, "where") and _args(a)[0] is c else None,  # c in c
        lambda c, a, b: build("where", c, a, _args(b)[2]) if _is(b, "where") and _args(b)[0] is c else None,  # c in c
        # (a if d else b) if c else b = a if c and d else b
        lambda c, a, b: (
            build("where", build("and", c, _args(a)[0]), _args(a)[1], b)
            if _is(a, "where") and _args(a)[2] is b
            else None
        ),
        # a if c else (a if d else b) = a if c or d else b
        lambda c, a, b: (
            build("where", build("or", c, _args(b)[0]), a, _args(b)[2])
            if _is(b, "where") and _args(b)[1] is a
            else None
        ),
    ),
    "bitand": (
        lambda a, b: b if b is _ZERO else None,  # a & 0 = 0
        lambda a, b: a if b is _MINUS_ONE or a is b else None,  # a & -1 = a & a = a
    ),
    "bitor": (
        lambda a, b: a if b is _ZERO or a is b else None,  # a | 0 = a | a = a
        lambda a, b: b if b is _MINUS_ONE else None,  # a | -1 = -1
    ),
    "bitxor": (
        lambda a, b: a if b is _ZERO else None,  # a ^ 0 = a
        lambda a, b: _ZERO if a is b else None,  # a ^ a = 0
        lambda a, b: build("bitnot", a) if b is _MINUS_ONE else None,  # a ^ -1 = ~a
    ),
    "bitnot": (lambda a: _args(a)[0] if _is(a, "bitnot") else None,),  # ~~a = a
    "shl": (
        lambda a, b: a if b is _ZERO else None,  # a << 0 = a
        lambda a, b: _ZERO if a is _ZERO or _value(b) < 0 or _value(b) > 63 else None,  # 0 << b = 0; too far is 0
    ),
    "shr": (
        lambda a, b: a if b is _ZERO else None,  # a >> 0 = a
        lambda a, b: _ZERO if a is _ZERO or _value(b) < 0 or _value(b) > 63 else None,  # 0 >> b = 0; too far is 0
    ),
    "relu": (lambda a: a if _is(a, "relu") else None,),  # relu(relu(a)) = relu(a)
}
"""The rules of each operation, tried in order; the comment is the algebra. A literal operand of a commutative operation
has come second by then."""


def _ints(value: int) -> Expr:
    return Const(value, Sort.INT)


def _other(pair: Expr, one: Expr) -> Expr | None:
    """The other operand of `pair`, where `one` is among its two."""
    first, second = _args(pair)
    return first if second is one else second if first is one else None
