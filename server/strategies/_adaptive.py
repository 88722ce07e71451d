"""What FedAdam, FedYogi and FedAdagrad have in common: each coordinate of a step is a mean over the root of squares.

After Reddi et al. 2021, algorithm 2, with one difference, which is Flower's: squares begin at 0, and not at `tau`
squared or more. Flower's `eta_l`, which it does not use, is `training.learning_rate` here.

Shapes: P parameters.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from fedmodel.kinds.section import Section
from server.strategies._optimizer import Vector


class Adaptive(Section):
    """Options of all three.

    Attributes:
        eta: How far a step goes.
        tau: Added to the root of squares: the larger, the closer a step is to a multiple of the mean.
    """

    eta: float = Field(default=0.1, gt=0, le=1e6)
    tau: float = Field(default=1e-3, gt=0, le=1e6)


class WithMoments(Adaptive):
    """Options of the two that keep moving averages.

    Attributes:
        beta_1: How much of the average of means is kept from one mean to the next.
        beta_2: Likewise of squares.
    """

    beta_1: float = Field(default=0.9, ge=0, lt=1)
    beta_2: float = Field(default=0.99, ge=0, lt=1)


def divided(first_P: Vector, second_P: Vector, tau: float) -> Vector:
    """Return a mean over the root of squares.

    >>> divided(np.array([3.0, 0.0]), np.array([4.0, 0.0]), 1.0).tolist()
    [1.0, 0.0]
    """
    over: Vector = first_P / (np.sqrt(second_P) + tau)
    return over
