"""Random specs as text, each with the shape and the values of one call of it. A seed gives one case, always the same.

Scores stay within a few units and away from singularities, so that a miss of the error rule is a wrong kernel and not
an ill-conditioned spec. Masks and indices are drawn freely: they are exact, whatever they compute.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from kernel_cases import Shape
from poison import poisoned
from torch import Tensor

PLAIN_NAMES = ("w", "width", "bias", "doc", "seen", "slope", "table", "limit", "gain", "cap", "far", "near", "lo", "hi")
# What could collide with a word of Python, of Triton, of torch, or of the generated module itself.
ODD_NAMES = tuple(
    """
    type values index handle class lambda None True is async yield nonlocal _ __ _x _values __class__ __init__
    _fields w_ w_stride_0 bias_stride_1 keys_x queries_y keys_stride arg_w arg_type t0 t1 dot norm shift weight
    grads gradient torch triton tl state grad_out grad_lse lse dquery dkey dvalue programs first last ranges live
    Values Matrix Grads FORWARD DQUERY SHAPE PRECISION ROWS TILE LOG2E floor_div power logits numerator
    denominator learn settings ctx tensors rest Any NamedTuple forward backward dict float32 row_max row_sum
    divisor inverse common print pointer accumulator lane tile_ dtype shape stride self_ cls data new_empty
    num_warps num_stages grid_ warmup tuple_ score_ attention_ mro sinks DIM WIDTH BLOCK_Q LEARNS ds dout view
    super key_ranges mask_ causal window
    """.split()  # noqa: SIM905
)
SCALAR_POSITIONS = ("batch", "heads", "kv_heads", "queries", "keys", "dim")
AXES = {"batch": ("b",), "heads": ("h",), "kv_heads": ("h_kv",), "keys": ("k", "q"), "queries": ("row",)}
INT_DTYPES = (torch.int64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
FLOAT_DTYPES = (torch.float32, torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class RandomCase:
    """A spec and its call: `arguments()` makes the values, tensors poisoned."""

    seed: int
    text: str
    shape: Shape
    dtype: torch.dtype
    layout: str
    arguments: Callable[[], dict[str, Any]]
    has_lse: bool
    # Element types of the inputs, for compiling without tensors.
    input_dtypes: dict[str, str]


def random_case(seed: int) -> RandomCase:
    """The case of that seed."""
    return _Writer(seed).case()


@dataclass(frozen=True)
class _Input:
    """A declared input; `extents` as text with their lengths in this call."""

    name: str
    sort: str
    extents: tuple[tuple[str, int], ...]
    dtype: torch.dtype
    learnable: bool
    tells_extent: bool = False


@dataclass
class _Writer:
    """Draws one case. Expressions are made by sort, for a scope: the names that may stand there."""

    seed: int
    lets: dict[str, list[str]] = field(default_factory=lambda: {"int": [], "bool": [], "float": []})
    inputs: list[_Input] = field(default_factory=list)
    call: dict[str, Any] = field(default_factory=dict)
    in_mask: bool = False

    def case(self) -> RandomCase:
        """Declarations, masks, scores, weights, reweight, in an order that uses what stands before."""
        self.random = random.Random(self.seed)
        r = self.random
        names = r.sample(PLAIN_NAMES, 8) + r.sample(ODD_NAMES, 8)
        r.shuffle(names)
        self.names = iter(names)
        self.axes = r.choice([None, None, None, ("x",), ("y", "x"), ("z", "y", "x")])
        self.shape = self._shape()
        self.scalars: dict[str, list[str]] = {"int": [], "bool": [], "float": []}
        self.lengths = {
            "batch": self.shape.batch,
            "heads": self.shape.heads,
            "kv_heads": self.shape.kv_heads,
            "queries": self.shape.queries,
            "keys": self.shape.keys,
            "1": 1,
            "7": 7,
            "4": 4,
            "2*keys - 1": 2 * self.shape.keys - 1,
        }
        head = self._declarations()
        body: list[str] = []
        if r.random() < 0.3:
            body += self._let("int", "pair")
        self.in_mask = True
        body += [f"mask {self._mask()}" for _ in range(r.choice([0, 1, 1, 1, 2]))]
        self.in_mask = False
        if r.random() < 0.2:
            body += self._let("bool", "pair")
        scores = [f"score {self._score()}" for _ in range(r.choice([0, 1, 1, 2, 3]))]
        # What a score of -inf comes to in another need not be -inf, nor a number.
        body += sorted(scores, key=lambda line: line.endswith("-inf"))
        weights = self._weights()
        if weights:
            body.insert(r.randint(0, len(body)) if "let" not in " ".join(body) else len(body), weights)
        if r.random() < 0.3:
            body.append(f"reweight p * {self.float(2, 'pair')}")
        if r.random() < 0.15:
            body.append(f"scale {r.choice(['0.25', '1 / dim', '1 / sqrt(dim + 1)', '0.5 * heads / (heads + 3)'])}")
        softmax = not weights or weights.startswith("weights softmax")
        if softmax and r.random() < 0.2:
            body.append("output lse")
        self.inputs = [i for i in self.inputs if i.tells_extent or f"{i.name}[" in " ".join(body)]
        lines = [*head, *(self._input_line(i) for i in self.inputs), *body]
        return RandomCase(
            seed=self.seed,
            text="\n  ".join(["attention a", *lines]) + "\n",
            shape=self.shape,
            dtype=r.choice([torch.float32, torch.float32, torch.float16, torch.bfloat16]),
            layout=r.choice(["bhnd", "bnhd"]),
            arguments=self._arguments,
            has_lse=softmax,
            input_dtypes={i.name: str(i.dtype).removeprefix("torch.") for i in self.inputs},
        )

    def _shape(self) -> Shape:
        r = self.random
        heads, kv_heads = r.choice([(1, 1), (2, 1), (2, 2), (4, 2), (3, 3), (6, 2)])
        queries, keys = r.choice([(37, 37), (1, 1), (1, 41), (16, 16), (32, 64), (19, 45), (40, 23), (33, 17)])
        if self.axes:
            lengths = {1: [(17,), (30,)], 2: [(5, 7), (3, 9)], 3: [(2, 3, 5), (3, 2, 4)]}[len(self.axes)]
            grid = r.choice(lengths)
            before, after = r.choice([(0, 0), (2, 0), (1, 3)])
            keys = before + after
            count = 1
            for n in grid:
                count *= n
            keys += count
            queries = r.choice([keys, keys, max(1, keys - 9)])
            self.call["grid"] = grid
            self.call |= {"prefix_tokens": before} if before else {}
            self.call |= {"suffix_tokens": after} if after else {}
        dim, dim_v = r.choice([(16, 16), (16, 16), (17, 5), (3, 16), (24, 40), (8, 1)])
        offset = r.choice([0, 0, 0, keys - queries, -11, 25])
        batch = r.choice([1, 2, 2])
        if r.random() < 0.15:
            dtype = r.choice([torch.int64, torch.int32, torch.int16])
            self.call["q_offset"] = torch.tensor([r.randint(-9, 30) for _ in range(batch)], dtype=dtype)
        else:
            self.call["q_offset"] = offset
        return Shape(batch, heads, kv_heads, queries, keys, dim, dim_v)

    def _declarations(self) -> list[str]:
        r = self.random
        lines = []
        if self.axes:
            lines.append("grid " + ", ".join(self.axes))
        for _ in range(r.choice([0, 1, 1, 2, 3])):
            name, sort = next(self.names), r.choice(["int", "int", "float", "bool"])
            kind = r.choice(["const", "param", "param"])
            default, given = self._scalar(sort), self._scalar(sort)
            lines.append(f"{kind} {name}: {sort} = {_literal(default)}")
            if r.random() < 0.5 or (sort == "int" and kind == "const"):
                self.call[name] = given
            value = self.call.get(name, default)
            self.scalars[sort].append(name)
            if sort == "int" and min(value, default) > 0:
                self.lengths |= {name: value, f"2*{name} + 1": 2 * value + 1}
            if sort == "int" and r.random() < 0.3:
                lines.append(f'require {name} < {value + r.randint(1, 3)}, "too large"')
        if r.random() < 0.2:
            name = next(self.names)
            lines.append(f"extent {name}")
            length = r.randint(1, 9)
            self.lengths[name] = length
            self.scalars["int"].append(name)
            # Some input has to tell it.
            self.inputs.append(_Input(next(self.names), "int", ((name, length),), torch.int64, False, True))
        return lines

    def _scalar(self, sort: str) -> Any:
        r = self.random
        if sort == "bool":
            return r.random() < 0.5
        if sort == "int":
            return r.choice([r.randint(1, 12), r.randint(1, 12), r.randint(-9, -1), 0, r.choice([2**31 - 1, -(2**40)])])
        return r.choice([0.5, 1.25, -0.75, 2.0, 0.1, 1.0])

    def _let(self, sort: str, scope: str) -> list[str]:
        name = next(self.names)
        line = f"let {name} = {getattr(self, sort)(2, scope)}"
        self.lets[sort].append(name)
        return [line]

    # Masks

    def _mask(self) -> str:
        r = self.random
        usual = [
            "k <= q",
            "causal()",
            f"abs(q - k) <= {self._size()}",
            f"q - k < {self._size()} and k <= q",
            f"sliding({self._size()})",
            f"prefix({self._size()})",
            f"(q - k) % {r.randint(2, 5)} == {r.randint(0, 1)}",
            f"q // {r.randint(2, 9)} == k // {r.randint(2, 9)}",
        ]
        if self.axes:
            a = r.choice(self.axes)
            usual += [f"abs(q.{a} - k.{a}) <= 1 or not on_grid(k)", f"neighborhood(q.{a}, k.{a}, len({a}), 2)"]
        known = r.choice(usual)
        form = r.choice(["{0}", "{0}", "{0} and {1}", "({0}) or {1}", "{1}", "not ({1})"])
        return form.format(known, self.bool(r.choice([2, 3]), "pair") if "{1}" in form else "")

    def _size(self) -> str:
        return self.random.choice([str(self.random.randint(1, 20)), *self.scalars["int"][:1]])

    def bool(self, depth: int, scope: str) -> str:
        """A condition, in parentheses."""
        r = self.random
        below = depth - 1
        if depth <= 0:
            choices = [lambda: self._compare(0, scope), *[lambda n=n: n for n in self.scalars["bool"]]]
            choices += [lambda n=n: n for n in self.lets["bool"] if scope == "pair"]
            choices.append(lambda: self._load("bool", scope))
            return r.choice(choices)()
        return r.choice(
            [
                lambda: self._compare(below, scope),
                lambda: self._compare(below, scope),
                lambda: f"({self.bool(below, scope)} and {self.bool(below, scope)})",
                lambda: f"({self.bool(below, scope)} or {self.bool(below, scope)})",
                lambda: f"(not {self.bool(below, scope)})",
                lambda: f"({self.bool(0, scope)} {r.choice(['==', '!='])} {self.bool(below, scope)})",
                lambda: f"({self.bool(0, scope)} if {self.bool(below, scope)} else {self.bool(below, scope)})",
                lambda: f"({self.exact(below, scope)} {r.choice(['<', '<=', '>', '!='])} {self.exact(below, scope)})",
                lambda: self._load("bool", scope),
                lambda: r.choice(["true", "false", *self.scalars["bool"]]) if below else self.bool(below, scope),
            ]
        )()

    def _compare(self, depth: int, scope: str) -> str:
        r = self.random
        sign = r.choice(["<", "<=", ">", ">=", "==", "!="])
        if r.random() < 0.2:
            return f"({r.randint(-5, 3)} <= {self.int(depth, scope)} {r.choice(['<', '<='])} {self.int(0, scope)})"
        return f"({self.int(depth, scope)} {sign} {self.int(depth, scope)})"

    # Ints

    def int(self, depth: int, scope: str) -> str:
        """An int, in parentheses; never a constant zero or a scalar as a divisor that could be zero."""
        r = self.random
        below = depth - 1
        if depth <= 0:
            leaves = [str(r.randint(-3, 12)) if r.random() < 0.7 else r.choice(SCALAR_POSITIONS)]
            leaves += r.choice([self.scalars["int"], self.lets["int"] if scope == "pair" else []])
            positions = self._positions(scope)
            leaf = r.choice(positions if positions and r.random() < 0.65 else leaves)
            return f"({leaf})" if leaf.startswith("-") else leaf
        binary = r.choice(["+", "-", "*", "+", "-", "&", "|", "^"])
        shift = r.choice([str(r.randint(0, 6)), f"({self.int(0, scope)} % 9)", self.int(0, scope)])
        return r.choice(
            [
                lambda: f"({self.int(below, scope)} {binary} {self.int(below, scope)})",
                lambda: f"({self.int(below, scope)} {binary} {self.int(0, scope)})",
                lambda: f"({self.int(below, scope)} {r.choice(['//', '%'])} {self._divisor(scope)})",
                lambda: f"({self.int(below, scope)} {r.choice(['<<', '>>'])} {shift})",
                lambda: f"{r.choice(['min', 'max'])}({self.int(below, scope)}, {self.int(below, scope)})",
                lambda: f"{r.choice(['abs', 'sign', '-', '~'])}({self.int(below, scope)})",
                lambda: f"clamp({self.int(below, scope)}, {self.int(0, scope)}, {self.int(0, scope)})",
                lambda: f"({self.int(below, scope)} if {self.bool(below, scope)} else {self.int(0, scope)})",
                lambda: f"({self.int(0, scope)} ** {r.randint(0, 4)})",
                lambda: f"{r.choice(['floor', 'ceil'])}({self.exact(below, scope)})",
                lambda: self._load("int", scope),
            ]
        )()

    def _divisor(self, scope: str) -> str:
        r = self.random
        literal = r.choice(["2", "3", "5", "8", "(-3)", "7", f"(1 + heads * {r.randint(1, 2)})"])
        if scope == "scalar":
            return literal
        # Zero for some pairs: the quotient is then 0.
        return r.choice([literal, literal, f"({r.choice(self._positions(scope))} - {r.randint(0, 9)})"])

    def _positions(self, scope: str) -> Sequence[str]:
        grids = [f"{s}.{a}" for a in self.axes or () for s in "qk"] + [f"len({a})" for a in self.axes or ()]
        return {
            "scalar": (),
            "row": ("row", "h", "b", "h_kv"),
            "pair": ("q", "k", "q", "k", "row", "h", "b", "h_kv", *grids),
        }[scope]

    # Floats

    def exact(self, depth: int, scope: str) -> str:
        """A float that feeds a bool or an index: anything goes, infinities and nan included."""
        r = self.random
        below = depth - 1
        if depth <= 0:
            literal = r.choice(["0.3", "1.5", "2.0", "(-0.7)", "1e-3", "1e9", "inf"])
            leaves = [lambda: literal, lambda: f"({self.int(0, scope)} * 0.37)"]
            leaves += [lambda n=n: n for n in self.scalars["float"]]
            leaves.append(lambda: self._load("float", scope))
            return r.choice(leaves)()
        return r.choice(
            [
                lambda: f"({self.exact(below, scope)} {r.choice('+-*/')} {self.exact(below, scope)})",
                lambda: f"({self.int(below, scope)} / {self._divisor(scope)})",
                lambda: f"{r.choice(['abs', 'sqrt', 'sign', 'relu', '0.5 - '])}({self.exact(below, scope)})",
                lambda: f"{r.choice(['min', 'max'])}({self.exact(below, scope)}, {self.exact(below, scope)})",
                lambda: f"clamp({self.exact(below, scope)}, {self.exact(0, scope)}, {self.exact(0, scope)})",
                lambda: f"({self.exact(0, scope)} if {self.bool(below, scope)} else {self.exact(0, scope)})",
            ]
        )()

    def float(self, depth: int, scope: str, score: str | None = None) -> str:
        """A float of a few units whose derivative is of a few units; `score` is a name that may stand for one."""
        r = self.random
        below = depth - 1
        if depth <= 0:
            literal = r.choice(["0.5", "1.0", "(-0.3)", "1.25"])
            leaves = [lambda: literal, lambda: self._small(scope), lambda: self._load("float", scope)]
            leaves += [lambda n=n: n for n in self.scalars["float"]]
            leaves += [lambda: score] * 3 if score else []
            leaves += [lambda: self._load("float", scope, learnable=True)] * 2
            return r.choice(leaves)()

        def one() -> str:
            return self.float(below, scope, score)

        return r.choice(
            [
                lambda: f"({one()} {r.choice('+-')} {one()})",
                lambda: f"({one()} * {r.choice(['tanh', 'sigmoid', 'erf', 'sin', 'cos'])}({one()}))",
                lambda: f"{r.choice(['min', 'max'])}({one()}, {one()})",
                lambda: f"{r.choice(['abs', 'relu', 'tanh', 'sigmoid', 'erf', 'sin', 'cos'])}({one()})",
                lambda: f"(-{one()})",
                lambda: f"exp(min({one()}, 1))",
                lambda: f"log(1.5 + {one()} ** 2)",
                lambda: f"sqrt(0.5 + abs({one()}))",
                lambda: f"({one()} / (1 + abs({one()})))",
                lambda: f"((0.5 + sigmoid({one()})) ** clamp({one()}, -2, 2))",
                lambda: f"clamp({one()}, -1.5, {r.choice(['2', '1.0'])})",
                lambda: f"({one()} if {self.bool(below, scope)} else {one()})",
                lambda: f"(0.3 * sign({one()}) + {one()})",
            ]
        )()

    def _small(self, scope: str) -> str:
        r = self.random
        return r.choice(
            [
                f"(0.1 * clamp({self.int(1, scope)}, -9, 9))",
                f"(({self.int(1, scope)} % 5) / 4)",
                f"(0.2 * ({self.int(0, scope)} % 7))",
                f"sin(0.3 * clamp({self.int(1, scope)}, -40, 40))",
            ]
        )

    def _score(self) -> str:
        r = self.random
        form = r.choice(["s + {0}", "s + {0}", "{0}", "0.5 * s - {0}", "s if {1} else -inf", "softcap(2.0)"])
        free = self.float(r.choice([1, 2, 3]), "pair", "s") if "{0}" in form else ""
        return form.format(free, self.bool(1, "pair") if "{1}" in form else "")

    def _weights(self) -> str | None:
        r = self.random
        if r.random() < 0.45:
            return None
        if r.random() < 0.4:
            sinks = [self.float(r.choice([0, 1, 2]), "row") for _ in range(r.choice([1, 1, 2, 3]))]
            return f"weights softmax with {', '.join(sinks)}"
        usual = ["sigmoid(s)", "relu(s)", "s", "exp(min(s, 3))", "tanh(s) + 0.25"]
        numerator = r.choice(usual) if r.random() < 0.7 else self.float(2, "pair", "s")
        more = self.float(1, "row")
        denominator = r.choice(
            [
                None,
                "keys",
                "max(abs(total), 1)",
                "1 + abs(total) + count",
                "sqrt(1 + total * total)",
                "count",
                f"2 + abs(total) + abs({more})",
                f"(1 + count if count > {r.randint(0, 9)} else 3)",
            ]
        )
        return f"weights {numerator}" + (f" over {denominator}" if denominator else "")

    # Inputs

    def _load(self, sort: str, scope: str, learnable: bool = False) -> str:
        r = self.random
        learnable = learnable and not self.in_mask
        usable = [
            i for i in self.inputs if i.sort == sort and i.learnable == learnable and (i.extents or scope != "scalar")
        ]
        if not usable or (r.random() < 0.4 and len(self.inputs) < 4):
            declared = self._declare(sort, learnable)
            if declared is None:
                return {"int": "h", "bool": "(b == 0)", "float": "0.4"}[sort] if scope != "scalar" else "1"
            usable = [declared]
        read = r.choice(usable)
        index = [self._index(extent, scope) for extent, _ in read.extents]
        return f"{read.name}[{', '.join(index)}]" if index else read.name

    def _index(self, extent: str, scope: str) -> str:
        r = self.random
        natural = [n for n in AXES.get(extent, ()) if n in self._positions(scope)]
        if extent == "1":
            return "0"
        if natural and r.random() < 0.7:
            return r.choice(natural)
        if extent == "2*keys - 1" and scope == "pair" and r.random() < 0.7:
            return r.choice(["q - k + keys - 1", "k - q + keys - 1", "q - k"])
        if extent != "queries":
            return self.int(r.choice([0, 1, 2]), scope)
        # Positions count from q_offset, and are refused there, in a name for an expression too.
        kept, self.lets = self.lets, {"int": [], "bool": [], "float": []}
        text = self.int(r.choice([0, 1, 2]), scope)
        self.lets = kept
        return re.sub(r"\bq\b(?!\.)", "row", text)

    def _declare(self, sort: str, learnable: bool) -> _Input | None:
        r = self.random
        name = next(self.names, None)
        if name is None:
            return None
        usual = [(), ("heads",), ("keys",), ("queries",), ("batch",), ("batch", "keys"), ("batch", "queries")]
        usual += [("heads", "2*keys - 1"), ("batch", "heads", "queries", "keys"), ("heads", "queries", "keys")]
        short = [n for n, length in self.lengths.items() if length < 2000]
        drawn = tuple(r.choice(short) for _ in range(r.choice([1, 1, 2])))
        extents = r.choice([*usual, drawn, drawn, drawn])
        extents = extents or ("1",)
        dtypes = {"int": INT_DTYPES, "float": FLOAT_DTYPES, "bool": (torch.bool,)}[sort]
        declared = _Input(name, sort, tuple((e, self.lengths[e]) for e in extents), r.choice(dtypes), learnable)
        self.inputs.append(declared)
        return declared

    def _input_line(self, declared: _Input) -> str:
        extents = ", ".join(e for e, _ in declared.extents)
        return f"input {declared.name}: {declared.sort}[{extents}]" + " learnable" * declared.learnable

    def _arguments(self) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(self.seed)
        found = dict(self.call)
        for declared in self.inputs:
            found[declared.name] = poisoned(_draw(declared, generator).requires_grad_(declared.learnable))
        return found


def _draw(declared: _Input, generator: torch.Generator) -> Tensor:
    shape = [length for _, length in declared.extents]
    if declared.sort == "bool":
        return torch.rand(shape, generator=generator) < 0.4
    if declared.sort == "int":
        low = 0 if declared.dtype == torch.uint8 else -4
        return torch.randint(low, 30, shape, generator=generator).to(declared.dtype)
    return (0.8 * torch.randn(shape, generator=generator)).to(declared.dtype)


def _literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
