"""Aggregation: how the answers of a cohort become one mean, and what of them the server sees; a file each.

A kind is one file here. Its `MODE` is what `encryption.secure_aggregation` calls it, and its `Rounds` brings rounds to
their results: a subclass of `Aggregation`, which has the loop that is the same for all of them. Silos do not follow
from what lies here: how an update leaves a silo is its own law's word, and `fedmodel.config.AggregationMode` is the
closed list of modes that a law may say.
"""

from __future__ import annotations

from typing import Any

from fedmodel.config import Scenario
from fedmodel.system.kinds import kinds
from server.aggregation._loop import Aggregation, RoundResult, Taking, put_back

__all__ = ["KINDS", "Aggregation", "RoundResult", "Taking", "kind_of", "put_back"]

KINDS = kinds(__name__)
"""By name, the modules of the kinds."""

_BY_MODE: dict[str, type[Aggregation[Any]]] = {module.MODE: module.Rounds for module in KINDS.values()}


def kind_of(scenario: Scenario) -> type[Aggregation[Any]]:
    """Return the kind of aggregation that a scenario asks for."""
    return _BY_MODE[scenario.encryption.secure_aggregation]
