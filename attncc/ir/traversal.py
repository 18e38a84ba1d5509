"""All expressions of a spec: listed, and mapped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attncc.ir.expr import Expr
from attncc.ir.spec import Clause, Input, RangeFact, Ratio, Softmax, SortedFact, Spec, Table


def expressions_of(spec: Spec) -> tuple[Expr, ...]:
    """Every expression the spec holds: extents, facts, tables, requires, clauses, scale."""
    found: list[Expr] = []

    def note(expr: Expr) -> Expr:
        found.append(expr)
        return expr

    map_expressions(spec, note)
    return tuple(found)


def map_expressions(spec: Spec, change: Callable[[Expr], Expr]) -> Spec:
    """The spec with `change` applied to every expression. Spans stay."""
    return replace(
        spec,
        inputs=tuple(_map_input(i, change) for i in spec.inputs),
        tables=tuple(_map_table(t, change) for t in spec.tables),
        requires=tuple(replace(r, condition=change(r.condition)) for r in spec.requires),
        masks=tuple(_map_clause(c, change) for c in spec.masks),
        scores=tuple(_map_clause(c, change) for c in spec.scores),
        weights=_map_weights(spec.weights, change),
        reweight=None if spec.reweight is None else _map_clause(spec.reweight, change),
        scale=None if spec.scale is None else change(spec.scale),
    )


def _map_clause(clause: Clause, change: Callable[[Expr], Expr]) -> Clause:
    return replace(clause, expr=change(clause.expr))


def _map_input(declared: Input, change: Callable[[Expr], Expr]) -> Input:
    def fact(f: SortedFact | RangeFact) -> SortedFact | RangeFact:
        return RangeFact(change(f.low), change(f.high)) if isinstance(f, RangeFact) else f

    extents = tuple(change(e) for e in declared.extents)
    return replace(declared, extents=extents, facts=tuple(fact(f) for f in declared.facts))


def _map_table(table: Table, change: Callable[[Expr], Expr]) -> Table:
    return replace(
        table,
        extents=tuple(change(e) for e in table.extents),
        query_size=tuple(change(e) for e in table.query_size),
        key_size=tuple(change(e) for e in table.key_size),
    )


def _map_weights(weights: Softmax | Ratio, change: Callable[[Expr], Expr]) -> Softmax | Ratio:
    if isinstance(weights, Softmax):
        return Softmax(tuple(_map_clause(c, change) for c in weights.sinks))
    denominator = None if weights.denominator is None else _map_clause(weights.denominator, change)
    return Ratio(_map_clause(weights.numerator, change), denominator)
