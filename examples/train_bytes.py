"""Trains a small byte-level language model on Python's own standard library, through a compiled attention.

Excerpts of several files are packed into each row; `train_bytes.attn` keeps them apart and tells positions by
ALiBi with learned slopes. Run `python examples/train_bytes.py --seconds 60`; it leaves the loss curve and the
sample in `--out`, and exits with 1 if the loss did not fall.
"""

from __future__ import annotations

import argparse
import math
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import attncc

VOCABULARY = 256
SPEC = Path(__file__).with_name("train_bytes.attn")


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on. It ends at `steps` or after `seconds`, whichever comes first."""

    steps: int | None = None
    seconds: float | None = 60.0
    backend: str = "auto"
    seed: int = 0
    dim: int = 128
    heads: int = 4
    layers: int = 3
    length: int = 128
    batch: int = 8
    learning_rate: float = 3e-3
    warmup: int = 20
    sample_bytes: int = 200


@dataclass(frozen=True)
class Result:
    """What came of a run. Losses are in nats, one for each step; `…_bits` are bits per byte on files not trained on."""

    losses: tuple[float, ...]
    parameters: int
    tokens_per_second: float
    model_bits: float
    unigram_bits: float
    slopes: tuple[tuple[float, ...], ...]
    sample: str

    @property
    def first_loss(self) -> float:
        """Mean of the first steps: at most five, at most a quarter of the run."""
        return _mean(self.losses[: max(1, min(5, len(self.losses) // 4))])

    @property
    def last_loss(self) -> float:
        """Mean of the last steps: at most twenty, at most a quarter of the run."""
        return _mean(self.losses[-max(1, min(20, len(self.losses) // 4)) :])

    @property
    def fell(self) -> bool:
        """Whether the loss went down; False where a loss is not a number."""
        return self.last_loss < self.first_loss


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, trains, prints and draws; returns the exit code."""
    options = _parser().parse_args(arguments)
    settings = Settings(steps=options.steps, seconds=options.seconds, backend=options.backend, seed=options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    print(f"training through {SPEC.name} on {device}, backend {settings.backend}, {_limit(settings)}")
    result = train(settings, device=device, report=print)

    options.out.mkdir(parents=True, exist_ok=True)
    picture = options.out / "train_bytes_loss.png"
    draw(result, picture)
    (options.out / "sample.txt").write_text(result.sample, encoding="utf-8")

    print(f"parameters       {result.parameters:,}")
    print(f"tokens/s         {result.tokens_per_second:,.0f}")
    print(f"loss             {result.first_loss:.3f} → {result.last_loss:.3f} nats over {len(result.losses)} steps")
    print(f"bits per byte    {result.model_bits:.3f} on unseen files; byte frequencies give {result.unigram_bits:.3f}")
    for layer, slopes in enumerate(result.slopes):
        print(f"slopes, layer {layer}  " + "  ".join(f"{slope:.4f}" for slope in slopes))
    print("sample           " + "\n                 ".join(result.sample.splitlines()))
    print(f"loss curve       {picture}")
    if not result.fell:
        print("the loss did not fall", file=sys.stderr)
        return 1
    return 0


def train(
    settings: Settings, *, device: torch.device | str = "cpu", report: Callable[[str], None] = lambda line: None
) -> Result:
    """Trains from scratch and evaluates. The same settings with `steps` alone give the same losses on one machine."""
    if settings.steps is None and settings.seconds is None:
        raise ValueError("a run needs steps, seconds or both")
    files = read_library()
    training = Corpus([f for i, f in enumerate(files) if i % 10 != 9])
    unseen = Corpus([f for i, f in enumerate(files) if i % 10 == 9])

    torch.manual_seed(settings.seed)
    draws = torch.Generator().manual_seed(settings.seed)
    model = ByteModel(settings).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)

    losses: list[float] = []
    start = reported = time.monotonic()
    while True:
        elapsed = time.monotonic() - start
        progress = _progress(settings, len(losses), elapsed)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(settings, len(losses), progress)
        rows = training.rows(settings.batch, settings.length, draws).to(device)
        loss = functional.cross_entropy(model(rows.bytes, rows.doc).flatten(0, 1), rows.targets.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if time.monotonic() - reported > 5:
            reported = time.monotonic()
            report(f"  step {len(losses):5}   loss {losses[-1]:.3f}   {reported - start:5.0f} s")

    elapsed = time.monotonic() - start
    model_bits, unigram_bits = evaluate(model, settings, training, unseen, device)
    return Result(
        losses=tuple(losses),
        parameters=sum(p.numel() for p in model.parameters()),
        tokens_per_second=len(losses) * settings.batch * settings.length / elapsed,
        model_bits=model_bits,
        unigram_bits=unigram_bits,
        slopes=tuple(tuple(block.slopes.tolist()) for block in model.blocks),
        sample=sample(model, settings, device),
    )


# The text


@dataclass(frozen=True)
class Rows:
    """Packed rows, each `[batch, length]`: bytes, the byte that follows each, and the excerpt each belongs to."""

    bytes: Tensor
    targets: Tensor
    doc: Tensor

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on a device."""
        return Rows(self.bytes.to(device), self.targets.to(device), self.doc.to(device))


class Corpus:
    """Files end to end, from which excerpts are drawn that never cross from one file into the next."""

    def __init__(self, files: Sequence[bytes]) -> None:
        self.bytes = torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8).long()
        self.ends = torch.tensor([len(f) for f in files]).cumsum(0)

    def rows(self, batch: int, length: int, draws: torch.Generator) -> Rows:
        """Draws rows, each filled with excerpts of a quarter of a row to a whole one; the last is cut to fit."""
        rows = Rows(*(torch.zeros(batch, length, dtype=torch.long) for _ in range(3)))
        for row in range(batch):
            filled = excerpt = 0
            while filled < length:
                wanted = int(torch.randint(max(length // 4, 1), length + 1, (), generator=draws))
                begin, end = self._excerpt(min(wanted, length - filled), draws)
                place = slice(filled, filled + end - begin)
                rows.bytes[row, place] = self.bytes[begin:end]
                rows.targets[row, place] = self.bytes[begin + 1 : end + 1]
                rows.doc[row, place] = excerpt
                filled += end - begin
                excerpt += 1
        return rows

    def _excerpt(self, size: int, draws: torch.Generator) -> tuple[int, int]:
        """Where an excerpt of at most `size` bytes begins and ends; the byte at its end is in the same file."""
        # A byte is drawn rather than a file, so that long files are seen in proportion. No file's last byte is drawn.
        while True:
            begin = int(torch.randint(len(self.bytes), (), generator=draws))
            file_end = int(self.ends[torch.searchsorted(self.ends, begin, right=True)])
            if begin < file_end - 1:
                return begin, min(begin + size, file_end - 1)


def read_library() -> list[bytes]:
    """The source files of Python's standard library, in the order of their names, without tests and tables."""
    root = Path(sysconfig.get_paths()["stdlib"])
    # Installed packages differ from machine to machine; `encodings` and `pydoc_data` are generated tables.
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}
    paths = sorted(p for p in root.rglob("*.py") if left_out.isdisjoint(p.relative_to(root).parts[:-1]))
    contents = (p.read_bytes() for p in paths)
    files = [c for c in contents if len(c) > 1]
    if len(files) < 10:
        raise FileNotFoundError(f"no standard library sources to train on under {root}")
    return files


