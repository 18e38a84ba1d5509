"""Hypothesis strategies: scalars of each sort, typed expressions over given leaves, whole specs."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from hypothesis import strategies as st

from attncc.ir.expr import Call, Const, Coord, Expr, Listed, Load, Param, Scalar, Score, Size, Sort, children
from attncc.ir.intrinsics import INTRINSICS
from attncc.ir.spec import (
    Clause,
    Constant,
    Grid,
    Input,
    Parameter,
    RangeFact,
    Ratio,
    Require,
    Softmax,
    SortedFact,
    Spec,
    Table,
)

SMOOTH = frozenset({"neg", "add", "sub", "mul", "sin", "cos", "tanh", "sigmoid", "erf", "to_float", "where"})
"""Operations whose floats stay tame: no overflow, no nan, no ties."""

_INTS = st.one_of(
    st.integers(-3, 8),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, -1, 63, 64, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63)]),
)
_FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 0.1, math.inf, -math.inf, math.nan, 3e38, 1e-40]),
    st.floats(-8, 8, width=32),
    st.floats(width=32),
)


def scalars(sort: Sort) -> st.SearchStrategy[Scalar]:
    """Values of a sort, corners included; floats are float32 or a literal beyond it."""
    return {Sort.INT: _INTS, Sort.FLOAT: _FLOATS, Sort.BOOL: st.booleans()}[sort]


def literals(sort: Sort) -> st.SearchStrategy[Expr]:
    """Literals of a sort, mostly small."""
    small = {
        Sort.INT: st.integers(-3, 5),
        Sort.FLOAT: st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5, -0.25, 0.1]),
        Sort.BOOL: st.booleans(),
    }
    return st.builds(Const, st.one_of(small[sort], scalars(sort)), st.just(sort))


@st.composite
def expressions(
    draw: st.DrawFn,
    sort: Sort,
    leaves: Sequence[Expr],
    max_depth: int = 4,
    operations: Collection[str] | None = None,
) -> Expr:
    """A well-typed expression of the sort over the leaves and literals, its sub-expressions often shared.

    `operations` are the names to build from, all by default.
    """
    signatures = [
        (name, operands, result)
        for name, record in INTRINSICS.items()
        if operations is None or name in operations
        for operands, result in record.signatures
    ]
    pools: dict[Sort, list[Expr]] = {s: [leaf for leaf in leaves if leaf.sort is s] for s in Sort}
    for s in Sort:
        pools[s].append(draw(literals(s)))
    depths: dict[Expr, int] = {}

    def grow(name: str, operands: tuple[Sort, ...], result: Sort) -> Expr:
        args = []
        for index, s in enumerate(operands):
            if name == "pow" and result is Sort.INT and index == 1:
                args.append(Const(draw(st.integers(0, 5)), Sort.INT))
            else:
                args.append(draw(st.sampled_from(pools[s])))
        return Call(name, tuple(args), result)

    for _ in range(draw(st.integers(0, 2 * max_depth))):
        node = grow(*draw(st.sampled_from(signatures)))
        depths[node] = 1 + max(depths.get(c, 0) for c in children(node))
        if depths[node] < max_depth:
            pools[node.sort].append(node)
    of_sort = [signature for signature in signatures if signature[2] is sort]
    return grow(*draw(st.sampled_from(of_sort))) if of_sort else draw(st.sampled_from(pools[sort]))


SCALAR_LEAVES: tuple[Expr, ...] = (Size("keys"), Size("heads"), Param("w", Sort.INT), Param("n", Sort.INT))
PAIR_LEAVES: tuple[Expr, ...] = (
    *SCALAR_LEAVES,
    *(Coord(name) for name in ("b", "h", "h_kv", "q", "k", "row")),
    Param("temperature", Sort.FLOAT),
    Param("on", Sort.BOOL),
    Load("doc", (Coord("b"), Coord("k")), Sort.INT),
    Load("flag", (Coord("q"),), Sort.BOOL),
    Load("bias", (Coord("h"), Coord("k")), Sort.FLOAT),
)
GRID_LEAVES: tuple[Expr, ...] = (Coord("q.y"), Coord("k.y"), Coord("q.x"), Coord("k.x"), Size("q.y"), Size("k.x"))


@st.composite
def specs(draw: st.DrawFn, max_depth: int = 3) -> Spec:
    """A whole valid spec: every kind of statement, names and texts that need escaping."""

    def clause(sort: Sort, *more: Expr, without: Collection[str] = ()) -> Clause:
        kept = [e for e in (*leaves, *more) if not any(isinstance(n, Coord) and n.name in without for n in _below(e))]
        return Clause(draw(expressions(sort, kept, max_depth)))

    def clauses(sort: Sort, *more: Expr) -> tuple[Clause, ...]:
        return tuple(clause(sort, *more) for _ in range(draw(st.integers(0, 2))))

    def scalar(sort: Sort) -> Expr:
        return draw(expressions(sort, SCALAR_LEAVES, 2))

    grid = draw(st.sampled_from([None, Grid(("y", "x"), ("y", "x")), Grid(("y", "x"), ("x", "y"))]))
    tables = draw(st.sampled_from([(), (_TABLE,)]))
    leaves = (*PAIR_LEAVES, *(GRID_LEAVES if grid else ()))
    listed = tuple(Listed(t.name) for t in tables)
    key_coords = ("k", "k.y", "k.x")
    weights: Softmax | Ratio = Softmax(
        tuple(clause(Sort.FLOAT, without=key_coords) for _ in range(draw(st.integers(0, 2))))
    )
    if draw(st.booleans()):
        below = draw(st.sampled_from([None, clause(Sort.FLOAT, without=key_coords)]))
        weights = Ratio(clause(Sort.FLOAT, Score()), below)
    range_fact = RangeFact(scalar(Sort.INT), scalar(Sort.INT))
    return Spec(
        name=draw(st.text(max_size=8)),
        constants=(Constant("n", Sort.INT, draw(st.integers(-3, 9))),),
        params=(
            Parameter("w", Sort.INT, draw(st.none() | _INTS)),
            Parameter("temperature", Sort.FLOAT, draw(st.none() | _FLOATS.filter(lambda v: not math.isnan(v)))),
            Parameter("on", Sort.BOOL, draw(st.none() | st.booleans())),
        ),
        inputs=(
            Input("doc", Sort.INT, (Size("batch"), Size("keys")), facts=(SortedFact(1), range_fact)),
            Input("flag", Sort.BOOL, (scalar(Sort.INT),)),
            Input("bias", Sort.FLOAT, (Size("heads"), Size("keys")), learnable=draw(st.booleans())),
        ),
        extents=("top",),
        grid=grid,
        tables=tables,
        requires=tuple(Require(scalar(Sort.BOOL), draw(st.text())) for _ in range(draw(st.integers(0, 2)))),
        masks=clauses(Sort.BOOL, *listed),
        scores=clauses(Sort.FLOAT, Score(), *listed),
        weights=weights,
        reweight=draw(st.sampled_from([None, clause(Sort.FLOAT)])),
        outputs=draw(st.sampled_from([(), ("lse",), ("row_max", "entropy")])),
        scale=draw(st.sampled_from([None, scalar(Sort.FLOAT)])),
    )


_TABLE = Table(
    "blocks", (Size("batch"), Size("query_blocks"), Size("top")), (Const(64, Sort.INT),), (Const(32, Sort.INT),)
)


def _below(expr: Expr) -> list[Expr]:
    return [expr, *(n for child in children(expr) for n in _below(child))]
