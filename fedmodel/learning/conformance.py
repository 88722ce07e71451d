"""Is a record's gradient its own, to the bit? Measured, of one model at one shape on one device, on made-up records.

Kernels round the last rows of an odd batch otherwise than those before. A model whose hidden units cancel in pairs
makes hundreds of such a last bit, and then one record that enters a lot, and moves all after it by a place, changes
their gradients by many clips. So what DP-SGD promises of one record rests on kernels that treat rows alike, and whether
they do at the shape at hand is measured before anything is charged.

Guarantee: of a pipeline that conforms, every record tried added the same, bit for bit, when asked again, at other
places, in another order, and beside other companions: other records, longer ones, zeros, huge values, none that are
numbers, values of either sign spread over 2 to 10,000, fewer; of whole numbers the least, the greatest, and others
spread between them; and the sum of a lot was the sum of its parts. What a record adds is told by the hash that its kind
of gradients gives. It is a test and not a proof. Which kernel runs follows from shapes, and what it rounds in which
order from the kernel, so that made-up records stand for others. A model whose own code looks at its companions' values
is found out where a value that was tried is one that it looks for. Of those that are spread there are as many as
records of half a batch have entries, anew for each set of records: a model that looks for a range narrower than these
are apart, or for a pattern of several values, passes.

Does NOT look at how large what a record adds is: `fedmodel.learning.preflight` does.

Shapes: B rows of a physical batch, P parameters.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from fedmodel.data.named import each, together
from fedmodel.errors import PrivacyError
from fedmodel.kinds.recomputed import is_again
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.inputs import Inputs, made_up_short, taken
from fedmodel.learning.keeping import Kept, undone

_FILLERS: Final = (math.nan, 0.0, 1e30, math.inf)
_SPREAD: Final = (2.0, 1e4)  # past what is ordinary of a standardised value
_MAGNITUDES: Final = (1.0, 64.0, 4096.0)
_SETS: Final = 4

log = logging.getLogger(__name__)


def settle(gradients: ClippedSum, shape: DataShape, prepare: Callable[[], Iterator[object]], thorough: int = 0) -> int:
    """Give a pipeline the largest physical batch, from its own down, at which it conforms; return its rows.

    Half as many rows are tried each time, and one at last, where there are neither places nor companions. Only public
    figures and made-up records decide.

    Args:
        gradients: The pipeline, dropout switched off; its `rows` is set.
        shape: What records look like.
        prepare: Yields once for each set of parameters to be tried, when it has put it in.
        thorough: At how many sets, the first ones, everything is tried; at the others what finds most.

    Raises:
        PrivacyError: When it does not even repeat itself on one record at a time.
    """
    wanted = gradients.rows

    def passes(number: int) -> bool:
        # A function that differs in a last bit differs so for some records only: several sets of them.
        seeds = range(_SETS if number < thorough else 1)
        return all(conforms(gradients, shape, thorough=number < thorough, seed=seed) for seed in seeds)

    while not all(passes(number) for number, _ in enumerate(prepare())):
        if gradients.rows == 1:
            raise PrivacyError(
                "a record does not add the same each time on the same model, one record at a time too; take the"
                " layer out that is not deterministic, or run on the cpu"
            )
        gradients.rows //= 2
    if gradients.rows < wanted:
        log.warning(
            "in physical batches of %d this device rounds a record's gradient by its place; they have %d rows instead",
            wanted,
            gradients.rows,
        )
    return gradients.rows


def conforms(gradients: ClippedSum, shape: DataShape, *, thorough: bool = True, seed: int = 0) -> bool:
    """Tell whether records add the same, bit for bit, whatever their place and companions.

    Args:
        gradients: The pipeline at the parameters that it holds, dropout switched off.
        shape: What records look like.
        thorough: Whether to try everything, in over a dozen physical batches, or what finds most, in five.
        seed: Decides the records.

    Raises:
        PrivacyError: When a batch of another shape reaches the model, or a pass writes into it.
    """
    size, device = gradients.rows, gradients.parameters[0].device
    generator = torch.Generator().manual_seed(seed)
    x_B, y_B, short_B = made_up_short(shape, size, generator)
    parameters = sum(parameter.numel() for parameter in gradients.parameters)
    odd_P = (torch.randint(-(2**62), 2**62, (parameters,), generator=generator) * 2 + 1).to(device)

    def prints(x: Inputs, y: Tensor) -> Tensor:
        x_V = gradients.made_up_views(each(x, lambda one: one.to(device)))
        with undone(gradients.module, refuse=True, kept=kept):
            return gradients.prints(x_V, y.to(device), odd_P).cpu()

    with of_one_shape(gradients):
        kept = Kept(
            gradients.module
        )  # once: to find all that a model of hundreds of layers holds takes as long as a pass
        own_B = prints(x_B, y_B)
        if not torch.equal(own_B, prints(x_B, y_B)) or (thorough and not _adds_up(gradients, x_B, y_B)):
            return False
        if size == 1:
            return True
        arranged = _arranged(x_B, y_B, generator, thorough=thorough)
        accompanied = _accompanied(shape, x_B, short_B, generator, thorough=thorough)
        return all(torch.equal(own_B[of], prints(x, y)) for x, y, of in arranged) and all(
            torch.equal(own_B[alike_B], prints(x, y_B)[alike_B]) for x, alike_B in accompanied
        )


def _adds_up(gradients: ClippedSum, x_B: Inputs, y_B: Tensor) -> bool:
    """Tell whether the sum of a lot is that of its parts, bit for bit or within the kind's own bound of rounding.

    Physical batches of another shape are looked for by whoever calls.
    """
    device, whole = gradients.parameters[0].device, torch.arange(len(y_B))

    def sum_of(index: Tensor) -> Tensor:
        return gradients.flat(each(taken(x_B, index), lambda one: one.to(device)), y_B[index].to(device))

    parts = [part for part in (whole, *whole.tensor_split(3)) if len(part)]
    sum_P, *others = [sum_of(part) for part in parts]
    apart = float((sum_P - torch.stack(others).sum(dim=0)).norm())
    return apart <= sum(gradients.rounding(len(part)) for part in parts)


def _arranged(
    x_B: Inputs, y_B: Tensor, generator: torch.Generator, *, thorough: bool
) -> Iterator[tuple[Inputs, Tensor, Tensor]]:
    """Yield the records at other places, with which of them is where."""
    size = len(y_B)
    orders = [torch.randperm(size, generator=generator), torch.zeros(size, dtype=torch.long)]
    if thorough:
        orders += [torch.full((size,), size - 1), torch.arange(size).roll(1), torch.arange(1)]
        orders += [torch.arange(size - 1), torch.arange(size // 2 + 1)]
    yield from ((taken(x_B, order), y_B[order], order) for order in orders)


def _accompanied(
    shape: DataShape, x_B: Inputs, short_B: Tensor, generator: torch.Generator, *, thorough: bool
) -> Iterator[tuple[Inputs, Tensor]]:
    """Yield records at their places, their companions replaced, with which are left.

    Those that end early, a random half, are left, and lose all the companions that are longer.
    """
    ways = [partial(_filled, filler=filler, greatest=number % 2 > 0) for number, filler in enumerate(_FILLERS)]
    spread = partial(_spread, generator=generator)
    ways += [partial(spread, sign=1.0), partial(spread, sign=-1.0), partial(spread, sign=1.0, alike=True)]

    def beside(parts: list[Tensor]) -> Tensor:
        own_B, other_B = parts
        return torch.where(short_B.view(-1, *[1] * (own_B.dim() - 1)), own_B, other_B)

    for way in ways if thorough else ways[:1]:
        yield together([x_B, each(shape.arrays, partial(way, count=len(short_B)))], beside), short_B


def _filled(shape: ArrayShape, *, count: int, filler: float, greatest: bool) -> Tensor:
    """Return records of one real number, or of the least whole number or the greatest."""
    size = (count, *shape.size)
    return torch.full(size, filler) if shape.below is None else torch.full(size, greatest * (shape.below - 1))


def _spread(shape: ArrayShape, *, count: int, generator: torch.Generator, sign: float, alike: bool = False) -> Tensor:
    """Return records whose values are spread, real ones over `_SPREAD` by their size; a record's may be alike."""
    size = (count, *(1 if alike else length for length in shape.size))
    entries = math.prod(size)
    place = (torch.randperm(entries, generator=generator) + torch.rand(entries, generator=generator)) / entries
    low, high = _SPREAD
    values = sign * low * (high / low) ** place if shape.below is None else (place * shape.below).long()
    return values.view(size).expand(count, *shape.size)


