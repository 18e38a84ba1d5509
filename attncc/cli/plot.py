"""`attncc plot`: every pair of a query and a key, live or masked, under the tiles the plan makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attncc.cli.arguments import Lengths, Sizes, attentions, name_option, problem_of, size_options
from attncc.cli.console import progress
from attncc.errors import ArgumentError, BackendError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attncc.analysis.plan import Plan
    from attncc.ir.spec import Spec
    from attncc.runtime.sampling import Problem

_DEFAULTS = Sizes(queries=512)
_MOST_PAIRS = 2**24
"""More than anybody can look at, and what the dense mask takes is near a gigabyte."""

_WRONG = "#d7263d"
_COLOURS = (
    ("#ececec", "EMPTY tile, skipped"),
    (_WRONG, "live, but skipped: a wrong proof"),
    ("#fbdcb8", "PARTIAL tile, masked pair"),
    ("#d9822b", "PARTIAL tile, live pair"),
    (_WRONG, "masked, but taken for live: a wrong proof"),
    ("#2c7a5b", "FULL tile, no mask code"),
)
"""By twice the kind of the tile, plus one for a live pair. The two wrong ones are there to be seen if they happen."""


@click.command(
    epilog="\b\nFor example:\n"
    "  attncc plot examples/longformer.attn -o mask.png\n"
    "  attncc plot examples/sliding_window.attn --queries 1024 --set window=200 --tile 128x64 -o mask.svg",
)
@click.argument("file")
@name_option
@size_options(_DEFAULTS)
@click.option("--tile", type=Lengths(2), default="64x64", show_default=True, metavar="QxK", help="Queries x keys.")
@click.option("--batch-entry", type=click.IntRange(0), default=0, show_default=True, help="Which one is drawn.")
@click.option("--head", type=click.IntRange(0), default=0, show_default=True, help="Which one is drawn.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="PNG or SVG; else NAME.png here.")
def command(
    file: str,
    name: str | None,
    tile: tuple[int, int],
    batch_entry: int,
    head: int,
    output: Path | None,
    seed: int,
    **options: Any,
) -> None:
    """Draw the mask of one head with its tiles. Inputs are made up from their declarations."""
    found = attentions([file], name)
    if len(found) > 1:
        raise ArgumentError(f"{file} defines {', '.join(s.name for _, s in found)}: choose one with --name")
    [(_, spec)] = found
    path = output or Path(f"{spec.name}.png")
    if path.suffix.lower() not in (".png", ".svg"):
        raise ArgumentError(f"{path}: a picture is .png or .svg")
    problem = problem_of(spec, _DEFAULTS, options)
    if batch_entry >= problem.batch or head >= problem.heads:
        raise ArgumentError(f"there is no head {head} of batch entry {batch_entry}: see --heads and --batch")
    if problem.queries * problem.keys * problem.batch * problem.heads > _MOST_PAIRS:
        raise ArgumentError("these are too many pairs to draw: choose smaller --queries, --keys, --batch or --heads")
    with progress("loading torch and matplotlib"):
        _require_matplotlib()
    with progress(f"drawing {spec.name}"):
        mask, plan = _mask_and_plan(spec, problem, tile, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        _draw(mask[batch_entry, head], plan, batch_entry, head, path)
    click.echo(f"wrote {path}")


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise BackendError("drawing needs matplotlib: pip install 'attncc[plot]'") from None


def _mask_and_plan(spec: Spec, problem: Problem, tile: tuple[int, int], seed: int) -> tuple[NDArray[np.bool_], Plan]:
    import torch

    from attncc.api import Attention
    from attncc.runtime.launch import Arguments, bind, grid_sizes
    from attncc.runtime.oracle import mask_of
    from attncc.runtime.sampling import sample_inputs
    from attncc.runtime.signature import collect, signature_of

    inputs = sample_inputs(spec, problem, seed=seed)
    signature = signature_of(spec)
    values: dict[str, Any] = {**problem.scalars, **{n: torch.from_numpy(a) for n, a in inputs.items()}}
    query = torch.zeros(problem.batch, problem.heads, problem.queries, 1)
    key = torch.zeros(problem.batch, problem.kv_heads, problem.keys, 1)
    grid_queries, grid_keys = grid_sizes(spec, problem.grid)
    call = Arguments(
        query,
        key,
        key,
        *collect(signature, values),
        q_offset=problem.q_offset,
        grid_queries=grid_queries,
        grid_keys=grid_keys,
    )
    mask = mask_of(bind(spec, signature, call)).numpy()
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
    return mask, plan


def _draw(mask: NDArray[np.bool_], plan: Plan, batch: int, head: int, path: Path) -> None:
    import numpy as np

    # The object interface: no window system is asked for, no global figure is left behind.
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    queries, keys = mask.shape
    rows, columns = plan.tile
    kinds = plan.tiles(batch, head).repeat(rows, axis=0).repeat(columns, axis=1)[:queries, :keys]
    what = 2 * kinds + mask
    figure = Figure(figsize=(7.5, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(
        what, cmap=ListedColormap([colour for colour, _ in _COLOURS]), vmin=0, vmax=len(_COLOURS) - 1,
        interpolation="nearest", aspect="auto", extent=(0, keys, queries, 0),
    )  # fmt: skip
    axes.hlines(range(rows, queries, rows), 0, keys, colors="white", linewidth=0.5)
    axes.vlines(range(columns, keys, columns), 0, queries, colors="white", linewidth=0.5)
    axes.set(
        xlabel="key", ylabel="query",
        title=f"{plan.spec.name}: {queries} queries, {keys} keys, tiles of {rows} x {columns}",
    )  # fmt: skip
    present = [_COLOURS[i] for i in np.unique(what)]
    legend = [Patch(facecolor=colour, label=label) for colour, label in present]
    figure.legend(handles=legend, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
