"""The elementwise torch functions and methods that FlexAttention code uses, as expressions of the IR.

Functions are found by name: `torch.add`, `Tensor.add`, `Tensor.__add__`, `Tensor.__radd__` and `torch.ops.aten.add`
all arrive as "add". Each takes IR expressions for tensors and numbers, and anything else (dtypes, strings, None) as it
is. Torch's meaning is kept: bools count as 0 and 1, `/` is true division, `floor` gives a float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from attncc.ir import intrinsics
from attncc.ir.expr import FALSE, TRUE, Call, Const, Expr, Sort, children, to_const, with_children

I, B, F = Sort.INT, Sort.BOOL, Sort.FLOAT  # noqa: E741


class Refusal(Exception):
    """A torch function is known, but not in this form."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def call(op: str, *args: Expr) -> Expr:
    """As `intrinsics.call`, with literals converted where they stand. Raises TypingError."""
    made = intrinsics.call(op, *args)
    return with_children(made, tuple(fold(c) for c in children(made)))


def sort_of(dtype: torch.dtype) -> Sort:
    """The sort that stands for a dtype. Raises Refusal for complex and quantized ones."""
    if dtype is torch.bool:
        return B
    if dtype.is_floating_point:
        return F
    if dtype.is_complex or dtype not in _INT_DTYPES:
        raise Refusal(f"{dtype} has no counterpart in a spec")
    return I


def cast(x: Expr, dtype: torch.dtype) -> Expr:
    """`x.to(dtype)`: a float becomes an int towards zero; precision is the backend's, not the dtype's."""
    wanted = sort_of(dtype)
    if wanted is B:
        return x if x.sort is B else call("ne", x, _like(x, 0))
    if x.sort is I and wanted is I and dtype not in (torch.int32, torch.int64):
        raise Refusal(f"a conversion to {dtype} would wrap around", "leave the conversion out")
    x = _number(x)
    if wanted is I:
        return _truncated(x)
    return _float(x)


def full(value: Expr, dtype: torch.dtype | None) -> Expr:
    """A constant of a dtype, as `torch.full_like` makes it."""
    return value if dtype is None else fold(cast(value, dtype))


def fold(x: Expr) -> Expr:
    """A literal where `x` is a simple conversion of one, or `x` itself."""
    match x:
        case Call(op="to_float", args=(Const(value=value),)):
            return Const(float(value), F)
        case Call(op="ne", args=(Const(value=value), Const(value=zero))):
            return Const(value != zero, B)
        case Call(op="where", args=(Const(value=condition), yes, no)):
            return yes if condition else no
        case Call(op="neg", args=(Const(value=value, sort=sort),)):
            return Const(-value, sort)
        case _:
            return x


def _number(x: Expr) -> Expr:
    """A bool as 0 or 1."""
    return fold(call("where", x, Const(1, I), Const(0, I))) if x.sort is B else x


def _float(x: Expr) -> Expr:
    x = _number(x)
    return fold(call("to_float", x)) if x.sort is I else x


def _like(x: Expr, value: int) -> Const:
    return Const(float(value), F) if x.sort is F else Const(value, I)


def _truncated(x: Expr) -> Expr:
    match x:
        case Call(op="to_float", args=(whole,)):
            return whole  # floor(x).int() in torch is the int that floor gives here
        case _ if x.sort is I:
            return x
        case _:
            return call("where", call("lt", x, Const(0.0, F)), call("ceil", x), call("floor", x))


def _arithmetic(op: str) -> Callable[..., Expr]:
    def apply(x: Expr, y: Expr) -> Expr:
        return call(op, _number(x), _number(y))

    return apply


def _add(x: Expr, y: Expr, *, alpha: Expr | None = None) -> Expr:
    if x.sort is B and y.sort is B and alpha is None:
        return call("or", x, y)
    y = _number(y)
    return call("add", _number(x), y if alpha is None else call("mul", alpha, y))


def _sub(x: Expr, y: Expr, *, alpha: Expr | None = None) -> Expr:
    if B in (x.sort, y.sort) and alpha is None and x.sort is y.sort:
        raise Refusal("torch does not subtract bools", "write `x ^ y`, or `x & ~y`")
    y = _number(y)
    return call("sub", _number(x), y if alpha is None else call("mul", alpha, y))


def _mul(x: Expr, y: Expr) -> Expr:
    if x.sort is B and y.sort is B:
        return call("and", x, y)
    return call("mul", _number(x), _number(y))


