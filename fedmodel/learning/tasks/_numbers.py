"""Real numbers that a model returns for each record, held beside the targets, which have the same numbers of each."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fedmodel.errors import ConfigError


def side_by_side(task: str, output: Any, target_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs and targets as rows of one length, `(B, K)`, so that no record's is spread over another's.

    Raises:
        ConfigError: When a model returns another number of outputs for each record.
    """
    rows = len(target_B)
    target_BK = target_B.reshape(rows, -1).to(output.dtype)
    if output.dim() < 1 or len(output) != rows or output.reshape(rows, -1).shape != target_BK.shape:
        raise ConfigError(
            f"the task {task} needs {target_BK.shape[1]} outputs of each of {rows} records, and the model returns"
            f" {'x'.join(map(str, output.shape)) or 'a single number'}"
        )
    return output.reshape(rows, -1), target_BK
