"""Text → syntax tree: lark reads the tokens and each statement; files are cut into statements here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import lark

from attncc.errors import SpecError
from attncc.grammar import syntax
from attncc.grammar.builtins import HEADS
from attncc.grammar.grouping import group
from attncc.grammar.report import Report
from attncc.grammar.syntax_errors import (
    Found,
    complain_character,
    complain_end,
    complain_pair,
    complain_reserved,
    complain_token,
    complain_unknown_statement,
    misspelled_head,
)
from attncc.grammar.tables import load_parser
from attncc.source import Source, Span

LONGEST_FILE = 1_000_000
DEEPEST_BRACKETS = 100

_HEAD_TYPES = frozenset(head.upper() for head in HEADS)
_SOFT_TYPES = frozenset(("LEARNABLE", "SORTED", "ALONG", "IN", "SIZE", "OVER", "WITH", "QUERIES", "KEYS", "SOFTMAX"))
_OPENING = frozenset(("LPAR", "LSQB"))
_CLOSING = frozenset(("RPAR", "RSQB"))
_SILENT_CONTINUATIONS = frozenset(("LPAR", "LSQB", "MINUS"))


def parse(source: Source) -> syntax.File:
    """The syntax tree of a file. Raises SpecError with every syntax error in it."""
    report = Report(source)
    file = recover(source, report)
    if report.errors:
        raise SpecError(report.errors)
    return file


def recover(source: Source, report: Report) -> syntax.File:
    """The syntax tree of what parses; errors go to `report`, and a statement with one becomes `Broken`."""
    if len(source.text) > LONGEST_FILE:
        report.error(
            f"this file has {len(source.text)} characters; a spec has at most {LONGEST_FILE}", Span(source, 0, 0)
        )
        return syntax.File(source, (), (), ())
    statements: list[syntax.Statement] = []
    pieces = _pieces(_lex(source))
    swallowed = False
    for i, piece in enumerate(pieces):
        if swallowed:
            swallowed = False
            continue
        following = pieces[i + 1][0] if i + 1 < len(pieces) else None
        swallowed = _Piece(piece, following, report).parse_into(statements)
    return group(source, statements, report)


class _Lexeme(lark.Token):
    """A token that knows its span."""

    __slots__ = ("span",)
    span: Span


def _lexeme(kind: str, text: str, span: Span) -> _Lexeme:
    lexeme = _Lexeme(kind, text)
    lexeme.span = span
    return lexeme


@functools.cache
def _lark() -> lark.Lark:
    return load_parser(_Builder())


def _lex(source: Source) -> Iterator[_Lexeme]:
    for token in _lark().lex(source.text):
        start = cast(int, token.start_pos)
        yield _lexeme(token.type, str(token), Span(source, start, start + len(token)))


def _pieces(tokens: Iterator[_Lexeme]) -> list[list[_Lexeme]]:
    pieces: list[list[_Lexeme]] = []
    for token in tokens:
        if token.type in _HEAD_TYPES or not pieces:
            pieces.append([])
        pieces[-1].append(token)
    return pieces


class _Piece:
    """The tokens from one statement head to the next: one statement, unless something is wrong."""

    def __init__(self, tokens: list[_Lexeme], following: _Lexeme | None, report: Report) -> None:
        self.tokens = tokens
        self.following = following
        self.report = report

    def parse_into(self, statements: list[syntax.Statement]) -> bool:
        """Appends what the piece says. True where the head that follows was meant as a name, and is dealt with."""
        if self.tokens[0].type not in _HEAD_TYPES and not self._adopt_head():
            return False
        if self._report_characters() or self._report_layout():
            statements.append(self._broken())
            return False
        parser: Any = _lark().parse_interactive(start="start")
        for i, token in enumerate(self.tokens):
            # The table alone would let a soft word end an expression in places where none can follow it.
            if token.type in _SOFT_TYPES and token.type not in parser.accepts():
                token = _lexeme("NAME", str(token), token.span)
            try:
                parser.feed_token(token)
            except lark.UnexpectedToken:
                return self._fail(i, parser, statements)
        try:
            statements.append(parser.feed_eof(self.tokens[-1]))
        except lark.UnexpectedToken:
            statements.append(self._broken())
            return self._fail_at_end(parser)
        return False

    def _adopt_head(self) -> bool:
        """Whether the first word, which is no head, was meant as one; it is reported either way."""
        first = self.tokens[0]
        if first.type == "BAD":
            self._report_characters()
            return False
        meant = misspelled_head(str(first)) if len(self.tokens) > 1 else None
        complain_unknown_statement(self.report, str(first), first.span, meant)
        if meant is None:
            return False
        self.tokens = [_lexeme(meant.upper(), meant, first.span), *self.tokens[1:]]
        return True

    def _fail(self, i: int, parser: Any, statements: list[syntax.Statement]) -> bool:
        token = self.tokens[i]
        accepted = frozenset(parser.accepts())
        word = token.type == "NAME" or token.type in _SOFT_TYPES or token.type == "IF"
        if word and "$END" in accepted and (_begins_line(token) or misspelled_head(str(token), strict=True)):
            # The statement ended before this word, which begins no statement: perhaps a misspelled head.
            statements.append(parser.feed_eof(self.tokens[i - 1]))
            return _Piece(self.tokens[i:], self.following, self.report).parse_into(statements)
        statements.append(self._broken())
        complain_token(self.report, self._found(), i, accepted)
        return False

    def _fail_at_end(self, parser: Any) -> bool:
        last, following = self.tokens[-1], self.following
        if following is not None and following.span.line == last.span.line:
            complain_reserved(self.report, str(following), following.span)
            return True
        unclosed = _unclosed(self.tokens)
        complain_end(self.report, self._found(), unclosed.span if unclosed else None, frozenset(parser.accepts()))
        return False

    def _found(self) -> list[Found]:
        return [Found(t.type, str(t), t.span) for t in self.tokens]

    def _broken(self) -> syntax.Broken:
        head = str(self.tokens[0])
        named = [t for t in self.tokens[1:2] if t.type == "NAME" or t.type in _SOFT_TYPES]
        return syntax.Broken(_between(self.tokens[0], self.tokens[-1]), head, str(named[0]) if named else None)

    def _report_characters(self) -> bool:
        """Reports what is wrong with single tokens. A number out of range alone does not stop the parsing."""
        wrong = False
        depth = 0
        for i, token in enumerate(self.tokens):
            depth += (token.type in _OPENING) - (token.type in _CLOSING)
            before = self.tokens[i - 1].span if i else None
            if before is not None and before.end == token.span.start:
                wrong |= complain_pair(self.report, before.text, str(token), before.to(token.span))
            if token.type == "BAD":
                complain_character(self.report, str(token), token.span)
                wrong = True
            elif token.type in ("INT", "FLOAT"):
                wrong |= self._report_number(token, self.tokens[i + 1 : i + 2])
            elif depth > DEEPEST_BRACKETS:
                self.report.error(
                    f"brackets nest deeper than {DEEPEST_BRACKETS}", token.span, hint="name the parts with `let`"
                )
                return True
        return wrong

    def _report_number(self, token: _Lexeme, after: Sequence[_Lexeme]) -> bool:
        for next_token in after:
            if next_token.span.start == token.span.end and next_token[0].isalnum() | (next_token[0] == "_"):
                both = token.span.to(next_token.span)
                self.report.error(
                    f"'{both.text}' is neither a number nor a name",
                    both,
                    hint=f"write `{token} * {next_token}` for a product; a name does not begin with a digit",
                )
                return True
        return _number(token, self.report) is None

    def _report_layout(self) -> bool:
        """Rule 10: a line that looks like a new beginning, but would continue the one above."""
        head = self.tokens[0]
        indentation = _indentation(head.span)
        depth = 0
        for token in self.tokens[1:]:
            outside = depth == 0 and token.type in _SILENT_CONTINUATIONS and _begins_line(token)
            if outside and _indentation(token.span) <= indentation:
                self.report.error(
                    f"this line would silently continue the '{head}' above",
                    token.span,
                    note=f"a line that begins with '{token}' belongs to the statement before it",
                    hint=f"indent it further than '{head}', or end the line above with an operator",
                )
                return True
            depth += (token.type in _OPENING) - (token.type in _CLOSING)
        return False


def _begins_line(token: _Lexeme) -> bool:
    source, start = token.span.source, token.span.start
    return not source.text[source.offset_of_line(token.span.line) : start].strip()


def _indentation(span: Span) -> int:
    """The column at which the span's line begins, a tab reaching the next multiple of eight."""
    line = span.source.line_text(span.line)
    return len(line.expandtabs(8)) - len(line.expandtabs(8).lstrip())


