"""The verb `predict`. Thin: `scenarios.models` does the work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer

from fedmodel.system.counts import counted, one_or_more
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
from scenarios.cli.printing import Json, answer, err
from scenarios.cli.verbs import Verb

REFUSED: Final = 2
"""The exit status where a row was refused: the others are scored all the same."""
_MOST_NAMED: Final = 10


def predict(
    model: ModelPlace,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The rows to score: a CSV, Parquet or JSON lines file.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the scores go, a new CSV file. Default: standard output.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of two classes, the probability over which the second is predicted."),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="Keep what stands in this column, as a person's id.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The tokenizer.json by which a text is read, where one is.")
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
    """Score the rows of a file with a trained model: a probability of each class, and the label that is predicted.

    A model of survival answers the chance to be without the event at the end of each of its intervals.

    Rows are read as a silo reads its table. One that cannot be read is refused by its number, and the exit status is 2;
    the others are scored. The rows are not protected in any way.
    """
    from scenarios.models.predict import NOT_PROTECTED, as_rows, csv_form, write_scores
    from scenarios.models.predict import predict as scored
    from scenarios.models.trained import read_model

    form = csv_form(separator, decimal, encoding, yes or (), no or ())
    let_own_code_in(own_code)
    scores = scored(read_model(model, identity, base), data, form, threshold, id_column, tokenizer)
    if out is not None:
        write_scores(scores, out)
    done = len(scores) - len(scores.refused)
    told = f"{done} of {counted(len(scores), 'row')} {one_or_more(done, 'is', 'are')} scored"
    if as_json:
        where = {"scores": as_rows(scores)} if out is None else {"scores": str(out)}
        answer({"rows": len(scores), "refused": len(scores.refused), **where}, "", as_json)
    elif out is None:
        answer({}, scores.as_csv().removesuffix("\n"), as_json)
    else:
        answer({}, f"{told}: {out}", as_json)
    for row, rule in list(scores.refused.items())[:_MOST_NAMED]:
        err.print(f"row {row + 1}: {rule}", style="yellow", highlight=False, soft_wrap=True)
    if len(scores.refused) > _MOST_NAMED:
        err.print(
            f"and {counted(len(scores.refused) - _MOST_NAMED, 'more row')}, each named in the scores", style="yellow"
        )
    for line in hints(scores.refused.values(), words=bool(form.yes), comma=form.decimal == ","):
        err.print(line, style="yellow", highlight=False, soft_wrap=True)
    err.print(NOT_PROTECTED, highlight=False)
    if scores.refused:
        raise typer.Exit(REFUSED)


def hints(rules: Iterable[str], *, words: bool, comma: bool) -> list[str]:
    """Return which options may let refused rows be read, a line each; none of those that are said already.

    Args:
        rules: That rows break.
        words: Whether words for true and false are said.
        comma: Whether a decimal comma is.
    """
    broken = set(rules)
    found = []
    if not words and any("neither true nor false" in rule for rule in broken):
        found.append("Words of the file that mean true and false are said by --yes WORD and --no WORD.")
    if not comma and any("written with a decimal comma" in rule for rule in broken):
        found.append("A decimal comma is said by --decimal ,")
    return found


VERBS: Final = (Verb(12, "predict", predict),)
