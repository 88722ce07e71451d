"""What is public about records: their shape, never their number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataShape:
    """What is public about a data source: the shape of a record, not how many there are.

    Attributes:
        features: Shape of one record's features, `(F,)` or `(channels, height, width)`.
        classes: Number of labels. With two, label 1 is the positive class.
        names: Names of the features where they have any.
    """

    features: tuple[int, ...]
    classes: int
    names: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """How many outputs a classifier has: of two classes one logit, of more a logit each."""
        return 1 if self.classes == 2 else self.classes
