"""Malformed specs, each pinned to its rendered diagnostics: the golden texts in `malformed/`.

A golden file is a run of `=== name`, the spec, `---`, what is printed. `--update-golden` rewrites the last part.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from attncc.errors import SpecError
from attncc.grammar.frontend import loads_specs
from attncc.source import Source

FILES = sorted((Path(__file__).parent / "malformed").glob("*.txt"))
CASE = re.compile(r"^=== (?P<name>[^\n]*)\n(?P<spec>.*?)^--- ?\n(?P<printed>.*?)(?=^=== |\Z)", re.DOTALL | re.MULTILINE)


def cases() -> list[tuple[Path, str, str, str]]:
    # Line ends are part of some specs, so the bytes are read as they are.
    texts = [(path, path.read_bytes().decode()) for path in FILES]
    return [
        (path, match["name"], match["spec"], match["printed"]) for path, text in texts for match in CASE.finditer(text)
    ]


@pytest.mark.parametrize(
    ("spec", "printed"), [c[2:] for c in cases()], ids=[f"{path.stem}: {name}" for path, name, *_ in cases()]
)
def test_prints(spec: str, printed: str, update_golden: bool) -> None:
    if update_golden:
        pytest.skip("golden texts are being rewritten")
    assert render(spec) == printed


def test_update(update_golden: bool) -> None:
    if not update_golden:
        pytest.skip("only with --update-golden")
    for path in FILES:
        text = path.read_bytes().decode()
        blocks = [f"=== {m['name']}\n{m['spec']}---\n{render(m['spec'])}" for m in CASE.finditer(text)]
        path.write_bytes("".join(blocks).encode())


def test_there_are_enough() -> None:
    found = cases()
    assert len(found) >= 60
    for _, name, _, printed in found:
        assert re.search(r"^ *--> a\.attn:\d+:\d+$", printed, re.MULTILINE), f"{name} names no line and column"


def render(spec: str) -> str:
    with pytest.raises(SpecError) as caught:
        loads_specs(spec, "a.attn", nothing_to_read)
    return f"{caught.value}\n\n"


def nothing_to_read(path: str) -> Source:
    raise FileNotFoundError(errno.ENOENT, "no such file", path)
