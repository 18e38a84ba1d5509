"""Runs a FlexAttention function with symbols in place of tensors, and records what it computes.

A symbol is a torch.Tensor of no dimensions without data. Every torch function, method and operator that the
function uses arrives at `Recorder`, whether its operands are symbols, captured tensors or both.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attncc.errors import SpecError, did_you_mean
from attncc.grammar.flex_captures import Captures
from attncc.grammar.python_source import PythonLines
from attncc.grammar.torch_functions import TORCH_FUNCTIONS, Refusal, sort_of
from attncc.ir.expr import Call, Const, Coord, Expr, Load, Size, Sort, to_const
from attncc.ir.intrinsics import TypingError, call
from attncc.source import Span

_DTYPES = {Sort.INT: torch.int64, Sort.BOOL: torch.bool, Sort.FLOAT: torch.float32}


class _Placeholder(Tensor):
    """What the user's function holds. Works only while `Recorder` is active."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        raise RuntimeError("a symbol of attncc.from_flex was used after its function had returned")


class Symbol(_Placeholder):
    """One number of the pair being scored: a position, the score, or what was computed from them."""

    expr: Expr
    span: Span | None
    lines: PythonLines

    def __hash__(self) -> int:
        # Tensors hash by identity, so `q_idx in {1, 2}` would quietly be false.
        raise self.lines.conversion_error("__hash__")


class Partial(_Placeholder):
    """A captured tensor of which only the first axes are indexed."""

    base: Tensor
    done: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class _Operation:
    """A torch function by its plain name: `__radd__` is `add` with operands reversed, `add_` is `add` in place."""

    name: str
    reversed: bool = False
    in_place: bool = False


