"""The compiler's memory: what makes a new module, what is found again, and what a damaged cache does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attncc import compiler
from attncc.codegen.options import Options, Target
from attncc.compiler import Compiler, module_key, parse_target
from attncc.errors import ArgumentError
from attncc.grammar.frontend import loads_specs
from attncc.passes.pipeline import lower
from attncc.runtime.cache import Cache, CacheConfig

TEXT = "attention a\n  const n: int = 3\n  mask k <= q and q % n == 0"
OPTIONS = Options(Target("interpreter"), "float32", 16, 16)


def test_a_module_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = loads_specs(TEXT).specs["a"]
    first = Compiler(Cache(CacheConfig(tmp_path)))
    module = first.build(spec, {}, OPTIONS)
    assert first.build(spec, {}, OPTIONS) is module
    monkeypatch.setattr(compiler, "generate", lambda *_: pytest.fail("generated again"))
    again = Compiler(Cache(CacheConfig(tmp_path))).build(spec, {}, OPTIONS)
    assert again.__file__ == module.__file__


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    spec = loads_specs(TEXT).specs["a"]
    module = Compiler(Cache(CacheConfig(tmp_path))).build(spec, {}, OPTIONS)
    assert module.__file__ is not None
    good = Path(module.__file__).read_text()
    Path(module.__file__).write_text("raise SystemExit('not what was generated')")
    again = Compiler(Cache(CacheConfig(tmp_path))).build(spec, {}, OPTIONS)
    assert Path(again.__file__ or "").read_text() == good


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (TEXT.replace("3", "4"), OPTIONS),
        (TEXT, replace(OPTIONS, dim=32)),
        (TEXT, replace(OPTIONS, dtype="float16")),
        (TEXT, replace(OPTIONS, wide=True)),
        (TEXT, replace(OPTIONS, target=Target("cuda", "90"))),
    ],
)
def test_what_makes_another_module(text: str, options: Options) -> None:
    def key(of: str, with_options: Options) -> str:
        return module_key(lower(loads_specs(of).specs["a"]), with_options)

    assert key(text, options) != key(TEXT, OPTIONS)
    assert key("# a comment\n" + TEXT.replace("  ", "    "), OPTIONS) == key(TEXT, OPTIONS)


def test_a_constant_given_at_the_call_is_that_constant(tmp_path: Path) -> None:
    builder = Compiler(Cache(CacheConfig(tmp_path)))
    given = builder.build(loads_specs(TEXT).specs["a"], {"n": 4}, OPTIONS)
    written = builder.build(loads_specs(TEXT.replace("3", "4")).specs["a"], {}, OPTIONS)
    assert given.__file__ == written.__file__


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ArgumentError, match="there is no target 'cuda:70'"):
        parse_target("cuda:70")
