"""How files are read: which records, with which tokenizer, and whether the first one that breaks a rule ends it.

A run ends there. Whoever looks at their own files before a run is told of every record that would end it, by the very
same readers (`fedmodel.data.findings_of_files`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fedmodel.data.places import At, RecordRefused
from fedmodel.data.whose import Whose

_EVERYBODYS: Final = Whose()
MOST_BROKEN: Final = 10_000
"""Records that are named: with more, it is what is declared that is wrong, and not the files."""


@dataclass(frozen=True)
class Broken:
    """A record that breaks a rule.

    Attributes:
        at: Where it stands.
        rule: Which one.
        key: By which field or column.
    """

    at: At
    rule: str
    key: str | None


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        whose: Which records.
        tokenizer: Where a tokenizer's file lies, of texts that are declared to need one.
        broken: Where records that break a rule are noted; None where the first ends the reading.
    """

    whose: Whose = _EVERYBODYS
    tokenizer: Path | None = None
    broken: list[Broken] | None = field(default=None, repr=False)

    @contextmanager
    def record(self) -> Iterator[None]:
        """Read one record in the block; where records that break a rule are noted, the block ends at the rule.

        Nothing of the record may be kept before all of it was read.
        """
        try:
            yield
        except RecordRefused as refused:
            if self.broken is None or len(self.broken) >= MOST_BROKEN:
                raise
            self.broken.append(Broken(refused.at, refused.rule, refused.key))
