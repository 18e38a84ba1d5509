"""Which tiles a kernel's loops visit, decided from the mask alone; and what that comes to at given sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from attncc.analysis.bounds import Axis, Solver
from attncc.analysis.evaluation import Values, evaluate_all, to_array
from attncc.analysis.facts import LENGTH_LIMIT, environment_of
from attncc.analysis.pieces import PieceAlgebra, Pieces
from attncc.analysis.ranges import Environment
from attncc.analysis.tiles import Range, Segment, TileKind, Visits, ranges_of, segments_of
from attncc.errors import ArgumentError
from attncc.ir.expr import Coord, Expr, Listed, Load, Param, Scalar, Size, Sort, coordinates, postorder, substitute
from attncc.ir.intrinsics import call
from attncc.ir.printer import print_expr
from attncc.ir.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "LoopPlan",
    "Plan",
    "Range",
    "Segment",
    "TileKind",
    "Visits",
    "effective_masks",
    "evaluate",
    "in_positions",
    "plan_loops",
    "recount",
    "visits",
]


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """The loops of the kernels made from a spec.

    `forward`: a program owns query rows `first .. last`, its segments run over k. `transposed`: a program owns keys
    `first .. last`, its segments run over row. Segment expressions read only the coordinates b, h, first and last,
    sizes, params, loads indexed by those of b and h, and `Size("tile")`, the length of the tiles stepped over.
    """

    forward: Visits
    transposed: Visits


def plan_loops(spec: Spec, *, wide: bool = False, input_dtypes: Mapping[str, str] | None = None) -> LoopPlan:
    """Decides the loops of a lowered spec.

    `wide` as in code generation: int params and lengths are then not known to be at most 2**28. `input_dtypes` are
    torch's names of the inputs' element types; knowing them saves a run-time check of very large values.
    """
    environment = environment_of(spec, wide=wide, input_dtypes=input_dtypes)
    masks = effective_masks(spec)
    first, last = Coord("first"), Coord("last")
    return LoopPlan(
        forward=visits(masks, Axis("row", "k", first, last, Size("keys")), Size("queries"), environment),
        transposed=visits(masks, Axis("k", "row", first, last, Size("queries")), Size("keys"), environment),
    )


def effective_masks(spec: Spec) -> tuple[Expr, ...]:
    """The bool expressions whose conjunction says which pairs are live: the masks, and each table none mentions."""
    masks = tuple(clause.expr for clause in spec.masks)
    mentioned = {n.table for n in postorder(*masks) if isinstance(n, Listed)}
    return (*masks, *(Listed(t.name) for t in spec.tables if t.name not in mentioned))


@dataclass(frozen=True, slots=True)
class Plan:
    """What the forward kernel's loops do at given sizes. Made by `evaluate`.

    The four counts are over all batch entries and heads: `tiles_visited` is `tiles_full + tiles_partial`. A tile that
    is cut short by the end of the keys is run as PARTIAL even where all its pairs are live.
    """

    spec: Spec
    loops: LoopPlan
    queries: int
    keys: int
    batch: int
    heads: int
    tile: tuple[int, int]
    tiles_total: int
    tiles_full: int
    tiles_partial: int
    _values: Values = field(repr=False, compare=False)

    @property
    def tiles_visited(self) -> int:
        """How many tiles the kernel computes."""
        return self.tiles_full + self.tiles_partial

    def tiles(self, batch: int = 0, head: int = 0) -> NDArray[np.int8]:
        """The kind of every tile of the fixed grid for one batch entry and head, int8 `[query_tiles, key_tiles]`.

        0 EMPTY, 1 PARTIAL, 2 FULL, of the pairs that exist: a tile cut short by the end of the keys is FULL where all
        its pairs are live. IndexError for a batch entry or head that is not there.
        """
        import numpy as np

        if not (0 <= batch < self.batch and 0 <= head < self.heads):
            raise IndexError(f"no head {head} of batch entry {batch}: the plan has {self.batch} x {self.heads}")
        values = _with_tiles(self._values, self.queries, self.tile, slice(batch, batch + 1), slice(head, head + 1))
        rows, columns = math.ceil(self.queries / self.tile[0]), math.ceil(self.keys / self.tile[1])
        live = _extents(self.loops.forward.live, values, rows)
        full = _extents(self.loops.forward.full, values, rows)
        start = np.arange(columns) * self.tile[1]
        stop = np.minimum(start + self.tile[1], self.keys)
        found = np.zeros((rows, columns), dtype=np.int8)
        for low, high in live:
            found[(np.maximum(low[:, None], start) < np.minimum(high[:, None], stop))] = TileKind.PARTIAL.value
        for low, high in full:
            found[(low[:, None] <= start) & (stop <= high[:, None])] = TileKind.FULL.value
        return found

    def live_pairs(self) -> int | None:
        """How many pairs are live over all batch entries and heads, where the closed form says so exactly and cheaply
        (a few operations for each row); else None."""
        import numpy as np

        environment = environment_of(self.spec, wide=True)
        row, keys = Coord("row"), Size("keys")
        axis = Axis("row", "k", row, row, keys)
        solver, masks = Solver(axis, environment), effective_masks(self.spec)
        algebra = PieceAlgebra(environment, keys)
        live, full = (ranges_of(pieces, algebra) for pieces in (solver.live(masks), solver.full(masks)))
        read = coordinates(e for run in (*live, *full) for e in (run.start, run.stop))
        varying = (self.batch if "b" in read else 1) * (self.heads if "h" in read else 1)
        if varying * self.queries > _MOST_ROWS:
            return None
        values = _with_tiles(self._values, self.queries, (1, 1))
        values = replace(values, coordinates={**values.coordinates, "row": values.coordinates["first"]})
        counts = []
        for ranges in (live, full):
            ends = evaluate_all([e for run in ranges for e in (run.start, run.stop)], values)
            shape = (self.batch, self.heads, self.queries)
            lengths = [np.maximum(b - a, 0) for a, b in zip(ends[::2], ends[1::2], strict=True)]
            counts.append(sum(_total(x, shape) for x in lengths))
        return counts[0] if counts[0] == counts[1] else None

    def describe(self) -> str:
        """The plan in words, for `attncc explain`."""
        from attncc.analysis.describe import describe

        return describe(self)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON-ready values: the counts, the key ranges as text, how they were found, what was assumed."""
        from attncc.analysis.describe import to_json

        return to_json(self)


