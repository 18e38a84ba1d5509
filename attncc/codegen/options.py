"""Everything that specialises a generated module, as one frozen record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

DType = Literal["float16", "bfloat16", "float32"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a module is compiled for: `cuda:80`, `cuda:90`, `cuda:100`, `hip:gfx942`, or `interpreter`."""

    backend: Literal["cuda", "hip", "interpreter"]
    arch: str = ""

    def __str__(self) -> str:
        return f"{self.backend}:{self.arch}" if self.arch else self.backend


@dataclass(frozen=True, slots=True)
class Launch:
    """Tile and launch configuration of one kernel; block sizes are rows of query and of key."""

    block_q: int
    block_k: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """The launch configuration of each of the three heavy kernels."""

    forward: Launch
    dquery: Launch
    dkeyvalue: Launch


@dataclass(frozen=True, slots=True)
class Options:
    """What a generated module is specialised on, beside the lowered spec itself.

    `input_dtypes` gives each input's element type as torch names it ("float32", "int64", "bool").
    `wide` computes every int in 64 bits; without it, lengths below 2**28 and int params and
    offsets of magnitude at most 2**28 are assumed, which the launcher checks.
    `offset_per_batch`: `q_offset` is a tensor `int[batch]` rather than a scalar.
    `precision` is how float32 products are computed.
    """

    target: Target
    dtype: DType
    dim: int
    dim_v: int
    input_dtypes: tuple[tuple[str, str], ...] = ()
    offset_per_batch: bool = False
    wide: bool = False
    precision: Literal["ieee", "tf32x3", "tf32"] = "ieee"
    schedule: Schedule | None = field(default=None)
