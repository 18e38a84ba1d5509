"""The one renderer: where the excerpt and its underline stand."""

from __future__ import annotations

import pytest

from attncc.errors import Diagnostic, Related, SpecError, did_you_mean, render
from attncc.source import Source, Span


def diagnostic(text: str, start: int, end: int, **more: object) -> str:
    return render([Diagnostic("wrong", Span(Source("f", text), start, end), **more)])  # type: ignore[arg-type]


CASES = [
    ("one word", "a bcd e", (2, 5), "a bcd e", "  ^^^"),
    ("nothing is one column", "abc", (1, 1), "abc", " ^"),
    ("the end of the line", "abc", (3, 3), "abc", "   ^"),
    ("several lines are underlined to the end of the first", "abc def\nghi", (4, 10), "abc def", "    ^^^"),
    ("a tab stays a tab", "\ta b", (3, 4), "\ta b", "\t  ^"),
    ("a wide character takes two columns", "中 b", (2, 3), "中 b", "   ^"),
    ("a wide character is underlined twice", "a中文", (1, 3), "a中文", " ^^^^"),
    ("a combining mark takes none", "e\u0301x y", (4, 5), "e\u0301x y", "   ^"),
    ("control characters do not reach the terminal", "a\x1b[2Jb", (5, 6), "a\N{REPLACEMENT CHARACTER}[2Jb", "     ^"),
]


@pytest.mark.parametrize(("text", "span", "line", "underline"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_underline(text: str, span: tuple[int, int], line: str, underline: str) -> None:
    assert diagnostic(text, *span).split("\n")[3:] == [f"1 | {line}", f"  | {underline}"]


def test_a_long_line_is_cut_around_the_span() -> None:
    text = "x" * 500 + "yyy" + "z" * 500
    line, underline = diagnostic(text, 500, 503).split("\n")[3:]
    assert len(line) < 180
    assert line.startswith("1 | …x")
    assert line.endswith("z…")
    at = underline.index("^")
    assert (line[at : at + 3], underline[at:]) == ("yyy", "^^^")


def test_everything_a_diagnostic_can_say() -> None:
    source = Source("f.attn", "\n" * 8 + "first\nsecond")
    first, second = Span(source, 8, 13), Span(source, 14, 20)
    text = render([Diagnostic("wrong", second, (Related(first, "because"),), "a fact", "a fix", "warning")])
    assert text == (
        "warning: wrong\n"
        "  --> f.attn:10:1\n"
        "   |\n"
        "10 | second\n"
        "   | ^^^^^^\n"
        "  --> f.attn:9:1\n"
        "   |\n"
        " 9 | first\n"
        "   | ----- because\n"
        "   = note: a fact\n"
        "   = hint: a fix"
    )


def test_no_place() -> None:
    assert render([Diagnostic("wrong")]) == "error: wrong"
    assert str(SpecError([Diagnostic("one"), Diagnostic("two")])) == "error: one\n\nerror: two"


@pytest.mark.parametrize(("name", "hint"), [("widnow", "did you mean 'window'?"), ("xyz", None), ("", None)])
def test_did_you_mean(name: str, hint: str | None) -> None:
    assert did_you_mean(name, ["window", "heads", "window"]) == hint
