"""The expressions of the IR: ten kinds of node, three sorts, structurally shared.

Nodes are interned: building the same node twice gives the same object. So `is`, `==` and `hash` agree and
cost nothing, a shared sub-expression exists once, and passes memoise on the node itself. Spans are not part
of a node; statements carry them (`attncc.ir.spec.Clause`).
"""

from __future__ import annotations

import enum
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from typing_extensions import Self

Scalar: TypeAlias = bool | int | float


class Sort(enum.Enum):
    """What an expression is: a coordinate (64-bit integer), a mask (bool) or a score (float)."""

    INT = "int"
    BOOL = "bool"
    FLOAT = "float"


class Expr:
    """Base of all nodes. Do not subclass outside this file: passes match on the closed set below."""

    __slots__ = ("__weakref__",)

    if TYPE_CHECKING:  # a field in some nodes, a property in others

        @property
        def sort(self) -> Sort:
            """What the expression is."""

    def __new__(cls, *args: Any) -> Self:
        """The one node with these fields."""
        # `repr` keeps True apart from 1, 0.0 from -0.0, and lets nan equal itself.
        key = (cls, *(repr(a) if isinstance(a, bool | int | float) else a for a in args))
        return cast(Self, _interned.setdefault(key, object.__new__(cls)))

    def __copy__(self) -> Expr:
        return self

    def __deepcopy__(self, memo: object) -> Expr:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]


_interned: weakref.WeakValueDictionary[tuple[Any, ...], Expr] = weakref.WeakValueDictionary()
_node = dataclass(frozen=True, slots=True, eq=False)


@_node
class Const(Expr):
    """A literal. `Const(True, BOOL)`, `Const(1, INT)` and `Const(1.0, FLOAT)` are three different nodes."""

    value: Scalar
    sort: Sort


@_node
class Size(Expr):
    """A length known at the call: `batch heads kv_heads queries keys dim`, a named extent, or `q.y` for `len(q.y)`."""

    name: str

    @property
    def sort(self) -> Sort:
        """Always int."""
        return Sort.INT


@_node
class Param(Expr):
    """A scalar of the spec by name: a `param` (run time), or a `const` until constants are bound."""

    name: str
    sort: Sort


@_node
class Coord(Expr):
    """A position: `b h h_kv q k row`, or a grid coordinate such as `q.y`, `k.x` (-1 off the grid)."""

    name: str

    @property
    def sort(self) -> Sort:
        """Always int."""
        return Sort.INT


@_node
class Score(Expr):
    """`s`: the score so far (in a `score` line) or the final score (in `weights`)."""

    @property
    def sort(self) -> Sort:
        """Always float."""
        return Sort.FLOAT


@_node
class RowSum(Expr):
    """`total`: the sum over the row's live keys of the numerator. Only in a `weights` denominator."""

    @property
    def sort(self) -> Sort:
        """Always float."""
        return Sort.FLOAT


@_node
class RowCount(Expr):
    """`count`: how many live keys the row has. Only in a `weights` denominator."""

    @property
    def sort(self) -> Sort:
        """Always int."""
        return Sort.INT


@_node
class Listed(Expr):
    """Whether the tile of this pair is listed in a `blocks` table."""

    table: str

    @property
    def sort(self) -> Sort:
        """Always bool."""
        return Sort.BOOL


@_node
class Load(Expr):
    """An element of an input. Total: out of range reads 0 (or false) and has no gradient."""

    input: str
    index: tuple[Expr, ...]
    sort: Sort


@_node
class Call(Expr):
    """An operation of `attncc.ir.intrinsics` by name. Build it with `intrinsics.call`, which types it."""

    op: str
    args: tuple[Expr, ...]
    sort: Sort


TRUE = Const(True, Sort.BOOL)
FALSE = Const(False, Sort.BOOL)


def to_const(value: Scalar) -> Const:
    """The literal of a Python scalar; its sort follows its type."""
    if isinstance(value, bool):
        return Const(value, Sort.BOOL)
    if isinstance(value, int):
        return Const(value, Sort.INT)
    return Const(float(value), Sort.FLOAT)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The nodes directly below."""
    match expr:
        case Load(index=index):
            return index
        case Call(args=args):
            return args
        case _:
            return ()


def with_children(expr: Expr, new: tuple[Expr, ...]) -> Expr:
    """The same node over other children."""
    match expr:
        case Load(input=name, sort=sort):
            return Load(name, new, sort)
        case Call(op=op, sort=sort):
            return Call(op, new, sort)
        case _:
            return expr


def postorder(*roots: Expr) -> Iterator[Expr]:
    """Every node reachable from the roots once, children before parents. Not recursive: depth is no limit."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        node, expanded = stack.pop()
        if node in seen:
            continue
        if expanded:
            seen.add(node)
            yield node
            continue
        stack.append((node, True))
        stack.extend((c, False) for c in reversed(children(node)) if c not in seen)


def rewrite(root: Expr, rule: Callable[[Expr], Expr | None]) -> Expr:
    """Applies `rule` bottom-up, once to every node after its children; None means unchanged."""
    done: dict[Expr, Expr] = {}
    for node in postorder(root):
        below = children(node)
        new = with_children(node, tuple(done[c] for c in below)) if below else node
        changed = rule(new)
        done[node] = new if changed is None else changed
    return done[root]


def substitute(root: Expr, replacements: Mapping[Expr, Expr]) -> Expr:
    """`root` with whole nodes replaced; what is put in is not itself searched again."""
    if not replacements:
        return root
    done: dict[Expr, Expr] = {}
    for node in postorder(root):
        if node in replacements:
            done[node] = replacements[node]
            continue
        below = children(node)
        done[node] = with_children(node, tuple(done[c] for c in below)) if below else node
    return done[root]


def contains(root: Expr, kinds: type[Expr] | tuple[type[Expr], ...]) -> bool:
    """Whether a node of one of these kinds is reachable."""
    return any(isinstance(n, kinds) for n in postorder(root))


def coordinates(roots: Iterable[Expr]) -> frozenset[str]:
    """The names of all coordinates the expressions read, through load indices too."""
    return frozenset(n.name for n in postorder(*roots) if isinstance(n, Coord))


def depth(root: Expr) -> int:
    """The longest chain of nodes from the root, itself included."""
    below: dict[Expr, int] = {}
    for node in postorder(root):
        below[node] = 1 + max((below[c] for c in children(node)), default=0)
    return below[root]
