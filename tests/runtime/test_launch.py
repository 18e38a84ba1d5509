"""Every way in which a call can fail to fit its spec, and the words it is refused with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import attncc
from attncc.errors import ArgumentError, BackendError
from attncc.ir.spec import Spec
from attncc.runtime.launch import Arguments, bind, check_layout
from attncc.runtime.signature import signature_of

SPEC = """\
attention windowed
  const block: int = 4
  param window: int
  param gain: float = 1.0
  param causal_only: bool = false
  extent top
  input doc: int[batch, keys] sorted along keys in 0 .. keys
  input slopes: float[heads] learnable
  input keep: bool[top, 2 * block - 1]
  input near: int[top]
  require window >= 1, "a window holds at least one key"
  mask (doc[b, q] == doc[b, k] or not causal_only or q - k < window) and (keep[0, 1] or near[0] <= block + k)
  score s - slopes[h] * gain
"""
ABSENT = object()


def zeros(*shape: int, **options: Any) -> torch.Tensor:
    return torch.zeros(*shape, **options)


def good() -> dict[str, Any]:
    return {
        "query": zeros(2, 4, 6, 16),
        "key": zeros(2, 2, 8, 16),
        "value": zeros(2, 2, 8, 16),
        "window": 3,
        "doc": zeros(2, 8, dtype=torch.int64),
        "slopes": zeros(4),
        "keep": torch.ones(3, 7, dtype=torch.bool),
        "near": zeros(3, dtype=torch.int32),
        "backend": "oracle",
    }


DOC = """
 --> <string>:7:3
  |
7 |   input doc: int[batch, keys] sorted along keys in 0 .. keys
  |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"""
SLOPES = """
 --> <string>:8:3
  |
8 |   input slopes: float[heads] learnable
  |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"""
KEEP = """
 --> <string>:9:3
  |
9 |   input keep: bool[top, 2 * block - 1]
  |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"""
NEAR = """
  --> <string>:10:3
   |
10 |   input near: int[top]
   |   ^^^^^^^^^^^^^^^^^^^^"""
WINDOW = """
 --> <string>:3:3
  |
3 |   param window: int
  |   ^^^^^^^^^^^^^^^^^"""
GAIN = """
 --> <string>:4:3
  |
