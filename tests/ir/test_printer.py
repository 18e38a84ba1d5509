"""Canonical text parses back to the same spec; expressions read as the language writes them."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import PAIR_LEAVES, expressions, specs

from attncc.ir.expr import Call, Const, Coord, Expr, Listed, Load, Param, Score, Size, Sort, to_const
from attncc.ir.intrinsics import call
from attncc.ir.printer import InvalidText, parse_spec, print_expr, print_spec, spec_key
from attncc.ir.spec import Clause, Parameter, Spec
from attncc.ir.traversal import expressions_of
from attncc.source import Source, Span

Q, K, B, S = Coord("q"), Coord("k"), Coord("b"), Score()
W, ON = Param("w", Sort.INT), Param("on", Sort.BOOL)
SPEC = Spec("causal", masks=(Clause(call("le", K, Q)),), scores=(Clause(call("mul", S, to_const(0.1))),))
TEXT = """\
attncc-ir 1
%0 = coord "k"
%1 = coord "q"
%2 = call le bool %0 %1
%3 = score
%4 = const float 0x1.999999999999ap-4
%5 = call mul float %3 %4
spec "causal"
mask %2
score %5
softmax
"""


def test_golden() -> None:
    assert print_spec(SPEC) == TEXT
    assert spec_key(SPEC) == spec_key(parse_spec(TEXT))
    assert re.fullmatch("[0-9a-f]{64}", spec_key(SPEC))


@settings(max_examples=50, deadline=None)
@given(spec=specs())
def test_round_trip(spec: Spec) -> None:
    text = print_spec(spec)
    assert parse_spec(text) == spec
    assert print_spec(parse_spec(text)) == text


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -0.0, 5e-324, 0.1, 1e308])
def test_floats_survive(value: float) -> None:
    spec = replace(SPEC, scores=(Clause(to_const(value)),))
    assert parse_spec(print_spec(spec)) == spec


def test_spans_leave_no_trace() -> None:
    span = Span(Source("a.attn", "mask k <= q"), 5, 11)
    moved = replace(SPEC, masks=(Clause(SPEC.masks[0].expr, span),), span=span)
    assert spec_key(moved) == spec_key(SPEC)


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, name="other"),
        replace(SPEC, masks=()),
        replace(SPEC, scores=(Clause(call("mul", S, to_const(0.2))),)),
        replace(SPEC, params=(Parameter("w", Sort.INT, None),)),
        replace(SPEC, outputs=("lse",)),
        replace(SPEC, scale=to_const(1.0)),
    ],
)
def test_different_specs_have_different_keys(other: Spec) -> None:
    assert spec_key(other) != spec_key(SPEC)


def test_names_cannot_forge_lines() -> None:
    spec = replace(SPEC, name='x"\nmask %0', params=(Parameter('w" int\n%0 = score', Sort.INT, None),))
    assert parse_spec(print_spec(spec)) == spec


def test_deep_and_wide_expressions_print_in_linear_space() -> None:
    deep: Expr = S
    for _ in range(3000):
        deep = call("add", deep, deep)
    spec = Spec("deep", scores=(Clause(deep),))
    text = print_spec(spec)
    assert len(text.splitlines()) == 3005
    assert expressions_of(parse_spec(text))[0] is deep
    assert len(print_expr(deep)) <= 1000
    assert "…" in print_expr(deep)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("attncc-ir 1", "attncc-ir 2", "line 1: not 'attncc-ir 1'"),
        ("%0 %1", "%0 %9", "line 4: %9 is not defined above"),
        ("call le", "call lex", "line 4: no operation 'lex' of 2 operands"),
        ("%0 %1", "%0", "line 4: no operation 'le' of 1 operands"),
        ("le bool", "le string", "line 4: malformed"),
        ('"k"', "k", "line 2: malformed"),
        ('coord "k"', "coord 3", "line 2: 3 is not a string"),
        ("= score", "= scored", "line 5: no such node"),
        ("float 0x1.999999999999ap-4", "float zero", "line 6: malformed"),
        ("float 0x1.999999999999ap-4", "int 0.5", "line 6: 0.5 is not a int"),
        ("%1 = ", "%0 = ", "line 3: %0 is defined twice"),
        ('spec "causal"\n', "", "line 8: a statement before 'spec'"),
        ("mask %2", "masks %2", "line 9: no such statement"),
        ("softmax", "output other", "line 11: no such statement"),
        (TEXT, "", "line 1"),
        (TEXT[TEXT.index("spec") :], "", "no 'spec' line"),
    ],
)
def test_bad_text_is_refused_by_line(old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidText, match=f"^{re.escape(message)}"):
        parse_spec(TEXT.replace(old, new, 1))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_text_raises_nothing_else(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(TEXT)))
    end = data.draw(st.integers(start, min(len(TEXT), start + 6)))
    with contextlib.suppress(InvalidText):
        parse_spec(TEXT[:start] + data.draw(st.text(max_size=4)) + TEXT[end:])


def _(op: str, *args: Expr) -> Expr:
    return call(op, *args)


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (_("le", _("abs", _("sub", Q, K)), W), "abs(q - k) <= w"),
        (_("sub", Q, _("sub", K, W)), "q - (k - w)"),
        (_("sub", _("sub", Q, K), W), "q - k - w"),
        (_("mul", _("add", Q, K), W), "(q + k) * w"),
        (_("floordiv", _("mod", Q, W), K), "q % w // k"),
        (_("mod", Q, _("floordiv", W, K)), "q % (w // k)"),
        (_("or", _("and", ON, _("lt", Q, K)), ON), "on and q < k or on"),
        (_("and", ON, _("or", ON, ON)), "on and (on or on)"),
        (_("not", _("lt", Q, K)), "not q < k"),
        (_("eq", _("not", ON), ON), "(not on) == on"),
        (_("eq", _("lt", Q, K), _("lt", K, Q)), "(q < k) == (k < q)"),
        (_("neg", _("pow", Q, to_const(2))), "-q ** 2"),
        (_("pow", _("neg", Q), to_const(2)), "(-q) ** 2"),
        (_("pow", to_const(2.0), _("neg", S)), "2.0 ** -s"),
        (_("pow", _("pow", S, S), S), "(s ** s) ** s"),
        (_("where", ON, _("where", ON, Q, K), W), "(q if on else k) if on else w"),
        (_("where", ON, Q, _("where", ON, K, W)), "q if on else k if on else w"),
        (_("add", Q, _("where", ON, Q, K)), "q + (q if on else k)"),
        (_("bitand", _("shl", Q, to_const(1)), _("bitnot", K)), "q << 1 & ~k"),
        (_("mul", S, Q), "s * q"),
        (_("clamp", Q, to_const(0), _("sub", Size("keys"), to_const(1))), "clamp(q, 0, keys - 1)"),
        (_("min", _("where", ON, Q, K), K), "min(q if on else k, k)"),
        (Load("doc", (B, _("add", K, to_const(1))), Sort.INT), "doc[b, k + 1]"),
        (_("and", Listed("table"), to_const(True)), "table and true"),
        (_("sub", Q, to_const(-1)), "q - -1"),
        (_("pow", to_const(-2.0), S), "(-2.0) ** s"),
        (_("min", S, to_const(-math.inf)), "min(s, -inf)"),
        (_("lt", Coord("q.y"), Size("q.y")), "q.y < len(q.y)"),
        (Size("keys.x"), "len(k.x)"),
    ],
)
def test_expressions_in_the_languages_notation(expr: Expr, text: str) -> None:
    assert print_expr(expr) == text


@settings(max_examples=150, deadline=None)
@given(expr=expressions(Sort.INT, PAIR_LEAVES, 4))
def test_notation_has_pythons_precedence(expr: Expr) -> None:
    """Python's own parser, reading the text, finds the same tree."""
    text = print_expr(expr, limit=10**6).replace("true", "True").replace("false", "False").replace("\n", " ")
    assert _shape_of_python(text) == _shape(expr)


