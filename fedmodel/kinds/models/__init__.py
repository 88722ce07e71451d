"""Kinds of model, a file each: the section of a scenario that a person writes, and the network that it builds."""

from typing import Final

from fedmodel.kinds.model import Model
from fedmodel.kinds.section import sections
from fedmodel.system.kinds import kinds

MODELS: Final = sections(kinds(__name__), Model, "kind")  # type: ignore[type-abstract]  # it is never called
