"""Sets of positions along one axis: a few intervals whose ends are expressions, and their algebra."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from attncc.analysis.linear import Linear, linear_of, to_expr
from attncc.analysis.ranges import Environment, interval_of, may_wrap, proves_nonnegative, sum_of
from attncc.ir.expr import FALSE, TRUE, Call, Const, Expr, children, rewrite, to_const
from attncc.ir.intrinsics import call

MOST_LIVE, MOST_FULL = 3, 2
"""Unions of more intervals are widened (what is live) or cut short (what is full): every interval costs each program
a few scalar operations, and a loop has up to `live * (full + 1) + full` segments."""

ZERO = to_const(0)


@dataclass(frozen=True, slots=True)
class Piece:
    """The positions `start <= x < stop` if `guard` holds, else none. `0 <= start` and `stop <= end` of the axis."""

    start: Expr
    stop: Expr
    guard: Expr = field(default=TRUE)


Pieces = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class PieceAlgebra:
    """Set operations on pieces of the axis `0 .. end`, simplifying by what the environment proves."""

    environment: Environment
    end: Expr

    @property
    def everything(self) -> Pieces:
        """The whole axis."""
        return (Piece(ZERO, self.end),)

    def where(self, guard: Expr) -> Pieces:
        """The whole axis if the guard holds, else nothing."""
        guard = self.decide(guard)
        return () if guard is FALSE else (Piece(ZERO, self.end, guard),)

    def intersect(self, a: Pieces, b: Pieces, *, widen: bool) -> Pieces:
        """What is in both."""
        both = [
            Piece(self.maximum(p.start, q.start), self.minimum(p.stop, q.stop), self.both(p.guard, q.guard))
            for p in a
            for q in b
        ]
        return self.union(both, (), widen=widen)

    def union(self, a: Sequence[Piece], b: Sequence[Piece], *, widen: bool) -> Pieces:
        """What is in either, in a few pieces: more than that if `widen`, else less, where it must."""
        found: list[Piece] = []
        for piece in (*a, *b):
            self._absorb(found, piece)
        while len(found) > (MOST_LIVE if widen else MOST_FULL):
            last = found.pop()
            if widen:
                before = found.pop()
                self._absorb(found, self._hull(before, last))
        return tuple(found)

    def both(self, a: Expr, b: Expr) -> Expr:
        """a and b."""
        if a is FALSE or b is FALSE:
            return FALSE
        return b if a is TRUE or a is b else a if b is TRUE else call("and", a, b)

    def either(self, a: Expr, b: Expr) -> Expr:
        """a or b."""
        if a is TRUE or b is TRUE:
            return TRUE
        return b if a is FALSE or a is b else a if b is FALSE else call("or", a, b)

    def negation(self, a: Expr) -> Expr:
        """not a."""
        return FALSE if a is TRUE else TRUE if a is FALSE else call("not", a)

    def decide(self, condition: Expr) -> Expr:
        """The condition, or its constant value where that is proved."""
        interval = interval_of(condition, self.environment)
        return condition if not interval.is_point else TRUE if interval.low == 1 else FALSE

    def nonnegative(self, value: Expr) -> Expr:
        """The condition `value >= 0`, decided where it can be."""
        linear = linear_of(value)
        if proves_nonnegative(linear, self.environment, depth=3):
            return TRUE
        if proves_nonnegative((-linear).plus(-1), self.environment, depth=3):
            return FALSE
        return _compared(linear, self.environment) or call("ge", value, ZERO)

    def choose(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        """a if the condition holds, else b."""
        if isinstance(condition, Call) and condition.op == "not":
            condition, a, b = condition.args[0], b, a
        if condition is TRUE or condition is FALSE:
            return a if condition is TRUE else b
        a, b = _given(a, condition, True), _given(b, condition, False)
        return a if a is b else call("where", condition, a, b)

    def at_most(self, a: Expr, b: Expr) -> bool:
        """Whether `a <= b` is proved."""
        if a is b:
            return True
        if may_wrap(a, self.environment) or may_wrap(b, self.environment):
            return False
        return proves_nonnegative(sum_of(b, self.environment) - sum_of(a, self.environment), self.environment, depth=4)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        """min(a, b), without operands proved superfluous."""
        return self._extreme("min", a, b)

    def maximum(self, a: Expr, b: Expr) -> Expr:
        """max(a, b), without operands proved superfluous."""
        return self._extreme("max", a, b)

    def _extreme(self, op: str, a: Expr, b: Expr) -> Expr:
        match a, b:
            case (Call(op="where", args=(c, x, y)), Call(op="where", args=(d, z, w))) if c is d:
                return self.choose(c, self._extreme(op, x, z), self._extreme(op, y, w))
            case _:
                pass
        kept: list[Expr] = []
        for value in (*_operands(op, a), *_operands(op, b)):
            if any(self._wins(op, other, value) for other in kept):
                continue
            kept = [other for other in kept if not self._wins(op, value, other)] + [value]
        # A constant or the axis's end reads best in front.
        kept.sort(key=lambda v: 0 if isinstance(v, Const) else 1 if v is self.end else 2)
        total = kept[0]
        for value in kept[1:]:
            total = call(op, total, value)
        return total

    def _wins(self, op: str, a: Expr, b: Expr) -> bool:
        return self.at_most(a, b) if op == "min" else self.at_most(b, a)

    def _absorb(self, found: list[Piece], piece: Piece) -> None:
        """Adds a piece, merged with another where that is exact for every value of the ends."""
        if piece.guard is FALSE or self.at_most(piece.stop, piece.start):
            return
        for i, other in enumerate(found):
            merged = self._merged(other, piece)
            if merged is not None:
                del found[i]
                self._absorb(found, merged)
                return
        found.append(piece)

    def _merged(self, a: Piece, b: Piece) -> Piece | None:
        for p, q in ((a, b), (b, a)):
            if self._is_whole(p):
                # Whatever q is, it matters only where p's guard fails.
                if p.guard is TRUE:
                    return p
                start = self.choose(p.guard, ZERO, q.start)
                stop = self.choose(p.guard, self.end, self.choose(q.guard, q.stop, ZERO))
                return Piece(start, stop)
        if a.start is b.start:
            if a.guard is b.guard:
                return Piece(a.start, self._later(a.stop, b.stop), a.guard)
            stops = (self.choose(p.guard, p.stop, ZERO) for p in (a, b))
            return Piece(a.start, self._later(*stops))
        if a.guard is not b.guard:
            return None
        if a.stop is b.stop:
            return Piece(self.minimum(a.start, b.start), a.stop, a.guard)
        for p, q in ((a, b), (b, a)):
            # p starts first and reaches q, so it is not empty and there is no gap.
            if self.at_most(p.start, q.start) and self.at_most(q.start, p.stop):
                return Piece(p.start, self._later(p.stop, q.stop), p.guard)
        return None

    def _later(self, a: Expr, b: Expr) -> Expr:
        """max(a, b) of two stops; the end that limits both is written once."""
        both = (_operands("min", a), _operands("min", b))
        if all(self.end in operands and len(operands) > 1 for operands in both):
            inner = [[o for o in operands if o is not self.end] for operands in both]
            return self.minimum(self.end, self.maximum(*(functools.reduce(self.minimum, i) for i in inner)))
        return self.maximum(a, b)

    def _hull(self, a: Piece, b: Piece) -> Piece:
        return Piece(self.minimum(a.start, b.start), self.maximum(a.stop, b.stop), self.either(a.guard, b.guard))

    def _is_whole(self, piece: Piece) -> bool:
        return piece.start is ZERO and piece.stop is self.end


def _compared(linear: Linear, environment: Environment) -> Expr | None:
    """`linear >= 0` as a comparison of what is added with what is subtracted; None where a side might wrap."""
    added = Linear(tuple(t for t in linear.terms if t[1] > 0))
    taken = -Linear(tuple(t for t in linear.terms if t[1] < 0))
    constant = linear.constant
    if not added.terms:
        found = call("le", to_expr(taken), to_const(constant))
    elif constant == -1:
        found = call("gt", to_expr(added), to_expr(taken))
    else:
        found = call("ge", to_expr(added.plus(max(constant, 0))), to_expr(taken.plus(max(-constant, 0))))
    return None if any(may_wrap(side, environment) for side in children(found)) else found


def _given(expr: Expr, condition: Expr, value: bool) -> Expr:
    """The expression where the condition is known: choices by it are made."""

    def decided(node: Expr) -> Expr | None:
        match node:
            case Call(op="where", args=(c, a, b)) if c is condition:
                return a if value else b
            case _:
                return None

    return rewrite(expr, decided)


def _operands(op: str, expr: Expr) -> tuple[Expr, ...]:
    if isinstance(expr, Call) and expr.op == op:
        return tuple(o for a in expr.args for o in _operands(op, a))
    return (expr,)
