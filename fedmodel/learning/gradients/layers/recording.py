"""One forward and one backward pass over a model, and what went into each trained layer and came back out of it.

No gradient of a parameter is computed: while records pass, parameters ask for none, and the first trained layer's
output begins the graph. So the backward pass costs what it costs to reach the layers, half of a plain one.

What came out is named by its place in the graph and not by its tensor, which may be changed in place afterwards without
changing what the gradient at that place is.

Shapes: B records of a physical batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients.layers import _attention, family_of, joined
from fedmodel.learning.gradients.layers.parts import Family, Part

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One call of a trained layer. Sensitive.

    Attributes:
        layer: What was called.
        family: How its parts are computed.
        given: What went in.
        version: How often that was written into by then, as torch counts.
        edge: The place of what came out.
    """

    layer: nn.Module
    family: Family
    given: Tensor
    version: int
    edge: GradientEdge

    def parts(self, grad: Tensor) -> list[Part]:
        """Return what records add to the layer's parameters.

        Raises:
            PrivacyError: When what went in was changed since.
        """
        if self.given._version != self.version:  # noqa: SLF001
            raise PrivacyError(
                f"what went into a layer ({type(self.layer).__name__}) was changed in place, which its gradient needs;"
                " set inplace = False, or write x = x + y for x += y"
            )
        return self.family(self.layer, self.given.detach(), grad)


class Recorder:
    """Hooks at the trained layers of a model, which note what passes while they are asked to.

    Args:
        module: The model.
        parameters: Its trained parameters.

    Attributes:
        families: How the parts of each layer are computed, and why so, by the layer's name.

    Raises:
        PrivacyError: When a layer's gradients cannot be computed so, by its name.
    """

    def __init__(self, module: nn.Module, parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters
        self._calls: list[Call] | None = None
        self._rows = 0
        self.families: dict[str, str] = {}
        self._hooks: list[RemovableHandle] = []
        self._attentions: list[tuple[str, nn.MultiheadAttention]] = []
        for name, layer in module.named_modules():
            if isinstance(layer, nn.MultiheadAttention) and _attention.is_taken_apart(layer):
                self._attentions.append((name, layer))
                self.families[name] = "its projections, as linear layers"
            elif any(one.requires_grad for one in layer.parameters(recurse=False)):
                family, self.families[name] = family_of(name, layer)
                hook = partial(self._note, name, family)
                self._hooks.append(layer.register_forward_hook(hook, with_kwargs=True))

    def remove(self) -> None:
        """Take the hooks off the model."""
        while self._hooks:
            self._hooks.pop().remove()

    def parts(self, rows: int, views: int, losses: Callable[[], Tensor]) -> list[Part]:
        """Return what records add to each trained parameter, in the order of parameters and of their rows.

        Args:
            rows: Records that the physical batch has room for.
            views: Rows of each record in what is passed through the model, side by side.
            losses: Passes it through the model, and returns each record's loss, `(B,)`.

        Raises:
            PrivacyError: When a parameter gets no gradient, or losses are not one for each row.
        """
        with self.recording(rows * views) as calls:
            loss_B = losses()
        return self.found(calls, loss_B, rows, views)

    def found(self, calls: list[Call], loss_B: Tensor, rows: int, views: int = 1) -> list[Part]:
        """Return what records add to each trained parameter, from calls that were noted and the losses after them.

        Args:
            calls: Of one pass.
            loss_B: Each record's loss.
            rows: Records that the physical batch has room for.
            views: Rows of each record in what was passed, side by side.

        Raises:
            PrivacyError: As `parts`.
        """
        if loss_B.shape != (rows,):
            raise PrivacyError(f"the loss has shape {tuple(loss_B.shape)}, where each record needs one of its own")
        edges = [call.edge for call in calls]
        grads = torch.autograd.grad(loss_B.sum(), edges, allow_unused=True) if loss_B.requires_grad else ()
        found: dict[int, list[Part]] = {}
        for call, grad in zip(calls, grads, strict=bool(grads)):
            for part in call.parts(grad) if grad is not None else ():
                found.setdefault(id(part.parameter), []).append(part if views == 1 else part.folded(views))
        return [part for parameter in self._parameters for part in _whole(parameter, found.get(id(parameter), []))]

    @contextmanager
    def recording(self, rows: int) -> Iterator[list[Call]]:
        """Note calls meanwhile, in which parameters ask for no gradient."""
        self._rows, self._calls = rows, []
        try:
            for parameter in self._parameters:
                parameter.requires_grad = False
            for name, layer in self._attentions:
                layer.forward = partial(_attention.attend, layer, partial(self._add, name, layer))  # type: ignore[method-assign]
            yield self._calls
        finally:
            self._calls = None
            for _, layer in self._attentions:
                vars(layer).pop("forward", None)
            for parameter in self._parameters:
                parameter.requires_grad = True

    def _note(
        self, name: str, family: Family, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: object
    ) -> None:
        """Note a call, but not under torch.no_grad, where it has no gradient."""
        if self._calls is None or not torch.is_grad_enabled():
            return
        given = [*args, *named.values()]
        if len(given) != 1 or not isinstance(given[0], Tensor) or not isinstance(output, Tensor):
            raise PrivacyError(
                f"the layer {name!r} ({type(layer).__name__}) has not one tensor in and one out, which book-keeping"
                " asks for"
            )
        self._add(name, layer, family, given[0], output)

    def _add(self, name: str, layer: nn.Module, family: Family, given: Tensor, output: Tensor) -> None:
        """Note what went in and the place of what came out, where both have a row for each record."""
        rows = {len(one) if one.dim() else 0 for one in (given, output)}
        if rows != {self._rows}:
            raise PrivacyError(
                f"the layer {name!r} ({type(layer).__name__}) was given {tuple(given.shape)} of {self._rows} records,"
                " so that which row is of which record is not known"
            )
        if not torch.is_grad_enabled():  # as of attention, which notes its projections itself
            return
        if not output.requires_grad:
            output.requires_grad_()
        if self._calls is not None:
            self._calls.append(Call(layer, family, given, given._version, get_gradient_edge(output)))  # noqa: SLF001


def _whole(parameter: nn.Parameter, parts: list[Part]) -> list[Part]:
    """Return the parts of a parameter, joined.

    Raises:
        PrivacyError: When some of it got no gradient.
    """
    if not parts:
        raise PrivacyError("a trainable parameter got no per-record gradient; it would be released without noise")
    return joined(parameter, parts)
