"""A network of the user's own, looked at before anything is written: is it the same each time, and does it train?

Server and silos each build the model, and exchange its parameters as one vector, in the order of their names. A
function that makes another network each time it is called would have them exchange what does not fit, and one that
hands out one network again and again would have silos of a simulation train in each other's.

Does NOT look at what becomes of records in it: that is measured (`fedmodel.learning.preflight`).
"""

from __future__ import annotations

from torch import Tensor, nn

from fedmodel.config import ModelConfig
from fedmodel.errors import ConfigError
from fedmodel.kinds.models.own import OwnConfig
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.models import build_model
from fedmodel.learning.vectors import parameter_count


def check_own_model(config: ModelConfig, shape: DataShape) -> None:
    """Refuse a function that makes two networks of one seed, hands out one twice, or makes one that cannot learn.

    Networks are alike if their parameters have the same names, shapes and types, and, from the same state of torch's
    generator, the same values.

    Args:
        config: The section; another kind than the user's own is passed over.
        shape: What records look like.

    Raises:
        ConfigError: In one line that names the function.
    """
    if not isinstance(config, OwnConfig):
        return
    plain = config.model_copy(update={"init": "random", "init_value": None})
    one, other = build_model(plain, shape, seed=0), build_model(plain, shape, seed=0)
    named = f"model.use = {config.use!r}"
    ours, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    if one is other or _places(one) & _places(other):
        raise ConfigError(f"{named} returned the same network twice; make a new one each time that it is called")
    if list(ours) != list(theirs):
        odd = next((name for name in (*ours, *theirs) if name not in ours or name not in theirs), "their order")
        raise ConfigError(f"{named} makes another network each time: it differs in {odd}; it has to make the same one")
    for name, value in ours.items():
        if (value.shape, value.dtype) != (theirs[name].shape, theirs[name].dtype):
            raise ConfigError(
                f"{named} makes another network each time: {name} is {_shown(value)}, and then {_shown(theirs[name])}"
            )
        if not _alike(value, theirs[name]):
            raise ConfigError(
                f"{named} makes another network each time: {name} has other values by the same seed; draw them from"
                " torch's own generator, which is seeded before the call"
            )
    if parameter_count(one) == 0:
        raise ConfigError(f"{named} made a {type(one).__name__} that has no parameter to train")


def _places(module: nn.Module) -> set[int]:
    """Return where the values of a network lie in memory."""
    return {one.data_ptr() for one in module.parameters() if one.numel()}


def _alike(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same values; NaN is as NaN."""
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _shown(value: Tensor) -> str:
    return f"{'x'.join(map(str, value.shape)) or 'a single number'} of {str(value.dtype).removeprefix('torch.')}"
