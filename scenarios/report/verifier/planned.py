"""What a signed `scenario.toml` says by itself of a plan: its events, its delta, and whose presence is hidden.

Read as plain TOML, since reading all of a scenario takes pydantic; `fedmodel.config` has no part in it.

Guarantee: `phases`, `delta` and `whose` return what `Scenario.plans` says of the silo. `check_event` passes an event of
one round only if every figure of it is the plan's; where a target is given, its noise is at most what that needs, to
the tolerance of a calibration.

Does NOT say that the scenario is the one that silos were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from fedmodel.errors import ClaimRefuted
from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event, is_secret, realised_rate
from fedmodel.privacy.mechanisms.gaussian import GaussianEvent


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


def rounds_of(scenario: Mapping[str, Any], silo: str, said: Mapping[str, Any]) -> list[int]:
    """Return in how many rounds of each phase a silo reported a charge.

    Raises:
        ClaimRefuted: When they are not of the scenario's phases, or more than one has.
    """
    told = list(said["rounds"]) if isinstance(said["rounds"], list) else [said["rounds"]]
    planned = [phase.rounds for phase in phases(scenario, silo)]
    if len(told) != len(planned) or not all(
        type(times) is int and 0 <= times <= most for times, most in zip(told, planned, strict=True)
    ):
        raise ClaimRefuted(f"charges.json: {silo}: {said['rounds']} rounds stand, and scenario.toml plans {planned}")
    return told


def drawn(scenario: Mapping[str, Any], silo: str, said: Mapping[str, Any] | None) -> list[int]:
    """Return the steps of each phase that a silo reported to have charged; none where it reported nothing."""
    if said is None:
        return []
    each = zip(phases(scenario, silo), rounds_of(scenario, silo, said), strict=True)
    return [times * phase.steps for phase, times in each]


def mechanism(scenario: Mapping[str, Any], silo: str) -> dict[str, Any]:
    """Return what a report says that was planned at a silo; without the noise where a target says it."""
    event, asked = _round_of(scenario, silo), phases(scenario, silo)
    noise = {"noise_multiplier_planned": float(event["noise_multiplier"])} if "noise_multiplier" in event else {}
    return {
        "mechanism": event["mechanism"],
        "max_grad_norm_planned": event["max_grad_norm"],
        "sample_rate_planned": event["sample_rate"],
        "steps_planned": sum(phase.rounds * phase.steps for phase in asked),
        "denominator_planned": event["denominator"],
        **noise,
    }


def delta(scenario: Mapping[str, Any], silo: str) -> float:
    """Return the delta of a silo's plan."""
    return float(_own(scenario, silo, "delta"))


def whose(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Return whose presence is hidden, as a claim says it."""
    privacy = scenario["privacy"]
    return {"unit": privacy["unit"], "max_records": privacy.get("max_records", 1)}


def protects(scenario: Mapping[str, Any]) -> bool:
    """Return whether noise is added that nobody can subtract; of any other run nothing may be claimed."""
    return is_secret(noise_name(scenario))


def noise_name(scenario: Mapping[str, Any]) -> str | None:
    """Return where noise comes from; None where none is added."""
    privacy = scenario["privacy"]
    return str(privacy.get("noise", "os")) if privacy.get("baseline") is None else None


def besides(scenario: Mapping[str, Any]) -> list[Event]:
    """Return what a silo is charged as for each job besides training: one noised sum over all of its records."""
    privacy = scenario["privacy"]
    return [
        GaussianEvent(
            float(job["noise_multiplier"]), float(privacy["max_grad_norm"]), 1.0, 1, 1,
            noise_source=privacy.get("noise", "os"), max_records=whose(scenario)["max_records"],
        )
        for job in scenario.get("besides", {}).values()
    ]  # fmt: skip


def check_event(scenario: Mapping[str, Any], silo: str, event: Event) -> None:
    """Refuse an event of one round that is another than is planned, by which less would be claimed.

    Raises:
        ClaimRefuted: Which figure is another, and what the scenario says of it.
    """
    for name, planned in _round_of(scenario, silo).items():
        if (found := getattr(event, name, None)) != planned:
            raise ClaimRefuted(f"charges.json: {silo}: {name} {found} stands, and scenario.toml says {planned}")
    target = _noise(scenario, silo, "epsilon")
    if target is None or scenario["privacy"].get("baseline") is not None:
        return

    def whole(noise: float) -> list[Event]:
        return [*parts(scenario, silo, replace(event, noise_multiplier=noise)), *besides(scenario)]

    if accounting.spares_noise(event.noise_multiplier, float(target), delta(scenario, silo), whole):
        raise ClaimRefuted(
            f"charges.json: {silo}: noise_multiplier {event.noise_multiplier} stands, more than the target epsilon"
            f" {target} of scenario.toml needs"
        )


def _round_of(scenario: Mapping[str, Any], silo: str) -> dict[str, Any]:
    """Return the figures of an event of one round; the noise too, unless a target says it."""
    privacy, first = scenario["privacy"], phases(scenario, silo)[0]
    drawn_from, baseline = privacy.get("noise", "os"), privacy.get("baseline")
    found = {
        "mechanism": privacy.get("mechanism", "dp-sgd") if baseline is None else "none-unsafe",
        "steps": first.steps,
        "sample_rate": first.sample_rate,
        "realised_sample_rate": realised_rate(first.sample_rate, drawn_from),
        "denominator": first.divisor,
        "max_records": whose(scenario)["max_records"],
        "max_grad_norm": None if baseline == "no-noise-no-clip" else float(privacy["max_grad_norm"]),
        "noise_source": noise_name(scenario),
        "drawn_from": drawn_from,
    }
    noise = _noise(scenario, silo, "noise_multiplier") if baseline is None else 0.0
    return found if noise is None else {**found, "noise_multiplier": noise}


def _noise(scenario: Mapping[str, Any], silo: str, key: str) -> Any:
    """Return a silo's noise multiplier or target, None where it is the other that is declared: its own, or all's."""
    privacy, names = scenario["privacy"], ("noise_multiplier", "epsilon")
    own = privacy.get("silo", {}).get(silo, {})
    return (own if any(name in own for name in names) else privacy).get(key)


def _own(scenario: Mapping[str, Any], silo: str, key: str) -> Any:
    """Return what a silo declares differently from the rest, or what holds for all."""
    privacy = scenario["privacy"]
    return privacy.get("silo", {}).get(silo, {}).get(key, privacy[key])
