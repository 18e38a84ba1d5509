"""Prints IR expressions as Triton text, each shared sub-expression once.

Decisions are made elsewhere and arrive as `Proofs`; nothing of the user's text is printed but names that passed the
grammar's identifier rule, always behind `values.`, and literals.
"""

from __future__ import annotations

import keyword
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import assert_never

from attncc.ir.expr import (
    Call,
    Const,
    Coord,
    Expr,
    Listed,
    Load,
    Param,
    RowCount,
    RowSum,
    Score,
    Size,
    Sort,
    children,
    coordinates,
    postorder,
)
from attncc.ir.intrinsics import INTRINSICS
from attncc.ir.spec import Spec

_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_INLINE_LENGTH = 72
_NAN = ", propagate_nan=tl.PropagateNan.ALL"  # what ints do not need
_TYPES = {Sort.INT: "tl.int64", Sort.FLOAT: "tl.float32", Sort.BOOL: "tl.int1"}


@dataclass(frozen=True, slots=True)
class Proofs:
    """What the analysis proved about the expressions to print.

    `narrow`: int nodes that 32 bits hold exactly, operands included. `is_plain(call)`: the operands are such that the
    operation's plainer text serves. `nonnegative(expr)`: never below zero. `below(index, extent)`: always less.
    """

    narrow: frozenset[Expr]
    is_plain: Callable[[Call], bool]
    nonnegative: Callable[[Expr], bool]
    below: Callable[[Expr, Expr], bool]


@dataclass(frozen=True, slots=True)
class Printed:
    """Statements that compute the roots, and the text that stands for each root."""

    lines: tuple[str, ...]
    roots: tuple[str, ...]


# Attributes that Triton's tuple and Python's NamedTuple have of their own, and what a module's host functions mean by a
# name themselves. `tests/codegen/test_names.py` finds those that are missing.
_TAKEN_FIELDS = frozenset(
    """
    type values handle count index
    Any DKEYVALUE DQUERY FORWARD Grads LN2 LOG2E Matrix NamedTuple PRECISION ROWS SHAPE UNIT UNIT_TO_NATURAL VALUES
    Values backward ctx dict dkey dkeyvalue_kernel dquery dquery_kernel dvalue forward forward_kernel gain grad_lse
    grad_out grads len list lse map mass norm programs range ratio_rows_kernel rest settings shift
    softmax_rows_kernel state staticmethod tensor tensors tl top torch triton
    """.split()  # noqa: SIM905
)
_TAKEN_FORMS = re.compile(r"_|.*_$|.*_stride_\d+$|arg_|queries_|keys_")


def field_name(name: str) -> str:
    """The field of `Values`, and argument of the host functions, that holds a size, param or input.

    The name itself, but for grid sizes (`queries.y` is `queries_y`) and the few names that could collide with
    another field, a word of Python or a name of the module, which get a prefix. Different names give different fields.
    """
    if "." in name:
        return name.replace(".", "_")
    if keyword.iskeyword(name) or name in _TAKEN_FIELDS or _TAKEN_FORMS.match(name):
        return f"arg_{name}"
    return name


def exact_nodes(roots: Sequence[Expr]) -> frozenset[Expr]:
    """The float nodes that feed a bool or an index: float32, rounded after each operation (rule 4 of the language)."""
    seeds: list[Expr] = []
    for node in postorder(*roots):
        if isinstance(node, Load):
            seeds += node.index
        elif isinstance(node, Call) and node.sort is not Sort.FLOAT:
            seeds += [a for a in node.args if a.sort is Sort.FLOAT]
    return frozenset(n for n in postorder(*seeds) if n.sort is Sort.FLOAT)


def fuses_wrongly(roots: Sequence[Expr]) -> bool:
    """Whether a fused multiply-add could change a float that feeds a bool or an index."""
    operations = {n.op for n in exact_nodes(roots) if isinstance(n, Call)}
    return "mul" in operations and bool(operations & {"add", "sub"})


