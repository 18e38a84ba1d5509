"""The values a traced Python function computes with: they record what is written, and become syntax of the language.

A `Traced` value is a node of a graph. `to_syntax` makes a syntax tree of it, so that the checker of the text front end
types what Python wrote, and both ways of writing mean the same by construction.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from attncc.errors import SpecError, did_you_mean
from attncc.grammar import syntax
from attncc.grammar.builtins import FUNCTIONS, HEADS, OPERATOR_WORDS
from attncc.grammar.python_source import PythonLines
from attncc.ir.expr import Sort
from attncc.source import Span

DEEPEST = 400
LARGEST_INT = 2**63

Build = Callable[..., syntax.Expression]


class Traced:
    """A number or condition of every pair, not known while the function runs.

    `build(span, *parts)` makes its syntax of that of its `parts`. `sort` is a guess that tells conditions from ints
    under `& | ^ ~`; the checker decides. `score` is how many score statements stood above the oldest `s` it reads,
    None if it reads none. `fixed` means that it may only stand where it is written (`total`, `count`).
    """

    __array_ufunc__ = None  # numpy scalars leave operators to this class

    def __init__(
        self,
        lines: PythonLines,
        build: Build,
        parts: tuple[Traced, ...] = (),
        *,
        sort: Sort | None = None,
        span: Span | None = None,
        score: int | None = None,
        fixed: bool = False,
    ) -> None:
        self._lines = lines
        self._build = build
        self._parts = parts
        self._sort = sort
        self._span = span or lines.here()
        scores = [p._score for p in parts if p._score is not None]
        self._score: int | None = min(scores, default=None) if score is None else score
        self._fixed: bool = fixed or any(p._fixed for p in parts)
        self._depth: int = 1 + max((p._depth for p in parts), default=0)
        if self._depth > DEEPEST:
            raise lines.error(f"this expression is more than {DEEPEST} operations deep", self._span)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (*args, *(kwargs or {}).values())
        first = next((value for value in given if isinstance(value, cls)), None)
        if first is None:
            return NotImplemented
        for value in given:
            traced(value, first._lines)  # a tensor has an error of its own
        raise first._lines.torch_error(getattr(function, "__name__", "function"))

    def __getattr__(self, name: str) -> Traced:
        if name.startswith("_"):
            raise AttributeError(name)
        if not isinstance(self._build, _Position):
            hint = f"write `{self._lines.dialect.function}{name}(x)`" if name in FUNCTIONS else None
            raise self._lines.error(f"a traced value has no attribute '{name}'", hint=hint)

        def attribute(span: Span, base: syntax.Expression) -> syntax.Expression:
            return syntax.Attribute(span, base, syntax.Name(span, name))

        return Traced(self._lines, attribute, (self,), sort=Sort.INT)

    def __repr__(self) -> str:
        return "<a traced value>"

    def __add__(self, other: Any) -> Traced:
        return self._binary("+", self, other)

    def __radd__(self, other: Any) -> Traced:
        return self._binary("+", other, self)

    def __sub__(self, other: Any) -> Traced:
        return self._binary("-", self, other)

    def __rsub__(self, other: Any) -> Traced:
        return self._binary("-", other, self)

    def __mul__(self, other: Any) -> Traced:
        return self._binary("*", self, other)

    def __rmul__(self, other: Any) -> Traced:
        return self._binary("*", other, self)

    def __truediv__(self, other: Any) -> Traced:
        return self._binary("/", self, other)

    def __rtruediv__(self, other: Any) -> Traced:
        return self._binary("/", other, self)

    def __floordiv__(self, other: Any) -> Traced:
        return self._binary("//", self, other)

    def __rfloordiv__(self, other: Any) -> Traced:
        return self._binary("//", other, self)

    def __mod__(self, other: Any) -> Traced:
        return self._binary("%", self, other)

    def __rmod__(self, other: Any) -> Traced:
        return self._binary("%", other, self)

    def __divmod__(self, other: Any) -> tuple[Traced, Traced]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Traced, Traced]:
        return other // self, other % self

    def __pow__(self, other: Any) -> Traced:
        return self._binary("**", self, other)

    def __rpow__(self, other: Any) -> Traced:
        return self._binary("**", other, self)

    def __lshift__(self, other: Any) -> Traced:
        return self._binary("<<", self, other)

    def __rlshift__(self, other: Any) -> Traced:
        return self._binary("<<", other, self)

    def __rshift__(self, other: Any) -> Traced:
        return self._binary(">>", self, other)

    def __rrshift__(self, other: Any) -> Traced:
        return self._binary(">>", other, self)

    def __and__(self, other: Any) -> Traced:
        return self._bits("&", "and", self, other)

    def __rand__(self, other: Any) -> Traced:
        return self._bits("&", "and", other, self)

    def __or__(self, other: Any) -> Traced:
        return self._bits("|", "or", self, other)

    def __ror__(self, other: Any) -> Traced:
        return self._bits("|", "or", other, self)

    def __xor__(self, other: Any) -> Traced:
        return self._bits("^", "!=", self, other)

    def __rxor__(self, other: Any) -> Traced:
        return self._bits("^", "!=", other, self)

    def __neg__(self) -> Traced:
        return self._unary("-", self._sort)

    def __pos__(self) -> Traced:
        return self._unary("+", self._sort)

    def __invert__(self) -> Traced:
        return self._unary("~" if self._sort is Sort.INT else "not", self._sort)

    def __abs__(self) -> Traced:
        return function("abs", self._lines, self)

    def __floor__(self) -> Traced:
        return function("floor", self._lines, self)

    def __ceil__(self) -> Traced:
        return function("ceil", self._lines, self)

    def __eq__(self, other: object) -> Traced:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: object) -> Traced:  # type: ignore[override]
        return self._compare("!=", other)

    def __lt__(self, other: Any) -> Traced:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Traced:
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> Traced:
        return self._compare(">", other)

    def __ge__(self, other: Any) -> Traced:
        return self._compare(">=", other)

    def __bool__(self) -> NoReturn:
        raise self._lines.truth_error()

    def __int__(self) -> NoReturn:
        raise self._lines.conversion_error("__int__")

    def __trunc__(self) -> NoReturn:
        raise self._lines.conversion_error("__trunc__")

    def __float__(self) -> NoReturn:
        raise self._lines.conversion_error("__float__")

    def __complex__(self) -> NoReturn:
        raise self._lines.conversion_error("__complex__")

    def __index__(self) -> NoReturn:
        raise self._lines.conversion_error("__index__")

    def __len__(self) -> NoReturn:
        raise self._lines.conversion_error("__len__")

    def __iter__(self) -> NoReturn:
        raise self._lines.conversion_error("__iter__")

    def __contains__(self, item: object) -> NoReturn:
        raise self._lines.conversion_error("__contains__")

    def __round__(self, digits: object = None) -> NoReturn:
        raise self._lines.conversion_error("__round__")

    def __hash__(self) -> int:
        raise self._lines.conversion_error("__hash__")

    def __getitem__(self, index: object) -> NoReturn:
        raise self._lines.error("a traced value is one number and has no elements")

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused: a traced value is not a function."""
        raise self._lines.error("a traced value is not a function")

    def _binary(self, operator: str, left: Any, right: Any) -> Traced:
        parts = (traced(left, self._lines), traced(right, self._lines))
        sorts = {p._sort for p in parts}
        sort = Sort.INT if sorts == {Sort.INT} and operator != "/" else Sort.FLOAT
        return Traced(self._lines, _Binary(operator), parts, sort=sort)

    def _bits(self, on_ints: str, on_bools: str, left: Any, right: Any) -> Traced:
        parts = (traced(left, self._lines), traced(right, self._lines))
        if not any(p._sort is Sort.BOOL for p in parts):
            return Traced(self._lines, _Binary(on_ints), parts, sort=Sort.INT)
        build = _compare_build(on_bools) if on_bools == "!=" else _Binary(on_bools)
        return Traced(self._lines, build, parts, sort=Sort.BOOL)

    def _unary(self, operator: str, sort: Sort | None) -> Traced:
        def build(span: Span, operand: syntax.Expression) -> syntax.Expression:
            return syntax.Unary(span, operator, span, operand)

        return Traced(self._lines, build, (self,), sort=sort)

    def _compare(self, operator: str, other: Any) -> Traced:
        parts = (self, traced(other, self._lines))
        return Traced(self._lines, _compare_build(operator), parts, sort=Sort.BOOL)


