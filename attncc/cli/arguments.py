"""Arguments that several commands share: which attentions, at which sizes, with which values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from attncc.cli.console import echo_error
from attncc.errors import ArgumentError, did_you_mean, render
from attncc.grammar.frontend import load_specs
from attncc.ir.expr import Scalar, Sort
from attncc.ir.spec import Spec

if TYPE_CHECKING:
    from attncc.runtime.sampling import Problem

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes a command works at unless told others."""

    queries: int
    batch: int = 1
    heads: int = 1
    kv_heads: int | None = None
    dim: int = 64


class Lengths(click.ParamType[tuple[int, ...]]):
    """Whole numbers with x between them: `30x48`."""

    name = "lengths"

    def __init__(self, most: int | None = None) -> None:
        self._count = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers of the text."""
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if not all(p.isdecimal() and int(p) > 0 for p in parts) or self._count not in (None, len(parts)):
            self.fail(f"'{value}' is not of the form {'x'.join(['128'] * (self._count or 2))}", param, ctx)
        return tuple(int(p) for p in parts)


def files_argument(command: _Command) -> _Command:
    """FILE..., at least one."""
    return click.argument("files", nargs=-1, required=True, metavar="FILE...")(command)


def name_option(command: _Command) -> _Command:
    """--name: one attention of a file that defines several."""
    return click.option("--name", metavar="NAME", help="Only this one of the attentions defined.")(command)


def set_option(command: _Command) -> _Command:
    """--set: values of params and constants."""
    return click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE", help="The value of a param or constant."
    )(command)


def size_options(defaults: Sizes) -> Callable[[_Command], _Command]:
    """--queries, --keys, --batch, --heads, --kv-heads, --grid, --offset, --set and --seed."""
    options = [
        click.option("--queries", type=click.IntRange(1), help=f"Queries; {defaults.queries}, or the grid's."),
        click.option("--keys", type=click.IntRange(1), help="Keys; as many as queries."),
        click.option("--batch", type=click.IntRange(1), default=defaults.batch, show_default=True),
        click.option("--heads", type=click.IntRange(1), default=defaults.heads, show_default=True),
        click.option("--kv-heads", type=click.IntRange(1), help="Heads of key and value; as many as heads."),
        click.option("--grid", type=Lengths(), metavar="HxW", help="Lengths of the grid's axes, as 30x48."),
        click.option("--offset", type=int, default=0, show_default=True, help="Position of the first query."),
        set_option,
        click.option("--seed", type=int, default=0, show_default=True, help="Of the inputs made up."),
    ]

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def attentions(files: Iterable[str], name: str | None = None) -> list[tuple[str, Spec]]:
    """Every (file, spec) in the files, or those called `name`. Raises SpecError, ArgumentError, OSError."""
    found = []
    known: list[str] = []
    for file in files:
        loaded = load_specs(file)
        if loaded.warnings:
            echo_error(render(loaded.warnings) + "\n")
        known += loaded.specs
        found += [(file, spec) for spec in loaded.specs.values() if name in (None, spec.name)]
    if not found:
        if name is None:
            raise ArgumentError("only definitions here: no attention to work on")
        hint = did_you_mean(name, known)
        raise ArgumentError(f"no attention '{name}', only {', '.join(known)}" + (f"; {hint}" if hint else ""))
    return found


def spec_files(places: Iterable[str]) -> list[str]:
    """The files named, and every `.attn` file in the folders named, in order."""
    found: list[str] = []
    for place in places:
        path = Path(place)
        found += sorted(str(p) for p in path.rglob("*.attn")) if path.is_dir() else [place]
    return found


def scalars_of(spec: Spec, settings: Iterable[str]) -> dict[str, Scalar]:
    """The values given by `--set`, of the types the spec declares. Raises ArgumentError."""
    sorts = {c.name: c.sort for c in spec.constants} | {p.name: p.sort for p in spec.params}
    found: dict[str, Scalar] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ArgumentError(f"--set {setting}: write NAME=VALUE")
        if name not in sorts:
            raise ArgumentError(_not_settable(spec, name, sorts))
        found[name] = _parse(name, sorts[name], text.strip())
    return found


def problem_of(spec: Spec, defaults: Sizes, options: Mapping[str, Any]) -> Problem:
    """The sizes and values the options of `size_options` give for a spec."""
    from math import prod

    from attncc.runtime.sampling import Problem

    grid: tuple[int, ...] | None = options["grid"] if spec.grid is not None else None
    if spec.grid is not None and grid is None:
        raise ArgumentError(f"'{spec.name}' lies on a grid ({', '.join(spec.grid.queries)}): give --grid, as 30x48")
    if grid is not None and spec.grid is not None and len(grid) != len(spec.grid.queries):
        raise ArgumentError(f"--grid has {len(grid)} axes, '{spec.name}' has {len(spec.grid.queries)}")
    if options["grid"] is not None and spec.grid is None:
        raise ArgumentError(f"'{spec.name}' declares no grid, so --grid means nothing here")
    queries = options["queries"] or (prod(grid) if grid else defaults.queries)
    heads = options["heads"]
    kv_heads = options["kv_heads"] or (defaults.kv_heads if heads == defaults.heads else None) or heads
    return Problem(
        queries=queries,
        keys=options["keys"] or (prod(grid) if grid else queries),
        batch=options["batch"],
        heads=heads,
        kv_heads=kv_heads,
        dim=options.get("head_dim") or defaults.dim,
        q_offset=options["offset"],
        grid=grid,
        scalars=scalars_of(spec, options["settings"]),
    )


def _not_settable(spec: Spec, name: str, sorts: Mapping[str, Sort]) -> str:
    if name in {i.name for i in spec.inputs} | {t.name for t in spec.tables}:
        return f"--set {name}: it is an input of '{spec.name}', and inputs are made up here; see --seed"
    hint = did_you_mean(name, sorts)
    known = f"it has {', '.join(sorts)}" if sorts else "it has none"
    return f"--set {name}: '{spec.name}' has no such param or constant, {known}" + (f"; {hint}" if hint else "")


def _parse(name: str, sort: Sort, text: str) -> Scalar:
    words = {"true": True, "false": False}
    try:
        match sort:
            case Sort.BOOL:
                return words[text.lower()]
            case Sort.INT:
                return int(text, 0)
            case Sort.FLOAT:
                return float(text)
    except (ValueError, KeyError):
        wanted = "true or false" if sort is Sort.BOOL else f"{'an' if sort is Sort.INT else 'a'} {sort.value}"
        raise ArgumentError(f"--set {name}={text}: {wanted} is wanted") from None
