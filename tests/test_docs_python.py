"""Every example of docs/python.md, run from a file as a reader would."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from attncc.errors import SpecError

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
TEXT = PAGE.read_text(encoding="utf-8")
RUN = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
FAIL = re.findall(r"```python error\n(.*?)```\n```text\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("code", RUN, ids=lambda c: f"line {TEXT[: TEXT.index(c)].count(chr(10)) + 1}")
def test_an_example_runs(code: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(code, encoding="utf-8")
    runpy.run_path(str(path))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="columns are known from Python 3.11 on")
@pytest.mark.parametrize(("code", "expected"), FAIL)
def test_a_mistake_is_told_as_shown(code: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(code, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        runpy.run_path(str(path))
    assert str(caught.value).replace(str(path), "model.py") == expected.rstrip("\n")


def test_the_page_has_examples() -> None:
    assert len(RUN) >= 3
    assert len(FAIL) >= 1
