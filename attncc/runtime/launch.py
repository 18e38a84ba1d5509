"""A call's arguments checked against the spec, in the caller's words, and bound to every name the spec may read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attncc.ir.expr import Expr, Param, Scalar, Size, Sort, postorder
from attncc.ir.printer import print_expr
from attncc.ir.spec import Input, Spec, Table
from attncc.runtime.divisors import check_divisors
from attncc.runtime.evaluate import Evaluator
from attncc.runtime.facts import check_facts
from attncc.runtime.signature import Signature, refuse, scalars_of
from attncc.runtime.tables import blocks_of

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
GridArgument: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | None


@dataclass(frozen=True, slots=True)
class Bound:
    """One call, complete and checked.

    query `[batch, heads, queries, dim]`, key `[batch, kv_heads, keys, dim]`, value `[batch, kv_heads, keys, dim_v]`.
    `tensors` are the inputs and tables by name, in declared order; `scalars` constants and params by name. `sizes` has
    `batch heads kv_heads queries keys dim dim_v`, the named extents, and for a grid the length of every axis under
    each of its names (`q.y` and `queries.y`; `y` where one grid serves both) with `prefix_tokens`, `suffix_tokens`.
    """

    spec: Spec
    query: Tensor
    key: Tensor
    value: Tensor
    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, Scalar]
    sizes: Mapping[str, int]
    q_offset: int | Tensor
    scale: float

    @property
    def constants(self) -> dict[str, Scalar]:
        """The values the kernel is specialised on."""
        return {c.name: self.scalars[c.name] for c in self.spec.constants}

    @property
    def params(self) -> dict[str, Scalar]:
        """The values that recompile nothing."""
        return {p.name: self.scalars[p.name] for p in self.spec.params}


@dataclass(frozen=True, slots=True)
class Arguments:
    """One call as the operators carry it: tensors and plain values in the order of a `Signature`.

    `grid_queries` and `grid_keys` are equal where one grid serves both, and empty without a grid.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    tensors: Sequence[Tensor]
    ints: Sequence[int]
    floats: Sequence[float]
    q_offset: int | Tensor = 0
    scale: float | None = None
    grid_queries: Sequence[int] = ()
    grid_keys: Sequence[int] = ()
    prefix_tokens: int = 0
    suffix_tokens: int = 0


def grid_sizes(spec: Spec, grid: GridArgument | int) -> tuple[list[int], list[int]]:
    """The lengths of the query grid's axes and of the key grid's, from a call's `grid=`.

    `(H, W)` serves both; `((H, W), (h, w))` gives the query grid, then the key grid. Raises ArgumentError where the
    spec has no grid, or another number of axes, or is given none.
    """
    declared = spec.grid
    if declared is None:
        if grid is not None:
            raise refuse(f"'{spec.name}' declares no grid, but grid={grid} was given")
        return [], []
    axes = f"({', '.join(declared.queries)})"
    if grid is None:
        raise refuse(f"'{spec.name}' needs the lengths of its grid: call it with grid={axes}", declared.span)
    if isinstance(grid, int):
        raise refuse(f"grid must be the lengths {axes}, not {grid!r}", declared.span)
    lengths: list[Any] = list(grid)
    if len(lengths) > 0 and not isinstance(lengths[0], int):
        if len(lengths) != 2:
            raise refuse(f"grid={grid} must be one grid or a pair (query grid, key grid)", declared.span)
        queries, keys = list(lengths[0]), list(lengths[1])
        if declared.queries == declared.keys and queries != keys:
            raise refuse(
                f"the spec has one grid for queries and keys, but grid={grid} gives two",
                declared.span,
                hint="declare two: `grid queries …` and `grid keys …`",
            )
    elif declared.queries != declared.keys:
        raise refuse(
            f"the spec has a query grid and a key grid: give grid=(query lengths, key lengths), not {grid}",
            declared.span,
        )
    else:
        queries, keys = lengths, lengths
    for names, given in ((declared.queries, queries), (declared.keys, keys)):
        if len(names) != len(given) or not all(isinstance(n, int) and n >= 0 for n in given):
            raise refuse(
                f"grid={grid} does not fit the axes ({', '.join(names)}): one length is wanted for each", declared.span
            )
    return queries, keys


