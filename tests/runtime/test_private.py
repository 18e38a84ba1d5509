"""Which directories are the user's alone, and what is said of the others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from attncc.errors import CacheError
from attncc.runtime.cache import Cache, CacheConfig, key_of
from attncc.runtime.private import ensure_private

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")
as_root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give files away")

SOMEBODY = 54321


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "above" / "cache"
    path.mkdir(parents=True, mode=0o700)
    return path


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o711])
def test_modes_taken(directory: Path, mode: int) -> None:
    directory.chmod(mode)
    directory.parent.chmod(mode)
    ensure_private(directory)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777, 0o720, 0o702])
def test_a_directory_others_can_write_to_is_refused(directory: Path, mode: int) -> None:
    directory.chmod(mode)
    expected = (
        f"other users can write to the cache directory {directory} (mode {mode:04o}), and what lies in it is imported\n"
        f"hint: chmod go-w {directory} after looking at what is in it, "
        "or set ATTNCC_CACHE_DIR to a directory of your own"
    )
    with pytest.raises(CacheError) as error:
        ensure_private(directory)
    assert str(error.value) == expected


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_a_directory_above_that_others_can_write_to_is_refused(directory: Path, mode: int) -> None:
    directory.parent.chmod(mode)
    with pytest.raises(CacheError) as error:
        ensure_private(directory)
    assert str(error.value) == (
        f"the cache lies in {directory.parent}, to which other users can write (mode {mode:04o})\n"
        f"hint: chmod go-w {directory.parent}, or set ATTNCC_CACHE_DIR to a directory below your home"
    )


def test_a_sticky_directory_above_is_taken(directory: Path) -> None:
    directory.parent.chmod(0o1777)
    ensure_private(directory)


@as_root
@pytest.mark.parametrize(
    ("below", "message"),
    [
        ("cache", "the cache directory {path} belongs to user 54321, not to you (user 0)"),
        ("", "the cache lies in {path}, which belongs to user 54321, who could exchange it"),
    ],
)
def test_a_directory_of_somebody_else_is_refused(directory: Path, below: str, message: str) -> None:
    path = directory.parent / below
    os.chown(path, SOMEBODY, -1)
    with pytest.raises(CacheError) as error:
        ensure_private(directory)
    assert str(error.value).startswith(message.format(path=path))


@as_root
@pytest.mark.parametrize("where", ["the directory itself", "on the way"])
def test_a_link_somebody_else_made_is_refused(directory: Path, where: str) -> None:
    sticky = directory.parent
    sticky.chmod(0o1777)
    mine = sticky / "mine"
    mine.mkdir(mode=0o700)
    link = sticky / "link"
    link.symlink_to(mine)
    os.chown(link, SOMEBODY, -1, follow_symlinks=False)
    with pytest.raises(CacheError, match=f"leads through the link {link}, which user {SOMEBODY} made"):
        ensure_private(link if where == "the directory itself" else link / "cache")


def test_a_link_of_ones_own_is_followed_and_its_end_is_checked(directory: Path) -> None:
    link = directory.parent / "link"
    link.symlink_to(directory)
    ensure_private(link)
    directory.chmod(0o777)
    with pytest.raises(CacheError, match="other users can write to the cache directory"):
        ensure_private(link)


def test_a_dangling_link_is_refused(directory: Path) -> None:
    link = directory / "link"
    link.symlink_to(directory / "nowhere")
    with pytest.raises(CacheError, match="cannot be reached"):
        ensure_private(link)


def test_a_file_is_no_directory(directory: Path) -> None:
    path = directory / "file"
    path.touch()
    with pytest.raises(CacheError, match="is not a directory"):
        ensure_private(path)
    with pytest.raises(CacheError, match="cannot be created"):
        ensure_private(path / "cache")


def test_all_that_is_missing_is_created(directory: Path) -> None:
    path = directory / "a" / "b"
    ensure_private(path)
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path.parent, path)] == [0o700, 0o700]


def test_every_use_of_the_cache_checks(directory: Path) -> None:
    cache = Cache(CacheConfig(directory))
    key = key_of("x")
    cache.put(key, "x = 1\n", {})
    directory.chmod(0o777)
    for use in (
        lambda: cache.get(key),
        lambda: cache.put(key, "x = 1\n", {}),
        cache.entries,
        cache.size,
        cache.clear,
    ):
        with pytest.raises(CacheError):
            use()
