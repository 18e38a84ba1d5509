"""Puts a module together: records, the operations and leaves it uses, the skeletons' kernels, the host functions.

The text depends on the lowered spec, the plan and the options alone, so the same three give the same text.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Sequence

from attncc.analysis.facts import environment_of
from attncc.analysis.plan import LoopPlan
from attncc.analysis.ranges import Environment, interval_of, is_below, is_nonnegative, narrow
from attncc.codegen.expressions import Proofs, field_name, fuses_wrongly
from attncc.codegen.options import Options
from attncc.codegen.triton.host import SIZES, HostLayout, host_functions, launch_constants, records
from attncc.codegen.triton.range_leaves import range_leaves
from attncc.codegen.triton.schedule import choose_schedule
from attncc.codegen.triton.sources import definitions_of, functions_of
from attncc.codegen.triton.spec_leaves import LeafWriter, keeps_apart, pair_functions, row_expressions
from attncc.errors import Diagnostic, UnsupportedError
from attncc.ir.expr import Call, Expr, Listed, Load, Size, contains, coordinates, postorder
from attncc.ir.intrinsics import is_plain
from attncc.ir.printer import print_expr, spec_key
from attncc.ir.spec import Softmax, Spec


def generate(spec: Spec, plan: LoopPlan, options: Options) -> str:
    """The text of a Python module that computes a lowered spec, forward and backward, with torch and triton alone.

    Raises UnsupportedError for what this backend cannot do yet: block tables, and outputs other than `lse`.
    """
    _refuse_unsupported(spec)
    roots = _roots(spec, plan)
    proofs = _proofs(spec, options, roots)
    layout, fusion = describe(spec, plan, options)
    writer = LeafWriter(spec, options, proofs)
    is_softmax = isinstance(spec.weights, Softmax)
    leaves = [
        range_leaves(spec, plan.forward, "key", options, proofs),
        range_leaves(spec, plan.transposed, "row", options, proofs),
        writer.forward(),
        writer.backward(),
    ]
    kernels = [
        functions_of("forward_softmax.py" if is_softmax else "forward_ratio.py"),
        functions_of("backward_rows.py", (("softmax" if is_softmax else "ratio") + "_rows_kernel",)),
        functions_of("backward.py"),
    ]
    if not is_softmax and spec.weights.denominator is None:  # type: ignore[union-attr]
        del kernels[1]
    parts = [
        _header(spec, options),
        records(layout),
        launch_constants(options, choose_schedule(options, pair_operations(spec))),
        _units(options),
        *_operations("\n".join(leaves)),
        functions_of("tiles.py"),
        *leaves,
        *(_with_plain_values(k, layout) for k in kernels),
        host_functions(layout, fusion),
    ]
    return "\n\n\n".join(part for part in parts if part) + "\n"


def _with_plain_values(kernels: str, layout: HostLayout) -> str:
    """A skeleton's kernels with `values` taken field by field, each left unspecialised, and put together inside."""
    fields = [f"values_{name}" for name, _ in layout.values]
    parameters = textwrap.fill(", ".join(fields) + ",", 112, initial_indent="    ", subsequent_indent="    ")
    gathered = textwrap.fill(", ".join(fields) + ",", 112, initial_indent="        ", subsequent_indent="        ")
    assigned = f"    values = Values(\n{gathered}\n    )"
    done = []
    for function in kernels.split("\n\n\n"):
        head, docstring, body = function.split('"""', 2)
        if "\n    values,\n" in head:
            head = head.replace("@triton.jit", "@triton.jit(do_not_specialize=VALUES)")
            head = head.replace("\n    values,\n", f"\n{parameters}\n")
            body = f"\n{assigned}{body}"
        done.append('"""'.join((head, docstring, body)))
    return "\n\n\n".join(done)


def pair_operations(spec: Spec) -> int:
    """How many operations and loads each pair of a lowered spec costs beside the two products."""
    functions = pair_functions(spec)
    nodes = postorder(functions.mask, functions.composed, functions.factor)
    return sum(isinstance(n, Call | Load) and bool(coordinates((n,)) & {"row", "k"}) for n in nodes)


def describe(spec: Spec, plan: LoopPlan, options: Options) -> tuple[HostLayout, bool]:
    """What compiling the kernels needs to know of the module `generate` gives: the layout of its arguments, and whether
    multiply-adds may be fused."""
    roots = _roots(spec, plan)
    return HostLayout(spec, options, _sizes(roots, spec)), not fuses_wrongly(roots)


