"""Handwritten digits, as scikit-learn ships them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedmodel.kinds.first_sources import FirstSource
from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.source import Dealt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DigitsConfig(FirstSource, Dealt):
    """1,797 grey images of 8x8, a digit each."""

    source: Literal["digits"]

    @property
    def shape(self) -> DataShape:
        """One channel of 8x8, and ten classes."""
        return DataShape((1, 8, 8), 10)

    @property
    def described(self) -> str:
        """What they are."""
        return "1,797 handwritten digits, public, dealt out to silos"

    def why_no_persons(self) -> str | None:
        """Return that nobody knows whose hand it was."""
        return "the digits do not say who wrote them; take another unit"

    def load(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # noqa: ARG002 - they are what they are
        """Return the images, in the set's order."""
        import numpy as np
        from sklearn import datasets

        bunch = datasets.load_digits()
        return bunch.images[:, None].astype(np.float64), bunch.target.astype(np.int64)