def bind(spec: Spec, signature: Signature, call: Arguments, *, check: bool = False) -> Bound:
    """Checks a call and resolves every size. Raises ArgumentError.

    `check=True` also verifies what the spec declares of its tensors' elements and that table entries are valid,
    which waits for the device.
    """
    check_operands(call)
    tensors = dict(zip(signature.tensors, call.tensors, strict=True))
    scalars = scalars_of(signature, call.ints, call.floats)
    sizes = _operand_sizes(call)
    sizes |= grid_names(spec, sizes, call.grid_queries, call.grid_keys, call.prefix_tokens, call.suffix_tokens)
    sizes |= named_extents(spec, {name: tuple(t.shape) for name, t in tensors.items()}, sizes)
    for name in spec.extents:
        if name not in sizes:
            raise refuse(f"nothing tells the extent '{name}': no input has it as a whole axis", spec.span)
    evaluator = Evaluator(scalars, sizes)
    check_requires(spec, evaluator)
    check_divisors(spec, evaluator)
    for declared in declarations(spec):
        _check_input(declared, tensors[declared.name], call.query, _lengths(spec, declared, evaluator))
    scale = call.scale if call.scale is not None else _default_scale(spec, evaluator)
    bound = Bound(spec, call.query, call.key, call.value, tensors, scalars, sizes, call.q_offset, scale)
    if check:
        check_facts(spec, tensors, evaluator)
    return bound


def grid_names(
    spec: Spec,
    sizes: Mapping[str, int],
    grid_queries: Sequence[int],
    grid_keys: Sequence[int],
    prefix_tokens: int,
    suffix_tokens: int,
) -> dict[str, int]:
    """The length of every grid axis under each of its names, and the tokens before and after the grid.

    Raises ArgumentError where they do not add up to `queries` or `keys` of `sizes`.
    """
    grid = spec.grid
    if prefix_tokens < 0 or suffix_tokens < 0:
        raise refuse(f"prefix_tokens and suffix_tokens must not be negative: {prefix_tokens}, {suffix_tokens}")
    if grid is None:
        if prefix_tokens or suffix_tokens:
            raise refuse(f"'{spec.name}' declares no grid, so prefix_tokens and suffix_tokens mean nothing here")
        return {}
    named = {"prefix_tokens": prefix_tokens, "suffix_tokens": suffix_tokens}
    shared = grid.queries == grid.keys
    for side, short, axes, lengths in (
        ("queries", "q", grid.queries, grid_queries),
        ("keys", "k", grid.keys, grid_keys),
    ):
        # One grid lies over the keys: queries may be a slice of the same tokens, at q_offset.
        if side == "keys" or not shared:
            _check_tokens(spec, side, axes, lengths, prefix_tokens, suffix_tokens, sizes[side])
        for axis, length in zip(axes, lengths, strict=True):
            named[f"{side}.{axis}"] = named[f"{short}.{axis}"] = length
            if shared:
                named[axis] = length
    return named


def named_extents(spec: Spec, shapes: Mapping[str, Sequence[int]], sizes: Mapping[str, int]) -> dict[str, int]:
    """The `extent` names that the shapes of inputs and tables tell, each from the first that has it as a whole axis."""
    found: dict[str, int] = {}
    for declared in declarations(spec):
        for extent, length in zip(declared.extents, shapes.get(declared.name, ()), strict=False):
            if isinstance(extent, Size) and extent.name in spec.extents and extent.name not in sizes:
                found.setdefault(extent.name, length)
    return found