def _div(x: Expr, y: Expr, *, rounding_mode: str | None = None) -> Expr:
    match rounding_mode:
        case None:
            return call("div", _float(x), _float(y))
        case "floor":
            return _floordiv(x, y)
        case "trunc":
            x, y = _number(x), _number(y)
            if x.sort is I and y.sort is I:
                magnitude = call("floordiv", call("abs", x), call("abs", y))
                opposite = call("ne", call("lt", x, Const(0, I)), call("lt", y, Const(0, I)))
                return call("where", opposite, call("neg", magnitude), magnitude)
            return _float(_truncated(call("div", _float(x), _float(y))))
        case _:
            raise Refusal(f"rounding_mode={rounding_mode!r} is not one of torch's")


def _floordiv(x: Expr, y: Expr) -> Expr:
    x, y = _number(x), _number(y)
    if x.sort is I and y.sort is I:
        return call("floordiv", x, y)
    return _float(call("floor", call("div", x, y)))


def _remainder(x: Expr, y: Expr) -> Expr:
    x, y = _number(x), _number(y)
    if x.sort is I and y.sort is I:
        return call("mod", x, y)
    return call("sub", x, call("mul", _float(call("floor", call("div", x, y))), y))


def _fmod(x: Expr, y: Expr) -> Expr:
    raise Refusal("torch.fmod keeps the dividend's sign, and a spec has no such operation", "write `x % y`")


def _pow(x: Expr, y: Expr) -> Expr:
    x, y = _number(x), _number(y)
    if x.sort is I and y.sort is I:
        if x is Const(2, I) and not isinstance(y, Const):
            return call("shl", Const(1, I), y)  # both give 0 for a negative exponent
        if not isinstance(y, Const) or y.value < 0:
            raise Refusal("an int to the power of an int wants a literal exponent of 0 or more", "write `x ** 2.0`")
        return call("pow", x, y)
    if y is Const(2.0, F):
        return call("mul", x, x)
    if y is Const(2, I):
        return call("mul", x, x)
    return call("pow", x, y)


def _comparison(op: str) -> Callable[..., Expr]:
    def apply(x: Expr, y: Expr) -> Expr:
        if x.sort is B and y.sort is B and op in ("eq", "ne"):
            return call(op, x, y)
        return call(op, _number(x), _number(y))

    return apply


def _bits(on_bools: str, on_ints: str) -> Callable[..., Expr]:
    def apply(x: Expr, y: Expr) -> Expr:
        if x.sort is B and y.sort is B:
            return _logic(on_bools, x, y)
        return call(on_ints, _number(x), _number(y))

    return apply


def _logic(op: str, x: Expr, y: Expr) -> Expr:
    # Torch's and_masks and or_masks begin with a constant, which need not stay.
    neutral = TRUE if op == "and" else FALSE
    decisive = {"and": FALSE, "or": TRUE}.get(op)
    if decisive is not None and decisive in (x, y):
        return decisive
    if neutral in (x, y):
        return y if x is neutral else x
    return call(op, x, y)


def _logical(op: str) -> Callable[..., Expr]:
    def apply(x: Expr, y: Expr) -> Expr:
        return _logic(op, cast(x, torch.bool), cast(y, torch.bool))

    return apply


def _not(x: Expr) -> Expr:
    return call("not", x) if x.sort is B else call("bitnot", x)


def _where(condition: Expr, x: Expr, y: Expr) -> Expr:
    if x.sort is not y.sort:
        x, y = (_number(x), _number(y))
    if F in (x.sort, y.sort):
        x, y = _float(x), _float(y)
    return call("where", condition, x, y)


def _masked_fill(x: Expr, mask: Expr, value: Expr) -> Expr:
    return _where(mask, value if x.sort is not F else _float(value), x)


def _extreme(op: str) -> Callable[..., Expr]:
    def apply(x: Expr, y: Expr | None = None) -> Expr:
        if y is None:
            raise Refusal(f"torch.{op} of one operand reduces a tensor", f"give it two: `torch.{op}imum(x, y)`")
        if x.sort is B and y.sort is B:
            return call({"min": "and", "max": "or"}[op], x, y)
        return call(op, _number(x), _number(y))

    return apply


def _clamp(x: Expr, min: Expr | None = None, max: Expr | None = None) -> Expr:
    x = _number(x)
    if min is not None and max is not None:
        return call("clamp", x, _number(min), _number(max))
    if min is not None:
        return call("max", x, _number(min))
    if max is not None:
        return call("min", x, _number(max))
    raise Refusal("torch.clamp wants a bound", "give `min=` or `max=`")


def _number_function(op: str) -> Callable[..., Expr]:
    def apply(x: Expr) -> Expr:
        return fold(call(op, _number(x)))

    return apply


