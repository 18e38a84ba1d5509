"""The oracle against dense attention written by hand: masks, scores, grids, tables, positions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import attncc

BATCH, HEADS, KV_HEADS, QUERIES, KEYS, DIM, DIM_V = 2, 4, 2, 6, 9, 8, 5


def operands(
    seed: int = 0, queries: int = QUERIES, keys: int = KEYS, heads: int = HEADS, kv_heads: int = KV_HEADS
) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = ((BATCH, heads, queries, DIM), (BATCH, kv_heads, keys, DIM), (BATCH, kv_heads, keys, DIM_V))
    query, key, value = (torch.randn(s, generator=random, dtype=torch.float64) for s in shapes)
    return query, key, value


def dense(query: Tensor, key: Tensor, value: Tensor, live: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """Softmax attention over the live pairs, by loops over nothing but torch's own operations; 0 for empty rows."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    score = query @ key.mT / math.sqrt(query.shape[-1]) + bias
    score = score.masked_fill(~live, -torch.inf)
    return torch.softmax(score, -1).nan_to_num(0.0) @ value


def positions(queries: int = QUERIES, keys: int = KEYS, offset: int = 0) -> tuple[Tensor, Tensor]:
    return torch.arange(queries)[:, None] + offset, torch.arange(keys)[None, :]


def test_without_a_mask_it_is_torchs_own_attention() -> None:
    query, key, value = operands()
    expected = scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(attncc.loads("attention a").reference(query, key, value), expected)


def test_causal_at_an_offset_is_torchs_own_attention() -> None:
    query, key, value = operands()
    q, k = positions(offset=KEYS - QUERIES)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=k <= q, enable_gqa=True)
    attention = attncc.loads("attention a  mask k <= q")
    torch.testing.assert_close(attention.reference(query, key, value, q_offset=KEYS - QUERIES), expected)


@pytest.mark.parametrize(
    ("text", "live"),
    [
        ("mask k <= q", lambda q, k: k <= q),
        ("mask causal()", lambda q, k: k <= q),
        ("mask q - k < 2 mask k - q < 3", lambda q, k: (q - k < 2) & (k - q < 3)),
        ("mask (k - q) // 2 == -1", lambda q, k: torch.div(k - q, 2, rounding_mode="floor") == -1),
        ("mask (q - k) % 3 == 0", lambda q, k: (q - k).remainder(3) == 0),
        ("mask k % (q - 2) == 0", lambda q, k: torch.where(q == 2, 0, k.remainder(torch.where(q == 2, 1, q - 2))) == 0),
        ("mask 0 <= q - k < 4 and not (k == 3)", lambda q, k: (q >= k) & (q - k < 4) & (k != 3)),
        ("mask (k if q > 2 else q) < 3", lambda q, k: torch.where(q > 2, k, q) < 3),
        ("mask k ^ q < 4", lambda q, k: (k ^ q) < 4),
        ("mask k << (q - 1) <= 8 ", lambda q, k: torch.where(q < 1, 0, k << (q - 1).clamp(0)) <= 8),
        ("mask row < 3", lambda q, k: (q < 3) & (k >= 0)),
    ],
)
def test_masks(text: str, live: Any) -> None:
    query, key, value = operands()
    q, k = positions()
    expected = dense(query, key, value, live(q, k).expand(QUERIES, KEYS))
    torch.testing.assert_close(attncc.loads(f"attention a {text}").reference(query, key, value), expected)


def test_float_that_feeds_a_mask_is_rounded_to_float32() -> None:
    # In float64 0.1 + 0.2 differs from 0.3; in float32 it does not. And 2**24 + 1 is even.
    query, key, value = operands()
    everything = dense(query, key, value, torch.ones(QUERIES, KEYS, dtype=torch.bool))
    for text in ("param x: float = 0.1 mask x + 0.2 == 0.3", "param n: int = 16777216 mask 1.0 * (n + 1) == 1.0 * n"):
        torch.testing.assert_close(attncc.loads(f"attention a {text}").reference(query, key, value), everything)


def test_float_that_makes_a_score_is_float64() -> None:
    query, key, value = operands()
    bias = (0.1 + 0.2 - 0.3) * 1e17 * positions()[1].double()
    expected = dense(query, key, value, torch.ones(QUERIES, KEYS, dtype=torch.bool), bias)
    attention = attncc.loads("attention a param x: float = 0.1 score s + (x + 0.2 - 0.3) * 1e17 * k")
    torch.testing.assert_close(attention.reference(query, key, value), expected)


def test_scores_chain_and_weights_see_the_last() -> None:
    query, key, value = operands()
    q, k = positions()
    score = query @ key.repeat_interleave(2, 1).mT / math.sqrt(DIM)
    score = 2.0 * torch.tanh((score + 0.1 * (q - k).double()) / 2.0)
    expected = torch.softmax(score, -1) @ value.repeat_interleave(2, 1)
    attention = attncc.loads("attention a  score s + 0.1 * (q - k)  score softcap(2.0)")
    torch.testing.assert_close(attention.reference(query, key, value), expected)


