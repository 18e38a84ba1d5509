"""Every operation of the language, one record each: typing, meaning, interval, derivative, Triton text, doc."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from attncc.ir import interval, meaning
from attncc.ir.expr import Call, Const, Expr, Sort
from attncc.ir.interval import Interval
from attncc.ir.meaning import over_arrays

__all__ = ["INTRINSICS", "Interval", "Intrinsic", "Signature", "TypingError", "call", "is_plain"]

INT, BOOL, FLOAT = Sort.INT, Sort.BOOL, Sort.FLOAT
Signature = tuple[tuple[Sort, ...], Sort]


@dataclass(frozen=True, slots=True)
class Intrinsic:
    """One operation.

    `signatures` are tried in order; an int operand fits a float place through `to_float`.

    `meaning(xp, *arrays)` computes it with numpy or torch given as `xp`, on arrays, tensors and Python scalars that
    broadcast. Ints are int64 and wrap. The result of a float operation has its operands' float type, so a caller
    chooses float64 (scores in the oracle) or float32 (what feeds a bool or an index) by the type of the leaves;
    `to_float` gives float64, for the caller to round. With torch it is differentiable where it is float.

    `interval(sort, *intervals)` encloses the result, `sort` being the result's (see `attncc.ir.interval`).

    `derivative(call, index)` is the partial derivative by operand `index` as an expression, None for no derivative.
    It is asked for float results and float operands only.

    `triton` is the text with `{0}`, `{1}` for printed operands, parenthesised where it needs to be; the functions it
    names are those of `attncc.codegen.triton.operations`, and `tl`. Float text is float32. `triton_nonnegative` is a
    plainer text that serves where `is_plain` holds. `triton_exact` is the text where floats feed a bool or an index
    (rule 4: rounded as IEEE float32 after each operation), None where `triton` is exact already or nothing is.

    `symbol` is the operator in the language, None for what is written as a call.
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
    symbol: str | None = None

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
    """The typed application of an operation, ints turned to floats where a float is wanted. Raises TypingError.

    `floor` and `ceil` of an int are the int itself. KeyError for an operation that does not exist.
    """
    record = INTRINSICS[op]
    if len(args) != record.arity:
        raise TypingError(f"'{record.name}' takes {record.arity} operands, not {len(args)}")
    if op in ("floor", "ceil") and args[0].sort is INT:
        return args[0]
    for wanted, result in record.signatures:
        if all(a.sort is w or (a.sort is INT and w is FLOAT) for a, w in zip(args, wanted, strict=True)):
            if op == "pow" and result is INT:
                _check_exponent(args[1])
            return Call(op, tuple(_as_sort(a, w) for a, w in zip(args, wanted, strict=True)), result)
    raise _mismatch(record, args)


def is_plain(op: str, *operands: Interval) -> bool:
    """Whether `triton_nonnegative` serves for an int operation over these operands, all known to be non-negative;
    a divisor must be positive, a shift below 32 (which suits 32- and 64-bit ints alike)."""
    if INTRINSICS[op].triton_nonnegative is None or any(i.low < 0 for i in operands):
        return False
    if op in ("floordiv", "mod"):
        return operands[1].low >= 1
    return operands[1].high <= 31


def _check_exponent(exponent: Expr) -> None:
    if not isinstance(exponent, Const) or exponent.value < 0:
        raise TypingError("'**' on ints wants a literal exponent of 0 or more; write a float, as in 2.0 ** n", 1)


def _as_sort(arg: Expr, wanted: Sort) -> Expr:
    return arg if arg.sort is wanted else Call("to_float", (arg,), FLOAT)


