"""What a report says, as one document: claim, scope, trust, mechanism, accounting, what is not protected, audit, more.

The page and the registry entry are made from this document and from nothing else, and `report verify` computes it again
and compares every field. Its JSON schema is published beside this module (`report.schema.json`).

Sections follow what NIST SP 800-226 (Guidelines for Evaluating Differential Privacy Guarantees, 2025) says one has to
ask of a claim; each names, in `nist`, the questions that it answers.

Guarantee: a document is frozen, has no field that is not named here, no NaN and no infinity. An epsilon for which no
bound is computed is null, never a number.

Does NOT say that a figure is true: `scenarios.report` computes figures from ledgers, and compares them again.

It is longer than other files, since it is one schema, and is read as one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, JsonValue

from fedmodel.privacy.events import MechanismName, NoiseSourceName, UnitName
from scenarios.runs.parts import Hash, LedgerHead, Moment, Part

FORMAT: Final = "fedmodel-report/3"
SCHEMA_ID: Final = "report.schema.json"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Epsilon = Annotated[float | None, Field(description="an upper bound; null where none is computed")]
Questions = tuple[str, ...]


class Built(Part):
    """When and with what the report was made: taken as stored when it is verified, by its signature alone.

    Attributes:
        at: When.
        fedmodel: The version.
        python: The interpreter's version.
        libraries: Installed versions of what was computed and drawn with, by name.
        page: Over the code and templates that rendered the page: where they are the same, so is the page.
    """

    at: Moment
    fedmodel: str
    python: str
    libraries: dict[str, str]
    page: Hash


class RunFacts(Part):
    """Which run it is of.

    Attributes:
        scenario: Its name.
        summary: In a line.
        run: Its number in the ledgers; null where no silo entered one.
        engine: What carried messages: "in-process", "flower" or "deployment".
        device: Where silos trained.
        parameters: Of the model.
        silos: Their names, in the scenario's order.
        seed: Of everything that is no secret.
        first_charge: When the first charge was entered.
        last_charge: When the last one was.
        seconds: It took in all.
    """

    scenario: str
    summary: str
    run: str | None
    engine: str
    device: str
    parameters: int
    silos: tuple[str, ...]
    seed: int | None
    first_charge: Moment | None
    last_charge: Moment | None
    seconds: float


class Odometer(Part):
    """A figure that holds at the step where a run ended, whoever ended it: a statement beside the plan's figure.

    Whoever relies on both relies on two statements, and their deltas add.

    Attributes:
        epsilon: That holds there.
        delta: Of the statement.
        steps: Of the checkpoint that it was read at.
    """

    epsilon: float
    delta: float
    steps: int


class SiloClaim(Part):
    """What is claimed for one silo's records, from its ledger.

    Attributes:
        silo: Its name.
        epsilon: Of this run's whole plan, by PLD: it holds wherever the run ended, and whoever ended it; null where
            noise was seeded, or no bound is computed.
        epsilon_of_steps_taken: Of the steps that were charged, had the length been fixed in advance; no bound where the
            run was ended by looking.
        odometer: What holds besides where the run ended, if that is less than `epsilon`; null elsewhere.
        epsilon_all_runs: Of everything that is charged to the budget of this run, this run included, however plans were
            chosen and wherever they ended; null where noise of any of it was seeded, which protects nobody. The
            ledger's other budgets stand in the scope.
        delta: Of all of them.
        target_epsilon: What the scenario asked for; null where it gave the noise, or none was to be added.
        mu: The run's whole plan is as private as mu-GDP, wherever delta is over `mu_floor`; null where none was found.
        mu_floor: See `mu`.
        advantage: No attack on membership has a true positive rate that is over its false one by more.
        steps: Noised sums that were charged.
        steps_reserved: Of the whole plan; 0 where nothing was charged.
    """

    silo: str
    epsilon: Epsilon
    epsilon_of_steps_taken: Epsilon
    odometer: Odometer | None
    epsilon_all_runs: Epsilon
    delta: float
    target_epsilon: float | None
    mu: float | None
    mu_floor: float
    advantage: float | None
    steps: int
    steps_reserved: int


class Claim(Part):
    """The claim: whose presence is hidden, from whom, how well.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        sentence: The claim, plainly.
        meaning: What the figures mean for one person.
        early: What holds where fewer steps were taken than were reserved; null where they were all taken.
        protects: False where noise was seeded or none was added, so that no figure here protects anybody.
        unit: Whose presence is hidden.
        max_records: Most records of one unit that were trained on.
        adjacency: How neighbouring data sets differ.
        epsilon: The largest of all silos', by PLD; null where noise was seeded, or no bound is computed.
        delta: The largest of all silos'.
        silos: A row each.
        rests_on: On whose word it rests that the ledgers are whole, and are of this run and this model.
    """

    nist: Questions = (
        "What does the guarantee promise, and to whom?",
        "What is the unit of privacy?",
        "What are the privacy parameters, and what do they mean?",
    )
    sentence: str
    meaning: str
    early: str | None
    protects: bool
    unit: UnitName
    max_records: int
    adjacency: Literal["add-or-remove-one"]
    epsilon: Epsilon
    delta: float
    silos: tuple[SiloClaim, ...]
    rests_on: str


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


class LedgerRun(Part):
    """One run in a silo's ledger.

    Attributes:
        run: Its number.
        this: Whether it is the run of this report.
        scenario: The hash of its scenario.
        rounds: Rounds that were charged.
        steps: Noised sums that were charged.
        reserved_steps: Of its whole plan, which its epsilon is of.
        mechanism: What it released; "none-unsafe" where no noise was added, which protects nobody.
        noise_multiplier: Noise over the clip.
        sample_rate: As planned.
        noise_source: Where noise was drawn from; null where none was.
        epsilon: Of its whole plan, by PLD, at the budget's delta, 0 where nothing was charged; null where its noise was
            seeded, or none was added.
        epsilon_of_steps_taken: Of what was charged, had the length been fixed in advance; null where that is.
        admitted: In which of the ledger's two ways; "none" where no noise was added.
        first_charge: When.
        last_charge: When.
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
        largest_bound: The largest `bound` of a budget on the run's data; null where there is none.
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


