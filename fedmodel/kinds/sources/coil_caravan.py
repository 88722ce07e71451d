"""Who holds a mobile-home policy, of 5,822 customers of a Dutch insurer (CoIL Challenge 2000), from the package ISLP.

Features are which of 21 products a customer has, by what is paid for each, and what is known of the area: schooling,
homes, cars, private health insurance, income and purchasing power. In the file and not read are religion, whether and
with whom people live, age, occupation, social class and the customer's type, which is made of these: offering a policy
by most of them is unlawful in many places. Nor is how many policies of a product there are, which goes with what is
paid. A figure of an area says who lives there all the same.

The file is the training part of the challenge, 348 of whose customers hold the policy. Its test part is in no package.
The set has no column that says which branch: a partition deals it out.
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
    "coil-caravan",
    "ISLP==0.6.0",
    "ISLP",
    "data/Caravan.csv",
    "e89d49b6fb8fe02d76bb5bb80d8e0dab473bf9f6a72515e30c259f6d7da42269",
)
_FEATURES: Final = {
    # What is paid for a product, in steps from 0, nothing, to 9.
    "third party": "PWAPART",
    "third party, firm": "PWABEDR",
    "third party, farm": "PWALAND",
    "car": "PPERSAUT",
    "van": "PBESAUT",
    "motorcycle": "PMOTSCO",
    "lorry": "PVRAAUT",
    "trailer": "PAANHANG",
    "tractor": "PTRACTOR",
    "farm machines": "PWERKT",
    "moped": "PBROM",
    "life": "PLEVEN",
    "private accident": "PPERSONG",
    "family accident": "PGEZONG",
    "disability": "PWAOREG",
    "fire": "PBRAND",
    "surfboard": "PZEILPL",
    "boat": "PPLEZIER",
    "bicycle": "PFIETS",
    "property": "PINBOED",
    "social security": "PBYSTAND",
    # Shares of an area, in steps from 0, none, to 9, all; two classes at the end.
    "area: high schooling": "MOPLHOOG",
    "area: medium schooling": "MOPLMIDD",
    "area: low schooling": "MOPLLAAG",
    "area: own homes": "MHKOOP",
    "area: one car": "MAUT1",
    "area: two cars": "MAUT2",
    "area: no car": "MAUT0",
    "area: private health insurance": "MZPART",
    "area: income under 30,000": "MINKM30",
    "area: income under 45,000": "MINK3045",
    "area: income under 75,000": "MINK4575",
    "area: income under 122,000": "MINK7512",
    "area: income from 123,000": "MINK123M",
    "area: average income": "MINKGEM",
    "area: purchasing power": "MKOOPKLA",
}  # fmt: skip
_HOLDS: Final = "Purchase"


class CoilCaravanConfig(Dealt):
    """5,822 customers, 36 features of each; who holds the policy is of the positive class."""

    source: Literal["coil-caravan"]

    @property
    def shape(self) -> DataShape:
        """36 named features, and two classes."""
        return DataShape((len(_FEATURES),), 2, tuple(_FEATURES), labels=("no policy", "policy"))

    @property
    def described(self) -> str:
        """Whose set it is."""
        return "5,822 customers of an insurer, of the CoIL Challenge 2000, public, dealt out to silos"

    def why_no_persons(self) -> str:
        """Return that nobody knows who a customer is."""
        return "the customers of coil-caravan have no ids; one record is one customer, so take that unit"

    def load(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # noqa: ARG002 - they are what they are
        """Return the customers, in the file's order."""
        import numpy as np

        header, *rows = (line.split(",") for line in _FILE.read().decode("ascii").splitlines())
        places = [header.index(column) for column in _FEATURES.values()]
        x = [[float(row[place]) for place in places] for row in rows]
        return np.array(x), np.array([row[header.index(_HOLDS)] == "Yes" for row in rows], np.int64)
