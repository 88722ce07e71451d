"""The section on the claim: what is promised of each silo's records, from its ledger."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedmodel.privacy.events import UnitName
from scenarios.report.document.forms import Epsilon, Questions
from scenarios.runs.parts import Part


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
            chosen and wherever they ended; null where noise of any of it was seeded, which protects nobody, and where
            no ledger was at hand. The ledger's other budgets stand in the scope.
        delta: Of all of them.
        target_epsilon: What the scenario asked for; null where it gave the noise, or none was to be added.
        mu: The run's whole plan is as private as mu-GDP, wherever delta is over `mu_floor`; null where none was found.
        mu_floor: See `mu`.
        advantage: No attack on membership has a true positive rate that is over its false one by more.
        steps: Noised sums that were charged.
        steps_reserved: Of the whole plan; 0 where nothing was charged.
        parts: How many parts the run reserved, all of which `epsilon` is of, composed; the steps are of the first, the
            plan. Left out where that is all.
        epsilon_if_noise_were_secret: What `epsilon` would be, of noise of an experiment, which protects nobody; left
            out of any other.
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
    parts: int = Field(default=1, exclude_if=lambda parts: parts == 1)
    epsilon_if_noise_were_secret: Epsilon = Field(default=None, exclude_if=lambda said: said is None)


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
        epsilon_if_noise_were_secret: The largest of all silos', of noise of an experiment; left out of any other.
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
    epsilon_if_noise_were_secret: Epsilon = Field(default=None, exclude_if=lambda said: said is None)
