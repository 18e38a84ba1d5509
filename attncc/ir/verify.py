"""The rules every spec keeps between passes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from typing_extensions import assert_never

from attncc.errors import AttnccError
from attncc.ir.expr import (
    Call,
    Const,
    Coord,
    Expr,
    Listed,
    Load,
    Param,
    RowCount,
    RowSum,
    Score,
    Size,
    Sort,
    postorder,
)
from attncc.ir.interval import INT64_MAX, INT64_MIN
from attncc.ir.intrinsics import INTRINSICS
from attncc.ir.printer import print_expr
from attncc.ir.spec import OUTPUT_NAMES, Input, RangeFact, Ratio, Softmax, SortedFact, Spec

SIZES = frozenset({"batch", "heads", "kv_heads", "queries", "keys", "dim"})
POSITIONS = frozenset({"b", "h", "h_kv", "q", "k", "row"})
LOWERED_POSITIONS = frozenset({"b", "h", "k", "row"})


class InvalidIR(AttnccError):
    """A spec breaks a rule of the IR. The message names the place and the node; it is a bug of whoever built it."""


def verify(spec: Spec, *, lowered: bool = False) -> None:
    """Raises InvalidIR where the spec breaks a rule; with `lowered`, the rules after the last pass too.

    Sorts agree with signatures; every name is declared, once, and used at its sort; a load has an index for each
    extent; masks are free of `s`; the row's total and count stand in a denominator only; what belongs to a row does
    not read `k`, and what is scalar reads no position or tensor. Lowered: no constants, no grid coordinates, no `q` or
    `h_kv`; `q_offset` is a parameter or an input over the batch.
    """
    _Verifier(spec, lowered).run()


@dataclass(frozen=True, slots=True)
class _Place:
    """What expressions at one place may read."""

    name: str
    sort: Sort
    positions: frozenset[str] = frozenset()
    loads: bool = False
    score: bool = False
    row_totals: bool = False


class _Verifier:
    def __init__(self, spec: Spec, lowered: bool) -> None:
        self.spec = spec
        self.lowered = lowered
        self.scalars = {c.name: c.sort for c in spec.constants} | {p.name: p.sort for p in spec.params}
        self.inputs = {i.name: (i.sort, len(i.extents)) for i in spec.inputs}
        self.tables = {t.name for t in spec.tables}
        self.sizes = SIZES | set(spec.extents)
        self.positions = LOWERED_POSITIONS if lowered else POSITIONS
        if lowered:
            self.scalars["q_offset"] = Sort.INT
            self.inputs["q_offset"] = (Sort.INT, 1)
            self.sizes |= {"prefix_tokens", "suffix_tokens"}
        if spec.grid is not None:
            queries, keys = ("queries", "keys") if lowered else ("q", "k")
            axes = {f"{queries}.{a}" for a in spec.grid.queries} | {f"{keys}.{a}" for a in spec.grid.keys}
            self.sizes |= axes
            if not lowered:
                self.positions |= axes

    def run(self) -> None:
        self._names()
        if self.lowered and self.spec.constants:
            raise InvalidIR(f"constant '{self.spec.constants[0].name}' is left in a lowered spec")
        for declared in self.spec.inputs:
            self._input(declared)
        for table in self.spec.tables:
            extent = _Place(f"an extent of table '{table.name}'", Sort.INT)
            self._all((*table.extents, *table.query_size, *table.key_size), extent, {"query_blocks"})
        self._all([r.condition for r in self.spec.requires], _Place("a require", Sort.BOOL))
        self._all([] if self.spec.scale is None else [self.spec.scale], _Place("the scale", Sort.FLOAT))
        self._clauses()
        outputs = self.spec.outputs
        if len(set(outputs)) < len(outputs) or not set(outputs) <= set(OUTPUT_NAMES):
            raise InvalidIR(f"outputs {', '.join(outputs)} are not distinct names among {', '.join(OUTPUT_NAMES)}")

    def _names(self) -> None:
        spec = self.spec
        declared = [d.name for group in (spec.constants, spec.params, spec.inputs, spec.tables) for d in group]
        declared += spec.extents
        for index, name in enumerate(declared):
            if name in declared[:index]:
                raise InvalidIR(f"'{name}' is declared twice")

    def _input(self, declared: Input) -> None:
        if declared.learnable and declared.sort is not Sort.FLOAT:
            raise InvalidIR(f"input '{declared.name}' is learnable but {declared.sort.value}")
        self._all(declared.extents, _Place(f"an extent of '{declared.name}'", Sort.INT))
        for fact in declared.facts:
            match fact:
                case SortedFact(axis=axis):
                    if not 0 <= axis < len(declared.extents):
                        raise InvalidIR(f"input '{declared.name}' is sorted along axis {axis}, which it does not have")
                case RangeFact(low=low, high=high):
                    if declared.sort is not Sort.INT:
                        raise InvalidIR(f"input '{declared.name}' has a range but is {declared.sort.value}")
                    self._all((low, high), _Place(f"the range of '{declared.name}'", Sort.INT))
                case _:
                    assert_never(fact)

    def _clauses(self) -> None:
        spec, every = self.spec, self.positions
        of_row = frozenset(p for p in every if p != "k" and not p.startswith("k."))
        self._all([c.expr for c in spec.masks], _Place("a mask", Sort.BOOL, every, loads=True))
        self._all([c.expr for c in spec.scores], _Place("a score", Sort.FLOAT, every, loads=True, score=True))
        match spec.weights:
            case Softmax(sinks=sinks):
                self._all([c.expr for c in sinks], _Place("a sink", Sort.FLOAT, of_row, loads=True))
            case Ratio(numerator=numerator, denominator=denominator):
                place = _Place("the numerator", Sort.FLOAT, every, loads=True, score=True)
                self._all([numerator.expr], place)
                place = _Place("the denominator", Sort.FLOAT, of_row, loads=True, row_totals=True)
                self._all([] if denominator is None else [denominator.expr], place)
            case _:
                assert_never(spec.weights)
        place = _Place("the reweight factor", Sort.FLOAT, every, loads=True)
        self._all([] if spec.reweight is None else [spec.reweight.expr], place)

    def _all(self, exprs: Iterable[Expr], place: _Place, more_sizes: Iterable[str] = ()) -> None:
        for expr in exprs:
            if expr.sort is not place.sort:
                _fail(place, expr, f"is {expr.sort.value}, not {place.sort.value}")
            for node in postorder(expr):
                problem = self._problem(node, place, frozenset(more_sizes))
                if problem is not None:
                    _fail(place, node, problem)

    def _problem(self, node: Expr, place: _Place, more_sizes: frozenset[str]) -> str | None:
        """What is wrong with one node at its place, None if nothing is."""
        match node:
            case Const():
                return _literal_problem(node)
            case Size(name=name):
                return None if name in self.sizes or name in more_sizes else "is no size of this spec"
            case Param(name=name, sort=sort):
                return None if self.scalars.get(name) is sort else f"is no {sort.value} constant or parameter"
            case Coord(name=name):
                return None if name in place.positions else "is no position that may be read here"
            case Score():
                return None if place.score else "may not be read here"
            case RowSum() | RowCount():
                return None if place.row_totals else "may be read in a denominator only"
            case Listed(table=table):
                if table not in self.tables:
                    return "is no table"
                return None if place.loads and "k" in place.positions else "may not be read here"
            case Load():
                return self._load_problem(node, place)
            case Call():
                return _call_problem(node)
            case _:
                return f"is a {type(node).__name__}, which is no node"

    def _load_problem(self, node: Load, place: _Place) -> str | None:
        if node.input not in self.inputs:
            return "reads no declared input"
        sort, axes = self.inputs[node.input]
        if node.sort is not sort:
            return f"is {node.sort.value}, but the input is {sort.value}"
        if len(node.index) != axes:
            return f"has {len(node.index)} indices for {axes} extents"
        if any(i.sort is not Sort.INT for i in node.index):
            return "has an index that is not int"
        return None if place.loads else "may not be read here"


def _literal_problem(node: Const) -> str | None:
    wanted = {Sort.BOOL: bool, Sort.INT: int, Sort.FLOAT: float}[node.sort]
    if type(node.value) is not wanted:
        return f"is a {node.sort.value} literal holding a {type(node.value).__name__}"
    return None if wanted is not int or INT64_MIN <= node.value <= INT64_MAX else "does not fit 64 bits"


def _call_problem(node: Call) -> str | None:
    record = INTRINSICS.get(node.op)
    if record is None:
        return f"applies '{node.op}', which is no operation"
    if (tuple(a.sort for a in node.args), node.sort) not in record.signatures:
        operands = ", ".join(a.sort.value for a in node.args)
        return f"applies '{node.op}' to ({operands}) giving {node.sort.value}, which it has no signature for"
    if node.op == "pow" and node.sort is Sort.INT:
        exponent = node.args[1]
        return None if isinstance(exponent, Const) and exponent.value >= 0 else "has an int exponent that is no literal"
    return None


def _fail(place: _Place, node: Expr, problem: str) -> None:
    raise InvalidIR(f"in {place.name}: '{print_expr(node, limit=200)}' {problem}")
