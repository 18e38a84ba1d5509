"""Generates the host side of a module: records of what a kernel is given, and the functions that launch the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attncc.codegen.expressions import field_name, literal
from attncc.codegen.options import Launch, Options, Schedule
from attncc.codegen.triton.schedule import width_of
from attncc.codegen.triton.spec_leaves import keeps_apart, learnable_loads, pair_functions, row_expressions
from attncc.ir.expr import Const, Sort, to_const
from attncc.ir.spec import Ratio, Softmax, Spec

SIZES = ("batch", "heads", "kv_heads", "queries", "keys")


@dataclass(frozen=True, slots=True)
class HostLayout:
    """The fields of a module's `Values`, in order, and the arguments its host functions take by name.

    `sizes` beyond the five built-in ones (grid sizes, named extents), by field name.
    """

    spec: Spec
    options: Options
    sizes: tuple[str, ...]

    @property
    def values(self) -> tuple[tuple[str, str], ...]:
        """Each field of `Values` with what it is: "int", "float", "bool", "stride", or "pointer:NAME"."""
        fields = [(s, "int") for s in (*SIZES, *self.sizes)]
        if self.options.offset_per_batch:
            fields += [("q_offset", "pointer:q_offset"), ("q_offset_stride_0", "stride")]
        else:
            fields.append(("q_offset", "int"))
        fields += [(field_name(p.name), p.sort.value) for p in self.spec.params]
        for declared in self.spec.inputs:
            field = field_name(declared.name)
            fields.append((field, f"pointer:{declared.name}"))
            fields += [(f"{field}_stride_{axis}", "stride") for axis in range(len(declared.extents))]
        return tuple(fields)

    @property
    def learnable(self) -> tuple[str, ...]:
        """Fields of `Grads`: the learnable inputs."""
        return tuple(field_name(i.name) for i in self.spec.inputs if i.learnable)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Keyword arguments of the host functions beside scale and q_offset."""
        names = [*self.sizes, *(field_name(p.name) for p in self.spec.params)]
        return tuple(names + [field_name(i.name) for i in self.spec.inputs])


def records(layout: HostLayout) -> str:
    """The NamedTuples a kernel takes."""
    lines = [
        "class Matrix(NamedTuple):",
        '    """A tensor [batch, heads, rows, columns] whose columns lie side by side."""',
        "",
        "    pointer: Any",
        "    stride_b: Any",
        "    stride_h: Any",
        "    stride_row: Any",
        "",
        "",
        "class Values(NamedTuple):",
        '    """Sizes, params, and inputs with their strides, as the device functions read them."""',
        "",
        *(f"    {name}: Any" for name, _ in layout.values),
    ]
    lines += [
        "",
        "",
        "# Kernels take the fields one by one: in a tuple, Triton would compile anew for a length or param that is 1",
        "# or a multiple of 16.",
        'VALUES = list(map("values_{}".format, Values._fields))',
    ]
    if layout.learnable:
        lines += [
            "",
            "",
            "class Grads(NamedTuple):",
            '    """One float32 buffer for each learnable input."""',
            "",
            *(f"    {name}: Any" for name in layout.learnable),
        ]
    return "\n".join(lines)


def launch_constants(options: Options, schedule: Schedule) -> str:
    """The compile-time arguments of every kernel, as constants at the top of the module."""
    width, width_v = width_of(options.dim), width_of(options.dim_v)
    lines = [
        f"SHAPE = dict(DIM={options.dim}, DIM_V={options.dim_v}, WIDTH={width}, WIDTH_V={width_v})",
        f'PRECISION = "{_precision(options)}"',
    ]
    named = (("FORWARD", schedule.forward), ("DQUERY", schedule.dquery), ("DKEYVALUE", schedule.dkeyvalue))
    lines += [f"{name} = {_launch(launch)}" for name, launch in named]
    lines.append("ROWS = dict(BLOCK_Q=64)")
    return "\n".join(lines)