def _float_function(op: str) -> Callable[..., Expr]:
    def apply(x: Expr, **ignored: Any) -> Expr:
        return call(op, _float(x))

    return apply


def _rounded(op: str) -> Callable[..., Expr]:
    def apply(x: Expr) -> Expr:
        x = _number(x)
        return x if x.sort is I else _float(call(op, x))

    return apply


def _trunc(x: Expr) -> Expr:
    x = _number(x)
    return x if x.sort is I else _float(_truncated(x))


def _round(x: Expr, **_: Any) -> Expr:
    raise Refusal("torch.round rounds halves to even, and a spec has no such operation", "write `torch.floor(x + 0.5)`")


def _relu(x: Expr, inplace: object = False) -> Expr:
    x = _number(x)
    return call("relu", x) if x.sort is F else call("max", x, Const(0, I))


def _gelu(x: Expr, *, approximate: str = "none") -> Expr:
    x = _float(x)
    if approximate == "tanh":
        inner = call("add", x, call("mul", _f(0.044715), call("mul", x, call("mul", x, x))))
        bell = call("tanh", call("mul", _f(math.sqrt(2 / math.pi)), inner))
    else:
        bell = call("erf", call("mul", x, _f(math.sqrt(0.5))))
    return call("mul", call("mul", _f(0.5), x), call("add", _f(1.0), bell))


def _softplus(x: Expr, beta: Expr | None = None, threshold: Expr | None = None) -> Expr:
    if beta is not None and beta not in (Const(1, I), Const(1.0, F)):
        raise Refusal("softplus is supported for beta=1", "scale its operand instead")
    x = _float(x)
    # max(x, 0) + log(1 + exp(-|x|)) neither overflows nor needs torch's threshold.
    small = call("log", call("add", _f(1.0), call("exp", call("neg", call("abs", x)))))
    return call("add", call("max", x, _f(0.0)), small)


def _leaky_relu(x: Expr, negative_slope: Expr | None = None, inplace: object = False) -> Expr:
    x = _float(x)
    return call(
        "where", call("gt", x, _f(0.0)), x, call("mul", x, _f(0.01) if negative_slope is None else negative_slope)
    )


def _identity(x: Expr, *_: Any, **__: Any) -> Expr:
    return x


def _detach(x: Expr) -> Expr:
    if x.sort is F:
        raise Refusal("a spec cannot stop a gradient inside a score", "detach the tensor outside the function")
    return x


def _to(x: Expr, *args: Any, **options: Any) -> Expr:
    for given in (*args, *options.values()):
        if isinstance(given, torch.dtype):
            return cast(x, given)
        if isinstance(given, Expr):
            return cast(x, _DTYPES[given.sort])
    return x


def _caster(dtype: torch.dtype) -> Callable[..., Expr]:
    def apply(x: Expr, **_: Any) -> Expr:
        return cast(x, dtype)

    return apply


def _filled(value: int | None) -> Callable[..., Expr]:
    """`ones_like` and, with the value among the arguments, `full_like`; the `new_` forms have a shape first."""

    def apply(x: Expr, *args: Any, dtype: torch.dtype | None = None, **options: Any) -> Expr:
        size = options.get("size", ())
        fill = to_const(value) if value is not None else options.get("fill_value", args[-1] if args else None)
        shapes = [a for a in (size, *args) if isinstance(a, list | tuple)]
        counted = value is not None and any(isinstance(a, Expr) for a in args)
        if counted or any(len(s) for s in shapes) or not isinstance(fill, Expr):
            raise Refusal("a mod sees one element at a time, so only shape () can be made here")
        return full(fill, dtype or _DTYPES[x.sort])

    return apply


def _isinf(x: Expr) -> Expr:
    return call("eq", call("abs", _float(x)), _f(math.inf))


def _lerp(x: Expr, end: Expr, weight: Expr) -> Expr:
    return call("add", x, call("mul", weight, call("sub", end, x)))


def _f(value: float) -> Const:
    return Const(value, F)


_DTYPES = {I: torch.int64, B: torch.bool, F: torch.float32}
_INT_DTYPES = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)

