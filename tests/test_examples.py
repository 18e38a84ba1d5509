"""Every example means what its paper says: the oracle against formulas written here by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attncc
from attncc.grammar.frontend import load_specs

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.attn"))
BATCH, HEADS, LENGTH, DIM = 2, 2, 300, 8
Values = dict[str, Any]


def dense(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    return softmax(scaled(query, key), everything(), value)


def causal(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    return softmax(scaled(query, key), everything().tril(), value)


def sliding_window(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    band = everything().tril().triu(diagonal=1 - values["window"])
    return softmax(scaled(query, key), band, value)


def prefix_lm(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    mask = everything().tril().repeat(BATCH, 1, 1, 1)
    for row, length in enumerate(values["prefix"].tolist()):
        mask[row, :, :, :length] = True
    return softmax(scaled(query, key), mask, value)


def documents(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    return softmax(scaled(query, key), causal_blocks(values["doc"]), value)


def alibi(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    return softmax(scaled(query, key) + alibi_bias(values["slopes"]), everything().tril(), value)


def softcap(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    return softmax(torch.tanh(scaled(query, key) / values["cap"]) * values["cap"], everything().tril(), value)


def t5_bias(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    positions = torch.arange(LENGTH)
    buckets = t5_bucket(positions[None, :] - positions[:, None])
    bias = torch.nn.functional.embedding(buckets, values["bias"]).permute(2, 0, 1)
    return softmax(query @ key.mT + bias, everything(), value)


def streaming_llm(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    mask = everything().triu(diagonal=1 - values["window"])
    mask[:, : values["sinks"]] = True
    return softmax(scaled(query, key), mask.tril(), value)


def longformer(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    band = everything().tril(diagonal=values["window"]).triu(diagonal=-values["window"])
    mask = band.repeat(BATCH, 1, 1, 1)
    for row, token in values["is_global"].nonzero().tolist():
        mask[row, :, token, :] = True
        mask[row, :, :, token] = True
    return softmax(scaled(query, key), mask, value)


def learnable_sink(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    # One more key with a logit of its own, whose column is dropped after the softmax.
    score = scaled(query, key).masked_fill(~everything().tril().triu(diagonal=1 - values["window"]), -math.inf)
    column = values["sink"].view(1, HEADS, 1, 1).expand(BATCH, HEADS, LENGTH, 1)
    return torch.cat([score, column], dim=-1).softmax(-1)[..., :-1] @ value


def bigbird(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    blocks = math.ceil(LENGTH / 64)
    layout = torch.zeros(HEADS, blocks, blocks, dtype=torch.bool)
    for block in range(blocks):
        layout[:, block, max(block - 1, 0) : block + 2] = True
        for head in range(HEADS):
            layout[head, block, [b for b in values["drawn"][head, block].tolist() if b >= 0]] = True
    layout[:, [0, -1], :] = True
    layout[:, :, [0, -1]] = True
    mask = layout.repeat_interleave(64, 1).repeat_interleave(64, 2)[:, :LENGTH, :LENGTH]
    return softmax(scaled(query, key), mask, value)


def sigmoid(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    weights = torch.sigmoid(scaled(query, key) - math.log(LENGTH))
    return weights.tril() @ value


def train_bytes(query: Tensor, key: Tensor, value: Tensor, values: Values) -> Tensor:
    return softmax(scaled(query, key) + alibi_bias(values["slopes"]), causal_blocks(values["doc"]), value)


def packed() -> Tensor:
    return torch.stack([torch.arange(LENGTH) // 70, (torch.arange(LENGTH) > 211).long() * 5])


def flags() -> Tensor:
    is_global = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    is_global[0, [0, 1, 150]] = True
    is_global[1, 299] = True
    return is_global


# (formula, values). Every input's values are such that each part of the mask decides some pair.
CASES: list[tuple[Callable[[Tensor, Tensor, Tensor, Values], Tensor], Values]] = [
    (dense, {}),
    (causal, {}),
    (sliding_window, {"window": 37}),
    (sliding_window, {"window": 1}),
    (prefix_lm, {"prefix": torch.tensor([0, 123])}),
    (prefix_lm, {"prefix": torch.tensor([LENGTH, 1])}),
    (documents, {"doc": packed()}),
    (alibi, {"slopes": torch.tensor([0.25, 0.0625])}),
    (softcap, {"cap": 1.5}),
    (t5_bias, {"bias": torch.linspace(-2, 2, 64).reshape(32, HEADS).sin()}),
    (streaming_llm, {"sinks": 4, "window": 25}),
    (streaming_llm, {"sinks": 0, "window": 1}),
    (longformer, {"window": 20, "is_global": flags()}),
    (learnable_sink, {"window": 128, "sink": torch.tensor([0.5, -3.0])}),
    (bigbird, {"drawn": torch.tensor([[[3, 2, 4], [3, 4, 0], [0, 0, 0], [1, -1, -1], [2, 1, 2]]] * 2).roll(1, 2)}),
    (sigmoid, {}),
    (train_bytes, {"slopes": torch.tensor([0.25, 0.0625]), "doc": packed()}),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_checks_without_warnings_and_is_named_as_its_file(path: Path) -> None:
    loaded = load_specs(path)
    assert (list(loaded.specs), loaded.warnings) == ([path.stem], ())


def test_every_example_has_a_formula() -> None:
    assert {path.stem for path in FILES} == {formula.__name__ for formula, _ in CASES}


@pytest.mark.parametrize(("formula", "values"), CASES, ids=lambda part: getattr(part, "__name__", ""))
def test_oracle_equals_formula(formula: Callable[..., Tensor], values: Values) -> None:
    attention = attncc.load(EXAMPLES / f"{formula.__name__}.attn", name=formula.__name__)
    draws = torch.Generator().manual_seed(0)
    query, key, value, grad_out = (
        torch.randn(BATCH, HEADS, LENGTH, DIM, dtype=torch.float64, generator=draws) for _ in range(4)
    )

    ours = differentiate(attention.reference, query, key, value, values, grad_out)
    by_hand = differentiate(lambda q, k, v, **given: formula(q, k, v, given), query, key, value, values, grad_out)

    assert ours.keys() == by_hand.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], by_hand[name], rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("distance", [range(16), range(16, 128), range(120, 140), (1000, 2**20, 2**29)])
def test_t5_integer_buckets_equal_the_logarithm(distance: range | tuple[int, ...]) -> None:
    right = torch.tensor(list(distance))
    squared = right.clamp(max=128) ** 2
    far = 8 + sum((squared >= 64 << m).long() for m in range(1, 8))
    assert torch.equal(t5_bucket(-right), torch.where(right < 8, right, far))
    assert torch.equal(t5_bucket(right), torch.where(right < 8, right, far) + 16 * (right > 0))


def differentiate(
    attention: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor, values: Values, grad_out: Tensor
) -> dict[str, Tensor]:
    """The output, and the gradient of everything that is float, by name."""
    given = {"query": query, "key": key, "value": value, **values}
    leaves = {
        name: tensor.double().detach().clone().requires_grad_()
        for name, tensor in given.items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point()
    }
    call = {**given, **leaves}
    out = attention(call.pop("query"), call.pop("key"), call.pop("value"), **call)
    gradients = torch.autograd.grad(out, list(leaves.values()), grad_out)
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def scaled(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.mT / math.sqrt(DIM)


def softmax(score: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    return score.masked_fill(~mask, -math.inf).softmax(-1) @ value


def everything() -> Tensor:
    return torch.ones(LENGTH, LENGTH, dtype=torch.bool)


def causal_blocks(doc: Tensor) -> Tensor:
    """Lower triangles along the diagonal, one for each document of each row: `[batch, 1, length, length]`."""
    rows = []
    for ids in doc:
        _, lengths = ids.unique_consecutive(return_counts=True)
        rows.append(torch.block_diag(*(torch.ones(int(n), int(n)).tril() for n in lengths)).bool())
    return torch.stack(rows)[:, None]


def alibi_bias(slopes: Tensor) -> Tensor:
    """The paper's form: a row of rising numbers for each head, since a softmax ignores what a whole row shares."""
    return slopes.view(HEADS, 1, 1) * torch.arange(LENGTH)


def t5_bucket(relative_position: Tensor) -> Tensor:
    """T5's own function for 32 buckets, maximum distance 128, in both directions, with its logarithm."""
    bucket = 16 * (relative_position > 0).long()
    distance = relative_position.abs()
    far = 8 + (torch.log(distance.float() / 8) / math.log(128 / 8) * 8).long()
    return bucket + torch.where(distance < 8, distance, far.clamp(max=15))