class Seen(Part):
    """What one party sees, and what holds against it.

    Attributes:
        who: The party.
        sees: What reaches it.
        holds: What bounds what it learns.
    """

    who: str
    sees: str
    holds: str


class SecureAggregation(Part):
    """How updates were hidden in a sum: figures that held in every round.

    Attributes:
        mode: Whether they were.
        threshold: Least shares that bring a secret back; null where nothing was masked.
        least_silos_in_a_sum: Least updates in a sum that was opened.
        least_effective_silos_in_a_sum: As how many equal silos the weights of a sum count, at least.
        colluding_tolerated: Silos that may work with the server.
        suite: Of keys.
        consistency: How silos agree on who is in a sum.
        bits: Of a word.
        bound: Largest magnitude of an update's coordinate.
    """

    mode: Literal["off", "simulated", "on"]
    threshold: int | None
    least_silos_in_a_sum: int | None
    least_effective_silos_in_a_sum: float | None
    colluding_tolerated: int | None
    suite: str | None
    consistency: str | None
    bits: int
    bound: float | None


class Trust(Part):
    """Who adds noise, who sees what, and who has to be trusted.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        model: Of differential privacy: where noise is added.
        noise_added_by: Who adds it, and when.
        parties: Who sees what.
        secure_aggregation: Its terms.
        collusion: In a sentence, how many may work with the server.
        access: Who can get at records.
    """

    nist: Questions = (
        "Which trust model is it, and who is trusted?",
        "Who adds noise, and before what?",
        "Who has access to records, and how are they kept?",
        "How is what is collected exposed?",
    )
    model: Literal["local-to-the-silo"]
    noise_added_by: str
    parties: tuple[Seen, ...]
    secure_aggregation: SecureAggregation
    collusion: str
    access: str


class SiloMechanism(Part):
    """One silo's mechanism, as planned and as charged; what was charged is null where it released nothing.

    Attributes:
        silo: Its name.
        mechanism: What was planned; "none-unsafe" where no noise is added, which protects nobody.
        noise_multiplier_planned: Noise over the clip that the plan needs.
        noise_multiplier: As charged.
        max_grad_norm_planned: The clip of the plan; null where gradients are not clipped.
        max_grad_norm: As charged.
        sample_rate_planned: Each record's chance to be in a lot.
        sample_rate_realised: With what the sampler really drew.
        steps_planned: Of the whole run.
        steps_charged: Noised sums, empty lots included.
        rounds_charged: Rounds.
        denominator_planned: The public divisor of the plan.
        denominator: As charged.
        sampler: How lots were drawn.
        noise_source: Where noise was drawn from.
        weight: Of the silo in the average, public.
    """

    silo: str
    mechanism: MechanismName
    noise_multiplier_planned: float
    noise_multiplier: float | None
    max_grad_norm_planned: float | None
    max_grad_norm: float | None
    sample_rate_planned: float
    sample_rate_realised: float | None
    steps_planned: int
    steps_charged: int
    rounds_charged: int
    denominator_planned: int
    denominator: int | None
    sampler: str | None
    noise_source: NoiseSourceName | None
    weight: float


