"""Partial dependence: what a model answers on average, were one column the same in all records.

Friedman 2001, "Greedy function approximation", section 8.2, equation 53, over the records that are given. A number goes
over its public range, a category and a boolean over their choices, so that nothing at which it is computed comes from a
record.

Does NOT say what a model answers of records that are like any real one: where columns go together, some of the records
that are made so could not be.

Shapes: N records, V values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from scenarios.models.factors import Factor
from scenarios.models.scores import answered, outputs_of
from scenarios.models.trained import Trained
from scenarios.runs.explanation import Dependence


def dependence(model: Trained, x_N: NDArray[np.float32], found: Sequence[Factor]) -> Iterator[Dependence]:
    """Yield how answers depend on each of some columns.

    Args:
        model: The model.
        x_N: Scaled records, shape `(N, *features)`.
        found: The columns.
    """
    for factor in found:
        means: dict[str, list[float]] = {}
        for value_C in factor.values_VC:
            changed_NF = x_N.reshape(len(x_N), -1).copy()
            changed_NF[:, factor.places] = value_C
            for name, answer_N in answered(model, outputs_of(model, changed_NF.reshape(x_N.shape))).items():
                means.setdefault(name, []).append(float(answer_N.mean()))
        answers = {name: tuple(values) for name, values in means.items()}
        yield Dependence(name=factor.name, at=factor.at, choices=factor.choices, answers=answers)
