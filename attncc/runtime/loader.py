"""Generated text into an imported module, from the very bytes that were validated."""

from __future__ import annotations

import importlib.abc
import importlib.util
import linecache
from pathlib import Path
from types import ModuleType

from attncc.errors import CacheError


def load_module(path: Path, name: str, text: str | None = None) -> ModuleType:
    """A fresh module made of a file, importable by nobody else: it does not enter `sys.modules`.

    `text` is the file's text where the caller has read and validated it; it is then not read again, so nobody can
    exchange the file in between. No bytecode is read or written. Every call makes a new module: callers memoise, and
    threads may call at the same time.

    Raises CacheError where the file cannot be read. What the module itself raises on import passes through.
    """
    if text is None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CacheError(f"the generated module {path} cannot be read: {error}") from error
    loader = _TextLoader(path, text)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Triton reads a kernel's source through `inspect`. An entry without a time is taken as it is, so Triton compiles
    # what was validated, even after another process has evicted the file.
    linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))
    loader.exec_module(module)
    return module


class _TextLoader(importlib.abc.SourceLoader):
    """Loads one module from text that is already at hand. Without a `path_stats`, bytecode is out of the game."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = str(path)
        self._text = text

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        if path != self._path:
            raise OSError(f"only {self._path} can be loaded, not {path!r}")
        return self._text.encode()
