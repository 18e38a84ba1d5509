"""The examples again, from Python: with the decorator, and as functions written for PyTorch FlexAttention.

Both give what a spec file gives, down to the key under which compiled kernels are kept. Run
`python examples/python_api.py` to compare each with its `.attn` file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import attncc
from attncc import Const, Input
from attncc.ir.printer import spec_key

# The decorator. The first argument records statements, the others are declarations: an `Input` is a run-time tensor,
# a plain number a run-time scalar, a `Const` a compile-time value.


@attncc.attention
def dense(a):
    """Vaswani et al. 2017."""


@attncc.attention
def causal(a):
    """Radford et al. 2018."""
    a.mask(a.k <= a.q)


@attncc.attention
def sliding_window(a, *, window: int = 256):
    """Jiang et al. 2023."""
    a.require(window >= 1, "a window holds at least the query's own position")
    a.mask(a.k <= a.q)
    a.mask(a.q - a.k < window)


@attncc.attention
def prefix_lm(a, *, prefix: Input("int[batch]", range=(0, "keys + 1"))):
    """Raffel et al. 2020."""
    a.mask((a.k <= a.q) | (a.k < prefix[a.b]))


@attncc.attention
def documents(a, *, doc: Input("int[batch, keys]", sorted="keys")):
    """Krell et al. 2021."""
    a.mask(a.k <= a.q)
    a.mask(doc[a.b, a.q] == doc[a.b, a.k])


@attncc.attention
def alibi(a, *, slopes: Input("float[heads]", learnable=True)):
    """Press et al. 2022."""
    a.mask(a.k <= a.q)
    a.score(a.s - slopes[a.h] * (a.q - a.k))


@attncc.attention
def softcap(a, *, cap: float = 50.0):
    """Gemma Team 2024."""
    a.require(cap > 0, "a cap is a positive number")
    a.mask(a.k <= a.q)
    a.score(cap * a.tanh(a.s / cap))


@attncc.attention
def t5_bias(a, *, bias: Input("float[32, heads]", learnable=True)):
    """Raffel et al. 2020. A loop in Python unrolls: the function runs once, when it is decorated."""
    a.scale(1.0)
    r = a.min(abs(a.k - a.q), 128)
    far = a.where(r * r >= 128, 1, 0)
    for bound in (256, 512, 1024, 2048, 4096, 8192):
        far = far + a.where(r * r >= bound, 1, 0)
    side = a.where(a.k > a.q, 16, 0)
    a.score(a.s + bias[side + a.where(r < 8, r, 8 + far), a.h])


@attncc.attention
def streaming_llm(a, *, sinks: int = 4, window: int = 256):
    """Xiao et al. 2024."""
    a.require((sinks >= 0) & (window >= 1), "keep at least the query's own position")
    a.mask(a.k <= a.q)
    a.mask((a.k < sinks) | (a.q - a.k < window))


@attncc.attention
def longformer(a, *, is_global: Input("bool[batch, keys]"), window: int = 256):
    """Beltagy et al. 2020."""
    a.mask((abs(a.q - a.k) <= window) | is_global[a.b, a.k] | is_global[a.b, a.q])


@attncc.attention
def learnable_sink(a, *, sink: Input("float[heads]", learnable=True), window: int = 128):
    """OpenAI 2025 (gpt-oss)."""
    a.mask((a.k <= a.q) & (a.q - a.k < window))
    a.weights(a.softmax(sinks=sink[a.h]))


@attncc.attention
def bigbird(a, *, drawn: Input("int[heads, (keys + block - 1) // block, 3]"), block: Const = 64):
    """Zaheer et al. 2020."""
    i, j = a.q // block, a.k // block
    last = (a.keys - 1) // block
    near = abs(i - j) <= 1
    whole = (i == 0) | (i == last) | (j == 0) | (j == last)
    extra = (drawn[a.h, i, 0] == j) | (drawn[a.h, i, 1] == j) | (drawn[a.h, i, 2] == j)
    a.mask(near | whole | extra)


@attncc.attention
def sigmoid(a):
    """Ramapuram et al. 2024."""
    a.mask(a.k <= a.q)
    a.weights(a.sigmoid(a.s - a.log(a.keys)))


@attncc.attention
def train_bytes(a, *, doc: Input("int[batch, keys]", sorted="keys"), slopes: Input("float[heads]", learnable=True)):
    """What `train_bytes.py` trains through. Forms of the prelude are methods."""
    a.mask(a.causal() & a.same(doc))
    a.score(a.alibi(slopes))


DECORATED = {
    attention.name: attention
    for attention in (
        *(dense, causal, sliding_window, prefix_lm, documents, alibi, softcap, t5_bias, streaming_llm),
        *(longformer, learnable_sink, bigbird, sigmoid, train_bytes),
    )
}


# FlexAttention's functions, unchanged. Tensors they close over are bound to the attention, and those that require
# grad are learnable; numbers become constants.


def flex_causal() -> attncc.Attention:
    """A mask alone."""

    def mask_mod(b, h, q_idx, kv_idx):
        return q_idx >= kv_idx

    return attncc.from_flex(mask_mod=mask_mod)


def flex_documents(doc: Tensor) -> attncc.Attention:
    """A mask that reads a tensor."""

    def mask_mod(b, h, q_idx, kv_idx):
        return (q_idx >= kv_idx) & (doc[b, q_idx] == doc[b, kv_idx])

    return attncc.from_flex(mask_mod=mask_mod)


def flex_alibi(slopes: Tensor) -> attncc.Attention:
    """A score that reads a tensor, which gets its gradient."""

    def score_mod(score, b, h, q_idx, kv_idx):
        return score - slopes[h] * (q_idx - kv_idx)

    return attncc.from_flex(score_mod, lambda b, h, q_idx, kv_idx: q_idx >= kv_idx)


def flex_softcap(cap: float) -> attncc.Attention:
    """A torch function, and a number closed over."""

    def score_mod(score, b, h, q_idx, kv_idx):
        return cap * torch.tanh(score / cap)

    return attncc.from_flex(score_mod, lambda b, h, q_idx, kv_idx: q_idx >= kv_idx)


def flex_longformer(is_global: Tensor, window: int) -> attncc.Attention:
    """Parts put together with torch's own `or_masks`."""
    from torch.nn.attention.flex_attention import or_masks

    def band(b, h, q_idx, kv_idx):
        return (q_idx - kv_idx).abs() <= window

    def seen(b, h, q_idx, kv_idx):
        return is_global[b, kv_idx]

    def sees(b, h, q_idx, kv_idx):
        return is_global[b, q_idx]

    return attncc.from_flex(mask_mod=or_masks(band, seen, sees))


