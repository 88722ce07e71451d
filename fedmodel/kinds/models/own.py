"""A network of the user's own, made by a function that the scenario names."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal

from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from fedmodel.kinds.model import Model, WeightStandardization
from fedmodel.kinds.own_calls import call, takes
from fedmodel.kinds.own_names import UseName
from fedmodel.kinds.own_section import Arguments
from fedmodel.kinds.shape import DataShape

if TYPE_CHECKING:
    from torch import nn


_STANDARDISED: Final = "weight_standardization"


class OwnConfig(Model, Arguments):
    """A function or a class in `package.module:function`; the section's other keys are its arguments.

    Attributes:
        use: Where it is found (`fedmodel.kinds.own_code`).
        weight_standardization: Whether weights of its plain layers but the last are standardised
            (`fedmodel.kinds.standardised.standardised`); a function that has an argument of that name is given it, and
            does so itself.
    """

    without_memory: ClassVar[bool] = False

    kind: Literal["own"]
    use: UseName
    weight_standardization: WeightStandardization = False

    @property
    def code(self) -> str:
        """The name."""
        return self.use

    def build(self, shape: DataShape) -> nn.Module:
        """Return what the function makes; where it has an argument `shape`, it is given the records' public shape.

        Raises:
            ConfigError: When it cannot be found or called, or returns no network.
        """
        import torch
        from torch import nn

        state = torch.random.get_rng_state()
        own_code.resolve(self.use, "model.use")  # a module that draws as it is imported does so once
        torch.random.set_rng_state(state)
        said = self.weight_standardization
        made = call(self.use, "model.use", self.arguments, {"shape": shape, _STANDARDISED: said})
        if not isinstance(made, nn.Module):
            found = f"the class {made.__name__} itself" if isinstance(made, type) else type(made).__name__
            raise ConfigError(f"model.use = {self.use!r} returned {found}, where a torch.nn.Module is needed")
        if not said or takes(own_code.resolve(self.use, "model.use"), _STANDARDISED):
            return made
        from fedmodel.kinds.standardised import standardised

        return standardised(made)
