"""A few labels in each silo, the pathological partition of McMahan et al. 2017, section 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fedmodel.errors import DataError
from fedmodel.kinds.partition import Partition, Units, by_silo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Shards(Partition):
    """Each silo has records of exactly so many labels, as evenly as can be.

    A label is cut into shards, more of a label with more records, and every silo gets a shard of each of its labels. In
    the paper a shard may lie over the border of two labels; here none does.

    Attributes:
        classes: Labels of each silo.
    """

    ALONE: ClassVar[str] = "classes"

    kind: Literal["shards"] = "shards"
    classes: int = Field(default=2, ge=1, le=10_000)

    if TYPE_CHECKING:  # for whoever checks a script's types, since a key may be said without its name

        def __init__(self, classes: int = ..., *, min_records: int = ...) -> None: ...

    def deal(self, units: Units, silos: tuple[str, ...], rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Return the shards that each silo draws."""
        import numpy as np

        label_U, name_U = np.unique(units.labels(self.kind), return_inverse=True)
        left_L = self._shards(np.bincount(name_U), len(silos))
        holders_L: list[list[int]] = [[] for _ in label_U]
        for silo in rng.permutation(len(silos)):
            # Those of which most shards are left, ties at random: then none is left over at the end.
            for label in np.lexsort((rng.random(len(left_L)), -left_L))[: self.classes]:
                holders_L[label].append(int(silo))
                left_L[label] -= 1
        silo_U = np.empty(units.count, np.intp)
        for label, holders in enumerate(holders_L):
            index_U = rng.permutation(np.flatnonzero(name_U == label))
            for holder, shard in zip(holders, np.array_split(index_U, len(holders)), strict=True):
                silo_U[shard] = holder
        return by_silo(silo_U, len(silos))

    def _shards(self, count_L: NDArray[np.intp], silos: int) -> NDArray[np.intp]:
        """Return into how many shards each label is cut: at least one, and no more than silos or records."""
        import numpy as np

        wanted, most_L = silos * self.classes, np.minimum(count_L, silos)
        if self.classes > len(count_L) or wanted < len(count_L):
            raise DataError(
                f"data.partition.classes = {self.classes}: {silos} silos of so many labels each cannot hold"
                f" {len(count_L)} labels; give another number"
            )
        shards_L = np.ones_like(count_L)
        while (missing := wanted - int(shards_L.sum())) > 0:
            size_L = np.where(shards_L < most_L, count_L / shards_L, 0.0)
            if not size_L.any():
                raise DataError(
                    f"data.partition.classes = {self.classes}: some labels have too few records for {missing} more"
                    " shards; deal to fewer silos, or fewer labels to each"
                )
            shards_L[np.argmax(size_L)] += 1
        return shards_L
