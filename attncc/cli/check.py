"""`attncc check`: parse and type-check, nothing more. Imports neither torch nor triton, numpy nor sympy."""

from __future__ import annotations

import sys

import click

from attncc.cli.console import echo_error, good
from attncc.errors import SpecError, render
from attncc.grammar.frontend import Loaded, load_specs, loads_specs


@click.command(
    epilog="\b\nFor example:\n  attncc check examples/*.attn\n  cat draft.attn | attncc check -",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of specs that are right.")
def command(files: tuple[str, ...], quiet: bool) -> int:
    """Parse and type-check specs; report every mistake in every FILE, `-` being standard input.

    Warnings are shown and do not count. Exit code 1 where a spec is wrong, 2 where a file cannot be read.
    """
    worst = 0
    for file in files:
        worst = max(worst, _check(file, quiet))
    return worst


def _check(file: str, quiet: bool) -> int:
    try:
        loaded = _load(file)
    except SpecError as error:
        echo_error(str(error) + "\n")
        return 1
    except OSError as error:
        echo_error(f"{file}: {error.strerror}")
        return 2
    if loaded.warnings:
        echo_error(render(loaded.warnings) + "\n")
    if not quiet:
        click.echo(f"{good('ok')}  {file}: {', '.join(loaded.specs) or 'definitions only'}")
    return 0


def _load(file: str) -> Loaded:
    if file == "-":
        return loads_specs(sys.stdin.buffer.read().decode(errors="replace"), "<stdin>")
    return load_specs(file)
