"""The operators inside torch's machinery: compile, autocast, checkpointing, `torch.func`, dispatch modes, opcheck."""

from __future__ import annotations

import copy
import gc
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import attncc
import attncc.api  # registers the operators
from attncc.errors import ArgumentError, BackendError, UnsupportedError
from attncc.runtime import backends, ops
from attncc.runtime.launch import Arguments
from attncc.runtime.ops import flatten, handle_of
from attncc.runtime.signature import collect

TEXT = """
attention a
  const start: int = 0
  param window: int = 4
  param gain: float = 1.0
  input slopes: float[heads] learnable
  input doc: int[batch, keys]
  mask k <= q and q - k < window and k >= start and doc[b, q] == doc[b, k]
  score s - slopes[h] * gain * (q - k)
"""


def operands(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = {"query": (2, 4, 6, 8), "key": (2, 2, 6, 8), "value": (2, 2, 6, 5), "slopes": (4,)}
    made = {n: torch.randn(s, generator=random, dtype=dtype, requires_grad=True) for n, s in shapes.items()}
    return {**made, "doc": torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]])}


def differentiable(given: dict[str, Tensor]) -> list[Tensor]:
    return [given[name] for name in ("query", "key", "value", "slopes")]


def flat_arguments(given: dict[str, Tensor], backend: str = "oracle", **changes: Any) -> tuple[Any, ...]:
    handle = handle_of(attncc.loads(TEXT).spec)
    tensors, ints, floats = collect(handle.signature, {n: given[n] for n in ("slopes", "doc")})
    call = Arguments(given["query"], given["key"], given["value"], tensors, ints, floats, **changes)
    return flatten(call, handle, backend, False)


@pytest.mark.parametrize("q_offset", [0, torch.tensor([1, -1])], ids=["offset", "offset for each batch entry"])
def test_opcheck(q_offset: int | Tensor) -> None:
    torch.library.opcheck(torch.ops.attncc.forward.default, flat_arguments(operands(), q_offset=q_offset))


def test_opcheck_of_backward() -> None:
    flat = flat_arguments(operands())
    results = torch.ops.attncc.forward(*flat)
    grads = [torch.ones_like(results[0]), *([None] * (len(results) - 1))]
    torch.library.opcheck(
        torch.ops.attncc.backward.default,
        (grads, [r.detach() for r in results], *flat),
        test_utils=("test_schema", "test_faketensor"),
    )


# Kernels run as numpy code here, which warns where an empty row takes the logarithm of zero.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("backend", ["oracle", "triton"])
def test_gradients_are_those_of_the_reference(backend: str) -> None:
    attention, given = attncc.loads(TEXT), operands()
    results = [
        call(**given, window=3, gain=0.5, start=1, return_lse=True, **extra)
        for call, extra in ((attention, {"backend": backend}), (attention.reference, {}))
    ]
    gradients = []
    for out, lse in results:
        loss = out.square().sum() + lse.masked_fill(lse == -torch.inf, 0).sum()
        gradients.append(torch.autograd.grad(loss, differentiable(given)))
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_gradcheck_in_float64_whatever_the_backend() -> None:
    attention, given = attncc.loads(TEXT), operands(torch.float64)
    for backend in ("auto", "triton"):
        assert torch.autograd.gradcheck(
            lambda q, k, v, t, backend=backend: attention(q, k, v, slopes=t, doc=given["doc"], backend=backend),
            differentiable(given),
            fast_mode=True,
        )


def test_a_second_derivative_is_refused() -> None:
    given = operands(torch.float64)
    out = attncc.loads(TEXT)(**given)
    (gradient,) = torch.autograd.grad(out.square().sum(), given["query"], create_graph=True)
    with pytest.raises(BackendError, match=r"a second derivative cannot be taken through it.*attn\.reference"):
        gradient.sum().backward()


