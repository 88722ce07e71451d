"""What is asked of a source of records: what is public about them, and, where they are dealt out, the records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import Field, field_validator, model_validator

from fedmodel.kinds.augment import AugmentConfig
from fedmodel.kinds.columns import RISING, ColumnConfig, Range, rises
from fedmodel.kinds.partitions import OWN, PartitionConfig
from fedmodel.kinds.partitions.dirichlet import Dirichlet
from fedmodel.kinds.section import Positive, Section
from fedmodel.kinds.shape import DataShape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NOT_DEALT: Final = (
    "data.partition.use deals out a simulation's data; a deployed silo runs no code for it, so deal by another kind of"
    " partition, or give each silo a table of its own"
)


class Source(Section, ABC):
    """The section `data` of a scenario: a kind adds its `source`, a literal, and its keys (`fedmodel.kinds.sources`).

    A kind is dealt out (`Dealt`), or each silo has its own, which `fedmodel.data` reads where the silo says it lies.

    Attributes:
        is_dealt: Whether one data set is dealt out to silos, as a simulation may do.
        is_own: Whether each deployed silo has its own, where its own file says that it lies.
        source: The kind.
        feature_bound: What scaled features are bounded to, plus and minus.
        augment: How copies of records that are trained on may differ from them.
    """

    is_dealt: ClassVar[bool] = False
    is_own: ClassVar[bool] = False

    source: str
    feature_bound: Positive = 3.0
    # Left out of what is hashed where it is not said: scenarios from before it keep the hash that silos admit.
    augment: AugmentConfig | None = Field(default=None, exclude_if=lambda said: said is None)

    @property
    def data_set(self) -> str:
        """What the data set is called, in budgets and ledgers too."""
        return self.source

    @property
    @abstractmethod
    def shape(self) -> DataShape:
        """What is public about a record."""

    @property
    def learnt(self) -> str:
        """What is learnt of a record, by the name of a task; it is known before a record is read."""
        return self.shape.task

    @property
    def is_settled(self) -> bool:
        """Whether it says of itself what a record looks like."""
        return True

    @property
    @abstractmethod
    def described(self) -> str:
        """What the data set is, in a few words for a report."""

    @property
    def predicted(self) -> str | None:
        """What the label is called, where it has a name."""
        return None

    def read_by(self) -> tuple[ColumnConfig, ...]:
        """Return the columns by which a table of others is read for a model; none where features have no names."""
        return ()

    def why_no_persons(self) -> str | None:
        """Return why `privacy.unit = "person"` cannot be, None of a kind that says whose each record is (`persons`)."""
        return f"source = {self.source!r} does not say whose a record is; take another unit"

    def why_not_deployed(self) -> str | None:
        """Return why no deployed silo reads it, None where one does."""
        return None

    def check_silos(self, silos: tuple[str, ...]) -> None:
        """Refuse what does not go with the names of a federation's silos.

        Raises:
            ValueError: Which rule is broken.
        """

    def under(self, folder: Path) -> Source:  # noqa: ARG002 - what is dealt out lies in no folder of a person's
        """Return the same, with relative paths beginning at a folder."""
        return self


class Dealt(Source):
    """A data set that is dealt out: to simulated silos, and to deployed ones of a rehearsal.

    Attributes:
        held_out: Share of records set aside for the server's evaluation, before any are dealt.
        reference_range: Public range of every feature, mapped onto [-1, 1].
        reference_ranges: The same, by name of feature.
        partition: How the rest is dealt (`fedmodel.kinds.partitions`).
    """

    is_dealt = True

    held_out: float = Field(gt=0, lt=1)
    reference_range: Range | None = None
    reference_ranges: dict[str, Range] = {}
    partition: PartitionConfig = Dirichlet()

    @field_validator("reference_range", "reference_ranges")
    @classmethod
    def _ranges_rise(
        cls, value: tuple[float, float] | dict[str, tuple[float, float]] | None
    ) -> tuple[float, float] | dict[str, tuple[float, float]] | None:
        pairs = value.values() if isinstance(value, dict) else [] if value is None else [value]
        for pair in pairs:
            if not rises(pair):
                raise ValueError(f"a reference range must {RISING}, found {list(pair)}")
        return value

    def why_not_deployed(self) -> str | None:
        """Return that no silo deals by a user's own code, where the partition names any."""
        return _NOT_DEALT if self.partition.kind == OWN else None

    @model_validator(mode="after")
    def _one_kind_of_range(self) -> Dealt:
        if self.reference_range is not None and self.reference_ranges:
            raise ValueError("give reference_range for all features or reference_ranges for each, not both")
        return self

    def read_by(self) -> tuple[ColumnConfig, ...]:
        """Return a number for each named feature, with its public range."""
        ranges = {name: self.reference_ranges.get(name, self.reference_range) for name in self.shape.names}
        return tuple(ColumnConfig(name=name, type="float", range=found) for name, found in ranges.items())

    @abstractmethod
    def load(self, seed: int) -> tuple[NDArray[np.float64] | Mapping[str, NDArray[Any]], NDArray[np.int64]]:
        """Return all records: raw features, shape `(N, *shape.features)`, and labels from 0 to `shape.classes - 1`.

        Of records of several arrays (`shape.inputs`) those are returned, by name and as a model takes them: float32 or
        int64, scaled by no statistic of the records but by what the section declares.

        Args:
            seed: Decides records that are made up. What is returned hangs on this section, on the seed and on `state`
                alone.
        """

    def state(self) -> tuple[int, ...]:
        """Return what differs when records outside of this project do; nothing of what is on board."""
        return ()

    def persons(self, records: int, seed: int) -> NDArray[np.int64]:  # noqa: ARG002 - of a source that draws them
        """Return whose each record is, as numbers that rise from 0 and skip none: everyone has one, unless said.

        A claim for persons rests on it, and is refused of a kind whose `why_no_persons` does not return None.
        """
        import numpy as np

        return np.arange(records)

    def groups(self, column: str, seed: int) -> NDArray[Any] | None:  # noqa: ARG002 - of a source that has columns
        """Return what each record says in a column that is no feature, by which they may be dealt; None of no such.

        Args:
            column: What the scenario calls it.
            seed: The one that `load` is given, whose order of records this is.
        """
        return None

    def apart(self) -> NDArray[np.bool_] | None:
        """Return which records are held out, in the order of `load`; None of a kind that leaves it to chance.

        A rule of a kind's own is public, hangs on no record's features or targets, and leaves each person some record
        that is not held out. So it is not followed where a claim is for more than a record: persons are held
        out whole then.
        """
        return None
