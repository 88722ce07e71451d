"""The verb `export`. Thin: `scenarios.models` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from fedmodel.system.counts import counted
from scenarios.cli.options import BaseFolder, Decimal, Encoding, Identity, OwnCode, Separator, let_own_code_in
from scenarios.cli.printing import Json, answer
from scenarios.cli.verbs import Verb


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    kind: Annotated[str, typer.Option("--format", help="safetensors, torch, onnx or peft.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write, a new one. Default: export/FORMAT in the run's folder.")
    ] = None,
    identity: Identity = None,
    own_code: OwnCode = None,
    base: BaseFolder = None,
    prune: Annotated[
        float | None, typer.Option(help="The share of weights, the smallest, to set to zero. Of torch and onnx.")
    ] = None,
    prune_units: Annotated[
        float | None, typer.Option(help="The share of units to take out of each fully connected hidden layer.")
    ] = None,
    quantise: Annotated[
        str | None, typer.Option(metavar="int8", help="Write weights of linear and convolutional layers as int8.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(help="Records to compare on, a CSV or Parquet file. Default: the run's own held-out records."),
    ] = None,
    separator: Separator = ",",
    decimal: Decimal = ".",
    encoding: Encoding = "utf-8",
    as_json: Json = False,
) -> None:
    """Write a run's model in another format, with model.json and a card (README.md), for others to use.

    What was written is opened again, and compared with the model on held-out records, before it is said to be written.
    A model that is made smaller comes with how much worse it is on these records, in its card.
    """
    from fedmodel.errors import ConfigError
    from fedmodel.system.kinds import not_known
    from scenarios.models.export import export as exported
    from scenarios.models.formats import FORMATS
    from scenarios.models.predict import csv_form
    from scenarios.models.smaller import Smaller

    if kind not in FORMATS:
        raise ConfigError(f"--format: {not_known('format', kind, FORMATS)}")
    folder = run / "export" / kind if out is None else out
    let_own_code_in(own_code)
    smaller = Smaller(prune, prune_units, quantise)
    done = exported(run, kind, folder, identity, held_out, csv_form(separator, decimal, encoding), base, smaller)
    differs = (
        f"no value differs by more than {done.differs:.1g} of half its range"
        if done.answers == "values"
        else f"no probability differs by more than {done.differs:.1g}"
    )
    told = (
        f"{done.folder / done.file}: opened again, and compared on {counted(done.records, 'held-out record')}:"
        f" {differs}. Beside it: model.json and README.md, the card."
    )
    found: dict[str, object] = {
        "folder": str(done.folder), "file": done.file, "records": done.records, "differs": done.differs
    }  # fmt: skip
    if done.cost is not None:
        told, found = f"{told}\n{done.cost.told()}", found | {"smaller": done.cost.as_row()}
    answer(found, told, as_json)


VERBS: Final = (Verb(14, "export", export),)
