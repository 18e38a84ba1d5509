"""A Python function → Spec: it is called once with symbols, and what it records is checked as text would be."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from attncc.errors import Diagnostic, SpecError
from attncc.grammar import syntax
from attncc.grammar.check import check
from attncc.grammar.python_annotations import Input, annotation_spans, parsed_input
from attncc.grammar.python_source import Dialect, PythonLines
from attncc.grammar.recorder import Recorded, Recorder
from attncc.grammar.traced import Traced, TracedInput, check_name, named, traced
from attncc.ir.expr import Sort
from attncc.ir.spec import Spec
from attncc.source import Source, Span

__all__ = ["Const", "Input", "trace", "trace_with_warnings"]

_SORTS = {int: Sort.INT, float: Sort.FLOAT, bool: Sort.BOOL}


class Const:
    """Annotates a keyword-only argument as a compile-time value: `n: attncc.Const = 7`, or `attncc.Const[float]`."""

    sort: Sort | None = None

    def __init__(self) -> None:
        raise TypeError("Const annotates an argument: write `n: attncc.Const = 7`")

    def __class_getitem__(cls, python_type: type) -> type[Const]:
        if python_type not in _SORTS:
            raise TypeError(f"a constant is an int, a float or a bool, not {python_type!r}")
        return type(f"Const[{python_type.__name__}]", (Const,), {"sort": _SORTS[python_type]})


def trace(function: Callable[..., Any]) -> Spec:
    """The spec that a Python function describes. It is named after the function.

    The function's first argument records statements (`Recorder`); its keyword-only arguments are inputs, annotated
    `attncc.Input(...)`, run-time parameters, annotated `int`, `float` or `bool`, and constants, annotated
    `attncc.Const`. Raises SpecError, with spans in the Python file, for what is no attention.
    """
    return trace_with_warnings(function)[0]


def trace_with_warnings(function: Callable[..., Any]) -> tuple[Spec, tuple[Diagnostic, ...]]:
    """As `trace`, and what is odd about the spec but not wrong."""
    first, arguments = _arguments(function)
    lines = PythonLines(Dialect(f"{first}.where", f"{first}.min", f"{first}.max", f"{first}."))
    declared = lines.of_function(function) or Span(Source("<python>", ""), 0, 0)
    spans = annotation_spans(lines.body_of(function))
    recorder = Recorder(first, lines, declared)
    declarations: list[syntax.InAttention] = []
    values: dict[str, Traced | TracedInput] = {}
    check_name(function.__name__, declared, lines)
    for name, parameter in arguments.items():
        check_name(name, spans.get(name, declared), lines)
        statement, values[name] = _declaration(name, parameter, spans.get(name, declared), lines)
        declarations.append(statement)
    returned = function(recorder, **values)
    if returned is not None:
        raise lines.error(
            f"'{function.__name__}' returns a value, and nothing uses it",
            declared,
            hint=f"record it: `{first}.mask(...)` or `{first}.score(...)`, and return nothing",
        )
    body = (*declarations, *_Emission(recorder._statements, declared).statements())
    block = syntax.Attention(declared, syntax.Name(declared, function.__name__), body)
    try:
        checked = check(syntax.File(declared.source, (), (), (block,)), _no_files)
    except SpecError as problem:
        raise SpecError([_in_python(d, first) for d in problem.diagnostics]) from None
    return checked.specs[function.__name__], tuple(_in_python(w, first) for w in checked.warnings)


def _arguments(function: Callable[..., Any]) -> tuple[str, Mapping[str, inspect.Parameter]]:
    """The recorder's name, and the keyword-only arguments with their annotations resolved."""
    lines = PythonLines(Dialect("a.where", "a.min", "a.max", "a."))
    span = lines.of_function(function)
    try:
        # Annotations may be strings (`from __future__ import annotations`): Python resolves its own.
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except (NameError, SyntaxError, AttributeError, TypeError) as problem:
        hint = 'write types as `attncc.Input("float[heads]")`'
        raise lines.error(f"an annotation cannot be resolved: {problem}", span, hint=hint) from None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    others = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    shape = f"def {function.__name__}(a, *, …)"
    if len(positional) != 1 or len(positional) + len(others) != len(parameters):
        raise lines.error(
            f"'{function.__name__}' takes one argument that records, then inputs and params by keyword",
            span,
            hint=f"write `{shape}`",
        )
    return positional[0].name, others


