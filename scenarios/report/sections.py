"""A report's sections, computed from what a run's folder says; every figure of privacy from its ledgers.

Guarantee: the same folder gives the same document, but for what `Built` says and what is installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from fedmodel import plans
from fedmodel.config import PurposeConfig, Scenario, SiloFile
from fedmodel.errors import LedgerError
from fedmodel.learning.tasks import figures_of
from fedmodel.ledger import Run, Scope, Standing, origin_of
from fedmodel.ledger.heads import verifier_key
from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event, bounded, if_secret, is_secret
from fedmodel.privacy.mechanisms import mechanism_of
from fedmodel.privacy.plan import SiloPlan
from fedmodel.provision import scenario_hash
from scenarios.report import document, sentences
from scenarios.report.countersigned import rests_on, without
from scenarios.report.gather import Gathered
from scenarios.report.page import accountants
from scenarios.report.verifier import renyi
from scenarios.runs import inspection
from scenarios.runs.claims import claim_of, early
from scenarios.runs.ledgers import SiloLedger, head_of
from scenarios.runs.parts import Countersigned, LedgerHead
from scenarios.runs.summary import LEFT_OUT, OTHERS, outcome
from scenarios.runs.used import used_kinds

_CURVE_POINTS: Final = 41
_MOST_POINTS: Final = 200  # of a budget over time
_ACCOUNTANT: Final = "fedmodel.accounting"  # what older reports call it too, which are verified by computing them again
_METHODS: Final = (
    document.Method(
        name="pld",
        means="the claim: an upper bound, floating point included, by privacy loss distributions that are discretised"
        " pessimistically",
        by=_ACCOUNTANT,
    ),
    document.Method(
        name="prv",
        means="another library's figure, by privacy random variables (Gopi et al. 2021), within 0.01 and no rounding"
        " counted",
        by="Opacus",
    ),
    document.Method(
        name="rdp",
        means="a looser upper bound, by Rényi divergences (Mironov et al. 2019), at the best whole order",
        by=f"dp_accounting; {_ACCOUNTANT} where a unit has several records",
    ),
)


def run_facts(gathered: Gathered, *, named: bool = True) -> document.RunFacts:
    """Return which run it is.

    Args:
        gathered: What the folder says.
        named: Whether to say what the server calls it.
    """
    times = sorted(time for ledger in gathered.ledgers.values() if ledger.own for time in ledger.times(ledger.own))
    runs = [ledger.run for ledger in gathered.ledgers.values() if ledger.run is not None]
    return document.RunFacts(
        scenario=gathered.scenario.name,
        summary=gathered.scenario.summary,
        run=runs[0] if runs else None,
        name=gathered.name if named else None,
        engine=gathered.summary["engine"],
        device=gathered.summary["device"],
        parameters=gathered.summary["parameters"],
        silos=gathered.scenario.federation.silos,
        seed=gathered.scenario.seed,
        first_charge=times[0] if times else None,
        last_charge=times[-1] if times else None,
        seconds=gathered.summary["timing"]["seconds_total"],
        reported=gathered.reported,
        booked=gathered.booked,
        copy_for=gathered.copy_for,
        rehearsal=gathered.rehearsed,
        besides=tuple(gathered.scenario.besides),
    )


def purpose(gathered: Gathered, stored: document.Purpose | None) -> document.Purpose | None:
    """Return what the run is for and who answers, or None where neither scenario nor laws state any of it.

    Args:
        gathered: What the folder says.
        stored: Of the report that is verified: it is taken at its word for silos whose law is not at hand.
    """
    said = gathered.scenario.purpose or PurposeConfig()
    known = {} if stored is None else {one.silo: one for one in stored.silos}
    rows = [_answerable(silo, gathered.laws.get(silo), known) for silo in gathered.silos]
    silos = tuple(row for row in rows if row is not None)
    if not silos and said == PurposeConfig():
        return None
    return document.Purpose(**said.model_dump(), silos=silos)


def _answerable(
    silo: str, law: SiloFile | None, known: Mapping[str, document.Answerable]
) -> document.Answerable | None:
    """Return who answers for one silo's records."""
    if law is None:
        return known.get(silo)
    return None if law.controller is None else document.Answerable(silo=silo, **law.controller.model_dump())


