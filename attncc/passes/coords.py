"""Turns positions into what kernels have: `b h row k`, sizes, and the offset of the queries.

Tokens lie as `prefix_tokens` off the grid, then the grid row-major, then `suffix_tokens` off the grid. With one grid,
queries and keys share it and a query's place on it is its position `q`; a query grid of its own counts rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from attncc.ir.expr import Const, Coord, Expr, Load, Param, Size, Sort, postorder, substitute
from attncc.ir.intrinsics import call
from attncc.ir.spec import Grid, Spec
from attncc.ir.traversal import expressions_of, map_expressions


def lower_coords(spec: Spec, *, offset_per_batch: bool = False) -> Spec:
    """The spec without grid coordinates, `q` or `h_kv`.

    `q` becomes `row + q_offset`: a run-time int, or with `offset_per_batch` an element of `int[batch]`.
    `len(q.y)` and `len(k.x)` become the sizes `queries.y` and `keys.x`.
    """
    offset: Expr = Load("q_offset", (Coord("b"),), Sort.INT) if offset_per_batch else Param("q_offset", Sort.INT)
    position = call("add", Coord("row"), offset)
    replacements: dict[Expr, Expr] = {
        Coord("q"): position,
        Coord("h_kv"): call("floordiv", Coord("h"), call("floordiv", Size("heads"), Size("kv_heads"))),
    }
    if spec.grid is not None:
        replacements |= _grid_replacements(spec.grid, position)
    present = set(postorder(*expressions_of(spec)))
    used = {node: by for node, by in replacements.items() if node in present}
    return map_expressions(spec, lambda e: substitute(e, used))


def has_shared_grid(grid: Grid) -> bool:
    """Whether queries and keys lie on one grid, so that positions on it are comparable."""
    return grid.queries == grid.keys


def _grid_replacements(grid: Grid, position: Expr) -> dict[Expr, Expr]:
    replacements: dict[Expr, Expr] = {}
    query_place = position if has_shared_grid(grid) else Coord("row")
    for side, short, axes, place in (("queries", "q", grid.queries, query_place), ("keys", "k", grid.keys, Coord("k"))):
        lengths = [Size(f"{side}.{axis}") for axis in axes]
        for axis, length, coordinate in zip(axes, lengths, _coordinates(place, lengths), strict=True):
            replacements[Size(f"{short}.{axis}")] = length
            replacements[Coord(f"{short}.{axis}")] = coordinate
    return replacements


def _coordinates(place: Expr, lengths: Sequence[Expr]) -> list[Expr]:
    """The row-major coordinates of a token's place, -1 off the grid."""
    zero, off_grid = Const(0, Sort.INT), Const(-1, Sort.INT)
    index = call("sub", place, Size("prefix_tokens"))
    total = lengths[0]
    for length in lengths[1:]:
        total = call("mul", total, length)
    on_grid = call("and", call("ge", index, zero), call("lt", index, total))
    # Never negative where it is divided, so that no flooring is needed; off the grid its value is not used.
    left = index if len(lengths) == 1 else call("max", index, zero)
    found: list[Expr] = []
    for length in reversed(lengths[1:]):
        found.insert(0, call("mod", left, length))
        left = call("floordiv", left, length)
    found.insert(0, left)
    return [call("where", on_grid, coordinate, off_grid) for coordinate in found]
