"""What a simulation's author gave, taken: a data set that is dealt out, or one for each silo, and the server's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.named import each
from fedmodel.data.records import Records, deal_out
from fedmodel.data.taken import Taken
from fedmodel.errors import DataError
from fedmodel.kinds.partition import Partition
from fedmodel.kinds.partitions.iid import IID
from fedmodel.kinds.sources.own import PERSON
from fedmodel.privacy.events import UnitName


@dataclass(frozen=True)
class Parts:
    """What was given, taken. Sensitive.

    Attributes:
        silos: One for each silo, or one alone that is dealt.
        are_dealt: Whether it is the latter.
        test: The server's, where there is one.
    """

    silos: tuple[Taken, ...]
    are_dealt: bool
    test: Taken | None

    def __iter__(self) -> Iterator[Taken]:
        return iter(self.silos if self.test is None else (*self.silos, self.test))

    def __repr__(self) -> str:
        return "Parts(...)"  # a repr ends up in logs

    def check_apart(self, unit: UnitName) -> None:
        """Refuse that exact figures are told of somebody whom a claim is to hide: those on held-out records are exact.

        | Claim for | Refused                                                                                      |
        |-----------|----------------------------------------------------------------------------------------------|
        | records   | nothing: a record trains or is held out                                                      |
        | persons   | a person of whom some records are the server's, and others are dealt to silos                |
        | clients   | a share of each silo's own data set: a silo that trains would be in the figures              |

        Ids of one data set and of its test part are one party's. Where each silo has a data set of its own, ids are
        too: one that two parties have may be of two persons, and nothing is refused.

        Args:
            unit: Whom the claim is for.

        Raises:
            DataError: When it is so; it names nobody.
        """
        if unit == "client" and self.test is None and not self.are_dealt:
            raise DataError(
                "data.held_out takes a share of each silo's own records; exact figures are told of these, and"
                ' privacy.unit = "client" hides all that is a silo\'s. Give the server records of its own, a test part'
                ' or a folder held-out/, or claim for persons or records, unit = "person" or "record"'
            )
        if unit != "person" or self.test is None or not self.are_dealt:
            return
        if any(self.test.persons & part.persons for part in self.silos):
            raise DataError(
                f"{self.test.where}: a person with records here has some that train too; exact figures are told of"
                ' these, and privacy.unit = "person" hides all that is a person\'s. Take them out of one of the two,'
                ' give a share, held_out, of which persons go whole, or claim for records, unit = "record"'
            )

    def dealt_out(
        self, held_out: float | None, partition: Partition, bound: float, silos: tuple[str, ...], seed: int
    ) -> tuple[Records, tuple[Records, ...]]:
        """Return the server's held-out records, and every silo's.

        Args:
            held_out: Share that is the server's, where it has no part: of all records, or of each silo's.
            partition: How what is one is dealt.
            bound: What real numbers are bounded to, plus and minus.
            silos: Their names, in order.
            seed: The scenario's.

        Raises:
            DataError: When the records cannot be dealt out as declared.
        """
        test = None if self.test is None else _records(self.test, bound)
        if self.are_dealt:
            (whole,) = self.silos
            apart, dealt = deal_out(
                _records(whole, bound), held_out, partition, silos, seed, lambda name: _column(whole, name)
            )
            return (apart if test is None else test), dealt
        each_one = [_records(part, bound) for part in self.silos]
        if test is not None:
            return test, tuple(each_one)
        split = [
            deal_out(one, held_out, IID(), (silo,), seed, lambda _: None)
            for silo, one in zip(silos, each_one, strict=True)
        ]
        return Records.joined([apart for apart, _ in split]), tuple(dealt[0] for _, dealt in split)


def _column(whole: Taken, name: str) -> NDArray[Any] | None:
    """Return what each record says in the column that records are dealt by."""
    return whole.person_N if name == PERSON else whole.group_N


def _records(part: Taken, bound: float) -> Records:
    """Return a part as records, real numbers of it bounded."""
    x = each(part.x, lambda one: np.clip(one, -bound, bound) if one.dtype.kind == "f" else one)
    return Records(x, part.y_N, part.person_N)
