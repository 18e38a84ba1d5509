"""Symbolic derivatives of float expressions, in reverse: each node once, shared sub-expressions accumulated."""

from __future__ import annotations

from collections.abc import Sequence

from attncc.ir.expr import Call, Const, Expr, Sort, postorder
from attncc.ir.intrinsics import INTRINSICS
from attncc.passes.simplify import build, simplify_expr

_ZERO, _ONE = Const(0.0, Sort.FLOAT), Const(1.0, Sort.FLOAT)
_HOISTS = 4


def gradients(expr: Expr, wrt: Sequence[Expr]) -> dict[Expr, Expr]:
    """The total derivative of a float expression by each node of `wrt`: `Score()`, loads, or any float node in it.

    Simplified; `0.0` for a node that is not reached. Ties follow torch, as the records in `attncc.ir.intrinsics` say.
    An index contributes nothing. A branch not taken contributes 0 even where its own derivative is infinite or nan
    (torch gives nan there). Raises ValueError for an expression or node that is not float.
    """
    for node in (expr, *wrt):
        if node.sort is not Sort.FLOAT:
            raise ValueError(f"only floats have derivatives, not {node.sort.value} {node}")
    order = list(postorder(expr))
    moving = _moving(order, frozenset(wrt))
    adjoints: dict[Expr, Expr] = {expr: _ONE}
    for node in reversed(order):  # a node comes after everything that uses it
        if isinstance(node, Call) and node in moving and node in adjoints:
            _propagate(node, adjoints, moving)
    return {node: simplify_expr(adjoints.get(node, _ZERO)) for node in wrt}


def _moving(order: Sequence[Expr], wrt: frozenset[Expr]) -> frozenset[Expr]:
    """The float nodes that change with a node of `wrt` through floats alone."""
    moving: set[Expr] = set()
    for node in order:
        through = isinstance(node, Call) and node.sort is Sort.FLOAT and any(a in moving for a in node.args)
        if node in wrt or through:
            moving.add(node)
    return frozenset(moving)


def _propagate(node: Call, adjoints: dict[Expr, Expr], moving: frozenset[Expr]) -> None:
    derivative = INTRINSICS[node.op].derivative
    if derivative is None:
        return
    for index, operand in enumerate(node.args):
        if operand not in moving:
            continue
        partial = derivative(node, index)
        if partial is None:
            continue
        part = _times(adjoints[node], simplify_expr(partial))
        if part is not _ZERO:
            adjoints[operand] = build("add", adjoints[operand], part) if operand in adjoints else part


def _times(adjoint: Expr, partial: Expr, hoists: int = _HOISTS) -> Expr:
    """The product, with choices of 0 kept outermost: a factor in a branch not taken must not turn that 0 into nan.

    Only choices with a literal branch are distributed over, a few deep: these are the operations' own, and cost no
    more than one product each.
    """
    if partial is _ZERO or adjoint is _ONE:
        return partial
    match adjoint:
        case Call(op="where", args=(condition, a, b)) if hoists and b is _ZERO:
            return build("where", condition, _times(a, partial, hoists - 1), _ZERO)
        case Call(op="where", args=(condition, a, b)) if hoists and a is _ZERO:
            return build("where", condition, _ZERO, _times(b, partial, hoists - 1))
        case _:
            pass
    match partial:
        case Call(op="where", args=(condition, a, b)) if hoists and (isinstance(a, Const) or isinstance(b, Const)):
            return build("where", condition, _times(adjoint, a, hoists - 1), _times(adjoint, b, hoists - 1))
        case Call(op="neg", args=(a,)) if hoists:
            return build("neg", _times(adjoint, a, hoists - 1))
        case _:
            pass
    match partial:
        case Call(op="div", args=(numerator, denominator)) if numerator is _ONE:
            return build("div", adjoint, denominator)
        case _:
            return build("mul", adjoint, partial)
