"""What users call: `load`, `loads`, `attention`, `from_flex`, and the `Attention` they return."""

from __future__ import annotations

import copy
import os
import warnings
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from attncc import compiler
from attncc.analysis.plan import Plan, evaluate, plan_loops
from attncc.codegen.options import Target
from attncc.compiler import Artifact, Compiler
from attncc.errors import ArgumentError, Diagnostic, did_you_mean, render
from attncc.grammar.flex import trace_flex
from attncc.grammar.frontend import Loaded, load_specs, loads_specs
from attncc.grammar.trace import trace_with_warnings
from attncc.ir.expr import Scalar, Size, postorder
from attncc.ir.printer import print_expr
from attncc.ir.spec import Spec
from attncc.passes.pipeline import lower
from attncc.runtime import oracle
from attncc.runtime.cache import Cache, default_config
from attncc.runtime.divisors import check_divisors
from attncc.runtime.evaluate import Evaluator
from attncc.runtime.launch import (
    Arguments,
    GridArgument,
    bind,
    check_requires,
    check_shape,
    grid_names,
    grid_sizes,
    named_extents,
)
from attncc.runtime.ops import define_operators, flatten, handle_of
from attncc.runtime.signature import check_names, collect, collect_scalars, refuse

_CACHE = Cache(default_config(os.environ.get("ATTNCC_CACHE_DIR")))
_OPERATORS = define_operators(Compiler(_CACHE).build)


@overload
def load(path: str | os.PathLike[str], *, name: str) -> Attention: ...
@overload
def load(path: str | os.PathLike[str], *, name: None = None) -> Any: ...
def load(path: str | os.PathLike[str], *, name: str | None = None) -> Attention | dict[str, Attention]:
    """The attention an `.attn` file defines; where it defines several, a dict by name, or the one called `name`.

    Raises SpecError with every mistake in the file, ArgumentError where it has no `name`, OSError.
    """
    return _choose(load_specs(Path(path)), name, os.fspath(path))


@overload
def loads(text: str, *, name: str) -> Attention: ...
@overload
def loads(text: str, *, name: None = None) -> Any: ...
def loads(text: str, *, name: str | None = None) -> Attention | dict[str, Attention]:
    """As `load`, from a string."""
    return _choose(loads_specs(text), name, "the text")


def attention(function: Callable[..., None]) -> Attention:
    """Decorator: the attention that a Python function describes, found by calling it once with symbols.

    Raises SpecError pointing at the Python line.
    """
    spec, found = trace_with_warnings(function)
    _warn(found, callers=2)
    made = Attention(spec)
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


def compile(
    spec: Attention | Spec,
    target: str,
    dtype: str = "bfloat16",
    head_dim: int = 128,
    *,
    value_dim: int | None = None,
    constants: Mapping[str, Scalar] | None = None,
    input_dtypes: Mapping[str, str] | None = None,
) -> Artifact:
    """Compiles ahead of time, for a target that need not be present: see `attncc.compiler.compile`.

    `artifact.write(directory)` leaves the standalone module, its binaries and a manifest.
    """
    return compiler.compile(
        spec.spec if isinstance(spec, Attention) else spec,
        target,
        dtype,
        head_dim,
        value_dim=value_dim,
        constants=constants,
        input_dtypes=input_dtypes,
        cache=_CACHE,
    )


