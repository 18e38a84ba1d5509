"""`attncc list`: the attentions in files and folders, or the forms of the prelude."""

from __future__ import annotations

import re
from importlib import resources

import click

from attncc.cli.arguments import attentions, spec_files
from attncc.cli.console import print_table
from attncc.errors import ArgumentError
from attncc.ir.printer import print_expr
from attncc.ir.spec import Softmax, Spec

_FORM = re.compile(r"((?:^#.*\n)+)def ((?!_)\w+\(.*\)) =", re.MULTILINE)
"""A public definition of the prelude, with the comment above it."""


@click.command(
    "list",
    epilog="\b\nFor example:\n  attncc list examples/\n  attncc list --prelude",
)
@click.argument("places", nargs=-1, metavar="[FILE|FOLDER]...")
@click.option("--prelude", is_flag=True, help="The forms that are always in scope.")
def command(places: tuple[str, ...], prelude: bool) -> None:
    """List the attentions in files and folders (this one, if none is named) with what they take."""
    if prelude:
        _list_prelude()
        return
    files = spec_files(places or ["."])
    if not files:
        raise ArgumentError(f"no .attn file in {', '.join(places) or 'this folder'}")
    rows = [_row(file, spec) for file, spec in attentions(files)]
    print_table(None, ["attention", "params and constants", "inputs", "weights", "file"], rows)


def _row(file: str, spec: Spec) -> list[str]:
    scalars = [f"{c.name}={c.value}" for c in spec.constants]
    scalars += [p.name if p.default is None else f"{p.name}={p.default}" for p in spec.params]
    inputs = [
        f"{i.name}: {i.sort.value}[{', '.join(map(print_expr, i.extents))}]{' learnable' * i.learnable}"
        for i in spec.inputs
    ]
    inputs += [f"{t.name}: blocks[{', '.join(map(print_expr, t.extents))}]" for t in spec.tables]
    match spec.weights:
        case Softmax(sinks=sinks):
            weights = "softmax" + " with sinks" * bool(sinks)
        case ratio:
            weights = print_expr(ratio.numerator.expr)
            if ratio.denominator is not None:
                weights += f" over {print_expr(ratio.denominator.expr)}"
    return [spec.name, "\n".join(scalars), "\n".join(inputs), weights, file]


def _list_prelude() -> None:
    text = resources.files("attncc.grammar").joinpath("prelude.attn").read_text(encoding="utf-8")
    rows = []
    for comment, head in _FORM.findall(text):
        rows.append([head, " ".join(line.lstrip("# ") for line in comment.splitlines())])
    print_table(None, ["form", "meaning"], rows)