def claim(gathered: Gathered, mechanism: document.Mechanism, counted: document.Accounting) -> document.Claim:
    """Return the claim."""
    privacy = gathered.scenario.privacy
    silos = tuple(_silo_claim(gathered, silo) for silo in gathered.silos)
    epsilons = [silo.epsilon for silo in silos]
    largest = None if None in epsilons else max(epsilon for epsilon in epsilons if epsilon is not None)
    delta, most = max(silo.delta for silo in silos), privacy.max_records or 1
    unit = sentences.unit_of(privacy.unit, most)
    protects = _protects(gathered)
    would = max((one.epsilon_if_noise_were_secret or 0.0 for one in silos), default=0.0) or None
    return document.Claim(
        sentence=sentences.claim(
            gathered, largest, would, delta, unit, mechanism.rounds_completed + mechanism.rounds_failed
        ),
        meaning=sentences.meaning(silos, counted.silos, protects),
        early=early([one.model_dump() for one in silos]) if protects else None,
        protects=protects,
        unit=privacy.unit,
        max_records=most,
        adjacency="add-or-remove-one",
        epsilon=largest,
        delta=delta,
        silos=silos,
        rests_on=rests_on(gathered.silos, gathered.ledgers),
        epsilon_if_noise_were_secret=would,
    )


def _silo_claim(gathered: Gathered, silo: str) -> document.SiloClaim:
    plan, ledger = gathered.scenario.plan(silo), gathered.ledgers.get(silo)
    delta = _delta(gathered, silo)
    claimed = [] if ledger is None else ledger.claimed
    taken = 0 if ledger is None or ledger.own is None else ledger.own.taken
    # Of noise that somebody can subtract no figure is a bound: none is told.
    mu, advantage = (None, None) if _unprotected(claimed) else _besides(tuple(claimed), delta)
    if ledger is not None and ledger.others:  # a curve of plans that were chosen in turn is no bound
        mu, advantage = None, None
    told = claim_of([], [], delta) if ledger is None else ledger.claim(delta)
    return document.SiloClaim(
        silo=silo,
        epsilon=_told(claimed, told["epsilon"]),
        epsilon_of_steps_taken=_told(claimed, told["epsilon_of_steps_taken"]),
        odometer=None if _unprotected(claimed) or told["odometer"] is None else document.Odometer(**told["odometer"]),
        epsilon_all_runs=_of_budget(ledger),
        delta=delta,
        target_epsilon=plan.target_epsilon,
        mu=mu,
        mu_floor=inspection.MU_FLOOR,
        advantage=advantage,
        steps=taken,
        steps_reserved=0 if ledger is None or ledger.own is None or not ledger.own.claimed else ledger.own.steps,
        parts=1 if ledger is None or ledger.own is None else len(ledger.own.parts),
        epsilon_if_noise_were_secret=_finite(told["epsilon"]) if if_secret(claimed) else None,
    )


def _of_budget(ledger: SiloLedger | None) -> float | None:
    """Return the epsilon of everything that is charged to the run's budget; None where no ledger is here."""
    if ledger is not None and ledger.is_absent:
        return None
    return 0.0 if ledger is None or ledger.scope is None else _of_all_runs(ledger, ledger.scope.name)


def _cap(ledger: SiloLedger | None) -> float:
    """Return what bounds the report's run besides its own plan."""
    return math.inf if ledger is None else ledger.cap


def _of_all_runs(ledger: SiloLedger, scope: str) -> float | None:
    """Return the epsilon of everything that a ledger holds on some data, however chosen."""
    return _told(ledger.standing.claimed(scope), ledger.standing.bound(scope))


def _protects(gathered: Gathered) -> bool:
    """Return whether anything is claimed: every silo's charges have a bound, and noise was added and not seeded."""
    return (
        gathered.scenario.privacy.baseline is None
        and sentences.known_noise(gathered) is None
        and all(
            math.isfinite(min(_cap(ledger), accounting.epsilon(ledger.claimed, _delta(gathered, silo))))
            for silo, ledger in gathered.ledgers.items()
        )
    )


@lru_cache(maxsize=64)
def _besides(events: tuple[Event, ...], delta: float) -> tuple[float | None, float | None]:
    """Return mu and the largest advantage, on the coarse grid: upper bounds too, and hardly higher."""
    figures = inspection.figures(list(events), delta, accounting.COARSE_GRID)
    return figures["mu"], figures["advantage"]