class TracedInput:
    """An input by name: indexed, it gives an element; whole, it is an argument of a prelude function."""

    def __init__(self, lines: PythonLines, name: str, sort: Sort | None) -> None:
        self._lines = lines
        self._name = name
        self._sort = sort

    def __getitem__(self, index: Any) -> Traced:
        indices = index if isinstance(index, tuple) else (index,)
        for odd in indices:
            if isinstance(odd, slice) or odd is None or odd is Ellipsis:
                raise self._lines.error(
                    f"'{self._name}' is read one element at a time",
                    hint=f"write an int for each axis, as in `{self._name}[a.h, a.k]`",
                )

        def build(span: Span, *parts: syntax.Expression) -> syntax.Expression:
            return syntax.Index(span, syntax.Name(span, self._name), parts)

        return Traced(self._lines, build, tuple(traced(i, self._lines) for i in indices), sort=self._sort)

    def __bool__(self) -> NoReturn:
        raise self._whole()

    def __len__(self) -> NoReturn:
        raise self._lines.error(
            f"the length of '{self._name}' is not known while the function runs",
            hint="name it in the extents, and read that name",
        )

    def __iter__(self) -> NoReturn:
        raise self._whole()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise self._whole()

    def __repr__(self) -> str:
        return f"<the input {self._name}>"

    def _whole(self) -> SpecError:
        return self._lines.error(
            f"'{self._name}' is a tensor; an expression reads one element of it",
            hint=f"index it, as in `{self._name}[a.h]`",
        )