class SpecWarning(UserWarning):
    """A spec that was loaded is right, but probably not what was meant: something declared and never used, say."""


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
        # What only a kernel's backward reads, the oracle does not have; nobody picks it.
        named = dict.fromkeys(self._handle.names, out) | outputs | {"out": out}
        return results.pick([named[name] for name in self._handle.names])

    def plan(
        self,
        *,
        queries: int,
        keys: int | None = None,
        batch: int = 1,
        heads: int = 1,
        kv_heads: int | None = None,
        q_offset: Any = 0,
        grid: GridArgument = None,
        prefix_tokens: int = 0,
        suffix_tokens: int = 0,
        tile: tuple[int, int] = (128, 128),
        **values: Any,
    ) -> Plan:
        """Which tiles the kernels visit at these lengths; `keys` is `queries` unless given.

        `values` are params, constants and inputs by name; an input is wanted only where the loops' bounds read it.
        Raises ArgumentError for a value that is missing, unknown or against a `require`.
        """
        spec, signature = self._spec, self._signature
        given = {**self._tensors, **values}
        check_names(signature, given)
        scalars = collect_scalars(signature, given)
        tensors = {name: given[name] for name in signature.tensors if name in given}
        grid_queries, grid_keys = grid_sizes(spec, grid)
        sizes = {"batch": batch, "heads": heads, "kv_heads": kv_heads or heads, "queries": queries}
        sizes |= {"keys": queries if keys is None else keys}
        sizes |= grid_names(spec, sizes, grid_queries, grid_keys, prefix_tokens, suffix_tokens)
        sizes |= named_extents(spec, {name: tuple(t.shape) for name, t in tensors.items()}, sizes)
        evaluator = Evaluator(scalars, sizes)
        check_requires(spec, evaluator)
        check_divisors(spec, evaluator)
        for declared in spec.inputs:
            # A plan has no `dim`, and no extents that only an input not given would tell.
            read = {n.name for e in declared.extents for n in postorder(e) if isinstance(n, Size)}
            if declared.name in tensors and read <= sizes.keys():
                lengths = [int(evaluator.scalar(extent)) for extent in declared.extents]
                check_shape(declared, tensors[declared.name].shape, lengths)
        lowered = lower(
            spec,
            {c.name: scalars[c.name] for c in spec.constants},
            offset_per_batch=not isinstance(q_offset, int),
        )
        return evaluate(
            lowered,
            plan_loops(lowered),
            queries=queries,
            keys=keys,
            batch=batch,
            heads=heads,
            kv_heads=kv_heads,
            q_offset=q_offset,
            params={p.name: scalars[p.name] for p in spec.params},
            inputs=tensors,
            sizes=sizes,
            tile=tile,
        )

    def source(
        self,
        target: str = "cuda:90",
        dtype: str = "bfloat16",
        head_dim: int = 128,
        *,
        value_dim: int | None = None,
        input_dtypes: Mapping[str, str] | None = None,
        **constants: Scalar,
    ) -> str:
        """The text of the generated module, which needs only torch and triton to run.

        `target` is `cuda:80`, `cuda:90`, `cuda:100`, `hip:gfx942` or `interpreter`. Raises ArgumentError,
        UnsupportedError.
        """
        for name in constants:
            if name not in {c.name for c in self._spec.constants}:
                raise refuse(f"'{self.name}' has no const '{name}'", self._spec.span)
        aimed = Target("interpreter") if target == "interpreter" else compiler.parse_target(target)
        options = compiler.options_for(self._spec, aimed, dtype, head_dim, value_dim, input_dtypes)
        return compiler.source(self._spec, constants, options)

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
        if not isinstance(q_offset, Tensor) and not -(2**62) <= q_offset <= 2**62:
            raise refuse(f"q_offset is too large: {q_offset}")
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


def _choose(loaded: Loaded, name: str | None, where: str) -> Attention | dict[str, Attention]:
    _warn(loaded.warnings, callers=3)
    specs = loaded.specs
    if name is not None:
        if name not in specs:
            hint = did_you_mean(name, specs)
            found = ", ".join(specs) or "none"
            raise ArgumentError(f"{where} defines no attention '{name}', only {found}" + (f"; {hint}" if hint else ""))
        return Attention(specs[name])
    if len(specs) == 1:
        return Attention(next(iter(specs.values())))
    return {each: Attention(spec) for each, spec in specs.items()}


def _warn(found: Sequence[Diagnostic], *, callers: int) -> None:
    """Shows the warnings of a spec at the user's line, so many calls above."""
    for warning in found:
        warnings.warn(render([warning]).removeprefix("warning: "), SpecWarning, stacklevel=callers + 1)


def _autocast(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Under autocast the operands take its dtype, as those of torch's own attention do; float64 stays."""
    if not isinstance(query, Tensor) or not _casts(query.device.type):
        return query, key, value
    dtype = torch.get_autocast_dtype(query.device.type)
    query, key, value = (
        t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in (query, key, value)
    )
    return query, key, value


def _casts(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