def scope(gathered: Gathered, *, named: bool = True) -> document.Scope:
    """Return what the claim is about, and all that was spent on it.

    Args:
        gathered: What the folder says.
        named: Whether to say what servers call runs.
    """
    data = gathered.scenario.data
    budgets = tuple(
        _budget(ledger, found, named=named)
        for ledger in gathered.ledgers.values()
        for found in ledger.standing.scopes.values()
    )
    own = [one for one in budgets if one.is_of({data.data_set})]
    bounds = [budget.bound for budget in own]
    kind = data.described if data.augment is None else f"{data.described}; {data.augment.described}"
    return document.Scope(
        data_sets=(document.DataSet(name=data.data_set, source=data.source, kind=kind),),
        budgets=budgets,
        prior_runs=sum(1 for budget in budgets for run in budget.runs if not run.this),
        protects=all(budget.protects for budget in own),
        largest_bound=None
        if None in bounds or gathered.without_ledgers
        else max((one for one in bounds if one is not None), default=0.0),
    )


def _budget(ledger: SiloLedger, found: Scope, *, named: bool) -> document.SiloBudget:
    standing = ledger.standing
    events = standing.events(found.name)
    return document.SiloBudget(
        silo=ledger.silo,
        scope=found.name,
        data=found.data,
        unit=found.unit,
        max_records=found.max_records,
        adjacency=found.adjacency,
        delta=found.delta,
        cap=found.epsilon,
        protects=not _unprotected(events),
        bound=_of_all_runs(ledger, found.name),
        spent=_bound(events, found.delta),
        order=found.order,
        taken_whole=standing.taken_whole(found.name),
        runs=tuple(
            _ledger_run(ledger, number, run, found, named=named)
            for number, run in standing.runs.items()
            if run.scope == found.name
        ),
    )


def _ledger_run(ledger: SiloLedger, number: str, run: Run, found: Scope, *, named: bool) -> document.LedgerRun:
    times = ledger.times(run)
    told = claim_of(run.claimed, run.drawn, found.delta, ledger.standing.cap_of(run))
    return document.LedgerRun(
        run=number,
        name=(run.name or None) if named else None,
        this=number == ledger.run,
        scenario=run.scenario,
        rounds=run.rounds,
        steps=run.taken,
        reserved_steps=run.steps,
        mechanism=run.plan.mechanism,
        noise_multiplier=run.plan.noise_multiplier,
        sample_rate=run.plan.sample_rate,
        noise_source=run.plan.noise_source,
        epsilon=_told(run.claimed, told["epsilon"]),
        epsilon_of_steps_taken=_told(run.claimed, told["epsilon_of_steps_taken"]),
        admitted=run.admitted,
        first_charge=times[0] if times else None,
        last_charge=times[-1] if times else None,
        parts=tuple(_run_parts(run, found.delta)) if len(run.parts) > 1 else (),
    )


def _run_parts(run: Run, delta: float) -> Iterator[document.RunPart]:
    """Yield a row for each part of what a run reserved."""
    for number, (part, taken) in enumerate(zip(run.parts, run.drawn, strict=True), start=1):
        yield document.RunPart(
            part=number,
            mechanism=part.mechanism,
            steps=taken,
            reserved_steps=part.steps,
            noise_multiplier=part.noise_multiplier,
            sample_rate=part.sample_rate,
            noise_source=part.noise_source,
            epsilon_alone=_bound([part], delta) if run.charges else 0.0,
        )


def trust(gathered: Gathered, told: Mapping[str, Any], stored: document.Trust | None) -> document.Trust:
    """Return who adds noise, who sees what.

    Args:
        gathered: What the folder says.
        told: What the summary has to say.
        stored: Of the report that is verified: one from before says less of rows that are held out, as it was signed.
    """
    before = sentences.access(gathered, before=True)
    row = told["encryption"]
    terms = document.SecureAggregation(
        mode=row["secure_aggregation"],
        threshold=row["threshold"],
        least_silos_in_a_sum=row.get("least_silos_in_a_sum"),
        least_effective_silos_in_a_sum=row.get("least_effective_silos_in_a_sum"),
        colluding_tolerated=row.get("colluding_tolerated"),
        suite=row.get("suite"),
        consistency=row.get("consistency"),
        bits=row["bits"],
        bound=row.get("bound"),
    )
    return document.Trust(
        model="local-to-the-silo",
        noise_added_by=sentences.noise_added_by(gathered),
        parties=sentences.parties(gathered, terms, _protects(gathered)),
        secure_aggregation=terms,
        collusion=sentences.collusion(terms, sentences.update_word(gathered)),
        access=before if stored is not None and stored.access == before else sentences.access(gathered),
    )


