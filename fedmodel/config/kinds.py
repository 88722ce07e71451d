"""The sections of a scenario that are one of several kinds, told apart by one key: `model`, by its `kind`."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

from fedmodel.kinds.model import Model
from fedmodel.kinds.models import MODELS

if TYPE_CHECKING:  # what a kind is asked; which there are is found when this is run
    ModelConfig: TypeAlias = Model
else:
    ModelConfig = Annotated[reduce(or_, MODELS.values()), Field(discriminator="kind")]
