"""FlexAttention functions, unchanged: what `trace_flex` records is what torch.vmap computes of the same function."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.library import custom_op
from torch.nn.attention.flex_attention import and_masks, noop_mask, or_masks

from attncc.grammar.flex import FlexTrace, trace_flex
from attncc.ir.expr import Const, Coord, Load, Score, Sort, postorder
from attncc.runtime.evaluate import Evaluator

BATCH, HEADS, ROWS, KEYS = 2, 3, 12, 12
I64 = torch.int64

torch.manual_seed(0)
DOCUMENTS = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3])
DOCUMENTS_PER_ROW = torch.randint(0, 3, (BATCH, ROWS)).sort(dim=-1).values
OFFSETS = torch.tensor([0, 3, 7, 10])
LENGTHS = torch.tensor([5, 9], dtype=torch.int32)
PREFIX = torch.tensor([2, 6])
RELATIVE = torch.randn(HEADS, 2 * KEYS - 1)
BUCKETS = torch.randn(8, HEADS)
SLOPES = torch.tensor([0.5, 0.25, 0.125])
PAD = torch.rand(BATCH, KEYS) > 0.3
TEMPERATURE = torch.tensor(1.7)
PAIRS = torch.randn(BATCH, HEADS, ROWS, KEYS)
WINDOW = 4
WIDTH = 4


@custom_op("attncc_tests::fast_tanh", mutates_args=())
def fast_tanh(x: Tensor) -> Tensor:
    """Stands for the approximate tanh of softcap code."""
    return torch.tanh(x)


@fast_tanh.register_vmap
def _(info: object, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
    return torch.tanh(x), in_dims[0]


class FastTanh(torch.autograd.Function):
    """Custom autograd around it, as softcap code has."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.ops.attncc_tests.fast_tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return grad * (1 - out * out)


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def sliding(b, h, q_idx, kv_idx):
    return (q_idx - kv_idx <= WINDOW) & (q_idx >= kv_idx)


def prefix(b, h, q_idx, kv_idx):
    return (kv_idx < PREFIX[b]) | (kv_idx <= q_idx)


def document(b, h, q_idx, kv_idx):
    return DOCUMENTS[q_idx] == DOCUMENTS[kv_idx]


def document_per_row(b, h, q_idx, kv_idx):
    return (DOCUMENTS_PER_ROW[b, q_idx] == DOCUMENTS_PER_ROW[b][kv_idx]) & causal(b, h, q_idx, kv_idx)


def jagged(b, h, q_idx, kv_idx):
    same = DOCUMENTS[q_idx] == DOCUMENTS[kv_idx]
    within_q = q_idx - OFFSETS[DOCUMENTS[q_idx]]
    within_k = kv_idx - OFFSETS[DOCUMENTS[kv_idx]]
    return same & (within_q - within_k <= 2)


def padded(b, h, q_idx, kv_idx):
    return PAD[b, kv_idx] & (kv_idx < LENGTHS[b])