4 |   param gain: float = 1.0
  |   ^^^^^^^^^^^^^^^^^^^^^^^"""
TAKES = "\n  = note: it takes doc, slopes, keep, near, block, window, gain, causal_only"

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"query": zeros(2, 4, 6)},
        "query must have four dimensions [batch, heads, queries, dim], but has shape [2, 4, 6]",
    ),
    ({"key": zeros(2, 2, 8, 16).half()}, "query is float32, but key is float16: they must be of one type"),
    ({"query": zeros(2, 4, 6, 16).long()}, "query is int64: float16, bfloat16, float32 or float64 is wanted"),
    ({"key": zeros(2, 2, 8, 16, device="meta")}, "query is on cpu, but key is on meta"),
    ({"key": zeros(3, 2, 8, 16)}, "query has batch 2, but key has 3"),
    (
        {"value": zeros(2, 2, 9, 16)},
        "key and value must agree in heads and length: key has shape [2, 2, 8, 16], value [2, 2, 9, 16]",
    ),
    ({"key": zeros(2, 2, 8, 15)}, "query has dim 16, but key has 15"),
    (
        {"query": zeros(2, 4, 6, 0), "key": zeros(2, 2, 8, 0)},
        "dim and dim_v must be at least 1: query's dim is 0, value's dim_v 16",
    ),
    ({"query": zeros(2, 3, 6, 16)}, "query's 3 heads are not a multiple of the 2 heads of key and value"),
    ({"query": [1.0]}, "query must be a tensor, not a list"),
    ({"doc": ABSENT}, f"'windowed' needs a tensor for 'doc': call it with doc=…{DOC}"),
    ({"window": ABSENT}, f"'windowed' needs a number for 'window': call it with window=…{WINDOW}"),
    (
        {"widnow": 3},
        f"'windowed' has no param or input 'widnow'{TAKES}\n  = hint: did you mean 'window'?",
    ),
    ({"zzz": 3}, f"'windowed' has no param or input 'zzz'{TAKES}"),
    ({"doc": 3}, f"'doc' is an input: give a tensor, not the int 3{DOC}"),
    (
        {"doc": zeros(2, 8, requires_grad=True)},
        "'doc' requires grad, but the spec does not declare it learnable, so it would get no gradient"
        f"{DOC}\n  = hint: add 'learnable' to its declaration, or pass it detached",
    ),
    ({"window": 2.5}, f"'window' is an int, but the float 2.5 was given{WINDOW}"),
    ({"window": True}, f"'window' is an int, but the bool True was given{WINDOW}"),
    ({"window": 2**63}, f"'window' does not fit in 64 bits: 9223372036854775808{WINDOW}"),
    ({"gain": "loud"}, f"'gain' is a float, but the str 'loud' was given{GAIN}"),
    ({"gain": zeros(1)}, f"'gain' is a float, but a tensor of shape [1] was given{GAIN}"),
    (
        {"causal_only": 1},
        "'causal_only' is a bool, but the int 1 was given\n --> <string>:5:3\n  |\n"
        "5 |   param causal_only: bool = false\n  |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
    ),
    (
        {"block": 1.5},
        "'block' is an int, but the float 1.5 was given\n --> <string>:2:3\n  |\n"
        "2 |   const block: int = 4\n  |   ^^^^^^^^^^^^^^^^^^^^",
    ),
    ({"doc": zeros(2, 8)}, f"'doc' is declared int[batch, keys], but a tensor of float32 was given{DOC}"),
    (
        {"keep": torch.ones(3, 7)},
        f"'keep' is declared bool[top, 2 * block - 1], but a tensor of float32 was given{KEEP}",
    ),
    (
        {"slopes": torch.ones(4, dtype=torch.int64)},
        f"'slopes' is declared float[heads], but a tensor of int64 was given{SLOPES}",
    ),
    ({"slopes": zeros(4, 1)}, f"'slopes' is declared [heads], but has shape [4, 1]{SLOPES}"),
    (
        {"slopes": zeros(3)},
        f"'slopes' has 3 elements along axis 0, but 'heads' is 4{SLOPES}\n"
        "  = note: its shape is [3]; [heads] is [4] in this call",
    ),
    (
        {"block": 5},
        f"'keep' has 7 elements along axis 1, but '2 * block - 1' is 9{KEEP}\n"
        "  = note: its shape is [3, 7]; [top, 2 * block - 1] is [3, 9] in this call",
    ),
    (
        {"near": zeros(4, dtype=torch.int64)},
        f"'near' has 4 elements along axis 0, but 'top' is 3{NEAR}\n"
        "   = note: its shape is [4]; [top] is [3] in this call",
    ),
    (
        {"window": 0},
        "a window holds at least one key\n  --> <string>:11:3\n   |\n"
        '11 |   require window >= 1, "a window holds at least one key"\n'
        "   |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "   = note: window >= 1 does not hold with window = 0",
    ),
    ({"scale": "big"}, "scale must be a float, not a str"),
    ({"q_offset": 1.5}, "q_offset must be an int or an int tensor [batch], not a float"),
    ({"q_offset": 2**63}, "q_offset is too large: 9223372036854775808"),
    (
        {"q_offset": zeros(3, dtype=torch.int64)},
        "q_offset must be an int or an int tensor [batch], but is int64[3] with batch 2",
    ),
    ({"q_offset": zeros(2)}, "q_offset must be an int or an int tensor [batch], but is float32[2] with batch 2"),
    ({"q_offset": zeros(2, dtype=torch.int64, device="meta")}, "q_offset is on meta, but query is on cpu"),
    ({"grid": (2, 3)}, "'windowed' declares no grid, but grid=(2, 3) was given"),
    (
        {"prefix_tokens": 1},
        "'windowed' declares no grid, so prefix_tokens and suffix_tokens mean nothing here",
    ),
    ({"prefix_tokens": 1.0}, "prefix_tokens must be an int, not a float"),
    (
        {"backend": "tritn"},
        "there is no backend 'tritn': choose from 'auto', 'triton', 'cpu', 'oracle'; did you mean 'triton'?",
    ),
    (
        {"doc": torch.tensor([[0] * 8, [0, 1, 2, 2, 1, 3, 3, 3]]), "check": True},
        f"'doc' is declared sorted along keys, but falls from 2 at [1, 3] to 1 at [1, 4]{DOC}",
    ),
    (
        {"doc": torch.tensor([[0] * 8, [0, 1, 2, 2, 2, 3, 3, 8]]), "check": True},
        f"'doc' is declared in 0 .. keys, which is 0 .. 8 here, but holds 8 at [1, 7]{DOC}\n"
        "  = note: the lower bound is included, the upper one is not",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[m.splitlines()[0][:50] for _, m in REFUSED])
def test_refused(change: dict[str, Any], message: str) -> None:
    attention = attncc.loads(SPEC)
    arguments = {name: value for name, value in {**good(), **change}.items() if value is not ABSENT}
    with pytest.raises(ArgumentError) as caught:
        attention(**arguments)
    assert str(caught.value) == message


def test_accepted() -> None:
    attention = attncc.loads(SPEC)
    assert attention(**good()).shape == (2, 4, 6, 16)
    for change in (
        {"window": np.int32(3)},
        {"gain": 2},
        {"gain": np.float32(0.5)},
        {"q_offset": -3},
        {"q_offset": zeros(2, dtype=torch.int8)},
        {"doc": zeros(2, 8, dtype=torch.uint8), "check": True},
        {"slopes": zeros(4, dtype=torch.bfloat16)},
        {"query": zeros(2, 4, 16, 6).mT},
        {"scale": 1},
    ):
        attention(**{**good(), **change})


def test_unsorted_input_passes_where_nothing_is_checked() -> None:
    attncc.loads(SPEC)(**{**good(), "doc": torch.tensor([[0] * 8, [0, 1, 2, 2, 1, 3, 3, 3]])})


def test_table_entries_are_checked_on_demand() -> None:
    attention = attncc.loads("attention a\n  extent top\n  blocks t: int[heads, query_blocks, top] size 2, 4")
    query = zeros(1, 2, 4, 8)
    table = torch.tensor([[[0], [-1]], [[0], [2]]])
    attention(query, query, query, t=table, backend="oracle")
    message = r"'t' lists the key block 2 at \[1, 1, 0\], but key blocks are numbered from 0 to 0"
    with pytest.raises(ArgumentError, match=message):
        attention(query, query, query, t=table, backend="oracle", check=True)
    with pytest.raises(ArgumentError, match=r"'t' has 2 elements along axis 1, but 'query_blocks' is 3"):
        attention(zeros(1, 2, 5, 8), query, query, t=table, backend="oracle")


ONE_GRID = "attention a\n  grid y, x\n  mask q.x == k.x"
TWO_GRIDS = "attention a\n  grid queries y, x\n  grid keys v, u\n  mask q.x == k.u"


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (ONE_GRID, {}, "'a' needs the lengths of its grid: call it with grid=(y, x)"),
        (ONE_GRID, {"grid": 16}, "grid must be the lengths (y, x), not 16"),
        (ONE_GRID, {"grid": (4,)}, "grid=(4,) does not fit the axes (y, x): one length is wanted for each"),
        (ONE_GRID, {"grid": (2, -1)}, "grid=(2, -1) does not fit the axes (y, x): one length is wanted for each"),
        (ONE_GRID, {"grid": (2, 3)}, "the grid of keys has 2 y * 3 x = 6 tokens, but there are 8 keys"),
        (
            ONE_GRID,
            {"grid": (2, 3), "prefix_tokens": 1, "suffix_tokens": 2},
            "the grid of keys has 2 y * 3 x + 1 prefix tokens + 2 suffix tokens = 9 tokens, but there are 8 keys",
        ),
        (
            ONE_GRID,
            {"grid": ((2, 4), (4, 2))},
            "the spec has one grid for queries and keys, but grid=((2, 4), (4, 2)) gives two",
        ),
        (
            ONE_GRID,
            {"grid": (2, 4), "prefix_tokens": -1},
            "prefix_tokens and suffix_tokens must not be negative: -1, 0",
        ),
        (
            TWO_GRIDS,
            {"grid": (2, 4)},
            "the spec has a query grid and a key grid: give grid=(query lengths, key lengths), not (2, 4)",
        ),
        (
            TWO_GRIDS,
            {"grid": ((2, 4), (2, 4))},
            "the grid of queries has 2 y * 4 x = 8 tokens, but there are 6 queries",
        ),
    ],
)
def test_grids_that_do_not_fit(text: str, arguments: dict[str, Any], message: str) -> None:
    query, key = zeros(1, 2, 6, 8), zeros(1, 2, 8, 8)
    with pytest.raises(ArgumentError) as caught:
        attncc.loads(text)(query, key, key, backend="oracle", **arguments)
    assert str(caught.value).splitlines()[0] == message


def test_inputs_on_another_device() -> None:
    # A tensor of type meta would be taken for a call without data, so this is asked of the check itself.
    spec = attncc.loads("attention a input t: float[heads] score s + t[h]").spec
    query = zeros(1, 2, 6, 8)
    with pytest.raises(ArgumentError, match="'t' is on meta, but query is on cpu"):
        bind(spec, signature_of(spec), Arguments(query, query, query, [zeros(2, device="meta")], (), ()))


def test_kernels_want_a_contiguous_last_dimension() -> None:
    spec = attncc.loads("attention a").spec
    query = zeros(1, 2, 6, 8)
    check_layout(bind(spec, signature_of(spec), Arguments(query, query[:, :, ::2], query[:, :, 1::2], (), (), ())))
    with pytest.raises(ArgumentError) as caught:
        check_layout(bind(spec, signature_of(spec), Arguments(query, zeros(1, 2, 8, 6).mT, query, (), (), ())))
    assert str(caught.value).splitlines() == [
        "key's last dimension is not contiguous: its stride is 6, and 1 is wanted",
        "  = note: the other dimensions may have any strides",
        "  = hint: pass key.contiguous()",
    ]


def test_an_extent_that_nothing_tells() -> None:
    # The front ends refuse such a spec; one made by hand must not fail later and worse.
    spec = Spec("a", extents=("n",))
    query = zeros(1, 2, 6, 8)
    with pytest.raises(ArgumentError, match="nothing tells the extent 'n': no input has it as a whole axis"):
        bind(spec, signature_of(spec), Arguments(query, query, query, (), (), ()))


def test_the_cpu_backend_says_that_it_is_not_there() -> None:
    with pytest.raises(BackendError, match="the native CPU backend is not built yet; use backend='oracle'"):
        attncc.loads(SPEC)(**{**good(), "backend": "cpu"})


def test_lse_of_weights_that_have_none() -> None:
    with pytest.raises(ArgumentError, match="'a' has no lse: its weights are not softmax"):
        attncc.loads("attention a weights sigmoid(s)")(*[zeros(1, 1, 2, 4)] * 3, return_lse=True)