def mechanism(gathered: Gathered, told: Mapping[str, Any]) -> document.Mechanism:
    """Return what was done to records, as planned and as charged."""
    scenario = gathered.scenario
    most = scenario.privacy.max_records or 1
    unit = sentences.unit_of(scenario.privacy.unit, most)
    # Silos and phases differ in their lots alone; the least rate says whether anything is gained by sampling.
    least = min((scenario.plan(silo) for silo in scenario.federation.silos), key=lambda plan: plan.sample_rate)
    event = plans.planned_event(least)
    facts = mechanism_of(event).describe(event, unit)
    return document.Mechanism(
        description=facts.description,
        sensitivity=facts.sensitivity,
        sampling=" ".join((facts.sampling, *sentences.growth(scenario))),
        side_channels=sentences.side_channels(gathered.scenario.privacy.baseline),
        silos=tuple(_silo_mechanism(gathered, silo) for silo in gathered.silos),
        rounds_planned=scenario.rounds,
        rounds_completed=told["rounds_completed"],
        rounds_failed=told["rounds_failed"],
        ended_early=told["ended_early"],
        dropouts=tuple(document.Dropout(**row) for row in told["dropouts"]),
        withdrawn=tuple(document.Withdrawal(**row) for row in told["withdrawn"]),
    )


def _silo_mechanism(gathered: Gathered, silo: str) -> document.SiloMechanism:
    scenario, ledger = gathered.scenario, gathered.ledgers.get(silo)
    plan = scenario.plan(silo)
    run = None if ledger is None else ledger.own
    event = run.plan if run is not None and run.taken else None
    phases = scenario.plans(silo)
    planned = plans.planned_event(plan)
    return document.SiloMechanism(
        silo=silo,
        mechanism=planned.mechanism,
        noise_multiplier_planned=planned.noise_multiplier,
        noise_multiplier=None if event is None else event.noise_multiplier,
        max_grad_norm_planned=planned.max_grad_norm,
        max_grad_norm=None if event is None else event.max_grad_norm,
        sample_rate_planned=plan.sample_rate,
        sample_rate_realised=None if event is None else event.realised_sample_rate,
        steps_planned=sum(one.steps for one in phases),
        steps_charged=0 if run is None else run.taken,
        rounds_charged=0 if run is None else run.rounds,
        denominator_planned=plan.expected_batch_size,
        denominator=None if event is None else event.denominator,
        sampler=None if event is None else event.sampler,
        noise_source=None if event is None else event.noise_source,
        weight=scenario.federation.weight(silo),
        phases=tuple(_phases(scenario, phases, run)) if len(phases) > 1 else (),
    )


def _phases(scenario: Scenario, asked: Sequence[SiloPlan], run: Run | None) -> Iterator[document.PhaseMechanism]:
    """Yield a row for each phase of a silo's training, as planned and as charged."""
    for part, (phase, plan) in enumerate(zip(scenario.phases, asked, strict=True)):
        taken = 0 if run is None else run.drawn[part]
        event = run.parts[part] if run is not None and taken else None
        yield document.PhaseMechanism(
            from_round=phase.first,
            sample_rate_planned=plan.sample_rate,
            sample_rate_realised=None if event is None else event.realised_sample_rate,
            steps_planned=plan.steps,
            steps_charged=taken,
            denominator_planned=plan.expected_batch_size,
            denominator=None if event is None else event.denominator,
        )


_SEEDED: Final = document.SiloAccounting(
    silo="",
    delta=0.0,
    pld=None,
    prv=None,
    prv_reason="noise came from a seed",
    rdp=None,
    rdp_order=None,
    curve=(),
)
"""What accountants say of noise that whoever knows a seed can subtract."""


