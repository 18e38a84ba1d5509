"""The shape of the house: imports run one way, third parties have a home, text is never evaluated."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "attncc").rglob("*.py"))

# source → errors → ir → grammar | passes → analysis → codegen → runtime → compiler → api → cli
STOREYS = [
    {"source"},
    {"errors"},
    {"ir"},
    {"grammar", "passes"},
    {"analysis"},
    {"codegen"},
    {"runtime"},
    {"compiler"},
    {"api"},
    {"cli"},
    {"__main__"},
]
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}

HOMES = {
    "click": ["cli/*"],
    "filelock": ["runtime/cache.py"],
    "lark": ["grammar/parser.py", "grammar/tables.py"],
    "matplotlib": ["cli/plot.py"],
    "numpy": ["ir/meaning.py", "passes/simplify.py", "analysis/*", "runtime/*", "cli/plot.py"],
    "platformdirs": ["runtime/cache.py"],
    "rich": ["cli/console.py"],
    "sympy": ["analysis/bounds.py"],
    "torch": ["grammar/flex*.py", "grammar/torch_functions.py", "codegen/triton/*", "runtime/*", "api.py", "cli/*"],
    "triton": ["codegen/triton/*", "runtime/*"],
    "typing_extensions": ["*"],
}
EVALUATING = {"eval", "exec", "compile", "__import__"}
UNTRUSTED = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy", "code"}


def name(path: Path) -> str:
    return path.relative_to(ROOT / "attncc").as_posix()


def room(path: Path) -> str:
    return path.relative_to(ROOT / "attncc").with_suffix("").parts[0]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: imports are absolute"
            assert node.module is not None
            if node.module == "attncc":
                yield from ((node.lineno, f"attncc.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def of_package() -> list[Path]:
    # attncc/__init__.py is the front door: it names what is behind it and loads nothing before it is used.
    return [path for path in FILES if name(path) != "__init__.py"]


def test_every_room_has_a_storey() -> None:
    assert {room(path) for path in of_package()} <= set(STOREY)


def test_imports_run_one_way() -> None:
    wrong = []
    for path in of_package():
        for line, imported in imports(path):
            parts = imported.split(".")
            if parts[0] != "attncc" or parts[1] == "__version__":
                continue
            mine, theirs = room(path), parts[1]
            if STOREY[theirs] > STOREY[mine] or (STOREY[theirs] == STOREY[mine] and theirs != mine):
                wrong.append(f"{name(path)}:{line} imports {imported}")
    assert wrong == []


def test_third_parties_have_a_home() -> None:
    wrong = []
    for path in FILES:
        for line, imported in imports(path):
            package = imported.split(".")[0]
            if package in sys.stdlib_module_names | {"attncc"}:
                continue
            if not any(fnmatch(name(path), home) for home in HOMES.get(package, [])):
                wrong.append(f"{name(path)}:{line} imports {imported}")
    assert wrong == []


def test_nothing_evaluates_text_or_unpickles() -> None:
    wrong = []
    for path in FILES:
        parsed = tree(path)
        # The one function of ours by the name of a builtin.
        ours = {
            alias.name
            for node in ast.walk(parsed)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("attncc")
            for alias in node.names
        }
        for node in ast.walk(parsed):
            match node:
                case ast.Call(func=ast.Name(id=called)) if called in EVALUATING - ours:
                    wrong.append(f"{name(path)}:{node.lineno} calls {called}")
                case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load" | "compile")):
                    wrong.append(f"{name(path)}:{node.lineno} calls torch.{node.func.attr}")
                case ast.Name(id="eval" | "exec" | "__import__"):
                    wrong.append(f"{name(path)}:{node.lineno} names {node.id}")
        wrong += [f"{name(path)}:{n} imports {i}" for n, i in imports(path) if i.split(".")[0] in UNTRUSTED]
    assert wrong == []


def test_the_environment_is_read_by_api_and_cli_alone() -> None:
    wrong = []
    for path in FILES:
        if room(path) in ("api", "cli"):
            continue
        for node in ast.walk(tree(path)):
            match node:
                case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv" | "putenv"):
                    wrong.append(f"{name(path)}:{node.lineno} reads os.{node.attr}")
                case ast.ImportFrom(module="os", names=names) if {a.name for a in names} & {"environ", "getenv"}:
                    wrong.append(f"{name(path)}:{node.lineno} imports from os")
    assert wrong == []


def test_nothing_is_called_utils() -> None:
    assert [name(p) for p in FILES if p.stem in ("util", "utils", "helper", "helpers", "common", "misc")] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_says_its_job_in_its_first_line(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        return
    said = ast.get_docstring(tree(path))
    assert said is not None
    assert text.startswith('"""')


def test_what_the_package_needs_besides_python_is_packaged() -> None:
    patterns = next(
        line.partition("=")[2]
        for line in (ROOT / "pyproject.toml").read_text().splitlines()
        if line.startswith('"*" =')
    )
    others = [
        p for p in (ROOT / "attncc").rglob("*") if p.is_file() and p.suffix != ".py" and p.parent.name != "__pycache__"
    ]
    assert [p.name for p in others if not any(fnmatch(p.name, pattern) for pattern in json.loads(patterns))] == []
