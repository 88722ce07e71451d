"""What a run would find in a party's own files, all of it at once, for the party's own eyes.

Guarantee: `Findings.refused` is true if and only if a run refuses the files: they are read by the very readers that a
run reads them by, which note a record that breaks a rule and go on with the next (`fedmodel.data.reading`). What is
found stands together by file, by field and by rule, with the numbers of lines or rows, or by rule with some of the
files' names. What one record breaks second is told once the first is mended. Of files that can be read it says besides
which others lie there, that no run reads. `fedmodel.data.findings` does the same of tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import TableSource
from fedmodel.data.files import files_read, files_records, read_folder, reading_of, what_is_read
from fedmodel.data.findings import Finding, Findings, Line
from fedmodel.data.reading import Broken
from fedmodel.data.sources import walked
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.files import Files
from fedmodel.kinds.shape import MULTI_LABEL, SEQUENCE

_NAMED: Final = 10  # files, or rows, of one finding


def inspect_files(config: Files, source: TableSource) -> Findings:
    """Read files as a run would, and return what is to be said of them. Sensitive.

    Args:
        config: Declares them.
        source: Where they lie, with absolute paths.
    """
    broken: list[Broken] = []
    found: list[Finding] = []
    try:
        read_folder(config, Path(source.files or ""), replace(reading_of(config, source), broken=broken))
    except (ConfigError, DataError) as error:
        found.append(_told(str(error)))
    found = [*_together(broken), *found]
    if found:
        return Findings((), tuple(found), 0, np.arange(0))
    return _as_a_run_reads(config, source)


def _as_a_run_reads(config: Files, source: TableSource) -> Findings:
    """Return what is to be said of files of which no record breaks a rule."""
    try:
        records = files_records(config, source)
        to_know = tuple(_to_know(config, Path(source.files or ""), len(records)))
    except (ConfigError, DataError) as error:
        return Findings((), (_told(str(error)),), 0, np.arange(0))
    where = source.files or ""
    lines = tuple(
        Line(where, label, "a label", f"{count} {what}", missing=0, outside=0, left_out=0, refused=0)
        for label, count, what in _counts(config, records.y_N)
    )
    return Findings(lines, to_know, len(records), records.person_N)


def _told(error: str) -> Finding:
    """Return a finding of what ends the reading: its rule, and what settles it."""
    rule, _, way_out = error.partition("; ")
    return Finding(rule, way_out)


def _together(broken: Iterable[Broken]) -> Iterator[Finding]:
    """Yield a finding for each rule that is broken: of one file by its rows, of many by their names."""
    by_rule: dict[tuple[str, str | None, str], list[Broken]] = {}
    for one in broken:
        where = "" if one.at.row is None else str(one.at.file)
        by_rule.setdefault((where, one.key, one.rule), []).append(one)
    for (where, key, said), alike in by_rule.items():
        rule, _, way_out = said.partition("; ")
        rows = tuple(one.at.row for one in alike[:_NAMED] if one.at.row is not None)
        names = tuple(str(one.at.file) for one in alike[:_NAMED] if one.at.row is None)
        yield Finding(rule, way_out, True, where, key, rows, len(alike), names)


def _to_know(config: Files, folder: Path, records: int) -> Iterator[Finding]:
    """Yield what is no reason to refuse, and would else go unnoticed: no record at all, and files that no run reads."""
    if not records:
        yield Finding("holds no record", what_is_read(config), refuses=False, where=str(folder))
    read = {os.path.realpath(path) for path in files_read(config, folder)}
    unread: dict[str, list[str]] = {}
    for path in walked(folder):
        if os.path.realpath(path) not in read:
            unread.setdefault(_kind(path), []).append(str(path.relative_to(folder)))
    for kind, names in sorted(unread.items()):
        what = f"files {kind}, which are not read: {len(names)}"
        yield Finding(what, what_is_read(config), refuses=False, where=str(folder), values=tuple(names[:_NAMED]))


def _kind(path: Path) -> str:
    """Say of which kind a file is by its name."""
    if path.name.startswith("."):
        return "whose names begin with a dot"
    return f"that end in {path.suffix}" if path.suffix else "without an ending"


def _counts(config: Files, y_N: NDArray[Any]) -> Iterator[tuple[str, int, str]]:
    """Yield for each label how many records, or words in them, have it."""
    several, what = config.shape.task == MULTI_LABEL, "words" if config.shape.task == SEQUENCE else "records"
    for place, label in enumerate(config.labels):
        yield label, int(y_N[:, place].sum() if several else (y_N == place).sum()), what