def host_functions(layout: HostLayout, fusion: bool) -> str:
    """`forward`, `backward` and `attention`, with what they share."""
    parts = [_pack(layout), _matrix(), _forward(layout, fusion), _backward(layout, fusion), _attention(layout)]
    return "\n\n\n".join(parts)


def learns(spec: Spec) -> tuple[bool, bool]:
    """Whether pairs, and whether rows (sinks, a denominator), add to the gradient of a learnable input."""
    return bool(pair_functions(spec).learnable), bool(learnable_loads(spec, row_expressions(spec)))


def _launch(launch: Launch) -> str:
    return (
        f"dict(BLOCK_Q={launch.block_q}, BLOCK_K={launch.block_k}, "
        f"num_warps={launch.num_warps}, num_stages={launch.num_stages})"
    )


def _precision(options: Options) -> str:
    if options.target.backend == "interpreter":
        return "widened" if options.dtype == "bfloat16" else "ieee"
    return options.precision


def _keywords(layout: HostLayout) -> str:
    return "".join(f", {name}" for name in layout.arguments)


def _pass_on(layout: HostLayout) -> str:
    return "".join(f", {name}={name}" for name in layout.arguments)


def _pack(layout: HostLayout) -> str:
    lines = [
        f"def _values(query, key, *, q_offset{_keywords(layout)}):",
        "    batch, heads, queries, _ = query.shape",
        "    return Values(",
        *(f"        {name}={name}," for name in ("batch", "heads")),
        "        kv_heads=key.shape[1],",
        "        queries=queries,",
        "        keys=key.shape[2],",
        *(f"        {name}={name}," for name in layout.sizes),
        "        q_offset=q_offset,",
    ]
    if layout.options.offset_per_batch:
        lines.append("        q_offset_stride_0=q_offset.stride(0),")
    for param in layout.spec.params:
        field = field_name(param.name)
        wrapped = f"int({field})" if param.sort is Sort.BOOL else field
        lines.append(f"        {field}={wrapped},")
    for declared in layout.spec.inputs:
        field = field_name(declared.name)
        # The device reads a bool as the byte it is stored in.
        lines.append(
            f"        {field}={field}.view(torch.uint8)," if declared.sort is Sort.BOOL else f"        {field}={field},"
        )
        axes = range(len(declared.extents))
        lines += [f"        {field}_stride_{axis}={field}.stride({axis})," for axis in axes]
    return "\n".join([*lines, "    )"])


def _matrix() -> str:
    return "\n".join(
        [
            "def _matrix(tensor):",
            "    return Matrix(tensor, tensor.stride(0), tensor.stride(1), tensor.stride(2))",
        ]
    )


def _options(fusion: bool) -> str:
    # A multiply-add rounds once where the language rounds twice; see the note where the module was generated.
    return "" if fusion else ", enable_fp_fusion=False"


def _state(spec: Spec) -> tuple[str, ...]:
    match spec.weights:
        case Softmax():
            return ("lse", "top", "mass")
        case Ratio(denominator=denominator):
            return () if denominator is None else ("total", "count")


def _forward(layout: HostLayout, fusion: bool) -> str:
    state = _state(layout.spec)
    state_tuple = f"({', '.join(state)}{',' if len(state) == 1 else ''})"
    is_softmax = isinstance(layout.spec.weights, Softmax)
    lines = [
        f"def forward(query, key, value, *, scale, q_offset=0{_keywords(layout)}):",
        '    """The attention of query [batch, heads, queries, dim] to key and value [batch, kv_heads, keys, …].',
        "",
        f"    Returns (out, state) with out [batch, heads, queries, dim_v] and state = {state_tuple},",
        "    each [batch, heads, queries]: what `backward` needs beside the tensors themselves.",
        '    """',
        f"    values = _values(query, key, q_offset=q_offset{_pass_on(layout)})",
        "    batch, heads, queries, _ = query.shape",
        "    out = query.new_empty(batch, heads, queries, value.shape[3])",
    ]
    for name in state:
        lines.append(f"    {name} = query.new_empty(batch, heads, queries, dtype=torch.float32)")
    outputs = list(state) if is_softmax else list(state) or ["None", "None"]
    normalized = "" if is_softmax else f"NORMALIZED={bool(state)}, "
    lines += [
        '    programs = triton.cdiv(queries, FORWARD["BLOCK_Q"]) * batch * heads',
        "    if programs:",
        "        forward_kernel[(programs,)](",
        "            _matrix(query), _matrix(key), _matrix(value), _matrix(out),",
        f"            {', '.join(outputs)}, scale, *values,",
        f"            {normalized}**SHAPE, **FORWARD, PRECISION=PRECISION{_options(fusion)},",
        "        )",
        f"    return out, {state_tuple}",
    ]
    return "\n".join(lines)


