"""Plausible random inputs for a spec, made up from its declarations, for `verify`, `explain` and `plot`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attncc.analysis.evaluation import Values, evaluate_all
from attncc.errors import ArgumentError
from attncc.ir.expr import Call, Expr, Load, Scalar, Sort, contains, coordinates, postorder
from attncc.ir.printer import print_expr
from attncc.ir.spec import Input, RangeFact, SortedFact, Spec, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST = 2**28
"""Elements. Whoever needs a larger input has one of their own."""

_NAMED_EXTENT = 4
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_LOOKED_AT = 64  # values of a coordinate, its ends among them, that tell what an int is compared with


@dataclass(frozen=True, slots=True)
class Problem:
    """The sizes of a call that nobody made: query `[batch, heads, queries, dim]`, keys and values likewise.

    `grid` is a call's `grid=`; `scalars` are values of constants and params that the spec does not default, or that
    replace its defaults.
    """

    queries: int
    keys: int
    batch: int = 1
    heads: int = 1
    kv_heads: int = 1
    dim: int = 64
    q_offset: int = 0
    grid: tuple[int, ...] | None = None
    scalars: Mapping[str, Scalar] = field(default_factory=dict)


def sample_inputs(spec: Spec, problem: Problem, *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """An array for every input and table of a checked spec, by name.

    Floats are normal. A bool is true one time in eight, so that both sides of an `or` decide something. Ints are
    uniform in their declared range; without one, in the range of what they are compared with, else in 0 .. 8. What is
    declared sorted is; without a range it counts runs, as packed documents do. Named extents are 4. Raises
    ArgumentError for a param without a value and for an input larger than `LARGEST`.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    values = _values(spec, problem)
    found: dict[str, NDArray[Any]] = {}
    for declared in spec.inputs:
        shape = _shape(declared.name, declared.extents, values)
        found[declared.name] = _draw(spec, declared, shape, values, generator)
    for table in spec.tables:
        found[table.name] = _draw_table(table, values, generator)
    return found


def _values(spec: Spec, problem: Problem) -> Values:
    scalars: dict[str, Scalar] = {c.name: c.value for c in spec.constants}
    scalars |= {p.name: p.default for p in spec.params if p.default is not None}
    scalars |= problem.scalars
    sizes = {
        "batch": problem.batch,
        "heads": problem.heads,
        "kv_heads": problem.kv_heads,
        "queries": problem.queries,
        "keys": problem.keys,
        "dim": problem.dim,
        "prefix_tokens": 0,
        "suffix_tokens": 0,
    }
    sizes |= dict.fromkeys(spec.extents, _NAMED_EXTENT)
    sizes |= _grid_sizes(spec, problem)
    return Values(sizes, scalars, coordinates=_some_coordinates(spec, sizes, problem.q_offset))


def _grid_sizes(spec: Spec, problem: Problem) -> dict[str, int]:
    if spec.grid is None or problem.grid is None:
        return {}
    named: dict[str, int] = {}
    for side, short, axes in (("queries", "q", spec.grid.queries), ("keys", "k", spec.grid.keys)):
        for axis, length in zip(axes, problem.grid, strict=False):
            named |= {f"{side}.{axis}": length, f"{short}.{axis}": length, axis: length}
    return named


def _some_coordinates(spec: Spec, sizes: Mapping[str, int], q_offset: int) -> dict[str, NDArray[np.int64]]:
    """A few values of every coordinate, each along an axis of its own."""
    import numpy as np

    lengths = {"b": sizes["batch"], "h": sizes["heads"], "h_kv": sizes["kv_heads"], "k": sizes["keys"]}
    lengths |= {"row": sizes["queries"], "q": sizes["queries"]}
    lengths |= {name: length for name, length in sizes.items() if name.startswith(("q.", "k."))}
    found = {}
    for i, (name, length) in enumerate(lengths.items()):
        some = np.unique(np.linspace(0, max(length - 1, 0), _LOOKED_AT).astype(np.int64))
        found[name] = (some + (q_offset if name == "q" else 0)).reshape(*[1] * i, -1, *[1] * (len(lengths) - 1 - i))
    return found


