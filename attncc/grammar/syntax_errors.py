"""What to say about text that is no statement: an unexpected token, an early end, a stray character."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from attncc.errors import Related
from attncc.grammar.builtins import ATTENTION_HEADS, HEADS, OPERATOR_WORDS
from attncc.grammar.report import Report
from attncc.source import Span


@dataclass(frozen=True, slots=True)
class Found:
    """A token as the diagnostics see it."""

    kind: str
    text: str
    span: Span


def complain_character(report: Report, text: str, span: Span) -> None:
    """A character, or a run of them, that no token begins with."""
    if text.startswith('"'):
        closed = text.endswith('"') and len(text) > 1
        if closed:
            report.error("a string holds no control characters", span)
        else:
            report.error("this string is never closed", span, hint='end it with `"` on the same line')
        return
    if len(text) == 1 and not text.isprintable():
        report.error(f"unexpected character U+{ord(text):04X}", span, hint="remove it")
        return
    if text == "'":
        report.error('a string is written with `"`', span)
        return
    hint = _CHARACTER_HINTS.get(text)
    note = None
    if hint is None and not text.isascii():
        note = "names are made of the letters a to z and A to Z, digits and `_`; anything may stand in a comment"
    report.error(f"unexpected character{'' if len(text) == 1 else 's'} '{_shown(text)}'", span, note=note, hint=hint)


def complain_pair(report: Report, before: str, text: str, span: Span) -> bool:
    """Two tokens without a space between them that other languages read as one operator; False for others."""
    pair = before + text
    if pair not in _PAIR_HINTS:
        return False
    report.error(f"'{pair}' is not an operator", span, hint=_PAIR_HINTS[pair])
    return True


def complain_reserved(report: Report, word: str, span: Span) -> None:
    """A statement head where a name was wanted."""
    report.error(
        f"'{word}' cannot be a name: it begins a statement",
        span,
        note=f"reserved words are {', '.join((*HEADS, *OPERATOR_WORDS))}",
        hint="choose another name",
    )


def complain_unknown_statement(report: Report, word: str, span: Span, meant: str | None) -> None:
    """A line that begins with no statement's head."""
    if meant is not None:
        report.error(f"'{word}' is not a statement", span, hint=f"did you mean '{meant}'?")
        return
    note = f"the statements of an attention are {', '.join(ATTENTION_HEADS)}"
    report.error(f"'{word}' does not begin a statement", span, note=note, hint=_STATEMENT_HINTS.get(word))


def misspelled_head(word: str, *, strict: bool = False) -> str | None:
    """The statement head that a word was likely meant to be; `strict` asks for a very close one."""
    lowered = word.lower()
    if lowered in _STATEMENT_SYNONYMS and not strict:
        return _STATEMENT_SYNONYMS[lowered]
    close = difflib.get_close_matches(lowered, HEADS, n=1, cutoff=0.75 if strict else 0.7)
    return close[0] if close else None


def complain_token(report: Report, tokens: Sequence[Found], i: int, accepted: frozenset[str]) -> None:
    """Token `i` cannot follow the ones before it; `accepted` are the kinds that could."""
    token, before = tokens[i], tokens[i - 1]
    hint = _statement_hint(tokens, i) or _token_hint(token, accepted)
    if token.kind == "RPAR" and "RPAR" not in accepted and not _open(tokens[:i], "LPAR"):
        report.error("this ')' closes nothing", token.span, hint="remove it, or open a '(' before it")
        return
    if token.kind == "RSQB" and "RSQB" not in accepted and not _open(tokens[:i], "LSQB"):
        report.error("this ']' closes nothing", token.span, hint="remove it, or open a '[' before it")
        return
    if token.text in OPERATOR_WORDS and "NAME" in accepted:
        expected = _expected(accepted)
        report.error(f"expected {expected}, found the reserved word '{token.text}'", token.span, hint=hint)
        return
    if "PLUS" in accepted and "NAME" not in accepted:
        # An expression is complete: only an operator, or what ends it, may follow.
        note = f"an operator{_closers(accepted)} may follow '{_shown(before.text)}'"
        report.error(f"unexpected '{_shown(token.text)}'", token.span, note=note, hint=hint)
        return
    report.error(f"expected {_expected(accepted)}, found '{_shown(token.text)}'", token.span, hint=hint)


