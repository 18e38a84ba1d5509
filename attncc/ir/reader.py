"""Reads canonical text (`attncc.ir.printer`) back into the spec it was printed from."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Literal, cast

from attncc.errors import AttnccError
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
)
from attncc.ir.intrinsics import INTRINSICS
from attncc.ir.spec import (
    OUTPUT_NAMES,
    Clause,
    Constant,
    Grid,
    Input,
    Parameter,
    RangeFact,
    Ratio,
    Require,
    Softmax,
    SortedFact,
    Spec,
    Table,
)

HEADER = "attncc-ir 1"
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"]+')
_NUMBERED = re.compile(r"(%\d+) = (.*)")
_INT = re.compile(r"-?\d+")


class InvalidText(AttnccError, ValueError):
    """The text is not the canonical text of a spec. Names the line, from 1."""


def parse_spec(text: str) -> Spec:
    """The spec whose `print_spec` is this text. Raises InvalidText; `verify` checks what the nodes mean together."""
    lines = text.split("\n")
    if lines[0] != HEADER:
        raise InvalidText(f"line 1: not '{HEADER}'")
    reader = _Reader()
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        try:
            reader.read(line)
        except (_Problem, KeyError, ValueError, IndexError) as problem:
            detail = str(problem) if isinstance(problem, _Problem) else "malformed"
            raise InvalidText(f"line {number}: {detail}: {line[:200]}") from problem
    if reader.spec is None:
        raise InvalidText("no 'spec' line")
    return reader.spec


class _Problem(Exception):
    """What is wrong with a line."""


class _Reader:
    """The nodes read so far by number, and the spec as far as its statements were read."""

    def __init__(self) -> None:
        self.nodes: dict[str, Expr] = {}
        self.spec: Spec | None = None

    def read(self, line: str) -> None:
        numbered = _NUMBERED.fullmatch(line)
        if numbered is None:
            self._statement(_WORD.findall(line))
            return
        name, rest = numbered.groups()
        if name in self.nodes:
            raise _Problem(f"{name} is defined twice")
        self.nodes[name] = self._node(_WORD.findall(rest))

    def _node(self, words: list[str]) -> Expr:
        match words:
            case ["const", sort, value]:
                return Const(_scalar(value, Sort(sort)), Sort(sort))
            case ["size", name]:
                return Size(_string(name))
            case ["param", name, sort]:
                return Param(_string(name), Sort(sort))
            case ["coord", name]:
                return Coord(_string(name))
            case ["score"]:
                return Score()
            case ["rowsum"]:
                return RowSum()
            case ["rowcount"]:
                return RowCount()
            case ["listed", table]:
                return Listed(_string(table))
            case ["load", name, sort, *index]:
                return Load(_string(name), self._exprs(index), Sort(sort))
            case ["call", op, sort, *operands]:
                if op not in INTRINSICS or INTRINSICS[op].arity != len(operands):
                    raise _Problem(f"no operation '{op}' of {len(operands)} operands")
                return Call(op, self._exprs(operands), Sort(sort))
            case _:
                raise _Problem("no such node")

    def _statement(self, words: list[str]) -> None:
        match words:
            case ["spec", name] if self.spec is None:
                self.spec = Spec(_string(name))
                return
            case _ if self.spec is None:
                raise _Problem("a statement before 'spec'")
            case _:
                self.spec = self._with_statement(self.spec, words)

    def _with_statement(self, spec: Spec, words: list[str]) -> Spec:
        match words:
            case ["constant", name, sort, value]:
                constant = Constant(_string(name), Sort(sort), _scalar(value, Sort(sort)))
                return replace(spec, constants=(*spec.constants, constant))
            case ["param", name, sort, *default]:
                given = _scalar(_only(default), Sort(sort)) if default else None
                return replace(spec, params=(*spec.params, Parameter(_string(name), Sort(sort), given)))
            case ["input", name, sort, *rest]:
                return replace(spec, inputs=(*spec.inputs, self._input(_string(name), Sort(sort), _split(rest))))
            case ["extent", name]:
                return replace(spec, extents=(*spec.extents, _string(name)))
            case ["grid", *rest]:
                queries, keys = _split(rest)
                return replace(spec, grid=Grid(tuple(map(_string, queries)), tuple(map(_string, keys))))
            case ["table", name, *rest]:
                extents, query_size, key_size = map(self._exprs, _split(rest))
                return replace(spec, tables=(*spec.tables, Table(_string(name), extents, query_size, key_size)))
            case ["require", condition, message]:
                return replace(spec, requires=(*spec.requires, Require(self._expr(condition), _string(message))))
            case ["mask", expr]:
                return replace(spec, masks=(*spec.masks, self._clause(expr)))
            case ["score", expr]:
                return replace(spec, scores=(*spec.scores, self._clause(expr)))
            case ["softmax", *sinks]:
                return replace(spec, weights=Softmax(tuple(map(self._clause, sinks))))
            case ["ratio", numerator, *below]:
                denominator = self._clause(_only(below)) if below else None
                return replace(spec, weights=Ratio(self._clause(numerator), denominator))
            case ["reweight", expr]:
                return replace(spec, reweight=self._clause(expr))
            case ["output", name] if name in OUTPUT_NAMES:
                output = cast(Literal["lse", "row_max", "entropy", "key_mass"], name)
                return replace(spec, outputs=(*spec.outputs, output))
            case ["scale", expr]:
                return replace(spec, scale=self._expr(expr))
            case _:
                raise _Problem("no such statement")

    def _input(self, name: str, sort: Sort, groups: list[list[str]]) -> Input:
        declared = Input(name, sort, self._exprs(groups[0]))
        for group in groups[1:]:
            match group:
                case ["learnable"]:
                    declared = replace(declared, learnable=True)
                case ["sorted", axis]:
                    declared = replace(declared, facts=(*declared.facts, SortedFact(int(axis))))
                case ["range", low, high]:
                    fact = RangeFact(self._expr(low), self._expr(high))
                    declared = replace(declared, facts=(*declared.facts, fact))
                case _:
                    raise _Problem("no such fact")
        return declared

    def _expr(self, name: str) -> Expr:
        if name not in self.nodes:
            raise _Problem(f"{name} is not defined above")
        return self.nodes[name]

    def _exprs(self, names: list[str]) -> tuple[Expr, ...]:
        return tuple(self._expr(name) for name in names)

    def _clause(self, name: str) -> Clause:
        return Clause(self._expr(name))


def _split(words: list[str]) -> list[list[str]]:
    """The words between semicolons."""
    groups: list[list[str]] = [[]]
    for word in words:
        if word == ";":
            groups.append([])
        else:
            groups[-1].append(word)
    return groups


def _only(words: list[str]) -> str:
    (word,) = words
    return word


def _string(word: str) -> str:
    value = json.loads(word)
    if not isinstance(value, str):
        raise _Problem(f"{word} is not a string")
    return value


def _scalar(word: str, sort: Sort) -> Scalar:
    match sort:
        case Sort.BOOL if word in ("true", "false"):
            return word == "true"
        case Sort.INT if _INT.fullmatch(word):
            return int(word)
        case Sort.FLOAT:
            return float.fromhex(word)
        case _:
            raise _Problem(f"{word} is not a {sort.value}")
