"""Scores for the rows of a file: a probability of each class, and the class that is predicted; a number; or a curve.

Guarantee: one line of scores for each row of the file, in the file's order; a row that cannot be read has no scores but
the rule that it breaks, and changes nothing about another's. On records that a silo would read, what is predicted is
what the run's own figures were measured by, at the description's threshold.

Does NOT protect the rows in any way: differential privacy is of the records that a model was trained on. A score tells
of its row, and whoever holds scores and the model may work out what stood in it. So a file of scores is for whoever may
read the rows, and is made readable by its owner alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from fedmodel.config import CsvForm
from fedmodel.data.named import arrays, each
from fedmodel.data.rows import read_rows
from fedmodel.data.tables import arranged
from fedmodel.errors import ConfigError, ProtocolError
from fedmodel.kinds.bases import TOKENIZER, folder_of_base
from fedmodel.kinds.columns import text_column
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.kinds.shape import SURVIVAL
from fedmodel.learning.description import THRESHOLD
from fedmodel.learning.inputs import called, rows_at_once
from fedmodel.system.durable import failed, replace_file
from scenarios.models.trained import Trained

NOT_PROTECTED: Final = (
    "These rows are not protected by differential privacy, or by anything else here. They were read in the open, and"
    " each score tells of its row: treat the scores as you treat the rows."
)
_SCORED: Final = ("classification", "multi-label", "regression", SURVIVAL)


@dataclass(frozen=True)
class Scores:
    """What a model says of a file's rows. Sensitive.

    Attributes:
        labels: Names of the classes, or of several labels at once, in order; of survival when each interval ends, as
            "24 months"; none of numbers.
        probability_NK: Of each of them, shape `(N, K)`, of survival to be without the event then; of refused rows it
            means nothing.
        predicted_N: What is predicted: a class, as a place among the labels; of several labels at once, whether each is
            said to be there, shape `(N, K)`; or a number in the label's own units. None of survival, where the curve is
            the answer.
        refused: By place from 0, the rule that a row breaks.
        ids: What stands in the rows' column of ids, where one was asked for.
    """

    labels: tuple[str, ...]
    probability_NK: NDArray[np.float32]
    predicted_N: NDArray[Any] | None
    refused: dict[int, str]
    ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.probability_NK)

    def __repr__(self) -> str:
        return "Scores(...)"  # a repr ends up in logs

    def predicted(self, row: int) -> str | float | list[str] | None:
        """Return what is predicted of a row, from 0: a class, the labels that are there, a number; None of a curve."""
        if self.predicted_N is None:
            return None
        found = self.predicted_N[row]
        if not self.labels:
            return float(found)
        if self.predicted_N.ndim == 1:
            return self.labels[int(found)]
        return [label for label, is_there in zip(self.labels, found.tolist(), strict=True) if is_there]

    def _in_fields(self, row: int) -> list[str]:
        """Return what is predicted of a row as the fields of a table: one, or none of a curve."""
        found = self.predicted(row)
        if isinstance(found, list):
            return ["; ".join(found)]
        return [] if found is None else [found if isinstance(found, str) else f"{found:.9g}"]

    def lines(self) -> Iterator[list[str]]:
        """Yield a table's lines, its header first: row, id, predicted label, probability by label, why refused."""
        ids = None if self.ids is None else iter(self.ids)
        predicted, each = ([], "survival at") if self.predicted_N is None else (["predicted"], "probability of")
        answers = [*predicted, *(f"{each} {label}" for label in self.labels)]
        yield ["row", *["id"] * (ids is not None), *answers, "refused"]
        for row, probability_K in enumerate(self.probability_NK):
            named = [str(row + 1), *([] if ids is None else [next(ids)])]
            if row in self.refused:
                yield [*named, *[""] * len(answers), self.refused[row]]
            else:
                told = [f"{value:.9g}" for value in probability_K.tolist()]  # nine digits tell every float32 apart
                yield [*named, *self._in_fields(row), *told, ""]

    def as_csv(self) -> str:
        """Return them as CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.lines())
        return text.getvalue()


def csv_form(separator: str, decimal: str, encoding: str, yes: Sequence[str] = (), no: Sequence[str] = ()) -> CsvForm:
    r"""Return how a CSV is written, by a person's words.

    >>> csv_form("\\t", ".", "utf-8").separator
    '\t'

    Raises:
        ConfigError: When one of them is none that is read.
    """
    try:
        named = {"separator": "\t" if separator == "\\t" else separator, "decimal": decimal, "encoding": encoding}
        return CsvForm.model_validate({**named, "yes": tuple(yes), "no": tuple(no)})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = f"--{first['loc'][0]}: " if first["loc"] else ""
        raise ConfigError(f"{option}{first['msg'].removeprefix('Value error, ')}") from None


def predict(
    model: Trained,
    path: Path,
    form: CsvForm,
    threshold: float | None = None,
    id_column: str | None = None,
    tokenizer: Path | None = None,
) -> Scores:
    """Score the rows of a CSV, Parquet or JSON lines file.

    Args:
        model: The model.
        path: Of the file; it needs the columns that features come from, and may have others.
        form: How a CSV is written.
        threshold: Of two classes, over which probability the second is predicted; the description's by default.
        id_column: The column by which a row is known again; the scores keep what stands in it.
        tokenizer: The file by which the model's text is read, where it is by one; that of its base by default.

    Raises:
        ConfigError: When the model is of records that are no rows of a table, a threshold says nothing, or the
            tokenizer is not said, or is another.
        DataError: When the file is refused whole (`fedmodel.data.rows`).
        ProtocolError: When an output is not finite.
    """
    description = model.description
    if not description.columns:
        raise ConfigError(
            f"a record of {description.source!r} is {description.record} without names, so no column of a table is"
            " known to be one of them; use the model from Python, as docs/model.md shows"
        )
    if description.task not in _SCORED:
        raise ConfigError(
            f"the rows of a table are scored by a {', '.join(_SCORED)} model, and this one is {description.task}"
        )
    if threshold is not None and description.task in ("regression", SURVIVAL):
        answer = "a survival curve" if description.task == SURVIVAL else "a number"
        raise ConfigError(f"--threshold belongs to a model of classes, and this one predicts {answer}; leave it out")
    if threshold is not None and description.task == "classification" and len(description.labels) != 2:
        raise ConfigError(
            f"--threshold belongs to a model of two classes, and this one has {len(description.labels)}: the class of"
            " the highest probability is predicted"
        )
    text = text_column(description.columns)
    if text is not None and text.tokenizer is not None and tokenizer is None:
        tokenizer = _of_base(model)
    if text is not None and text.tokenizer is not None and tokenizer is None:
        raise ConfigError(
            f"column {text.name!r} is read by a tokenizer; give its file as --tokenizer FILE, whose sha256 is"
            f" {text.tokenizer.sha256}"
        )
    if tokenizer is not None and (text is None or text.tokenizer is None):
        raise ConfigError(
            "--tokenizer belongs to a model whose text is read by one, and this one has none; leave it out"
        )
    place = None if tokenizer is None else str(tokenizer)
    rows = read_rows(path, description.columns, description.feature_bound, form, id_column, place)
    scored_NK = scores_of(model, shaped(model, rows.x_NF))
    if description.task == "regression":
        return Scores((), np.empty((len(scored_NK), 0), dtype=np.float32), scored_NK, rows.refused, rows.ids)
    if description.task == SURVIVAL:
        ends = tuple(f"{end:.12g} {description.time_unit}" for end in description.ends)
        return Scores(ends, scored_NK, None, rows.refused, rows.ids)
    over = (description.threshold or THRESHOLD) if threshold is None else threshold
    found_N = chosen(scored_NK, over) if description.task == "classification" else scored_NK > over
    return Scores(description.labels, scored_NK, found_N, rows.refused, rows.ids)


def _of_base(model: Trained) -> Path | None:
    """Return the tokenizer of the base that a model was put on, None of one on no base."""
    config = model.description.model
    folder = folder_of_base(config.sha256 or "") if isinstance(config, HfConfig) else None
    return None if folder is None else folder / TOKENIZER


def shaped(model: Trained, x_NF: NDArray[np.float32]) -> NDArray[np.float32] | dict[str, NDArray[Any]]:
    """Return rows of features as the model takes them: images of which each pixel is a column, or a text's tokens."""
    return arranged(model.description.columns, model.description.shape, x_NF)


