"""`attncc explain`: which keys a query sees, how that was proved, and what it comes to in tiles."""

from __future__ import annotations

import json
from typing import Any

import click

from attncc.cli.arguments import Lengths, Sizes, attentions, files_argument, name_option, problem_of, size_options
from attncc.cli.console import progress
from attncc.errors import ArgumentError

_DEFAULTS = Sizes(queries=4096)


@click.command(
    epilog="\b\nFor example:\n"
    "  attncc explain examples/longformer.attn --queries 32768 --tile 128x128\n"
    "  attncc explain examples/sliding_window.attn --set window=1024 --json",
)
@files_argument
@name_option
@size_options(_DEFAULTS)
@click.option("--tile", type=Lengths(2), default="128x128", show_default=True, metavar="QxK", help="Queries x keys.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead; takes a single attention.")
def command(
    files: tuple[str, ...], name: str | None, tile: tuple[int, int], as_json: bool, seed: int, **options: Any
) -> None:
    """Say which tiles are visited at given lengths, how that was proved, and what was assumed.

    Inputs that the bounds read are made up from their declarations.
    """
    found = attentions(files, name)
    if as_json and len(found) > 1:
        names = ", ".join(spec.name for _, spec in found)
        raise ArgumentError(f"--json describes one attention, and here are {names}: choose one with --name")
    with progress("loading torch"):
        from attncc.api import Attention
        from attncc.runtime.sampling import sample_inputs
    for i, (_, spec) in enumerate(found):
        problem = problem_of(spec, _DEFAULTS, options)
        values: dict[str, Any] = {**problem.scalars, **sample_inputs(spec, problem, seed=seed)}
        with progress(f"planning {spec.name}"):
            plan = Attention(spec).plan(
                queries=problem.queries,
                keys=problem.keys,
                batch=problem.batch,
                heads=problem.heads,
                kv_heads=problem.kv_heads,
                q_offset=problem.q_offset,
                grid=problem.grid,
                tile=tile,
                **values,
            )
            text = json.dumps(plan.to_json(), indent=2) if as_json else plan.describe()
        click.echo(("\n" if i else "") + text)
