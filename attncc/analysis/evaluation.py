"""Evaluates int and bool expressions that read no pair, for many tiles at once: what a kernel computes in scalars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attncc.errors import ArgumentError
from attncc.ir.expr import Call, Const, Coord, Expr, Load, Param, Scalar, Size, postorder
from attncc.ir.intrinsics import INTRINSICS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Values:
    """Values of the leaves by name. Arrays of `coordinates` broadcast together; `tensors` are numpy arrays."""

    sizes: Mapping[str, int]
    scalars: Mapping[str, Scalar]
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    coordinates: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


def evaluate_all(exprs: Iterable[Expr], values: Values) -> list[NDArray[Any]]:
    """The value of each expression, int64 or bool, of the shape that the coordinates it reads broadcast to.

    Raises ArgumentError where a leaf has no value, in the user's names.
    """
    roots = list(exprs)
    memo: dict[Expr, Any] = {}
    for node in postorder(*roots):
        memo[node] = _node(node, values, memo)
    return [memo[root] for root in roots]


def to_array(tensor: Any) -> NDArray[Any]:
    """A numpy view of an array, a nested list, or a torch tensor (which is brought to the host)."""
    import numpy as np

    return np.asarray(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor)


def _node(node: Expr, values: Values, memo: Mapping[Expr, Any]) -> Any:
    import numpy as np

    match node:
        case Const(value=value):
            return np.asarray(value)
        case Size(name=name):
            return np.asarray(_named(name, values.sizes, "size"), dtype=np.int64)
        case Param(name=name):
            return np.asarray(_named(name, values.scalars, "value of the param"))
        case Coord(name=name):
            return _named(name, values.coordinates, "coordinate")
        case Load(input=name, index=index):
            return _gather(to_array(_named(name, values.tensors, "tensor for the input")), [memo[i] for i in index])
        case Call(op=op, args=args):
            return INTRINSICS[op].meaning(np, *(memo[a] for a in args))
        case _:
            raise TypeError(f"no value without a pair: {node!r}")


def _named(name: str, given: Mapping[str, Any], what: str) -> Any:
    if name not in given:
        raise ArgumentError(f"the plan needs the {what} '{name}'")
    return given[name]


def _gather(tensor: NDArray[Any], index: list[Any]) -> NDArray[Any]:
    """`tensor[index]`, 0 out of range."""
    import numpy as np

    if tensor.ndim != len(index):
        raise ArgumentError(f"an input is read with {len(index)} indices but has shape {list(tensor.shape)}")
    inside: Any = np.asarray(True)
    for i, extent in zip(index, tensor.shape, strict=True):
        inside = inside & (i >= 0) & (i < extent)
    value = tensor.astype(np.bool_ if tensor.dtype == np.bool_ else np.int64)
    if value.size == 0:
        return np.zeros(np.shape(inside), dtype=value.dtype)
    found = value[tuple(np.clip(i, 0, extent - 1) for i, extent in zip(index, tensor.shape, strict=True))]
    return np.asarray(np.where(inside, found, np.zeros_like(found)))
