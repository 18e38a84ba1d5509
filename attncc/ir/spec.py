"""The typed form of one attention: what the checker and the tracer produce and every later stage reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from attncc.ir.expr import Expr, Scalar, Sort
from attncc.source import Span

OUTPUT_NAMES = ("lse", "row_max", "entropy", "key_mass")


@dataclass(frozen=True, slots=True)
class Clause:
    """An expression with the statement it came from. The span takes no part in equality or keys."""

    expr: Expr
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Constant:
    """`const n: int = 7`: a compile-time value. A call may give another, which specialises the kernel."""

    name: str
    sort: Sort
    value: Scalar
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Parameter:
    """`param w: int = 256`: a run-time scalar. Without a default the call must give it."""

    name: str
    sort: Sort
    default: Scalar | None
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SortedFact:
    """`sorted along keys`: non-decreasing along that axis of the input."""

    axis: int


@dataclass(frozen=True, slots=True)
class RangeFact:
    """`in low .. high`: every element satisfies `low <= x < high`. Integers only."""

    low: Expr
    high: Expr


@dataclass(frozen=True, slots=True)
class Input:
    """`input t: float[heads, 2*n-1] learnable`: a run-time tensor. Extents are int expressions over sizes,
    constants and params."""

    name: str
    sort: Sort
    extents: tuple[Expr, ...]
    learnable: bool = False
    facts: tuple[SortedFact | RangeFact, ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Grid:
    """`grid y, x`: the axes of the query grid and of the key grid (the same names unless both are given)."""

    queries: tuple[str, ...]
    keys: tuple[str, ...]
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Table:
    """`blocks t: int[batch, heads, query_blocks, top] size 64, 64`: for every query block the listed key blocks.

    `extents` end with the query-block axis (one for each query tile axis) and the list axis; what comes before
    is any of batch and heads. Elements are key-block numbers, -1 for none. `query_size`, `key_size`: rows of a
    block along each axis.
    """

    name: str
    extents: tuple[Expr, ...]
    query_size: tuple[Expr, ...]
    key_size: tuple[Expr, ...]
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Softmax:
    """`weights softmax [with sink, …]`: each sink is one more logit of the row, with no value attached.
    A sink is a float expression over b, h and row."""

    sinks: tuple[Clause, ...] = ()


@dataclass(frozen=True, slots=True)
class Ratio:
    """`weights f(s) [over d(total, count)]`: the numerator before the mask, and what it is divided by."""

    numerator: Clause
    denominator: Clause | None = None


@dataclass(frozen=True, slots=True)
class Require:
    """`require cond, "message"`: a scalar condition the host checks before launch."""

    condition: Expr
    message: str
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Spec:
    """One attention, typed. Equality ignores spans, so a spec from text equals the same one traced from Python.

    `masks` are and-ed; `scores` chain: each is an expression over `Score()`, which stands for the one before it
    (the first: the scaled dot product). `reweight` is the factor `c` of `p * c`, or None.
    """

    name: str
    constants: tuple[Constant, ...] = ()
    params: tuple[Parameter, ...] = ()
    inputs: tuple[Input, ...] = ()
    extents: tuple[str, ...] = ()
    grid: Grid | None = None
    tables: tuple[Table, ...] = ()
    requires: tuple[Require, ...] = ()
    masks: tuple[Clause, ...] = ()
    scores: tuple[Clause, ...] = ()
    weights: Softmax | Ratio = Softmax()
    reweight: Clause | None = None
    outputs: tuple[Literal["lse", "row_max", "entropy", "key_mass"], ...] = ()
    scale: Expr | None = None
    span: Span | None = field(default=None, compare=False, repr=False)

    def input(self, name: str) -> Input:
        """The input of that name; KeyError if there is none."""
        for declared in self.inputs:
            if declared.name == name:
                return declared
        raise KeyError(name)

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """Every clause evaluated over pairs or rows, in the order mask, score, weights, reweight."""
        match self.weights:
            case Softmax(sinks=sinks):
                weights = sinks
            case Ratio(numerator=numerator, denominator=denominator):
                weights = (numerator,) if denominator is None else (numerator, denominator)
        tail = () if self.reweight is None else (self.reweight,)
        return (*self.masks, *self.scores, *weights, *tail)
