"""What one run cost one silo, as every output tells it: the figure that holds wherever it ended, and others beside it.

    epsilon                   of the whole plan that was reserved, with all its parts, or the cap of the budget where
                              that is smaller: it holds whoever ended the run, by whatever they saw
    epsilon_of_steps_taken    had the length been fixed in advance; no bound where the end was chosen by looking
    odometer                  where it is smaller than the first: a statement of its own that holds where the run ended
                              (`fedmodel.privacy.accounting.odometer`); null elsewhere, and of a run of several parts

Guarantee: whatever tells one of them tells it under these names, and `epsilon` is never of fewer steps than were
reserved before the run's first release. A run that released nothing cost nothing. Of a run without noise, and of any
figure that has no bound, it is null: JSON has no infinity, and no number would be true. So are all three of a run
whose noise was an experiment's; what it would have cost has a name of its own then (`labelled`).

A run that began from a run's model tells of both. Its `epsilon` is then of all that its budget holds
(`Standing.bound`), at a silo that released nothing in it too; that of the steps taken is composed of all steps of the
budget; and an odometer, which reads one plan, is not told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fedmodel.ledger import Run, Standing
from fedmodel.privacy import accounting
from fedmodel.privacy.events import EPSILON_IF_HIDDEN, EXPERIMENT, IF_HIDDEN, Event, bounded
from fedmodel.privacy.rounding import small, up
from scenarios.runs import words

NO_NOISE: Final = (
    "This run protects nobody: no noise was added. No epsilon holds for it, and no budget bounds it; its records can be"
    " read out of what it released."
)
OF_EXPERIMENT: Final = (
    "This run protects nobody: its noise was an experiment's, and whoever knows the seed can remove it. Epsilon is told"
    f" {IF_HIDDEN}, and no promise to anyone."
)
_BOUNDS: Final = frozenset(
    (
        "epsilon", "epsilon_of_steps_taken", "epsilon_of_plans", "epsilon_of_a_run", "epsilon_reserved", "odometer",
        "mu", "advantage", "curve",
    )
)  # fmt: skip
"""What outputs call the figures that no seeded noise has."""
STEPS_ALONE: Final = "had the length been fixed in advance"


def claim_of(claimed: Sequence[Event], drawn: Sequence[int], delta: float, cap: float = math.inf) -> dict[str, Any]:
    """Return the figures of a run.

    Args:
        claimed: All its parts, in full; nothing where nothing of it was charged (`Run.claimed`).
        drawn: Steps that were charged of each.
        delta: Of every figure.
        cap: Epsilon that everything in the run's budget is within (`Standing.cap_of`). An accountant that tells more,
            or nothing, of the plan alone is overruled by it.

    Raises:
        ConfigError: When more was taken than the plan has.
    """
    if not claimed:
        return {"epsilon": 0.0, "epsilon_of_steps_taken": 0.0, "odometer": None}
    if bounded(claimed) is None:
        return {"epsilon": None, "epsilon_of_steps_taken": None, "odometer": None}
    epsilon = min(accounting.epsilon(claimed, delta), cap)
    taken = [part.times(steps) for part, steps in zip(claimed, drawn, strict=True) if steps]
    told = None
    if len(claimed) == 1:  # an odometer reads one plan
        read = accounting.odometer(claimed[0], drawn[0], delta)
        if read.epsilon < epsilon:
            told = {"epsilon": read.epsilon, "delta": delta, "steps": read.checkpoint}
    return {
        "epsilon": epsilon,
        "epsilon_of_steps_taken": min(accounting.epsilon(taken, delta), epsilon),
        "odometer": told,
    }


def labelled(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a silo's row; where noise was an experiment's, with no figure that reads as a promise.

    Args:
        row: With `noise_source` and what `claim_of` returns.
    """
    return as_if_secret(row) if row["noise_source"] == EXPERIMENT else dict(row)


def as_if_secret(row: Mapping[str, Any], figure: str = "epsilon") -> dict[str, Any]:
    """Return figures of noise that whoever knows a seed can subtract: no bound of it, and one under its label.

    Args:
        row: What an output tells.
        figure: Which of its figures is told as what would hold if the noise were secret.
    """
    none = {name: None for name in row if name in _BOUNDS}
    return {**row, **none, EPSILON_IF_HIDDEN: row[figure]}


def claim_in(standing: Standing, scope: str | None, run: Run | None, delta: float, *, goes_on: bool) -> dict[str, Any]:
    """Return the figures of a run as a ledger has them.

    Args:
        standing: Of the ledger.
        scope: The budget; None where it has none.
        run: What it holds of the run; None where that is nothing.
        delta: Of every figure.
        goes_on: Whether the run began from a run's model (`Scenario.goes_on`).
    """
    claimed, drawn, cap = ([], [], math.inf) if run is None else (run.claimed, run.drawn, standing.cap_of(run))
    others = [] if scope is None else [one for one in standing.of(scope) if one.charges and one is not run]
    if scope is None or not goes_on or not others:
        return claim_of(claimed, drawn, delta, cap)
    epsilon = standing.bound(scope)
    composed = accounting.epsilon(standing.events(scope), delta)
    return {"epsilon": epsilon, "epsilon_of_steps_taken": min(composed, epsilon), "odometer": None}


def early(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say what holds of silos that took fewer steps than they reserved; None where there are none.

    Args:
        rows: A row a silo, with `silo`, `steps`, `steps_reserved` and what `claim_of` returns.
    """
    short = [row for row in rows if 0 < row["steps"] < row["steps_reserved"]]
    if not short:
        return None
    names = [row["silo"] for row in short]
    figures = [row["epsilon_of_steps_taken"] for row in short]
    alone = None if None in figures else max(figures)
    read = [row["odometer"] for row in short if row["odometer"] is not None]
    said = (
        f"Fewer steps were taken than were reserved at {words.listed(names)}: epsilon is of the whole plan all the"
        " same, since whoever ends a run may have looked at what it released. Of the steps taken it would be"
        f" {up(alone)}, {STEPS_ALONE}."
    )
    if len(read) < len(short):
        return said
    epsilon, delta = (max(one[name] for one in read) for name in ("epsilon", "delta"))
    return (
        f"{said} By an odometer, epsilon {up(epsilon)} at delta {small(delta)} holds where the run ended, whoever ended"
        " it: a statement of its own. Whoever relies on both relies on two, and their deltas add."
    )
