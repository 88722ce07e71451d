"""The noun `data`: what a run would find in a table, for the eyes of whoever owns it.

Thin: `scenarios.deployment.tables` does the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fedmodel.errors import ConfigError, DataError
from fedmodel.system.counts import counted, one_or_more
from scenarios.cli.options import ScenarioName, Settings
from scenarios.cli.printing import Json, answer
from scenarios.cli.verbs import Verb

if TYPE_CHECKING:
    from fedmodel.data.findings import Finding, Line
    from scenarios.deployment.tables import Checked

data_app = typer.Typer(help="A table of one's own: what a run would find in it.", no_args_is_help=True)


@data_app.command("check")
def check(
    scenario: ScenarioName,
    kit: Annotated[Path | None, typer.Option("--silo", metavar="KIT", help="The silo's kit, a folder.")] = None,
    table: Annotated[
        str | None, typer.Option("--table", metavar="NAME=PATH", help="A file or folder, of a silo or of the data set.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Propose how the table is to be read; with --silo, write that into silo.toml.")
    ] = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Read a silo's own table as a run would, and say all that a run would stumble over, with rows and values.

    Nothing leaves this machine, and nothing is written but by --fix. Without --silo and --table it is of each table of
    the scenario's data.folder. The exit status is 2 where a run would refuse a table.
    """
    from fedmodel.config import read_scenario
    from scenarios.deployment import tables

    read = read_scenario(scenario, settings or ())
    if kit is not None and table is not None:
        raise ConfigError("give one of --silo and --table: a kit says in silo.toml where its table lies")
    if kit is not None:
        found = [tables.table_of_kit(read, kit)]
    else:
        found = tables.tables_of_folder(read) if table is None else [tables.table_at(read, table)]
    checked = [tables.check(one, fix=fix) for one in found]
    fixed = [_fixed(one, kit) for one in checked] if fix else []
    why_not = [] if kit is None else tables.why_not_ready(read, kit)
    documents = [_document(one) for one in checked]
    lines = [line for one in checked for line in said_of(one)]
    ready = [] if kit is None else ["", *ready_lines(why_not)]
    document: dict[str, Any] = {"tables": documents, "refused": any(one.refused for one in checked)}
    if kit is not None:
        document |= {"ready": not why_not, "why_not_ready": why_not}
    answer(document, "\n".join([*lines, *fixed, *ready]), as_json)
    _end([one for table in checked for one in (*table.findings.found, *table.notes) if one.refuses], why_not)


def _end(refused: list[Finding], why_not: list[str]) -> None:
    """End with one line where a run would refuse a table: the first reason, which has no value in it."""
    if refused:
        first = refused[0]
        place = [first.where] * bool(first.where) + [f"column {first.column!r}"] * (first.column is not None)
        others = len(refused) - 1
        told = f"{counted(others, 'more finding')} {one_or_more(others, 'refuses', 'refuse')} it, as is said above"
        more = f"; {told}" if others else ""
        raise DataError("".join(f"{one}: " for one in place) + first.what + more)
    if why_not:
        raise DataError(why_not[0])


def _fixed(checked: Checked, kit: Path | None) -> str:
    """Write the keys that were proposed into a kit's file, or say them, and return what was done."""
    from scenarios.deployment.silo_tables import add_keys, section

    name, party = checked.table.config.data_set, checked.table.party
    if not checked.keys:
        return f"\nFor [tables.{name}] nothing is proposed."
    told = section(f"tables.{name}", checked.keys)
    guess = "They are a guess from the file's looks: look at them, above all at decimal and encoding."
    if kit is None:
        form = {key: value for key, value in checked.keys.items() if key != "leave_out"}
        simulated = f"Or, in a simulation's scenario:\n{section(f'data.csv.{party}', form)}" if party and form else ""
        return f"\nThe table was read with these keys, to be entered into silo.toml. {guess}\n{told}{simulated}"
    path = add_keys(kit, name, checked.keys)
    again = "A law that was signed off is to be signed off again: fedmodel silo policy KIT --sign-off NAME."
    return f"\n{path}: these keys were entered. {guess} {again}\n{told}"


def ready_lines(why_not: list[str]) -> list[str]:
    """Say what a server would be told, as far as it can be known before a run begins."""
    if not why_not:
        return [
            "A server that asks is told: ready, if keys, budget and hours allow. It is told nothing of rows and values."
        ]
    return [
        "A server that asks is told: not ready, and no more. The reasons stay here:",
        *(f"  {one}" for one in why_not),
    ]


def said_of(checked: Checked) -> Iterator[str]:
    """Yield what there is to say of a table, a line a column, a line a finding."""
    table = checked.table
    of = f" of {table.party}" if table.party else ""
    is_table = table.source.files is None
    begin = f"{'Table' if is_table else 'Data set'} {table.config.data_set}{of}:"
    rows = counted(checked.findings.rows, "row" if is_table else "record")
    yield f"{begin} {rows}. Row 1 is the first behind the header." if is_table else f"{begin} {rows}."
    where = None
    for line in checked.findings.lines:
        if line.where != where:
            where = line.where
            yield f"  {where}"
        yield f"    {_column(line)}"
    for finding in (*checked.findings.found, *checked.notes):
        yield from _finding(finding)
    if checked.refused:
        kind = "table" if is_table else "data set"
        yield f"  A run REFUSES this {kind}. Lots and delta are compared with the number of records once it is read."
        return
    persons = len(set(checked.findings.person_N.tolist()))
    whose = f" of {counted(persons, 'person')}" if getattr(table.config, "person", None) is not None else ""
    yield f"  A run reads {counted(checked.findings.records, 'record')}{whose} in it, and uses {checked.used:,}."


def _column(line: Line) -> str:
    """Say what stands in a column."""
    counts = (
        (line.missing, "missing"),
        (line.refused, "REFUSED"),
        (line.left_out, "left out of training"),
        (line.outside, "outside of the public range, which is allowed"),
    )
    told = [f"{count} {what}" for count, what in counts if count]
    return f"{line.column}: {line.declared}; {', '.join([f'{line.seen} found', *told])}"


def _finding(finding: Finding) -> Iterator[str]:
    """Say what was found, where, and what settles it."""
    place = [finding.where] * bool(finding.where) + [f"column {finding.column!r}"] * (finding.column is not None)
    kind = "refused" if finding.refuses else "to know"
    rows = ""
    if finding.rows:
        more = ", ..." if finding.count > len(finding.rows) else ""
        rows = f"; rows: {finding.count} ({', '.join(map(str, finding.rows))}{more})"
    values = f"; found: {', '.join(map(repr, finding.values))}" if finding.values else ""
    yield f"  {kind}: {''.join(f'{one}: ' for one in place)}{finding.what}{rows}{values}"
    if finding.settled_by:
        yield f"    settled by: {finding.settled_by}"


def _document(checked: Checked) -> dict[str, Any]:
    """Return the same for `--json`."""
    return {
        "table": checked.table.config.data_set,
        "party": checked.table.party,
        "refused": checked.refused,
        "rows": checked.findings.rows,
        "records": checked.findings.records,
        "used": checked.used,
        "columns": [vars(line) for line in checked.findings.lines],
        "findings": [vars(one) for one in (*checked.findings.found, *checked.notes)],
        "keys": checked.keys,
    }


VERBS: Final = (Verb(8, "data", data_app),)
