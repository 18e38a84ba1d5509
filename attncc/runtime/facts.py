"""What `check=True` verifies: facts declared of an input's elements, and the entries of block tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from typing_extensions import assert_never

from attncc.ir.printer import print_expr
from attncc.ir.spec import Input, RangeFact, SortedFact, Spec, Table
from attncc.runtime.evaluate import Evaluator
from attncc.runtime.signature import refuse
from attncc.runtime.tables import blocks_of, is_valid_entry


def check_facts(spec: Spec, tensors: Mapping[str, Tensor], evaluator: Evaluator) -> None:
    """Raises ArgumentError naming the first element that breaks a declaration. Waits for the device."""
    for declared in spec.inputs:
        for fact in declared.facts:
            match fact:
                case SortedFact(axis=axis):
                    _check_sorted(declared, tensors[declared.name], axis)
                case RangeFact():
                    _check_range(declared, tensors[declared.name], fact, evaluator)
                case _:
                    assert_never(fact)
    for table in spec.tables:
        _check_entries(spec, table, tensors[table.name], evaluator)


def _check_sorted(declared: Input, tensor: Tensor, axis: int) -> None:
    # In 64 bits, so that the difference of two uint8 does not wrap.
    values = tensor.long() if not tensor.is_floating_point() else tensor
    length = values.shape[axis]
    if length < 2:
        return
    falls = values.narrow(axis, 1, length - 1) < values.narrow(axis, 0, length - 1)
    if (at := _first(falls)) is None:
        return
    after = [i + (d == axis) for d, i in enumerate(at)]
    raise refuse(
        f"'{declared.name}' is declared sorted along {print_expr(declared.extents[axis])}, "
        f"but falls from {_at(tensor, at)} at {at} to {_at(tensor, after)} at {after}",
        declared.span,
    )


def _check_range(declared: Input, tensor: Tensor, fact: RangeFact, evaluator: Evaluator) -> None:
    low, high = int(evaluator.scalar(fact.low)), int(evaluator.scalar(fact.high))
    values = tensor.long()
    if (at := _first((values < low) | (values >= high))) is None:
        return
    raise refuse(
        f"'{declared.name}' is declared in {print_expr(fact.low)} .. {print_expr(fact.high)}, "
        f"which is {low} .. {high} here, but holds {_at(tensor, at)} at {at}",
        declared.span,
        note="the lower bound is included, the upper one is not",
    )


def _check_entries(spec: Spec, table: Table, tensor: Tensor, evaluator: Evaluator) -> None:
    blocks = blocks_of(spec, table, evaluator)
    entries = tensor.long()
    if (at := _first(~is_valid_entry(entries, blocks) & (entries != -1))) is None:
        return
    raise refuse(
        f"'{table.name}' lists the key block {_at(tensor, at)} at {at}, "
        f"but key blocks are numbered from 0 to {max(1, math.prod(blocks.keys)) - 1}",
        table.span,
        note="-1 stands for no block",
    )


def _first(wrong: Tensor) -> list[int] | None:
    where = wrong.nonzero()
    return None if where.shape[0] == 0 else [int(i) for i in where[0].tolist()]


def _at(tensor: Tensor, index: list[int]) -> object:
    return tensor[tuple(index)].item()
