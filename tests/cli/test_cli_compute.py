"""`attncc explain`, `plot`, `verify` and `compile`: what they say, write and refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attncc.runtime import verification

ROOT = Path(__file__).parents[2]


def test_explain_in_words(attncc: Callable, examples: Path) -> None:
    said = attncc("explain", examples / "sliding_window.attn", "--queries", "1024", "--set", "window=256")
    assert (said.code, said.err) == (0, "")
    assert "sliding_window: 1024 queries x 1024 keys" in said.out
    # 8 query tiles of 128: 1, 2 and then 3 key tiles each, of which the middle one is whole.
    assert "21 visited" in said.out
    assert "window >= 1" in said.out


def test_explain_as_json(attncc: Callable, examples: Path) -> None:
    said = attncc("explain", examples / "causal.attn", "--queries", "1024", "--tile", "64x128", "--json")
    found = json.loads(said.out)
    assert found["tile"] == [64, 128]
    assert found["tiles_total"] == 16 * 8
    assert found["tiles_visited"] == found["tiles_full"] + found["tiles_partial"]
    # Query tile i of 64 rows sees the keys of tiles 0 .. i // 2.
    assert found["tiles_visited"] == sum(i // 2 + 1 for i in range(16))
    assert found["tiles_partial"] == 16
    assert {"key_ranges", "assumptions", "method", "reasons"} <= set(found)


def test_explain_json_is_one_object(attncc: Callable, examples: Path) -> None:
    said = attncc("explain", examples / "causal.attn", examples / "dense.attn", "--json")
    assert (said.code, said.out) == (2, "")
    assert "choose one with --name" in said.err


def test_explain_makes_up_the_inputs_that_bounds_read(attncc: Callable, examples: Path) -> None:
    said = attncc("explain", examples / "prefix_lm.attn", "--json", "--queries", "512")
    assert said.code == 0
    assert "prefix[b]" in json.loads(said.out)["key_ranges"][0]


SPEC = """\
attention a
  const n: int = 4
  param w: int = 8
  param on: bool = true
  param f: float = 1.0
  input t: float[keys]
  mask q - k < w * n and on
  score s * f + t[k]
"""


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("w", "--set w: write NAME=VALUE"),
        ("v=1", "--set v: 'a' has no such param or constant, it has n, w, on, f"),
        ("w=1.5", "--set w=1.5: an int is wanted"),
        ("f=big", "--set f=big: a float is wanted"),
        ("on=1", "--set on=1: true or false is wanted"),
        ("t=1", "--set t: it is an input of 'a', and inputs are made up here; see --seed"),
    ],
)
def test_a_wrong_setting(attncc: Callable, tmp_path: Path, setting: str, message: str) -> None:
    (tmp_path / "a.attn").write_text(SPEC)
    said = attncc("explain", "a.attn", "--set", setting)
    assert (said.code, said.err) == (2, f"error: {message}\n")


def test_right_settings(attncc: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.attn").write_text(SPEC)
    settings = [x for s in ("w=0x10", "on=TRUE", "f=1e-3", "n=2") for x in ("--set", s)]
    said = attncc("explain", "a.attn", "--queries", "256", *settings)
    assert (said.code, said.err) == (0, "")


def test_a_requirement_that_does_not_hold(attncc: Callable, examples: Path) -> None:
    said = attncc("explain", examples / "sliding_window.attn", "--set", "window=0")
    assert said.code == 2
    assert said.err.startswith("error: a window holds at least the query's own position\n")


GRID = "attention g\n  grid y, x\n  mask abs(q.y - k.y) <= 1 and abs(q.x - k.x) <= 1\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "'g' lies on a grid (y, x): give --grid, as 30x48"),
        (["--grid", "4x5x6"], "--grid has 3 axes, 'g' has 2"),
    ],
)
def test_a_wrong_grid(attncc: Callable, tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "g.attn").write_text(GRID)
    said = attncc("explain", "g.attn", *options)
    assert (said.code, said.err) == (2, f"error: {message}\n")


def test_a_grid_where_there_is_none(attncc: Callable, examples: Path) -> None:
    said = attncc("explain", examples / "causal.attn", "--grid", "4x5")
    assert (said.code, said.err) == (2, "error: 'causal' declares no grid, so --grid means nothing here\n")


def test_a_grid(attncc: Callable, tmp_path: Path) -> None:
    (tmp_path / "g.attn").write_text(GRID)
    said = attncc("explain", "g.attn", "--grid", "16x20", "--json")
    assert json.loads(said.out)["queries"] == 320


@pytest.mark.parametrize(("name", "begins"), [("mask.png", b"\x89PNG"), ("deep/mask.svg", b"<?xml")])
def test_plot(attncc: Callable, examples: Path, tmp_path: Path, name: str, begins: bytes) -> None:
    said = attncc("plot", examples / "longformer.attn", "--queries", "200", "--set", "window=20", "-o", name)
    assert (said.code, said.out) == (0, f"wrote {name}\n")
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "mask.txt"], "mask.txt: a picture is .png or .svg"),
        (["--head", "1"], "there is no head 1 of batch entry 0: see --heads and --batch"),
        (["--queries", "100000"], "these are too many pairs to draw"),
    ],
)
def test_what_cannot_be_drawn(attncc: Callable, examples: Path, options: list[str], message: str) -> None:
    said = attncc("plot", examples / "causal.attn", *options)
    assert said.code == 2
    assert said.err.startswith(f"error: {message}")


def test_verify(attncc: Callable, examples: Path) -> None:
    said = attncc("verify", examples / "alibi.attn", "--queries", "40", "--head-dim", "16", "--dtype", "fp16")
    assert said.out.startswith("backend: triton, on Triton's interpreter on the CPU\n")
    for tensor in ("out", "lse", "dquery", "dkey", "dvalue", "dslopes"):
        assert f" {tensor} " in said.out
    assert said.out.endswith("all 6 are within the error rule\n")
    assert said.code == 0


def test_a_miss_is_said_and_told_by_the_exit_code(
    attncc: Callable, examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "allowed_error", lambda reference, plain, **_: -1.0)
    said = attncc("verify", examples / "dense.attn", "--queries", "20", "--head-dim", "16", "--dtype", "fp32")
    assert said.code == 1
    assert said.out.endswith("5 of 5 miss the error rule\n")


def test_compile_writes_module_binaries_and_manifest(examples: Path, tmp_path: Path) -> None:
    # In a process of its own: Triton's interpreter, which tests run under, cannot compile.
    environment = {n: v for n, v in os.environ.items() if n != "TRITON_INTERPRET"}
    environment |= {"ATTNCC_CACHE_DIR": str(tmp_path / "cache")}
    command = ["compile", str(examples / "causal.attn"), "--target", "cuda:80", "--head-dim", "64", "-o", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "attncc", *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "causal" / "cuda-80"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {"spec", "versions", "target", "dtype"} <= set(manifest)
    for kernel in manifest["kernels"]:
        assert {"registers", "spilled", "shared_memory"} <= set(kernel)
        assert (folder / kernel["file"]).read_bytes()[:4] == b"\x7fELF"
        assert kernel["name"] in run.stdout
    assert "import triton" in (folder / "causal.py").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--target", "cuda:x"], "there is no target 'cuda:x'"), (["--dtype", "int8"], "there is no kernel for dtype")],
)
def test_what_cannot_be_compiled(attncc: Callable, examples: Path, options: list[str], message: str) -> None:
    said = attncc("compile", examples / "causal.attn", *options)
    assert said.code == 2
    assert said.err.startswith(f"error: {message}")
