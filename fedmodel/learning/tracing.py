"""Which layer of a model did it? One pass, layer by layer, and the first place where two passes part.

Used to say a layer's name in a refusal. Whether something is refused at all is decided by what comes out of the model
(`fedmodel.learning.refusals`) and by its gradients (`fedmodel.learning.preflight`), not by what is found here.

Shapes: B batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

import torch
from torch import Tensor, nn

from fedmodel.data.named import each
from fedmodel.learning.inputs import Inputs, called

ROWS: Final = 5  # of a batch that is traced: a number that few layers have of anything else
ROW: Final = 2  # of the record that keeps its place while its companions change
NEAR: Final = 1e-3  # of the largest value: rounding is far under it, and what mixes records over it


@dataclass(frozen=True)
class Passed:
    """Tensors that went into a layer or came out of it.

    Attributes:
        by: The layer in whose own code they were computed.
        layer: The layer that they went into, or that they came out of.
        values: As they were then.
    """

    by: str
    layer: str
    values: tuple[Tensor, ...]


@dataclass
class Traced:
    """One pass.

    Attributes:
        output: What the model returned, None where it failed.
        passed: What went into layers and came out of them, in order.
        changed_in_place: The layer in whose own code a tensor was changed that another layer had made or was given.
        input_changed_in: The layer in whose own code the records themselves were changed, None where they were not.
        failed: What was raised.
        failed_in: The layer in whose own code it was raised.
    """

    output: Any = None
    passed: list[Passed] = field(default_factory=list)
    changed_in_place: str | None = None
    input_changed_in: str | None = None
    failed: Exception | None = None
    failed_in: str = ""


def trace(module: nn.Module, x_B: Inputs, seed: int = 0) -> Traced:
    """Run a model once on copies of records, without gradients, and note what goes through its layers.

    Args:
        module: The model, in the mode that it trains in.
        x_B: Made-up records: they are kept, and errors are told word for word.
        seed: Of torch's global generator meanwhile.
    """
    traced, given = Traced(), each(x_B, torch.clone)
    devices = [torch.cuda.current_device()] if any(one.is_cuda for one in module.parameters()) else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), _watched(module, traced) as stack:
        torch.manual_seed(seed)
        try:
            traced.output = called(module, given)
        except Exception as error:
            traced.failed, traced.failed_in = error, stack[-1]
    if all(torch.equal(one, own) for one, own in zip(tensors_in(given), tensors_in(x_B), strict=True)):
        traced.input_changed_in = None
    elif traced.input_changed_in is None:
        traced.input_changed_in = ""  # by a way that torch does not count
    return traced


def parted(one: Traced, other: Traced, row: int | None = None) -> str:
    """Return the layer in whose own code two passes part first; "" is the model's own, outside of all its layers.

    Args:
        one: A pass.
        other: Another.
        row: The place of a record that both have; None where all of a batch is compared.
    """
    for first, second in zip_longest(one.passed, other.passed):
        if first is None or second is None or (first.by, first.layer) != (second.by, second.layer):
            return (first or second).by
        if len(first.values) != len(second.values) or any(
            differ(own, its, row) for own, its in zip(first.values, second.values, strict=True)
        ):
            return str(first.by)
    return ""


def differ(one: Tensor, other: Tensor, row: int | None = None) -> bool:
    """Tell whether two tensors, or a record's part of them, differ by more than rounding.

    A tensor in which a record's part cannot be told is taken for the same.
    """
    if row is not None:
        places = [place for place, size in enumerate(one.shape) if size == ROWS]
        if not places:
            return False
        if one.shape != other.shape:
            return True
        one, other = one.select(places[0], row), other.select(places[0], row)
    if one.shape != other.shape:
        return True
    if not one.is_floating_point():
        return not torch.equal(one, other)
    scale = float(torch.nan_to_num(other.detach(), posinf=0.0, neginf=0.0).abs().max()) if other.numel() else 0.0
    return not torch.allclose(one, other, rtol=0.0, atol=NEAR * scale, equal_nan=True)


def accompanied(parts: list[Tensor]) -> Tensor:
    """Return the second of two batches, in which one record is that of the first."""
    own_B, other_B = parts
    mixed_B = other_B.clone()
    mixed_B[ROW] = own_B[ROW]
    return mixed_B


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a value that layers hand on: one, or several in tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            yield from tensors_in(one)


@contextmanager
def _watched(module: nn.Module, traced: Traced) -> Iterator[list[str]]:
    """Note what goes through each layer meanwhile; yield the layers in whose code the pass is, the innermost last."""
    stack = [""]
    made: list[tuple[Tensor, int]] = []  # with the version that torch counts up at a change in place

    def note(layer: str, value: object) -> None:
        changed = [place for place, (one, version) in enumerate(made) if one._version != version]  # noqa: SLF001
        if traced.changed_in_place is None and changed:
            traced.changed_in_place = stack[-1]
        if traced.input_changed_in is None and changed and changed[0] < len(traced.passed[0].values):
            traced.input_changed_in = stack[-1]  # the records are what went into the model first
        found = list(tensors_in(value))
        made.extend((one, one._version) for one in found)  # noqa: SLF001
        traced.passed.append(Passed(stack[-1], layer, tuple(one.clone() for one in found)))

    def enters(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            note(name, (args, named))
            stack.append(name)

        return hook

    def leaves(name: str) -> Any:
        def hook(_: nn.Module, _args: tuple[Any, ...], output: object) -> None:
            note(name, output)
            stack.pop()

        return hook

    handles = []
    for name, layer in module.named_modules():
        handles.append(layer.register_forward_pre_hook(enters(name), with_kwargs=True))
        handles.append(layer.register_forward_hook(leaves(name)))
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()