class Layer(nn.Module):
    def __init__(self, backend: str = "oracle") -> None:
        super().__init__()
        self.attention = attncc.loads(TEXT)
        self.slopes = nn.Parameter(torch.ones(4))
        self.backend = backend

    def forward(self, query: Tensor, key: Tensor, value: Tensor, doc: Tensor, window: int = 4) -> Tensor:
        out: Tensor = self.attention(
            query, key, value, slopes=self.slopes, doc=doc, window=window, backend=self.backend
        )
        return out * 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("compiler", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", ["oracle", "triton"])
def test_compile_in_one_graph(compiler: str, backend: str) -> None:
    torch._dynamo.reset()
    layer, given = Layer(backend), operands()
    slopes = given.pop("slopes")
    layer.slopes.data.copy_(slopes)
    compiled = torch.compile(layer, fullgraph=True, backend=compiler)
    for window in (4, 2, 3):
        expected, out = layer(**given, window=window), compiled(**given, window=window)
        torch.testing.assert_close(out, expected)
        wrt = [given["query"], given["key"], given["value"], layer.slopes]
        torch.testing.assert_close(
            torch.autograd.grad(out.square().sum(), wrt), torch.autograd.grad(expected.square().sum(), wrt)
        )


def test_compile_with_every_kind_of_argument_and_dynamic_lengths() -> None:
    torch._dynamo.reset()
    attention = attncc.loads("""
      attention a
        const c: int = 1
        param flag: bool = true
        grid y, x
        extent top
        blocks t: int[heads, query_blocks, top] size 2, 4
        mask t or q.x == k.x and flag and q.y >= c
        output lse, row_max, entropy, key_mass
    """)

    def run(query: Tensor, t: Tensor, offset: Tensor, width: int) -> Any:
        result = attention(
            query,
            query,
            query,
            t=t,
            q_offset=offset,
            c=0,
            grid=(2, width),
            prefix_tokens=1,
            scale=0.5,
            backend="oracle",
        )
        return result.out + result.entropy[..., None]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=True)
    for width in (2, 3, 4):
        query = torch.randn(2, 2, 1 + 2 * width, 8)
        table = torch.randint(-1, 2, (2, -(-query.shape[2] // 2), 2))
        offset = torch.tensor([0, -1])
        torch.testing.assert_close(compiled(query, table, offset, width), run(query, table, offset, width))


def test_compiled_calls_are_refused_in_the_same_words() -> None:
    torch._dynamo.reset()
    layer, given = Layer(), operands()
    del given["slopes"]
    compiled = torch.compile(layer, backend="aot_eager")
    with pytest.raises(Exception, match="'doc' has 7 elements along axis 1, but 'keys' is 6"):
        compiled(**{**given, "doc": torch.zeros(2, 7, dtype=torch.int64)})
    with pytest.raises(Exception, match="query has dim 8, but key has"):
        compiled(**{**given, "key": torch.zeros(2, 2, 6, 7)})


def test_export_runs_after_its_spec_is_gone() -> None:
    layer, given = Layer(), operands()
    del given["slopes"]
    expected = layer(**given)
    program = torch.export.export(layer, (), given).module()
    text = layer.attention._handle.text
    del layer
    gc.collect()
    assert text not in ops._handles
    torch.testing.assert_close(program(**given), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_as_torchs_own_attention_does(dtype: torch.dtype) -> None:
    attention, given = attncc.loads(TEXT), operands()
    with torch.autocast("cpu", dtype=dtype):
        out = attention(**given, backend="oracle")
        own = nn.functional.scaled_dot_product_attention(given["query"], given["key"], given["value"], enable_gqa=True)
    assert out.dtype == own.dtype == dtype
    low = {n: t.to(dtype) if n in ("query", "key", "value") else t for n, t in given.items()}
    assert torch.equal(out, attention(**low, backend="oracle"))
    for gradient in torch.autograd.grad(out.float().sum(), differentiable(given)):
        assert gradient.dtype == torch.float32


def test_autocast_leaves_float64() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attncc.loads(TEXT)(**operands(torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant: bool) -> None:
    attention, given = attncc.loads(TEXT), operands()

    def run(query: Tensor, key: Tensor, value: Tensor, slopes: Tensor) -> Tensor:
        out: Tensor = attention(query, key, value, slopes=slopes, doc=given["doc"], backend="oracle")
        return out.square()

    wrt = differentiable(given)
    expected = torch.autograd.grad(run(*wrt).sum(), wrt)
    checkpoint(run, *wrt, use_reentrant=reentrant).sum().backward()
    torch.testing.assert_close(tuple(t.grad for t in wrt), expected)


def test_functional_gradients_and_those_of_each_sample() -> None:
    attention, given = attncc.loads(TEXT), operands()

    def loss(query: Tensor, slopes: Tensor) -> Tensor:
        out, lse = attention(
            query,
            given["key"].detach(),
            given["value"].detach(),
            slopes=slopes,
            doc=given["doc"],
            return_lse=True,
            backend="oracle",
        )
        return out.square().sum() + lse.sum()

    wrt = (given["query"], given["slopes"])
    expected = torch.autograd.grad(loss(*wrt), wrt)
    query, slopes = (t.detach() for t in wrt)
    torch.testing.assert_close(torch.func.grad(loss, argnums=(0, 1))(query, slopes), expected)
    each = torch.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(0, None))(torch.stack([query, query]), slopes)
    torch.testing.assert_close(each[1][1], expected[1])


def test_backward_under_a_dispatch_mode() -> None:
    given = operands()  # the mode stands for any that torch's tools and users put around a step
    with FlopCounterMode(display=False):
        attncc.loads(TEXT)(**given, backend="oracle").sum().backward()
    assert given["slopes"].grad is not None


def test_results_without_a_gradient_and_unused_results() -> None:
    given = operands()
    out, lse = attncc.loads(TEXT)(**given, return_lse=True, backend="oracle")
    gradients = torch.autograd.grad(lse.sum(), differentiable(given))
    assert (gradients[2] == 0).all()
    with torch.no_grad():
        assert not attncc.loads(TEXT)(**given, backend="oracle").requires_grad
    assert out.requires_grad
    with torch.inference_mode():
        assert torch.equal(attncc.loads(TEXT)(**given, backend="oracle"), out)


def test_the_row_state_of_other_weights_has_no_gradient() -> None:
    spec = attncc.loads("attention a weights s over max(abs(total), 1)").spec
    handle = handle_of(spec)
    query = torch.randn(1, 1, 3, 4, requires_grad=True)
    out, total, count = torch.ops.attncc.forward(
        *flatten(Arguments(query, query, query, [], [], []), handle, "oracle", False)
    )
    assert [t.requires_grad for t in (out, total, count)] == [True, False, False]
    assert total.dtype == count.dtype == torch.float32
    assert (count == 3).all()


def test_equal_specs_share_a_handle_and_its_source_lines() -> None:
    first = attncc.loads(TEXT)
    assert handle_of(attncc.loads(TEXT).spec) is handle_of(first.spec)
    assert handle_of(first.spec).spec.inputs[0].span is not None


def test_a_module_that_holds_one_can_be_copied() -> None:
    layer, given = Layer(), operands()
    del given["slopes"]
    torch.testing.assert_close(copy.deepcopy(layer)(**given), layer(**given))


def test_auto_says_once_that_it_uses_the_oracle() -> None:
    backends._say_oracle_once.cache_clear()
    attention, given = attncc.loads(TEXT), operands()
    with pytest.warns(attncc.OracleWarning, match="no native CPU backend yet"):
        attention(**given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention(**given)
    backends._say_oracle_once.cache_clear()


def test_what_kernels_do_not_compute_yet_is_refused_with_its_line() -> None:
    query = torch.randn(1, 1, 4, 16)
    with pytest.raises(UnsupportedError, match="the triton backend does not compute output entropy yet"):
        attncc.loads("attention a output lse, entropy")(query, query, query, backend="triton")


def test_kernels_refuse_a_last_dimension_with_gaps() -> None:
    query = torch.randn(1, 1, 16, 4).mT
    with pytest.raises(ArgumentError, match="query's last dimension is not contiguous"):
        attncc.loads("attention a")(query, query, query, backend="triton")


@pytest.mark.parametrize(
    ("changes", "wide"),
    [
        ({}, False),
        ({"q_offset": backends.NARROW}, False),
        ({"q_offset": -backends.NARROW - 1}, True),
        ({"q_offset": torch.tensor([0, 1], dtype=torch.int16)}, False),
        ({"q_offset": torch.tensor([0, 1])}, True),
    ],
)
def test_integers_are_wide_where_32_bits_may_not_do(changes: dict[str, Any], wide: bool) -> None:
    from attncc.runtime.ops import _bind

    bound, _ = _bind(flat_arguments(operands(), **changes))
    assert backends.options_of(bound).wide is wide


@pytest.mark.parametrize(("allowed", "precision"), [("highest", "ieee"), ("high", "tf32x3"), ("medium", "tf32")])
def test_precision_of_float32_products_follows_torch(allowed: str, precision: str) -> None:
    from attncc.runtime.ops import _bind

    bound, _ = _bind(flat_arguments(operands()))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(allowed)
    try:
        assert backends.options_of(bound).precision == precision
    finally:
        torch.set_float32_matmul_precision(before)