def main() -> int:
    """Compares keys of the decorated, then outputs and gradients of the FlexAttention ones. Exit code 1 on a miss."""
    folder = Path(__file__).parent
    texts = {name: attncc.load(folder / f"{name}.attn", name=name) for name in DECORATED}

    wrong = 0
    print("from the decorator: the same spec as the file's?")
    for name, attention in DECORATED.items():
        same = spec_key(attention.spec) == spec_key(texts[name].spec)
        wrong += not same
        print(f"  {name:<16} {'the same' if same else 'DIFFERENT'}   {attention!r}")

    length, heads = 200, 4
    doc = torch.arange(length).expand(2, -1) // 64
    slopes = torch.tensor([0.25, 0.0625, 0.015625, 0.00390625], requires_grad=True)
    is_global = torch.arange(length).expand(2, -1) % 100 == 0
    flex = {
        "causal": (flex_causal(), {}),
        "documents": (flex_documents(doc), {"doc": doc}),
        "alibi": (flex_alibi(slopes), {"slopes": slopes}),
        "softcap": (flex_softcap(20.0), {"cap": 20.0}),
        "longformer": (flex_longformer(is_global, 16), {"is_global": is_global, "window": 16}),
    }
    print("from FlexAttention functions: the largest difference of output and gradients")
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, length, 32, requires_grad=True) for _ in range(3))
    for name, (attention, values) in flex.items():
        differentiated = [query, key, value, *(v for v in values.values() if isinstance(v, Tensor) and v.requires_grad)]
        results = []
        for out in (attention.reference(query, key, value), texts[name].reference(query, key, value, **values)):
            results.append([out.detach(), *torch.autograd.grad(out.square().sum(), differentiated)])
        difference = max(float((ours - theirs).abs().max()) for ours, theirs in zip(*results, strict=True))
        wrong += not difference < 1e-5
        print(f"  {name:<16} {difference:.1e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
