"""Compiles examples ahead of time and prints one JSON line for each; run as a program, without Triton's interpreter."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from attncc.compiler import compile as compile_spec
from attncc.grammar.frontend import load_specs
from attncc.runtime.cache import Cache, CacheConfig
from attncc.runtime.offline import instruction_counts


def main(target: str, dtype: str, dim: int, value_dim: int, files: list[str]) -> None:
    """One line for each spec in the files: its manifest, and each kernel's opcodes where there is a disassembler."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(CacheConfig(Path(folder)))
        for file in files:
            for spec in load_specs(file).specs.values():
                artifact = compile_spec(spec, target, dtype, dim, value_dim=value_dim, cache=cache)
                opcodes = {k.name: instruction_counts(k.binary) for k in artifact.kernels if target.startswith("cuda")}
                sizes = {k.name: len(k.binary) for k in artifact.kernels}
                print(json.dumps({"manifest": artifact.manifest, "opcodes": opcodes, "sizes": sizes}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
