"""A draft of a data protection impact assessment, in Markdown: what a run's folder can answer, and what people have to.

It follows Article 35(7) of the GDPR, (a) to (d), and then asks every question of NIST SP 800-226 that the report names.
Each answer cites the ledger's entry, the line of a law or of the scenario, or the file that it rests on; what nothing
here answers says that it is for a person.

Guarantee: every figure is the report's, and rounded as on its page. Text of people is escaped: it becomes neither HTML
nor a link, a heading, a list nor code. An answer that cites nothing says that it is for a person to answer.

Does NOT assess anything, and is not verified: it is a beginning, which people change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fedmodel.errors import ConfigError
from fedmodel.system.durable import replace_file
from fedmodel.system.inert import inert
from scenarios.report.citations import Citations
from scenarios.report.document import Audit, Purpose, Report
from scenarios.report.gather import METRICS, Gathered
from scenarios.report.page import signing
from scenarios.report.page.catalogue import Catalogue, bare, catalogue
from scenarios.report.page.front import front
from scenarios.report.page.told import Told
from scenarios.runs.audit_entries import AUDIT_FILE, PLAN_SUBJECT

NAME: Final = "dpia.md"
_ACTING: Final = re.compile(r"([\\`*_\[\]<>#|~&!@{}])")
_BEGINNING: Final = re.compile(r"^(?:(?=[-+=])|(\d+)(?=[.)](?:\s|$)))")  # of a list, a rule or a heading
_ADDRESS: Final = re.compile(r"(?<=\w)(?::(?=//)|\.(?=[A-Za-z]))")  # by which readers of Markdown see a link


@dataclass(frozen=True)
class Answer:
    """A question, what is said to it, and what that rests on.

    Attributes:
        question: As it stands in the draft.
        said: Sentences, escaped.
        sources: Citations; an answer without any is for a person.
        whether: What is left for a person besides; nothing where that is nothing.
    """

    question: str
    said: Sequence[str] = ()
    sources: Sequence[str] = ()
    whether: str = ""


def check_absent(run_dir: Path) -> None:
    """Refuse to write over a draft, which people may have changed.

    Raises:
        ConfigError: When there is one.
    """
    if (run_dir / NAME).exists():
        raise ConfigError(f"{run_dir / NAME}: is there already, and people may have changed it; move it away first")


def write_draft(run_dir: Path, gathered: Gathered, report: Report, said: Catalogue | None = None) -> Path:
    """Write the draft beside a run's report, and return where it lies.

    Raises:
        ConfigError: When there is one already, or it cannot be written.
    """
    check_absent(run_dir)
    path = run_dir / NAME
    try:
        replace_file(path, draft(gathered, report, said or catalogue()).encode())
    except OSError as error:
        raise ConfigError(f"{path}: the draft cannot be written: {error.strerror}") from None
    return path


def draft(gathered: Gathered, report: Report, said: Catalogue) -> str:
    """Return the draft's text."""
    made = _Draft(gathered, report, said)
    head = [
        f"# {said.plain('dpia.title', scenario=text(report.run.scenario))}",
        said.plain("dpia.made", when=text(said.moment(report.built.at)), version=text(report.built.fedmodel)),
        said.plain("dpia.rests"),
        f"## {said.plain('dpia.gdpr')}",
    ]
    parts = [
        line
        for key, answers in (("a", made.a()), ("b", made.b()), ("c", made.c()), ("d", made.d()))
        for line in (f"### {said.plain(f'dpia.{key}')}", *(made.written(one) for one in answers))
    ]
    asked = [f"## {said.plain('dpia.nist')}", *(made.written(one) for one in made.nist())]
    return "\n\n".join([*head, *parts, *asked]) + "\n"


def text(words: str) -> str:
    r"""Return a person's words so that Markdown takes them as text: no HTML, link, heading, list or code, one line.

    >>> text("<b>[x](y)</b>"), text("see www.example.org"), text("a@b"), text(" 1. b")
    ('\\<b\\>\\[x\\](y)\\</b\\>', 'see www\\.example\\.org', 'a\\@b', '1\\. b')
    """
    escaped = _BEGINNING.sub(r"\1\\", _ACTING.sub(r"\\\1", inert(words.strip())))
    return _ADDRESS.sub(lambda found: f"\\{found[0]}", escaped)


