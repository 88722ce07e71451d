"""Unequal sizes and the same mix of labels: what is seen then is of the sizes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from fedmodel.errors import DataError
from fedmodel.kinds.partition import Partition, Units
from fedmodel.kinds.section import Positive

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Sizes(Partition):
    """Each silo has its share of all records, and nearly that share of each label.

    Attributes:
        shares: One for each silo, in their order; they need not add up to 1.
        power: In place of shares: the n-th silo's share goes as n to this power, 1 as 1, 2, 3 and so on.
    """

    ALONE: ClassVar[str] = "shares"

    kind: Literal["sizes"] = "sizes"
    shares: Annotated[tuple[Positive, ...], Field(strict=False, max_length=10_000)] | None = None
    power: float | None = Field(default=None, ge=0, le=10)

    if TYPE_CHECKING:  # for whoever checks a script's types, since a key may be said without its name

        def __init__(
            self, shares: Sequence[float] | None = ..., *, power: float | None = ..., min_records: int = ...
        ) -> None: ...

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Sizes:
        if (self.shares is None) == (self.power is None):
            raise ValueError('kind = "sizes" takes exactly one of shares, as [3, 1, 1], and power, as 1.0')
        return self

    def deal(self, units: Units, silos: tuple[str, ...], rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Return cuts of an order in which any stretch has nearly the mix of the whole."""
        import numpy as np

        if self.shares is not None and len(self.shares) != len(silos):
            raise DataError(
                f"data.partition.shares has {len(self.shares)} numbers, and there are {len(silos)} silos; give each one"
            )
        share_S = np.arange(1, len(silos) + 1) ** (self.power or 0.0) if self.shares is None else np.array(self.shares)
        label_U = np.zeros(units.count, np.int64) if units.label_U is None else units.label_U
        # The j-th of a label's n, at random, comes at (j + u) / n of the whole, u uniform.
        when_U = np.empty(units.count)
        for label in np.unique(label_U):
            index_U = rng.permutation(np.flatnonzero(label_U == label))
            when_U[index_U] = (np.arange(len(index_U)) + rng.random(len(index_U))) / len(index_U)
        cuts = np.round(np.cumsum(share_S)[:-1] / share_S.sum() * units.count).astype(np.intp)
        return np.split(np.argsort(when_U, kind="stable"), cuts)
