"""Intervals that enclose every value an expression can take, and the interval rules the operations share.

An int interval has exact Python ints as bounds, or infinities for the ends of int64; a rule whose exact result
leaves int64 answers `UNKNOWN`, since the operation wraps. A float interval's bounds are Python floats rounded
outward to float32, so it encloses both the float32 and the float64 evaluation; `UNKNOWN` is the only float interval
that admits nan. A bool is 0 or 1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from attncc.ir.expr import Sort

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Interval:
    """All values from `low` to `high`, both included. Unknown is `-inf .. inf`; bools are 0 and 1."""

    low: float
    high: float

    @property
    def is_point(self) -> bool:
        """Whether exactly one value is possible."""
        return self.low == self.high

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known; a float may then be nan too."""
        return self.low == -math.inf and self.high == math.inf

    def contains(self, value: float) -> bool:
        """Whether the value is enclosed; nan is in the unknown interval alone."""
        return self.is_unknown if math.isnan(value) else self.low <= value <= self.high

    def join(self, other: Interval) -> Interval:
        """The smallest interval around both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


UNKNOWN = Interval(-math.inf, math.inf)
FALSE_INTERVAL, TRUE_INTERVAL, EITHER = Interval(0, 0), Interval(1, 1), Interval(0, 1)


def point(value: float, sort: Sort) -> Interval:
    """The interval of one scalar: exact for ints and bools, both neighbours' float32 for a float that is none."""
    if sort is Sort.FLOAT:
        return UNKNOWN if math.isnan(value) else float_interval(value, value)
    return Interval(int(value), int(value))


def float_interval(low: float, high: float) -> Interval:
    """The bounds rounded outward to float32; nan in either makes it unknown."""
    if math.isnan(low) or math.isnan(high):
        return UNKNOWN
    return Interval(round_down(low), round_up(high))


def int_interval(low: float, high: float) -> Interval:
    """The bounds as they are; unknown where the exact result leaves int64 and so may wrap."""
    if low < INT64_MIN or high > INT64_MAX:
        return UNKNOWN
    return Interval(-math.inf if low == INT64_MIN else low, math.inf if high == INT64_MAX else high)


def round_down(value: float) -> float:
    """The largest float32 that is at most `value`."""
    rounded = _to_float32(value)
    return rounded if rounded <= value else -_step_up(-rounded)


def round_up(value: float) -> float:
    """The smallest float32 that is at least `value`."""
    return -round_down(-value)


def _to_float32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:  # Python refuses to round to infinity
        return math.copysign(math.inf, value)


def _step_up(value: float) -> float:
    """The next float32 above; `value` is a float32 and not +inf."""
    if value == 0:
        return 2.0**-149
    if value == -math.inf:
        return -float(2**128 - 2**104)
    bits: int = struct.unpack("<i", struct.pack("<f", value))[0]
    return float(struct.unpack("<f", struct.pack("<i", bits + 1 if value > 0 else bits - 1))[0])


def _ends(interval: Interval) -> tuple[int, int]:
    """An int interval's bounds as exact ints."""
    low = INT64_MIN if interval.low == -math.inf else int(interval.low)
    high = INT64_MAX if interval.high == math.inf else int(interval.high)
    return low, high


def _ints(values: Iterable[int]) -> Interval:
    found = list(values)
    return int_interval(min(found), max(found))


def _floats(values: Iterable[float]) -> Interval:
    found = list(values)
    if any(map(math.isnan, found)):
        return UNKNOWN
    return float_interval(min(found), max(found))


def neg(sort: Sort, a: Interval) -> Interval:
    """-a."""
    if sort is Sort.FLOAT:
        return Interval(-a.high, -a.low)
    low, high = _ends(a)
    return int_interval(-high, -low)


