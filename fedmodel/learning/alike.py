"""Scenarios that train one pipeline: one model on records of one shape in one way, whatever else of them differs.

A process builds, chooses and measures a pipeline once. What it finds hangs on the sections `data`, `model` and
`training`, and on figures of privacy, which an event says. It does not hang on how many rounds there are, on silos,
seeds, budgets or encryption, so that runs which differ in these alone share what was found.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from fedmodel.config import Scenario, scenario_from_json

_MOST: Final = 64
_FIRST: dict[tuple[str, ...], str] = {}


def stand_in(scenario: Scenario) -> str:
    """Return the first scenario of this process that trains the same pipeline, as JSON.

    Guarantee: its sections `data`, `model` and `training` are the scenario's own, to the character.
    """
    return _stand_in(scenario.json_text)


@lru_cache(maxsize=_MOST)
def _stand_in(scenario_json: str) -> str:
    """Return the first one that is alike, of the last few."""
    scenario = scenario_from_json(scenario_json)
    decides = tuple(one.model_dump_json() for one in (scenario.data, scenario.model, scenario.training))
    if decides not in _FIRST and len(_FIRST) == _MOST:
        _FIRST.clear()
    return _FIRST.setdefault(decides, scenario_json)


def forget() -> None:
    """Forget all of them, where code that a scenario names may be another by now."""
    _stand_in.cache_clear()
    _FIRST.clear()
