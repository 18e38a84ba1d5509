"""What a name can stand for, and what the expressions of one attention share while they are checked."""

from __future__ import annotations

from collections.abc import Mapping, MutableSet
from dataclasses import dataclass, field
from typing import TypeAlias

from attncc.grammar.definitions import Definition, Definitions
from attncc.grammar.places import Place
from attncc.ir.expr import Expr, Scalar
from attncc.ir.spec import Grid, Input, Require
from attncc.source import Span


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
class Frame:
    """Where an expression stands: in the attention itself, or in the body of a def that was called."""

    names: Mapping[str, Binding]
    definitions: Definitions
    place: Place
    level: int = 0
    definition: Definition | None = None
    call: Span | None = None
    caller: Frame | None = None

    def deeper(self) -> Frame:
        """The same place, one level further into an expression."""
        return Frame(
            self.names,
            self.definitions,
            self.place,
            self.level + 1,
            self.definition,
            self.call,
            self.caller,
        )
