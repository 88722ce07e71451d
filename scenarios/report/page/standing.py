"""How a report's claim stands: for whom it does not hold, whether its noise was seeded, what an audit showed.

The first page, the annex and the draft of a DPIA ask the same questions, and get the same answers here.
"""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import beta

from fedmodel.audit.gauges import OF_SERVER
from fedmodel.privacy.events import EXPERIMENT
from scenarios.report.document import Audit, Power, Report


def seeded(report: Report) -> bool:
    """Return whether noise of this run was seeded; a claim may protect nobody for want of a bound, too."""
    sources = {one.noise_source for one in report.mechanism.silos}
    return "seeded-unsafe" in sources or (not report.claim.protects and report.claim.epsilon is not None)


def experiment(report: Report) -> bool:
    """Return whether noise of this run was an experiment's, from a seed, and of no silo seeded otherwise."""
    return not seeded(report) and any(one.noise_source == EXPERIMENT for one in report.mechanism.silos)


def excepted(report: Report) -> list[tuple[str, Sequence[str]]]:
    """Return for whom the claim does not hold, as keys of the catalogue's `open`, each with the silos that it names."""
    if report.mechanism.is_baseline:
        return [("anybody_baseline", [])]
    if seeded(report):
        return [("anybody_seeded", [])]
    if experiment(report):
        return [("anybody_experiment", [])]
    unbounded = [one.silo for one in report.claim.silos if one.epsilon is None]
    return [*([("unbounded", unbounded)] if unbounded else []), (report.claim.unit, [])]


def unpromised(report: Report) -> list[str]:
    """Return the silos of which all runs on these data together are bounded by nothing."""
    data_sets = {data.name for data in report.scope.data_sets}
    return [one.silo for one in report.scope.budgets if not one.protects and one.is_of(data_sets)]


def headless(report: Report) -> list[str]:
    """Return the silos of whose ledger no signed head lay beside it."""
    return [one.silo for one in report.integrity.ledgers if one.head is None]


def late(audit: Audit) -> list[str]:
    """Return the silos whose ledger holds an audit's plan only after the run's first charge."""
    return [
        one.silo
        for one in audit.entered
        if one.first_charge_entry is not None and one.first_charge_entry <= one.plan_entry
    ]


def fixed_in_advance(report: Report, audit: Audit) -> bool:
    """Return whether every ledger that was charged holds an audit's plan, and before the run's first charge."""
    charged = {one.silo for one in report.claim.silos if one.steps}
    return bool(audit.entered) and charged <= {one.silo for one in audit.entered} and not late(audit)


def at_least(power: Power) -> float:
    """Return what simulated runs show of a power: the lower limit of Clopper and Pearson, at 95%.

    >>> round(at_least(Power(against="half the noise", power=1.0, least=0.8, runs=400)), 4)
    0.9925
    >>> at_least(Power(against="half the noise", power=0.0, least=0.8, runs=400))
    0.0
    """
    noticed = round(power.power * power.runs)
    return float(beta.ppf(0.05, noticed, power.runs - noticed + 1)) if noticed else 0.0


def least_power(audit: Audit) -> tuple[float, bool]:
    """Return the power that may be told, and whether it is a lower limit from simulated runs."""
    simulated = audit.plan.get("kind") != "loss"
    return (at_least(audit.power) if simulated else audit.power.power), simulated


def strayed(audit: Audit) -> bool:
    """Return whether an audit passes nothing because the server's step was not that of the declared strategy."""
    failed = {one.name for one in audit.gauges if not one.passed}
    return audit.verdict == "inconclusive" and not failed.isdisjoint(OF_SERVER)
