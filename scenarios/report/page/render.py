"""The report as one HTML page: a person's view of the document, that opens offline and fetches nothing.

The first page (`front`) is for whoever decides; all that it rests on is an annex behind it, folded on a screen and
printed whole. Sentences come from a catalogue (`catalogue`), figures are told by one function for each quantity
(`told`), and what the document itself says in sentences is quoted.

Guarantee: the page is made from its arguments alone, and the same ones give the same bytes. It has no script, and a
content security policy that admits none, nor anything from elsewhere. Every text of the document is escaped, whoever
wrote it: names of scenarios, purposes and reasons of overrides come from people; and no character of the page acts on
whoever looks at it or at its source (`fedmodel.system.inert`). A picture is data, none of it markup of the page. An
epsilon, a delta and noise are rounded up on it, lower bounds and power down. No lower bound stands on it as an
estimate, no audit as a proof.

Does NOT protect against whoever changes the page: what is signed is `report.json`, and the page's own hash in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import JsonValue

from fedmodel.privacy.events import NoiseSourceName, UnitName
from fedmodel.privacy.rounding import up
from fedmodel.system.inert import inert_lines
from scenarios.report.document import Audit, LedgerRun, Report, SiloBudget, SiloClaim
from scenarios.report.page.catalogue import DEFAULT, Catalogue, catalogue
from scenarios.report.page.figures import Figure, figures
from scenarios.report.page.front import front
from scenarios.report.page.odds import right_at_most
from scenarios.report.page.passive import beginning
from scenarios.report.page.pictures import framed
from scenarios.report.page.releases import KNOWN
from scenarios.report.page.standing import experiment, headless, late, least_power, seeded, strayed, unpromised
from scenarios.report.page.told import Told
from scenarios.runs import words
from scenarios.runs.explanation import Explanation

CONTENTS = (
    "claim", "purpose", "scope", "trust", "mechanism", "accounting", "usefulness", "not-protected", "audit",
    "integrity", "limits",
)  # fmt: skip
"""Parts of the annex, in order; the catalogue names them."""
_WRONG = (0.001, 0.01, 0.1)  # false alarms at which the claim is told as odds
_NOISE_FROM = {
    "os": "scope.noise_os",
    "seeded-unsafe": "scope.noise_seeded",
    "experiment": "scope.noise_experiment",
    None: "scope.noise_none",
}
_UNDEFINED = ("precision", "recall", "f1", "auroc")


def render(report: Report, pictures: Mapping[str, str] | None = None, said: Catalogue | None = None) -> str:
    """Return the whole page.

    Args:
        report: What it says.
        pictures: Reconstruction pictures to show with the audit, as an illustration: SVG of `plots.pictures_row`, by
            caption. What they say is their maker's word; the report is not asked. They go in as data (`framed`).
        said: Its sentences; by default in English.

    Raises:
        ValueError: When a picture is anything but such an SVG.
    """
    shown = {caption: framed(svg) for caption, svg in (pictures or {}).items()}  # refused before anything is drawn
    said = catalogue(DEFAULT) if said is None else said
    sheet = (resources.files("scenarios.report.page") / "page.css").read_text(encoding="utf-8")
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            front=front(report, said),
            beginning=Markup(beginning(said.language).rstrip()),  # noqa: S704 - a constant of this package
            css=Markup(sheet),  # noqa: S704 - a file of this package
            figures={key: _Shown(one) for key, one in figures(report, said).items()},
            pictures=shown,
            known=[one.name for one in KNOWN],
            baseline=report.mechanism.is_baseline,
            seeded=seeded(report),
            experiment=experiment(report),
            unpromised=unpromised(report),
            headless=headless(report),
            **_voice(said),
            **_of_claim(report, said),
            **_of_audit(report.audit, said),
            **_of_explanation(report.training.explanation, said),
        )
    )
    return inert_lines(re.sub(r"\n\s*\n+", "\n", page))


@cache
def _environment() -> Environment:
    """Return what makes pages of the templates, which it compiles once."""
    return Environment(
        loader=PackageLoader("scenarios.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _voice(said: Catalogue) -> dict[str, Any]:
    """Return what templates say and tell with."""
    told = Told(said)
    return {
        "say": said.say, "count": said.counted, "by_count": said.by_count, "listed": said.listed, "t": told,
        "moment": said.moment, "weights": words.weights, "name": partial(name, said=said),
        "headings": partial(_headings, said=said), "hides": partial(hides, said=said),
        "noise_from": partial(noise_from, said=said), "spent_of": partial(spent_of, said=said, told=told),
        "this_run": partial(this_run, said=said), "composed": partial(composed, said=said),
        "of_the_plan": partial(of_the_plan, said=said, told=told),
    }  # fmt: skip


def _of_claim(report: Report, said: Catalogue) -> dict[str, Any]:
    """Return what the parts on the claim, the purpose and the model's use show."""
    measured, purpose = report.training.figures, report.purpose
    prior = report.scope.prior_runs
    undefined = [f"usefulness.{key}" for key in _UNDEFINED if "accuracy" in measured and key not in measured]
    left_out = report.training.left_out
    return {
        "one_unit": said.plain(f"unit.one_{report.claim.unit}"),
        "others": said.counted(prior, "run") if prior else said.plain("claim.no_other"),
        "odds": odds(report, Told(said)),
        "early": list(early(report, said, Told(said))),
        "purpose": [
            (key, getattr(purpose, key))
            for key in ("statement", "controller", "contact", "legal_basis", "retention", "decision")
        ] if purpose else [],
        "undefined": [said.say(key) for key in undefined] if left_out is None else [
            said.say("usefulness.left_out", figure=name(one, said)) for one in left_out
        ],
        "libraries": Markup('<code>{}</code>').format(
            ", ".join(f"{library} {version}" for library, version in report.built.libraries.items())
        ),
        "seconds": up(report.run.seconds, 1),
    }  # fmt: skip


