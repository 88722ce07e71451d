"""By a column: a natural silo, such as the hospital of an admission, or a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal

from pydantic import Field

from fedmodel.errors import DataError
from fedmodel.kinds.partition import Partition, Units, by_silo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PERSON: Final = "person"


class ByColumn(Partition):
    """Records that say the same in a column go to one silo.

    Where the values are the names of the silos, each silo gets its own. Where no value is one, values are dealt at
    random, as many to each silo to within one. Where some are, a name may be misspelt, and a silo would get what is
    called by another's: that is refused. Persons are numbers here, which name no silo.

    Attributes:
        column: Its name, as whoever loads the records calls it (`fedmodel.kinds.source.Dealt.groups`); "person" is one
            where the source says whose each record is.
    """

    ALONE: ClassVar[str] = "column"

    kind: Literal["column"] = "column"
    column: str = Field(min_length=1, max_length=100)

    if TYPE_CHECKING:  # for whoever checks a script's types, since a key may be said without its name

        def __init__(self, column: str, *, min_records: int = ...) -> None: ...

    def deal(self, units: Units, silos: tuple[str, ...], rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Return the units of each silo's values."""
        import numpy as np

        value_G, group_U = np.unique(units.column(self.column).astype(str), return_inverse=True)
        names = value_G.tolist()
        if sorted(names) == sorted(silos):
            silo_G = np.array([silos.index(name) for name in names], np.intp)
        elif self.column != _PERSON and (own := sorted(set(names) & set(silos))):
            raise _some_only(self.column, own[0], sorted({*names} - {*silos}), sorted({*silos} - {*names}))
        elif len(names) < len(silos):
            raise DataError(
                f"data.partition.column = {self.column!r} has {len(names)} values, too few for {len(silos)} silos; deal"
                " to fewer, or by another column"
            )
        else:
            silo_G = np.empty(len(names), np.intp)
            silo_G[rng.permutation(len(names))] = np.arange(len(names)) % len(silos)
        return by_silo(silo_G[group_U], len(silos))


def _some_only(column: str, own: str, values: list[str], silos: list[str]) -> DataError:
    """Return the refusal of values some of which are names of silos."""
    found = [f"the value {values[0]!r} is no silo's name"] if values else []
    found += [f"silo {silos[0]!r} has no value of its name"] if silos else []
    return DataError(
        f"data.partition.column = {column!r}: the value {own!r} is a silo's name, and {', and '.join(found)}, so that a"
        " silo could get another's records; call the silos by the values, all of them, leave other values out, or give"
        " silos names that no value has"
    )
