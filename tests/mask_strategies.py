"""Random lowered masks and the sizes, params and inputs to try them at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from attncc.ir.expr import Coord, Expr, Load, Param, Size, Sort, to_const
from attncc.ir.intrinsics import call
from attncc.ir.spec import Clause, Input, Parameter, Spec

ROW, K, B, H = (Coord(n) for n in ("row", "k", "b", "h"))
Q = call("add", ROW, Param("q_offset", Sort.INT))
WINDOW, WIDTH, FLAG = Param("window", Sort.INT), Param("width", Sort.INT), Param("flag", Sort.BOOL)
PER_HEAD = Load("per_head", (H,), Sort.INT)
PREFIX = Load("prefix", (B,), Sort.INT)
LOADS = (
    Load("limit", (B, K), Sort.INT),
    Load("limit", (B, Q), Sort.INT),
    Load("limit", (B, call("sub", Q, K)), Sort.INT),
)
BATCH, HEADS = 2, 2


@dataclass(frozen=True)
class Case:
    """A lowered spec with everything its plan and its mask are evaluated with."""

    spec: Spec
    queries: int
    keys: int
    q_offset: int
    tile: tuple[int, int]
    params: dict[str, Any]
    inputs: dict[str, np.ndarray]

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "queries": self.queries,
            "keys": self.keys,
            "batch": BATCH,
            "heads": HEADS,
            "q_offset": self.q_offset,
            "params": self.params,
            "inputs": self.inputs,
        }


def spec_of(*masks: Expr, requires: tuple[Any, ...] = ()) -> Spec:
    """A spec with these masks over the leaves of this file."""
    size = Size
    return Spec(
        "random",
        params=(
            Parameter("window", Sort.INT, 4),
            Parameter("width", Sort.INT, 3),
            Parameter("flag", Sort.BOOL, False),
        ),
        inputs=(
            Input("per_head", Sort.INT, (size("heads"),)),
            Input("prefix", Sort.INT, (size("batch"),)),
            Input("limit", Sort.INT, (size("batch"), size("keys"))),
            Input("seen", Sort.BOOL, (size("batch"), size("keys"))),
        ),
        requires=requires,
        masks=tuple(Clause(m) for m in masks),
    )


small = st.integers(-6, 12).map(to_const)
constants = st.one_of(small, st.integers(-40, 40).map(to_const))
free = st.one_of(
    constants,
    st.sampled_from([WINDOW, WIDTH, PER_HEAD, PREFIX, Size("keys"), Size("queries"), H, Param("q_offset", Sort.INT)]),
)
positions = st.sampled_from([Q, Q, K, K, ROW, call("sub", Q, K), call("sub", K, Q)])


def _int_layer(below: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    def binary(*ops: str) -> st.SearchStrategy[Expr]:
        return st.builds(call, st.sampled_from(ops), below, below)

    divisors = st.one_of(st.integers(-3, 7).map(to_const), st.sampled_from([WIDTH, WINDOW, PER_HEAD]))
    return st.one_of(
        binary("add", "sub", "min", "max"),
        st.builds(call, st.just("floordiv"), below, divisors),
        st.builds(call, st.just("mod"), below, divisors),
        st.builds(call, st.just("mul"), st.one_of(st.integers(-3, 4).map(to_const), st.just(WIDTH)), below),
        st.builds(call, st.sampled_from(["abs", "neg", "sign"]), below),
        st.builds(call, st.just("clamp"), below, free, free),
        st.builds(lambda c, a, b: call("where", c, a, b), comparisons(below), below, below),
    )


def comparisons(ints: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    """Two ints compared."""
    return st.builds(call, st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]), ints, ints)


ints = st.recursive(st.one_of(positions, positions, free, st.sampled_from(LOADS)), _int_layer, max_leaves=5)

# What people write, so that most random masks are partly sparse.
usual = st.one_of(
    st.just(call("le", K, Q)),
    st.builds(lambda w: call("lt", call("sub", Q, K), w), free),
    st.builds(lambda w: call("le", call("abs", call("sub", Q, K)), w), free),
    st.builds(lambda n: call("lt", K, n), free),
    st.builds(lambda n: call("lt", Q, n), free),
    st.builds(lambda c: call("eq", call("floordiv", Q, c), call("floordiv", K, c)), free),
    st.builds(lambda d: call("eq", call("mod", call("sub", Q, K), d), to_const(0)), free),
    st.just(call("eq", LOADS[0], LOADS[1])),
    st.just(Load("seen", (B, K), Sort.BOOL)),
    st.just(FLAG),
    st.just(call("gt", call("to_float", call("sub", Q, K)), call("to_float", WINDOW))),
)


def _bool_layer(below: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(call, st.sampled_from(["and", "or", "and", "or", "eq", "ne"]), below, below),
        st.builds(call, st.just("not"), below),
        st.builds(lambda c, a, b: call("where", c, a, b), below, below, below),
    )


masks = st.recursive(st.one_of(usual, usual, comparisons(ints)), _bool_layer, max_leaves=4)


@st.composite
def cases(draw: st.DrawFn, mask: st.SearchStrategy[Expr] = masks) -> Case:
    """A random mask at random sizes that divide nothing in particular."""
    keys = draw(st.integers(1, 40))
    values = st.integers(-10, 30)
    huge = st.sampled_from([2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 2**40])
    limits = draw(st.lists(st.one_of(values, values, huge), min_size=BATCH, max_size=BATCH))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return Case(
        spec=spec_of(*draw(st.lists(mask, min_size=1, max_size=2))),
        queries=draw(st.integers(1, 40)),
        keys=keys,
        q_offset=draw(st.one_of(st.just(0), st.integers(-20, 40))),
        tile=draw(st.tuples(st.sampled_from([1, 2, 3, 4, 7, 8, 16, 64]), st.sampled_from([1, 2, 4, 5, 8, 16, 64]))),
        params={"window": draw(values), "width": draw(st.integers(-3, 12)), "flag": draw(st.booleans())},
        inputs={
            "per_head": np.asarray(limits),
            "prefix": np.asarray(draw(st.lists(values, min_size=BATCH, max_size=BATCH))),
            "limit": rng.integers(-5, 45, (BATCH, keys)),
            "seen": rng.random((BATCH, keys)) < 0.2,
        },
    )
