"""Divisors made of scalars: a call that makes one zero is refused before launch, where `x // 0` would silently be 0."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from attncc.ir.expr import Call, Const, Expr, Param, Size, postorder
from attncc.ir.printer import print_expr
from attncc.ir.spec import Input, Spec, Table
from attncc.runtime.evaluate import Evaluator
from attncc.runtime.signature import refuse
from attncc.source import Span


def check_divisors(spec: Spec, evaluator: Evaluator) -> None:
    """Raises ArgumentError where a divisor of `//` or `%` that is made of params, constants and sizes is zero.

    What a call without any pair of a query and a key divides by is not looked at: nothing is computed.
    """
    if 0 in (evaluator.sizes[name] for name in ("batch", "heads", "queries", "keys")):
        return
    for expr, span in _placed(spec):
        for division in _divisions_by_scalars(expr):
            divisor = division.args[1]
            leaves = [n for n in postorder(divisor) if isinstance(n, Param | Size)]
            if any(isinstance(n, Size) and n.name not in evaluator.sizes for n in leaves):
                continue  # a plan does not know every size
            if evaluator.scalar(divisor) == 0:
                values = ", ".join(f"{print_expr(n)} = {evaluator.scalar(n)}" for n in leaves)
                raise refuse(
                    f"`{print_expr(division)}` divides by zero" + (f" with {values}" if values else ""),
                    span,
                    hint="`require` what the divisor must be, to say so in words of your own",
                )


def _placed(spec: Spec) -> Iterator[tuple[Expr, Span | None]]:
    declarations: list[Input | Table] = [*spec.inputs, *spec.tables]
    for declared in declarations:
        yield from ((extent, declared.span) for extent in declared.extents)
    yield from ((clause.expr, clause.span) for clause in spec.clauses)
    if spec.scale is not None:
        yield spec.scale, spec.span


@functools.lru_cache(maxsize=1024)
def _divisions_by_scalars(expr: Expr) -> tuple[Call, ...]:
    return tuple(
        node
        for node in postorder(expr)
        if isinstance(node, Call)
        and node.op in ("floordiv", "mod")
        and not isinstance(node.args[1], Const)
        and all(isinstance(n, Const | Param | Size | Call) for n in postorder(node.args[1]))
    )
