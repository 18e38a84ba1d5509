"""The disk cache: what is put is got, whatever is damaged is a miss, and processes may share it."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attncc.errors import CacheError
from attncc.runtime.cache import MODULE, RECORD, Cache, CacheConfig, default_config, key_of

TEXT = "answer = 42\n"
KEY = key_of(TEXT)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(CacheConfig(tmp_path / "cache"))


def test_what_is_put_is_got(cache: Cache) -> None:
    assert cache.get(KEY) is None
    path = cache.put(KEY, TEXT, {"spec": "longformer"})
    assert path == cache.directory / KEY / MODULE
    assert path.read_text() == TEXT
    assert cache.get(KEY) == path
    assert cache.read(KEY) == (path, TEXT)
    [entry] = cache.entries()
    assert (entry.key, entry.path, dict(entry.metadata)) == (KEY, path, {"spec": "longformer"})
    assert cache.size() == entry.bytes == sum(p.stat().st_size for p in path.parent.iterdir())


def test_text_survives_exactly(cache: Cache) -> None:
    text = 'name = "é × ∞"\r\n\n# no newline at the end'
    cache.put(KEY, text, {})
    found = cache.read(KEY)
    assert found is not None
    assert found[1] == text


def test_putting_again_replaces(cache: Cache) -> None:
    cache.put(KEY, "first = 1\n", {})
    cache.put(KEY, "second = 2\n", {})
    found = cache.read(KEY)
    assert found is not None
    assert found[1] == "second = 2\n"
    assert len(cache.entries()) == 1


def test_clear_counts_and_removes(cache: Cache) -> None:
    assert cache.clear() == 0
    for i in range(3):
        cache.put(key_of(str(i)), TEXT, {})
    assert cache.clear() == 3
    assert cache.entries() == []
    assert cache.size() == 0


def test_looking_creates_nothing(cache: Cache) -> None:
    assert cache.get(KEY) is None
    assert cache.entries() == []
    assert cache.clear() == 0
    assert not cache.directory.exists()


def test_directory_is_created_for_the_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = Cache(CacheConfig(tmp_path / "new" / "cache"))
        cache.put(KEY, TEXT, {})
    finally:
        os.umask(before)
    assert [oct(p.stat().st_mode & 0o777) for p in (cache.directory, cache.directory.parent)] == ["0o700", "0o700"]


def _truncate(place: Path) -> None:
    (place / MODULE).write_text(TEXT[:-3])


def _empty_module(place: Path) -> None:
    (place / MODULE).write_bytes(b"")


def _no_module(place: Path) -> None:
    (place / MODULE).unlink()


def _module_is_a_directory(place: Path) -> None:
    (place / MODULE).unlink()
    (place / MODULE).mkdir()


def _no_record(place: Path) -> None:
    (place / RECORD).unlink()


def _record_is_no_json(place: Path) -> None:
    (place / RECORD).write_bytes(b"\x00\xff{")


def _record_nests_deeply(place: Path) -> None:
    (place / RECORD).write_text("[" * 100_000)


def _record_is_a_list(place: Path) -> None:
    (place / RECORD).write_text("[]")


def _record_of_another_format(place: Path) -> None:
    record = json.loads((place / RECORD).read_text())
    (place / RECORD).write_text(json.dumps(record | {"format": 0}))


def _record_of_another_key(place: Path) -> None:
    record = json.loads((place / RECORD).read_text())
    (place / RECORD).write_text(json.dumps(record | {"key": "0" * 64}))


def _module_is_not_utf8(place: Path) -> None:
    (place / MODULE).write_bytes(b"\xff\xfe")


def _place_is_a_file(place: Path) -> None:
    for each in place.iterdir():
        each.unlink()
    place.rmdir()
    place.write_text(TEXT)


DAMAGE: list[Callable[[Path], None]] = [
    _truncate,
    _empty_module,
    _no_module,
    _module_is_a_directory,
    _no_record,
    _record_is_no_json,
    _record_nests_deeply,
    _record_is_a_list,
    _record_of_another_format,
    _record_of_another_key,
    _module_is_not_utf8,
    _place_is_a_file,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__.strip("_"))
def test_a_damaged_entry_is_a_miss_and_can_be_put_again(cache: Cache, damage: Callable[[Path], None]) -> None:
    place = cache.put(KEY, TEXT, {}).parent
    damage(place)
    cache.entries()
    assert cache.get(KEY) is None
    assert not place.exists()
    cache.put(KEY, TEXT, {})
    assert cache.get(KEY) == place / MODULE


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=64), which=st.sampled_from([MODULE, RECORD]))
def test_any_other_bytes_are_a_miss(tmp_path_factory: pytest.TempPathFactory, data: bytes, which: str) -> None:
    cache = Cache(CacheConfig(tmp_path_factory.mktemp("cache")))
    path = cache.put(KEY, TEXT, {})
    path.with_name(which).write_bytes(data)
    assert cache.get(KEY) is None


@pytest.mark.parametrize("key", ["", "abc", "../" * 22, "A" * 64, "0" * 63 + "/", "0" * 64 + "\n", "0" * 65])
def test_nothing_else_passes_for_a_key(cache: Cache, key: str) -> None:
    with pytest.raises(ValueError, match="a cache key is 64 hexadecimal digits"):
        cache.get(key)
    with pytest.raises(ValueError, match="a cache key is 64 hexadecimal digits"):
        cache.put(key, TEXT, {})


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    text = "x = 1\n" * 100
    keys = [key_of(str(i)) for i in range(4)]
    one = Cache(CacheConfig(tmp_path / "measure"))
    one.put(keys[0], text, {})
    cache = Cache(CacheConfig(tmp_path / "cache", max_bytes=3 * one.size()))
    for age, key in zip((30, 20, 10), keys, strict=False):
        place = cache.put(key, text, {}).parent
        os.utime(place, (time.time() - age,) * 2)
    assert cache.get(keys[0]) is not None  # the oldest becomes the most recent
    cache.put(keys[3], text, {})
    assert {e.key for e in cache.entries()} == {keys[0], keys[2], keys[3]}
    assert cache.size() <= 3 * one.size()


def test_what_was_just_put_stays_however_large(tmp_path: Path) -> None:
    cache = Cache(CacheConfig(tmp_path / "cache", max_bytes=1))
    cache.put(key_of("other"), TEXT, {})
    cache.put(KEY, TEXT, {})
    assert [e.key for e in cache.entries()] == [KEY]


def test_leftovers_of_a_dead_process_go_with_time(cache: Cache) -> None:
    cache.put(key_of("other"), TEXT, {})
    old, recent = cache.directory / ".new-old", cache.directory / ".old-recent"
    for leftover in (old, recent):
        leftover.mkdir()
        (leftover / MODULE).write_text(TEXT)
    os.utime(old, (time.time() - 10_000,) * 2)
    cache.put(KEY, TEXT, {})
    assert not old.exists()
    assert recent.exists()
    cache.clear()
    assert not recent.exists()


def test_foreign_files_are_left_alone(cache: Cache) -> None:
    cache.put(KEY, TEXT, {})
    foreign = cache.directory / "notes.txt"
    foreign.write_text("mine")
    cache.clear()
    assert foreign.read_text() == "mine"


def test_a_failed_put_leaves_nothing_behind(cache: Cache) -> None:
    with pytest.raises(TypeError):
        cache.put(KEY, TEXT, {"not json": object()})
    assert [p.name for p in cache.directory.iterdir() if p.name != ".lock"] == []


def test_a_full_disk_is_a_cache_error(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CacheError, match=r"No space left on device(?s:.*)hint: set ATTNCC_CACHE_DIR"):
        cache.put(KEY, TEXT, {})


def _work(directory: Path, seed: int) -> None:
    """One of several processes that put, get and remove the same few keys."""
    cache = Cache(CacheConfig(directory, max_bytes=4_000))
    for i in range(40):
        text = f"x = {(i + seed) % 5}\n" * 60
        key = key_of(text)
        cache.put(key, text, {})
        found = cache.read(key)
        assert found is None or found[1] == text
        if seed == 0 and i % 4 == 0:
            cache.clear()


def test_processes_share_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(tmp_path / "cache", seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [w.exitcode for w in workers] == [0, 0, 0]
    cache = Cache(CacheConfig(tmp_path / "cache"))
    assert all(cache.get(e.key) is not None for e in cache.entries())
    assert not [p for p in cache.directory.iterdir() if p.name.startswith((".new-", ".old-"))]


@pytest.mark.parametrize(
    ("one", "other"),
    [(("ab", "c"), ("a", "bc")), (("a",), ("a", "")), ((), ("",)), (("a", "b"), ("b", "a")), (("1:a",), ("", "a"))],
)
def test_keys_keep_their_parts_apart(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert key_of(*one) == key_of(*one)
    assert key_of(*one) != key_of(*other)


def test_the_directory_given_wins(tmp_path: Path) -> None:
    assert default_config(tmp_path).directory == tmp_path
    assert default_config().directory.name == "attncc"
