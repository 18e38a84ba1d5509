"""`use`: defs from other files, through a loader that knows no disk, and through the disk."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from attncc.errors import SpecError
from attncc.grammar.frontend import Loaded, load_specs, loads_specs
from attncc.source import Source


def loader(files: dict[str, str]) -> Callable[[str], Source]:
    def load(path: str) -> Source:
        if path not in files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return Source(path, files[path])

    return load


def loads(text: str, **files: str) -> Loaded:
    return loads_specs(text, "main.attn", loader({name.replace("__", "/") + ".attn": t for name, t in files.items()}))


def test_defs_of_a_used_file_and_of_what_it_uses() -> None:
    one = loads(
        'use "lib.attn"\nattention a\n  mask band(3) and near(q, k)',
        lib='use "more/deep.attn"\ndef band(w) = near(q, k, w)',
        more__deep="def near(i, j, w=2) = abs(i - j) < w\nattention not_taken\n  mask q > k",
    )
    other = loads("attention a\n  mask abs(q - k) < 3 and abs(q - k) < 2")
    assert list(one.specs) == ["a"]
    assert one.specs["a"] == other.specs["a"]


def test_a_file_used_twice_is_read_once() -> None:
    text = 'use "left.attn" use "right.attn"\nattention a\n  mask l() and r()'
    left, right = 'use "base.attn"\ndef l() = near(q)', 'use "base.attn"\ndef r() = near(k)'
    assert loads(text, left=left, right=right, base="def near(i) = i > 3").specs


REFUSED = [
    ("missing", 'use "no.attn"\nattention a\n  mask f(q)', {}, "main.attn:1:5: cannot read 'no.attn': no such file"),
    (
        "circle",
        'use "x.attn"\nattention a',
        {"x": 'use "y.attn"', "y": 'use "x.attn"'},
        "y.attn:1:5: files use each other in a circle",
    ),
    ("syntax", 'use "x.attn"\nattention a\n  mask f(q)', {"x": "def f(i) = i >"}, "x.attn:1:15: this 'def' ends"),
    ("body", 'use "x.attn"\nattention a\n  mask f(q)', {"x": "def f(i) = i > w"}, "x.attn:1:16: 'w' is no argument"),
    (
        "clash",
        'use "x.attn" use "y.attn"\nattention a',
        {"x": "def f(i) = i", "y": "def f(i) = i"},
        "main.attn:1:14: two of the files used define 'f'",
    ),
    (
        "own clash",
        'use "x.attn"\ndef f(i) = i\nattention a',
        {"x": "def f(i) = i"},
        "main.attn:2:5: 'f' is defined twice",
    ),
]


@pytest.mark.parametrize(("text", "files", "expected"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused_with_one_error_at_its_place(text: str, files: dict[str, str], expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(text, **files)
    (error,) = caught.value.diagnostics
    assert error.span is not None
    assert f"{error.span.location}: {error.message}".startswith(expected)


def test_paths_are_relative_to_the_file_that_uses(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "lib.attn").write_text('use "../base.attn"\ndef f(i) = g(i)')
    (tmp_path / "base.attn").write_text("def g(i) = i > 3")
    main = tmp_path / "main.attn"
    main.write_text('use "inner/lib.attn"\nattention a\n  mask f(q)')
    assert list(load_specs(main).specs) == ["a"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"attention a\n  mask q > \xff", "bad.attn:2:12"),
        (b"\xfe\xff\x00a", "bad.attn:1:1"),
        (b"attention a\x00", "bad.attn:1:12"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.attn"
    path.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        load_specs(path)
    assert message in str(caught.value)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "marked.attn"
    path.write_bytes(b"\xef\xbb\xbfattention a\r\n  mask q > k\r\n")
    assert list(load_specs(path).specs) == ["a"]


def test_using_a_file_that_is_no_text_is_a_diagnostic(tmp_path: Path) -> None:
    (tmp_path / "bad.attn").write_bytes(b"\xff")
    main = tmp_path / "main.attn"
    for used in ("bad.attn", ".", "/dev/null/x"):
        main.write_text(f'use "{used}"\nattention a')
        with pytest.raises(SpecError):
            load_specs(main)


def test_a_file_too_long_is_a_diagnostic() -> None:
    with pytest.raises(SpecError, match="a spec has at most"):
        loads_specs("attention a\n" + "#" * 1_000_001)
