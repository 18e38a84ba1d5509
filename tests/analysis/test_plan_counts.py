"""Masks whose exact answer is known: the counts, which tiles, and what is said about them."""

from __future__ import annotations

import numpy as np
import pytest

from attncc.analysis.plan import Plan, evaluate, plan_loops
from attncc.errors import ArgumentError
from attncc.grammar.frontend import loads_specs
from attncc.passes.pipeline import lower


def plan_of(body: str, **arguments) -> Plan:
    (spec,) = loads_specs(f"attention example\n{body}\n").specs.values()
    lowered = lower(spec)
    return evaluate(lowered, plan_loops(lowered), **arguments)


SLIDING = "  param window: int = 256\n  mask k <= q and q - k < window"
SINKS = "  mask k <= q and (k < 4 or q - k < 512)"

# body, queries, tile, total, visited, partial
COUNTS = [
    ("", 1024, (128, 128), 64, 64, 0),
    ("  mask k <= q", 1024, (128, 128), 64, 36, 8),
    ("  mask causal()", 65536, (128, 128), 262144, 131328, 512),
    ("  mask k < q", 1024, (128, 128), 64, 36, 8),
    (SLIDING, 2048, (128, 128), 256, 45, 30),
    (SLIDING, 2048, (64, 32), 2048, 300, 120),
    ("  mask abs(q - k) <= 128", 1024, (128, 128), 64, 22, 14),
    ("  mask abs(q - k) <= 255", 1024, (64, 64), 256, 124, 24),
    ("  mask q // 64 == k // 64", 1024, (64, 64), 256, 16, 0),
    ("  mask q // 64 == k // 64", 1024, (128, 128), 64, 8, 8),
    ("  mask q // 512 == k // 512 and k <= q", 1024, (128, 128), 64, 20, 8),
    (SINKS, 2048, (128, 128), 256, 81, 39),
    ("  mask k <= q or k < 300", 1024, (128, 128), 64, 39, 8),
    ("  mask neighborhood(q, k, keys, 2048)", 32768, (128, 128), 65536, 4336, 480),
    ("  mask neighborhood(q, k, keys, 2048, stride=256)", 32768, (128, 128), 65536, 4096, 0),
    ("  mask k > q + 5000", 1024, (128, 128), 64, 0, 0),
    ("  mask false", 1024, (128, 128), 64, 0, 0),
]


@pytest.mark.parametrize(("body", "queries", "tile", "total", "visited", "partial"), COUNTS)
def test_counts(body: str, queries: int, tile: tuple[int, int], total: int, visited: int, partial: int) -> None:
    plan = plan_of(body, queries=queries, tile=tile)
    assert (plan.tiles_total, plan.tiles_visited, plan.tiles_partial) == (total, visited, partial)
    assert plan.tiles_full == visited - partial


@pytest.mark.parametrize("body", [body for body, queries, *_ in COUNTS if queries <= 2048])
@pytest.mark.parametrize("sizes", [(300, 300, 0), (200, 333, 133), (257, 70, -40)])
@pytest.mark.parametrize("tile", [(64, 64), (32, 48), (100, 7)])
def test_tiles_are_exactly_those_of_brute_force(body: str, sizes: tuple[int, int, int], tile: tuple[int, int]) -> None:
    queries, keys, offset = sizes
    plan = plan_of(body, queries=queries, keys=keys, q_offset=offset, tile=tile)
    every = plan_of(body, queries=queries, keys=keys, q_offset=offset, tile=(1, 1))
    # Tiles of one pair are decided pair by pair; elsewhere these are held against the mask itself.
    pairs = every.tiles() > 0
    rows, columns = plan.tiles().shape
    for i in range(rows):
        for j in range(columns):
            part = pairs[i * tile[0] : (i + 1) * tile[0], j * tile[1] : (j + 1) * tile[1]]
            assert plan.tiles()[i, j] == (2 if part.all() else 1 if part.any() else 0)


def test_counts_cover_all_heads_and_batch_entries() -> None:
    body = "  input window: int[heads]\n  mask k <= q and q - k < window[h]"
    inputs = {"window": np.asarray([1, 256])}
    plan = plan_of(body, queries=512, heads=2, batch=3, inputs=inputs)
    narrow, wide = ((plan.tiles(2, h) > 0).sum() for h in range(2))
    assert (narrow, wide) == (4, 9)
    assert plan.tiles_visited == 3 * (narrow + wide)
    assert plan.tiles_total == 3 * 2 * 16


