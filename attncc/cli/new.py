"""`attncc new`: a starter spec with a comment on every kind of line."""

from __future__ import annotations

from pathlib import Path

import click

from attncc.errors import SpecError
from attncc.grammar.frontend import loads_specs

_STARTER = """\
# {name}: say here what it is, and which paper it comes from.
#
# Check it:    attncc check {file}
# Look at it:  attncc explain {file} --queries 4096      attncc plot {file}
# Trust it:    attncc verify {file}
# Use it:      attn = attncc.load("{file}");  out = attn(query, key, value, window=128)

attention {name}
  # A run-time number: a call may give another, and nothing is compiled again.
  param window: int = 256
  require window >= 1, "a window holds at least the query's own position"

  # Tensors come in by name. Extents are sizes (batch heads kv_heads queries keys dim) or computed from them;
  # `learnable` ones get a gradient. Remove the # to use it below.
  # input slopes: float[heads] learnable

  # Which keys a query sees: q and k are positions, b the batch entry, h the head. Several masks are and-ed.
  mask k <= q
  mask q - k < window

  # How a score changes: s is the scaled dot product. Without a line like this it stays as it is.
  # score s - slopes[h] * (q - k)

  # How scores become weights. This is the default.
  weights softmax
"""


@click.command(epilog="\b\nFor example:\n  attncc new my_attention\n  attncc new local -o specs/local.attn")
@click.argument("name")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file; else NAME.attn here.")
def command(name: str, output: Path | None) -> None:
    """Write a commented starter spec for an attention called NAME. An existing file is left alone."""
    path = output or Path(f"{name}.attn")
    text = _STARTER.format(name=name, file=path)
    try:
        specs = loads_specs(text).specs
    except SpecError as error:
        raise click.BadParameter(f"'{name}' cannot name an attention: {error.diagnostics[0].message}") from None
    if list(specs) != [name]:
        raise click.BadParameter(f"'{name}' cannot name an attention: letters, digits and _ make a name")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise click.BadParameter(f"{path} is there already; give another name with -o") from None
    click.echo(f"wrote {path}; next: attncc check {path}")
