"""The section on scope: which data, and everything that was ever charged to it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from fedmodel.privacy.events import NoiseSourceName, UnitName
from scenarios.report.document.forms import Epsilon, MechanismName, Questions
from scenarios.runs.parts import Moment, Part


class DataSet(Part):
    """A data set that the run is about.

    Attributes:
        name: What budgets and ledgers call it.
        source: Where its records came from.
        kind: In a sentence.
    """

    name: str
    source: str
    kind: str


class RunPart(Part):
    """One part of what a run reserved together: its plan, or what else it may release.

    Attributes:
        part: Its place in the reservation, from 1; the plan is the first.
        mechanism: What it releases.
        steps: Noised sums of it that were charged.
        reserved_steps: All that it may have.
        noise_multiplier: Noise over the clip.
        sample_rate: As planned.
        noise_source: Where noise was drawn from; null where none was.
        epsilon_alone: Of all that it may have, were it the only part, by PLD; null where its noise was seeded, or none
            was added. Those of several parts are never added: `LedgerRun.epsilon` is of all of them composed.
    """

    part: int
    mechanism: MechanismName
    steps: int
    reserved_steps: int
    noise_multiplier: float
    sample_rate: float
    noise_source: NoiseSourceName | None
    epsilon_alone: Epsilon


class LedgerRun(Part):
    """One run in a silo's ledger.

    Where a run reserved several parts, its noise, sample rate and steps are those of the first one, its plan.

    Attributes:
        run: Its number.
        name: What its server calls it; left out where it has no name.
        this: Whether it is the run of this report.
        scenario: The hash of its scenario.
        rounds: Rounds that were charged.
        steps: Noised sums that were charged.
        reserved_steps: Of its whole plan, which its epsilon is of.
        mechanism: What it released; "none-unsafe" where no noise was added, which protects nobody.
        noise_multiplier: Noise over the clip.
        sample_rate: As planned.
        noise_source: Where noise was drawn from; null where none was.
        epsilon: Of its whole plan, all parts composed, by PLD, at the budget's delta, 0 where nothing was charged; null
            where its noise was seeded, or none was added.
        epsilon_of_steps_taken: Of what was charged, had the length been fixed in advance; null where that is.
        admitted: In which of the ledger's two ways; "none" where no noise was added.
        first_charge: When.
        last_charge: When.
        parts: A row for each part, where it reserved several; left out where the plan is all.
    """

    run: str
    this: bool
    scenario: str
    rounds: int
    steps: int
    reserved_steps: int
    mechanism: MechanismName
    noise_multiplier: float
    sample_rate: float
    noise_source: NoiseSourceName | None
    epsilon: Epsilon
    epsilon_of_steps_taken: Epsilon
    admitted: Literal["filter", "plan", "none"]
    first_charge: Moment | None
    last_charge: Moment | None
    parts: tuple[RunPart, ...] = Field(default=(), exclude_if=lambda parts: not parts)
    name: str | None = Field(default=None, exclude_if=lambda name: name is None)


class SiloBudget(Part):
    """One silo's budget on one data set: everything that was ever charged to it.

    Attributes:
        silo: Whose.
        scope: What the ledger calls it.
        data: The data set.
        unit: Whose presence is hidden.
        max_records: Most records of one unit.
        adjacency: How neighbouring data sets differ.
        delta: Of the claim.
        cap: Epsilon that may be spent, as it stands now.
        protects: False where noise of a run that was charged was seeded, or none was added: what was spent is then no
            bound, and null.
        bound: Epsilon of all runs together, however plans were chosen and wherever they ended: the one plan's where it
            took the whole budget, else the largest cap that held since the first charge.
        spent: Epsilon of the steps that all runs took, by PLD, had every plan and its length been fixed in advance.
        order: Of the budget's filter.
        taken_whole: Whether one plan took all of it, so that nothing is left for another.
        runs: Every run, oldest first.
    """

    silo: str
    scope: str
    data: str
    unit: UnitName
    max_records: int
    adjacency: Literal["add-or-remove-one"]
    delta: float
    cap: float
    protects: bool
    bound: Epsilon
    spent: Epsilon
    order: int
    taken_whole: bool
    runs: tuple[LedgerRun, ...]

    def is_of(self, data_sets: Collection[str]) -> bool:
        """Whether it is of the report's run, or of its data: a budget of several bears a name of its own."""
        return self.data in data_sets or any(run.this for run in self.runs)


class Scope(Part):
    """What the claim is about, and what was spent on it before.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        data_sets: What the run trained on.
        budgets: Every budget of every silo's ledger, with all its runs.
        prior_runs: How many other runs these ledgers hold.
        protects: False where a budget on the run's data is one of which `protects` is False.
        largest_bound: The largest `bound` of a budget on the run's data; null where there is none, or no ledger was at
            hand.
    """

    nist: Questions = (
        "Which data does the guarantee cover?",
        "What else was released about the same data, and what do all releases compose to?",
        "What may be spent in all?",
    )
    data_sets: tuple[DataSet, ...]
    budgets: tuple[SiloBudget, ...]
    prior_runs: int
    protects: bool
    largest_bound: Epsilon
