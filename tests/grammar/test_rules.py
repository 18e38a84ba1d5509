"""The rules that settle the corners of the language, each as (text, the typed form it must have)."""

from __future__ import annotations

import pytest

from attncc.errors import SpecError
from attncc.grammar.frontend import loads_specs
from attncc.ir.expr import (
    Coord,
    Expr,
    Listed,
    Load,
    Param,
    RowCount,
    RowSum,
    Score,
    Size,
    Sort,
    postorder,
    to_const,
)
from attncc.ir.intrinsics import call
from attncc.ir.spec import Clause, Grid, RangeFact, Ratio, Softmax, SortedFact, Spec
from attncc.ir.verify import verify

q, k, b, h, row, s = Coord("q"), Coord("k"), Coord("b"), Coord("h"), Coord("row"), Score()
INT, FLOAT = Sort.INT, Sort.FLOAT


def spec_of(body: str, before: str = "") -> Spec:
    (spec,) = loads_specs(f"{before}attention a\n{body}").specs.values()
    verify(spec)
    return spec


def warnings_of(body: str) -> list[str]:
    return [w.message for w in loads_specs(f"attention a\n{body}").warnings]


def c(value: bool | int | float) -> Expr:
    return to_const(value)


PRECEDENCE = [
    ("q + k * 2 ** 2 > 0", call("gt", call("add", q, call("mul", k, call("pow", c(2), c(2)))), c(0))),
    ("-q ** 2 < 0", call("lt", call("neg", call("pow", q, c(2))), c(0))),
    ("q - k - 1 == 0", call("eq", call("sub", call("sub", q, k), c(1)), c(0))),
    ("q & 3 == 0", call("eq", call("bitand", q, c(3)), c(0))),
    ("q | k ^ 1 & 2 == 0", call("eq", call("bitor", q, call("bitxor", k, call("bitand", c(1), c(2)))), c(0))),
    ("q << 1 + 1 > 0", call("gt", call("shl", q, call("add", c(1), c(1))), c(0))),
    ("not q > k and k > 0", call("and", call("not", call("gt", q, k)), call("gt", k, c(0)))),
    ("q > k or k > 0 and q > 0", call("or", call("gt", q, k), call("and", call("gt", k, c(0)), call("gt", q, c(0))))),
    ("0 <= q - k < 5", call("and", call("ge", call("sub", q, k), c(0)), call("lt", call("sub", q, k), c(5)))),
    ("true if q > k else k > 0", call("where", call("gt", q, k), c(True), call("gt", k, c(0)))),
    ("q // 2 % 3 >= -1", call("ge", call("mod", call("floordiv", q, c(2)), c(3)), c(-1))),
    ("~q != +k", call("ne", call("bitnot", q), k)),
    ("max(q, k, 3) == min(q, k)", call("eq", call("max", call("max", q, k), c(3)), call("min", q, k))),
    ("clamp(q, high=5, low=1) == 2", call("eq", call("clamp", q, c(1), c(5)), c(2))),
    ("(q > k) == (k > 0)", call("eq", call("gt", q, k), call("gt", k, c(0)))),
    ("0x10 == 1_0", call("eq", c(16), c(10))),
    ("q > 2.", call("gt", q, c(2.0))),
    ("q > 1e3 and q > .5", call("and", call("gt", q, c(1000.0)), call("gt", q, c(0.5)))),
]


@pytest.mark.parametrize(("text", "expected"), PRECEDENCE, ids=[t for t, _ in PRECEDENCE])
def test_precedence_is_python_s(text: str, expected: Expr) -> None:
    (mask,) = spec_of(f"  mask {text}").masks
    assert mask.expr is expected


def test_several_masks_are_kept_in_order_and_scores_chain() -> None:
    spec = spec_of("  score s + 1\n  mask q > k\n  score s * 2.0\n  mask k > 0")
    assert [m.expr for m in spec.masks] == [call("gt", q, k), call("gt", k, c(0))]
    assert [x.expr for x in spec.scores] == [call("add", s, c(1)), call("mul", s, c(2.0))]


