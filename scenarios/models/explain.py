"""How a model answers, over records that a party may look at: what it rests on, how it bends, for whom it is good.

| Records                                   | Whose                  | What is written goes                            |
|-------------------------------------------|------------------------|-------------------------------------------------|
| the run's held-out ones, or a file of the | the server's, to which | into the run's folder, and into its report when |
| server's own                              | no epsilon belongs     | that is built                                   |
| a file of a party's own                   | that party's, which    | into a new folder that the party names, for its |
|                                           | may be private         | owner alone; no report takes it                 |

Guarantee: nothing is sent. No module of this package that is imported here opens a connection, nothing is charged, and
no ledger is touched. All that is written is one document and pictures of it, in the one folder, with modes 0700 and
0600, whole or not at all.

Does NOT protect the records: attributions, dependence and figures are exact functions of them. Of a model they tell
nothing that whoever holds it could not compute: they are post-processing, and use none of its epsilon.

Neither Flower nor Opacus, nor what runs at a server or a silo, is imported for it.

Shapes: N records, F features in one row.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import CsvForm, read_scenario
from fedmodel.data import held_out_records
from fedmodel.data.rows import read_rows, read_targets
from fedmodel.errors import ConfigError, DataError
from fedmodel.learning.description import Description
from fedmodel.system.durable import erase_folder, failed, replace_file, sync_folder
from scenarios.models.attributions import Attributed, attributions, linear, parted
from scenarios.models.dependence import dependence
from scenarios.models.factors import Factor, baseline, factors
from scenarios.models.groups import chosen, figures, groups
from scenarios.models.predict import shaped
from scenarios.models.scores import check_explained, outputs_of, scores
from scenarios.models.several import in_rows
from scenarios.models.trained import Trained
from scenarios.runs.explanation import EXPLANATION, Effect, Explained, Explanation, Group

OWN: Final = (
    "Nothing left this machine: no connection was opened, and no budget was charged. What was written are functions of"
    " these records, which no epsilon covers: keep it where the records may be."
)
HELD_OUT: Final = (
    "This uses none of the run's epsilon: whoever holds the model can compute it. It tells of the held-out records,"
    " exactly, and no epsilon covers those."
)
_MOST: Final = 256
"""Records that integrals and dependence are over, evenly over all; attributions of a linear model are over all."""
_MOST_CURVES: Final = 40
_MOST_SIDE: Final = 32


@dataclass(frozen=True)
class Looked:
    """Records that a model is explained on. Sensitive where they are a party's own.

    Attributes:
        x_N: Scaled, as the model takes them: one array, or several by name.
        target_N: Their targets; None where nobody says them.
        whose: Whether the server holds them out, or they are a party's own.
        reason: Why there are no targets.
        refused: How many rows of a file were left out.
    """

    x_N: NDArray[np.float32] | Mapping[str, NDArray[Any]]
    target_N: NDArray[Any] | None
    whose: Literal["held-out", "own"]
    reason: str | None = None
    refused: int = 0

    def __repr__(self) -> str:
        return "Looked(...)"  # a repr ends up in logs


def held_out(run_dir: Path) -> Looked:
    """Return a run's own held-out records.

    Raises:
        ConfigError: When they are not at hand.
    """
    file = run_dir / "scenario.toml"
    if not file.is_file():
        raise ConfigError(
            f"{run_dir}: holds no scenario.toml, so there are no held-out records; name records of your own with"
            " --table FILE, or a server's with --held-out FILE"
        )
    try:
        records = held_out_records(read_scenario(str(file)))
    except (ConfigError, DataError) as error:
        raise ConfigError(
            f"the run's held-out records are not at hand ({error}); name the server's with --held-out FILE, or records"
            " of your own with --table FILE"
        ) from None
    return Looked(records.x, records.y_N, "held-out")


def of_file(model: Trained, path: Path, form: CsvForm, whose: Literal["held-out", "own"]) -> Looked:
    """Return the rows of a file, read as a silo reads its table; those that it would refuse are left out.

    Raises:
        ConfigError: When the model's records are no rows of a table.
        DataError: When the file is refused whole, or no row is left.
    """
    description = model.description
    if not description.columns:
        raise ConfigError(
            f"a record of {description.source!r} is {description.record} without names, so no column of a table is"
            " known to be one of them; explain the run on its own held-out records"
        )
    rows = read_rows(path, description.columns, description.feature_bound, form)
    keep_N = np.ones(len(rows.x_NF), dtype=np.bool_)
    keep_N[list(rows.refused)] = False
    target_N, reason = None, None
    try:
        target_N, known_N = _targets(path, description, form)
        keep_N &= known_N
    except DataError as error:
        reason = str(error)
    if not keep_N.any():
        raise DataError(f"{path}: has no row that can be read, and a model is explained on some")
    x_N = shaped(model, rows.x_NF[keep_N])
    return Looked(x_N, None if target_N is None else target_N[keep_N], whose, reason, int((~keep_N).sum()))


def _targets(path: Path, description: Description, form: CsvForm) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return a file's targets, and which rows have one."""
    if description.label is None and description.task != "multi-label":
        raise DataError("the model does not say by which column its label is known")
    timed = None if description.time is None else (description.time, description.ends)
    return read_targets(path, description.label, description.labels, description.label_range, form, timed)


