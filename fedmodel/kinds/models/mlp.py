"""Fully connected layers."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from fedmodel.kinds.model import Model, WeightStandardization, Widths, one_array
from fedmodel.kinds.shape import DataShape

if TYPE_CHECKING:
    from torch import nn


class MlpConfig(Model):
    """Fully connected layers; `hidden = []` is a linear model.

    With `weight_standardization`, weights of all but the last layer are standardised (`fedmodel.kinds.standardised`).
    """

    kind: Literal["mlp"]
    hidden: Widths = ()
    activation: Literal["relu", "tanh"] = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    weight_standardization: WeightStandardization = False

    @model_validator(mode="after")
    def _has_what_is_standardised(self) -> MlpConfig:
        if self.weight_standardization and not self.hidden:
            raise ValueError("weight_standardization is of hidden layers, and hidden = [] has none; leave it out")
        return self

    def build(self, shape: DataShape) -> nn.Module:
        """Return linear layers with an activation and dropout between them."""
        from torch import nn

        from fedmodel.kinds.layers import Dropout, activation
        from fedmodel.kinds.standardised import StandardisedLinear

        one_array(shape, self.kind)
        widths = (math.prod(shape.features), *self.hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        hidden = StandardisedLinear if self.weight_standardization else nn.Linear
        for before, after in itertools.pairwise(widths):
            layers += [hidden(before, after), activation(self.activation)]
            if self.dropout:
                layers.append(Dropout(self.dropout))
        layers.append(nn.Linear(widths[-1], shape.outputs))
        return nn.Sequential(*layers)
