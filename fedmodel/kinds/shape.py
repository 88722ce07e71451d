"""What is public about records: their shape, never their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ArrayShape:
    """What is public about one array of records, or about their targets.

    Attributes:
        size: Shape of one record's part of it.
        below: Values are whole numbers from 0 up to this; real numbers where None.
    """

    size: tuple[int, ...]
    below: int | None = None


@dataclass(frozen=True)
class DataShape:
    """What is public about a data source: the shape of a record, not how many there are.

    Attributes:
        features: Shape of one record's features, `(F,)` or `(channels, height, width)`, where records are one array.
        classes: Number of labels. With two, label 1 is the positive class.
        names: Names of the features where they have any.
        inputs: The arrays that a record is made of, by name, where they are several.
        target: What a target looks like, where it is no label.
        labels: Names of the classes, in order, where they have any.
        task: What is learnt of a record: the name of a file in `fedmodel.learning.tasks`.
        below: Values of records that are one array are whole numbers from 0 up to this; real numbers where None.
    """

    features: tuple[int, ...]
    classes: int
    names: tuple[str, ...] = ()
    inputs: Mapping[str, ArrayShape] | None = None
    target: ArrayShape | None = None
    labels: tuple[str, ...] = ()
    task: str = "classification"
    below: int | None = None

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
        """How many outputs a classifier has: of two classes one logit, of more a logit each."""
        return 1 if self.classes == 2 else self.classes

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in order: numbers where they have none."""
        return self.labels or tuple(map(str, range(self.classes)))
