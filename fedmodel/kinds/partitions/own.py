"""A function of the user's own, or a partitioner of flwr-datasets as it is: `use` names it.

A simulation's alone: a deployed silo deals nothing, and refuses a scenario that says so before anything is charged
(`fedmodel.data.access.check_deployed`). What is returned is held to what is asked of every kind, and to being the same
when it is asked again with the same seed, since each process of a run deals for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.own_calls import call, fitting
from fedmodel.kinds.own_code import resolve
from fedmodel.kinds.own_names import UseName
from fedmodel.kinds.own_section import Arguments
from fedmodel.kinds.partition import Partition, Units

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEY: Final = "data.partition.use"
_LABEL, _PLACE = "label", "place"  # columns of what a partitioner is given


class OwnPartition(Partition, Arguments):
    """The section's other keys are arguments of the function, or of the class of partitioner.

    A function is given `labels`, an array of int64, `silos`, how many there are, and `seed`, where it has arguments of
    these names, and returns a list with the places of each silo's records among the labels. A partitioner is given
    `num_partitions`, `partition_by = "label"` and `seed`, where it has them and the section does not say them, and a
    data set of labels, and of the column that `partition_by` names.

    Attributes:
        use: Where it is found (`fedmodel.kinds.own_code`).
    """

    ALONE: ClassVar[str] = "use"

    kind: Literal["own"] = "own"
    use: UseName

    def deal(self, units: Units, silos: tuple[str, ...], rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Return what the function, or the partitioner, makes of the labels."""
        import numpy as np

        found, seed = resolve(self.use, _KEY), int(rng.integers(2**31))
        deal = self._by_partitioner if hasattr(found, "load_partition") else self._by_function
        one, again = (deal(units, len(silos), seed) for _ in range(2))
        if len(one) != len(again) or not all(map(np.array_equal, one, again)):
            raise DataError(
                f"{_KEY} = {self.use!r} deals otherwise when it is asked again with the same seed; draw from `seed`"
                " alone"
            )
        return one

    def _by_function(self, units: Units, silos: int, seed: int) -> list[NDArray[np.intp]]:
        """Return what a function says."""
        offered = {"labels": units.label_U, "silos": silos, "seed": seed}
        function = resolve(self.use, _KEY)
        given = fitting(function, self.use, _KEY, self.arguments, offered)
        if "labels" in given:
            given["labels"] = units.labels(self.kind).copy()
        return self._places(self._told(lambda: list(function(**given))))

    def _by_partitioner(self, units: Units, silos: int, seed: int) -> list[NDArray[np.intp]]:
        """Return what a partitioner of flwr-datasets loads."""
        try:
            from datasets import Dataset
        except ImportError as error:
            raise ConfigError(
                f"{_KEY} = {self.use!r} is a partitioner, which needs flwr-datasets: pip install 'fedmodel[partition]'"
            ) from error
        import numpy as np

        offered = {"num_partitions": silos, "partition_by": _LABEL, "seed": seed}
        by = self.arguments.get("partition_by", _LABEL)
        partitioner = call(self.use, _KEY, self.arguments, offered)
        columns: dict[str, Any] = {_PLACE: np.arange(units.count)}
        if by != _LABEL:
            columns[by] = units.column(by)
        elif units.label_U is not None:
            columns[_LABEL] = units.label_U

        def loaded() -> list[Any]:
            partitioner.dataset = Dataset.from_dict(columns)
            return [partitioner.load_partition(silo)[_PLACE][:] for silo in range(partitioner.num_partitions)]

        return self._places(self._told(loaded))

    def _told(self, deal: Callable[[], list[Any]]) -> list[Any]:
        """Return what it deals; of what it raises, the kind alone, since a text may hold what records say."""
        try:
            return deal()
        except (Exception, SystemExit) as error:
            raise DataError(f"{_KEY} = {self.use!r} raised {type(error).__name__} as it dealt the records") from error

    def _places(self, parts: list[Any]) -> list[NDArray[np.intp]]:
        """Return the places as arrays, or refuse what are none."""
        import numpy as np

        try:
            found = [np.asarray(part if len(part) else np.empty(0, np.intp)) for part in parts]
        except (TypeError, ValueError):
            found = []
        if not found or any(one.ndim != 1 or one.dtype.kind not in "iu" for one in found):
            raise DataError(
                f"{_KEY} = {self.use!r} does not return a list with the places of each silo's records, whole numbers"
                " from 0 on"
            )
        return [one.astype(np.intp) for one in found]
