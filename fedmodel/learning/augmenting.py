"""Augmentation: each record of a lot is trained on as copies of it that differ by chance, as `data.augment` declares.

Guarantee: the copies of a record are a function of that record and of draws of its own, bit for bit. None hangs on
another record, on its place in the lot or on how many there are. One record stays one record: it has `views` copies in
a lot that it was drawn for, side by side, of the same shape, with the same target, and one gradient, which is the mean
of theirs. That mean is clipped as the record's own gradient would be (`fedmodel.learning.gradients`), so that for any
fixed draws one record moves the clipped sum by at most C, however many copies it has. Copies that were clipped each by
itself would let it move the sum by as many clips.

That this is enough, as for dropout (`fedmodel.learning.jobs.training`): draws come from the silo's `NoiseSource`, as
secret as the noise, anew for each record of each lot, independent of one another, all of one distribution. Adding a
record therefore adds draws and changes the distribution of no other record's. For any fixed draws the release is what
was charged, and a mixture of such, by the same chances with the record and without it, is no easier to tell apart
(joint convexity of the hockey-stick divergence). Draws that somebody could predict by place would void this: adding one
record would give every later one other draws, and change all their gradients.

The preflight measures the pipeline without it, for the same reason as without dropout: what is measured is the bound
for fixed draws, and that holds for whatever a copy is. Only `DpSgd.step` is given it, so no evaluation can be.

| Edge case                              | What happens                                           |
|----------------------------------------|--------------------------------------------------------|
| the lot is empty                       | nothing is drawn                                       |
| several records of one person          | each is changed by itself; the unit is as it was       |
| a canary of an audit                   | is changed as any record is; what tells it apart stays |
| an array that is not changed           | is the same in all copies of a record                  |
| a value goes over `feature_bound`      | it stays so: the bound is of what is read, not a claim |

Does NOT hide how long it takes. Does NOT change targets: what a flip would make of one that says left or right is for
whoever declares it.

Shapes: R records of a physical batch, V copies of them, C channels, H height, W width, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from fedmodel.data.named import each
from fedmodel.kinds.augment import AugmentConfig
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.inputs import Inputs
from fedmodel.privacy.noise import NoiseSource

_ALONE: Final = "features"  # what the probes of an audit call the one array of records (`fedmodel.canaries.probes`)

Augment = Callable[[Inputs], Inputs]


def augmenting(config: AugmentConfig | None, shape: DataShape, noise: NoiseSource) -> Augment | None:
    """Return what makes copies of a lot's records, those of one side by side; None where nothing is declared.

    Args:
        config: What is declared.
        shape: Of the records.
        noise: Where it draws from; the silo's own.

    Raises:
        ConfigError: When it does not go with the records.
    """
    if config is None:
        return None
    config.of(shape)
    name = config.array or _ALONE

    def augment(x_R: Inputs) -> Inputs:
        x_V = x_R if config.views == 1 else each(x_R, lambda one: one.repeat_interleave(config.views, dim=0))
        if isinstance(x_V, Mapping):
            return {**x_V, name: copies(config, x_V[name], noise)}
        return copies(config, x_V, noise)

    return augment


def copies(config: AugmentConfig, x: Tensor, noise: NoiseSource) -> Tensor:
    """Return a copy of each record, drawn for it alone.

    Args:
        config: What is declared.
        x: The records, of shape `(R, ...)`. Sensitive.
        noise: Where it draws from.
    """
    if config.flip or config.crop or config.rotate:
        x = _moved(config, x, noise)
    if config.shift:
        x = _shifted(x, _whole(config.shift, _draws(x, 1, noise)[:, 0]))
    if config.noise:
        # One value for each number of each record. Never 0 or 1, whose quantiles are infinite.
        share = _draws(x, math.prod(x.shape[1:]), noise).clamp(2.0**-53, 1 - 2.0**-53)
        x = x + (config.noise * torch.special.ndtri(share)).to(x.dtype).view(x.shape)
    return x


def _draws(x: Tensor, each: int, noise: NoiseSource) -> Tensor:
    """Return so many uniform numbers for each record, float64 of shape `(R, each)`, a record's in one row."""
    return noise.uniform(len(x) * each, x.device).view(len(x), each)


