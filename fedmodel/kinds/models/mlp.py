"""Fully connected layers."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fedmodel.kinds.model import Model, Widths, one_array
from fedmodel.kinds.shape import DataShape

if TYPE_CHECKING:
    from torch import nn


class MlpConfig(Model):
    """Fully connected layers; `hidden = []` is a linear model."""

    kind: Literal["mlp"]
    hidden: Widths = ()
    activation: Literal["relu", "tanh"] = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def build(self, shape: DataShape) -> nn.Module:
        """Return linear layers with an activation and dropout between them."""
        from torch import nn

        from fedmodel.kinds.layers import Dropout, activation

        one_array(shape, self.kind)
        widths = (math.prod(shape.features), *self.hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), activation(self.activation)]
            if self.dropout:
                layers.append(Dropout(self.dropout))
        layers.append(nn.Linear(widths[-1], shape.outputs))
        return nn.Sequential(*layers)
