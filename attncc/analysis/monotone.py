"""Whether an int expression only ever rises, or only ever falls, along one coordinate."""

from __future__ import annotations

from dataclasses import dataclass

from attncc.analysis.ranges import Environment, interval_of
from attncc.ir.expr import Call, Const, Coord, Expr, coordinates, to_const
from attncc.ir.intrinsics import call


@dataclass(frozen=True, slots=True)
class Direction:
    """`sign` 1 for non-decreasing, -1 for non-increasing, 0 for neither rising nor falling.

    It holds where all `guards` do: conditions on run-time scalars, such as a divisor being positive.
    """

    sign: int
    guards: tuple[Expr, ...] = ()


def direction(expr: Expr, coordinate: str, environment: Environment) -> Direction | None:
    """The direction of `expr` along `coordinate` where nothing wraps; None where it is not known to have one."""
    if coordinate not in coordinates((expr,)):
        return Direction(0)
    match expr:
        case Coord():
            return Direction(1)
        case Call(op="add" | "min" | "max" | "clamp", args=args):
            return _joined([direction(a, coordinate, environment) for a in args])
        case Call(op="sub", args=(a, b)):
            return _joined([direction(a, coordinate, environment), _times(-1, direction(b, coordinate, environment))])
        case Call(op="neg", args=(a,)):
            return _times(-1, direction(a, coordinate, environment))
        case Call(op="mul", args=(a, b)) if coordinate not in coordinates((a,)):
            return _scaled(a, 0, direction(b, coordinate, environment), environment)
        case Call(op="mul", args=(a, b)) if coordinate not in coordinates((b,)):
            return _scaled(b, 0, direction(a, coordinate, environment), environment)
        case Call(op="floordiv", args=(a, b)) if coordinate not in coordinates((b,)):
            return _scaled(b, 1, direction(a, coordinate, environment), environment)
        case Call(op="shl" | "shr", args=(a, Const(value=int(by)))) if 0 <= by <= 62:
            return direction(a, coordinate, environment)
        case _:
            return None


def _joined(parts: list[Direction | None]) -> Direction | None:
    signs, guards = set[int](), list[Expr]()
    for part in parts:
        if part is None:
            return None
        signs |= {part.sign} - {0}
        guards += part.guards
    if len(signs) > 1:
        return None
    return Direction(signs.pop() if signs else 0, tuple(dict.fromkeys(guards)))


def _times(sign: int, part: Direction | None) -> Direction | None:
    return None if part is None else Direction(sign * part.sign, part.guards)


def _scaled(factor: Expr, least: int, part: Direction | None, environment: Environment) -> Direction | None:
    """Times a factor, or over a divisor, that does not vary: by its sign, known or guarded to be at least `least`."""
    if part is None:
        return None
    interval = interval_of(factor, environment)
    if interval.low >= least:
        return part
    if interval.high <= -least:
        return _times(-1, part)
    if coordinates((factor,)) - {"b", "h", "first", "last"}:
        return None  # a guard is decided once for the tile
    return Direction(part.sign, (*part.guards, call("ge", factor, to_const(least))))
