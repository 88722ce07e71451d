"""What making a model smaller cost, on held-out records, and what it saved: for the card, and for whoever exports.

Shapes: N held-out records, K classes.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.data import Records
from fedmodel.learning.description import THRESHOLD
from scenarios.models.predict import chosen
from scenarios.models.smaller import Smaller
from scenarios.models.trained import Trained
from scenarios.runs import words
from server.metrics import evaluate


@dataclass(frozen=True)
class Cost:
    """What it cost and saved.

    Attributes:
        done: What was done.
        records: Held-out records that it was measured on.
        differs: Most that an answer differs from the whole model's: a probability, or a value.
        alike: The share of records whose predicted class is the whole model's; None where classes are not predicted.
        before: Figures of the whole model on these records; none where they have no labels.
        after: The same of the smaller one.
        sizes: Bytes of the whole model's file and of the smaller one's.
        zipped: The same of both under gzip.
    """

    done: Smaller
    records: int
    differs: float
    alike: float | None
    before: Mapping[str, float]
    after: Mapping[str, float]
    sizes: tuple[int, int]
    zipped: tuple[int, int]

    def lines(self) -> Iterator[str]:
        """Yield the card's section."""
        yield from ("## Made smaller", "")
        yield f"This file is not the model that the run ended with, but made from it. {' '.join(self.done.sentences())}"
        yield "The figures above and below this section are of the whole model, and of the run."
        yield ""
        yield f"On {words.counted(self.records, 'held-out record')}:"
        yield from ("", "| | whole | smaller |", "|---|---|---|")
        for name, figure in self.before.items():
            after = words.metric(self.after[name]) if name in self.after else "not defined"
            yield f"| {name} | {words.metric(figure)} | {after} |"
        yield f"| bytes of the file | {self.sizes[0]:,} | {self.sizes[1]:,} |"
        yield f"| bytes under gzip | {self.zipped[0]:,} | {self.zipped[1]:,} |"
        yield ""
        yield f"No answer differs by more than {self.differs:.2g}{self._classes()}."
        if not self.before:
            yield "These records have no labels, so that no loss of accuracy is known: measure it before use."
        yield ""

    def _classes(self) -> str:
        return (
            ""
            if self.alike is None
            else f"; of {100 * self.alike:.4g} % of the records the predicted class is the same"
        )

    def as_row(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "records": self.records,
            "differs": self.differs,
            "alike": self.alike,
            "before": dict(self.before),
            "after": dict(self.after),
            "bytes": list(self.sizes),
            "bytes_zipped": list(self.zipped),
        }

    def told(self) -> str:
        """Say it in a line."""
        lost = ", ".join(
            f"{name} {words.metric(figure)} to {words.metric(self.after[name])}"
            for name, figure in self.before.items()
            if name in self.after
        )
        return (
            f"Made smaller: {self.sizes[0]:,} bytes to {self.sizes[1]:,} ({self.zipped[0]:,} to {self.zipped[1]:,}"
            f" under gzip); {lost or 'the records have no labels, so that its loss of accuracy is not known'}."
        )


def cost_of(
    done: Smaller,
    whole: Trained,
    made: Trained,
    answers: tuple[NDArray[np.float32], NDArray[np.float32]],
    labelled: Records | None,
    files: tuple[bytes, bytes],
) -> Cost:
    """Return what making a model smaller cost and saved.

    Args:
        done: What was done.
        whole: The model.
        made: The smaller one.
        answers: Of both on the same held-out records.
        labelled: These records with labels, None where they have none.
        files: Of both, in the format that is written.
    """
    before, after = answers
    measured: list[dict[str, float]] = (
        [{}, {}] if labelled is None else [_figures(model, labelled) for model in (whole, made)]
    )
    sizes, zipped = ((len(one[0]), len(one[1])) for one in (files, [gzip.compress(file, mtime=0) for file in files]))
    return Cost(
        done,
        len(before),
        float(np.abs(after.astype(np.float64) - before).max()),
        _alike(whole, before, after),
        measured[0],
        measured[1],
        sizes,
        zipped,
    )


def _figures(model: Trained, records: Records) -> dict[str, float]:
    """Return the task's own figures, and the loss."""
    return evaluate(model.module, model.description.aim, records, torch.device("cpu"))


def _alike(model: Trained, before_NK: NDArray[np.float32], after_NK: NDArray[np.float32]) -> float | None:
    """Return for which share of records the same class is predicted, None where no class is."""
    if model.description.task != "classification":
        return None
    over = model.description.threshold or THRESHOLD
    return float((chosen(before_NK, over) == chosen(after_NK, over)).mean())