def _mismatch(record: Intrinsic, args: tuple[Expr, ...]) -> TypingError:
    shown = record.symbol or record.name
    for index, arg in enumerate(args):
        accepted = {wanted[index] for wanted, _ in record.signatures}
        if arg.sort in accepted or (arg.sort is INT and FLOAT in accepted):
            continue
        if record.name == "where":
            return TypingError(f"a choice is made by a bool, not by {_a(arg.sort)}", index)
        kind = "bool" if accepted == {BOOL} else "int" if accepted == {INT} else "number"
        if record.arity == 1:
            return TypingError(f"'{shown}' wants {'an' if kind == 'int' else 'a'} {kind}, not {_a(arg.sort)}", index)
        places = ("left", "right") if record.symbol else ("first", "second", "third")
        noun = "operand" if record.symbol else "argument"
        return TypingError(f"'{shown}' wants {kind}s, its {places[index]} {noun} is {_a(arg.sort)}", index)
    first, second = args[-2:]
    if record.name == "where":
        return TypingError(f"a choice is between two of a kind, not {_a(first.sort)} and {_a(second.sort)}", 2)
    return TypingError(f"'{shown}' cannot take {_a(first.sort)} and {_a(second.sort)} together", 1)


def _a(sort: Sort) -> str:
    return "an int" if sort is INT else f"a {sort.value}"


def _float(value: float) -> Expr:
    return Const(value, FLOAT)


def _sloped_by_order(c: Call, index: int, losing: str) -> Expr:
    """The derivative of min or max: 1 for the operand that wins, 0 for the one that loses, half each at a tie."""
    mine, other = c.args[index], c.args[1 - index]
    tie = call("where", call("eq", mine, other), _float(0.5), _float(1.0))
    return call("where", call(losing, mine, other), _float(0.0), tie)


def _clamp_slope(c: Call, index: int) -> Expr:
    """As torch: 1 for x on and between the bounds, else for the bound that is returned; high wins over low."""
    x, low, high = c.args
    match index:
        case 0:
            active = call("and", call("ge", x, low), call("le", x, high))
        case 1:
            active = call("and", call("lt", x, low), call("lt", low, high))
        case _:
            active = call("or", call("gt", x, high), call("lt", high, low))
    return call("where", active, _float(1.0), _float(0.0))


def _power_slope(c: Call, index: int) -> Expr:
    base, exponent = c.args
    if index == 0:  # b * a ** (b - 1), and 0 for b = 0 whatever a is
        slope = call("mul", exponent, call("pow", base, call("sub", exponent, _float(1.0))))
        return call("where", call("eq", exponent, _float(0.0)), _float(0.0), slope)
    flat = call("and", call("eq", base, _float(0.0)), call("ge", exponent, _float(0.0)))
    return call("where", flat, _float(0.0), call("mul", c, call("log", base)))


def _relu_slope(c: Call, index: int) -> Expr:
    return call("where", call("le", c.args[0], _float(0.0)), _float(0.0), _float(1.0))


def _where_slope(c: Call, index: int) -> Expr | None:
    if index == 0:
        return None
    chosen = (_float(1.0), _float(0.0))
    return call("where", c.args[0], *(chosen if index == 1 else chosen[::-1]))


def _erf_slope(c: Call, index: int) -> Expr:
    x = c.args[0]
    return call("mul", _float(2 / math.sqrt(math.pi)), call("exp", call("neg", call("mul", x, x))))


_UNARY: tuple[Signature, ...] = (((INT,), INT), ((FLOAT,), FLOAT))
_BINARY: tuple[Signature, ...] = (((INT, INT), INT), ((FLOAT, FLOAT), FLOAT))
_INTS: tuple[Signature, ...] = (((INT, INT), INT),)
_FLOAT: tuple[Signature, ...] = (((FLOAT,), FLOAT),)
_ORDER: tuple[Signature, ...] = (((INT, INT), BOOL), ((FLOAT, FLOAT), BOOL))
_EQUALITY: tuple[Signature, ...] = (((INT, INT), BOOL), ((FLOAT, FLOAT), BOOL), ((BOOL, BOOL), BOOL))

