"""Which plots a report has, and what is said with each: a caption that tells how to read it, the same again in words.

Everything drawn is a figure of the document. A plot for which it has none is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedmodel.system.inert import inert
from scenarios.report.document import Audit, BudgetLine, Report
from scenarios.report.page import plots
from scenarios.report.page.catalogue import Catalogue
from scenarios.report.page.explained import drawn
from scenarios.report.page.told import Told
from scenarios.runs import words
from scenarios.runs.explanation import Explanation

# At most two of them are drawn, the first that were measured.
_LEARNED = ("loss", "accuracy", "auroc", "recall", "rmse", "perplexity", "label-accuracy", "token-accuracy")


@dataclass(frozen=True)
class Figure:
    """A plot and its caption.

    Attributes:
        svg: The plot.
        title: What it shows.
        caption: How to read it.
    """

    svg: str
    title: str
    caption: str


def figures(report: Report, said: Catalogue) -> dict[str, Figure]:
    """Return a report's plots by name, which are the ids of their SVG elements too."""
    found = {
        "plot-budget": _budget(report, said),
        "plot-delta": _delta(report, said),
        "plot-learning": _learning(report, said),
        **({} if report.audit is None else _of_audit(report.audit, said)),
        **({} if report.training.explanation is None else _of_explanation(report.training.explanation, said)),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _budget(report: Report, said: Catalogue) -> Figure | None:
    """Draw the budgets over time."""
    lines = [line for line in report.training.budgets if any(point.epsilon is not None for point in line.points)]
    if not lines:
        return None
    names = [line.silo for line in lines]
    labels = [
        inert(name if names.count(name) == 1 else said.plain("plot.label", silo=name, scope=line.scope))
        for name, line in zip(names, lines, strict=True)
    ]
    spent = [
        plots.Spent(label, [(words.when_of(point.time), point.epsilon, point.cap) for point in line.points])
        for label, line in zip(labels, lines, strict=True)
    ]
    title, left_out = said.plain("plot.budget"), len(lines) - plots.MOST_PANELS
    caption = [said.plain("plot.budget_read")]
    if any(line.points[-1].epsilon is None for line in lines):
        caption.append(said.plain("plot.budget_stops"))
    if left_out > 0:
        caption.append(said.plain("plot.budget_left_out", most=plots.MOST_PANELS, n=left_out))
    told = " ".join(_budget_in_words(label, line, said) for label, line in zip(labels, lines, strict=True))
    return Figure(plots.budget_over_time("plot-budget", spent, title, told, said), title, " ".join(caption))


def _budget_in_words(label: str, line: BudgetLine, said: Catalogue) -> str:
    """Say what one silo spent over time."""
    told, first, last = Told(said), line.points[0], line.points[-1]
    return said.plain(
        "plot.budget_said", label=label, last=told.epsilon(last.epsilon), cap=told.epsilon(last.cap),
        then=said.moment(last.time), first=told.epsilon(first.epsilon), start=said.moment(first.time),
    )  # fmt: skip


def _delta(report: Report, said: Catalogue) -> Figure | None:
    """Draw the privacy curve of the silo with the largest epsilon."""
    if not report.claim.protects:
        return None
    bounded = [(one.pld, one) for one in report.accounting.silos if one.pld is not None and one.curve]
    if not bounded:
        return None
    epsilon, silo = max(bounded, key=lambda pair: pair[0])
    told, curve = Told(said), [(point.epsilon, point.delta) for point in silo.curve]
    title = said.plain("plot.curve", silo=silo.silo)
    caption = said.plain("plot.curve_read", silo=silo.silo)
    some = [curve[place] for place in sorted({0, len(curve) // 2, len(curve) - 1})]
    points = "; ".join(
        said.plain("plot.curve_point", epsilon=told.epsilon(at), delta=told.delta(delta)) for at, delta in some
    )
    claim = {"epsilon": told.epsilon(epsilon), "delta": told.delta(silo.delta)}
    description = said.plain("plot.curve_said", points=points, **claim)
    svg = plots.delta_curve("plot-delta", curve, (epsilon, silo.delta), title, description, said)
    return Figure(svg, title, caption)


def _learning(report: Report, said: Catalogue) -> Figure | None:
    """Draw what the server measured over the rounds."""
    rounds, told = report.training.rounds, Told(said)
    measured = [key for key in _LEARNED if any(key in one.figures for one in rounds)][:2]
    if not measured:
        return None
    names = {key: said.plain(f"names.{key}") for key in measured}
    bare = report.mechanism.is_baseline
    title = said.plain("plot.learning_bare" if bare else "plot.learning", figures=said.listed(list(names.values())))
    caption = [said.plain("plot.learning_read")]
    if not bare:
        caption.append(said.plain("plot.learning_rough"))
    if failed := sum(one.failed for one in rounds):
        caption.append(said.plain("plot.learning_gap", rounds=said.counted(failed, "round")))
    curves, description = dict[str, list[float | None]](), []
    for key, name in names.items():
        values = curves[name] = [one.figures.get(key) for one in rounds]
        known = [(one.round, value) for one, value in zip(rounds, values, strict=True) if value is not None]
        (start, first), (end, last) = known[0], known[-1]
        ends = {"first": told.metric(key, first), "last": told.metric(key, last), "start": start, "end": end}
        description.append(said.plain("plot.learning_said", figure=name, **ends))
    numbers = [one.round for one in rounds]
    svg = plots.learning("plot-learning", numbers, curves, title, " ".join(description), said)
    return Figure(svg, title, " ".join(caption))


def _of_explanation(explanation: Explanation, said: Catalogue) -> dict[str, Figure]:
    """Return the plots of how the model answers."""
    return {one.name: Figure(one.as_svg(), one.title, one.caption) for one in drawn(explanation, said)}


def _of_audit(audit: Audit, said: Catalogue) -> dict[str, Figure | None]:
    """Return the plots of an audit."""
    return {"plot-bounds": _bounds(audit, said), "plot-scores": _scores(audit, said), "plot-roc": _roc(audit, said)}


def _bounds(audit: Audit, said: Catalogue) -> Figure | None:
    """Draw what each estimator left open."""
    if not audit.lower_bounds:
        return None
    claimed, told = audit.claimed_epsilon, Told(said)
    title, caption = said.plain("plot.bounds"), said.plain("plot.bounds_read")
    bars = [(_short(key, said), one.epsilon) for key, one in audit.lower_bounds.items()]
    description = [said.plain("plot.bounds_said", label=label, low=told.epsilon_at_least(low)) for label, low in bars]
    description.append(said.plain("plot.bounds_claim", claimed=told.epsilon(claimed)))
    return Figure(plots.bounds("plot-bounds", bars, claimed, title, " ".join(description), said), title, caption)


def _short(estimator: str, said: Catalogue) -> str:
    """Return an estimator's name for the margin of a plot; one that the catalogue does not know as it is."""
    return said.plain(f"short.{estimator}") if said.has(f"short.{estimator}") else estimator


def _scores(audit: Audit, said: Catalogue) -> Figure | None:
    """Draw the two histograms of scores."""
    included, excluded = audit.scores.included, audit.scores.excluded
    if not included or not excluded:
        return None
    title, caption = said.plain("plot.scores"), said.plain("plot.scores_read")
    description = said.plain(
        "plot.scores_said",
        included=said.counted(len(included), "canary"),
        mean=words.number(float(np.mean(included))),
        spread=words.number(float(np.std(included))),
        n=f"{len(excluded):,}",
        out_mean=words.number(float(np.mean(excluded))),
        out_spread=words.number(float(np.std(excluded))),
    )
    return Figure(plots.score_histograms("plot-scores", included, excluded, title, description, said), title, caption)


def _roc(audit: Audit, said: Catalogue) -> Figure | None:
    """Draw the attack's ROC and what the claim allows."""
    included, excluded, mu = audit.scores.included, audit.scores.excluded, audit.claimed_mu
    if not included or not excluded:
        return None
    independent = audit.plan.get("kind") == "probe"
    title, caption = said.plain("plot.roc"), [said.plain("plot.roc_read")]
    if mu is not None:
        caption += [said.plain("plot.roc_bound"), said.plain("plot.roc_band" if independent else "plot.roc_chance")]
    caption.append(said.plain("plot.roc_verdict"))
    false, true = plots.roc_points(included, excluded)
    rates = [0.01, 0.1, 0.5]
    found = [float(true[false <= rate].max()) for rate in rates]
    allowed = plots.gdp_allows(np.array(rates), mu).tolist() if mu else [None] * len(rates)
    description = " ".join(
        said.plain("plot.roc_said", rate=f"{rate:.0%}", share=f"{share:.0%}")
        if most is None
        else said.plain("plot.roc_said_most", rate=f"{rate:.0%}", share=f"{share:.0%}", most=f"{most:.0%}")
        for rate, share, most in zip(rates, found, allowed, strict=True)
    )
    svg = plots.roc("plot-roc", included, excluded, mu, independent, title, description, said)
    return Figure(svg, title, " ".join(caption))
