"""Structured diagnostics, their one renderer, and the exceptions attncc raises."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from attncc.source import Span


@dataclass(frozen=True, slots=True)
class Related:
    """Another place that explains a diagnostic, with a few words of its own."""

    span: Span
    message: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing wrong with a spec: the smallest span, one sentence, facts and a fix.

    `note` states a fact the reader may not know; `hint` says what to do.
    `severity` is "error" or "warning"; a warning never stops a compilation.
    """

    message: str
    span: Span | None = None
    related: tuple[Related, ...] = ()
    note: str | None = None
    hint: str | None = None
    severity: str = "error"


class AttnccError(Exception):
    """Base of every exception raised on purpose by attncc."""


class SpecError(AttnccError):
    """A spec is wrong. Carries every diagnostic found, in source order; `str()` renders them."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__(render(self.diagnostics))


class UnsupportedError(SpecError, NotImplementedError):
    """The spec is right, but the stage asked for cannot do it yet."""


class ArgumentError(AttnccError, ValueError):
    """A call's arguments do not fit the spec; the message speaks in the caller's names."""


class BackendError(AttnccError, RuntimeError):
    """A backend cannot run here: no device, no compiler, no room on the target."""


class CacheError(AttnccError, RuntimeError):
    """The cache directory cannot be used safely."""


def assert_never(value: NoReturn) -> NoReturn:
    """Ends a `match` over a closed set: a type checker proves it unreachable. `typing` has one from Python 3.11."""
    raise AssertionError(f"unexpected {type(value).__name__}")


def render(diagnostics: Iterable[Diagnostic]) -> str:
    """The text shown to a person: one block for each diagnostic, a blank line between."""
    return "\n\n".join(_render_one(d) for d in diagnostics)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint naming the closest known name, or None where nothing is close."""
    close = difflib.get_close_matches(name, sorted(set(known)), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else None


def _render_one(d: Diagnostic) -> str:
    lines = [f"{d.severity}: {d.message}"]
    width = max((len(str(s.line)) for s in _spans(d)), default=1)
    if d.span is not None:
        lines += _excerpt(d.span, "^", "", width)
    for related in d.related:
        lines += _excerpt(related.span, "-", " " + related.message, width)
    pad = " " * (width + 1)
    if d.note:
        lines.append(f"{pad}= note: {d.note}")
    if d.hint:
        lines.append(f"{pad}= hint: {d.hint}")
    return "\n".join(lines)


def _spans(d: Diagnostic) -> list[Span]:
    return [s for s in (d.span, *(r.span for r in d.related)) if s is not None]


def _excerpt(span: Span, mark: str, label: str, width: int) -> list[str]:
    text = span.source.line_text(span.line)
    column = span.column - 1
    # A span over several lines is underlined to the end of its first line.
    length = max(1, min(span.end - span.start, len(text) - column))
    text, column, length = _window(text, column, length)
    lead = "".join("\t" if c == "\t" else " " * _cells(c) for c in text[:column])
    underline = mark * max(1, sum(map(_cells, text[column : column + length])))
    # Control characters would garble a terminal; a tab keeps the underline in place.
    shown = "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    pad = " " * width
    return [
        f"{pad}--> {span.location}",
        f"{pad} |",
        f"{span.line:>{width}} | {shown}".rstrip(),
        f"{pad} | {lead}{underline}{label}",
    ]


def _window(text: str, column: int, length: int) -> tuple[str, int, int]:
    """A long line cut to what stands around the span, with the span's place in the piece."""
    if len(text) <= _LONGEST_LINE:
        return text, column, length
    start = max(0, min(column - _LONGEST_LINE // 4, len(text) - _LONGEST_LINE))
    piece = text[start : start + _LONGEST_LINE]
    before, after = ("…" if start else ""), ("…" if start + _LONGEST_LINE < len(text) else "")
    column = column - start
    return before + piece + after, column + len(before), max(1, min(length, len(piece) - column))


def _cells(character: str) -> int:
    """How many columns of a terminal a character takes."""
    if character.isascii():
        return 1
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


_LONGEST_LINE = 160
