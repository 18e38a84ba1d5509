"""Generates the leaves that say which tiles a program visits, from a `LoopPlan`.

For the segments over keys (a program owns query rows) and over rows (a program owns keys) alike: `…_ranges` gives the
ends of all segments as a tuple of scalars, `full_…` and `partial_…` walk the segments of their kind as one loop.
"""

from __future__ import annotations

from attncc.analysis.plan import Segment, TileKind, Visits
from attncc.codegen.expressions import ExpressionPrinter, Proofs
from attncc.codegen.options import Options
from attncc.codegen.triton.sources import leaf
from attncc.ir.expr import Coord, Expr
from attncc.ir.spec import Spec

_NAMES: dict[Expr, str] = {Coord("b"): "b", Coord("h"): "h", Coord("first"): "first", Coord("last"): "last"}


def range_leaves(spec: Spec, visits: Visits, axis: str, options: Options, proofs: Proofs) -> str:
    """The five leaves for one axis, "key" or "row"."""
    printer = ExpressionPrinter(spec, _NAMES, proofs, wide=options.wide)
    parts = [_ranges(printer, visits, axis)]
    parts += [_full(visits, axis), _partial(visits, axis)]
    return "\n\n\n".join(parts)


def _ranges(printer: ExpressionPrinter, visits: Visits, axis: str) -> str:
    printed = printer.print(*(e for s in visits.segments for e in (s.start, s.stop)))
    comments = [
        f"# {'rows' if axis == 'row' else 'keys'} by {visits.method}: "
        + ", ".join(s.kind.name for s in visits.segments)
    ]
    ends = [f"{end}{n}" for n in range(len(visits.segments)) for end in ("start", "stop")]
    # Lengths fit 32 bits, so ends do, whatever wider arithmetic they came from.
    assigned = [f"{end} = tl.cast({text}, tl.int32)" for end, text in zip(ends, printed.roots, strict=True)]
    body = [*comments, *printed.lines, *assigned, f"return {', '.join(ends)}"]
    return leaf(f"{axis}_ranges(b, h, first, last, TILE: tl.constexpr, values)", body)


def _full(visits: Visits, axis: str) -> str:
    places = _places(visits, TileKind.FULL)
    counts = [f"(tl.maximum(ranges[{2 * i + 1}] - ranges[{2 * i}], 0) // TILE)" for i, _ in places]
    count = leaf(f"full_{axis}_tiles(ranges, TILE: tl.constexpr)", [f"return {' + '.join(counts) or '0'}"])
    lines, starts = _walk(places, counts)
    start = starts[-1][0] if starts else "0"
    for text, _, bound in reversed(starts[:-1]):
        start = f"tl.where(t < {bound}, {text}, {start})"
    visit = leaf(f"full_{axis}_tile(t, ranges, TILE: tl.constexpr)", [*lines, f"return {start}"])
    return f"{count}\n\n\n{visit}"


def _partial(visits: Visits, axis: str) -> str:
    places = _places(visits, TileKind.PARTIAL)
    counts = [f"tl.cdiv(tl.maximum(ranges[{2 * i + 1}] - ranges[{2 * i}], 0), TILE)" for i, _ in places]
    count = leaf(f"partial_{axis}_tiles(ranges, TILE: tl.constexpr)", [f"return {' + '.join(counts) or '0'}"])
    lines, starts = _walk(places, counts)
    start, stop = (starts[-1][0], starts[-1][1]) if starts else ("0", "0")
    for text, end, bound in reversed(starts[:-1]):
        start = f"tl.where(t < {bound}, {text}, {start})"
        stop = f"tl.where(t < {bound}, {end}, {stop})"
    lines += [f"start = {start}", f"stop = {stop}", "return start, stop"]
    visit = leaf(f"partial_{axis}_tile(t, ranges, TILE: tl.constexpr)", lines)
    return f"{count}\n\n\n{visit}"


def _places(visits: Visits, kind: TileKind) -> list[tuple[int, Segment]]:
    return [(i, s) for i, s in enumerate(visits.segments) if s.kind is kind]


def _walk(places: list[tuple[int, Segment]], counts: list[str]) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Lines that count up to each segment, and for each its tile's start, its stop, and the count it ends at."""
    lines: list[str] = []
    starts: list[tuple[str, str, str]] = []
    for n, (i, _) in enumerate(places):
        if n < len(places) - 1:
            before = f"upto{n - 1} + " if n else ""
            lines.append(f"upto{n} = {before}{counts[n]}")
        step = "t" if n == 0 else f"(t - upto{n - 1})"
        starts.append((f"ranges[{2 * i}] + {step} * TILE", f"ranges[{2 * i + 1}]", f"upto{n}"))
    return lines, starts