_ALL = (
    Intrinsic(
        name="neg",
        symbol="-",
        signatures=_UNARY,
        doc="The negative.",
        meaning=lambda xp, x: -x,
        interval=interval.neg,
        derivative=lambda c, i: _float(-1.0),
        triton="(-{0})",
    ),
    Intrinsic(
        name="add",
        symbol="+",
        signatures=_BINARY,
        doc="The sum.",
        meaning=lambda xp, a, b: a + b,
        interval=interval.add,
        derivative=lambda c, i: _float(1.0),
        triton="({0} + {1})",
    ),
    Intrinsic(
        name="sub",
        symbol="-",
        signatures=_BINARY,
        doc="The difference.",
        meaning=lambda xp, a, b: a - b,
        interval=interval.sub,
        derivative=lambda c, i: _float(-1.0 if i else 1.0),
        triton="({0} - {1})",
    ),
    Intrinsic(
        name="mul",
        symbol="*",
        signatures=_BINARY,
        doc="The product.",
        meaning=lambda xp, a, b: a * b,
        interval=interval.mul,
        derivative=lambda c, i: c.args[1 - i],
        triton="({0} * {1})",
    ),
    Intrinsic(
        name="div",
        symbol="/",
        signatures=(((FLOAT, FLOAT), FLOAT),),
        doc="The quotient of floats; ints become floats. By 0 it is infinite or nan.",
        meaning=lambda xp, a, b: a / b,
        interval=interval.div,
        derivative=lambda c, i: (
            call("div", _float(1.0), c.args[1]) if i == 0 else call("neg", call("div", c, c.args[1]))
        ),
        triton="({0} / {1})",
        triton_exact="tl.div_rn({0}, {1})",
    ),
    Intrinsic(
        name="floordiv",
        symbol="//",
        signatures=_INTS,
        doc="The quotient of ints rounded down; by 0 it is 0.",
        meaning=meaning.floordiv,
        interval=interval.floordiv,
        triton="floor_div({0}, {1})",
        triton_nonnegative="({0} // {1})",
    ),
    Intrinsic(
        name="mod",
        symbol="%",
        signatures=_INTS,
        doc="The remainder of floor division: it has the divisor's sign; by 0 it is 0.",
        meaning=meaning.mod,
        interval=interval.mod,
        triton="floor_mod({0}, {1})",
        triton_nonnegative="({0} % {1})",
    ),
    Intrinsic(
        name="pow",
        symbol="**",
        signatures=_BINARY,
        doc="The power. On ints the exponent is a literal of 0 or more; `0 ** 0` is 1.",
        meaning=meaning.power,
        interval=interval.power,
        derivative=_power_slope,
        triton="power({0}, {1})",
    ),
    Intrinsic(
        name="abs",
        signatures=_UNARY,
        doc="The magnitude; its derivative at 0 is 0.",
        meaning=lambda xp, x: xp.abs(x),
        interval=interval.absolute,
        derivative=lambda c, i: call("sign", c.args[0]),
        triton="tl.abs({0})",
    ),
    Intrinsic(
        name="sign",
        signatures=_UNARY,
        doc="-1, 0 or 1; 0 for nan.",
        meaning=meaning.sign,
        interval=interval.sign,
        derivative=lambda c, i: _float(0.0),
        triton="sign({0})",
    ),
    Intrinsic(
        name="min",
        signatures=_BINARY,
        doc="The smaller of two; nan if either is. At a tie each operand has half the derivative.",
        meaning=lambda xp, a, b: xp.minimum(a, b),
        interval=interval.minimum,
        derivative=lambda c, i: _sloped_by_order(c, i, "gt"),
        triton="tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    ),
    Intrinsic(
        name="max",
        signatures=_BINARY,
        doc="The larger of two; nan if either is. At a tie each operand has half the derivative.",
        meaning=lambda xp, a, b: xp.maximum(a, b),
        interval=interval.maximum,
        derivative=lambda c, i: _sloped_by_order(c, i, "lt"),
        triton="tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    ),
    Intrinsic(
        name="clamp",
        signatures=(((INT, INT, INT), INT), ((FLOAT, FLOAT, FLOAT), FLOAT)),
        doc="`clamp(x, low, high)` is `min(max(x, low), high)`; its derivative by x is 1 inside and on the bounds.",
        meaning=meaning.clamp,
        interval=interval.clamp,
        derivative=_clamp_slope,
        triton="clamp({0}, {1}, {2})",
    ),
    Intrinsic(
        name="eq",
        symbol="==",
        signatures=_EQUALITY,
        doc="Whether two numbers or two bools are equal.",
        meaning=lambda xp, a, b: a == b,
        interval=interval.equal,
        triton="({0} == {1})",
    ),
    Intrinsic(
        name="ne",
        symbol="!=",
        signatures=_EQUALITY,
        doc="Whether two numbers or two bools differ.",
        meaning=lambda xp, a, b: a != b,
        interval=lambda sort, a, b: interval.negation(sort, interval.equal(sort, a, b)),
        triton="({0} != {1})",
    ),
    Intrinsic(
        name="lt",
        symbol="<",
        signatures=_ORDER,
        doc="Whether the first is less.",
        meaning=lambda xp, a, b: a < b,
        interval=interval.less,
        triton="({0} < {1})",
    ),
    Intrinsic(
        name="le",
        symbol="<=",
        signatures=_ORDER,
        doc="Whether the first is less or equal.",
        meaning=lambda xp, a, b: a <= b,
        interval=interval.less_equal,
        triton="({0} <= {1})",
    ),
    Intrinsic(
        name="gt",
        symbol=">",
        signatures=_ORDER,
        doc="Whether the first is greater.",
        meaning=lambda xp, a, b: a > b,
        interval=lambda sort, a, b: interval.less(sort, b, a),
        triton="({0} > {1})",
    ),
    Intrinsic(
        name="ge",
        symbol=">=",
        signatures=_ORDER,
        doc="Whether the first is greater or equal.",
        meaning=lambda xp, a, b: a >= b,
        interval=lambda sort, a, b: interval.less_equal(sort, b, a),
        triton="({0} >= {1})",
    ),
    Intrinsic(
        name="and",
        symbol="and",
        signatures=(((BOOL, BOOL), BOOL),),
        doc="Both; both sides are always evaluated.",
        meaning=lambda xp, a, b: xp.logical_and(a, b),
        interval=interval.conjunction,
        triton="({0} & {1})",
    ),
    Intrinsic(
        name="or",
        symbol="or",
        signatures=(((BOOL, BOOL), BOOL),),
        doc="Either; both sides are always evaluated.",
        meaning=lambda xp, a, b: xp.logical_or(a, b),
        interval=interval.disjunction,
        triton="({0} | {1})",
    ),
    Intrinsic(
        name="not",
        symbol="not",
        signatures=(((BOOL,), BOOL),),
        doc="The opposite.",
        meaning=lambda xp, a: xp.logical_not(a),
        interval=interval.negation,
        triton="({0} == 0)",
    ),
    Intrinsic(
        name="where",
        signatures=(((BOOL, INT, INT), INT), ((BOOL, FLOAT, FLOAT), FLOAT), ((BOOL, BOOL, BOOL), BOOL)),
        doc="`a if cond else b`; both are always evaluated.",
        meaning=lambda xp, c, a, b: xp.where(c, a, b),
        interval=interval.choice,
        derivative=_where_slope,
        triton="tl.where({0}, {1}, {2})",
    ),
    Intrinsic(
        name="bitand",
        symbol="&",
        signatures=_INTS,
        doc="Bitwise and of ints.",
        meaning=lambda xp, a, b: a & b,
        interval=interval.bitand,
        triton="({0} & {1})",
    ),
    Intrinsic(
        name="bitor",
        symbol="|",
        signatures=_INTS,
        doc="Bitwise or of ints.",
        meaning=lambda xp, a, b: a | b,
        interval=interval.bitor,
        triton="({0} | {1})",
    ),
    Intrinsic(
        name="bitxor",
        symbol="^",
        signatures=_INTS,
        doc="Bitwise exclusive or of ints.",
        meaning=lambda xp, a, b: a ^ b,
        interval=interval.bitxor,
        triton="({0} ^ {1})",
    ),
    Intrinsic(
        name="bitnot",
        symbol="~",
        signatures=(((INT,), INT),),
        doc="All bits of an int flipped.",
        meaning=lambda xp, a: ~a,
        interval=interval.bitnot,
        triton="(~{0})",
    ),
    Intrinsic(
        name="shl",
        symbol="<<",
        signatures=_INTS,
        doc="An int's bits moved up; 0 for a shift outside 0..63.",
        meaning=meaning.shift_left,
        interval=interval.shift_left,
        triton="shift_left({0}, {1})",
        triton_nonnegative="({0} << {1})",
    ),
    Intrinsic(
        name="shr",
        symbol=">>",
        signatures=_INTS,
        doc="An int's bits moved down, the sign kept; 0 for a shift outside 0..63.",
        meaning=meaning.shift_right,
        interval=interval.shift_right,
        triton="shift_right({0}, {1})",
        triton_nonnegative="({0} >> {1})",
    ),
    Intrinsic(
        name="floor",
        signatures=(((FLOAT,), INT),),
        doc="The int at or below; 0 for nan, the nearest int64 for what is beyond.",
        meaning=meaning.floor,
        interval=interval.floor,
        triton="floor_to_int({0})",
    ),
    Intrinsic(
        name="ceil",
        signatures=(((FLOAT,), INT),),
        doc="The int at or above; 0 for nan, the nearest int64 for what is beyond.",
        meaning=meaning.ceil,
        interval=interval.ceil,
        triton="ceil_to_int({0})",
    ),
    Intrinsic(
        name="exp",
        signatures=_FLOAT,
        doc="e to the power of x.",
        meaning=lambda xp, x: xp.exp(x),
        interval=interval.increasing(interval.exponential, 0.0),
        derivative=lambda c, i: c,
        triton="tl.exp({0})",
    ),
    Intrinsic(
        name="log",
        signatures=_FLOAT,
        doc="The natural logarithm; nan below 0.",
        meaning=lambda xp, x: xp.log(x),
        interval=interval.logarithm,
        derivative=lambda c, i: call("div", _float(1.0), c.args[0]),
        triton="tl.log({0})",
    ),
    Intrinsic(
        name="sqrt",
        signatures=_FLOAT,
        doc="The square root; nan below 0.",
        meaning=lambda xp, x: xp.sqrt(x),
        interval=interval.square_root,
        derivative=lambda c, i: call("div", _float(0.5), c),
        triton="tl.sqrt({0})",
        triton_exact="tl.sqrt_rn({0})",
    ),
    Intrinsic(
        name="sin",
        signatures=_FLOAT,
        doc="The sine of x in radians.",
        meaning=lambda xp, x: xp.sin(x),
        interval=interval.wave,
        derivative=lambda c, i: call("cos", c.args[0]),
        triton="tl.sin({0})",
    ),
    Intrinsic(
        name="cos",
        signatures=_FLOAT,
        doc="The cosine of x in radians.",
        meaning=lambda xp, x: xp.cos(x),
        interval=interval.wave,
        derivative=lambda c, i: call("neg", call("sin", c.args[0])),
        triton="tl.cos({0})",
    ),
    Intrinsic(
        name="tanh",
        signatures=_FLOAT,
        doc="The hyperbolic tangent.",
        meaning=lambda xp, x: xp.tanh(x),
        interval=interval.increasing(math.tanh, -1.0, 1.0),
        derivative=lambda c, i: call("sub", _float(1.0), call("mul", c, c)),
        triton="tanh({0})",
    ),
    Intrinsic(
        name="sigmoid",
        signatures=_FLOAT,
        doc="1 / (1 + exp(-x)).",
        meaning=meaning.sigmoid,
        interval=interval.increasing(interval.logistic, 0.0, 1.0),
        derivative=lambda c, i: call("mul", c, call("sub", _float(1.0), c)),
        triton="tl.sigmoid({0})",
    ),
    Intrinsic(
        name="relu",
        signatures=_FLOAT,
        doc="max(x, 0); its derivative at 0 is 0.",
        meaning=meaning.relu,
        interval=interval.relu,
        derivative=_relu_slope,
        triton="tl.maximum({0}, 0.0, propagate_nan=tl.PropagateNan.ALL)",
    ),
    Intrinsic(
        name="erf",
        signatures=_FLOAT,
        doc="The error function.",
        meaning=meaning.erf,
        interval=interval.increasing(math.erf, -1.0, 1.0),
        derivative=_erf_slope,
        triton="tl.erf({0})",
    ),
    Intrinsic(
        name="to_float",
        signatures=(((INT,), FLOAT),),
        doc="An int as a float; inserted wherever an int stands where a float is wanted.",
        meaning=meaning.to_float,
        interval=interval.to_float,
        triton="tl.cast({0}, tl.float32)",
    ),
)

INTRINSICS: Mapping[str, Intrinsic] = MappingProxyType(
    {record.name: replace(record, meaning=over_arrays(record.meaning)) for record in _ALL}
)
"""The records by name, in the order of the language's documentation."""