class Dropout(Part):
    """A silo that did not answer.

    Attributes:
        silo: Its name.
        code: Why, as a code.
        rounds: How often.
    """

    silo: str
    code: str
    rounds: int


class Withdrawal(Part):
    """A silo that left.

    Attributes:
        silo: Its name.
        code: Why, as a code.
        round: When.
    """

    silo: str
    code: str
    round: int


class Mechanism(Part):
    """What was done to records, as planned and as charged.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        description: In a sentence.
        sensitivity: How what one unit can do is bounded.
        sampling: How lots were drawn, and what that is worth.
        side_channels: What is done about floating point, timing and counts, and what is not.
        silos: A row each.
        rounds_planned: Of the scenario.
        rounds_completed: That changed the model.
        rounds_failed: That failed closed.
        ended_early: Why there are fewer than planned; null where there are not.
        dropouts: Who did not answer, and how often.
        withdrawn: Who left.
    """

    nist: Questions = (
        "Which mechanism is it, and is its sensitivity bounded?",
        "How are records sampled, and is that accounted for?",
        "What of side channels and floating point?",
    )
    description: str
    sensitivity: str
    sampling: str
    side_channels: str
    silos: tuple[SiloMechanism, ...]
    rounds_planned: int
    rounds_completed: int
    rounds_failed: int
    ended_early: str | None
    dropouts: tuple[Dropout, ...]
    withdrawn: tuple[Withdrawal, ...]

    @property
    def is_baseline(self) -> bool:
        """Whether no noise was to be added, so that the run protects nobody."""
        return any(one.mechanism == "none-unsafe" for one in self.silos)


class CurvePoint(Part):
    """A point of the privacy curve.

    Attributes:
        epsilon: At which it is read.
        delta: An upper bound.
    """

    epsilon: float
    delta: float


class SiloAccounting(Part):
    """The whole plan of one run of one silo, by three accountants; of a run that released nothing, of nothing.

    Attributes:
        silo: Its name.
        delta: At which all three are read.
        pld: The claim.
        prv: By another library; null with a reason.
        prv_reason: Why there is none; null where there is.
        rdp: By Rényi divergences, always looser; null where no noise was added.
        rdp_order: At which order; null where nothing was charged.
        curve: delta(epsilon), by PLD.
    """

    silo: str
    delta: float
    pld: Epsilon
    prv: float | None
    prv_reason: str | None
    rdp: float | None
    rdp_order: int | None
    curve: tuple[CurvePoint, ...]


class Method(Part):
    """What one of the accountants is.

    Attributes:
        name: "pld", "prv" or "rdp".
        means: What its figure is.
        by: Whose code computes it.
    """

    name: Literal["pld", "prv", "rdp"]
    means: str
    by: str


class Accounting(Part):
    """The run's charges, read by three accountants.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        composition: How steps and runs are composed.
        methods: What each accountant is.
        silos: A row each.
    """

    nist: Questions = (
        "How do releases compose, and by which accountant?",
        "Do independent accountants agree?",
    )
    composition: str
    methods: tuple[Method, ...]
    silos: tuple[SiloAccounting, ...]


class NotProtected(Part):
    """What the claim does not cover in this run.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        statements: Plainly, those that apply.
    """

    nist: Questions = ("What does the guarantee not promise?", "Which hazards of deployment remain?")
    statements: tuple[str, ...]


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
    scores: Scores
    guesses: AuditGuesses
    verdict: Literal["not-refuted", "refuted", "inconclusive"]
    reasons: tuple[str, ...]


class FileHash(Part):
    """A file of the run's folder.

    Attributes:
        name: Of the file.
        sha256: Of its bytes.
    """

    name: str
    sha256: Hash