def counted(gathered: Gathered, stored: document.Accounting | None) -> document.Accounting:
    """Return the run's plan as three accountants read it, where anything of it was charged.

    Accountants know nothing of seeds: of noise that came from one, none has a figure here.

    Args:
        gathered: What the folder says.
        stored: Of the report that is verified: one from before has figures of such noise, and verifies as it was.
    """
    before = set() if stored is None else {row.silo for row in stored.silos if row.rdp_order is not None}
    rows = []
    for silo in gathered.silos:
        ledger = gathered.ledgers.get(silo)
        events, delta = tuple(ledger.claimed) if ledger else (), _delta(gathered, silo)
        seeded = _unprotected(events) and bounded(events) is not None
        row = _SEEDED.model_copy(update={"delta": delta}) if seeded and silo not in before else _counted(events, delta)
        # Of plans that were chosen in turn the curve of their composition is no bound, and the claim is the one point.
        curve = () if ledger is not None and ledger.others else row.curve
        rows.append(row.model_copy(update={"silo": silo, "curve": curve}))
    return document.Accounting(composition=sentences.composition(gathered), methods=_METHODS, silos=tuple(rows))


@lru_cache(maxsize=64)
def _counted(events: tuple[Event, ...], delta: float) -> document.SiloAccounting:
    """Return what three accountants say of some events, of no silo yet: many silos have the same."""
    pld = accounting.epsilon(events, delta)
    prv, reason = accountants.prv(events, delta)
    rdp, order = renyi.rdp(events, delta)
    points = [2 * pld * i / (_CURVE_POINTS - 1) for i in range(_CURVE_POINTS)] if events and math.isfinite(pld) else []
    curve = zip(points, accounting.deltas(events, points), strict=True)
    return document.SiloAccounting(
        silo="",
        delta=delta,
        pld=_finite(pld),
        prv=prv,
        prv_reason=reason,
        rdp=rdp,
        rdp_order=order,
        curve=tuple(document.CurvePoint(epsilon=epsilon, delta=at) for epsilon, at in curve),
    )


def training(gathered: Gathered, told: Mapping[str, Any], *, named: bool) -> document.Training:
    """Return what the model is good for, and how budgets were spent.

    Args:
        gathered: What the folder says.
        told: How the run went.
        named: Whether to say which kinds were used, which a report from before does not.
    """
    names = ("loss", *figures_of(gathered.scenario))
    return document.Training(
        used=used_kinds(gathered.scenario, gathered.summary.get("used")) if named else None,
        class_weights=gathered.scenario.training.class_weights,
        proximal=gathered.scenario.training.proximal or None,
        schedule=None if (schedule := gathered.scenario.training.schedule) is None else schedule.described,
        ema_decay=gathered.scenario.training.ema_decay,
        usefulness=gathered.usefulness,
        figures={name: float(value) for name, value in told["metrics"].items()},
        left_out=tuple(told[LEFT_OUT]) if LEFT_OUT in told else None,
        explanation=gathered.explanation,
        rounds=tuple(
            document.RoundFigures(
                round=line["round"],
                failed="failed" in line,
                cohort=line[OTHERS]["asked"] if OTHERS in line else len(line["cohort"]),
                summed=line["summed"] or 0,
                seconds=float(line["seconds"]),
                figures={name: float(line[name]) for name in names if name in line},
            )
            for line in gathered.lines
        ),
        budgets=tuple(
            _budget_line(ledger, ledger.scope) for ledger in gathered.ledgers.values() if ledger.scope is not None
        ),
    )


def _budget_line(ledger: SiloLedger, scope: Scope) -> document.BudgetLine:
    """Return what was spent after each charge that stands, with the cap of that time."""
    charged = sorted(
        (sequence, run.parts[one.part], one.steps)
        for run in ledger.standing.of(scope.name)
        for sequence, one in run.charges.items()
    )  # fmt: skip
    caps = _caps(ledger, scope.name)
    whole = accounting.epsilon(ledger.standing.events(scope.name), scope.delta)
    step = math.ceil(len(charged) / _MOST_POINTS) or 1
    points, spent = [], dict[Event, int]()
    for number, (sequence, plan, steps) in enumerate(charged, start=1):
        spent[plan] = spent.get(plan, 0) + steps
        if number % step and number not in (1, len(charged)):
            continue
        events = [plan.times(taken) for plan, taken in spent.items()]
        # Both are upper bounds: less was spent before than is in the end.
        epsilon = min(whole, accounting.epsilon(events, scope.delta, accounting.COARSE_GRID))
        if number == len(charged):
            epsilon = whole
        cap = next(value for since, value in reversed(caps) if since <= sequence)
        time = ledger.entries[sequence - 1].time
        shown = None if _unprotected(events) else _finite(epsilon)
        points.append(document.BudgetPoint(time=time, epsilon=shown, cap=cap))
    return document.BudgetLine(silo=ledger.silo, scope=scope.name, delta=scope.delta, points=tuple(points))


