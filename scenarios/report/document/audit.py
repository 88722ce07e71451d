"""The section on the audit: an attack on the real run that tried to refute the claim."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from scenarios.report.document.forms import Questions
from scenarios.runs.parts import Part


class LowerBound(Part):
    """A lower bound on epsilon, from an attack.

    Attributes:
        epsilon: The attack could not have done as well under less.
        confidence: With which that holds.
        assumption: What it needs besides; null where nothing.
        mu: The same as a separation of Gaussians, where the estimator has one.
    """

    epsilon: float
    confidence: float
    assumption: str | None = None
    mu: float | None = None


class Power(Part):
    """How likely the audit would have refuted a claim that is false.

    Attributes:
        against: Which fault.
        power: The chance to see it.
        least: Under which the audit is inconclusive.
        runs: Simulated to find it.
    """

    against: str
    power: float
    least: float
    runs: int


class Gauge(Part):
    """A figure that must lie where the claim says. One that is no finite number is null, and did not pass.

    Attributes:
        name: Which.
        silo: Whose; null where it is of all.
        measured: What was found.
        expected: What the charge says.
        low: End of the interval.
        high: The other end.
        passed: Whether it lies there.
        explanation: In a sentence.
    """

    name: str
    silo: str | None
    measured: float | None
    expected: float | None
    low: float | None
    high: float | None
    passed: bool
    explanation: str


class Unmeasured(Part):
    """An invariant that the run gave too little to measure.

    Attributes:
        name: Which.
        silo: Whose; null where it is of all.
    """

    name: str
    silo: str | None


class Attack(Part):
    """How one attack on membership did on the final model; an estimate, no bound.

    Attributes:
        auc: Area under its ROC curve.
        tpr_at_1pct_fpr: True positive rate where the false one is 1%.
        epsilon_estimate: Plugged in, without confidence.
    """

    auc: float
    tpr_at_1pct_fpr: float
    epsilon_estimate: float


class Membership(Part):
    """Membership inference on the final model.

    Attributes:
        loss_threshold: By a threshold on the loss.
        rmia: By ratios to a reference model; null where none was trained.
        note: What it is and is not.
    """

    loss_threshold: Attack
    rmia: Attack | None
    note: str


class ExposureBefore(Part):
    """How exposed the same canaries were in the model that the run began with, in bits.

    Attributes:
        mean: Of those that were trained on afterwards.
        largest: Of the most exposed.
    """

    mean: float
    largest: float


class Exposure(Part):
    """How exposed canaries are in the final model, in bits; an estimate, no bound.

    Attributes:
        mean: Of those that were trained on.
        largest: Of the most exposed.
        by_chance: What the mean is on average where the model knows nothing of them.
        most: What one of smaller loss than all that were left out has.
        canaries: How many were trained on.
        among: Among how many others each is ranked.
        before: What they were before the run; left out where nobody looked.
    """

    mean: float
    largest: float
    by_chance: float
    most: float
    canaries: int
    among: int
    before: ExposureBefore | None = Field(default=None, exclude_if=lambda said: said is None)


class Scores(Part):
    """The attack's scores of canaries.

    Attributes:
        included: Of those that were trained on.
        excluded: Of those that were not.
    """

    included: tuple[float, ...]
    excluded: tuple[float, ...]


class AuditGuesses(Part):
    """The guesses that the verdict rests on.

    Attributes:
        canaries: In all.
        made: Guesses; the rest abstains.
        correct: Of them.
        needed: To refute the claim.
    """

    canaries: int
    made: int
    correct: int
    needed: int


class PlanEntry(Part):
    """Where a silo's ledger says that the audit was fixed in advance.

    Attributes:
        silo: Whose ledger.
        plan_entry: Number of the entry that holds the plan's hash.
        first_charge_entry: Number of the run's first charge, which comes after; null where it was never charged.
        result_entry: Number of the entry that holds the result's hash; null where there is none yet.
    """

    silo: str
    plan_entry: int
    first_charge_entry: int | None
    result_entry: int | None


class Audit(Part):
    """An attack on the real run that tried to refute the claim.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        plan: What was fixed before the run.
        plan_hash: Its hash, which the ledgers hold.
        entered: Where they hold it.
        claimed_epsilon: What it tried to refute: the largest epsilon of a silo, of its whole plan.
        delta: At which.
        claimed_mu: Of the steps that the scenario gives each silo, which the plan's test is of: no more than the whole
            plan's.
        lower_bounds: By estimator.
        power: Against less noise than claimed.
        gauges: Invariants of the mechanism.
        unmeasured: Those that the run gave too little to measure.
        membership: Inference on the final model; null where none was done.
        exposure: Of canaries that a model of next tokens was trained on as records; left out of any other audit.
        scores: Of canaries.
        guesses: That the verdict rests on.
        verdict: "inconclusive" is never a pass.
        reasons: Why.
    """

    nist: Questions = ("Was the implementation tested against its claim, and how could the test have failed?",)
    plan: dict[str, JsonValue]
    plan_hash: str
    entered: tuple[PlanEntry, ...]
    claimed_epsilon: float
    delta: float
    claimed_mu: float | None
    lower_bounds: dict[str, LowerBound]
    power: Power
    gauges: tuple[Gauge, ...]
    unmeasured: tuple[Unmeasured, ...] = ()
    membership: Membership | None
    exposure: Exposure | None = Field(default=None, exclude_if=lambda said: said is None)
    scores: Scores
    guesses: AuditGuesses
    verdict: Literal["not-refuted", "refuted", "inconclusive"]
    reasons: tuple[str, ...]
