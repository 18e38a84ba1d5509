"""`attncc compile`: a standalone module, its kernels' binaries and a manifest, for a target that need not be here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attncc.cli.arguments import attentions, files_argument, name_option, scalars_of, set_option
from attncc.cli.backend import require_triton
from attncc.cli.console import bad, print_table, progress

if TYPE_CHECKING:
    from attncc.compiler import Artifact


@click.command(
    epilog="\b\nFor example:\n"
    "  attncc compile examples/longformer.attn --target cuda:90 --dtype bf16 --head-dim 128 -o build/\n"
    "  attncc compile examples/*.attn --target cuda:80 --target hip:gfx942 -o build/",
)
@files_argument
@name_option
@click.option("--target", "targets", multiple=True, default=("cuda:90",), show_default=True, metavar="TARGET",
              help="cuda:80, cuda:90, cuda:100 or hip:gfx942; may be repeated.")  # fmt: skip
@click.option("--dtype", default="bf16", show_default=True, help="Of query, key and value: bf16, fp16 or fp32.")
@click.option("--head-dim", type=click.IntRange(1), default=128, show_default=True, help="Of query and key.")
@click.option("--value-dim", type=click.IntRange(1), help="Of value; as --head-dim.")
@set_option
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default="build", show_default=True,
              help="A folder; each attention and target gets one of its own in it.")  # fmt: skip
def command(
    files: tuple[str, ...],
    name: str | None,
    targets: tuple[str, ...],
    dtype: str,
    head_dim: int,
    value_dim: int | None,
    settings: tuple[str, ...],
    output: Path,
) -> None:
    """Compile kernels ahead of time. No GPU is needed.

    Writes, for each attention and target, the standalone module, one binary for each kernel and manifest.json with
    registers, spills, shared memory, versions and the spec's hash. --set gives constants, which specialise.
    """
    found = attentions(files, name)
    require_triton()
    with progress("loading torch and triton"):
        from attncc.compiler import compile
        from attncc.runtime.cache import Cache, default_config
    cache = Cache(default_config(os.environ.get("ATTNCC_CACHE_DIR")))
    for _, spec in found:
        constants = scalars_of(spec, settings)
        for target in targets:
            with progress(f"compiling {spec.name} for {target}"):
                artifact = compile(spec, target, dtype, head_dim, value_dim=value_dim, constants=constants, cache=cache)
                folder = output / spec.name / target.replace(":", "-")
                artifact.write(folder)
            _report(f"{spec.name} for {target}, {dtype}, head dim {head_dim}", artifact)
            click.echo(f"wrote {folder}/\n")


def _report(title: str, artifact: Artifact) -> None:
    rows = [
        [
            kernel.name,
            str(kernel.registers),
            bad(str(kernel.spilled)) if kernel.spilled else "0",
            f"{kernel.shared_memory / 1024:.1f}",
            str(kernel.num_warps),
            str(kernel.num_stages),
            f"{len(kernel.binary) / 1024:.1f}",
        ]
        for kernel in artifact.kernels
    ]
    columns = ["kernel", "registers>", "spilled>", "shared KiB>", "warps>", "stages>", "binary KiB>"]
    print_table(title, columns, rows)