def test_clauses_know_their_statement() -> None:
    (mask,) = spec_of("  mask   q >\n   k").masks
    assert mask.span is not None
    assert mask.span.text == "mask   q >\n   k"


# Rule 1: positions and extents.


def test_position_in_keys_is_q_or_k_and_in_queries_row() -> None:
    spec = spec_of(
        "  input doc: int[batch, keys]\n  input t: float[queries]\n  mask doc[b, q] == doc[b, k]\n  score s + t[row]"
    )
    assert spec.masks[0].expr is call("eq", Load("doc", (b, q), INT), Load("doc", (b, k), INT))
    assert spec.scores[0].expr is call("add", s, Load("t", (row,), FLOAT))


@pytest.mark.parametrize(
    ("extent", "index", "hint"),
    [("heads", "b", "write `h`"), ("kv_heads", "h", "write `h_kv`"), ("batch", "k", "write `b`"),
     ("queries", "k", "write `row`"), ("keys", "h", "write `q` or `k`")],
)  # fmt: skip
def test_bare_position_of_another_extent_is_a_warning(extent: str, index: str, hint: str) -> None:
    loaded = loads_specs(f"attention a\n  input t: float[{extent}]\n  score s + t[{index}]")
    assert [(w.message, w.hint) for w in loaded.warnings] == [(f"an axis of {extent} is read at '{index}'", hint)]


def test_row_of_keys_is_allowed() -> None:
    assert warnings_of("  input t: float[keys]\n  score s + t[row]") == []


# Rule 2: a constant divisor of zero is refused (malformed/sorts); one that a call may change is not.


def test_divisor_that_is_a_param_is_left_to_the_call() -> None:
    (mask,) = spec_of("  param n: int = 0\n  mask q // n == 0").masks
    assert mask.expr is call("eq", call("floordiv", q, Param("n", INT)), c(0))


# Rule 4.


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("  mask exp(q * 0.5) > 2.0", 1),
        ("  input t: float[keys]\n  score s + t[floor(log(k + 1))]", 1),
        ("  score s if sin(q * 0.1) > 0 else -s", 1),
        ("  mask q * 0.5 > sqrt(k)", 0),
        ("  score tanh(s)", 0),
        ("  mask (1 if exp(q * 0.5) > 2.0 else 0) > 0", 1),
    ],
)
def test_transcendental_that_decides_is_a_warning(text: str, count: int) -> None:
    assert len([w for w in warnings_of(text) if "transcendental" in w]) == count


# Rule 5: order.


def test_weights_sees_the_final_score_wherever_it_stands() -> None:
    spec = spec_of("  weights sigmoid(s)\n  score s + 1")
    assert spec.weights == Ratio(Clause(call("sigmoid", s)))


def test_let_of_the_score_serves_until_the_score_changes() -> None:
    (score,) = spec_of("  let t = tanh(s)\n  score t + t").scores
    assert score.expr is call("add", call("tanh", s), call("tanh", s))
    with pytest.raises(SpecError, match="holds the score of the line where it stands"):
        spec_of("  weights t\n  let t = tanh(s)\n  score s + 1\n  let u = 3\n  score t")


def test_let_above_the_last_score_is_refused_in_weights() -> None:
    with pytest.raises(SpecError, match="holds the score of the line where it stands"):
        spec_of("  let t = tanh(s)\n  weights t\n  score s + 1.0")


def test_let_in_terms_of_coordinates_serves_everywhere() -> None:
    spec = spec_of("  let d = q - k\n  mask d > 0\n  score s - d")
    assert spec.masks[0].expr is call("gt", call("sub", q, k), c(0))
    assert spec.scores[0].expr is call("sub", s, call("sub", q, k))


