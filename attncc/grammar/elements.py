"""Names, elements of inputs, and coordinates: the leaves of an expression."""

from __future__ import annotations

from collections.abc import Callable

from attncc.errors import Related, assert_never, did_you_mean
from attncc.grammar import syntax
from attncc.grammar.builtins import POSITIONS, SIZES
from attncc.grammar.operands import Operands
from attncc.grammar.places import EXTENT, NUMERATOR, TABLE_EXTENT
from attncc.grammar.wording import name_hint
from attncc.grammar.world import Axis, Binding, Failed, Frame, TableName, Tensor, Value
from attncc.ir.expr import Coord, Expr, Listed, Load, RowCount, RowSum, Score, Size, to_const


class Elements:
    """Checks the leaves; `value` checks the expressions inside them."""

    def __init__(self, operands: Operands, value: Callable[[syntax.Expression, Frame], Expr | None]) -> None:
        self.operands = operands
        self.world = operands.world
        self._value = value
        self._error = operands.error

    def name(self, node: syntax.Name, frame: Frame) -> Expr | None:
        """The meaning of a name that stands for a value."""
        text = node.text
        if (binding := frame.names.get(text)) is not None:
            if frame.definition is None:
                self.world.used.add(text)
            return self._bound(node, binding, frame)
        built_in = self.built_in(node)
        if built_in is not None:
            return built_in if self.operands.may_read(node, built_in, frame) else None
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
            if hint is None and frame.place is NUMERATOR:
                hint = did_you_mean(text, ("softmax",))
            if hint is None and frame.place in (EXTENT, TABLE_EXTENT):
                hint = f"an extent that is computed reads sizes, consts and params: `param {text}: int`"
            self._error(f"'{text}' is not declared", node.span, frame, hint=hint)
        return None

    def index(self, node: syntax.Index, frame: Frame) -> Expr | None:
        """`t[i, j]`: an element of an input."""
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
                if self.built_in(node.base) is None:
                    self.name(node.base, frame)
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
                self._no_elements(node.base, binding, frame)
        return None

    def attribute(self, node: syntax.Attribute, frame: Frame) -> Expr | None:
        """`q.y`: a coordinate on the grid."""
        name = self._grid_name(node, frame)
        if name is None:
            return None
        coordinate = Coord(name)
        return coordinate if self.operands.may_read(node, coordinate, frame) else None

    def len(self, node: syntax.Call, frame: Frame) -> Expr | None:
        """`len(y)`: how long an axis of the grid is."""
        axis = only_argument(node)
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
        return size if self.operands.may_read(node, size, frame) else None

    def on_grid(self, node: syntax.Call, frame: Frame) -> Expr | None:
        """`on_grid(q)`: whether the token has coordinates."""
        position = only_argument(node)
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
        if not self.operands.may_read(node, coordinate, frame):
            return None
        # Off-grid tokens have coordinates -1 (rule 1).
        return self.operands.build("ge", [coordinate, to_const(0)], [node, node], node.span, frame)

    def built_in(self, node: syntax.Name) -> Expr | None:
        """What the language itself calls by that name; None for nothing."""
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

    def _bound(self, node: syntax.Name, binding: Binding, frame: Frame) -> Expr | None:
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
                stale = version is not None and version != self.world.version and self.operands.reads(expr).score
                if stale and frame.place.score:
                    self._error(
                        f"'{node.text}' holds the score of the line where it stands, which has changed since",
                        node.span,
                        frame,
                        related=(Related(binding.span, "bound here"),),
                        hint="move the let below the last `score` line, or write it out",
                    )
                    return None
                return expr if self.operands.may_read(node, expr, frame) else None
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
                    hint=f"write `q.{node.text}` or `k.{node.text}`, or `len({node.text})` for its length",
                )
            case TableName():
                listed = Listed(node.text)
                return listed if self.operands.may_read(node, listed, frame) else None
            case Failed():
                pass
            case _:
                assert_never(binding)
        return None

    def _no_elements(self, base: syntax.Name, binding: Value | Axis, frame: Frame) -> None:
        name = base.text
        if isinstance(binding, Value) and binding.kind == "argument":
            self._error(
                f"'{name}' wants an input, and a number or a bool is given",
                base.span,
                frame,
                note="its elements are read here",
                hint="pass the name of an input, without an index",
            )
            return
        kind = binding.kind if isinstance(binding, Value) else None
        hint = f"declare it as a tensor: `input {name}: …`" if kind == "param" else None
        what = f"a {kind}" if kind else "an axis of the grid"
        self._error(f"'{name}' is {what}, which has no elements", base.span, frame, hint=hint)

    def _load(self, node: syntax.Index, tensor: Tensor, indices: list[Expr | None], frame: Frame) -> Expr | None:
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
            fine &= self.operands.wants_int(written, index, "an index", frame, "write `floor(x)`")
            if fine:
                fine = self._index_fits(written, index, extent, frame, related)
        exprs = tuple(i for i in indices if i is not None)
        if not fine or len(exprs) != len(indices):
            return None
        load = Load(declared.name, exprs, declared.sort)
        return (
            load
            if self.operands.may_read(node, load, frame) and self.operands.shallow(load, node.span, frame)
            else None
        )

    def _index_fits(
        self, node: syntax.Expression, index: Expr, extent: Expr, frame: Frame, related: tuple[Related, ...]
    ) -> bool:
        """Rule 1, and a warning where a bare position belongs to another extent."""
        if extent is Size("queries") and "q" in self.operands.reads(index).positions:
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
                right = _POSITIONS_OF.get(extent.name)
                hint = f"write {right}" if right else None
                self.operands.warn(f"an axis of {extent.name} is read at '{index.name}'", node.span, frame, hint)
        return True

    def _grid_name(self, node: syntax.Attribute, frame: Frame) -> str | None:
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


def only_argument(node: syntax.Call) -> syntax.Expression | None:
    """The argument of a call with one, given without its name."""
    if len(node.arguments) == 1 and node.arguments[0].keyword is None:
        return node.arguments[0].value
    return None


def _usual_indices(extents: tuple[str, ...]) -> str:
    return ", ".join(_USUAL_INDEX.get(e, "…") for e in extents)


_USUAL_INDEX = {"batch": "b", "heads": "h", "kv_heads": "h_kv", "queries": "row", "keys": "k"}
# Which sizes a bare position ranges over.
_EXTENTS_OF = {
    "b": ("batch",),
    "h": ("heads",),
    "h_kv": ("kv_heads",),
    "q": ("keys",),
    "k": ("keys",),
    "row": ("queries", "keys"),
}
_POSITIONS_OF = {"batch": "`b`", "heads": "`h`", "kv_heads": "`h_kv`", "queries": "`row`", "keys": "`q` or `k`"}