def complain_end(report: Report, tokens: Sequence[Found], unclosed: Span | None, accepted: frozenset[str]) -> None:
    """The statement ends before it is complete; `unclosed` is a bracket left open in it."""
    last = tokens[-1]
    end = Span(last.span.source, last.span.end, last.span.end)
    if unclosed is not None:
        report.error(
            f"this '{unclosed.text}' is never closed",
            unclosed,
            related=(Related(Span(end.source, last.span.start, last.span.end), "the statement ends here"),),
        )
        return
    head = tokens[0].text
    hint = _END_HINTS.get((head, len(tokens))) or _statement_hint(tokens, len(tokens))
    if "ELSE" in accepted:
        hint = "a choice has both results: `x if condition else y`"
    if head == "require" and "COMMA" in accepted:
        hint = 'a requirement has a message: `require condition, "message"`'
    if head == "blocks" and "SIZE" in {t.kind for t in tokens}:
        hint = "write the rows of a block of queries and of a block of keys: `size 64, 64`"
    report.error(f"this '{head}' ends too early: expected {_expected(accepted)}", end, hint=hint)


def _shown(text: str) -> str:
    text = text if len(text) <= 20 else text[:20] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _open(tokens: Sequence[Found], kind: str) -> bool:
    closing = {"LPAR": "RPAR", "LSQB": "RSQB"}[kind]
    return sum((t.kind == kind) - (t.kind == closing) for t in tokens) > 0


def _expected(accepted: frozenset[str]) -> str:
    if "INT" in accepted and "NAME" in accepted:
        return "an expression"
    if "PLUS" in accepted:
        return f"an operator{_closers(accepted)}"
    known = [_KINDS[kind] for kind in _KINDS if kind in accepted]
    if len(known) <= 1:
        return known[0] if known else "the end of the statement"
    return f"{', '.join(known[:-1])} or {known[-1]}"


def _closers(accepted: frozenset[str]) -> str:
    kinds = ("RPAR", "RSQB", "COMMA", "ELSE", "DOTDOT")
    closers = [_KINDS[kind] for kind in kinds if kind in accepted]
    if "$END" in accepted:
        closers.append("the next statement")
    if not closers:
        return ""
    return f", {', '.join(closers[:-1])} or {closers[-1]}" if len(closers) > 1 else f" or {closers[0]}"


def _statement_hint(tokens: Sequence[Found], i: int) -> str | None:
    """A fix for a mistake common in one statement, from its tokens up to the wrong one."""
    kinds = " ".join(t.kind for t in tokens[: i + 1])
    for pattern, hint in _STATEMENT_PATTERNS:
        if kinds == pattern:
            return hint.format(*(t.text for t in tokens))
    words = [t.text for t in tokens[: i + 1]]
    if words[0] == "def" and words[-1] == ":":
        return "a def is one expression: `def name(a, b) = expression`"
    if words[0] == "weights" and words[-1] == "along":
        return "normalization along queries is reserved for later; `weights` normalizes along keys"
    return None


def _token_hint(token: Found, accepted: frozenset[str]) -> str | None:
    if token.kind == "EQ" and "ASSIGN" in accepted:
        return "write `=` to give a name its value"
    if token.kind == "ASSIGN":
        return "write `==` to compare"
    if token.text == "//" and "PLUS" not in accepted:
        return "a comment begins with `#`"
    if token.kind == "COLON" and "RSQB" in accepted:
        return "there are no slices: an index reads one element"
    if token.kind == "IF" and "INT" in accepted:
        return "a choice is written `x if condition else y`"
    return _WORD_HINTS.get(token.text)


# In the order in which alternatives are listed.
_KINDS = {
    "NAME": "a name",
    "STRING": 'a string in `"`',
    "ASSIGN": "'='",
    "COLON": "':'",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "COMMA": "','",
    "DOTDOT": "'..'",
    "ELSE": "'else'",
    "SIZE": "'size'",
    "ALONG": "'along'",
    "LEARNABLE": "'learnable'",
    "SORTED": "'sorted'",
    "IN": "'in'",
    "WITH": "'with'",
    "OVER": "'over'",
    "$END": "the end of the statement",
}

