"""Handwritten digits, as scikit-learn ships them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedmodel.errors import DataError
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
        """Return the images, in the set's order.

        From the file that `sklearn.datasets.load_digits` reads, without the CPU second that importing it takes.

        Raises:
            DataError: When it is not there, or is another file.
        """
        import numpy as np

        found = find_spec("sklearn")  # which imports nothing
        if found is None or found.origin is None:
            raise DataError("scikit-learn is not installed, which ships the digits; install fedmodel again")
        path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
        try:
            rows_NV = np.loadtxt(path, delimiter=",")
        except (OSError, EOFError, ValueError):
            raise DataError(f"{path}: is missing or damaged, and has the digits; install scikit-learn again") from None
        return rows_NV[:, :-1].reshape(-1, 1, 8, 8), rows_NV[:, -1].astype(np.int64)
