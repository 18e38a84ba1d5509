"""From ranges of positions to runs of whole tiles: what a program's loop visits, and which tiles need no mask."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from attncc.analysis.pieces import ZERO, PieceAlgebra, Pieces
from attncc.ir.expr import Const, Expr, Size, to_const
from attncc.ir.intrinsics import call

Method = Literal["closed form", "everything"]


class TileKind(enum.Enum):
    """What a tile of pairs holds: no live pair, some perhaps, or nothing but live pairs."""

    EMPTY = 0
    PARTIAL = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class Range:
    """The positions `start <= x < stop`; none where `start >= stop`."""

    start: Expr
    stop: Expr


@dataclass(frozen=True, slots=True)
class Segment:
    """One run of tiles along the axis looped over: those that start at `start + i * tile`, the last cut at `stop`.

    Empty where `start >= stop`. In a FULL segment `stop - start` is a multiple of the tile, and every pair of the
    program's positions with the tile's is live.
    """

    kind: TileKind
    start: Expr
    stop: Expr


@dataclass(frozen=True, slots=True)
class Visits:
    """What the loop of one kernel visits, and what was proved.

    `segments` are disjoint and in increasing order. `live` and `full` are the ranges they were made from, disjoint and
    in increasing order too: nothing is live outside `live`, everything is inside `full`. `reasons` are sentences.
    """

    segments: tuple[Segment, ...]
    method: Method
    reasons: tuple[str, ...]
    live: tuple[Range, ...] = ()
    full: tuple[Range, ...] = ()


def ranges_of(pieces: Pieces, algebra: PieceAlgebra, unit: Expr | None = None) -> tuple[Range, ...]:
    """The pieces as disjoint ranges in increasing order, for every value of their ends.

    With a `unit`, ranges that touch the same tile of that length (on the grid that starts at 0) become one.
    """
    ranges = [Range(p.start, algebra.choose(p.guard, p.stop, ZERO)) for p in pieces]
    if len(ranges) > 1:
        ranges = _merged(_sorted(ranges, algebra), algebra, unit)
    return tuple(ranges)


def segments_of(live: tuple[Range, ...], full: tuple[Range, ...], algebra: PieceAlgebra) -> tuple[Segment, ...]:
    """Tile runs on the grid that starts at 0: `live`, of which whole tiles in `full` are FULL.

    `live` are disjoint in tiles (see `ranges_of`), `full` disjoint, both in increasing order.
    """
    tile = Size("tile")
    starts = [_align_down(r.start, tile) for r in live]
    stops = [_stop(r, algebra) for r in live]
    # Zones along the axis: P F P F … P. A zone that turns out inverted is empty, and its neighbours still meet.
    found: list[Segment] = []
    before: Range | None = None
    resume: Expr = ZERO  # where the last FULL zone stopped
    for run in (*full, None):
        begin = None if run is None else algebra.maximum(_align_up(run.start, tile), resume)
        for reach, start, stop in zip(live, starts, stops, strict=True):
            if before is not None:
                # Aligned down, a start that is no later than the zone's is no later either.
                start = resume if algebra.at_most(reach.start, before.start) else algebra.maximum(start, resume)
            if begin is not None:
                stop = algebra.minimum(stop, begin)
            if not algebra.at_most(stop, start):
                found.append(Segment(TileKind.PARTIAL, start, stop))
        if run is not None and begin is not None:
            resume = algebra.maximum(begin, _align_down(run.stop, tile))
            before = run
            if not algebra.at_most(resume, begin):
                found.append(Segment(TileKind.FULL, begin, resume))
    return tuple(found)


def _stop(run: Range, algebra: PieceAlgebra) -> Expr:
    """The stop, 0 where the range is empty: its start, aligned down, might come before the stop all the same."""
    if run.start is ZERO or algebra.at_most(call("add", run.start, to_const(1)), run.stop):
        return run.stop
    return algebra.choose(call("lt", run.start, run.stop), run.stop, ZERO)


def _sorted(ranges: list[Range], algebra: PieceAlgebra) -> list[Range]:
    """By start: a bubble sort whose exchanges are decided when it is known, or else when it runs."""
    order = list(ranges)
    for end in range(len(order) - 1, 0, -1):
        for i in range(end):
            a, b = order[i], order[i + 1]
            if algebra.at_most(a.start, b.start):
                continue
            if algebra.at_most(b.start, a.start):
                order[i], order[i + 1] = b, a
                continue
            first = call("le", a.start, b.start)
            order[i] = Range(algebra.minimum(a.start, b.start), algebra.choose(first, a.stop, b.stop))
            order[i + 1] = Range(algebra.maximum(a.start, b.start), algebra.choose(first, b.stop, a.stop))
    return order


def _merged(ranges: list[Range], algebra: PieceAlgebra, unit: Expr | None) -> list[Range]:
    """Neighbours that overlap or touch become one; the place of the first is left empty.

    A range that is empty (`stop < start`) touches only what starts within reach of its stop, and so adds no tile.
    """
    done: list[Range] = []
    current = ranges[0]
    for following in ranges[1:]:
        reach = current.stop if unit is None else _align_up(current.stop, unit)
        touch = call("le", following.start, reach)
        done.append(Range(current.start, algebra.choose(touch, ZERO, current.stop)))
        start = algebra.choose(touch, current.start, following.start)
        stop = algebra.choose(touch, algebra.maximum(current.stop, following.stop), following.stop)
        current = Range(start, stop)
    return [*done, current]


def _align_down(value: Expr, tile: Expr) -> Expr:
    if isinstance(value, Const) and value.value == 0:
        return value
    return call("mul", call("floordiv", value, tile), tile)


def _align_up(value: Expr, tile: Expr) -> Expr:
    if isinstance(value, Const) and value.value == 0:
        return value
    return _align_down(call("sub", call("add", value, tile), to_const(1)), tile)
