"""From a spec and options to a module that runs: lower, plan, generate, cache, import. And the same ahead of time."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata, resources
from pathlib import Path
from types import ModuleType
from typing import Any

from attncc.analysis.plan import LoopPlan, plan_loops
from attncc.codegen.options import Options, Target
from attncc.codegen.triton.module import describe, generate, pair_operations
from attncc.codegen.triton.schedule import SHARED_MEMORY_LIMIT, choose_schedule, smaller
from attncc.errors import ArgumentError, BackendError, did_you_mean
from attncc.ir.expr import Scalar
from attncc.ir.printer import spec_key
from attncc.ir.spec import Spec
from attncc.passes.pipeline import lower
from attncc.runtime.cache import Cache, key_of
from attncc.runtime.loader import load_module
from attncc.runtime.offline import CompiledKernel, compile_kernels

TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
DTYPES = ("float16", "bfloat16", "float32")
_SHORT_DTYPES = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32", "float": "float32"}


@dataclass(frozen=True, slots=True)
class Artifact:
    """What ahead-of-time compilation gives: the module's text, its kernels, and what is known of them."""

    source: str
    kernels: tuple[CompiledKernel, ...]
    manifest: Mapping[str, Any]

    def write(self, directory: str | Path) -> tuple[Path, ...]:
        """Writes the module, a binary for each kernel and `manifest.json`; gives the paths, the module's first."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        module = folder / f"{self.manifest['name']}.py"
        module.write_text(self.source, encoding="utf-8")
        paths = [module]
        for kernel in self.kernels:
            path = folder / kernel.file_name
            path.write_bytes(kernel.binary)
            paths.append(path)
        manifest = folder / "manifest.json"
        manifest.write_text(json.dumps(self.manifest, indent=2) + "\n", encoding="utf-8")
        return (*paths, manifest)


class Compiler:
    """Makes modules and remembers them, in this process and in a disk cache. Safe to share between threads."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._modules: dict[tuple[Spec, tuple[tuple[str, Scalar], ...], Options], ModuleType] = {}
        self._lock = threading.Lock()

    def build(self, spec: Spec, constants: Mapping[str, Scalar], options: Options) -> ModuleType:
        """The imported module of a checked spec, with these values for its constants.

        Raises UnsupportedError for what the backend cannot do yet, CacheError where the cache cannot be used.
        """
        key = (spec, tuple(sorted(constants.items())), options)
        module = self._modules.get(key)
        if module is None:
            with self._lock:
                module = self._modules.get(key) or self._load(spec, constants, options)
                self._modules[key] = module
        return module

    def _load(self, spec: Spec, constants: Mapping[str, Scalar], options: Options) -> ModuleType:
        lowered = lower(spec, constants, dim=options.dim, offset_per_batch=options.offset_per_batch)
        key = module_key(lowered, options)
        found = self._cache.read(key)
        if found is not None:
            path, text = found
        else:
            text = generate(lowered, _plan(lowered, options), options)
            path = self._cache.put(key, text, _entry(lowered, options))
        return load_module(path, f"attncc_{spec.name}_{key[:16]}", text)


def compile(
    spec: Spec,
    target: str,
    dtype: str = "bfloat16",
    head_dim: int = 128,
    *,
    value_dim: int | None = None,
    constants: Mapping[str, Scalar] | None = None,
    input_dtypes: Mapping[str, str] | None = None,
    cache: Cache,
) -> Artifact:
    """Compiles a spec for a target that need not be present.

    `target` is one of `TARGETS`, which are tested, or another in `SHARED_MEMORY_LIMIT`, as `cuda:89`; `dtype` is the
    element type of query, key and value; `input_dtypes` those of the inputs, else float32, int64 and bool. Where the
    first schedule does not fit the target's shared memory, smaller ones are tried. Raises ArgumentError,
    UnsupportedError, BackendError.
    """
    options = options_for(spec, parse_target(target), dtype, head_dim, value_dim, input_dtypes)
    lowered = lower(spec, dict(constants or {}), dim=options.dim)
    plan = _plan(lowered, options)
    schedule = choose_schedule(options, pair_operations(lowered))
    while True:
        options = replace(options, schedule=schedule)
        try:
            return _compile_with(lowered, plan, options, cache)
        except BackendError as error:
            following = smaller(schedule)
            if "shared memory" not in str(error) or following is None:
                raise
            schedule = following


