"""Made-up records of two classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, model_validator

from fedmodel.kinds.first_sources import FirstSource
from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.source import Dealt
from fedmodel.privacy.events import MOST_RECORDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_VALUES: Final = 100_000_000  # the generator holds them several times over


class SyntheticConfig(FirstSource, Dealt):
    """Records drawn around corners of a cube, half of the features telling of the class.

    Attributes:
        records: How many.
        features: Of each.
        records_per_person: Most of one person; each has from 1 to so many.
    """

    source: Literal["synthetic"]
    records: int = Field(default=100, ge=10, le=1_000_000)
    features: int = Field(default=10, ge=2, le=10_000)
    records_per_person: int = Field(default=1, ge=1, le=MOST_RECORDS)

    @model_validator(mode="after")
    def _fits_into_memory(self) -> SyntheticConfig:
        if self.records * self.features > _MOST_VALUES:
            raise ValueError(f"{self.records} records of {self.features} features are more than {_MOST_VALUES} values")
        return self

    @property
    def shape(self) -> DataShape:
        """As declared, and two classes."""
        return DataShape((self.features,), 2)

    @property
    def described(self) -> str:
        """How many they are: nobody's."""
        return f"{self.records} made-up records of {self.features} features, dealt out to silos"

    def why_no_persons(self) -> None:
        """Return None: whose a record is, is made up with it."""

    def load(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return records drawn from the seed."""
        import numpy as np
        from sklearn import datasets

        informative = max(2, self.features // 2)
        x_NF, y_N = datasets.make_classification(
            n_samples=self.records,
            n_features=self.features,
            n_informative=informative,
            n_redundant=min(2, self.features - informative),
            random_state=seed % 2**32,
        )
        return x_NF, y_N.astype(np.int64)

    def persons(self, records: int, seed: int) -> NDArray[np.int64]:
        """Return whose each record is: everyone has from 1 to `records_per_person`."""
        import numpy as np

        if self.records_per_person == 1:
            return super().persons(records, seed)
        counts = np.random.default_rng(seed).integers(1, self.records_per_person, records, endpoint=True)
        return np.repeat(np.arange(records), counts)[:records]
