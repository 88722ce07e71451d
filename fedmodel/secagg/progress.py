"""How far a silo came in a run: the acts that no restored backup may undo, as plain data.

A silo's state is a file, and a file can be restored from an older copy. So each act that must stay done is entered into
the silo's ledger before its message leaves: that shares were dealt to a cohort, that an update was masked, that a list
of survivors was signed. If the ledger records an act that the state does not, the state is older than the ledger.

Three acts are enough. Secrets that are made before shares are dealt were given to nobody. What a silo received shows in
its messages only through what it masks and reveals. And a REVEAL is for the one list that was signed, so it counts as
signing that list.

Does NOT detect a ledger that was restored together with its head and the state; `fedmodel.ledger` says who does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

_HEX = frozenset("0123456789abcdef")
_MOST_ROUND, _MOST_ATTEMPT = 2**32 - 1, 2**16 - 1


@dataclass(frozen=True)
class Progress:
    """The acts of a silo in its newest round; before the first round, no acts.

    Attributes:
        round: The round; for shares that were dealt, the window's first.
        attempt: The window's.
        dealt: U1#, the hash of the cohort that shares were dealt to in this round; hexadecimal, empty if none were.
        masked: Whether an update of the round was masked.
        signed: ctx and the hash of U3, of the list signed or revealed for; hexadecimal, empty if there was none.
    """

    round: int = 0
    attempt: int = 0
    dealt: str = ""
    masked: bool = False
    signed: str = ""

    @property
    def is_something(self) -> bool:
        """Whether there is any act that must stay done."""
        return bool(self.dealt or self.masked or self.signed)

    def covers(self, other: Self) -> bool:
        """Return whether this progress includes every act of the other, and no different act in its place.

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
        """Return it as the fields of a ledger's entry."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Read what `to_fields` returned.

        Raises:
            ValueError: When the fields are anything else.
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