WEIGHTS = [
    ("softmax", Softmax()),
    ("softmax with sink[h]", Softmax((Clause(Load("sink", (h,), FLOAT)),))),
    ("softmax with 0, sink[h]", Softmax((Clause(call("to_float", c(0))), Clause(Load("sink", (h,), FLOAT))))),
    ("sigmoid(s)", Ratio(Clause(call("sigmoid", s)))),
    ("relu(s) over keys", Ratio(Clause(call("relu", s)), Clause(call("to_float", Size("keys"))))),
    ("s over max(abs(total), 1)", Ratio(Clause(s), Clause(call("max", call("abs", RowSum()), c(1))))),
    ("s over count + q", Ratio(Clause(s), Clause(call("to_float", call("add", RowCount(), q))))),
    ("1.0 over count", Ratio(Clause(c(1.0)), Clause(call("to_float", RowCount())))),
]


@pytest.mark.parametrize(("text", "expected"), WEIGHTS, ids=[t for t, _ in WEIGHTS])
def test_weights(text: str, expected: Softmax | Ratio) -> None:
    assert spec_of(f"  input sink: float[heads]\n  weights {text}").weights == expected


REWEIGHTS = [
    ("p", c(1.0)),
    ("p * t[h]", Load("t", (h,), FLOAT)),
    ("t[h] * p", Load("t", (h,), FLOAT)),
    ("p / 2", call("div", c(1.0), c(2))),
    ("2 * p / t[h]", call("div", c(2), Load("t", (h,), FLOAT))),
    ("2 * p * t[h]", call("mul", c(2), Load("t", (h,), FLOAT))),
    ("-p", c(-1.0)),
    ("-(p * t[h])", call("neg", Load("t", (h,), FLOAT))),
    ("t[h] * (p * 2.0)", call("mul", Load("t", (h,), FLOAT), c(2.0))),
    ("p * (q - k)", call("to_float", call("sub", q, k))),
    ("p * (1.0 if q > k else 0.0)", call("where", call("gt", q, k), c(1.0), c(0.0))),
]


@pytest.mark.parametrize(("text", "factor"), REWEIGHTS, ids=[t for t, _ in REWEIGHTS])
def test_reweight_is_p_times_a_factor(text: str, factor: Expr) -> None:
    spec = spec_of(f"  input t: float[heads]\n  reweight {text}")
    assert spec.reweight is not None
    assert spec.reweight.expr is factor


# Rule 7.


def test_learnable_is_used_in_sinks_reweight_and_scores() -> None:
    spec = spec_of(
        "  input x1: float[heads] learnable\n  input x2: float[heads] learnable\n  input x3: float[heads] learnable\n"
        "  weights softmax with x1[h]\n  reweight p * x2[h]\n  score s + x3[h]"
    )
    assert all(i.learnable for i in spec.inputs)


@pytest.mark.parametrize(
    "name", ["size", "over", "with", "along", "sorted", "sink", "in", "learnable", "softmax", "lse"]
)
def test_soft_words_are_names(name: str) -> None:
    spec = spec_of(f"  input {name}: float[heads]\n  param w: int = 3\n  score s + {name}[h] + w")
    assert spec.inputs[0].name == name


def test_soft_words_are_names_beside_their_own_place() -> None:
    spec = spec_of(
        "  param low: int = 0\n  param over: int = 3\n  param learnable: int = 5\n"
        "  input sorted: int[keys] sorted along keys in low .. over + learnable\n"
        "  mask sorted[k] > over\n  weights exp(s) over max(total, over)"
    )
    assert spec.inputs[0].facts[0] == SortedFact(0)


def test_prelude_names_are_free_for_values() -> None:
    spec = spec_of("  input prefix: int[batch]\n  param causal: int = 0\n  mask prefix(prefix[b]) or k < causal")
    assert ([i.name for i in spec.inputs], [p.name for p in spec.params]) == (["prefix"], ["causal"])


def test_unused_declarations_are_warnings() -> None:
    assert warnings_of("  param w: int = 3\n  input t: float[heads]\n  let d = q\n  mask q > k") == [
        "the param 'w' is never used",
        "the input 't' is never used",
        "the let 'd' is never used",
    ]


def test_a_param_of_an_extent_is_used() -> None:
    assert warnings_of("  param n: int = 3\n  input t: float[2*n - 1]\n  score s + t[q - k]") == []


