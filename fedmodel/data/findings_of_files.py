"""What a run would find in a party's own files, for the party's own eyes (`fedmodel.data.findings` is of tables).

Guarantee: `Findings.refused` is true if and only if a run refuses the files: they are read by what a run reads them by.
It stops at the first file that breaks a rule, so that a second look is needed once that is mended.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import TableSource
from fedmodel.data.findings import Finding, Findings, Line
from fedmodel.data.folders import files_records
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.files import Files


def inspect_files(config: Files, source: TableSource) -> Findings:
    """Read files as a run would, and return what is to be said of them. Sensitive.

    Args:
        config: Declares them.
        source: Where they lie, with absolute paths.
    """
    try:
        records = files_records(config, source)
    except (ConfigError, DataError) as error:
        rule, _, way_out = str(error).partition("; ")
        return Findings((), (Finding(rule, way_out),), 0, np.arange(0))
    where = source.files or ""
    lines = tuple(
        Line(where, label, "a label", f"{count} records", missing=0, outside=0, left_out=0, refused=0)
        for label, count in zip(config.labels, _counts(records.y_N, len(config.labels)), strict=True)
    )
    return Findings(lines, (), len(records), records.person_N)


def _counts(y_N: NDArray[Any], labels: int) -> list[int]:
    """Return how many records have each label; none of targets that are no labels."""
    if not labels:
        return []
    found: list[int] = (np.bincount(y_N, minlength=labels) if y_N.ndim == 1 else y_N.sum(axis=0)).tolist()
    return found
