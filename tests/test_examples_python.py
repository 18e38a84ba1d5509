"""The example programs: Python says what the files say, and the language model learns."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from attncc.grammar.frontend import load_specs
from attncc.ir.printer import spec_key

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.attn"))


def imported(name: str) -> ModuleType:
    """An example program as a module, without running it."""
    described = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules[described.name] = module  # dataclasses look their module up
    described.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def python_api() -> ModuleType:
    return imported("python_api")


@pytest.fixture(scope="module")
def train_bytes() -> ModuleType:
    return imported("train_bytes")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_decorator_gives_the_spec_of_the_file(python_api: ModuleType, path: Path) -> None:
    in_python, in_text = python_api.DECORATED[path.stem].spec, load_specs(path).specs[path.stem]
    assert in_python == in_text
    assert spec_key(in_python) == spec_key(in_text)


def test_python_api_runs_and_agrees(python_api: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert python_api.main() == 0
    assert "DIFFERENT" not in capsys.readouterr().out


def tiny(train_bytes: ModuleType, **changes: object) -> object:
    sizes = {"dim": 32, "heads": 2, "layers": 1, "length": 48, "batch": 4, "warmup": 2, "sample_bytes": 5}
    return train_bytes.Settings(seconds=None, backend="oracle", **{**sizes, "steps": 12, **changes})


def test_training_lowers_the_loss_and_repeats(train_bytes: ModuleType) -> None:
    result = train_bytes.train(tiny(train_bytes, steps=24))
    assert len(result.losses) == 24
    # An untrained model gives each byte about log(256) nats; half a nat below that is far outside its noise.
    assert result.first_loss == pytest.approx(math.log(256), abs=0.5)
    assert result.fell
    assert result.last_loss < result.first_loss - 0.5
    assert result.losses[:12] != train_bytes.train(tiny(train_bytes, seed=1)).losses
    again = train_bytes.train(tiny(train_bytes, steps=24))
    assert (again.losses, again.sample, again.model_bits) == (result.losses, result.sample, result.model_bits)


def test_training_moves_the_slopes(train_bytes: ModuleType) -> None:
    result = train_bytes.train(tiny(train_bytes, steps=4))
    start = [2.0**-4, 2.0**-8]
    assert all(moved != pytest.approx(first, abs=1e-6) for moved, first in zip(result.slopes[0], start, strict=True))


def test_command_line_writes_picture_and_sample(
    train_bytes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny(train_bytes)
    monkeypatch.setattr(train_bytes, "Settings", lambda **given: dataclasses.replace(settings, **given))
    assert train_bytes.main(["--steps", "12", "--backend", "oracle", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "train_bytes_loss.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "sample.txt").read_text(encoding="utf-8").startswith("def ")
    assert "bits per byte" in capsys.readouterr().out


def test_a_loss_that_does_not_fall_is_a_failure(train_bytes: ModuleType) -> None:
    def fell(*losses: float) -> bool:
        return train_bytes.Result(losses, 0, 0.0, 0.0, 0.0, (), "").fell

    assert fell(3.0, 2.0, 1.0)
    assert not fell(1.0, 2.0, 3.0)
    assert not fell(2.0)
    assert not fell(2.0, math.nan)


def test_rows_are_excerpts_followed_by_their_own_next_byte(train_bytes: ModuleType) -> None:
    # In each file a byte is one more than the one before, and no two files share a byte.
    files = [bytes(range(start, start + size)) for start, size in ((0, 30), (100, 2), (150, 50))]
    rows = train_bytes.Corpus(files).rows(6, 40, torch.Generator().manual_seed(0))
    assert torch.equal(rows.targets, rows.bytes + 1)
    same_excerpt = rows.doc[:, 1:] == rows.doc[:, :-1]
    assert (rows.bytes[:, 1:] == rows.bytes[:, :-1] + 1)[same_excerpt].all()
    assert (rows.doc.diff() >= 0).all()
    assert (rows.doc[:, -1] > 0).any()


def test_other_excerpts_and_later_bytes_do_not_change_a_prediction(train_bytes: ModuleType) -> None:
    torch.manual_seed(0)
    model = train_bytes.ByteModel(tiny(train_bytes, layers=2))
    text, doc = torch.randint(0, 256, (1, 48)), (torch.arange(48) // 16)[None]
    changed = text.clone()
    changed[:, :16] = 0
    changed[:, 30:] = 1
    with torch.no_grad():
        before, after = model(text, doc), model(changed, doc)
    torch.testing.assert_close(before[:, 16:30], after[:, 16:30])
    assert not torch.allclose(before[:, 30:32], after[:, 30:32])


def test_demo_takes_an_example_through_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo = imported("demo")
    assert demo.main(["--only", "causal", "--seconds", "0", "--out", str(tmp_path)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("causal "))
    name, check, *_, registers, _, shared, worst, verify = row.split()
    assert (name, check, verify) == ("causal", "✓", "✓")
    assert 0 < float(worst) <= 1
    assert int(registers) > 0
    assert int(shared) > 0
    assert (tmp_path / "causal.png").exists()
    assert {p.suffix for p in (tmp_path / "kernels" / "causal" / "cuda-90").iterdir()} == {".py", ".cubin", ".json"}


def test_demo_fails_where_a_spec_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = imported("demo")
    (tmp_path / "wrong.attn").write_text("attention wrong\n  mask k <= quary\n")
    monkeypatch.setattr(demo, "EXAMPLES", tmp_path)
    assert demo.main(["--seconds", "0", "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().out
    assert "check failed" in shown
    assert "quary" in shown


@pytest.mark.parametrize(
    ("table", "worst"),
    [
        (" a  fp32  out  1.00e-06  4.00e-06  ok \n a  fp32  dkey  3.00e-06  4.00e-06  ok \n", 0.75),
        (" a  fp32  out  8.00e-06  4.00e-06  missed \n", 2.0),
        (" a  fp32  out  0.00e+00  0.00e+00  ok \n", 0.0),
        (" a  fp32  out  1.00e-09  0.00e+00  missed \n", math.inf),
        ("error: no device\n", None),
    ],
)
def test_demo_reads_the_worst_error(table: str, worst: float | None) -> None:
    assert imported("demo")._worst(table) == worst
