"""The oracle's weights, sinks, outputs and gradients against what is written by hand; and that nothing is ever NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import attncc

BATCH, HEADS, KV_HEADS, QUERIES, KEYS, DIM, DIM_V = 2, 4, 2, 4, 5, 3, 2


def operands(seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = ((BATCH, HEADS, QUERIES, DIM), (BATCH, KV_HEADS, KEYS, DIM), (BATCH, KV_HEADS, KEYS, DIM_V))
    return [torch.randn(s, generator=random, dtype=torch.float64, requires_grad=True) for s in shapes]


def scores_of(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.repeat_interleave(HEADS // KV_HEADS, 1).mT / math.sqrt(DIM)


def causal() -> Tensor:
    return torch.arange(KEYS) <= torch.arange(QUERIES)[:, None]


def sinks(seed: int = 1) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(HEADS, generator=random, dtype=torch.float64, requires_grad=True)


def test_sinks_are_logits_without_a_value() -> None:
    query, key, value = operands()
    sink = sinks()
    score = scores_of(query, key).masked_fill(~causal(), -torch.inf)
    columns = torch.stack([sink, 2 * sink], -1)[None, :, None, :].expand(BATCH, -1, QUERIES, -1)
    logits = torch.cat([score, columns], -1)
    p = torch.softmax(logits, -1)
    attention = attncc.loads("""
      attention a
        input sink: float[heads] learnable
        mask k <= q
        weights softmax with sink[h], 2.0 * sink[h]
        output lse, row_max, entropy, key_mass
    """)
    out, lse, row_max, entropy, mass = attention.reference(query, key, value, sink=sink)
    torch.testing.assert_close(out, p[..., :KEYS] @ value.repeat_interleave(2, 1))
    torch.testing.assert_close(lse, torch.logsumexp(logits, -1))
    torch.testing.assert_close(row_max, score.amax(-1))
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits).entropy())
    torch.testing.assert_close(mass, p[..., :KEYS].sum(-2))


@pytest.mark.parametrize(
    ("text", "weigh"),
    [
        ("weights sigmoid(s)", lambda s, m: torch.sigmoid(s) * m),
        ("weights relu(s) over keys", lambda s, m: torch.relu(s) * m / KEYS),
        ("weights relu(s) over count", lambda s, m: torch.relu(s) * m / m.sum(-1, keepdim=True).clamp(1)),
        ("weights s over max(abs(total), 1)", lambda s, m: s * m / (s * m).sum(-1, keepdim=True).abs().clamp(1)),
        ("weights exp(s) over total", lambda s, m: torch.softmax(s.masked_fill(m == 0, -torch.inf), -1)),
        ("weights s + 1.0", lambda s, m: (s + 1) * m),
        ("weights s * s over total + 1", lambda s, m: s * s * m / ((s * s * m).sum(-1, keepdim=True) + 1)),
    ],
)
def test_weights(text: str, weigh: Callable[[Tensor, Tensor], Tensor]) -> None:
    query, key, value = operands()
    p = weigh(scores_of(query, key), causal().double())
    out, mass = attncc.loads(f"attention a mask k <= q {text} output key_mass").reference(query, key, value)
    torch.testing.assert_close(out, p @ value.repeat_interleave(2, 1))
    torch.testing.assert_close(mass, p.sum(-2))


def test_reweight_comes_after_normalization_and_outputs_before_it() -> None:
    query, key, value = operands()
    p = torch.softmax(scores_of(query, key).masked_fill(~causal(), -torch.inf), -1)
    distance = torch.arange(QUERIES)[:, None] - torch.arange(KEYS)
    attention = attncc.loads("attention a mask k <= q reweight p * exp(-0.5 * (q - k)) output key_mass")
    out, mass = attention.reference(query, key, value)
    torch.testing.assert_close(out, (p * torch.exp(-0.5 * distance.double())) @ value.repeat_interleave(2, 1))
    torch.testing.assert_close(mass, p.sum(-2))


GRADIENTS = {
    "softmax": "mask k <= q output lse, row_max, entropy, key_mass",
    "bias and score chain": "mask k <= q score s - t[h] * (q - k) score 3.0 * tanh(s / 3.0) output lse",
    "sinks": "mask k <= q weights softmax with t[h], exp(t[0]) output lse, entropy, key_mass",
    "sigmoid": "mask k <= q weights sigmoid(s - t[h]) output key_mass",
    "relu": "mask k <= q weights relu(s) over count score s + t[h]",
    "ratio": "mask k <= q score s * t[h] weights s over max(abs(total), 1)",
    "general denominator": "mask k <= q score s * t[h] weights exp(s) over total + exp(t[0])",
    "reweight": "mask k <= q reweight p * t[h] * exp(-0.1 * (q - k)) output lse, key_mass",
    "row without keys": "mask k < q score s + t[h] output entropy, key_mass",
    "row without keys, with sinks": "mask k < q weights softmax with t[h] output lse, entropy, key_mass",
    "branch whose other side is infinite": "mask q > 0 score s + (sqrt(t[h] - t[h]) if q < 1 else t[h] * k)",
}


@pytest.mark.parametrize("text", GRADIENTS.values(), ids=GRADIENTS.keys())
@pytest.mark.parametrize("backend", ["reference", "operator"])
def test_gradients_by_finite_differences(text: str, backend: str) -> None:
    declared = "input t: float[heads] learnable" if "t[" in text else ""
    attention = attncc.loads(f"attention a {declared} {text}")

    def run(query: Tensor, key: Tensor, value: Tensor, *t: Tensor) -> Any:
        call = attention.reference if backend == "reference" else attention
        return call(query, key, value, **({"t": t[0]} if t else {}))

    inputs = [*operands(), *([sinks()] if declared else [])]
    assert torch.autograd.gradcheck(run, inputs)


def test_reference_has_second_derivatives() -> None:
    attention = attncc.loads("attention a input t: float[heads] learnable mask k < q score s * t[h]")
    inputs = [*operands(), sinks()]
    assert torch.autograd.gradgradcheck(lambda q, k, v, t: attention.reference(q, k, v, t=t), inputs)


def test_empty_rows_give_zero_and_only_sinks_learn_from_their_lse() -> None:
    query, key, value = operands()
    sink = sinks()
    attention = attncc.loads(
        "attention a input t: float[heads] learnable mask k < q weights softmax with t[h] output lse"
    )
    out, lse = attention.reference(query, key, value, t=sink)
    assert (out[:, :, 0] == 0).all()
    torch.testing.assert_close(lse[:, :, 0], sink.expand(BATCH, HEADS))
    gradients = torch.autograd.grad(lse[:, :, 0].sum() + out[:, :, 0].sum(), (query, key, value, sink))
    assert all((g == 0).all() for g in gradients[:3])
    torch.testing.assert_close(gradients[3], torch.full((HEADS,), float(BATCH), dtype=torch.float64))


def test_lse_of_an_empty_row_without_sinks_is_minus_infinity_with_zero_gradient() -> None:
    query, key, value = operands()
    _, lse = attncc.loads("attention a mask k < q").reference(query, key, value, return_lse=True)
    assert (lse[:, :, 0] == -torch.inf).all()
    for gradient in torch.autograd.grad(lse[:, :, 0].sum(), (query, key)):
        assert (gradient == 0).all()


@pytest.mark.parametrize(
    "text",
    [
        "mask k < q",
        "mask false",
        "mask k < q score s + log(q - k)",
        "mask k < q score s * sqrt(q - k)",
        "score log(abs(q - k)) + s",
        "score s / (q - k) mask q != k",
        "score s + (1.0 / k if k > 0 else 0.0)",
        "score s - inf",
        "score s if k < q else -inf",
        "mask false weights softmax with t[h]",
        "mask false weights softmax with -inf",
        "mask k < q weights softmax with -inf, t[h] if row > 0 else -inf",
        "mask k < q weights s over total",
        "mask k < q weights s over total - total",
        "mask k < q weights relu(s - 100.0) over total",
        "mask k < q weights s over sqrt(count)",
        "mask k < q weights s over log(count)",
        "mask k < q reweight p * log(q - k)",
        "score s + log(t[h] - t[h])",
    ],
)
def test_no_nan_comes_out_of_masked_pairs_empty_rows_and_zero_denominators(text: str) -> None:
    declared = "input t: float[heads] learnable" if "t[" in text else ""
    attention = attncc.loads(f"attention a {declared} {text}")
    inputs = [*operands(), *([sinks()] if declared else [])]
    result = attention.reference(*inputs[:3], **({"t": inputs[3]} if declared else {}))
    assert not result.isnan().any()
    for gradient in torch.autograd.grad(result.square().sum(), inputs, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


def test_derivatives_at_ties_follow_torch() -> None:
    value = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for text, wanted in [
        ("max(t[0], 2.0 * t[0])", 1.5),
        ("min(t[0], 0.0)", 0.5),
        ("abs(t[0])", 0.0),
        ("clamp(t[0], 0.0, 1.0)", 1.0),
        ("relu(t[0])", 0.0),
    ]:
        t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        attention = attncc.loads(f"attention a input t: float[1] learnable score s + {text} weights s")
        attention.reference(zero, zero, value, t=t).sum().backward()
        assert t.grad is not None
        assert t.grad.item() == wanted, text