def _shape(name: str, extents: tuple[Expr, ...], values: Values) -> tuple[int, ...]:
    import numpy as np

    shape = tuple(int(n) for n in evaluate_all(extents, values))
    if any(n < 0 for n in shape):
        text = ", ".join(print_expr(e) for e in extents)
        raise ArgumentError(f"the extents [{text}] of '{name}' come to {list(shape)} here: a length is negative")
    if np.prod(shape, dtype=float) > LARGEST:
        raise ArgumentError(f"'{name}' would have shape {list(shape)}: too large to be made up; choose smaller sizes")
    return shape


def _draw(
    spec: Spec, declared: Input, shape: tuple[int, ...], values: Values, generator: np.random.Generator
) -> NDArray[Any]:
    import numpy as np

    sorted_along = [fact.axis for fact in declared.facts if isinstance(fact, SortedFact)]
    match declared.sort:
        case Sort.BOOL:
            return generator.random(shape) < 0.125
        case Sort.FLOAT:
            # What is learned is small beside the scores it joins; large slopes would spend float32 on cancellation.
            size = 0.1 if declared.learnable else 1.0
            drawn: NDArray[Any] = (size * generator.standard_normal(shape)).astype(np.float32)
        case Sort.INT:
            bounds = _bounds(spec, declared, values)
            if bounds is None and sorted_along:
                return _runs(shape, sorted_along[0], generator)
            low, high = bounds or (0, 8)
            drawn = generator.integers(low, max(high, low + 1), shape)
    for axis in sorted_along:
        drawn = np.sort(drawn, axis=axis)
    return drawn


def _bounds(spec: Spec, declared: Input, values: Values) -> tuple[int, int] | None:
    """From where up to below where an int input ranges; None where nothing tells."""
    for fact in declared.facts:
        if isinstance(fact, RangeFact):
            low, high = evaluate_all((fact.low, fact.high), values)
            return int(low), int(high)
    others = [other for other in _compared_with(spec, declared.name) if not contains(other, Load)]
    lows, highs = [], []
    for other in others:
        if other.sort is not Sort.INT or not coordinates((other,)) - {"b", "h", "h_kv"}:
            continue
        [array] = evaluate_all((other,), values)
        if array.size:
            lows.append(int(array.min()))
            highs.append(int(array.max()) + 1)
    return (min(lows), max(highs)) if lows else None


def _compared_with(spec: Spec, name: str) -> Iterator[Expr]:
    for node in postorder(*(clause.expr for clause in spec.clauses)):
        match node:
            case Call(op=op, args=(left, right)) if op in _COMPARISONS:
                if isinstance(left, Load) and left.input == name:
                    yield right
                if isinstance(right, Load) and right.input == name:
                    yield left


def _runs(shape: tuple[int, ...], axis: int, generator: np.random.Generator) -> NDArray[Any]:
    """Numbers that rise by one from time to time: four runs or so, whatever the length."""
    import numpy as np

    rises = generator.random(shape) < 3 / max(shape[axis], 1)
    return np.cumsum(rises, axis=axis, dtype=np.int64)


def _draw_table(table: Table, values: Values, generator: np.random.Generator) -> NDArray[Any]:
    """Block numbers, one in eight of them -1: no block."""
    import numpy as np

    axes = len(table.query_size)
    if axes != 1:
        raise ArgumentError(f"'{table.name}' lists boxes, and tables of boxes cannot be made up yet")
    query_size, key_size = (int(n) for n in evaluate_all((*table.query_size, *table.key_size), values))
    queries, keys = (-(-values.sizes[n] // size) for n, size in (("queries", query_size), ("keys", key_size)))
    leading = _shape(table.name, table.extents[:-2], values)
    [top] = _shape(table.name, table.extents[-1:], values)
    drawn = generator.integers(0, max(keys, 1), (*leading, queries, top))
    return np.where(generator.random(drawn.shape) < 0.125, -1, drawn)
