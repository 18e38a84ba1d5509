"""Generates the leaves that speak of one spec: mask, score, weights, and their gradients.

Signatures and meanings are those of `attncc.codegen.triton.leaves`. Each body starts with the spec lines it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attncc.codegen.expressions import ExpressionPrinter, Proofs, field_name
from attncc.codegen.options import Options
from attncc.codegen.triton.sources import leaf
from attncc.ir.expr import (
    TRUE,
    Call,
    Const,
    Coord,
    Expr,
    Load,
    Param,
    RowCount,
    RowSum,
    Score,
    Sort,
    contains,
    coordinates,
    postorder,
    substitute,
    to_const,
)
from attncc.ir.intrinsics import call
from attncc.ir.spec import Clause, Ratio, Softmax, Spec
from attncc.passes.differentiate import gradients
from attncc.passes.simplify import simplify_expr

PAIR_NAMES: Mapping[Expr, str] = {
    Coord("b"): "b",
    Coord("h"): "h",
    Coord("row"): "row",
    Coord("k"): "k",
    Score(): "s",
    RowSum(): "total",
    RowCount(): "count",
}
# Where an operand is not finite these have a derivative that is not finite either, and 0 · inf is not 0.
_UNBOUNDED_SLOPE = frozenset({"div", "pow", "log", "sqrt", "exp"})


@dataclass(frozen=True, slots=True)
class PairFunctions:
    """What a spec computes for a pair, each one expression: the mask, the final score or numerator as a function of
    `Score()` (the scaled dot product), the factor after normalization, and the loads that learn from pairs.

    `guard` is the final score where a numerator follows it and it may be -inf, which is the same as masked, else None.
    """

    mask: Expr
    composed: Expr
    factor: Expr
    learnable: tuple[Load, ...]
    guard: Expr | None


def pair_functions(spec: Spec) -> PairFunctions:
    """Chains the score lines, ands the masks."""
    mask: Expr = TRUE
    for clause in spec.masks:
        mask = clause.expr if mask is TRUE else call("and", mask, clause.expr)
    composed: Expr = Score()
    for clause in spec.scores:
        composed = substitute(clause.expr, {Score(): composed})
    guard = None
    if isinstance(spec.weights, Ratio):
        guard = simplify_expr(composed) if _may_be_infinite(composed) else None
        composed = substitute(spec.weights.numerator.expr, {Score(): composed})
    factor = to_const(1.0) if spec.reweight is None else spec.reweight.expr
    return PairFunctions(
        simplify_expr(mask), simplify_expr(composed), factor, learnable_loads(spec, (composed, factor)), guard
    )


def learnable_loads(spec: Spec, roots: Sequence[Expr]) -> tuple[Load, ...]:
    """The loads of learnable inputs the roots read as values (not inside an index), in a fixed order."""
    learnable = {i.name for i in spec.inputs if i.learnable}
    return tuple(n for n in postorder(*roots) if isinstance(n, Load) and n.input in learnable)


def row_expressions(spec: Spec) -> tuple[Expr, ...]:
    """The expressions evaluated once a row: sinks, or the denominator."""
    match spec.weights:
        case Softmax(sinks=sinks):
            return tuple(c.expr for c in sinks)
        case Ratio(denominator=denominator):
            return () if denominator is None else (denominator.expr,)


def keeps_apart(options: Options) -> bool:
    """Whether backward takes a row's maximum and sum apart, as float32's error rule needs, or as one lse."""
    return options.dtype == "float32"


class LeafWriter:
    """Writes every spec leaf of one module. Deterministic."""

    def __init__(self, spec: Spec, options: Options, proofs: Proofs) -> None:
        self._spec = spec
        self._functions = pair_functions(spec)
        self._has_infinity = _has_infinity(self._functions.composed)
        self._apart = keeps_apart(options)
        self._printer = ExpressionPrinter(spec, PAIR_NAMES, proofs, wide=options.wide)

    def forward(self) -> str:
        """The leaves that the forward kernel calls."""
        leaves = [self._mask()]
        leaves += [self._logits(), self._with_sinks()] if self._is_softmax else [self._numerator()]
        if self._is_normalized:
            leaves += [self._denominator()]
        if not self._is_softmax:
            leaves += [self._counted()]
        return "\n\n\n".join([*leaves, self._reweighted()])

    def backward(self) -> str:
        """The further leaves that the backward kernels call."""
        leaves = [self._pair_weight(), self._dscore(), self._dscaled()]
        leaves.append(self._learn())
        if self._is_softmax:
            leaves.append(self._learn_sinks())
        if self._is_normalized:
            leaves += [self._denominator_slope(), self._learn_denominator()]
        return "\n\n\n".join(leaves)

    @property
    def _to_logit(self) -> str:
        """What turns a final score into a logit."""
        return "" if self._apart else " * LOG2E"

    @property
    def _is_softmax(self) -> bool:
        return isinstance(self._spec.weights, Softmax)

    @property
    def _is_normalized(self) -> bool:
        return isinstance(self._spec.weights, Ratio) and self._spec.weights.denominator is not None

    @property
    def _divisor(self) -> Clause:
        assert isinstance(self._spec.weights, Ratio)
        assert self._spec.weights.denominator is not None
        return self._spec.weights.denominator

    def _mask(self) -> str:
        expr = self._functions.mask
        if isinstance(expr, Const):
            return _leaf("mask(b, h, row, k, values)", self._spec.masks, [], "k >= 0" if expr.value else "k < 0")
        printed = self._printer.print(expr)
        return _leaf("mask(b, h, row, k, values)", self._spec.masks, printed.lines, printed.roots[0])

    def _logits(self) -> str:
        signature = "logits(dot, scale, b, h, row, k, values)"
        if isinstance(self._functions.composed, Score):
            # The scale joins the exp2 factor: one multiplication for both.
            return _leaf(signature, self._spec.scores, [], "dot * scale" if self._apart else "dot * (scale * LOG2E)")
        lines, text = self._composed()
        return _leaf(signature, self._spec.scores, lines, text + self._to_logit)

    def _numerator(self) -> str:
        assert isinstance(self._spec.weights, Ratio)
        lines, text = self._composed()
        if self._functions.guard is not None:
            guard_lines, minus = self._masked_by_score()
            if not _reads_score(self._functions.composed):
                lines = [*self._s_line(self._functions.guard), *lines]
            # The weight is computed by then, so that both may call their temporaries alike.
            lines = [*lines, f"weight = {text}", *guard_lines]
            text = f"tl.where({minus}, 0.0, weight)"
        return _leaf("numerator(dot, scale, b, h, row, k, values)", self._score_clauses(), lines, text)

    def _counted(self) -> str:
        partial, full = (
            "counted(live, dot, scale, b, h, row, k, values)",
            "full_count(dot, scale, b, h, row, k, values)",
        )
        guard = self._functions.guard
        if guard is None or not (self._is_normalized and contains(self._divisor.expr, RowCount)):
            return "\n\n\n".join([_leaf(partial, (), [], "live"), _leaf(full, (), [], "dot.shape[1]")])
        lines, minus = self._masked_by_score()
        lines = [*self._s_line(guard), *lines]
        leaves = [
            _leaf(partial, self._spec.scores, lines, f"live & ({minus} == 0)"),
            _leaf(full, self._spec.scores, lines, f"tl.sum(tl.where({minus}, 0, 1), 1)"),
        ]
        return "\n\n\n".join(leaves)

    def _masked_by_score(self) -> tuple[list[str], str]:
        """Lines, and the text of whether a pair's final score masks it. They read `s` and `dot`."""
        assert self._functions.guard is not None
        printed = self._printer.print(self._functions.guard)
        final = f"final_score = tl.zeros(dot.shape, tl.float32) + {printed.roots[0]}"
        return [*printed.lines, final], '(final_score == float("-inf"))'

    def _s_line(self, *roots: Expr) -> list[str]:
        return ["s = dot * scale"] if any(_reads_score(e) for e in roots) else []

    def _score_clauses(self) -> tuple[Clause, ...]:
        tail = (self._spec.weights.numerator,) if isinstance(self._spec.weights, Ratio) else ()
        return (*self._spec.scores, *tail)

    def _composed(self) -> tuple[list[str], str]:
        composed = self._functions.composed
        printed = self._printer.print(composed)
        lines, text = ["s = dot * scale", *printed.lines], printed.roots[0]
        if not _reads_score(composed):
            # Free of s, it may be smaller than a tile, down to a literal.
            return [*printed.lines, f"score = tl.zeros(dot.shape, tl.float32) + {text}"], "score"
        return lines, text

    def _with_sinks(self) -> str:
        assert isinstance(self._spec.weights, Softmax)
        lines: list[str] = []
        sinks = self._spec.weights.sinks
        printed = self._printer.print(*(c.expr for c in sinks))
        lines += printed.lines
        for text in printed.roots:
            lines += [
                f"sink = (tl.zeros(row_max.shape, tl.float32) + {text}){self._to_logit}",
                "new_max = tl.maximum(row_max, sink)",
                'finite_max = tl.where(new_max == float("-inf"), 0.0, new_max)',
                "row_sum *= tl.exp2((row_max - finite_max) * UNIT)",
                "row_sum += tl.exp2((sink - finite_max) * UNIT)",
                "row_max = new_max",
            ]
        return _leaf("with_sinks(row_max, row_sum, b, h, row, values)", sinks, lines, "row_max, row_sum")

    def _denominator(self) -> str:
        clause = self._divisor
        printed = self._printer.print(clause.expr)
        result = f"tl.zeros(total.shape, tl.float32) + {printed.roots[0]}"
        return _leaf("denominator(total, count, b, h, row, values)", (clause,), printed.lines, result)

    def _denominator_slope(self) -> str:
        clause = self._divisor
        printed = self._printer.print(gradients(clause.expr, (RowSum(),))[RowSum()])
        result = f"tl.zeros(total.shape, tl.float32) + {printed.roots[0]}"
        return _leaf("denominator_slope(total, count, b, h, row, values)", (clause,), printed.lines, result)

    def _reweighted(self) -> str:
        signature = "reweighted(weight, b, h, row, k, values)"
        if self._spec.reweight is None:
            return _leaf(signature, (), [], "weight")
        printed = self._printer.print(self._functions.factor)
        return _leaf(signature, (self._spec.reweight,), printed.lines, f"weight * {printed.roots[0]}")

    def _pair_weight(self) -> str:
        signature = "pair_weight(dot, scale, norm, gain, b, h, row, k, values)"
        if self._is_softmax:
            logit = "logits(dot, scale, b, h, row, k, values)"
            weight = f"tl.exp2(({logit} - norm) * UNIT) * gain" if self._apart else f"tl.exp2({logit} - norm)"
            return _leaf(signature, (), [], weight)
        result = "numerator(dot, scale, b, h, row, k, values)" + (" * gain" if self._is_normalized else "")
        return _leaf(signature, (), [], result)

    def _dscore(self) -> str:
        signature = "dscore(weight, dweight, gain, shift, dot, scale, b, h, row, k, values)"
        if self._is_softmax:
            return _leaf(signature, (), [], "weight * (dweight - shift)")
        return _leaf(signature, (), [], "dweight * gain + shift" if self._is_normalized else "dweight")

    def _dscaled(self) -> str:
        signature = "dscaled(ds, dot, scale, b, h, row, k, values)"
        slope = gradients(self._functions.composed, (Score(),))[Score()]
        printed = self._printer.print(slope)
        clauses = self._score_clauses()
        lines = self._ds_lines(slope)
        if not (isinstance(slope, Const) and slope.value == 1.0):
            lines += printed.lines
        return _leaf(signature, clauses, lines, self._chain("ds", slope, printed.roots[0]))

    def _ds_lines(self, *roots: Expr) -> list[str]:
        """Lines before the gradients by these roots: `s`, and no gradient where the score masks."""
        guard = self._functions.guard
        if guard is None:
            return self._s_line(*roots)
        lines, minus = self._masked_by_score()
        return [*self._s_line(guard, *roots), *lines, f"ds = tl.where({minus}, 0.0, ds)"]

    def _chain(self, gradient: str, slope: Expr, text: str) -> str:
        return _chain(gradient, slope, text, self._has_infinity)

    def _learn(self) -> str:
        signature = "learn(ds, dfactor, dot, scale, b, h, row, k, grads, values)"
        if not self._functions.learnable:
            return _leaf(signature, (), ["pass  # no pair teaches an input"], None)
        composed, factor, loads = self._functions.composed, self._functions.factor, self._functions.learnable
        by_score = gradients(composed, loads)
        by_factor = gradients(factor, loads)
        slopes = [e for load in loads for e in (by_score[load], by_factor[load])]
        indices = [i for load in loads for i in load.index]
        printed = self._printer.print(*slopes, *indices)
        lines = self._ds_lines(*slopes, *indices)
        lines += printed.lines
        texts = dict(zip([*slopes, *indices], printed.roots, strict=True))
        for load in loads:
            terms = [
                self._chain(gradient, slope, texts[slope])
                for gradient, slope in (("ds", by_score[load]), ("dfactor", by_factor[load]))
                if not (isinstance(slope, Const) and slope.value == 0.0)
            ]
            if not terms:
                continue
            lines.append(f"gradient = {' + '.join(terms)}")
            lines += self._scatter(load, [texts[i] for i in load.index], _reduction(load))
        tail = () if self._spec.reweight is None else (self._spec.reweight,)
        return _leaf(signature, (*self._score_clauses(), *tail), lines, None)

    def _learn_sinks(self) -> str:
        assert isinstance(self._spec.weights, Softmax)
        lines: list[str] = []
        if not learnable_loads(self._spec, row_expressions(self._spec)):
            lines.append("pass  # no sink is learned")
        for clause in self._spec.weights.sinks:
            loads = learnable_loads(self._spec, (clause.expr,))
            by_load = gradients(clause.expr, loads)
            indices = [i for load in loads for i in load.index]
            printed = self._printer.print(clause.expr, *by_load.values(), *indices)
            lines += printed.lines
            # d(loss)/d(any logit) = -weight · shift where no value is attached.
            lines.append(f"sink = (tl.zeros(norm.shape, tl.float32) + {printed.roots[0]}){self._to_logit}")
            lines.append("dsink = -tl.exp2((sink - norm) * UNIT) * gain * shift")
            texts = dict(zip([*by_load.values(), *indices], printed.roots[1:], strict=True))
            for load, slope in by_load.items():
                assert isinstance(load, Load)
                lines.append(f"gradient = {_chain('dsink', slope, texts[slope])}")
                lines += self._scatter(load, [texts[i] for i in load.index], _row_reduction(load))
        return _leaf("learn_sinks(norm, gain, shift, b, h, row, grads, values)", self._spec.weights.sinks, lines, None)

    def _learn_denominator(self) -> str:
        clause = self._divisor
        loads = learnable_loads(self._spec, (clause.expr,))
        signature = "learn_denominator(ddenominator, total, count, b, h, row, grads, values)"
        if not loads:
            return _leaf(signature, (), ["pass  # no denominator is learned"], None)
        by_load = gradients(clause.expr, loads)
        indices = [i for load in loads for i in load.index]
        printed = self._printer.print(*by_load.values(), *indices)
        texts = dict(zip([*by_load.values(), *indices], printed.roots, strict=True))
        lines = list(printed.lines)
        for load, slope in by_load.items():
            assert isinstance(load, Load)
            lines.append(f"gradient = {_chain('ddenominator', slope, texts[slope])}")
            lines += self._scatter(load, [texts[i] for i in load.index], _row_reduction(load))
        return _leaf(signature, (clause,), lines, None)

    def _scatter(self, load: Load, index: Sequence[str], reduction: str | None) -> list[str]:
        """Adds `gradient`, reduced to the shape of the index, at the load's place in its float32 buffer."""
        extents = self._printer.extents_of(load)
        place = "0"
        for text, extent in zip(index, extents, strict=True):
            place = text if place == "0" else f"({place}) * {self._printer.extent(extent)} + {text}"
        checks = self._printer.bounds_checks(load, index)
        lines = [] if reduction is None else [f"gradient = {reduction}"]
        if reduction is None:
            # One atomic a pair is dear: those that add nothing are left out.
            checks = [*checks, "(gradient != 0.0)"]
        mask = f", mask={' & '.join(checks)}" if checks else ""
        return [*lines, f'tl.atomic_add(grads.{field_name(load.input)} + {place}, gradient{mask}, sem="relaxed")']


