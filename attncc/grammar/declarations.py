"""What an attention declares before anything is computed: consts, params, extents, the grid, inputs, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attncc.errors import Related, did_you_mean
from attncc.grammar import syntax
from attncc.grammar.builtins import BUILTINS, CALL_ARGUMENTS, RESERVED_FUNCTIONS, SORTS
from attncc.grammar.constants import ConstantError, evaluate
from attncc.grammar.expressions import Expressions
from attncc.grammar.places import BOUND, CONSTANT, EXTENT, TABLE_EXTENT, Place
from attncc.grammar.report import Report
from attncc.grammar.wording import a_sort
from attncc.grammar.world import Axis, Binding, Failed, TableName, Tensor, Value, World
from attncc.ir.expr import Expr, Param, Scalar, Size, Sort
from attncc.ir.spec import Constant, Grid, Input, Parameter, RangeFact, SortedFact, Table
from attncc.source import Span


class Declarations:
    """Checks the declaring statements of one attention, in an order that lets each see what it may name."""

    def __init__(self, world: World, expressions: Expressions, report: Report) -> None:
        self.world = world
        self.expressions = expressions
        self.report = report
        self.constants: list[Constant] = []
        self.params: list[Parameter] = []
        self.extents: dict[str, Span] = {}
        self.inputs: list[Input] = []
        self.tables: list[Table] = []

    def declare(self, name: syntax.Name, binding: Binding) -> bool:
        """Gives a name its meaning; False, and an error, where it is taken."""
        text = name.text
        taken = None
        if text in BUILTINS and text not in RESERVED_FUNCTIONS:
            taken = f"'{text}' is built in and cannot be declared"
        elif text in CALL_ARGUMENTS:
            taken = f"'{text}' is an argument of every call and cannot be declared"
        if taken is not None:
            self.report.error(taken, name.span, hint="choose another name")
            return False
        first = self.world.names.get(text)
        if first is not None:
            related = (Related(first.span, "first declared here"),)
            self.report.error(f"'{text}' is declared twice", name.span, related=related)
            return False
        self.world.names[text] = binding
        return True

    def collect(self, statements: Sequence[syntax.InAttention]) -> None:
        """Checks all declarations. Uses may stand above them; only a const must be declared before it is used in
        another declaration's value."""
        scalars = [s for s in statements if isinstance(s, syntax.Const | syntax.Param)]
        self.world.later.update((s.name.text, s.name.span) for s in scalars)
        for scalar in scalars:
            if isinstance(scalar, syntax.Const):
                self._const(scalar)
            else:
                self._param(scalar)
        self.world.later.clear()
        for statement in statements:
            if isinstance(statement, syntax.Broken) and statement.name is not None and statement.head in _DECLARING:
                self.world.names.setdefault(statement.name, Failed(statement.span))
            if isinstance(statement, syntax.Broken) and statement.head == "grid":
                self.world.grid_failed = True
            if isinstance(statement, syntax.Extent):
                for name in statement.names:
                    if self.declare(name, Value(Size(name.text), "size", name.span)):
                        self.extents[name.text] = name.span
        self._grid([s for s in statements if isinstance(s, syntax.Grid)])
        for statement in statements:
            if isinstance(statement, syntax.Input):
                self._input(statement)
            elif isinstance(statement, syntax.Blocks):
                self._blocks(statement)
        self._check_extents_known()

    def _const(self, statement: syntax.Const) -> None:
        sort = self._sort(statement.sort)
        value = self._constant(statement.value, sort)
        name = statement.name.text
        if sort is None or value is None:
            self.declare(statement.name, Failed(statement.name.span))
        elif self.declare(statement.name, Value(Param(name, sort), "const", statement.name.span)):
            self.world.consts[name] = value
            self.constants.append(Constant(name, sort, value, statement.span))

    def _param(self, statement: syntax.Param) -> None:
        sort = self._sort(statement.sort)
        default = None
        if statement.value is not None:
            default = self._constant(statement.value, sort)
        name = statement.name.text
        if sort is None:
            self.declare(statement.name, Failed(statement.name.span))
        elif self.declare(statement.name, Value(Param(name, sort), "param", statement.name.span)):
            self.params.append(Parameter(name, sort, default, statement.span))

    def _sort(self, name: syntax.Name) -> Sort | None:
        if name.text in SORTS:
            return Sort(name.text)
        hint = did_you_mean(name.text, SORTS)
        if name.text in _FOREIGN_SORTS:
            hint = f"write `{_FOREIGN_SORTS[name.text]}`; how many bits it has is the tensor's business"
        self.report.error(
            f"'{name.text}' is not a sort", name.span, note="the sorts are int, float and bool", hint=hint
        )
        return None

    def _constant(self, node: syntax.Expression, sort: Sort | None) -> Scalar | None:
        expr = self.expressions.check(node, CONSTANT)
        if expr is None:
            return None
        try:
            value = evaluate(expr, self.world.consts)
        except ConstantError as problem:
            self.report.error(f"this constant cannot be computed: {problem}", node.span)
            return None
        if value is None or sort is None:
            return None
        if sort is Sort.FLOAT and expr.sort is Sort.INT:
            return float(value)
        if sort is not expr.sort:
            self.report.error(f"this is {a_sort(expr.sort)}, declared {a_sort(sort)}", node.span)
            return None
        return value

    def _grid(self, statements: list[syntax.Grid]) -> None:
        sides: dict[str | None, syntax.Grid] = {}
        for statement in statements:
            clash = (
                sides.get(statement.side)
                or sides.get(None)
                or (statement.side is None and next(iter(sides.values()), None))
            )
            if clash:
                related = (Related(clash.span, "the first is here"),)
                self.report.error("the grid is declared twice", statement.span, related=related)
                continue
            sides[statement.side] = statement
        if not sides:
            return
        fine = True
        for statement in sides.values():
            fine &= self._axes(statement)
        if None not in sides and len(sides) == 1:
            (only,) = sides.values()
            other = "keys" if only.side == "queries" else "queries"
            self.report.error(
                f"the grid of the {other} is missing",
                only.span,
                hint=f"add `grid {other} …`, or write `grid …` for one grid that both share",
            )
            fine = False
        if not fine:
            self.world.grid_failed = True
            return
        queries = sides.get("queries") or sides[None]
        keys = sides.get("keys") or sides[None]
        names = tuple(a.text for a in queries.axes), tuple(a.text for a in keys.axes)
        self.world.grid = Grid(*names, queries.span)

    def _axes(self, statement: syntax.Grid) -> bool:
        fine = True
        seen: set[str] = set()
        for axis in statement.axes:
            known = self.world.names.get(axis.text)
            if axis.text in seen:
                self.report.error(f"two axes are named '{axis.text}'", axis.span)
                fine = False
            elif not isinstance(known, Axis):
                # The grids of queries and keys may use the same name: `q.y` and `k.y` tell them apart.
                fine &= self.declare(axis, Axis(axis.span))
            seen.add(axis.text)
        return fine

    def _input(self, statement: syntax.Input) -> None:
        sort = self._sort(statement.sort)
        extents = self._extents(statement.extents, EXTENT)
        learnable = False
        facts: list[SortedFact | RangeFact] = []
        for fact in statement.facts:
            match fact:
                case syntax.Learnable(span=span):
                    learnable = True
                    if sort is not None and sort is not Sort.FLOAT:
                        self.report.error(
                            f"only a float input is learnable, and this is {a_sort(sort)}",
                            span,
                            related=(Related(statement.sort.span, "declared here"),),
                        )
                case syntax.Sorted():
                    axis = self._sorted(fact, statement)
                    facts += [] if axis is None else [axis]
                case syntax.Within():
                    within = self._within(fact, sort)
                    facts += [] if within is None else [within]
        if sort is None or extents is None:
            self.declare(statement.name, Failed(statement.name.span))
            return
        declared = Input(statement.name.text, sort, extents, learnable, tuple(facts), statement.span)
        shown = tuple(e.span.text for e in statement.extents)
        if self.declare(statement.name, Tensor(declared, shown, statement.name.span)):
            self.inputs.append(declared)

    def _extents(self, nodes: Sequence[syntax.Expression], place: Place) -> tuple[Expr, ...] | None:
        found: list[Expr] = []
        for node in nodes:
            if isinstance(node, syntax.Name) and node.text not in self.world.names and node.text not in BUILTINS:
                known = [n for n, b in self.world.names.items() if isinstance(b, Value)]
                hint = did_you_mean(node.text, (*known, "batch", "heads", "kv_heads", "queries", "keys", "dim"))
                self.report.error(
                    f"the extent '{node.text}' is not declared",
                    node.span,
                    note="the built-in sizes are batch, heads, kv_heads, queries, keys and dim",
                    hint=hint or f"add the statement `extent {node.text}` for a size known from the tensor at the call",
                )
                continue
            extent = self.expressions.check(node, place)
            if extent is None:
                continue
            if extent.sort is not Sort.INT:
                self.report.error(f"an extent is an int, and this is {a_sort(extent.sort)}", node.span)
                continue
            try:
                value = evaluate(extent, self.world.consts)
            except ConstantError as problem:
                self.report.error(f"this extent cannot be computed: {problem}", node.span)
                continue
            if value is not None and value < 1:
                self.report.error(f"an extent is at least 1, and this is {value}", node.span)
                continue
            found.append(extent)
        return tuple(found) if len(found) == len(nodes) else None

    def _sorted(self, fact: syntax.Sorted, statement: syntax.Input) -> SortedFact | None:
        names = [e.span.text for e in statement.extents]
        axes = [i for i, name in enumerate(names) if name == fact.axis.text]
        if len(axes) == 1:
            return SortedFact(axes[0])
        if axes:
            self.report.error(f"'{statement.name.text}' has {len(axes)} axes of '{fact.axis.text}'", fact.axis.span)
        else:
            self.report.error(
                f"'{statement.name.text}' has no axis '{fact.axis.text}'",
                fact.axis.span,
                note=f"its axes are [{', '.join(names)}]",
                hint=did_you_mean(fact.axis.text, names),
            )
        return None

    def _within(self, fact: syntax.Within, sort: Sort | None) -> RangeFact | None:
        low, high = self.expressions.check(fact.low, BOUND), self.expressions.check(fact.high, BOUND)
        if sort is not None and sort is not Sort.INT:
            self.report.error(f"only an int input has bounds, and this is {a_sort(sort)}", fact.span)
            return None
        for node, expr in ((fact.low, low), (fact.high, high)):
            if expr is not None and expr.sort is not Sort.INT:
                self.report.error(f"a bound is an int, and this is {a_sort(expr.sort)}", node.span)
                return None
        return None if low is None or high is None else RangeFact(low, high)

    def _blocks(self, statement: syntax.Blocks) -> None:
        sort = self._sort(statement.sort)
        extents = self._extents(statement.extents, TABLE_EXTENT)
        sizes = self._box(statement.query_size), self._box(statement.key_size)
        if sort is not None and sort is not Sort.INT:
            self.report.error(f"a table holds block numbers: int, not {sort.value}", statement.sort.span)
        query_size, key_size = sizes
        fine = sort is Sort.INT and extents is not None and query_size is not None and key_size is not None
        fine = fine and self._box_fits(statement)
        if not fine or extents is None or query_size is None or key_size is None:
            self.declare(statement.name, Failed(statement.name.span))
            return
        if not self._table_axes(statement, extents, len(query_size)):
            self.declare(statement.name, Failed(statement.name.span))
            return
        table = Table(statement.name.text, extents, query_size, key_size, statement.span)
        if self.declare(statement.name, TableName(statement.name.span)):
            self.tables.append(table)

    def _box(self, box: syntax.Box) -> tuple[Expr, ...] | None:
        sizes: list[Expr] = []
        for node in box.sizes:
            size = self.expressions.check(node, CONSTANT)
            if size is None:
                continue
            value = self._constant(node, Sort.INT)
            if value is not None and value < 1:
                self.report.error(f"a block has at least one row, and this is {value}", node.span)
            elif value is not None:
                sizes.append(size)
        return tuple(sizes) if len(sizes) == len(box.sizes) else None

    def _box_fits(self, statement: syntax.Blocks) -> bool:
        grid = self.world.grid
        for box, axes in (
            (statement.query_size, grid.queries if grid else ()),
            (statement.key_size, grid.keys if grid else ()),
        ):
            if len(box.sizes) > 1 and len(box.sizes) != len(axes):
                if not self.world.grid_failed:
                    has = f"the grid has {len(axes)}" if axes else "there is no grid"
                    self.report.error(f"this box has {len(box.sizes)} axes, and {has}", box.span)
                return False
        return True

    def _table_axes(self, statement: syntax.Blocks, extents: tuple[Expr, ...], query_axes: int) -> bool:
        """`[batch, heads]` or part of it, then the query blocks along each axis, then the list."""
        blocks = Size("query_blocks")
        lead = extents[: len(extents) - query_axes - 1]
        fine = (
            len(extents) > query_axes
            and all(e is blocks for e in extents[len(lead) : -1])
            and extents[-1] is not blocks
            and lead in ((), (Size("batch"),), (Size("heads"),), (Size("batch"), Size("heads")))
        )
        if not fine:
            first, last = statement.extents[0].span, statement.extents[-1].span
            middle = ", ".join(["query_blocks"] * query_axes)
            self.report.error(
                "these are not the extents of a table",
                first.to(last),
                note="batch and heads may be left out",
                hint=f"write `{statement.name.text}: int[batch, heads, {middle}, top]`",
            )
        return fine

    def _check_extents_known(self) -> None:
        extents = [e for declared in self.inputs for e in declared.extents]
        extents += [e for table in self.tables for e in table.extents]
        bare = {e.name for e in extents if isinstance(e, Size)}
        failed = any(isinstance(b, Failed) for b in self.world.names.values())
        for name, span in self.extents.items():
            if name not in bare and not failed:
                self.report.error(
                    f"nothing tells how long '{name}' is",
                    span,
                    note="a call reads it from a tensor with an axis of that name alone",
                    hint=f"declare an input with an axis [{name}], or make '{name}' a param",
                )


def unused(names: Mapping[str, Binding], used: set[str]) -> list[tuple[str, str, Span]]:
    """What was declared and never used: its kind, its name, where."""
    found = []
    for name, binding in names.items():
        if name in used:
            continue
        match binding:
            case Value(kind=kind, span=span):
                found.append((kind, name, span))
            case Tensor(span=span):
                found.append(("input", name, span))
            case _:
                pass
    return found


_FOREIGN_SORTS = {
    **dict.fromkeys(("int8", "int16", "int32", "int64", "uint8", "i32", "i64", "integer", "long", "Int"), "int"),
    **dict.fromkeys(("float16", "float32", "float64", "bfloat16", "f16", "f32", "bf16", "half", "double"), "float"),
    **dict.fromkeys(("boolean", "Bool", "mask"), "bool"),
}
_DECLARING = frozenset(("const", "param", "input", "extent", "let", "blocks"))
