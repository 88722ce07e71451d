"""The report as one HTML page: a person's view of the document, that opens offline and fetches nothing.

Guarantee: the page is made from its arguments alone, and the same ones give the same bytes. It has no script, and a
content security policy that admits none, nor anything from elsewhere. Every text of the document is escaped, whoever
wrote it: names of scenarios and reasons of overrides come from people; and no character of the page acts on whoever
looks at it or at its source (`fedmodel.system.inert`). A picture is data, none of it markup of the page. An epsilon, a
delta and noise are rounded up on it, lower bounds and power down. No lower bound stands on it as an estimate, no audit
as a proof.

Does NOT protect against whoever changes the page: what is signed is `report.json`, and the page's own hash in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import JsonValue
from scipy.stats import beta

from fedmodel.privacy.events import NoiseSourceName, UnitName
from fedmodel.privacy.rounding import down, noise, percent_down, percent_up, small, up
from fedmodel.system.inert import inert_lines
from scenarios.report.document import Audit, LedgerRun, Power, Report, SiloBudget
from scenarios.report.page.figures import Figure, figures
from scenarios.report.page.odds import right_at_most
from scenarios.report.page.passive import BEGINNING
from scenarios.report.page.pictures import framed
from scenarios.runs import words

CONTENTS = {
    "claim": "The claim",
    "scope": "Scope",
    "trust": "Trust",
    "mechanism": "Mechanism",
    "accounting": "Accounting",
    "usefulness": "Usefulness",
    "not-protected": "What is not protected",
    "audit": "Audit",
    "integrity": "Integrity",
    "limits": "Limits and approvals",
}
_WRONG = (0.001, 0.01, 0.1)  # false alarms at which the claim is told as odds


def render(report: Report, pictures: Mapping[str, str] | None = None) -> str:
    """Return the whole page.

    Args:
        report: What it says.
        pictures: Reconstruction pictures to show with the audit, as an illustration: SVG of `plots.pictures_row`, by
            caption. What they say is their maker's word; the report is not asked. They go in as data (`framed`).

    Raises:
        ValueError: When a picture is anything but such an SVG.
    """
    shown = {caption: framed(svg) for caption, svg in (pictures or {}).items()}  # refused before anything is drawn
    audit = report.audit
    plan = audit.plan if audit else {}
    significance = plan.get("significance")
    sheet = (resources.files("scenarios.report.page") / "page.css").read_text(encoding="utf-8")
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            beginning=Markup(BEGINNING.rstrip()),  # noqa: S704 - a constant of this package
            contents=list(CONTENTS.items()),
            css=Markup(sheet),  # noqa: S704 - a file of this package
            figures={key: _Shown(one) for key, one in figures(report).items()},
            pictures=shown,
            unit=whom(report.claim.unit, report.claim.max_records),
            excepted=excepted(report),
            odds=odds(report),
            seeded=seeded(report),
            baseline=report.mechanism.is_baseline,
            unpromised=unpromised(report),
            headless=[one.silo for one in report.integrity.ledgers if one.head is None],
            reasons=[words.plainly(one) for one in audit.reasons] if audit else [],
            failed_gauges=[one for one in audit.gauges if not one.passed] if audit else [],
            late=[
                one.silo
                for one in (audit.entered if audit else ())
                if one.first_charge_entry is not None and one.first_charge_entry <= one.plan_entry
            ],
            significance=significance if isinstance(significance, float) else None,
            unmeasured=_unmeasured(audit) if audit else [],
            plan=[(key, _plain(value)) for key, value in sorted(plan.items()) if not _rows(value)],
            plan_tables=[_table(key, rows) for key, value in sorted(plan.items()) if (rows := _rows(value))],
        )
    )
    return inert_lines(re.sub(r"\n\s*\n+", "\n", page))


@cache
def _environment() -> Environment:
    """Return what makes pages of the templates, which it compiles once."""
    environment = Environment(
        loader=PackageLoader("scenarios.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        **{one.__name__: one for one in (up, down, percent_up, percent_down, small)},
        **{one.__name__: one for one in (words.number, words.moment, words.name, words.listed, words.undefined)},
        **{
            one.__name__: one
            for one in (words.counted, words.weights, whom, noise_from, spent_of, this_run, up_or_none, at_least, noise)
        },
        "composed": composed,
    }
    return environment


class _Shown:
    """A figure whose SVG is not escaped again."""

    def __init__(self, figure: Figure) -> None:
        self.svg = Markup(figure.svg)  # noqa: S704 - drawn by this package, and escaped there
        self.title, self.caption = figure.title, figure.caption


def whom(unit: UnitName, max_records: int) -> str:
    """Say whose presence is hidden.

    >>> whom("record", 1), whom("person", 8)
    ('one record', 'one person, of at most 8 records')
    """
    return f"one {unit}" if unit == "record" else f"one {unit}, of at most {words.counted(max_records, 'record')}"


def noise_from(source: NoiseSourceName | None) -> str:
    """Say where noise was drawn from."""
    return {"os": "operating system", "seeded-unsafe": "A SEED: protects nobody", None: "none drawn"}[source]


def composed(parts: int) -> str:
    """Say of an epsilon that it is of several parts, which is no sum of theirs."""
    return "" if parts <= 1 else f", {parts} parts composed"


def up_or_none(figure: float | None, digits: int = 4) -> str | None:
    """Round up what is there."""
    return None if figure is None else up(figure, digits)


def at_least(power: Power) -> str:
    """Return what simulated runs show of a power: the lower limit of Clopper and Pearson, at 95%, rounded down.

    >>> at_least(Power(against="half the noise", power=1.0, least=0.8, runs=400))
    '99.2%'
    >>> at_least(Power(against="half the noise", power=0.0, least=0.8, runs=400))
    '0.0%'
    """
    noticed = round(power.power * power.runs)
    return percent_down(float(beta.ppf(0.05, noticed, power.runs - noticed + 1)) if noticed else 0.0)


def spent_of(budget: SiloBudget) -> Markup:
    """Return what was spent of a cap, in figures and as a bar."""
    spent, cap = budget.spent, budget.cap
    # A cap that needs more digits than `number` shows is rounded as what was spent of it is.
    shown = words.number(cap) if cap == round(cap, 2) else up(cap)
    if not budget.protects:
        bare = any(run.admitted == "none" for run in budget.runs)
        why = "a run added no noise" if bare else "a run’s noise was seeded"
        return Markup("nothing is bounded: {}; the cap of {} holds nothing").format(why, shown)
    share = 100 if spent is None else min(100, round(100 * spent / cap)) if cap else 100
    text = f"{up(spent)} of {shown}"
    return Markup('{} <span class="meter" aria-hidden="true"><i style="width:{}%"></i></span>').format(text, share)


def this_run(run: LedgerRun) -> Markup:
    """Return a run's number, marked where it is the report's own."""
    shown = Markup('<code class="hash">{}</code>').format(run.run)
    return shown + Markup(" <strong>this run</strong>") if run.this else shown


def odds(report: Report) -> list[tuple[str, str, str]]:
    """Return false alarms, the most right ones with them by all that is known, and by epsilon and delta alone.

    Nothing is returned where the claim bounds nothing.
    """
    claim = report.claim
    if claim.epsilon is None or not claim.protects:
        return []
    rows = []
    for wrong in _WRONG:
        alone = words.right_at_most(wrong, claim.epsilon, claim.delta)
        known = right_at_most(wrong, claim.silos, report.accounting.silos)
        rows.append((f"{wrong:.1%}".replace(".0", ""), percent_up(known), percent_up(alone)))
    return rows


def seeded(report: Report) -> bool:
    """Return whether noise of this run was seeded; a claim may protect nobody for want of a bound, too."""
    sources = {one.noise_source for one in report.mechanism.silos}
    return "seeded-unsafe" in sources or (not report.claim.protects and report.claim.epsilon is not None)


def unpromised(report: Report) -> list[str]:
    """Return the silos of which all runs on these data together are bounded by nothing."""
    data_sets = {data.name for data in report.scope.data_sets}
    return [one.silo for one in report.scope.budgets if not one.protects and one.is_of(data_sets)]


def excepted(report: Report) -> list[str]:
    """Return, in sentences, for whom the claim does not hold."""
    claim, found = report.claim, list[str]()
    if report.mechanism.is_baseline:
        return ["Anybody: no noise was added."]
    if seeded(report):
        return ["Anybody: its noise was seeded."]
    unbounded = [one.silo for one in claim.silos if one.epsilon is None]
    if unbounded:
        found.append(f"Records of {words.listed(unbounded)}: no bound is computed for them.")
    match claim.unit:
        case "record":
            found.append("A person with several records is covered for one record at a time, not for all together.")
            found.append("A record that several silos hold is covered at each silo alone.")
        case "person":
            found.append("A person with records at several silos is covered at each silo alone, not for all together.")
        case _:
            found.append("Of a silo’s data beyond one client, nothing is promised.")
    return found


def _unmeasured(audit: Audit) -> list[tuple[str, str]]:
    """Return what was not checked, and at which silos."""
    silos: dict[str, list[str]] = {}
    for one in audit.unmeasured:
        silos.setdefault(one.name, []).append(one.silo or "all silos together")
    return [(words.name(key), words.listed(found)) for key, found in silos.items()]


def _rows(value: JsonValue) -> list[dict[str, JsonValue]]:
    """Return a list of objects as rows, nothing where it is anything else."""
    rows = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    return rows if isinstance(value, list) and len(rows) == len(value) else []


def _table(key: str, rows: list[dict[str, JsonValue]]) -> tuple[str, list[str], list[list[str]]]:
    """Return rows as a table: its key, its columns with the one that names a row first, and its cells as text."""
    columns = sorted(
        {column for row in rows for column in row}, key=lambda column: (column not in ("silo", "name"), column)
    )
    return key, [words.name(column) for column in columns], [[_plain(row.get(one)) for one in columns] for row in rows]


def _plain(value: JsonValue) -> str:
    """Return a value of a plan as text."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
