"""What follows from one silo's ledger, as a report says it: the figures of its claim, its budgets, its accounting.

Written from the ledger's own words and `fedmodel.privacy.accounting`, and from nothing of what makes a report: a figure
that both find, two programs found. A field that is not here is not compared (`scenarios.report.verifier.verify`).

Guarantee: `claim`, `accounting_row` and `budgets` return, for the entries given, what `scenarios.report.sections`
writes under the same names, to the tolerances of `scenarios.report.diff`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from fedmodel.ledger import Entry, Run, Standing
from fedmodel.privacy import accounting
from fedmodel.privacy.events import EPSILON_IF_HIDDEN, Event, bounded, if_secret, is_secret
from scenarios.report.verifier.renyi import rdp
from scenarios.runs.claims import claim_in, claim_of

MU_FLOOR: Final = 1e-9
_CURVE_POINTS: Final = 41


@dataclass(frozen=True)
class Held:
    """What a verified ledger holds of a run, up to the entries that a report is of.

    Attributes:
        silo: Whose.
        entries: Oldest first.
        standing: After them.
        run: The report's run.
        data: Its data set.
        goes_on: Whether it began from a run's model: then its claim is of all that the budget holds.
    """

    silo: str
    entries: tuple[Entry, ...]
    standing: Standing
    run: str | None
    data: str
    goes_on: bool

    @property
    def own(self) -> Run | None:
        """What it holds of the run."""
        return None if self.run is None else self.standing.runs.get(self.run)

    @property
    def scope(self) -> str | None:
        """The budget that the run is charged to."""
        if self.own is not None:
            return self.own.scope
        of_data = (name for name, scope in self.standing.scopes.items() if self.goes_on and scope.data == self.data)
        return next(of_data, None)

    @property
    def others(self) -> bool:
        """Whether the claim is of other runs too."""
        runs = self.standing.of(self.scope) if self.goes_on and self.scope is not None else []
        return any(run.charges for run in runs if run is not self.own)

    @property
    def claimed(self) -> list[Event]:
        """What is claimed."""
        if self.others and self.scope is not None:
            return self.standing.claimed(self.scope)
        return [] if self.own is None else self.own.claimed


def claim(held: Held, planned_delta: float) -> dict[str, Any]:
    """Return what is claimed for one silo's records.

    Args:
        held: Its ledger.
        planned_delta: Of the claim where the ledger has no budget for it, which the scenario alone says.
    """
    scope, run = held.scope, held.own
    delta = planned_delta if scope is None else held.standing.scopes[scope].delta
    bound = None if scope is None else _told(held.standing.claimed(scope), held.standing.bound(scope))
    told = claim_in(held.standing, scope, run, delta, goes_on=held.goes_on)
    return {
        **_figures(held.claimed, told, delta, chosen=held.others),
        "epsilon_all_runs": 0.0 if scope is None else bound,
        "delta": delta,
        "steps": 0 if run is None else run.taken,
        "steps_reserved": run.steps if run is not None and run.claimed else 0,
    }


def claim_reported(claimed: Sequence[Event], drawn: Sequence[int], delta: float) -> dict[str, Any]:
    """Return what is claimed of a silo by what it reported: so many steps of each phase; of nothing where of none."""
    told = claim_of(claimed, drawn, delta)
    steps = {"steps": sum(drawn), "steps_reserved": sum(one.steps for one in claimed)}
    return {**_figures(claimed, told, delta, chosen=False), "epsilon_all_runs": None, "delta": delta, **steps}


def _figures(claimed: Sequence[Event], told: dict[str, Any], delta: float, *, chosen: bool) -> dict[str, Any]:
    bare = unprotected(claimed)
    mu, advantage = (None, None) if bare or chosen else _besides(tuple(claimed), delta)
    return {
        "epsilon": _told(claimed, told["epsilon"]),
        "epsilon_of_steps_taken": _told(claimed, told["epsilon_of_steps_taken"]),
        "odometer": None if bare else told["odometer"],
        "mu": mu,
        "advantage": advantage,
        **({EPSILON_IF_HIDDEN: _finite(told["epsilon"])} if if_secret(claimed) else {}),
    }


def charged(event: Event | None, steps: int) -> dict[str, Any]:
    """Return what a report says that a silo was charged for each step; nothing of a silo that took none."""
    names = {"sample_rate_realised": "realised_sample_rate"}
    said = ("noise_multiplier", "max_grad_norm", "sample_rate_realised", "denominator", "sampler", "noise_source")
    return {
        "steps_charged": steps,
        **{name: getattr(event, names.get(name, name)) if event is not None and steps else None for name in said},
    }


@lru_cache(maxsize=64)
def _besides(events: tuple[Event, ...], delta: float) -> tuple[float | None, float | None]:
    """Return mu and the largest advantage, on the coarse grid."""
    grid = accounting.COARSE_GRID
    if not events or not math.isfinite(accounting.epsilon(events, delta, grid)):
        return None, None
    return accounting.gdp_mu(events, MU_FLOOR, grid), accounting.advantage(events, grid)


def accounting_row(
    claimed: Sequence[Event], delta: float, *, chosen: bool, counted: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a claim as two accountants read it; the third, PRV, is not asked here.

    Args:
        claimed: What is claimed.
        delta: At which it is read.
        chosen: Whether it is of plans that were chosen in turn, which have no curve.
        counted: What the report says: of noise from a seed reports from before have figures, and no others.
    """
    if unprotected(claimed) and bounded(claimed) is not None and counted["rdp_order"] is None:
        return {"delta": delta, "pld": None, "rdp": None, "rdp_order": None, "curve": []}
    return {**_accounted(tuple(claimed), delta), **({"curve": []} if chosen else {})}


