"""The argument types of a module's kernels, for compiling them with no tensors and no device at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from attncc.codegen.triton.host import HostLayout, learns
from attncc.codegen.triton.spec_leaves import keeps_apart

KERNELS = ("forward_kernel", "softmax_rows_kernel", "ratio_rows_kernel", "dquery_kernel", "dkeyvalue_kernel")

_ELEMENT = {
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "float64": "fp64",
    "int8": "i8",
    "uint8": "u8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    # The device reads a bool as the byte it is stored in.
    "bool": "u8",
}
_DEFAULT_DTYPE = {"float": "float32", "int": "int64", "bool": "bool"}
_MATRICES = ("query", "key", "value", "out", "grad_out", "dquery", "dkey", "dvalue")
_ROW_VALUES = ("lse", "top", "mass", "total", "count", "norm", "gain", "shift", "grad_lse")
_DIVISIBLE = [["tt.divisibility", 16]]


@dataclass(frozen=True, slots=True)
class KernelSignature:
    """What Triton's `ASTSource` wants of one kernel, and its launch options."""

    name: str
    signature: Mapping[str, Any]
    constexprs: Mapping[tuple[int, ...], Any]
    attrs: Mapping[tuple[int, ...], list[list[Any]]]
    options: Mapping[str, Any]


def signatures(module: ModuleType, layout: HostLayout, fusion: bool) -> tuple[KernelSignature, ...]:
    """One signature for each kernel of an imported module, for tensors that are 16-byte aligned, as torch's are."""
    return tuple(_signature(module, layout, name, fusion) for name in KERNELS if hasattr(module, name))


def _signature(module: ModuleType, layout: HostLayout, name: str, fusion: bool) -> KernelSignature:
    kernel = getattr(module, name)
    launch = dict(_launch(module, name))
    options: dict[str, Any] = {key: launch.pop(key) for key in ("num_warps", "num_stages") if key in launch}
    constants = {**module.SHAPE, **launch, "PRECISION": module.PRECISION}
    pairs, rows = learns(layout.spec)
    constants |= {"LEARNS": pairs if name == "dquery_kernel" else rows, "HAS_GRAD_LSE": True}
    constants |= {"NORMALIZED": hasattr(module, "ratio_rows_kernel")}
    constants |= {"APART": keeps_apart(layout.options)}
    kinds = dict(layout.values)
    signature: dict[str, Any] = {}
    constexprs: dict[tuple[int, ...], Any] = {}
    attrs: dict[tuple[int, ...], list[list[Any]]] = {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in _MATRICES:
            signature[argument] = module.Matrix(f"*{_ELEMENT[layout.options.dtype]}", "i32", "i32", "i32")
            attrs |= {(place, field): _DIVISIBLE for field in range(4)}
        elif argument.startswith("values_"):
            signature[argument] = _type(layout, kinds[argument.removeprefix("values_")])
        elif argument == "grads" and layout.learnable:
            signature[argument] = module.Grads(*("*fp32" for _ in layout.learnable))
        elif argument == "scale":
            signature[argument] = "fp32"
        elif argument in _ROW_VALUES:
            if name == "forward_kernel" and argument in ("total", "count") and not constants["NORMALIZED"]:
                signature[argument], constexprs[(place,)] = "constexpr", None
            else:
                signature[argument] = "*fp32"
                attrs[(place,)] = _DIVISIBLE
        else:
            signature[argument] = "constexpr"
            constexprs[(place,)] = None if argument == "grads" else constants[argument]
    if not fusion:
        options["enable_fp_fusion"] = False
    return KernelSignature(name, signature, constexprs, attrs, options)


def _launch(module: ModuleType, name: str) -> Mapping[str, int]:
    if name == "forward_kernel":
        return module.FORWARD  # type: ignore[no-any-return]
    if name == "dquery_kernel":
        return module.DQUERY  # type: ignore[no-any-return]
    return module.DKEYVALUE if name == "dkeyvalue_kernel" else module.ROWS  # type: ignore[no-any-return]


def _type(layout: HostLayout, kind: str) -> str:
    integer = "i64" if layout.options.wide else "i32"
    if kind.startswith("pointer:"):
        name = kind.removeprefix("pointer:")
        if name == "q_offset":
            return "*i64"
        declared = dict(layout.options.input_dtypes).get(name)
        return f"*{_ELEMENT[declared or _DEFAULT_DTYPE[layout.spec.input(name).sort.value]]}"
    return {"int": integer, "stride": integer, "bool": "i32", "float": "fp32"}[kind]