def _of_audit(audit: Audit | None, said: Catalogue) -> dict[str, Any]:
    """Return what the part on the audit shows; nothing of one that was not made."""
    if audit is None:
        return {}
    told, plan = Told(said), audit.plan
    significance = plan.get("significance")
    power, simulated = least_power(audit)
    show = partial(_plain, told=told)
    return {
        "reasons": [plainly(one, said) for one in audit.reasons],
        "failed_gauges": [one for one in audit.gauges if not one.passed],
        "late": late(audit),
        "least_power": power,
        "simulated": simulated,
        "strayed": strayed(audit),
        "significance": significance if isinstance(significance, float) else None,
        "unmeasured": _unmeasured(audit, said),
        "plan": [(key, show(key, value)) for key, value in sorted(plan.items()) if not _rows(value)],
        "plan_tables": [_table(key, rows, show) for key, value in sorted(plan.items()) if (rows := _rows(value))],
    }


def _of_explanation(explanation: Explanation | None, said: Catalogue) -> dict[str, Any]:
    """Return what is shown of how the model answers; nothing of one that was not explained."""
    if explanation is None:
        return {}
    parts = [
        said.plain("explained.left_out_of", n=number, column=column) for column, number in explanation.left_out.items()
    ]
    return {
        "group_columns": [f"#{name(key, said)}" for key in explanation.figures],
        "left_out_parts": said.listed(parts),
    }


class _Shown:
    """A figure whose SVG is not escaped again."""

    def __init__(self, figure: Figure) -> None:
        self.svg = Markup(figure.svg)  # noqa: S704 - drawn by this package, and escaped there
        self.title, self.caption = figure.title, figure.caption


def _headings(keys: Sequence[str], said: Catalogue) -> list[str]:
    """Return what columns are called; a # before a key stays, and says that its column holds figures."""
    return ["#" * key.startswith("#") + said.plain(f"col.{key.lstrip('#')}") for key in keys]


def name(key: str, said: Catalogue) -> str:
    """Return a key of the document as words; one that the catalogue does not know as it is."""
    return said.plain(f"names.{key}") if said.has(f"names.{key}") else key


def plainly(reason: str, said: Catalogue) -> str:
    """Return a reason with the checks' names in words, where it lists them after its last colon."""
    before, colon, after = reason.rpartition(": ")
    keys = after.split(", ")
    if not colon or not all(said.has(f"names.{key}") for key in keys):
        return reason
    return f"{before}: {', '.join(found[0].lower() + found[1:] for found in (name(key, said) for key in keys))}"


def hides(unit: UnitName, max_records: int, said: Catalogue) -> str:
    """Say whose presence is hidden."""
    return said.plain(f"unit.hides_{unit}", records=said.counted(max_records, "record"))


def noise_from(source: NoiseSourceName | None, said: Catalogue) -> str:
    """Say where noise was drawn from."""
    return said.plain(_NOISE_FROM[source])


def spent_of(budget: SiloBudget, said: Catalogue, told: Told) -> Markup:
    """Return what was spent of a cap, in figures and as a bar."""
    spent, cap = budget.spent, budget.cap
    if not budget.protects:
        bare = any(run.admitted == "none" for run in budget.runs)
        key = "scope.unbounded_bare" if bare else "scope.unbounded_seeded"
        return said.say(key, cap=told.epsilon(cap))
    share = 100 if spent is None else min(100, round(100 * spent / cap)) if cap else 100
    text = said.say("told.of", part=told.epsilon(spent), whole=told.epsilon(cap))
    return Markup('{} <span class="meter" aria-hidden="true"><i style="width:{}%"></i></span>').format(text, share)