def check_layout(bound: Bound) -> None:
    """Kernels read the last dimension of query, key and value as consecutive elements. Raises ArgumentError."""
    for name, tensor in (("query", bound.query), ("key", bound.key), ("value", bound.value)):
        if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise refuse(
                f"{name}'s last dimension is not contiguous: its stride is {tensor.stride(-1)}, and 1 is wanted",
                note="the other dimensions may have any strides",
                hint=f"pass {name}.contiguous()",
            )


def detached(bound: Bound) -> Bound:
    """The same call, cut from any autograd graph."""
    return replace(
        bound,
        query=bound.query.detach(),
        key=bound.key.detach(),
        value=bound.value.detach(),
        tensors={name: t.detach() for name, t in bound.tensors.items()},
    )


def _check_offset(offset: int | Tensor, query: Tensor) -> None:
    if not isinstance(offset, Tensor):
        return
    if offset.dtype not in INTEGERS or list(offset.shape) != [query.shape[0]]:
        raise refuse(
            "q_offset must be an int or an int tensor [batch], "
            f"but is {_dtype(offset)}{list(offset.shape)} with batch {query.shape[0]}"
        )
    if offset.device != query.device:
        raise refuse(f"q_offset is on {offset.device}, but query is on {query.device}")


def _operand_sizes(call: Arguments) -> dict[str, int]:
    batch, heads, queries, dim = call.query.shape
    _, kv_heads, keys, dim_v = call.value.shape
    return {
        "batch": batch,
        "heads": heads,
        "kv_heads": kv_heads,
        "queries": queries,
        "keys": keys,
        "dim": dim,
        "dim_v": dim_v,
    }


def _check_tokens(
    spec: Spec, side: str, axes: Sequence[str], lengths: Sequence[int], prefix: int, suffix: int, tokens: int
) -> None:
    if prefix + math.prod(lengths) + suffix == tokens:
        return
    product = " * ".join(f"{n} {axis}" for n, axis in zip(lengths, axes, strict=True))
    extra = f" + {prefix} prefix tokens" * bool(prefix) + f" + {suffix} suffix tokens" * bool(suffix)
    raise refuse(
        f"the grid of {side} has {product}{extra} = {prefix + math.prod(lengths) + suffix} tokens, "
        f"but there are {tokens} {side}",
        spec.grid.span if spec.grid else None,
    )


def _check_input(declared: Input | Table, tensor: Tensor, query: Tensor, lengths: Sequence[int]) -> None:
    name, span = declared.name, declared.span
    sort = declared.sort if isinstance(declared, Input) else Sort.INT
    wanted = {Sort.INT: INTEGERS, Sort.BOOL: (torch.bool,), Sort.FLOAT: FLOATING}[sort]
    extents = ", ".join(print_expr(e) for e in declared.extents)
    if tensor.dtype not in wanted:
        raise refuse(f"'{name}' is declared {sort.value}[{extents}], but a tensor of {_dtype(tensor)} was given", span)
    check_device(declared, tensor, query)
    check_shape(declared, tensor.shape, lengths)


def _lengths(spec: Spec, declared: Input | Table, evaluator: Evaluator) -> list[int]:
    if isinstance(declared, Input):
        return [int(evaluator.scalar(e)) for e in declared.extents]
    # The axes of query blocks follow from the table's own block size, whatever they are called.
    blocks = blocks_of(spec, declared, evaluator).queries
    split = len(declared.extents) - 1 - len(blocks)
    leading = [int(evaluator.scalar(e)) for e in declared.extents[:split]]
    return [*leading, *blocks, int(evaluator.scalar(declared.extents[-1]))]