_NAMED: dict[str, Callable[..., Expr]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "floordiv": _floordiv,
    "remainder": _remainder,
    "fmod": _fmod,
    "pow": _pow,
    "neg": _number_function("neg"),
    "positive": _identity,
    "abs": _number_function("abs"),
    "sign": _number_function("sign"),
    "square": lambda x: call("mul", _number(x), _number(x)),
    "reciprocal": lambda x: call("div", _f(1.0), _float(x)),
    "eq": _comparison("eq"),
    "ne": _comparison("ne"),
    "lt": _comparison("lt"),
    "le": _comparison("le"),
    "gt": _comparison("gt"),
    "ge": _comparison("ge"),
    "and": _bits("and", "bitand"),
    "or": _bits("or", "bitor"),
    "xor": _bits("ne", "bitxor"),
    "not": _not,
    "logical_and": _logical("and"),
    "logical_or": _logical("or"),
    "logical_xor": _logical("ne"),
    "logical_not": lambda x: call("not", cast(x, torch.bool)),
    "lshift": _arithmetic("shl"),
    "rshift": _arithmetic("shr"),
    "where": _where,
    "masked_fill": _masked_fill,
    "min": _extreme("min"),
    "max": _extreme("max"),
    "clamp": _clamp,
    "clamp_min": lambda x, min: _clamp(x, min=min),
    "clamp_max": lambda x, max: _clamp(x, max=max),
    "floor": _rounded("floor"),
    "ceil": _rounded("ceil"),
    "trunc": _trunc,
    "round": _round,
    "exp": _float_function("exp"),
    "exp2": lambda x: call("exp", call("mul", _float(x), _f(math.log(2)))),
    "expm1": lambda x: call("sub", call("exp", _float(x)), _f(1.0)),
    "log": _float_function("log"),
    "log2": lambda x: call("div", call("log", _float(x)), _f(math.log(2))),
    "log10": lambda x: call("div", call("log", _float(x)), _f(math.log(10))),
    "log1p": lambda x: call("log", call("add", _f(1.0), _float(x))),
    "sqrt": _float_function("sqrt"),
    "rsqrt": lambda x: call("div", _f(1.0), call("sqrt", _float(x))),
    "sin": _float_function("sin"),
    "cos": _float_function("cos"),
    "tan": lambda x: call("div", call("sin", _float(x)), call("cos", _float(x))),
    "tanh": _float_function("tanh"),
    "sigmoid": _float_function("sigmoid"),
    "logsigmoid": lambda x: call("neg", _softplus(call("neg", _float(x)))),
    "erf": _float_function("erf"),
    "relu": _relu,
    "relu6": lambda x, inplace=False: call("clamp", _float(x), _f(0.0), _f(6.0)),
    "gelu": _gelu,
    "silu": lambda x, inplace=False: call("mul", _float(x), call("sigmoid", _float(x))),
    "softplus": _softplus,
    "leaky_relu": _leaky_relu,
    "lerp": _lerp,
    "isinf": _isinf,
    "isneginf": lambda x: call("eq", _float(x), _f(-math.inf)),
    "isnan": lambda x: call("ne", _float(x), _float(x)),
    "to": _to,
    "type": _to,
    "type_as": _to,
    "float": _caster(torch.float32),
    "double": _caster(torch.float32),
    "half": _caster(torch.float32),
    "bfloat16": _caster(torch.float32),
    "int": _caster(torch.int32),
    "long": _caster(torch.int64),
    "bool": _caster(torch.bool),
    "clone": _identity,
    "contiguous": _identity,
    "cpu": _identity,
    "cuda": _identity,
    "detach": _detach,
    "ones_like": _filled(1),
    "zeros_like": _filled(0),
    "full_like": _filled(None),
    "new_ones": _filled(1),
    "new_zeros": _filled(0),
    "new_full": _filled(None),
    "new_tensor": _filled(None),
}
_OTHER_NAMES = {
    "subtract": "sub",
    "multiply": "mul",
    "truediv": "div",
    "true_divide": "div",
    "divide": "div",
    "floor_divide": "floordiv",
    "mod": "remainder",
    "negative": "neg",
    "pos": "positive",
    "absolute": "abs",
    "sgn": "sign",
    "not_equal": "ne",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
    "bitwise_not": "not",
    "invert": "not",
    "bitwise_left_shift": "lshift",
    "bitwise_right_shift": "rshift",
    "minimum": "min",
    "maximum": "max",
    "clip": "clamp",
    "fix": "trunc",
    "special_erf": "erf",
    "special_expit": "sigmoid",
    "special_exp2": "exp2",
    "special_expm1": "expm1",
    "special_log1p": "log1p",
    "log_sigmoid": "logsigmoid",
}

TORCH_FUNCTIONS: Mapping[str, Callable[..., Expr]] = MappingProxyType(
    _NAMED | {other: _NAMED[name] for other, name in _OTHER_NAMES.items()}
)
"""By name, without underscores: `and` is `Tensor.__and__`."""
