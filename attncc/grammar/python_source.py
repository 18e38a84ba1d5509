"""Where in the user's Python a traced operation stands, and what Python asked of a value that has none yet."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from attncc.errors import Diagnostic, SpecError
from attncc.grammar.builtins import FUNCTIONS
from attncc.source import Source, Span

# Frames of these packages are never the user's line.
_MACHINERY = frozenset(("attncc", "torch", "functools", "contextlib"))


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the user's way of writing spells what Python's own words cannot say."""

    where: str
    minimum: str
    maximum: str
    function: str  # the prefix of elementwise functions: "a." or "torch."


class PythonLines:
    """Finds spans in the user's files; each file is read once for one trace."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._sources: dict[str, Source] = {}

    def here(self) -> Span | None:
        """The expression the user's code is evaluating now (before Python 3.11: its line); None without a file."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in _MACHINERY:
            frame = frame.f_back
        return None if frame is None else self._span_of(frame)

    def of_function(self, function: Callable[..., Any]) -> Span | None:
        """The line of a function's `def` (or lambda)."""
        code = getattr(inspect.unwrap(function), "__code__", None)
        if not isinstance(code, CodeType):
            return None
        # The first line may be a decorator's; the name stands on the line of the `def`.
        source = self._source(code.co_filename)
        if code.co_name == "<lambda>":
            return _line_span(source, code.co_firstlineno)
        for line in range(code.co_firstlineno, min(code.co_firstlineno + 50, source.lines + 1)):
            if source.line_text(line).lstrip().startswith(("def ", "async def ")):
                return _line_span(source, line)
        return _line_span(source, code.co_firstlineno)

    def body_of(self, function: Callable[..., Any]) -> Span | None:
        """The whole text of a function, its decorators included."""
        code = getattr(inspect.unwrap(function), "__code__", None)
        if not isinstance(code, CodeType):
            return None
        source = self._source(code.co_filename)
        try:
            lines = len(inspect.getsourcelines(code)[0])
        except (OSError, TypeError):
            return None
        start = source.offset_of_line(code.co_firstlineno)
        last = min(code.co_firstlineno + lines - 1, source.lines)
        return Span(source, start, source.offset_of_line(last) + len(source.line_text(last)))

    def error(
        self, message: str, span: Span | None = None, *, note: str | None = None, hint: str | None = None
    ) -> SpecError:
        """The exception for a mistake at `span`, or at the line being evaluated."""
        return SpecError([Diagnostic(message, self.here() if span is None else span, (), note, hint)])

    def truth_error(self) -> SpecError:
        """The exception for a traced value whose truth Python asked for, by the construct that asked."""
        span = self.here()
        kind = None if span is None else _construct(span)
        message, hint = self._truth_words(kind)
        return self.error(message, span, note="the function runs once, for all pairs at a time", hint=hint)

    def conversion_error(self, method: str) -> SpecError:
        """The exception for `int()`, `float()`, `range()`, `len()`, iteration and the like on a traced value."""
        span = self.here()
        if span is not None and method == "__iter__":
            span = _looped_over(span)
        name = None if span is None else _called(span)
        message, hint = self._conversion_words(method, name)
        return self.error(message, span, note="the function runs once, for all pairs at a time", hint=hint)

    def torch_error(self, function: str) -> SpecError:
        """The exception for a function of torch called with a traced value, by the function's name."""
        d = self.dialect
        known = {"where": d.where, "minimum": d.minimum, "maximum": d.maximum}
        if function in FUNCTIONS:
            known[function] = f"{d.function}{function}"
        hint = (
            f"write `{known[function]}(…)`" if function in known else "keep to operators and the recorder's functions"
        )
        return self.error(f"torch's `{function}` cannot take a traced value", hint=hint)

    def _truth_words(self, kind: str | None) -> tuple[str, str]:
        d = self.dialect
        match kind:
            case "chain":
                return "a chained comparison cannot be traced", "write `(x < y) & (y < z)`, brackets included"
            case "and":
                return "Python's `and` cannot be traced", "write `x & y`, with brackets around comparisons"
            case "or":
                return "Python's `or` cannot be traced", "write `x | y`, with brackets around comparisons"
            case "not":
                return "Python's `not` cannot be traced", "write `~x`, with brackets around a comparison"
            case "in":
                return "Python's `in` cannot be traced", "write `(x == 1) | (x == 2)`, one comparison for each element"
            case "choice":
                return "a Python conditional cannot branch on a traced value", f"write `{d.where}(condition, x, y)`"
            case "if" | "while":
                return (
                    f"a Python `{kind}` cannot branch on a traced value",
                    f"write `{d.where}(condition, x, y)` to choose between values",
                )
            case "assert":
                return "a Python `assert` cannot check a traced value", "check it outside the function"
            case "min" | "max":
                name = d.minimum if kind == "min" else d.maximum
                return f"Python's `{kind}()` cannot be traced", f"write `{name}(x, y)`"
            case "any" | "all":
                return f"Python's `{kind}()` cannot be traced", f"join the conditions with `{'|&'[kind == 'all']}`"
            case _:
                return (
                    "a traced value has no truth value",
                    f"write `{d.where}(condition, x, y)`, `x & y`, `x | y`, `~x`",
                )

    def _conversion_words(self, method: str, called: str | None) -> tuple[str, str]:
        d = self.dialect
        if called is not None and called.startswith("math."):
            return f"`{called}()` cannot be traced", f"write `{d.function}{called[5:]}(x)`"
        match method:
            case "__int__" | "__trunc__":
                return "`int()` cannot be applied to a traced value", f"write `{d.function}floor(x)`"
            case "__float__" | "__complex__":
                return "`float()` cannot be applied to a traced value", "leave it out: ints become floats where needed"
            case "__index__":
                if called == "range":
                    return "`range()` cannot count to a traced value", "loop over a Python int"
                return "a traced value is not a Python int", "use Python ints here"
            case "__len__":
                return "a traced value has no `len()`", "it is one number, not a sequence"
            case "__iter__" | "__contains__":
                return "a traced value cannot be iterated over", "it is one number, not a sequence"
            case "__round__":
                return "`round()` cannot be applied to a traced value", f"write `{d.function}floor(x + 0.5)`"
            case "__hash__":
                return (
                    "a traced value cannot be looked up in a dict or set",
                    "compare it with each: `(x == 1) | (x == 2)`",
                )
            case _:
                return f"`{method}` needs a number, and a traced value has none yet", "keep to arithmetic on it"

    def _source(self, filename: str) -> Source:
        if filename not in self._sources:
            text = "".join(linecache.getlines(filename))
            self._sources[filename] = Source(filename, text)
        return self._sources[filename]

    def _span_of(self, frame: FrameType) -> Span | None:
        source = self._source(frame.f_code.co_filename)
        line = frame.f_lineno
        if line is None:
            return None
        if line > source.lines or not source.text:
            # A function typed where no file remains: the line is still told.
            return _line_span(Source(source.name, "\n" * (line - 1)), line)
        positions = getattr(frame.f_code, "co_positions", None)
        if positions is not None:
            start, stop, column, end = list(positions())[frame.f_lasti // 2]
            if None not in (start, stop, column, end):
                return Span(source, _offset(source, start, column), _offset(source, stop, end))
        return _line_span(source, line)


def _offset(source: Source, line: int, column: int) -> int:
    # Columns count bytes of UTF-8.
    before = source.line_text(line).encode()[:column].decode(errors="ignore")
    return source.offset_of_line(line) + len(before)


def _line_span(source: Source, line: int) -> Span:
    line = max(1, min(line, source.lines))
    text = source.line_text(line)
    start = source.offset_of_line(line) + len(text) - len(text.lstrip())
    return Span(source, start, start + len(text.strip()))


def _construct(span: Span) -> str | None:
    """Which Python construct around `span` asks for a truth value: the innermost."""
    found: str | None = None
    smallest = float("inf")
    for node, kind in _asking(span.source):
        start, end = _extent(span.source, node)
        inside = start <= span.start and span.end <= end
        if not _has_columns():
            inside = span.start < end and start < span.end
        if inside and end - start <= smallest:
            found, smallest = kind, end - start
    return found


def _asking(source: Source) -> Iterator[tuple[ast.expr, str]]:
    """Every expression that Python asks the truth of, or whose evaluation does so, with its kind."""
    for node in _nodes(source):
        match node:
            case ast.BoolOp(op=ast.And()):
                yield node, "and"
            case ast.BoolOp():
                yield node, "or"
            case ast.UnaryOp(op=ast.Not()):
                yield node, "not"
            case ast.Compare(ops=[ast.In() | ast.NotIn()]):
                yield node, "in"
            case ast.Compare(ops=[_, _, *_]):
                yield node, "chain"
            case ast.IfExp(test=test):
                yield test, "choice"
            case ast.If(test=test):
                yield test, "if"
            case ast.While(test=test):
                yield test, "while"
            case ast.Assert(test=test):
                yield test, "assert"
            case ast.comprehension(ifs=tests):
                yield from ((test, "if") for test in tests)
            case ast.Call(func=ast.Name(id="min" | "max" | "any" | "all" as name)):
                yield node, name


def _looped_over(span: Span) -> Span:
    """What a `for` statement at `span` iterates over; `span` itself where there is none."""
    for node in _nodes(span.source):
        if isinstance(node, ast.For):
            start = _offset(span.source, node.lineno, node.col_offset)
            if start == span.start:
                return Span(span.source, *_extent(span.source, node.iter))
    return span


def _called(span: Span) -> str | None:
    """The dotted name of the call at `span`, where it is one."""
    named = {}
    for node in _nodes(span.source):
        if isinstance(node, ast.Call):
            start, end = _extent(span.source, node)
            matches = (
                (start, end) == (span.start, span.end) if _has_columns() else start < span.end and span.start < end
            )
            if matches:
                named[end - start] = ast.unparse(node.func)
    return named[min(named)] if named else None


def _nodes(source: Source) -> Iterator[ast.AST]:
    try:
        tree = ast.parse(source.text)
    except (SyntaxError, ValueError):
        return
    yield from ast.walk(tree)


def _extent(source: Source, node: ast.expr) -> tuple[int, int]:
    end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
    return _offset(source, node.lineno, node.col_offset), _offset(source, end_line, end_column)


def _has_columns() -> bool:
    return sys.version_info >= (3, 11)