def _backward(layout: HostLayout, fusion: bool) -> str:
    state = _state(layout.spec)
    is_softmax = isinstance(layout.spec.weights, Softmax)
    lines = [
        "def backward(",
        f"    grad_out, grad_lse, query, key, value, out, state, *, scale, q_offset=0{_keywords(layout)}",
        "):",
        '    """Gradients from grad_out [batch, heads, queries, dim_v] and, where not None, grad_lse.',
        "",
        "    Returns (dquery, dkey, dvalue, gradients of the learnable inputs by name).",
        '    """',
        f"    values = _values(query, key, q_offset=q_offset{_pass_on(layout)})",
        "    batch, heads, queries, _ = query.shape",
        "    kv_heads, keys = key.shape[1:3]",
        "    if grad_out.stride(3) != 1:",
        "        grad_out = grad_out.contiguous()",
        *(
            f"    d{t} = torch.empty_like({t}, memory_format=torch.contiguous_format)"
            for t in ("query", "key", "value")
        ),
    ]
    if layout.learnable:
        zeros = ", ".join(
            f"{n}=torch.zeros({n}.shape, dtype=torch.float32, device=query.device)" for n in layout.learnable
        )
        lines.append(f"    grads = Grads({zeros})")
    else:
        lines.append("    grads = None")
    pair_learns, row_learns = learns(layout.spec)
    names = "norm, gain, shift" if is_softmax else "gain, shift"
    if state:
        lines.append(f"    {', '.join(state)}{',' if len(state) == 1 else ''} = state")
        lines += [
            f"    {names} = (torch.empty_like(state[0], dtype=torch.float32) for _ in range({names.count(',') + 1}))",
            '    programs = triton.cdiv(queries, ROWS["BLOCK_Q"]) * batch * heads',
            "    if programs:",
        ]
        if is_softmax:
            lines += [
                "        if grad_lse is not None:",
                "            grad_lse = grad_lse.float().contiguous()",
                "        softmax_rows_kernel[(programs,)](",
                "            _matrix(out), _matrix(grad_out), top, mass, grad_lse, norm, gain, shift, grads, *values,",
                f"            HAS_GRAD_LSE=grad_lse is not None, APART={keeps_apart(layout.options)},",
                f"            LEARNS={row_learns},",
            ]
        else:
            lines += [
                "        ratio_rows_kernel[(programs,)](",
                "            _matrix(out), _matrix(grad_out), total, count, gain, shift, grads, *values,",
                f"            LEARNS={row_learns},",
            ]
        lines += [
            f'            DIM_V=SHAPE["DIM_V"], WIDTH_V=SHAPE["WIDTH_V"], **ROWS{_options(fusion)},',
            "        )",
        ]
    else:
        # Without a denominator the rows' values are not used: ones and zeros in one shape keep the kernels the same.
        lines.append("    gain = query.new_ones(batch, heads, queries, dtype=torch.float32)")
        lines.append("    shift = torch.zeros_like(gain)")
    if not is_softmax:
        lines.append("    norm = gain  # weights other than softmax do not read it")
    common = "_matrix(query), _matrix(key), _matrix(value), _matrix(grad_out), norm, gain, shift"
    lines += [
        '    programs = triton.cdiv(queries, DQUERY["BLOCK_Q"]) * batch * heads',
        "    if programs:",
        "        dquery_kernel[(programs,)](",
        f"            {common}, _matrix(dquery), grads, scale, *values,",
        f"            LEARNS={pair_learns}, **SHAPE, **DQUERY, PRECISION=PRECISION{_options(fusion)},",
        "        )",
        '    programs = triton.cdiv(keys, DKEYVALUE["BLOCK_K"]) * batch * kv_heads',
        "    if programs:",
        "        dkeyvalue_kernel[(programs,)](",
        f"            {common}, _matrix(dkey), _matrix(dvalue), scale, *values,",
        f"            **SHAPE, **DKEYVALUE, PRECISION=PRECISION{_options(fusion)},",
        "        )",
    ]
    taught = [i.name for i in layout.spec.inputs if i.learnable]
    learned = ", ".join(f'"{name}": grads.{field_name(name)}' for name in taught)
    lines.append(f"    return dquery, dkey, dvalue, {{{learned}}}")
    return "\n".join(lines)


