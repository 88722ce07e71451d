"""A loss or a figure of the user's own, by its name in a scenario: held to what is asked of one, quiet about records.

That a record's loss hangs on no other record is measured before training, as of every loss. A figure is of the server's
own held-out records; a silo computes none, whoever's it is.

Shapes: B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds.own_calls import failed
from fedmodel.kinds.own_code import resolve
from fedmodel.system.memory import ran_out

KEY = "training.loss"


def is_own(name: str) -> bool:
    """Return whether a name is of code, and not of what is on board."""
    return ":" in name


def own_loss(use: str) -> Callable[[Any, Tensor], Tensor]:
    """Return the loss of a name, which is found when it is first called: whoever only reads a model needs none.

    Guarantee: what it returns is one number for each record, `(B,)`, or PrivacyError is raised. Nothing of what the
    function says as it fails is repeated, since it is given records and could name one: where it failed is.
    """

    def losses(output: Any, target_B: Tensor) -> Tensor:
        function = resolve(use, KEY)
        _check_is_made(function, use)
        try:
            found = function(output, target_B)
        except (Exception, SystemExit) as error:
            if ran_out(error):  # which says nothing of the loss; whoever asked for so much at once says what to lower
                raise
            raise PrivacyError(f"{KEY} = {use!r} raised {failed(error, [use])}") from None
        rows = len(target_B)
        if not isinstance(found, Tensor) or tuple(found.shape) != (rows,):
            shape = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise PrivacyError(
                f"{KEY} = {use!r} returned what is {shape} for {rows} records, where each needs a loss of its own,"
                f" shape ({rows},): {_mended(found, rows)}"
            )
        return found

    return losses


def _mended(found: object, rows: int) -> str:
    """Say what makes one loss for each record of what a loss returned.

    >>> _mended(Tensor(5, 3), 5)
    "take the mean over each record's own (.flatten(1).mean(dim=1))"
    """
    if not isinstance(found, Tensor) or found.dim() < 2 or found.shape[0] != rows:
        return "leave out the mean or the sum over records (reduction='none')"
    if found.shape[1] == rows:
        return "outputs and targets of two shapes were spread over each other; bring them to one"
    return "take the mean over each record's own (.flatten(1).mean(dim=1))"


def _check_is_made(found: object, use: str) -> None:
    """Refuse a class of losses in place of a loss: a call would make one of outputs and targets."""
    if isinstance(found, type) and issubclass(found, nn.Module):
        raise ConfigError(
            f"{KEY} = {use!r} is the class {found.__name__}, and no loss that was made of it: in a script give"
            f' {found.__name__}(reduction="none"), and in a scenario a function of outputs and targets'
        )


def own_figure(use: str) -> Callable[[NDArray[Any], NDArray[Any]], float | None]:
    """Return the figure of a name: a function of all answers and all targets.

    It is left out, None, where it is None or no finite number. What the function says as it fails is not repeated. It
    is given copies, and may write into them.
    """

    def figure(answer_N: NDArray[Any], target_N: NDArray[Any]) -> float | None:
        function = resolve(use, "metrics")
        try:
            found = function(answer_N.copy(), target_N.copy())
        except (Exception, SystemExit) as error:
            raise ConfigError(f"metrics: {use!r} raised {failed(error, [use])}") from None
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float | np.number | np.ndarray) or np.ndim(found):
            raise ConfigError(f"metrics: {use!r} returned what is a {type(found).__name__}, where a number is needed")
        return float(found) if math.isfinite(float(found)) else None

    return figure
