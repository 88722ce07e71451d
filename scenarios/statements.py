"""The plain sentences of a report: what is claimed, who is trusted, what is not protected, what the report leaves open.

Each follows from a run's scenario and figures, so that `report verify` writes it again and compares it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from fedmodel.report.document import CurvePoint, SecureAggregation, Seen
from scenarios.audit_entries import PLAN_SUBJECT
from scenarios.gathering import Gathered
from scenarios.printing import up

_FALSE_ALARM: Final = 0.01

SIGNATURE_LINES: Final = ("Privacy officer", "Responsible for the data", "Responsible for the model")

NOISE_ADDED_BY: Final = (
    "Each silo adds Gaussian noise to its own clipped sums, in its own process, before an update is masked or leaves;"
    " nobody else's noise is counted."
)
ACCESS: Final = (
    "Records stay at their silo and are read by its own process alone; no metric, no count of records and no text of an"
    " error leaves it. The server has held-out records of its own."
)
DESCRIPTION: Final = (
    "DP-SGD (Abadi et al. 2016): Poisson lots, each record's gradient clipped in L2, Gaussian noise on the sum, a"
    " public denominator. Each step is charged to the silo's ledger before records are read for it."
)
SIDE_CHANNELS: Final = (
    "Noise is drawn from the operating system's generator unless it says otherwise, a value being half the sum of four"
    " normals in double precision (Holohan and Braghin 2021), rounded to single. A value that is not a number"
    " contributes nothing. Timing of the sampler is not hidden; accounting adds what floating point adds, about 1e-16 a"
    " step to delta."
)
COMPOSITION: Final = (
    "All steps of the run are composed by privacy loss distributions. What one ledger holds of several runs is composed"
    " the same way, as if all plans had been fixed in advance, and by the ledger's Rényi filter, however they were"
    " chosen. Epsilons are never added up. Silos hold distinct units, so the largest of their claims holds for all."
)


def unit_of(unit: str, max_records: int) -> str:
    """Name a privacy unit.

    >>> unit_of("record", 1), unit_of("person", 4)
    ('record', 'person with at most 4 records')
    """
    return unit if unit == "record" else f"{unit} with at most {max_records} records"


def claim(gathered: Gathered, epsilon: float | None, delta: float, unit: str, rounds: int) -> str:
    """Return the claim in a sentence."""
    name = gathered.scenario.name
    if epsilon is None:
        return f"No bound is computed for {name}: its noise is too little for its steps, and nothing is claimed."
    if gathered.scenario.privacy.noise == "seeded-unsafe":
        return f"Nothing is claimed for {name}: its noise was seeded, and whoever knows the seed can remove it."
    return (
        f"Whatever left the silos of {name}, over all {rounds} rounds, is (epsilon {up(epsilon)}, delta"
        f" {delta:g})-differentially private for every {unit} of every silo: it is nearly as likely with as without it."
    )


def meaning(silos: Sequence[tuple[float | None, Sequence[CurvePoint]]]) -> str:
    """Return what the figures mean for one unit, of the silo for which they mean least.

    Args:
        silos: Of each, the largest advantage of an attack, and points of its curve of delta.
    """
    released = [(advantage, curve) for advantage, curve in silos if advantage is not None and curve]
    if not released:
        return "Nothing was released, or nothing is claimed."
    # Any test's power is at most e^epsilon times its false alarms, plus delta, at every point of the curve.
    power = max(min(math.exp(point.epsilon) * _FALSE_ALARM + point.delta for point in curve) for _, curve in released)
    return (
        f"A test that calls 1 in 100 of those who are absent present finds at most {up(min(power, 1.0) * 100)}% of"
        " those who are present. No test's true positive rate is over its false one by more than"
        f" {up(max(advantage for advantage, _ in released))}."
    )


def sensitivity(unit: str, clip: float) -> str:
    """Return how what one unit can do is bounded."""
    return (
        f"A gradient is clipped to an L2 norm of {clip:g}, so that one record moves a sum by at most that. Neighbours"
        f" differ by one {unit}, added or removed."
    )


def sampling(rates: Sequence[float]) -> str:
    """Return how lots are drawn, and what it is worth."""
    if min(rates) == 1:
        return "Every record is in every lot; nothing is gained by sampling."
    return (
        "Every record is in a lot with the declared probability, independently of all else (Poisson sampling); what"
        " that gains is accounted for at the rate with which the sampler really draws."
    )


def collusion(terms: SecureAggregation) -> str:
    """Say how many silos may work with the server."""
    if terms.mode != "on":
        return "Updates were not masked: the server sees each silo's noised update, whoever works with it."
    return (
        f"The server opens sums of at least {terms.least_silos_in_a_sum} updates and no single one, as long as no more"
        f" than {terms.colluding_tolerated} of the silos work with it; {terms.threshold} shares bring a secret back."
    )


def parties(gathered: Gathered, terms: SecureAggregation) -> tuple[Seen, ...]:
    """Return who sees what, and what holds."""
    unit = unit_of(gathered.scenario.privacy.unit, gathered.scenario.privacy.max_records or 1)
    noised = f"(epsilon, delta) for each {unit}, as the silo's ledger says"
    after = "no figure protects anybody" if _seeded(gathered) else "post-processing costs nothing"
    server = (
        Seen(
            who="The server",
            sees=f"sums of at least {terms.least_silos_in_a_sum} updates, names, who trained when, error codes",
            holds=f"No single update, up to {terms.colluding_tolerated} colluding silos; past that, {noised}.",
        )
        if terms.mode == "on"
        else Seen(
            who="The server",
            sees="each silo's noised update, names, who trained when, error codes",
            holds=f"{noised}.",
        )
    )
    return (
        Seen(
            who="Each silo",
            sees="its own records, and the model before each round",
            holds="Of another silo's records it learns what the receiver of the model does.",
        ),
        server,
        Seen(
            who="Whoever gets the model",
            sees="the model, or its state after every round",
            holds=f"{noised}; {after}.",
        ),
        Seen(
            who="The network",
            sees="nothing: all was on one machine" if gathered.simulated else "TLS, and who talks when and how much",
            holds="Nothing had to." if gathered.simulated else "Certificates of the one authority, on both sides.",
        ),
    )


def not_protected(gathered: Gathered) -> tuple[str, ...]:
    """Return what the claim does not cover in this run."""
    scenario, encryption = gathered.scenario, gathered.scenario.encryption
    masked = encryption.secure_aggregation == "on"
    found = [
        (_seeded(gathered), "Noise was seeded: whoever knows the seed subtracts it. No figure here protects anybody."),
        (True, "The server's own held-out records: their exact figures are published each round."),
        (True, "A poisoned update: nothing bounds what a hostile silo adds."
               + (" Under masks nobody can inspect it." if masked else "")),
        (True, "Participation, timing, sizes of messages and the public weights: the server sees them."),
        (masked, "Differences of sums over cohorts that differ in one silo: its own noise is what holds there."),
        (masked, "Single updates, once more silos work with the server than are tolerated: their noise is what holds."),
        (not masked, "Single updates: the server sees each, and its noise is what holds."),
        (encryption.secure_aggregation == "simulated", "Secure aggregation was simulated: nothing was masked."),
        (masked and encryption.consistency == "quorum", "A single update, against a server that shows two lists of"
                                                       " survivors: consistency was left to a quorum."),
        (gathered.simulated, "Silos from one another: in a simulation they share one machine, and keys lie unencrypted"
                             " in the run's folder."),
        (not gathered.simulated, "A silo from its own operator, or from root on any machine."),
        ("network" in gathered.summary, "Parties from one another: this was a rehearsal, and all shared one machine."),
        (scenario.privacy.unit == "record", "A person with several records, as a person: each record is protected, and"
                                            " what they tell together is not bounded by these figures."),
        (scenario.privacy.unit != "record", "What a unit's records beyond the most that are trained on would tell: they"
                                            " are left out, and that they were is not hidden from its silo."),
        (bool(scenario.data.reference_ranges or scenario.data.reference_range),
         "The declared ranges by which features are scaled: whatever they were chosen by, no run pays for it."),
        (scenario.faults is not None, "Faults were rehearsed: silos were made to vanish."),
    ]  # fmt: skip
    return tuple(text for applies, text in found if applies)


def limits(gathered: Gathered) -> tuple[str, ...]:
    """Return what the report does not say."""
    scenario = gathered.scenario
    planned = any(True for ledger in gathered.ledgers.values() for _ in ledger.audits(PLAN_SUBJECT))
    found = [
        (True, "Whether this epsilon is small enough: that is for people to judge."),
        (True, "That the code whose hash stands here is the code that ran at a silo: its operator runs what it runs."),
        (True, "That a unit is what it is called: who a record is about is what the data say."),
        (True, "What was released about the same data outside these ledgers, or learnt by people who looked at them."),
        (True, "That choices of the scenario, made after runs that no ledger holds, cost nothing."),
        (gathered.audit is None and not planned, "Whether an attack would have refuted the claim: none was tried."),
        (gathered.audit is None and planned, "What the audit found that a ledger says was planned: its result is not"
                                             " here."),
        (gathered.audit is not None, "That the claim is true: an audit that does not refute it is no proof of it."),
        (scenario.audit is not None and scenario.audit.canaries == "loss",
         "What the model would be without the audit's canaries: it was trained on them too."),
        (True, "That the protocol and this code are right: nobody but their authors has reviewed them."),
    ]  # fmt: skip
    return tuple(text for applies, text in found if applies)


def data_kind(gathered: Gathered) -> str:
    """Say what a data set is."""
    data = gathered.scenario.data
    return {
        "breast-cancer": "569 masses of the Wisconsin diagnostic breast-cancer set, public, dealt out to silos",
        "digits": "1,797 handwritten digits, public, dealt out to silos",
        "synthetic": f"{data.records} made-up records of {data.features} features, dealt out to silos",
        "table": "each silo's own table",
    }[data.source]


def _seeded(gathered: Gathered) -> bool:
    return gathered.scenario.privacy.noise == "seeded-unsafe"
