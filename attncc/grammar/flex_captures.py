"""The tensors a FlexAttention function closes over: where they are found, and the inputs they become."""

from __future__ import annotations

import functools
import inspect
import itertools
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from attncc.grammar.builtins import BUILTINS, CALL_ARGUMENTS, HEADS, OPERATOR_WORDS
from attncc.ir.expr import Const, Sort
from attncc.ir.spec import Input
from attncc.source import Span

_DEEPEST = 8  # of functions that close over objects that hold functions …


class Captures:
    """Gives captured tensors the names the user knows them by, and collects the inputs they become."""

    def __init__(self, *functions: Callable[..., Any] | None) -> None:
        self._known: dict[int, tuple[str, Tensor]] = {}
        for function in functions:
            if function is not None:
                for name, tensor in _reachable(function):
                    self._known.setdefault(id(tensor), (name, tensor))
        self._taken: dict[str, Tensor] = {}
        self._inputs: dict[str, tuple[Sort, Span | None]] = {}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that became inputs, by input name."""
        return {name: self._taken[name] for name in self._inputs}

    def inputs(self, learnable: frozenset[str]) -> tuple[Input, ...]:
        """The declarations, in the order of first use."""
        return tuple(
            Input(
                name,
                sort,
                tuple(Const(n, Sort.INT) for n in self._taken[name].shape),
                learnable=name in learnable,
                span=span,
            )
            for name, (sort, span) in self._inputs.items()
        )

    def declare(self, tensor: Tensor, sort: Sort, span: Span | None) -> str:
        """The name of the input that a captured tensor becomes."""
        name = self.name_of(tensor)
        self._inputs.setdefault(name, (sort, span))
        return name

    def name_of(self, tensor: Tensor) -> str:
        """The name of a captured tensor: the variable or attribute that holds it, else `tensor0`, `tensor1` …"""
        for name, taken in self._taken.items():
            if taken is tensor:
                return name
        wanted = self._known[id(tensor)][0] if id(tensor) in self._known else None
        if wanted is None:
            candidates: Iterator[str] = (f"tensor{i}" for i in itertools.count())
        else:
            wanted = identifier(wanted)
            candidates = itertools.chain([wanted], (f"{wanted}_{i}" for i in itertools.count(2)))
        name = next(c for c in candidates if c not in self._taken)
        self._taken[name] = tensor
        return name

    def adopt_view(self, view: Tensor) -> bool:
        """Notes a view of a captured tensor, which shows that tensor's values at any time; False for other views."""
        base = view._base
        known = None if base is None else self._known.get(id(base))
        if known is not None:
            self._known.setdefault(id(view), (f"{known[0]}_view", view))
        return base is not None


def identifier(name: str) -> str:
    """A name that a spec may use, made from any text."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "tensor"
    if plain[0].isdigit():
        plain = f"t_{plain}"
    refused = BUILTINS | CALL_ARGUMENTS | frozenset((*HEADS, *OPERATOR_WORDS))
    return f"{plain}_" if plain in refused else plain


def _reachable(function: Callable[..., Any]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor a function can name, nearest first, with the name it has there."""
    seen: set[int] = set()
    pending: list[tuple[str, Any]] = [("", function)]
    for _ in range(_DEEPEST):
        following: list[tuple[str, Any]] = []
        for name, value in pending:
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, Tensor):
                yield name, value
            else:
                following += _held(name, value)
        pending = following


def _held(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a function closes over, or an object or container holds."""
    match value:
        case types.FunctionType():
            yield from _variables(value)
        case types.MethodType():
            yield from (("", value.__func__), ("", value.__self__))
        case functools.partial():
            yield "", value.func
            yield from value.keywords.items()
            names = _parameter_names(value.func)
            yield from zip(names, value.args, strict=False)
        case types.ModuleType() | type() | types.BuiltinFunctionType() | str() | bytes() | int() | float() | None:
            return
        case dict():
            yield from ((f"{name}_{key}" if name else f"{key}", held) for key, held in value.items())
        case list() | tuple():
            yield from ((f"{name}_{i}" if name else f"item_{i}", held) for i, held in enumerate(value))
        case _:
            yield from _attributes(name, value)


def _variables(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    positional = code.co_varnames[: code.co_argcount]
    yield from zip(reversed(positional), reversed(function.__defaults__ or ()), strict=False)
    yield from (function.__kwdefaults__ or {}).items()
    for name in _global_names(code):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _attributes(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    held = dict(getattr(value, "__dict__", {}))
    # A torch module keeps its parameters, buffers and modules in dicts of their own.
    for group in ("_parameters", "_buffers", "_modules"):
        if isinstance(held.get(group), dict):
            held |= held.pop(group)
    for attribute, content in held.items():
        if not attribute.startswith("_"):
            generic = attribute == "weight" and bool(name)
            yield (f"{name}_{attribute}" if generic else attribute), content
    for slot in getattr(type(value), "__slots__", ()):
        if isinstance(slot, str) and hasattr(value, slot):
            yield slot, getattr(value, slot)
    called = inspect.getattr_static(type(value), "__call__", None)  # of an object that is itself the mod
    if isinstance(called, types.FunctionType):
        yield "", called


def _parameter_names(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
