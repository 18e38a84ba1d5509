"""The words the language itself gives meaning to, by kind."""

from __future__ import annotations

POSITIONS = ("b", "h", "h_kv", "q", "k", "row")
SIZES = ("batch", "heads", "kv_heads", "queries", "keys", "dim")
SORTS = ("int", "float", "bool")

# Statements, in the order a reader meets them. All are reserved, so a file can be cut at them.
FILE_HEADS = ("use", "def", "attention")
ATTENTION_HEADS = (
    "const",
    "param",
    "input",
    "extent",
    "grid",
    "blocks",
    "let",
    "mask",
    "score",
    "weights",
    "reweight",
    "output",
    "require",
    "scale",
)
HEADS = FILE_HEADS + ATTENTION_HEADS
OPERATOR_WORDS = ("and", "or", "not", "if", "else", "true", "false")

# Functions over expressions, with the names of their parameters; `*` takes two or more.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "min": ("*",),
    "max": ("*",),
    "abs": ("x",),
    "sign": ("x",),
    "clamp": ("x", "low", "high"),
    "floor": ("x",),
    "ceil": ("x",),
    "exp": ("x",),
    "log": ("x",),
    "sqrt": ("x",),
    "sin": ("x",),
    "cos": ("x",),
    "tanh": ("x",),
    "sigmoid": ("x",),
    "relu": ("x",),
    "erf": ("x",),
}
# Functions over names rather than values.
SPECIAL_FUNCTIONS = ("len", "on_grid")
# Rule 12: kept free for later.
RESERVED_FUNCTIONS = {
    "random": "random numbers in a spec",
    "dot": "a second product of queries and keys",
}

# Names with a meaning in one statement only: `total` and `count` in a denominator, `p` in reweight,
# `query_blocks` in the extents of a table.
PLACED = ("total", "count", "p", "query_blocks")

BUILTIN_VALUES = frozenset((*POSITIONS, *SIZES, "s", "inf", *PLACED))
BUILTIN_FUNCTIONS = frozenset((*FUNCTIONS, *SPECIAL_FUNCTIONS, *RESERVED_FUNCTIONS))
BUILTINS = BUILTIN_VALUES | BUILTIN_FUNCTIONS | frozenset(SORTS)

# Arguments of a compiled attention and of `plan`: a param or input of that name could not be given (rule 7).
CALL_ARGUMENTS = frozenset(
    (
        "query",
        "key",
        "value",
        "scale",
        "q_offset",
        "grid",
        "prefix_tokens",
        "suffix_tokens",
        "backend",
        "return_lse",
        "check",
        "tile",
        "out",
        "self",
    )
)

# Operations whose last bit differs between machines (rule 4).
TRANSCENDENTAL = frozenset(("exp", "log", "sin", "cos", "tanh", "sigmoid", "erf", "pow"))
