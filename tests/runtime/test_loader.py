"""Generated text becomes a module: the validated text and no other, whole or not at all."""

from __future__ import annotations

import inspect
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attncc.errors import CacheError
from attncc.runtime.loader import load_module

TEXT = "def answer():\n    return 42\n"


def test_a_module_is_made_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(TEXT)
    module = load_module(path, "generated")
    assert module.answer() == 42
    assert (module.__name__, module.__file__) == ("generated", str(path))


def test_the_text_given_counts_not_the_file(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("raise SystemExit('the file was read')\n")
    module = load_module(path, "generated", TEXT)
    assert module.answer() == 42
    assert inspect.getsource(module.answer) == TEXT


def test_the_source_is_known_after_the_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(TEXT)
    module = load_module(path, "generated")
    path.unlink()
    assert inspect.getsource(module.answer) == TEXT


def test_two_texts_at_one_path_are_two_modules(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    first = load_module(path, "generated", TEXT)
    second = load_module(path, "generated", TEXT.replace("42", "43"))
    assert (first.answer(), second.answer()) == (42, 43)
    assert "43" in inspect.getsource(second.answer)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(TEXT)
    load_module(path, "generated_once")
    assert "generated_once" not in sys.modules
    assert [p.name for p in tmp_path.iterdir()] == ["module.py"]


def test_stale_bytecode_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(TEXT)
    cached = Path(tmp_path / "__pycache__" / f"module.{sys.implementation.cache_tag}.pyc")
    cached.parent.mkdir()
    cached.write_bytes(b"not bytecode")
    assert load_module(path, "generated").answer() == 42
    assert cached.read_bytes() == b"not bytecode"


@pytest.mark.parametrize(
    ("text", "error"),
    [("1 / 0\n", ZeroDivisionError), ("def\n", SyntaxError), ("import nowhere_to_be_found\n", ModuleNotFoundError)],
)
def test_a_module_that_fails_is_not_half_there(tmp_path: Path, text: str, error: type[Exception]) -> None:
    path = tmp_path / "module.py"
    path.write_text(text)
    with pytest.raises(error):
        load_module(path, "half")
    assert "half" not in sys.modules
    path.write_text(TEXT)
    assert load_module(path, "half").answer() == 42


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_a_cache_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "module.py"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CacheError, match=r"module\.py cannot be read"):
        load_module(path, "generated")


def test_threads_may_load_at_the_same_time(tmp_path: Path) -> None:
    def load(i: int) -> int:
        module = load_module(tmp_path / f"{i % 3}.py", f"m{i}", TEXT.replace("42", str(i % 3)))
        return int(module.answer())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(load, range(60))) == [i % 3 for i in range(60)]