@pytest.mark.parametrize(
    ("spec", "given", "wanted"), [("", None, DIM**-0.5), ("scale 0.5", None, 0.5), ("scale 0.5", 2, 2)]
)
def test_scale(spec: str, given: float | None, wanted: float) -> None:
    query, key, value = operands()
    expected = scaled_dot_product_attention(query, key, value, scale=wanted, enable_gqa=True)
    torch.testing.assert_close(attncc.loads(f"attention a {spec}").reference(query, key, value, scale=given), expected)


def test_offset_for_each_batch_entry_and_negative_positions() -> None:
    query, key, value = operands()
    offsets = torch.tensor([-2, 3], dtype=torch.int32)
    q = torch.arange(QUERIES)[None, :, None] + offsets[:, None, None]
    expected = dense(query, key, value, (torch.arange(KEYS) <= q)[:, None])
    attention = attncc.loads("attention a  mask k <= q")
    torch.testing.assert_close(attention.reference(query, key, value, q_offset=offsets), expected)
    for entry, offset in enumerate(offsets.tolist()):
        one = attention.reference(query[[entry]], key[[entry]], value[[entry]], q_offset=offset)
        torch.testing.assert_close(one, expected[[entry]])


def test_loads_out_of_range_are_zero_and_pass_no_gradient() -> None:
    query, key, value = operands()
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    q, k = positions()
    padded = torch.cat([bias, torch.zeros(1, dtype=torch.float64)])
    index = torch.where((q - k >= 0) & (q - k < 4), q - k, 4)
    everything = torch.ones(QUERIES, KEYS, dtype=torch.bool)
    expected = dense(query, key, value, everything, padded[index])
    attention = attncc.loads("attention a input bias: float[4] learnable  score s + bias[q - k]")
    out = attention.reference(query, key, value, bias=bias)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(*(torch.autograd.grad(o.square().sum(), bias) for o in (out, expected)))


def test_inputs_of_every_sort_and_head_of_the_key() -> None:
    query, key, value = operands()
    doc = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 3, 3]], dtype=torch.int16)
    keep = torch.rand(KV_HEADS, KEYS, generator=torch.Generator().manual_seed(1)) > 0.3
    gain = torch.tensor([0.5, 2.0], dtype=torch.bfloat16)
    attention = attncc.loads("""
      attention a
        input doc: int[batch, keys]
        input keep: bool[kv_heads, keys]
        input gain: float[kv_heads]
        mask doc[b, q] == doc[b, k] and keep[h_kv, k]
        score s * gain[h_kv]
    """)
    live = (doc[:, None, :QUERIES, None] == doc[:, None, None, :]) & keep.repeat_interleave(2, 0)[None, :, None, :]
    scaled = query * gain.double().repeat_interleave(2)[None, :, None, None]
    torch.testing.assert_close(
        attention.reference(query, key, value, doc=doc, keep=keep, gain=gain), dense(scaled, key, value, live)
    )


def test_score_of_minus_infinity_is_masked() -> None:
    query, key, value = operands()
    q, k = positions()
    text = "score s if k <= q and k > 0 else -inf"
    out, lse = attncc.loads(f"attention a {text} output lse").reference(query, key, value)
    torch.testing.assert_close(out, dense(query, key, value, (k <= q) & (k > 0)))
    assert (lse[:, :, 0] == -torch.inf).all()
    assert lse[:, :, 1:].isfinite().all()


def test_grid_coordinates_and_tokens_off_the_grid() -> None:
    height, width, prefix, suffix = 2, 3, 1, 2
    tokens = height * width + prefix + suffix
    query, key, value = operands(queries=tokens, keys=tokens)
    y, x = torch.full((tokens,), -1), torch.full((tokens,), -1)
    y[prefix : prefix + 6], x[prefix : prefix + 6] = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
    live = (y[:, None] == y) | (x[:, None] - x).abs().eq(2)
    attention = attncc.loads("attention a grid y, x  mask q.y == k.y or abs(q.x - k.x) == len(x) - 1")
    out = attention.reference(query, key, value, grid=(height, width), prefix_tokens=prefix, suffix_tokens=suffix)
    torch.testing.assert_close(out, dense(query, key, value, live))


def test_one_grid_places_queries_by_position_and_two_place_them_by_row() -> None:
    query, key, value = operands(queries=3, keys=6)
    # The second row of a 2 by 3 grid of keys.
    attention = attncc.loads("attention a grid y, x  mask q.x == k.x and q.y >= k.y")
    live = torch.arange(3)[:, None] == torch.arange(6) % 3
    torch.testing.assert_close(
        attention.reference(query, key, value, grid=(2, 3), q_offset=3), dense(query, key, value, live)
    )
    attention = attncc.loads(
        "attention a grid queries y, x grid keys v, u  mask q.x == k.u // 2 and len(q.x) * 2 == len(k.u)"
    )
    live = torch.arange(3)[:, None] == torch.arange(6) // 2
    out = attention.reference(query, key, value, grid=((1, 3), (1, 6)), q_offset=100)
    torch.testing.assert_close(out, dense(query, key, value, live))