def source(spec: Spec, constants: Mapping[str, Scalar], options: Options) -> str:
    """The text of a checked spec's module. Raises ArgumentError, UnsupportedError."""
    lowered = lower(spec, constants, dim=options.dim, offset_per_batch=options.offset_per_batch)
    return generate(lowered, _plan(lowered, options), options)


def options_for(
    spec: Spec,
    target: Target,
    dtype: str,
    head_dim: int,
    value_dim: int | None,
    input_dtypes: Mapping[str, str] | None,
) -> Options:
    """The options of a module made without a call at hand. Raises ArgumentError for what no call could have."""
    dim_v = head_dim if value_dim is None else value_dim
    if head_dim < 1 or dim_v < 1:
        raise ArgumentError(f"the dimensions of query and value are at least 1, not {head_dim} and {dim_v}")
    known = {i.name for i in spec.inputs} | {t.name for t in spec.tables}
    for name in input_dtypes or {}:
        if name not in known:
            raise ArgumentError(f"'{spec.name}' has no input '{name}' to have an element type")
    return Options(target, parse_dtype(dtype), head_dim, dim_v, tuple(sorted((input_dtypes or {}).items())))


def module_key(lowered: Spec, options: Options) -> str:
    """The cache key of a module: everything its text depends on, the compiler's own sources included."""
    return key_of(spec_key(lowered), repr(options), fingerprint())


@functools.cache
def fingerprint() -> str:
    """A hash of the sources that decide a module's text, so that a changed compiler misses the cache."""
    digest = hashlib.sha256()
    for room in ("ir", "passes", "analysis", "codegen", "codegen/triton"):
        for file in sorted(resources.files("attncc").joinpath(room).iterdir(), key=lambda f: f.name):
            if file.name.endswith(".py"):
                digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def parse_target(text: str) -> Target:
    """`cuda:90` or `hip:gfx942` as a Target. Raises ArgumentError."""
    backend, _, arch = text.partition(":")
    if text in SHARED_MEMORY_LIMIT:
        return Target("cuda" if backend == "cuda" else "hip", arch)
    hint = did_you_mean(text, SHARED_MEMORY_LIMIT)
    known = ", ".join(SHARED_MEMORY_LIMIT)
    raise ArgumentError(f"there is no target '{text}': use one of {known}" + (f"; {hint}" if hint else ""))


def parse_dtype(text: str) -> Any:
    """An element type by its torch name or a usual short one. Raises ArgumentError."""
    name = _SHORT_DTYPES.get(text, text)
    if name not in DTYPES:
        raise ArgumentError(f"there is no kernel for dtype '{text}': use one of bf16, fp16, fp32")
    return name


def _plan(lowered: Spec, options: Options) -> LoopPlan:
    return plan_loops(lowered, wide=options.wide, input_dtypes=dict(options.input_dtypes))


def _entry(lowered: Spec, options: Options) -> dict[str, str]:
    """What `attncc cache list` shows of a module."""
    return {"name": lowered.name, "target": str(options.target), "dtype": options.dtype}


def _compile_with(lowered: Spec, plan: LoopPlan, options: Options, cache: Cache) -> Artifact:
    text = generate(lowered, plan, options)
    key = module_key(lowered, options)
    path = cache.put(key, text, _entry(lowered, options))
    module = load_module(path, f"attncc_{lowered.name}_{key[:16]}", text)
    layout, fusion = describe(lowered, plan, options)
    kernels = compile_kernels(module, layout, fusion, options.target)
    return Artifact(text, kernels, _manifest(lowered, options, kernels))


def _manifest(lowered: Spec, options: Options, kernels: tuple[CompiledKernel, ...]) -> dict[str, Any]:
    return {
        "name": lowered.name,
        "spec": spec_key(lowered),
        "target": str(options.target),
        "dtype": options.dtype,
        "head_dim": options.dim,
        "value_dim": options.dim_v,
        "input_dtypes": dict(options.input_dtypes),
        "schedule": asdict(options.schedule) if options.schedule else None,
        "versions": {name: _version(name) for name in ("attncc", "triton", "torch")},
        "kernels": [
            {
                "name": k.name,
                "file": k.file_name,
                "registers": k.registers,
                "spilled": k.spilled,
                "shared_memory": k.shared_memory,
                "num_warps": k.num_warps,
                "num_stages": k.num_stages,
            }
            for k in kernels
        ],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
