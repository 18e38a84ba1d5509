"""What `trace` refuses: the message, the characters of the Python at fault, and what to write instead."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from attncc.errors import SpecError
from attncc.grammar.trace import Const, Input, trace, trace_with_warnings

CAPTURED = torch.ones(3)


def branch(a):
    if a.q >= a.k:  # ^ a.q >= a.k
        a.mask(a.q == a.k)


def loop(a):
    while a.q > 3:  # ^ a.q > 3
        a.mask(a.q == a.k)


def chained(a):
    a.mask(0 <= a.q - a.k < 4)  # ^ 0 <= a.q - a.k < 4


def conjunction(a):
    a.mask(a.q >= a.k and a.q < 3)  # ^ a.q >= a.k and a.q < 3


def disjunction(a):
    a.mask(a.q >= a.k or a.q < 3)  # ^ a.q >= a.k or a.q < 3


def negation(a):
    a.mask(not a.q >= a.k)  # ^ not a.q >= a.k


def membership(a):
    a.mask(a.q in (1, 2))  # ^ a.q in (1, 2)


def conditional(a):
    a.score(a.s if a.q > a.k else 0.0)  # ^ a.q > a.k


def filtered(a):
    a.mask(any(x > 1 for x in (a.q, a.k) if x > 0))  # ^ x > 0


def minimum(a):
    a.mask(min(a.q, a.k) > 1)  # ^ min(a.q, a.k)


def every(a):
    a.mask(all([a.q > 1, a.k > 1]))  # ^ all([a.q > 1, a.k > 1])


def integer(a):
    a.mask(int(a.q / 2) > 1)  # ^ int(a.q / 2)


def floating(a):
    a.score(float(a.q))  # ^ float(a.q)


def counting(a):
    for i in range(a.q):  # ^ range(a.q)
        a.mask(a.k > i)


def positions(a):
    a.mask([True, False][a.q])  # ^ [True, False][a.q]


def length(a):
    a.mask(len(a.q) > 1)  # ^ len(a.q)


def iterated(a):
    for x in a.q:  # ^ a.q
        a.mask(x)


def rounded(a):
    a.mask(round(a.q / 2) > 1)  # ^ round(a.q / 2)


def looked_up(a):
    a.mask({1: True}[a.q])  # ^ {1: True}[a.q]


def mathematics(a):
    a.score(math.exp(a.s))  # ^ math.exp(a.s)


def misspelled(a):
    a.mask(a.quries > 3)  # ^ a.quries


def misspelled_statement(a):
    a.maks(a.k > 3)  # ^ a.maks


def misspelled_form(a):
    a.mask(a.cusal())  # ^ a.cusal


def method(a):
    a.score(a.s.exp())  # ^ a.s.exp


def text_mask(a):
    a.mask("k <= q")  # ^ a.mask("k <= q")


def nothing(a):
    a.mask(None)  # ^ a.mask(None)


def captured(a):
    a.score(a.s * CAPTURED)  # ^ a.s * CAPTURED


def captured_first(a):
    a.mask(a.q > "3")  # ^ a.q > "3"


def stale(a):
    t = a.tanh(a.s)
    a.score(a.s * 2)
    a.score(t)  # ^ a.score(t)


def assigned(a):
    a.window = 4  # ^ a.window


def whole(a, *, t: Input("float[heads]")):
    a.score(a.s + t)  # ^ a.s + t


def sliced(a, *, t: Input("float[heads, keys]")):
    a.score(a.s + t[a.h, :])  # ^ t[a.h, :]


def measured(a, *, t: Input("float[heads]")):
    a.mask(a.q < len(t))  # ^ len(t)


def many_indices(a, *, t: Input("float[heads]")):
    a.score(a.s + t[a.h, a.q])  # ^ t[a.h, a.q]


def float_index(a, *, t: Input("float[heads]")):
    a.score(a.s + t[a.q / 2])  # ^ a.q / 2


def float_bits(a):
    a.score((a.s & 3) + 1)  # ^ a.s


def int_mask(a):
    a.mask(a.q - a.k)  # ^ a.q - a.k


def bool_score(a):
    a.score(a.q > a.k)  # ^ a.q > a.k


def distant(a):
    d = a.q > a.k
    a.mask(d + 1 > 0)  # ^ d + 1


def score_in_mask(a):
    a.mask(a.s > 0)  # ^ a.s


def floor_of_float(a, *, w: float = 2.0):
    a.mask(a.q // w > 1)  # ^ a.q // w


def zero_divisor(a):
    a.mask(a.q % 0 == 1)  # ^ a.q % 0


def no_grid(a):
    a.mask(a.q.y > 1)  # ^ a.q.y


def unknown_output(a):
    a.output("lze")  # ^ a.output("lze")


def two_weights(a):
    a.weights(a.softmax())
    a.weights(a.sigmoid(a.s))  # ^ a.weights(a.sigmoid(a.s))


def total_in_score(a):
    a.score(a.total)  # ^ a.total


def unknown_extent(a, *, t: Input("float[headz]")):  # ^ headz
    a.score(a.s + t[a.h])


def broken_type(a, *, t: Input("float[heads")):  # ^ [
    a.score(a.s)


def two_statements(a, *, t: Input("float[heads] mask k <= q")):  # ^ t: Input("float[heads] mask k <= q")
    a.score(a.s)


def untyped(a, *, t: Input):  # ^ t: Input
    a.score(a.s)


def unannotated(a, *, w=3):  # ^ w
    a.mask(a.q < w)


def no_constant(a, *, n: Const):  # ^ n: Const
    a.mask(a.q < n)


def text_default(a, *, w: int = "3"):  # ^ w: int
    a.mask(a.q < w)


def float_default(a, *, w: int = 2.5):  # ^ w: int
    a.mask(a.q < w)


def taken(a, *, heads: int = 3):  # ^ heads
    a.mask(a.q < heads)


def reserved(a, *, mask: int = 3):  # ^ mask: int
    a.mask(a.q < mask)


def of_a_call(a, *, query: float = 3.0):  # ^ query
    a.score(a.s)


def unread(a, *, slopes: Input("float[heads]", learnable=True)):  # ^ slopes
    a.mask(slopes[a.h] > 0)


def function_of_torch(a):
    a.score(torch.exp(a.s))  # ^ torch.exp(a.s)


def choice_of_torch(a):
    a.score(torch.where(a.q > a.k, a.s, 0.0))  # ^ torch.where(a.q > a.k, a.s, 0.0)


def unknown_of_torch(a):
    a.score(torch.nn.functional.softplus(a.s))  # ^ torch.nn.functional.softplus(a.s)


def tensor_times_value(a):
    a.score(CAPTURED * a.s)  # ^ CAPTURED * a.s


REFUSED: list[tuple[Callable[..., Any], str, str | None]] = [
    (branch, "a Python `if` cannot branch on a traced value", "write `a.where(condition, x, y)`"),
    (loop, "a Python `while` cannot branch on a traced value", "write `a.where(condition, x, y)`"),
    (chained, "a chained comparison cannot be traced", "write `(x < y) & (y < z)`"),
    (conjunction, "Python's `and` cannot be traced", "write `x & y`"),
    (disjunction, "Python's `or` cannot be traced", "write `x | y`"),
    (negation, "Python's `not` cannot be traced", "write `~x`"),
    (membership, "Python's `in` cannot be traced", "write `(x == 1) | (x == 2)`"),
    (conditional, "a Python conditional cannot branch on a traced value", "write `a.where(condition, x, y)`"),
    (filtered, "a Python `if` cannot branch on a traced value", "write `a.where(condition, x, y)`"),
    (minimum, "Python's `min()` cannot be traced", "write `a.min(x, y)`"),
    (every, "Python's `all()` cannot be traced", "join the conditions with `&`"),
    (integer, "`int()` cannot be applied to a traced value", "write `a.floor(x)`"),
    (floating, "`float()` cannot be applied to a traced value", "leave it out"),
    (counting, "`range()` cannot count to a traced value", "loop over a Python int"),
    (positions, "a traced value is not a Python int", None),
    (length, "a traced value has no `len()`", None),
    (iterated, "a traced value cannot be iterated over", None),
    (rounded, "`round()` cannot be applied to a traced value", "write `a.floor(x + 0.5)`"),
    (looked_up, "a traced value cannot be looked up in a dict or set", "compare it with each"),
    (mathematics, "`math.exp()` cannot be traced", "write `a.exp(x)`"),
    (misspelled, "'a' has no 'quries'", "did you mean 'queries'?"),
    (misspelled_statement, "'a' has no 'maks'", "did you mean 'mask'?"),
    (misspelled_form, "'a' has no 'cusal'", "did you mean 'causal'?"),
    (method, "a traced value has no attribute 'exp'", "write `a.exp(x)`"),
    (text_mask, "a str is no value of an attention: `'k <= q'`", None),
    (nothing, "a NoneType is no value of an attention", None),
    (captured, "a Tensor is no value of an attention", 'declare it as an argument: `name: attncc.Input("'),
    (captured_first, "a str is no value of an attention: `'3'`", None),
    (stale, "this was computed from a score that has been replaced since", "compute it again from `a.s`"),
    (assigned, "'a.window' cannot be set", "keep the value in a variable: `window = …`"),
    (whole, "'t' is a tensor; an expression reads one element of it", "index it, as in `t[a.h]`"),
    (sliced, "'t' is read one element at a time", "write an int for each axis"),
    (measured, "the length of 't' is not known while the function runs", "name it in the extents"),
    (many_indices, "'t' has 1 axis and is read with 2 indices", "its axes are [heads]"),
    (float_index, "an index wants an int, and this is a float", "write `a.floor(x)`"),
    (float_bits, "'&' wants an int, and this is a float", None),
    (int_mask, "a mask is a bool, and this is an int", "compare it, as in `x != 0`"),
    (bool_score, "a score is a float, and this is a bool", "a condition on pairs is a `mask`"),
    (distant, "'+' wants numbers, and this is a bool", "write `a.where(condition, 1, 0)` to count with it"),
    (score_in_mask, "'a.s' cannot stand in a mask", None),
    (floor_of_float, "'//' wants an int, and this is a float", "write `a.floor(x / y)`"),
    (zero_divisor, "this divisor is always zero", None),
    (no_grid, "'a.q.y' needs a grid, and none is declared", "add"),
    (unknown_output, "there is no output 'lze'", "did you mean 'lse'?"),
    (two_weights, "an attention has one 'weights'", None),
    (total_in_score, "'a.total' cannot stand in a score", None),
    (unknown_extent, "the extent 'headz' is not declared", "did you mean 'heads'?"),
    (broken_type, "this '[' is never closed", None),
    (two_statements, "`float[heads] mask k <= q` is not the type of an input", None),
    (untyped, "'t' has no type", 'write `t: attncc.Input("float[heads]")`'),
    (unannotated, "'w' is neither an input nor a param nor a constant", "write `w: int = 256` for a param"),
    (no_constant, "the constant 'n' has no value", "write `n: attncc.Const = 7`"),
    (text_default, "a default is an int, a float or a bool, not a str", None),
    (float_default, "this is a float, declared an int", None),
    (taken, "'heads' is built in and cannot be declared", "choose another name"),
    (reserved, "'mask' cannot be a name in a spec", "choose another name"),
    (of_a_call, "'query' is an argument of every call and cannot be declared", "choose another name"),
    (function_of_torch, "torch's `exp` cannot take a traced value", "write `a.exp(…)`"),
    (choice_of_torch, "torch's `where` cannot take a traced value", "write `a.where(…)`"),
    (unknown_of_torch, "torch's `softplus` cannot take a traced value", "keep to operators"),
    (tensor_times_value, "a Tensor is no value of an attention", "declare it as an argument"),
    (unread, "'slopes' is learnable, but no score, weights or reweight reads it", "remove `learnable`"),
]


@pytest.mark.parametrize(("function", "message", "hint"), REFUSED, ids=[f.__name__ for f, _, _ in REFUSED])
def test_a_refusal_names_the_line_and_what_to_write(
    function: Callable[..., Any], message: str, hint: str | None
) -> None:
    with pytest.raises(SpecError) as caught:
        trace(function)
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


def test_all_errors_are_reported_at_once() -> None:
    def wrong(a):
        a.mask(a.q)
        a.score(a.q > 1)
        a.output("nothing")

    with pytest.raises(SpecError) as caught:
        trace(wrong)
    lines = [d.span.line for d in caught.value.diagnostics if d.span is not None]
    assert lines == [lines[0], lines[0] + 1, lines[0] + 2]


def returned(a):
    return a.k <= a.q


def positional(a, w):
    a.mask(a.k < w)


def gathering(a, **rest):
    a.mask(a.k < 3)


def bare():
    pass


def unresolved(a, *, t: Missing):  # type: ignore[name-defined]  # noqa: F821
    a.mask(a.k < 3)


def größe(a):
    a.mask(a.k < 3)


@pytest.mark.parametrize(
    ("function", "message", "hint"),
    [
        (returned, "'returned' returns a value, and nothing uses it", "record it: `a.mask(...)`"),
        (positional, "'positional' takes one argument that records", "write `def positional(a, *, …)`"),
        (gathering, "'gathering' takes one argument that records", "write `def gathering(a, *, …)`"),
        (bare, "'bare' takes one argument that records", "write `def bare(a, *, …)`"),
        (unresolved, "an annotation cannot be resolved: name 'Missing' is not defined", "write types as"),
        (größe, "the name 'größe' is not ASCII", "use letters from a to z"),
    ],
)
def test_what_is_wrong_with_the_function_points_at_its_def(
    function: Callable[..., Any], message: str, hint: str
) -> None:
    with pytest.raises(SpecError) as caught:
        trace(function)
    (found,) = caught.value.diagnostics
    assert found.message.startswith(message)
    assert (found.hint or "").startswith(hint)
    assert found.span is not None
    assert found.span.text.startswith(f"def {function.__name__}(")


def test_a_lambda_has_no_name() -> None:
    with pytest.raises(SpecError) as caught:
        trace(lambda a: a.mask(a.q < a.k))
    (found,) = caught.value.diagnostics
    assert (found.message, found.hint) == ("'<lambda>' is not a name", "write it as a `def`, whose name the spec takes")
    assert found.span is not None
    assert found.span.text == "trace(lambda a: a.mask(a.q < a.k))"


def test_the_recorder_may_have_another_name() -> None:
    def spelled(it):
        it.mask(min(it.q, it.k) > 1)

    with pytest.raises(SpecError, match=r"write `it\.min\(x, y\)`"):
        trace(spelled)


def test_an_error_of_the_user_stays_theirs() -> None:
    def failing(a):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trace(failing)


def test_warnings_come_with_the_spec() -> None:
    def careless(a, *, window: int = 4):
        a.mask(a.k <= a.q)

    _, (warning,) = trace_with_warnings(careless)
    assert warning.message == "the param 'window' is never used"
    assert warning.span is not None
    assert warning.span.text == "window"
