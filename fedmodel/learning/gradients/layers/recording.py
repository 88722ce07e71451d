"""One forward and one backward pass over a model, and what went into each trained layer and came back out of it.

No gradient of a parameter is computed: while records pass, parameters ask for none, and the first trained layer's
output begins the graph. So the backward pass costs what it costs to reach the layers, half of a plain one.

What came out of a layer is named by its place in the graph and not by its tensor, which may be changed in place
afterwards without changing what the gradient at that place is. Where a layer was called once and shares no parameter,
its parts are computed as soon as that gradient is there, and what they do not need is let go: what went in and what
came out of a layer whose gradients are kept is in memory no longer than in a plain backward pass. Of a model of linear
layers alone, each given one row of a record, all gradients are asked for at once (`rows`): that takes fewer calls.

Linear layers of few columns are computed with zeros behind them meanwhile (`_linear.filled_up`).

A block that is computed again in the backward pass (`fedmodel.kinds.recomputed`) is no other call of its layers: what
was noted of the first is all that counts. No layer of a model that has such blocks is filled up.

A tensor that asks for a gradient and is no trained parameter, such as a loss's own, has after the pass the `grad` that
it had before: a sum over records that nothing clips would else lie there for the next pass to read.

Shapes: B records of a physical batch.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from fedmodel.errors import PrivacyError
from fedmodel.kinds.recomputed import is_again, is_recomputed
from fedmodel.learning.gradients._widened import widened
from fedmodel.learning.gradients.layers import _attention, _linear, _loose, _recurrent, family_of, joined
from fedmodel.learning.gradients.layers.parts import Family, Part, Share
from fedmodel.learning.gradients.layers.rows import Layers, Rows, is_row, layers_of

log = logging.getLogger(__name__)


class Call:
    """One call of a trained layer. Sensitive.

    Args:
        layer: What was called.
        family: How its parts are computed.
        given: What went in.
    """

    def __init__(self, layer: nn.Module, family: Family, given: Tensor) -> None:
        self.layer = layer
        self._family, self._given, self._version = family, given.detach(), given._version  # noqa: SLF001
        self._grad: Tensor | None = None
        self._parts: list[Part] | None = None

    def given(self) -> Tensor:
        """Return what went in.

        Raises:
            PrivacyError: When it was changed since.
        """
        if self._given._version != self._version:  # noqa: SLF001
            raise PrivacyError(
                f"what went into a layer ({type(self.layer).__name__}) was changed in place, which its gradient needs;"
                " set inplace = False, or write x = x + y for x += y"
            )
        return self._given

    def came(self, passed: Pass, grad: Tensor) -> None:
        """Note the gradient at what came out, and take the parts at once where nothing else adds to them."""
        self._grad = grad
        if passed.is_alone(self.layer):
            self._parts = [part.freed() for part in self._computed(passed.views)]
            del self._grad, self._given

    def parts(self, views: int) -> list[Part]:
        """Return what records add to the layer's parameters; nothing where no gradient came."""
        return self._computed(views) if self._parts is None else self._parts

    def _computed(self, views: int) -> list[Part]:
        """Return the parts of records, of which each has so many rows.

        Raises:
            PrivacyError: When what went in was changed since.
        """
        if self._grad is None:
            return []
        parts = self._family(self.layer, *widened(self.given(), self._grad))
        return parts if views == 1 else [part.folded(views) for part in parts]