_CHARACTER_HINTS = {
    ";": "statements need nothing between them",
    "!": "write `not` to negate, `!=` for unequal",
    "{": "blocks need no braces: an attention runs to the next one",
    "}": "blocks need no braces: an attention runs to the next one",
    "?": "a choice is written `x if condition else y`",
    "@": "there is no matrix product: `s` is the scaled dot product",
    "\\": "an expression may go on in the next line without a mark",
    "≤": "write `<=`",
    "≥": "write `>=`",
    "≠": "write `!=`",
    "−": "write the hyphen `-`",
    "–": "write the hyphen `-`",
    "×": "write `*`",
    "·": "write `*`",
    "÷": "write `/`",
    "∞": "write `inf`",
    "∧": "write `and`",
    "∨": "write `or`",
    "¬": "write `not`",
    "√": "write `sqrt(x)`",
    "“": 'strings take the straight `"`',
    "”": 'strings take the straight `"`',
}
_PAIR_HINTS = {
    "&&": "write `and`",
    "||": "write `or`",
    "=<": "write `<=`",
    "=>": "write `>=`",
    "->": "a `def` is written `def name(a, b) = expression`",
    "<>": "write `!=`",
    ":=": "write `let name = expression` as a statement of its own",
    "===": "write `==`",
    "+=": "nothing is assigned: several `score` lines chain, several `mask` lines are and-ed",
    "-=": "nothing is assigned: several `score` lines chain, several `mask` lines are and-ed",
    "*=": "nothing is assigned: several `score` lines chain, several `mask` lines are and-ed",
}
_WORD_HINTS = {
    "is": "write `==` to compare",
    "in": "write `low <= x < high`",
    "then": "a choice is written `x if condition else y`",
    "xor": "write `!=` on bools, `^` on ints",
    "mod": "write `%`",
    "div": "write `//`",
}
_STATEMENT_SYNONYMS = {"bias": "score", "constant": "const", "where": "mask", "import": "use", "function": "def"}
_STATEMENT_HINTS = {
    "if": "nothing stands under a condition; write `mask a if condition else b`",
    "for": "there are no loops: a statement holds for every pair of a query and a key",
    "while": "there are no loops: a statement holds for every pair of a query and a key",
    "return": "a `def` is one expression: `def name(a, b) = expression`",
    "dropout": "random numbers in a spec are reserved for later",
    "softmax": "write `weights softmax`",
    "causal": "write `mask causal()`",
    "elif": "nothing stands under a condition; write `mask a if condition else b`",
}
# Token kinds up to and with the wrong one (all of them where the end came too early) → the fix.
_STATEMENT_PATTERNS = (
    ("PARAM NAME ASSIGN", "a param has a sort: `param {1}: int = …`, or float, or bool"),
    ("PARAM NAME", "a param has a sort: `param {1}: int`, or float, or bool"),
    ("CONST NAME ASSIGN", "a const has a sort: `const {1}: int = …`, or float, or bool"),
    ("CONST NAME COLON NAME", "a const has a value: `const {1}: {3} = …`"),
    ("PARAM NAME COLON NAME LSQB", "a tensor is an input: `input {1}: {3}[…]`"),
    ("CONST NAME COLON NAME LSQB", "a tensor is an input: `input {1}: {3}[…]`"),
    ("INPUT NAME LSQB", "an input has a sort: `input {1}: float[…]`, or int, or bool"),
    ("INPUT NAME", "an input has a sort and extents: `input {1}: float[heads]`"),
    ("INPUT NAME COLON NAME", "an input has extents: `input {1}: {3}[heads]`; a scalar is `param {1}: {3}`"),
    ("INPUT NAME COLON NAME ASSIGN", "an input has extents and no value; a scalar is `param {1}: {3} = …`"),
    ("INPUT NAME COLON NAME LSQB RSQB", "a scalar is `param {1}: {3}`; a learnable one is `input {1}: float[1]`"),
    ("ATTENTION NAME COLON", "a block needs no ':': its statements follow"),
    ("ATTENTION NAME LPAR", "params and inputs are statements: `param window: int = 256`"),
    ("ATTENTION NAME ASSIGN", "a block needs no '=': its statements follow"),
    ("DEF NAME ASSIGN", "a def without arguments is written `def {1}() = …`"),
    ("DEF NAME LPAR RPAR COLON", "a def is one expression: `def {1}() = …`"),
    ("DEF NAME LPAR NAME COLON", "arguments of a def have no sort: `def {1}({3}) = …`"),
    ("SCORE ASSIGN", "nothing is assigned: write `score …`, the new score from `s`, the one before"),
    ("MASK ASSIGN", "nothing is assigned: write `mask …`; several are and-ed"),
    ("WEIGHTS ASSIGN", "nothing is assigned: write `weights …`"),
    ("SCALE ASSIGN", "nothing is assigned: write `scale …`"),
    ("REWEIGHT ASSIGN", "nothing is assigned: write `reweight p * …`"),
    ("ATTENTION NAME MINUS", "names are made of letters, digits and `_`"),
    ("LET NAME COLON", "a let has no sort: `let {1} = …`"),
    ("WEIGHTS SOFTMAX LPAR", "write `weights softmax`: it applies to the final score"),
    ("WEIGHTS SOFTMAX OVER", "softmax is already divided by its sum; write `weights exp(s) over …` for another"),
    ("USE NAME", 'write the file as a string: `use "{1}.attn"`'),
    ("GRID LPAR", "axes are names: `grid y, x`"),
    ("GRID INT", "axes are names: `grid y, x`; their lengths are given at the call: `grid=(H, W)`"),
)
_END_HINTS = {
    ("mask", 1): "a dense attention needs no mask",
}
