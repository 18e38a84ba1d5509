"""Floats that feed a bool are rounded after each operation: no multiply-add may be fused where that could be seen."""

from __future__ import annotations

import attncc

LAUNCHES = 4


def test_a_product_and_sum_in_a_mask_turn_fusion_off() -> None:
    text = "attention a\n  input t: float[keys]\n  mask t[k] * 1.5 + 0.25 < q"
    source = attncc.loads(text).source(target="cuda:90")
    assert source.count("enable_fp_fusion=False") == LAUNCHES


def test_a_product_and_sum_in_a_score_leave_it_on() -> None:
    text = "attention a\n  input t: float[keys]\n  mask t[k] * 1.5 < q\n  score s * 1.5 + t[k]"
    assert "enable_fp_fusion" not in attncc.loads(text).source(target="cuda:90")


def test_a_quotient_in_a_mask_is_rounded_to_nearest() -> None:
    text = "attention a\n  input t: float[keys]\n  mask t[k] / 3 < q\n  score s / 3"
    source = attncc.loads(text).source(target="cuda:90")
    assert source.count("tl.div_rn(") == 1
