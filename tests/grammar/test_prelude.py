"""The prelude's forms against the sentences that define them, over every pair of small problems."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from evaluation import evaluate

from attncc.grammar.frontend import loads_specs
from attncc.ir.expr import Coord, Expr, Load, Score, Size, postorder
from attncc.ir.spec import Spec

Pair = Callable[[int, int], bool]
LENGTH = 13


def spec_of(body: str) -> Spec:
    (spec,) = loads_specs(f"attention a\n{body}").specs.values()
    return spec


def leaves(expr: Expr, length: int) -> dict[Expr, Any]:
    q, k = np.meshgrid(np.arange(length), np.arange(length), indexing="ij")
    known: dict[str, Any] = {"q": q, "k": k, "b": np.zeros_like(q), "h": np.zeros_like(q)}
    found: dict[Expr, Any] = {}
    for node in postorder(expr):
        if isinstance(node, Coord):
            found[node] = known[node.name]
        elif isinstance(node, Size):
            found[node] = np.asarray(length)
    return found


def live(mask: str, length: int = LENGTH) -> np.ndarray[Any, Any]:
    expr = spec_of(f"  mask {mask}").masks[0].expr
    return np.broadcast_to(evaluate(expr, leaves(expr, length)), (length, length))


def pairs(wanted: Pair, length: int = LENGTH) -> np.ndarray[Any, Any]:
    return np.array([[wanted(i, j) for j in range(length)] for i in range(length)])


MASKS: list[tuple[str, Pair]] = [
    ("causal()", lambda i, j: j <= i),
    ("causal(i=q - 1)", lambda i, j: j <= i - 1),
    ("sliding(4)", lambda i, j: i - 4 < j <= i),
    ("sliding(4, k, q)", lambda i, j: j - 4 < i <= j),
    ("prefix(5)", lambda i, j: j < 5 or j <= i),
]


@pytest.mark.parametrize(("mask", "wanted"), MASKS, ids=[m for m, _ in MASKS])
def test_masks(mask: str, wanted: Pair) -> None:
    assert (live(mask) == pairs(wanted)).all()


def test_same_compares_an_input_at_both_positions() -> None:
    expr = spec_of("  input doc: int[batch, keys]\n  mask same(doc)").masks[0].expr
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3])
    values = leaves(expr, LENGTH)
    for node in postorder(expr):
        if isinstance(node, Load):
            values[node] = labels[values[node.index[1]]]
    assert (evaluate(expr, values) == (labels[:, None] == labels[None, :])).all()


def test_alibi_and_softcap_change_the_score() -> None:
    alibi = spec_of("  input slopes: float[heads] learnable\n  score alibi(slopes)").scores[0].expr
    values = leaves(alibi, LENGTH)
    values |= {n: np.asarray(0.25) for n in postorder(alibi) if isinstance(n, Load)}
    values[Score()] = np.asarray(2.0)
    distance = np.abs(np.arange(LENGTH)[:, None] - np.arange(LENGTH)[None, :])
    assert (evaluate(alibi, values) == 2.0 - 0.25 * distance).all()
    softcap = spec_of("  score softcap(5.0)").scores[0].expr
    scores = np.array([-100.0, -1.0, 0.0, 3.0, 100.0])
    assert np.allclose(evaluate(softcap, {Score(): scores}), 5 * np.tanh(scores / 5))


def neighbors(length: int, window: int, stride: int, dilation: int, causal: bool) -> Pair:
    """Neighborhood attention by walking: a query's group is listed, a leader chosen, its window taken from the list."""

    def attends(i: int, j: int) -> bool:
        group = [x for x in range(length) if x % dilation == i % dilation]
        if j not in group:
            return False
        position, last = group.index(i), len(group) - 1
        run = position // stride * stride
        if causal:
            leader = min(run + stride - 1, last)
            seen = [x for x in range(leader - window + 1, leader + 1) if 0 <= x <= position]
        else:
            leader = min(run + stride // 2, last)
            start = leader - window // 2
            start = max(start, 0)  # shifted inward at one edge …
            start = min(start, len(group) - window)  # … and at the other
            seen = list(range(start, start + window))
            assert len(seen) == window
        return group.index(j) in seen

    return attends


NEIGHBORHOODS = [
    (length, window, stride, dilation, causal)
    for length, window, dilation, causal in itertools.product((7, 12, 13), (1, 2, 3, 4, 6), (1, 2, 3), (False, True))
    for stride in range(1, window + 1)
    if window * dilation <= length
]


@pytest.mark.parametrize("causal", [False, True])
def test_neighborhood(causal: bool) -> None:
    """Hassani et al. 2023 with the stride of Hassani et al. 2025, for every small problem there is."""
    for length, window, stride, dilation, this in NEIGHBORHOODS:
        if this is not causal:
            continue
        text = f"neighborhood(q, k, keys, {window}, {stride}, dilation={dilation}, causal={str(causal).lower()})"
        wanted = pairs(neighbors(length, window, stride, dilation, causal), length)
        assert (live(text, length) == wanted).all(), f"length {length}: {text}"


def test_neighborhood_of_whole_window_is_blocked() -> None:
    assert (live("neighborhood(q, k, keys, 4, stride=4)", 12) == pairs(lambda i, j: i // 4 == j // 4, 12)).all()
