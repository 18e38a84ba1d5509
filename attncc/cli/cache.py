"""`attncc cache`: what is kept on disk, where, and how to be rid of it."""

from __future__ import annotations

import os
from datetime import datetime

import click

from attncc.cli.console import print_table
from attncc.runtime.cache import Cache, default_config


@click.group(epilog="\b\nFor example:\n  attncc cache list\n  rm -r $(attncc cache dir)")
def command() -> None:
    """The generated modules kept on disk. ATTNCC_CACHE_DIR names another directory for them."""


@command.command("list", epilog="\b\nFor example:\n  attncc cache list")
def list_() -> None:
    """List the modules, the most recently used first."""
    cache = _cache()
    entries = cache.entries()
    if not entries:
        click.echo(f"nothing is cached in {cache.directory}")
        return
    print_table(
        None,
        ["key", "spec", "target", "KiB>", "last used"],
        [
            [
                entry.key[:16],
                str(entry.metadata.get("name", "")),
                str(entry.metadata.get("target", "")),
                f"{entry.bytes / 1024:.1f}",
                datetime.fromtimestamp(entry.last_used).isoformat(" ", "seconds"),
            ]
            for entry in entries
        ],
    )
    total = sum(entry.bytes for entry in entries)
    click.echo(f"{len(entries)} modules, {total / 1024:.1f} KiB, in {cache.directory}")


@command.command("dir", epilog="\b\nFor example:\n  cd $(attncc cache dir)")
def directory() -> None:
    """Print the directory."""
    click.echo(_cache().directory)


@command.command("clear", epilog="\b\nFor example:\n  attncc cache clear")
def clear() -> None:
    """Remove every module; what is wanted again is generated again."""
    cache = _cache()
    click.echo(f"removed {cache.clear()} modules from {cache.directory}")


def _cache() -> Cache:
    return Cache(default_config(os.environ.get("ATTNCC_CACHE_DIR")))