def _attention(layout: HostLayout) -> str:
    tensors = [field_name(i.name) for i in layout.spec.inputs]
    plain = [a for a in layout.arguments if a not in tensors]
    inputs = "".join(f", {name}" for name in tensors)
    gradients = [
        f'grads["{i.name}"].to({field_name(i.name)}.dtype)' if i.learnable else "None" for i in layout.spec.inputs
    ]
    settings = "".join(f", {name}={name}" for name in plain)
    unpack = f"        {', '.join(tensors)}{',' if len(tensors) == 1 else ''} = tensors" if tensors else None
    lines: Sequence[str | None] = [
        "class _Attention(torch.autograd.Function):",
        "    @staticmethod",
        f"    def forward(ctx, settings, query, key, value{inputs}):",
        f"        out, state = forward(query, key, value, **settings{''.join(f', {n}={n}' for n in tensors)})",
        "        ctx.settings, ctx.state_length = settings, len(state)",
        f"        ctx.save_for_backward(query, key, value, out, *state{inputs})",
        "        return out",
        "",
        "    @staticmethod",
        "    def backward(ctx, grad_out):",
        "        query, key, value, out, *rest = ctx.saved_tensors",
        "        state, tensors = rest[: ctx.state_length], rest[ctx.state_length :]",
        unpack,
        "        dquery, dkey, dvalue, grads = backward(",
        "            grad_out, None, query, key, value, out, state, **ctx.settings"
        f"{''.join(f', {n}={n}' for n in tensors)}",
        "        )",
        f"        return None, dquery, dkey, dvalue{''.join(f', {g}' for g in gradients)}",
        "",
        "",
        f"def attention(query, key, value, *, {_scale_argument(layout.spec)}, q_offset=0{_defaults(layout)}):",
        '    """Differentiable attention, for use of this module on its own. Arguments are not checked.',
        "",
        "    query [batch, heads, queries, dim], key and value [batch, kv_heads, keys, dim or dim_v].",
        "    scale multiplies the dot products; query row r stands at position q_offset + r.",
        '    """',
        "    scale = query.shape[3] ** -0.5 if scale is None else scale" if layout.spec.scale is None else None,
        f"    settings = dict(scale=scale, q_offset=q_offset{settings})",
        f"    return _Attention.apply(settings, query, key, value{inputs})",
    ]
    return "\n".join(line for line in lines if line is not None)


def _scale_argument(spec: Spec) -> str:
    if spec.scale is None:
        return "scale=None"
    return f"scale={literal(spec.scale)}" if isinstance(spec.scale, Const) else "scale"


def _defaults(layout: HostLayout) -> str:
    defaults = {field_name(p.name): p.default for p in layout.spec.params}
    known = {name: literal(to_const(value)) for name, value in defaults.items() if value is not None}
    return "".join(f", {name}={known[name]}" if name in known else f", {name}" for name in layout.arguments)
