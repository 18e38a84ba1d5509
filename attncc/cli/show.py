"""`attncc show`: a spec as it is after any stage of the compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from attncc.cli.arguments import attentions, name_option, scalars_of, set_option
from attncc.cli.console import progress

if TYPE_CHECKING:
    from attncc.analysis.plan import LoopPlan, Visits
    from attncc.ir.spec import Spec

_PASSES = ("constants", "simplify", "coords", "lowered")
STAGES = ("parse", "check", *_PASSES, "plan", "module")
"""In order. The passes are those of `attncc.passes.pipeline`, named here so that help needs none of them."""


@click.command(
    epilog="\b\nFor example:\n"
    "  attncc show examples/longformer.attn --after lowered\n"
    "  attncc show examples/longformer.attn --after module --target hip:gfx942 > longformer.py",
)
@click.argument("file")
@name_option
@click.option("--after", type=click.Choice(STAGES), default="check", show_default=True, help="The stage.")
@click.option("--canonical", is_flag=True, help="The text that parses back and is hashed, not the notation for people.")
@click.option("--target", default="cuda:90", show_default=True, help="Of `--after module`; `interpreter` is one too.")
@click.option("--dtype", default="bf16", show_default=True, help="Of `--after module`.")
@click.option("--head-dim", type=click.IntRange(1), default=128, show_default=True, help="Of `--after module`.")
@set_option
def command(
    file: str,
    name: str | None,
    after: str,
    canonical: bool,
    target: str,
    dtype: str,
    head_dim: int,
    settings: tuple[str, ...],
) -> None:
    """Print a spec after a stage: the syntax tree, the typed spec, the spec after each pass, the loops, the module."""
    if after == "parse":
        click.echo(_tree(file))
        return
    texts = []
    for _, spec in attentions([file], name):
        constants = scalars_of(spec, settings)
        match after:
            case "plan":
                texts.append(_loops(spec, constants))
            case "module":
                texts.append(_module(spec, constants, target, dtype, head_dim))
            case _:
                texts.append(_spec_text(_lowered(spec, constants, after), canonical))
    click.echo("\n\n".join(text.rstrip("\n") for text in texts))


def _tree(file: str) -> str:
    from attncc.cli.tree import print_tree
    from attncc.grammar.frontend import read_source
    from attncc.grammar.parser import parse

    return print_tree(parse(read_source(file)))


def _lowered(spec: Spec, constants: dict[str, bool | int | float], stage: str) -> Spec:
    if stage == "check":
        return spec
    from attncc.passes.pipeline import lower

    return lower(spec, constants, until=stage)


def _spec_text(spec: Spec, canonical: bool) -> str:
    from attncc.cli.listing import list_spec
    from attncc.ir.printer import print_spec

    return print_spec(spec) if canonical else list_spec(spec)


def _loops(spec: Spec, constants: dict[str, bool | int | float]) -> str:
    from attncc.analysis.plan import plan_loops

    plan: LoopPlan = plan_loops(_lowered(spec, constants, "lowered"))
    return "\n".join(
        [
            f"attention {spec.name}",
            *_visits("forward: a program owns query rows first .. last and visits keys", plan.forward),
            *_visits("transposed: a program owns keys first .. last and visits query rows", plan.transposed),
        ]
    )


def _visits(title: str, visits: Visits) -> list[str]:
    from attncc.ir.printer import print_expr

    lines = [f"  {title} ({visits.method})"]
    lines += [f"    # {reason}" for reason in visits.reasons]
    lines += [
        f"    {s.kind.name:<7} from {print_expr(s.start)}\n            to   {print_expr(s.stop)}"
        for s in visits.segments
    ]
    return lines


def _module(spec: Spec, constants: dict[str, bool | int | float], target: str, dtype: str, head_dim: int) -> str:
    with progress("loading torch"):
        from attncc.api import Attention
    # Names of call arguments are refused as names in a spec, so a constant cannot stand for one of them.
    values: dict[str, Any] = dict(constants)
    return Attention(spec).source(target, dtype, head_dim, **values)