class ExpressionPrinter:
    """Prints expressions of one lowered spec.

    `names` gives the text of coordinates, `Score()`, `RowSum()`, `RowCount()`. Coordinates are 32-bit
    in the kernels; with `wide`, every int is computed in 64 bits.
    """

    def __init__(self, spec: Spec, names: Mapping[Expr, str], proofs: Proofs, *, wide: bool, prefix: str = "t") -> None:
        self._spec = spec
        self._names = names
        self._proofs = proofs
        self._wide = wide
        self._prefix = prefix

    def print(self, *roots: Expr) -> Printed:
        """Statements and texts for the roots, in order. Deterministic."""
        uses: Counter[Expr] = Counter(roots)
        for node in postorder(*roots):
            uses.update(children(node))
            if isinstance(node, Load):  # an index is printed twice: in the address and in the bounds check
                uses.update(node.index)
        exact = exact_nodes(roots)
        lines: list[str] = []
        texts: dict[Expr, str] = {}
        widths: dict[Expr, int] = {}
        for node in postorder(*roots):
            text, width = self._text(node, texts, widths, exact)
            is_atom = isinstance(node, Const | Size | Param | Coord | Score | RowSum | RowCount)
            if not is_atom and (uses[node] > 1 or len(text) > _INLINE_LENGTH):
                name = f"{self._prefix}{len(lines)}"
                lines.append(f"{name} = {_without_outer_parentheses(text)}")
                text = name
            texts[node] = text
            widths[node] = width
        return Printed(tuple(lines), tuple(texts[r] for r in roots))

    def _text(
        self, node: Expr, texts: dict[Expr, str], widths: dict[Expr, int], exact: frozenset[Expr]
    ) -> tuple[str, int]:
        """The node's text and, for ints, the bits it has (0 for a literal, which takes its operand's)."""
        match node:
            case Const(value=value, sort=Sort.INT) if not -(2**31) <= value < 2**31:
                # Triton gives a literal the type of its tensor, and refuses one that does not fit.
                return f"tl.full((), {literal(node)}, tl.int64)", 64
            case Const():
                return literal(node), 0
            case Size(name="tile"):
                return "TILE", 0
            case Size(name=name):
                return f"values.{field_name(name)}", 32
            case Param(name=name, sort=Sort.BOOL):
                return f"(values.{field_name(name)} != 0)", 0
            case Param(name=name):
                return f"values.{field_name(name)}", 32
            case Coord() | Score() | RowSum() | RowCount():
                return self._names[node], 32
            case Load():
                return self._load(node, texts, widths)
            case Call():
                return self._call(node, texts, widths, exact)
            case Listed():
                raise AssertionError("block tables are refused before printing")
            case _:
                raise AssertionError(f"unknown node {node!r}")

    def _call(
        self, node: Call, texts: dict[Expr, str], widths: dict[Expr, int], exact: frozenset[Expr]
    ) -> tuple[str, int]:
        record = INTRINSICS[node.op]
        ints = [a for a in node.args if a.sort is Sort.INT]
        width = self._width(node, ints)
        operands = [
            _to_width(texts[a], widths[a], width) if a.sort is Sort.INT and width else texts[a] for a in node.args
        ]
        template = record.triton
        if node in exact and record.triton_exact:
            template = record.triton_exact
        elif record.triton_nonnegative and self._proofs.is_plain(node):
            template = record.triton_nonnegative
        if node.sort is Sort.INT:
            template = template.replace(_NAN, "")
        if all(_is_bare(a) for a in node.args):
            # Triton has no functions of literals alone, and its interpreter passes a float param on as Python's.
            first = node.args[0]
            if isinstance(first, Const):
                operands[0] = f"tl.full((), {literal(first)}, {_TYPES[first.sort]})"
            else:
                operands[0] = f"tl.cast({operands[0]}, {_TYPES[first.sort]})"
        text = template.format(*operands)
        if node.op in _COMPARISONS and not coordinates((node,)) & {"row", "k"}:
            # Triton's interpreter cannot join the comparison of two float scalars with a tile of bools.
            text = f"(tl.where({text}, 1, 0) != 0)" if node.args[0].sort is Sort.FLOAT else text
        return text, width if node.sort is Sort.INT else 0

    def _width(self, node: Call, ints: Sequence[Expr]) -> int:
        """Bits in which an operation on ints is computed; 0 where no int takes part."""
        if not ints and node.sort is not Sort.INT:
            return 0
        if self._wide:
            return 64
        if node.sort is Sort.INT:
            return 32 if node in self._proofs.narrow else 64
        return 32 if all(a in self._proofs.narrow for a in ints) else 64

    def _load(self, node: Load, texts: dict[Expr, str], widths: dict[Expr, int]) -> tuple[str, int]:
        field = field_name(node.input)
        checks = self.bounds_checks(node, [texts[i] for i in node.index])
        offsets: list[str] = []
        for axis, index in enumerate(node.index):
            text = texts[index]
            if self._wide:
                text = _to_width(text, widths[index], 64)
            elif widths[index] == 64:
                # In bounds it fits; out of bounds the lane is masked off and its address never used.
                text = _to_width(text, 64, 32)
            offsets.append(f"{text} * values.{field}_stride_{axis}")
        address = " + ".join([f"values.{field}", *offsets])
        text = f"tl.load({address}, mask={' & '.join(checks)}, other=0)" if checks else f"tl.load({address})"
        if node.sort is Sort.BOOL:
            return f"({text} != 0)", 0
        if node.sort is Sort.FLOAT:
            return f"{text}.to(tl.float32)", 0
        if not self._wide and node in self._proofs.narrow:
            return f"{text}.to(tl.int32)", 32
        return f"{text}.to(tl.int64)", 64

    def bounds_checks(self, node: Load, index: Sequence[str]) -> list[str]:
        """The comparisons that keep a load in range, given its printed index; none for what is proved."""
        checks: list[str] = []
        for text, expr, extent in zip(index, node.index, self.extents_of(node), strict=True):
            if isinstance(expr, Const):  # two literals compared would be Python's bool
                text = f"tl.full((), {literal(expr)}, tl.int64)"
            if not self._proofs.nonnegative(expr):
                checks.append(f"({text} >= 0)")
            if not self._proofs.below(expr, extent):
                checks.append(f"({text} < {self.extent(extent)})")
        return checks

    def extents_of(self, node: Load) -> tuple[Expr, ...]:
        """The declared extents of the input a load reads."""
        return (Size("batch"),) if node.input == "q_offset" else self._spec.input(node.input).extents

    def extent(self, extent: Expr) -> str:
        """An extent's text. Extents are few and plain, so they are printed in place, without temporaries."""
        texts: dict[Expr, str] = {}
        widths: dict[Expr, int] = {}
        for node in postorder(extent):
            texts[node], widths[node] = self._text(node, texts, widths, frozenset())
        return texts[extent]


def literal(node: Const) -> str:
    """A literal that Triton reads back as the same value."""
    match node.sort:
        case Sort.BOOL:
            return "True" if node.value else "False"
        case Sort.INT:
            return str(int(node.value)) if node.value >= 0 else f"({int(node.value)})"
        case Sort.FLOAT:
            value = float(node.value)
            if not math.isfinite(value):
                return f'float("{value}")'
            return repr(value) if math.copysign(1.0, value) > 0 else f"({value!r})"
        case _:
            assert_never(node.sort)


def _is_bare(operand: Expr) -> bool:
    return isinstance(operand, Const) or (isinstance(operand, Param) and operand.sort is Sort.FLOAT)


def _to_width(text: str, have: int, want: int) -> str:
    if have in (0, want) and not (have == 32 and want == 64):
        return text
    return f"{text}.to(tl.int{want})"


def _without_outer_parentheses(text: str) -> str:
    """`(a + b)` as `a + b`, where the first parenthesis closes at the end."""
    if not text.startswith("("):
        return text
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return text[1:-1] if i == len(text) - 1 else text
    return text