def test_a_prefix_per_batch_entry() -> None:
    body = "  input prefix: int[batch] in 0 .. keys + 1\n  mask k <= q or k < prefix[b]"
    plan = plan_of(body, queries=512, batch=2, inputs={"prefix": np.asarray([0, 512])})
    assert (plan.tiles(0) > 0).sum() == 10
    assert (plan.tiles(1) == 2).all()


def test_an_offset_per_batch_entry() -> None:
    (spec,) = loads_specs("attention example\n  mask k <= q\n").specs.values()
    lowered = lower(spec, offset_per_batch=True)
    offsets = np.asarray([0, 256])
    plan = evaluate(lowered, plan_loops(lowered), queries=128, keys=512, batch=2, q_offset=offsets)
    assert [list(plan.tiles(b)[0]) for b in range(2)] == [[1, 0, 0, 0], [2, 2, 1, 0]]


def test_documents_are_partial_below_the_diagonal() -> None:
    plan = plan_of("  input doc: int[batch, keys]\n  mask k <= q and doc[b, q] == doc[b, k]", queries=1024)
    assert (plan.tiles_visited, plan.tiles_full) == (36, 0)
    assert "`doc[b, q] == doc[b, k]` reads doc at positions" in plan.describe()


@pytest.mark.parametrize(
    ("body", "ranges"),
    [
        ("", ["k in [0, keys - 1]"]),
        (SLIDING, ["k in [max(0, q - window + 1), q]"]),
        ("  mask q // 64 == k // 64", ["k in [max(0, 64 * (q // 64)), 64 * (q // 64) + 63]"]),
        (SINKS, ["k in [0, min(3, q)] or [max(0, q - 511), q]"]),
        ("  input doc: int[batch, keys]\n  mask doc[b, q] == doc[b, k]", ["k at most in [0, keys - 1]"]),
        (
            "  input seen: bool[batch, keys]\n  mask k <= q or seen[b, k]",
            ["k at most in [0, keys - 1]", "surely live: k in [0, q]"],
        ),
        ("  mask row < 4", ["k in [0, keys - 1] if row <= 3"]),
    ],
)
def test_key_ranges_are_said_in_the_specs_own_names(body: str, ranges: list[str]) -> None:
    assert plan_of(body, queries=128).to_json()["key_ranges"] == ranges


def test_json_carries_what_the_text_does() -> None:
    found = plan_of(SLIDING, queries=2048).to_json()
    assert {k: found[k] for k in ("tiles_total", "tiles_full", "tiles_partial", "tiles_visited", "method")} == {
        "tiles_total": 256,
        "tiles_full": 15,
        "tiles_partial": 30,
        "tiles_visited": 45,
        "method": "closed form",
    }
    assert found["visited_fraction"] == 45 / 256
    assert found["live_fraction"] == pytest.approx((2048 * 256 - 256 * 255 / 2) / 2048**2)
    assert found["reasons"] == ["`k <= q and q - k < window` is solved for k in closed form"]


@pytest.mark.parametrize(
    ("body", "method"),
    [
        ("", "closed form"),
        ("  mask k <= q", "closed form"),
        ("  input doc: int[batch, keys]\n  mask doc[b, q] == doc[b, k]", "everything"),
        ("  param w: float = 2.0\n  mask q - k < w", "everything"),
    ],
)
def test_method(body: str, method: str) -> None:
    assert plan_of(body, queries=128).to_json()["method"] == method


def test_a_tile_that_would_make_everything_full_is_named() -> None:
    hints = plan_of("  mask q // 64 == k // 64", queries=1024).to_json()["hints"]
    assert hints == ["with tiles of 64 x 64 every visited tile would be FULL"]


def test_the_bounds_of_a_window_from_an_input_need_its_values() -> None:
    with pytest.raises(ArgumentError, match="the plan needs the tensor for the input 'window'"):
        plan_of("  input window: int[heads]\n  mask q - k < window[h]", queries=128)


def test_tiles_of_a_head_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        plan_of("", queries=128).tiles(head=1)


def test_a_param_beyond_what_narrow_kernels_take_is_planned_wide() -> None:
    plan = plan_of(SLIDING, queries=512, params={"window": 2**63 - 1})
    assert (plan.tiles() >= np.tril(np.ones((4, 4)))).all()
