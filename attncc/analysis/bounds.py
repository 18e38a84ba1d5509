"""Closed forms: from a mask alone, which keys a tile's queries can see and which all of them see (and the transpose).

The mask is a boolean structure over comparisons. A comparison of ints is solved as a sum of terms `>= 0`: terms of the
position owned by the program take their extreme over `first .. last` (where they are monotone), and the rest is solved
for the position looped over. `min`, `max`, `abs`, `clamp` and choices become structure. A term that fits nothing is
replaced by an end of its interval, or else the comparison says nothing: it makes no pair dead, and no tile FULL. Every
step widens what may be live and narrows what is surely live, never the other way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from attncc.analysis.facts import LENGTH_LIMIT
from attncc.analysis.linear import Linear, combine, linear_of, to_expr
from attncc.analysis.monotone import direction
from attncc.analysis.pieces import ZERO, Piece, PieceAlgebra, Pieces
from attncc.analysis.ranges import Environment, interval_of, may_wrap
from attncc.ir.expr import (
    FALSE,
    TRUE,
    Call,
    Const,
    Coord,
    Expr,
    Listed,
    Load,
    Param,
    Sort,
    coordinates,
    postorder,
    substitute,
    to_const,
)
from attncc.ir.interval import Interval
from attncc.ir.intrinsics import call

_FAR = 2**60
_MOST_STEPS = 600  # a mask that needs more is not solved further: the analysis always ends


@dataclass(frozen=True, slots=True)
class Axis:
    """Who owns and who is looped over: the two coordinates, the owned tile's first and last position, and how long
    the axis looped over is."""

    own: str
    loop: str
    first: Expr
    last: Expr
    end: Expr


@dataclass(slots=True)
class Solver:
    """Solves masks along one axis. `unsolved` collects the comparisons that said nothing, each with the reason."""

    axis: Axis
    environment: Environment
    unsolved: dict[Expr, str] = field(default_factory=dict)
    _memo: dict[tuple[Expr, bool, bool], Pieces] = field(default_factory=dict, init=False)
    _kinds: dict[Expr, str] = field(default_factory=dict, init=False)
    _steps: int = field(default=0, init=False)

    def live(self, masks: Sequence[Expr]) -> Pieces:
        """Positions outside of these are dead for every position of the owned tile. The masks are and-ed."""
        return self.both([self._solve(m, True, True) for m in masks], possible=True)

    def full(self, masks: Sequence[Expr]) -> Pieces:
        """Positions in these are live for every position of the owned tile. The masks are and-ed."""
        return self.both([self._solve(m, True, False) for m in masks], possible=False)

    def both(self, regions: Sequence[Pieces], *, possible: bool) -> Pieces:
        """What is in all regions; all answers of `live` (possible), or all of `full`."""
        return _Goal(TRUE, possible, self.environment, self.axis.end).all(regions)

    def _solve(self, mask: Expr, holds: bool, possible: bool) -> Pieces:
        key = (mask, holds, possible)
        if key not in self._memo:
            self._memo[key] = self._boolean(mask, holds, possible)
        return self._memo[key]

    def _boolean(self, mask: Expr, holds: bool, possible: bool) -> Pieces:
        goal = _Goal(mask, possible, self.environment, self.axis.end)

        def part(expr: Expr, positive: bool) -> Pieces:
            return self._solve(expr, positive, possible)

        match mask:
            case Const(value=value):
                return goal.algebra.everything if bool(value) is holds else ()
            case Call(op="not", args=(a,)):
                return part(a, not holds)
            case _ if self._is_free(mask) and not _has_floats(mask):
                return goal.algebra.where(mask if holds else call("not", mask))
            case Call(op="and" | "or" as op, args=args):
                return goal.join((op == "and") is holds, [part(a, holds) for a in args])
            case Call(op="where", args=(condition, a, b)):
                # Negating a choice negates what is chosen, not what chooses.
                first = goal.all([part(condition, True), part(a, holds)])
                return goal.any([first, goal.all([part(condition, False), part(b, holds)])])
            case Call(op="eq" | "ne" as op, args=(a, b)) if a.sort is Sort.BOOL:
                same = (op == "eq") is holds
                return goal.any([goal.all([part(a, x), part(b, x is same)]) for x in (True, False)])
            case Call(op="eq" | "ne" | "lt" | "le" | "gt" | "ge" as op, args=(a, b)) if a.sort is b.sort is Sort.INT:
                return self._comparison(op if holds else _OPPOSITE[op], a, b, goal)
            case _:
                return self._unknown(goal, None)

    def _comparison(self, op: str, a: Expr, b: Expr, goal: _Goal) -> Pieces:
        try:
            if not (may_wrap(a, goal.environment) or may_wrap(b, goal.environment)):
                return self._compared(op, a, b, goal)
        except _MayWrap:
            pass
        # Something is too large to be sure of. Take it for small, and say that this has to hold at run time.
        environment, guard = self._tamed((a, b))
        try:
            if guard is not FALSE:
                tamed = replace(goal, environment=environment)
                # Guarded under what is known without the guard, or it would seem to hold always.
                return goal.guarded(self._compared(op, a, b, tamed), guard)
        except _MayWrap:
            pass
        return self._unknown(goal, "may leave 64 bits")

    def _compared(self, op: str, a: Expr, b: Expr, goal: _Goal) -> Pieces:
        at_least = linear_of(a) - linear_of(b)
        sides = {
            "le": (-at_least,),
            "lt": ((-at_least).plus(-1),),
            "ge": (at_least,),
            "gt": (at_least.plus(-1),),
            "eq": (-at_least, at_least),
            "ne": ((-at_least).plus(-1), at_least.plus(-1)),
        }[op]
        return goal.join(op != "ne", [self._nonnegative(side, goal) for side in sides])

    def _tamed(self, roots: tuple[Expr, ...]) -> tuple[Environment, Expr]:
        """An environment in which nothing wraps, and the run-time condition for it; FALSE if there is none."""
        limit, conditions, known = to_const(LENGTH_LIMIT), list[Expr](), dict[Expr, Interval]()
        for node in postorder(*roots):
            if isinstance(node, Load | Param) and node.sort is Sort.INT and self._is_free(node):
                interval = interval_of(node, self.environment)
                if interval.low < -LENGTH_LIMIT or interval.high > LENGTH_LIMIT:
                    known[node] = Interval(-LENGTH_LIMIT, LENGTH_LIMIT)
                    conditions += [call("le", to_const(-LENGTH_LIMIT), node), call("le", node, limit)]
        environment = self.environment.where(known)
        if not conditions or any(may_wrap(r, environment) for r in roots):
            return self.environment, FALSE
        guard = conditions[0]
        for condition in conditions[1:]:
            guard = call("and", guard, condition)
        return environment, guard

    def _nonnegative(self, total: Linear, goal: _Goal) -> Pieces:
        """Where `total >= 0`, for some (possible) or all of the owned positions."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
            return self._unknown(goal, "is too large to solve")
        guards: list[Expr] = []
        for term, coefficient in total.terms:
            kind = self._dependence(term)
            if kind == "own" and (monotone := direction(term, self.axis.own, goal.environment)) is not None:
                guards += monotone.guards
            elif kind in ("own", "both") or (kind == "loop" and not self._is_solvable(total, term)):
                return self._split(total, term, coefficient, goal)
        settled = self._at_extremes(total, goal)
        for term, coefficient in settled.terms:
            if self._dependence(term) == "loop":
                found = self._along_loop(term, coefficient, settled.replaced(term, Linear()), goal)
                break
        else:
            value = to_expr(settled)
            _check(value, goal.environment)
            found = goal.algebra.where(goal.algebra.nonnegative(value))
        for guard in guards:
            found = goal.guarded(found, guard)
        return found

    def _is_solvable(self, total: Linear, term: Expr) -> bool:
        """Whether this term of the loop's position may be left to the end: the only one, or the position itself."""
        if any(t is not term and self._dependence(t) == "loop" for t, _ in total.terms):
            return isinstance(term, Coord)
        match term:
            case Coord():
                return True
            case Call(op="floordiv", args=(_, n)):
                return self._is_free(n)
            case Call(op="mul", args=(a, b)):
                return self._is_free(a) or self._is_free(b)
            case _:
                return False

    def _at_extremes(self, total: Linear, goal: _Goal) -> Linear:
        """With owned terms at the end of the tile where they are largest (possible) or smallest."""
        parts = [(1, Linear((), total.constant))]
        for term, coefficient in total.terms:
            monotone = None
            if self._dependence(term) == "own":
                monotone = direction(term, self.axis.own, goal.environment)
            if monotone is None:
                parts.append((coefficient, Linear(((term, 1),))))
                continue
            rises = (coefficient > 0) is (monotone.sign > 0)
            position = self.axis.last if rises is goal.possible else self.axis.first
            parts.append((coefficient, linear_of(substitute(term, {Coord(self.axis.own): position}))))
        return combine(parts)

    def _along_loop(self, term: Expr, coefficient: int, rest: Linear, goal: _Goal) -> Pieces:
        """Where `coefficient * term + rest >= 0`, the term being of the loop's position alone and `rest` free."""
        rest = _quotient(rest, to_const(abs(coefficient)))
        sign = 1 if coefficient > 0 else -1
        match term:
            case Coord():
                bound = to_expr(-rest if sign > 0 else rest.plus(1))
                _check(bound, goal.environment)
                interval = interval_of(bound, goal.environment)
                if interval.low < -_FAR or interval.high > _FAR:
                    # Brought near at once: rounding to tiles must not wrap.
                    bound = call("min", self.axis.end, bound) if sign > 0 else call("max", ZERO, bound)
                piece = Piece(bound, self.axis.end) if sign > 0 else Piece(ZERO, bound)
                return goal.all([(piece,)])
            case Call(op="floordiv", args=(x, n)):
                return self._floor(sign, x, n, rest, goal)
            case Call(op="mul", args=(a, b)):
                factor, x = (a, b) if self._is_free(a) else (b, a)
                if interval_of(factor, goal.environment).high < 0:
                    factor, sign = to_expr(-linear_of(factor)), -sign
                found = self._nonnegative(combine(((sign, linear_of(x)), (1, _quotient(rest, factor)))), goal)
                return goal.guarded(found, goal.positive(factor))
            case _:
                return self._unknown(goal, None)

    def _floor(self, sign: int, x: Expr, n: Expr, rest: Linear, goal: _Goal) -> Pieces:
        """Where `sign * floor(x / n) + rest >= 0`, `rest` and `n` being free."""
        # floor(x / n) + r >= 0 is x + n*r >= 0; r - floor(x / n) >= 0 is n*r + n - 1 - x >= 0.
        bound = combine(((sign, linear_of(x)), (1, _product(n, rest))))
        if sign < 0:
            bound = (bound + linear_of(n)).plus(-1)
        return goal.guarded(self._nonnegative(bound, goal), goal.positive(n))

    def _split(self, total: Linear, term: Expr, coefficient: int, goal: _Goal) -> Pieces:
        """`total >= 0` by cases of one of its terms, else by a bound on that term."""

        def with_value(value: Linear) -> Pieces:
            return self._nonnegative(total.replaced(term, value), goal)

        rising = coefficient > 0
        match term:
            case Call(op="min" | "max" as op, args=(a, b)):
                return goal.join((op == "min") is rising, [with_value(linear_of(a)), with_value(linear_of(b))])
            case Call(op="abs", args=(a,)):
                return goal.join(not rising, [with_value(linear_of(a)), with_value(-linear_of(a))])
            case Call(op="clamp", args=(x, low, high)):
                return with_value(linear_of(call("min", call("max", x, low), high)))
            case Call(op="where", args=(condition, a, b)):
                first = goal.all([self._solve(condition, True, goal.possible), with_value(linear_of(a))])
                second = goal.all([self._solve(condition, False, goal.possible), with_value(linear_of(b))])
                return goal.any([first, second])
            case Call(op="mul", args=(a, b)) if self._is_free(a) or self._is_free(b):
                factor, x = (a, b) if self._is_free(a) else (b, a)
                parts = linear_of(x)
                if len(parts.terms) > 1 or parts.constant:
                    return with_value(_product(factor, parts))
            case Call(op="floordiv", args=(x, n)) if self._is_free(n) and self._is_alone(total, term):
                rest = _quotient(total.replaced(term, Linear()), to_const(abs(coefficient)))
                return self._floor(1 if rising else -1, x, n, rest, goal)
            case _:
                pass
        interval = interval_of(term, goal.environment)
        end = interval.high if rising is goal.possible else interval.low
        if math.isinf(end):
            return self._unknown(goal, None)
        return with_value(Linear((), int(end)))

    def _unknown(self, goal: _Goal, reason: str | None) -> Pieces:
        self.unsolved.setdefault(goal.mask, reason or _reason(goal.mask, self.axis))
        return goal.algebra.everything if goal.possible else ()

    def _dependence(self, expr: Expr) -> str:
        if expr not in self._kinds:
            read = coordinates((expr,))
            listed = any(isinstance(n, Listed) for n in postorder(expr))
            own, loop = listed or self.axis.own in read, listed or self.axis.loop in read
            self._kinds[expr] = "both" if own and loop else "own" if own else "loop" if loop else "free"
        return self._kinds[expr]

    def _is_free(self, expr: Expr) -> bool:
        return self._dependence(expr) == "free"

    def _is_alone(self, total: Linear, term: Expr) -> bool:
        return all(t is term or self._is_free(t) for t, _ in total.terms)


