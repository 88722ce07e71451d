"""The verb `scenarios`: the built-in ones."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scenarios.cli.printing import Json, answer, out
from scenarios.cli.verbs import Verb


def scenarios(as_json: Json = False) -> None:
    """List the built-in scenarios, a line each."""
    if as_json:
        answer(_summaries(), "", as_json)
        return
    show(out)


def show(console: Console) -> None:
    """Print the name and the summary of each."""
    table = Table.grid(padding=(0, 2))
    for name, summary in _summaries().items():
        table.add_row(Text(name, "bold"), summary)
    console.print(table)


def _summaries() -> dict[str, str]:
    """Return what each is about, by name."""
    from fedmodel.config import builtin_scenarios, read_scenario

    return {name: read_scenario(name).summary for name in builtin_scenarios()}


VERBS: Final = (Verb(50, "scenarios", scenarios),)
