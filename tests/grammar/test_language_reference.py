"""Every example of `docs/language.md` is accepted without a warning, or refused with the sentence it announces."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attncc.errors import SpecError
from attncc.grammar.builtins import ATTENTION_HEADS, FUNCTIONS, POSITIONS, SIZES
from attncc.grammar.definitions import prelude
from attncc.grammar.frontend import loads_specs

TEXT = (Path(__file__).parents[2] / "docs" / "language.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```attn(?: refused: (?P<refused>[^\n]*))?\n(?P<spec>.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [(m["spec"], m["refused"]) for m in BLOCK.finditer(TEXT)]


@pytest.mark.parametrize(("spec", "refused"), BLOCKS, ids=range(len(BLOCKS)))
def test_example(spec: str, refused: str | None) -> None:
    if refused is None:
        assert loads_specs(spec).warnings == ()
        return
    with pytest.raises(SpecError) as caught:
        loads_specs(spec)
    assert [d.message for d in caught.value.diagnostics] == [refused]


@pytest.mark.parametrize("head", ATTENTION_HEADS)
def test_every_statement_is_described(head: str) -> None:
    assert f"\n### {head}\n" in TEXT


@pytest.mark.parametrize("name", [*POSITIONS, *SIZES, *FUNCTIONS])
def test_every_name_is_listed(name: str) -> None:
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", TEXT)


@pytest.mark.parametrize("name", sorted(prelude()))
def test_every_form_of_the_prelude_is_listed_as_it_is_called(name: str) -> None:
    assert f"`{prelude()[name].signature}`" in TEXT
