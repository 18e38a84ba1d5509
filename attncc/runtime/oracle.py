"""The meaning of every backend: dense attention in torch, float64 inside, differentiable by autograd."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import assert_never

from attncc.ir.expr import Expr, Listed, postorder
from attncc.ir.spec import Ratio, Softmax
from attncc.runtime.evaluate import Evaluator
from attncc.runtime.launch import Bound
from attncc.runtime.tables import blocks_of, listed


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights `[batch, heads, queries, keys]` before `reweight`, and the row values they were made with.

    `lse` is softmax's and None otherwise; `total` and `count` are those of a numerator and None for softmax.
    All are `[batch, heads, queries]`.
    """

    p: Tensor
    lse: Tensor | None
    total: Tensor | None
    count: Tensor | None
    sinks: Tensor | None


def reference(bound: Bound, *, dtype: torch.dtype | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Dense attention of one call: `(out, outputs)`.

    `out` is `[batch, heads, queries, dim_v]` in the query's dtype, or in `dtype`. `outputs` has every row value the
    spec's weights define, asked for or not, in float32 (float64 where query is, or in `dtype`):

    - `lse` `[batch, heads, queries]`, softmax only: natural log of the sum of exponentials, sinks included; -inf for a
      row with neither a key nor a sink.
    - `row_max` `[batch, heads, queries]`: the largest final score among the keys seen, sinks not included; -inf for
      an empty row.
    - `entropy` `[batch, heads, queries]`, softmax only: Shannon entropy in nats of the row's distribution, sinks
      counted among its outcomes; 0 for an empty row.
    - `key_mass` `[batch, heads, keys]`: the sum of a key's weights over the rows, for each query head.
    - `total`, `count` `[batch, heads, queries]`, other weights only: the sum of the numerator over the row's live
      keys, and how many there are.

    The spec may be lowered or not: grid coordinates, `q` and `h_kv` have their meaning here. Backward follows from
    autograd (any order of derivative); rows that see no key, scores of -inf and zero denominators give zeros,
    never NaN, and what is masked contributes no gradient whatever its derivative. A row of `value` that holds inf
    or NaN spoils the rows computed with it even where its weight is 0, as in any dense attention.
    """
    # float64 is left alone by autocast, but the float32 parts that feed a mask must be too.
    with torch.autocast(bound.query.device.type, enabled=False):
        out, outputs = _attention(bound)
    double = bound.query.dtype == torch.float64
    row_dtype = dtype or (torch.float64 if double else torch.float32)
    return out.to(dtype or bound.query.dtype), {
        name: value if value.dtype == torch.int64 else value.to(row_dtype) for name, value in outputs.items()
    }


def mask_of(bound: Bound) -> Tensor:
    """The mask of one call as bool `[batch, heads, queries, keys]`, before scores of -inf are taken out."""
    sizes = bound.sizes
    shape = (sizes["batch"], sizes["heads"], sizes["queries"], sizes["keys"])
    return _mask(bound, _evaluator(bound)).broadcast_to(shape)


def _attention(bound: Bound) -> tuple[Tensor, dict[str, Tensor]]:
    spec, sizes = bound.spec, bound.sizes
    groups = sizes["heads"] // sizes["kv_heads"]
    query, key, value = bound.query.double(), bound.key.double(), bound.value.double()
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    score = bound.scale * (query @ key.transpose(-1, -2))
    shape = score.shape
    live = _mask(bound, _evaluator(bound))
    for clause in spec.scores:
        score = _evaluator(bound, score=score)(clause.expr).broadcast_to(shape)
    live = live.broadcast_to(shape) & (score != -torch.inf)
    weights = _weights(bound, score, live)
    outputs = _outputs(weights, torch.where(live, score, -torch.inf))
    p = weights.p
    if spec.reweight is not None:
        # What is masked may have no factor at all: it must not reach the product, whose derivative it would be.
        p = p * torch.where(live, _evaluator(bound)(spec.reweight.expr), 0.0)
    return p @ value, outputs


def _evaluator(
    bound: Bound, score: Tensor | None = None, total: Tensor | None = None, count: Tensor | None = None
) -> Evaluator:
    coordinates = _coordinates(bound)
    scalars, tensors = dict(bound.scalars), dict(bound.tensors)
    # A lowered spec reads the offset as a param or an input.
    if isinstance(bound.q_offset, Tensor):
        tensors["q_offset"] = bound.q_offset
    else:
        scalars["q_offset"] = bound.q_offset
    evaluator = Evaluator(
        scalars, bound.sizes, coordinates, tensors, score=score, total=total, count=count, device=bound.query.device
    )
    tables = {t.name: t for t in bound.spec.tables}
    groups = bound.sizes["heads"] // bound.sizes["kv_heads"]

    def is_listed(name: str) -> Tensor:
        blocks = blocks_of(bound.spec, tables[name], evaluator)
        return listed(bound.spec, tables[name], tensors[name], blocks, coordinates, groups)

    evaluator.listed = is_listed
    return evaluator


def _coordinates(bound: Bound) -> dict[str, Tensor]:
    sizes, device = bound.sizes, bound.query.device
    row = torch.arange(sizes["queries"], device=device)[None, None, :, None]
    offset = bound.q_offset
    coordinates = {
        "b": torch.arange(sizes["batch"], device=device)[:, None, None, None],
        "h": torch.arange(sizes["heads"], device=device)[None, :, None, None],
        "row": row,
        "k": torch.arange(sizes["keys"], device=device)[None, None, None, :],
        "q": row + (offset.long()[:, None, None, None] if isinstance(offset, Tensor) else offset),
    }
    coordinates["h_kv"] = coordinates["h"] // (sizes["heads"] // sizes["kv_heads"])
    if (grid := bound.spec.grid) is not None:
        # On a grid that both share a query's place is its position; a query grid of its own counts rows.
        place = coordinates["q" if grid.queries == grid.keys else "row"]
        for short, side, axes, token in (
            ("q", "queries", grid.queries, place),
            ("k", "keys", grid.keys, coordinates["k"]),
        ):
            lengths = [sizes[f"{side}.{axis}"] for axis in axes]
            on_axes = grid_coordinates(token, lengths, sizes["prefix_tokens"])
            coordinates |= {f"{short}.{axis}": c for axis, c in zip(axes, on_axes, strict=True)}
    return coordinates


def grid_coordinates(position: Tensor, lengths: list[int], prefix_tokens: int) -> list[Tensor]:
    """The coordinates of tokens on a grid laid out row-major after the prefix; -1 off the grid."""
    token = position - prefix_tokens
    coordinates = []
    stride = 1
    for length in reversed(lengths):
        coordinates.append(token // max(stride, 1) % max(length, 1))
        stride *= length
    on_grid = (token >= 0) & (token < stride)
    return [torch.where(on_grid, c, -1) for c in reversed(coordinates)]


def _mask(bound: Bound, evaluator: Evaluator) -> Tensor:
    spec = bound.spec
    live = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=bound.query.device)
    for clause in spec.masks:
        live = live & evaluator(clause.expr)
    mentioned = {n.table for n in postorder(*(c.expr for c in spec.masks)) if isinstance(n, Listed)}
    for table in spec.tables:
        if table.name not in mentioned:
            live = live & evaluator(Listed(table.name))
    return live


def _weights(bound: Bound, score: Tensor, live: Tensor) -> Weights:
    match bound.spec.weights:
        case Softmax(sinks=sinks):
            return _softmax(torch.where(live, score, -torch.inf), _sinks(bound, [s.expr for s in sinks], score))
        case Ratio(numerator=numerator, denominator=denominator):
            return _ratio(bound, numerator.expr, None if denominator is None else denominator.expr, score, live)
        case other:
            assert_never(other)


def _sinks(bound: Bound, sinks: list[Expr], score: Tensor) -> Tensor | None:
    if not sinks:
        return None
    evaluator = _evaluator(bound)
    return torch.cat([evaluator(s).broadcast_to((*score.shape[:3], 1)) for s in sinks], dim=-1)


def _softmax(score: Tensor, sinks: Tensor | None) -> Weights:
    logits = score if sinks is None else torch.cat([score, sinks], dim=-1)
    # The shift cancels, so it takes no part in derivatives; one column of -inf serves a row without any logit.
    shift = torch.nn.functional.pad(logits.detach(), (0, 1), value=-torch.inf).amax(-1, keepdim=True)
    shift = torch.where(shift == -torch.inf, 0.0, shift)
    total = torch.exp(logits - shift).sum(-1, keepdim=True)
    seen = total > 0
    divisor = torch.where(seen, total, 1.0)
    lse = torch.where(seen, divisor.log() + shift, -torch.inf)
    return Weights(torch.exp(score - shift) / divisor, lse.squeeze(-1), None, None, sinks)


def _ratio(bound: Bound, numerator: Expr, denominator: Expr | None, score: Tensor, live: Tensor) -> Weights:
    weight = _evaluator(bound, score=score)(numerator).broadcast_to(score.shape)
    weight = torch.where(live, weight, 0.0)
    total, count = weight.sum(-1, keepdim=True), live.sum(-1, keepdim=True)
    p = weight
    if denominator is not None:
        divisor = _evaluator(bound, total=total, count=count)(denominator).broadcast_to(total.shape)
        divides = (divisor != 0) & (count > 0)
        p = torch.where(divides, weight / torch.where(divides, divisor, 1.0), 0.0)
    return Weights(p, None, total.squeeze(-1), count.squeeze(-1), None)


def _outputs(weights: Weights, score: Tensor) -> dict[str, Tensor]:
    outputs = {"row_max": _row_max(score), "key_mass": weights.p.sum(2)}
    if weights.lse is not None:
        outputs |= {"lse": weights.lse, "entropy": _entropy(weights)}
    if weights.total is not None and weights.count is not None:
        outputs |= {"total": weights.total, "count": weights.count}
    return outputs


def _row_max(score: Tensor) -> Tensor:
    return torch.nn.functional.pad(score, (0, 1), value=-torch.inf).amax(-1)


def _entropy(weights: Weights) -> Tensor:
    p = weights.p
    if weights.sinks is not None:
        assert weights.lse is not None
        # A row whose sinks are all -inf has no distribution, and -inf minus -inf no value.
        lse = torch.where(weights.lse == -torch.inf, 0.0, weights.lse)
        p = torch.cat([p, torch.exp(weights.sinks - lse[..., None])], dim=-1)
    return -(p * torch.where(p > 0, p, 1.0).log()).sum(-1)
