"""The specs that kernel tests run over: each a text and the values of one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

EXAMPLES = Path(__file__).parent.parent / "examples"
Values = Callable[["Shape", torch.Generator], dict[str, Any]]


@dataclass(frozen=True)
class Shape:
    """Sizes of one call."""

    batch: int = 2
    heads: int = 2
    kv_heads: int = 1
    queries: int = 37
    keys: int = 37
    dim: int = 16
    dim_v: int = 16
    q_offset: int = 0


@dataclass(frozen=True)
class Case:
    """A spec's text and what its call needs; `same_length` where queries must equal keys."""

    name: str
    text: str
    values: Values = lambda shape, generator: {}


def _example(name: str) -> str:
    return (EXAMPLES / f"{name}.attn").read_text(encoding="utf-8")


def _slopes(shape: Shape, generator: torch.Generator) -> dict[str, Any]:
    return {"slopes": (0.25 * torch.rand(shape.heads, generator=generator)).requires_grad_()}


def _documents(shape: Shape, generator: torch.Generator) -> dict[str, Any]:
    return {"doc": torch.randint(0, 4, (shape.batch, shape.keys), generator=generator).sort(-1).values}


def _flags(shape: Shape, generator: torch.Generator) -> dict[str, Any]:
    return {"is_global": torch.rand(shape.batch, shape.keys, generator=generator) < 0.1, "window": 5}


def _table(shape: Shape, generator: torch.Generator) -> dict[str, Any]:
    return {"bias": torch.randn(32, shape.heads, generator=generator).requires_grad_()}


def _sink(shape: Shape, generator: torch.Generator) -> dict[str, Any]:
    return {"sink": torch.randn(shape.heads, generator=generator).requires_grad_(), "window": 7}


