"""FlexAttention functions, unchanged, → Spec: each is run once with symbols for its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attncc.errors import Diagnostic, SpecError
from attncc.grammar.flex_captures import Captures, identifier
from attncc.grammar.flex_symbols import Recorder
from attncc.grammar.python_source import Dialect, PythonLines
from attncc.ir.expr import TRUE, Coord, Expr, Load, Score, Sort, children
from attncc.ir.intrinsics import call
from attncc.ir.spec import Clause, Spec
from attncc.source import Span

_ARGUMENTS = (Coord("b"), Coord("h"), Coord("row"), Coord("k"))
_TORCH = Dialect("torch.where", "torch.minimum", "torch.maximum", "torch.")


@dataclass(frozen=True, slots=True)
class FlexTrace:
    """The spec, and the tensors the functions close over by the name of the input each became."""

    spec: Spec
    tensors: dict[str, Tensor]


def trace_flex(score_mod: Callable[..., Any] | None = None, mask_mod: Callable[..., Any] | None = None) -> FlexTrace:
    """The spec of functions written for `torch.nn.attention.flex_attention`.

    `score_mod(score, b, h, q_idx, kv_idx)` gives the new score, `mask_mod(b, h, q_idx, kv_idx)` a bool; `q_idx` is the
    row of the query tensor. Tensors they close over become inputs named after the variable or attribute that holds
    them, with exactly their shape, learnable where they require grad; numbers become constants. Negative indices
    count from the end, as in torch. A score of -inf stays a score, which means masked.

    Raises SpecError, pointing at the Python line, for what cannot be traced.
    """
    lines = PythonLines(_TORCH)
    captures = Captures(score_mod, mask_mod)
    recorder = Recorder(lines, captures)
    scores = () if score_mod is None else _score(score_mod, recorder, lines)
    masks = () if mask_mod is None else _mask(mask_mod, recorder, lines)
    learnable = _learnable(captures, scores, lines)
    mods = [m for m in (score_mod, mask_mod) if m is not None]
    spec = Spec(
        _spec_name(mods),
        inputs=captures.inputs(learnable),
        masks=masks,
        scores=scores,
        span=lines.of_function(mods[0]) if mods else None,
    )
    return FlexTrace(spec, captures.tensors)


def _score(score_mod: Callable[..., Any], recorder: Recorder, lines: PythonLines) -> tuple[Clause, ...]:
    expr, span = _run(score_mod, (Score(), *_ARGUMENTS), recorder, lines)
    if expr is Score():
        return ()
    if expr.sort is Sort.BOOL:
        raise lines.error(
            "a score_mod returns a number, and this is a bool", span, hint="give a bool to from_flex as `mask_mod=`"
        )
    return (Clause(expr if expr.sort is Sort.FLOAT else call("to_float", expr), span),)


def _mask(mask_mod: Callable[..., Any], recorder: Recorder, lines: PythonLines) -> tuple[Clause, ...]:
    expr, span = _run(mask_mod, _ARGUMENTS, recorder, lines)
    if expr is TRUE:
        return ()
    if expr.sort is not Sort.BOOL:
        kind = "an int" if expr.sort is Sort.INT else "a float"
        raise lines.error(f"a mask_mod returns a bool, and this is {kind}", span, hint="compare it: `x != 0`")
    return (Clause(expr, span),)


def _run(
    mod: Callable[..., Any], arguments: tuple[Expr, ...], recorder: Recorder, lines: PythonLines
) -> tuple[Expr, Span | None]:
    name, declared = _name_of(mod), lines.of_function(mod)
    symbols = [recorder.symbol(a, declared) for a in arguments]
    # Views of parameters taken inside must lead their gradient to the parameter, whatever the caller's mode.
    with torch.enable_grad(), recorder:
        returned = mod(*symbols)
    result = recorder.result(returned, name, declared)
    return result.expr, result.span


def _learnable(captures: Captures, scores: tuple[Clause, ...], lines: PythonLines) -> frozenset[str]:
    differentiated = _differentiated([c.expr for c in scores])
    wanted = {name for name, tensor in captures.tensors.items() if tensor.requires_grad}
    wrong = [i for i in captures.inputs(frozenset()) if i.name in wanted - differentiated]
    if wrong:
        raise SpecError(
            [
                Diagnostic(
                    f"'{i.name}' requires grad, but only decides a mask, a comparison or an index",
                    i.span,
                    note="no gradient reaches it there",
                    hint="detach it outside the function",
                )
                for i in wrong
            ]
        )
    return frozenset(wanted)


def _differentiated(roots: list[Expr]) -> set[str]:
    """The inputs that a gradient of the scores reaches: those on a path of floats."""
    found: set[str] = set()
    seen: set[Expr] = set()
    pending = list(roots)
    while pending:
        node = pending.pop()
        if node in seen or node.sort is not Sort.FLOAT:
            continue
        seen.add(node)
        if isinstance(node, Load):
            found.add(node.input)
        else:
            pending += children(node)
    return found


def _spec_name(mods: list[Callable[..., Any]]) -> str:
    names = [_name_of(m) for m in mods]
    plain = [n for n in names if n not in ("<lambda>", "score_mod", "mask_mod")]
    return identifier("_".join(plain)) if plain else "flex"


def _name_of(mod: Callable[..., Any]) -> str:
    inner = getattr(mod, "func", mod)  # of functools.partial
    return str(getattr(inner, "__name__", type(inner).__name__))
