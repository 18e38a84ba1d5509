"""`attncc new`, `list`, `show` and `cache`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attncc.cli.show import STAGES
from attncc.ir.printer import parse_spec
from attncc.passes.pipeline import PASSES
from attncc.runtime.cache import Cache, CacheConfig, key_of


def test_a_new_spec_is_right_and_says_what_to_do(attncc: Callable, tmp_path: Path) -> None:
    said = attncc("new", "my_attention")
    assert (said.code, said.out) == (0, "wrote my_attention.attn; next: attncc check my_attention.attn\n")
    text = (tmp_path / "my_attention.attn").read_text()
    assert "attncc verify my_attention.attn" in text
    assert attncc("check", "my_attention.attn").code == 0


def test_every_line_offered_as_a_comment_is_right(attncc: Callable, tmp_path: Path) -> None:
    attncc("new", "a")
    text = (tmp_path / "a.attn").read_text()
    (tmp_path / "b.attn").write_text(text.replace("# input", "input").replace("# score", "score"))
    assert "\n  input slopes" in (tmp_path / "b.attn").read_text()
    assert attncc("check", "b.attn").code == 0


def test_new_leaves_what_is_there(attncc: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.attn").write_text("mine")
    said = attncc("new", "a")
    assert said.code == 2
    assert "a.attn is there already" in said.err
    assert (tmp_path / "a.attn").read_text() == "mine"
    assert attncc("new", "a", "-o", "deep/er/a.attn").code == 0


@pytest.mark.parametrize("name", ["mask", "9a", "a b", "a\n  mask true", "", "a-b", "a#", "é!"])
def test_what_cannot_be_a_name(attncc: Callable, tmp_path: Path, name: str) -> None:
    said = attncc("new", name, "-o", "file.attn")
    assert said.code == 2
    assert "cannot name an attention" in said.err
    assert not (tmp_path / "file.attn").exists()


def test_list_shows_every_example_with_what_it_takes(attncc: Callable, examples: Path) -> None:
    said = attncc("list", examples)
    assert said.code == 0
    for file in examples.glob("*.attn"):
        assert file.name in said.out
    assert "slopes: float[heads] learnable" in said.out
    assert "window=256" in said.out


def test_list_of_nothing(attncc: Callable) -> None:
    said = attncc("list")
    assert (said.code, said.err) == (2, "error: no .attn file in this folder\n")


def test_list_of_the_prelude(attncc: Callable) -> None:
    said = attncc("list", "--prelude")
    assert said.code == 0
    for form in ("causal(", "sliding(", "prefix(", "same(", "alibi(", "softcap(", "neighborhood("):
        assert form in said.out
    assert "_first" not in said.out


def test_the_stages_are_those_of_the_pipeline() -> None:
    assert ("parse", "check", *(name for name, _ in PASSES), "plan", "module") == STAGES


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("parse", "Compare operators[0]='<='  @2:8"),
        ("check", "  mask k <= q\n"),
        ("coords", "  mask k <= row + q_offset\n"),
        ("lowered", "  mask k <= row + q_offset\n"),
        ("plan", "    FULL "),
        ("module", "import triton\n"),
    ],
)
def test_show(attncc: Callable, tmp_path: Path, stage: str, expected: str) -> None:
    (tmp_path / "a.attn").write_text("attention a\n  mask k <= q\n")
    said = attncc("show", "a.attn", "--after", stage)
    assert (said.code, said.err) == (0, "")
    assert expected in said.out


def test_show_binds_constants(attncc: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.attn").write_text("attention a\n  const n: int = 7\n  mask q - k < n\n")
    assert "mask q - k < 9\n" in attncc("show", "a.attn", "--after", "constants", "--set", "n=9").out


@pytest.mark.parametrize("stage", ["check", "simplify", "lowered"])
def test_canonical_text_parses_back(attncc: Callable, examples: Path, stage: str) -> None:
    said = attncc("show", examples / "t5_bias.attn", "--after", stage, "--canonical")
    assert parse_spec(said.out).name == "t5_bias"


def test_one_of_several(attncc: Callable, tmp_path: Path) -> None:
    (tmp_path / "two.attn").write_text("attention one\n  mask k <= q\n\nattention two\n  mask k < q\n")
    assert "attention one" in attncc("show", "two.attn").out
    only = attncc("show", "two.attn", "--name", "two")
    assert (only.code, only.out) == (0, "attention two\n  mask k < q\n  weights softmax\n")
    said = attncc("show", "two.attn", "--name", "tow")
    assert (said.code, said.err) == (2, "error: no attention 'tow', only one, two; did you mean 'two'?\n")


def test_cache(attncc: Callable, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    assert attncc("cache", "dir").out == f"{directory}\n"
    assert attncc("cache", "list").out == f"nothing is cached in {directory}\n"
    key = key_of("x")
    Cache(CacheConfig(directory)).put(key, "x = 1\n", {"name": "longformer", "target": "cuda:90"})
    listed = attncc("cache", "list").out
    assert all(text in listed for text in (key[:16], "longformer", "cuda:90", "1 module"))
    assert attncc("cache", "clear").out == f"removed 1 modules from {directory}\n"
    assert attncc("cache", "clear").out == f"removed 0 modules from {directory}\n"


def test_a_cache_others_can_write_to_is_refused(attncc: Callable, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    directory.mkdir()
    directory.chmod(0o777)
    said = attncc("cache", "list")
    assert said.code == 3
    assert said.err.startswith("error: other users can write to the cache directory")
    assert f"\nhint: chmod go-w {directory}" in said.err
