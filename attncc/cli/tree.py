"""A syntax tree as indented text: a line for each node, with where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from attncc.source import Source, Span


def print_tree(node: Any) -> str:
    """Every node below and including this one, with line and column."""
    return "\n".join(_lines(node, ""))


def _lines(node: Any, label: str, depth: int = 0) -> Iterator[str]:
    span = getattr(node, "span", None)
    where = f"  @{span.line}:{span.column}" if isinstance(span, Span) else ""
    plain, nested = [], []
    for field in fields(node):
        value = getattr(node, field.name)
        match value:
            case Span() | Source():
                continue
            case tuple():
                nested += [(f"{field.name}[{i}]", v) for i, v in enumerate(value) if is_dataclass(v)]
                plain += [f"{field.name}[{i}]={_plain(v)}" for i, v in enumerate(value) if not is_dataclass(v)]
            case _ if is_dataclass(value):
                nested.append((field.name, value))
            case None | frozenset():
                continue
            case _:
                plain.append(f"{field.name}={value!r}")
    head = "  " * depth + (f"{label}: " if label else "") + type(node).__name__
    yield " ".join([head, *plain]) + where
    for name, child in nested:
        yield from _lines(child, name, depth + 1)


def _plain(value: Any) -> str:
    # An operator comes with its place, which the line already tells well enough.
    return " ".join(repr(v) for v in value if not isinstance(v, Span)) if isinstance(value, tuple) else repr(value)
