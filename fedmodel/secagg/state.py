"""What a silo keeps between two stages: plain data, written as JSON and read again.

Field elements and keys are hexadecimal. An erased value is None, or no longer there. Nearly all of it is sensitive.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from fedmodel.errors import AggregationRefused, CryptoError, Rule
from fedmodel.secagg import shamir
from fedmodel.secagg.parameters import Window
from fedmodel.secagg.progress import Progress


@dataclass
class RoundState:
    """What a silo holds for one round of a window. All attributes are sensitive, except the last two.

    Attributes:
        root: Kept until shares were received.
        b: Kept until the update was masked.
        pairs: For each neighbour, the secret that the two share; kept until the update was masked.
        held: For each dealer, its shares of b and root; kept until revealed. In a complete graph the silo itself is a
            dealer too.
        context: ctx, once the update was masked.
        masked_with: The neighbours that the silo masked with.
    """

    root: str | None
    b: str | None
    pairs: dict[str, str] = field(default_factory=dict)
    held: dict[str, list[str]] = field(default_factory=dict)
    context: str | None = None
    masked_with: list[int] = field(default_factory=list)


@dataclass
class WindowState:
    """What a silo holds for a window; `transport` is sensitive. `base` binds the roster and policy of its making."""

    first: int
    attempt: int
    count: int
    transport: str | None
    base: str
    advert: str
    rounds: dict[str, RoundState]
    cohort: list[int] = field(default_factory=list)
    cohort_digest: str = ""
    peers: list[int] = field(default_factory=list)
    threshold: int = 0
    complete: bool = False
    received: bool = False

    def window(self, run: int) -> Window:
        """Return the window that this state is for."""
        return Window(run, self.first, self.attempt, self.count)


@dataclass
class State:
    """Everything that is carried from one stage to the next. `round` and `attempt` are the highest acted in.

    `dealt` to `revealed` belong to that round. `is_stale` says that this replaces a state that was older than the
    ledger; it holds until the next window.
    """

    round: int = 0
    attempt: int = 0
    dealt: str = ""
    signed: str | None = None
    masked: bool = False
    revealed: bool = False
    is_stale: bool = False
    window: WindowState | None = None

    @property
    def progress(self) -> Progress:
        """How far the silo came."""
        return Progress(self.round, self.attempt, self.dealt, self.masked, self.signed or "")

    @classmethod
    def after(cls, known: Progress) -> State:
        """Return the state of a silo that has lost its own: it does nothing more in the round that it had reached."""
        return cls(
            known.round,
            known.attempt,
            dealt=known.dealt,
            signed=known.signed or None,
            masked=known.masked,
            revealed=True,
            is_stale=True,
        )

    def to_bytes(self) -> bytes:
        """Return what `read_state` reads. Sensitive."""
        document: dict[str, Any] = {**vars(self), "window": None}
        if self.window is not None:
            rounds = {number: vars(held) for number, held in self.window.rounds.items()}
            document["window"] = {**vars(self.window), "rounds": rounds}
        return json.dumps(document, separators=(",", ":")).encode()


def read_state(data: bytes) -> State:
    """Read what `State.to_bytes` wrote.

    Raises:
        CryptoError: When it is not that.
    """
    try:
        document: dict[str, Any] = json.loads(data)
        window = document.pop("window")
        state = State(**document)
        if window is not None:
            rounds = {number: RoundState(**held) for number, held in window.pop("rounds").items()}
            state.window = WindowState(**window, rounds=rounds)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CryptoError("the kept state of secure aggregation cannot be read; start a new run") from error
    return state


def to_hex(element: int) -> str:
    """Return a field element as it is kept."""
    return to_bytes(element).hex()


def to_bytes(element: int) -> bytes:
    """Return a field element as it stands in a share."""
    return element.to_bytes(shamir.SHARE_SIZE, "big")


def to_int(kept: str | None) -> int:
    """Return a kept field element; an erased one is refused."""
    if kept is None:
        raise AggregationRefused(Rule.OUT_OF_ORDER, "a secret of this stage was erased already")
    return int(kept, 16)
