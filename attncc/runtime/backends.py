"""Who computes a bound call: the dense oracle, or a module that the compiler generated. Both give the same results.

The results of a forward are a list in the order of `result_names`: `out`, what backward needs of each row, then the
other outputs the spec declares.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from attncc.codegen.expressions import field_name
from attncc.codegen.options import DType, Options, Target
from attncc.errors import ArgumentError, BackendError, Diagnostic, UnsupportedError, did_you_mean
from attncc.ir.expr import Scalar
from attncc.ir.spec import Softmax, Spec
from attncc.runtime.launch import Bound, check_layout
from attncc.runtime.oracle import reference

BackendName: TypeAlias = Literal["auto", "triton", "cpu", "oracle"]
Build: TypeAlias = Callable[[Spec, Mapping[str, Scalar], Options], Any]

NARROW = 2**28
"""Lengths below this, and offsets and int params up to it, leave room to add two of them in 32 bits."""


HIDDEN = ("top", "mass", "total", "count")
"""Results that only backward reads: no caller sees them, and they have no gradient."""


class OracleWarning(UserWarning):
    """`backend="auto"` computes CPU tensors with the dense oracle: right, but slow, and quadratic in memory."""


def result_names(spec: Spec) -> tuple[str, ...]:
    """The names of a forward's results: `out`, the row state, further outputs.

    The state of softmax is `lse` and, for backward alone, `top` and `mass`: the largest logit of the row and the sum of
    exp2 of all logits less it. That of a denominator is `total` and `count`.
    """
    match spec.weights:
        case Softmax():
            state: tuple[str, ...] = ("lse", "top", "mass")
        case ratio:
            state = () if ratio.denominator is None else ("total", "count")
    return ("out", *state, *(o for o in spec.outputs if o not in state))


def state_length(spec: Spec) -> int:
    """How many of the results after `out` are row state."""
    return len([name for name in result_names(spec)[1:] if name == "lse" or name in HIDDEN])


def result_dtype(query_dtype: torch.dtype) -> torch.dtype:
    """The dtype of every result but `out`: float32, or float64 for float64 queries."""
    return torch.float64 if query_dtype == torch.float64 else torch.float32


def differentiable(bound: Bound) -> tuple[Tensor, ...]:
    """What a backward gives gradients of, in its order: query, key, value and the learnable inputs as declared."""
    return (bound.query, bound.key, bound.value, *(bound.tensors[i.name] for i in bound.spec.inputs if i.learnable))


def choose(backend: str, query: Tensor) -> Literal["triton", "oracle"]:
    """The backend that computes this call. float64 is the oracle's on every device, by definition.

    Raises BackendError where the one asked for cannot run here, ArgumentError for an unknown name.
    """
    if backend not in get_args(BackendName):
        known = ", ".join(repr(name) for name in get_args(BackendName))
        hint = did_you_mean(backend, get_args(BackendName))
        raise ArgumentError(f"there is no backend {backend!r}: choose from {known}" + (f"; {hint}" if hint else ""))
    if backend == "cpu":
        raise BackendError("the native CPU backend is not built yet; use backend='oracle' for CPU tensors")
    if backend == "oracle" or query.dtype == torch.float64:
        return "oracle"
    if query.device.type == "cuda":
        return "triton"
    if backend == "auto":
        _say_oracle_once()
        return "oracle"
    if query.device.type == "cpu" and _interprets():
        return "triton"
    raise BackendError(
        f"the triton backend needs tensors on a GPU, but query is on {query.device}; set TRITON_INTERPRET=1 before "
        "the process starts to run its kernels in Triton's interpreter on the CPU"
    )


def forward_oracle(bound: Bound) -> list[Tensor]:
    """The results of a forward by the dense oracle."""
    out, outputs = reference(bound)
    if "lse" in outputs:
        # The oracle's own backward has no use for them.
        outputs |= {name: torch.zeros_like(outputs["lse"]) for name in ("top", "mass")}
    dtype = result_dtype(bound.query.dtype)
    return [out.contiguous(), *(outputs[name].to(dtype).contiguous() for name in result_names(bound.spec)[1:])]


def backward_oracle(bound: Bound, grads: Mapping[str, Tensor]) -> list[Tensor]:
    """The gradients of query, key, value and the learnable inputs, from those of the results named in `grads`."""

    def gradients() -> list[Tensor]:
        leaves = [t.detach().requires_grad_() for t in differentiable(bound)]
        query, key, value, *learned = leaves
        names = [i.name for i in bound.spec.inputs if i.learnable]
        tensors = dict(bound.tensors) | dict(zip(names, learned, strict=True))
        out, outputs = reference(replace(bound, query=query, key=key, value=value, tensors=tensors))
        results = outputs | {"out": out}
        found = torch.autograd.grad(
            [results[name] for name in grads], leaves, list(grads.values()), materialize_grads=True
        )
        return [g.contiguous() for g in found]

    return _above_autograd(gradients, bound.query.device)


def forward_triton(bound: Bound, build: Build) -> list[Tensor]:
    """The results of a forward by the generated module. Raises UnsupportedError for what it cannot do yet."""
    spec = bound.spec
    names = result_names(spec)
    if further := names[1 + state_length(spec) :]:
        raise UnsupportedError(
            [
                Diagnostic(
                    f"the triton backend does not compute output {', '.join(further)} yet",
                    spec.span,
                    hint="use backend='oracle' for this spec",
                )
            ]
        )
    check_layout(bound)
    module = build(spec, bound.constants, options_of(bound))
    with torch.no_grad(), _on_device(bound.query):
        out, state = module.forward(bound.query, bound.key, bound.value, **_call_values(bound))
    return [out.contiguous(), *(s.contiguous() for s in state)]


def backward_triton(
    bound: Bound, grads: Mapping[str, Tensor], out: Tensor, state: Sequence[Tensor], build: Build
) -> list[Tensor]:
    """The gradients of query, key, value and the learnable inputs by the generated module."""
    module = build(bound.spec, bound.constants, options_of(bound))
    grad_out = grads["out"].contiguous() if "out" in grads else torch.zeros_like(out)
    grad_lse = grads["lse"].contiguous() if "lse" in grads else None
    with torch.no_grad(), _on_device(bound.query):
        dquery, dkey, dvalue, learned = module.backward(
            grad_out, grad_lse, bound.query, bound.key, bound.value, out, tuple(state), **_call_values(bound)
        )
    gradients = (dquery, dkey, dvalue, *(learned[i.name] for i in bound.spec.inputs if i.learnable))
    return [g.to(t.dtype).contiguous() for g, t in zip(gradients, differentiable(bound), strict=True)]


def options_of(bound: Bound) -> Options:
    """What the module for this call is specialised on."""
    precisions: dict[str, Literal["ieee", "tf32x3", "tf32"]] = {"high": "tf32x3", "medium": "tf32"}
    return Options(
        target=_target(bound.query.device),
        dtype=_element_type(bound.query),
        dim=bound.sizes["dim"],
        dim_v=bound.sizes["dim_v"],
        input_dtypes=tuple((name, _dtype_name(t)) for name, t in bound.tensors.items()),
        offset_per_batch=isinstance(bound.q_offset, Tensor),
        wide=_is_wide(bound),
        precision=precisions.get(torch.get_float32_matmul_precision(), "ieee"),
    )


def _call_values(bound: Bound) -> dict[str, Any]:
    named: dict[str, Any] = {**bound.params, **bound.tensors}
    named |= {name: bound.sizes[name] for name in bound.spec.extents}
    values: dict[str, Any] = {"scale": bound.scale, "q_offset": bound.q_offset}
    values |= {field_name(name): value for name, value in named.items()}
    if bound.spec.grid is not None:
        values |= {f"queries_{axis}": bound.sizes[f"queries.{axis}"] for axis in bound.spec.grid.queries}
        values |= {f"keys_{axis}": bound.sizes[f"keys.{axis}"] for axis in bound.spec.grid.keys}
        values |= {name: bound.sizes[name] for name in ("prefix_tokens", "suffix_tokens")}
    return values


def _is_wide(bound: Bound) -> bool:
    """Whether some integer may be too large for the kernels to compute in 32 bits."""
    # Reading a tensor of offsets would wait for the device, so its type has to bound it.
    if isinstance(bound.q_offset, Tensor):
        return bound.q_offset.dtype in (torch.int32, torch.int64)
    if any(size >= NARROW for size in bound.sizes.values()):
        return True
    # Offsets into inputs are 32-bit too.
    if any(
        sum((n - 1) * abs(s) for n, s in zip(t.shape, t.stride(), strict=True)) >= 2**31 for t in bound.tensors.values()
    ):
        return True
    whole = [v for v in bound.scalars.values() if isinstance(v, int)]
    return any(abs(v) > NARROW for v in (bound.q_offset, *whole))


def _target(device: torch.device) -> Target:
    if device.type != "cuda":
        return Target("interpreter")
    if torch.version.hip is not None:
        # The name carries feature flags after a colon, as in gfx942:sramecc+:xnack-.
        return Target("hip", torch.cuda.get_device_properties(device).gcnArchName.split(":")[0])
    major, minor = torch.cuda.get_device_capability(device)
    return Target("cuda", f"{major}{minor}")


def _element_type(tensor: Tensor) -> DType:
    names: dict[torch.dtype, DType] = {
        torch.float16: "float16",
        torch.bfloat16: "bfloat16",
        torch.float32: "float32",
    }
    return names[tensor.dtype]


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _on_device(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Kernels go to the current device, which need not be the tensor's. The interpreter computes masked lanes as
    hardware does, and NumPy need not warn of what overflows there."""
    if tensor.device.type != "cuda":
        import numpy as np

        return np.errstate(all="ignore")
    device: contextlib.AbstractContextManager[object] = torch.cuda.device(tensor.device)
    return device


def _above_autograd(compute: Callable[[], list[Tensor]], device: torch.device) -> list[Tensor]:
    """Runs `compute` where autograd records.

    An operator's kernel runs below autograd and below any dispatch mode of the caller. What torch keeps of that
    belongs to the thread, so another thread is above again; it takes over the caller's stream.
    """
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None

    def on_stream() -> list[Tensor]:
        with torch.enable_grad(), torch.cuda.stream(stream):
            return compute()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(on_stream).result()


def _interprets() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


@functools.cache
def _say_oracle_once() -> None:
    warnings.warn(
        "attncc has no native CPU backend yet: CPU tensors are computed by the dense oracle in float64, which is exact "
        "but slow and takes memory for every score. Pass backend='oracle' to ask for it without this warning.",
        OracleWarning,
        stacklevel=2,
    )
