"""Syntax tree → `Spec`s: every statement of every attention in a file, all errors at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from attncc.errors import Diagnostic, Related, SpecError, assert_never, did_you_mean
from attncc.grammar import syntax
from attncc.grammar.declarations import Declarations, unused
from attncc.grammar.definitions import Definitions, Loader, collect
from attncc.grammar.expressions import Expressions
from attncc.grammar.places import LET, MASK, SCALE, SCORE
from attncc.grammar.report import Report
from attncc.grammar.weights import reweight, weights_of
from attncc.grammar.wording import a_sort, condition_hint
from attncc.grammar.world import Failed, TooLarge, Value, World
from attncc.ir.expr import Expr, Listed, Load, Sort, postorder
from attncc.ir.intrinsics import call
from attncc.ir.spec import OUTPUT_NAMES, Clause, Ratio, Softmax, Spec
from attncc.source import Span

OutputName = Literal["lse", "row_max", "entropy", "key_mass"]


@dataclass(frozen=True, slots=True)
class Checked:
    """The attentions of a file by name, in order, and what is odd about them but not wrong."""

    specs: Mapping[str, Spec]
    warnings: tuple[Diagnostic, ...]


def check(file: syntax.File, loader: Loader, report: Report | None = None) -> Checked:
    """Types a file. `report` may hold errors found before. Raises SpecError with every error in source order."""
    report = Report(file.source) if report is None else report
    definitions = collect(file, loader, report)
    specs: dict[str, Spec] = {}
    first: dict[str, Span] = {}
    for block in file.attentions:
        name = block.name.text
        if name in first:
            related = (Related(first[name], "the first is here"),)
            report.error(f"two attentions are named '{name}'", block.name.span, related=related)
        first.setdefault(name, block.name.span)
        spec = _Attention(block, definitions, report).check()
        specs.setdefault(name, spec)
    if report.errors:
        raise SpecError(report.errors)
    return Checked(specs, report.warnings)


class _Attention:
    """One attention block on its way to a `Spec`."""

    def __init__(self, block: syntax.Attention, definitions: Definitions, report: Report) -> None:
        self.block = block
        self.report = report
        self.world = World(definitions)
        self.expressions = Expressions(self.world, report)
        self.declarations = Declarations(self.world, self.expressions, report)
        self.masks: list[Clause] = []
        self.scores: list[Clause] = []
        self.weights: Softmax | Ratio | None = None
        self.reweight: Clause | None = None
        self.outputs: list[syntax.Name] = []
        self.scale: Expr | None = None
        self.once: dict[str, Span] = {}

    def check(self) -> Spec:
        try:
            self.declarations.collect(self.block.statements)
            self._check_statements()
        except TooLarge:
            return Spec(self.block.name.text, span=self.block.span)
        declared = self.declarations
        masks = (*self.masks, *self._table_clauses())
        spec = Spec(
            self.block.name.text,
            constants=tuple(declared.constants),
            params=tuple(declared.params),
            inputs=tuple(declared.inputs),
            extents=tuple(declared.extents),
            grid=self.world.grid,
            tables=tuple(declared.tables),
            requires=tuple(self.world.requires),
            masks=masks,
            scores=tuple(self.scores),
            weights=self.weights or Softmax(),
            reweight=self.reweight,
            outputs=self._checked_outputs(),
            scale=self.scale,
            span=self.block.span,
        )
        if not any(isinstance(s, syntax.Broken) for s in self.block.statements):
            self._check_uses(spec)
        return spec

    def _check_statements(self) -> None:
        statements = self.block.statements
        total_scores = sum(isinstance(s, syntax.Score) for s in statements)
        self.world.later.update((s.name.text, s.name.span) for s in statements if isinstance(s, syntax.Let))
        for statement in statements:
            match statement:
                case syntax.Let():
                    self._let(statement)
                case syntax.Mask():
                    self._mask(statement)
                case syntax.Score():
                    self._score(statement)
                    self.world.version += 1
                case syntax.WeightsSoftmax() | syntax.WeightsRatio():
                    if self._only(statement, "weights"):
                        # Rule 5: weights sees the final score, wherever it stands.
                        here, self.world.version = self.world.version, total_scores
                        self.weights = weights_of(statement, self.expressions, self.report)
                        self.world.version = here
                case syntax.Reweight():
                    if self._only(statement, "reweight"):
                        self.reweight = reweight(statement, self.expressions, self.report)
                case syntax.Output(names=names):
                    self.outputs += names
                case syntax.Require():
                    self.expressions.require(statement)
                case syntax.Scale():
                    if self._only(statement, "scale"):
                        self.scale = self._float(statement.value, self.expressions.check(statement.value, SCALE))
                case (
                    syntax.Const()
                    | syntax.Param()
                    | syntax.Input()
                    | syntax.Grid()
                    | syntax.Blocks()
                    | syntax.Extent()
                    | syntax.Broken()
                ):
                    pass
                case _:
                    assert_never(statement)

    def _let(self, statement: syntax.Let) -> None:
        expr = self.expressions.check(statement.value, LET)
        self.world.later.pop(statement.name.text, None)
        span = statement.name.span
        bound = Failed(span) if expr is None else Value(expr, "let", span, self.world.version)
        self.declarations.declare(statement.name, bound)

    def _mask(self, statement: syntax.Mask) -> None:
        expr = self.expressions.check(statement.value, MASK)
        if expr is None:
            return
        if expr.sort is not Sort.BOOL:
            hint = condition_hint(expr.sort)
            if expr.sort is Sort.FLOAT:
                hint = "compare it; to add it to the score, write `score s + …`"
            self.report.error(f"a mask is a bool, and this is {a_sort(expr.sort)}", statement.value.span, hint=hint)
            return
        self.masks.append(Clause(expr, statement.span))

    def _score(self, statement: syntax.Score) -> None:
        expr = self.expressions.check(statement.value, SCORE)
        if expr is not None and expr.sort is Sort.BOOL:
            self.report.error(
                "a score is a float, and this is a bool",
                statement.value.span,
                hint="a condition on pairs is a `mask`; for a choice of scores write `score x if condition else y`",
            )
            return
        typed = self._float(statement.value, expr)
        if typed is None:
            return
        if not self.expressions.reads(typed).score:
            self.report.warn(
                "this score does not read 's', so the product of query and key is lost",
                statement.value.span,
                hint="write `s + …` to add to it",
            )
        self.scores.append(Clause(typed, statement.span))

    def _float(self, node: syntax.Expression, expr: Expr | None) -> Expr | None:
        if expr is None or expr.sort is Sort.FLOAT:
            return expr
        if expr.sort is Sort.INT:
            return call("to_float", expr)
        self.report.error("this is a bool where a float is wanted", node.span, hint="write `1.0 if condition else 0.0`")
        return None

    def _only(self, statement: syntax.InAttention, head: str) -> bool:
        if head in self.once:
            related = (Related(self.once[head], "the first is here"),)
            self.report.error(f"an attention has one '{head}'", statement.span, related=related)
            return False
        self.once[head] = statement.span
        return True

    def _table_clauses(self) -> list[Clause]:
        """Rule 9: a table masks by itself unless a mask mentions it."""
        mentioned: frozenset[str] = frozenset().union(*(self.expressions.reads(c.expr).tables for c in self.masks))
        return [Clause(Listed(t.name), t.span) for t in self.declarations.tables if t.name not in mentioned]

    def _checked_outputs(self) -> tuple[OutputName, ...]:
        found: dict[str, syntax.Name] = {}
        for name in self.outputs:
            if name.text not in OUTPUT_NAMES:
                note = f"the outputs are {', '.join(OUTPUT_NAMES)}"
                hint = did_you_mean(name.text, OUTPUT_NAMES)
                self.report.error(f"there is no output '{name.text}'", name.span, note=note, hint=hint)
            elif name.text in found:
                related = (Related(found[name.text].span, "first here"),)
                self.report.error(f"the output '{name.text}' is listed twice", name.span, related=related)
            elif isinstance(self.weights, Ratio) and name.text != "key_mass":
                self.report.error(
                    f"'{name.text}' belongs to softmax, and these weights are another function",
                    name.span,
                    related=(Related(self.once["weights"], "the weights are chosen here"),),
                )
            else:
                found[name.text] = name
        return tuple(cast(OutputName, name) for name in found)

    def _check_uses(self, spec: Spec) -> None:
        """Rule 7 for learnable inputs, and a warning for everything else that is declared in vain."""
        clauses = (*spec.scores, *(c for c in spec.clauses if c not in spec.masks))
        differentiable = {n.input for n in postorder(*(c.expr for c in clauses)) if isinstance(n, Load)}
        failed = any(isinstance(b, Failed) for b in self.world.names.values()) or self.report.errors
        for declared in spec.inputs:
            if declared.learnable and declared.name not in differentiable and not failed:
                self.report.error(
                    f"'{declared.name}' is learnable, but no score, weights or reweight reads it",
                    self.world.names[declared.name].span,
                    note="its gradient would always be zero",
                    hint="remove `learnable`, or use it in a score",
                )
        learnable = {i.name for i in spec.inputs if i.learnable}
        for kind, name, span in unused(self.world.names, {*self.world.used, *learnable}):
            if not failed:
                self.report.warn(f"the {kind} '{name}' is never used", span)
