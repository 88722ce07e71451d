"""A network of the user's own, made by a function that the scenario names."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from fedmodel.kinds.model import Model
from fedmodel.kinds.own_calls import call
from fedmodel.kinds.own_names import UseName
from fedmodel.kinds.own_section import Arguments
from fedmodel.kinds.shape import DataShape

if TYPE_CHECKING:
    from torch import nn


class OwnConfig(Model, Arguments):
    """A function or a class in `package.module:function`; the section's other keys are its arguments.

    Attributes:
        use: Where it is found (`fedmodel.kinds.own_code`).
    """

    without_memory: ClassVar[bool] = False

    kind: Literal["own"]
    use: UseName

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
        made = call(self.use, "model.use", self.arguments, {"shape": shape})
        if not isinstance(made, nn.Module):
            found = f"the class {made.__name__} itself" if isinstance(made, type) else type(made).__name__
            raise ConfigError(f"model.use = {self.use!r} returned {found}, where a torch.nn.Module is needed")
        return made