@dataclass
class _Draft:
    """All answers of one draft."""

    gathered: Gathered
    report: Report
    said: Catalogue
    cite: Citations = field(init=False)
    told: Told = field(init=False)

    def __post_init__(self) -> None:
        self.cite, self.told = Citations(self.gathered, self.said), Told(self.said)

    def written(self, answer: Answer) -> str:
        """Return an answer as it stands in the draft."""
        lines = [f"**{answer.question}**", ""]
        if answer.sources and answer.said:
            lines += [f"- {one}" for one in answer.said]
            lines += ["", f"[{self.say('on', sources='; '.join(answer.sources))}]"]
            lines += ["", self.say("person_whether", what=answer.whether)] if answer.whether else []
        else:
            lines += [*(f"- {one}" for one in answer.said), *([""] if answer.said else [])]
            lines.append(self.say("person_whether", what=answer.whether) if answer.whether else self.say("person"))
        return "\n".join(lines)

    def say(self, key: str, /, **values: object) -> str:
        """Return a sentence of the draft."""
        return self.said.plain(f"dpia.{key}", **values)

    def _answer(self, key: str, said: Sequence[str], sources: Sequence[str], whether: str = "") -> Answer:
        return Answer(self.say(f"q_{key}"), said, sources, self.say(f"w_{whether}") if whether else "")

    def _stated(self, key: str, name: str, whether: str = "") -> Answer:
        """Return what people stated, or that they stated nothing."""
        value = None if self.report.purpose is None else getattr(self.report.purpose, name)
        if not value:
            return self._answer(key, [self.say("not_stated")], [], whether)
        return self._answer(key, [text(value)], self.cite.scenario(f"purpose.{name}"), whether)

    # ------------------------------------------------------------ GDPR, Article 35(7)

    def a(self) -> Iterator[Answer]:
        """Go through what is done, what for, and by whom."""
        report, cite = self.report, self.cite
        yield self._stated("purpose", "statement")
        yield self._stated("controller", "controller")
        yield self._stated("contact", "contact")
        yield self._stated("basis", "legal_basis", "legal")
        rows = () if report.purpose is None else report.purpose.silos
        answers = [self._answerable(row.silo, row.name, row.contact, row.retention) for row in rows]
        law = cite.law("controller.name", [row.silo for row in rows])
        yield self._answer("answers", answers or [self.say("not_stated")], law)
        data = [f"{text(one.name)}: {text(one.kind)}" for one in report.scope.data_sets]
        yield self._answer("data", data, cite.scenario("data.source"), "data")
        mechanism = report.mechanism
        done = [mechanism.description, mechanism.sensitivity, mechanism.sampling]
        yield self._answer("done", [text(one) for one in done], [*cite.reserved(), *cite.charged()])
        parties = [f"{text(one.who)}: {text(one.sees)}. {text(one.holds)}" for one in report.trust.parties]
        sources = [*cite.scenario("encryption.secure_aggregation"), *cite.law("encryption.secure_aggregation")]
        yield self._answer("receives", parties, sources)
        yield self._stated("retention", "retention")

    def _answerable(self, silo: str, name: str, contact: str | None, retention: str | None) -> str:
        none = self.say("unstated")
        contact, retention = (text(one) if one else none for one in (contact, retention))
        return self.say("answers", silo=silo, name=text(name), contact=contact, retention=retention)

    def b(self) -> Iterator[Answer]:
        """Go through necessity and proportionality."""
        cite = self.cite
        yield self._answer("less", [], [])
        yield self._answer("useful", self._useful(), cite.file(METRICS), "useful")
        sources = [*cite.law("largest_clip"), *cite.law("least_noise_multiplier"), *cite.reserved()]
        yield self._answer("minimal", [text(self.report.trust.access)], sources, "minimal")
        yield self._answer("again", self._left(), self._of_budgets())
        yield self._answer("rights", [], [])

    def _useful(self) -> list[str]:
        """Return what the model was measured at."""
        figures = self.report.training.figures
        names = {key: self.said.plain(f"names.{key}") if self.said.has(f"names.{key}") else key for key in figures}
        told = [
            self.say("figures", name=names[key], value=self.told.metric(key, value)) for key, value in figures.items()
        ]
        return told or [self.say("not_measured")]

    def _left(self) -> list[str]:
        """Return what is left of the budgets."""
        return [self._bare(one) for one in front(self.report, self.said).left]

    def _of_budgets(self) -> list[str]:
        """Cite where budgets stand."""
        data = self.gathered.scenario.data.data_set
        changed = [one for row in self.report.integrity.overrides for one in self.cite.entry(row.silo, row.entry)]
        return [*self.cite.created(), *self.cite.law(f"budgets.{data}.epsilon"), *changed]

    def c(self) -> Iterator[Answer]:
        """Go through risks."""
        cite, report = self.cite, self.report
        yield self._answer("likely", self._promise(), [*cite.reserved(), *cite.charged()], "likely")
        yield self._answer("other", [self._all_runs()], self._of_budgets(), "other")
        attacked = [self._bare(one) for one in front(report, self.said).attacked]
        yield self._answer("attacked", attacked, self._of_audit())
        opens = [text(one) for one in report.not_protected.statements]
        yield self._answer("open", opens, cite.scenario("encryption.secure_aggregation"), "open")
        yield self._answer("severe", [], [])

    def _promise(self) -> list[str]:
        """Return the promise, as the first page has it."""
        return [self._bare(one) for one in front(self.report, self.said).promise]

    def _all_runs(self) -> str:
        """Say what all runs of the ledgers compose to."""
        scope = self.report.scope
        prior = scope.prior_runs
        if self.report.run.without_ledgers:
            return self.said.plain("scope.not_known_booked" if self.report.run.booked else "scope.not_known")
        others = self.said.counted(prior, "run") if prior else self.said.plain("claim.no_other")
        if not scope.protects:
            return self.say("runs_nothing", others=others)
        return self.say("runs", others=others, epsilon=self.told.epsilon(scope.largest_bound))

    def _of_audit(self) -> list[str]:
        """Cite the audit, and where ledgers hold its plan; the report alone of a run that was not audited."""
        if self.report.audit is None:
            return self.cite.file(signing.NAME)
        planned = self.cite.entries(lambda _, entry: entry.kind == "audit" and entry.content["subject"] == PLAN_SUBJECT)
        return [*self.cite.file(AUDIT_FILE), *planned]

    def d(self) -> Iterator[Answer]:
        """Go through measures."""
        cite, report = self.cite, self.report
        noise = [report.trust.noise_added_by, report.mechanism.side_channels]
        sources = [*cite.reserved(), *cite.law("least_noise_multiplier"), *cite.law("noise_sources")]
        yield self._answer("noise", [text(one) for one in noise], sources)
        hidden = [*cite.law("encryption.secure_aggregation"), *cite.law("smallest_threshold"), *cite.law("min_silos")]
        yield self._answer(
            "hidden", [text(report.trust.collusion)], hidden or self.cite.scenario("encryption.secure_aggregation")
        )
        yield self._answer("budget", self._overrides(), self._of_budgets())
        yield self._answer("shown", self._shown(), self._countersigned(), "shown")
        yield self._answer("security", [], [])
        yield self._answer("views", [], [])

    def _overrides(self) -> list[str]:
        """Return who changed a budget."""
        found = [
            self.say("override", silo=one.silo, by=text(one.by), cap=self.told.epsilon(one.epsilon),
                     when=self.said.moment(one.time), reason=text(one.reason))
            for one in self.report.integrity.overrides
        ]  # fmt: skip
        return found or ([] if self.report.run.without_ledgers else [self.say("no_override")])

    def _shown(self) -> list[str]:
        """Return how the run can be checked."""
        integrity = self.report.integrity
        packages = self.said.counted(len(integrity.dependencies), "package")
        return [
            text(self.report.claim.rests_on),
            self.say("signer", key=integrity.signer),
            self.say("code", code=integrity.code_hash, packages=packages),
        ]

    def _countersigned(self) -> list[str]:
        """Cite the report, and the entries by which silos countersigned the run's end."""
        signed = {one.silo: one.countersigned.entry for one in self.report.integrity.ledgers if one.countersigned}
        entries = self.cite.entries(lambda ledger, entry: signed.get(ledger.silo) == entry.sequence)
        return [*self.cite.file(signing.NAME), *entries]

    # ------------------------------------------------------------ NIST SP 800-226

    def nist(self) -> Iterator[Answer]:
        """Go through every question that the report's sections answer, each with the section's own answer."""
        report, cite, trust, mechanism = self.report, self.cite, self.report.trust, self.report.mechanism
        charged, budgets = [*cite.reserved(), *cite.charged()], self._of_budgets()
        stated = [*cite.scenario("purpose.statement"), *cite.scenario("purpose.controller")]
        hidden = [
            *cite.scenario("encryption.secure_aggregation"),
            *cite.law("encryption.secure_aggregation"),
        ] or charged
        parties = [f"{one.who}: {one.sees}. {one.holds}" for one in trust.parties]
        does = (mechanism.description, mechanism.sensitivity, mechanism.sampling, mechanism.side_channels)
        tested = [self._bare(one) for one in front(report, self.said).attacked]
        approved = [
            self.say(
                "approved", silo=one.silo, by=text(one.by), subject=text(one.subject), when=self.said.moment(one.time)
            )
            for one in report.limits.approvals
        ]
        approvals = [cited for one in report.limits.approvals for cited in cite.entry(one.silo, one.entry)]
        answers: dict[tuple[str, ...], tuple[list[str], list[str]]] = {
            report.claim.nist: (self._promise(), charged),
            _questions(Purpose): ([*self._said_of("statement"), *self._said_of("controller")], stated),
            report.scope.nist: ([*self._caps(), self._all_runs()], budgets),
            trust.nist: (_texts([trust.noise_added_by, *parties, trust.collusion, trust.access]), hidden),
            mechanism.nist: (_texts(does), charged),
            report.accounting.nist: (_texts([report.accounting.composition]), charged),
            report.training.nist: ([*self._useful(), *self._left()], [*cite.file(METRICS), *budgets]),
            report.not_protected.nist: (_texts(report.not_protected.statements), hidden),
            _questions(Audit): (tested, self._of_audit()),
            report.integrity.nist: ([*self._shown(), *self._overrides()], [*self._countersigned(), *budgets]),
            report.limits.nist: ([*_texts(report.limits.statements), *approved], approvals),
        }
        for questions, (said, sources) in answers.items():
            yield Answer(" ".join(questions), said, sources)

    def _said_of(self, name: str) -> list[str]:
        value = None if self.report.purpose is None else getattr(self.report.purpose, name)
        return [text(value)] if value else []

    def _caps(self) -> list[str]:
        """Return the data sets, and what may be spent of each at each silo."""
        return [
            *_texts([f"{one.name}: {one.kind}" for one in self.report.scope.data_sets]),
            *(
                self.say("budget", silo=one.silo, cap=self.told.epsilon(one.cap), delta=self.told.delta(one.delta),
                         unit=self._unit(one.unit, one.max_records))
                for one in self.report.scope.budgets
            ),
        ]  # fmt: skip

    def _unit(self, unit: str, most: int) -> str:
        return self.said.plain(f"unit.hides_{unit}", records=self.said.counted(most, "record"))

    def _bare(self, sentence: str) -> str:
        """Return a sentence of the first page as text of Markdown."""
        return text(bare(sentence))


def _texts(found: Sequence[str]) -> list[str]:
    """Return the document's sentences as text of Markdown."""
    return [text(one) for one in found]


def _questions(section: type[Purpose | Audit]) -> tuple[str, ...]:
    """Return what a section answers, for a report that may not have it."""
    found: tuple[str, ...] = section.model_fields["nist"].default
    return found