def _shape(expr: Expr) -> object:
    match expr:
        case Call(op="to_float", args=(x,)):
            return _shape(x)
        case Call(op=op, args=args):
            return (op, *map(_shape, args))
        case Load(index=index):
            return ("load", *map(_shape, index))
        case Const(value=value, sort=sort) if sort is not Sort.BOOL and math.copysign(1.0, value) < 0:
            return ("neg", _leaf(-value))
        case Const(value=value):
            return _leaf(value)
        case _:
            return "name"


def _leaf(value: object) -> object:
    return "name" if value != value or value == math.inf else str(value)


def _shape_of_python(text: str) -> object:
    import ast

    operators = {
        ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv", ast.Mod: "mod",
        ast.Pow: "pow", ast.LShift: "shl", ast.RShift: "shr", ast.BitAnd: "bitand", ast.BitOr: "bitor",
        ast.BitXor: "bitxor", ast.USub: "neg", ast.Invert: "bitnot", ast.Not: "not", ast.Eq: "eq", ast.NotEq: "ne",
        ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.And: "and", ast.Or: "or",
    }  # fmt: skip

    def shape(node: ast.expr) -> object:
        match node:
            case ast.BinOp(left, op, right):
                return (operators[type(op)], shape(left), shape(right))
            case ast.UnaryOp(op, operand):
                return (operators[type(op)], shape(operand))
            case ast.Compare(left, [op], [right]):
                return (operators[type(op)], shape(left), shape(right))
            case ast.BoolOp(op, values):
                found = shape(values[0])
                for value in values[1:]:
                    found = (operators[type(op)], found, shape(value))
                return found
            case ast.IfExp(test, body, orelse):
                return ("where", shape(test), shape(body), shape(orelse))
            case ast.Call(ast.Name("len"), _):
                return "name"
            case ast.Call(ast.Name(name), args):
                return (name, *map(shape, args))
            case ast.Subscript(_, ast.Tuple(items)):
                return ("load", *map(shape, items))
            case ast.Subscript(_, item):
                return ("load", shape(item))
            case ast.Constant(value):
                return _leaf(value)
            case _:
                return "name"

    return shape(ast.parse(text, mode="eval").body)