def evaluate(
    spec: Spec,
    loops: LoopPlan,
    *,
    queries: int,
    keys: int | None = None,
    batch: int = 1,
    heads: int = 1,
    kv_heads: int | None = None,
    dim: int = 64,
    q_offset: Any = 0,
    params: Mapping[str, Scalar] | None = None,
    inputs: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    tile: tuple[int, int] = (128, 128),
) -> Plan:
    """The plan of a lowered spec at given sizes; `tile` is (queries, keys) of one tile.

    `inputs` are numpy arrays or torch tensors; only those that the loops' bounds read are needed. `q_offset` is an
    int, or an array `[batch]` for a spec lowered for that. `sizes` gives named extents and grid lengths. Values beyond
    what `loops` may assume are planned with the loops of the kernel that serves them (`wide`). Raises ArgumentError
    where a value is missing, or a size is none.
    """
    keys = queries if keys is None else keys
    _check_sizes(queries, keys, batch, heads, heads if kv_heads is None else kv_heads, tile)
    named = {
        "batch": batch,
        "heads": heads,
        "kv_heads": kv_heads or heads,
        "queries": queries,
        "keys": keys,
        "dim": dim,
    }
    scalars: dict[str, Scalar] = {p.name: p.default for p in spec.params if p.default is not None}
    scalars.update(params or {})
    tensors = {name: to_array(t) for name, t in (inputs or {}).items()}
    if isinstance(q_offset, int):
        scalars["q_offset"] = q_offset
    else:
        tensors["q_offset"] = to_array(q_offset)
        if tensors["q_offset"].shape != (batch,):
            raise ArgumentError(f"q_offset is an int or [batch], but has shape {list(tensors['q_offset'].shape)}")
    if any(isinstance(x, int) and abs(x) > LENGTH_LIMIT for x in (*scalars.values(), queries, keys)):
        loops = plan_loops(spec, wide=True)
    values = Values(
        sizes={"prefix_tokens": 0, "suffix_tokens": 0, **(sizes or {}), **named},
        scalars=scalars,
        tensors=tensors,
        coordinates=_coordinates(batch, heads),
    )
    counts = {kind: _count(loops.forward, kind, values, queries, tile, (batch, heads)) for kind in TileKind}
    return Plan(
        spec=spec,
        loops=loops,
        queries=queries,
        keys=keys,
        batch=batch,
        heads=heads,
        tile=tile,
        tiles_total=batch * heads * math.ceil(queries / tile[0]) * math.ceil(keys / tile[1]),
        tiles_full=counts[TileKind.FULL],
        tiles_partial=counts[TileKind.PARTIAL],
        _values=values,
    )


def _check_sizes(queries: int, keys: int, batch: int, heads: int, kv_heads: int, tile: object) -> None:
    match tile:
        case (int(rows), int(columns)):
            pass
        case (tuple() | list(), tuple() | list()):
            raise ArgumentError(f"tiles that are boxes are not there yet: tile={tile}")
        case _:
            raise ArgumentError(f"tile is a pair of ints (queries, keys), not {tile!r}")
    if not all(isinstance(size, int) for size in (queries, keys, batch, heads, kv_heads)):
        raise ArgumentError("lengths, batch and heads are ints")
    if min(queries, keys) < 0 or min(batch, heads, kv_heads, rows, columns) < 1:
        raise ArgumentError("lengths are at least 0; batch, heads and tile sizes at least 1")
    if heads % kv_heads:
        raise ArgumentError(f"{heads} heads are not a multiple of the {kv_heads} heads of key and value")


