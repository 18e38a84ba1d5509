"""What users call: `load`, `loads`, `attention`, `from_flex`, and the `Attention` they return."""

from __future__ import annotations

import copy
import os
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from attncc.analysis.plan import Plan
from attncc.compiler import build
from attncc.errors import ArgumentError, did_you_mean
from attncc.grammar.flex import trace_flex
from attncc.grammar.frontend import load_specs, loads_specs
from attncc.grammar.trace import trace
from attncc.ir.printer import print_expr
from attncc.ir.spec import Spec
from attncc.runtime import oracle
from attncc.runtime.launch import Arguments, GridArgument, bind, grid_sizes
from attncc.runtime.ops import define_operators, flatten, handle_of
from attncc.runtime.signature import collect, refuse

_OPERATORS = define_operators(build)


@overload
def load(path: str | os.PathLike[str], *, name: str) -> Attention: ...
@overload
def load(path: str | os.PathLike[str], *, name: None = None) -> Attention | dict[str, Attention]: ...
def load(path: str | os.PathLike[str], *, name: str | None = None) -> Attention | dict[str, Attention]:
    """The attention an `.attn` file defines; where it defines several, a dict by name, or the one called `name`.

    Raises SpecError with every mistake in the file, ArgumentError where it has no `name`, OSError.
    """
    return _choose(load_specs(path), name, os.fspath(path))


@overload
def loads(text: str, *, name: str) -> Attention: ...
@overload
def loads(text: str, *, name: None = None) -> Attention | dict[str, Attention]: ...
def loads(text: str, *, name: str | None = None) -> Attention | dict[str, Attention]:
    """As `load`, from a string."""
    return _choose(loads_specs(text), name, "the text")


def attention(function: Callable[..., None]) -> Attention:
    """Decorator: the attention that a Python function describes, found by calling it once with symbols.

    Raises SpecError pointing at the Python line.
    """
    made = Attention(trace(function))
    made.__doc__ = function.__doc__
    made.__module__ = function.__module__
    return made


def from_flex(score_mod: Callable[..., Any] | None = None, mask_mod: Callable[..., Any] | None = None) -> Attention:
    """The attention that functions written for FlexAttention describe.

    `score_mod(score, batch, head, q_idx, kv_idx)` and `mask_mod(batch, head, q_idx, kv_idx)`, unchanged. Tensors they
    close over stay bound to the result: it reads them at every call, and those that require grad get gradients.
    """
    traced = trace_flex(score_mod, mask_mod)
    return Attention(traced.spec, traced.tensors)