def _caps(ledger: SiloLedger, scope: str) -> list[tuple[int, float]]:
    """Return the caps of a budget, with the entry from which each held."""
    return [
        (entry.sequence, float(entry.content["epsilon"]))
        for entry in ledger.entries
        if entry.scope == scope and entry.kind in ("create", "override")
    ]


def integrity(
    gathered: Gathered, signer: bytes, dependencies: Sequence[str], files: Mapping[str, str]
) -> document.Integrity:
    """Return what another party needs to compute it all again."""
    return document.Integrity(
        signer=signer.hex(),
        ledgers=tuple(_head(ledger, size) for ledger in gathered.ledgers.values() if (size := ledger.size) is not None),
        not_countersigned=tuple(without(gathered.silos, gathered.ledgers)),
        code_hash=gathered.summary["code_hash"],
        scenario_hash=scenario_hash(gathered.scenario).hex(),
        dependencies=tuple(dependencies),
        dependencies_hash=sha256("".join(f"{line}\n" for line in dependencies).encode()).hexdigest(),
        files=tuple(document.FileHash(name=name, sha256=value) for name, value in files.items()),
        overrides=tuple(
            document.Override(
                silo=ledger.silo,
                scope=str(entry.scope),
                entry=entry.sequence,
                time=entry.time,
                epsilon=float(entry.content["epsilon"]),
                by=str(entry.content["by"]),
                reason=str(entry.content["reason"]),
            )
            for ledger in gathered.ledgers.values()
            for entry in ledger.entries
            if entry.kind == "override"
        ),
    )


def _head(ledger: SiloLedger, size: int) -> LedgerHead:
    standing: Standing = ledger.standing
    return LedgerHead(
        silo=ledger.silo,
        key=standing.key.hex(),
        key_from="roster" if ledger.vouched else "ledger",
        entries=size,
        root=ledger.root.hex(),
        head=None if ledger.note is None else ledger.note.decode(),
        head_entries=head_of(ledger),
        verifier_key=verifier_key(origin_of(standing.silo), standing.key),
        countersigned=_countersigned(ledger),
    )


def _countersigned(ledger: SiloLedger) -> Countersigned | None:
    run = ledger.countersigned
    if run is None or run.ended is None:
        return None
    return Countersigned(entry=run.ended, model=run.model, code=run.code)


def limits(gathered: Gathered) -> document.Limits:
    """Return what the report leaves open, and who approved."""
    return document.Limits(
        statements=sentences.limits(gathered),
        approvals=tuple(
            document.Approval(
                silo=ledger.silo,
                entry=entry.sequence,
                time=entry.time,
                subject=str(entry.content["subject"]),
                by=str(entry.content["by"]),
                digest=entry.content.get("digest"),
            )
            for ledger in gathered.ledgers.values()
            for entry in ledger.audits()
            if "by" in entry.content
        ),
        signature_lines=sentences.SIGNATURE_LINES,
    )


def told_of(gathered: Gathered) -> dict[str, Any]:
    """Return what the run's own files say of how it went.

    Raises:
        LedgerError: When they do not say it.
    """
    try:
        return outcome(gathered.scenario, gathered.run_dir, gathered.summary["timing"]["seconds_total"], [])
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"metrics.jsonl: is not as a run writes it ({type(error).__name__}: {error})") from None


def _delta(gathered: Gathered, silo: str) -> float:
    """Return the delta of a silo's claim: its budget's, or the plan's where it was never charged."""
    ledger = gathered.ledgers.get(silo)
    found = None if ledger is None else ledger.scope
    return gathered.scenario.plan(silo).delta if found is None else found.delta


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


def _bound(events: Sequence[Event], delta: float) -> float | None:
    """Return the epsilon of some events; None where none is computed, or whose noise somebody can subtract."""
    return _told(events, accounting.epsilon(list(events), delta))


def _told(events: Sequence[Event], epsilon: float) -> float | None:
    """Return an epsilon of some events; None where it is no number, or whose noise somebody can subtract."""
    return None if _unprotected(events) else _finite(epsilon)


def _unprotected(events: Sequence[Event]) -> bool:
    """Return whether noise of any of them was seeded or an experiment's, or none was added."""
    return not all(is_secret(event.noise_source) for event in events)
