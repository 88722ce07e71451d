"""What a run would find in a party's own files, for the party's own eyes (`fedmodel.data.findings` is of tables).

Guarantee: `Findings.refused` is true if and only if a run refuses the files: they are read by what a run reads them by.
It stops at the first file that breaks a rule, so that a second look is needed once that is mended. Of files that can
be read it says besides which others lie there, that no run reads: for each kind of name how many, and some by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import TableSource
from fedmodel.data.findings import Finding, Findings, Line
from fedmodel.data.folders import files_read, files_records
from fedmodel.data.sources import walked
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.files import Files
from fedmodel.kinds.sources.idx import IdxConfig
from fedmodel.kinds.sources.images import ImagesConfig
from fedmodel.kinds.sources.json_lines import JsonLinesConfig

_NAMED: Final = 10  # files, of one finding
_READ: Final[dict[type[Files], str]] = {
    ImagesConfig: "images in the folder of each label are read, or those that the scenario's data.listing names",
    IdxConfig: "one pair of PREFIX-images-idx3-ubyte and PREFIX-labels-idx1-ubyte, or .gz of them, is read",
    JsonLinesConfig: "files that end in .jsonl, in the folder itself, are read",
}


def inspect_files(config: Files, source: TableSource) -> Findings:
    """Read files as a run would, and return what is to be said of them. Sensitive.

    Args:
        config: Declares them.
        source: Where they lie, with absolute paths.
    """
    try:
        records = files_records(config, source)
        to_know = tuple(_to_know(config, Path(source.files or ""), len(records)))
    except (ConfigError, DataError) as error:
        rule, _, way_out = str(error).partition("; ")
        return Findings((), (Finding(rule, way_out),), 0, np.arange(0))
    where = source.files or ""
    lines = tuple(
        Line(where, label, "a label", f"{count} records", missing=0, outside=0, left_out=0, refused=0)
        for label, count in zip(config.labels, _counts(records.y_N, len(config.labels)), strict=True)
    )
    return Findings(lines, to_know, len(records), records.person_N)


def _to_know(config: Files, folder: Path, records: int) -> Iterator[Finding]:
    """Yield what is no reason to refuse, and would else go unnoticed: no record at all, and files that no run reads."""
    if not records:
        yield Finding("holds no record", _READ[type(config)], refuses=False, where=str(folder))
    read = {os.path.realpath(path) for path in files_read(config, folder)}
    unread: dict[str, list[str]] = {}
    for path in walked(folder):
        if os.path.realpath(path) not in read:
            unread.setdefault(_kind(path), []).append(str(path.relative_to(folder)))
    for kind, names in sorted(unread.items()):
        what = f"files {kind}, which are not read: {len(names)}"
        yield Finding(what, _READ[type(config)], refuses=False, where=str(folder), values=tuple(names[:_NAMED]))


def _kind(path: Path) -> str:
    """Say of which kind a file is by its name."""
    if path.name.startswith("."):
        return "whose names begin with a dot"
    return f"that end in {path.suffix}" if path.suffix else "without an ending"


def _counts(y_N: NDArray[Any], labels: int) -> list[int]:
    """Return how many records have each label; none of targets that are no labels."""
    if not labels:
        return []
    found: list[int] = (np.bincount(y_N, minlength=labels) if y_N.ndim == 1 else y_N.sum(axis=0)).tolist()
    return found
