"""The object that `@attncc.attention` hands to a function: each call of it records one statement of the language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from attncc.errors import SpecError
from attncc.grammar import syntax
from attncc.grammar.builtins import FUNCTIONS, POSITIONS, SIZES
from attncc.grammar.definitions import prelude
from attncc.grammar.python_annotations import parsed_blocks
from attncc.grammar.python_source import PythonLines
from attncc.grammar.traced import Traced, check_name, choice, function, named, traced, unknown_name
from attncc.ir.expr import Sort
from attncc.source import Source, Span


@dataclass(frozen=True, slots=True)
class Recorded:
    """A statement: `make` builds it from the syntax of its values."""

    make: Callable[..., syntax.InAttention]
    values: tuple[Traced, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class SoftmaxWeights:
    """What `a.softmax(...)` gives to `a.weights`."""

    sinks: tuple[Traced, ...]


class Recorder:
    """Positions, sizes and functions of the language, and its statements.

    `a.q a.k a.b a.h a.h_kv a.row` are positions, `a.batch a.heads a.kv_heads a.queries a.keys a.dim` sizes, `a.s` the
    score so far, `a.inf` infinity, `a.total` and `a.count` the row's sum and live keys in a denominator. Functions of
    the language and forms of the prelude are methods: `a.exp(x)`, `a.causal()`, `a.sliding(w)`.
    """

    def __init__(self, name: str, lines: PythonLines, fallback: Span) -> None:
        self._name = name
        self._lines = lines
        self._fallback = fallback
        self._statements: list[Recorded] = []
        self._scores = 0

    # Statements.

    def mask(self, condition: Any) -> None:
        """`mask condition`: which pairs are live. Several are and-ed."""
        self._record(syntax.Mask, condition)

    def score(self, value: Any) -> None:
        """`score value`: a new score, from `a.s`. Several chain."""
        self._record(syntax.Score, value)
        self._scores += 1

    def weights(self, weights: Any, *, over: Any = None) -> None:
        """`weights softmax`, as `a.softmax()`; or a numerator over `a.s`, perhaps `over=` a denominator."""
        if isinstance(weights, str) and weights == "softmax":
            weights = SoftmaxWeights(())
        if not isinstance(weights, SoftmaxWeights):
            values = (weights,) if over is None else (weights, over)
            self._record(lambda span, above, below=None: syntax.WeightsRatio(span, above, below), *values)
            return
        if over is not None:
            raise self._lines.error("softmax has its own denominator, so `over=` cannot be given")
        self._record(lambda span, *sinks: syntax.WeightsSoftmax(span, sinks), *weights.sinks)

    def reweight(self, factor: Any) -> None:
        """`reweight p * factor`: a factor after normalization, free of the score."""
        # The checker finds `p` by its place, which must not seem to lie inside the factor.
        p = syntax.Name(Span(Source("p", "p"), -1, -1), "p")
        self._record(lambda span, value: syntax.Reweight(span, syntax.Binary(span, "*", span, p, value)), factor)

    def output(self, *names: str) -> None:
        """`output names`: further results, of `lse`, `row_max`, `entropy`, `key_mass`."""
        self._check_names("output", names)
        self._record(lambda span: syntax.Output(span, tuple(syntax.Name(span, n) for n in names)))

    def grid(self, *axes: str, queries: Sequence[str] = (), keys: Sequence[str] = ()) -> None:
        """`grid y, x`, or one for each side: `a.grid(queries=("y", "x"), keys=("v", "u"))`."""
        for side, given in ((None, axes), ("queries", tuple(queries)), ("keys", tuple(keys))):
            if given:
                self._check_names("grid", given)
                self._record_grid(side, given)

    def extent(self, *names: str) -> Any:
        """`extent top`: a size known from the tensors at the call. Gives it, or a tuple of several."""
        self._check_names("extent", names)
        self._record(lambda span: syntax.Extent(span, tuple(syntax.Name(span, n) for n in names)))
        sizes = tuple(named(n, self._lines, Sort.INT) for n in names)
        return sizes[0] if len(sizes) == 1 else sizes

    def blocks(self, name: str, type_text: str, *, size: Sequence[Any]) -> Traced:
        """`blocks name: type size query, key`: tiles chosen at run time. Gives the condition "this tile is listed".

        A size is an int or, on a grid, a tuple with one for each axis.
        """
        self._check_names("blocks", (name,))
        span = self._here()
        declared = parsed_blocks(name, type_text, span, self._lines)
        if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 2:
            raise self._lines.error(
                "size= wants the rows of a block, of queries and of keys", hint="write `size=(64, 64)`"
            )
        boxes = [tuple(s) if isinstance(s, Sequence) else (s,) for s in size]

        def make(span: Span, *sizes: syntax.Expression) -> syntax.Blocks:
            query, key = sizes[: len(boxes[0])], sizes[len(boxes[0]) :]
            return syntax.Blocks(
                span, declared.name, declared.sort, declared.extents, syntax.Box(span, query), syntax.Box(span, key)
            )

        self._record(make, *boxes[0], *boxes[1])
        return named(name, self._lines, Sort.BOOL)

    def require(self, condition: Any, message: str) -> None:
        """`require condition, "message"`: a scalar condition, checked before launch."""
        if not isinstance(message, str):
            raise self._lines.error("the message of a requirement is a string")
        self._record(lambda span, value: syntax.Require(span, value, syntax.Text(span, message)), condition)

    def scale(self, value: Any) -> None:
        """`scale value`: the factor in `s`, 1/sqrt(dim) by default."""
        self._record(syntax.Scale, value)

    # Values.

    @property
    def s(self) -> Traced:
        """The score so far: after `a.score(x)`, `x`."""
        return named("s", self._lines, Sort.FLOAT, score=self._scores)

    @property
    def inf(self) -> Traced:
        """Infinity."""
        return named("inf", self._lines, Sort.FLOAT)

    @property
    def total(self) -> Traced:
        """The sum of the numerator over the row's live keys; in the denominator of weights."""
        return named("total", self._lines, Sort.FLOAT, fixed=True)

    @property
    def count(self) -> Traced:
        """How many live keys the row has; in the denominator of weights."""
        return named("count", self._lines, Sort.INT, fixed=True)

    def softmax(self, *values: Any, sinks: Any = ()) -> SoftmaxWeights:
        """`softmax`, perhaps `with` sinks: further logits of a row, with no value attached."""
        given = (*values, *(sinks if isinstance(sinks, list | tuple) else (sinks,)))
        return SoftmaxWeights(tuple(traced(s, self._lines) for s in given))

    def len(self, axis: Any) -> Traced:
        """The length of a grid's axis: `a.len("y")`, `a.len("q.y")` or `a.len(a.q.y)`."""
        if isinstance(axis, Traced):
            parts = (axis,)
        elif isinstance(axis, str) and all(p.isidentifier() for p in axis.split(".")):
            head, *rest = axis.split(".")
            parts = (named(head, self._lines, Sort.INT),)
            for name in rest:
                parts = (getattr(parts[0], name),)
        else:
            raise self._lines.error("len wants an axis of the grid", hint=f'write `{self._name}.len("y")`')
        made = function("len", self._lines, *parts)
        made._sort = Sort.INT
        return made

    def on_grid(self, position: Any) -> Traced:
        """Whether `a.q` or `a.k` is a token of the grid, not one before or after it."""
        made = function("on_grid", self._lines, position)
        made._sort = Sort.BOOL
        return made

    def where(self, condition: Any, yes: Any, no: Any) -> Traced:
        """`yes if condition else no`; both are evaluated."""
        return choice(condition, yes, no, self._lines)

    def logical_not(self, condition: Any) -> Traced:
        """The opposite; `~condition`."""
        return ~traced(condition, self._lines)

    def __getattr__(self, name: str) -> Any:
        if name in POSITIONS or name in SIZES:
            return named(name, self._lines, Sort.INT)
        if name in FUNCTIONS:
            return _Function(name, self._lines, None)
        definition = prelude().get(name)
        if definition is not None:
            return _Function(name, self._lines, Sort.BOOL if _is_condition(definition.syntax.body) else Sort.FLOAT)
        if name.startswith("__"):
            raise AttributeError(name)
        known = [*POSITIONS, *SIZES, *FUNCTIONS, *prelude(), *(n for n in dir(Recorder) if not n.startswith("_"))]
        raise unknown_name(name, known, self._lines, self._name)

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            raise self._lines.error(
                f"'{self._name}.{name}' cannot be set", hint=f"keep the value in a variable: `{name} = …`"
            )
        object.__setattr__(self, name, value)

    def _record(self, make: Callable[..., syntax.InAttention], *values: Any) -> None:
        given = tuple(traced(v, self._lines) for v in values)
        for value in given:
            if value._score is not None and value._score < self._scores:
                raise self._stale(value)
        self._statements.append(Recorded(make, given, self._here()))

    def _record_grid(self, side: str | None, axes: tuple[str, ...]) -> None:
        self._record(lambda span: syntax.Grid(span, side, tuple(syntax.Name(span, n) for n in axes)))

    def _stale(self, value: Traced) -> SpecError:
        return self._lines.error(
            "this was computed from a score that has been replaced since",
            note=f"`{self._name}.s` is the score so far, and `{self._name}.score` makes a new one",
            hint=f"compute it again from `{self._name}.s`, or before the score it belongs to",
        )

    def _check_names(self, what: str, names: tuple[str, ...]) -> None:
        if not names:
            raise self._lines.error(f"{what} wants names", hint=f'write `{self._name}.{what}("…")`')
        for name in names:
            check_name(name, None, self._lines)

    def _here(self) -> Span:
        return self._lines.here() or self._fallback


class _Function:
    """A function of the language, to be called."""

    def __init__(self, name: str, lines: PythonLines, sort: Sort | None) -> None:
        self._name = name
        self._lines = lines
        self._sort = sort

    def __call__(self, *args: Any, **kwargs: Any) -> Traced:
        made = function(self._name, self._lines, *args, **kwargs)
        if self._sort is not None:
            made._sort = self._sort
        return made


def _is_condition(body: syntax.Expression) -> bool:
    match body:
        case syntax.Compare() | syntax.Binary(operator="and" | "or") | syntax.Unary(operator="not"):
            return True
        case syntax.Conditional(yes=yes):
            return _is_condition(yes)
        case _:
            return False
