"""Collects the diagnostics of one run of the front end."""

from __future__ import annotations

from attncc.errors import Diagnostic, Related
from attncc.source import Source, Span

MOST_ERRORS = 100


class Report:
    """Errors and warnings as they are found; the same message at the same place is kept once.

    They are listed file by file, `first` before the files it uses.
    """

    def __init__(self, first: Source) -> None:
        self._found: dict[tuple[str, int, int, int], Diagnostic] = {}
        self._sources = [first]

    def error(
        self,
        message: str,
        span: Span | None,
        *,
        related: tuple[Related, ...] = (),
        note: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Adds an error."""
        self.add(Diagnostic(message, span, related, note, hint))

    def warn(self, message: str, span: Span | None, *, note: str | None = None, hint: str | None = None) -> None:
        """Adds a warning."""
        self.add(Diagnostic(message, span, (), note, hint, "warning"))

    def add(self, diagnostic: Diagnostic) -> None:
        """Adds a diagnostic as it is."""
        span = diagnostic.span
        place = (-1, 0, 0) if span is None else (self._file(span.source), span.start, span.end)
        self._found.setdefault((diagnostic.message, *place), diagnostic)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The errors in source order, at most `MOST_ERRORS` of them and a line that counts the rest."""
        found = self._sorted("error")
        if len(found) <= MOST_ERRORS:
            return found
        rest = Diagnostic(f"{len(found) - MOST_ERRORS} more errors are not shown", None)
        return (*found[:MOST_ERRORS], rest)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """The warnings in source order."""
        return self._sorted("warning")

    def _sorted(self, severity: str) -> tuple[Diagnostic, ...]:
        chosen = (item for item in self._found.items() if item[1].severity == severity)
        return tuple(diagnostic for _, diagnostic in sorted(chosen, key=lambda item: item[0][1:]))

    def _file(self, source: Source) -> int:
        for number, known in enumerate(self._sources):
            if known is source:
                return number
        self._sources.append(source)
        return len(self._sources) - 1