def composed(epsilon: str, parts: int, said: Catalogue) -> str:
    """Say of an epsilon that it is of several parts, which is no sum of theirs."""
    return epsilon if parts <= 1 else said.say("told.composed", epsilon=epsilon, parts=parts)


def of_the_plan(claim: SiloClaim, said: Catalogue, told: Told) -> str:
    """Return how many steps of a plan were taken; where a run has other parts too, that they are of the plan."""
    steps = told.count(claim.steps)
    if claim.steps != claim.steps_reserved:
        steps = said.plain("told.of", part=steps, whole=told.count(claim.steps_reserved))
    return said.say("told.of_plan", steps=steps) if claim.parts > 1 else steps


def this_run(run: LedgerRun, said: Catalogue) -> Markup:
    """Return a run's number and its name, marked where it is the report's own."""
    shown = Markup('<code class="hash">{}</code>').format(run.run)
    if run.name is not None:
        shown += Markup(" <code>{}</code>").format(run.name)
    return shown + Markup(" <strong>{}</strong>").format(said.say("scope.this_run")) if run.this else shown


def early(report: Report, said: Catalogue, told: Told) -> Iterator[str]:
    """Go through what holds of silos that took fewer steps than they reserved; nothing where there are none."""
    short = [one for one in report.claim.silos if 0 < one.steps < one.steps_reserved]
    if not short or not report.claim.protects:
        return
    figures = [one.epsilon_of_steps_taken for one in short]
    alone = None if None in figures else max(one for one in figures if one is not None)
    yield said.say("claim.early", silos=said.listed([one.silo for one in short]), epsilon=told.epsilon(alone))
    read = [one.odometer for one in short if one.odometer is not None]
    if len(read) == len(short):
        epsilon, delta = max(one.epsilon for one in read), max(one.delta for one in read)
        yield said.say("claim.odometer", epsilon=told.epsilon(epsilon), delta=told.delta(delta))


def odds(report: Report, told: Told) -> list[tuple[str, str]]:
    """Return false alarms, and the most right ones with them by all that is known.

    Nothing is returned where the claim bounds nothing.
    """
    claim = report.claim
    if claim.epsilon is None or not claim.protects:
        return []
    return [
        (f"{wrong:.1%}".replace(".0", ""), told.share(right_at_most(wrong, claim.silos, report.accounting.silos)))
        for wrong in _WRONG
    ]


def _unmeasured(audit: Audit, said: Catalogue) -> list[tuple[str, str]]:
    """Return what was not checked, and at which silos."""
    silos: dict[str, list[str]] = {}
    for one in audit.unmeasured:
        silos.setdefault(one.name, []).append(one.silo or said.plain("audit.all_silos"))
    return [(name(key, said), said.listed(found)) for key, found in silos.items()]


def _rows(value: JsonValue) -> list[dict[str, JsonValue]]:
    """Return a list of objects as rows, nothing where it is anything else."""
    rows = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    return rows if isinstance(value, list) and len(rows) == len(value) else []


def _table(
    key: str, rows: list[dict[str, JsonValue]], show: Callable[[str, JsonValue], str]
) -> tuple[str, list[str], list[list[str]]]:
    """Return rows as a table: its key, its columns with the one that names a row first, and its cells as text."""
    columns = sorted(
        {column for row in rows for column in row}, key=lambda column: (column not in ("silo", "name"), column)
    )
    return key, columns, [[show(one, row.get(one)) for one in columns] for row in rows]


def _plain(key: str, value: JsonValue, told: Told) -> str:
    """Return a value of a plan as text, a figure as its quantity is told elsewhere."""
    if isinstance(value, float):
        tell = {"noise_multiplier": told.noise, "delta": told.delta, "sample_rate": told.rate,
                "epsilon": told.epsilon, "claimed_epsilon": told.epsilon, "significance": told.share,
                "least_power": told.share_at_least, "power": told.share_at_least}.get(key, told.measured)  # fmt: skip
        return str(tell(value))
    return value if isinstance(value, str) else json.dumps(_cut(value), sort_keys=True, ensure_ascii=False)


def _cut(value: JsonValue) -> JsonValue:
    """Return a value of a plan with its floats cut to four digits that count, wherever they stand in it."""
    if isinstance(value, dict):
        return {key: _cut(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_cut(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
