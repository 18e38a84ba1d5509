"""Syntax → typed IR for one expression: names resolved, `def`s expanded, operands converted."""

from __future__ import annotations

from attncc.errors import Related, assert_never
from attncc.grammar import syntax
from attncc.grammar.calls import Calls
from attncc.grammar.elements import Elements
from attncc.grammar.operands import Operands
from attncc.grammar.places import REQUIRE, Place, Reads
from attncc.grammar.report import Report
from attncc.grammar.wording import a_sort
from attncc.grammar.world import Frame, TooLarge, World
from attncc.ir.expr import Const, Expr, Sort, to_const
from attncc.source import Span

MOST_STEPS = 20_000
DEEPEST_SYNTAX = 120


class Expressions:
    """Checks expressions of one attention. Every method returns None where an error was reported."""

    def __init__(self, world: World, report: Report) -> None:
        self.world = world
        self.operands = Operands(world, report)
        self.elements = Elements(self.operands, self._value)
        self.calls = Calls(self.operands, self.elements, self._value)
        self._error = self.operands.error

    def reads(self, expr: Expr) -> Reads:
        """What an expression reads."""
        return self.operands.reads(expr)

    def check(self, node: syntax.Expression, place: Place) -> Expr | None:
        """The typed expression of a syntax tree that stands in `place`."""
        return self._value(node, Frame(self.world.names, self.world.definitions, place))

    def require(self, statement: syntax.Require) -> None:
        """Adds a requirement of the attention itself."""
        frame = Frame(self.world.names, self.world.definitions, REQUIRE)
        self.calls.require(statement, self._value(statement.condition, frame), statement.span, frame)

    def _value(self, node: syntax.Expression, frame: Frame) -> Expr | None:
        self._step(node, frame)
        if frame.level > DEEPEST_SYNTAX:
            self._error("this expression nests too deeply", node.span, frame, hint="name its parts with `let`")
            return None
        frame = frame.deeper()
        match node:
            case syntax.Literal(value=value):
                return to_const(value)
            case syntax.Name():
                return self.elements.name(node, frame)
            case syntax.Unary():
                return self._unary(node, frame)
            case syntax.Binary():
                return self._binary(node, frame)
            case syntax.Compare():
                return self._compare(node, frame)
            case syntax.Conditional():
                return self._conditional(node, frame)
            case syntax.Index():
                return self.elements.index(node, frame)
            case syntax.Attribute():
                return self.elements.attribute(node, frame)
            case syntax.Call():
                return self.calls.call(node, frame)
            case _:
                assert_never(node)

    def _step(self, node: syntax.Expression, frame: Frame) -> None:
        self.world.steps += 1
        if self.world.steps > MOST_STEPS:
            self._error(
                f"this attention expands to more than {MOST_STEPS} operations",
                node.span,
                frame,
                note="a def is expanded at every call",
            )
            raise TooLarge

    def _unary(self, node: syntax.Unary, frame: Frame) -> Expr | None:
        operand = self._value(node.operand, frame)
        if operand is None:
            return None
        match node.operator:
            case "not":
                if not self.operands.wants_bool(node.operand, operand, "'not'", frame):
                    return None
                return self.operands.build("not", [operand], [node.operand], node.span, frame)
            case "~":
                if not self.operands.wants_int(node.operand, operand, "'~'", frame):
                    return None
                return self.operands.build("bitnot", [operand], [node.operand], node.span, frame)
            case _:
                if not self.operands.wants_number(node.operand, operand, f"'{node.operator}'", frame):
                    return None
                if node.operator == "+":
                    return operand
                if isinstance(node.operand, syntax.Literal):
                    return to_const(-node.operand.value)
                return self.operands.build("neg", [operand], [node.operand], node.span, frame)

    def _binary(self, node: syntax.Binary, frame: Frame) -> Expr | None:
        # A chain of any length nests to the left; it is walked, not recursed into.
        spine = [node]
        while isinstance(spine[-1].left, syntax.Binary):
            spine.append(spine[-1].left)
        first: syntax.Expression = spine[-1].left
        left = self._value(first, frame)
        for part in reversed(spine):
            self._step(part, frame)
            right = self._value(part.right, frame)
            left = self._apply(part, left, right, frame)
        return left

    def _apply(self, node: syntax.Binary, left: Expr | None, right: Expr | None, frame: Frame) -> Expr | None:
        operator = node.operator
        shown = f"'{operator}'"
        # Where one side is wrong, the other is still told what it should be.
        sides = [(n, e) for n, e in ((node.left, left), (node.right, right)) if e is not None]
        if operator in ("and", "or"):
            fits = self.operands.all_want(self.operands.wants_bool, sides, shown, frame)
        elif operator in ("&", "|", "^", "<<", ">>"):
            if left is not None and right is not None and left.sort is right.sort is Sort.BOOL:
                word = {"&": "and", "|": "or", "^": "!="}.get(operator, "and")
                hint = f"write `{word}`"
                self._error(f"{shown} works on the bits of ints, not on bools", node.operator_span, frame, hint=hint)
                return None
            fits = self.operands.all_want(self.operands.wants_int, sides, shown, frame)
        else:
            fits = self.operands.all_want(self.operands.wants_number, sides, shown, frame)
            if fits and operator in ("//", "%"):
                fits = self.operands.all_want(self.operands.wants_int, sides, shown, frame)
            if fits and right is not None and operator in ("/", "//", "%"):
                fits = self.operands.divides(node.right, right, frame)
        if not fits or left is None or right is None:
            return None
        return self.operands.build(_OPERATIONS[operator], [left, right], [node.left, node.right], node.span, frame)

    def _compare(self, node: syntax.Compare, frame: Frame) -> Expr | None:
        self._warn_bits_between(node)
        operands = [self._value(operand, frame) for operand in node.operands]
        result: Expr | None = None
        failed = False
        for i, (operator, span) in enumerate(node.operators):
            left, right = operands[i], operands[i + 1]
            if left is None or right is None:
                failed = True
                continue
            sides = ((node.operands[i], left), (node.operands[i + 1], right))
            both = node.operands[i].span.to(node.operands[i + 1].span)
            if not self._comparable(operator, span, sides, frame):
                failed = True
                continue
            for n, e in sides:
                self.operands.warn_transcendental(n, e, "comparison", frame)
            if isinstance(left, Const) and not isinstance(right, Const):
                # Python turns `0 <= q` into `q >= 0` before a traced function sees it; one spec has one tree.
                operator, sides = _MIRRORED[operator], sides[::-1]
            exprs, nodes = [e for _, e in sides], [n for n, _ in sides]
            link = self.operands.build(_OPERATIONS[operator], exprs, nodes, both, frame)
            if link is None:
                failed = True
            elif result is None:
                result = link
            else:
                result = self.operands.build("and", [result, link], [node, node], node.span, frame)
        return None if failed else result

    def _warn_bits_between(self, node: syntax.Compare) -> None:
        """`a >= b & c < d` is `a >= (b & c) < d`, as in Python, and hardly ever meant."""
        for operand in node.operands[1:-1]:
            written = operand.span.text
            if isinstance(operand, syntax.Binary) and operand.operator in ("&", "|") and not written.startswith("("):
                self.operands.report.warn(
                    f"'{operand.operator}' binds tighter than comparisons: this compares with the bits of `{written}`",
                    operand.operator_span,
                    hint=f"write `{'and' if operand.operator == '&' else 'or'}` between conditions",
                )

    def _comparable(
        self, operator: str, span: Span, sides: tuple[tuple[syntax.Expression, Expr], ...], frame: Frame
    ) -> bool:
        bools = [(n, e) for n, e in sides if e.sort is Sort.BOOL]
        if not bools or (len(bools) == 2 and operator in ("==", "!=")):
            return True
        if len(bools) == 2:
            self._error(
                f"'{operator}' orders numbers, and both sides are bools",
                span,
                frame,
                hint="write `a <= b` with numbers, or combine conditions with `and`, `or`, `not`",
            )
            return False
        other = next(e for _, e in sides if e.sort is not Sort.BOOL)
        self._error(
            f"'{operator}' compares a bool with {a_sort(other.sort)}",
            span,
            frame,
            hint="a bool is a condition already; for `a == 1` write `a`, for `a == 0` write `not a`",
        )
        return False

    def _conditional(self, node: syntax.Conditional, frame: Frame) -> Expr | None:
        condition = self._value(node.condition, frame)
        yes, no = self._value(node.yes, frame), self._value(node.no, frame)
        if condition is None or not self.operands.wants_bool(node.condition, condition, "the condition of 'if'", frame):
            return None
        if yes is None or no is None:
            return None
        if (yes.sort is Sort.BOOL) != (no.sort is Sort.BOOL):
            self._error(
                f"the two results of 'if' differ: {a_sort(yes.sort)} and {a_sort(no.sort)}",
                node.no.span,
                frame,
                related=(Related(node.yes.span, f"{a_sort(yes.sort)}"),),
            )
            return None
        nodes = [node.condition, node.yes, node.no]
        return self.operands.build("where", [condition, yes, no], nodes, node.span, frame)


_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_OPERATIONS = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "//": "floordiv",
    "%": "mod",
    "**": "pow",
    "&": "bitand",
    "|": "bitor",
    "^": "bitxor",
    "<<": "shl",
    ">>": "shr",
    "and": "and",
    "or": "or",
    "==": "eq",
    "!=": "ne",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
}
