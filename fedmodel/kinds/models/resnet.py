"""A residual network for small images (He et al. 2016), with GroupNorm in place of BatchNorm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from fedmodel.errors import ConfigError
from fedmodel.kinds.model import Model, WeightStandardization, Widths, one_array
from fedmodel.kinds.shape import DataShape

if TYPE_CHECKING:
    from torch import nn


class ResnetConfig(Model):
    """A convolution of 3x3, stages of blocks of two such convolutions, a mean over the image, and a linear layer.

    By default it is ResNet-18 with the first layer that is used for images of 32x32. Each stage but the first halves
    height and width. With `weight_standardization`, weights of all but the last layer are standardised
    (`fedmodel.kinds.standardised`), as De et al. 2022 have them beside GroupNorm.

    Attributes:
        channels: Of each stage.
        blocks: In each stage.
        groups: Of GroupNorm.
    """

    kind: Literal["resnet"]
    channels: Widths = (64, 128, 256, 512)
    blocks: Widths = (2, 2, 2, 2)
    groups: int = Field(default=16, ge=1)
    weight_standardization: WeightStandardization = False

    @model_validator(mode="after")
    def _stages_agree(self) -> ResnetConfig:
        if not self.channels or len(self.channels) != len(self.blocks):
            raise ValueError("a resnet needs channels and blocks of each stage: two lists of one length")
        for width in self.channels:
            if width % self.groups:
                raise ValueError(f"groups = {self.groups} does not divide channels of {width}, as GroupNorm needs")
        return self

    def build(self, shape: DataShape) -> nn.Module:
        """Return stem, stages, mean and linear layer."""
        from torch import nn

        from fedmodel.kinds.layers import Residual

        channels = self._channels(shape)
        before = self.channels[0]
        layers: list[nn.Module] = [self._convolution(channels, before, 3), nn.GroupNorm(self.groups, before), nn.ReLU()]
        for stage, (after, count) in enumerate(zip(self.channels, self.blocks, strict=True)):
            for place in range(count):
                stride = 2 if stage and not place else 1
                body = nn.Sequential(
                    self._convolution(before, after, 3, stride),
                    nn.GroupNorm(self.groups, after),
                    nn.ReLU(),
                    self._convolution(after, after, 3),
                    nn.GroupNorm(self.groups, after),
                )
                changes = stride != 1 or before != after
                around = nn.Sequential(self._convolution(before, after, 1, stride), nn.GroupNorm(self.groups, after))
                layers.append(Residual(body, around if changes else nn.Identity()))
                before = after
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, shape.outputs)]
        return nn.Sequential(*layers)

    def _convolution(self, before: int, after: int, kernel: int, stride: int = 1) -> nn.Module:
        """Return a convolution without a bias, which GroupNorm has one of."""
        from torch import nn

        from fedmodel.kinds.standardised import StandardisedConv2d

        if self.weight_standardization:
            return StandardisedConv2d(before, after, kernel, stride=stride, bias=False)
        return nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)

    def _channels(self, shape: DataShape) -> int:
        """Return an image's channels, or refuse what is no image or too small to be halved so often."""
        one_array(shape, self.kind)
        if len(shape.features) != 3:
            raise ConfigError(f'model.kind = "resnet" needs images; this source has records of shape {shape.features}')
        channels, height, width = shape.features
        if min(height, width) >> (len(self.channels) - 1) == 0:
            raise ConfigError(f"{len(self.channels)} stages leave nothing of {height}x{width} images; use fewer")
        return channels