class Recorder(TorchFunctionMode):
    """Active while the user's function runs."""

    def __init__(self, lines: PythonLines, captures: Captures) -> None:
        super().__init__()
        self._lines = lines
        self._captures = captures
        # Tensors made during the trace are kept, so that an id is never used twice.
        self._made: dict[int, Tensor] = {}
        self._computed: dict[int, Tensor] = {}

    def symbol(self, expr: Expr, span: Span | None = None) -> Symbol:
        """A symbol that stands for an expression."""
        made = Tensor._make_subclass(Symbol, torch.empty((), dtype=_DTYPES[expr.sort], device="meta"))
        made.expr, made.span, made.lines = expr, span, self._lines
        return made

    def result(self, value: object, function: str, span: Span | None) -> Symbol:
        """What the user's function returned, as a symbol. Raises SpecError where it is none."""
        if isinstance(value, Tensor) and not isinstance(value, _Placeholder) and value.ndim == 0:
            return self.symbol(self._expr(value), span)
        if isinstance(value, Symbol):
            return value
        if isinstance(value, Partial):
            raise self._partial_error(value, span)
        shown = "nothing" if value is None else f"the constant {value!r}" if _is_number(value) else f"a {_kind(value)}"
        raise self._lines.error(
            f"'{function}' returned {shown}, not a value computed from its arguments",
            span,
            hint="return what you compute from the arguments, such as `q_idx >= kv_idx`",
        )

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operands = [*_flatten(args), *_flatten(kwargs.values())]
        operation = _operation(func)
        if operation.name == "getitem" and not isinstance(args[0], Symbol):
            indexed = self._indexed(args[0], args[1])
            if indexed is not None:
                return indexed
        if not any(isinstance(o, _Placeholder) or self._is_captured_number(o) for o in operands):
            return self._compute(func, args, kwargs, operands)
        known = self._properties(func, operation.name, args)
        if known is not NotImplemented:
            return known
        try:
            return self._apply(operation, args, kwargs)
        except Refusal as refusal:
            raise self._lines.error(f"{refusal}", hint=refusal.hint) from None
        except TypingError as error:
            raise self._lines.error(str(error)) from None

    def _apply(self, operation: _Operation, args: Sequence[Any], kwargs: dict[str, Any]) -> Symbol | Partial:
        name = operation.name
        if name == "embedding":
            return self._embedding(*args, **kwargs)
        # A custom operator such as a fast tanh of softcap code means the function it approximates.
        function = TORCH_FUNCTIONS.get("tanh" if name.endswith("tanh") else name)
        if function is None:
            raise self._unknown(name)
        if kwargs.get("out") is not None:
            raise Refusal(f"torch.{name} cannot write into `out=` here", "use its result")
        operands = [self._operand(a) for a in args]
        if operation.reversed:
            operands.reverse()
        try:
            expr = function(*operands, **{k: self._operand(v) for k, v in kwargs.items()})
        except TypeError as error:
            if isinstance(error, SpecError) or error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise
            raise Refusal(f"this form of torch.{name} cannot be traced", "give it tensors and numbers only") from None
        if not operation.in_place:
            return self.symbol(expr, self._lines.here())
        target = args[0]
        if not isinstance(target, Symbol) or target.expr.sort is not expr.sort:
            raise Refusal(f"torch.{name}_ cannot change this value in place", f"write `x = x.{name}(...)`")
        target.expr, target.span = expr, self._lines.here()
        return target

    def _operand(self, value: Any) -> Any:
        """An IR expression for what is a number; dtypes, strings and shapes as they are."""
        if isinstance(value, Tensor) or _is_number(value):
            return self._expr(value)
        return value

    def _expr(self, value: Any) -> Expr:
        if isinstance(value, Symbol):
            return value.expr
        if isinstance(value, Partial):
            raise self._partial_error(value)
        if not isinstance(value, Tensor):
            return _constant(value)
        if value.ndim == 0:
            return _constant(value.item()) if id(value) in self._made else self._load(value, ())
        name = self._captures.name_of(value)
        raise self._lines.error(
            f"the captured tensor '{name}' of shape {list(value.shape)} is used whole",
            note="a mod computes one number for each pair",
            hint=f"index it: `{name}[{', '.join(['q_idx'] * value.ndim)}]`, say",
        )

    def _indexed(self, base: Tensor, index: Any) -> Symbol | Partial | None:
        """An element of a captured tensor, or one with fewer axes; None where torch itself is to index."""
        entries = list(index) if isinstance(index, tuple) else [index]
        partial = isinstance(base, Partial)
        symbolic = partial or any(isinstance(o, _Placeholder) for o in _flatten(entries))
        # An int is a bool in Python, but not as an index.
        numeric = all(isinstance(e, Symbol) or _is_int(e) or self._is_captured_number(e) for e in entries)
        made = not partial and id(base) in self._made
        if not symbolic and (made or not numeric or not entries or len(entries) > base.ndim):
            return None
        if not numeric:
            odd = next(e for e in entries if not (isinstance(e, Symbol) or _is_int(e)))
            raise self._lines.error(
                f"a captured tensor cannot be indexed with {_index_kind(odd)} here",
                note="a mod reads one element for each pair",
                hint="give one int for each axis, as in `bias[h, q_idx - kv_idx]`",
            )
        done: tuple[Expr, ...] = ()
        if isinstance(base, Partial):
            done = base.done
            base = base.base
        if len(done) + len(entries) > base.ndim:
            raise self._lines.error(
                f"{len(done) + len(entries)} indices for '{self._captures.name_of(base)}', "
                f"which has {base.ndim} {'axis' if base.ndim == 1 else 'axes'}"
            )
        for entry in entries:
            done = (*done, self._position(entry, base, len(done)))
        return self._element(base, done)

    def _element(self, base: Tensor, indices: tuple[Expr, ...]) -> Symbol | Partial:
        if len(indices) == base.ndim:
            return self.symbol(self._load(base, indices), self._lines.here())
        left = torch.empty(base.shape[len(indices) :], dtype=base.dtype, device="meta")
        made = Tensor._make_subclass(Partial, left)
        made.base, made.done = base, indices
        return made

    def _position(self, entry: Any, base: Tensor, axis: int) -> Expr:
        """An index as torch means it: a negative one counts from the end."""
        index = self._expr(entry)
        length = base.shape[axis]
        name = self._captures.name_of(base)
        if index.sort is not Sort.INT:
            kind = "a bool" if index.sort is Sort.BOOL else "a float"
            raise self._lines.error(
                f"'{name}' is indexed with {kind}",
                hint="write `.to(torch.int64)` after the index" if index.sort is Sort.FLOAT else "use torch.where",
            )
        if isinstance(index, Const):
            if not -length <= index.value < length:
                raise self._lines.error(
                    f"index {index.value} is out of range for axis {axis} of '{name}', which is {length} long"
                )
            return Const(int(index.value) % length, Sort.INT)
        if _is_nonnegative(index):
            return index
        return call("where", call("lt", index, Const(0, Sort.INT)), call("add", index, Const(length, Sort.INT)), index)

    def _load(self, base: Tensor, indices: tuple[Expr, ...]) -> Expr:
        if id(base) in self._computed:
            raise self._lines.error(
                "this tensor is computed from a captured one inside the function",
                note="its value would be frozen when from_flex is called",
                hint="compute it outside the function, or index first and compute on the element",
            )
        try:
            sort = sort_of(base.dtype)
        except Refusal as refusal:
            raise self._lines.error(f"the captured tensor '{self._captures.name_of(base)}': {refusal}") from None
        return Load(self._captures.declare(base, sort, self._lines.here()), indices, sort)

    def _embedding(self, index: Any, weight: Tensor, *args: Any, **kwargs: Any) -> Symbol | Partial:
        padding = kwargs.get("padding_idx", args[0] if args else None)
        if padding not in (None, -1) or not isinstance(index, Symbol) or kwargs.get("max_norm") is not None:
            raise Refusal("this form of embedding cannot be traced", "index its weight: `weight[bucket, h]`")
        return self._element(weight, (self._position(index, weight, 0),))

    def _compute(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], operands: list[Any]) -> Any:
        """A torch function over real tensors only: done now. What came of captured values is remembered."""
        given = [o for o in operands if isinstance(o, Tensor)]
        results = func(*args, **kwargs)
        for made in _flatten([results]):
            if not isinstance(made, Tensor) or any(made is g for g in given):
                continue
            if all(id(g) in self._made for g in given):
                self._made[id(made)] = made
            elif not (made._is_view() and self._captures.adopt_view(made)):
                self._computed[id(made)] = made
        return results

    def _is_captured_number(self, value: object) -> bool:
        return (
            isinstance(value, Tensor)
            and not isinstance(value, _Placeholder)
            and value.ndim == 0
            and id(value) not in self._made
        )

    def _properties(self, func: Any, name: str, args: Sequence[Any]) -> Any:
        """What a symbol answers at once (its dtype and shape), and what Python asks that it cannot answer."""
        self_ = args[0] if args else None
        match name:
            case "bool" if func is Tensor.__bool__:
                raise self._lines.truth_error()
            case "int" | "float" | "complex" | "index" | "len" | "iter" | "contains" | "array" | "tolist" | "item":
                dunder = getattr(func, "__name__", "")
                if dunder in ("item", "tolist"):
                    raise self._lines.conversion_error(f".{dunder}()")
                if dunder.startswith("__"):
                    raise self._lines.conversion_error(dunder)
            case "get":
                return self._attribute(getattr(func.__self__, "__name__", ""), cast(Tensor, self_))
            case "is_floating_point":
                return self_.dtype.is_floating_point if self_ is not None else False
            case "dim" | "ndimension":
                with torch._C.DisableTorchFunctionSubclass():
                    return func(*args)
            case "size" | "numel" | "element_size" | "stride":
                with torch._C.DisableTorchFunctionSubclass():
                    return func(*args)
            case "repr" | "format" | "str":
                return f"<symbol {_kind(self_)}>"
            case "setitem":
                raise self._lines.error("a mod cannot write into a tensor", hint="use torch.where")
        return NotImplemented

    def _attribute(self, name: str, owner: Tensor) -> Any:
        match name:
            case "dtype" | "shape" | "ndim" | "layout":
                with torch._C.DisableTorchFunctionSubclass():
                    return getattr(owner, name)
            case "device":
                return torch.device("cpu")
            case "requires_grad" | "is_cuda" | "is_sparse" | "is_meta" | "is_quantized" | "is_nested":
                return False
            case "is_cpu" | "is_leaf":
                return True
            case "grad" | "grad_fn":
                return None
        raise self._lines.error(f"a symbol has no attribute '{name}'", hint="keep to elementwise operations")

    def _partial_error(self, partial: Partial, span: Span | None = None) -> SpecError:
        name = self._captures.name_of(partial.base)
        left = partial.base.ndim - len(partial.done)
        return self._lines.error(
            f"'{name}' is used with {left} of its {partial.base.ndim} axes not indexed",
            span,
            note="a mod computes one number for each pair",
            hint=f"give {left} more {'index' if left == 1 else 'indices'}",
        )

    def _unknown(self, name: str) -> SpecError:
        close = did_you_mean(name, TORCH_FUNCTIONS)
        return self._lines.error(
            f"'{name}' of torch cannot be traced",
            note="elementwise functions, comparisons, torch.where and indexing of captured tensors can",
            hint=close,
        )


