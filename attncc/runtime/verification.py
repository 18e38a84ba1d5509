"""Whether a backend computes what the oracle says: outputs and gradients of one call under the error rule.

The rule: `max|out - ref| <= 2 max|dense same-dtype - ref| + 2 max|(ref + 0.3 - 0.3) - ref|`, where ref is the float64
oracle. The first term is what the plain formula loses in that dtype, the second what storing such numbers loses.
Gradients have a larger factor than 2; `allowed_error` says which and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True, slots=True)
class Comparison:
    """One tensor of a call: its largest error, the largest allowed, and whether it is finite where the oracle is."""

    name: str
    error: float
    allowed: float
    finite: bool

    @property
    def is_met(self) -> bool:
        """Whether the rule holds."""
        return self.finite and self.error <= self.allowed


def compare(
    attention: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    arguments: Mapping[str, Any],
    *,
    backend: str,
    return_lse: bool,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compares `out`, `lse` where asked for, and the gradients of query, key, value and every learnable input.

    `attention` is an `attncc.Attention`, `arguments` the rest of its call; inputs that require grad are learnable.
    The gradients are those of a random weighting of the results.
    """
    leaves = {"query": query, "key": key, "value": value}
    leaves |= {n: v for n, v in arguments.items() if isinstance(v, Tensor) and v.requires_grad}
    rest = {n: v for n, v in arguments.items() if n not in leaves}

    def run(call: Callable[..., Any], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        given = {n: t.detach().to(dtype or t.dtype).requires_grad_() for n, t in leaves.items()}
        results = call(**given, **rest, return_lse=return_lse)
        named = {"out": results.out, "lse": results.lse} if return_lse else {"out": results}
        return {n: t.detach() for n, t in named.items()} | _gradients(named, given, seed, query.dtype)

    found = run(lambda **a: attention(**a, backend=backend))
    wanted = run(attention.reference, torch.float64)
    plain = run(lambda **a: same_dtype(attention, **a))
    return tuple(_comparison(name, found[name], wanted[name], plain[name]) for name in found)


def same_dtype(attention: Any, query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Any:
    """The dense formula, every operation on scores and weights in the query's dtype, backward too.

    What `attention.reference` returns, with the rounding that plain torch code in that dtype would have.
    """
    with _InDType(query.dtype):
        return attention.reference(query, key, value, **arguments)


def allowed_error(reference: Tensor, plain: Tensor, *, gradient: bool = False) -> float:
    """The most by which a result may differ from `reference`, `plain` being the dense formula in the result's dtype.

    The rule's factor is 2, but 8 for a float32 gradient, which those of learnable inputs always are: a backward that
    keeps no score matrix takes rowsum(dO · O) from an out that was rounded, and a tensor of few elements makes the
    plain formula's own error a poor measure (`docs/decisions/error-rule-for-gradients.md`).
    """
    wanted = reference.double()
    finite = torch.isfinite(wanted)
    stored = wanted.to(plain.dtype)
    wobble = ((stored + 0.3 - 0.3).double() - stored.double())[finite]
    factor = 8 if gradient and plain.dtype == torch.float32 else 2
    return factor * (_largest((plain.double() - wanted)[finite]) + _largest(wobble))


def _gradients(
    results: Mapping[str, Tensor], leaves: Mapping[str, Tensor], seed: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = []
    for result in results.values():
        # The same numbers for every formula: those that the narrowest of them, `dtype`, can hold.
        drawn = torch.randn(result.shape, generator=generator).to(dtype).to(result.device, result.dtype)
        # The lse of an empty row is -inf and has no gradient to give.
        weights.append(torch.where(torch.isfinite(result), drawn, 0.0))
    # An lse of constant scores depends on nothing.
    pairs = [(r, w) for r, w in zip(results.values(), weights, strict=True) if r.requires_grad]
    found: Sequence[Tensor | None] = torch.autograd.grad(
        [r for r, _ in pairs], list(leaves.values()), [w for _, w in pairs], allow_unused=True
    )
    return {
        f"d{name}": torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def _comparison(name: str, found: Tensor, wanted: Tensor, plain: Tensor) -> Comparison:
    ours, theirs = found.double(), wanted.double()
    finite = torch.isfinite(theirs)
    agree = torch.equal(torch.isfinite(ours), finite) and torch.equal(ours[~finite], theirs[~finite])
    allowed = allowed_error(wanted, plain, gradient=name not in ("out", "lse"))
    return Comparison(name, _largest((ours - theirs)[finite]), allowed, agree)


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


_AS_THEY_ARE = frozenset({"__get__", "__set__", "register_hook", "requires_grad_", "item", "tolist", "to", "double"})
"""What reads or marks a tensor, and must meet the tensor itself."""


class _InDType(TorchFunctionMode):
    """Computes each operation on float64 tensors in a narrower type, and widens the result again.

    The oracle keeps float64 for what becomes a score and float32 for what becomes a bool or an index, so the
    latter is left alone.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """One operation of torch."""
        if getattr(func, "__name__", "") in _AS_THEY_ARE:
            return func(*args, **(kwargs or {}))
        narrow = [self._narrow(a) for a in args]
        result = func(*narrow, **{n: self._narrow(a) for n, a in (kwargs or {}).items()})
        return self._widen(result)

    def _narrow(self, argument: Any) -> Any:
        if isinstance(argument, Tensor) and argument.dtype == torch.float64:
            return argument.to(self._dtype)
        if isinstance(argument, list | tuple) and any(isinstance(a, Tensor) for a in argument):
            return type(argument)(self._narrow(a) for a in argument)
        return argument

    def _widen(self, result: Any) -> Any:
        if isinstance(result, Tensor) and result.dtype == self._dtype:
            return result.double()
        if type(result) in (list, tuple):
            return type(result)(self._widen(r) for r in result)
        return result