@lru_cache(maxsize=64)
def _accounted(events: tuple[Event, ...], delta: float) -> dict[str, Any]:
    pld = accounting.epsilon(events, delta)
    loose, order = rdp(events, delta)
    points = [2 * pld * i / (_CURVE_POINTS - 1) for i in range(_CURVE_POINTS)] if events and math.isfinite(pld) else []
    curve = zip(points, accounting.deltas(events, points), strict=True)
    return {
        "delta": delta,
        "pld": _finite(pld),
        "rdp": loose,
        "rdp_order": order,
        "curve": [{"epsilon": epsilon, "delta": at} for epsilon, at in curve],
    }


def budgets(held: Held) -> list[dict[str, Any]]:
    """Return every budget of a ledger, with all its runs."""
    standing, found = held.standing, []
    for name, scope in standing.scopes.items():
        events = standing.events(name)
        found.append(
            {
                "silo": held.silo,
                "scope": name,
                "data": scope.data,
                "unit": scope.unit,
                "max_records": scope.max_records,
                "delta": scope.delta,
                "cap": scope.epsilon,
                "protects": not unprotected(events),
                "bound": _told(standing.claimed(name), standing.bound(name)),
                "spent": _told(events, accounting.epsilon(events, scope.delta)),
                "order": scope.order,
                "taken_whole": standing.taken_whole(name),
                "runs": [
                    _run(held, number, run, scope.delta) for number, run in standing.runs.items() if run.scope == name
                ],
            }
        )
    return found


def _run(held: Held, number: str, run: Run, delta: float) -> dict[str, Any]:
    told = claim_of(run.claimed, run.drawn, delta, held.standing.cap_of(run))
    times = [held.entries[sequence - 1].time for sequence in run.charges]
    return {
        "run": number,
        "this": number == held.run,
        "scenario": run.scenario,
        "rounds": run.rounds,
        "steps": run.taken,
        "reserved_steps": run.steps,
        "mechanism": run.plan.mechanism,
        "noise_multiplier": run.plan.noise_multiplier,
        "sample_rate": run.plan.sample_rate,
        "noise_source": run.plan.noise_source,
        "epsilon": _told(run.claimed, told["epsilon"]),
        "epsilon_of_steps_taken": _told(run.claimed, told["epsilon_of_steps_taken"]),
        "admitted": run.admitted,
        "first_charge": times[0] if times else None,
        "last_charge": times[-1] if times else None,
    }


def overrides(held: Held) -> list[dict[str, Any]]:
    """Return every change of a cap by a person."""
    return [
        {
            "silo": held.silo,
            "scope": str(entry.scope),
            "entry": entry.sequence,
            "time": entry.time,
            "epsilon": float(entry.content["epsilon"]),
            "by": str(entry.content["by"]),
            "reason": str(entry.content["reason"]),
        }
        for entry in held.entries
        if entry.kind == "override"
    ]


def unprotected(events: Sequence[Event]) -> bool:
    """Return whether noise of any of them was seeded or an experiment's, or none was added."""
    return not all(is_secret(event.noise_source) for event in events)


def _finite(epsilon: float | None) -> float | None:
    return epsilon if epsilon is not None and math.isfinite(epsilon) else None


def _told(events: Sequence[Event], epsilon: float | None) -> float | None:
    """Return an epsilon of some events; None where it is no number, or whose noise somebody can subtract."""
    return None if unprotected(events) else _finite(epsilon)
