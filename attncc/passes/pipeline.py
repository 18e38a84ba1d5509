"""The order of the passes, in one list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from attncc.ir.expr import Scalar
from attncc.ir.spec import Spec
from attncc.passes.constants import bind_constants
from attncc.passes.coords import lower_coords
from attncc.passes.simplify import simplify


@dataclass(frozen=True, slots=True)
class Lowering:
    """What a lowering is specialised on: values of constants, the head dimension where it is known, and how the
    queries' offset is given."""

    constants: Mapping[str, Scalar] = field(default_factory=dict)
    dim: int | None = None
    offset_per_batch: bool = False


PASSES: tuple[tuple[str, Callable[[Spec, Lowering], Spec]], ...] = (
    ("constants", lambda spec, lowering: bind_constants(spec, lowering.constants, dim=lowering.dim)),
    ("simplify", lambda spec, lowering: simplify(spec)),
    ("coords", lambda spec, lowering: lower_coords(spec, offset_per_batch=lowering.offset_per_batch)),
    ("lowered", lambda spec, lowering: simplify(spec)),
)
"""Each stage's name and pass, in order. `lowered` is the last: what plans and kernels are made from."""


def lower(
    spec: Spec,
    constants: Mapping[str, Scalar] | None = None,
    *,
    dim: int | None = None,
    offset_per_batch: bool = False,
    until: str | None = None,
) -> Spec:
    """The spec after every pass, or after the stage named `until`.

    Raises ArgumentError for constants that are not the spec's, ValueError for a stage that does not exist.
    """
    names = [name for name, _ in PASSES]
    if until is not None and until not in names:
        raise ValueError(f"no stage '{until}': the stages are {', '.join(names)}")
    lowering = Lowering(constants or {}, dim, offset_per_batch)
    for name, run in PASSES:
        spec = run(spec, lowering)
        if name == until:
            break
    return spec