def _whole(most: int, uniform_R: Tensor) -> Tensor:
    """Return whole numbers from minus to plus `most`, from uniform ones in [0, 1)."""
    return (uniform_R * (2 * most + 1)).floor().long().clamp(0, 2 * most) - most


def _shifted(x: Tensor, by_R: Tensor) -> Tensor:
    """Return each record's last axis moved by its own number of steps."""
    x_RCT = x.reshape(len(x), -1, x.shape[-1])
    steps = x.shape[-1]
    from_RT = (torch.arange(steps, device=x.device) - by_R[:, None]).clamp(0, steps - 1)
    return x_RCT.gather(2, from_RT[:, None].expand(x_RCT.shape)).view(x.shape)


def _moved(config: AugmentConfig, x: Tensor, noise: NoiseSource) -> Tensor:
    """Return each image turned, moved and flipped by its own draws: where each pixel comes from, and then the pixel."""
    height, width = x.shape[-2:]
    x_RCHW = x.reshape(len(x), -1, height, width)
    draw_R5 = _draws(x, 5, noise)
    y_RHW = torch.arange(height, device=x.device, dtype=torch.float64)[:, None].expand(len(x), height, width)
    x_RHW = torch.arange(width, device=x.device, dtype=torch.float64).expand(len(x), height, width)
    if config.rotate:
        angle_R11 = ((2 * draw_R5[:, 0] - 1) * math.radians(config.rotate))[:, None, None]
        up_RHW, aside_RHW = y_RHW - (height - 1) / 2, x_RHW - (width - 1) / 2
        cos, sin = torch.cos(angle_R11), torch.sin(angle_R11)
        y_RHW = cos * up_RHW - sin * aside_RHW + (height - 1) / 2
        x_RHW = sin * up_RHW + cos * aside_RHW + (width - 1) / 2
    if config.crop:
        y_RHW = y_RHW + _whole(config.crop, draw_R5[:, 1])[:, None, None]
        x_RHW = x_RHW + _whole(config.crop, draw_R5[:, 2])[:, None, None]
    if config.flip in ("vertical", "both"):
        y_RHW = torch.where((draw_R5[:, 3] < 0.5)[:, None, None], height - 1 - y_RHW, y_RHW)
    if config.flip in ("horizontal", "both"):
        x_RHW = torch.where((draw_R5[:, 4] < 0.5)[:, None, None], width - 1 - x_RHW, x_RHW)
    return _taken(x_RCHW, y_RHW.clamp(0, height - 1), x_RHW.clamp(0, width - 1), config.rotate > 0).view(x.shape)


def _taken(x_RCHW: Tensor, y_RHW: Tensor, x_RHW: Tensor, between: bool) -> Tensor:
    """Return what lies at these places of each image: the pixel, or, between pixels, four of them by nearness."""
    rows, channels, height, width = x_RCHW.shape
    flat_RCP = x_RCHW.flatten(2)

    def pixel(y: Tensor, x: Tensor) -> Tensor:
        place_R1P = (y.long() * width + x.long()).view(rows, 1, -1)
        return flat_RCP.gather(2, place_R1P.expand(rows, channels, -1)).view(x_RCHW.shape)

    top, left = y_RHW.floor(), x_RHW.floor()
    if not between:
        return pixel(top, left)
    below, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = ((at - whole)[:, None].to(x_RCHW.dtype) for at, whole in ((y_RHW, top), (x_RHW, left)))
    upper = pixel(top, left) * (1 - along) + pixel(top, right) * along
    lower = pixel(below, left) * (1 - along) + pixel(below, right) * along
    return upper * (1 - down) + lower * down
