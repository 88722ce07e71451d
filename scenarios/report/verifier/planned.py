"""What a signed `scenario.toml` says by itself of a plan: its steps, its delta, and whose presence is hidden.

Read as plain TOML, since reading all of a scenario takes pydantic; `fedmodel.config` has no part in it.

Guarantee: `steps_per_round`, `steps`, `delta` and `whose` return what `Scenario.plan` says of the silo.

Does NOT say what noise was planned, nor that the scenario is the one that silos were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmodel.errors import ClaimRefuted
from fedmodel.privacy.events import Event


def steps_per_round(scenario: Mapping[str, Any], silo: str) -> int:
    """Return the steps of one round of a silo: as declared, or of so many passes at its own sample rate."""
    training = scenario["training"]
    if (steps := training.get("local_steps")) is not None:
        return int(steps)
    return max(1, round(int(training["local_epochs"]) / float(_own(scenario, silo, "sample_rate"))))


def steps(scenario: Mapping[str, Any], silo: str) -> int:
    """Return the steps of a silo's whole plan."""
    return int(scenario["rounds"]) * steps_per_round(scenario, silo)


def delta(scenario: Mapping[str, Any], silo: str) -> float:
    """Return the delta of a silo's plan."""
    return float(_own(scenario, silo, "delta"))


def whose(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Return whose presence is hidden, as a claim says it."""
    privacy = scenario["privacy"]
    return {"unit": privacy["unit"], "max_records": privacy.get("max_records", 1)}


def check_event(scenario: Mapping[str, Any], silo: str, event: Event) -> None:
    """Refuse an event of one round that has other steps, or hides fewer records of a unit, than the scenario says.

    Raises:
        ClaimRefuted: Which of the two.
    """
    for name, found, planned in (
        ("steps", event.steps, steps_per_round(scenario, silo)),
        ("max_records", event.max_records, whose(scenario)["max_records"]),
    ):
        if found != planned:
            raise ClaimRefuted(f"charges.json: {silo}: {name} {found} stands, and scenario.toml says {planned}")


def _own(scenario: Mapping[str, Any], silo: str, key: str) -> Any:
    """Return what a silo declares differently from the rest, or what holds for all."""
    privacy = scenario["privacy"]
    return privacy.get("silo", {}).get(silo, {}).get(key, privacy[key])