def test_score_without_s_is_a_warning() -> None:
    assert warnings_of("  score q - k") == ["this score does not read 's', so the product of query and key is lost"]


# Rule 9.


def test_table_masks_by_itself() -> None:
    spec = spec_of("  extent top\n  mask q > k\n  blocks t: int[batch, heads, query_blocks, top] size 64, 2*64")
    assert [m.expr for m in spec.masks] == [call("gt", q, k), Listed("t")]
    (table,) = spec.tables
    assert table.extents == (Size("batch"), Size("heads"), Size("query_blocks"), Size("top"))
    assert table.query_size == (c(64),)
    assert table.key_size == (call("mul", c(2), c(64)),)
    assert spec.extents == ("top",)


def test_table_in_a_mask_is_not_added_again() -> None:
    spec = spec_of(
        "  extent top\n  blocks t: int[query_blocks, top] size 64, 64\n  let listed = t\n  mask listed or q == k"
    )
    assert [m.expr for m in spec.masks] == [call("or", Listed("t"), call("eq", q, k))]


def test_table_of_boxes() -> None:
    spec = spec_of(
        "  grid y, x\n  extent top\n  const n: int = 8\n"
        "  blocks t: int[heads, query_blocks, query_blocks, top] size (n, 8), (16, 4)"
    )
    (table,) = spec.tables
    assert table.query_size == (Param("n", INT), c(8))
    assert table.key_size == (c(16), c(4))


# Rule 10.


@pytest.mark.parametrize(
    "text",
    ["  mask q - k <\n    (3)", "  mask max(\n-1, q) > 0", "  mask q\n    - k < 3", "  mask q > k and\n    (k > 3)"],
)
def test_lines_that_continue_are_fine_where_they_look_it(text: str) -> None:
    spec_of(text)


def test_layout_is_free_otherwise() -> None:
    one = spec_of("  param w: int = 3   mask q - k < w score s + 1")
    other = spec_of("param w\n:\nint\n=\n3\nmask\nq - # here\nk < w\nscore\ns + 1")
    assert one == other


# Declarations.


def test_grid_of_one_kind_of_token() -> None:
    spec = spec_of("  grid y, x\n  mask q.y == k.y and q.x < len(x) and len(k.y) > 3 and on_grid(q) and on_grid(k)")
    assert spec.grid == Grid(("y", "x"), ("y", "x"))
    text = (
        call("eq", Coord("q.y"), Coord("k.y")),
        call("lt", Coord("q.x"), Size("q.x")),
        call("gt", Size("k.y"), c(3)),
        call("ge", Coord("q.y"), c(0)),
        call("ge", Coord("k.y"), c(0)),
    )
    expected = text[0]
    for part in text[1:]:
        expected = call("and", expected, part)
    assert spec.masks[0].expr is expected


def test_grids_of_two_kinds() -> None:
    spec = spec_of("  grid queries y, x  grid keys v, u\n  mask q.y // 2 == k.v and len(u) > 1 and len(y) > 1")
    assert spec.grid == Grid(("y", "x"), ("v", "u"))
    assert {Size("k.u"), Size("q.y")} <= set(postorder(*(m.expr for m in spec.masks)))


def test_input_with_everything() -> None:
    spec = spec_of(
        "  const n: int = 7\n  param w: int = n * 2\n  extent top\n"
        "  input t: int[batch, 2*n - 1, keys, top] sorted along keys in -1 .. w + heads\n"
        "  mask t[b, 0, k, 1] == 1"
    )
    (declared,) = spec.inputs
    two_n_less_one = call("sub", call("mul", c(2), Param("n", INT)), c(1))
    assert declared.extents == (Size("batch"), two_n_less_one, Size("keys"), Size("top"))
    assert declared.facts == (SortedFact(2), RangeFact(c(-1), call("add", Param("w", INT), Size("heads"))))
    assert spec.params[0].default == 14


