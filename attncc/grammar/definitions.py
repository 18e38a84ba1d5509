"""The `def`s a file can call: its own, those of the files it uses, and the prelude's."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from attncc.errors import Related, did_you_mean
from attncc.grammar import syntax
from attncc.grammar.builtins import BUILTIN_FUNCTIONS, BUILTIN_VALUES, BUILTINS
from attncc.grammar.parser import parse, recover
from attncc.grammar.report import Report
from attncc.source import Source, Span

MOST_FILES = 100

Loader: TypeAlias = Callable[[str], Source]
"""Reads the file of a path. Raises OSError, with a `strerror` for people, where it cannot, and SpecError where
it holds no text."""


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """One `def` with the names its body may call. A broken one was reported where it stands."""

    syntax: syntax.Define
    scope: Definitions = field(repr=False)
    from_prelude: bool = False
    broken: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.syntax.name.text

    @property
    def signature(self) -> str:
        """How it is called, as written: `sliding(w, i=q, j=k)`."""
        return f"{self.name}({', '.join(f.span.text for f in self.syntax.formals)})"

    @property
    def usage(self) -> str:
        """Its shortest call: `sliding(w)`."""
        return f"{self.name}({', '.join(f.name.text for f in self.syntax.formals if f.default is None)})"


@dataclass(frozen=True, slots=True, eq=False)
class Definitions:
    """The definitions visible in one file, over those of the prelude."""

    own: Mapping[str, Definition]
    prelude: Mapping[str, Definition]
    broken: frozenset[str] = frozenset()

    def find(self, name: str) -> Definition | None:
        """The definition of that name, the file's before the prelude's."""
        return self.own.get(name) or self.prelude.get(name)

    def names(self) -> Iterator[str]:
        """Every name that can be called."""
        yield from self.own
        yield from self.prelude


@functools.cache
def prelude() -> Mapping[str, Definition]:
    """The definitions of `prelude.attn`, which is always in scope; those named `_…` serve its own bodies only."""
    text = Path(__file__).with_name("prelude.attn").read_text(encoding="utf-8")
    found: dict[str, Definition] = {}
    scope = Definitions(found, {})
    for define in parse(Source("prelude.attn", text)).defs:
        found[define.name.text] = Definition(define, scope, from_prelude=True)
    return MappingProxyType({name: d for name, d in found.items() if not name.startswith("_")})


def collect(file: syntax.File, loader: Loader, report: Report) -> Definitions:
    """The definitions a file sees. Files it uses are read, and their errors reported, here."""
    return _collect(file, loader, report, (file.source.name,), {})


def _collect(
    file: syntax.File,
    loader: Loader,
    report: Report,
    chain: tuple[str, ...],
    done: dict[str, Definitions | None],
) -> Definitions:
    own: dict[str, Definition] = {}
    broken = set(file.broken_defs)
    for use in file.uses:
        used = _use(use, loader, report, chain, done)
        if used is None:
            # What it would have defined is unknown, so no call of an unknown name is an error of its own.
            broken.add("*")
            continue
        broken |= used.broken
        for name, definition in used.own.items():
            if own.setdefault(name, definition) is not definition:
                related = Related(own[name].syntax.name.span, "one is here")
                report.error(
                    f"two of the files used define '{name}'",
                    use.span,
                    related=(related, Related(definition.syntax.name.span, "the other here")),
                )
    scope = Definitions(own, prelude(), frozenset(broken))
    for define in file.defs:
        _declare(define, own, scope, report)
    _check_names(file, scope, report)
    _refuse_cycles(file, own, report)
    return scope


def _use(
    use: syntax.Use,
    loader: Loader,
    report: Report,
    chain: tuple[str, ...],
    done: dict[str, Definitions | None],
) -> Definitions | None:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(chain[-1]), use.path.text))
    if path in chain:
        cycle = " → ".join((*chain[chain.index(path) :], path))
        report.error("files use each other in a circle", use.path.span, note=cycle)
        return None
    if path not in done:
        done[path] = None
        if len(done) > MOST_FILES:
            report.error(f"more than {MOST_FILES} files are used", use.path.span)
            return None
        try:
            source = loader(path)
        except OSError as problem:
            report.error(f"cannot read '{use.path.text}': {problem.strerror or problem}", use.path.span)
            return None
        done[path] = _collect(recover(source, report), loader, report, (*chain, path), done)
    return done[path]


def _declare(define: syntax.Define, own: dict[str, Definition], scope: Definitions, report: Report) -> None:
    name = define.name
    if name.text in BUILTINS:
        report.error(f"'{name.text}' is built in and cannot be defined", name.span, hint="choose another name")
        return
    if name.text in own:
        first = Related(own[name.text].syntax.name.span, "first defined here")
        report.error(f"'{name.text}' is defined twice", name.span, related=(first,))
        return
    broken = False
    seen: dict[str, Span] = {}
    optional: syntax.Formal | None = None
    for formal in define.formals:
        argument = formal.name.text
        if argument in seen:
            first = Related(seen[argument], "first here")
            report.error(f"two arguments are named '{argument}'", formal.name.span, related=(first,))
            broken = True
        seen.setdefault(argument, formal.name.span)
        if argument in BUILTIN_VALUES:
            report.error(
                f"'{argument}' is built in and cannot name an argument",
                formal.name.span,
                hint="write `i=q` for an argument that is the query's position unless given"
                if argument in ("q", "k")
                else "choose another name",
            )
            broken = True
        if formal.default is None and optional is not None:
            report.error(
                f"'{argument}' has no default, but stands after '{optional.name.text}', which has one",
                formal.span,
            )
            broken = True
        optional = formal if formal.default is not None else optional
    own[name.text] = Definition(define, scope, broken=broken)


def _check_names(file: syntax.File, scope: Definitions, report: Report) -> None:
    """A body sees its arguments and what is built in, nothing of the attention that calls it."""
    for define in file.defs:
        formals = [f.name.text for f in define.formals]
        earlier: list[str] = []
        for formal in define.formals:
            if formal.default is not None:
                _check_body(formal.default, earlier, define, scope, report)
            earlier.append(formal.name.text)
        for root in (define.body, *(r.condition for r in define.requires)):
            _check_body(root, formals, define, scope, report)


def _check_body(
    root: syntax.Expression, formals: list[str], define: syntax.Define, scope: Definitions, report: Report
) -> None:
    for node in walk(root):
        match node:
            case syntax.Name(text=text, span=span) if text not in formals and text not in BUILTIN_VALUES:
                hint = did_you_mean(text, (*formals, *BUILTIN_VALUES))
                if scope.find(text) is not None:
                    hint = f"a def is called: `{text}(…)`"
                report.error(
                    f"'{text}' is no argument of '{define.name.text}'",
                    span,
                    note="a def sees its arguments and what is built in, not the names of an attention",
                    hint=hint or f"add it to the arguments, and pass it: `{define.name.text}(…, {text})`",
                )
                _break(define, scope)
            case syntax.Call(function=syntax.Name(text=text, span=span)) if (
                text not in BUILTIN_FUNCTIONS and scope.find(text) is None and not scope.broken & {text, "*"}
            ):
                hint = did_you_mean(text, (*BUILTIN_FUNCTIONS, *scope.names()))
                report.error(f"there is no function '{text}'", span, hint=hint)
                _break(define, scope)


def _break(define: syntax.Define, scope: Definitions) -> None:
    # `own` is still being filled by the caller, who alone holds it; nobody has read it yet.
    own = scope.own
    assert isinstance(own, dict)
    if (definition := own.get(define.name.text)) is not None and definition.syntax is define:
        own[define.name.text] = Definition(define, scope, broken=True)


def _refuse_cycles(file: syntax.File, own: dict[str, Definition], report: Report) -> None:
    finished: set[str] = set()
    for define in file.defs:
        path: list[str] = []
        stack: list[tuple[str, Iterator[syntax.Name]]] = []

        def enter(name: str, path: list[str] = path, stack: list[tuple[str, Iterator[syntax.Name]]] = stack) -> None:
            path.append(name)
            stack.append((name, _called(own[name].syntax)))

        if define.name.text in own and define.name.text not in finished:
            enter(define.name.text)
        while stack:
            name, calls = stack[-1]
            callee = next((c for c in calls if c.text in own and c.text not in finished), None)
            if callee is None:
                finished.add(name)
                path.pop()
                stack.pop()
            elif callee.text in path:
                circle = path[path.index(callee.text) :]
                report.error(
                    f"'{callee.text}' calls itself",
                    callee.span,
                    note=f"{' → '.join((*circle, callee.text))}; a def is expanded where it is called",
                )
                for member in circle:
                    own[member] = Definition(own[member].syntax, own[member].scope, broken=True)
            else:
                enter(callee.text)


def _called(define: syntax.Define) -> Iterator[syntax.Name]:
    roots = [define.body, *(f.default for f in define.formals if f.default), *(r.condition for r in define.requires)]
    for root in roots:
        for node in walk(root):
            if isinstance(node, syntax.Call) and isinstance(node.function, syntax.Name):
                yield node.function


def walk(root: syntax.Expression) -> Iterator[syntax.Expression]:
    """Every expression below `root` that has a value, in reading order; names that are called, or name an axis or
    a keyword, have none. Not recursive."""
    stack: list[syntax.Expression] = [root]
    while stack:
        node = stack.pop()
        yield node
        below: list[syntax.Expression] = []
        match node:
            case syntax.Call(function=syntax.Name(text="len" | "on_grid")):
                pass
            case syntax.Call(function=function, arguments=arguments):
                below = [] if isinstance(function, syntax.Name) else [function]
                below += [a.value for a in arguments]
            case syntax.Attribute(base=base):
                below = [base]
            case _:
                for part in (getattr(node, f.name) for f in fields(node)):
                    if isinstance(part, tuple):
                        below += [p for p in part if not isinstance(p, tuple)]
                    elif isinstance(part, syntax.Expression):
                        below.append(part)
        stack.extend(reversed(below))
