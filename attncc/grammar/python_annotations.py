"""Types written in Python annotations, in the language's own grammar, with spans that point into the Python file."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from attncc.errors import Diagnostic, SpecError
from attncc.grammar import syntax
from attncc.grammar.parser import parse
from attncc.grammar.python_source import PythonLines
from attncc.source import Source, Span

Node = TypeVar("Node")
_HEADER = "attention a "


@dataclass(frozen=True, slots=True)
class Input:
    """Annotates a keyword-only argument of a traced function as an input of the attention.

    `type_text` is a type as in a spec: `"float[heads, 2*n-1]"`, `"int[batch, keys]"`. `learnable` inputs get a
    gradient. `sorted` names the axis along which the elements never decrease; `range=(low, high)` says that they
    satisfy `low <= x < high`, each an int or the text of an expression: `range=(0, "keys + 1")`.
    """

    type_text: str
    learnable: bool = False
    sorted: str | None = None
    range: tuple[int | str, int | str] | None = None


def parsed_input(name: str, declared: Input, span: Span, lines: PythonLines) -> syntax.Input:
    """The `input` statement of an annotation at `span`. Raises SpecError for what the grammar refuses."""
    pieces = ["input ", name, ": ", declared.type_text]
    if declared.learnable:
        pieces.append(" learnable")
    if declared.sorted is not None:
        pieces += [" sorted along ", declared.sorted]
    if declared.range is not None:
        low, high = declared.range
        pieces += [" in ", str(low), " .. ", str(high)]
    statement = _parsed(pieces, span, lines)
    if not isinstance(statement, syntax.Input):
        raise lines.error(f"`{declared.type_text}` is not the type of an input", span, hint='write `"float[heads]"`')
    return statement


def parsed_blocks(name: str, type_text: str, span: Span, lines: PythonLines) -> syntax.Blocks:
    """The `blocks` statement of a table's type, its sizes left for the caller to replace."""
    if not isinstance(type_text, str):
        raise lines.error("the type of a table is a text", span, hint='write `"int[batch, heads, query_blocks, top]"`')
    statement = _parsed(["blocks ", name, ": ", type_text, " size 1, 1"], span, lines)
    if not isinstance(statement, syntax.Blocks):
        raise lines.error(f"`{type_text}` is not the type of a table", span)
    return statement


def _parsed(pieces: list[str], span: Span, lines: PythonLines) -> syntax.InAttention | None:
    """The one statement that the pieces, put together, say; None where they say more or other than one."""
    offsets: dict[int, int] = {}  # where a piece begins, by where its text begins in the Python file
    text = _HEADER
    for piece in pieces:
        offsets[len(text)] = _literal_offset(span, piece)
        text += piece
    starts = sorted(offsets)

    def place(found: Span) -> Span:
        start = max((s for s in starts if s <= found.start), default=None)
        end = max((s for s in starts if s < found.end), default=None)
        if start is None or start != end or offsets[start] < 0:
            return span
        shift = offsets[start] - start
        return Span(span.source, found.start + shift, found.end + shift)

    try:
        file = parse(Source(span.source.name, text))
    except SpecError as problem:
        raise SpecError([_moved_diagnostic(d, place) for d in problem.diagnostics]) from None
    if file.uses or file.defs or len(file.attentions) != 1 or len(file.attentions[0].statements) != 1:
        return None
    return _moved(file.attentions[0].statements[0], place)


def _literal_offset(span: Span, text: str) -> int:
    """Where a text stands in a Python argument: its name, or a string literal; -1 where it does not."""
    if span.text.startswith(text):  # the argument's name
        return span.start
    for quote in ('"', "'"):
        at = span.text.find(f"{quote}{text}{quote}")
        if at >= 0:
            return span.start + at + 1
    return -1


def _moved(node: Node, place: Callable[[Span], Span]) -> Node:
    """A syntax tree with every span replaced."""

    def move(value: Any) -> Any:
        if isinstance(value, Span):
            return place(value)
        if isinstance(value, tuple):
            return tuple(move(v) for v in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.replace(
                value, **{f.name: move(getattr(value, f.name)) for f in dataclasses.fields(value)}
            )
        return value

    moved: Node = move(node)
    return moved


def _moved_diagnostic(diagnostic: Diagnostic, place: Callable[[Span], Span]) -> Diagnostic:
    related = tuple(dataclasses.replace(r, span=place(r.span)) for r in diagnostic.related)
    return dataclasses.replace(
        diagnostic, span=None if diagnostic.span is None else place(diagnostic.span), related=related
    )


def annotation_spans(body: Span | None) -> dict[str, Span]:
    """Where each argument of the function whose text is `body` is declared, annotation included."""
    if body is None:
        return {}
    source = body.source
    try:
        tree = ast.parse(source.text)
    except (SyntaxError, ValueError):
        return {}
    found: dict[str, Span] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or not _within(source, node, body):
            continue
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            found.setdefault(argument.arg, _node_span(source, argument))
    return found


def _within(source: Source, node: ast.FunctionDef, body: Span) -> bool:
    first = min((d.lineno for d in node.decorator_list), default=node.lineno)
    return body.line <= first and node.lineno <= source.position(body.end)[0]


def _node_span(source: Source, node: ast.arg) -> Span:
    def offset(line: int, column: int) -> int:
        return source.offset_of_line(line) + len(source.line_text(line).encode()[:column].decode(errors="ignore"))

    end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
    return Span(source, offset(node.lineno, node.col_offset), offset(end_line, end_column))
