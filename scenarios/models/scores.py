"""What of a model is explained: scores, which are weighed sums of its outputs, and the answers that people read.

| Task                   | Score                                                           | Answer                   |
|------------------------|-----------------------------------------------------------------|--------------------------|
| two classes            | the output: log-odds of the second                              | its probability          |
| several classes        | the output of the predicted class, less the mean of all outputs | the probability of each  |
| several labels at once | for each label its output, log-odds                             | the probability of each  |
| numbers                | each, in the label's own units and not bounded to its range     | the number, bounded      |
| survival               | the mean of the outputs: log-odds of the event in an interval   | mean of the curve: share |
|                        |                                                                 | of time without it       |

Outputs of several classes mean nothing but for their differences, so a score of one class alone would hang on what
noise added to all of them.

Shapes: N records, K outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.errors import ConfigError, ProtocolError
from fedmodel.learning.description import Description
from fedmodel.learning.inputs import called, rows_at_once
from scenarios.models.trained import Trained

PREDICTED: Final = "the class that is predicted"
WITHOUT: Final = "share of the time without the event"
EVENT: Final = "the event"
VALUE: Final = "value"


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        name: What more of it speaks for.
        scale: What it is in (`scenarios.runs.explanation.Explained`).
        weight_NK: By what each record's outputs are weighed, shape `(N, K)`.
    """

    name: str
    scale: Literal["log-odds", "margin", "units", "hazard", "score"]
    weight_NK: NDArray[np.float64]


def check_explained(description: Description) -> None:
    """Refuse a model of which no feature has a name or a place that means anything.

    Raises:
        ConfigError: What it takes, or answers.
    """
    data = description.data
    if any(column.length for column in description.columns) or data.below is not None:
        raise ConfigError(
            "this model reads text, whose features are tokens at places: a place means another thing in each record,"
            " so nothing is averaged over records, and it is not explained"
        )
    whole = [name for name, one in (data.inputs or {}).items() if one.below is not None]
    if whole:
        raise ConfigError(
            f"this model takes {', '.join(data.inputs or ())}, and of {', '.join(whole)} whole numbers, by which no"
            " answer has a gradient; a model of real numbers, in one array or several, is explained"
        )
    if description.task not in ("classification", "multi-label", "regression", "survival"):
        raise ConfigError(
            f"a model that answers one class, label, number or survival curve is explained, and this one is"
            f" {description.task}"
        )


def outputs_of(model: Trained, x_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a model's outputs for scaled records, as they are and in their own shape.

    Raises:
        ProtocolError: When one is not finite.
    """
    rows = rows_at_once(model.description.data)
    with torch.no_grad():
        parts = [
            called(model.module, torch.from_numpy(x_N[start : start + rows])) for start in range(0, len(x_N), rows)
        ]
    output_N: NDArray[np.float32] = torch.cat(parts).numpy()
    if not np.isfinite(output_N).all():
        raise ProtocolError("the model's outputs are not finite; it diverged in training, and is of no use")
    return output_N


def scores(description: Description, output_N: NDArray[np.float32]) -> Iterator[Score]:
    """Yield what is explained of some records.

    Args:
        description: Of the model.
        output_N: What it returns for them.
    """
    output_NK = output_N.reshape(len(output_N), -1)
    shape, outputs = output_NK.shape, output_NK.shape[1]
    odds: Literal["log-odds", "score"] = "score" if description.loss == "mse" else "log-odds"
    match description.task:
        case "survival":
            yield Score(EVENT, "hazard", np.full(shape, 1 / outputs))
        case "regression":
            low, high = description.label_range or (-1.0, 1.0)
            names = _numbers(description, outputs)
            for place, name in enumerate(names):
                yield Score(name, "units", _only(shape, place) * (high - low) / 2)
        case "multi-label":
            for place, name in enumerate(description.labels):
                yield Score(name, odds, _only(shape, place))
        case _ if outputs == 1:
            yield Score(description.labels[1], odds, np.ones(shape))
        case _:
            chosen_NK = np.eye(outputs)[output_NK.argmax(axis=1)]
            yield Score(PREDICTED, "margin", chosen_NK - 1 / outputs)


def answered(model: Trained, output_N: NDArray[np.float32]) -> Mapping[str, NDArray[np.float64]]:
    """Return what people read of outputs, by name; shape `(N,)` each."""
    description = model.description
    found: NDArray[Any] = description.aim.answers(torch.from_numpy(output_N)).numpy().astype(np.float64)
    match description.task:
        case "survival":
            return {WITHOUT: found.mean(axis=1)}
        case "regression":
            found_NK = found.reshape(len(found), -1)
            return dict(zip(_numbers(description, found_NK.shape[1]), found_NK.T, strict=True))
        case "classification" if len(description.labels) == 2:
            return {description.labels[1]: found[:, 1]}
        case _:
            return dict(zip(description.labels, found.T, strict=True))


def _numbers(description: Description, count: int) -> list[str]:
    """Return what numbers are called."""
    named = description.label or VALUE
    return [named] if count == 1 else [f"{named} {place + 1}" for place in range(count)]


def _only(shape: tuple[int, ...], place: int) -> NDArray[np.float64]:
    """Return weights of one output alone."""
    weight_NK = np.zeros(shape)
    weight_NK[:, place] = 1.0
    return weight_NK
