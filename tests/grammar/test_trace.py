"""The same spec written as text and as a Python function: one `Spec`, one key."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attncc.grammar.frontend import load_specs, loads_specs
from attncc.grammar.trace import Const, Input, trace
from attncc.ir.printer import spec_key
from attncc.ir.spec import Spec

EXAMPLES = Path(__file__).parents[2] / "examples"


def alibi(a, *, slopes: Input("float[heads]", learnable=True)):
    a.mask(a.k <= a.q)
    a.score(a.s - slopes[a.h] * (a.q - a.k))


def bigbird(a, *, drawn: Input("int[heads, (keys + block - 1) // block, 3]"), block: Const = 64):
    i, j = a.q // block, a.k // block
    last = (a.keys - 1) // block
    near = abs(i - j) <= 1
    whole = (i == 0) | (i == last) | (j == 0) | (j == last)
    extra = (drawn[a.h, i, 0] == j) | (drawn[a.h, i, 1] == j) | (drawn[a.h, i, 2] == j)
    a.mask(near | whole | extra)


def causal(a):
    a.mask(a.k <= a.q)


def dense(a):
    pass


def documents(a, *, doc: Input("int[batch, keys]", sorted="keys")):
    a.mask(a.k <= a.q)
    a.mask(doc[a.b, a.q] == doc[a.b, a.k])


def learnable_sink(a, *, window: int = 128, sink: Input("float[heads] learnable")):
    a.mask((a.k <= a.q) & (a.q - a.k < window))
    a.weights(a.softmax(sink[a.h]))


def longformer(a, *, is_global: Input("bool[batch, keys]"), window: int = 256):
    a.mask((abs(a.q - a.k) <= window) | is_global[a.b, a.k] | is_global[a.b, a.q])


def prefix_lm(a, *, prefix: Input("int[batch]", range=(0, "keys + 1"))):
    a.mask((a.k <= a.q) | (a.k < prefix[a.b]))


def sigmoid(a):
    a.mask(a.k <= a.q)
    a.weights(a.sigmoid(a.s - a.log(a.keys)))


def sliding_window(a, *, window: int = 256):
    a.require(window >= 1, "a window holds at least the query's own position")
    a.mask(a.k <= a.q)
    a.mask(a.q - a.k < window)


def softcap(a, *, cap: float = 50.0):
    a.require(cap > 0, "a cap is a positive number")
    a.mask(a.k <= a.q)
    a.score(cap * a.tanh(a.s / cap))


def streaming_llm(a, *, sinks: int = 4, window: int = 256):
    a.require((sinks >= 0) & (window >= 1), "keep at least the query's own position")
    a.mask(a.k <= a.q)
    a.mask((a.k < sinks) | (a.q - a.k < window))


def t5_bias(a, *, bias: Input("float[32, heads]", learnable=True)):
    a.scale(1.0)
    r = a.min(abs(a.k - a.q), 128)
    reaches = [a.where(r * r >= 64 << m, 1, 0) for m in range(1, 8)]
    far = sum(reaches[1:], reaches[0])
    side = a.where(a.k > a.q, 16, 0)
    a.score(a.s + bias[side + a.where(r < 8, r, 8 + far), a.h])


def train_bytes(a, *, doc: Input("int[batch, keys]", sorted="keys"), slopes: Input("float[heads]", learnable=True)):
    a.mask(a.causal() & a.same(doc))
    a.score(a.alibi(slopes))


IN_PYTHON = {
    "alibi": alibi,
    "bigbird": bigbird,
    "causal": causal,
    "dense": dense,
    "documents": documents,
    "learnable_sink": learnable_sink,
    "longformer": longformer,
    "prefix_lm": prefix_lm,
    "sigmoid": sigmoid,
    "sliding_window": sliding_window,
    "softcap": softcap,
    "streaming_llm": streaming_llm,
    "t5_bias": t5_bias,
    "train_bytes": train_bytes,
}


def operators(a, *, t: Input("int[keys]"), f: float = 0.5):
    d = a.q - a.k
    x = (d * 2 + t[a.k] // 3 - d % 5) ** 2
    bits = (d & 3 | t[a.k] ^ 5) + (~d << 1) + (d >> 2)
    a.mask((x > bits) & ~(d == 0) & (d != 7) | (-d >= +a.k) ^ (d < 3))
    a.score(a.s * f / 2 + 1.5 - f**2 + 2.0 ** (f * a.s))


def reflected(a):
    a.mask((1 + a.q - (3 - a.k) > 2 * a.q) & (7 // (a.k + 1) > 7 % (a.k + 1)) & True)
    a.mask(False | (6 & a.q == 2) | ((1 << a.k) > (64 >> a.k)) | ((3 ^ a.q) > (1 | a.k)))
    a.score(1 / a.s - 2.0**a.s)


def functions(a):
    d = a.q - a.k
    a.mask((a.min(d, a.k, 3) < a.max(d, 5)) & (a.sign(d) != a.clamp(d, -1, 1)))
    a.mask((a.floor(a.sqrt(a.q)) <= a.ceil(a.q / 2)) & a.logical_not(d == 1))
    x = a.exp(a.log(1 + abs(a.s))) + a.sin(a.s) * a.cos(a.s) - a.tanh(a.s) / a.sigmoid(a.s)
    a.score(a.where(d > 2, x, a.relu(a.s) - a.erf(a.s)))


def rounding(a):
    a.mask(math.floor(a.q / 2) < math.ceil(a.k / 3))


def chained_scores(a):
    a.score(a.s * 2)
    t = a.tanh(a.s)
    a.score(t + t * t)


def infinite(a):
    a.score(a.where(a.k <= a.q, a.s, -a.inf))


def infinite_float(a):
    a.score(a.where(a.k <= a.q, a.s, -float("inf")))


def ratio(a):
    a.weights(a.s, over=a.max(abs(a.total), 1))


def relu_over_keys(a):
    a.weights(a.relu(a.s), over=a.keys)


def over_count(a):
    a.weights(a.relu(a.s) ** 2, over=a.count + 1)


def sinks(a, *, first: Input("float[heads]", learnable=True), second: float = 0.0):
    a.weights(a.softmax(sinks=(first[a.h], second)))


def plain_softmax(a):
    a.weights("softmax")


def final_score(a):
    a.weights(a.sigmoid(a.s))
    a.score(a.s + 1)


def reweighted(a, *, c: Input("float[heads, 2*keys-1]", learnable=True)):
    a.reweight(c[a.h, a.q - a.k + a.keys - 1])


def outputs(a):
    a.output("lse", "row_max")
    a.output("entropy")


def on_a_grid(a, *, window: int = 7):
    a.grid("y", "x")
    a.mask((abs(a.q.y - a.k.y) <= window) & (abs(a.q.x - a.k.x) <= window) & (a.len("y") > 1))
    a.mask(a.on_grid(a.q) | (a.len("q.x") > 3))


def two_grids(a):
    a.grid(queries=("y", "x"), keys=("v", "u"))
    a.mask((a.q.y // 2 == a.k.v) & (a.len(a.k.u) > 3))


def table(a):
    a.extent("top")
    listed = a.blocks("chosen", "int[batch, heads, query_blocks, top]", size=(64, 32))
    a.mask(listed | (a.q - a.k < 64))


def table_alone(a, *, n: Const = 16):
    a.extent("top")
    a.blocks("chosen", "int[query_blocks, top]", size=(n, 2 * n))


def boxes(a):
    a.grid("y", "x")
    a.extent("top")
    a.blocks("chosen", "int[heads, query_blocks, query_blocks, top]", size=((8, 8), (4, 4)))


def extents(a, *, t: Input("float[heads, buckets]", learnable=True)):
    buckets = a.extent("buckets")
    a.score(a.s + t[a.h, a.min(a.q, buckets - 1)])


def constants(a, *, n: Const = 7, x: Const[float] = 2, flag: Const = True, t: Input("float[heads, 2*n-1]")):
    a.mask((a.q - a.k < n) & flag)
    a.score(a.s * x + t[a.h, 0])


def params(a, *, low: int = -3, high: float = -0.5, on: bool = False, given: int):
    a.mask((a.q > low) & on | (a.k < given))
    a.score(a.s * high)


def prelude(a, *, doc: Input("int[batch, keys]"), slopes: Input("float[heads]"), w: int = 5):
    a.mask(a.causal() & a.sliding(w) | a.prefix(3) & a.same(doc))
    a.mask(~a.causal(i=a.k, j=a.q - 1))
    a.score(a.alibi(slopes))
    a.score(a.softcap(30.0))


def neighborhood(a):
    a.grid("y", "x")
    a.mask(a.neighborhood(a.q.y, a.k.y, a.len("y"), 7) & a.neighborhood(a.q.x, a.k.x, a.len("x"), 7, causal=True))


def numpy_numbers(a):
    a.mask(a.q - a.k < np.int64(5))
    a.score(a.s * np.float64(0.5) + np.float32(2.0) * a.s)


def sizes(a):
    a.mask(a.q + a.batch < a.keys - a.queries + a.heads // a.kv_heads)
    a.mask((a.row != a.h_kv) | (a.b < a.h))
    a.scale(1 / a.sqrt(a.dim))


def helper(a):
    def distance():
        return a.q - a.k

    a.mask(distance() < 4)


def literals_first(a):
    a.mask((0 <= a.q) & (3 > a.k) & (5 != a.q - a.k) & (2.5 < a.k / 2))  # noqa: SIM300


PAIRS: list[tuple[Callable[..., Any], str]] = [
    (
        operators,
        """param f: float = 0.5   input t: int[keys]
        mask (((q-k)*2 + t[k]//3 - (q-k)%5)**2 > (((q-k) & 3 | t[k] ^ 5) + (~(q-k) << 1) + ((q-k) >> 2))
              and not (q-k == 0) and q-k != 7) or (-(q-k) >= k) != (q-k < 3)
        score s * f / 2 + 1.5 - f**2 + 2.0 ** (f * s)""",
    ),
    (
        reflected,
        """mask 1 + q - (3 - k) > 2*q and 7 // (k+1) > 7 % (k+1) and true
        mask false or (6 & q) == 2 or (1 << k) > (64 >> k) or (3 ^ q) > (1 | k)
        score 1 / s - 2.0 ** s""",
    ),
    (
        functions,
        """mask min(q-k, k, 3) < max(q-k, 5) and sign(q-k) != clamp(q-k, -1, 1)
        mask floor(sqrt(q)) <= ceil(q/2) and not q-k == 1
        score exp(log(1 + abs(s))) + sin(s)*cos(s) - tanh(s)/sigmoid(s) if q-k > 2 else relu(s) - erf(s)""",
    ),
    (rounding, "mask floor(q / 2) < ceil(k / 3)"),
    (chained_scores, "score s * 2  score tanh(s) + tanh(s) * tanh(s)"),
    (infinite, "score s if k <= q else -inf"),
    (infinite_float, "score s if k <= q else -inf"),
    (ratio, "weights s over max(abs(total), 1)"),
    (relu_over_keys, "weights relu(s) over keys"),
    (over_count, "weights relu(s) ** 2 over count + 1"),
    (sinks, "param second: float = 0.0  input first: float[heads] learnable  weights softmax with first[h], second"),
    (plain_softmax, "weights softmax"),
    (final_score, "weights sigmoid(s)  score s + 1"),
    (reweighted, "input c: float[heads, 2*keys-1] learnable  reweight p * c[h, q - k + keys - 1]"),
    (outputs, "output lse, row_max, entropy"),
    (
        on_a_grid,
        """grid y, x   param window: int = 7
        mask abs(q.y - k.y) <= window and abs(q.x - k.x) <= window and len(y) > 1
        mask on_grid(q) or len(q.x) > 3""",
    ),
    (two_grids, "grid queries y, x  grid keys v, u  mask q.y // 2 == k.v and len(k.u) > 3"),
    (
        table,
        """extent top  blocks chosen: int[batch, heads, query_blocks, top] size 64, 32
        mask chosen or q - k < 64""",
    ),
    (table_alone, "const n: int = 16  extent top  blocks chosen: int[query_blocks, top] size n, 2*n"),
    (
        boxes,
        "grid y, x  extent top  blocks chosen: int[heads, query_blocks, query_blocks, top] size (8, 8), (4, 4)",
    ),
    (extents, "extent buckets  input t: float[heads, buckets] learnable  score s + t[h, min(q, buckets - 1)]"),
    (
        constants,
        """const n: int = 7  const x: float = 2  const flag: bool = true  input t: float[heads, 2*n-1]
        mask q - k < n and flag
        score s * x + t[h, 0]""",
    ),
    (
        params,
        """param low: int = -3  param high: float = -0.5  param on: bool = false  param given: int
        mask q > low and on or k < given
        score s * high""",
    ),
    (
        prelude,
        """input doc: int[batch, keys]  input slopes: float[heads]  param w: int = 5
        mask causal() and sliding(w) or prefix(3) and same(doc)
        mask not causal(i=k, j=q-1)
        score alibi(slopes)
        score softcap(30.0)""",
    ),
    (
        neighborhood,
        """grid y, x
        mask neighborhood(q.y, k.y, len(y), 7) and neighborhood(q.x, k.x, len(x), 7, causal=true)""",
    ),
    (numpy_numbers, "mask q - k < 5  score s * 0.5 + 2.0 * s"),
    (sizes, "mask q + batch < keys - queries + heads // kv_heads  mask row != h_kv or b < h  scale 1 / sqrt(dim)"),
    (helper, "mask q - k < 4"),
    (literals_first, "mask 0 <= q and 3 > k and 5 != q - k and 2.5 < k / 2"),
]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.attn")), ids=lambda p: p.stem)
def test_every_example_can_be_written_in_python(path: Path) -> None:
    (spec,) = load_specs(path).specs.values()
    same(trace(IN_PYTHON[path.stem]), spec)


@pytest.mark.parametrize(("function", "text"), PAIRS, ids=[f.__name__ for f, _ in PAIRS])
def test_every_statement_means_the_same_in_python(function: Callable[..., Any], text: str) -> None:
    specs = loads_specs(f"attention {function.__name__}\n{text}").specs
    same(trace(function), specs[function.__name__])


def test_clauses_carry_the_python_line() -> None:
    spec = trace(learnable_sink)
    clauses = (spec.masks[0], *spec.weights.sinks)  # type: ignore[union-attr]
    for clause, text in zip(clauses, ("a.mask(", "a.weights("), strict=True):
        assert clause.span is not None
        assert clause.span.source.name == __file__
        assert text in clause.span.source.line_text(clause.span.line)
    assert spec.params[0].span is not None
    assert spec.params[0].span.text == "window: int"


def test_a_long_sum_is_no_deep_syntax() -> None:
    def many(a):
        total = a.s
        for i in range(300):
            total = a.max(total, a.k * i)
        a.score(total)

    assert trace(many).scores


def test_what_is_shared_is_checked_once() -> None:
    def powers(a):
        x = a.q - a.k
        for _ in range(40):
            x = x * x
        y = a.s
        for _ in range(40):
            y = y * y
        a.mask(x > 0)
        a.score(y + x)

    spec = trace(powers)
    assert (len(spec.masks), len(spec.scores)) == (1, 1)


def test_tracing_twice_gives_the_same_spec() -> None:
    same(trace(bigbird), trace(bigbird))


def same(traced: Spec, written: Spec) -> None:
    """One spec, one key."""
    assert traced == written
    assert spec_key(traced) == spec_key(written)
