"""The `fedmodel` command.

Exit status: 0 ok, 2 usage or refused, 3 a claim refuted, 4 a ledger invalid, 5 inconclusive, 6 a report that nothing
outside its folder vouches for in whole, 130 interrupted, 1 anything else. Answers go to standard
output, everything else to standard error. Figures of privacy are rounded up: what is printed is never
less than what was spent.

Heavy imports stand inside the commands that need them, so that `--help` and usage errors are quick.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated

from fedmodel.system.environment import SWITCHES

os.environ.update(SWITCHES)  # before anything of Flower is imported

import click
import typer
from rich.logging import RichHandler
from rich.text import Text
from typer.core import TyperGroup

from fedmodel.errors import FedmodelError
from fedmodel.system.durable import failed
from fedmodel.system.inert import InertFormatter, inert, inert_lines, show_crash
from scenarios.cli import meant
from scenarios.cli.printing import INTERRUPTED, err
from scenarios.cli.terminal import command_of
from scenarios.cli.verbs import verbs


class _Told(TyperGroup):
    """A command that says so where Ctrl-C ends it and nobody said more; typer ends it without a word."""

    def invoke(self, ctx: click.Context) -> object:
        """Do what was asked."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            err.print("interrupted")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Told,
    name="fedmodel",
    help="Federated learning with differential privacy that is refused rather than guessed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(asked: bool) -> None:
    """Print the version, and end."""
    if asked:
        print(f"fedmodel {version('fedmodel')}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take what is asked of the command itself, and of no verb."""


for _verb in verbs():
    if isinstance(_verb.what, typer.Typer):
        app.add_typer(_verb.what, name=_verb.name)
    else:
        app.command(_verb.name)(_verb.what)


def main() -> None:
    """Run the command; a user's mistake ends in one line and an exit status, never in a traceback."""
    sys.excepthook = show_crash
    handler = RichHandler(console=err, show_time=False, show_path=False, show_level=False)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(InertFormatter("%(message)s"))
    logging.raiseExceptions = False  # a log that cannot be written is no traceback on a person's terminal
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it could keep its fonts is nothing to be told
    try:
        sys.exit(command_of(app)(standalone_mode=False))
    except FedmodelError as error:
        _say_error(str(error))
        sys.exit(error.exit_status)
    except BrokenPipeError:  # whoever read standard output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _say_error(failed(error))
        sys.exit(1)
    except MemoryError:
        _say_error("not enough memory for this scenario; make the data or the model smaller")
        sys.exit(1)
    except click.ClickException as error:
        _say_misuse(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        err.print("interrupted")
        sys.exit(INTERRUPTED)


def _say_misuse(error: click.ClickException) -> None:
    """Print what is wrong with the words of a command, how it is used, and what was probably meant."""
    said = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        sys.stderr.write(inert_lines(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.\n\n"))
        said = meant.in_words(error) or said
    sys.stderr.write(inert_lines(f"Error: {said}\n"))
    if isinstance(error, click.MissingParameter) and error.param is not None and error.param.name == "scenario":
        from scenarios.cli.scenarios import show

        sys.stderr.write("\nA scenario is a TOML file, or one of these:\n")
        show(err)


def _say_error(reason: str) -> None:
    """Print why the command ends, in one line."""
    err.print(Text.assemble(("error:", "bold red"), " ", inert(reason)), soft_wrap=True, highlight=False)