@dataclass(frozen=True, slots=True)
class _Goal:
    """What one comparison is solved for: positions possibly live, or surely live, under what is known."""

    mask: Expr
    possible: bool
    environment: Environment
    end: Expr

    @property
    def algebra(self) -> PieceAlgebra:
        return PieceAlgebra(self.environment, self.end)

    def join(self, both: bool, regions: Sequence[Pieces]) -> Pieces:
        return self.all(regions) if both else self.any(regions)

    def all(self, regions: Iterable[Pieces]) -> Pieces:
        found = self.algebra.everything
        # Single intervals first: what they cut away need not be told apart later.
        for region in sorted(regions, key=len):
            found = self.algebra.intersect(found, region, widen=self.possible)
        return found

    def any(self, regions: Iterable[Pieces]) -> Pieces:
        found: Pieces = ()
        for region in regions:
            found = self.algebra.union(found, region, widen=self.possible)
        return found

    def positive(self, value: Expr) -> Expr:
        return self.algebra.decide(call("ge", value, to_const(1)))

    def guarded(self, found: Pieces, guard: Expr) -> Pieces:
        """`found` where the guard holds; where it fails nothing is known."""
        if guard is TRUE:
            return found
        inside = self.all([self.algebra.where(guard), found])
        if not self.possible:
            return inside
        return self.any([inside, self.algebra.where(self.algebra.negation(guard))])