def add(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a + b."""
    if sort is Sort.FLOAT:
        return UNKNOWN if a.is_unknown or b.is_unknown else float_interval(a.low + b.low, a.high + b.high)
    (al, ah), (bl, bh) = _ends(a), _ends(b)
    return int_interval(al + bl, ah + bh)


def sub(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a - b."""
    if sort is Sort.FLOAT:
        return add(sort, a, Interval(-b.high, -b.low))
    (al, ah), (bl, bh) = _ends(a), _ends(b)
    return int_interval(al - bh, ah - bl)


def mul(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a * b: bilinear, so the extremes are at corners."""
    if sort is Sort.FLOAT:
        if a.is_unknown or b.is_unknown or _may_be_zero_times_inf(a, b) or _may_be_zero_times_inf(b, a):
            return UNKNOWN
        return _floats(x * y for x in (a.low, a.high) for y in (b.low, b.high))
    return _ints(x * y for x in _ends(a) for y in _ends(b))


def _may_be_zero_times_inf(a: Interval, b: Interval) -> bool:
    return a.low <= 0 <= a.high and (b.low == -math.inf or b.high == math.inf)


def div(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a / b on floats: unknown where the divisor may be 0 (a float32 underflow included) or both may be infinite."""
    if a.is_unknown or b.is_unknown or b.low <= 0 <= b.high:
        return UNKNOWN
    return _floats(_quotient(x, y) for x in (a.low, a.high) for y in (b.low, b.high))


def _quotient(x: float, y: float) -> float:
    return math.nan if math.isinf(x) and math.isinf(y) else x / y


def floordiv(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a // b, flooring, 0 where b is 0: corners on each side of 0."""
    corners = [x // y for x in _ends(a) for side in _sides(b) for y in side]
    return _ints(corners + [0] * (b.low <= 0 <= b.high))


def mod(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a % b with the sign of b, 0 where b is 0."""
    found: list[Interval] = [Interval(0, 0)] if b.low <= 0 <= b.high else []
    low, high = _ends(a)
    for divisor_low, divisor_high in _sides(b):
        if divisor_low > 0:
            found.append(_positive_mod(low, high, divisor_low, divisor_high))
        else:  # a % b == -((-a) % (-b))
            mirrored = _positive_mod(-high, -low, -divisor_high, -divisor_low)
            found.append(Interval(-mirrored.high, -mirrored.low))
    return int_interval(min(i.low for i in found), max(i.high for i in found))


def _positive_mod(low: int, high: int, divisor_low: int, divisor_high: int) -> Interval:
    if divisor_low == divisor_high and low // divisor_low == high // divisor_low:
        return Interval(low % divisor_low, high % divisor_low)
    if low >= 0 and high < divisor_low:
        return Interval(low, high)
    return Interval(0, min(divisor_high - 1, high) if low >= 0 else divisor_high - 1)


def _sides(b: Interval) -> list[tuple[int, int]]:
    """The parts of an int interval below and above 0."""
    low, high = _ends(b)
    parts = [(low, min(high, -1)), (max(low, 1), high)]
    return [(lo, hi) for lo, hi in parts if lo <= hi]


def power(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a ** b: by corners where it is monotone in each operand, by parity for a constant whole exponent."""
    if sort is Sort.INT:
        return _int_power(a, b)
    if a.is_unknown or b.is_unknown or math.isinf(b.low) or math.isinf(b.high):
        return UNKNOWN
    if a.low > 0 or (a.low == 0 and b.low >= 0):
        corners = [_float_power(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
        return _approximate(min(corners), max(corners), 0.0, math.inf)
    if b.is_point and b.low == math.floor(b.low) and b.low >= 0:
        exponent = int(b.low)
        found = [_float_power(a.low, exponent), _float_power(a.high, exponent)]
        if exponent == 0 or (exponent % 2 == 0 and a.low <= 0 <= a.high):
            found.append(0.0 if exponent else 1.0)
        return _approximate(min(found), max(found), -math.inf, math.inf)
    return UNKNOWN


def _float_power(x: float, y: float) -> float:
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0 and y % 2 == 1 else math.inf
    except ValueError:  # 0 to a negative power
        return math.inf


def _int_power(a: Interval, b: Interval) -> Interval:
    (low, high), (exponent, last) = _ends(a), _ends(b)
    if exponent != last or exponent < 0:
        return UNKNOWN
    if exponent > 64:  # the exact power would be enormous; parity is all that counts for -1, 0 and 1
        if low < -1 or high > 1:
            return UNKNOWN
        exponent = 64 - exponent % 2
    found = [low**exponent, high**exponent]
    if exponent and exponent % 2 == 0 and low <= 0 <= high:
        found.append(0)
    return _ints(found)


def absolute(sort: Sort, a: Interval) -> Interval:
    """abs(a)."""
    if sort is Sort.INT:
        low, high = _ends(a)
        return _ints([abs(low), abs(high), *([0] if low <= 0 <= high else [])])
    if a.is_unknown:
        return UNKNOWN
    return Interval(0.0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high)), max(abs(a.low), abs(a.high)))


def sign(sort: Sort, a: Interval) -> Interval:
    """-1, 0 or 1 (0 for nan)."""
    if a.is_unknown:
        return Interval(-1, 1)
    return Interval((a.low > 0) - (a.low < 0), (a.high > 0) - (a.high < 0))


def minimum(sort: Sort, a: Interval, b: Interval) -> Interval:
    """min(a, b); nan wins."""
    if sort is Sort.FLOAT and (a.is_unknown or b.is_unknown):
        return UNKNOWN
    return Interval(min(a.low, b.low), min(a.high, b.high))


def maximum(sort: Sort, a: Interval, b: Interval) -> Interval:
    """max(a, b); nan wins."""
    if sort is Sort.FLOAT and (a.is_unknown or b.is_unknown):
        return UNKNOWN
    return Interval(max(a.low, b.low), max(a.high, b.high))


def clamp(sort: Sort, a: Interval, low: Interval, high: Interval) -> Interval:
    """min(max(a, low), high)."""
    return minimum(sort, maximum(sort, a, low), high)


def equal(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a == b."""
    if a.is_unknown or b.is_unknown:
        return EITHER
    if a.high < b.low or b.high < a.low:
        return FALSE_INTERVAL
    return TRUE_INTERVAL if a.is_point and b.is_point else EITHER


def less(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a < b; false where either is nan."""
    if a.is_unknown or b.is_unknown:
        return EITHER
    if a.high < b.low:
        return TRUE_INTERVAL
    return FALSE_INTERVAL if a.low >= b.high else EITHER


def less_equal(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a <= b; false where either is nan."""
    if a.is_unknown or b.is_unknown:
        return EITHER
    if a.high <= b.low:
        return TRUE_INTERVAL
    return FALSE_INTERVAL if a.low > b.high else EITHER


def negation(sort: Sort, a: Interval) -> Interval:
    """not a."""
    return Interval(1 - a.high, 1 - a.low)


def conjunction(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a and b."""
    return Interval(min(a.low, b.low), min(a.high, b.high))


def disjunction(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a or b."""
    return Interval(max(a.low, b.low), max(a.high, b.high))


def choice(sort: Sort, condition: Interval, a: Interval, b: Interval) -> Interval:
    """a where the condition holds, else b."""
    if condition.is_point:
        return a if condition.low == 1 else b
    return a.join(b)


def bitand(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a & b."""
    if a.is_point and b.is_point:
        return _ints([_ends(a)[0] & _ends(b)[0]])
    bounds = [i.high for i in (a, b) if i.low >= 0]  # a non-negative operand bounds the result
    return Interval(0, min(bounds)) if bounds else _same_bits(a, b)


def bitor(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a | b."""
    if a.is_point and b.is_point:
        return _ints([_ends(a)[0] | _ends(b)[0]])
    bits = _same_bits(a, b)
    if a.low >= 0 and b.low >= 0:
        return Interval(max(a.low, b.low), bits.high)
    return bits


def bitxor(sort: Sort, a: Interval, b: Interval) -> Interval:
    """a ^ b."""
    if a.is_point and b.is_point:
        return _ints([_ends(a)[0] ^ _ends(b)[0]])
    bits = _same_bits(a, b)
    return Interval(0, bits.high) if a.low >= 0 and b.low >= 0 else bits


def bitnot(sort: Sort, a: Interval) -> Interval:
    """~a."""
    low, high = _ends(a)
    return int_interval(~high, ~low)


def _same_bits(a: Interval, b: Interval) -> Interval:
    """Everything that fits the narrowest two's complement width holding both operands."""
    bits = max((x if x >= 0 else ~x).bit_length() for x in (*_ends(a), *_ends(b)))
    return int_interval(-(2**bits), 2**bits - 1)


def shift_left(sort: Sort, a: Interval, n: Interval) -> Interval:
    """a << n, 0 for a shift outside 0..63."""
    return _shift(a, n, lambda x, by: x << by)


def shift_right(sort: Sort, a: Interval, n: Interval) -> Interval:
    """a >> n, arithmetic, 0 for a shift outside 0..63."""
    return _shift(a, n, lambda x, by: x >> by)


def _shift(a: Interval, n: Interval, shifted: Callable[[int, int], int]) -> Interval:
    first, last = _ends(n)
    found = [0] if first < 0 or last > 63 else []
    if max(first, 0) <= min(last, 63):
        found += [shifted(x, by) for x in _ends(a) for by in (max(first, 0), min(last, 63))]
    return _ints(found)


def to_float(sort: Sort, a: Interval) -> Interval:
    """An int as a float: never nan."""
    low, high = _ends(a)
    return float_interval(low, high)


def floor(sort: Sort, a: Interval) -> Interval:
    """The int at or below; nan gives 0, what is beyond int64 its nearest end."""
    return _whole(a, math.floor)


def ceil(sort: Sort, a: Interval) -> Interval:
    """The int at or above; nan gives 0, what is beyond int64 its nearest end."""
    return _whole(a, math.ceil)


def _whole(a: Interval, whole: Callable[[float], int]) -> Interval:
    low = INT64_MIN if a.low == -math.inf else INT64_MAX if a.low == math.inf else whole(a.low)
    high = INT64_MIN if a.high == -math.inf else INT64_MAX if a.high == math.inf else whole(a.high)
    return int_interval(max(min(low, INT64_MAX), INT64_MIN), max(min(high, INT64_MAX), INT64_MIN))


def square_root(sort: Sort, a: Interval) -> Interval:
    """sqrt(a): unknown where a may be negative."""
    if not a.low >= 0:
        return UNKNOWN
    return float_interval(math.sqrt(a.low), math.sqrt(a.high))


def relu(sort: Sort, a: Interval) -> Interval:
    """max(a, 0)."""
    return UNKNOWN if a.is_unknown else Interval(max(a.low, 0.0), max(a.high, 0.0))


def logarithm(sort: Sort, a: Interval) -> Interval:
    """log(a): unknown where a may be negative, -inf at 0."""
    if not a.low >= 0:
        return UNKNOWN
    low, high = (-math.inf if x == 0 else math.log(x) for x in (a.low, a.high))
    return _approximate(low, high, -math.inf, math.inf)


def wave(sort: Sort, a: Interval) -> Interval:
    """sin or cos: between -1 and 1 for every finite operand."""
    return UNKNOWN if math.isinf(a.low) or math.isinf(a.high) else Interval(-1.0, 1.0)


def increasing(
    function: Callable[[float], float], lowest: float = -math.inf, highest: float = math.inf
) -> Callable[[Sort, Interval], Interval]:
    """The rule of a non-decreasing approximated float function with values in `lowest .. highest`."""

    def rule(sort: Sort, a: Interval) -> Interval:
        if a.is_unknown:
            return UNKNOWN
        return _approximate(function(a.low), function(a.high), lowest, highest)

    return rule


def exponential(x: float) -> float:
    """exp, infinite where it overflows."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def logistic(x: float) -> float:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + exponential(-x))


# No two backends round a transcendental alike. A hardware exp works on a rounded multiple of its operand, which
# costs up to about a hundred units in the last place at the ends of its range.
_RELATIVE_ERROR = 2.0**-14
_ABSOLUTE_ERROR = 2.0**-22


def _approximate(low: float, high: float, lowest: float, highest: float) -> Interval:
    low -= abs(low) * _RELATIVE_ERROR + _ABSOLUTE_ERROR if not math.isinf(low) else 0
    high += abs(high) * _RELATIVE_ERROR + _ABSOLUTE_ERROR if not math.isinf(high) else 0
    return float_interval(max(low, lowest), min(high, highest))