def _declaration(
    name: str, parameter: inspect.Parameter, span: Span, lines: PythonLines
) -> tuple[syntax.InAttention, Traced | TracedInput]:
    annotation, default = parameter.annotation, parameter.default
    spelled = syntax.Name(Span(span.source, span.start, min(span.end, span.start + len(name))), name)
    if annotation is Input:
        raise lines.error(f"'{name}' has no type", span, hint=f'write `{name}: attncc.Input("float[heads]")`')
    if isinstance(annotation, Input):
        if default is not parameter.empty:
            raise lines.error(f"the input '{name}' has a default, and a tensor is given at each call", span)
        statement = parsed_input(name, annotation, span, lines)
        known = {s.value: s for s in Sort}
        return statement, TracedInput(lines, name, known.get(statement.sort.text))
    if isinstance(annotation, type) and issubclass(annotation, Const):
        return _constant(spelled, annotation.sort, default, span, lines)
    if annotation not in _SORTS:
        hint = f'write `{name}: int = 256` for a param, `{name}: attncc.Input("float[heads]")` for an input'
        raise lines.error(f"'{name}' is neither an input nor a param nor a constant", span, hint=hint)
    sort = _SORTS[annotation]
    value = None if default is parameter.empty else _literal(default, span, lines)
    return syntax.Param(span, spelled, syntax.Name(span, sort.value), value), named(name, lines, sort)


def _constant(
    name: syntax.Name, sort: Sort | None, default: Any, span: Span, lines: PythonLines
) -> tuple[syntax.InAttention, Traced]:
    if default is inspect.Parameter.empty:
        raise lines.error(
            f"the constant '{name.text}' has no value", span, hint=f"write `{name.text}: attncc.Const = 7`"
        )
    value = _literal(default, span, lines)
    chosen = sort or traced(default, lines)._sort or Sort.INT
    return syntax.Const(span, name, syntax.Name(span, chosen.value), value), named(name.text, lines, chosen)


def _literal(value: Any, span: Span, lines: PythonLines) -> syntax.Expression:
    if isinstance(value, Traced | TracedInput) or not isinstance(value, bool | int | float):
        raise lines.error(f"a default is an int, a float or a bool, not a {type(value).__name__}", span)
    return _plain_syntax(traced(value, lines), span)


def _plain_syntax(value: Traced, span: Span) -> syntax.Expression:
    return value._build(span, *(_plain_syntax(p, span) for p in value._parts))


def _no_files(path: str) -> NoReturn:
    raise OSError(None, "a traced function uses no files", path)


