"""Compiles a generated module's kernels for a target that need not be present, and reads back what they use."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from attncc.codegen.options import Target
from attncc.codegen.triton.host import HostLayout
from attncc.codegen.triton.schedule import shared_memory_limit
from attncc.codegen.triton.signatures import KernelSignature, signatures
from attncc.errors import BackendError


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """One kernel's binary and what the target's own tools say of it.

    `registers` per thread; `spilled`: bytes (NVIDIA: stack and local memory) or registers (AMD) that went to memory;
    `shared_memory` in bytes per program.
    """

    name: str
    binary: bytes
    extension: str
    registers: int
    spilled: int
    shared_memory: int
    num_warps: int
    num_stages: int

    @property
    def file_name(self) -> str:
        """The name the binary is written under."""
        return f"{self.name}.{self.extension}"


def compile_kernels(
    module: ModuleType, layout: HostLayout, fusion: bool, target: Target, names: Sequence[str] | None = None
) -> tuple[CompiledKernel, ...]:
    """Compiles every kernel of the module, or those named, for the target.

    Raises BackendError where Triton runs as an interpreter, cannot compile for the target, or a kernel wants more
    shared memory than the target has.
    """
    import triton

    if triton.knobs.runtime.interpret:
        raise BackendError("kernels cannot be compiled while TRITON_INTERPRET is set: unset it and start again")
    wanted = [s for s in signatures(module, layout, fusion) if names is None or s.name in names]
    return tuple(_compile(module, signature, target) for signature in wanted)


def instruction_counts(binary: bytes) -> Counter[str]:
    """How often each instruction's opcode (`HGMMA`, `MUFU`, `LDL`, …) stands in a cubin."""
    listing = _run_tool("nvdisasm", binary, "-c")
    return Counter(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_]*)", listing, re.MULTILINE))


def _compile(module: ModuleType, kernel: KernelSignature, target: Target) -> CompiledKernel:
    import triton
    from triton.compiler import ASTSource

    source = ASTSource(
        fn=getattr(module, kernel.name),
        signature=dict(kernel.signature),
        constexprs=dict(kernel.constexprs),
        attrs=dict(kernel.attrs),
    )
    try:
        compiled = triton.compile(source, target=_gpu_target(target), options=dict(kernel.options))
    except Exception as error:  # Triton and ptxas raise whatever they please; the user asked about this kernel.
        raise BackendError(f"Triton cannot compile {kernel.name} for {target}: {error}") from error
    shared = int(compiled.metadata.shared)
    limit = shared_memory_limit(str(target))
    if shared > limit:
        raise BackendError(f"{kernel.name} wants {shared} bytes of shared memory, {target} has {limit}")
    extension = "cubin" if target.backend == "cuda" else "hsaco"
    binary = compiled.asm[extension]
    registers, spilled = _cuda_usage(binary) if target.backend == "cuda" else _hip_usage(compiled.asm)
    options: Mapping[str, Any] = kernel.options
    return CompiledKernel(
        name=kernel.name,
        binary=binary,
        extension=extension,
        registers=registers,
        spilled=spilled,
        shared_memory=shared,
        num_warps=int(options.get("num_warps", compiled.metadata.num_warps)),
        num_stages=int(options.get("num_stages", compiled.metadata.num_stages)),
    )


def _gpu_target(target: Target) -> Any:
    from triton.backends.compiler import GPUTarget

    if target.backend == "cuda":
        return GPUTarget("cuda", int(target.arch), 32)
    # gfx9 runs wavefronts of 64 threads, later families of 32.
    return GPUTarget("hip", target.arch, 64 if target.arch.startswith("gfx9") else 32)


def _cuda_usage(binary: bytes) -> tuple[int, int]:
    report = _run_tool("cuobjdump", binary, "-res-usage")
    registers = [int(n) for n in re.findall(r"REG:(\d+)", report)]
    stack = [int(n) for n in re.findall(r"STACK:(\d+)", report)]
    local = [int(n) for n in re.findall(r"LOCAL:(\d+)", report)]
    if not registers:
        raise BackendError(f"cuobjdump gave no resource usage: {report.strip()[:200]}")
    return max(registers), max(s + m for s, m in zip(stack, local, strict=True))


def _hip_usage(asm: Mapping[str, Any]) -> tuple[int, int]:
    text = str(asm["amdgcn"])
    registers = re.search(r"\.vgpr_count:\s+(\d+)", text)
    spilled = re.search(r"\.vgpr_spill_count:\s+(\d+)", text)
    if registers is None or spilled is None:
        raise BackendError("the assembly for AMD names no register counts")
    return int(registers.group(1)), int(spilled.group(1))


def _run_tool(tool: str, binary: bytes, *flags: str) -> str:
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        done = subprocess.run([str(path), *flags, file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"{tool} failed: {done.stderr.strip()[:400]}")
    return done.stdout
