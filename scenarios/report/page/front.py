"""The first page: what was done and promised, how strong that is, what was attacked, what is open, and the decision.

Every sentence follows from figures of the document, which `report verify` computes again; nothing is taken from its
own sentences but what people stated (`Purpose`), which is quoted. Sentences have fewer than 25 words, whatever the run
is called and however many silos it has.

Guarantee: where a run protects nobody, or no bound is computed, no sentence here promises anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from scenarios.report.document import Purpose, Report, SiloBudget
from scenarios.report.page.catalogue import Catalogue
from scenarios.report.page.odds import right_at_most
from scenarios.report.page.releases import KNOWN, place
from scenarios.report.page.standing import (
    excepted,
    experiment,
    fixed_in_advance,
    headless,
    least_power,
    seeded,
    strayed,
)
from scenarios.report.page.told import Told, factor

_FALSE_ALARM = 0.01
_JOBS_NAMED = 3
# The first that was measured stands for the model's use.
_FIGURES = ("auroc", "accuracy", "r2", "rmse", "label-accuracy", "token-accuracy")
_STATED = ("statement", "controller", "contact", "legal_basis", "retention")


@dataclass(frozen=True)
class Row:
    """A label, and what is said under it.

    Attributes:
        label: In a word or two.
        said: Sentences.
        quoted: A person's own words, that stand before them; none where nothing was stated.
    """

    label: Markup
    said: Sequence[str]
    quoted: str | None = None


@dataclass(frozen=True)
class Mark:
    """A release on the scale.

    Attributes:
        name: What it is called.
        unit: Whose presence it hides.
        epsilon: As published, or as the page tells it.
        delta: Likewise.
        source: Who published it; nothing for the run of the report.
        left: Where its bar begins, in percent of the scale.
        width: Of the bar; 0 of a single figure.
        this: Whether it is the run of the report.
    """

    name: str
    unit: str
    epsilon: str
    delta: str
    source: str
    left: float
    width: float
    this: bool = False


@dataclass(frozen=True)
class Front:
    """What the first page says.

    Attributes:
        banners: What has to be said before anything else.
        promise: Sentences, the first of them the promise.
        about: What was done, and who answers.
        scale: This run and known releases.
        verdict: Of the audit; None where there was none.
        attacked: Sentences on it.
        opens: What is not protected, a line each.
        left: What is left of budgets.
        decision: That is asked for, in people's words; None where they stated none.
        findings: What stands against a yes.
    """

    banners: Sequence[Markup]
    promise: Sequence[Markup]
    about: Sequence[Row]
    scale: Sequence[Mark]
    verdict: str | None
    attacked: Sequence[Markup]
    opens: Sequence[Markup]
    left: Sequence[Markup]
    decision: str | None
    findings: Sequence[str]


def front(report: Report, catalogue: Catalogue) -> Front:
    """Return what the first page says of a report."""
    told = Told(catalogue)
    return Front(
        banners=list(_banners(report, catalogue, told)),
        promise=list(_promise(report, catalogue, told)),
        about=list(_about(report, catalogue, told)),
        scale=list(_scale(report, catalogue, told)),
        verdict=None if report.audit is None else report.audit.verdict,
        attacked=list(_attacked(report, catalogue, told)),
        opens=list(_opens(report, catalogue)),
        left=list(_left(report, catalogue, told)),
        decision=None if report.purpose is None else report.purpose.decision,
        findings=list(_findings(report, catalogue)),
    )


def _banners(report: Report, catalogue: Catalogue, told: Told) -> Iterator[Markup]:
    """Go through what has to be said first."""
    if report.mechanism.is_baseline:
        yield catalogue.say("banner.baseline")
    elif seeded(report):
        yield catalogue.say("banner.seeded")
    elif experiment(report):
        epsilon, delta = report.claim.epsilon_if_noise_were_secret, report.claim.delta
        yield catalogue.say("banner.experiment", epsilon=told.epsilon(epsilon), delta=told.delta(delta))
    elif not report.claim.protects:
        yield catalogue.say("banner.nothing_claimed")
    elif not report.scope.protects:
        yield catalogue.say("banner.others_unbounded")
    if report.audit is not None and report.audit.verdict == "refuted":
        yield catalogue.say("banner.refuted")


def _promise(report: Report, catalogue: Catalogue, told: Told) -> Iterator[Markup]:
    """Go through the promise, as a lawyer would put it."""
    claim = report.claim
    if not claim.protects or claim.epsilon is None:
        yield catalogue.say("promise.nothing")
        return
    if not any(one.steps for one in claim.silos) and not claim.epsilon:
        yield catalogue.say("promise.released")
        return
    unit = catalogue.plain(f"unit.{claim.unit}", records=catalogue.counted(claim.max_records, "record"))
    one = catalogue.plain(f"unit.one_{claim.unit}")
    if report.audit is not None and report.audit.verdict == "refuted":
        yield catalogue.say("promise.refuted")
    yield catalogue.say("promise.lead", unit=unit)
    yield catalogue.say("promise.factor", factor=factor(claim.epsilon), one=one, delta=told.delta(claim.delta))
    right = right_at_most(_FALSE_ALARM, claim.silos, report.accounting.silos)
    yield catalogue.say("promise.guess", right=told.share(right))
    yield catalogue.say("promise.whatever")
    if report.run.without_ledgers:
        yield catalogue.say(f"promise.{report.run.without_ledgers}")
    if any(silo.steps < silo.steps_reserved for silo in claim.silos):
        yield catalogue.say("promise.early")
    yield catalogue.say(
        "promise.figures", epsilon=told.epsilon(claim.epsilon), delta=told.delta(claim.delta), unit=unit
    )


def _about(report: Report, catalogue: Catalogue, told: Told) -> Iterator[Row]:
    """Go through what was done, with whose data, what for, and who answers."""
    run, purpose = report.run, report.purpose
    rounds = catalogue.counted(report.mechanism.rounds_completed, "round")
    silos = catalogue.counted(len(run.silos), "silo")
    others = [name for name in report.training.figures if name != "loss"]
    figure = next((name for name in (*_FIGURES, *others) if name in report.training.figures), None)
    useful = (
        catalogue.say("about.no_figure")
        if figure is None
        else catalogue.say(
            "about.useful",
            figure=catalogue.plain(f"names.{figure}") if catalogue.has(f"names.{figure}") else figure,
            value=told.metric(figure, report.training.figures[figure]),
        )
    )
    trained = catalogue.say("about.trained", silos=silos, rounds=rounds)
    done = [trained, catalogue.say(f"about.{run.setting}"), *_besides(report, catalogue), useful]
    if report.training.usefulness:
        done.append(catalogue.say("about.of_no_use"))
    if run.copy_for is not None:
        done.insert(0, catalogue.say("about.copy", silo=run.copy_for))
    yield Row(catalogue.say("about.done"), done)
    held = catalogue.say("about.held", silos=catalogue.few(run.silos))
    data = "; ".join(f"{one.name}: {one.kind}" for one in report.scope.data_sets)
    yield Row(catalogue.say("about.whose"), [held], data)
    yield _stated(catalogue, "purpose", purpose, "statement", "legal_basis", ("about.basis", "about.no_basis"))
    yield _stated(catalogue, "decides", purpose, "controller", "contact", ("about.reached", "about.no_contact"))
    yield Row(catalogue.say("about.answers"), list(_answers(report, catalogue)))
    kept = None if purpose is None else purpose.retention
    yield Row(catalogue.say("about.kept"), [] if kept else [catalogue.say("front.not_stated")], kept)


def _besides(report: Report, catalogue: Catalogue) -> Iterator[Markup]:
    """Go through what silos told besides their updates."""
    jobs = report.run.besides
    if jobs:
        named = catalogue.listed(jobs) if len(jobs) <= _JOBS_NAMED else catalogue.counted(len(jobs), "job")
        yield catalogue.say("about.besides", jobs=named)
        if report.claim.protects:
            yield catalogue.say("about.besides_counted")


def _stated(
    catalogue: Catalogue, label: str, purpose: Purpose | None, key: str, beside: str, says: tuple[str, str]
) -> Row:
    """Return what people stated, and what they stated beside it; both are said to be missing where they are."""
    said: str | None = None if purpose is None else getattr(purpose, key)
    more: str | None = None if purpose is None else getattr(purpose, beside)
    told = [] if said else [catalogue.say("front.not_stated")]
    told.append(catalogue.say(says[0], said=more) if more else catalogue.say(says[1]))
    return Row(catalogue.say(f"about.{label}"), told, said)


def _answers(report: Report, catalogue: Catalogue) -> Iterator[str]:
    """Go through who answers for each silo's records, the first few."""
    rows = () if report.purpose is None else report.purpose.silos
    for row in rows[:3]:
        yield catalogue.say("about.silo_answers", silo=row.silo, name=row.name)
    missing = _unanswered(report)
    if missing:
        yield catalogue.say("about.silos_not_stated", silos=catalogue.few(missing))


