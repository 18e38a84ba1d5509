"""The error rule is what it says, and `compare` finds what is wrong with a backend."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import attncc
from attncc.runtime.verification import Comparison, allowed_error, compare, same_dtype

TEXT = "attention a\n  input slopes: float[heads] learnable\n  mask k <= q\n  score s - slopes[h] * (q - k)\n"


def operands(dtype: torch.dtype = torch.float32, length: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 2, length, 8, generator=generator).to(dtype) for _ in range(3)]


def test_the_rule() -> None:
    reference = torch.tensor([1.0, 2.0, -math.inf], dtype=torch.float64)
    plain = torch.tensor([1.0, 2.25, -math.inf], dtype=torch.float32)
    stored = torch.tensor([1.0, 2.0])
    wobble = (stored + 0.3 - 0.3 - stored).abs().max().item()
    assert allowed_error(reference, plain) == 2 * 0.25 + 2 * wobble


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_rule_is_one_for_every_dtype(dtype: torch.dtype) -> None:
    reference = torch.tensor([1.0], dtype=torch.float64)
    wobble = abs((torch.ones(1, dtype=dtype) + 0.3 - 0.3).item() - 1.0)
    assert allowed_error(reference, torch.tensor([1.5], dtype=dtype)) == 2 * 0.5 + 2 * wobble


@pytest.mark.parametrize(
    ("error", "finite", "is_met"), [(1.0, True, True), (1.1, True, False), (0.0, False, False), (math.nan, True, False)]
)
def test_a_comparison(error: float, finite: bool, is_met: bool) -> None:
    assert Comparison("out", error, 1.0, finite).is_met is is_met


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_same_dtype_rounds_as_plain_torch_does(dtype: torch.dtype) -> None:
    attn = attncc.loads("attention a\n  mask k <= q\n")
    query, key, value = operands(dtype, length=64)
    reference = attn.reference(query.double(), key.double(), value.double())
    masked = torch.ones(64, 64, dtype=torch.bool).tril()
    score = (query @ key.mT / math.sqrt(8)).masked_fill(~masked, -math.inf)
    eager = (score.softmax(-1) @ value).double()
    plain = same_dtype(attn, query, key, value)
    assert plain.dtype == dtype
    theirs, ours = ((t.double() - reference).abs().max() for t in (eager, plain))
    assert 0 < ours < 8 * theirs
    assert ours > theirs / 8


def test_same_dtype_differentiates_in_that_dtype() -> None:
    attn = attncc.loads(TEXT)
    query, key, value = (t.requires_grad_() for t in operands(torch.bfloat16))
    slopes = torch.rand(2, requires_grad=True)
    same_dtype(attn, query, key, value, slopes=slopes).sum().backward()
    exact = [t.detach().double().requires_grad_() for t in (query, key, value, slopes)]
    attn.reference(*exact[:3], slopes=exact[3]).sum().backward()
    for ours, theirs in zip((query, key, value, slopes), exact, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=0.2, rtol=0.1)
        assert not torch.equal(ours.grad.double(), theirs.grad)


class Backend:
    """An attention whose backend has `fault` in it."""

    def __init__(self, fault: Any) -> None:
        self._attention = attncc.loads(TEXT)
        self.reference = self._attention.reference
        self._fault = fault

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *, backend: str, **rest: Any) -> Any:
        return self._fault(self._attention(query, key, value, backend="oracle", **rest))


def wrong_value(result: Any) -> Any:
    return result._replace(out=result.out * 1.01)


def wrong_gradient(result: Any) -> Any:
    return result._replace(out=result.out.detach() + 1.01 * (result.out - result.out.detach()))


def not_a_number(result: Any) -> Any:
    poison = torch.zeros_like(result.lse)
    poison[0, 0, 0] = math.nan
    return result._replace(lse=result.lse + poison)


@pytest.mark.parametrize(
    ("fault", "missed"),
    [
        (lambda result: result, set()),
        (wrong_value, {"out", "dquery", "dkey", "dvalue", "dslopes"}),
        (wrong_gradient, {"dquery", "dkey", "dvalue", "dslopes"}),
        (not_a_number, {"lse"}),
    ],
)
def test_what_compare_finds(fault: Any, missed: set[str]) -> None:
    slopes = torch.rand(2).requires_grad_()
    query, key, value = operands()
    found = compare(Backend(fault), query, key, value, {"slopes": slopes}, backend="any", return_lse=True)
    assert [c.name for c in found] == ["out", "lse", "dquery", "dkey", "dvalue", "dslopes"]
    # A poisoned lse poisons gradients too; the least is that it is seen itself.
    assert missed <= {c.name for c in found if not c.is_met}
    if not missed or "lse" not in missed:
        assert {c.name for c in found if not c.is_met} == missed
