"""Generated kernels under Triton's interpreter against the oracle: outputs, lse and gradients, by the error rule."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from kernel_cases import EXAMPLE_CASES, FEATURE_CASES, Case, Shape
from poison import DEVICE, poisoned
from torch import Tensor

import attncc
import attncc.api
from attncc.runtime.verification import compare

GRID = {"grid": {"grid": (5, 7), "prefix_tokens": 2}}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def check(case: Case, shape: Shape, dtype: torch.dtype, *, layout: str = "bhnd", seed: int = 0) -> None:
    """One call, forward and backward, of both backends on the same poisoned tensors."""
    generator = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", attncc.api.SpecWarning)
        attn = attncc.loads(case.text)
    values = case.values(shape, generator)
    values = {n: poisoned(v) if isinstance(v, Tensor) else v for n, v in values.items()} | GRID.get(case.name, {})
    query = torch.randn(shape.batch, shape.heads, shape.queries, shape.dim, generator=generator).to(dtype)
    key = torch.randn(shape.batch, shape.kv_heads, shape.keys, shape.dim, generator=generator).to(dtype)
    value = torch.randn(shape.batch, shape.kv_heads, shape.keys, shape.dim_v, generator=generator).to(dtype)
    leaves = [poisoned(t, layout=layout) for t in (query, key, value)]
    has_lse = "weights" not in case.text or "weights softmax" in case.text
    arguments = {"q_offset": shape.q_offset, **values}
    found = compare(attn, *leaves, arguments, backend="triton", return_lse=has_lse)
    missed = [f"{c.name}: off by {c.error:.3e}, allowed {c.allowed:.3e}" for c in found if not c.is_met]
    assert not missed, f"{case.name}: {missed}"
    assert len(found) >= 4


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in (*EXAMPLE_CASES, *FEATURE_CASES)])
def test_every_case_in_float32(case: Case) -> None:
    check(case, Shape(), torch.float32)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in EXAMPLE_CASES])
def test_examples_in_half_precision(case: Case, dtype: str) -> None:
    check(case, Shape(kv_heads=2, queries=21, keys=21, dim=32, dim_v=32), DTYPES[dtype])


SHAPES = {
    "single token": Shape(queries=1, keys=1),
    "one query of many keys": Shape(queries=1, keys=45, q_offset=44),
    "tile sizes exactly": Shape(heads=6, kv_heads=3, queries=64, keys=64),
    "grouped heads": Shape(heads=6, kv_heads=2, queries=20, keys=20),
    "value wider than key": Shape(dim=24, dim_v=40),
    "odd dims": Shape(dim=17, dim_v=5),
    "more keys than queries": Shape(queries=19, keys=53, q_offset=34),
    "queries before all keys": Shape(queries=30, keys=30, q_offset=-11),
    "queries past all keys": Shape(queries=30, keys=30, q_offset=25),
    "no keys": Shape(queries=5, keys=0),
    "no queries": Shape(queries=0, keys=5),
}


@pytest.mark.parametrize("name", ["causal", "sliding_window", "alibi", "documents", "streaming_llm", "relu_over_keys"])
@pytest.mark.parametrize("shape", [pytest.param(s, id=n) for n, s in SHAPES.items()])
def test_shapes(name: str, shape: Shape) -> None:
    case = next(c for c in (*EXAMPLE_CASES, *FEATURE_CASES) if c.name == name)
    check(case, shape, torch.float32, layout="bnhd")


def test_an_offset_for_each_batch() -> None:
    attn = attncc.loads("attention a\n  mask k <= q and q - k < 9")
    query, key, value = (torch.randn(3, 2, n, 16, device=DEVICE) for n in (11, 40, 40))
    offsets = torch.tensor([0, 13, 29], device=DEVICE)
    out = attn(query, key, value, q_offset=offsets, backend="triton")
    wanted = attn.reference(query, key, value, q_offset=offsets)
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)


def test_wide_ints_give_the_same() -> None:
    attn = attncc.loads("attention a\n  param far: int\n  mask k <= q and k + far > far + q - 7")
    query, key, value = (torch.randn(1, 2, 40, 16, device=DEVICE) for _ in range(3))
    out = attn(query, key, value, far=2**40, backend="triton")
    torch.testing.assert_close(out, attn.reference(query, key, value, far=2**40), atol=1e-5, rtol=1e-5)


def test_a_param_needs_no_new_module() -> None:
    attn = attncc.loads("attention a\n  param w: int = 4\n  mask abs(q - k) < w")
    query, key, value = (torch.randn(1, 1, 20, 16, device=DEVICE) for _ in range(3))
    outs = [attn(query, key, value, w=w, backend="triton") for w in (1, 4, 16)]
    for w, out in zip((1, 4, 16), outs, strict=True):
        torch.testing.assert_close(out, attn.reference(query, key, value, w=w), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_compiled_is_refused_by_name() -> None:
    text = "attention a\n  extent top\n  blocks t: int[query_blocks, top] size 16, 16\n  output entropy"
    attn = attncc.loads(text)
    query, key, value = (torch.randn(1, 1, 32, 16, device=DEVICE) for _ in range(3))
    with pytest.raises(attncc.UnsupportedError) as refused:
        attn(query, key, value, t=torch.zeros(2, 1, dtype=torch.int64, device=DEVICE), backend="triton")
    assert "entropy" in str(refused.value) or "block table" in str(refused.value)


def test_other_strides_of_every_kind() -> None:
    case = next(c for c in EXAMPLE_CASES if c.name == "alibi")
    for layout in ("bhnd", "bnhd"):
        check(case, replace(Shape(), kv_heads=2), torch.float32, layout=layout)
