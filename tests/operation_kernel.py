"""Writes a Triton module with one kernel that applies every operation, and compiles it when run as a program.

`python operation_kernel.py FILE` compiles the module in FILE for sm_90, without a GPU; it prints the text sizes.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from attncc.ir.expr import Sort
from attncc.ir.intrinsics import INTRINSICS, Intrinsic, Signature

ELEMENT = {Sort.INT: "int64", Sort.BOOL: "bool", Sort.FLOAT: "float32"}
LITERALS = {Sort.INT: "3", Sort.FLOAT: "2.5"}
TRITON_ELEMENT = {"int64": "i64", "int32": "i32", "bool": "i1", "float32": "fp32"}


@dataclass(frozen=True)
class Case:
    """One text of one operation at one typing; ints of `int_type`. `literal`: the operand written as a literal."""

    record: Intrinsic
    signature: Signature
    template: str
    int_type: str
    literal: int | None = None

    @property
    def id(self) -> str:
        kind = {
            self.record.triton: "",
            self.record.triton_exact: "-exact",
            self.record.triton_nonnegative: "-plain",
        }[self.template]
        suffix = "" if self.literal is None else f"-literal-{self.literal}"
        return f"{self.record.name}-{'-'.join(s.value for s in self.signature[0])}{kind}-{self.int_type}{suffix}"

    @property
    def function(self) -> str:
        return "apply_" + self.id.replace("-", "_")

    @property
    def types(self) -> list[str]:
        """Element types of the operands and of the result."""
        sorts = (*self.signature[0], self.signature[1])
        return [self.int_type if s is Sort.INT else ELEMENT[s] for s in sorts]


def cases() -> list[Case]:
    """Every text of every operation at every typing, ints in both widths."""
    found = []
    for record in INTRINSICS.values():
        for signature in record.signatures:
            for template in filter(None, (record.triton, record.triton_exact, record.triton_nonnegative)):
                has_ints = Sort.INT in (*signature[0], signature[1])
                widths = ("int64", "int32") if has_ints and record.name not in ("floor", "ceil") else ("int64",)
                found += [Case(record, signature, template, width) for width in widths]
                if record.arity > 1:  # an operation on literals alone is folded, and a bool literal always goes
                    places = [i for i, sort in enumerate(signature[0]) if sort is not Sort.BOOL]
                    found += [Case(record, signature, template, width, i) for width in widths for i in places]
    return found


def write_module(path: Path) -> None:
    """The module's text: one kernel for each case, `kernel(a0, …, out, count)`."""
    lines = [
        "import triton",
        "import triton.language as tl",
        "from attncc.codegen.triton.operations import (  # noqa: F401",
        "    ceil_to_int, clamp, floor_div, floor_mod, floor_to_int, power, shift_left, shift_right, sign, tanh,",
        ")",
    ]
    for case in cases():
        names = [f"a{i}" for i in range(case.record.arity)]
        lines += ["", "", "@triton.jit", f"def {case.function}({', '.join(names)}, out, count, BLOCK: tl.constexpr):"]
        lines += ["    lane = tl.arange(0, BLOCK)", "    live = lane < count"]
        lines += [
            f"    v{i} = tl.load({n} + lane, mask=live, other=1)" + (" != 0" if sort is Sort.BOOL else "")
            for i, (n, sort) in enumerate(zip(names, case.signature[0], strict=True))
        ]
        operands = [f"v{i}" for i in range(len(names))]
        if case.literal is not None:
            operands[case.literal] = LITERALS[case.signature[0][case.literal]]
        lines += [f"    tl.store(out + lane, {case.template.format(*operands)}, mask=live)"]
    path.write_text("\n".join(lines) + "\n")


def import_module(path: Path) -> ModuleType:
    """The module of a file: Triton reads a kernel's source, so it has to come from one."""
    spec = importlib.util.spec_from_file_location("operation_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["operation_kernels"] = module
    spec.loader.exec_module(module)
    return module


def compile_all(path: Path) -> None:
    """Compiles every kernel for sm_90; raises where one does not."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = import_module(path)
    for case in cases():
        names = [f"a{i}" for i in range(case.record.arity)] + ["out"]
        signature = {n: "*" + TRITON_ELEMENT[t] for n, t in zip(names, case.types, strict=True)}
        signature |= {"count": "i32", "BLOCK": "constexpr"}
        source = ASTSource(getattr(module, case.function), signature, constexprs={"BLOCK": 128})
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        print(case.id, len(compiled.asm["ptx"]))


if __name__ == "__main__":
    compile_all(Path(sys.argv[1]))
