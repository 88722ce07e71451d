"""A score card: a linear model of two classes, some of whose weights may have one sign alone.

Who answers for a score has to say why it is what it is, and that more debt never made it better. Noise may turn the
sign of a small weight; here it cannot: of a feature that is declared as rising, the weight is never below 0, of one
that falls never above.

How: parameters are those of an ordinary linear model, u, and the weight that is used is the nearest one of the declared
sign, sign * max(sign * u, 0). Gradients of u are those of the weight, so that a parameter on the wrong side goes on
being moved and can come back. This is lazy projection (dual averaging, Nesterov 2009; Xiao 2010). A record's gradient
is its gradient in a linear model at the weights that are used, so clip and noise mean what they mean there.

Shapes: B batch, F features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from fedmodel.errors import ConfigError
from fedmodel.kinds.model import Model, one_array
from fedmodel.kinds.shape import CLASSIFICATION, DataShape
from fedmodel.system.kinds import not_known

if TYPE_CHECKING:
    from torch import nn

Names = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], Field(strict=False)]


class ScorecardConfig(Model):
    """A linear model with declared directions.

    Attributes:
        rising: Features of which more never makes the second class less likely.
        falling: Features of which more never makes it likelier.
    """

    kind: Literal["scorecard"]
    rising: Names = ()
    falling: Names = ()

    @model_validator(mode="after")
    def _each_has_one_direction(self) -> ScorecardConfig:
        named = [*self.rising, *self.falling]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"rising and falling name {twice[0]!r} twice; a feature has one direction")
        return self

    def build(self, shape: DataShape) -> nn.Module:
        """Return the network.

        Raises:
            ConfigError: When there are not two classes, or a feature is not there.
        """
        from torch import nn

        from fedmodel.kinds.signed import Signed

        one_array(shape, self.kind)
        if shape.task != CLASSIFICATION or shape.outputs != 1:
            raise ConfigError('model.kind = "scorecard" tells two classes apart, and the data has other targets')
        for key, names in (("rising", self.rising), ("falling", self.falling)):
            for name in names:
                if name not in shape.names:
                    known = shape.names or ("none, since features of this source have no names",)
                    raise ConfigError(f"model.{key}: {not_known('feature', name, known)}")
        signs = [(name in self.rising) - (name in self.falling) for name in shape.names]
        return nn.Sequential(nn.Flatten(), Signed(signs or [0] * math.prod(shape.features)))
