"""Time until an event, cut into public intervals: which ends there may be, and what a record's target is.

An interval holds its beginning and not its end. So an event at exactly an end is of the interval after it, and whoever
was looked at until the last end, or longer, was without the event then, whatever came at that end or after it. A time
of 0 is of the first interval: an event then is that interval's, and whoever was lost sight of then says nothing.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from fedmodel.kinds.section import Positive
from fedmodel.kinds.shape import SURVIVAL, ArrayShape, DataShape

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


def _rise(ends: tuple[float, ...]) -> tuple[float, ...]:
    """Refuse ends that do not rise, and fewer than two."""
    if len(ends) < 2 or any(later <= end for end, later in pairwise(ends)):
        raise ValueError(f"ends are two at least and rise, found {list(ends)}")
    return ends


Ends = Annotated[tuple[Positive, ...], Field(strict=False, max_length=100), AfterValidator(_rise)]


def survival_shape(
    features: tuple[int, ...],
    names: tuple[str, ...],
    ends: tuple[float, ...],
    time_unit: str,
    inputs: Mapping[str, ArrayShape] | None = None,
) -> DataShape:
    """Return the shape of records whose targets are `targets` (`fedmodel.kinds.shape.SURVIVAL`)."""
    target = ArrayShape((), 2 * len(ends) + 1)
    return DataShape(features, len(ends), names, inputs, target, task=SURVIVAL, ends=ends, time_unit=time_unit)


def targets(time_N: NDArray[np.float64], seen_N: NDArray[np.int64], ends: tuple[float, ...]) -> NDArray[np.int64]:
    """Return each record's target, a function of that record and of the ends alone.

    Args:
        time_N: For how long each was looked at, 0 or more.
        seen_N: 1 where the event ended it, 0 where it was not seen.
        ends: When each interval ends; they rise.

    >>> import numpy as np
    >>> targets(np.array([0.0, 11.9, 12.0, 24.0, 99.0]), np.array([1, 0, 1, 1, 0]), (12.0, 24.0)).tolist()
    [1, 0, 3, 4, 4]
    """
    import numpy as np

    interval_N = np.searchsorted(ends, time_N, side="right").astype(np.int64)
    return 2 * interval_N + seen_N * (interval_N < len(ends))
