"""What an expression may read, by the place where it stands, and what a given one reads."""

from __future__ import annotations

from dataclasses import dataclass

from attncc.grammar.builtins import POSITIONS, TRANSCENDENTAL
from attncc.ir.expr import (
    Call,
    Coord,
    Expr,
    Listed,
    Load,
    Param,
    RowCount,
    RowSum,
    Score,
    Size,
    Sort,
    children,
    postorder,
)

ROW_POSITIONS = frozenset(("b", "h", "h_kv", "row"))


@dataclass(frozen=True, slots=True)
class Place:
    """What may be read somewhere. `positions` None allows all, grid coordinates too."""

    name: str
    score: bool = False
    totals: bool = False
    positions: frozenset[str] | None = None
    loads: bool = True
    tables: bool = False
    run_time: bool = True
    query_blocks: bool = False


MASK = Place("a mask", tables=True)
SCORE = Place("a score", score=True)
LET = Place("a let", score=True, tables=True)
NUMERATOR = Place("the numerator of weights", score=True)
DENOMINATOR = Place("the denominator of weights", totals=True, positions=ROW_POSITIONS | {"q"})
SINK = Place("a sink", positions=ROW_POSITIONS)
REWEIGHT = Place("a factor of reweight")
SCALE = Place("the scale", positions=frozenset(), loads=False)
REQUIRE = Place("a requirement", positions=frozenset(), loads=False)
EXTENT = Place("an extent", positions=frozenset(), loads=False)
TABLE_EXTENT = Place("an extent of a table", positions=frozenset(), loads=False, query_blocks=True)
BOUND = Place("a bound of an input", positions=frozenset(), loads=False)
CONSTANT = Place("a constant", positions=frozenset(), loads=False, run_time=False)


@dataclass(frozen=True, slots=True)
class Reads:
    """What an expression reads, and how deep it is."""

    positions: frozenset[str] = frozenset()
    score: bool = False
    totals: bool = False
    loads: bool = False
    tables: frozenset[str] = frozenset()
    run_time: bool = False
    transcendental: bool = False  # as a float: a comparison or an index hides it
    depth: int = 1


class ReadsOf:
    """`Reads` by expression, each node visited once however often it is asked about."""

    def __init__(self) -> None:
        self._known: dict[Expr, Reads] = {}

    def __call__(self, expr: Expr) -> Reads:
        """What `expr` reads."""
        if expr not in self._known:
            below = children(expr)
            unknown = [c for c in below if c not in self._known]
            for node in postorder(*unknown):
                self._known.setdefault(node, self._of(node))
            self._known[expr] = self._of(expr)
        return self._known[expr]

    def _of(self, node: Expr) -> Reads:
        match node:
            case Coord(name=name):
                return Reads(positions=frozenset((name,)), run_time=True)
            case Score():
                return Reads(score=True, run_time=True)
            case RowSum() | RowCount():
                return Reads(totals=True, run_time=True)
            case Listed(table=table):
                return Reads(tables=frozenset((table,)), run_time=True)
            case Size():
                return Reads(run_time=True)
            case Param():
                return Reads()
            case Load() | Call():
                return self._of_parent(node)
            case _:
                return Reads()

    def _of_parent(self, node: Load | Call) -> Reads:
        below = [self._known[c] for c in children(node)]
        transcendental = isinstance(node, Call) and (node.op in TRANSCENDENTAL or any(r.transcendental for r in below))
        return Reads(
            frozenset().union(*(r.positions for r in below)),
            any(r.score for r in below),
            any(r.totals for r in below),
            isinstance(node, Load) or any(r.loads for r in below),
            frozenset().union(*(r.tables for r in below)),
            isinstance(node, Load) or any(r.run_time for r in below),
            transcendental and node.sort is Sort.FLOAT,
            1 + max((r.depth for r in below), default=0),
        )


def objection(reads: Reads, place: Place) -> str | None:
    """Why what is read may not be read there, as the end of a sentence; None where it may."""
    if reads.score and not place.score:
        return f"reads the score 's', which {place.name} cannot"
    if reads.totals and not place.totals:
        return f"reads 'total' or 'count', which {place.name} cannot"
    if reads.tables and not place.tables:
        return f"reads the table '{min(reads.tables)}', which {place.name} cannot"
    if reads.loads and not place.loads:
        return f"reads an input, which {place.name} cannot"
    if place.positions is not None and reads.positions - place.positions:
        name = sorted(reads.positions - place.positions, key=lambda p: (p not in POSITIONS, p))[0]
        return f"reads the position '{name}', which {place.name} cannot"
    return None
