"""What is public about records: their shape, never their number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

CLASSIFICATION: Final = "classification"
MULTI_LABEL: Final = "multi-label"
REGRESSION: Final = "regression"
NEXT: Final = "next-token"
SEQUENCE: Final = "sequence-labels"
SURVIVAL: Final = "survival"
"""Time until an event, in `classes` intervals. A target is 2 j + e: the event was seen in interval j (e = 1), or nobody
looked any more in it (e = 0); j = `classes` is for who was without it when the last interval ended, with e = 0.
"""
IGNORED: Final = -100
"""What stands at a position of a target that does not count, as torch has it."""


@dataclass(frozen=True)
class ArrayShape:
    """What is public about one array of records, or about their targets.

    Attributes:
        size: Shape of one record's part of it.
        below: Values are whole numbers from 0 up to this; real numbers where None.
        ignores: Whether a position may be `IGNORED` instead.
    """

    size: tuple[int, ...]
    below: int | None = None
    ignores: bool = False


@dataclass(frozen=True)
class DataShape:
    """What is public about a data source: the shape of a record, not how many there are.

    Attributes:
        features: Shape of one record's features, `(F,)` or `(channels, height, width)`, where records are one array.
        classes: Number of labels. With two, label 1 is the positive class. Of several labels at once, how many they
            are; of sequences, how many tokens or labels a position may be; of survival, how many intervals there are; 0
            of numbers.
        names: Names of the features where they have any.
        inputs: The arrays that a record is made of, by name, where they are several.
        target: What a target looks like, where it is no label.
        labels: Names of the classes, in order, where they have any.
        task: What is learnt of a record: the name of a file in `fedmodel.learning.tasks`.
        below: Values of records that are one array are whole numbers from 0 up to this; real numbers where None.
        target_range: Of a number that is learnt: the public range in its own units that was mapped onto [-1, 1], to
            which targets are bounded.
        ends: Of survival: when each interval ends, in order.
        time_unit: Of survival: what `ends` are counted in, as a word in the plural.
    """

    features: tuple[int, ...]
    classes: int
    names: tuple[str, ...] = ()
    inputs: Mapping[str, ArrayShape] | None = None
    target: ArrayShape | None = None
    labels: tuple[str, ...] = ()
    task: str = "classification"
    below: int | None = None
    target_range: tuple[float, float] | None = None
    ends: tuple[float, ...] = ()
    time_unit: str = ""

    @property
    def arrays(self) -> ArrayShape | Mapping[str, ArrayShape]:
        """The one array of records, or several by name."""
        return ArrayShape(self.features, self.below) if self.inputs is None else self.inputs

    @property
    def targets(self) -> ArrayShape:
        """What a target looks like: a label, where nothing else is said."""
        return ArrayShape((), self.classes) if self.target is None else self.target

    @property
    def outputs(self) -> int:
        """How many outputs a model has, of a sequence for each position.

        A classifier of two classes has one logit, of more a logit each; of several labels at once, one for each; of
        numbers, one for each.
        """
        if self.task == "classification":
            return 1 if self.classes == 2 else self.classes
        return math.prod(self.targets.size) if self.targets.below is None else self.classes

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in order: numbers where they have none."""
        return self.labels or tuple(map(str, range(self.classes)))