def recount(plan: Plan, tile: tuple[int, int]) -> tuple[int, int]:
    """How many tiles would be FULL and PARTIAL with another tile."""
    full, partial = (
        _count(plan.loops.forward, kind, plan._values, plan.queries, tile, (plan.batch, plan.heads))
        for kind in (TileKind.FULL, TileKind.PARTIAL)
    )
    return full, partial


def in_positions(expr: Expr) -> Expr:
    """The lowered expression with `q` again for the row counted from the offset: for people."""
    row = Coord("row")
    offsets = (Param("q_offset", Sort.INT), Load("q_offset", (Coord("b"),), Sort.INT))
    return substitute(expr, {call("add", *p): Coord("q") for o in offsets for p in ((row, o), (o, row))})


def visits(masks: tuple[Expr, ...], axis: Axis, own_end: Expr, environment: Environment) -> Visits:
    """What is visited along one axis. `own_end` is the length of the axis that programs own."""
    environment = replace(environment, order=(*environment.order, (axis.last, own_end, 1)))
    algebra = PieceAlgebra(environment, axis.end)
    regions: dict[bool, list[Pieces]] = {True: [], False: []}
    reasons = []
    for mask in masks:
        solver = Solver(axis, environment)
        live_here, full_here = solver.live((mask,)), solver.full((mask,))
        reasons.append(_reason(mask, solver, live_here != algebra.everything, bool(full_here)))
        regions[True].append(live_here)
        regions[False].append(full_here)
    solver = Solver(axis, environment)
    live_pieces, full_pieces = (solver.both(regions[possible], possible=possible) for possible in (True, False))
    live = ranges_of(live_pieces, algebra, Size("tile"))
    full = ranges_of(full_pieces, algebra)
    return Visits(
        segments=segments_of(live, full, algebra),
        method="everything" if live_pieces == algebra.everything and not full_pieces else "closed form",
        reasons=tuple(reasons) or ("there is no mask, so every pair is live",),
        live=live,
        full=full,
    )


def _reason(mask: Expr, solver: Solver, bounded: bool, fills: bool) -> str:
    """A sentence on what one mask clause came to."""
    text = f"`{print_expr(in_positions(mask))}`"
    if not solver.unsolved:
        return f"{text} is solved for {solver.axis.loop} in closed form"
    because = "; ".join(
        f"{'it' if part is mask else f'`{print_expr(in_positions(part))}`'} {reason}"
        for part, reason in solver.unsolved.items()
    )
    if bounded:
        return f"{text} is solved for {solver.axis.loop} in part: {because}"
    if fills:
        return f"{text} makes tiles FULL but skips none: {because}"
    return f"{text} skips no tile and makes none FULL: {because}"


_MOST_ROWS = 2**22  # above this, counting live pairs row by row is no longer cheap


def _coordinates(batch: int, heads: int) -> dict[str, NDArray[np.int64]]:
    import numpy as np

    return {"b": np.arange(batch)[:, None, None], "h": np.arange(heads)[None, :, None]}


def _with_tiles(
    values: Values, length: int, tile: tuple[int, int], batch: slice = slice(None), head: slice = slice(None)
) -> Values:
    """With the tiles of the owned axis along the last dimension: `first` and `last` of each."""
    import numpy as np

    first = np.arange(0, length, tile[0])
    last = np.minimum(first + tile[0], length) - 1
    found = {
        "b": values.coordinates["b"][batch],
        "h": values.coordinates["h"][:, head],
        "first": first[None, None, :],
        "last": last[None, None, :],
    }
    return replace(values, sizes={**values.sizes, "tile": tile[1]}, coordinates=found)


def _count(
    visited: Visits, kind: TileKind, values: Values, length: int, tile: tuple[int, int], programs: tuple[int, int]
) -> int:
    """How many tiles the loops of all programs visit in segments of a kind."""
    import numpy as np

    values = _with_tiles(values, length, tile)
    shape = (*programs, values.coordinates["first"].size)
    segments = [s for s in visited.segments if s.kind is kind]
    ends = evaluate_all([e for s in segments for e in (s.start, s.stop)], values)
    counts = [-(np.minimum(a - b, 0) // tile[1]) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    return sum(_total(c, shape) for c in counts)


def _total(array: NDArray[Any], shape: tuple[int, ...]) -> int:
    """The sum over the array broadcast to a shape, without making it that large."""
    repeats = math.prod(shape) // max(array.size, 1) if array.size else 0
    return int(array.sum()) * repeats


def _extents(ranges: tuple[Range, ...], values: Values, rows: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Start and stop of each range for every tile of one batch entry and head."""
    import numpy as np

    ends = evaluate_all([e for run in ranges for e in (run.start, run.stop)], values)
    flat = [np.broadcast_to(np.asarray(e), (1, 1, rows)).reshape(rows) for e in ends]
    return list(zip(flat[::2], flat[1::2], strict=True))
