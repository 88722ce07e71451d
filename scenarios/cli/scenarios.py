"""The noun `scenarios`: the built-in ones, a line each, or one of them as a person copies it."""

from __future__ import annotations

from typing import Annotated, Final

import click
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmodel.errors import ConfigError
from scenarios.cli.printing import Json, answer, out
from scenarios.cli.verbs import Verb

scenarios_app = typer.Typer(help="List the built-in scenarios, a line each; `show NAME` prints one.")


@scenarios_app.callback(invoke_without_command=True)
def scenarios(ctx: typer.Context, as_json: Json = False) -> None:
    """List the built-in scenarios, a line each; `show NAME` prints one."""
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"--json goes to the end: fedmodel scenarios {ctx.invoked_subcommand} NAME --json")
    elif as_json:
        answer(_summaries(), "", as_json)
    else:
        show(out)


@scenarios_app.command("show")
def scenarios_show(
    scenario: Annotated[str, typer.Argument(metavar="NAME", help="The name of a built-in scenario.")],
    as_json: Json = False,
) -> None:
    """Print a built-in scenario, byte for byte, to be copied: `fedmodel scenarios show digits > mine.toml`."""
    from fedmodel.config import builtin_scenarios

    known = builtin_scenarios()
    if scenario not in known:
        raise ConfigError(f"{scenario}: is no built-in scenario; they are {', '.join(known)}")
    text = known[scenario].read_text(encoding="utf-8")
    answer({"name": scenario, "toml": text}, text.removesuffix("\n"), as_json)


def show(console: Console) -> None:
    """Print the name and the summary of each."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)  # a name is typed as it stands
    table.add_column(overflow="fold")
    for name, summary in _summaries().items():
        table.add_row(Text(name, "bold"), summary)
    console.print(table)


def _summaries() -> dict[str, str]:
    """Return what each is about, by name."""
    from fedmodel.config import builtin_scenarios, read_scenario

    return {name: read_scenario(name).summary for name in builtin_scenarios()}


VERBS: Final = (Verb(50, "scenarios", scenarios_app),)
