"""The verb `scenarios`: the built-in ones."""

from __future__ import annotations

from typing import Final

from rich.table import Table
from rich.text import Text

from scenarios.cli.printing import Json, answer, out
from scenarios.cli.verbs import Verb


def scenarios(as_json: Json = False) -> None:
    """List the built-in scenarios, a line each."""
    from fedmodel.config import builtin_scenarios, read_scenario

    summaries = {name: read_scenario(name).summary for name in builtin_scenarios()}
    if as_json:
        answer(summaries, "", as_json)
        return
    table = Table.grid(padding=(0, 2))
    for name, summary in summaries.items():
        table.add_row(Text(name, "bold"), summary)
    out.print(table)


VERBS: Final = (Verb(50, "scenarios", scenarios),)
