"""Constants are bound everywhere, stages run in their order, and every pass leaves a valid spec."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from strategies import specs

from attncc.errors import ArgumentError
from attncc.ir.expr import Param, Scalar, Size, Sort, postorder, to_const
from attncc.ir.intrinsics import call
from attncc.ir.spec import Clause, Constant, Input, Require, Spec
from attncc.ir.traversal import expressions_of
from attncc.ir.verify import verify
from attncc.passes.constants import bind_constants
from attncc.passes.pipeline import PASSES, Lowering, lower

N = Param("n", Sort.INT)
SPEC = Spec(
    "test",
    constants=(Constant("n", Sort.INT, 7), Constant("c", Sort.FLOAT, 0.5), Constant("on", Sort.BOOL, True)),
    inputs=(Input("t", Sort.FLOAT, (Size("heads"), call("sub", call("mul", to_const(2), N), to_const(1)))),),
    requires=(Require(call("le", N, Size("keys")), "too wide"), Require(call("gt", N, to_const(0)), "positive")),
    masks=(Clause(Param("on", Sort.BOOL)),),
    scale=Param("c", Sort.FLOAT),
)


def test_defaults_are_bound_everywhere() -> None:
    bound = bind_constants(SPEC)
    assert bound.constants == ()
    assert not any(isinstance(n, Param) for n in postorder(*expressions_of(bound)))
    assert bound.scale is to_const(0.5)


def test_given_values_win() -> None:
    lowered = lower(SPEC, {"n": 3, "c": 2, "on": False})
    assert lowered.inputs[0].extents[1] is to_const(5)
    assert lowered.scale is to_const(2.0)
    assert [c.expr for c in lowered.masks] == [to_const(False)]
    assert [r.message for r in lowered.requires] == ["too wide"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"m": 3}, "'m' is not a constant of 'test'"),
        ({"n": 3.0}, "'n' is an int, not float 3.0"),
        ({"n": True}, "'n' is an int, not bool True"),
        ({"c": True}, "'c' is a float, not bool True"),
        ({"on": 1}, "'on' is a bool, not int 1"),
        ({"n": 2**63}, f"'n' does not fit 64 bits: {2**63}"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Scalar], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        bind_constants(SPEC, values)
    assert message in str(caught.value)


def test_a_near_name_is_suggested() -> None:
    spec = replace(SPEC, constants=(*SPEC.constants, Constant("window", Sort.INT, 1)))
    with pytest.raises(ArgumentError, match="did you mean 'window'"):
        bind_constants(spec, {"windw": 3})


def test_stages() -> None:
    assert [name for name, _ in PASSES] == ["constants", "simplify", "coords", "lowered"]
    assert lower(SPEC, until="constants") == bind_constants(SPEC)
    assert lower(SPEC, until="lowered") == lower(SPEC)
    with pytest.raises(ValueError, match="no stage 'tiles': the stages are constants, simplify, coords, lowered"):
        lower(SPEC, until="tiles")


@settings(max_examples=60, deadline=None)
@given(spec=specs())
def test_every_pass_leaves_a_valid_spec(spec: Spec) -> None:
    for per_batch in (False, True):
        current, is_lowered = spec, False
        for name, run in PASSES:
            current = run(current, Lowering(offset_per_batch=per_batch))
            is_lowered = is_lowered or name == "coords"
            verify(current, lowered=is_lowered)
        assert current == lower(spec, offset_per_batch=per_batch)