def _refuse_operators() -> Iterator[str]:
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"):
        yield from (f"__{name}__", f"__r{name}__")
    yield from ("__neg__", "__abs__", "__invert__", "__lt__", "__le__", "__gt__", "__ge__")


def _refused_operator(self: TracedInput, *_: object) -> NoReturn:
    raise self._whole()


for _name in _refuse_operators():
    setattr(TracedInput, _name, _refused_operator)


def traced(value: Any, lines: PythonLines) -> Traced:
    """A value of the user's function as a traced one: Python numbers are literals. Raises SpecError for others."""
    if isinstance(value, Traced):
        return value
    if isinstance(value, TracedInput):
        raise value._whole()
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return Traced(lines, _Literal(bool(value)), sort=Sort.BOOL)
    if isinstance(value, numbers.Integral):
        return _int_literal(int(value), lines)
    if isinstance(value, numbers.Real):
        return _float_literal(float(value), lines)
    kind = type(value).__name__
    hint = None
    if kind in ("Tensor", "Parameter", "ndarray"):
        hint = 'declare it as an argument: `name: attncc.Input("float[heads]")`'
    raise lines.error(f"a {kind} is no value of an attention: `{_shown(value)}`", hint=hint)


def function(name: str, lines: PythonLines, *args: Any, **kwargs: Any) -> Traced:
    """A call in the language, of a built-in function or a `def`. Inputs may be passed whole to the latter."""
    keywords = (*(None for _ in args), *kwargs)
    names: dict[int, str] = {}
    parts: list[Traced] = []
    for position, value in enumerate((*args, *kwargs.values())):
        if isinstance(value, TracedInput) and name not in FUNCTIONS:
            names[position] = value._name
        else:
            parts.append(traced(value, lines))

    def build(span: Span, *operands: syntax.Expression) -> syntax.Expression:
        left = iter(operands)
        arguments = tuple(
            syntax.Argument(
                span,
                None if keyword is None else syntax.Name(span, keyword),
                syntax.Name(span, names[position]) if position in names else next(left),
            )
            for position, keyword in enumerate(keywords)
        )
        return syntax.Call(span, syntax.Name(span, name), arguments)

    sort = Sort.INT if name in ("floor", "ceil") else Sort.FLOAT
    if name in ("abs", "sign", "min", "max", "clamp") and all(p._sort is Sort.INT for p in parts):
        sort = Sort.INT
    return Traced(lines, build, tuple(parts), sort=sort)


