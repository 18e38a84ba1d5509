"""`attncc check` starts fast because the front end loads nothing heavy; a fresh process shows what it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "triton", "numpy", "sympy", "rich", "matplotlib")
CHECK = f"""
import sys
from attncc.grammar.frontend import load_specs
load_specs({str(ROOT / "examples" / "longformer.attn")!r})
print(*(name for name in {HEAVY!r} if name in sys.modules))
"""


def test_front_end_loads_nothing_heavy() -> None:
    run = subprocess.run([sys.executable, "-c", CHECK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
