"""The skeletons with the leaves they are declared over, dense softmax attention, as plain Triton: no generated text."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from attncc.codegen.triton.backward import dkeyvalue_kernel, dquery_kernel
from attncc.codegen.triton.backward_rows import softmax_rows_kernel
from attncc.codegen.triton.forward_softmax import forward_kernel

BATCH, HEADS, KV_HEADS, QUERIES, KEYS, DIM, DIM_V = 2, 4, 2, 37, 53, 16, 24


class Matrix(NamedTuple):
    """As in a generated module."""

    pointer: Any
    stride_b: Any
    stride_h: Any
    stride_row: Any


class Values(NamedTuple):
    """The sizes that skeletons read themselves."""

    batch: Any
    heads: Any
    kv_heads: Any
    queries: Any
    keys: Any


def matrix(tensor: Tensor) -> Matrix:
    return Matrix(tensor, *tensor.stride()[:3])


def test_dense_attention_forward_and_backward() -> None:
    torch.manual_seed(0)
    sizes = (BATCH, HEADS, QUERIES, DIM), (BATCH, KV_HEADS, KEYS, DIM), (BATCH, KV_HEADS, KEYS, DIM_V)
    query, key, value = (torch.randn(size) for size in sizes)
    grad_out, grad_lse = torch.randn(BATCH, HEADS, QUERIES, DIM_V), torch.randn(BATCH, HEADS, QUERIES)
    out = torch.empty_like(grad_out)
    lse, top, mass, norm, gain, shift = (torch.empty_like(grad_lse) for _ in range(6))
    dquery, dkey, dvalue = (torch.empty_like(t) for t in (query, key, value))
    values, scale = Values(BATCH, HEADS, KV_HEADS, QUERIES, KEYS), DIM**-0.5
    shape = {"DIM": DIM, "DIM_V": DIM_V, "WIDTH": 16, "WIDTH_V": 32, "BLOCK_Q": 16, "BLOCK_K": 16, "PRECISION": "ieee"}
    operands = [matrix(t) for t in (query, key, value)]
    by_query, by_key = 3 * BATCH * HEADS, 4 * BATCH * KV_HEADS

    forward_kernel[(by_query,)](*operands, matrix(out), lse, top, mass, scale, values, **shape)
    softmax_rows_kernel[(by_query,)](
        matrix(out),
        matrix(grad_out),
        top,
        mass,
        grad_lse,
        norm,
        gain,
        shift,
        None,
        values,
        HAS_GRAD_LSE=True,
        APART=False,
        LEARNS=False,
        DIM_V=DIM_V,
        WIDTH_V=32,
        BLOCK_Q=16,
    )
    rows = (matrix(grad_out), norm, gain, shift)
    dquery_kernel[(by_query,)](*operands, *rows, matrix(dquery), None, scale, values, LEARNS=False, **shape)
    dkeyvalue_kernel[(by_key,)](*operands, *rows, matrix(dkey), matrix(dvalue), scale, values, **shape)

    leaves = [t.double().requires_grad_() for t in (query, key, value)]
    score = leaves[0] @ leaves[1].repeat_interleave(2, 1).mT * scale
    wanted, wanted_lse = score.softmax(-1) @ leaves[2].repeat_interleave(2, 1), score.logsumexp(-1)
    grads = torch.autograd.grad([wanted, wanted_lse], leaves, [grad_out.double(), grad_lse.double()])
    pairs = zip((out, lse, dquery, dkey, dvalue), (wanted, wanted_lse, *grads), strict=True)
    for got, expected in pairs:
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)
