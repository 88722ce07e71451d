"""What a signed `scenario.toml` says by itself of a plan: its steps, its delta, and whose presence is hidden.

Read as plain TOML, since reading all of a scenario takes pydantic; `fedmodel.config` has no part in it.

Guarantee: `phases`, `delta` and `whose` return what `Scenario.plans` says of the silo.

Does NOT say what noise was planned, nor that the scenario is the one that silos were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from fedmodel.errors import ClaimRefuted
from fedmodel.privacy.events import Event


class Phase(NamedTuple):
    """Rounds whose lots are drawn alike at a silo.

    Attributes:
        first: The first of them.
        rounds: How many.
        sample_rate: Each record's chance to be in a lot.
        divisor: Of every sum.
        steps: Of one round.
    """

    first: int
    rounds: int
    sample_rate: float
    divisor: int
    steps: int


def phases(scenario: Mapping[str, Any], silo: str) -> list[Phase]:
    """Return a silo's phases: one, or as many more as its lots grow."""
    training, last = scenario["training"], int(scenario["rounds"])
    rate, batch = float(_own(scenario, silo, "sample_rate")), int(_own(scenario, silo, "expected_batch_size"))
    grown = [(1, 1.0), *((int(one["from_round"]), float(one["times"])) for one in training.get("lots", ()))]
    found = []
    for (first, times), after in zip(grown, [*(first for first, _ in grown[1:]), last + 1], strict=True):
        steps = training.get("local_steps")
        if steps is None:
            steps = max(1, round(int(training["local_epochs"]) / (rate * times)))
        divisor = batch if times == 1 else round(batch * times)
        found.append(Phase(first, after - first, rate * times, divisor, int(steps)))
    return found


def parts(scenario: Mapping[str, Any], silo: str, event: Event) -> list[Event]:
    """Return all that a silo trains, whose first round is charged as an event: a whole event for each phase."""
    first, *later = phases(scenario, silo)
    grown = (
        replace(event, sample_rate=one.sample_rate, realised_sample_rate=-1.0, denominator=one.divisor,
                steps=one.rounds * one.steps)
        for one in later
    )  # fmt: skip
    return [event.times(first.rounds * first.steps), *grown]


def firsts(scenario: Mapping[str, Any]) -> list[int]:
    """Return the first round of each part of a run: of each phase, and of each job besides training, one round each."""
    begun = [1, *(int(one["from_round"]) for one in scenario["training"].get("lots", ()))]
    return [*begun, *(int(scenario["rounds"]) + place for place, _ in enumerate(scenario.get("besides", {}), start=1))]


def rounds_of(said: Mapping[str, Any]) -> list[int]:
    """Return in how many rounds of each phase a silo reported a charge."""
    return list(said["rounds"]) if isinstance(said["rounds"], list) else [int(said["rounds"])]


def delta(scenario: Mapping[str, Any], silo: str) -> float:
    """Return the delta of a silo's plan."""
    return float(_own(scenario, silo, "delta"))


def whose(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Return whose presence is hidden, as a claim says it."""
    privacy = scenario["privacy"]
    return {"unit": privacy["unit"], "max_records": privacy.get("max_records", 1)}


def check_event(scenario: Mapping[str, Any], silo: str, event: Event) -> None:
    """Refuse an event of one round that has other steps or lots, or hides fewer records of a unit, than is planned.

    Raises:
        ClaimRefuted: Which of them, and what the scenario says of it.
    """
    first = phases(scenario, silo)[0]
    for name, found, planned in (
        ("steps", event.steps, first.steps),
        ("sample_rate", event.sample_rate, first.sample_rate),
        ("denominator", event.denominator, first.divisor),
        ("max_records", event.max_records, whose(scenario)["max_records"]),
    ):
        if found != planned:
            raise ClaimRefuted(f"charges.json: {silo}: {name} {found} stands, and scenario.toml says {planned}")


def _own(scenario: Mapping[str, Any], silo: str, key: str) -> Any:
    """Return what a silo declares differently from the rest, or what holds for all."""
    privacy = scenario["privacy"]
    return privacy.get("silo", {}).get(silo, {}).get(key, privacy[key])
