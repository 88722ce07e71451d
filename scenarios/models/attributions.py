"""What each feature of a record adds to a model's score: exact of a linear model, by integrated gradients of any other.

A score is a weighed sum of a model's outputs: the logit of a class, a label's number. Attributions of a record add up
to its score less the score of the baseline (completeness):

    linear models   weight times (value less baseline), in float64; nothing is approximated
    all others      the gradient along the straight way from the baseline, integrated and multiplied likewise
                    (Sundararajan, Taly and Yan 2017, section 3), by Captum, with Gauss and Legendre's points

Guarantee: of a linear model both are the same, and the first is computed. Of any other the steps of the integral are
doubled until attributions add up to `_CLOSE` of the score's difference, on average; a model whose attributions are
further off than `_MOST` after `_MOST_STEPS` has none, and is refused.

Does NOT say what would happen if a feature were changed, nor that one causes anything: correlated features share what
they have in common by how the model was trained.

Shapes: N records, K outputs, F features in one row.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.errors import ConfigError
from fedmodel.kinds.signed import Signed
from fedmodel.learning.inputs import called
from fedmodel.system.packages import missing

_STEPS: Final = 64
_MOST_STEPS: Final = 512
_CLOSE: Final = 0.01
_MOST: Final = 0.05
_AT_ONCE: Final = 2**21  # numbers of records that a model is given in one batch: 8 MB in float32


@dataclass(frozen=True)
class Attributed:
    """What features add to a score.

    Attributes:
        value_NF: Of each record, shape `(N, F)`, float64.
        method: How it was computed.
        steps: Of the integral; 0 where there is none.
        gap: How far attributions are from adding up, as a share of the score's difference, on average.
    """

    value_NF: NDArray[np.float64]
    method: Literal["exact", "integrated-gradients"]
    steps: int
    gap: float


def linear(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return weights and biases by which a linear model's outputs follow from a record's row, None of any other model.

    Returns:
        float64, shapes `(K, F)` and `(K,)`.
    """
    # By their very types: a subclass may compute anything.
    layers = list(module) if type(module) is nn.Sequential else [module]
    layers = [layer for layer in layers if type(layer) is not nn.Flatten]
    if len(layers) != 1:
        return None
    (layer,) = layers
    if type(layer) is Signed:
        return layer.weights().detach().double()[None], layer.bias.detach().double()
    if type(layer) is nn.Linear:
        bias_K = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
        return layer.weight.detach().double(), bias_K.detach().double()
    return None


def attributions(
    module: nn.Module, x_N: NDArray[np.float32], weight_NK: NDArray[np.float64], base_F: NDArray[np.float32]
) -> Attributed:
    """Return what each feature adds to a score.

    Args:
        module: The model, in evaluation.
        x_N: Scaled records, shape `(N, *features)`.
        weight_NK: By what each record's outputs are weighed into its score, shape `(N, K)`.
        base_F: The record that attributions begin at, in one row.

    Raises:
        ConfigError: When a package is missing, or the model has no gradient by its features.
    """
    found = linear(module)
    if found is None:
        return _integrated(module, x_N, weight_NK, base_F)
    away_NF = x_N.reshape(len(x_N), -1).astype(np.float64) - base_F
    return Attributed((weight_NK @ found[0].numpy()) * away_NF, "exact", 0, 0.0)


def _integrated(
    module: nn.Module, x_N: NDArray[np.float32], weight_NK: NDArray[np.float64], base_F: NDArray[np.float32]
) -> Attributed:
    """Return integrated gradients, with as many steps as they need to add up."""
    base_1 = base_F.reshape(1, *x_N.shape[1:])
    steps = _STEPS
    while True:
        parts = []
        at_once = max(1, _AT_ONCE // (steps * base_F.size))
        for start in range(0, len(x_N), at_once):
            lot = slice(start, start + at_once)
            parts.append(integrated_gradients(module, x_N[lot], weight_NK[lot], base_1, steps))
        value_NF = np.concatenate(parts).reshape(len(x_N), -1)
        gap = _gap(value_NF, _scores(module, x_N, weight_NK) - _scores(module, base_1, weight_NK))
        if gap <= _CLOSE:
            break
        if steps >= _MOST_STEPS:
            if gap > _MOST:
                raise ConfigError(
                    f"what the features add does not add up to the model's answers: {gap:.0%} of them is missing after"
                    f" {steps} steps. This model jumps where its gradient says nothing, and is not explained by"
                    " gradients"
                )
            break
        steps *= 2
    return Attributed(value_NF, "integrated-gradients", steps, gap)


def integrated_gradients(
    module: nn.Module,
    x_N: NDArray[np.float32],
    weight_NK: NDArray[np.float64],
    base_1: NDArray[np.float32],
    steps: int,
) -> NDArray[np.float64]:
    """Return Captum's integrated gradients of some records, of their shape.

    Raises:
        ConfigError: When Captum is missing, or the model has no gradient by its features.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise missing("captum", "explaining a model that is not linear", "explain") from None

    def score(x_B: Tensor, weight_BK: Tensor) -> Tensor:
        return _weighed(module, x_B, weight_BK)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's hooks, which are Captum's to mind
            found_N: Tensor = IntegratedGradients(score).attribute(
                torch.from_numpy(x_N),
                baselines=torch.from_numpy(base_1),
                additional_forward_args=(torch.from_numpy(weight_NK).float(),),
                n_steps=steps,
                internal_batch_size=max(len(x_N), _AT_ONCE // max(1, base_1.size)),
            )
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(
            "the model's answers have no gradient by its features, by which it could be explained"
            f" ({type(error).__name__}); only a model that torch differentiates is"
        ) from None
    return found_N.detach().double().numpy()


def _weighed(module: nn.Module, x_B: Tensor, weight_BK: Tensor) -> Tensor:
    """Return each record's score."""
    return (called(module, x_B).reshape(len(x_B), -1) * weight_BK).sum(dim=1)


def _scores(module: nn.Module, x_N: NDArray[np.float32], weight_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the score of each record, or of one record by each record's weights."""
    rows = max(1, _AT_ONCE // max(1, int(np.prod(x_N.shape[1:]))))
    with torch.no_grad():
        outputs = [called(module, torch.from_numpy(x_N[start : start + rows])) for start in range(0, len(x_N), rows)]
    output_NK = torch.cat([one.reshape(len(one), -1) for one in outputs]).double().numpy()
    found_N: NDArray[np.float64] = (output_NK * weight_NK).sum(axis=1)
    return found_N


def _gap(value_NF: NDArray[np.float64], difference_N: NDArray[np.float64]) -> float:
    """Return how far attributions are from adding up to scores' differences, as a share of them on average."""
    off, whole = np.abs(value_NF.sum(axis=1) - difference_N).mean(), np.abs(difference_N).mean()
    return 0.0 if off == 0 else float(off / whole) if whole else float("inf")


def parted(value_NF: NDArray[np.float64], places: Sequence[slice]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of what features that belong together add: of what is above 0, and of what is below it.

    Args:
        value_NF: Attributions.
        places: Of the features that belong together; they are added up for each record first.

    >>> toward, away = parted(np.array([[1.0, 2.0, -1.0], [1.0, -4.0, 0.0]]), [slice(0, 2), slice(2, 3)])
    >>> toward.tolist(), away.tolist()
    ([1.5, 0.0], [1.5, 0.5])
    """
    value_NC = np.stack([value_NF[:, place].sum(axis=1) for place in places], axis=1)
    return np.maximum(value_NC, 0).mean(axis=0), np.maximum(-value_NC, 0).mean(axis=0)
