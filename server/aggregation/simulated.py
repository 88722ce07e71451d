"""Rounds that sum the very words of secure aggregation without masks: the same numerics, and no secrecy.

Shapes: P parameters.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from flwr.app import Message

from fedmodel import wire
from fedmodel.config import Scenario
from fedmodel.provision import scenario_policy
from fedmodel.secagg import Roster
from fedmodel.secagg.ring import Words
from server.aggregation._loop import Aggregation, Asked, Mean, Taking
from server.aggregation._sums import check_enough, check_even_sum, mean_of_sum, uneven
from server.aggregation._windows import cohort_round

MODE: Final = "simulated"


class Rounds(Aggregation[wire.MaskedReply]):
    """Every update is seen, in words of the ring; their sum is held to what a masked one is."""

    def __init__(self, taking: Taking) -> None:
        super().__init__(taking)
        self._policy = scenario_policy(taking.scenario)
        self._words: dict[str, Words] = {}

    @classmethod
    def obstacle(cls, scenario: Scenario, _roster: Roster, silos: list[str]) -> str:
        """Return that these silos' sum would be uneven, where it would."""
        return uneven(scenario, silos)

    @classmethod
    def cohort_round(cls, scenario: Scenario, number: int) -> int:
        """Return the first round of a round's window, in which a masked run would keep its cohort."""
        return cohort_round(scenario, number)

    def _open(self, _number: int, cohort: list[str]) -> Asked:
        self._words = {}
        return Asked(dict.fromkeys(cohort, ()))

    def _read(self, reply: Message) -> wire.MaskedReply:
        return wire.read_masked_reply(reply, self._policy.ring_bits)

    def _add(self, silo: str, answer: wire.MaskedReply) -> None:
        self._words[silo] = answer.words_P

    def _close(self) -> Mean:
        words, self._words = self._words, {}
        scenario, survivors = self.taking.scenario, tuple(words)
        check_enough(len(survivors), self._policy.n_min)
        check_even_sum(scenario, survivors)
        first, *others = words.values()
        total_P = first.copy()
        for words_P in others:
            np.add(total_P, words_P, out=total_P)
        return Mean(mean_of_sum(total_P, survivors, self._policy.quantizer, self._counting), survivors)
