"""Blocks of a base that are computed again in the backward pass, so that what is inside of them is not kept till then.

After Chen et al. 2016 (arXiv 1604.06174, section 4), which others call gradient checkpointing: of a block, such as a
layer of a transformer, what goes in is kept, and when gradients come back to it, it is computed a second time.

Guarantee: gradients are those of a model that keeps all, to the bit. The second pass is over the same tensors by the
same kernels, in the same mode, and it draws nothing: masks of dropout are kept from the first pass, and are handed to
the second in their order. So a record's gradient is a function of the same draws as without.

A second pass is none of records: whoever counts passes of a layer, by hooks at it, asks `is_again` and leaves it out.
Parameters ask for gradients in it as they did in the first one, whatever became of that since; torch refuses a second
pass that would save other tensors than the first.

Does NOT make a pass take less memory than its largest block, the masks of dropout, what is kept of trained layers, and
its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedmodel.errors import ConfigError
from fedmodel.kinds.layers import Dropout

if TYPE_CHECKING:
    from fedmodel.privacy.noise import NoiseSource

_FUNCTION: Final = "_gradient_checkpointing_func"  # what transformers calls for a block that is computed again
_AGAIN: Final = ContextVar("again", default=False)


def is_again() -> bool:
    """Tell whether what is computed now was computed before, in this very pass of records."""
    return _AGAIN.get()


@contextmanager
def again() -> Iterator[None]:
    """Have what is computed meanwhile known as computed before, in this very pass of records."""
    token = _AGAIN.set(True)
    try:
        yield
    finally:
        _AGAIN.reset(token)


def recompute(base: nn.Module) -> None:
    """Have a model of transformers compute its blocks again in the backward pass, where it trains.

    Raises:
        ConfigError: When it has no blocks of which transformers knows that they can be.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = [one for one in base.modules() if isinstance(one, GradientCheckpointingLayer)]
    if not blocks:
        raise ConfigError(
            f"model.gradient_checkpointing: {type(base).__name__} has no blocks that transformers computes again;"
            " leave it out, and lower training.max_physical_batch"
        )
    for block in blocks:
        block.gradient_checkpointing = True
        setattr(block, _FUNCTION, partial(_passed, block))


def is_recomputed(module: nn.Module) -> bool:
    """Tell whether blocks of a model are computed again."""
    return any(_FUNCTION in vars(one) for one in module.modules())


def _passed(block: nn.Module, function: Callable[..., Any], *given: Any) -> Any:
    """Return what a block makes of what goes in, of which that alone is kept."""
    asked = [(one, one.requires_grad) for one in block.parameters()]
    masks: list[Tensor] = []

    def contexts() -> tuple[Any, Any]:
        return _first(block, masks), _second(block, masks, asked)

    return checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextmanager
def _first(block: nn.Module, masks: list[Tensor]) -> Iterator[None]:
    """Keep the masks that a block's dropout draws."""
    with _drawn_from(block, lambda source: _Keeping(source, masks)):
        yield


@contextmanager
def _second(block: nn.Module, masks: list[Tensor], asked: list[tuple[nn.Parameter, bool]]) -> Iterator[None]:
    """Hand a block's dropout the masks that were kept, and have parameters ask for gradients as they did."""
    since = [(one, one.requires_grad) for one in block.parameters()]
    try:
        _ask(asked)
        left = iter(masks)
        with again(), _drawn_from(block, lambda _: _Kept(left)):
            yield
    finally:
        _ask(since)


def _ask(wanted: list[tuple[nn.Parameter, bool]]) -> None:
    for parameter, asks in wanted:
        if parameter.requires_grad != asks:
            parameter.requires_grad_(asks)


@contextmanager
def _drawn_from(block: nn.Module, instead: Callable[[NoiseSource], object]) -> Iterator[None]:
    """Have a block's dropout draw from something else meanwhile."""
    layers = [(one, one.source) for one in block.modules() if isinstance(one, Dropout) and one.source is not None]
    for layer, source in layers:
        layer.source = cast("NoiseSource", instead(source))
    try:
        yield
    finally:
        for layer, source in layers:
            layer.source = source


class _Keeping:
    """A source of masks that keeps them, too."""

    def __init__(self, source: NoiseSource, masks: list[Tensor]) -> None:
        self._source, self._masks = source, masks

    def keep(self, size: int, rate: float, device: torch.device) -> Tensor:
        """Draw a mask."""
        self._masks.append(mask := self._source.keep(size, rate, device))
        return mask


class _Kept:
    """Masks that were drawn, in their order."""

    def __init__(self, masks: Iterator[Tensor]) -> None:
        self._masks = masks

    def keep(self, size: int, rate: float, device: torch.device) -> Tensor:  # noqa: ARG002 - as when it was drawn
        """Return the next."""
        return next(self._masks)
