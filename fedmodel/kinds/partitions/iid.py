"""Alike: shuffled, and cut into parts of one size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedmodel.kinds.partition import Partition, Units

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class IID(Partition):
    """Every silo's records are drawn alike; sizes differ by one at most. It looks at no label."""

    kind: Literal["iid"] = "iid"

    def deal(self, units: Units, silos: tuple[str, ...], rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Return a shuffle's cuts."""
        import numpy as np

        return np.array_split(rng.permutation(units.count), len(silos))
