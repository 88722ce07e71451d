"""Layers that kinds of model share; whoever imports this imports torch.

Shapes: B batch, F features of a record.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from fedmodel.errors import PrivacyError
from fedmodel.privacy.noise import NoiseSource


class Dropout(nn.Module):
    """Dropout whose masks come from a `NoiseSource`, as secret as the noise and independent for every record.

    torch's own takes its masks from a Mersenne Twister that a seed of 32 bits decides. Masks that can be guessed couple
    records, since adding one gives every later one another mask. A mask is drawn for each place of the batch, those
    that only fill it up included.

    Args:
        rate: Share of activations dropped.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.source: NoiseSource | None = None

    def forward(self, x_BF: Tensor) -> Tensor:
        """Drop and rescale in training; change nothing in evaluation.

        Raises:
            PrivacyError: When a training pass has no source to draw from.
        """
        if not self.training:
            return x_BF
        if self.source is None:
            raise PrivacyError("dropout was asked for masks without a source of them")
        kept = self.source.keep(x_BF.numel(), 1 - self.rate, x_BF.device).view(x_BF.shape)
        return x_BF * kept / (1 - self.rate)


def activation(name: Literal["relu", "tanh"]) -> nn.Module:
    """Return an activation by its name."""
    return nn.ReLU() if name == "relu" else nn.Tanh()
