"""What users call, as they call it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import attncc
from attncc import compiler
from attncc.codegen.options import Options, Target
from attncc.errors import ArgumentError, SpecError

BAND = """\
attention band
  const shift: int = 0
  param window: int = 2
  input slopes: float[heads] learnable
  mask abs(q - k + shift) <= window
  score s - slopes[h] * abs(q - k)
"""
TWO = "attention one\n  mask k <= q\nattention two\n  mask k < q or k == 0\n"


def operands(heads: int = 2, length: int = 6, dim: int = 4) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, length, dim, generator=random) for _ in range(3)]


def test_importing_attncc_and_reading_a_spec_imports_neither_torch_nor_triton() -> None:
    code = (
        "import sys, attncc; from attncc.grammar.frontend import loads_specs; attncc.SpecError; "
        "loads_specs('attention a  mask k <= q'); "
        "print([m for m in ('torch', 'triton', 'numpy', 'sympy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in attncc.__all__:
        assert getattr(attncc, name) is not None
        assert name in dir(attncc)
    with pytest.raises(AttributeError, match="module 'attncc' has no attribute 'flash'"):
        attncc.flash  # noqa: B018


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "band.attn"
    path.write_text(BAND)
    for given in (path, str(path)):
        assert attncc.load(given).spec == attncc.loads(BAND).spec


def test_several_attentions_come_by_name() -> None:
    several = attncc.loads(TWO)
    assert {name: a.name for name, a in several.items()} == {"one": "one", "two": "two"}
    assert attncc.loads(TWO, name="two").spec == several["two"].spec
    with pytest.raises(ArgumentError, match="the text defines no attention 'tow', only one, two; did you mean 'two'"):
        attncc.loads(TWO, name="tow")


def test_errors_of_a_spec_are_shown_with_their_line() -> None:
    with pytest.raises(SpecError) as caught:
        attncc.loads("attention a\n  mask k <= qq\n")
    assert "<string>:2:13" in str(caught.value)


def test_warnings_of_a_spec_are_warnings() -> None:
    with pytest.warns(attncc.SpecWarning, match="the let 'x' is never used") as caught:
        attncc.loads("attention a mask k <= q let x = 3")
    assert caught[0].filename == __file__


def test_a_call_returns_a_tensor_or_a_named_tuple() -> None:
    query, key, value = operands()
    plain = attncc.loads("attention a mask k <= q")
    assert isinstance(plain(query, key, value, backend="oracle"), torch.Tensor)
    assert plain(query, key, value, backend="oracle", return_lse=True)._fields == ("out", "lse")
    declared = attncc.loads("attention a mask k <= q output key_mass, lse")
    for result in (
        declared(query, key, value, backend="oracle", return_lse=True),
        declared.reference(query, key, value),
    ):
        assert result._fields == ("out", "key_mass", "lse")
    further = attncc.loads("attention a mask k <= q output entropy")
    result = further(query, key, value, backend="oracle", return_lse=True)
    assert result._fields == ("out", "lse", "entropy")
    reference = further.reference(query, key, value, return_lse=True)
    for got, wanted in zip(result, reference, strict=True):
        assert torch.equal(got, wanted)


def test_params_have_defaults_and_constants_can_be_given() -> None:
    query, key, value = operands()
    attention, slopes = attncc.loads(BAND), torch.zeros(2)
    for window in (1, 2, 5):
        for shift in (0, 1):
            wanted = attncc.loads(f"attention a mask abs(q - k + {shift}) <= {window}").reference(query, key, value)
            for call, extra in ((attention, {"backend": "oracle"}), (attention.reference, {})):
                got = call(query, key, value, slopes=slopes, window=window, shift=shift, **extra)
                assert torch.equal(got, wanted)
    assert torch.equal(
        attention.reference(query, key, value, slopes=slopes),
        attention.reference(query, key, value, slopes=slopes, window=2, shift=0),
    )


def test_reference_refuses_another_backend() -> None:
    with pytest.raises(ArgumentError, match="reference is always the dense oracle, so backend='triton' cannot be had"):
        attncc.loads(TWO, name="one").reference(*operands(), backend="triton")


def test_repr_says_what_a_call_takes() -> None:
    assert repr(attncc.loads(BAND)) == "<attncc.Attention band(slopes: float[heads], window: int = 2)>"
    text = "attention a extent n blocks t: int[heads, query_blocks, n] size 64, 64 param w: int mask q - k < w"
    assert repr(attncc.loads(text)) == "<attncc.Attention a(t: int[heads, query_blocks, n], w: int)>"


def test_copies_and_pickles_are_the_same_attention() -> None:
    attention = attncc.loads(BAND)
    assert copy.copy(attention) is attention
    assert copy.deepcopy(attention) is attention
    assert pickle.loads(pickle.dumps(attention)).spec == attention.spec


def test_the_decorator_gives_the_same_spec_as_the_text() -> None:
    @attncc.attention
    def band(a, *, slopes: attncc.Input("float[heads]", learnable=True), window: int = 2):  # type: ignore[no-untyped-def]
        """A band."""
        a.mask(abs(a.q - a.k) <= window)
        a.score(a.s - slopes[a.h] * abs(a.q - a.k))

    text = BAND.replace("  const shift: int = 0\n", "").replace(" + shift", "")
    assert band.spec == attncc.loads(text).spec
    assert band.__doc__ == "A band."
    assert band.__module__ == __name__


def test_functions_written_for_flex_keep_their_tensors() -> None:
    bias = nn.Parameter(torch.randn(2, 6))
    length = torch.tensor([4])

    def score_mod(score, b, h, q_idx, kv_idx):  # type: ignore[no-untyped-def]
        return score + bias[h, kv_idx]

    def mask_mod(b, h, q_idx, kv_idx):  # type: ignore[no-untyped-def]
        return kv_idx < length[b]

    query, key, value = operands()
    attention = attncc.from_flex(score_mod, mask_mod)
    out = attention(query, key, value, backend="oracle")
    shifted = bias[None, :, None, :].masked_fill(torch.arange(6) >= 4, -torch.inf)
    wanted = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=shifted)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(o.square().sum(), bias)[0] for o in (out, wanted)))
    with torch.no_grad():
        bias.zero_()
    torch.testing.assert_close(
        attention(query, key, value, backend="oracle"),
        nn.functional.scaled_dot_product_attention(query, key[:, :, :4], value[:, :, :4]),
    )


def test_a_copied_module_has_its_own_bound_tensors() -> None:
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            bias = nn.Parameter(torch.zeros(2))
            self.bias = bias
            self.attention = attncc.from_flex(lambda score, b, h, q, k: score + bias[h] * k)

    layer = Biased()
    twin = copy.deepcopy(layer)
    twin.attention(*operands(), backend="oracle").sum().backward()
    assert twin.bias.grad is not None
    assert layer.bias.grad is None


def test_plan_counts_tiles() -> None:
    plan = attncc.loads(TWO, name="one").plan(queries=1024, tile=(128, 128))
    assert (plan.tiles_total, plan.tiles_full, plan.tiles_partial, plan.tiles_visited) == (64, 28, 8, 36)
    assert np.array_equal(plan.tiles(), np.tril(np.full((8, 8), 2, dtype=np.int8), -1) + np.eye(8, dtype=np.int8))
    assert "28 FULL" in plan.describe()
    decoding = attncc.loads(TWO, name="one").plan(queries=1, keys=1024, q_offset=511, batch=2, heads=3)
    assert (decoding.tiles_total, decoding.tiles_visited) == (2 * 3 * 8, 2 * 3 * 4)


def test_plan_takes_values_and_checks_them() -> None:
    attention = attncc.loads('attention a param w: int = 256 require w >= 1, "too narrow" mask 0 <= q - k < w')
    assert attention.plan(queries=1024).tiles_visited > attention.plan(queries=1024, w=1).tiles_visited
    with pytest.raises(ArgumentError, match="too narrow"):
        attention.plan(queries=1024, w=0)
    with pytest.raises(ArgumentError, match="'a' has no param or input 'ww'"):
        attention.plan(queries=1024, ww=0)
    with pytest.raises(ArgumentError, match="needs a number for 'w'"):
        attncc.loads("attention a param w: int mask q - k < w").plan(queries=1024)


def test_plan_of_a_grid() -> None:
    attention = attncc.loads("attention a grid y, x mask q.y == k.y")
    plan = attention.plan(queries=256, grid=(16, 16), tile=(16, 16))
    assert plan.tiles_total == 256
    with pytest.raises(ArgumentError, match="the grid of keys has 8 y \\* 16 x = 128 tokens, but there are 256 keys"):
        attention.plan(queries=256, grid=(8, 16))


@pytest.mark.parametrize("target", ["cuda:80", "cuda:100", "hip:gfx942", "interpreter"])
def test_source_is_the_text_of_a_module(target: str) -> None:
    text = attncc.loads(BAND).source(target, dtype="fp16", head_dim=64, shift=3)
    compile(text, "module", "exec")
    assert target in text
    assert text == attncc.loads(BAND).source(target, dtype="fp16", head_dim=64, shift=3)
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert {name.split(".")[0] for name in imported} <= {"torch", "triton", "typing", "__future__", "math"}


def test_source_refuses_what_is_not_there() -> None:
    with pytest.raises(ArgumentError, match="'band' has no const 'window'"):
        attncc.loads(BAND).source(window=3)
    with pytest.raises(ArgumentError, match="there is no target 'cuda:h100'"):
        attncc.loads(BAND).source("cuda:h100")


def test_attention_trains_inside_a_module() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attncc.loads(BAND)
            self.slopes = nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.attention(x, x, x, slopes=self.slopes, backend="oracle")
            return out

    layer = Layer()
    x = operands()[0]
    goal = layer.attention.reference(x, x, x, slopes=torch.tensor([0.5, -0.5]))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (layer(x) - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20


@pytest.mark.parametrize(
    ("moved", "message"),
    [("query", "query is on meta, but key is on cpu"), ("slopes", "'slopes' is on meta, but query is on cpu")],
)
def test_a_tensor_without_data_among_others_is_refused(moved: str, message: str) -> None:
    attention = attncc.loads("attention a\n  input slopes: float[heads]\n  score s * slopes[h]")
    tensors = {name: torch.zeros(1, 2, 4, 8) for name in ("query", "key", "value")} | {"slopes": torch.zeros(2)}
    tensors[moved] = tensors[moved].to("meta")
    with pytest.raises(ArgumentError) as caught:
        attention(**tensors)
    assert str(caught.value).splitlines()[0] == message


PLANNED = "attention a\n  input last: int[batch]\n  mask k <= last[b] and k <= q"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": -1}, "lengths are at least 0"),
        ({"queries": 6.5}, "lengths, batch and heads are ints"),
        ({"heads": 3, "kv_heads": 2}, "3 heads are not a multiple of the 2 heads of key and value"),
        ({"tile": 64}, "tile is a pair of ints (queries, keys), not 64"),
        ({"tile": ((16, 16), (16, 8))}, "tiles that are boxes are not there yet"),
        ({"q_offset": np.array([1, 2])}, "q_offset is an int or [batch], but has shape [2]"),
        ({"last": torch.tensor([3, 4])}, "'last' has 2 elements along axis 0, but 'batch' is 1"),
    ],
)
def test_plan_refuses_what_no_call_could_have(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        attncc.loads(PLANNED).plan(**{"queries": 64, "last": torch.tensor([3])} | arguments)
    assert str(caught.value).startswith(message)


def test_source_is_the_text_that_is_compiled() -> None:
    attention = attncc.loads("attention a\n  mask q % dim == k % dim")
    text = attention.source(target="interpreter", dtype="float32", head_dim=16)
    assert "values.dim" not in text
    assert text == compiler.source(attention.spec, {}, Options(Target("interpreter"), "float32", 16, 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head_dim": 0}, "the dimensions of query and value are at least 1, not 0 and 0"),
        ({"value_dim": 0}, "the dimensions of query and value are at least 1, not 128 and 0"),
        ({"input_dtypes": {"slope": "float16"}}, "'band' has no input 'slope' to have an element type"),
    ],
)
def test_source_refuses_what_no_call_could_have(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        attncc.loads(BAND).source(**arguments)