def named(name: str, lines: PythonLines, sort: Sort, *, score: int | None = None, fixed: bool = False) -> Traced:
    """A name of the language: a position, a size, a param."""
    build = _Position(name) if name in ("q", "k") else _Named(name)
    return Traced(lines, build, sort=sort, score=score, fixed=fixed)


def choice(condition: Any, yes: Any, no: Any, lines: PythonLines) -> Traced:
    """`yes if condition else no`."""

    def build(span: Span, *parts: syntax.Expression) -> syntax.Expression:
        return syntax.Conditional(span, *parts)

    parts = tuple(traced(p, lines) for p in (condition, yes, no))
    sort = parts[1]._sort if parts[1]._sort is parts[2]._sort else Sort.FLOAT
    return Traced(lines, build, parts, sort=sort)


def check_name(name: object, span: Span | None, lines: PythonLines) -> None:
    """Raises SpecError for a name that a spec cannot have, though Python can."""
    if not isinstance(name, str) or not name.isidentifier():
        hint = "write it as a `def`, whose name the spec takes" if name == "<lambda>" else None
        raise lines.error(f"{name!r} is not a name", span, hint=hint)
    if not name.isascii():
        raise lines.error(f"the name '{name}' is not ASCII", span, hint="use letters from a to z, digits and _")
    if name in HEADS or name in OPERATOR_WORDS:
        note = "the word has a meaning in the language"
        raise lines.error(f"'{name}' cannot be a name in a spec", span, note=note, hint="choose another name")


def unknown_name(name: str, known: Iterator[str] | list[str], lines: PythonLines, recorder: str) -> SpecError:
    """The exception for an attribute that the recorder does not have."""
    return lines.error(f"'{recorder}' has no '{name}'", hint=did_you_mean(name, known))


@dataclasses.dataclass(frozen=True, slots=True)
class _Named:
    name: str

    def __call__(self, span: Span) -> syntax.Expression:
        return syntax.Name(span, self.name)


class _Position(_Named):
    """`q` or `k`, which have coordinates on a grid."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Literal:
    value: bool | int | float

    def __call__(self, span: Span) -> syntax.Expression:
        return syntax.Literal(span, self.value)


@dataclasses.dataclass(frozen=True, slots=True)
class _Binary:
    operator: str

    def __call__(self, span: Span, left: syntax.Expression, right: syntax.Expression) -> syntax.Expression:
        return syntax.Binary(span, self.operator, span, left, right)


def _compare_build(operator: str) -> Build:
    def build(span: Span, left: syntax.Expression, right: syntax.Expression) -> syntax.Expression:
        return syntax.Compare(span, (left, right), ((operator, span),))

    return build


def _negative(span: Span, operand: syntax.Expression) -> syntax.Expression:
    return syntax.Unary(span, "-", span, operand)


def _int_literal(value: int, lines: PythonLines) -> Traced:
    if abs(value) >= LARGEST_INT:
        raise lines.error("this integer does not fit in 64 bits")
    literal = Traced(lines, _Literal(abs(value)), sort=Sort.INT)
    return Traced(lines, _negative, (literal,), sort=Sort.INT) if value < 0 else literal


def _float_literal(value: float, lines: PythonLines) -> Traced:
    if value != value:
        raise lines.error("nan is no value of an attention")
    magnitude = abs(value)
    leaf = _Named("inf") if magnitude == float("inf") else _Literal(magnitude)
    literal = Traced(lines, leaf, sort=Sort.FLOAT)
    negative = value < 0 or str(value) == "-0.0"
    return Traced(lines, _negative, (literal,), sort=Sort.FLOAT) if negative else literal


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 and "\n" not in text else f"{text[:30].splitlines()[0]}…"
