"""`attncc verify`: forward and every gradient of the generated kernels against the dense oracle."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from attncc.cli.arguments import Sizes, attentions, files_argument, name_option, problem_of, size_options
from attncc.cli.backend import triton_device
from attncc.cli.console import bad, good, print_table, progress

if TYPE_CHECKING:
    from attncc.ir.spec import Spec
    from attncc.runtime.sampling import Problem
    from attncc.runtime.verification import Comparison

# Not multiples of anything, so that every kernel meets a ragged end.
_DEFAULTS = Sizes(queries=150, batch=1, heads=2, kv_heads=1, dim=40)
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@click.command(
    epilog="\b\nFor example:\n"
    "  attncc verify examples/longformer.attn\n"
    "  attncc verify examples/sliding_window.attn --dtype bf16 --queries 300 --set window=32",
)
@files_argument
@name_option
@size_options(_DEFAULTS)
@click.option("--head-dim", type=click.IntRange(1), default=_DEFAULTS.dim, show_default=True)
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(list(_DTYPES)), default=("fp32", "bf16"),
              show_default=True, help="May be repeated.")  # fmt: skip
def command(files: tuple[str, ...], name: str | None, dtypes: tuple[str, ...], seed: int, **options: Any) -> int:
    """Compare the generated kernels with the dense oracle: output, lse and every gradient, under the error rule.

    On a GPU where there is one, else in Triton's interpreter. Inputs are made up from their declarations; gradients
    are those of a random weighting of the results. What is allowed is measured too: a small multiple of what the
    plain dense formula loses in the same dtype. Exit code 1 where an error is larger.
    """
    found = attentions(files, name)
    with progress("loading torch"):
        device, where = triton_device()
    click.echo(f"backend: triton, on {where}")
    rows, missed = [], 0
    for _, spec in found:
        problem = problem_of(spec, _DEFAULTS, options)
        for dtype in dtypes:
            with progress(f"verifying {spec.name} in {dtype}"):
                compared = _compare(spec, problem, dtype, device, seed)
            rows += [_row(spec.name, dtype, c) for c in compared]
            missed += sum(not c.is_met for c in compared)
    print_table(None, ["attention", "dtype", "tensor", "error>", "allowed>", ""], rows)
    sys.stdout.flush()
    if missed:
        click.echo(bad(f"{missed} of {len(rows)} miss the error rule"))
        return 1
    click.echo(good(f"all {len(rows)} are within the error rule"))
    return 0


def _compare(spec: Spec, problem: Problem, dtype: str, device: str, seed: int) -> tuple[Comparison, ...]:
    import torch

    from attncc.api import Attention
    from attncc.ir.spec import Softmax
    from attncc.runtime.sampling import sample_inputs
    from attncc.runtime.verification import compare

    generator = torch.Generator().manual_seed(seed)

    def operand(heads: int, length: int) -> torch.Tensor:
        drawn = torch.randn(problem.batch, heads, length, problem.dim, generator=generator)
        return drawn.to(device, getattr(torch, _DTYPES[dtype]))

    arguments: dict[str, Any] = dict(problem.scalars)
    for name, array in sample_inputs(spec, problem, seed=seed).items():
        arguments[name] = torch.from_numpy(array).to(device)
    for declared in spec.inputs:
        arguments[declared.name].requires_grad_(declared.learnable)
    if problem.q_offset:
        arguments["q_offset"] = problem.q_offset
    if problem.grid is not None:
        arguments["grid"] = problem.grid
    return compare(
        Attention(spec),
        operand(problem.heads, problem.queries),
        operand(problem.kv_heads, problem.keys),
        operand(problem.kv_heads, problem.keys),
        arguments,
        backend="triton",
        return_lse=isinstance(spec.weights, Softmax),
        seed=seed,
    )


def _row(name: str, dtype: str, comparison: Comparison) -> list[str]:
    verdict = good("ok") if comparison.is_met else bad("missed" if comparison.finite else "not finite where it should")
    return [name, dtype, comparison.name, f"{comparison.error:.2e}", f"{comparison.allowed:.2e}", verdict]
