"""A file's statements in order → its blocks: an `attention` or `def` owns what follows it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attncc.grammar import syntax
from attncc.grammar.builtins import FILE_HEADS
from attncc.grammar.report import Report
from attncc.source import Source, Span


def group(source: Source, statements: Sequence[syntax.Statement], report: Report) -> syntax.File:
    """The file of these statements. One that follows no `attention` it could belong to is reported."""
    uses: list[syntax.Use] = []
    defs: list[syntax.Define] = []
    blocks: list[tuple[syntax.Header, list[syntax.InAttention]]] = []
    broken_defs: set[str] = set()
    owner: syntax.Statement | None = None
    requires: dict[syntax.Define, list[syntax.Require]] = {}
    for statement in statements:
        match statement:
            case syntax.Use():
                uses.append(statement)
                owner = statement
            case syntax.Define():
                defs.append(statement)
                owner = statement
            case syntax.Header():
                blocks.append((statement, []))
                owner = statement
            case syntax.Broken(head="attention", name=str() as name):
                # The name is there, so what is below can still be checked.
                owner = syntax.Header(statement.span, syntax.Name(statement.span, name))
                blocks.append((owner, []))
            case syntax.Broken(head=head, name=name) if head in FILE_HEADS:
                owner = statement
                if head == "def" and name is not None:
                    broken_defs.add(name)
            case syntax.Require() if isinstance(owner, syntax.Define):
                requires.setdefault(owner, []).append(statement)
            case _ if isinstance(owner, syntax.Header):
                blocks[-1][1].append(statement)
            case _ if not isinstance(owner, syntax.Broken):
                _report_homeless(statement, owner, report)
                owner = syntax.Broken(statement.span, "", None)
    return syntax.File(
        source,
        tuple(uses),
        tuple(_with_requires(d, tuple(requires.get(d, ()))) for d in defs),
        tuple(syntax.Attention(header.span, header.name, tuple(body)) for header, body in blocks),
        frozenset(broken_defs),
    )


def _report_homeless(statement: syntax.InAttention, owner: syntax.Statement | None, report: Report) -> None:
    # The first word, as written: it may be the misspelling of a head.
    head = re.match(r"\w*", statement.span.text)[0]  # type: ignore[index]
    span = Span(statement.span.source, statement.span.start, statement.span.start + len(head))
    if isinstance(owner, syntax.Define):
        hint = f"put `def {owner.name.text}` before the attention: a `def` ends the block above it"
    elif isinstance(owner, syntax.Use):
        hint = "put `use` at the top of the file: it ends the block above it"
    else:
        hint = "begin with `attention name`; its statements follow"
    report.error(f"'{head}' stands outside an attention", span, hint=hint)


def _with_requires(define: syntax.Define, requires: tuple[syntax.Require, ...]) -> syntax.Define:
    return syntax.Define(define.span, define.name, define.formals, define.body, requires)