class Override(Part):
    """A person's change of a budget's cap.

    Attributes:
        silo: In whose ledger.
        scope: Of which budget.
        entry: Number of the entry.
        time: When.
        epsilon: The new cap.
        by: Who.
        reason: Why.
    """

    silo: str
    scope: str
    entry: int
    time: Moment
    epsilon: float
    by: str
    reason: str


class Integrity(Part):
    """What the figures were computed from, so that another party can compute them again.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        signer: The public key of the run's server, which signs the report.
        ledgers: What each ledger was.
        not_countersigned: Silos of the run that did not countersign its end.
        code_hash: Over the code that ran.
        scenario_hash: By which silos know the scenario.
        dependencies: Installed versions, name==version, sorted.
        dependencies_hash: SHA-256 over those lines.
        files: Of the run's folder. On the page, the hash of the page itself and of the registry entry are left out.
        overrides: In the ledgers.
    """

    nist: Questions = (
        "Can the claim be checked by another party?",
        "Which code and which libraries ran?",
        "Who changed what may be spent?",
    )
    signer: Hash
    ledgers: tuple[LedgerHead, ...]
    not_countersigned: tuple[str, ...]
    code_hash: Hash
    scenario_hash: Hash
    dependencies: tuple[str, ...]
    dependencies_hash: Hash
    files: tuple[FileHash, ...]
    overrides: tuple[Override, ...]


class RoundFigures(Part):
    """One round, as the server measured it on its own held-out records.

    Attributes:
        round: Its number.
        failed: Whether it failed closed, with the model as it was.
        cohort: Silos that were asked.
        summed: Updates in the sum; 0 where the round failed.
        seconds: It took.
        figures: Such as "loss" and "accuracy".
    """

    round: int
    failed: bool
    cohort: int
    summed: int
    seconds: float
    figures: dict[str, float]


class BudgetPoint(Part):
    """What was spent after a charge.

    Attributes:
        time: Of the charge.
        epsilon: Of the steps of all runs until then, had every plan and its length been fixed in advance; on a coarser
            grid but for the last; null from the first charge on whose noise was seeded.
        cap: That held then.
    """

    time: Moment
    epsilon: Epsilon
    cap: float


class BudgetLine(Part):
    """How one silo's budget was spent over time.

    Attributes:
        silo: Whose.
        scope: Which budget.
        delta: At which.
        points: Oldest first; of many charges, evenly chosen ones, the last included.
    """

    silo: str
    scope: str
    delta: float
    points: tuple[BudgetPoint, ...]


class Training(Part):
    """What the model is good for, and how the budget was spent on it.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        class_weights: What the loss of each class was multiplied with in training; left out where there were none.
        figures: Of the last whole round, those that are defined there; the loss is not weighed by class.
        rounds: A row each.
        budgets: A line each.
    """

    nist: Questions = ("Is what is released accurate enough for its use?", "How was the budget spent over time?")
    # Left out of what is signed where there is none: a report from before it verifies as it was.
    class_weights: tuple[float, ...] | None = Field(default=None, exclude_if=lambda weights: weights is None)
    figures: dict[str, float]
    rounds: tuple[RoundFigures, ...]
    budgets: tuple[BudgetLine, ...]


class Approval(Part):
    """What a person found or signed off, as a ledger says.

    Attributes:
        silo: In whose ledger.
        entry: Number of the entry.
        time: When.
        subject: Of what.
        by: Who.
        digest: Of what was approved; null where the entry has none.
    """

    silo: str
    entry: int
    time: Moment
    subject: str
    by: str
    digest: str | None


class Limits(Part):
    """What this report does not say, and who stands behind the run.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        statements: What it does not say.
        approvals: In the ledgers.
        signature_lines: For whoever signs on paper: roles.
    """

    nist: Questions = ("What is left for a person to judge?", "Who approved it?")
    statements: tuple[str, ...]
    approvals: tuple[Approval, ...]
    signature_lines: tuple[str, ...]


class Report(Part):
    """The whole document."""

    model_config = ConfigDict(
        title="A report of fedmodel", json_schema_extra={"$id": SCHEMA_ID, "$schema": _DIALECT}
    )  # fmt: skip

    format: Literal["fedmodel-report/3"] = FORMAT
    built: Built
    run: RunFacts
    claim: Claim
    scope: Scope
    trust: Trust
    mechanism: Mechanism
    accounting: Accounting
    not_protected: NotProtected
    audit: Audit | None
    training: Training
    integrity: Integrity
    limits: Limits
