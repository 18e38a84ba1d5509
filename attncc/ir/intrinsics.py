"""Every operation of the language, one record each: typing, meaning, interval, derivative, Triton text, documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attncc.ir.expr import Call, Expr, Sort

I, B, F = Sort.INT, Sort.BOOL, Sort.FLOAT
Signature = tuple[tuple[Sort, ...], Sort]


@dataclass(frozen=True, slots=True)
class Interval:
    """All values from `low` to `high`, both included. Unknown is `-inf .. inf`; bools are 0 and 1."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Intrinsic:
    """One operation.

    `signatures` are tried in order; an int operand fits a float place through `to_float`.
    `meaning(xp, *arrays)` computes it with numpy or torch given as `xp`.
    `interval(sort, *intervals)` encloses the result, `sort` being the result's.
    `derivative(call, index)` is the partial derivative by operand `index` as an expression, None for no derivative.
    `triton` is the text with `{0}`, `{1}` for printed operands; `triton_nonnegative` where both operands are proved
    non-negative and a plainer text then serves; `triton_exact` where floats feed a bool or an index (rule 4).
    """

    name: str
    signatures: tuple[Signature, ...]
    doc: str
    meaning: Callable[..., Any]
    interval: Callable[..., Interval]
    triton: str
    derivative: Callable[[Call, int], Expr | None] | None = None
    triton_nonnegative: str | None = None
    triton_exact: str | None = None

    @property
    def arity(self) -> int:
        """How many operands it takes."""
        return len(self.signatures[0][0])


class TypingError(Exception):
    """Operands do not fit an operation. The front end turns this into a diagnostic at the operand."""

    def __init__(self, message: str, operand: int | None = None) -> None:
        super().__init__(message)
        self.operand = operand


def call(op: str, *args: Expr) -> Expr:
    """The typed application of an operation, ints turned to floats where a float is wanted. Raises TypingError."""
    raise NotImplementedError


INTRINSICS: Mapping[str, Intrinsic] = {}
