"""Whatever an input or a param is called, it stands apart from everything else in a generated module."""

from __future__ import annotations

import ast
import keyword

import pytest
import torch

import attncc
from attncc.analysis.plan import plan_loops
from attncc.codegen.expressions import field_name
from attncc.codegen.options import Options, Target
from attncc.codegen.triton.module import generate
from attncc.grammar.builtins import BUILTINS, CALL_ARGUMENTS
from attncc.grammar.frontend import loads_specs
from attncc.passes.pipeline import lower

TEXTS = (
    "attention a",
    "attention a\n  input x: float[heads] learnable\n  input y: bool[keys]\n  param z: bool = true\n"
    "  mask y[k] or z\n  weights softmax with x[h]",
    "attention a\n  input x: float[heads] learnable\n  weights relu(s) over total + x[h]",
    "attention a\n  grid x, y\n  extent n\n  input z: int[n]\n  mask z[q.x] < n\n  weights relu(s)",
)


def host_names(text: str) -> set[str]:
    """Names and arguments of everything in the text's module that is not compiled for the device."""
    spec = lower(loads_specs(text).specs["a"], dim=16)
    options = Options(Target("interpreter"), "float32", 16, 16)
    tree = ast.parse(generate(spec, plan_loops(spec), options))
    host = [n for n in tree.body if not (isinstance(n, ast.FunctionDef) and n.decorator_list)]
    nodes = [n for part in host for n in ast.walk(part)]
    return {n.id for n in nodes if isinstance(n, ast.Name)} | {n.arg for n in nodes if isinstance(n, ast.arg)}


@pytest.mark.parametrize("text", TEXTS)
def test_the_names_of_a_module_are_taken(text: str) -> None:
    ours = {"x", "y", "z", "n"} | BUILTINS | CALL_ARGUMENTS  # the latter two are refused as names
    free = {name for name in host_names(text) - ours if field_name(name) == name}
    assert not free - {"pointer", "stride_b", "stride_h", "stride_row"}  # fields of another record


def test_different_names_have_different_fields() -> None:
    names = {"type", "arg_type", "arg_arg_type", "values", "x", "x_", "class", "lse", "arg_lse", "_x", "arg__x"}
    assert len({field_name(n) for n in names}) == len(names)
    assert not any(keyword.iskeyword(field_name(n)) for n in names)


NAMES = ("state", "torch", "Values", "FORWARD", "grad_out", "int_", "class", "_", "values", "x_stride_0", "tl", "lse")


@pytest.mark.parametrize("name", NAMES)
def test_an_input_may_be_called(name: str) -> None:
    assert name not in BUILTINS | CALL_ARGUMENTS
    text = f"attention a\n  input {name}: float[heads] learnable\n  mask k <= q\n  score s + {name}[h] * (k - q)"
    attn = attncc.loads(text)
    query, key, value = (torch.randn(1, 2, 9, 16) for _ in range(3))
    slopes = torch.rand(2, requires_grad=True)
    out = attn(query, key, value, backend="triton", **{name: slopes})
    wanted = attn.reference(query, key, value, **{name: slopes})
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)
    found, other = (torch.autograd.grad(o.sum(), slopes)[0] for o in (out, wanted))
    torch.testing.assert_close(found, other, atol=1e-4, rtol=1e-4)