def _operation(func: Any) -> _Operation:
    name = getattr(func, "__name__", "") or str(func)
    if isinstance(func, torch._ops.OpOverload):
        name = func._schema.name.split("::")[-1]
    if name.startswith("__") and name.endswith("__"):
        plain = name[2:-2]
        if plain[:1] in ("r", "i") and plain[1:] in _REFLECTED:
            return _Operation(plain[1:], reversed=plain[0] == "r", in_place=plain[0] == "i")
        return _Operation(plain)
    if name.endswith("_") and name[:-1] in TORCH_FUNCTIONS:
        return _Operation(name[:-1], in_place=True)
    return _Operation(name)


_REFLECTED = frozenset(
    ("add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
)


def _flatten(values: Any) -> list[Any]:
    flat: list[Any] = []
    for value in values:
        if isinstance(value, list | tuple):
            flat += _flatten(value)
        elif isinstance(value, slice):
            flat += [value.start, value.stop, value.step]
        else:
            flat.append(value)
    return flat


def _constant(value: Any) -> Expr:
    if isinstance(value, bool):
        return to_const(value)
    if isinstance(value, numbers.Integral):
        return to_const(int(value))
    return to_const(float(value))


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real)


def _is_int(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _kind(value: object) -> str:
    match value:
        case Tensor():
            return f"tensor of shape {list(value.shape)}"
        case _:
            return type(value).__name__


def _index_kind(value: object) -> str:
    match value:
        case None:
            return "None"
        case slice():
            return "a slice"
        case bool():
            return "a bool"
        case float():
            return "a float"
        case list():
            return "a list"
        case Tensor() if not isinstance(value, Symbol):
            return f"a tensor of shape {list(value.shape)}"
        case _ if value is Ellipsis:
            return "an ellipsis"
        case _:
            return f"a {type(value).__name__}"


def _is_nonnegative(expr: Expr) -> bool:
    """Whether an int is seen at once never to be negative, so that torch's wrapping of indices need not be written."""
    match expr:
        case Const(value=value):
            return value >= 0
        case Coord() | Size():
            return True
        case Call(op="abs"):
            return True
        case Call(op="add" | "mul" | "floordiv" | "min" | "bitor" | "bitxor" | "shl", args=args):
            return all(_is_nonnegative(a) for a in args)
        case Call(op="max" | "bitand", args=args):
            return any(_is_nonnegative(a) for a in args)
        case Call(op="mod", args=(_, divisor)):
            return _is_nonnegative(divisor)
        case Call(op="shr", args=(x, _)):
            return _is_nonnegative(x)
        case Call(op="where", args=(_, yes, no)):
            return _is_nonnegative(yes) and _is_nonnegative(no)
        case Call(op="clamp", args=(_, low, high)):
            return _is_nonnegative(low) and _is_nonnegative(high)
        case _:
            return False
