"""Which model, kind of gradients and strategy a run used: their names, and what their own files say of them.

A name and its settings follow from the scenario, and what is said from the code that lies here, which is no proof of
the code that ran: a report's hash of that says which it was.
"""

from __future__ import annotations

import json
from typing import Final, Literal, get_args

from fedmodel.config import Scenario
from fedmodel.system.kinds import described
from scenarios.runs.parts import Part
from server.strategies import settings_of

_BEFORE: Final = "per-sample"
What = Literal["model", "gradients", "strategy"]
_ROOMS: Final[dict[What, str]] = {
    "model": "fedmodel.kinds.models",
    "gradients": "fedmodel.learning.gradients",
    "strategy": "server.strategies",
}


_OWN: Final = "Code of the user's own, at the server alone."


class Used(Part):
    """One kind of something that the run used, in the words of the kind's own file.

    Attributes:
        what: Of what it is a kind.
        name: As the scenario calls it.
        says: What it is.
        settings: What was set of it, said or by default, as the scenario would say it; empty where it has none.
    """

    what: What
    name: str
    says: str
    settings: str


def used_names(scenario: Scenario, before: object = None) -> dict[What, str]:
    """Return the kinds that a scenario names, by what they are of.

    Args:
        scenario: The scenario.
        before: What a summary says was used: where gradients are left to choice, runs from before name the default.
    """
    kind = str(scenario.model.model_dump(include={"kind"})["kind"])
    gradients = scenario.training.gradients
    if gradients == "auto" and isinstance(before, dict) and before.get("gradients") == _BEFORE:
        gradients = _BEFORE
    return {"model": kind, "gradients": gradients, "strategy": scenario.federation.strategy}


def used_kinds(scenario: Scenario, before: object = None) -> tuple[Used, ...]:
    """Return the kinds that a scenario names, as `used_names` does, each with what its file says of it."""
    names = used_names(scenario, before)
    model = scenario.model.model_dump(mode="json", exclude={"kind", "init", "init_value"}, exclude_none=True)
    settings: dict[What, dict[str, object]] = {"model": model, "strategy": settings_of(scenario)}
    return tuple(
        Used(
            what=what,
            name=names[what],
            says=_OWN if ":" in names[what] else described(_ROOMS[what], names[what]),
            settings=", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.get(what, {}).items()),
        )
        for what in get_args(What)
    )
