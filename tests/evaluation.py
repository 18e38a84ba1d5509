"""Evaluates an expression by the meanings of its operations, given its leaves' values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from attncc.ir.expr import Call, Const, Expr, Sort, postorder
from attncc.ir.intrinsics import INTRINSICS


def evaluate(expr: Expr, leaves: Mapping[Expr, Any], xp: Any = np, floating: Any = np.float64) -> Any:
    """The expression's value over numpy arrays or torch tensors, all its floats of one type."""
    values: dict[Expr, Any] = {}
    kinds = {Sort.INT: xp.int64, Sort.BOOL: xp.bool, Sort.FLOAT: floating}
    for node in postorder(expr):
        if node in leaves:
            values[node] = leaves[node]
        elif isinstance(node, Const):
            values[node] = _array(xp, node.value, kinds[node.sort])
        else:
            assert isinstance(node, Call), f"no value for the leaf {node}"
            result = INTRINSICS[node.op].meaning(xp, *(values[a] for a in node.args))
            if node.op == "to_float":
                result = result.astype(floating) if xp is np else result.to(floating)
            values[node] = result
    return values[expr]


def _array(xp: Any, value: Any, kind: Any) -> Any:
    if xp is not np:
        return xp.tensor(value, dtype=kind)
    with np.errstate(all="ignore"):
        return np.asarray(np.asarray(value).astype(kind))
