"""Made-up records whose positions cancel, and models at which they do: where a norm that is computed may be none.

A layer that a record passes at many positions adds up a gradient of many products, each large, of which hardly anything
may be left. A norm from Gram matrices then is a small difference of large numbers. In float32 it came out as half or as
nothing, and a record contributed 52.9 clips; factors of 1e20 make its squares infinite. So the preflight tries both, of
every kind of gradients, and of what a kind adds up it asks no more than that one record moves it by at most the clip.

A record's values come in pairs of opposite sign that are equal but for a share `apart`, and a few at either end are
zero, so that no window of a convolution sees half of a pair. What a layer makes of them has to be linear for the
gradients to cancel too. So the parameters are such that activations are:

| Models               | First weights | Biases | What cancels                                                      |
|----------------------|---------------|--------|-------------------------------------------------------------------|
| smooth at 0          | 1e-4/scale    | 0      | values are so small that slopes are equal, as of tanh             |
| others               | 1e-4/scale    | 8      | units are on at either value, as of ReLU, GELU, SiLU              |
| factors far apart    | 1e-4/scale    | 0      | of records of 1e-20; what comes back to the first layer is 1e20   |

Of whole numbers, rows of the first table are in opposite pairs, and a record's numbers are those of such pairs.

Does NOT make every model cancel: one that norms what it was given, for instance, has other slopes at each position. Its
layers are held to their bounds by tests of their own (`tests/fedmodel/learning/gradients`).

Shapes: B batch; a record's own axes follow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from fedmodel.data.named import arrays, each
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning.conformance import fill
from fedmodel.learning.inputs import Inputs

_ON: Final = 8.0  # of a bias: units are on, and slopes are 1
_SMALL: Final = 1e-4  # of what first weights make of a record: slopes at opposite values are equal to rounding
_EDGES: Final = 3  # values at either end, which windows of up to seven see beside padding; fewer of short records
_LEAST_PAIRS: Final = 4


@dataclass(frozen=True)
class Hostile:
    """What one set of hostile parameters is made for.

    Attributes:
        scale: Of real numbers of a record.
        apart: By what share the two of a pair differ.
        bias: Of all units.
        draws: How many records are tried along each axis: whether rounding takes all of a norm is a matter of chance.
        last: What the last weights are multiplied with.
    """

    scale: float
    apart: float
    bias: float = 0.0
    draws: int = 1
    last: float = 1.0


# Of 2^-12 float32 cannot tell a norm from nothing; of 2^-22 float64 cannot without a bound on its rounding.
_SETS: Final = (
    Hostile(1e6, 2.0**-12, draws=3),
    Hostile(1e6, 2.0**-12, bias=_ON),
    Hostile(1e20, 2.0**-22),
    Hostile(1e-20, 2.0**-12, last=1e20),
)


def hostile_to_positions(parameters: list[nn.Parameter], shape: DataShape, seed: int) -> Iterator[Hostile]:
    """Put one set of parameters after another in at which positions cancel, and yield what records are to be like.

    Args:
        parameters: The model's trainable ones, in its order.
        shape: What records look like.
        seed: Decides them.
    """
    generator = torch.Generator().manual_seed(seed)
    whole = all(one.below is not None for one in arrays(shape.arrays))
    for one in _SETS:
        _put(parameters, generator, one, whole=whole)
        yield one


def _put(parameters: list[nn.Parameter], generator: torch.Generator, one: Hostile, *, whole: bool) -> None:
    """Put parameters in."""
    fill(parameters, generator, 1.0)
    weights = [parameter for parameter in parameters if parameter.dim() > 1]
    with torch.no_grad():
        for parameter in parameters:
            if parameter.dim() == 1:
                parameter.fill_(one.bias)
        for weight in weights:
            weight.div_(weight[0].numel() ** 0.5)  # so that values stay of one size from layer to layer
        if whole and weights:
            table = weights.pop(0)
            pairs = len(table) // 2
            table.mul_(one.scale)
            table[1 : 2 * pairs : 2] = -table[0 : 2 * pairs : 2] * (1 + one.apart)
        if weights:
            weights[0].mul_(_SMALL / one.scale)
            weights[-1].mul_(one.last)


def opposed(shape: DataShape, generator: torch.Generator, one: Hostile) -> Iterator[Inputs]:
    """Yield made-up records, one at a time, whose positions cancel: along their first axis, and along their last.

    >>> shape, generator = DataShape((10,), 2), torch.Generator().manual_seed(1)
    >>> [x] = [x for x in opposed(shape, generator, Hostile(1.0, 0.0))]
    >>> x[0, [0, 9]].tolist(), bool((x[0, 1:9:2] == -x[0, 2:9:2]).all())
    ([0.0, 0.0], True)
    """
    wide = {sum(length > 1 for length in array.size) > 1 for array in arrays(shape.arrays)}
    for first in (True, False) if True in wide else (True,):
        for _ in range(one.draws):
            yield each(shape.arrays, partial(_opposed, generator=generator, one=one, first=first))


def _opposed(array: ArrayShape, *, generator: torch.Generator, one: Hostile, first: bool) -> Tensor:
    """Return a record's part in one array, `(1, ...)`, in pairs along its first axis or its last."""
    size = (list(array.size) if first else list(reversed(array.size))) or [1]
    while len(size) > 1 and size[0] == 1:  # an axis of one has no pairs
        size.pop(0)
    along = size[0]
    edge = min(_EDGES, along // 8)
    pairs = (along - 2 * edge) // 2
    if array.below is not None:
        made = _neighbours(array.below, along, size, generator)
    else:
        made = torch.zeros(size)
        half = torch.randn([pairs, *size[1:]], generator=generator) * one.scale
        made[edge : edge + 2 * pairs] = torch.stack([half, -half * (1 + one.apart)], dim=1).flatten(0, 1)
    return (made if first else made.permute(*range(made.dim() - 1, -1, -1))).reshape(1, *array.size)


def _neighbours(below: int, along: int, size: list[int], generator: torch.Generator) -> Tensor:
    """Return whole numbers of which each is followed by the other of its pair, such as 6 by 7."""
    least = 2 if below >= _LEAST_PAIRS else 0  # 0, and perhaps 1, often stands for padding
    drawn = least + 2 * torch.randint(max(1, (below - least) // 2), [-(-along // 2), *size[1:]], generator=generator)
    both = torch.stack([drawn, drawn + 1], dim=1).flatten(0, 1)[:along]
    return both.clamp(max=below - 1)