def test_scalars() -> None:
    spec = spec_of(
        "  const f: float = 3\n  const t: bool = not false\n  const z: int = -2 ** 2 + 7 // -2\n  param w: int\n"
        '  param u: float = -inf\n  scale f / sqrt(dim)\n  require w * 2 <= keys, "short"\n'
        "  mask t and q > z + w\n  score s * u"
    )
    assert [(x.name, x.value) for x in spec.constants] == [("f", 3.0), ("t", True), ("z", -8)]
    assert [type(x.value) for x in spec.constants] == [float, bool, int]
    assert [(x.name, x.default) for x in spec.params] == [("w", None), ("u", float("-inf"))]
    assert spec.scale is call("div", Param("f", FLOAT), call("sqrt", call("to_float", Size("dim"))))
    (require,) = spec.requires
    assert (require.condition, require.message) == (
        call("le", call("mul", Param("w", INT), c(2)), Size("keys")),
        "short",
    )


def test_declarations_may_stand_below_their_use() -> None:
    above = spec_of("  mask q - k < w and t[h] > 0\n  param w: int = 3\n  input t: int[heads]")
    below = spec_of("  param w: int = 3\n  input t: int[heads]\n  mask q - k < w and t[h] > 0")
    assert above == below


def test_outputs() -> None:
    assert spec_of("  output lse, key_mass\n  output entropy").outputs == ("lse", "key_mass", "entropy")


# Definitions.


def test_def_with_defaults_of_earlier_arguments() -> None:
    spec = spec_of("  mask near(q, by=3) and near(q, k, 1)", "def near(i, j=i - 1, by=j + 1) = abs(i - j) < by\n")
    first = call("lt", call("abs", call("sub", q, call("sub", q, c(1)))), c(3))
    second = call("lt", call("abs", call("sub", q, k)), c(1))
    assert spec.masks[0].expr is call("and", first, second)


def test_def_of_the_score_and_of_a_whole_input() -> None:
    spec = spec_of(
        "  input slopes: float[heads] learnable\n  score alibi(slopes)\n  score softcap(20.0)\n"
        "  input doc: int[batch, keys]\n  mask same(doc)"
    )
    distance = call("abs", call("sub", q, k))
    assert spec.scores[0].expr is call("sub", s, call("mul", Load("slopes", (h,), FLOAT), distance))
    assert spec.scores[1].expr is call("mul", c(20.0), call("tanh", call("div", s, c(20.0))))
    assert spec.masks[0].expr is call("eq", Load("doc", (b, q), INT), Load("doc", (b, k), INT))


def test_def_of_the_same_name_hides_the_prelude_s_but_not_inside_it() -> None:
    spec = spec_of("  mask causal()\n  mask prefix(3)", "def causal(i=q, j=k) = j < i\n")
    assert spec.masks[0].expr is call("lt", k, q)
    assert spec.masks[1].expr is call("or", call("le", k, q), call("lt", k, c(3)))


def test_requirements_of_a_def_come_with_each_call() -> None:
    body = (
        "  grid y, x\n  param w: int = 7\n"
        "  mask neighborhood(q.y, k.y, len(y), w) and neighborhood(q.x, k.x, len(x), w)"
    )
    conditions = [r.condition for r in spec_of(body).requires]
    window = Param("w", INT)
    assert conditions == [
        call("and", call("le", c(1), c(1)), call("ge", window, c(1))),
        call("le", call("mul", window, c(1)), Size("q.y")),
        call("le", call("mul", window, c(1)), Size("q.x")),
    ]


def test_requirement_that_holds_by_itself_is_dropped() -> None:
    assert spec_of('  mask q > k\n  require 1 <= 2, "no"').requires == ()


def test_several_attentions_and_none() -> None:
    loaded = loads_specs("def f(x) = x\nattention a\n  mask f(q) > k\nattention b2\nattention c")
    assert list(loaded.specs) == ["a", "b2", "c"]
    assert loads_specs("def f(x) = x").specs == {}


def test_equal_specs_ignore_where_they_stand() -> None:
    assert spec_of("  mask q > k") == spec_of("\n\n     mask (q > k)  # the same")