class _Emission:
    """Turns recorded statements into syntax.

    A value used in several places becomes a `let` before the first of them, as a person would write it; so what is
    shared is checked once. A value that reads the score is shared within one statement only, since `s` changes.
    """

    def __init__(self, recorded: Sequence[Recorded], fallback: Span) -> None:
        self._recorded = recorded
        self._fallback = fallback
        self._uses: dict[int, int] = {}
        self._users: dict[int, set[int]] = {}
        self._lets: dict[int, str] = {}

    def statements(self) -> Iterator[syntax.InAttention]:
        """The statements in order, each after the lets it needs."""
        self._count()
        for recorded in self._recorded:
            for value in _below(recorded.values):
                if id(value) not in self._lets and self._is_shared(value):
                    span = value._span or self._fallback
                    made = self._built(value, span)
                    name = f"#{len(self._lets) + 1}"  # which no Python name can be
                    self._lets[id(value)] = name
                    yield syntax.Let(span, syntax.Name(span, name), made)
            yield recorded.make(recorded.span, *(self._syntax(v, recorded.span) for v in recorded.values))

    def _count(self) -> None:
        seen: set[int] = set()
        for number, recorded in enumerate(self._recorded):
            for value in recorded.values:
                self._uses[id(value)] = self._uses.get(id(value), 0) + 1
            for value in _below(recorded.values):
                self._users.setdefault(id(value), set()).add(number)
                if id(value) in seen:
                    continue
                seen.add(id(value))
                for part in value._parts:
                    self._uses[id(part)] = self._uses.get(id(part), 0) + 1

    def _syntax(self, value: Traced, around: Span) -> syntax.Expression:
        """The syntax of a value that stands in an expression at `around`."""
        span = value._span or self._fallback
        if span.source is not around.source or not (around.start <= span.start and span.end <= around.end):
            span = around  # computed elsewhere, used here
        if id(value) in self._lets:
            return syntax.Name(span, self._lets[id(value)])
        return self._built(value, span)

    def _built(self, value: Traced, span: Span) -> syntax.Expression:
        return value._build(span, *(self._syntax(part, span) for part in value._parts))

    def _is_shared(self, value: Traced) -> bool:
        """Whether a value is worth a `let`; every so many operations one is, so that no syntax nests deeply."""
        if not value._parts or value._fixed or (self._uses[id(value)] < 2 and value._depth % _DEEPEST_SYNTAX):
            return False
        if value._score is None:
            return True
        users = [self._recorded[n] for n in self._users[id(value)]]
        return len(users) == 1 and users[0].make is syntax.Score


def _below(values: Sequence[Traced]) -> Iterator[Traced]:
    """The values and all they are made of, each once, parts first. Not recursive."""
    seen: set[int] = set()
    stack = [(v, False) for v in reversed(values)]
    while stack:
        value, expanded = stack.pop()
        if expanded:
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            stack.append((value, True))
            stack.extend((p, False) for p in reversed(value._parts))


def _in_python(diagnostic: Diagnostic, recorder: str) -> Diagnostic:
    """A diagnostic of the checker in the words of Python."""

    def reworded(text: str | None) -> str | None:
        for pattern, replacement in _WORDS:
            text = text and re.sub(pattern, replacement.replace("a.", f"{recorder}."), text)
        return text

    message = reworded(diagnostic.message) or ""
    return dataclasses.replace(
        diagnostic, message=message, note=reworded(diagnostic.note), hint=reworded(diagnostic.hint)
    )


_DEEPEST_SYNTAX = 50
_WORDS = (
    (r"score ([\w.]+) if (\w+) else ([\w.]+)", r"a.score(a.where(\2, \1, \3))"),
    (r"([\w.]+) if (\w+) else ([\w.]+)", r"a.where(\2, \1, \3)"),
    (r"the condition of 'if'", r"the condition of 'a.where'"),
    (r"'and'", "'&'"),
    (r"'or'", "'|'"),
    (r"'not'", "'~'"),
    (r"`not a`", "`~x`"),
    (r"`a`", "`x`"),
    (r"`a == (\d)`", r"`x == \1`"),
    (r"`row`", "`a.row`"),
    (r"`score s \+ …`", "`a.score(a.s + …)`"),
    (r"`s \+ …`", "`a.s + …`"),
    (r"`(floor|ceil)\(", r"`a.\1("),
    (r"the statement `(\w+) ([\w …,]+)`", r'`a.\1("\2")`'),
    (r"`q\.(\w+)`", r"`a.q.\1`"),
    (r"`k\.(\w+)`", r"`a.k.\1`"),
    (r"`len\((\S+)\)`", r'`a.len("\1")`'),
)
