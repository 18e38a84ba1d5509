"""What goes to the terminal: diagnostics, tables, progress. Colour and movement only where there is a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 160
"""Columns of a table that nobody looks at on a terminal: a pipe or a file has no edge to wrap at."""

_MARKED = re.compile(
    r"^(error|warning):|^( *)(= note:|= hint:)|^( *[0-9]* \| *)([\^-]+)(.*)$|^(hint|note):", re.MULTILINE
)


def echo_error(message: str) -> None:
    """A message or rendered diagnostics to stderr, beginning with `error:`."""
    text = message if message.startswith(("error:", "warning:")) else f"error: {message}"
    click.echo(_colour(text) if wants_colour(sys.stderr) else text, err=True, color=wants_colour(sys.stderr))


def wants_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and nobody asked for none (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console() -> Console:
    """Where results are printed: stdout."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def print_table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table to stdout. A column whose name ends in `>` is set to the right; text is taken as it is."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name.rstrip(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text.from_ansi(cell) if "\x1b" in cell else Text(cell) for cell in row))
    console().print(table)


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Says on stderr what is being done while it lasts, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(doing):
        yield


def good(text: str) -> str:
    """Text in the colour of success, where stdout has colours."""
    return click.style(text, fg="green") if wants_colour(sys.stdout) else text


def bad(text: str) -> str:
    """Text in the colour of failure, where stdout has colours."""
    return click.style(text, fg="red", bold=True) if wants_colour(sys.stdout) else text


def _colour(text: str) -> str:
    def mark(match: re.Match[str]) -> str:
        whole = match.group(0)
        if match.group(1):
            return click.style(whole, fg="red" if match.group(1) == "error" else "yellow", bold=True)
        if match.group(5):
            return match.group(4) + click.style(match.group(5) + match.group(6), fg="red")
        return click.style(whole, fg="cyan")

    return _MARKED.sub(mark, text)