def check_operands(call: Arguments) -> None:
    """Query, key, value and the offset: ranks, types, devices and lengths. Raises ArgumentError."""
    query, key, value = call.query, call.key, call.value
    layouts = (
        ("query", query, "[batch, heads, queries, dim]"),
        ("key", key, "[batch, kv_heads, keys, dim]"),
        ("value", value, "[batch, kv_heads, keys, dim_v]"),
    )
    for name, tensor, layout in layouts:
        if tensor.ndim != 4:
            raise refuse(f"{name} must have four dimensions {layout}, but has shape {list(tensor.shape)}")
    for name, tensor, _ in layouts:
        if tensor.dtype not in FLOATING:
            raise refuse(f"{name} is {_dtype(tensor)}: float16, bfloat16, float32 or float64 is wanted")
        if tensor.dtype != query.dtype:
            raise refuse(f"query is {_dtype(query)}, but {name} is {_dtype(tensor)}: they must be of one type")
        if tensor.device != query.device:
            raise refuse(f"query is on {query.device}, but {name} is on {tensor.device}")
    batch, heads, _, dim = query.shape
    for name, tensor, _ in layouts[1:]:
        if tensor.shape[0] != batch:
            raise refuse(f"query has batch {batch}, but {name} has {tensor.shape[0]}")
    if value.shape[1:3] != key.shape[1:3]:
        raise refuse(
            f"key and value must agree in heads and length: key has shape {list(key.shape)}, value {list(value.shape)}"
        )
    if key.shape[3] != dim:
        raise refuse(f"query has dim {dim}, but key has {key.shape[3]}")
    if dim == 0 or value.shape[3] == 0:
        raise refuse(f"dim and dim_v must be at least 1: query's dim is {dim}, value's dim_v {value.shape[3]}")
    if key.shape[1] == 0 or heads % key.shape[1]:
        raise refuse(f"query's {heads} heads are not a multiple of the {key.shape[1]} heads of key and value")
    _check_offset(call.q_offset, query)


def check_device(declared: Input | Table, tensor: Tensor, query: Tensor) -> None:
    """An input or table lies where query does. Raises ArgumentError."""
    if tensor.device != query.device:
        raise refuse(f"'{declared.name}' is on {tensor.device}, but query is on {query.device}", declared.span)


def check_shape(declared: Input | Table, shape: Sequence[int], lengths: Sequence[int]) -> None:
    """An input or table has the extents it is declared with, `lengths` in this call. Raises ArgumentError."""
    extents = ", ".join(print_expr(e) for e in declared.extents)
    if len(shape) != len(lengths):
        raise refuse(f"'{declared.name}' is declared [{extents}], but has shape {list(shape)}", declared.span)
    for axis, (extent, length) in enumerate(zip(declared.extents, lengths, strict=True)):
        if shape[axis] != length:
            raise refuse(
                f"'{declared.name}' has {shape[axis]} elements along axis {axis}, "
                f"but '{print_expr(extent)}' is {length}",
                declared.span,
                note=f"its shape is {list(shape)}; [{extents}] is {list(lengths)} in this call",
            )


def declarations(spec: Spec) -> list[Input | Table]:
    """What of a spec a call gives tensors for: its inputs, then its tables."""
    return [*spec.inputs, *spec.tables]


def check_requires(spec: Spec, evaluator: Evaluator) -> None:
    """Raises ArgumentError for the first `require` that does not hold, with its message."""
    for require in spec.requires:
        if not evaluator.scalar(require.condition):
            raise refuse(
                require.message or "a requirement of the spec is not met",
                require.span,
                note=f"{print_expr(require.condition)} does not hold{_values(require.condition, evaluator)}",
            )


def _values(condition: Expr, evaluator: Evaluator) -> str:
    read = [n for n in postorder(condition) if isinstance(n, Param | Size)]
    shown = [f"{print_expr(n)} = {evaluator.scalar(n)}" for n in read]
    return f" with {', '.join(shown)}" if shown else ""


def _default_scale(spec: Spec, evaluator: Evaluator) -> float:
    if spec.scale is None:
        return 1.0 / math.sqrt(evaluator.sizes["dim"])
    return float(evaluator.scalar(spec.scale))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
