"""Evaluates IR expressions as torch tensors: the meaning of an expression, from which the oracle is made.

A value broadcasts over `[batch, heads, queries, keys]`. Integers are int64, bools are bool. A float is float64 where
it makes a score, and float32, rounded after every operation, where it feeds a bool or an index: a mask must not
depend on how precisely a backend computes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncc.ir.expr import (
    Call,
    Const,
    Coord,
    Expr,
    Listed,
    Load,
    Param,
    RowCount,
    RowSum,
    Scalar,
    Score,
    Size,
    Sort,
    children,
    postorder,
)
from attncc.ir.intrinsics import INTRINSICS


@dataclass(slots=True)
class Evaluator:
    """Values for the leaves of expressions, and a memo of what was computed from them.

    `scalars` are constants and params by name, `sizes` lengths by name, `coordinates` int64 tensors by name,
    `tensors` the inputs. `listed` tells whether a pair's tile is in a table. `score`, `total` and `count` are float64,
    float64 and int64; a leaf that an expression reads and this record lacks is a KeyError.
    """

    scalars: Mapping[str, Scalar]
    sizes: Mapping[str, int]
    coordinates: Mapping[str, Tensor] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    listed: Callable[[str], Tensor] | None = None
    score: Tensor | None = None
    total: Tensor | None = None
    count: Tensor | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _memo: dict[tuple[Expr, bool], Tensor] = field(default_factory=dict, init=False)

    def __call__(self, expr: Expr) -> Tensor:
        """The value of `expr`: float64, int64 or bool by its sort."""
        for node, exact in _postorder(expr):
            if (node, exact) not in self._memo:
                self._memo[node, exact] = self._node(node, exact)
        return self._memo[expr, False]

    def scalar(self, expr: Expr) -> Scalar:
        """The value of an expression over sizes, constants and params only, as a Python scalar."""
        match expr:
            case Const(value=value):
                return value
            case Size(name=name):
                return self.sizes[name]
            case Param(name=name):
                return self.scalars[name]
            case _:
                # Calls repeat their sizes: what was computed once is looked up by the values it was computed from.
                return _host_value(expr, tuple(self._leaf(leaf) for leaf in _leaves(expr)))

    def _leaf(self, leaf: Size | Param) -> str:
        # As text, because 0.0 and -0.0 are equal.
        return repr(self.sizes[leaf.name] if isinstance(leaf, Size) else self.scalars[leaf.name])

    def _node(self, node: Expr, exact: bool) -> Tensor:
        match node:
            case Const(value=value, sort=sort):
                return self._literal(value, sort, exact)
            case Param(name=name, sort=sort):
                return self._literal(self.scalars[name], sort, exact)
            case Size(name=name):
                return self._literal(self.sizes[name], Sort.INT, exact)
            case Coord(name=name):
                return self.coordinates[name]
            case Score():
                return _to_sort(_present(self.score, node), Sort.FLOAT, exact)
            case RowSum():
                return _to_sort(_present(self.total, node), Sort.FLOAT, exact)
            case RowCount():
                return _present(self.count, node)
            case Listed(table=table):
                return _present(self.listed(table) if self.listed else None, node)
            case Load(input=name, index=index, sort=sort):
                return _to_sort(load(self.tensors[name], [self._memo[i, False] for i in index]), sort, exact)
            case Call(op="to_float", args=(operand,)):
                return self._memo[operand, False].to(_dtype(Sort.FLOAT, exact))
            case Call(op=op, args=args, sort=sort):
                operands = [self._memo[a, _is_exact(node, a, exact)] for a in args]
                meaning = INTRINSICS[op].meaning
                if sort is not Sort.FLOAT or exact or not any(o.requires_grad for o in operands):
                    return _to_sort(meaning(torch, *operands), sort, exact)
                return _zero_preserving(lambda *xs: _to_sort(meaning(torch, *xs), sort, exact), operands)
            case _:
                raise AssertionError(f"not a node of the IR: {node!r}")

    def _literal(self, value: Scalar, sort: Sort, exact: bool) -> Tensor:
        return torch.tensor(value, dtype=_dtype(sort, exact), device=self.device)


def load(tensor: Tensor, index: list[Tensor]) -> Tensor:
    """The elements at `index`, one index tensor for each axis, broadcast together.

    Loads are total: where any index is out of range (a negative one too) the value is 0 or false and no gradient flows.
    """
    index = _broadcast(index)
    if tensor.numel() == 0:
        shape = index[0].shape if index else ()
        return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
    if not index:
        return tensor
    valid = torch.ones_like(index[0], dtype=torch.bool)
    for i, length in zip(index, tensor.shape, strict=True):
        valid = valid & (i >= 0) & (i < length)
    inside = tensor[tuple(i.clamp(0, length - 1) for i, length in zip(index, tensor.shape, strict=True))]
    return torch.where(valid, inside, torch.zeros((), dtype=tensor.dtype, device=tensor.device))


@functools.lru_cache(maxsize=4096)
def _leaves(expr: Expr) -> tuple[Size | Param, ...]:
    return tuple(n for n in postorder(expr) if isinstance(n, Size | Param))


@functools.lru_cache(maxsize=4096)
def _host_value(expr: Expr, values: tuple[str, ...]) -> Scalar:
    leaves = [(leaf, _parsed(text, leaf.sort)) for leaf, text in zip(_leaves(expr), values, strict=True)]
    evaluator = Evaluator(
        scalars={leaf.name: value for leaf, value in leaves if isinstance(leaf, Param)},
        sizes={leaf.name: int(value) for leaf, value in leaves if isinstance(leaf, Size)},
    )
    value = evaluator(expr).item()
    return float(value) if expr.sort is Sort.FLOAT else bool(value) if expr.sort is Sort.BOOL else int(value)


def _parsed(text: str, sort: Sort) -> Scalar:
    if sort is Sort.FLOAT:
        return float(text)
    return int(text) if sort is Sort.INT else text == "True"


def _postorder(root: Expr) -> Iterator[tuple[Expr, bool]]:
    """Every (node, is it float32) under the root, children first. A float node may be wanted both ways."""
    seen: set[tuple[Expr, bool]] = set()
    stack: list[tuple[Expr, bool, bool]] = [(root, False, False)]
    while stack:
        node, exact, expanded = stack.pop()
        if (node, exact) in seen:
            continue
        if expanded:
            seen.add((node, exact))
            yield node, exact
            continue
        stack.append((node, exact, True))
        stack.extend((c, _is_exact(node, c, exact), False) for c in children(node))


def _is_exact(parent: Expr, child: Expr, exact: bool) -> bool:
    """Whether the child is to be float32: it is a float and ends in a bool or an int."""
    return child.sort is Sort.FLOAT and (exact or parent.sort is not Sort.FLOAT or isinstance(parent, Load))


def _dtype(sort: Sort, exact: bool) -> torch.dtype:
    if sort is Sort.FLOAT:
        return torch.float32 if exact else torch.float64
    return torch.int64 if sort is Sort.INT else torch.bool


def _to_sort(value: Tensor, sort: Sort, exact: bool) -> Tensor:
    return value.to(_dtype(sort, exact))


def _present(value: Tensor | None, node: Expr) -> Tensor:
    if value is None:
        raise KeyError(f"{type(node).__name__} has no value here")
    return value


def _broadcast(tensors: list[Tensor]) -> list[Tensor]:
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))  # type: ignore[no-untyped-call]
    return [t.broadcast_to(shape) for t in tensors]


def _zero_preserving(function: Callable[..., Tensor], operands: list[Tensor]) -> Tensor:
    """`function(*operands)`, with a zero gradient staying zero even where the derivative is infinite or undefined.

    The branch not taken of `log(x) if x > 0 else 0`, and every score behind the mask, receive exactly zero; times an
    infinite derivative that would be NaN, and would reach the gradients of everything the operand depends on.
    """
    operands = _broadcast(operands)
    dead: list[Tensor] = []  # at most one: where the gradient of the result was zero, set just before it is asked for

    def keep(gradient: Tensor | None) -> None:
        if gradient is not None:
            dead[:] = [gradient == 0]

    def silence(gradient: Tensor | None) -> Tensor | None:
        return None if gradient is None else torch.where(dead[0], torch.zeros_like(gradient), gradient)

    watched = []
    for operand in operands:
        if operand.requires_grad:
            # A fresh tensor, so that the hook sees the gradient of this use alone.
            operand = operand.view_as(operand)
            operand.register_hook(silence)  # type: ignore[no-untyped-call]
        watched.append(operand)
    result = function(*watched)
    if result.requires_grad:
        result = result.view_as(result)
        result.register_hook(keep)  # type: ignore[no-untyped-call]
    return result