def _unclosed(tokens: Sequence[_Lexeme]) -> _Lexeme | None:
    stack: list[_Lexeme] = []
    for token in tokens:
        if token.type in _OPENING:
            stack.append(token)
        elif token.type in _CLOSING and stack:
            stack.pop()
    return stack[-1] if stack else None


def _number(token: _Lexeme, report: Report | None) -> int | float | None:
    text = str(token).replace("_", "")
    if token.type == "FLOAT":
        value = float(text)
        if value == float("inf") and report is not None:
            report.error("this number is too large for a float", token.span, hint="write `inf` for infinity")
            return None
        return value
    # Digits are counted first: Python refuses to convert very long ones.
    number = None if len(text) > 40 else int(text, 16 if text[:2] in ("0x", "0X") else 10)
    if number is None or number >= 2**63:
        if report is not None:
            report.error("this integer does not fit in 64 bits", token.span)
        return None
    return number


def _between(first: Any, last: Any) -> Span:
    return cast(Span, first.span.to(last.span))


def _name(token: _Lexeme) -> syntax.Name:
    return syntax.Name(token.span, str(token))


def _text(token: _Lexeme) -> syntax.Text:
    return syntax.Text(token.span, str(token)[1:-1])


_spelled = lark.v_args(inline=True)


@_spelled
class _Builder(lark.Transformer[Any, Any]):
    """Builds a node as each rule of the grammar is recognised; arguments are its tokens and nodes, in order."""

    def use(self, head: Any, path: Any) -> syntax.Use:
        return syntax.Use(_between(head, path), _text(path))

    def define(self, head: Any, name: Any, *rest: Any) -> syntax.Define:
        formals = rest[1] if len(rest) == 5 else ()
        return syntax.Define(_between(head, rest[-1]), _name(name), formals, rest[-1])

    def attention(self, head: Any, name: Any) -> syntax.Header:
        return syntax.Header(_between(head, name), _name(name))

    def const(self, head: Any, name: Any, _colon: Any, sort: Any, _assign: Any, value: Any) -> syntax.Const:
        return syntax.Const(_between(head, value), _name(name), _name(sort), value)

    def param(self, head: Any, name: Any, _colon: Any, sort: Any, *value: Any) -> syntax.Param:
        return syntax.Param(_between(head, (sort, *value)[-1]), _name(name), _name(sort), value[-1] if value else None)

    def input(self, head: Any, name: Any, _c: Any, sort: Any, _l: Any, extents: Any, *rest: Any) -> syntax.Input:
        return syntax.Input(_between(head, rest[-1]), _name(name), _name(sort), extents, rest[1:])

    def fact(self, first: Any, *rest: Any) -> syntax.Fact:
        match first.type:
            case "LEARNABLE":
                return syntax.Learnable(first.span)
            case "SORTED":
                return syntax.Sorted(_between(first, rest[-1]), _name(rest[-1]))
            case _:
                return syntax.Within(_between(first, rest[-1]), rest[0], rest[2])

    def grid(self, head: Any, *rest: Any) -> syntax.Grid:
        side = str(rest[0]) if len(rest) == 2 else None
        return syntax.Grid(_between(head, rest[-1][-1]), side, rest[-1])

    def let(self, head: Any, name: Any, _assign: Any, value: Any) -> syntax.Let:
        return syntax.Let(_between(head, value), _name(name), value)

    def mask(self, head: Any, value: Any) -> syntax.Mask:
        return syntax.Mask(_between(head, value), value)

    def score(self, head: Any, value: Any) -> syntax.Score:
        return syntax.Score(_between(head, value), value)

    def softmax(self, head: Any, word: Any, *rest: Any) -> syntax.WeightsSoftmax:
        sinks = rest[-1] if rest else ()
        return syntax.WeightsSoftmax(_between(head, sinks[-1] if sinks else word), sinks)

    def ratio(self, head: Any, numerator: Any, *rest: Any) -> syntax.WeightsRatio:
        last = rest[-1] if rest else numerator
        return syntax.WeightsRatio(_between(head, last), numerator, rest[-1] if rest else None)

    def reweight(self, head: Any, value: Any) -> syntax.Reweight:
        return syntax.Reweight(_between(head, value), value)

    def output(self, head: Any, names: Any) -> syntax.Output:
        return syntax.Output(_between(head, names[-1]), names)

    def blocks(self, head: Any, name: Any, _c: Any, sort: Any, _l: Any, extents: Any, *rest: Any) -> syntax.Blocks:
        _, _, query_size, _, key_size = rest
        return syntax.Blocks(_between(head, key_size), _name(name), _name(sort), extents, query_size, key_size)

    def box(self, *parts: Any) -> syntax.Box:
        sizes = tuple(p for p in parts if not isinstance(p, lark.Token))
        return syntax.Box(_between(parts[0], parts[-1]), sizes)

    def extent(self, head: Any, names: Any) -> syntax.Extent:
        return syntax.Extent(_between(head, names[-1]), names)

    def require(self, head: Any, condition: Any, _comma: Any, message: Any) -> syntax.Require:
        return syntax.Require(_between(head, message), condition, _text(message))

    def scale(self, head: Any, value: Any) -> syntax.Scale:
        return syntax.Scale(_between(head, value), value)

    def formals(self, *parts: Any) -> tuple[syntax.Formal, ...]:
        return tuple(p for p in parts if isinstance(p, syntax.Formal))

    def formal(self, name: Any, *default: Any) -> syntax.Formal:
        return syntax.Formal(
            _between(name, default[-1] if default else name), _name(name), default[-1] if default else None
        )

    def names(self, *parts: Any) -> tuple[syntax.Name, ...]:
        return tuple(_name(p) for p in parts if p.type != "COMMA")

    def exprs(self, *parts: Any) -> tuple[syntax.Expression, ...]:
        return tuple(p for p in parts if not isinstance(p, lark.Token))

    def conditional(self, yes: Any, _if: Any, condition: Any, _else: Any, no: Any) -> syntax.Conditional:
        return syntax.Conditional(_between(yes, no), condition, yes, no)

    def binary(self, left: Any, operator: Any, right: Any) -> syntax.Binary:
        return syntax.Binary(_between(left, right), str(operator), operator.span, left, right)

    def unary(self, operator: Any, operand: Any) -> syntax.Unary:
        return syntax.Unary(_between(operator, operand), str(operator), operator.span, operand)

    def compare(self, *parts: Any) -> syntax.Compare:
        operators = tuple((str(p), p.span) for p in parts[1::2])
        return syntax.Compare(_between(parts[0], parts[-1]), parts[::2], operators)

    def index(self, base: Any, _open: Any, indices: Any, close: Any) -> syntax.Index:
        return syntax.Index(_between(base, close), base, indices)

    def attribute(self, base: Any, _dot: Any, name: Any) -> syntax.Attribute:
        return syntax.Attribute(_between(base, name), base, _name(name))

    def call(self, function: Any, *parts: Any) -> syntax.Call:
        arguments = tuple(p for p in parts if isinstance(p, syntax.Argument))
        return syntax.Call(_between(function, parts[-1]), function, arguments)

    def actual(self, *parts: Any) -> syntax.Argument:
        keyword = _name(parts[0]) if len(parts) == 3 else None
        return syntax.Argument(_between(parts[0], parts[-1]), keyword, parts[-1])

    def name(self, token: Any) -> syntax.Name:
        return _name(token)

    def number(self, token: Any) -> syntax.Literal:
        value = _number(token, None)
        assert value is not None, "numbers out of range are reported before parsing"
        return syntax.Literal(token.span, value)

    def boolean(self, token: Any) -> syntax.Literal:
        return syntax.Literal(token.span, str(token) == "true")

    def paren(self, opening: Any, value: Any, closing: Any) -> syntax.Expression:
        # The brackets belong to the span, so that a diagnostic underlines them with what they hold.
        rebuilt: Callable[..., syntax.Expression] = type(value)
        fields = (getattr(value, f) for f in value.__slots__ if f != "span")
        return rebuilt(_between(opening, closing), *fields)
