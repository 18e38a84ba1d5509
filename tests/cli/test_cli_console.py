"""Colour and movement only where there is a terminal, and nobody asked for none."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from attncc.cli.console import wants_colour

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {}, True),
        (io.StringIO(), {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
    ],
)
def test_colour(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, environment: dict[str, str], expected: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(stream) is expected


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_diagnostic_on_a_terminal(tmp_path: Path, environment: dict[str, str], coloured: bool) -> None:
    path = tmp_path / "bad.attn"
    path.write_text("attention a\n  mask k <= window\n")
    ours, theirs = pty.openpty()
    kept = {n: v for n, v in os.environ.items() if n != "NO_COLOR"}
    run = subprocess.run(
        [sys.executable, "-m", "attncc", "check", str(path)],
        cwd=ROOT, env={**kept, "TERM": "xterm", **environment}, stdout=theirs, stderr=theirs, check=False,
    )  # fmt: skip
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert run.returncode == 1
    assert ("\x1b[" in said) is coloured
    assert "bad.attn:2:13" in said
