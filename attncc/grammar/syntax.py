"""The syntax tree: what was written, with spans, before anything is known about names or types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from attncc.source import Source, Span

_node = dataclass(frozen=True, slots=True, eq=False)


@_node
class Name:
    """A name, as a value or (in `Call`) as what is called."""

    span: Span
    text: str


@_node
class Literal:
    """A number, `true` or `false`; the Python type says which."""

    span: Span
    value: bool | int | float


@_node
class Unary:
    """`-x`, `+x`, `~x`, `not x`."""

    span: Span
    operator: str
    operator_span: Span
    operand: Expression


@_node
class Binary:
    """Arithmetic, bits, `and`, `or`. Left-associative chains nest to the left, however long."""

    span: Span
    operator: str
    operator_span: Span
    left: Expression
    right: Expression


@_node
class Compare:
    """A chain `a < b <= c`; one operator fewer than operands."""

    span: Span
    operands: tuple[Expression, ...]
    operators: tuple[tuple[str, Span], ...]


@_node
class Conditional:
    """`yes if condition else no`."""

    span: Span
    condition: Expression
    yes: Expression
    no: Expression


@_node
class Index:
    """`base[i, j]`."""

    span: Span
    base: Expression
    indices: tuple[Expression, ...]


@_node
class Attribute:
    """`base.name`, such as `q.y`."""

    span: Span
    base: Expression
    name: Name


@_node
class Argument:
    """An argument of a call; `keyword` is None for a positional one."""

    span: Span
    keyword: Name | None
    value: Expression


@_node
class Call:
    """`function(arguments)`."""

    span: Span
    function: Expression
    arguments: tuple[Argument, ...]


Expression: TypeAlias = Name | Literal | Unary | Binary | Compare | Conditional | Index | Attribute | Call


@_node
class Text:
    """A string: a file to use or a message."""

    span: Span
    text: str


@_node
class Use:
    """`use "file.attn"`."""

    span: Span
    path: Text


@_node
class Formal:
    """A parameter of a `def`, perhaps with a default."""

    span: Span
    name: Name
    default: Expression | None


@_node
class Define:
    """`def name(formals) = body`, with the `require` lines that follow it."""

    span: Span
    name: Name
    formals: tuple[Formal, ...]
    body: Expression
    requires: tuple[Require, ...] = ()


@_node
class Header:
    """`attention name`: its block runs to the next `attention`, `def` or `use`."""

    span: Span
    name: Name


@_node
class Const:
    """`const name: sort = value`."""

    span: Span
    name: Name
    sort: Name
    value: Expression


@_node
class Param:
    """`param name: sort` with or without `= value`."""

    span: Span
    name: Name
    sort: Name
    value: Expression | None


@_node
class Learnable:
    """`learnable` after an input."""

    span: Span


@_node
class Sorted:
    """`sorted along axis` after an input."""

    span: Span
    axis: Name


@_node
class Within:
    """`in low .. high` after an input."""

    span: Span
    low: Expression
    high: Expression


Fact: TypeAlias = Learnable | Sorted | Within


@_node
class Input:
    """`input name: sort[extents] facts`."""

    span: Span
    name: Name
    sort: Name
    extents: tuple[Expression, ...]
    facts: tuple[Fact, ...]


@_node
class Grid:
    """`grid axes`, `grid queries axes` or `grid keys axes`; `side` is None, "queries" or "keys"."""

    span: Span
    side: str | None
    axes: tuple[Name, ...]


@_node
class Let:
    """`let name = value`."""

    span: Span
    name: Name
    value: Expression


@_node
class Mask:
    """`mask value`."""

    span: Span
    value: Expression


@_node
class Score:
    """`score value`."""

    span: Span
    value: Expression


@_node
class WeightsSoftmax:
    """`weights softmax`, perhaps `with` sinks."""

    span: Span
    sinks: tuple[Expression, ...]


@_node
class WeightsRatio:
    """`weights numerator`, perhaps `over denominator`."""

    span: Span
    numerator: Expression
    denominator: Expression | None


@_node
class Reweight:
    """`reweight value`, a product of `p`."""

    span: Span
    value: Expression


@_node
class Output:
    """`output names`."""

    span: Span
    names: tuple[Name, ...]


@_node
class Box:
    """A block's size along each axis of its grid; `64` has one axis, `(8, 8)` two."""

    span: Span
    sizes: tuple[Expression, ...]


@_node
class Blocks:
    """`blocks name: sort[extents] size query_size, key_size`."""

    span: Span
    name: Name
    sort: Name
    extents: tuple[Expression, ...]
    query_size: Box
    key_size: Box


@_node
class Extent:
    """`extent names`."""

    span: Span
    names: tuple[Name, ...]


@_node
class Require:
    """`require condition, "message"`."""

    span: Span
    condition: Expression
    message: Text


@_node
class Scale:
    """`scale value`."""

    span: Span
    value: Expression


@_node
class Broken:
    """A statement with an error in it. What it would have declared is kept, so that its uses are not errors too."""

    span: Span
    head: str
    name: str | None


InAttention: TypeAlias = (
    Const
    | Param
    | Input
    | Grid
    | Let
    | Mask
    | Score
    | WeightsSoftmax
    | WeightsRatio
    | Reweight
    | Output
    | Blocks
    | Extent
    | Require
    | Scale
    | Broken
)
Statement: TypeAlias = Use | Define | Header | InAttention


@_node
class Attention:
    """One `attention` block: its header's name and its statements in order."""

    span: Span
    name: Name
    statements: tuple[InAttention, ...]


@_node
class File:
    """A whole file. `broken_defs` names the defs that did not parse."""

    source: Source
    uses: tuple[Use, ...]
    defs: tuple[Define, ...]
    attentions: tuple[Attention, ...]
    broken_defs: frozenset[str] = frozenset()