@contextmanager
def of_one_shape(gradients: ClippedSum) -> Iterator[None]:
    """Refuse a batch of another number of rows than a physical batch has that reaches the model meanwhile.

    What is computed again in a pass is none (`fedmodel.kinds.recomputed`).
    """
    size = gradients.rows * gradients.views

    def look(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        if is_again():  # a model that is one layer itself, whose gradients are computed by running it once more
            return
        rows = {len(one) for one in (*inputs, *named.values())}
        if rows != {size}:
            found = " and ".join(map(str, sorted(rows)))
            raise PrivacyError(
                f"a physical batch of {found} rows reached the model, where all have {size}; kernels round otherwise at"
                " another shape"
            )

    watching = gradients.module.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        watching.remove()


def hostile(parameters: list[nn.Parameter], seed: int) -> Iterator[str]:
    """Put one set of hostile parameters after another in, and yield each one's name.

    They are what a server could send to make much of a last bit: hidden units in pairs that cancel, at several sizes;
    units that are saturated; weights that are huge, and so small that float32 keeps few bits of them.
    """
    generator = torch.Generator().manual_seed(seed)
    fill(parameters, generator, 1.0)
    yield "random"
    for magnitude in _MAGNITUDES:
        fill(parameters, generator, magnitude)
        cancel(parameters, generator)
        yield f"cancelling pairs of {magnitude:g}"
    fill(parameters, generator, 1.0)
    with torch.no_grad():
        for parameter in parameters:
            if parameter.dim() == 1:
                parameter.mul_(1e4)
    yield "saturated units"
    for magnitude in (1e15, 1e-40):
        fill(parameters, generator, magnitude)
        yield f"weights of {magnitude:g}"


def fill(parameters: list[nn.Parameter], generator: torch.Generator, magnitude: float) -> None:
    """Give every parameter a random value around a magnitude."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * magnitude)


def cancel(parameters: list[nn.Parameter], generator: torch.Generator) -> None:
    """Make the last hidden layer's units equal in pairs, at random places, and the layer after take differences."""
    weights = [place for place, parameter in enumerate(parameters) if parameter.dim() > 1]
    for before, after in reversed(list(pairwise(weights))):
        units = parameters[before].shape[0]
        if units > 1 and parameters[after].shape[1] % units == 0:
            order = torch.randperm(units, generator=generator)
            first, second = order[: units // 2], order[units // 2 : units // 2 * 2]
            with torch.no_grad():
                for place in range(before, after):  # the layer's weights, its biases and a norm's factors
                    if parameters[place].shape[0] == units:
                        parameters[place][second] = parameters[place][first]
                out_HK = parameters[after].view(parameters[after].shape[0], units, -1)
                out_HK[:, second] = -out_HK[:, first]
            return