class Pass:
    """What was noted as a physical batch passed. Sensitive.

    Args:
        records: That the physical batch has room for.
        views: Rows of each record in what is passed, side by side.
        shared: Layers that have a parameter in common with another.
        layers: All trained layers where they are linear, None where they are not.

    Attributes:
        calls: Of trained layers, in their order.
        places: In the graph, what came out of each call; empty where hooks stand there.
    """

    def __init__(self, records: int, views: int, shared: set[nn.Module], layers: Layers | None = None) -> None:
        self.records, self.views, self._shared = records, views, shared
        self.calls: list[Call] = []
        self.places: list[GradientEdge] = []
        self._times: Counter[nn.Module] = Counter()
        self._layers = layers if views == 1 else None

    def add(self, layer: nn.Module, family: Family, given: Tensor, output: Tensor) -> None:
        """Note a call."""
        self._times[layer] += 1
        if not self.calls and not is_row(given, self.records):
            self._layers = None
        self.calls.append(call := Call(layer, family, given))
        if self._layers is None:
            output.register_hook(partial(call.came, self))  # type: ignore[no-untyped-call]
        else:
            self.places.append(get_gradient_edge(output))

    def rows(self, loss: Tensor) -> Rows | None:
        """Pass gradients back to all places, and return what records add to all layers, where that is rows alone.

        Where it is not, the calls have their gradients afterwards.

        Args:
            loss: The sum of records' losses.
        """
        grads = torch.autograd.grad(loss, self.places, allow_unused=True)
        if (found := self._found(grads)) is None:
            for call, grad in zip(self.calls, grads, strict=True):
                if grad is not None:
                    call.came(self, grad)
        return found

    def _found(self, grads: Sequence[Tensor | None]) -> Rows | None:
        """Return what records add to all layers if each was called once, on rows, and has a gradient of float32."""
        assert self._layers is not None  # noqa: S101 - there are places
        came = {
            call.layer: (grad, call.given())
            for call, grad in zip(self.calls, grads, strict=True)
            if grad is not None and grad.dtype == torch.float32 and is_row(call.given(), self.records)
        }
        if not len(came) == len(self.calls) == len(self._layers.of):
            return None
        lefts, rights = zip(*(came[layer] for layer in self._layers.of), strict=True)
        return Rows(self._layers, lefts, rights)

    def is_alone(self, layer: nn.Module) -> bool:
        """Tell whether one call is all that adds to a layer's parameters."""
        return self._times[layer] == 1 and layer not in self._shared


