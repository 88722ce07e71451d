"""Which kind of gradients a model trains by, where a scenario leaves the choice: the cheapest one that is right.

Each kind of `auto.ORDER` is tried on made-up records, and the first whose gradients add up to the batch's is taken
(`fedmodel.learning.checked_losses`). Model, losses and the shape of records decide, all of them public, so that every
party of one version chooses alike. What each layer is then computed by, book-keeping says in the log itself.

Guarantee: whichever is chosen, the sum is bounded as `fedmodel.learning.gradients` says, since the preflight measures
the kind that will train. A choice decides of time and memory, and of the last bits of a sum.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import nn

from fedmodel.config import Scenario, scenario_from_json
from fedmodel.config.training import Precision
from fedmodel.data.named import each
from fedmodel.errors import PrivacyError
from fedmodel.kinds.layers import without_dropout
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.checked_losses import check_gradients
from fedmodel.learning.gradients import ClippedSum, kind
from fedmodel.learning.gradients.auto import ORDER
from fedmodel.learning.inputs import made_up
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.precision import in_precision
from fedmodel.learning.tasks import RecordLoss
from fedmodel.learning.tracing import ROWS, trace

AUTO: Final = "auto"

_NUMBERS_OF_ROWS: Final = (ROWS, ROWS + 2)
"""Of batches that are tried: a sequence that goes first may be as long as one of them, and be taken for its rows."""

_AWAY: Final = 0.1  # of a parameter's size: far enough from zeros that would hide what comes behind them

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """A kind of gradients.

    Attributes:
        name: Its name.
        of: The kind.
        why: What was wrong with those before it, in words; empty of the first.
    """

    name: str
    of: type[ClippedSum]
    why: tuple[str, ...]


def of_scenario(scenario: Scenario, device: torch.device) -> type[ClippedSum]:
    """Return the kind of gradients that a scenario trains by, once a process.

    Raises:
        ConfigError: When it names one that there is not.
    """
    name = scenario.training.gradients
    return kind(name) if name != AUTO else _of_scenario(scenario.json_text, device).of


def forget() -> None:
    """Forget what was chosen."""
    _of_scenario.cache_clear()


@lru_cache(maxsize=64)
def _of_scenario(scenario_json: str, device: torch.device) -> Chosen:
    """Choose, and say so."""
    scenario = scenario_from_json(scenario_json)
    shape = scenario.data.shape

    def build(seed: int) -> nn.Module:
        return build_model(scenario.model, shape, seed).to(device)

    precision = scenario.training.precision
    found = chosen(build, training_losses(scenario.training, shape, device), shape, precision)
    said = "" if precision == "float32" else f", in {precision}"
    log.info('gradients = "auto" is %s%s%s', found.name, said, "".join(f"; not {reason}" for reason in found.why))
    return found


def chosen(
    build: Callable[[int], nn.Module], losses: RecordLoss, shape: DataShape, precision: Precision = "float32"
) -> Chosen:
    """Return the first kind that computes a model's gradients, or the last one where none does.

    Args:
        build: Makes the model anew, from a seed.
        losses: Of each record.
        shape: What records look like.
        precision: In which it trains; in float32 they have to be right all the same, where that is told more finely.
    """
    why: list[str] = []
    for name in ORDER:
        try:
            check_kind(kind(name), build, losses, shape, precision)
        except PrivacyError as error:
            why.append(f"{name}: {error}")
        else:
            return Chosen(name, kind(name), tuple(why))
    return Chosen(ORDER[-1], kind(ORDER[-1]), tuple(why))


def check_kind(
    gradients: type[ClippedSum],
    build: Callable[[int], nn.Module],
    losses: RecordLoss,
    shape: DataShape,
    precision: Precision,
) -> None:
    """Refuse a kind of gradients that does not compute a model's, in float32 and in the precision in which it trains.

    Raises:
        PrivacyError: With what is wrong, and in which precision where that is not float32.
    """
    for rows in _NUMBERS_OF_ROWS:
        _try(gradients, build(0), losses, shape, rows)  # built anew, since kinds leave hooks at a model
    if precision != "float32":
        try:
            _try(gradients, in_precision(build(0), precision), losses, shape)
        except PrivacyError as error:
            raise PrivacyError(f'training.precision = "{precision}": {error}; or set it to "float32"') from None


def _try(
    gradients: type[ClippedSum], module: nn.Module, losses: RecordLoss, shape: DataShape, rows: int = ROWS
) -> None:
    """Refuse a kind of gradients that does not compute a model's, as it is, of so many records."""
    move_away(module.train())
    device = next(module.parameters()).device
    x_B, y_B = made_up(shape, ROWS, torch.Generator().manual_seed(0))
    # The same records again where there are to be more, so that each way through a model that one takes is taken.
    index = torch.arange(rows) % ROWS
    x_B, y_B = each(x_B, lambda one: one[index].to(device)), y_B[index].to(device)
    with without_dropout(module):
        check_gradients(gradients, module, losses, trace(module, x_B), x_B, y_B)


def move_away(module: nn.Module) -> None:
    """Move trainable parameters a little, all at random: initial zeros would hide what comes behind them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                size = float(parameter.abs().mean()) or 1.0
                moved = _AWAY * size * torch.randn(parameter.shape, generator=generator)
                parameter.add_(moved.to(parameter.device))
