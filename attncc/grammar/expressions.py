"""Syntax → typed IR for one expression: names resolved, `def`s expanded, operands converted."""

from __future__ import annotations

from collections.abc import Mapping, MutableSet
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from attncc.errors import Related, did_you_mean
from attncc.grammar import syntax
from attncc.grammar.builtins import BUILTIN_FUNCTIONS, FUNCTIONS, POSITIONS, SIZES
from attncc.grammar.constants import ConstantError, evaluate
from attncc.grammar.definitions import Definition, Definitions
from attncc.grammar.places import Place, ReadsOf, objection
from attncc.grammar.places import REQUIRE as REQUIRE_PLACE
from attncc.grammar.report import Report
from attncc.grammar.wording import (
    a_sort,
    bool_wanted,
    condition_hint,
    function_hint,
    name_hint,
    number_wanted,
)
from attncc.ir import intrinsics
from attncc.ir.expr import Coord, Expr, Listed, Load, RowCount, RowSum, Scalar, Score, Size, Sort, to_const
from attncc.ir.spec import Grid, Input, Require
from attncc.source import Span

MOST_STEPS = 20_000
DEEPEST_SYNTAX = 120
DEEPEST_EXPRESSION = 400


@dataclass(frozen=True, slots=True)
class Value:
    """A name that stands for an expression: a const, a param, an extent, a let or an argument.

    `version` counts the score lines above a `let`, whose `s` is the score of that place.
    """

    expr: Expr
    kind: str
    span: Span
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A name that stands for an input. `extents` are as written, for messages."""

    input: Input
    extents: tuple[str, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Axis:
    """A name that stands for an axis of a grid."""

    span: Span


@dataclass(frozen=True, slots=True)
class TableName:
    """A name that stands for a table of blocks."""

    span: Span


@dataclass(frozen=True, slots=True)
class Failed:
    """A name whose declaration was wrong: its uses are not reported again."""

    span: Span


Binding: TypeAlias = Value | Tensor | Axis | TableName | Failed


class TooLarge(Exception):
    """The attention expands to more than a spec may hold; it has been reported."""


@dataclass(slots=True)
class World:
    """What expressions of one attention see. The attention's checker fills it as it goes."""

    definitions: Definitions
    names: dict[str, Binding] = field(default_factory=dict)
    later: dict[str, Span] = field(default_factory=dict)
    consts: dict[str, Scalar] = field(default_factory=dict)
    grid: Grid | None = None
    grid_failed: bool = False
    used: MutableSet[str] = field(default_factory=set)
    requires: list[Require] = field(default_factory=list)
    version: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where an expression stands: in the attention itself, or in the body of a def that was called."""

    names: Mapping[str, Binding]
    definitions: Definitions
    place: Place
    level: int = 0
    definition: Definition | None = None
    call: Span | None = None
    caller: _Frame | None = None


class Expressions:
    """Checks expressions of one attention. Every method returns None where an error was reported."""

    def __init__(self, world: World, report: Report) -> None:
        self.world = world
        self.report = report
        self.reads = ReadsOf()

    def check(self, node: syntax.Expression, place: Place) -> Expr | None:
        """The typed expression of a syntax tree that stands in `place`."""
        return self._value(node, _Frame(self.world.names, self.world.definitions, place))

    def _value(self, node: syntax.Expression, frame: _Frame) -> Expr | None:
        self._step(node, frame)
        if frame.level > DEEPEST_SYNTAX:
            self._error("this expression nests too deeply", node.span, frame, hint="name its parts with `let`")
            return None
        frame = _deeper(frame)
        match node:
            case syntax.Literal(value=value):
                return to_const(value)
            case syntax.Name():
                return self._name(node, frame)
            case syntax.Unary():
                return self._unary(node, frame)
            case syntax.Binary():
                return self._binary(node, frame)
            case syntax.Compare():
                return self._compare(node, frame)
            case syntax.Conditional():
                return self._conditional(node, frame)
            case syntax.Index():
                return self._index(node, frame)
            case syntax.Attribute():
                return self._attribute(node, frame)
            case syntax.Call():
                return self._call(node, frame)
            case _:
                assert_never(node)

    def _step(self, node: syntax.Expression, frame: _Frame) -> None:
        self.world.steps += 1
        if self.world.steps > MOST_STEPS:
            self._error(
                f"this attention expands to more than {MOST_STEPS} operations",
                node.span,
                frame,
                note="a def is expanded at every call",
            )
            raise TooLarge

    # Names

    def _name(self, node: syntax.Name, frame: _Frame) -> Expr | None:
        text = node.text
        if (binding := frame.names.get(text)) is not None:
            if frame.definition is None:
                self.world.used.add(text)
            return self._bound(node, binding, frame)
        built_in = self._built_in(node)
        if built_in is not None:
            return built_in if self._may_read(node, built_in, frame) else None
        if text == "p":
            self._error("'p' stands only in reweight", node.span, frame)
        elif text == "query_blocks":
            if frame.place.query_blocks:
                return Size("query_blocks")
            self._error("'query_blocks' stands only in the extents of a table", node.span, frame)
        elif frame.definition is None and text in self.world.later:
            below = Related(self.world.later[text], "declared here")
            self._error(f"'{text}' is declared further down", node.span, frame, related=(below,), hint="move it up")
        else:
            hint = name_hint(text, frame.names, frame.definitions, self.world.grid)
            self._error(f"'{text}' is not declared", node.span, frame, hint=hint)
        return None

    def _built_in(self, node: syntax.Name) -> Expr | None:
        match node.text:
            case "s":
                return Score()
            case "total":
                return RowSum()
            case "count":
                return RowCount()
            case "inf":
                return to_const(float("inf"))
            case text if text in POSITIONS:
                return Coord(text)
            case text if text in SIZES:
                return Size(text)
        return None

    def _bound(self, node: syntax.Name, binding: Binding, frame: _Frame) -> Expr | None:
        match binding:
            case Value(expr=expr, kind=kind, version=version):
                if kind not in ("const", "argument") and not frame.place.run_time:
                    self._error(
                        f"'{node.text}' is a {kind}, known only at the call; {frame.place.name} is known before",
                        node.span,
                        frame,
                        hint=f"declare it as a const: `const {node.text}: {expr.sort.value} = …`",
                    )
                    return None
                stale = version is not None and version != self.world.version and self.reads(expr).score
                if stale and frame.place.score:
                    self._error(
                        f"'{node.text}' holds the score of the line where it stands, which has changed since",
                        node.span,
                        frame,
                        related=(Related(binding.span, "bound here"),),
                        hint="move the let below the last `score` line, or write it out",
                    )
                    return None
                return expr if self._may_read(node, expr, frame) else None
            case Tensor(extents=extents, span=span):
                self._error(
                    f"'{node.text}' is a tensor; an expression reads one element of it",
                    node.span,
                    frame,
                    related=(Related(span, "declared here"),),
                    hint=f"write `{node.text}[{_usual_indices(extents)}]`",
                )
            case Axis():
                self._error(
                    f"'{node.text}' is an axis of the grid, not a value",
                    node.span,
                    frame,
                    hint=f"write `q.{node.text}` or `k.{node.text}` for a coordinate, `len({node.text})` for its length",
                )
            case TableName():
                listed = Listed(node.text)
                return listed if self._may_read(node, listed, frame) else None
            case Failed():
                pass
            case _:
                assert_never(binding)
        return None

    def _may_read(self, node: syntax.Expression, expr: Expr, frame: _Frame) -> bool:
        why = objection(self.reads(expr), frame.place)
        run_time = self.reads(expr).run_time and not frame.place.run_time
        if why is None and not run_time:
            return True
        if why is None:
            why = f"is known only at the call; {frame.place.name} is known before"
        elif isinstance(node, syntax.Name) and f"'{node.text}'" in why:
            why = f"cannot stand in {frame.place.name}"
        hint = None
        if isinstance(expr, Coord) and expr.name == "q" and frame.place.positions and "row" in frame.place.positions:
            hint = "write `row`, the index among the queries of this call"
        self._error(f"{_quoted(node)} {why}", node.span, frame, hint=hint)
        return False

    # Operators

    def _unary(self, node: syntax.Unary, frame: _Frame) -> Expr | None:
        operand = self._value(node.operand, frame)
        if operand is None:
            return None
        match node.operator:
            case "not":
                if not self._wants_bool(node.operand, operand, "'not'", frame):
                    return None
                return self._build("not", [operand], [node.operand], node.span, frame)
            case "~":
                if not self._wants_int(node.operand, operand, "'~'", frame):
                    return None
                return self._build("bitnot", [operand], [node.operand], node.span, frame)
            case _:
                if not self._wants_number(node.operand, operand, f"'{node.operator}'", frame):
                    return None
                if node.operator == "+":
                    return operand
                if isinstance(node.operand, syntax.Literal):
                    return to_const(-node.operand.value)
                return self._build("neg", [operand], [node.operand], node.span, frame)

    def _binary(self, node: syntax.Binary, frame: _Frame) -> Expr | None:
        # A chain of any length nests to the left; it is walked, not recursed into.
        spine = [node]
        while isinstance(spine[-1].left, syntax.Binary):
            spine.append(spine[-1].left)
        first: syntax.Expression = spine[-1].left
        left = self._value(first, frame)
        for part in reversed(spine):
            self._step(part, frame)
            right = self._value(part.right, frame)
            left = None if left is None or right is None else self._apply(part, left, right, frame)
        return left

    def _apply(self, node: syntax.Binary, left: Expr, right: Expr, frame: _Frame) -> Expr | None:
        operator = node.operator
        shown = f"'{operator}'"
        sides = ((node.left, left), (node.right, right))
        if operator in ("and", "or"):
            fits = all([self._wants_bool(n, e, shown, frame) for n, e in sides])
        elif operator in ("&", "|", "^", "<<", ">>"):
            if left.sort is Sort.BOOL and right.sort is Sort.BOOL:
                word = {"&": "and", "|": "or", "^": "!="}.get(operator, "and")
                hint = f"write `{word}`"
                self._error(f"{shown} works on the bits of ints, not on bools", node.operator_span, frame, hint=hint)
                return None
            fits = all([self._wants_int(n, e, shown, frame) for n, e in sides])
        else:
            fits = all([self._wants_number(n, e, shown, frame) for n, e in sides])
            if fits and operator in ("//", "%"):
                fits = all([self._wants_int(n, e, shown, frame) for n, e in sides])
            if fits and operator in ("/", "//", "%"):
                fits = self._divides(node.right, right, frame)
        if not fits:
            return None
        return self._build(_OPERATIONS[operator], [left, right], [node.left, node.right], node.span, frame)

    def _divides(self, node: syntax.Expression, divisor: Expr, frame: _Frame) -> bool:
        """Rule 2: a divisor that is a constant zero is an error."""
        try:
            value = evaluate(divisor, self.world.consts)
        except ConstantError:
            return True
        if value is None or value != 0:
            return True
        self._error("this divisor is always zero", node.span, frame)
        return False

    def _compare(self, node: syntax.Compare, frame: _Frame) -> Expr | None:
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
                self._warn_transcendental(n, e, "comparison", frame)
            link = self._build(_OPERATIONS[operator], [left, right], list(node.operands[i : i + 2]), both, frame)
            if link is None:
                failed = True
            elif result is None:
                result = link
            else:
                result = self._build("and", [result, link], [node, node], node.span, frame)
        return None if failed else result

    def _comparable(
        self, operator: str, span: Span, sides: tuple[tuple[syntax.Expression, Expr], ...], frame: _Frame
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

    def _conditional(self, node: syntax.Conditional, frame: _Frame) -> Expr | None:
        condition = self._value(node.condition, frame)
        yes, no = self._value(node.yes, frame), self._value(node.no, frame)
        if condition is None or not self._wants_bool(node.condition, condition, "the condition of 'if'", frame):
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
        return self._build("where", [condition, yes, no], nodes, node.span, frame)

    # Elements and coordinates

    def _index(self, node: syntax.Index, frame: _Frame) -> Expr | None:
        indices = [self._value(index, frame) for index in node.indices]
        if not isinstance(node.base, syntax.Name):
            self._error("only an input can be indexed", node.base.span, frame)
            return None
        name = node.base.text
        binding = frame.names.get(name)
        if frame.definition is None:
            self.world.used.add(name)
        match binding:
            case Tensor():
                return self._load(node, binding, indices, frame)
            case Failed():
                return None
            case None:
                if self._built_in(node.base) is None:
                    self._name(node.base, frame)
                    return None
                self._error(f"'{name}' is built in and has no elements", node.base.span, frame)
            case TableName():
                self._error(
                    f"'{name}' is a table of blocks; its name alone says whether the tile is listed",
                    node.span,
                    frame,
                    hint=f"write `{name}`",
                )
            case _:
                kind = binding.kind if isinstance(binding, Value) else "axis"
                self._error(f"'{name}' is a {kind}, which has no elements", node.base.span, frame)
        return None

    def _load(self, node: syntax.Index, tensor: Tensor, indices: list[Expr | None], frame: _Frame) -> Expr | None:
        declared = tensor.input
        related = (Related(tensor.span, "declared here"),)
        if len(indices) != len(declared.extents):
            axes = f"{len(declared.extents)} ax{'is' if len(declared.extents) == 1 else 'es'}"
            given = f"{len(indices)} ind{'ex' if len(indices) == 1 else 'ices'}"
            self._error(
                f"'{declared.name}' has {axes} and is read with {given}",
                node.span,
                frame,
                related=related,
                hint=f"its axes are [{', '.join(tensor.extents)}]",
            )
            return None
        fine = True
        for written, index, extent in zip(node.indices, indices, declared.extents, strict=True):
            if index is None:
                fine = False
                continue
            fine &= self._wants_int(written, index, "an index", frame, "write `floor(x)`")
            if fine:
                fine = self._index_fits(written, index, extent, frame, related)
        exprs = tuple(i for i in indices if i is not None)
        if not fine or len(exprs) != len(indices):
            return None
        load = Load(declared.name, exprs, declared.sort)
        return load if self._may_read(node, load, frame) and self._shallow(load, node.span, frame) else None

    def _index_fits(
        self, node: syntax.Expression, index: Expr, extent: Expr, frame: _Frame, related: tuple[Related, ...]
    ) -> bool:
        """Rule 1, and a warning where a bare position belongs to another extent."""
        if extent is Size("queries") and "q" in self.reads(index).positions:
            self._error(
                "this axis is as long as the queries of one call, and 'q' counts from q_offset",
                node.span,
                frame,
                related=related,
                hint="index it by `row`, or declare the axis as `keys`",
            )
            return False
        if isinstance(index, Coord) and isinstance(extent, Size):
            extents = _EXTENTS_OF.get(index.name)
            if extents is not None and extent.name in SIZES and extent.name not in extents:
                right = next((p for p, sizes in _EXTENTS_OF.items() if extent.name in sizes), None)
                hint = f"write `{right}`" if right else None
                self._warn(f"an axis of {extent.name} is read at '{index.name}'", node.span, frame, hint)
        return True

    def _attribute(self, node: syntax.Attribute, frame: _Frame) -> Expr | None:
        name = self._grid_name(node, frame)
        if name is None:
            return None
        coordinate = Coord(name)
        return coordinate if self._may_read(node, coordinate, frame) else None

    def _grid_name(self, node: syntax.Attribute, frame: _Frame) -> str | None:
        """`q.y` where that is a coordinate."""
        if not isinstance(node.base, syntax.Name) or node.base.text not in ("q", "k"):
            hint = f"write `q.{node.name.text}` or `k.{node.name.text}`"
            self._error("only 'q' and 'k' have grid coordinates", node.base.span, frame, hint=hint)
            return None
        grid = self.world.grid
        if grid is None:
            if not self.world.grid_failed:
                self._error(
                    f"'{node.span.text}' needs a grid, and none is declared",
                    node.span,
                    frame,
                    hint=f"add the statement `grid {node.name.text}, …` with an axis for each dimension",
                )
            return None
        axes = grid.queries if node.base.text == "q" else grid.keys
        if node.name.text not in axes:
            self._error(
                f"the grid of '{node.base.text}' has no axis '{node.name.text}'",
                node.name.span,
                frame,
                note=f"its axes are {', '.join(axes)}",
                hint=did_you_mean(node.name.text, axes),
            )
            return None
        if isinstance(self.world.names.get(node.name.text), Axis):
            self.world.used.add(node.name.text)
        return f"{node.base.text}.{node.name.text}"

    # Calls

    def _call(self, node: syntax.Call, frame: _Frame) -> Expr | None:
        if not isinstance(node.function, syntax.Name):
            self._error("only a function can be called", node.function.span, frame)
            return None
        name = node.function.text
        match name:
            case "len":
                return self._len(node, frame)
            case "on_grid":
                return self._on_grid(node, frame)
            case "random":
                self._reserved(node, "random numbers in a spec are", frame)
            case "dot":
                self._reserved(node, "a second product of queries and keys is", frame)
            case _ if name in FUNCTIONS:
                return self._built_in_call(node, name, frame)
            case _ if (definition := frame.definitions.find(name)) is not None:
                return self._expand(node, definition, frame)
            case _ if frame.definitions.broken & {name, "*"}:
                pass
            case _ if name in frame.names or self._built_in(node.function) is not None:
                self._error(f"'{name}' is not a function", node.function.span, frame, hint=_index_hint(node, frame))
            case _:
                known = (*BUILTIN_FUNCTIONS, *frame.definitions.names())
                hint = function_hint(name, known)
                self._error(f"there is no function '{name}'", node.function.span, frame, hint=hint)
        for argument in node.arguments:
            self._argument(argument, frame)
        return None

    def _reserved(self, node: syntax.Call, what: str, frame: _Frame) -> None:
        self._error(f"{what} reserved for a later version of the language", node.span, frame)

    def _len(self, node: syntax.Call, frame: _Frame) -> Expr | None:
        axis = _only_argument(node)
        grid = self.world.grid
        match axis:
            case syntax.Attribute():
                name = self._grid_name(axis, frame)
            case syntax.Name(text=text) if grid is not None:
                sides = [side for side, axes in (("q", grid.queries), ("k", grid.keys)) if text in axes]
                if len(sides) == 2 and grid.queries != grid.keys:
                    self._error(
                        f"both grids have an axis '{text}'",
                        axis.span,
                        frame,
                        hint=f"write `len(q.{text})` or `len(k.{text})`",
                    )
                    return None
                name = f"{sides[0]}.{text}" if sides else None
                if name is None:
                    axes = (*grid.queries, *grid.keys)
                    self._error(f"the grid has no axis '{text}'", axis.span, frame, hint=did_you_mean(text, axes))
                else:
                    self.world.used.add(text)
            case _:
                name = None
                if not (self.world.grid_failed and isinstance(axis, syntax.Name)):
                    self._error(
                        "'len' takes one axis of a grid: len(y) or len(q.y)",
                        node.span,
                        frame,
                        hint="add the statement `grid y, x`" if grid is None else None,
                    )
        if name is None:
            return None
        size = Size(name)
        return size if self._may_read(node, size, frame) else None

    def _on_grid(self, node: syntax.Call, frame: _Frame) -> Expr | None:
        position = _only_argument(node)
        grid = self.world.grid
        if not isinstance(position, syntax.Name) or position.text not in ("q", "k"):
            self._error("'on_grid' takes the position 'q' or 'k'", node.span, frame)
            return None
        if grid is None:
            if not self.world.grid_failed:
                self._error("'on_grid' needs a grid, and none is declared", node.span, frame, hint="add `grid y, x`")
            return None
        axes = grid.queries if position.text == "q" else grid.keys
        coordinate = Coord(f"{position.text}.{axes[0]}")
        if not self._may_read(node, coordinate, frame):
            return None
        # Off-grid tokens have coordinates -1 (rule 1).
        return self._build("ge", [coordinate, to_const(0)], [node, node], node.span, frame)

    def _built_in_call(self, node: syntax.Call, name: str, frame: _Frame) -> Expr | None:
        formals = FUNCTIONS[name]
        slots: dict[int, syntax.Expression] = {}
        wrong = False
        for position, argument in enumerate(node.arguments):
            slot = position
            if argument.keyword is not None:
                word = argument.keyword.text
                if word not in formals:
                    hint = did_you_mean(word, formals) or f"write `{name}({', '.join(_shown_formals(formals))})`"
                    self._error(f"'{name}' has no argument '{word}'", argument.keyword.span, frame, hint=hint)
                    wrong = True
                    continue
                slot = formals.index(word)
            if slot in slots:
                self._error(f"argument '{formals[slot]}' is given twice", argument.span, frame)
                wrong = True
            slots[slot] = argument.value
        variadic = formals == ("*",)
        count_fits = len(slots) >= 2 if variadic else set(slots) == set(range(len(formals)))
        if not wrong and not count_fits:
            wanted = "two or more arguments" if variadic else f"{len(formals)} argument{'s' * (len(formals) > 1)}"
            hint = f"write `{name}({', '.join(_shown_formals(formals))})`"
            self._error(
                f"'{name}' takes {wanted}, and {len(slots)} {'is' if len(slots) == 1 else 'are'} given",
                node.span,
                frame,
                hint=hint,
            )
            wrong = True
        nodes = [slots[i] for i in sorted(slots)]
        values = [self._value(n, frame) for n in nodes]
        operands = [v for v in values if v is not None]
        if wrong or len(operands) != len(values):
            return None
        if not all([self._wants_number(n, e, f"'{name}'", frame) for n, e in zip(nodes, operands, strict=True)]):
            return None
        if name in ("floor", "ceil"):
            self._warn_transcendental(nodes[0], operands[0], "rounding to an int", frame)
        result: Expr | None = operands[0]
        if not variadic:
            return self._build(name, operands, nodes, node.span, frame)
        for operand, written in zip(operands[1:], nodes[1:], strict=True):
            if result is not None:
                result = self._build(name, [result, operand], [node, written], node.span, frame)
        return result

    def _argument(self, argument: syntax.Argument, frame: _Frame) -> Binding:
        """An argument's value; a tensor may be passed whole, by its name."""
        if isinstance(argument.value, syntax.Name):
            binding = frame.names.get(argument.value.text)
            if isinstance(binding, Tensor):
                if frame.definition is None:
                    self.world.used.add(argument.value.text)
                return binding
        value = self._value(argument.value, frame)
        return Failed(argument.span) if value is None else Value(value, "argument", argument.span)

    def _expand(self, node: syntax.Call, definition: Definition, frame: _Frame) -> Expr | None:
        formals = definition.syntax.formals
        by_name = {f.name.text: f for f in formals}
        given: dict[str, Binding] = {}
        wrong = definition.broken
        related = () if definition.from_prelude else (Related(definition.syntax.name.span, "defined here"),)
        for position, argument in enumerate(node.arguments):
            binding = self._argument(argument, frame)
            if argument.keyword is not None:
                name, span = argument.keyword.text, argument.keyword.span
                if name not in by_name:
                    hint = did_you_mean(name, by_name) or f"write `{definition.signature}`"
                    self._error(
                        f"'{definition.name}' has no argument '{name}'", span, frame, related=related, hint=hint
                    )
                    wrong = True
                    continue
            elif position < len(formals):
                name = formals[position].name.text
            else:
                takes = f"{len(formals) or 'no'} argument{'s' * (len(formals) != 1)}"
                message = f"'{definition.name}' takes {takes}, and {len(node.arguments)} are given"
                if len(node.arguments) == 1:
                    message = message.replace("are given", "is given")
                self._error(message, argument.span, frame, related=related, hint=f"write `{definition.signature}`")
                wrong = True
                break
            if name in given:
                self._error(f"argument '{name}' is given twice", argument.span, frame)
                wrong = True
            given[name] = binding
        missing = [f.name.text for f in formals if f.default is None and f.name.text not in given]
        if missing and not wrong:
            names = " and ".join(f"'{m}'" for m in missing)
            hint = f"write `{definition.signature}`"
            self._error(f"'{definition.name}' wants {names}", node.span, frame, related=related, hint=hint)
            wrong = True
        if wrong or any(isinstance(b, Failed) for b in given.values()):
            return None
        return self._inline(node, definition, given, frame)

    def _inline(
        self, node: syntax.Call, definition: Definition, given: dict[str, Binding], caller: _Frame
    ) -> Expr | None:
        names: dict[str, Binding] = {}
        frame = _Frame(names, definition.scope, caller.place, caller.level, definition, node.span, caller)
        for formal in definition.syntax.formals:
            binding = given.get(formal.name.text)
            if binding is None:
                assert formal.default is not None, "missing arguments are reported before"
                binding = self._argument(syntax.Argument(formal.span, None, formal.default), frame)
                if isinstance(binding, Failed):
                    return None
            names[formal.name.text] = binding
        for require in definition.syntax.requires:
            place = Place(f"a requirement of '{definition.name}'", positions=frozenset(), loads=False)
            scalar = _Frame(names, definition.scope, place, caller.level, definition, node.span, caller)
            self._require(require, self._value(require.condition, scalar), node.span, scalar)
        return self._value(definition.syntax.body, frame)

    def require(self, statement: syntax.Require) -> None:
        """Adds a requirement of the attention itself."""
        frame = _Frame(self.world.names, self.world.definitions, REQUIRE_PLACE)
        self._require(statement, self._value(statement.condition, frame), statement.span, frame)

    def _require(self, statement: syntax.Require, condition: Expr | None, span: Span, frame: _Frame) -> None:
        if condition is None or not self._wants_bool(statement.condition, condition, "'require'", frame):
            return
        try:
            holds = evaluate(condition, {})
        except ConstantError:
            holds = None
        if holds is False:
            self._error(f"this can never hold: {statement.message.text}", statement.condition.span, frame)
        required = Require(condition, statement.message.text, span)
        if holds is None and required not in self.world.requires:
            self.world.requires.append(required)

    # Typing

    def _build(
        self, op: str, operands: list[Expr], nodes: list[syntax.Expression], span: Span, frame: _Frame
    ) -> Expr | None:
        try:
            built = intrinsics.call(op, *operands)
        except intrinsics.TypingError as problem:
            where = span if problem.operand is None else nodes[problem.operand].span
            self._error(str(problem), where, frame)
            return None
        return built if self._shallow(built, span, frame) else None

    def _shallow(self, expr: Expr, span: Span, frame: _Frame) -> bool:
        if self.reads(expr).depth <= DEEPEST_EXPRESSION:
            return True
        self._error(f"this expression is more than {DEEPEST_EXPRESSION} operations deep", span, frame)
        return False

    def _wants_bool(self, node: syntax.Expression, expr: Expr, what: str, frame: _Frame) -> bool:
        if expr.sort is Sort.BOOL:
            return True
        self._error(bool_wanted(what, expr.sort), node.span, frame, hint=condition_hint(expr.sort))
        return False

    def _wants_number(self, node: syntax.Expression, expr: Expr, what: str, frame: _Frame) -> bool:
        if expr.sort is not Sort.BOOL:
            return True
        self._error(number_wanted(what), node.span, frame, hint="write `1 if condition else 0` to count with it")
        return False

    def _wants_int(
        self, node: syntax.Expression, expr: Expr, what: str, frame: _Frame, hint: str | None = None
    ) -> bool:
        if expr.sort is Sort.INT:
            return True
        if hint is None and what == "'//'":
            hint = "write `floor(x / y)`"
        if expr.sort is Sort.BOOL:
            hint = "write `1 if condition else 0` to count with it"
        self._error(f"{what} wants an int, and this is {a_sort(expr.sort)}", node.span, frame, hint=hint)
        return False

    # Messages

    def _warn_transcendental(self, node: syntax.Expression, expr: Expr, what: str, frame: _Frame) -> None:
        """Rule 4."""
        if expr.sort is Sort.FLOAT and self.reads(expr).transcendental:
            self._warn(
                f"this {what} depends on the last bit of a transcendental function",
                node.span,
                frame,
                "decide with ints, or with + - * / sqrt on floats, which every device rounds alike",
            )

    def _warn(self, message: str, span: Span, frame: _Frame, hint: str | None = None) -> None:
        while frame.caller is not None and frame.call is not None:
            span, frame = frame.call, frame.caller
        self.report.warn(message, span, hint=hint)

    def _error(
        self,
        message: str,
        span: Span,
        frame: _Frame,
        *,
        related: tuple[Related, ...] = (),
        note: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Reports an error; one in a def's body shows the calls that led there, one in the prelude stands at its call."""
        while frame.caller is not None and frame.definition is not None and frame.call is not None:
            name = frame.definition.name
            if frame.definition.from_prelude:
                if not frame.caller.definition or not frame.caller.definition.from_prelude:
                    related = (*related, Related(span, f"in '{name}' of the prelude"))
                    span = frame.call
            else:
                related = (*related, Related(frame.call, f"in this call of '{name}'"))
            frame = frame.caller
        self.report.error(message, span, related=related[:4], note=note, hint=hint)


def _deeper(frame: _Frame) -> _Frame:
    return _Frame(
        frame.names,
        frame.definitions,
        frame.place,
        frame.level + 1,
        frame.definition,
        frame.call,
        frame.caller,
    )


def _quoted(node: syntax.Expression) -> str:
    text = node.span.text
    return f"'{text}'" if len(text) <= 30 and "\n" not in text else "this"


def _only_argument(node: syntax.Call) -> syntax.Expression | None:
    if len(node.arguments) == 1 and node.arguments[0].keyword is None:
        return node.arguments[0].value
    return None


def _shown_formals(formals: tuple[str, ...]) -> tuple[str, ...]:
    return ("x", "y") if formals == ("*",) else formals


def _usual_indices(extents: tuple[str, ...]) -> str:
    return ", ".join(_USUAL_INDEX.get(e, "…") for e in extents)


def _index_hint(node: syntax.Call, frame: _Frame) -> str | None:
    name = node.function
    if isinstance(name, syntax.Name) and isinstance(frame.names.get(name.text), Tensor) and node.arguments:
        return f"an element is read with brackets: `{name.text}[{', '.join(a.span.text for a in node.arguments)}]`"
    return None


_USUAL_INDEX = {"batch": "b", "heads": "h", "kv_heads": "h_kv", "queries": "row", "keys": "k"}
# Which sizes a bare position ranges over.
_EXTENTS_OF = {
    "b": ("batch",),
    "h": ("heads",),
    "h_kv": ("kv_heads",),
    "q": ("keys", "queries"),
    "k": ("keys",),
    "row": ("queries", "keys"),
}
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