class Attention:
    """One attention: call it with tensors. Immutable; usable inside modules and under `torch.compile`."""

    def __init__(self, spec: Spec, tensors: Mapping[str, Tensor] | None = None) -> None:
        self._spec = spec
        self._tensors = dict(tensors or {})
        self._handle = handle_of(spec)
        self._signature = self._handle.signature
        self._plain = _Results(self, ())
        self._with_lse = _Results(self, ("lse",))

    @property
    def spec(self) -> Spec:
        """The typed spec, as checked."""
        return self._spec

    @property
    def name(self) -> str:
        """The name the spec gives it."""
        return self._spec.name

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float | None = None,
        q_offset: int | Tensor = 0,
        grid: GridArgument = None,
        prefix_tokens: int = 0,
        suffix_tokens: int = 0,
        backend: str = "auto",
        return_lse: bool = False,
        check: bool = False,
        **values: Any,
    ) -> Any:
        """Computes it: query `[batch, heads, queries, dim]`, key `[batch, kv_heads, keys, dim]`, value
        `[batch, kv_heads, keys, dim_v]` to `[batch, heads, queries, dim_v]`, differentiable.

        `scale` is the factor in `s`, else the spec's, else 1/sqrt(dim). `q_offset`, an int or an int tensor `[batch]`,
        is the position of the first query and may be negative. `grid` gives the lengths of the grid's axes, or of
        the query grid's and the key grid's; `prefix_tokens` and `suffix_tokens` lie before and after it. `values`
        are the spec's params, inputs and tables by name; a constant given here specialises the kernel.

        With `return_lse`, or outputs that the spec declares, returns a named tuple `(out, lse, …)`, the further
        results float32 (float64 for float64 queries). `check=True` verifies declared facts and table entries, which
        waits for the device.

        Raises ArgumentError for a call that does not fit the spec, BackendError where the backend cannot run here,
        UnsupportedError for what the backend cannot do yet.
        """
        query, key, value = _autocast(query, key, value)
        call = self._arguments(query, key, value, scale, q_offset, grid, prefix_tokens, suffix_tokens, values)
        results = self._results(return_lse)
        return results.pick(_OPERATORS.call(*flatten(call, self._handle, backend, check)))

    def reference(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float | None = None,
        q_offset: int | Tensor = 0,
        grid: GridArgument = None,
        prefix_tokens: int = 0,
        suffix_tokens: int = 0,
        backend: str = "oracle",
        return_lse: bool = False,
        check: bool = False,
        **values: Any,
    ) -> Any:
        """The same by the dense oracle, float64 inside: what every backend must compute. Any order of derivative."""
        if backend not in ("oracle", "auto"):
            raise ArgumentError(f"reference is always the dense oracle, so backend={backend!r} cannot be had from it")
        call = self._arguments(query, key, value, scale, q_offset, grid, prefix_tokens, suffix_tokens, values)
        results = self._results(return_lse)
        bound = bind(self._spec, self._signature, call, check=check)
        out, outputs = oracle.reference(bound)
        return results.pick([(outputs | {"out": out})[name] for name in self._handle.names])

    def __repr__(self) -> str:
        spec = self._spec
        parts = [
            *(f"{i.name}: {i.sort.value}[{', '.join(map(print_expr, i.extents))}]" for i in spec.inputs),
            *(f"{t.name}: int[{', '.join(map(print_expr, t.extents))}]" for t in spec.tables),
            *(f"{p.name}: {p.sort.value}" + ("" if p.default is None else f" = {p.default}") for p in spec.params),
        ]
        return f"<attncc.Attention {spec.name}({', '.join(parts)})>"

    def __copy__(self) -> Attention:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Attention:
        # Parameters that a function closed over must follow the module that is being copied.
        return Attention(self._spec, copy.deepcopy(self._tensors, memo)) if self._tensors else self

    def __reduce__(self) -> tuple[Any, ...]:
        return Attention, (self._spec, self._tensors)

    def _arguments(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float | None,
        q_offset: int | Tensor,
        grid: GridArgument,
        prefix_tokens: int,
        suffix_tokens: int,
        values: Mapping[str, Any],
    ) -> Arguments:
        for name, tensor in (("query", query), ("key", key), ("value", value)):
            if not isinstance(tensor, Tensor):
                raise refuse(f"{name} must be a tensor, not a {type(tensor).__name__}")
        if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float)):
            raise refuse(f"scale must be a float, not a {type(scale).__name__}")
        for name, number in (("prefix_tokens", prefix_tokens), ("suffix_tokens", suffix_tokens)):
            if isinstance(number, bool) or not isinstance(number, int):
                raise refuse(f"{name} must be an int, not a {type(number).__name__}")
        if not isinstance(q_offset, Tensor) and (isinstance(q_offset, bool) or not isinstance(q_offset, int)):
            raise refuse(f"q_offset must be an int or an int tensor [batch], not a {type(q_offset).__name__}")
        tensors, ints, floats = collect(self._signature, {**self._tensors, **values})
        grid_queries, grid_keys = grid_sizes(self._spec, grid)
        return Arguments(
            query,
            key,
            value,
            tensors,
            ints,
            floats,
            q_offset,
            None if scale is None else float(scale),
            grid_queries,
            grid_keys,
            prefix_tokens,
            suffix_tokens,
        )

    def _results(self, return_lse: bool) -> _Results:
        if return_lse and "lse" not in self._handle.names:
            raise refuse(f"'{self.name}' has no lse: its weights are not softmax", self._spec.span)
        return self._with_lse if return_lse else self._plain


class _Results:
    """How the operator's results become what a call returns."""

    def __init__(self, attention: Attention, wanted: Sequence[str]) -> None:
        names = attention._handle.names
        declared = attention.spec.outputs
        self._fields = ("out", *(w for w in wanted if w not in declared), *declared)
        # A field that the weights do not have is refused before the results are looked at.
        self._indices = tuple(names.index(f) for f in self._fields if f in names)
        self._tuple: Any = namedtuple("Result", self._fields)  # type: ignore[misc]

    def pick(self, results: Sequence[Tensor]) -> Any:
        """`out` alone, or the named tuple."""
        if len(self._fields) == 1:
            return results[0]
        return self._tuple(*[results[i] for i in self._indices])


def _choose(specs: Mapping[str, Spec], name: str | None, where: str) -> Attention | dict[str, Attention]:
    if name is not None:
        if name not in specs:
            hint = did_you_mean(name, specs)
            found = ", ".join(specs) or "none"
            raise ArgumentError(f"{where} defines no attention '{name}', only {found}" + (f"; {hint}" if hint else ""))
        return Attention(specs[name])
    if len(specs) == 1:
        return Attention(next(iter(specs.values())))
    return {each: Attention(spec) for each, spec in specs.items()}


def _autocast(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Under autocast the operands take its dtype, as those of torch's own attention do; float64 stays."""
    if not isinstance(query, Tensor) or not torch.is_autocast_enabled(query.device.type):
        return query, key, value
    dtype = torch.get_autocast_dtype(query.device.type)
    query, key, value = (
        t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in (query, key, value)
    )
    return query, key, value