def natten(b, h, q_idx, kv_idx):
    qy, qx = q_idx // WIDTH, q_idx % WIDTH
    ky, kx = kv_idx // WIDTH, kv_idx % WIDTH
    centre_y, centre_x = qy.clamp(1, ROWS // WIDTH - 2), qx.clamp(1, WIDTH - 2)
    return ((centre_y - ky).abs() <= 1) & ((centre_x - kx).abs() <= 1)


def dilated(b, h, q_idx, kv_idx):
    gap = torch.abs(q_idx - kv_idx)
    return torch.logical_and(torch.eq(gap % 2, 0), torch.le(gap, 6))


def morton(b, h, q_idx, kv_idx):
    x = (q_idx & 1) | ((q_idx >> 2 & 1) << 1)
    y = torch.bitwise_or(torch.bitwise_and(kv_idx, 1), torch.bitwise_xor(kv_idx >> 1, 3) & ~1)
    return (x ^ y) < 3


def flamingo(b, h, q_idx, kv_idx):
    image_of = torch.where(q_idx < 4, -1, (q_idx - 4) // 3)
    return torch.logical_or(kv_idx // 3 == image_of, ~(q_idx >= 4))


def transfusion(b, h, q_idx, kv_idx):
    start, end = 3, 7
    in_image = (q_idx >= start) & (q_idx < end) & (kv_idx >= start) & (kv_idx < end)
    return in_image.logical_or(q_idx >= kv_idx)


def transposed_table(b, h, q_idx, kv_idx):
    return DOCUMENTS_PER_ROW.T[q_idx, b] != DOCUMENTS[-1]


def from_the_end(b, h, q_idx, kv_idx):
    return DOCUMENTS[q_idx - kv_idx] >= DOCUMENTS[-2]


def strided_heads(b, h, q_idx, kv_idx):
    return torch.where(h % 2 == 0, q_idx >= kv_idx, (q_idx - kv_idx) // 3 != -1)


def counted(b, h, q_idx, kv_idx):
    votes = (q_idx > 3) * 1 + (kv_idx > 3).int() + (q_idx == kv_idx).to(torch.int64)
    return votes >= 1 + True


def in_place(b, h, q_idx, kv_idx):
    moved = q_idx + 0
    alias = moved
    moved += 2
    return alias - kv_idx >= 1


def created(b, h, q_idx, kv_idx):
    limit = torch.tensor(3, device=q_idx.device)
    return (q_idx - kv_idx < limit) & kv_idx.new_ones((), dtype=torch.bool)


def logical(b, h, q_idx, kv_idx):
    odd = q_idx.bool()
    return torch.logical_xor(torch.logical_not(odd), kv_idx > 2) ^ (q_idx != 1)


def partial_mask(window, b, h, q_idx, kv_idx, *, table):
    return (q_idx - kv_idx).abs() < window + table[h]


def default_argument(b, h, q_idx, kv_idx, docs=DOCUMENTS):
    return docs[q_idx] <= docs[kv_idx]


def float_comparison(b, h, q_idx, kv_idx):
    return (q_idx / 4).floor() == torch.ceil(kv_idx / 3.0).int()


class Block(nn.Module):
    """A module whose bound methods are the mods, as models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(HEADS, ROWS, KEYS))
        self.gate = nn.Parameter(torch.randn(HEADS))
        self.table = nn.Embedding(2 * KEYS - 1, HEADS)
        self.register_buffer("documents", DOCUMENTS.clone())

    def score(self, score, b, h, q_idx, kv_idx):
        return score * torch.sigmoid(self.gate[h]) + self.bias[h, q_idx, kv_idx]

    def embedded(self, score, b, h, q_idx, kv_idx):
        return score + self.table.weight[q_idx - kv_idx + KEYS - 1, h]

    def looked_up(self, score, b, h, q_idx, kv_idx):
        return score + self.table(q_idx - kv_idx + KEYS - 1)[h]

    def mask(self, b, h, q_idx, kv_idx):
        return self.documents[q_idx] == self.documents[kv_idx]


BLOCK = Block()

MASKS = {
    "causal": causal,
    "sliding": sliding,
    "prefix": prefix,
    "document": document,
    "document per row": document_per_row,
    "jagged": jagged,
    "padded": padded,
    "natten": natten,
    "dilated": dilated,
    "morton": morton,
    "flamingo": flamingo,
    "transfusion": transfusion,
    "view": transposed_table,
    "negative index": from_the_end,
    "heads": strided_heads,
    "bools as numbers": counted,
    "in place": in_place,
    "created inside": created,
    "logical": logical,
    "partial": functools.partial(partial_mask, 2, table=LENGTHS.new_tensor([1, 2, 3])),
    "default": default_argument,
    "floats": float_comparison,
    "method": BLOCK.mask,
    "lambda": lambda b, h, q, k: k - q < 1,
    "and_masks": and_masks(causal, document, sliding),
    "or_masks": or_masks(sliding, document, prefix),
    "nested": and_masks(or_masks(document, sliding), causal, noop_mask),
    "noop": noop_mask,
}


def alibi(score, b, h, q_idx, kv_idx):
    return score + SLOPES[h] * (kv_idx - q_idx)


def alibi_computed(score, b, h, q_idx, kv_idx):
    return score - torch.exp2(-((h + 1) * 8.0 / HEADS)) * (q_idx - kv_idx).abs()


def softcap(score, b, h, q_idx, kv_idx):
    return 20 * torch.tanh(score / 20)


def softcap_fast(score, b, h, q_idx, kv_idx):
    return torch.ops.attncc_tests.fast_tanh(score / 30) * 30


def softcap_packed(score, b, h, q_idx, kv_idx):
    return FastTanh.apply(score / 10.0) * 10.0


def relative(score, b, h, q_idx, kv_idx):
    return score + RELATIVE[h, q_idx - kv_idx + KEYS - 1]


def t5(score, b, h, q_idx, kv_idx):
    distance = torch.clamp(q_idx - kv_idx, min=0)
    large = 4 + (torch.log(distance.float().clamp_min(1) / 4) / math.log(2) * 2).to(I64)
    bucket = torch.where(distance < 4, distance, torch.minimum(large, torch.full_like(large, 7)))
    return score + BUCKETS[bucket, h]


def causal_score(score, b, h, q_idx, kv_idx):
    return torch.where(q_idx >= kv_idx, score, -float("inf"))


def causal_filled(score, b, h, q_idx, kv_idx):
    return score.masked_fill(q_idx < kv_idx, float("-inf"))


def additive(score, b, h, q_idx, kv_idx):
    return score + PAIRS[b, h, q_idx, kv_idx]


def checkerboard(score, b, h, q_idx, kv_idx):
    score = torch.where(torch.abs(kv_idx - q_idx) % 2 == 1, score * 0.5, score)
    return torch.where(kv_idx % 2 == q_idx % 2, score * 2.0, score)


def tempered(score, b, h, q_idx, kv_idx):
    return score / TEMPERATURE + torch.zeros_like(score)


def counted_score(score, b, h, q_idx, kv_idx):
    return score * (q_idx >= kv_idx) + 1.0 * (h == 1)


def elementwise(score, b, h, q_idx, kv_idx):
    x = torch.sin(score) + torch.cos(score).exp() - torch.sqrt(score.square() + 1)
    x = x + torch.log1p(torch.abs(score)) * torch.rsqrt(1 + score**2) + torch.sign(score)
    return x + torch.nn.functional.relu(score) - torch.erf(score) + 1 / (2 + score.sigmoid())


def activations(score, b, h, q_idx, kv_idx):
    f = torch.nn.functional
    x = f.gelu(score) + f.gelu(score, approximate="tanh") + f.silu(score) + f.softplus(score)
    return x + f.leaky_relu(score, 0.1) + f.logsigmoid(score) + f.relu6(score)


def arithmetic(score, b, h, q_idx, kv_idx):
    x = torch.add(score, kv_idx, alpha=2) - torch.sub(q_idx, kv_idx) * torch.true_divide(q_idx, kv_idx + 1)
    x = x + (q_idx - kv_idx) % 3 + (q_idx - kv_idx) // 4 + torch.remainder(score, 0.75) + score // 0.5
    return x + torch.pow(kv_idx, 2) + (2**kv_idx) * 1e-3 + torch.div(q_idx - 5, 3, rounding_mode="trunc")


def conversions(score, b, h, q_idx, kv_idx):
    x = (score * 3).int() + score.to(torch.int64) + torch.trunc(score * 2)
    return x + q_idx.type_as(score) / 2 + (score > 0).float() + score.ceil() + score.floor().int() % 2


SCORES = {
    "alibi": alibi,
    "alibi computed": alibi_computed,
    "softcap": softcap,
    "softcap by an operator": softcap_fast,
    "softcap by a custom autograd function": softcap_packed,
    "relative": relative,
    "t5": t5,
    "causal": causal_score,
    "causal filled": causal_filled,
    "additive": additive,
    "checkerboard": checkerboard,
    "0-dim tensor": tempered,
    "bool as number": counted_score,
    "elementwise": elementwise,
    "activations": activations,
    "arithmetic": arithmetic,
    "conversions": conversions,
    "module": BLOCK.score,
    "embedding weight": BLOCK.embedded,
    "embedding": BLOCK.looked_up,
    "identity": lambda score, b, h, q, k: score,
}


@pytest.mark.parametrize("mod", MASKS.values(), ids=MASKS)
def test_a_mask_means_what_torch_computes(mod: Callable[..., Tensor]) -> None:
    traced = trace_flex(mask_mod=mod)
    live = torch.ones((), dtype=torch.bool)
    for clause in traced.spec.masks:
        assert clause.span is not None
        live = live & evaluator(traced)(clause.expr)
    assert torch.equal(live.broadcast_to(BATCH, HEADS, ROWS, KEYS), dense(mod))


@pytest.mark.parametrize("mod", SCORES.values(), ids=SCORES)
def test_a_score_means_what_torch_computes(mod: Callable[..., Tensor]) -> None:
    score = 3 * torch.randn(BATCH, HEADS, ROWS, KEYS)
    traced = trace_flex(score_mod=mod)
    made = score.double()
    for clause in traced.spec.scores:
        made = evaluator(traced, made)(clause.expr).broadcast_to(score.shape)
    torch.testing.assert_close(made, dense(mod, score).double(), rtol=1e-4, atol=1e-4)


def test_both_functions_make_one_spec() -> None:
    traced = trace_flex(relative, document)
    assert traced.spec.name == "relative_document"
    assert [i.name for i in traced.spec.inputs] == ["RELATIVE", "DOCUMENTS"]
    assert traced.tensors["RELATIVE"] is RELATIVE
    assert traced.tensors["DOCUMENTS"] is DOCUMENTS
    assert traced.spec.inputs[0].extents == (Const(HEADS, Sort.INT), Const(2 * KEYS - 1, Sort.INT))
    assert (len(traced.spec.scores), len(traced.spec.masks)) == (1, 1)


def test_q_idx_is_the_row() -> None:
    (mask,) = trace_flex(mask_mod=causal).spec.masks
    assert {n.name for n in postorder(mask.expr) if isinstance(n, Coord)} == {"row", "k"}


@pytest.mark.parametrize(
    ("mod", "names"),
    [
        (BLOCK.score, {"bias": True, "gate": True}),
        (BLOCK.embedded, {"table_weight": True}),
        (alibi, {"SLOPES": False}),
        (tempered, {"TEMPERATURE": False}),
    ],
)
def test_captured_tensors_become_inputs_named_after_what_holds_them(mod: Any, names: dict[str, bool]) -> None:
    traced = trace_flex(mod)
    assert {i.name: i.learnable for i in traced.spec.inputs} == names
    assert set(traced.tensors) == set(names)


def test_names_that_a_call_gives_meaning_to_are_avoided() -> None:
    scale, value = torch.ones(HEADS), torch.ones(HEADS)
    traced = trace_flex(lambda score, b, h, q, k: score * scale[h] + value[h])
    assert [i.name for i in traced.spec.inputs] == ["scale_", "value_"]


def test_one_tensor_under_two_names_is_one_input() -> None:
    first = torch.ones(HEADS)
    second = first
    traced = trace_flex(lambda score, b, h, q, k: score * first[h] + second[h])
    assert len(traced.tensors) == 1


def test_a_view_leads_to_the_parameter() -> None:
    table = nn.Parameter(torch.randn(KEYS, 2, HEADS))

    def mod(score, b, h, q_idx, kv_idx):
        return score + table[:, 0][kv_idx, h]

    with torch.no_grad():
        traced = trace_flex(mod)
    (declared,) = traced.spec.inputs
    assert declared.name == "table_view"
    assert declared.learnable
    traced.tensors["table_view"].sum().backward()
    assert table.grad is not None
    assert table.grad.sum() == KEYS * HEADS


def test_indices_that_cannot_be_negative_are_not_wrapped() -> None:
    traced = trace_flex(mask_mod=lambda b, h, q, k: DOCUMENTS[(q + k) // 2] == DOCUMENTS[q % 5])
    loads = [n for n in postorder(traced.spec.masks[0].expr) if isinstance(n, Load)]
    assert not any("where" in repr(n) for n in loads)


def test_a_gradient_reaches_what_torch_would_give_it() -> None:
    score = torch.randn(BATCH, HEADS, ROWS, KEYS)
    traced = trace_flex(BLOCK.score)
    made = evaluator(traced, score.double())(traced.spec.scores[0].expr)
    wanted = torch.autograd.grad(dense(BLOCK.score, score).sum(), BLOCK.gate)[0]
    got = torch.autograd.grad(made.sum(), BLOCK.gate)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_nothing_given_is_dense_attention() -> None:
    spec = trace_flex().spec
    assert (spec.masks, spec.scores) == ((), ())


def test_a_constant_score_is_that_of_the_symbol() -> None:
    traced = trace_flex(lambda score, b, h, q, k: score * 2)
    assert any(n is Score() for n in postorder(traced.spec.scores[0].expr))


def dense(mod: Callable[..., Tensor], score: Tensor | None = None) -> Tensor:
    """The function over all pairs by torch.vmap, as torch's own `create_mask` does it."""
    first = () if score is None else (0,)
    mapped = mod
    for axes in ((None, None, None, 0), (None, None, 0, None), (None, 0, None, None), (0, None, None, None)):
        mapped = torch.vmap(mapped, in_dims=(*first, *axes))
    indices = [torch.arange(n) for n in (BATCH, HEADS, ROWS, KEYS)]
    return mapped(*(() if score is None else (score,)), *indices)


def evaluator(traced: FlexTrace, score: Tensor | None = None) -> Evaluator:
    """Values for the leaves of a traced spec over all pairs."""
    shape = (BATCH, HEADS, ROWS, KEYS)
    coordinates = {
        name: torch.arange(n).reshape([-1 if i == axis else 1 for i in range(4)])
        for axis, (name, n) in enumerate(zip(("b", "h", "row", "k"), shape, strict=True))
    }
    tensors = {n: t.double() if t.is_floating_point() else t for n, t in traced.tensors.items()}
    return Evaluator({}, {}, coordinates, tensors, score=score)
