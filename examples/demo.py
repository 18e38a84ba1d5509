"""`make demo`: checks, explains, compiles and verifies every example, draws its mask, then trains a small model.

Everything goes through the `attncc` command, as a reader would use it. Each step is a process of its own, since
Triton's interpreter, which verifies, and its compiler cannot share one. Exit code 1 if any step fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

EXAMPLES = Path(__file__).resolve().parent

# At 150 queries a window of 256 hides nothing: what is verified and drawn has windows that show.
VERIFIED_WITH = {
    "sliding_window": ["window=20"],
    "streaming_llm": ["window=20"],
    "longformer": ["window=20"],
    "learnable_sink": ["window=20"],
    "bigbird": ["block=16"],
}
DRAWN_WITH = {
    "sliding_window": ["window=96"],
    "streaming_llm": ["sinks=16", "window=96"],
    "longformer": ["window=48"],
    "bigbird": ["block=32"],
}

# A row of verify's table: tensor, error, allowed, verdict.
_VERIFIED = re.compile(r"(\S+) +(\d\.\d+e[+-]\d+) +(\d\.\d+e[+-]\d+) +(?:ok|missed|not finite.*) *$", re.MULTILINE)


@dataclass
class Step:
    """One command that was run: what it wrote, and whether it ended with exit code 0."""

    name: str
    command: Sequence[str]
    output: str = ""
    ok: bool = False


@dataclass
class Outcome:
    """Everything that was done with one example."""

    name: str
    seconds: float = 0.0
    steps: dict[str, Step] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    forward: dict[str, Any] = field(default_factory=dict)
    worst: float | None = None

    @property
    def failed(self) -> list[Step]:
        """The steps that ended with another exit code than 0."""
        return [step for step in self.steps.values() if not step.ok]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    examples = [p for p in sorted(EXAMPLES.glob("*.attn")) if not options.only or p.stem in options.only]
    if not examples:
        console.print(f"no example is called {' or '.join(options.only)}")
        return 1

    console.print(
        f"[bold]{len(examples)} attentions:[/] checked, explained, compiled for {options.target}, "
        f"verified against the dense oracle, drawn"
    )
    start = time.monotonic()
    outcomes = {}
    with ThreadPoolExecutor(options.jobs) as workers:
        for done in as_completed([workers.submit(_example, path, options) for path in examples]):
            outcome = done.result()
            outcomes[outcome.name] = outcome
            console.print(f"  {outcome.name:<16}{_verdict(outcome)}   {outcome.seconds:4.0f} s")
    console.print(_table([outcomes[path.stem] for path in examples], options.target))
    where = "the GPU" if _has_gpu() else "Triton's interpreter"
    console.print(
        "how, visited: what `explain` says of 4096 queries and keys in tiles of 128 x 128\n"
        "registers, spilled, shared: the forward kernel's, bf16, head dim 64\n"
        f"worst error: the largest of output, lse and gradients, as a part of what `verify` allows, on {where}\n"
        "  (it allows float32 gradients more than outputs: docs/decisions/error-rule-for-gradients.md)\n"
        f"{time.monotonic() - start:.0f} s\n",
        style="dim",
        soft_wrap=True,
    )

    trained = True
    if options.seconds > 0:
        console.print("[bold]A byte-level language model[/] on Python's standard library, through train_bytes.attn")
        sys.stdout.flush()  # what the training prints goes past our buffer
        train = [str(EXAMPLES / "train_bytes.py"), "--seconds", str(options.seconds), "--out", str(out)]
        trained = subprocess.run([sys.executable, "-u", *train], env=_environment(None), check=False).returncode == 0
        console.print()

    failed = [(outcome, step) for outcome in outcomes.values() for step in outcome.failed]
    for outcome, step in failed:
        console.print(f"[bold red]{outcome.name}: {step.name} failed[/]   attncc {' '.join(step.command)}")
        console.print(step.output.rstrip() + "\n", markup=False)
    _say_where(console, out, trained and options.seconds > 0)
    if failed or not trained:
        wrong = [f"{outcome.name} ({step.name})" for outcome, step in failed] + ([] if trained else ["train_bytes"])
        console.print(f"[bold red]failed:[/] {', '.join(wrong)}")
        return 1
    console.print("[bold green]everything worked[/]")
    return 0


def _example(path: Path, options: argparse.Namespace) -> Outcome:
    """Takes one example through every step. A spec that does not check goes no further."""
    start = time.monotonic()
    outcome = Outcome(path.stem)
    threads = max(1, (os.cpu_count() or 1) // options.jobs)

    def run(name: str, *command: str) -> Step:
        step = outcome.steps[name] = Step(name, command)
        ran = subprocess.run(
            [sys.executable, "-m", "attncc", *command],
            env=_environment(threads),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )
        step.output, step.ok = ran.stdout, ran.returncode == 0
        return step

    folder = options.out / "kernels"
    if run("check", "check", str(path)).ok:
        if (explained := run("explain", "explain", str(path), "--json")).ok:
            outcome.plan = json.loads(explained.output)
        compiled = run(
            "compile", "compile", str(path), "--target", options.target, "--head-dim", "64", "-o", str(folder)
        )
        if compiled.ok:
            outcome.forward = _forward_kernel(folder / path.stem / options.target.replace(":", "-") / "manifest.json")
        verified = run("verify", "verify", str(path), *_settings(VERIFIED_WITH, path.stem))
        outcome.worst = _worst(verified.output)
        run("plot", "plot", str(path), *_settings(DRAWN_WITH, path.stem), "-o", str(options.out / f"{path.stem}.png"))
    outcome.seconds = time.monotonic() - start
    return outcome


def _settings(table: dict[str, list[str]], name: str) -> Iterable[str]:
    return [word for setting in table.get(name, []) for word in ("--set", setting)]


def _forward_kernel(manifest: Path) -> dict[str, Any]:
    kernels = json.loads(manifest.read_text(encoding="utf-8"))["kernels"]
    found: dict[str, Any] = next(k for k in kernels if k["name"].startswith("forward"))
    return found


def _worst(output: str) -> float | None:
    """The largest error in a printed table of verify's, as a part of what is allowed; None where there is no table."""
    rows = [(float(error), float(allowed)) for _, error, allowed in _VERIFIED.findall(output)]
    return max(
        (error / allowed if allowed else (0.0 if error == 0 else float("inf")) for error, allowed in rows), default=None
    )


