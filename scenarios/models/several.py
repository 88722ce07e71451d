"""Records of several arrays as one row each, and their model as one of rows: for what looks at a record by its numbers.

A row has the numbers of all arrays, one array after the other in the order in which they are declared. The model gets
the arrays as contiguous tensors, as in a batch of them, so that what it answers of a row is what it answers of the
arrays, and a straight way from one row to another is the straight way between their arrays.

Shapes: N records, F numbers in one row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import ArrayShape
from fedmodel.learning.inputs import called
from scenarios.models.trained import Trained


class OfRows(nn.Module):
    """A model of several arrays that is given each record as a row.

    Args:
        module: The model.
        inputs: Its arrays, by name and in order; of real numbers.
    """

    def __init__(self, module: nn.Module, inputs: Mapping[str, ArrayShape]) -> None:
        super().__init__()
        self.module, self._sizes = module, {name: one.size for name, one in inputs.items()}

    def forward(self, row_BF: Tensor) -> Tensor:
        """Return what the model makes of the arrays."""
        parts = torch.split(row_BF, [math.prod(size) for size in self._sizes.values()], dim=1)
        sizes = self._sizes.items()
        # A part of a row is strided, and kernels for strided arrays may round otherwise.
        whole = [part.contiguous() for part in parts]
        named = {name: part.reshape(-1, *size) for (name, size), part in zip(sizes, whole, strict=True)}
        return called(self.module, named)


def in_rows(
    model: Trained, x_N: NDArray[np.float32] | Mapping[str, NDArray[Any]]
) -> tuple[Trained, NDArray[np.float32]]:
    """Return a model and records of one array as they are, and of several as rows and a model of these.

    Args:
        model: The model.
        x_N: Scaled records, as the model takes them.

    Raises:
        ConfigError: When the records are not of the model's arrays.
    """
    inputs = model.description.data.inputs
    if inputs is None and not isinstance(x_N, Mapping):
        return model, x_N
    if inputs is None or not isinstance(x_N, Mapping) or x_N.keys() != inputs.keys():
        found = ", ".join(x_N) if isinstance(x_N, Mapping) else "one array"
        raise ConfigError(f"this model takes {', '.join(inputs or ['one array'])}, and these records are {found}")
    count = len(next(iter(x_N.values())))
    row_NF = np.concatenate([x_N[name].reshape(count, -1) for name in inputs], axis=1).astype(np.float32)
    return replace(model, module=OfRows(model.module, inputs).eval()), row_NF
