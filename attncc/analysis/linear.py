"""Integer expressions as sums of terms with constant coefficients: the arithmetic that the analysis reasons in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attncc.ir.expr import Call, Const, Expr, Sort, postorder, to_const
from attncc.ir.intrinsics import call


@dataclass(frozen=True, slots=True)
class Linear:
    """`sum(coefficient * term) + constant`; terms are distinct int nodes that are no sums, coefficients not 0."""

    terms: tuple[tuple[Expr, int], ...] = ()
    constant: int = 0

    def __add__(self, other: Linear) -> Linear:
        return combine(((1, self), (1, other)))

    def __sub__(self, other: Linear) -> Linear:
        return combine(((1, self), (-1, other)))

    def __neg__(self) -> Linear:
        return self.scaled(-1)

    def scaled(self, factor: int) -> Linear:
        """Every coefficient and the constant times `factor`."""
        return combine(((factor, self),))

    def plus(self, constant: int) -> Linear:
        """With `constant` added."""
        return Linear(self.terms, self.constant + constant)

    def coefficient(self, term: Expr) -> int:
        """The coefficient of `term`, 0 where it does not occur."""
        return next((c for t, c in self.terms if t is term), 0)

    def replaced(self, term: Expr, value: Linear) -> Linear:
        """With every occurrence of `term` replaced by `value`."""
        factor = self.coefficient(term)
        rest = Linear(tuple((t, c) for t, c in self.terms if t is not term), self.constant)
        return combine(((1, rest), (factor, value)))


def combine(parts: Iterable[tuple[int, Linear]]) -> Linear:
    """The sum of each form times its factor; terms keep the order in which they first appear."""
    found: dict[Expr, int] = {}
    constant = 0
    for factor, part in parts:
        constant += factor * part.constant
        for term, coefficient in part.terms:
            found[term] = found.get(term, 0) + factor * coefficient
    return Linear(tuple((t, c) for t, c in found.items() if c), constant)


def linear_of(expr: Expr) -> Linear:
    """The sum that an int expression is, mathematically: the caller shows that nothing wraps."""
    done: dict[Expr, Linear] = {}
    for node in postorder(expr):
        if node.sort is Sort.INT:
            done[node] = _linear_node(node, done)
    return done[expr]


def to_expr(linear: Linear) -> Expr:
    """The sum as an expression that reads well: what is added first, then what is subtracted, the constant last."""
    ordered = [t for t in linear.terms if t[1] > 0] + [t for t in linear.terms if t[1] < 0]
    if not ordered:
        return to_const(linear.constant)
    first, coefficient = ordered[0]
    rest, constant = ordered[1:], linear.constant
    total: Expr = _times(coefficient, first)
    if coefficient < 0 and linear.constant > 0:
        total, rest, constant = to_const(linear.constant), ordered, 0
    for term, coefficient in rest:
        op = "add" if coefficient > 0 else "sub"
        total = call(op, total, _times(abs(coefficient), term))
    if constant:
        total = call("add" if constant > 0 else "sub", total, to_const(abs(constant)))
    return total


def _linear_node(node: Expr, done: dict[Expr, Linear]) -> Linear:
    match node:
        case Const(value=value):
            return Linear((), int(value))
        case Call(op="add", args=(a, b)):
            return done[a] + done[b]
        case Call(op="sub", args=(a, b)):
            return done[a] - done[b]
        case Call(op="neg", args=(a,)):
            return -done[a]
        case Call(op="mul", args=(a, b)) if not done[a].terms:
            return done[b].scaled(done[a].constant)
        case Call(op="mul", args=(a, b)) if not done[b].terms:
            return done[a].scaled(done[b].constant)
        case Call(op="shl", args=(a, Const(value=int(by)))) if 0 <= by <= 62:
            return done[a].scaled(2**by)
        case _:
            return Linear(((node, 1),))


def _times(factor: int, term: Expr) -> Expr:
    if factor == 1:
        return term
    return call("neg", term) if factor == -1 else call("mul", to_const(factor), term)
