"""Generated modules on disk, by content: atomic, validated, shared by processes, private to the user.

`docs/decisions/disk-cache.md` says why it is built this way.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attncc.errors import CacheError
from attncc.runtime.private import ensure_private, is_absent

MODULE, RECORD, LOCK = "module.py", "entry.json", ".lock"
FORMAT = 1
"""Of `entry.json`. An entry of another format is a miss."""

_KEY = re.compile(r"[0-9a-f]{64}")
_PASSING = (".new-", ".old-")
"""How the names of directories begin that are being written or removed."""

_LOCK_SECONDS = 60.0
_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Where generated modules are kept, and how many bytes of them: the least recently used go first."""

    directory: Path
    max_bytes: int = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Entry:
    """One module in the cache. `bytes` is what it takes on disk, `last_used` seconds since 1970."""

    key: str
    path: Path
    metadata: Mapping[str, Any]
    bytes: int
    last_used: float


def default_config(directory: str | os.PathLike[str] | None = None) -> CacheConfig:
    """The cache in `directory`, or else in the platform's place for a user's caches."""
    if directory is not None:
        return CacheConfig(Path(directory).expanduser())
    import platformdirs

    return CacheConfig(platformdirs.user_cache_path("attncc", appauthor=False))


def key_of(*parts: str) -> str:
    """The key of a module: the SHA-256 of everything it depends on, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        # Lengths keep ("ab", "c") apart from ("a", "bc").
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


class Cache:
    """The modules kept in one directory. Holds no state but its configuration; threads and processes may share it.

    Every method raises CacheError where the directory is not the user's alone, or cannot be read or written.
    """

    def __init__(self, config: CacheConfig) -> None:
        self._config = config

    @property
    def directory(self) -> Path:
        """Where entries are kept; it need not exist yet."""
        return self._config.directory

    def get(self, key: str) -> Path | None:
        """The module's file, its text just validated, or None. An entry that does not validate is removed."""
        found = self.read(key)
        return None if found is None else found[0]

    def read(self, key: str) -> tuple[Path, str] | None:
        """As `get`, with the validated text, so that what is imported is what was validated."""
        place = self._place(key)
        if is_absent(self.directory):
            return None
        ensure_private(self.directory)
        text = _validated(place, key)
        if text is None:
            self._drop_invalid(place, key)
            return None
        _touch(place)
        return place / MODULE, text

    def put(self, key: str, text: str, metadata: Mapping[str, Any]) -> Path:
        """Keeps a module under its key and returns its file. `metadata` is plain JSON, shown by `attncc cache list`."""
        place = self._place(key)
        ensure_private(self.directory)
        # Written under the lock, or another process that clears the cache would take it for abandoned.
        with _as_cache_error(self.directory), self._lock():
            new = Path(tempfile.mkdtemp(prefix=_PASSING[0], dir=self.directory))
            try:
                _write(new, key, text, metadata)
                if _validated(place, key) == text:
                    _touch(place)
                else:
                    self._discard(place)
                    os.rename(new, place)
                self._evict(keep=place)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        return place / MODULE

    def entries(self) -> list[Entry]:
        """Everything kept, the most recently used first."""
        if is_absent(self.directory):
            return []
        ensure_private(self.directory)
        with _as_cache_error(self.directory):
            found = (_entry(place) for place in self._places())
            return sorted((e for e in found if e is not None), key=lambda e: (-e.last_used, e.key))

    def size(self) -> int:
        """The bytes that all entries take together."""
        return sum(e.bytes for e in self.entries())

    def clear(self) -> int:
        """Removes everything kept and returns how many entries that were."""
        if is_absent(self.directory):
            return 0
        ensure_private(self.directory)
        with _as_cache_error(self.directory), self._lock():
            places = self._places()
            for place in places:
                self._discard(place)
            self._remove_passing(older_than=0.0)
            return len(places)

    def _place(self, key: str) -> Path:
        # A key becomes a file name, so nothing else may pass for one.
        if not _KEY.fullmatch(key):
            raise ValueError(f"a cache key is 64 hexadecimal digits, not {key!r}")
        return self.directory / key

    def _places(self) -> list[Path]:
        return [p for p in self.directory.iterdir() if _KEY.fullmatch(p.name)]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        import filelock

        lock = filelock.FileLock(self.directory / LOCK, timeout=_LOCK_SECONDS, mode=0o600)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise CacheError(
                f"another process has held the cache's lock for {_LOCK_SECONDS:.0f} seconds: {self.directory / LOCK}"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _drop_invalid(self, place: Path, key: str) -> None:
        if not place.exists():
            return
        with _as_cache_error(self.directory), self._lock():
            # Another process may have put a good one there since.
            if _validated(place, key) is None:
                self._discard(place)

    def _discard(self, place: Path) -> None:
        """Removes an entry so that no reader sees half of it. The lock is held."""
        if not os.path.lexists(place):
            return
        old = Path(tempfile.mkdtemp(prefix=_PASSING[1], dir=self.directory))
        os.rename(place, old / "entry")
        shutil.rmtree(old, ignore_errors=True)

    def _evict(self, keep: Path) -> None:
        self._remove_passing(older_than=_ABANDONED_SECONDS)
        found = self.entries()
        total = sum(e.bytes for e in found)
        for entry in reversed(found):
            if total <= self._config.max_bytes:
                return
            if entry.path.parent != keep:
                self._discard(entry.path.parent)
                total -= entry.bytes

    def _remove_passing(self, older_than: float) -> None:
        """What a process that died left half-written or half-removed."""
        for path in self.directory.iterdir():
            if path.name.startswith(_PASSING) and time.time() - _modified(path) >= older_than:
                shutil.rmtree(path, ignore_errors=True)


def _validated(place: Path, key: str) -> str | None:
    """The text of an entry whose record and checksum agree with it; None for anything else, whatever is wrong."""
    try:
        record = json.loads((place / RECORD).read_bytes())
        data = (place / MODULE).read_bytes()
        text = data.decode()
    except (OSError, ValueError, RecursionError):
        return None
    wanted = {"format": FORMAT, "key": key, "sha256": hashlib.sha256(data).hexdigest()}
    if not isinstance(record, dict) or any(record.get(name) != value for name, value in wanted.items()):
        return None
    return text


def _write(new: Path, key: str, text: str, metadata: Mapping[str, Any]) -> None:
    data = text.encode()
    record = {
        "format": FORMAT,
        "key": key,
        "sha256": hashlib.sha256(data).hexdigest(),
        "metadata": dict(metadata),
    }
    # Nothing is flushed to the disk: what a power failure tears does not match its checksum, and is a miss.
    (new / MODULE).write_bytes(data)
    (new / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def _entry(place: Path) -> Entry | None:
    try:
        record = json.loads((place / RECORD).read_bytes())
        sizes = [p.stat().st_size for p in place.iterdir() if p.is_file()]
    except (OSError, ValueError, RecursionError):
        record, sizes = None, [0]
    metadata = record.get("metadata") if isinstance(record, dict) else None
    if not isinstance(metadata, dict):
        # Still listed, so that its room can be had back; `read` removes it when its key is asked for.
        metadata = {}
    return Entry(place.name, place / MODULE, metadata, sum(sizes), _modified(place))


def _touch(place: Path) -> None:
    # Removed by another process, or a disk that cannot be written: the order of eviction is not worth an error.
    with suppress(OSError):
        os.utime(place)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@contextmanager
def _as_cache_error(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"the cache cannot be used: {error.strerror or error}: {error.filename or directory}\n"
            "hint: set ATTNCC_CACHE_DIR to a directory of your own with room in it"
        ) from error
