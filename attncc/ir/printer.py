"""Canonical text of a spec that parses back, its hash, and expressions as people write them.

The canonical text has one line for each node, numbered children first in the order of first use, then one for each
statement:

    attncc-ir 1
    %0 = coord "k"
    %1 = coord "q"
    %2 = call le bool %0 %1
    spec "causal"
    mask %2
    softmax

Strings are JSON, floats hexadecimal. Two specs have the same text exactly if they are equal; spans are left out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

from typing_extensions import assert_never

from attncc.ir.expr import (
    Call,
    Const,
    Coord,
    Expr,
    Listed,
    Load,
    Param,
    RowCount,
    RowSum,
    Scalar,
    Score,
    Size,
    Sort,
    postorder,
)
from attncc.ir.intrinsics import INTRINSICS
from attncc.ir.reader import HEADER, InvalidText, parse_spec
from attncc.ir.spec import Input, RangeFact, Softmax, SortedFact, Spec
from attncc.ir.traversal import expressions_of

__all__ = ["InvalidText", "parse_spec", "print_expr", "print_spec", "spec_key"]


def spec_key(spec: Spec) -> str:
    """The sha256 of the canonical text, in hexadecimal."""
    return hashlib.sha256(print_spec(spec).encode()).hexdigest()


def print_spec(spec: Spec) -> str:
    """The canonical text. `parse_spec` is its inverse."""
    names: dict[Expr, str] = {}
    lines = [HEADER]
    for node in postorder(*expressions_of(spec)):
        names[node] = f"%{len(names)}"
        lines.append(f"{names[node]} = {_node(node, names)}")
    lines += _statements(spec, names)
    return "\n".join(lines) + "\n"


def _node(node: Expr, names: dict[Expr, str]) -> str:
    match node:
        case Const(value=value, sort=sort):
            return f"const {sort.value} {_scalar(value, sort)}"
        case Size(name=name):
            return f"size {json.dumps(name)}"
        case Param(name=name, sort=sort):
            return f"param {json.dumps(name)} {sort.value}"
        case Coord(name=name):
            return f"coord {json.dumps(name)}"
        case Score():
            return "score"
        case RowSum():
            return "rowsum"
        case RowCount():
            return "rowcount"
        case Listed(table=table):
            return f"listed {json.dumps(table)}"
        case Load(input=name, index=index, sort=sort):
            return _words("load", json.dumps(name), sort.value, *(names[i] for i in index))
        case Call(op=op, args=args, sort=sort):
            return _words("call", op, sort.value, *(names[a] for a in args))
        case _:
            raise AssertionError(f"unknown node {node!r}")


def _statements(spec: Spec, names: dict[Expr, str]) -> list[str]:
    def all_of(exprs: Sequence[Expr]) -> list[str]:
        return [names[e] for e in exprs]

    lines = [_words("spec", json.dumps(spec.name))]
    for constant in spec.constants:
        value = _scalar(constant.value, constant.sort)
        lines.append(_words("constant", json.dumps(constant.name), constant.sort.value, value))
    for param in spec.params:
        default = [] if param.default is None else [_scalar(param.default, param.sort)]
        lines.append(_words("param", json.dumps(param.name), param.sort.value, *default))
    lines += [_input(declared, names) for declared in spec.inputs]
    lines += [_words("extent", json.dumps(name)) for name in spec.extents]
    if spec.grid is not None:
        queries, keys = map(json.dumps, spec.grid.queries), map(json.dumps, spec.grid.keys)
        lines.append(_words("grid", *queries, ";", *keys))
    for table in spec.tables:
        sizes = (*all_of(table.extents), ";", *all_of(table.query_size), ";", *all_of(table.key_size))
        lines.append(_words("table", json.dumps(table.name), *sizes))
    lines += [_words("require", names[r.condition], json.dumps(r.message)) for r in spec.requires]
    lines += [_words("mask", names[c.expr]) for c in spec.masks]
    lines += [_words("score", names[c.expr]) for c in spec.scores]
    if isinstance(spec.weights, Softmax):
        lines.append(_words("softmax", *(names[c.expr] for c in spec.weights.sinks)))
    else:
        below = [] if spec.weights.denominator is None else [names[spec.weights.denominator.expr]]
        lines.append(_words("ratio", names[spec.weights.numerator.expr], *below))
    if spec.reweight is not None:
        lines.append(_words("reweight", names[spec.reweight.expr]))
    lines += [_words("output", name) for name in spec.outputs]
    if spec.scale is not None:
        lines.append(_words("scale", names[spec.scale]))
    return lines


def _input(declared: Input, names: dict[Expr, str]) -> str:
    words = ["input", json.dumps(declared.name), declared.sort.value, *(names[e] for e in declared.extents)]
    if declared.learnable:
        words += [";", "learnable"]
    for fact in declared.facts:
        match fact:
            case SortedFact(axis=axis):
                words += [";", "sorted", str(axis)]
            case RangeFact(low=low, high=high):
                words += [";", "range", names[low], names[high]]
            case _:
                assert_never(fact)
    return _words(*words)


def _words(*words: str) -> str:
    return " ".join(words)


def _scalar(value: Scalar, sort: Sort) -> str:
    match sort:
        case Sort.BOOL:
            return "true" if value else "false"
        case Sort.INT:
            return str(int(value))
        case Sort.FLOAT:
            return float(value).hex()
        case _:
            assert_never(sort)


# Python's precedence, loosest first.
_TERNARY, _OR, _AND, _NOT, _COMPARISON, _UNARY, _POWER, _ATOM = 1, 2, 3, 4, 5, 12, 13, 14
_BINARY = {
    "or": _OR,
    "and": _AND,
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _COMPARISON),
    "bitor": 6,
    "bitxor": 7,
    "bitand": 8,
    **dict.fromkeys(("shl", "shr"), 9),
    **dict.fromkeys(("add", "sub"), 10),
    **dict.fromkeys(("mul", "div", "floordiv", "mod"), 11),
    "pow": _POWER,
}


def print_expr(expr: Expr, *, limit: int = 1000) -> str:
    """The expression in the language's notation, with as few parentheses as its meaning allows.

    A sub-expression whose text would be longer than `limit` is shown as `…`, so a shared expression that would unfold
    without end stays readable.
    """
    texts: dict[Expr, tuple[str, int]] = {}
    for node in postorder(expr):
        text, precedence = _notation(node, texts)
        texts[node] = (text, precedence) if len(text) <= limit else ("…", _ATOM)
    return texts[expr][0]


def _notation(node: Expr, texts: dict[Expr, tuple[str, int]]) -> tuple[str, int]:
    match node:
        case Const(value=value, sort=sort):
            return _literal(value, sort)
        case Size(name=name):
            return _size(name), _ATOM
        case Param(name=name) | Coord(name=name) | Listed(table=name):
            return name, _ATOM
        case Score():
            return "s", _ATOM
        case RowSum():
            return "total", _ATOM
        case RowCount():
            return "count", _ATOM
        case Load(input=name, index=index):
            return f"{name}[{', '.join(texts[i][0] for i in index)}]", _ATOM
        case Call():
            return _operation(node, texts)
        case _:
            raise AssertionError(f"unknown node {node!r}")


def _operation(node: Call, texts: dict[Expr, tuple[str, int]]) -> tuple[str, int]:
    def operand(index: int, at_least: int) -> str:
        text, precedence = texts[node.args[index]]
        return text if precedence >= at_least else f"({text})"

    symbol = INTRINSICS[node.op].symbol
    if node.op == "to_float":  # inserted by typing, not written
        return texts[node.args[0]]
    if node.op == "where":
        condition = operand(0, _OR)
        return f"{operand(1, _OR)} if {condition} else {operand(2, _TERNARY)}", _TERNARY
    if node.op == "not":
        return f"not {operand(0, _NOT)}", _NOT
    if node.op in ("neg", "bitnot"):
        return f"{symbol}{operand(0, _UNARY)}", _UNARY
    if node.op == "pow":  # binds tighter than a sign on its left, looser than one on its right
        return f"{operand(0, _ATOM)} ** {operand(1, _UNARY)}", _POWER
    if node.op in _BINARY:
        precedence = _BINARY[node.op]
        # A chain of comparisons means something else, so neither side may be one.
        left = precedence + (precedence == _COMPARISON)
        return f"{operand(0, left)} {symbol} {operand(1, precedence + 1)}", precedence
    return f"{node.op}({', '.join(operand(i, _TERNARY) for i in range(len(node.args)))})", _ATOM


def _literal(value: Scalar, sort: Sort) -> tuple[str, int]:
    if sort is Sort.BOOL:
        return ("true" if value else "false"), _ATOM
    text = repr(float(value)) if sort is Sort.FLOAT else str(int(value))
    return text, _UNARY if math.copysign(1.0, value) < 0 else _ATOM


def _size(name: str) -> str:
    """`q.y` and its lowered form `queries.y` are both written `len(q.y)`."""
    if "." not in name:
        return name
    side, axis = name.split(".", 1)
    return f"len({'q' if side == 'queries' else 'k' if side == 'keys' else side}.{axis})"
