"""How far a silo came in a run: the acts that no restored backup may undo, as plain data.

A silo's state is a file, and a file can be put back. So each act that must stay done is entered into the silo's ledger
before its message leaves: that shares were dealt to a cohort, that an update was masked, that a list of survivors was
signed. State that does not know of an act that the ledger knows of is older than it.

Three acts are enough. What is made before shares are dealt was given to nobody; what a silo received shows in no
message but through what it masks and reveals; and a REVEAL is of the one list that was signed, so that it counts as
signing it.

Does NOT notice a ledger that was put back together with its head and the state; `fedmodel.ledger` says who does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

_HEX = frozenset("0123456789abcdef")
_MOST_ROUND, _MOST_ATTEMPT = 2**32 - 1, 2**16 - 1


@dataclass(frozen=True)
class Progress:
    """The acts of a silo in its newest round; of none, before the first.

    Attributes:
        round: The round; for what was dealt, the window's first.
        attempt: The window's.
        dealt: U1#, of the cohort that shares were dealt to in this round; hexadecimal, empty where none were.
        masked: Whether an update of the round was masked.
        signed: ctx and the hash of U3, of the list signed or revealed for; hexadecimal, empty where none was.
    """

    round: int = 0
    attempt: int = 0
    dealt: str = ""
    masked: bool = False
    signed: str = ""

    @property
    def is_something(self) -> bool:
        """Whether anything of it must stay done."""
        return bool(self.dealt or self.masked or self.signed)

    def covers(self, other: Self) -> bool:
        """Return whether whoever is here knows of all that was done there, and did nothing else in its place.

        >>> first = Progress(3, 1, signed="aa")
        >>> Progress(3, 1, masked=True, signed="aa").covers(first), Progress(4, 1).covers(first)
        (True, True)
        >>> Progress(3, 1, signed="bb").covers(first), Progress(3, 1).covers(first), Progress(2, 9).covers(first)
        (False, False, False)
        """
        if (self.round, self.attempt) != (other.round, other.attempt):
            return (self.round, self.attempt) > (other.round, other.attempt)
        return other.dealt in ("", self.dealt) and other.signed in ("", self.signed) and self.masked >= other.masked

    def to_fields(self) -> dict[str, Any]:
        """Return it as what an entry of a ledger says."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Read what `to_fields` returned.

        Raises:
            ValueError: When it is something else.
        """
        if set(fields) != set(cls.__dataclass_fields__):
            raise ValueError("it says round, attempt, and what was dealt, masked and signed")
        found = cls(**fields)
        numbers = type(found.round) is type(found.attempt) is int and type(found.masked) is bool
        texts = all(type(text) is str and set(text) <= _HEX for text in (found.dealt, found.signed))
        if not numbers or not texts or not (0 < found.round <= _MOST_ROUND and 0 < found.attempt <= _MOST_ATTEMPT):
            raise ValueError("a round, an attempt or a hash in it is none")
        if len(found.dealt) not in (0, 64) or len(found.signed) not in (0, 128) or not found.is_something:
            raise ValueError("it says hashes of 32 bytes, and at least one act")
        return found