class Recorder:
    """Hooks at the trained layers of a model, which note what passes while they are asked to.

    Args:
        module: The model.
        parameters: Its trained parameters.

    Attributes:
        families: How the parts of each layer are computed, and why so, by the layer's name.
    """

    def __init__(self, module: nn.Module, parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters
        self._pass: Pass | None = None
        self.families: dict[str, str] = {}
        self._hooks: list[RemovableHandle] = []
        self._apart: list[tuple[nn.Module, Callable[..., Any]]] = []
        self._filled: list[tuple[nn.Module, Callable[..., Any]]] = []
        self._owners: list[tuple[str, nn.Module]] = []
        hooked: list[nn.Module] = []
        again = is_recomputed(module)  # after the pass, when a layer computes as ever: it must in the first one too
        for name, layer in module.named_modules():
            if (forward := _taken_apart(name, layer)) is not None:
                self._apart.append((layer, partial(forward, partial(self._add, name, layer))))
                self.families[name] = "its projections, as linear layers"
            elif _loose.are_loose(layer):
                self._owners.append((name, layer))
                self.families[name] = "a copy of its own parameters for each record"
            elif any(one.requires_grad for one in layer.parameters(recurse=False)):
                family, self.families[name] = family_of(layer)
                hooked.append(layer)
                hook = partial(self._note, name, family)
                self._hooks.append(layer.register_forward_hook(hook, with_kwargs=True))
                if not again and (filled := _linear.filled_up(layer)) is not None:
                    self._filled.append((layer, filled))
        owners = Counter(chain.from_iterable(layer.parameters(recurse=False) for layer in module.modules()))
        self._shared = {
            layer for layer in module.modules() if any(owners[one] > 1 for one in layer.parameters(recurse=False))
        }
        self._layers = None if self._apart or self._owners or self._shared else layers_of(hooked, parameters)

    def remove(self) -> None:
        """Take the hooks off the model."""
        while self._hooks:
            self._hooks.pop().remove()

    def parts(self, records: int, views: int, losses: Callable[[], Tensor]) -> list[Share]:
        """Return what records add to each trained parameter, or to all, in the order of parameters and of their rows.

        Args:
            records: That the physical batch has room for.
            views: Rows of each record in what is passed through the model, side by side.
            losses: Passes it through the model, and returns each record's loss, `(B,)`.

        Raises:
            PrivacyError: When a parameter gets no gradient, or losses are not one for each record.
        """
        with self.recording(records, views) as passed:
            loss_B = losses()
        return self.found(passed, loss_B)

    def found(self, passed: Pass, loss_B: Tensor) -> list[Share]:
        """Return what records add to each trained parameter, or to all, from what was noted and the losses after it.

        Args:
            passed: One pass.
            loss_B: Each record's loss.

        Raises:
            PrivacyError: As `parts`.
        """
        if loss_B.shape != (passed.records,):
            raise PrivacyError(f"the loss has shape {tuple(loss_B.shape)}, where each record needs one of its own")
        if loss_B.requires_grad and passed.places:
            if (rows := passed.rows(loss_B.sum())) is not None:
                return [rows]
        elif loss_B.requires_grad:
            _backward(loss_B.sum())
        found: dict[int, list[Part]] = {}
        for call in passed.calls:
            for part in call.parts(passed.views):
                found.setdefault(id(part.parameter), []).append(part)
        return [part for parameter in self._parameters for part in _whole(parameter, found.get(id(parameter), []))]

    @contextmanager
    def recording(self, records: int, views: int = 1) -> Iterator[Pass]:
        """Note calls meanwhile, in which parameters ask for no gradient."""
        self._pass = passed = Pass(records, views, self._shared, self._layers)
        try:
            with ExitStack() as stack:
                for name, layer in self._owners:
                    note = partial(self._add, name, layer)
                    stack.enter_context(_loose.in_place_of(layer, name, records * views, note))
                for parameter in self._parameters:
                    parameter.requires_grad = False
                for layer, forward in (*self._apart, *self._filled):
                    layer.forward = forward
                yield passed
        finally:
            self._pass = None
            for layer, _ in (*self._apart, *self._filled):
                vars(layer).pop("forward", None)
            for parameter in self._parameters:
                parameter.requires_grad = True

    def _note(
        self, name: str, family: Family, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: object
    ) -> None:
        """Note a call, but not under torch.no_grad, where it has no gradient."""
        if is_again():
            if isinstance(output, Tensor) and not output.requires_grad:
                output.requires_grad_()  # so that the graph begins where it did
            return
        if self._pass is None or not torch.is_grad_enabled():
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
        if (passed := self._pass) is None:
            return
        rows = passed.records * passed.views
        if not given.dim() or not output.dim() or given.shape[0] != rows or output.shape[0] != rows:
            raise PrivacyError(
                f"the layer {name!r} ({type(layer).__name__}) was given {tuple(given.shape)} of {rows} records,"
                " so that which row is of which record is not known"
            )
        if not torch.is_grad_enabled():  # as of attention, which notes its projections itself
            return
        if not output.requires_grad:
            output.requires_grad_()
        passed.add(layer, family, given, output)


def _taken_apart(name: str, layer: nn.Module) -> Callable[..., Any] | None:
    """Return what computes a layer while records pass, where torch computes all of it in one function."""
    if isinstance(layer, nn.MultiheadAttention) and _attention.is_taken_apart(layer):
        return partial(_attention.attend, layer)
    return partial(_recurrent.recur, name, layer) if _recurrent.is_taken_apart(layer) else None


def _backward(loss: Tensor) -> None:
    """Pass gradients back, of which no tensor keeps any."""
    kept = [(leaf, leaf.grad) for leaf in _leaves(loss)]
    try:
        for leaf, _ in kept:
            leaf.grad = None
        torch.autograd.backward(loss)
    finally:
        for leaf, grad in kept:
            leaf.grad = grad


def _leaves(loss: Tensor) -> list[Tensor]:
    """Return the tensors at which a graph ends, and which a backward pass would give a gradient to."""
    found, seen, todo = [], set(), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            found.append(leaf)
        todo += [one for one, _ in node.next_functions]
    return found


def _whole(parameter: nn.Parameter, parts: list[Part]) -> list[Part]:
    """Return the parts of a parameter, joined.

    Raises:
        PrivacyError: When some of it got no gradient.
    """
    if not parts:
        raise PrivacyError("a trainable parameter got no per-record gradient; it would be released without noise")
    return joined(parameter, parts)