def _unanswered(report: Report) -> list[str]:
    """Return the silos for whose records nobody is stated to answer."""
    known = {row.silo for row in report.purpose.silos} if report.purpose else set()
    return [one.silo for one in report.claim.silos if one.silo not in known]


def _scale(report: Report, catalogue: Catalogue, told: Told) -> Iterator[Mark]:
    """Go through this run and known releases."""
    claim = report.claim
    unit = catalogue.plain(f"unit.hides_{claim.unit}", records=catalogue.counted(claim.max_records, "record"))
    name = catalogue.plain("scale.this")
    if claim.protects and claim.epsilon is not None:
        left = place(claim.epsilon)
        yield Mark(name, unit, told.epsilon(claim.epsilon), told.delta(claim.delta), "", left, 0.0, this=True)
    else:
        none = catalogue.plain("scale.bounded_by_nothing")
        yield Mark(name, unit, none, catalogue.plain("told.none"), "", 100.0, 0.0, this=True)
    for one in KNOWN:
        said = {key: catalogue.plain(f"scale.{one.name}{key}") for key in ("", "_unit", "_epsilon", "_by")}
        left = place(one.low)
        width = place(one.high) - left
        yield Mark(said[""], said["_unit"], said["_epsilon"], told.delta(one.delta), said["_by"], left, width)