def test_neighborhood_has_exactly_its_window() -> None:
    query, key, value = operands(queries=12, keys=12)
    mask = "mask neighborhood(q.y, k.y, len(y), 3) and neighborhood(q.x, k.x, len(x), 2)"
    attention = attncc.loads(f"attention a grid y, x {mask} output key_mass")
    start = (torch.arange(4) - 1).clamp(0, 2)
    along_x = (torch.arange(4) >= start[:, None]) & (torch.arange(4) < start[:, None] + 2)
    live = along_x.repeat(3, 3)
    assert (live.sum(-1) == 3 * 2).all()
    out, mass = attention.reference(query, key, value, grid=(3, 4))
    torch.testing.assert_close(out, dense(query, key, value, live))
    torch.testing.assert_close(mass.sum(-1), torch.full((BATCH, HEADS), 12.0, dtype=torch.float64))


def test_block_table_with_duplicates_gaps_and_invalid_entries() -> None:
    query, key, value = operands(queries=5, keys=7)
    # Blocks of 2 queries and 3 keys: 3 by 3 of them.
    table = torch.tensor([[0, 0, -1], [2, 9, -5], [-1, -1, -1]]).expand(BATCH, HEADS, 3, 3).clone()
    table[1, 2, 2] = torch.tensor([1, 2, 1])
    live = torch.zeros(BATCH, HEADS, 5, 7, dtype=torch.bool)
    live[:, :, 0:2, 0:3] = True
    live[:, :, 2:4, 6:7] = True
    live[1, 2, 4:5, 3:7] = True
    declared = "attention a extent top blocks t: int[batch, heads, query_blocks, top] size 2, 3"
    torch.testing.assert_close(
        attncc.loads(declared).reference(query, key, value, t=table), dense(query, key, value, live)
    )
    k = torch.arange(7)
    torch.testing.assert_close(
        attncc.loads(declared + " mask t or k == 6").reference(query, key, value, t=table),
        dense(query, key, value, live | (k == 6)),
    )


def test_block_table_shared_by_heads_and_of_boxes() -> None:
    query, key, value = operands(queries=9, keys=9)
    # A 2 by 4 grid after one token, in boxes of 1 by 2: query boxes 2 by 2, key boxes of 2 by 4 numbered 0 and none.
    table = torch.tensor([[[0], [-1]], [[-1], [0]]])
    attention = attncc.loads("""
      attention a
        grid y, x
        blocks t: int[query_blocks, query_blocks, 1] size (1, 2), (2, 4)
        mask t or not on_grid(k) and q >= 0
    """)
    live = torch.zeros(9, 9, dtype=torch.bool)
    live[:, 0] = True
    live[1:3, 1:] = True
    live[7:9, 1:] = True
    torch.testing.assert_close(
        attention.reference(query, key, value, t=table, grid=(2, 4), prefix_tokens=1), dense(query, key, value, live)
    )


@pytest.mark.parametrize(("queries", "keys", "batch"), [(0, 5, 2), (5, 0, 2), (0, 0, 2), (3, 3, 0)])
def test_lengths_of_zero(queries: int, keys: int, batch: int) -> None:
    query = torch.randn(batch, 2, queries, 4, requires_grad=True)
    key, value = (torch.randn(batch, 2, keys, 4, requires_grad=True) for _ in range(2))
    attention = attncc.loads("attention a  mask k <= q  output lse, row_max, entropy, key_mass")
    out, lse, row_max, entropy, mass = attention.reference(query, key, value)
    assert out.shape == (batch, 2, queries, 4)
    assert lse.shape == row_max.shape == entropy.shape == (batch, 2, queries)
    assert mass.shape == (batch, 2, keys)
    if keys == 0:
        assert (out == 0).all()
        assert (lse == -torch.inf).all()
        assert (row_max == -torch.inf).all()
        assert (entropy == 0).all()
    for gradient in torch.autograd.grad(out.sum() + mass.sum(), (query, key, value)):
        assert (gradient == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_take_the_querys_dtype_and_rows_at_least_float32(dtype: torch.dtype) -> None:
    query, key, value = (t.to(dtype) for t in operands())
    out, lse = attncc.loads("attention a").reference(query, key, value, return_lse=True)
    assert out.dtype == dtype
    assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = attncc.loads("attention a").reference(query.double(), key.double(), value.double())
    assert torch.equal(out, exact.to(dtype))


def test_a_lowered_spec_means_the_same() -> None:
    from attncc.passes.pipeline import lower
    from attncc.runtime.launch import Arguments, bind
    from attncc.runtime.oracle import reference
    from attncc.runtime.signature import signature_of

    query, key, value = operands()
    spec = attncc.loads("attention a const n: int = 2 mask (q - h_kv) * n >= k score s + 0.1 * (q - k)").spec
    for offset in (3, torch.tensor([1, -4])):
        expected, _ = reference(bind(spec, signature_of(spec), Arguments(query, key, value, (), (2,), (), offset)))
        lowered = lower(spec, offset_per_batch=isinstance(offset, Tensor))
        got, _ = reference(bind(lowered, signature_of(lowered), Arguments(query, key, value, (), (), (), offset)))
        torch.testing.assert_close(got, expected)