def _refuse_unsupported(spec: Spec) -> None:
    found: list[Diagnostic] = []
    hint = "use backend='oracle' for this spec"
    for table in spec.tables:
        found.append(Diagnostic(f"block table '{table.name}' cannot be compiled to Triton yet", table.span, hint=hint))
    if any(contains(c.expr, Listed) for c in spec.masks) and not found:
        found.append(Diagnostic("block tables cannot be compiled to Triton yet", spec.span, hint=hint))
    for output in spec.outputs:
        if output != "lse":
            message = f"output '{output}' cannot be computed by the Triton backend yet"
            found.append(Diagnostic(message, spec.span, hint=hint))
    if found:
        raise UnsupportedError(found)


def _roots(spec: Spec, plan: LoopPlan) -> tuple[Expr, ...]:
    """Everything a module computes on the device."""
    functions = pair_functions(spec)
    ends = [e for v in (plan.forward, plan.transposed) for s in v.segments for e in (s.start, s.stop)]
    extents = [e for declared in spec.inputs for e in declared.extents]
    return (functions.mask, functions.composed, functions.factor, *row_expressions(spec), *ends, *extents)


def _sizes(roots: Sequence[Expr], spec: Spec) -> tuple[str, ...]:
    """Sizes beyond the built-in ones, by field: all grid sizes of a grid spec, and every named extent."""
    names = list(spec.extents)
    if spec.grid is not None:
        names += [f"queries.{axis}" for axis in spec.grid.queries] + [f"keys.{axis}" for axis in spec.grid.keys]
        names += ["prefix_tokens", "suffix_tokens"]
    used = {n.name for n in postorder(*roots) if isinstance(n, Size)} - {*SIZES, *names, "tile"}
    if used:
        raise AssertionError(f"sizes nobody passes: {sorted(used)}")
    return tuple(field_name(name) for name in names)


def _proofs(spec: Spec, options: Options, roots: Sequence[Expr]) -> Proofs:
    """What printing may rely on. Declared facts are left out: nothing verifies them before a launch, and a wrong one
    must not become a wild load."""
    environment = environment_of(spec, wide=options.wide, input_dtypes=dict(options.input_dtypes), facts=False)
    return Proofs(
        narrow=frozenset() if options.wide else narrow(roots, environment),
        is_plain=functools.partial(_is_plain, environment),
        nonnegative=lambda expr: is_nonnegative(expr, environment),
        below=lambda index, extent: is_below(index, extent, environment),
    )


def _is_plain(environment: Environment, node: Call) -> bool:
    return is_plain(node.op, *(interval_of(a, environment) for a in node.args))


def _units(options: Options) -> str:
    apart = keeps_apart(options)
    return "\n".join(
        [
            "LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)",
            "LN2: tl.constexpr = tl.constexpr(0.6931471805599453)",
            f"# Logits are {'natural' if apart else 'in base 2'}: a difference of two times UNIT is one for exp2.",
            f"UNIT: tl.constexpr = tl.constexpr({1.4426950408889634 if apart else 1.0})",
            f"UNIT_TO_NATURAL: tl.constexpr = tl.constexpr({1.0 if apart else 0.6931471805599453})",
        ]
    )


def _header(spec: Spec, options: Options) -> str:
    return "\n".join(
        [
            f'"""Attention "{spec.name}", generated by attncc for {options.target}, {options.dtype}.',
            "",
            "Everything it needs is here: import it anywhere torch and triton are and call `attention`. It computes",
            "",
            *_statements(spec),
            "",
            f"spec {spec_key(spec)[:16]}, head dimension {options.dim}, value dimension {options.dim_v}",
            '"""',
            "",
            "from typing import Any, NamedTuple",
            "",
            "import torch",
            "import triton",
            "import triton.language as tl",
        ]
    )


def _statements(spec: Spec) -> list[str]:
    lines = [f"    mask {print_expr(c.expr)}" for c in spec.masks]
    lines += [f"    score {print_expr(c.expr)}" for c in spec.scores]
    match spec.weights:
        case Softmax(sinks=sinks):
            tail = f" with {', '.join(print_expr(c.expr) for c in sinks)}" if sinks else ""
            lines.append(f"    weights softmax{tail}")
        case ratio:
            tail = f" over {print_expr(ratio.denominator.expr)}" if ratio.denominator else ""
            lines.append(f"    weights {print_expr(ratio.numerator.expr)}{tail}")
    if spec.reweight is not None:
        lines.append(f"    reweight p * ({print_expr(spec.reweight.expr)})")
    return [line.replace("\\", "/") for line in lines]


def _operations(text: str) -> list[str]:
    """The operations the leaves call, and those that they call in turn, in the order of their file."""
    defined = definitions_of("operations.py")
    wanted: set[str] = set()
    pending = [text]
    while pending:
        words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", pending.pop()))
        for name in (words & defined.keys()) - wanted:
            wanted.add(name)
            pending.append(ast.unparse(defined[name]))
    return [functions_of("operations.py", [name]) for name in defined if name in wanted]
