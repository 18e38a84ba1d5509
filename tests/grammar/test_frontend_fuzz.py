"""Whatever bytes come in, a spec or a diagnostic comes out: never another exception, never one without a place."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attncc.errors import SpecError
from attncc.grammar.builtins import BUILTINS, HEADS, OPERATOR_WORDS
from attncc.grammar.frontend import load_specs, loads_specs
from attncc.source import Source

EXAMPLES = [p.read_text() for p in sorted((Path(__file__).parents[2] / "examples").glob("*.attn"))]
MALFORMED = [p.read_bytes().decode() for p in sorted((Path(__file__).parent / "malformed").glob("*.txt"))]
WORDS = sorted(
    {*HEADS, *OPERATOR_WORDS, *BUILTINS, "learnable", "sorted", "along", "in", "size", "over", "with", "softmax"}
)
SIGNS = "== != <= >= << >> < > = // ** .. + - * / % | ^ & ~ ( ) [ ] , : . ! ; ? \" ' { } @".split()  # noqa: SIM905
NUMBERS = ("0", "7", "2.5", "1e9", "9" * 25)
PIECES = [*WORDS, *SIGNS, *NUMBERS, "x", "t", "causal", "neighborhood", '"text"', "\n", "\n  "]
TOKENS = re.compile(r"\w+|\s+|.", re.DOTALL)
CALM = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def nothing(path: str) -> Source:
    raise FileNotFoundError(errno.ENOENT, "no such file", path)


def survives(text: str) -> None:
    error = error_of(lambda: loads_specs(text, "fuzz.attn", nothing))
    if error is not None:
        assert error.diagnostics
        assert str(error)
        for diagnostic in error.diagnostics:
            assert diagnostic.span is not None or diagnostic.message.endswith("not shown")


def error_of(load: Callable[[], object]) -> SpecError | None:
    try:
        load()
    except SpecError as error:
        return error
    return None


@CALM
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    survives(text)


@settings(CALM, max_examples=60)
@given(data=st.binary(max_size=200))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.attn"
    path.write_bytes(b"attention a\n mask q" + data)
    error = error_of(lambda: load_specs(path))
    assert error is None or error.diagnostics


@CALM
@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_soup_of_tokens(pieces: list[str]) -> None:
    survives("attention a\n" + " ".join(pieces))


@CALM
@given(st.sampled_from(HEADS), st.lists(st.sampled_from(PIECES), max_size=12), st.sampled_from(EXAMPLES))
def test_soup_in_one_statement_of_a_good_spec(head: str, pieces: list[str], example: str) -> None:
    survives(f"{example}\n  {head} {' '.join(pieces)}\n  mask q > k\n")


@CALM
@given(st.data())
def test_good_specs_with_tokens_moved_lost_and_changed(data: st.DataObject) -> None:
    tokens = TOKENS.findall(data.draw(st.sampled_from([*EXAMPLES, *MALFORMED]))[:3000])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(tokens) - 1)))
        match data.draw(st.sampled_from(("lose", "change", "double", "swap"))):
            case "lose":
                del tokens[at : at + 1]
            case "change":
                tokens[at : at + 1] = [data.draw(st.sampled_from(PIECES))]
            case "double":
                tokens[at:at] = tokens[at : at + 1]
            case _:
                other = data.draw(st.integers(0, max(0, len(tokens) - 1)))
                if tokens:
                    tokens[at], tokens[other] = tokens[other], tokens[at]
    survives("".join(tokens))


DEEP = [
    ("brackets", "mask " + "(" * 5000 + "q" + ")" * 5000),
    ("open brackets", "mask " + "(" * 5000),
    ("indices", "mask t" + "[" * 300),
    ("signs", "mask " + "-" * 5000 + "q > 3"),
    ("nots", "mask " + "not " * 5000 + "true"),
    ("powers", "mask " + "2 ** " * 3000 + "2 > 3"),
    ("choices", "mask " + "true if true else " * 3000 + "true"),
    ("attributes", "mask q" + ".y" * 5000 + " > 0"),
    ("calls", "mask " + "abs(" * 99 + "q" + ")" * 99 + " > 3"),
    ("calls of calls", "mask q" + "()" * 5000),
    ("a comparison", "mask " + "q < " * 5000 + "3"),
    ("a reweighted product", "reweight " + "2.0 * " * 3000 + "p"),
    ("a reweighted tower", "reweight " + "-" * 3000 + "p"),
    ("a number", "mask q > " + "9" * 100_000),
    ("a hexadecimal number", "mask q > 0x" + "f" * 100_000),
    ("a fraction", "mask q > 0." + "9" * 100_000),
    ("a name", "mask q > " + "x" * 100_000),
    ("a string", 'require keys > 3, "' + "x" * 100_000 + '"'),
]


@pytest.mark.parametrize("statement", [s for _, s in DEEP], ids=[n for n, _ in DEEP])
def test_depth_and_length(statement: str) -> None:
    survives(f"attention a\n  {statement}\n")


@pytest.mark.parametrize("statement", [s for _, s in DEEP], ids=[n for n, _ in DEEP])
def test_depth_in_a_def(statement: str) -> None:
    survives(f"def f(t) = {statement.split(' ', 1)[1]}\nattention a\n  mask f(q)\n")


def test_depth_with_little_stack_left() -> None:
    text = "attention a\n  mask " + "abs(" * 99 + "q" + ")" * 99 + " > 3\n"

    def descend(levels: int) -> None:
        if levels:
            descend(levels - 1)
        else:
            survives(text)

    descend(sys.getrecursionlimit() // 3)


def test_chains_may_be_long() -> None:
    terms = " or ".join(f"q == {i}" for i in range(390))
    (spec,) = loads_specs(f"attention a\n  mask {terms}\n").specs.values()
    assert len(spec.masks) == 1


TOWER_OF_DEFS = "".join(f"def f{i}(x) = f{i - 1}(f{i - 1}(x))\n" for i in range(1, 40))
TOWER_OF_LETS = "".join(f" let x{i} = x{i - 1} * x{i - 1}\n" for i in range(1, 5000))
BOMBS = [
    "def f0(x) = x * x\n" + TOWER_OF_DEFS + "attention a\n mask f39(q) > 0",
    "attention a\n let x0 = q\n" + TOWER_OF_LETS + " mask x4999 > 0",
    "attention a\n const n: int = " + " ** ".join(["9"] * 60),
    "attention a\n const n: int = " + "((2 ** 62) * 2) ** 2",
    "attention a\n const n: int = 1 << 2 ** 62",
    "attention a\n mask " + " ".join(["q >"] * 3000) + " 1",
    "attention a\n mask )" * 2000,
    "\n".join(f"attention a{i}" for i in range(3000)),
]


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_what_grows_is_bounded(text: str) -> None:
    survives(text)


def test_many_errors_are_counted() -> None:
    with pytest.raises(SpecError) as caught:
        loads_specs("attention a\n" + "  mask q = k\n" * 150)
    assert len(caught.value.diagnostics) == 101
    assert "50 more errors are not shown" in str(caught.value)
