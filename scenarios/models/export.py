"""A trained model in another format, with its description and a card, for whoever is to use it.

Guarantee: the folder that is named appears whole or not at all, and only once the file in it was opened again, as its
users open it, and gave the answers that fedmodel gives, to `TOLERANCE`, for every held-out record.

Those records are the ones that the run itself was measured on, where this machine can tell them: of a data set that is
dealt out, or of the folder of a simulation. A deployed server's table is named by whoever exports.

A model may be made smaller on the way (`scenarios.models.smaller`). Then these answers are the smaller model's, and the
card says how much worse they are than the whole model's, and how many bytes were saved.

Does NOT export what would read a table: `model.json` says how columns become features.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import CsvForm, Scenario, read_scenario
from fedmodel.data import Records, held_out_records
from fedmodel.data.named import arrays, each
from fedmodel.data.rows import read_rows
from fedmodel.errors import ConfigError, DataError, FedmodelError
from fedmodel.kinds.bases import TOKENIZER
from fedmodel.learning.description import DESCRIPTION
from fedmodel.learning.inputs import rows_at_once
from fedmodel.system.durable import erase_folder, failed, replace_file, sync_folder
from scenarios.models.card import CARD, card
from scenarios.models.formats import FORMATS, Format, answered
from scenarios.models.measured_again import Cost, cost_of
from scenarios.models.predict import shaped
from scenarios.models.smaller import WHOLE, Smaller
from scenarios.models.trained import Trained, read_model
from scenarios.runs.files import read_summary

TOLERANCE: Final = 1e-5
"""Most that a probability may differ by: other libraries add a sum of float32 up in another order."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: Where.
        file: The model's file in it.
        records: Held-out records that it was compared on.
        differs: Most that a probability differed by; or a value, in halves of its public range.
        answers: What they are.
        cost: Of making the model smaller, None where it is whole.
    """

    folder: Path
    file: str
    records: int
    differs: float
    answers: str
    cost: Cost | None = None


def export(
    run_dir: Path,
    kind: str,
    folder: Path,
    identity: Path | None,
    held_out: Path | None,
    form: CsvForm,
    base: Path | None = None,
    smaller: Smaller = WHOLE,
) -> Exported:
    """Write a run's model in a format, with what its users need.

    Args:
        run_dir: The run's folder.
        kind: One of `FORMATS`.
        folder: Where to; new.
        identity: The age key file that opens a sealed model.
        held_out: Records to compare on, a CSV or Parquet file; the run's own by default.
        form: How that CSV is written.
        base: The folder of the base that it was trained on, where it was on one.
        smaller: What of it is left out, and how weights are written; all of it as it is by default.

    Raises:
        ConfigError: When a package is missing, something is there already, no records can be told to compare on, or the
            model cannot be made smaller as it is asked for.
        DataError: When these records cannot be read.
        FedmodelError: When what was written gives other probabilities.
    """
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"--out {folder}: is there already, and nothing is written over; name a new folder")
    model, how = read_model(run_dir, identity, base), FORMATS[kind]
    if ((data := model.description.data).inputs is not None or data.below is not None) and not how.takes_texts:
        raise ConfigError(
            f"this model takes {model.description.record}, and {kind} is of one array of real numbers; take"
            " safetensors, or use it from Python, as docs/model.md shows"
        )
    if not smaller.is_nothing and not how.takes_smaller:
        raise ConfigError(
            f"--format {kind} is the model as the run ended with it; one that is made smaller is written as torch or"
            " onnx"
        )
    scenario, summary = _read(run_dir)
    x_N, labelled = _compared_on(scenario, model, held_out, form, base)
    count = len(next(iter(arrays(x_N))))
    made = model if smaller.is_nothing else replace(model, module=smaller.of(model.module))
    right_NK = how.right(made, x_N)  # first: a form's own tracing would wrap what a layer refuses
    beside = folder.with_name(folder.name + ".partial")
    try:
        erase_folder(beside)
        beside.mkdir(parents=True)
        replace_file(beside / DESCRIPTION, model.description.written())
        how.write(made, beside / how.file)
        low, high = model.description.label_range or (-1.0, 1.0)
        differs = _difference(how.open(beside / how.file)(x_N), right_NK) / ((high - low) / 2)
        if differs > TOLERANCE:
            raise FedmodelError(
                f"{how.file}: opened again, it gives {answered(model)} that differ by {differs:.2g} from the model's,"
                f" more than {TOLERANCE:g}; nothing was written"
            )
        cost = None
        if not smaller.is_nothing:
            files = _whole_file(how, model, beside), (beside / how.file).read_bytes()
            cost = cost_of(smaller, model, made, (how.right(model, x_N), right_NK), labelled, files)
        lines = () if cost is None else tuple(cost.lines())
        replace_file(beside / CARD, card(scenario, summary, model, run_dir, how.file, lines).encode())
        beside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written: {failed(error)}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Exported(folder, how.file, count, differs, answered(model), cost)


def _whole_file(how: Format, model: Trained, folder: Path) -> bytes:
    """Return the file of a model as it is, which is not kept."""
    path = folder / f"whole-{how.file}"
    try:
        how.write(model, path)
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def _read(run_dir: Path) -> tuple[Scenario, dict[str, object]]:
    """Return what a run was, and what came of it."""
    for name in ("scenario.toml", "summary.json"):
        if not (run_dir / name).is_file():
            raise ConfigError(f"{run_dir}: holds no {name}, so it is not the folder of a run that has ended")
    return read_scenario(str(run_dir / "scenario.toml")), read_summary(run_dir / "summary.json")


def _compared_on(
    scenario: Scenario, model: Trained, held_out: Path | None, form: CsvForm, base: Path | None
) -> tuple[NDArray[np.float32] | Mapping[str, NDArray[Any]], Records | None]:
    """Return held-out records, scaled; of a model that answers each token, as many as are looked at together.

    Beside them they stand with their labels, where these are known.
    """
    if held_out is None:
        labelled = _own_held_out(scenario)
        found = labelled.x
    else:
        labelled, found = None, _read_held_out(model, held_out, form, base)
    shape = model.description.data
    most = rows_at_once(shape) if shape.targets.size and shape.inputs else None
    return each(found, lambda one: one[:most]), labelled


def _own_held_out(scenario: Scenario) -> Records:
    """Return the run's held-out records."""
    try:
        return held_out_records(scenario)
    except (ConfigError, DataError) as error:
        raise ConfigError(
            f"the run's held-out records are not at hand ({error}); name some with --held-out FILE, to compare on"
        ) from None


def _read_held_out(
    model: Trained, held_out: Path, form: CsvForm, base: Path | None
) -> NDArray[np.float32] | Mapping[str, NDArray[Any]]:
    """Return the records of the file that is named; it needs no labels, and none is read."""
    if not model.description.columns:
        raise ConfigError("--held-out: this model's records are no rows of a table; leave it out")
    tokenizer = None if base is None else str(base / TOKENIZER)
    columns, bound = model.description.columns, model.description.feature_bound
    rows = read_rows(held_out, columns, bound, form, tokenizer=tokenizer)
    if rows.refused:
        row, rule = next(iter(rows.refused.items()))
        raise DataError(f"{held_out}: row {row + 1}: {rule}; a row to compare on is one that is read")
    if not len(rows.x_NF):
        raise DataError(f"{held_out}: has no row, and a model is compared on some")
    return shaped(model, rows.x_NF)


def _difference(found_NK: NDArray[np.float32], right_NK: NDArray[np.float32]) -> float:
    """Return the most that two tables of answers differ by, infinity where one is no such table."""
    if found_NK.shape != right_NK.shape or not np.isfinite(found_NK).all():
        return float("inf")
    return float(np.abs(found_NK.astype(np.float64) - right_NK).max())
