"""`attncc check`, the help of every command, and what the exit codes say."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from attncc.cli.main import COMMANDS, exit_code
from attncc.errors import (
    ArgumentError,
    AttnccError,
    BackendError,
    CacheError,
    Diagnostic,
    SpecError,
    UnsupportedError,
)

ROOT = Path(__file__).parents[2]
GOOD = "attention a\n  mask k <= q\n"
BAD = "attention a\n  mask k <= window\n"


def test_what_is_right_is_said_to_be(attncc: Callable, examples: Path) -> None:
    path = examples / "longformer.attn"
    said = attncc("check", path)
    assert (said.code, said.out, said.err) == (0, f"ok  {path}: longformer\n", "")
    assert attncc("check", "--quiet", path).out == ""


def test_every_example_is_right(attncc: Callable, examples: Path) -> None:
    files = sorted(examples.glob("*.attn"))
    said = attncc("check", *files)
    assert said.code == 0
    assert said.out.count("ok  ") == len(files)


def test_a_mistake_is_shown_where_it_is_and_the_other_files_are_checked(attncc: Callable, tmp_path: Path) -> None:
    (tmp_path / "bad.attn").write_text(BAD)
    (tmp_path / "good.attn").write_text(GOOD)
    said = attncc("check", "bad.attn", "good.attn")
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert "bad.attn:2:13\n" in said.err
    assert "\x1b" not in said.err
    assert said.out == "ok  good.attn: a\n"


@pytest.mark.parametrize(("files", "code"), [(("good", "nowhere"), 2), (("bad", "nowhere"), 2), (("bad",), 1)])
def test_the_worst_counts(attncc: Callable, tmp_path: Path, files: tuple[str, ...], code: int) -> None:
    (tmp_path / "bad").write_text(BAD)
    (tmp_path / "good").write_text(GOOD)
    assert attncc("check", *files).code == code


def test_a_file_that_is_not_there(attncc: Callable) -> None:
    said = attncc("check", "nowhere.attn")
    assert (said.code, said.err) == (2, "error: nowhere.attn: No such file or directory\n")


def test_standard_input(attncc: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(BAD.encode())))
    said = attncc("check", "-")
    assert said.code == 1
    assert "<stdin>:2:13" in said.err


def test_a_command_that_is_not_there_is_guessed(attncc: Callable) -> None:
    said = attncc("chek")
    assert said.code == 2
    assert "there is no command 'chek'; did you mean 'check'?" in said.err


@pytest.mark.parametrize("arguments", [[], ["check"], ["check", "--nonsense", "f"], ["show", "f", "--after", "x"]])
def test_a_wrong_command_line(attncc: Callable, arguments: list[str]) -> None:
    assert attncc(*arguments).code == 2


def test_help_lists_every_command_and_code(attncc: Callable) -> None:
    said = attncc("--help")
    assert said.code == 0
    assert all(f"  {name} " in said.out for name in COMMANDS)
    assert all(f"  {code}  " in said.out for code in (0, 1, 2, 3, 4))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(attncc: Callable, name: str) -> None:
    said = attncc(name, "--help")
    assert said.code == 0
    assert f"For example:\n    attncc {name}" in said.out


def test_every_file_of_a_command_is_a_command() -> None:
    commands = {p.stem for p in (ROOT / "attncc" / "cli").glob("*.py") if "def command(" in p.read_text()}
    assert commands == set(COMMANDS)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError([Diagnostic("wrong")]), 1),
        (ArgumentError("does not fit"), 2),
        (UnsupportedError([Diagnostic("not yet")]), 3),
        (BackendError("no device"), 3),
        (CacheError("unsafe"), 3),
    ],
)
def test_exit_codes(error: AttnccError, code: int) -> None:
    assert exit_code(error) == code


def test_a_mistake_of_ours_does_not_look_like_a_wrong_spec(attncc: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> None:
        raise ZeroDivisionError(path)

    monkeypatch.setattr("attncc.cli.check.load_specs", broken)
    said = attncc("check", "a.attn")
    assert said.code == 4
    assert "ZeroDivisionError: a.attn" in said.err
    assert said.err.endswith("error: this is a mistake in attncc itself; please report it with the lines above\n")


HEAVY = ("torch", "triton", "numpy", "sympy", "rich", "matplotlib", "filelock", "platformdirs")
CHECK = f"""
import sys
from attncc.cli.main import main
code = main(["check", {str(ROOT / "examples" / "longformer.attn")!r}])
print(code, *(name for name in {HEAVY!r} if name in sys.modules))
"""


def test_check_loads_nothing_heavy() -> None:
    run = subprocess.run([sys.executable, "-c", CHECK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "0"


def test_the_parser_uses_its_stored_tables() -> None:
    from attncc.grammar.tables import is_current

    assert is_current(), "attn.lark or lark has changed: run `make grammar`"


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m attncc show examples/t5_bias.attn --canonical | head -1; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "attncc-ir 1\n", "")
