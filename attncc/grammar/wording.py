"""Phrases that several diagnostics of the checker share."""

from __future__ import annotations

from collections.abc import Iterable

from attncc.errors import did_you_mean
from attncc.grammar.builtins import BUILTIN_FUNCTIONS, BUILTIN_VALUES
from attncc.grammar.definitions import Definitions
from attncc.ir.expr import Sort
from attncc.ir.spec import Grid


def a_sort(sort: Sort) -> str:
    """`an int`, `a float`, `a bool`."""
    return "an int" if sort is Sort.INT else f"a {sort.value}"


def bool_wanted(what: str, sort: Sort) -> str:
    """Where a condition was wanted."""
    return f"{what} wants a bool, and this is {a_sort(sort)}"


def condition_hint(sort: Sort) -> str:
    """How to make a condition of a number."""
    return "compare it, as in `x != 0`" if sort is Sort.INT else "compare it, as in `x > 0.0`"


def number_wanted(what: str) -> str:
    """Where a number was wanted and a bool was given."""
    return f"{what} wants numbers, and this is a bool"


def name_hint(name: str, visible: Iterable[str], definitions: Definitions, grid: Grid | None) -> str | None:
    """What an unknown name was probably meant to be."""
    if name in BUILTIN_FUNCTIONS or definitions.find(name) is not None:
        definition = definitions.find(name)
        usage = definition.usage if definition else f"{name}(…)"
        return f"'{name}' is a function: write `{usage}`"
    if grid is not None and name in (*grid.queries, *grid.keys):
        return f"write `q.{name}` or `k.{name}`"
    return _FOREIGN_NAMES.get(name) or did_you_mean(name, (*visible, *BUILTIN_VALUES))


def function_hint(name: str, known: Iterable[str]) -> str | None:
    """What an unknown function was probably meant to be."""
    return _FOREIGN_FUNCTIONS.get(name) or did_you_mean(name, known)


_FOREIGN_NAMES = {
    "True": "write `true`",
    "False": "write `false`",
    "None": "there is no none; a mask or score that changes nothing is left out",
    "i": "the query's position is `q`",
    "j": "the key's position is `k`",
    "q_idx": "FlexAttention's q_idx is `row`; `q` also counts from q_offset",
    "kv_idx": "the key's position is `k`",
    "score": "the score so far is `s`",
    "softmax": "write the statement `weights softmax`",
    "e": "write `exp(1.0)`",
    "pi": "write `3.141592653589793`",
    "q_offset": "`q` already counts from q_offset",
    "seq_len": "write `queries` or `keys`",
    "head_dim": "write `dim`",
    "num_heads": "write `heads`",
}
_FOREIGN_FUNCTIONS = {
    "where": "a choice is written `x if condition else y`",
    "select": "a choice is written `x if condition else y`",
    "float": "an int becomes a float where one is wanted",
    "int": "write `floor(x)`",
    "bool": "compare, as in `x != 0`",
    "round": "write `floor(x + 0.5)`",
    "trunc": "write `floor(x)` or `ceil(x)`",
    "pow": "write `x ** y`",
    "mod": "write `x % y`",
    "minimum": "write `min(x, y)`",
    "maximum": "write `max(x, y)`",
    "log2": "write `log(x) / log(2.0)`",
    "log10": "write `log(x) / log(10.0)`",
    "exp2": "write `2.0 ** x`",
    "tan": "write `sin(x) / cos(x)`",
    "softmax": "write the statement `weights softmax`",
    "sum": "sums over keys are the business of `weights`: a numerator `over total`",
    "logical_and": "write `a and b`",
    "logical_or": "write `a or b`",
    "logical_not": "write `not a`",
    "window": "write `sliding(w)`",
    "document": "write `same(doc)`",
}
