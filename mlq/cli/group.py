"""The group of all verbs: how they fail, and how they print."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from rich.console import Console

from mlq import __version__
from mlq.errors import MlqError
from mlq.pages.terminal import rendered

_USAGE, _BROKEN, STOPPED = 2, 3, 130


class Verbs(click.Group):
    """A group whose errors are one line on stderr and an exit code that scripts can rely on."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> NoReturn:
        given = list(sys.argv[1:] if args is None else args)
        plain = [each for each in given if each != "--debug"]
        debug = len(plain) < len(given)
        extra |= {"standalone_mode": False, "obj": shlex.join(["mlq", *plain])}
        try:
            code = super().main(plain, *more, **extra)
        except (KeyboardInterrupt, click.Abort) as stop:
            _complain(str(stop.__cause__ or stop) or "stopped; nothing was written")
            code = STOPPED
        except click.UsageError as error:
            hint = f"; see {error.ctx.command_path} --help" if error.ctx else ""
            code = _complain(error.format_message().rstrip(".") + hint)
        except (MlqError, click.ClickException) as error:
            code = _complain(str(error), debug=debug)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            code = _complain(f"{where}{error.strerror}", debug=debug)
        except Exception as error:  # noqa: BLE001 - whatever it is, scripts get a code of its own
            what = "; run it again with --debug, and report what that says"
            _complain(f"mlq is at fault: {type(error).__name__}: {error}{what}", debug=debug)
            code = _BROKEN
        sys.exit(code or 0)


class Listing(click.Group):
    """A group that lists, by its command `list`, where no other command of it is named."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, *context.help_option_names}:
            args = ["list", *args]
        return super().parse_args(context, args)


def _complain(message: str, *, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    print(f"mlq: error: {' '.join(message.split())}", file=sys.stderr)
    return _USAGE


@click.group(
    cls=Verbs, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, "-V", "--version", message="mlq %(version)s")
def main() -> None:
    """Quantize ONNX networks: fast, explained, within the accuracy you ask for.

    Every verb takes --debug, which adds a traceback to an error.
    """


def show(content: Any) -> None:
    """Print JSON as it is, and blocks as the terminal can show them."""
    if isinstance(content, str | bytes):
        print(content if isinstance(content, str) else content.decode(), end="")
    else:
        Console().print(rendered(*content))