def _attacked(report: Report, catalogue: Catalogue, told: Told) -> Iterator[Markup]:
    """Go through what was attacked, and with what result."""
    audit = report.audit
    if audit is None:
        yield catalogue.say("attacked.none")
        yield catalogue.say("attacked.none_rests")
        return
    yield catalogue.say("attacked.strayed" if strayed(audit) else f"attacked.{audit.verdict.replace('-', '_')}")
    guesses = audit.guesses
    yield catalogue.say(
        "attacked.guesses",
        correct=told.count(guesses.correct),
        made=told.count(guesses.made),
        needed=told.count(guesses.needed),
    )
    if audit.verdict == "not-refuted":
        power, simulated = least_power(audit)
        key = "attacked.noticed" if simulated else "attacked.noticed_about"
        yield catalogue.say(key, against=audit.power.against, power=told.share_at_least(power))
    yield catalogue.say("attacked.fixed" if fixed_in_advance(report, audit) else "attacked.not_fixed")


def _opens(report: Report, catalogue: Catalogue) -> Iterator[Markup]:
    """Go through what is not protected, the first things first."""
    claim, secagg = report.claim, report.trust.secure_aggregation
    for key, silos in excepted(report):
        yield catalogue.say(f"open.{key}", silos=catalogue.few(silos))
    bare = report.mechanism.is_baseline
    if secagg.mode == "on" and not bare:
        tolerated = secagg.colluding_tolerated or 0
        key = "open.masked" if tolerated else "open.masked_none"
        yield catalogue.say(key, silos=catalogue.counted(tolerated, "silo"))
    elif secagg.mode != "on":
        yield catalogue.say("open.not_masked_bare" if bare else "open.not_masked")
    if report.training.figures:
        yield catalogue.say("open.held_out")
    if report.run.setting != "deployed":
        yield catalogue.say(f"open.{report.run.setting}")
    if claim.protects:
        yield catalogue.say("open.withdrawn")
        yield catalogue.say("open.everybody")


