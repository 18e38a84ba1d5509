"""Launches a generated module's kernels up to the point where a device would run them; run as a program.

A driver that answers for an sm_90 stands in for the device, and every launch is a warm-up: Triton binds the arguments,
specialises and compiles as it would there. Prints a JSON object: how many binaries each kernel has after each call.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from attncc.codegen.options import Options, Target
from attncc.compiler import Compiler
from attncc.grammar.frontend import loads_specs
from attncc.runtime.cache import Cache, CacheConfig

TEXT = """
attention a
  param window: int = 256
  param far: bool = true
  param slope: float = 0.5
  input doc: int[batch, keys]
  input bias: float[heads] learnable
  mask k <= q and (q - k < window or far) and doc[b, q] == doc[b, k]
  score s + bias[h] - slope * (q - k)
"""


class StandIn:
    """What Triton asks of a driver before it launches."""

    def get_current_target(self) -> GPUTarget:
        """An H100 or H200."""
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        """The first."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default one."""
        return 0


def main() -> None:
    """Calls forward and backward several times with what must not, and what may, make a new binary."""
    triton.runtime.driver.set_active(StandIn())
    launch = JITFunction.run
    JITFunction.run = lambda kernel, *arguments, **options: launch(kernel, *arguments, **{**options, "warmup": True})
    spec = loads_specs(TEXT).specs["a"]
    dtypes = (("bias", "float32"), ("doc", "int64"))
    options = Options(Target("cuda", "90"), "bfloat16", 64, 64, input_dtypes=dtypes)
    counts: list[dict[str, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        module = Compiler(Cache(CacheConfig(Path(folder)))).build(spec, {}, options)
        for tokens, window, offset in ((256, 1, 0), (1000, 64, 1), (77, 300, 16), (1, 2, 3)):
            call(module, tokens, window, offset)
            counts.append({name: binaries(getattr(module, name)) for name in dir(module) if name.endswith("_kernel")})
    json.dump(counts, sys.stdout)


def call(module: Any, tokens: int, window: int, offset: int) -> None:
    """One forward and one backward, of two batch entries and four heads."""
    query, key, value = (torch.zeros(2, n, tokens, 64, dtype=torch.bfloat16) for n in (4, 2, 2))
    values = {"window": window, "far": tokens % 2 == 0, "slope": 1.0, "doc": torch.zeros(2, tokens, dtype=torch.int64)}
    values |= {"bias": torch.zeros(4), "scale": 0.125, "q_offset": offset}
    out, state = module.forward(query, key, value, **values)
    gradients = module.backward(out, state[0], query, key, value, out, state, **values)
    assert [g.shape for g in gradients[:3]] == [t.shape for t in (query, key, value)]
    assert gradients[3]["bias"].shape == (4,)


def binaries(kernel: Any) -> int:
    """How many binaries Triton made of a kernel."""
    return sum(len(entry[0]) for entry in kernel.device_caches.values())


if __name__ == "__main__":
    main()
