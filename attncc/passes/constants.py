"""Binds what is known at compile time to literals, in every expression of a spec: constants, the head dimension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attncc.errors import ArgumentError, Diagnostic, did_you_mean, render
from attncc.ir.expr import Const, Expr, Param, Scalar, Size, Sort, substitute, to_const
from attncc.ir.interval import INT64_MAX, INT64_MIN
from attncc.ir.spec import Constant, Spec
from attncc.ir.traversal import map_expressions


def bind_constants(spec: Spec, values: Mapping[str, Scalar] | None = None, *, dim: int | None = None) -> Spec:
    """The spec with every `const` replaced by its value: the one given, else its declared one. It has none left.

    The size `dim` becomes `dim` where that is given: kernels are made for one head dimension, and are not passed it.
    Raises ArgumentError for a name that is no constant of the spec, or a value of another sort (an int will do for a
    float).
    """
    values = {} if values is None else values
    known = [c.name for c in spec.constants]
    for name in values:
        if name not in known:
            message = f"'{name}' is not a constant of '{spec.name}'"
            raise ArgumentError(render([Diagnostic(message, hint=did_you_mean(name, known))]))
    bound: dict[Expr, Expr] = {Param(c.name, c.sort): _literal(c, values.get(c.name, c.value)) for c in spec.constants}
    if dim is not None:
        bound[Size("dim")] = to_const(dim)
    return replace(map_expressions(spec, lambda e: substitute(e, bound)), constants=())


def _literal(constant: Constant, value: Scalar) -> Const:
    accepted = {Sort.BOOL: (bool,), Sort.INT: (int,), Sort.FLOAT: (int, float)}[constant.sort]
    if type(value) not in accepted:  # exactly: a bool is an int to isinstance
        message = f"'{constant.name}' is {_a(constant.sort)}, not {type(value).__name__} {value!r}"
        raise ArgumentError(render([Diagnostic(message, constant.span)]))
    if constant.sort is Sort.INT and not INT64_MIN <= value <= INT64_MAX:
        raise ArgumentError(render([Diagnostic(f"'{constant.name}' does not fit 64 bits: {value}", constant.span)]))
    return Const(float(value) if constant.sort is Sort.FLOAT else value, constant.sort)


def _a(sort: Sort) -> str:
    return "an int" if sort is Sort.INT else f"a {sort.value}"