def _reduction(load: Load) -> str | None:
    """How a tile of pair gradients is summed before it is added: by what the index depends on."""
    depends = coordinates(load.index)
    match ("row" in depends, "k" in depends):
        case (False, False):
            return "tl.sum(gradient)"
        case (True, False):
            return "tl.sum(gradient, 1, keep_dims=True)"
        case (False, True):
            return "tl.sum(gradient, 0, keep_dims=True)"
        case _:
            return None


def _row_reduction(load: Load) -> str:
    return "gradient" if "row" in coordinates(load.index) else "tl.sum(gradient)"


def _chain(gradient: str, slope: Expr, text: str, has_infinity: bool = False) -> str:
    """`gradient · slope`, without 0 · inf where a pair has no weight. `has_infinity`: what the slope multiplies may be
    infinite without one of the operations that make it so."""
    if isinstance(slope, Const) and slope.value == 1.0:
        return gradient
    operations = {n.op for n in postorder(slope) if isinstance(n, Call) and n.sort is Sort.FLOAT}
    if operations & _UNBOUNDED_SLOPE or (has_infinity and operations):
        return f"tl.where({gradient} == 0.0, 0.0, {gradient} * {text})"
    return f"{gradient} * {text}"


def _may_be_infinite(score: Expr) -> bool:
    """Whether a score of finite dot products may be infinite: by a literal, an input, or an operation on the edge of
    its domain. Products that overflow are left out."""
    return any(
        _is_infinite(n) or (isinstance(n, Load | Param | Call) and n.sort is Sort.FLOAT and _can_be_infinite(n))
        for n in postorder(score)
    )


