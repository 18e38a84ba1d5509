"""What a call of a spec takes by name, and the values of one call put into the order the operators carry them in.

This file runs under `torch.compile`'s tracer: plain Python over tuples, nothing that looks at a tensor's elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from attncc.errors import ArgumentError, Diagnostic, did_you_mean, render
from attncc.ir.expr import Scalar, Sort
from attncc.ir.spec import Constant, Input, Parameter, Spec, Table
from attncc.source import Span


@dataclass(frozen=True, slots=True)
class Signature:
    """The names of one spec: `tensors` are its inputs, then its tables; `scalars` its constants, then its params."""

    name: str
    tensors: tuple[str, ...]
    learnable: tuple[bool, ...]
    scalars: tuple[tuple[str, Sort, Scalar | None], ...]
    spans: tuple[tuple[str, Span | None], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a call may give."""
        return (*self.tensors, *(name for name, _, _ in self.scalars))


def signature_of(spec: Spec) -> Signature:
    """The signature of a spec as it was written, before its constants are bound."""
    tensors: list[Input | Table] = [*spec.inputs, *spec.tables]
    declared: list[Input | Table | Constant | Parameter] = [*tensors, *spec.constants, *spec.params]
    return Signature(
        name=spec.name,
        tensors=tuple(d.name for d in tensors),
        learnable=(*(i.learnable for i in spec.inputs), *(False for _ in spec.tables)),
        scalars=(
            *((c.name, c.sort, c.value) for c in spec.constants),
            *((p.name, p.sort, p.default) for p in spec.params),
        ),
        spans=tuple((d.name, d.span) for d in declared),
    )


def collect(signature: Signature, values: Mapping[str, Any]) -> tuple[list[Tensor], list[int], list[float]]:
    """The tensors, the ints and bools, and the floats of a call, each in declared order, defaults filled in.

    Raises ArgumentError for a name that is missing or unknown, a value that is no tensor or no scalar of the declared
    type, and a tensor that requires grad where the spec does not declare it learnable.
    """
    check_names(signature, values)
    tensors: list[Tensor] = []
    for name, learnable in zip(signature.tensors, signature.learnable, strict=True):
        if name not in values:
            raise _missing(signature, name, "a tensor")
        given = values[name]
        if not isinstance(given, Tensor):
            raise refuse(f"'{name}' is an input: give a tensor, not {_kind(given)}", _span(signature, name))
        if given.requires_grad and not learnable:
            raise refuse(
                f"'{name}' requires grad, but the spec does not declare it learnable, so it would get no gradient",
                _span(signature, name),
                hint="add 'learnable' to its declaration, or pass it detached",
            )
        tensors.append(given)
    return tensors, *_scalars(signature, values)


def check_names(signature: Signature, values: Mapping[str, Any]) -> None:
    """Raises ArgumentError for a name that the spec does not have."""
    known = signature.names
    for name in values:
        if name not in known:
            raise refuse(
                f"'{signature.name}' has no param or input '{name}'",
                note=f"it takes {', '.join(known) or 'no params or inputs'}",
                hint=did_you_mean(name, known),
            )


def collect_scalars(signature: Signature, values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Constants and params by name, defaults filled in; otherwise as `collect`."""
    ints, floats = _scalars(signature, values)
    return scalars_of(signature, ints, floats)


def scalars_of(signature: Signature, ints: Sequence[int], floats: Sequence[float]) -> dict[str, Scalar]:
    """Constants and params by name, from the two lists `collect` made."""
    whole, real = iter(ints), iter(floats)
    return {
        name: next(real) if sort is Sort.FLOAT else bool(next(whole)) if sort is Sort.BOOL else int(next(whole))
        for name, sort, _ in signature.scalars
    }


def refuse(
    message: str, span: Span | None = None, *, note: str | None = None, hint: str | None = None
) -> ArgumentError:
    """The error for a call that does not fit the spec, showing the line of the spec that says so."""
    text = render([Diagnostic(message, span, note=note, hint=hint)])
    return ArgumentError(text.removeprefix("error: "))


def _scalars(signature: Signature, values: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    ints: list[int] = []
    floats: list[float] = []
    for name, sort, default in signature.scalars:
        value = values.get(name, default)
        if value is None:
            raise _missing(signature, name, "a number" if sort is not Sort.BOOL else "true or false")
        if sort is Sort.FLOAT:
            floats.append(_float(signature, name, value))
        else:
            ints.append(_bool(signature, name, value) if sort is Sort.BOOL else _int(signature, name, value))
    return ints, floats


def _int(signature: Signature, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise refuse(f"'{name}' is an int, but {_kind(value)} was given", _span(signature, name))
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise refuse(f"'{name}' does not fit in 64 bits: {number}", _span(signature, name))
    return number


def _float(signature: Signature, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise refuse(f"'{name}' is a float, but {_kind(value)} was given", _span(signature, name))
    return float(value)


def _bool(signature: Signature, name: str, value: Any) -> int:
    if not isinstance(value, bool):
        raise refuse(f"'{name}' is a bool, but {_kind(value)} was given", _span(signature, name))
    return int(value)


def _missing(signature: Signature, name: str, what: str) -> ArgumentError:
    return refuse(f"'{signature.name}' needs {what} for '{name}': call it with {name}=…", _span(signature, name))


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, bool | int | float | str):
        return f"the {type(value).__name__} {value!r}"
    return f"a {type(value).__name__}"


def _span(signature: Signature, name: str) -> Span | None:
    return dict(signature.spans).get(name)
