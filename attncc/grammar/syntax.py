"""The syntax tree: what was written, with spans, before anything is known about names or types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from attncc.source import Source, Span


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A name, as a value or (in `Call`) as what is called."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """A number, `true` or `false`; the Python type says which."""

    span: Span
    value: bool | int | float


@dataclass(frozen=True, slots=True, eq=False)
class Unary:
    """`-x`, `+x`, `~x`, `not x`."""

    span: Span
    operator: str
    operator_span: Span
    operand: Expression


@dataclass(frozen=True, slots=True, eq=False)
class Binary:
    """Arithmetic, bits, `and`, `or`. Left-associative chains nest to the left, however long."""

    span: Span
    operator: str
    operator_span: Span
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True, eq=False)
class Compare:
    """A chain `a < b <= c`; one operator fewer than operands."""

    span: Span
    operands: tuple[Expression, ...]
    operators: tuple[tuple[str, Span], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Conditional:
    """`yes if condition else no`."""

    span: Span
    condition: Expression
    yes: Expression
    no: Expression


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """`base[i, j]`."""

    span: Span
    base: Expression
    indices: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """`base.name`, such as `q.y`."""

    span: Span
    base: Expression
    name: Name


@dataclass(frozen=True, slots=True, eq=False)
class Argument:
    """An argument of a call; `keyword` is None for a positional one."""

    span: Span
    keyword: Name | None
    value: Expression


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """`function(arguments)`."""

    span: Span
    function: Expression
    arguments: tuple[Argument, ...]


Expression: TypeAlias = Name | Literal | Unary | Binary | Compare | Conditional | Index | Attribute | Call


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A string: a file to use or a message."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """`use "file.attn"`."""

    span: Span
    path: Text


@dataclass(frozen=True, slots=True, eq=False)
class Formal:
    """A parameter of a `def`, perhaps with a default."""

    span: Span
    name: Name
    default: Expression | None


@dataclass(frozen=True, slots=True, eq=False)
class Define:
    """`def name(formals) = body`, with the `require` lines that follow it."""

    span: Span
    name: Name
    formals: tuple[Formal, ...]
    body: Expression
    requires: tuple[Require, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """`attention name`: its block runs to the next `attention`, `def` or `use`."""

    span: Span
    name: Name


@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """`const name: sort = value`."""

    span: Span
    name: Name
    sort: Name
    value: Expression


@dataclass(frozen=True, slots=True, eq=False)
class Param:
    """`param name: sort` with or without `= value`."""

    span: Span
    name: Name
    sort: Name
    value: Expression | None


@dataclass(frozen=True, slots=True, eq=False)
class Learnable:
    """`learnable` after an input."""

    span: Span


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """`sorted along axis` after an input."""

    span: Span
    axis: Name


@dataclass(frozen=True, slots=True, eq=False)
class Within:
    """`in low .. high` after an input."""

    span: Span
    low: Expression
    high: Expression


Fact: TypeAlias = Learnable | Sorted | Within


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """`input name: sort[extents] facts`."""

    span: Span
    name: Name
    sort: Name
    extents: tuple[Expression, ...]
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """`grid axes`, `grid queries axes` or `grid keys axes`; `side` is None, "queries" or "keys"."""

    span: Span
    side: str | None
    axes: tuple[Name, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Let:
    """`let name = value`."""

    span: Span
    name: Name
    value: Expression


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """`mask value`."""

    span: Span
    value: Expression


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """`score value`."""

    span: Span
    value: Expression


@dataclass(frozen=True, slots=True, eq=False)
class WeightsSoftmax:
    """`weights softmax`, perhaps `with` sinks."""

    span: Span
    sinks: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, eq=False)
class WeightsRatio:
    """`weights numerator`, perhaps `over denominator`."""

    span: Span
    numerator: Expression
    denominator: Expression | None


@dataclass(frozen=True, slots=True, eq=False)
class Reweight:
    """`reweight value`, a product of `p`."""

    span: Span
    value: Expression


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """`output names`."""

    span: Span
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """A block's size along each axis of its grid; `64` has one axis, `(8, 8)` two."""

    span: Span
    sizes: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """`blocks name: sort[extents] size query_size, key_size`."""

    span: Span
    name: Name
    sort: Name
    extents: tuple[Expression, ...]
    query_size: Box
    key_size: Box


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """`extent names`."""

    span: Span
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Require:
    """`require condition, "message"`."""

    span: Span
    condition: Expression
    message: Text


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """`scale value`."""

    span: Span
    value: Expression


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """One `attention` block: its header's name and its statements in order."""

    span: Span
    name: Name
    statements: tuple[InAttention, ...]


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """A whole file. `broken_defs` names the defs that did not parse."""

    source: Source
    uses: tuple[Use, ...]
    defs: tuple[Define, ...]
    attentions: tuple[Attention, ...]
    broken_defs: frozenset[str] = frozenset()
