"""Text → syntax tree: spans, recovery, and where one statement ends and the next begins."""

from __future__ import annotations

import pytest

from attncc.errors import SpecError
from attncc.grammar import syntax
from attncc.grammar.parser import parse, recover
from attncc.grammar.report import Report
from attncc.source import Source


def mask_of(text: str) -> syntax.Expression:
    (statement,) = parse(Source("t", f"attention a mask {text}")).attentions[0].statements
    assert isinstance(statement, syntax.Mask)
    return statement.value


SPANS: list[tuple[str, str]] = [
    ("q  >=   k", "q  >=   k"),
    ("(q > k)", "(q > k)"),
    ("  t[ b, k ] # rest", "t[ b, k ]"),
    ("f( a = 1 )  ", "f( a = 1 )"),
    ("-  q", "-  q"),
    ("x if\n   c\n else y\n\n", "x if\n   c\n else y"),
    ("q.y", "q.y"),
]


@pytest.mark.parametrize(("text", "covered"), SPANS, ids=[t for t, _ in SPANS])
def test_span_covers_the_whole_expression(text: str, covered: str) -> None:
    assert mask_of(text).span.text == covered


def test_span_of_an_operator() -> None:
    node = mask_of("(q + 1) *  (k - 2)")
    assert isinstance(node, syntax.Binary)
    assert (node.operator_span.text, node.operator_span.column) == ("*", 26)
    assert (node.left.span.text, node.right.span.text) == ("(q + 1)", "(k - 2)")


def test_blocks_own_what_follows() -> None:
    defs = 'def f(a) = a require f(1) > 0, "one" require 2 > 1, "two"'
    file = parse(Source("t", f'use "x.attn" {defs} attention a mask q > k score s attention b'))
    assert [u.path.text for u in file.uses] == ["x.attn"]
    assert [[r.message.text for r in d.requires] for d in file.defs] == [["one", "two"]]
    assert [(a.name.text, len(a.statements)) for a in file.attentions] == [("a", 2), ("b", 0)]


RECOVERY: list[tuple[str, list[str], int]] = [
    ("mask q = k  mask q > k  mask )  score s", ["Broken", "Mask", "Broken", "Score"], 2),
    ("param w int  input t[heads]  mask q > k", ["Broken", "Broken", "Mask"], 2),
    ("mask q > k\n maks q < k\n score s", ["Mask", "Mask", "Score"], 1),
    ("mask q > k\n nonsense 1 2 3\n score s", ["Mask", "Score"], 1),
    ("mask q > scale  score s", ["Broken", "Score"], 1),
    ("mask (q > k\n score s", ["Broken", "Score"], 1),
    ("mask q ; k\n score s", ["Broken", "Score"], 1),
]


@pytest.mark.parametrize(("text", "kinds", "errors"), RECOVERY, ids=[t for t, *_ in RECOVERY])
def test_recovery_resumes_at_the_next_head(text: str, kinds: list[str], errors: int) -> None:
    source = Source("t", f"attention a {text}")
    report = Report(source)
    (block,) = recover(source, report).attentions
    assert [type(s).__name__ for s in block.statements] == kinds
    assert len(report.errors) == errors


def test_broken_declarations_keep_their_name() -> None:
    source = Source("t", "attention a param w int  extent = mask")
    (block,) = recover(source, Report(source)).attentions
    assert [(s.head, s.name) for s in block.statements if isinstance(s, syntax.Broken)][:1] == [("param", "w")]


def test_parse_raises_all_errors() -> None:
    with pytest.raises(SpecError) as caught:
        parse(Source("t", "attention a mask q = k\nscore )\nparam\n"))
    assert [d.span.line for d in caught.value.diagnostics if d.span] == [1, 2, 3]
