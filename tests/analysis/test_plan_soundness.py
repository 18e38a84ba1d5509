"""No live pair in a skipped tile, no dead pair in a FULL one, no tile visited twice: against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from mask_strategies import BATCH, FLAG, HEADS, LOADS, PER_HEAD, PREFIX, WIDTH, WINDOW, B, Case, K, Q, cases, spec_of

from attncc.analysis.evaluation import Values, evaluate_all
from attncc.analysis.plan import TileKind, Visits, evaluate, plan_loops
from attncc.ir.expr import Load, Size, Sort, to_const
from attncc.ir.intrinsics import call

TILES = ((4, 8), (16, 16), (5, 3))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_random_masks(case: Case) -> None:
    check(case)


def n(value: int):
    return to_const(value)


CAUSAL = call("le", K, Q)
DISTANCE = call("sub", Q, K)
BAND = call("le", call("abs", DISTANCE), WINDOW)
NAMED = {
    "causal": CAUSAL,
    "sliding": call("and", CAUSAL, call("lt", DISTANCE, WINDOW)),
    "band": BAND,
    "prefix": call("or", CAUSAL, call("lt", K, PREFIX)),
    "window per head": call("and", CAUSAL, call("lt", DISTANCE, PER_HEAD)),
    "sinks and window": call("and", CAUSAL, call("or", call("lt", K, n(3)), call("lt", DISTANCE, WINDOW))),
    "global and band": call("or", call("or", call("lt", K, n(3)), call("lt", Q, n(3))), BAND),
    "chunks": call("eq", call("floordiv", Q, n(8)), call("floordiv", K, n(8))),
    "chunks of run-time size": call("eq", call("floordiv", Q, WIDTH), call("floordiv", K, WIDTH)),
    "halo": call(
        "and",
        call("le", call("sub", call("mul", call("floordiv", Q, n(4)), n(4)), n(2)), K),
        call("lt", K, call("add", call("mul", call("floordiv", Q, n(4)), n(4)), n(6))),
    ),
    "all but the diagonal": call("ne", Q, K),
    "outside a band": call("not", BAND),
    "odd distances": call("eq", call("mod", DISTANCE, n(2)), n(1)),
    "documents": call("eq", LOADS[0], LOADS[1]),
    "a flag": call("or", FLAG, CAUSAL),
    "prefix or global": call("or", call("or", CAUSAL, call("lt", K, PREFIX)), Load("seen", (B, K), Sort.BOOL)),
    "steep": call("le", call("mul", n(3), K), call("mul", n(2), Q)),
    "two far blocks": call("or", call("lt", K, n(4)), call("ge", K, call("sub", Size("keys"), n(4)))),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("offset", [0, 7, -5])
@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (37, 41), (1, 29), (33, 5)])
def test_named_masks(name: str, offset: int, queries: int, keys: int) -> None:
    rng = np.random.default_rng(0)
    case = Case(
        spec=spec_of(NAMED[name]),
        queries=queries,
        keys=keys,
        q_offset=offset,
        tile=(4, 4),
        params={"window": 6, "width": 5, "flag": False},
        inputs={
            "per_head": np.asarray([2, 2**63 - 1]),
            "prefix": np.asarray([0, 11]),
            "limit": rng.integers(0, 3, (BATCH, keys)),
            "seen": rng.random((BATCH, keys)) < 0.2,
        },
    )
    for tile in TILES:
        check(replace(case, tile=tile))


@pytest.mark.parametrize(
    "name", ["sliding", "band", "outside a band", "chunks of run-time size", "all but the diagonal"]
)
@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**62, 2**31, 2**28 + 1, 0, -1])
def test_huge_params_in_wide_mode(name: str, value: int) -> None:
    params = {"window": value, "width": value, "flag": False}
    check(Case(spec_of(NAMED[name]), 20, 23, 3, (4, 8), params, {}), wide=True)


@pytest.mark.parametrize("op", ["lt", "ge", "eq", "ne"])
@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), -(2**63) + 1, 2**62, 2**31 - 1, 2**28 + 1])
def test_huge_elements(op: str, value: int) -> None:
    inputs = {"per_head": np.asarray([value, 3])}
    params = {"window": 2, "width": 2, "flag": False}
    for position in (K, Q, DISTANCE, call("floordiv", K, n(3)), call("mul", n(5), K)):
        for tile in ((3, 3), (7, 4)):
            check(Case(spec_of(call(op, position, PER_HEAD)), 11, 10, 3, tile, params, inputs))


def check(case: Case, *, wide: bool = False) -> None:
    """Holds the plan of a case against its mask at every pair."""
    live = mask_of(case)
    loops = plan_loops(case.spec, wide=wide)
    plan = evaluate(case.spec, loops, tile=case.tile, **case.arguments)
    rows, columns = case.tile
    kinds = walk(loops.forward, case, case.queries, case.keys, rows, columns)
    assert (kinds == TileKind.PARTIAL.value).sum() + (kinds == TileKind.FULL.value).sum() == plan.tiles_visited
    assert (kinds == TileKind.FULL.value).sum() == plan.tiles_full
    assert plan.tiles_total == kinds.size
    _holds(kinds, live, rows, columns)
    _holds(walk(loops.transposed, case, case.keys, case.queries, columns, rows), live.swapaxes(2, 3), columns, rows)
    for b in range(BATCH):
        for h in range(HEADS):
            _holds(plan.tiles(b, h)[None, None], live[b : b + 1, h : h + 1], rows, columns)
    exact = plan.live_pairs()
    assert exact is None or exact == live.sum()


def mask_of(case: Case) -> np.ndarray:
    """Which pairs are live, bool `[batch, heads, queries, keys]`, by evaluating the mask at each."""
    coordinates = {
        "b": np.arange(BATCH)[:, None, None, None],
        "h": np.arange(HEADS)[None, :, None, None],
        "row": np.arange(case.queries)[None, None, :, None],
        "k": np.arange(case.keys)[None, None, None, :],
    }
    values = _values(case, coordinates)
    live = np.ones((BATCH, HEADS, case.queries, case.keys), dtype=bool)
    for mask in evaluate_all([c.expr for c in case.spec.masks], values):
        live &= mask
    return live


def walk(visits: Visits, case: Case, own: int, loop: int, own_tile: int, loop_tile: int) -> np.ndarray:
    """The kind of every tile as the loops meet it, int `[batch, heads, own tiles, loop tiles]`.

    Steps through the segments program by program as a kernel would, and fails on a tile met twice or off the grid.
    """
    programs, columns = -(-own // own_tile), -(-loop // loop_tile)
    kinds = np.zeros((BATCH, HEADS, programs, columns), dtype=int)
    ends = [e for s in visits.segments for e in (s.start, s.stop)]
    for b in range(BATCH):
        for h in range(HEADS):
            for p in range(programs):
                place = {"b": b, "h": h, "first": p * own_tile, "last": min((p + 1) * own_tile, own) - 1}
                values = _values(case, {name: np.asarray(x) for name, x in place.items()}, loop_tile)
                found = [int(x) for x in evaluate_all(ends, values)]
                reached = 0
                for segment, start, stop in zip(visits.segments, found[::2], found[1::2], strict=True):
                    if start >= stop:
                        continue
                    assert start % loop_tile == 0
                    assert reached <= start
                    assert stop <= loop
                    if segment.kind is TileKind.FULL:
                        assert (stop - start) % loop_tile == 0
                    for at in range(start, stop, loop_tile):
                        assert kinds[b, h, p, at // loop_tile] == 0
                        kinds[b, h, p, at // loop_tile] = segment.kind.value
                    reached = stop
    return kinds


def _values(case: Case, coordinates: dict[str, np.ndarray], tile: int = 1) -> Values:
    sizes = {"batch": BATCH, "heads": HEADS, "queries": case.queries, "keys": case.keys, "tile": tile}
    return Values(sizes, {**case.params, "q_offset": case.q_offset}, case.inputs, coordinates)


def _holds(kinds: np.ndarray, live: np.ndarray, own_tile: int, loop_tile: int) -> None:
    each = np.repeat(np.repeat(kinds, own_tile, axis=2), loop_tile, axis=3)[..., : live.shape[2], : live.shape[3]]
    assert not (live & (each == TileKind.EMPTY.value)).any(), "a live pair in a skipped tile"
    assert not (~live & (each == TileKind.FULL.value)).any(), "a dead pair in a FULL tile"
