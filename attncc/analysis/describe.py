"""A plan in words and as JSON: the ranges in the spec's own names, how they were found, what it comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from attncc.analysis.bounds import Axis, Solver
from attncc.analysis.facts import LENGTH_LIMIT, environment_of
from attncc.analysis.linear import linear_of, to_expr
from attncc.analysis.pieces import Piece, Pieces
from attncc.analysis.plan import Plan, effective_masks, in_positions, recount
from attncc.analysis.ranges import interval_of
from attncc.ir.expr import (
    TRUE,
    Call,
    Coord,
    Expr,
    Load,
    Param,
    Size,
    Sort,
    coordinates,
    postorder,
)
from attncc.ir.intrinsics import call
from attncc.ir.printer import print_expr
from attncc.ir.spec import RangeFact, Spec


def describe(plan: Plan) -> str:
    """The plan as lines of text."""
    forward = plan.loops.forward
    rows, columns = plan.tile
    lines = [
        f"{plan.spec.name}: {plan.queries} queries x {plan.keys} keys, batch {plan.batch}, {plan.heads} heads, "
        f"tiles of {rows} x {columns}",
        f"method: {forward.method}",
        *(f"  {reason}" for reason in forward.reasons),
        "ranges:",
        *(f"  {text}" for text in key_ranges(plan.spec)),
        *(f"  {text}" for text in query_ranges(plan.spec)),
        f"tiles: {plan.tiles_total} in all",
        f"  {plan.tiles_visited} visited ({_percent(plan.tiles_visited, plan.tiles_total)}): "
        f"{plan.tiles_full} FULL, without mask code, and {plan.tiles_partial} PARTIAL",
        f"  {plan.tiles_total - plan.tiles_visited} skipped: {_percent_saved(plan)} of the work is saved",
    ]
    live = plan.live_pairs()
    if live is not None:
        pairs = plan.batch * plan.heads * plan.queries * plan.keys
        lines.append(f"  {_percent(live, pairs)} of all pairs are live")
    lines += _section("hints", hints(plan)) + _section("assumed", assumptions(plan.spec))
    return "\n".join(lines)


def to_json(plan: Plan) -> dict[str, Any]:
    """The same as JSON-ready values."""
    forward = plan.loops.forward
    live = plan.live_pairs()
    pairs = plan.batch * plan.heads * plan.queries * plan.keys
    return {
        "name": plan.spec.name,
        "queries": plan.queries,
        "keys": plan.keys,
        "batch": plan.batch,
        "heads": plan.heads,
        "tile": list(plan.tile),
        "method": forward.method,
        "reasons": list(forward.reasons),
        "key_ranges": list(key_ranges(plan.spec)),
        "query_ranges": list(query_ranges(plan.spec)),
        "tiles_total": plan.tiles_total,
        "tiles_full": plan.tiles_full,
        "tiles_partial": plan.tiles_partial,
        "tiles_visited": plan.tiles_visited,
        "visited_fraction": _fraction(plan.tiles_visited, plan.tiles_total),
        "live_fraction": None if live is None else _fraction(live, pairs),
        "hints": list(hints(plan)),
        "assumptions": list(assumptions(plan.spec)),
    }


def key_ranges(spec: Spec) -> tuple[str, ...]:
    """The keys that the query at `q` may see, as text; the ones it surely sees too, where these differ."""
    masks = tuple(in_positions(mask) for mask in effective_masks(spec))
    own = "q"
    if "row" in coordinates(masks):  # used by itself too: then all is said of rows
        masks, own = effective_masks(spec), "row"
    return _ranges(spec, masks, Axis(own, "k", Coord(own), Coord(own), Size("keys")))


def query_ranges(spec: Spec) -> tuple[str, ...]:
    """The rows that may see the key at `k`, as text."""
    return _ranges(spec, effective_masks(spec), Axis("k", "row", Coord("k"), Coord("k"), Size("queries")))


def hints(plan: Plan) -> tuple[str, ...]:
    """What would make more tiles FULL, where that is easy to say."""
    if not plan.tiles_partial:
        return ()
    found = []
    if ragged := plan.keys % plan.tile[1]:
        found.append(f"keys is not a multiple of {plan.tile[1]}: the last {ragged} keys are run as PARTIAL tiles")
    for side in (256, 128, 64, 32, 16):
        full, partial = recount(plan, (side, side))
        if not partial and full and (side, side) != plan.tile:
            found.append(f"with tiles of {side} x {side} every visited tile would be FULL")
            break
    return tuple(found)


def assumptions(spec: Spec) -> tuple[str, ...]:
    """What the proofs take as given."""
    masks = effective_masks(spec)
    if not masks:
        return ()
    read = {n.input for n in postorder(*masks) if isinstance(n, Load)}
    facts = [
        f"{declared.name} in {print_expr(fact.low)} .. {print_expr(fact.high)}, as declared"
        for declared in spec.inputs
        for fact in declared.facts
        if declared.name in read and isinstance(fact, RangeFact)
    ]
    return (
        *(f"`{print_expr(require.condition)}`, as required" for require in spec.requires),
        *facts,
        f"lengths are below {LENGTH_LIMIT}; int params and offsets are at most that in magnitude",
    )


def _ranges(spec: Spec, masks: tuple[Expr, ...], axis: Axis) -> tuple[str, ...]:
    environment = environment_of(spec)
    position = interval_of(call("add", Coord("row"), Param("q_offset", Sort.INT)), environment)
    environment = replace(environment, coordinates={**environment.coordinates, "q": position})
    solver = Solver(axis, environment)
    live, full = solver.live(masks), solver.full(masks)
    if live == full:
        return (f"{axis.loop} in {_text(live, axis)}",)
    possibly = f"{axis.loop} at most in {_text(live, axis)}"
    return (possibly, f"surely live: {axis.loop} in {_text(full, axis)}") if full else (possibly,)


def _text(pieces: Pieces, axis: Axis) -> str:
    return " or ".join(_piece(p, axis) for p in pieces) if pieces else "no range"


def _piece(piece: Piece, axis: Axis) -> str:
    stop = _without_end(piece.stop, axis.end)
    text = f"[{print_expr(piece.start)}, {print_expr(_less_one(stop))}]"
    return text if piece.guard is TRUE else f"{text} if {print_expr(piece.guard)}"


def _without_end(stop: Expr, end: Expr) -> Expr:
    """That the axis ends where it ends goes without saying."""
    match stop:
        case Call(op="min", args=(a, b)) if end in (a, b):
            return _without_end(b if a is end else a, end)
        case Call(op="min", args=(a, b)):
            return call("min", _without_end(a, end), _without_end(b, end))
        case _:
            return stop


def _less_one(stop: Expr) -> Expr:
    """stop - 1, taken inside of choices so that it cancels."""
    match stop:
        case Call(op="min" | "max" as op, args=(a, b)):
            return call(op, _less_one(a), _less_one(b))
        case Call(op="where", args=(condition, a, b)):
            return call("where", condition, _less_one(a), _less_one(b))
        case _:
            return to_expr(linear_of(stop).plus(-1))


def _section(title: str, lines: Iterable[str]) -> list[str]:
    found = [f"  {line}" for line in lines]
    return [f"{title}:", *found] if found else []


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _percent(part: int, whole: int) -> str:
    return f"{100 * _fraction(part, whole):.1f} %"


def _percent_saved(plan: Plan) -> str:
    return _percent(plan.tiles_total - plan.tiles_visited, plan.tiles_total)
