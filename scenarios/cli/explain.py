"""The verb `explain`. Thin: `scenarios.models.explain` does the work, `scenarios.report.page.explained` draws it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from fedmodel.system.counts import counted, one_or_more
from fedmodel.system.inert import inert
from scenarios.cli.options import (
    BaseFolder,
    Decimal,
    Encoding,
    Identity,
    ModelPlace,
    No,
    OwnCode,
    Separator,
    Yes,
    let_own_code_in,
)
from scenarios.cli.printing import Json, answer, err, out
from scenarios.cli.verbs import Verb

if TYPE_CHECKING:
    from scenarios.models.explain import Looked
    from scenarios.models.trained import Trained
    from scenarios.runs.explanation import Explained, Explanation

_MOST_ROWS: Final = 12
_MOST_FIGURES: Final = 4


def explain(
    model: ModelPlace,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own records, a CSV, Parquet or JSON lines file: nothing leaves."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The server's held-out records, where they are in a file.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Figures for each part of the records. Default: columns with choices."),
    ] = None,
    least: Annotated[int, typer.Option(min=1, help="Records that a part needs to have figures.")] = 20,
    to: Annotated[
        Path | None,
        typer.Option("--out", help="The folder to write, a new one. Default: the run's own; none of --table."),
    ] = None,
    identity: Identity = None,
    own_code: OwnCode = None,
    base: BaseFolder = None,
    separator: Separator = ",",
    decimal: Decimal = ".",
    encoding: Encoding = "utf-8",
    yes: Yes = None,
    no: No = None,
    as_json: Json = False,
) -> None:
    """Say what a model's answers rest on, how each column moves them, and for which parts of the records it is good.

    Of a run it is over the server's held-out records, and `report build` puts it into the report. With --table it is
    over your own, stays on this machine, and goes into a folder that only you can read.
    """
    from scenarios.models.explain import HELD_OUT, OWN, check_place, write
    from scenarios.models.explain import explain as explained
    from scenarios.models.predict import csv_form
    from scenarios.models.scores import check_explained
    from scenarios.models.trained import read_model

    form = csv_form(separator, decimal, encoding, yes or (), no or ())
    folder = _place(model, table, held_out, to)
    check_place(folder, is_new=to is not None)
    let_own_code_in(own_code)
    with err.status("explaining") if err.is_terminal else nullcontext():
        trained = read_model(model, identity, base)
        check_explained(trained.description)  # before a record is read
        looked = _looked(trained, model, table, held_out, form)
        found = explained(trained, looked, by or (), least)
        from scenarios.report.page.explained import drawn

        pictures = {f"explanation-{one.name.removeprefix('plot-')}.png": one.as_png() for one in drawn(found)}
        write(found, pictures, folder, is_new=to is not None)
    files = [str(folder / name) for name in ("explanation.json", *pictures)]
    if as_json:
        more = {"refused": looked.refused, "files": files}
        answer({**found.model_dump(mode="json"), **more}, "", as_json)
    else:
        _show(found, looked, files)
    err.print(OWN if table is not None else HELD_OUT, highlight=False)


def _place(model: Path, table: Path | None, held_out: Path | None, to: Path | None) -> Path:
    """Return the folder to write to."""
    from fedmodel.errors import ConfigError

    if table is not None and held_out is not None:
        raise ConfigError("--table is of your own records, and --held-out of the server's; give one of the two")
    if to is not None:
        return to
    if table is not None:
        raise ConfigError("--table: what is written tells of your records; name a new folder for it with --out")
    if not model.is_dir():
        raise ConfigError(f"{model}: is no run's folder; name a new folder with --out")
    return model


def _looked(trained: Trained, model: Path, table: Path | None, held_out: Path | None, form: Any) -> Looked:
    """Return the records that are looked at."""
    from scenarios.models import explain as of

    if table is not None:
        return of.of_file(trained, table, form, "own")
    return of.held_out(model) if held_out is None else of.of_file(trained, held_out, form, "held-out")


def _show(found: Explanation, looked: Looked, files: list[str]) -> None:
    """Print what was found, 80 columns wide."""
    how = (
        "exact, since the model is linear"
        if found.method == "exact"
        else f"by integrated gradients in {counted(found.steps, 'step')}, which miss {found.gap:.2%} on average"
    )
    out.print(
        f"What answers rest on, over {counted(found.looked_at, 'record')}: {how}.", highlight=False, soft_wrap=True
    )
    if looked.refused:
        out.print(
            f"{counted(looked.refused, 'row')} that cannot be read, or {one_or_more(looked.refused, 'has', 'have')} no"
            f" label, {one_or_more(looked.refused, 'is', 'are')} left out.",
            highlight=False,
        )
    for one in found.explained:
        if one.effects:
            out.print(_effects(one))
    if found.groups:
        out.print(_groups(found))
    for column, count in found.left_out.items():
        parts = f"{count} parts of {inert(column)} have" if count > 1 else f"One part of {inert(column)} has"
        line = f"{parts} fewer than {counted(found.least, 'record')}, and no figures."
        out.print(line, highlight=False, soft_wrap=True)
    if found.no_groups is not None:
        out.print(f"No figures by group: {inert(found.no_groups)}.", highlight=False, soft_wrap=True)
    if not found.dependence and found.explained[0].effects:
        line = "No curves: they go over public ranges, and none is declared of these numbers."
        out.print(line, highlight=False, soft_wrap=True)
    if found.not_drawn:
        out.print(
            f"{counted(found.not_drawn, 'column')} that {one_or_more(found.not_drawn, 'counts', 'count')} least"
            f" {one_or_more(found.not_drawn, 'has', 'have')} no curve.",
            highlight=False,
        )
    for file in files:
        out.print(inert(file), soft_wrap=True, highlight=False)


def _effects(one: Explained) -> Table:
    """Return what a score rests on, as a table."""
    table = Table(title=f"Toward {inert(one.name)}, and away from it, on average ({one.scale})", title_justify="left")
    table.add_column("column", overflow="fold")
    for heading in ("in all", "toward", "away"):
        table.add_column(heading, justify="right")
    for effect in one.effects[:_MOST_ROWS]:
        table.add_row(inert(effect.name), *(f"{value:.4f}" for value in (effect.size, effect.toward, effect.away)))
    if (rest := len(one.effects) - _MOST_ROWS) > 0:
        table.add_row(f"and {rest} more, in explanation.json", "", "", "")
    return table


def _groups(found: Explanation) -> Table:
    """Return figures by group, as a table; the first that there is room for."""
    table = Table(title="How good it is for parts of the records", title_justify="left")
    for heading in ("column", "part"):
        table.add_column(heading, overflow="fold")
    table.add_column("records", justify="right")
    keys = list(found.figures)[:_MOST_FIGURES]
    for key in keys:
        table.add_column(key, justify="right", overflow="fold")
    rows = [("all", "", found.count, found.figures)]
    rows += [(inert(one.column), inert(one.group), one.records, one.figures) for one in found.groups]
    for column, group, count, figures in rows:
        table.add_row(column, group, f"{count:,}", *(f"{figures[key]:.3f}" if key in figures else "-" for key in keys))
    return table


VERBS: Final = (Verb(13, "explain", explain),)
