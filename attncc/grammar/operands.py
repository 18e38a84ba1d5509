"""Operations on typed operands, and the diagnostics of expressions: who called whom, what was wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attncc.errors import Related
from attncc.grammar import syntax
from attncc.grammar.constants import ConstantError, evaluate
from attncc.grammar.places import MASK, ReadsOf, objection
from attncc.grammar.report import Report
from attncc.grammar.wording import a_sort, bool_wanted, condition_hint, number_wanted
from attncc.grammar.world import Frame, World
from attncc.ir import intrinsics
from attncc.ir.expr import Coord, Expr, Score, Sort
from attncc.source import Span

DEEPEST_EXPRESSION = 400


class Operands:
    """What the checkers of one attention's expressions share. Where an answer is None or False, an error was
    reported."""

    def __init__(self, world: World, report: Report) -> None:
        self.world = world
        self.report = report
        self.reads = ReadsOf()

    def build(
        self, op: str, operands: list[Expr], nodes: list[syntax.Expression], span: Span, frame: Frame
    ) -> Expr | None:
        """Applies an operation."""
        try:
            built = intrinsics.call(op, *operands)
        except intrinsics.TypingError as problem:
            where = span if problem.operand is None else nodes[problem.operand].span
            self.error(str(problem), where, frame)
            return None
        return built if self.shallow(built, span, frame) else None

    def shallow(self, expr: Expr, span: Span, frame: Frame) -> bool:
        """Whether an expression is within the depth every stage can walk."""
        if self.reads(expr).depth <= DEEPEST_EXPRESSION:
            return True
        self.error(f"this expression is more than {DEEPEST_EXPRESSION} operations deep", span, frame)
        return False

    def may_read(self, node: syntax.Expression, expr: Expr, frame: Frame) -> bool:
        """Whether the place allows what an expression reads."""
        why = objection(self.reads(expr), frame.place)
        run_time = self.reads(expr).run_time and not frame.place.run_time
        if why is None and not run_time:
            return True
        if why is None:
            why = f"is known only at the call; {frame.place.name} is known before"
        elif isinstance(node, syntax.Name) and f"'{node.text}'" in why:
            why = f"cannot stand in {frame.place.name}"
        hint = None
        if isinstance(expr, Score) and frame.place is MASK:
            hint = "a mask chooses pairs before there are scores; to drop a pair by its score, score it `-inf`"
        if isinstance(expr, Coord) and expr.name == "q" and frame.place.positions and "row" in frame.place.positions:
            hint = "write `row`, the index among the queries of this call"
        self.error(f"{_quoted(node)} {why}", node.span, frame, hint=hint)
        return False

    def divides(self, node: syntax.Expression, divisor: Expr, frame: Frame) -> bool:
        """Rule 2: a divisor that is a constant zero is an error."""
        try:
            value = evaluate(divisor, self.world.consts)
        except ConstantError:
            return True
        if value is None or value != 0:
            return True
        self.error("this divisor is always zero", node.span, frame)
        return False

    def wants_bool(self, node: syntax.Expression, expr: Expr, what: str, frame: Frame) -> bool:
        """Whether an operand is a bool."""
        if expr.sort is Sort.BOOL:
            return True
        self.error(bool_wanted(what, expr.sort), node.span, frame, hint=condition_hint(expr.sort))
        return False

    def wants_number(self, node: syntax.Expression, expr: Expr, what: str, frame: Frame) -> bool:
        """Whether an operand is an int or a float."""
        if expr.sort is not Sort.BOOL:
            return True
        self.error(number_wanted(what), node.span, frame, hint="write `1 if condition else 0` to count with it")
        return False

    def wants_int(self, node: syntax.Expression, expr: Expr, what: str, frame: Frame, hint: str | None = None) -> bool:
        """Whether an operand is an int."""
        if expr.sort is Sort.INT:
            return True
        if hint is None and what == "'//'":
            hint = "write `floor(x / y)`"
        if hint is None and what == "'^'" and expr.sort is Sort.FLOAT:
            hint = "a power is written `x ** y`"
        if expr.sort is Sort.BOOL:
            word = {"'&'": "and", "'|'": "or", "'~'": "not"}.get(what)
            hint = f"write `{word}` for conditions" if word else "write `1 if condition else 0` to count with it"
        self.error(f"{what} wants an int, and this is {a_sort(expr.sort)}", node.span, frame, hint=hint)
        return False

    def all_want(
        self,
        wants: Callable[[syntax.Expression, Expr, str, Frame], bool],
        operands: Iterable[tuple[syntax.Expression, Expr]],
        what: str,
        frame: Frame,
    ) -> bool:
        """Whether all operands are what `wants` asks for; each that is not is reported."""
        fits = [wants(node, expr, what, frame) for node, expr in operands]
        return all(fits)

    def warn_transcendental(self, node: syntax.Expression, expr: Expr, what: str, frame: Frame) -> None:
        """Rule 4."""
        if expr.sort is Sort.FLOAT and self.reads(expr).transcendental:
            self.warn(
                f"this {what} depends on the last bit of a transcendental function",
                node.span,
                frame,
                "decide with ints, or with + - * / sqrt on floats, which every device rounds alike",
            )

    def warn(self, message: str, span: Span, frame: Frame, hint: str | None = None) -> None:
        """Reports a warning, at the call that led there where it stands in a def."""
        while frame.caller is not None and frame.call is not None:
            span, frame = frame.call, frame.caller
        self.report.warn(message, span, hint=hint)

    def error(
        self,
        message: str,
        span: Span,
        frame: Frame,
        *,
        related: tuple[Related, ...] = (),
        note: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Reports an error. One in a def's body shows the calls that led there; one in the prelude's stands at the
        call of it."""
        while frame.caller is not None and frame.definition is not None and frame.call is not None:
            name = frame.definition.name
            if frame.definition.from_prelude:
                if not frame.caller.definition or not frame.caller.definition.from_prelude:
                    related = (*related, Related(span, f"in '{name}' of the prelude"))
                    span = frame.call
            else:
                related = (*related, Related(frame.call, f"in this call of '{name}'"))
            frame = frame.caller
        self.report.error(
            message, span, related=related if len(related) <= 4 else (*related[:2], *related[-2:]), note=note, hint=hint
        )


def _quoted(node: syntax.Expression) -> str:
    text = node.span.text
    return f"'{text}'" if len(text) <= 30 and "\n" not in text else "this"
