"""Reads the skeleton files: whole functions to copy into a module, and the words that explain a leaf."""

from __future__ import annotations

import ast
import functools
import textwrap
from collections.abc import Sequence
from importlib import resources


@functools.cache
def source_of(file: str) -> str:
    """The text of a file of this folder."""
    return resources.files("attncc.codegen.triton").joinpath(file).read_text(encoding="utf-8")


def functions_of(file: str, names: Sequence[str] | None = None) -> str:
    """The functions of a skeleton file as they stand there, or only those named."""
    lines = source_of(file).splitlines()
    found = []
    for name, node in definitions_of(file).items():
        if names is None or name in names:
            start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found.append("\n".join(lines[start - 1 : node.end_lineno]))
    return "\n\n\n".join(found)


@functools.cache
def definitions_of(file: str) -> dict[str, ast.FunctionDef]:
    """The functions a file defines at its top, by name, in order."""
    return {n.name: n for n in ast.parse(source_of(file)).body if isinstance(n, ast.FunctionDef)}


def leaf(signature: str, body: Sequence[str]) -> str:
    """A generated device function: the signature, what `leaves.py` says of the leaf of that name, the body."""
    declared = definitions_of("leaves.py")[signature.split("(")[0]]
    doc = ast.get_docstring(declared) or ""
    return "\n".join(
        ["@triton.jit", f"def {signature}:", textwrap.indent(f'"""{doc}"""', "    "), *(f"    {x}" for x in body)]
    )