def _left(report: Report, catalogue: Catalogue, told: Told) -> Iterator[Markup]:
    """Go through what is left of the budgets on the run's data."""
    if report.run.without_ledgers:
        yield catalogue.say("left.not_kept" if report.run.booked else "left.not_known")
        return
    data = {one.name for one in report.scope.data_sets}
    own = [one for one in report.scope.budgets if one.is_of(data)]
    if not own:
        yield catalogue.say("left.none")
        return
    bare = [one for one in own if not one.protects]
    used = [one for one in own if one.protects and one.taken_whole]
    room = [one for one in own if one.protects and not one.taken_whole]
    if bare:
        yield catalogue.say("left.nothing", silos=catalogue.few(_names(bare)))
    for key, some in (("used", used), ("room", room)):
        if some:
            caps = {told.epsilon(one.cap) for one in some}
            names = catalogue.few(_names(some))
            if len(caps) == 1:
                yield catalogue.say(f"left.{key}", silos=names, cap=min(caps))
            else:
                yield catalogue.say(f"left.{key}_caps", silos=names)
    spent = [one.spent for one in room]
    if spent and None not in spent:
        yield catalogue.say("left.spent", spent=told.epsilon(max(one for one in spent if one is not None)))
    if used or room:
        yield catalogue.say("left.forever")


def _names(budgets: Sequence[SiloBudget]) -> list[str]:
    """Return whose budgets they are, each silo once."""
    return list(dict.fromkeys(one.silo for one in budgets))


def _findings(report: Report, catalogue: Catalogue) -> Iterator[str]:
    """Go through what stands against a yes, as it follows from the document."""
    claim, scope, audit = report.claim, report.scope, report.audit
    if report.mechanism.is_baseline:
        yield catalogue.say("decision.baseline")
    elif seeded(report):
        yield catalogue.say("decision.seeded")
    elif experiment(report):
        yield catalogue.say("decision.experiment")
    elif not claim.protects:
        yield catalogue.say("decision.unbounded")
    elif not scope.protects:
        yield catalogue.say("decision.others")
    missing = [key for key in _STATED if report.purpose is None or getattr(report.purpose, key) is None]
    if missing:
        names = {"statement": "purpose", "legal_basis": "basis"}
        what = [catalogue.plain(f"decision.not_stated_{names.get(key, key)}") for key in missing]
        yield catalogue.say("decision.not_stated", what=catalogue.listed(what))
    if unanswered := _unanswered(report):
        key = "decision.answers_reported" if report.run.reported else "decision.answers"
        yield catalogue.say(key, silos=catalogue.few(unanswered))
    if audit is None:
        yield catalogue.say("decision.not_audited")
    elif audit.verdict != "not-refuted":
        yield catalogue.say("decision.strayed" if strayed(audit) else f"decision.{audit.verdict}")
    if report.training.usefulness:
        yield catalogue.say("decision.useless")
    if report.run.without_ledgers:
        yield catalogue.say(f"decision.{report.run.without_ledgers}")
    if report.integrity.not_countersigned and not report.run.booked:
        yield catalogue.say("decision.not_countersigned", silos=catalogue.few(report.integrity.not_countersigned))
    if silos := headless(report):
        yield catalogue.say("decision.headless", silos=catalogue.few(silos))
    if report.integrity.overrides:
        yield catalogue.by_count("decision.override", len(report.integrity.overrides))
    if report.run.setting != "deployed":
        yield catalogue.say(f"decision.{report.run.setting}")
