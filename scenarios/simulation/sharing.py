"""Who trains which silos of a round, where workers may be lost in it: every silo is trained for by one answer.

A round's silos are cut into shares. A worker has at most one of them. What a lost worker had is open again, and whoever
takes it computes it anew, from lots and noise that are drawn anew, or from the same seeds.

Guarantee: each silo has at most one update of a round, however often it was computed. A share is open, or one worker
has it, or it is done; only who has it can bring it, once, and for its silos alone. Of a worker that is lost nothing is
taken any more, though it was only cut off and goes on. So what leaves a round was charged once, and is one release:
all else that was drawn stays in the memory of a worker that is struck off.

Does NOT hide that a worker was lost. Where that hangs on records, as where a lot of unusual size takes more memory than
there is, what is taken was drawn until it did not happen. So in one life of a run a
share is computed `MOST_LOSSES` times at most; a round that failed and is begun again by a person has as many more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.errors import FedmodelError, ProtocolError
from scenarios.simulation.trainers import Trained

MOST_LOSSES: Final = 3  # workers that are lost with one share


class Sharing:
    """The shares of one round.

    Args:
        shares: Silos that are trained together, each silo in one of them.
    """

    def __init__(self, shares: Sequence[Sequence[str]]) -> None:
        self._open = deque(enumerate(tuple(share) for share in shares))
        self._losses = [0] * len(shares)
        self._has: dict[int, tuple[int, tuple[str, ...]]] = {}
        self._lost: set[int] = set()
        self._updates: dict[str, NDArray[np.float32]] = {}
        self._failed: dict[str, str] = {}

    @property
    def open(self) -> bool:
        """Whether there is a share that nobody has."""
        return bool(self._open)

    def give(self, worker: int) -> tuple[str, ...]:
        """Give a worker that has none a share that nobody has, and return its silos."""
        if worker in self._has or worker in self._lost:
            raise ProtocolError("a worker that has a share, or is lost, is given none")
        self._has[worker] = self._open.popleft()
        return self._has[worker][1]

    def take(self, worker: int, trained: Trained) -> None:
        """Take what a worker brings of the share that it has.

        Raises:
            ProtocolError: When it has none, or brings another's.
        """
        if worker not in self._has:
            raise ProtocolError("a worker brings updates that it was not asked for, or was struck off before")
        _, silos = self._has[worker]
        if sorted([*trained.updates, *trained.failed]) != sorted(silos):
            raise ProtocolError("a worker brings updates of other silos than it was asked for")
        del self._has[worker]
        self._updates |= trained.updates
        self._failed |= trained.failed

    def lose(self, worker: int) -> None:
        """Take nothing of a worker any more; what it had is open again, before all else.

        Raises:
            FedmodelError: When so many were lost with this share that it is given to no other.
        """
        self._lost.add(worker)
        if worker not in self._has:
            return
        number, silos = self._has.pop(worker)
        self._losses[number] += 1
        if self._losses[number] >= MOST_LOSSES:
            raise FedmodelError(
                f"{MOST_LOSSES} workers were lost in one round as they trained the same silos, which may be why:"
                " see what ended them, such as want of memory; the run goes on from its last whole round by the command"
                " that began it"
            )
        self._open.appendleft((number, silos))

    def whole(self, silos: Sequence[str]) -> Trained:
        """Return what the round came to, in the order in which silos were asked."""
        return Trained(
            {silo: self._updates[silo] for silo in silos if silo in self._updates},
            {silo: self._failed[silo] for silo in silos if silo in self._failed},
        )
