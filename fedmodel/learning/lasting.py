"""How long was really worked at what is done once and remembered: as long as whoever has not done it yet may need.

Does NOT say how long it will take elsewhere, or the next time.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Lasted:
    """The longest time that was worked at each thing."""

    def __init__(self) -> None:
        self._longest_s: dict[Hashable, float] = {}

    @contextmanager
    def timed(self, *what: Hashable) -> Iterator[None]:
        """Note how long a block takes, where it took no longer before; one that raises is not noted.

        Args:
            what: What is done in it.
        """
        started = time.monotonic()
        yield
        self._longest_s[what] = max(self.seconds(*what), time.monotonic() - started)

    def seconds(self, *what: Hashable) -> float:
        """Return the longest time of a thing, in seconds; 0 of what was never done."""
        return self._longest_s.get(what, 0.0)

    def forget(self) -> None:
        """Forget all of it, with what was remembered."""
        self._longest_s.clear()
