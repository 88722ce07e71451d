"""The exponential moving average of the models after each round, which is the run's model where a scenario asks for it.

After Polyak and Juditsky 1992; De et al. 2022 (section 3, "parameter averaging") found it to help DP-SGD, whose last
model has the noise of its last steps in it. Silos go on from the model itself, so a run is the same to the bit with and
without an average, but for what its server measures and writes, and for where `stop_below_loss` ends it.

Guarantee: after t rounds that were whole, with models m_1 ... m_t and decay d, the average is

    a_t = sum over i of d^(t - i) m_i / sum over i of d^(t - i)

up to the rounding of float32, in which it is kept from round to round. What the run began from is not in it, so no
bias is left to be corrected (Kingma and Ba 2015, section 3). A round that failed closed has no model and changes
nothing. An average is made of models that were released before: it is post-processing (Dwork and Roth 2014,
proposition 2.1), costs no privacy, and hides nothing of those models from whoever saw them.

It lies behind what the strategy keeps, in the same bytes of the run's checkpoint, so that a run that is taken up again
goes on to the bit.

Shapes: P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.errors import ProtocolError

_COUNT_BYTES: Final = 8


@dataclass(frozen=True)
class Average:
    """What is kept of the models so far.

    Attributes:
        count: How many they are.
        mean_P: Their average, float32 of shape `(P,)`; zeros before the first.
    """

    count: int
    mean_P: NDArray[np.float32]

    @classmethod
    def behind(cls, kept: bytes, parameters: int) -> tuple[bytes, Average]:
        """Return what a strategy kept, and the average behind it; before the first round neither is there.

        Raises:
            ProtocolError: When there is something else.
        """
        if not kept:
            return b"", cls(0, np.zeros(parameters, dtype=np.float32))
        start = len(kept) - _COUNT_BYTES - 4 * parameters
        if start < 0:
            raise ProtocolError("the checkpoint holds no average, or that of another model")
        count = int.from_bytes(kept[start : start + _COUNT_BYTES], "little")
        return kept[:start], cls(count, np.frombuffer(kept, "<f4", offset=start + _COUNT_BYTES).astype(np.float32))

    def after(self, model_P: NDArray[np.float32], decay: float) -> Average:
        """Return the average with one more model.

        Args:
            model_P: The model, float32 of shape `(P,)`.
            decay: d, in (0, 1).

        >>> one, four = np.float32([1.0]), np.float32([4.0])
        >>> Average(0, one).after(one, 0.5).after(four, 0.5).mean_P  # (1/2 of 1, and 4), over 3/2
        array([3.], dtype=float32)
        """
        weight = (1 - decay) / (1 - decay ** (self.count + 1))  # 1 of the first model
        before_P = self.mean_P.astype(np.float64)
        return Average(self.count + 1, (before_P + weight * (model_P - before_P)).astype(np.float32))

    def to_bytes(self) -> bytes:
        """Return it as `behind` reads it."""
        return self.count.to_bytes(_COUNT_BYTES, "little") + self.mean_P.astype("<f4").tobytes()


def outcome(model_P: NDArray[np.float32], kept: bytes, decay: float | None) -> NDArray[np.float32]:
    """Return what the run's model is after a round: the model itself, or the average.

    Args:
        model_P: The model after the round.
        kept: What is kept of it and of those before.
        decay: Of the average; None where there is none.
    """
    if decay is None:
        return model_P
    _, average = Average.behind(kept, len(model_P))
    return average.mean_P if average.count else model_P
