"""Inputs made up for a spec fit its declarations and decide something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attncc.errors import ArgumentError
from attncc.grammar.frontend import load_specs, loads_specs
from attncc.ir.spec import Spec
from attncc.runtime.sampling import Problem, sample_inputs

EXAMPLES = Path(__file__).parents[2] / "examples"
PROBLEM = Problem(queries=60, keys=100, batch=2, heads=4, kv_heads=2)


def spec_of(*lines: str) -> Spec:
    [spec] = loads_specs("\n  ".join(["attention a", *lines]) + "\n").specs.values()
    return spec


def sample(*lines: str, problem: Problem = PROBLEM) -> np.ndarray:
    [array] = sample_inputs(spec_of(*lines), problem).values()
    return array


@pytest.mark.parametrize(
    ("declared", "shape", "kind"),
    [
        ("input t: float[heads, 2*keys-1]", (4, 199), "f"),
        ("input t: int[batch, keys]", (2, 100), "i"),
        ("input t: bool[batch, heads, queries, keys]", (2, 4, 60, 100), "b"),
        ("input t: float[kv_heads]", (2,), "f"),
    ],
)
def test_shapes_and_types(declared: str, shape: tuple[int, ...], kind: str) -> None:
    array = sample(declared)
    assert (array.shape, array.dtype.kind) == (shape, kind)


@pytest.mark.parametrize(
    ("lines", "low", "high"),
    [
        (("input t: int[keys] in 3 .. 9",), 3, 9),
        (("input t: int[keys] in -2 .. heads",), -2, 4),
        (("param w: int = 5", "input t: int[keys] in 0 .. w"), 0, 5),
        (("input t: int[keys] in 4 .. 4",), 4, 5),
        (("input t: int[batch]", "mask k < t[b]"), 0, 100),
        (("input t: int[batch, heads]", "mask t[b, h] >= k // 10"), 0, 10),
        (("input t: int[keys]", "mask t[k] == q // 20"), 0, 3),
        (("input t: int[keys]",), 0, 8),
        (("input t: int[keys]", "mask t[k] == t[q]"), 0, 8),
    ],
)
def test_ranges(lines: tuple[str, ...], low: int, high: int) -> None:
    arrays = [sample_inputs(spec_of(*lines), PROBLEM, seed=seed)["t"] for seed in range(20)]
    found = np.concatenate([a.ravel() for a in arrays])
    assert found.min() >= low
    assert found.max() < high
    assert found.max() > low or high == low + 1


@pytest.mark.parametrize(
    "declared",
    [
        "input t: int[batch, keys] sorted along keys",
        "input t: float[keys, batch] sorted along keys",
        "input t: int[batch, keys] in 0 .. 5 sorted along keys",
    ],
)
def test_what_is_declared_sorted_is(declared: str) -> None:
    array = sample(declared)
    axis = array.shape.index(100)
    assert (np.diff(array, axis=axis) >= 0).all()
    assert array.min() < array.max()


def test_bools_are_of_both_kinds() -> None:
    array = sample("input t: bool[batch, keys]")
    assert 0.02 < array.mean() < 0.3


def test_tables_list_blocks_that_exist() -> None:
    array = sample("extent top", "blocks t: int[batch, heads, query_blocks, top] size 16, 32")
    assert array.shape == (2, 4, 4, 4)
    assert (array.min(), array.max()) == (-1, 3)


def test_the_seed_decides() -> None:
    spec = spec_of("input t: float[keys]")
    first, again, other = (sample_inputs(spec, PROBLEM, seed=s)["t"] for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("input t: float[keys - 200]",), r"the extents \[keys - 200\] of 't' come to \[-100\] here"),
        (("input t: float[keys * keys, keys * keys * keys]",), "too large to be made up"),
        (("param n: int", "input t: float[n]"), "'n'"),
    ],
)
def test_what_cannot_be_made_up(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        sample(*lines)


def test_a_given_value_replaces_a_default() -> None:
    problem = Problem(queries=8, keys=8, scalars={"n": 3})
    assert sample("param n: int = 5", "input t: float[n]", problem=problem).shape == (3,)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.attn")), ids=lambda p: p.stem)
def test_every_example_can_be_sampled(path: Path) -> None:
    for spec in load_specs(path).specs.values():
        assert set(sample_inputs(spec, PROBLEM)) == {i.name for i in spec.inputs}
