"""A small convolutional network for images."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from fedmodel.errors import ConfigError
from fedmodel.kinds.model import Model, WeightStandardization, Widths, one_array
from fedmodel.kinds.shape import DataShape

if TYPE_CHECKING:
    from torch import nn


class CnnConfig(Model):
    """Convolutions of 3x3 with GroupNorm, each followed by 2x2 max pooling, then one linear layer.

    With `weight_standardization`, weights of all but the last layer are standardised (`fedmodel.kinds.standardised`).
    """

    kind: Literal["cnn"]
    channels: Widths = (16, 32)
    groups: int = Field(default=4, ge=1)
    activation: Literal["relu", "tanh"] = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    weight_standardization: WeightStandardization = False

    @model_validator(mode="after")
    def _groups_divide(self) -> CnnConfig:
        if not self.channels:
            raise ValueError("a cnn needs at least one entry in channels")
        for width in self.channels:
            if width % self.groups:
                raise ValueError(f"groups = {self.groups} does not divide channels of {width}, as GroupNorm needs")
        return self

    def build(self, shape: DataShape) -> nn.Module:
        """Return convolution, GroupNorm, activation and pooling per entry of `channels`, then one linear layer."""
        from torch import nn

        from fedmodel.kinds.layers import Dropout, activation
        from fedmodel.kinds.standardised import StandardisedConv2d

        channels, height, width = self._image(shape)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((channels, *self.channels)):
            layers += [
                StandardisedConv2d(before, after, kernel_size=3)
                if self.weight_standardization
                else nn.Conv2d(before, after, kernel_size=3, padding=1),
                nn.GroupNorm(self.groups, after),
                activation(self.activation),
                nn.MaxPool2d(2),
            ]
            height, width = height // 2, width // 2
        layers.append(nn.Flatten())
        if self.dropout:
            layers.append(Dropout(self.dropout))
        layers.append(nn.Linear(self.channels[-1] * height * width, shape.outputs))
        return nn.Sequential(*layers)

    def _image(self, shape: DataShape) -> tuple[int, int, int]:
        """Return channels, height and width, or refuse what is no image or too small to be pooled."""
        one_array(shape, self.kind)
        if len(shape.features) != 3:
            raise ConfigError(f'model.kind = "cnn" needs images; this source has records of shape {shape.features}')
        channels, height, width = shape.features
        if min(height, width) >> len(self.channels) == 0:
            raise ConfigError(
                f"{len(self.channels)} poolings leave nothing of {height}x{width} images; use fewer channels entries"
            )
        return channels, height, width
