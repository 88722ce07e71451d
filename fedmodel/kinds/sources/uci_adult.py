"""Who earns over 50,000 dollars a year, of the US census of 1994 (Kohavi 1996, UCI), from a person's own disk.

Features are age, years of schooling, capital gains and losses, hours a week, whether somebody is married, the class of
work and the occupation. In the file and not read are sex, race, the country of birth and the relationship, which says
husband or wife: a decision on money that hangs on them is unlawful in many places. Nor are the census's weight, and the
schooling in words, which is the number again.

A row with a gap, "?", in what is read is dropped, which is a function of that row alone.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final, Literal

from fedmodel.kinds.on_disk import OneFile
from fedmodel.kinds.shape import DataShape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# By feature: the place of the attribute in a line, from 0.
_NUMBERS: Final = {"age": 0, "years of schooling": 4, "capital gain": 10, "capital loss": 11, "hours a week": 12}
_WORK, _MARITAL, _OCCUPATION, _INCOME, _FIELDS = 1, 5, 6, 14, 15
_WORKS: Final = (
    "Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov", "Without-pay",
    "Never-worked",
)  # fmt: skip
_OCCUPATIONS: Final = (
    "Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial", "Prof-specialty", "Handlers-cleaners",
    "Machine-op-inspct", "Adm-clerical", "Farming-fishing", "Transport-moving", "Priv-house-serv", "Protective-serv",
    "Armed-Forces",
)  # fmt: skip
_MARRIED: Final = {
    "Married-civ-spouse": 1.0, "Married-AF-spouse": 1.0, "Married-spouse-absent": 0.0, "Divorced": 0.0,
    "Never-married": 0.0, "Separated": 0.0, "Widowed": 0.0,
}  # fmt: skip
_INCOMES: Final = {"<=50K": 0, ">50K": 1}
_GAP: Final = "?"
_NAMES: Final = (
    *_NUMBERS,
    "married",
    *(f"work {one}" for one in _WORKS),
    *(f"occupation {one}" for one in _OCCUPATIONS),
)


class UciAdultConfig(OneFile):
    """Persons of a census, 28 features of each; who earns over 50,000 dollars is of the positive class."""

    what = (
        "adult.data or adult.test of UCI's Adult set, or both in one file: lines of 15 fields between commas, from the"
        " age to <=50K or >50K"
    )

    source: Literal["uci-adult"]

    @property
    def shape(self) -> DataShape:
        """28 named features, and two classes."""
        return DataShape((len(_NAMES),), 2, _NAMES, labels=tuple(_INCOMES))

    @property
    def described(self) -> str:
        """Whose set it is."""
        return "persons of the US census of 1994, UCI's Adult set, dealt out to silos"

    def why_no_persons(self) -> str:
        """Return that a line has no name."""
        return "the lines of uci-adult do not say whose they are; take another unit"

    def load(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # noqa: ARG002 - they are what they are
        """Return the persons without a gap, in the file's order."""
        import numpy as np

        x, y, has_lines = list[list[float]](), list[int](), False
        for number, line in enumerate(self._lines(), start=1):
            fields = [field.strip() for field in line.split(",")]
            if fields == [""] or line.startswith("|"):  # adult.test begins so
                continue
            if len(fields) != _FIELDS:
                raise self.another(f"line {number} has not {_FIELDS} fields")
            has_lines = True
            if _GAP in (fields[_WORK], fields[_OCCUPATION], fields[_MARITAL]):
                continue
            try:
                x.append(_features(fields))
                y.append(_INCOMES[fields[_INCOME].removesuffix(".")])  # adult.test has a full stop behind it
            except (KeyError, ValueError):
                raise self.another(f"line {number} has a field that the set does not have") from None
        if not y:
            raise self.another("it has no line without a gap" if has_lines else "it has no line of fields")
        return np.array(x), np.array(y, np.int64)

    def _lines(self) -> list[str]:
        """Return the file's lines."""
        try:
            found = self.opened().read_bytes().removeprefix(codecs.BOM_UTF8)
            return found.decode("ascii").splitlines()
        except UnicodeError:
            raise self.another("is not text in ASCII") from None


def _features(fields: list[str]) -> list[float]:
    """Return what a line's fields become; raises where one is none of the set's.

    >>> line = "39, Private, 77516, Bachelors, 13, Divorced, Sales, Not-in-family, White, Male, 2174, 0, 40, Cuba, >50K"
    >>> _features(line.split(", "))[:7], sum(_features(line.split(", "))[6:])
    ([39.0, 13.0, 2174.0, 0.0, 40.0, 0.0, 1.0], 2.0)
    """
    numbers = [float(int(fields[place])) for place in _NUMBERS.values()]
    work, occupation = _WORKS.index(fields[_WORK]), _OCCUPATIONS.index(fields[_OCCUPATION])
    return [
        *numbers,
        _MARRIED[fields[_MARITAL]],
        *(float(place == work) for place in range(len(_WORKS))),
        *(float(place == occupation) for place in range(len(_OCCUPATIONS))),
    ]
