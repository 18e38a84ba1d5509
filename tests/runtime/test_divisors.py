"""Rule 2: a divisor made of scalars is checked before launch; any other gives 0 where it is zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attncc
from attncc.errors import ArgumentError

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("param n: int\n  mask q % n == 0", {"n": 0}, "`q % n` divides by zero with n = 0"),
    ("const n: int = 3\n  mask k // n == 0", {"n": 0}, "`k // n` divides by zero with n = 0"),
    ("mask q % (keys - 8) == 0", {}, "`q % (keys - 8)` divides by zero with keys = 8"),
    ("param n: int\n  score s + q // (n + 2)", {"n": -2}, "`q // (n + 2)` divides by zero with n = -2"),
    ("param n: int\n  weights softmax with h % n", {"n": 0}, "`h % n` divides by zero with n = 0"),
    ("param n: int\n  reweight p * (q % n)", {"n": 0}, "`q % n` divides by zero with n = 0"),
    ('param n: int\n  require n > 0, "n is positive"\n  mask q % n == 0', {"n": 0}, "n is positive"),
]


@pytest.mark.parametrize(("body", "values", "message"), REFUSED, ids=[body for body, _, _ in REFUSED])
def test_a_scalar_divisor_of_zero_is_refused(body: str, values: dict[str, Any], message: str) -> None:
    attention = attncc.loads(f"attention a\n  {body}")
    query = torch.zeros(1, 2, 8, 4)
    for call in (attention, attention.reference):
        with pytest.raises(ArgumentError) as caught:
            call(query, query, query, **values)
        assert str(caught.value).splitlines()[0] == message
    with pytest.raises(ArgumentError, match=r"zero|positive"):
        attention.plan(queries=8, heads=2, **values)


def test_a_divisor_that_varies_gives_zero() -> None:
    attention = attncc.loads("attention a\n  mask k // (q - 3) == 0")
    query = torch.randn(1, 1, 8, 4)
    live = torch.tensor([[(k // (q - 3) if q != 3 else 0) == 0 for k in range(8)] for q in range(8)])
    wanted = torch.nn.functional.scaled_dot_product_attention(query, query, query, attn_mask=live)
    torch.testing.assert_close(attention.reference(query, query, query), wanted)


def test_nothing_is_divided_where_there_are_no_keys() -> None:
    attention = attncc.loads("attention a\n  mask q % keys == k")
    query, key = torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 0, 4)
    assert attention.reference(query, key, key).shape == query.shape