def _blocks(shape: Shape, generator: torch.Generator) -> dict[str, Any]:
    blocks = -(-shape.keys // 8)
    return {"drawn": torch.randint(0, blocks, (shape.heads, blocks, 3), generator=generator), "block": 8}


def _dense_bias(shape: Shape, generator: torch.Generator) -> dict[str, Any]:
    size = (shape.batch, shape.heads, shape.queries, shape.keys)
    return {"bias": torch.randn(size, generator=generator).requires_grad_()}


def _masking_bias(shape: Shape, generator: torch.Generator) -> dict[str, Any]:
    bias = torch.randn(shape.keys, generator=generator)
    bias[:5] = -torch.inf
    return {"bias": bias.requires_grad_()}


EXAMPLE_CASES = (
    Case("dense", _example("dense")),
    Case("causal", _example("causal")),
    Case("sliding_window", _example("sliding_window"), lambda s, g: {"window": 9}),
    Case(
        "prefix_lm",
        _example("prefix_lm"),
        lambda s, g: {"prefix": torch.randint(0, s.keys + 1, (s.batch,), generator=g)},
    ),
    Case("documents", _example("documents"), _documents),
    Case("alibi", _example("alibi"), _slopes),
    Case("softcap", _example("softcap"), lambda s, g: {"cap": 2.0}),
    Case("t5_bias", _example("t5_bias"), _table),
    Case("streaming_llm", _example("streaming_llm"), lambda s, g: {"sinks": 3, "window": 6}),
    Case("longformer", _example("longformer"), _flags),
    Case("learnable_sink", _example("learnable_sink"), _sink),
    Case("bigbird", _example("bigbird"), _blocks),
    Case("sigmoid", _example("sigmoid")),
    Case("train_bytes", _example("train_bytes"), lambda s, g: _documents(s, g) | _slopes(s, g)),
)

FEATURE_CASES = (
    Case("nothing_live", "attention a\n  mask k < 0"),
    Case("some_rows_empty", "attention a\n  mask q % 3 != 0 and k <= q"),
    Case(
        "empty_rows_with_sink",
        "attention a\n  input sink: float[heads] learnable\n  mask q % 3 != 0 and k < q\n"
        "  weights softmax with sink[h]",
        lambda s, g: {"sink": torch.randn(s.heads, generator=g).requires_grad_()},
    ),
    Case(
        "row_sink",
        "attention a\n  input sink: float[heads, queries] learnable\n  weights softmax with sink[h, row], 0.5",
        lambda s, g: {"sink": torch.randn(s.heads, s.queries, generator=g).requires_grad_()},
    ),
    Case(
        "dense_bias",
        "attention a\n  input bias: float[batch, heads, queries, keys] learnable\n"
        "  mask k <= q\n  score s + bias[b, h, row, k]",
        _dense_bias,
    ),
    Case(
        "key_bias_and_row_gain",
        "attention a\n  input bias: float[keys] learnable\n  input gain: float[batch, queries] learnable\n"
        "  score s * gain[b, row] + bias[k]",
        lambda s, g: {
            "bias": torch.randn(s.keys, generator=g).requires_grad_(),
            "gain": torch.randn(s.batch, s.queries, generator=g).requires_grad_(),
        },
    ),
    Case(
        "score_chain",
        "attention a\n  param c: float = 3.0\n  input slopes: float[heads] learnable\n  mask k <= q\n"
        "  score s + slopes[h] * (k - q)\n  score c * tanh(s / c)\n  score max(s, -2) * 0.5",
        _slopes,
    ),
    Case("score_free_of_s", "attention a\n  input slopes: float[heads] learnable\n  score slopes[h] * k", _slopes),
    Case("minus_infinity", "attention a\n  score s if k % 3 != q % 3 else -inf"),
    Case("masked_by_score", "attention a\n  score s if k % 3 != q % 3 else -inf\n  weights tanh(s) + 0.25 over count"),
    Case(
        "masked_by_bias",
        "attention a\n  input bias: float[keys] learnable\n  score s + bias[k]\n"
        "  weights exp(s) + s over 2 + abs(total)",
        _masking_bias,
    ),
    Case(
        "infinite_between",
        "attention a\n  input bias: float[keys] learnable\n  score s + bias[k] if k <= q else -inf\n"
        "  score max(s * abs(s), -9)\n  score s if k != q else -inf\n  weights 1 + relu(s)",
        lambda s, g: {"bias": torch.randn(s.keys, generator=g).requires_grad_()},
    ),
    Case("relu_over_keys", "attention a\n  mask k <= q\n  weights relu(s) over keys"),
    Case("linear_over_total", "attention a\n  mask k <= q\n  weights s over max(abs(total), 1)"),
    Case("exp_over_total_count", "attention a\n  mask k < q\n  weights exp(s) over total + count"),
    Case(
        "learnable_numerator",
        "attention a\n  input slopes: float[heads] learnable\n  mask k <= q\n  weights sigmoid(s + slopes[h])",
        _slopes,
    ),
    Case(
        "learnable_denominator",
        "attention a\n  input slopes: float[heads] learnable\n  mask k <= q\n"
        "  weights relu(s) over 1 + total + slopes[h]",
        _slopes,
    ),
    Case(
        "reweight",
        "attention a\n  input c: float[heads, 2 * keys - 1] learnable\n  mask k <= q\n  reweight p * c[h, q - k]",
        lambda s, g: {"c": torch.randn(s.heads, 2 * s.keys - 1, generator=g).requires_grad_()},
    ),
    Case("grid", "attention a\n  grid y, x\n  mask abs(q.y - k.y) <= 1 and abs(q.x - k.x) <= 2"),
    Case("negative_floor", "attention a\n  mask (q - k) // 3 == -1 or (k - q) % 4 == 1"),
    Case(
        "bits",
        "attention a\n  input word: int[keys]\n  mask (word[k] >> (q % 5)) & 1 == 1 or q ^ k == 3",
        lambda s, g: {"word": torch.randint(0, 99, (s.keys,), generator=g)},
    ),
    Case(
        "gather_out_of_range",
        "attention a\n  input t: float[4] learnable\n  score s + t[q - k]",
        lambda s, g: {"t": torch.randn(4, generator=g).requires_grad_()},
    ),
    Case(
        "per_head_window",
        "attention a\n  input w: int[heads]\n  mask k <= q and q - k < w[h]",
        lambda s, g: {"w": torch.randint(1, 20, (s.heads,), generator=g)},
    ),
    Case(
        "float_mask",
        "attention a\n  input t: float[keys]\n  mask t[k] * 1.1 + 0.3 < 0.1 * q",
        lambda s, g: {"t": torch.randn(s.keys, generator=g)},
    ),
    Case("bool_param", "attention a\n  param causal: bool = true\n  mask k <= q or not causal"),
    Case("float_param_in_mask", "attention a\n  param t: float = 0.7\n  mask k <= q and t > 0.5 or q == k"),
    Case("literals_alone", "attention a\n  mask k <= q\n  score s * sqrt(2.0) + exp(0.1) * q"),
    Case(
        "names_of_other_things",
        "attention a\n  param lambda_: int = 3\n  param type: int = 2\n  input values: float[keys] learnable\n"
        "  mask k <= q + type and q - k < 9 * lambda_\n  score s + values[k]",
        lambda s, g: {"values": torch.randn(s.keys, generator=g).requires_grad_()},
    ),
    Case(
        "head_dim",
        "attention a\n  mask k <= q and q - k < max(dim // 3, 2)\n  score s * sqrt(dim) - max(dim, 20) * 0.1",
    ),
    Case(
        "float_params_alone",
        "attention a\n  param c: float = -0.5\n  mask floor(c * 10) <= q - k\n  score s * sign(c) + min(c, k) + abs(c)",
    ),
    Case(
        "index_beyond_32_bits",
        "attention a\n  input t: float[keys] learnable\n  score s + t[k] + t[ceil(inf)] + t[1099511627776 + k]",
        lambda s, g: {"t": torch.randn(s.keys, generator=g).requires_grad_()},
    ),
    Case(
        "literal_index_out_of_range",
        "attention a\n  input t: float[heads, 7] learnable\n  score s + t[h, -3] + t[h, 9] + t[-1, 2] + t[h, 6] * k",
        lambda s, g: {"t": torch.randn(s.heads, 7, generator=g).requires_grad_()},
    ),
    Case(
        "extent",
        "attention a\n  extent n\n  input t: float[n, heads] learnable\n  score s + t[min(q, n - 1), h]",
        lambda s, g: {"t": torch.randn(5, s.heads, generator=g).requires_grad_()},
    ),
)