class _MayWrap(Exception):
    """A bound might leave 64 bits under what is known."""


_OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "le": "gt", "gt": "le"}


def _check(bound: Expr, environment: Environment) -> None:
    if may_wrap(bound, environment):
        raise _MayWrap


def _product(factor: Expr, linear: Linear) -> Linear:
    constant = linear_of(factor)
    if not constant.terms:
        return linear.scaled(constant.constant)
    # Term by term, so that a sum of owned and looped positions comes apart.
    return combine([*((c, linear_of(call("mul", factor, t))) for t, c in linear.terms), (linear.constant, constant)])


def _quotient(linear: Linear, divisor: Expr) -> Linear:
    """floor(linear / divisor), for a positive divisor."""
    value = linear_of(divisor)
    if value.terms:
        return linear_of(call("floordiv", to_expr(linear), divisor))
    if value.constant == 1:
        return linear
    whole = Linear(tuple((t, c // value.constant) for t, c in linear.terms if c % value.constant == 0))
    rest = Linear(tuple((t, c) for t, c in linear.terms if c % value.constant), linear.constant)
    if not rest.terms:
        return whole.plus(rest.constant // value.constant)
    return whole + linear_of(call("floordiv", to_expr(rest), divisor))


def _has_floats(expr: Expr) -> bool:
    return any(n.sort is Sort.FLOAT for n in postorder(expr))


def _reason(mask: Expr, axis: Axis) -> str:
    """Why a comparison says nothing, to follow its text in a sentence."""
    if any(isinstance(n, Listed) for n in postorder(mask)):
        return "is a table given at run time"
    loads = [n for n in postorder(mask) if isinstance(n, Load) and coordinates(n.index) & {axis.own, axis.loop}]
    if loads:
        names = list(dict.fromkeys(n.input for n in loads))
        return f"reads {' and '.join(names)} at positions, so its value is not known before the call"
    if _has_floats(mask):
        return "compares floats"
    return f"does not bound {axis.loop} by a formula"