def scores_of(model: Trained, x_N: NDArray[np.float32] | Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return what a model answers of scaled records: a probability of each class, label or end, `(N, K)`, or a number.

    Raises:
        ProtocolError: When an output is not finite.
    """
    aim, rows = model.description.aim, rows_at_once(model.description.data)
    each_has = len(model.description.ends or model.description.labels)
    parts = [np.empty((0, *([each_has] if each_has else aim.task.shape.targets.size)), dtype=np.float32)]
    count = len(next(iter(arrays(x_N))))
    with torch.no_grad():
        for start in range(0, count, rows):
            lot = slice(start, start + rows)
            output_BK = called(model.module, each(x_N, lambda one: torch.tensor(one[lot])))  # noqa: B023 - at once
            parts.append(aim.answers(output_BK).numpy())
    score_NK: NDArray[np.float32] = np.concatenate(parts)
    if not np.isfinite(score_NK).all():
        raise ProtocolError("the model's outputs are not finite; it diverged in training, and is of no use")
    return score_NK


def chosen(score_NK: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Return the class that is predicted for each record.

    >>> chosen(np.array([[0.5, 0.5], [0.4, 0.6]], dtype=np.float32), 0.5).tolist()
    [0, 1]
    """
    found_N: NDArray[np.intp] = (
        (score_NK[:, 1] > threshold).astype(np.intp) if score_NK.shape[1] == 2 else score_NK.argmax(axis=1)
    )
    return found_N


def write_scores(scores: Scores, path: Path) -> None:
    """Write scores as CSV into a new file, readable by its owner alone.

    Raises:
        ConfigError: When something is there already, or it cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(f"--out {path}: is there already, and scores are not written over anything; name a new file")
    try:
        replace_file(path, scores.as_csv().encode())
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written: {failed(error)}") from None


def as_rows(scores: Scores) -> list[dict[str, object]]:
    """Return scores as an object a row."""
    ids = [{}] * len(scores) if scores.ids is None else [{"id": one} for one in scores.ids]
    is_curve = scores.predicted_N is None

    def told(row: int) -> dict[str, object]:
        is_refused = row in scores.refused
        found: dict[str, object] = {} if is_curve else {"predicted": None if is_refused else scores.predicted(row)}
        if scores.labels:
            by_label = dict(zip(scores.labels, scores.probability_NK[row].tolist(), strict=True))
            found["survival" if is_curve else "probabilities"] = None if is_refused else by_label
        return found

    return [{"row": row + 1, **ids[row], **told(row), "refused": scores.refused.get(row)} for row in range(len(scores))]
