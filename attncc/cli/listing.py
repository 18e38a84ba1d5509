"""A typed spec as text in the language's own notation, for people. `attncc.ir.printer` has the canonical form."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import assert_never

from attncc.ir.printer import print_expr
from attncc.ir.spec import Clause, Input, RangeFact, Ratio, Softmax, SortedFact, Spec


def list_spec(spec: Spec) -> str:
    """The spec as lines: names are resolved, `let` and `def` substituted, types written out."""
    return "\n".join([f"attention {spec.name}", *(f"  {line}" for line in _statements(spec))])


def _statements(spec: Spec) -> Iterator[str]:
    for constant in spec.constants:
        yield f"const {constant.name}: {constant.sort.value} = {_scalar(constant.value)}"
    for param in spec.params:
        yield f"param {param.name}: {param.sort.value}" + (
            "" if param.default is None else f" = {_scalar(param.default)}"
        )
    if spec.extents:
        yield f"extent {', '.join(spec.extents)}"
    for declared in spec.inputs:
        yield _input(declared)
    if spec.grid is not None:
        yield f"grid queries {', '.join(spec.grid.queries)}  grid keys {', '.join(spec.grid.keys)}"
    for table in spec.tables:
        extents, sizes = (", ".join(map(print_expr, e)) for e in (table.extents, (*table.query_size, *table.key_size)))
        yield f"blocks {table.name}: int[{extents}] size {sizes}"
    for require in spec.requires:
        yield f'require {print_expr(require.condition)}, "{require.message}"'
    yield from _computation(spec)


def _computation(spec: Spec) -> Iterator[str]:
    for mask in spec.masks:
        yield f"mask {_clause(mask)}"
    for score in spec.scores:
        yield f"score {_clause(score)}"
    match spec.weights:
        case Softmax(sinks=sinks):
            yield "weights softmax" + (f" with {', '.join(map(_clause, sinks))}" if sinks else "")
        case Ratio(numerator=numerator, denominator=denominator):
            yield f"weights {_clause(numerator)}" + ("" if denominator is None else f" over {_clause(denominator)}")
        case other:
            assert_never(other)
    if spec.reweight is not None:
        yield f"reweight p * {_clause(spec.reweight)}"
    if spec.outputs:
        yield f"output {', '.join(spec.outputs)}"
    if spec.scale is not None:
        yield f"scale {print_expr(spec.scale)}"


def _input(declared: Input) -> str:
    text = f"input {declared.name}: {declared.sort.value}[{', '.join(map(print_expr, declared.extents))}]"
    if declared.learnable:
        text += " learnable"
    for fact in declared.facts:
        match fact:
            case SortedFact(axis=axis):
                text += f" sorted along {print_expr(declared.extents[axis])}"
            case RangeFact(low=low, high=high):
                text += f" in {print_expr(low)} .. {print_expr(high)}"
            case _:
                assert_never(fact)
    return text


def _clause(clause: Clause) -> str:
    return print_expr(clause.expr)


def _scalar(value: bool | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