def _can_be_infinite(node: Expr) -> bool:
    return not isinstance(node, Call) or node.op in _UNBOUNDED_SLOPE


def _is_infinite(node: Expr) -> bool:
    return isinstance(node, Const) and node.sort is Sort.FLOAT and math.isinf(node.value)


def _has_infinity(expr: Expr) -> bool:
    return any(_is_infinite(n) for n in postorder(expr))


def _reads_score(expr: Expr) -> bool:
    return any(isinstance(n, Score) for n in postorder(expr))


def _leaf(signature: str, clauses: Sequence[Clause], lines: Sequence[str], result: str | None) -> str:
    body = [*_provenance(clauses), *lines]
    if result is not None:
        body.append(f"return {result}")
    return leaf(signature, body)


def _provenance(clauses: Sequence[Clause]) -> list[str]:
    """`# file.attn:4: score s - …`, the statement as written, first line only."""
    comments: list[str] = []
    for clause in clauses:
        if clause.span is None:
            continue
        text = clause.span.source.line_text(clause.span.line).strip()
        shown = "".join(c for c in text if c.isprintable())
        name = "".join(c for c in clause.span.source.name.replace("\\", "/").split("/")[-1] if c.isprintable())
        comment = f"# {name}:{clause.span.line}: {shown}"[:116]
        if comment not in comments:
            comments.append(comment)
    return comments