def explain(model: Trained, looked: Looked, by: Sequence[str] = (), least: int = 20) -> Explanation:
    """Explain a model on some records.

    Args:
        model: The model.
        looked: The records, one at least.
        by: Columns by which figures are told for parts of the records; all that have choices by default.
        least: Records that a part needs.

    Raises:
        ConfigError: When the model is of none of the kinds that are explained, a package is missing, or there is no
            column of a name or no label to tell figures by.
        ProtocolError: When the model's outputs are not finite.
    """
    description = model.description
    check_explained(description)
    if by and looked.target_N is None:
        raise ConfigError(f"--by: figures compare answers with labels, and there are none: {looked.reason}")
    model, x_N = in_rows(model, looked.x_N)
    found, image = factors(description), _is_image(description)
    parts = [] if image else chosen(found, by)
    if image and by:
        raise ConfigError("--by: the pixels of an image are no columns by which records could be parted; leave it out")
    whole_N = outputs_of(model, x_N)
    few_N = _spread(len(x_N), _MOST)
    attributed_N = np.arange(len(x_N)) if linear(model.module) is not None else few_N
    explained, how = _explained(model, x_N[attributed_N], whole_N[attributed_N], found)
    single = [] if image else [factor for factor in found if factor.kind != "array"]
    curves = _most(explained, single)
    told, left_out, own = tuple[Group, ...](), dict[str, int](), dict[str, float]()
    if looked.target_N is not None:
        rows_NF = x_N.reshape(len(x_N), -1)
        told, left_out = groups(description.aim, parts, rows_NF, whole_N, looked.target_N, least)
        own = figures(description.aim, whole_N, looked.target_N)
    return Explanation(
        model=model.sha256,
        scenario_hash=description.scenario_hash,
        records=looked.whose,
        count=len(x_N),
        looked_at=len(attributed_N),
        curves_over=len(few_N),
        method=how.method,
        steps=how.steps,
        gap=how.gap,
        explained=explained,
        dependence=tuple(dependence(model, x_N[few_N], curves)),
        not_drawn=len(single) - len(curves),
        least=least,
        groups=told,
        left_out=left_out,
        figures=own,
        no_groups=_no_groups(looked, parts, single),
    )


def _explained(
    model: Trained, x_N: NDArray[np.float32], output_N: NDArray[np.float32], found: Sequence[Factor]
) -> tuple[tuple[Explained, ...], Attributed]:
    """Return what each score rests on, and how that was found; of several scores, as the worst of them was."""
    told, ways = list[Explained](), list[Attributed]()
    for score in scores(model.description, output_N):
        way = attributions(model.module, x_N, score.weight_NK, baseline(found))
        ways.append(way)
        if _is_image(model.description):
            maps = _maps(way.value_NF, model.description.shape)
            told.append(Explained(name=score.name, scale=score.scale, effects=(), towards=maps[0], aways=maps[1]))
            continue
        toward, away = parted(way.value_NF, [factor.places for factor in found])
        effects = [
            Effect(name=factor.name, toward=float(up), away=float(down))
            for factor, up, down in zip(found, toward, away, strict=True)
        ]
        effects.sort(key=lambda effect: -effect.size)
        told.append(Explained(name=score.name, scale=score.scale, effects=tuple(effects)))
    return tuple(told), max(ways, key=lambda way: (way.gap, way.steps))


