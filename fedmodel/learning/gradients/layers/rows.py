"""All trained layers of a model at once, where they are linear and each sees one row of a record.

Of such a model time is in calls, not in numbers. A layer's gradient of a record is one outer product, of b, the
gradient of the loss at what came out, and a, what went in; its bias's gradient is b. So all factors of a physical batch
are put side by side and turned into float64 once, for norms and for sums.

Guarantee, of a physical batch of at most `parts.BLOCK` records: as `parts` gives it of `Outer` at one position and of
`Kept` side by side. A record's squared norm is the sum over layers of |b|^2 (|a|^2 + 1), without the one where there is
no bias, each norm of a row by itself, so that no companion's bits are in it; its reach is its norm. A sum's entries are
added up in float64 from products of the same factors, one for each record. Neither branches on values.

Shapes: B rows of a physical batch, L layers, p outputs and d inputs of one, P entries of all parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from fedmodel.learning.gradients.layers.parts import BLOCK, Share, hashed, put_together

_ROW: Final = 2  # dimensions of what a layer is given where it sees one row of a record


@dataclass(frozen=True)
class Layers:
    """Linear layers, in the order of a model's parameters.

    Attributes:
        of: The layers.
        parameters: Their weights and biases, which are all that is trained.
        outputs: p of each.
        inputs: d of each.
        biases: One where a layer has a bias, else zero, `(L, 1)`.
    """

    of: tuple[nn.Linear, ...]
    parameters: tuple[Tensor, ...]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    biases: Tensor


def layers_of(trained: Sequence[nn.Module], parameters: Sequence[nn.Parameter]) -> Layers | None:
    """Return the layers if all that is trained is weights and biases of linear ones, None otherwise.

    Args:
        trained: Layers that have trained parameters, each once.
        parameters: The trained parameters, in a model's order.
    """
    place = {id(one): number for number, one in enumerate(parameters)}
    linear = [one for one in trained if type(one) is nn.Linear and id(one.weight) in place]
    if not linear or len(linear) < len(trained):
        return None
    linear.sort(key=lambda one: place[id(one.weight)])
    own = [one for layer in linear for one in (layer.weight, layer.bias) if one is not None]
    if [*map(id, own)] != [*map(id, parameters)]:
        return None
    biases_L1 = torch.tensor([[float(one.bias is not None)] for one in linear], dtype=torch.float64)
    outputs, inputs = zip(*(one.weight.shape for one in linear), strict=True)
    return Layers(tuple(linear), tuple(own), outputs, inputs, biases_L1.to(own[0].device))


def is_row(given: Tensor, records: int) -> bool:
    """Tell whether a layer is given one row for each record, of float32, and not too many for one product."""
    return given.dim() == _ROW and given.dtype == torch.float32 and len(given) == records <= BLOCK


class Rows(Share):
    """Outer products at one position, of all layers. Sensitive.

    Args:
        layers: Whose.
        lefts: The gradient of the loss at what came out of each, float32 `(B, p)`.
        rights: What went in there, float32 `(B, d)`.
    """

    def __init__(self, layers: Layers, lefts: Sequence[Tensor], rights: Sequence[Tensor]) -> None:
        self.layers, self.lefts, self.rights = layers, lefts, rights
        self._left_BP, self._right_BD = (torch.cat(tuple(some), dim=1).double() for some in (lefts, rights))

    @property
    def parameters(self) -> Sequence[Tensor]:
        """All of the model's."""
        return self.layers.parameters

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return each record's squared norm, twice."""
        left_LB, right_LB = (
            torch.stack([torch.linalg.vector_norm(one, dim=1) for one in some])
            for some in (
                self._left_BP.split_with_sizes(self.layers.outputs, 1),
                self._right_BD.split_with_sizes(self.layers.inputs, 1),
            )
        )
        square_B = left_LB.square_().mul_(right_LB.square_().add_(self.layers.biases)).sum(dim=0)
        return square_B, square_B

    def summed(self, factor_B: Tensor) -> Tensor:
        """Return the weighted sum, of a weight and its bias after the other."""
        # Zero times infinity is NaN: what is not finite of a record that counts nothing is zeroed on both sides.
        left_BP = (self._left_BP * factor_B[:, None]).nan_to_num_(0.0, 0.0, 0.0)
        right_BD = self._right_BD.nan_to_num(0.0, 0.0, 0.0)
        biases = left_BP.sum(dim=0).split_with_sizes(self.layers.outputs)
        factors = zip(
            left_BP.split_with_sizes(self.layers.outputs, 1),
            right_BD.split_with_sizes(self.layers.inputs, 1),
            biases,
            self.layers.of,
            strict=True,
        )
        sums = []
        for left_Bp, right_Bd, bias_p, layer in factors:
            sums.append(torch.mm(left_Bp.t(), right_Bd).view(-1))
            if layer.bias is not None:
                sums.append(bias_p)
        return torch.cat(sums)

    def hashed(self, multipliers_P: Tensor) -> Tensor:
        """Return a hash of all factors."""
        return put_together(hashed(one, multipliers_P) for one in (*self.lefts, *self.rights))
