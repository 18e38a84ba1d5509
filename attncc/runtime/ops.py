"""The torch operators `attncc::forward` and `attncc::backward`: how a call passes through compile, autograd and export.

Their arguments are tensors and plain values only; the spec travels as its canonical text. So the operators are the
same for every spec, a traced graph holds nothing but data, and everything that depends on shapes or values is
checked when the operator runs, in the same words as in eager mode.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attncc.errors import BackendError
from attncc.ir.printer import parse_spec, print_spec
from attncc.ir.spec import Spec
from attncc.runtime.backends import (
    HIDDEN,
    Build,
    backward_oracle,
    backward_triton,
    choose,
    differentiable,
    forward_oracle,
    forward_triton,
    result_dtype,
    result_names,
    state_length,
)
from attncc.runtime.launch import Arguments, Bound, bind, check_device, check_operands, declarations, detached
from attncc.runtime.signature import Signature, signature_of

CALL_SCHEMA = (
    "Tensor query, Tensor key, Tensor value, Tensor[] tensors, Tensor? offsets, str spec, str backend, float? scale, "
    "SymInt q_offset, SymInt[] ints, float[] floats, SymInt[] grid_queries, SymInt[] grid_keys, "
    "SymInt prefix_tokens, SymInt suffix_tokens, bool check"
)
PLAIN_ARGUMENTS = 11
"""How many arguments of CALL_SCHEMA follow `offsets`."""

Flat: TypeAlias = tuple[Any, ...]


class Handle:
    """A spec with its canonical text, by which the operators find it again."""

    __slots__ = ("__weakref__", "names", "signature", "spec", "state", "text")

    def __init__(self, spec: Spec, text: str) -> None:
        self.spec = spec
        self.text = text
        self.signature: Signature = signature_of(spec)
        self.names = result_names(spec)
        self.state = state_length(spec)


_handles: weakref.WeakValueDictionary[str, Handle] = weakref.WeakValueDictionary()
# The text alone decides what a handle means; the table only keeps the source lines that text leaves out, so that
# errors and generated comments can show them while the spec that was loaded is alive.


def handle_of(spec: Spec) -> Handle:
    """The handle of a spec; equal specs share one."""
    text = print_spec(spec)
    return _handles.setdefault(text, Handle(spec, text))


@dataclass(frozen=True, slots=True)
class Operators:
    """The registered pair. `call` runs the forward; `spec` first, then the arguments of CALL_SCHEMA by position."""

    forward: Any
    backward: Any
    function: type[torch.autograd.Function]

    def call(self, *flat: Any) -> list[Tensor]:
        """The results of a forward, in the order of `backends.result_names`, differentiable."""
        if torch.compiler.is_compiling():
            results: list[Tensor] = self.forward(*flat)
            return results
        query, key, value, tensors, *rest = flat
        return list(self.function.apply(*rest, query, key, value, *tensors))  # type: ignore[no-untyped-call]


def flatten(call: Arguments, handle: Handle, backend: str, check: bool) -> Flat:
    """The arguments of one call in the order of CALL_SCHEMA."""
    per_batch = isinstance(call.q_offset, Tensor)
    return (
        call.query,
        call.key,
        call.value,
        call.tensors,
        call.q_offset if per_batch else None,
        handle.text,
        backend,
        call.scale,
        0 if per_batch else call.q_offset,
        call.ints,
        call.floats,
        call.grid_queries,
        call.grid_keys,
        call.prefix_tokens,
        call.suffix_tokens,
        check,
    )


def define_operators(build: Build) -> Operators:
    """Registers both operators with torch. `build` makes the generated module of a spec; call this once a process."""
    library_forward = torch.library.custom_op(
        "attncc::forward",
        functools.partial(_forward, build),
        mutates_args=(),
        schema=f"({CALL_SCHEMA}) -> Tensor[]",
    )
    library_backward = torch.library.custom_op(
        "attncc::backward",
        functools.partial(_backward, build),
        mutates_args=(),
        schema=f"(Tensor?[] grads, Tensor[] results, {CALL_SCHEMA}) -> Tensor[]",
    )
    library_forward.register_fake(_fake_forward)
    library_backward.register_fake(_fake_backward)
    forward = torch.ops.attncc.forward.default
    backward = torch.ops.attncc.backward.default
    library_forward.register_autograd(functools.partial(_pull_back, backward), setup_context=_save)
    library_backward.register_autograd(_refuse_second_derivative, setup_context=_save_nothing)
    return Operators(forward, backward, _function(forward, backward))


def _forward(build: Build, *flat: Any) -> list[Tensor]:
    bound, _ = _bind(flat)
    if choose(flat[6], bound.query) == "oracle":
        return forward_oracle(bound)
    return forward_triton(bound, build)


def _backward(build: Build, grads: Sequence[Tensor | None], results: Sequence[Tensor], *flat: Any) -> list[Tensor]:
    bound, handle = _bind((*flat[:-1], False))
    named = {name: g for name, g in zip(handle.names, grads, strict=True) if g is not None}
    if not named:
        return [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in differentiable(bound)]
    if choose(flat[6], bound.query) == "oracle":
        return backward_oracle(bound, named)
    return backward_triton(bound, named, results[0], results[1 : 1 + handle.state], build)


def _bind(flat: Flat) -> tuple[Bound, Handle]:
    query, key, value, tensors, offsets, text, _, scale, q_offset, ints, floats, *grid, check = flat
    handle = _handle_from(text)
    offset = q_offset if offsets is None else offsets
    call = Arguments(query, key, value, tensors, ints, floats, offset, scale, *grid)
    return detached(bind(handle.spec, handle.signature, call, check=check)), handle


def _handle_from(text: str) -> Handle:
    known = _handles.get(text)
    return known if known is not None else _parsed(text)


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> Handle:
    """For a graph that outlived its spec: one exported, or loaded in another process."""
    return Handle(parse_spec(text), text)


def _fake_forward(*flat: Any) -> list[Tensor]:
    query, key, value, tensors, offsets, text = flat[:6]
    handle = _handle_from(text)
    check_operands(Arguments(query, key, value, (), (), (), 0 if offsets is None else offsets))
    # One tensor without data is enough to come here instead of to a kernel.
    for declared, tensor in zip(declarations(handle.spec), tensors, strict=True):
        check_device(declared, tensor, query)
    batch, heads, queries = query.shape[:3]
    row_dtype = result_dtype(query.dtype)
    lengths = {"key_mass": key.shape[2]}
    return [
        query.new_empty((batch, heads, queries, value.shape[3])),
        *(query.new_empty((batch, heads, lengths.get(name, queries)), dtype=row_dtype) for name in handle.names[1:]),
    ]


def _fake_backward(grads: Sequence[Tensor | None], results: Sequence[Tensor], *flat: Any) -> list[Tensor]:
    signature = _handle_from(flat[5]).signature
    learnable = (t for t, learns in zip(flat[3], signature.learnable, strict=True) if learns)
    return [t.new_empty(t.shape) for t in (*flat[:3], *learnable)]


def _save(ctx: Any, inputs: Flat, output: Sequence[Tensor]) -> None:
    query, key, value, tensors, offsets, *plain = inputs
    ctx.set_materialize_grads(False)
    ctx.plain = plain
    ctx.tensors = len(tensors)
    ctx.per_batch = offsets is not None
    ctx.save_for_backward(query, key, value, *tensors, *([offsets] if offsets is not None else []), *output)
    handle = _handle_from(plain[0])
    named = zip(handle.names, output, strict=True)
    ctx.mark_non_differentiable(*(result for name, result in named if name in HIDDEN))


def _gradients(ctx: Any, backward: Any, grads: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor | None]]:
    """The gradients of query, key and value, then of every tensor, None where it has none."""
    query, key, value, *rest = ctx.saved_tensors
    tensors, rest = rest[: ctx.tensors], rest[ctx.tensors :]
    offsets, results = (rest[0], rest[1:]) if ctx.per_batch else (None, rest)
    dquery, dkey, dvalue, *learned = backward(
        list(grads), list(results), query, key, value, tensors, offsets, *ctx.plain
    )
    found = iter(learned)
    signature = _handle_from(ctx.plain[0]).signature
    return [dquery, dkey, dvalue], [next(found) if learns else None for learns in signature.learnable]


def _pull_back(backward: Any, ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    operands, tensors = _gradients(ctx, backward, grads)
    # torch takes an empty list for one of tensors, whose gradient is an empty list.
    plain: list[Any] = [[] if isinstance(a, list | tuple) and not a else None for a in ctx.plain]
    return (*operands, tensors, None, *plain)


def _save_nothing(ctx: Any, inputs: Flat, output: Sequence[Tensor]) -> None:
    return None


def _refuse_second_derivative(ctx: Any, *grads: Any) -> Any:
    raise BackendError(
        "attncc's backward has no derivative of its own, so a second derivative cannot be taken through it; "
        "the dense oracle has one: use attn.reference(...)"
    )


def _function(forward: Any, backward: Any) -> type[torch.autograd.Function]:
    """The same pair as autograd functions, which unlike library operators let `torch.func` differentiate them.

    Both take what follows `tensors` in CALL_SCHEMA first, then their tensors one by one.
    """
    before = 1 + PLAIN_ARGUMENTS

    class AttentionBackward(torch.autograd.Function):
        @staticmethod
        def forward(results: int, *args: Any) -> tuple[Tensor, ...]:
            tensors = args[before:]
            grads, saved, (query, key, value, *rest) = (
                tensors[:results],
                tensors[results : 2 * results],
                tensors[2 * results :],
            )
            return tuple(backward(list(grads), list(saved), query, key, value, rest, *args[:before]))

        @staticmethod
        def setup_context(ctx: Any, inputs: Flat, output: tuple[Tensor, ...]) -> None:
            return None

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            _refuse_second_derivative(ctx)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
            return _one_by_one(AttentionBackward, info, in_dims, args)

    def apply_backward(
        grads: list[Tensor | None], results: list[Tensor], query: Tensor, key: Tensor, value: Tensor, *rest: Any
    ) -> Any:
        tensors, *plain = rest
        return AttentionBackward.apply(len(results), *plain, *grads, *results, query, key, value, *tensors)  # type: ignore[no-untyped-call]

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> tuple[Tensor, ...]:
            query, key, value, *tensors = args[before:]
            return tuple(forward(query, key, value, tensors, *args[:before]))

        @staticmethod
        def setup_context(ctx: Any, inputs: Flat, output: tuple[Tensor, ...]) -> None:
            query, key, value, *tensors = inputs[before:]
            _save(ctx, (query, key, value, tensors, *inputs[:before]), output)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
            operands, tensors = _gradients(ctx, apply_backward, grads)
            return (*([None] * before), *operands, *tensors)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
            return _one_by_one(Attention, info, in_dims, args)

    return Attention


def _one_by_one(function: Any, info: Any, in_dims: tuple[Any, ...], args: Flat) -> Any:
    """`torch.vmap` over a function: a call for each, since what inputs mean depends on their rank."""

    def at(index: int) -> list[Any]:
        return [a if not isinstance(d, int) else a.select(d, index) for a, d in zip(args, in_dims, strict=True)]

    calls = [function.apply(*at(i)) for i in range(info.batch_size)]
    results = tuple(torch.stack(column) for column in zip(*calls, strict=True))
    return results, (0,) * len(results)
