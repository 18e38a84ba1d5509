"""What makes another kernel, and what does not: params and lengths never, constants and types do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attncc
from attncc.runtime.backends import options_of
from attncc.runtime.launch import Arguments, Bound, bind
from attncc.runtime.signature import collect, signature_of

TEXT = """\
attention a
  const block: int = 4
  param window: int = 8
  param gain: float = 1.0
  input slopes: float[heads]
  mask abs(q - k) <= window and q % block <= k
  score s - slopes[h] * gain
"""


def bound(values: dict[str, Any], shape: tuple[int, ...] = (1, 2, 6, 8), q_offset: int = 0) -> Bound:
    spec = attncc.loads(TEXT).spec
    signature = signature_of(spec)
    tensors, ints, floats = collect(signature, {"slopes": torch.zeros(shape[1])} | values)
    query: Tensor = torch.zeros(shape)
    return bind(spec, signature, Arguments(query, query, query, tensors, ints, floats, q_offset))


def specialised(call: Bound) -> tuple[Any, ...]:
    return call.constants, options_of(call)


@pytest.mark.parametrize(
    "call",
    [
        bound({"window": 1}),
        bound({"window": 1024, "gain": 0.5}),
        bound({}, shape=(3, 4, 129, 8)),
        bound({}, q_offset=77),
    ],
    ids=["window 1", "window and gain", "lengths, batch and heads", "offset"],
)
def test_serves_with_the_same_kernel(call: Bound) -> None:
    assert specialised(call) == specialised(bound({}))


@pytest.mark.parametrize(
    "call",
    [
        bound({"block": 8}),
        bound({"slopes": torch.zeros(2, dtype=torch.float16)}),
        bound({}, shape=(1, 2, 6, 16)),
    ],
    ids=["a constant", "the type of an input", "the head dimension"],
)
def test_needs_another_kernel(call: Bound) -> None:
    assert specialised(call) != specialised(bound({}))
