"""Whether a directory is the user's alone: nobody else may write to it, or put another in its place.

What is imported from the cache runs with the user's rights, so the rule is that of ssh for its keys (StrictModes).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from attncc.errors import CacheError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def is_absent(directory: Path) -> bool:
    """Whether there is nothing at all at that path; a dangling link is something."""
    return not os.path.lexists(directory)


def ensure_private(directory: Path) -> None:
    """Creates the directory where it is missing, readable by the user alone, and checks the way to it.

    Raises CacheError where it belongs to somebody else or others may write to it, where a directory above belongs to
    neither the user nor root or others may write to it (unless it is sticky, as /tmp is), where a link on the way was
    made by somebody else, and where it cannot be created. On Windows a user's directory is private by its place, and
    nothing is checked.
    """
    path = Path(os.path.abspath(directory))
    _create(path)
    if not hasattr(os, "getuid"):
        return
    user = os.getuid()
    # Both ways count: as written, where a link could be exchanged, and resolved, where a directory could.
    resolved = Path(os.path.realpath(path))
    for above in _above(path):
        _check_above(above, user)
    for above in _above(resolved):
        _check_above(above, user)
    _check_link(path, user)
    _check_itself(resolved, user)


def _create(path: Path) -> None:
    missing = [p for p in (path, *path.parents) if is_absent(p)]
    try:
        for each in reversed(missing):
            try:
                os.mkdir(each, 0o700)
            except FileExistsError:
                # Another process was first; what it made is checked like any other.
                continue
    except OSError as error:
        raise _refusal(
            f"the cache directory {path} cannot be created: {error.strerror}",
            "set ATTNCC_CACHE_DIR to a directory of your own",
        ) from error


def _above(path: Path) -> Iterator[Path]:
    return reversed(path.parents)


def _check_above(path: Path, user: int) -> None:
    _check_link(path, user)
    status = _status(path)
    if status.st_uid not in (0, user):
        raise _refusal(
            f"the cache lies in {path}, which belongs to user {status.st_uid}, who could exchange it",
            "set ATTNCC_CACHE_DIR to a directory below your home",
        )
    # In a sticky directory only the owner of an entry can rename or remove it.
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        raise _refusal(
            f"the cache lies in {path}, to which other users can write (mode {stat.S_IMODE(status.st_mode):04o})",
            f"chmod go-w {path}, or set ATTNCC_CACHE_DIR to a directory below your home",
        )


def _check_link(path: Path, user: int) -> None:
    status = _status(path, follow=False)
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, user):
        raise _refusal(
            f"the way to the cache leads through the link {path}, which user {status.st_uid} made",
            "set ATTNCC_CACHE_DIR to a directory below your home",
        )


def _check_itself(path: Path, user: int) -> None:
    status = _status(path)
    if not stat.S_ISDIR(status.st_mode):
        raise _refusal(f"the cache directory {path} is not a directory", "remove it, or set ATTNCC_CACHE_DIR")
    if status.st_uid != user:
        raise _refusal(
            f"the cache directory {path} belongs to user {status.st_uid}, not to you (user {user})",
            "set ATTNCC_CACHE_DIR to a directory of your own",
        )
    if status.st_mode & _OTHERS_WRITE:
        raise _refusal(
            f"other users can write to the cache directory {path} (mode {stat.S_IMODE(status.st_mode):04o}), "
            "and what lies in it is imported",
            f"chmod go-w {path} after looking at what is in it, or set ATTNCC_CACHE_DIR to a directory of your own",
        )


def _status(path: Path, *, follow: bool = True) -> os.stat_result:
    try:
        return os.stat(path, follow_symlinks=follow)
    except OSError as error:
        raise _refusal(
            f"the cache directory cannot be reached: {error.strerror}: {path}",
            "set ATTNCC_CACHE_DIR to a directory of your own",
        ) from error


def _refusal(message: str, hint: str) -> CacheError:
    return CacheError(f"{message}\nhint: {hint}")
