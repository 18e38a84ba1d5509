"""Compiles random specs ahead of time and prints one JSON line for each; run as a program, without the interpreter."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

FOLDERS = [str(Path(__file__).parents[n]) for n in (1, 2)]
sys.path[:0] = FOLDERS

from random_specs import RandomCase, random_case  # noqa: E402
from torch import Tensor  # noqa: E402

from attncc.analysis.plan import plan_loops  # noqa: E402
from attncc.codegen.options import Options  # noqa: E402
from attncc.codegen.triton.module import describe, generate  # noqa: E402
from attncc.compiler import parse_target  # noqa: E402
from attncc.grammar.frontend import loads_specs  # noqa: E402
from attncc.passes.pipeline import lower  # noqa: E402
from attncc.runtime.loader import load_module  # noqa: E402
from attncc.runtime.offline import compile_kernels  # noqa: E402


def main(target: str, seeds: list[int]) -> None:
    """Every kernel of each seed's spec, with the constants, element types and widths that its call asks for."""
    for seed in seeds:
        case = random_case(seed)
        try:
            found = {"kernels": compiled(case, target)}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"seed": seed, **found}), flush=True)


def compiled(case: RandomCase, target: str) -> list[str]:
    """The names of the kernels compiled."""
    spec = loads_specs(case.text).specs["a"]
    call = case.arguments()
    constants = {c.name: call[c.name] for c in spec.constants if c.name in call}
    per_batch = isinstance(call["q_offset"], Tensor)
    scalars = [call.get(p.name, p.default) for p in spec.params]
    options = Options(
        target=parse_target(target),
        dtype=str(case.dtype).removeprefix("torch."),  # type: ignore[arg-type]
        dim=case.shape.dim,
        dim_v=case.shape.dim_v,
        input_dtypes=tuple(case.input_dtypes.items()),
        offset_per_batch=per_batch,
        wide=per_batch or any(isinstance(v, int) and abs(v) > 2**28 for v in scalars),
    )
    lowered = lower(spec, constants, dim=options.dim, offset_per_batch=per_batch)
    plan = plan_loops(lowered, wide=options.wide, input_dtypes=case.input_dtypes)
    text = generate(lowered, plan, options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"random_{case.seed}.py"
        path.write_text(text, encoding="utf-8")
        module = load_module(path, path.stem, text)
        layout, fusion = describe(lowered, plan, options)
        return [kernel.name for kernel in compile_kernels(module, layout, fusion, options.target)]


if __name__ == "__main__":
    main(sys.argv[1], [int(seed) for seed in sys.argv[2:]])
