"""The `attncc` command: finds the subcommand, runs it, and turns what was raised into a message and an exit code.

A subcommand is a click command named `command` in a file of its own, imported only when it is run, so that
`attncc check` stays fast. It returns an exit code, or None for 0.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import click

from attncc import __version__
from attncc.cli.console import echo_error
from attncc.errors import (
    ArgumentError,
    AttnccError,
    SpecError,
    UnsupportedError,
    did_you_mean,
)

DONE, WRONG, MISUSED, CANNOT, BROKEN, INTERRUPTED = 0, 1, 2, 3, 4, 130

COMMANDS: Mapping[str, str] = {
    "check": "Parse and type-check specs.",
    "explain": "What was proved about a mask, which tiles are visited, why.",
    "compile": "Compile kernels ahead of time; no GPU needed.",
    "verify": "Forward and gradients against the dense oracle.",
    "plot": "The mask and its tiles as a picture.",
    "show": "A spec after any stage of the compiler.",
    "list": "The attentions in files and folders, or the prelude.",
    "new": "Write a commented starter spec.",
    "cache": "The generated modules kept on disk.",
}
"""Name and one line of help, in the order of a first visit. Each is a file beside this one."""


class _Commands(click.Group):
    """Knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"attncc.cli.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS)
            ctx.fail(f"there is no command '{args[0]}'" + (f"; {hint}" if hint else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExit codes:\n"
    "  0  done\n"
    "  1  the spec is wrong, or a verification missed\n"
    "  2  the command line is wrong: an option, a file, a value\n"
    "  3  it cannot be done here: not supported yet, no device or compiler, an unsafe cache\n"
    "  4  a mistake in attncc itself\n"
    "\n"
    "\b\nFor example:\n"
    "  attncc new my_attention\n"
    "  attncc check my_attention.attn",
)
@click.version_option(__version__, "--version", message="attncc %(version)s")
def attncc() -> None:
    """A compiler for attention: from a spec file to kernels."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        result: Any = attncc.main(
            args=None if arguments is None else list(arguments), prog_name="attncc", standalone_mode=False
        )
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (click.Abort, KeyboardInterrupt):
        echo_error("interrupted")
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return MISUSED
    except AttnccError as error:
        echo_error(str(error))
        return exit_code(error)
    except OSError as error:
        echo_error(f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror or error}")
        return MISUSED
    except Exception:
        # Anything else is ours, and must not look like the exit code of a wrong spec.
        traceback.print_exc()
        echo_error("this is a mistake in attncc itself; please report it with the lines above")
        return BROKEN
    return result if isinstance(result, int) else DONE


def exit_code(error: AttnccError) -> int:
    """The exit code that tells this error."""
    match error:
        case UnsupportedError():
            return CANNOT
        case SpecError():
            return WRONG
        case ArgumentError():
            return MISUSED
        case _:
            return CANNOT


if __name__ == "__main__":
    sys.exit(main())
