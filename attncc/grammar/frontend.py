"""From a path or a text to typed specs: what the CLI and the API call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attncc.errors import Diagnostic, SpecError
from attncc.grammar.check import check
from attncc.grammar.definitions import Loader
from attncc.grammar.parser import LONGEST_FILE, recover
from attncc.grammar.report import Report
from attncc.ir.spec import Spec
from attncc.source import Source, Span


@dataclass(frozen=True, slots=True)
class Loaded:
    """The attentions of a file by name, in order, and its warnings."""

    specs: dict[str, Spec]
    warnings: tuple[Diagnostic, ...] = ()


def load_specs(path: str | Path) -> Loaded:
    """Reads and types an `.attn` file. Raises SpecError with all errors, OSError where the file cannot be read."""
    return _typed(read_source(str(path)), read_source)


def loads_specs(text: str, name: str = "<string>", loader: Loader | None = None) -> Loaded:
    """Types a text. `use` is relative to the folder of `name`, and reads the disk unless `loader` is given."""
    return _typed(Source(name, text), loader or read_source)


def read_source(path: str) -> Source:
    """The text of a file. Raises OSError where there is none, SpecError where it is not UTF-8."""
    file = Path(path)
    if file.exists() and not file.is_file():
        raise OSError(None, "it is not a file", path)
    with file.open("rb") as stream:
        data = stream.read(4 * LONGEST_FILE + 1)
    try:
        return Source(path, data.decode("utf-8-sig"))
    except UnicodeDecodeError as problem:
        source = Source(path, data.decode("utf-8-sig", errors="replace"))
        start = len(data[: problem.start].decode("utf-8-sig", errors="replace"))
        byte = data[problem.start]
        raise SpecError(
            (
                Diagnostic(
                    f"this file is not UTF-8 text: byte 0x{byte:02x}",
                    Span(source, start, start + 1),
                    hint="save it as UTF-8",
                ),
            )
        ) from None


def _typed(source: Source, loader: Loader) -> Loaded:
    report = Report(source)
    try:
        return _checked(source, loader, report)
    except RecursionError:
        # The limits on nesting suit a usual stack; a caller deep in one of its own may leave less.
        report.error("this file nests too deeply for the stack that is left", Span(source, 0, 0))
        raise SpecError(report.errors) from None


def _checked(source: Source, loader: Loader, report: Report) -> Loaded:
    file = recover(source, report)
    if not (file.attentions or file.defs or file.uses or report.errors):
        report.error(
            "this file defines no attention",
            Span(source, 0, 0),
            hint="begin with `attention name`; its statements follow",
        )
    checked = check(file, loader, report)
    return Loaded(dict(checked.specs), checked.warnings)
