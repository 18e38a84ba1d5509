"""Grid coordinates and positions as arithmetic on rows and keys, against a plain enumeration of the tokens."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation import evaluate

from attncc.ir.expr import Coord, Expr, Load, Param, Size, Sort, postorder
from attncc.ir.intrinsics import call
from attncc.ir.printer import print_expr
from attncc.ir.spec import Clause, Grid, Spec
from attncc.ir.traversal import expressions_of
from attncc.ir.verify import verify
from attncc.passes.coords import lower_coords
from attncc.passes.simplify import simplify_expr

ROW, K = Coord("row"), Coord("k")


def lowered(expr: Expr, grid: Grid | None = None, **options: bool) -> Expr:
    """An int expression through the pass, inside a mask."""
    spec = Spec("test", grid=grid, masks=(Clause(call("ge", expr, Param("w", Sort.INT))),))
    result = lower_coords(spec, **options).masks[0].expr
    return simplify_expr(result).args[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (Coord("q"), "row + q_offset"),
        (Coord("row"), "row"),
        (Coord("h_kv"), "h // (heads // kv_heads)"),
        (call("sub", Coord("q"), K), "row + q_offset - k"),
        (Load("doc", (Coord("b"), Coord("q")), Sort.INT), "doc[b, row + q_offset]"),
    ],
)
def test_positions(expr: Expr, text: str) -> None:
    assert print_expr(lowered(expr)) == text


def test_an_offset_for_each_batch_element() -> None:
    assert print_expr(lowered(Coord("q"), offset_per_batch=True)) == "row + q_offset[b]"


def test_sizes_tell_the_grids_apart() -> None:
    grid = Grid(("y", "x"), ("v", "u"))
    assert lowered(Size("q.y"), grid) is Size("queries.y")
    assert lowered(Size("k.u"), grid) is Size("keys.u")


@pytest.mark.parametrize("lengths", [(5,), (3, 4), (2, 3, 4), (1, 1)], ids=str)
@pytest.mark.parametrize(("prefix", "suffix"), [(0, 0), (2, 3)])
@pytest.mark.parametrize("side", ["q", "k"])
def test_coordinates_are_row_major_between_prefix_and_suffix(
    side: str, prefix: int, suffix: int, lengths: tuple[int, ...]
) -> None:
    axes = ("z", "y", "x")[-len(lengths) :]
    grid = Grid(axes, ("t", "v", "u")[-len(lengths) :])
    names, full, place = (grid.queries, "queries", ROW) if side == "q" else (grid.keys, "keys", K)
    expected = np.full((len(lengths), prefix + np.prod(lengths) + suffix), -1)
    expected[:, prefix : prefix + np.prod(lengths)] = np.indices(lengths).reshape(len(lengths), -1)
    values: dict[Expr, np.ndarray] = {
        place: np.arange(expected.shape[1]),
        Size("prefix_tokens"): np.array(prefix),
        Size("suffix_tokens"): np.array(suffix),
    }
    values |= {Size(f"{full}.{name}"): np.array(n) for name, n in zip(names, lengths, strict=True)}
    for index, name in enumerate(names):
        found = evaluate(lowered(Coord(f"{side}.{name}"), grid), values)
        np.testing.assert_array_equal(found, expected[index])


def test_a_shared_grid_places_queries_by_position() -> None:
    shared = Grid(("y", "x"), ("y", "x"))
    assert Param("q_offset", Sort.INT) in set(postorder(lowered(Coord("q.x"), shared)))
    own = Grid(("y", "x"), ("v", "u"))
    assert Param("q_offset", Sort.INT) not in set(postorder(lowered(Coord("q.x"), own)))


def test_every_coordinate_is_gone() -> None:
    grid = Grid(("y", "x"), ("y", "x"))
    names = ("q", "h_kv", "q.y", "q.x", "k.y", "k.x")
    masks = tuple(Clause(call("lt", Coord(name), Size("q.y"))) for name in names)
    spec = Spec("test", grid=grid, masks=masks)
    verify(spec)
    result = lower_coords(spec)
    verify(result, lowered=True)
    assert {n.name for n in postorder(*expressions_of(result)) if isinstance(n, Coord)} == {"row", "k", "h"}