# The model


class ByteModel(nn.Module):
    """A pre-norm transformer over bytes: bytes and excerpt ids `[batch, length]` → logits `[batch, length, 256]`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        attention = attncc.load(SPEC, name="train_bytes")
        self.embedding = nn.Embedding(VOCABULARY, settings.dim)
        self.blocks = nn.ModuleList(
            Block(settings.dim, settings.heads, attention, settings.backend) for _ in range(settings.layers)
        )
        self.norm = nn.RMSNorm(settings.dim)
        self.logits = nn.Linear(settings.dim, VOCABULARY, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.logits.weight, std=0.02)

    def forward(self, text: Tensor, doc: Tensor) -> Tensor:
        """Logits of the byte that follows each one."""
        x = self.embedding(text)
        for block in self.blocks:
            x = block(x, doc)
        logits: Tensor = self.logits(self.norm(x))
        return logits


class Block(nn.Module):
    """One layer: attention, then a perceptron, each on a normalized copy and added to the stream."""

    def __init__(self, dim: int, heads: int, attention: attncc.Attention, backend: str) -> None:
        super().__init__()
        self.heads, self.attention, self.backend = heads, attention, backend
        # ALiBi's own slopes are where learning starts.
        self.slopes = nn.Parameter(torch.tensor([2.0 ** (-8 * (h + 1) / heads) for h in range(heads)]))
        self.before_attention, self.before_perceptron = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.perceptron = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, doc: Tensor) -> Tensor:
        """x `[batch, length, dim]` → the same shape."""
        batch, length, dim = x.shape
        projected = self.query_key_value(self.before_attention(x))
        query, key, value = projected.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = self.attention(query, key, value, doc=doc, slopes=self.slopes, backend=self.backend)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, dim))
        after: Tensor = x + self.perceptron(self.before_perceptron(x))
        return after


# What came of it


@torch.no_grad()
def evaluate(
    model: ByteModel, settings: Settings, training: Corpus, unseen: Corpus, device: torch.device | str, batches: int = 4
) -> tuple[float, float]:
    """Bits per byte on files not trained on: the model's, and those of the training files' byte frequencies."""
    counts = torch.bincount(training.bytes, minlength=VOCABULARY) + 1.0
    unigram = (counts / counts.sum()).log()
    draws = torch.Generator().manual_seed(settings.seed + 1)
    model_nats = unigram_nats = 0.0
    for _ in range(batches):
        rows = unseen.rows(settings.batch, settings.length, draws)
        on_device = rows.to(device)
        logits = model(on_device.bytes, on_device.doc).flatten(0, 1)
        model_nats += functional.cross_entropy(logits, on_device.targets.flatten()).item()
        unigram_nats -= unigram[rows.targets].mean().item()
    return model_nats / batches / math.log(2), unigram_nats / batches / math.log(2)


@torch.no_grad()
def sample(
    model: ByteModel, settings: Settings, device: torch.device | str, prompt: str = "def ", temperature: float = 0.7
) -> str:
    """Continues the prompt a byte at a time. The context is one document, cut to the length trained on."""
    draws = torch.Generator().manual_seed(settings.seed)
    text = list(prompt.encode())
    for _ in range(settings.sample_bytes):
        # Only distances matter to ALiBi, so what is left after the cut needs no renumbering.
        context = torch.tensor([text[-settings.length :]], device=device)
        logits = model(context, torch.zeros_like(context))[0, -1].float().cpu()
        text.append(int(torch.multinomial((logits / temperature).softmax(0), 1, generator=draws)))
    # A model this small may emit control characters, which a terminal would obey.
    decoded = bytes(text).decode(errors="replace")
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in decoded)


def draw(result: Result, path: Path) -> None:
    """Draws the loss curve in bits per byte, with the two figures on unseen files."""
    # A Figure of its own, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    bits = [loss / math.log(2) for loss in result.losses]
    axes.plot(bits, color="0.8", linewidth=1, label="each step")
    axes.plot(_smooth(bits), color="C0", label="running mean")
    axes.axhline(result.unigram_bits, color="C3", linestyle=":", label="byte frequencies, unseen files")
    axes.axhline(result.model_bits, color="C2", linestyle="--", label="model at the end, unseen files")
    axes.set(xlabel="step", ylabel="bits per byte", title="train_bytes: packed documents, learned ALiBi slopes")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop training after this long (default: 60)")
    parser.add_argument("--steps", type=int, help="stop training after this many steps, if that comes first")
    parser.add_argument("--backend", default="auto", choices=("auto", "triton", "cpu", "oracle"))
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for picture and sample")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _limit(settings: Settings) -> str:
    limits = [f"{settings.steps} steps"] if settings.steps is not None else []
    limits += [f"{settings.seconds:g} s"] if settings.seconds is not None else []
    return "at most " + " or ".join(limits)


def _progress(settings: Settings, step: int, elapsed: float) -> float:
    """How much of the run is over, from 0 to 1. At least one step is taken."""
    if step == 0:
        return 0.0
    by_steps = step / max(settings.steps, 1) if settings.steps is not None else 0.0
    by_time = elapsed / max(settings.seconds, 1e-9) if settings.seconds is not None else 0.0
    return max(by_steps, by_time)


def _schedule(settings: Settings, step: int, progress: float) -> float:
    """Linear warmup, then linear decay to a tenth."""
    return min((step + 1) / settings.warmup, 1 - 0.9 * progress)


def _smooth(values: Sequence[float], keep: float = 0.95) -> list[float]:
    """An exponential running mean, corrected for its start."""
    smoothed: list[float] = []
    total = weight = 0.0
    for value in values:
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return smoothed


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    raise SystemExit(main())
