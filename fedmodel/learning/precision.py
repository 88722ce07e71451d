"""In which precision a model computes as it trains: float32, or bf16 in its passes and float32 in all else.

`training.precision = "bf16"` is mixed precision (Micikevicius et al. 2018, section 3), as torch's autocast has it: its
forward pass, and so its backward pass, multiplies and convolves bfloat16 values, which are float32 values of eight
bits. Their range is that of float32, so no loss is scaled. Parameters, losses, norms, factors, clipped sums, noise and
the optimiser are float32 and above, as ever. A model that is evaluated, or written to a file, computes in float32.

Guarantee: what one record may move a sum by is as for float32. What is clipped is what is added up: a kind of gradients
turns the very values that a layer computed with into float32, which is exact, and takes norms and sums of these
(`fedmodel.learning.gradients._widened`), or adds each record's gradient as torch made it of them, a float32. A record's
gradient is another than in float32, by some thousandths, and its own all the same: the preflight measures that, to the
bit and at hostile parameters, on the model as it trains, and makes physical batches smaller where bf16 kernels ask for
it.

| Edge case                                   | What happens                                                        |
|---------------------------------------------|---------------------------------------------------------------------|
| a layer that autocast leaves alone          | computes in what it is given, float32 for records and parameters     |
| a model that fails on bf16 values           | `PrivacyError`, before anything is charged                          |
| a card without bf16                         | `ConfigError`                                                       |
| a processor that is no faster with it       | one line in the log, after a trial; it trains as it was told         |
| outputs in other containers than tuples,    | stay as the model made them                                         |
| lists and dicts                             |                                                                     |

Does NOT make models of two devices alike: which layers autocast rounds for is its own list, one for each kind of
device.

Shapes: B rows of a physical batch.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from fedmodel.config.training import Precision
from fedmodel.errors import ConfigError

_NORMS: Final = (functional.layer_norm, functional.group_norm, functional.instance_norm, functional.rms_norm)
_TURNS: Final = 3  # of a trial, the least of each way counts

log = logging.getLogger(__name__)


class Rounded(nn.Module):
    """A model that computes in bf16 while it trains, and returns float32.

    Args:
        model: Its parameters are float32, and stay so.

    Attributes:
        rounds: Whether it does; switched off to compare.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.rounds = True

    def forward(self, *x_B: Tensor, **named_B: Tensor) -> Any:
        """Return what the model makes of a batch."""
        if not (self.training and self.rounds):
            return self.model(*x_B, **named_B)
        # What is cast is cast again at each use: a copy that is kept would be of a parameter as it was.
        device = next(self.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, cache_enabled=False), warnings.catch_warnings():
            # Which normalises by the plain kernel, as it should.
            warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight", category=UserWarning)
            output = self.model(*x_B, **named_B)
        return tree_map(_float32, output)


class NormsInFloat32(TorchFunctionMode):
    """Has a model normalise in float32 meanwhile, as autocast does on a card anyway.

    On a processor it leaves bf16 with float32 factors, which torch's function transforms cannot differentiate.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _NORMS:
            args, kwargs = tree_map(_float32, (args, kwargs))
        return func(*args, **(kwargs or {}))


def in_precision(module: nn.Module, precision: Precision) -> nn.Module:
    """Return a model that trains in a precision; in float32 it is the model itself."""
    return Rounded(module) if precision == "bf16" else module


def is_rounded(module: nn.Module) -> bool:
    """Tell whether a model computes in bf16 as it trains."""
    return any(layer.rounds for layer in _rounded(module))


@contextmanager
def in_float32(module: nn.Module) -> Iterator[None]:
    """Have a model compute in float32 meanwhile."""
    layers = [layer for layer in _rounded(module) if layer.rounds]
    for layer in layers:
        layer.rounds = False
    try:
        yield
    finally:
        for layer in layers:
            layer.rounds = True


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that a device does not have.

    Raises:
        ConfigError: When it is a card without bf16.
    """
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f'training.precision = "bf16": {name} has no bf16; set "float32", or train on another device')


def tell_if_no_faster(module: nn.Module, step: Callable[[], object]) -> None:
    """Log one line where a model on a processor takes no less time in bf16 than in float32, by a trial of both.

    Time decides nothing but whether the line is there.

    Args:
        module: The model.
        step: Passes made-up records through it and back.
    """
    if not is_rounded(module) or next(module.parameters()).device.type != "cpu":
        return
    rounded, plain = [], []
    step()  # the first time is another's: kernels are chosen, and memory is taken
    for _ in range(_TURNS):
        rounded.append(_seconds(step))
        with in_float32(module):
            plain.append(_seconds(step))
    if (ratio := min(rounded) / max(min(plain), 1e-9)) >= 1:
        log.warning(
            'training.precision = "bf16" takes %.2f times as long as "float32" on this processor; it trains in bf16'
            " as the scenario says",
            ratio,
        )


def _seconds(step: Callable[[], object]) -> float:
    """Return the processor's time of a call."""
    began = time.process_time()
    step()
    return time.process_time() - began


def _rounded(module: nn.Module) -> list[Rounded]:
    return [layer for layer in module.modules() if isinstance(layer, Rounded)]


def _float32(value: Any) -> Any:
    """Return float32 of a bf16 tensor, and anything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value
