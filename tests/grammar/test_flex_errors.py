"""What `trace_flex` refuses: the message, the line and columns of the Python at fault, and what to write instead."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from attncc.errors import SpecError
from attncc.grammar.flex import trace_flex

DOCS = torch.arange(6)
TABLE = torch.randn(3, 5)
WEIGHT = nn.Parameter(torch.randn(3))


def branch(b, h, q, k):
    if q >= k:  # ^ q >= k
        return q == k
    return q != k


def chained(b, h, q, k):
    return q - 3 <= k <= q  # ^ q - 3 <= k <= q


def conjunction(b, h, q, k):
    return (q >= k) and (q < 3)  # ^ (q >= k) and (q < 3)


def disjunction(b, h, q, k):
    return (q >= k) or (q < 3)  # ^ (q >= k) or (q < 3)


def negation(b, h, q, k):
    return not (q >= k)  # ^ not (q >= k)


def membership(b, h, q, k):
    return q in (1, 2)  # ^ q in (1, 2)


def set_membership(b, h, q, k):
    return q in {1, 2}  # ^ q in {1, 2}


def conditional(b, h, q, k):
    return q if q > k else k  # ^ q > k


def builtin_minimum(b, h, q, k):
    return min(q, k) > 1  # ^ min(q, k)


def mathematics(b, h, q, k):
    return math.exp(q) > 1  # ^ math.exp(q)


def integer(b, h, q, k):
    return int(q) > 1  # ^ int(q)


def counting(b, h, q, k):
    return torch.stack([q == i for i in range(k)])  # ^ range(k)


def item(b, h, q, k):
    return q.item() > 1  # ^ q.item()


def sliced(b, h, q, k):
    return DOCS[q:] == k  # ^ DOCS[q:]


def ellipsis(b, h, q, k):
    return TABLE[..., q] > 0  # ^ TABLE[..., q]


def new_axis(b, h, q, k):
    return TABLE[None, h, q] > 0  # ^ TABLE[None, h, q]


def whole(b, h, q, k):
    return k - DOCS > 0  # ^ k - DOCS


def row_of_table(b, h, q, k):
    return TABLE[h] > 0  # ^ TABLE[h] > 0


def many_indices(b, h, q, k):
    return DOCS[q, k] > 0  # ^ DOCS[q, k]


def out_of_range(b, h, q, k):
    return q - DOCS[6] > 0  # ^ DOCS[6]


def float_index(b, h, q, k):
    return DOCS[q / 2] == 1  # ^ DOCS[q / 2]


def bool_index(b, h, q, k):
    return DOCS[q > 2] == 1  # ^ DOCS[q > 2]


def unknown(b, h, q, k):
    return torch.cumsum(q, 0) > k  # ^ torch.cumsum(q, 0)


def misspelled(b, h, q, k):
    return q.logical_xnor(k)


def remainder(b, h, q, k):
    return torch.fmod(q, 2) == 0  # ^ torch.fmod(q, 2)


def rounded(b, h, q, k):
    return torch.round(q / 2) == k  # ^ torch.round(q / 2)


def computed(b, h, q, k):
    return (DOCS * 2)[q] == k  # ^ (DOCS * 2)[q]


def written(b, h, q, k):
    DOCS[q] = k  # ^ DOCS[q]
    return q == k


def number(b, h, q, k):
    return q + k  # ^ q + k


def constant(b, h, q, k):
    return True


def nothing(b, h, q, k):
    _ = q == k


def trained(b, h, q, k):
    return WEIGHT[h] > 0  # ^ WEIGHT[h]


def exponent(b, h, q, k):
    return q**k > 3  # ^ q**k


def narrowed(b, h, q, k):
    return q.to(torch.int8) > 3  # ^ q.to(torch.int8)


def mixed_and(b, h, q, k):
    return torch.where(q, k, 1) > 0  # ^ torch.where(q, k, 1)


REFUSED = [
    (branch, "a Python `if` cannot branch on a traced value", "write `torch.where(condition, x, y)`"),
    (chained, "a chained comparison cannot be traced", "write `(x < y) & (y < z)`"),
    (conjunction, "Python's `and` cannot be traced", "write `x & y`"),
    (disjunction, "Python's `or` cannot be traced", "write `x | y`"),
    (negation, "Python's `not` cannot be traced", "write `~x`"),
    (membership, "Python's `in` cannot be traced", "write `(x == 1) | (x == 2)`"),
    (set_membership, "a traced value cannot be looked up in a dict or set", "compare it with each"),
    (conditional, "a Python conditional cannot branch on a traced value", "write `torch.where(condition, x, y)`"),
    (builtin_minimum, "Python's `min()` cannot be traced", "write `torch.minimum(x, y)`"),
    (mathematics, "`math.exp()` cannot be traced", "write `torch.exp(x)`"),
    (integer, "`int()` cannot be applied to a traced value", "write `torch.floor(x)`"),
    (counting, "`range()` cannot count to a traced value", "loop over a Python int"),
    (item, "`.item()` needs a number, and a traced value has none yet", "keep to arithmetic"),
    (sliced, "a captured tensor cannot be indexed with a slice here", "give one int for each axis"),
    (ellipsis, "a captured tensor cannot be indexed with an ellipsis here", "give one int for each axis"),
    (new_axis, "a captured tensor cannot be indexed with None here", "give one int for each axis"),
    (whole, "the captured tensor 'DOCS' of shape [6] is used whole", "index it: `DOCS[q_idx]`"),
    (row_of_table, "'TABLE' is used with 1 of its 2 axes not indexed", "give 1 more index"),
    (many_indices, "2 indices for 'DOCS', which has 1 axis", None),
    (out_of_range, "index 6 is out of range for axis 0 of 'DOCS', which is 6 long", None),
    (float_index, "'DOCS' is indexed with a float", "write `.to(torch.int64)`"),
    (bool_index, "'DOCS' is indexed with a bool", "use torch.where"),
    (unknown, "'cumsum' of torch cannot be traced", None),
    (remainder, "torch.fmod keeps the dividend's sign", "write `x % y`"),
    (rounded, "torch.round rounds halves to even", "write `torch.floor(x + 0.5)`"),
    (computed, "this tensor is computed from a captured one inside the function", "compute it outside"),
    (written, "a mod cannot write into a tensor", "use torch.where"),
    (number, "a mask_mod returns a bool, and this is an int", "compare it: `x != 0`"),
    (trained, "'WEIGHT' requires grad, but only decides a mask", "detach it outside the function"),
    (exponent, "an int to the power of an int wants a literal exponent", "write `x ** 2.0`"),
    (narrowed, "a conversion to torch.int8 would wrap around", "leave the conversion out"),
    (mixed_and, "a choice is made by a bool, not by an int", None),
]


@pytest.mark.parametrize(("mod", "message", "hint"), REFUSED, ids=[m.__name__ for m, _, _ in REFUSED])
def test_a_refusal_names_the_line_and_what_to_write(mod: Callable[..., Any], message: str, hint: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        trace_flex(mask_mod=mod)
    (found,) = caught.value.diagnostics
    assert found.message.startswith(message)
    assert (found.hint or "").startswith(hint or "")
    assert found.span is not None
    assert found.span.source.name == __file__
    line = found.span.source.line_text(found.span.line)
    _, _, wanted = line.partition("# ^ ")
    assert wanted, f"points at {line!r}"
    if sys.version_info >= (3, 11):
        assert found.span.text == wanted


@pytest.mark.parametrize(
    ("mod", "message"),
    [
        (constant, "'constant' returned the constant True, not a value computed from its arguments"),
        (nothing, "'nothing' returned nothing, not a value computed from its arguments"),
    ],
)
def test_a_result_that_was_not_computed_points_at_the_function(mod: Callable[..., Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        trace_flex(mask_mod=mod)
    (found,) = caught.value.diagnostics
    assert found.message == message
    assert found.span is not None
    assert found.span.text.startswith(f"def {mod.__name__}")


def test_a_bool_score_belongs_into_mask_mod() -> None:
    with pytest.raises(SpecError, match="a score_mod returns a number, and this is a bool"):
        trace_flex(score_mod=lambda score, b, h, q, k: q >= k)


def test_an_error_of_the_user_stays_theirs() -> None:
    with pytest.raises(AttributeError, match="logical_xnor"):
        trace_flex(mask_mod=misspelled)


def test_a_symbol_is_of_no_use_afterwards() -> None:
    kept = []

    def mod(b, h, q, k):
        kept.append(q)
        return q >= k

    trace_flex(mask_mod=mod)
    with pytest.raises(RuntimeError, match="used after its function had returned"):
        kept[0] + 1
