"""What is asked of a kind of partition: how one data set is dealt out to silos, each record exactly once.

A partition is of a simulation, or of a rehearsal, whose data are its author's own. It may look at every label. No
deployed silo's own table is dealt, so nothing here is a release about anybody who was not asked.

Privacy units are dealt whole: a person's records all go to one silo, by the label of the first.

Shapes: U units that are dealt, N records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from fedmodel.errors import DataError
from fedmodel.kinds.section import Section
from fedmodel.system.counts import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TENTHS = 10
_LEAST_OF_A_TENTH = 20


@dataclass(frozen=True)
class Units:
    """What is dealt: units of one record or, of a person, of several.

    Attributes:
        count: How many.
        label_U: What kinds deal by that look at labels (`labels_of`); None of targets that have none.
        column: Returns what every unit says in a column; raises DataError where there is no such column.
        what: What units are called.
    """

    count: int
    label_U: NDArray[np.int64] | None
    column: Callable[[str], NDArray[Any]]
    what: str = "records"

    def labels(self, kind: str) -> NDArray[np.int64]:
        """Return the labels.

        Raises:
            DataError: When a record's target is several numbers, none of which is its label.
        """
        if self.label_U is None:
            raise DataError(
                f"data.partition: kind {kind!r} deals by labels, and these targets are several numbers each;"
                ' write partition = {kind = "iid"}, or deal by a column'
            )
        return self.label_U


class Partition(Section, ABC):
    """The section `data.partition` of a scenario: a kind adds its `kind`, a literal, and its keys.

    In a script a kind is called as it is: `Dirichlet(0.3)`.

    Attributes:
        ALONE: The key whose value a script may say without its name.
        kind: The kind.
        min_records: What every silo has at least, in units that are dealt.
    """

    ALONE: ClassVar[str] = ""

    kind: str
    min_records: int = Field(default=1, ge=1)

    def __init__(self, *alone: Any, **said: Any) -> None:
        if len(alone) > bool(self.ALONE):
            raise TypeError(f"{type(self).__name__} takes {self.ALONE or 'nothing'} without a name, and no more")
        super().__init__(**dict(zip([self.ALONE], alone, strict=False)), **said)

    @model_serializer(mode="wrap")
    def _least_records_last(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write it where it stood when there was one kind, so that hashes of before stay."""
        own: dict[str, Any] = written(self)
        return {**{key: own[key] for key in own if key != "min_records"}, **own}

    @property
    def to_ask_less(self) -> str:
        """What helps where there are too few units for every silo to have `min_records`."""
        fewer = "name fewer silos in federation.silos"
        return f"lower data.partition.min_records, or {fewer}" if self.min_records > 1 else fewer

    @abstractmethod
    def deal(self, units: Units, silos: tuple[str, ...], rng: np.random.Generator) -> Sequence[NDArray[np.intp]]:
        """Return which units each silo gets, an array of their places for each.

        Args:
            units: What is dealt.
            silos: Their names, in the scenario's order.
            rng: The experiment's generator. The same arguments and the same state give the same partition.

        Raises:
            DataError: When the units cannot be dealt in this way.
        """

    def parts(self, units: Units, silos: tuple[str, ...], rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Return which units each silo gets, in ascending order.

        Guarantee: together they are every unit exactly once, and each silo has `min_records` or more, whatever a kind
        does.

        Raises:
            DataError: When that is not so.
        """
        import numpy as np

        if len(silos) * self.min_records > units.count:
            raise DataError(
                f"{counted(units.count, units.what.removesuffix('s'))} cannot give {len(silos)} silos"
                f" {self.min_records} each; {self.to_ask_less}"
            )
        found = [np.sort(part) for part in self.deal(units, silos, rng)]
        if len(found) != len(silos) or not np.array_equal(np.sort(np.concatenate(found)), np.arange(units.count)):
            raise DataError(
                f"data.partition: kind {self.kind!r} does not deal every record to exactly one of {len(silos)} silos"
            )
        least = min(range(len(silos)), key=lambda place: len(found[place]))
        if len(found[least]) < self.min_records:
            raise DataError(
                f"data.partition: kind {self.kind!r} gives silo {silos[least]!r} {len(found[least])} records, under"
                f" min_records = {self.min_records}; deal more evenly, or to fewer silos"
            )
        return found


def by_silo(silo_U: NDArray[np.intp], silos: int) -> list[NDArray[np.intp]]:
    """Return the places of each silo's units, from which silo each unit goes to.

    >>> import numpy as np
    >>> [part.tolist() for part in by_silo(np.array([1, 0, 1]), 3)]
    [[1], [0, 2], []]
    """
    import numpy as np

    order_U = np.argsort(silo_U, kind="stable")
    return np.split(order_U, np.searchsorted(silo_U[order_U], np.arange(1, silos)))


def labels_of(y_U: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return what targets are dealt by: labels as they are, of real numbers which tenth of all each lies in.

    Of few records there are fewer parts than ten, each of twenty records or more. None of targets that are several
    numbers each.

    >>> import numpy as np
    >>> labels_of(np.linspace(0.0, 1.0, 40)).tolist() == 20 * [0] + 20 * [1]
    True
    """
    import numpy as np

    if y_U.size != len(y_U):
        return None
    flat_U = y_U.reshape(-1)
    if flat_U.dtype.kind != "f":
        return flat_U.astype(np.int64)
    parts = max(1, min(_TENTHS, len(flat_U) // _LEAST_OF_A_TENTH))
    edges = np.quantile(flat_U, np.arange(1, parts) / parts)
    return np.searchsorted(edges, flat_U, side="right").astype(np.int64)