def _is_image(description: Description) -> bool:
    """Return whether a record is an image: channels, height and width."""
    return len(description.shape) == 3


def _maps(value_NF: NDArray[np.float64], shape: tuple[int, ...]) -> list[tuple[tuple[float, ...], ...]]:
    """Return where in an image attributions are above 0 on average, and where below; channels are added up first."""
    image_NHW = value_NF.reshape(len(value_NF), *shape).sum(axis=1)
    for axis in (1, 2):
        if (side := image_NHW.shape[axis]) > _MOST_SIDE:
            begins = np.linspace(0, side, _MOST_SIDE, endpoint=False).astype(np.intp)
            image_NHW = np.add.reduceat(image_NHW, begins, axis=axis)
    both = (np.maximum(image_NHW, 0).mean(axis=0), np.maximum(-image_NHW, 0).mean(axis=0))
    return [tuple(map(tuple, one.tolist())) for one in both]


def _most(explained: Sequence[Explained], found: Sequence[Factor]) -> list[Factor]:
    """Return the columns that count most, over all scores, in that order."""
    sizes = dict.fromkeys((factor.name for factor in found), 0.0)
    for one in explained:
        whole = sum(effect.size for effect in one.effects) or 1.0
        for effect in (effect for effect in one.effects if effect.name in sizes):
            sizes[effect.name] += effect.size / whole
    return sorted(found, key=lambda factor: -sizes[factor.name])[:_MOST_CURVES]


def _no_groups(looked: Looked, parts: Sequence[Factor], single: Sequence[Factor]) -> str | None:
    """Say why there are no figures by group."""
    if looked.target_N is None:
        return looked.reason
    named = "; columns of numbers are named with --by" if single else ", and no public range of numbers is declared"
    return None if parts else f"no column has choices{named}"


def _spread(count: int, most: int) -> NDArray[np.intp]:
    """Return the places of all of some records, or of so many, evenly over them.

    >>> _spread(3, 5).tolist(), _spread(9, 3).tolist()
    ([0, 1, 2], [0, 4, 8])
    """
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.intp)


def check_place(folder: Path, *, is_new: bool) -> None:
    """Refuse a place to write to where something is already.

    Raises:
        ConfigError: What is there.
    """
    there = folder if is_new else folder / EXPLANATION
    if there.exists() or there.is_symlink():
        what = "name a new folder with --out" if is_new else "take it away, or name a new folder with --out"
        raise ConfigError(f"{there}: is there already, and nothing is written over; {what}")


def write(explanation: Explanation, pictures: Mapping[str, bytes], folder: Path, *, is_new: bool) -> None:
    """Write an explanation and pictures of it, readable by their owner alone.

    Args:
        explanation: What was found; of a run's folder it is written last.
        pictures: By the names of their files.
        folder: Where to: a new one, or that of a run.
        is_new: Which of the two.

    Raises:
        ConfigError: When something is there already, or it cannot be written.
    """
    check_place(folder, is_new=is_new)
    beside = folder.with_name(folder.name + ".partial") if is_new else folder
    try:
        if is_new:
            erase_folder(beside)
            folder.parent.mkdir(parents=True, exist_ok=True)
            beside.mkdir(mode=0o700)
        for name, data in pictures.items():
            replace_file(beside / name, data)
        replace_file(beside / EXPLANATION, explanation.written())
        if is_new:
            beside.rename(folder)
            sync_folder(folder.parent)
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written: {failed(error)}") from None
    finally:
        if is_new:
            shutil.rmtree(beside, ignore_errors=True)