def _verdict(outcome: Outcome) -> str:
    if outcome.failed:
        return "[red]" + ", ".join(f"{step.name} failed" for step in outcome.failed) + "[/]"
    return "[green]✓[/]"


def _table(outcomes: Sequence[Outcome], target: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("attention")
    table.add_column("check", justify="center")
    table.add_column("how", style="dim")
    for column in ("visited", "of", f"registers {target}", "spilled", "shared KiB", "worst error"):
        table.add_column(column, justify="right")
    table.add_column("verify", justify="center")
    for outcome in outcomes:
        table.add_row(
            outcome.name,
            _mark(outcome, "check"),
            *(str(outcome.plan.get(part, "-")) for part in ("method", "tiles_visited", "tiles_total")),
            *(str(outcome.forward.get(part, "-")) for part in ("registers", "spilled")),
            f"{outcome.forward['shared_memory'] / 1024:.0f}" if outcome.forward else "-",
            "-" if outcome.worst is None else f"{outcome.worst:.2f}",
            _mark(outcome, "verify"),
        )
    return table


def _mark(outcome: Outcome, name: str) -> str:
    step = outcome.steps.get(name)
    return "-" if step is None else "[green]✓[/]" if step.ok else "[red]✗[/]"


def _say_where(console: Console, out: Path, trained: bool) -> None:
    lines = [
        ("masks with their tiles", out / "*.png"),
        ("generated modules, binaries, manifests", out / "kernels"),
        *([("loss curve", out / "train_bytes_loss.png"), ("sample", out / "sample.txt")] if trained else []),
    ]
    for what, where in lines:
        console.print(f"  {what:<40}{where}", soft_wrap=True)


def _environment(threads: int | None) -> dict[str, str]:
    """The surroundings of a step: the threads it may use, so that steps side by side do not fight over cores."""
    environment = dict(os.environ, PYTHONIOENCODING="utf-8")
    environment.pop("TRITON_INTERPRET", None)  # `verify` sets it for itself, `compile` cannot work under it
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for all that is made")
    parser.add_argument("--target", default="cuda:90", help="what kernels are compiled for (default: cuda:90)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to train; 0 to leave it out")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these examples")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="examples side by side")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
