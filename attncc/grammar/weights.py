"""`weights` and `reweight`: how scores become weights, and the factor after that."""

from __future__ import annotations

from attncc.errors import Related
from attncc.grammar import syntax
from attncc.grammar.definitions import walk
from attncc.grammar.expressions import DEEPEST_SYNTAX, Expressions
from attncc.grammar.places import DENOMINATOR, NUMERATOR, REWEIGHT, SINK, Place
from attncc.grammar.report import Report
from attncc.ir.expr import Expr, Sort, to_const
from attncc.ir.intrinsics import call
from attncc.ir.spec import Clause, Ratio, Softmax
from attncc.source import Span


def weights_of(
    statement: syntax.WeightsSoftmax | syntax.WeightsRatio, expressions: Expressions, report: Report
) -> Softmax | Ratio | None:
    """The weights a statement describes; None where it is wrong."""
    match statement:
        case syntax.WeightsSoftmax(sinks=sinks):
            clauses = [_clause(sink, SINK, sink.span, expressions, report) for sink in sinks]
            return Softmax(tuple(c for c in clauses if c is not None))
        case syntax.WeightsRatio(numerator=numerator, denominator=denominator):
            above = _clause(numerator, NUMERATOR, numerator.span, expressions, report)
            below = None
            if denominator is not None:
                below = _clause(denominator, DENOMINATOR, denominator.span, expressions, report)
            return None if above is None else Ratio(above, below)


def reweight(statement: syntax.Reweight, expressions: Expressions, report: Report) -> Clause | None:
    """The factor of `p`, which the statement writes as a product: `p * c`, `c * p`, `p / c`, `c * p * d`."""
    uses = [n for n in walk(statement.value) if isinstance(n, syntax.Name) and n.text == "p"]
    if not uses:
        report.error(
            "reweight is a product of 'p', the weight after normalization", statement.value.span, hint="write `p * …`"
        )
        return None
    if len(uses) > 1:
        related = (Related(uses[0].span, "first here"),)
        report.error("'p' stands twice, and reweight is 'p' times a factor", uses[1].span, related=related)
        return None
    path = _path_to(statement.value, uses[0])
    if path is None:
        report.error(
            "reweight is 'p' times a factor, and here 'p' is part of something else",
            uses[0].span,
            hint="write `p * factor`, as in `p * (1.0 if condition else 0.0)`",
        )
        return None
    # Without p, `a * p / b` is `a / b`, and `p / b` is `1.0 / b`.
    factor: syntax.Expression | None = None
    for node in reversed(path):
        match node:
            case syntax.Unary():
                operand = factor or syntax.Literal(node.operand.span, 1.0)
                factor = syntax.Unary(node.span, node.operator, node.operator_span, operand)
            case syntax.Binary(operator="/"):
                left = factor or syntax.Literal(node.left.span, 1.0)
                factor = syntax.Binary(node.span, "/", node.operator_span, left, node.right)
            case syntax.Binary():
                other = node.left if _spans(node.right, uses[0]) else node.right
                if factor is None:
                    factor = other
                elif other is node.left:
                    factor = syntax.Binary(node.span, "*", node.operator_span, other, factor)
                else:
                    factor = syntax.Binary(node.span, "*", node.operator_span, factor, other)
    if factor is None:
        return Clause(to_const(1.0), statement.span)
    return _clause(factor, REWEIGHT, statement.span, expressions, report)


def _path_to(root: syntax.Expression, target: syntax.Name) -> list[syntax.Unary | syntax.Binary] | None:
    """The products, quotients and signs from the root down to `p`; None where anything else is on the way."""
    path: list[syntax.Unary | syntax.Binary] = []
    node = root
    while node is not target:
        match node:
            case syntax.Unary(operator="-" | "+", operand=operand):
                path.append(node)
                node = operand
            case syntax.Binary(operator="*", left=left, right=right):
                path.append(node)
                node = right if _spans(right, target) else left
            case syntax.Binary(operator="/", left=left) if _spans(left, target):
                path.append(node)
                node = left
            case _:
                return None
    return path if len(path) <= DEEPEST_SYNTAX * 100 else None


def _spans(node: syntax.Expression, target: syntax.Name) -> bool:
    return node.span.start <= target.span.start and target.span.end <= node.span.end


def _clause(
    node: syntax.Expression, place: Place, span: Span, expressions: Expressions, report: Report
) -> Clause | None:
    expr: Expr | None = expressions.check(node, place)
    if expr is None:
        return None
    if expr.sort is Sort.BOOL:
        report.error(
            f"{place.name} is a float, and this is a bool", node.span, hint="write `1.0 if condition else 0.0`"
        )
        return None
    return Clause(call("to_float", expr) if expr.sort is Sort.INT else expr, span)
