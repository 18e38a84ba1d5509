"""A generated module on its own: it imports and trains where attncc cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attncc

PROGRAM = """
import sys
sys.modules["attncc"] = None  # an import of it would fail
import torch
import alibi

query, key, value = (torch.randn(1, 2, 40, 16, requires_grad=True) for _ in range(3))
slopes = torch.tensor([0.5, 0.25], requires_grad=True)
out = alibi.attention(query, key, value, slopes=slopes)

position = torch.arange(40)
distance = position[:, None] - position
score = query @ key.mT / 4 - slopes[:, None, None] * distance
wanted = score.masked_fill(distance < 0, -torch.inf).softmax(-1) @ value
torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)
leaves = [query, key, value, slopes]
grads = torch.autograd.grad(out.square().sum(), leaves), torch.autograd.grad(wanted.square().sum(), leaves)
for got, expected in zip(*grads):
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)
print(sorted(name for name in sys.modules if name.partition(".")[0] == "attncc" and sys.modules[name]))
"""


def test_a_module_needs_torch_and_triton_alone(tmp_path: Path) -> None:
    text = "attention alibi\n  input slopes: float[heads] learnable\n  mask k <= q\n  score s - slopes[h] * (q - k)"
    source = attncc.loads(text).source(target="interpreter", dtype="float32", head_dim=16)
    imported = [line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert sorted(imported) == ["torch", "triton", "triton.language", "typing"]
    (tmp_path / "alibi.py").write_text(source, encoding="utf-8")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "[]"
