"""What book-keeping saves of a layer, its squared norm for each record, and its weighted sum; a file for each family.

A family of layers is a function from a layer, the tensor that went in and the gradient of the loss at what came out to
`parts.Part`s: what records add to each of its parameters. What a part promises is said there; a family promises that
its parts are the gradients of the function that the layer computes. Parts of one parameter that was used several times,
by one layer or by several, are joined into one before any norm is taken, so that a record counts once.

| Case                                           | What happens                                                     |
|------------------------------------------------|------------------------------------------------------------------|
| a layer of a family, called once               | its parts, the cheaper way by shapes                             |
| all that is trained is linear layers, each      | one part for all of them (`rows`)                                |
| called once, on one row of a record            |                                                                  |
| called several times, or its weight is tied    | positions of all uses are put side by side; of other kinds of    |
|                                                | use, each record's gradients are kept and added up               |
| `nn.MultiheadAttention`, `nn.RNN`, `nn.GRU`,    | computed from its parameters while records pass, its projections |
| `nn.LSTM` and their cells                      | as linear layers; of packed sequences `PrivacyError`             |
| its input has another first dimension than the | `PrivacyError`: which record a row is of is not known            |
| batch                                          |                                                                  |
| what went in was changed in place since        | `PrivacyError`: the gradient would be of something else          |
| a frozen parameter                             | nothing is saved of it                                           |
| one that reaches no loss                       | `PrivacyError`: it would be released without noise               |
| no family knows the layer                      | Opacus's function for it, else torch's transforms of the layer   |
|                                                | alone; each record's gradients are kept                          |
| such a layer has not one tensor in and out     | `PrivacyError`: take "functional"                                |
| a model's or a layer's own parameters, beside  | each record has a copy of them where they meet records;          |
| those of the layers that it holds              | otherwise `PrivacyError` (`_loose`)                              |
| a parameter that is used outside its layer     | not seen here; `fedmodel.learning.checked_losses` refuses it     |
"""

from __future__ import annotations

from typing import Final

from torch import nn

from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients.layers import _convolution, _embedding, _linear, _norms, _other
from fedmodel.learning.gradients.layers.parts import Family, Kept, Part
from fedmodel.learning.gradients.layers.products import Outer, beside

_TORCHS: Final[dict[type[nn.Module], Family]] = {
    **_linear.LAYERS,
    **_convolution.LAYERS,
    **_embedding.LAYERS,
    **_norms.LAYERS,
}
_KNOWN: Final = {"weight", "bias"}  # parameters that families look at


def families() -> dict[type[nn.Module], Family]:
    """Return the family of each type of layer that book-keeping knows, Opacus's among them where it was imported."""
    return _TORCHS | _linear.of_opacus()


def family_of(layer: nn.Module) -> tuple[Family, str]:
    """Return how a layer's parts are computed, and why so, in words."""
    own = {key for key, one in layer.named_parameters(recurse=False) if one.requires_grad}
    family = families().get(type(layer))
    if family is not None and own <= _KNOWN and isinstance(layer.weight, nn.Parameter | None):
        return family, "book-keeping knows it"
    if _other.is_known_to_opacus(layer):
        return _other.by_opacus, "Opacus's function for it"
    return _other.by_transforms, "torch's transforms of the layer alone"


def joined(parameter: nn.Parameter, parts: list[Part]) -> list[Part]:
    """Return one part for all of a parameter, or one for each set of its rows, in order of rows.

    Raises:
        PrivacyError: When some rows got none, or are in two sets.
    """
    of_rows: dict[tuple[int, int], list[Part]] = {}
    for part in parts:
        start, stop, _ = part.rows.indices(size := max(1, len(parameter) if parameter.dim() else 1))
        of_rows.setdefault((start, stop), []).append(part)
    ordered = sorted(of_rows)
    if [0, *(stop for _, stop in ordered)] != [*(start for start, _ in ordered), size]:
        raise PrivacyError('a parameter is used in part here and otherwise there; take "functional"')
    return [_one(of_rows[rows]) for rows in ordered]


def _one(parts: list[Part]) -> Part:
    """Return the part that several of the same rows come to, in the cheaper way."""
    if len(parts) == 1:
        return parts[0].cheapest()
    outer = [part for part in parts if isinstance(part, Outer)]
    looked = [part for part in parts if isinstance(part, _embedding.Looked)]
    if len(outer) == len(parts) and len({part.groups for part in outer}) == 1:
        return beside(outer).cheapest()
    if len(looked) == len(parts):
        return _embedding.beside(looked).cheapest()
    total_BP, *others = [part.kept().grad_BP for part in parts]
    for grad_BP in others:
        total_BP = total_BP + grad_BP
    return Kept(parts[0].parameter, total_BP, parts[0].rows)
