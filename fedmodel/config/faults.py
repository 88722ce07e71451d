"""The section `faults`: which silos a simulation loses, and when."""

from __future__ import annotations

from fedmodel.kinds.section import Probability, Section


class FaultsConfig(Section):
    """A rehearsal: how often a silo's answer to a stage is lost, half of them before the silo was asked at all."""

    share: Probability = 0.0
    train: Probability = 0.0
    commit: Probability = 0.0
    reveal: Probability = 0.0
