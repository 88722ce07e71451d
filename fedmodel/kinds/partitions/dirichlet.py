"""Unevenly and not identically: Dirichlet over sizes and over labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal

from pydantic import Field

from fedmodel.errors import DataError
from fedmodel.kinds.partition import Partition, Units
from fedmodel.kinds.section import Positive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TRIES: Final = 1_000


class Dirichlet(Partition):
    """Sizes are `w ~ Dir(size_concentration)`; each label is dealt in proportions of its own around them.

    Records of each label are dealt in proportions `~ Dir(label_concentration * silos * w)`, whose mean is `w` (after
    Hsu, Qi and Brown 2019, section 3, with uneven sizes). Smaller concentrations are less even (sizes) and less alike
    (labels); 100 is nearly uniform. It is drawn anew until every silo has `min_records`. Targets that are several
    numbers each have no label to deal by: then sizes alone are drawn, unless a label_concentration is said.
    """

    ALONE: ClassVar[str] = "label_concentration"

    # Not written: it is the kind that there was before there were kinds.
    kind: Literal["dirichlet"] = Field(default="dirichlet", exclude_if=lambda _: True)
    size_concentration: Positive = 10.0
    label_concentration: Positive = 10.0

    if TYPE_CHECKING:  # for whoever checks a script's types, since a key may be said without its name

        def __init__(
            self, label_concentration: float = ..., *, size_concentration: float = ..., min_records: int = ...
        ) -> None: ...

    def _labels(self, units: Units) -> NDArray[np.int64]:
        """Return the labels: one for all where there are none, and nobody said how alike parts are to be in them."""
        import numpy as np

        unsaid = self.label_concentration == type(self).model_fields["label_concentration"].default
        return np.zeros(units.count, np.int64) if units.label_U is None and unsaid else units.labels(self.kind)

    def deal(self, units: Units, silos: tuple[str, ...], rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Return a partition whose smallest part is large enough."""
        import numpy as np

        label_U = self._labels(units)
        for _ in range(_TRIES):
            size_S = rng.dirichlet(np.full(len(silos), self.size_concentration))
            parts: list[list[NDArray[np.intp]]] = [[] for _ in silos]
            for label in np.unique(label_U):
                index_U = rng.permutation(np.flatnonzero(label_U == label))
                share_S = rng.dirichlet(np.maximum(self.label_concentration * len(silos) * size_S, 1e-6))
                cuts = np.round(np.cumsum(share_S)[:-1] * len(index_U)).astype(np.intp)
                for part, chunk in zip(parts, np.split(index_U, cuts), strict=True):
                    part.append(chunk)
            dealt = [np.concatenate(part) for part in parts]
            if min(map(len, dealt)) >= self.min_records:
                return dealt
        raise DataError(
            f"no partition in {_TRIES} draws gave every silo {self.min_records} {units.what}; raise"
            f" data.partition.size_concentration or label_concentration, or {self.to_ask_less}"
        )
