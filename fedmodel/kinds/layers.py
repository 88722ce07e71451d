"""Layers that kinds of model share; whoever imports this imports torch.

Shapes: B batch, F features of a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from fedmodel.errors import PrivacyError

if TYPE_CHECKING:
    from fedmodel.privacy.noise import NoiseSource  # whose keystream a model that is only used does without


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
        return x_BF * self.kept(x_BF) / (1 - self.rate) if self.training else x_BF

    def kept(self, like_BF: Tensor) -> Tensor:
        """Return a mask of activations, drawn for each record by itself.

        Raises:
            PrivacyError: When there is no source to draw from.
        """
        if self.source is None:
            raise PrivacyError("dropout was asked for masks without a source of them")
        found: Tensor = _Masks.apply(like_BF.detach(), self.mask)  # type: ignore[no-untyped-call]
        return found

    def mask(self, like_BF: Tensor) -> Tensor:
        """Return a mask as large as a batch of activations."""
        assert self.source is not None  # noqa: S101 - `forward` has looked
        return self.source.keep(like_BF.numel(), 1 - self.rate, like_BF.device).view(like_BF.shape)


class ChannelDropout(Dropout):
    """Dropout of whole channels of a record, as torch's `Dropout2d` does.

    Args:
        rate: Share of channels dropped.
    """

    def mask(self, like_BF: Tensor) -> Tensor:
        """Return a mask that has one value for each channel of each record, `(B, C, 1, ...)`."""
        return (
            super()
            .mask(like_BF.reshape(*like_BF.shape[:2], -1)[:, :, 0])
            .view(*like_BF.shape[:2], *[1] * (like_BF.dim() - 2))
        )


class _Masks(torch.autograd.Function):
    """Draws a mask of a batch; where torch runs records side by side (`torch.func.vmap`), one for each all the same."""

    @staticmethod
    def forward(like_BF: Tensor, mask: Callable[[Tensor], Tensor]) -> Tensor:
        return mask(like_BF)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - as torch calls it
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:  # noqa: ARG004 - as torch calls it
        return None, None

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int, None], like: Tensor, mask: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:
        """Return masks of all records, which lie along the first dimension."""
        rows = like.movedim(in_dims[0], 0)
        drawn = mask(rows.flatten(0, 1))
        return drawn.view(*rows.shape[:2], *drawn.shape[1:]), 0


class Residual(nn.Module):
    """What comes out of a body, with what went in added, and a rectifier (He et al. 2016, figure 2).

    Args:
        body: The layers.
        around: What goes around them; the identity, where they change no shape.
    """

    def __init__(self, body: nn.Module, around: nn.Module) -> None:
        super().__init__()
        self.body, self.around = body, around

    def forward(self, x_BF: Tensor) -> Tensor:
        """Return the sum, rectified."""
        return torch.relu(self.body(x_BF) + self.around(x_BF))


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Switch dropout layers of our own off, and back to what they were."""
    layers = [layer for layer in module.modules() if isinstance(layer, Dropout) and layer.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


def activation(name: Literal["relu", "tanh"]) -> nn.Module:
    """Return an activation by its name."""
    return nn.ReLU() if name == "relu" else nn.Tanh()
